//! Entries of one log record.
//!
//! Submissions, by far the most of them, share their heads; all else is written as it is, and so are
//! those few that take from running jobs.
//!
//! **Invariant:** what is read is what was written, in the same order.

use std::sync::Arc;

use bytes::Bytes;
use scheduler_core::command::{Actor, Command, Entry, Plan, Submit};
use scheduler_core::job::Reason;
use scheduler_core::unit::TimeMs;
use serde::{Deserialize, Serialize};

use super::heads::{self, Head, HeadOut, HeadsOut};
use super::{CodecError, PACKED_FORMAT, TAKING_FORMAT, decode_as, encode_into};

const WHAT: &str = "entries";
/// Bytes of one submission without its head, roughly.
const SUBMISSION_BYTES: usize = 64;
/// Bytes of one head, roughly.
const HEAD_BYTES: usize = 256;

#[derive(Serialize)]
struct PackedOut<'a> {
    heads: &'a [HeadOut<'a>],
    items: Vec<ItemOut<'a>>,
}

#[derive(Serialize)]
enum ItemOut<'a> {
    Submit {
        head: u32,
        at: TimeMs,
        by: ByOut<'a>,
        request_id: &'a str,
        token: [u8; 16],
        plan: &'a Option<Plan>,
        reason: Option<&'a Reason>,
    },
    Other(&'a Entry),
}

#[derive(Serialize)]
enum ByOut<'a> {
    Tenant,
    Other(&'a Actor),
}

#[derive(Deserialize)]
struct Packed {
    heads: Vec<Head>,
    items: Vec<Item>,
}

#[derive(Deserialize)]
enum Item {
    Submit {
        head: u32,
        at: TimeMs,
        by: By,
        request_id: Arc<str>,
        token: [u8; 16],
        plan: Option<Plan>,
        /// Left out where there is nothing to tell.
        reason: Option<Reason>,
    },
    Other(Entry),
}

#[derive(Deserialize)]
enum By {
    /// The tenant itself.
    Tenant,
    Other(Actor),
}

/// The entries of one record.
pub(crate) fn encode_entries(entries: &[Entry]) -> Result<Bytes, CodecError> {
    let (mut heads, mut bytes, mut takes) = (HeadsOut::default(), 0, false);
    let mut items = Vec::with_capacity(entries.len());
    for entry in entries {
        let submit = match &entry.command {
            Command::Submit(submit) if submit.victims.is_empty() => submit,
            command => {
                takes |= matches!(command, Command::Submit(_));
                items.push(ItemOut::Other(entry));
                continue;
            }
        };
        let Submit { tenant, request_id, body_digest, spec, token, plan, victims: _, reason } =
            submit;
        let is_own = matches!(&entry.by, Actor::Tenant(own) if own == tenant);
        bytes += SUBMISSION_BYTES + request_id.len();
        items.push(ItemOut::Submit {
            head: heads.number(tenant, *body_digest, spec)?,
            at: entry.at,
            by: if is_own { ByOut::Tenant } else { ByOut::Other(&entry.by) },
            request_id,
            token: token.to_le_bytes(),
            plan,
            reason: (*reason != Reason::default()).then_some(reason),
        });
    }
    let bytes = Vec::with_capacity(bytes + heads.list.len() * HEAD_BYTES);
    let format = if takes { TAKING_FORMAT } else { PACKED_FORMAT };
    encode_into(bytes, format, WHAT, &PackedOut { heads: &heads.list, items }).map(Bytes::from)
}

/// The opposite of [`encode_entries`].
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, CodecError> {
    let format = if bytes.first() == Some(&TAKING_FORMAT) { TAKING_FORMAT } else { PACKED_FORMAT };
    let Packed { heads, items } = decode_as(format, WHAT, bytes)?;
    items.into_iter().map(|item| unpack(&heads, item)).collect()
}

fn unpack(heads: &[Head], item: Item) -> Result<Entry, CodecError> {
    let (head, at, by, request_id, token, plan, reason) = match item {
        Item::Other(entry) => return Ok(entry),
        Item::Submit { head, at, by, request_id, token, plan, reason } => {
            (heads::find(WHAT, heads, head)?, at, by, request_id, token, plan, reason)
        }
    };
    let by = match by {
        By::Tenant => Actor::Tenant(head.tenant.clone()),
        By::Other(actor) => actor,
    };
    let command = Command::Submit(Submit {
        tenant: head.tenant.clone(),
        request_id,
        body_digest: head.body_digest(),
        spec: Arc::clone(&head.spec),
        token: u128::from_le_bytes(token),
        plan,
        victims: Vec::new(),
        reason: reason.unwrap_or_default(),
    });
    Ok(Entry { at, by, command })
}
