//! Rows of the state and their keys, as the mirror and the snapshots hold them.
//!
//! Jobs of one row share their heads; other rows are written as they are.
//!
//! **Invariant:** the encoding of a key is never the beginning of another key's, so a key may be
//! followed by anything.

use std::sync::Arc;

use scheduler_core::id::JobId;
use scheduler_core::job::{Job, JobPhase, Reason, Replica};
use scheduler_core::state::{JobRow, Row, RowKey};
use scheduler_core::unit::TimeMs;
use serde::{Deserialize, Serialize};

use super::heads::{self, Head, HeadsOut};
use super::{CodecError, PACKED_FORMAT, PLAIN_FORMAT, decode_as, decode_first, encode_into};

const WHAT: &str = "row";
/// Bytes of most rows, at most.
const ROW_BYTES: usize = 2048;

/// Jobs of one row: borrowed where they are written, owned where they are read.
#[derive(Serialize, Deserialize)]
struct Packed<Heads, Text, Why, Replicas> {
    page: u64,
    heads: Heads,
    jobs: Vec<PackedJob<Text, Why, Replicas>>,
}

#[derive(Serialize, Deserialize)]
struct PackedJob<Text, Why, Replicas> {
    head: u32,
    id: JobId,
    request_id: Text,
    phase: JobPhase,
    /// Left out where there is nothing to tell.
    reason: Option<Why>,
    submitted_at: TimeMs,
    placed_at: Option<TimeMs>,
    ready_at: Option<TimeMs>,
    ended_at: Option<TimeMs>,
    modified_index: u64,
    token: [u8; 16],
    preemptions: u32,
    replicas: Replicas,
}

type JobOut<'a> = PackedJob<&'a str, &'a Reason, &'a [Replica]>;
type JobIn = PackedJob<Arc<str>, Reason, Vec<Replica>>;
type JobsIn = Packed<Vec<Head>, Arc<str>, Reason, Vec<Replica>>;

pub(crate) fn encode_row(row: &Row) -> Result<Vec<u8>, CodecError> {
    let bytes = Vec::with_capacity(ROW_BYTES);
    let Row::Jobs(page, rows) = row else {
        return encode_into(bytes, PLAIN_FORMAT, WHAT, row);
    };
    let mut heads = HeadsOut::default();
    let jobs = rows.iter().map(|row| pack(&mut heads, row)).collect::<Result<Vec<_>, _>>()?;
    let packed = Packed { page: *page, heads: &heads.list, jobs };
    encode_into(bytes, PACKED_FORMAT, WHAT, &packed)
}

fn pack<'a>(heads: &mut HeadsOut<'a>, row: &'a JobRow) -> Result<JobOut<'a>, CodecError> {
    let job: &Job = &row.job;
    Ok(PackedJob {
        head: heads.number(&job.tenant, job.body_digest, &job.spec)?,
        id: job.id,
        request_id: &job.request_id,
        phase: job.phase,
        reason: (job.reason != Reason::default()).then_some(&job.reason),
        submitted_at: job.submitted_at,
        placed_at: job.placed_at,
        ready_at: job.ready_at,
        ended_at: job.ended_at,
        modified_index: job.modified_index,
        token: job.token.to_le_bytes(),
        preemptions: job.preemptions,
        replicas: &row.replicas,
    })
}

/// The opposite of [`encode_row`].
pub(crate) fn row(bytes: &[u8]) -> Result<Row, CodecError> {
    if bytes.first() == Some(&PLAIN_FORMAT) {
        return decode_as(PLAIN_FORMAT, WHAT, bytes);
    }
    let JobsIn { page, heads, jobs } = decode_as(PACKED_FORMAT, WHAT, bytes)?;
    let rows = jobs.into_iter().map(|job| unpack(&heads, job)).collect::<Result<_, _>>()?;
    Ok(Row::Jobs(page, rows))
}

fn unpack(heads: &[Head], packed: JobIn) -> Result<JobRow, CodecError> {
    let head = heads::find(WHAT, heads, packed.head)?;
    let job = Job {
        id: packed.id,
        tenant: head.tenant.clone(),
        request_id: packed.request_id,
        body_digest: head.body_digest(),
        spec: Arc::clone(&head.spec),
        phase: packed.phase,
        reason: packed.reason.unwrap_or_default(),
        submitted_at: packed.submitted_at,
        placed_at: packed.placed_at,
        ready_at: packed.ready_at,
        ended_at: packed.ended_at,
        modified_index: packed.modified_index,
        token: u128::from_le_bytes(packed.token),
        preemptions: packed.preemptions,
    };
    Ok(JobRow { job: Arc::new(job), replicas: packed.replicas })
}

/// Appends the bytes of a key to a prefix.
pub(crate) fn encode_key(prefix: Vec<u8>, key: &RowKey) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(key, prefix).map_err(|error| CodecError::body("row key", error))
}

/// A key at the front of bytes, and what follows it.
pub(crate) fn key(bytes: &[u8]) -> Result<(RowKey, &[u8]), CodecError> {
    decode_first("row key", bytes)
}
