//! Messages between servers.
//!
//! A message is a head of [`HEAD_BYTES`] — format, kind, fingerprint of the cluster, sender,
//! receiver — and a body by kind. So a server that answers on an address that used to be another
//! one's, or that belongs to another cluster, refuses before anything is believed.
//!
//! **Invariant:** kinds are never reused; an answer repeats its question's kind with the top bit
//! set; entries in a frame are slices of it, not copies.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError,
    StreamAppendResult, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use serde::{Deserialize, Serialize};

use super::record::{self, VoteBytes};
use super::{CodecError, FORMAT, decode_first};
use crate::log::LogPosition;
use crate::raft::types::{Entry, LogId, Types, to_log_id, to_position};

/// Bytes before every body.
pub(crate) const HEAD_BYTES: usize = 26;
/// Set in the kind of an answer.
const ANSWER: u8 = 0x80;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Vote = 1,
    PreVote = 2,
    TransferLeader = 3,
    Heartbeat = 4,
    Append = 5,
    SnapshotBegin = 6,
    SnapshotChunk = 7,
}

impl Kind {
    fn of(byte: u8) -> Result<Self, CodecError> {
        Ok(match byte {
            1 => Self::Vote,
            2 => Self::PreVote,
            3 => Self::TransferLeader,
            4 => Self::Heartbeat,
            5 => Self::Append,
            6 => Self::SnapshotBegin,
            7 => Self::SnapshotChunk,
            found => return Err(CodecError::Kind { what: "message", found }),
        })
    }
}

/// From whom to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// [`fingerprint`] of the cluster's name.
    pub(crate) cluster: u64,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// 64-bit FNV-1a of a cluster's name: tells clusters apart, protects against mistakes, not
/// against attackers (the transport authenticates its peers).
pub(crate) fn fingerprint(cluster_id: &str) -> u64 {
    cluster_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn head(kind: Kind, route: Route, capacity: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(HEAD_BYTES + capacity);
    buffer.put_u8(FORMAT);
    buffer.put_u8(kind as u8);
    buffer.put_u64_le(route.cluster);
    buffer.put_u64_le(route.from);
    buffer.put_u64_le(route.to);
    buffer
}

/// Kind, route and body of a message.
pub(crate) fn open(message: &Bytes) -> Result<(Kind, Route, Bytes), CodecError> {
    let what = "message";
    let Some((head, _)) = message.split_first_chunk::<HEAD_BYTES>() else {
        return Err(CodecError::Empty { what });
    };
    if head[0] != FORMAT {
        return Err(CodecError::Format { what, found: head[0], read: FORMAT });
    }
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&head[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    let route = Route { cluster: number(2), from: number(10), to: number(18) };
    Ok((Kind::of(head[1])?, route, message.slice(HEAD_BYTES..)))
}

fn put<T: Serialize>(
    buffer: BytesMut,
    what: &'static str,
    body: &T,
) -> Result<BytesMut, CodecError> {
    postcard::to_extend(body, buffer).map_err(|error| CodecError::body(what, error))
}

fn message<T: Serialize>(kind: Kind, route: Route, body: &T) -> Result<Bytes, CodecError> {
    Ok(put(head(kind, route, 64), "message", body)?.freeze())
}

fn whole<T: serde::de::DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let (value, rest) = decode_first(what, bytes)?;
    match rest.len() {
        0 => Ok(value),
        left => Err(CodecError::Trailing { what, left }),
    }
}

fn answer<T: Serialize>(kind: Kind, body: &T) -> Result<Bytes, CodecError> {
    let mut buffer = BytesMut::with_capacity(64);
    buffer.put_slice(&[FORMAT, kind as u8 | ANSWER]);
    Ok(put(buffer, "answer", body)?.freeze())
}

fn answered<T: serde::de::DeserializeOwned>(kind: Kind, bytes: &[u8]) -> Result<T, CodecError> {
    let what = "answer";
    match bytes {
        [FORMAT, found, body @ ..] if *found == kind as u8 | ANSWER => whole(what, body),
        [FORMAT, found, ..] => Err(CodecError::Kind { what, found: *found }),
        [found, _, ..] => Err(CodecError::Format { what, found: *found, read: FORMAT }),
        _ => Err(CodecError::Empty { what }),
    }
}

fn position(id: &Option<LogId>) -> Option<LogPosition> {
    id.as_ref().map(to_position)
}

// ---- votes ---------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct VoteAsk {
    vote: VoteBytes,
    last: Option<LogPosition>,
    transfer: bool,
}

#[derive(Serialize, Deserialize)]
struct VoteAnswer {
    vote: VoteBytes,
    granted: bool,
    last: Option<LogPosition>,
}

pub(crate) fn vote_ask(
    kind: Kind,
    route: Route,
    ask: &VoteRequest<Types>,
) -> Result<Bytes, CodecError> {
    let last = position(&ask.last_log_id);
    let vote = VoteBytes::of(&ask.vote);
    message(kind, route, &VoteAsk { vote, last, transfer: ask.leadership_transfer })
}

pub(crate) fn vote_asked(body: &[u8]) -> Result<VoteRequest<Types>, CodecError> {
    let ask: VoteAsk = whole("vote", body)?;
    let mut request = VoteRequest::new(ask.vote.vote(), ask.last.map(to_log_id));
    request.leadership_transfer = ask.transfer;
    Ok(request)
}

pub(crate) fn vote_answer(kind: Kind, said: &VoteResponse<Types>) -> Result<Bytes, CodecError> {
    let vote = VoteBytes::of(&said.vote);
    let last = position(&said.last_log_id);
    answer(kind, &VoteAnswer { vote, granted: said.vote_granted, last })
}

pub(crate) fn vote_answered(kind: Kind, bytes: &[u8]) -> Result<VoteResponse<Types>, CodecError> {
    let said: VoteAnswer = answered(kind, bytes)?;
    Ok(VoteResponse {
        vote: said.vote.vote(),
        vote_granted: said.granted,
        last_log_id: said.last.map(to_log_id),
    })
}

// ---- leader transfer -------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct TransferAsk {
    from: VoteBytes,
    to: u64,
    last: Option<LogPosition>,
}

#[derive(Serialize, Deserialize)]
enum TransferAnswer {
    Done,
    VoteChanged { expected: VoteBytes, actual: VoteBytes },
    LogNotFlushed { expected: Option<LogPosition>, actual: Option<LogPosition> },
}

pub(crate) fn transfer_ask(
    route: Route,
    ask: &TransferLeaderRequest<Types>,
) -> Result<Bytes, CodecError> {
    let from = VoteBytes::of(ask.from_leader());
    let last = ask.last_log_id().map(to_position);
    message(Kind::TransferLeader, route, &TransferAsk { from, to: *ask.to_node_id(), last })
}

pub(crate) fn transfer_asked(body: &[u8]) -> Result<TransferLeaderRequest<Types>, CodecError> {
    let ask: TransferAsk = whole("leader transfer", body)?;
    Ok(TransferLeaderRequest::new(ask.from.vote(), ask.to, ask.last.map(to_log_id)))
}

pub(crate) fn transfer_answer(said: &TransferLeaderResponse<Types>) -> Result<Bytes, CodecError> {
    let said = match said {
        Ok(()) => TransferAnswer::Done,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => TransferAnswer::VoteChanged {
            expected: VoteBytes::of(expected),
            actual: VoteBytes::of(actual),
        },
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            TransferAnswer::LogNotFlushed { expected: position(expected), actual: position(actual) }
        }
    };
    answer(Kind::TransferLeader, &said)
}

pub(crate) fn transfer_answered(bytes: &[u8]) -> Result<TransferLeaderResponse<Types>, CodecError> {
    Ok(match answered(Kind::TransferLeader, bytes)? {
        TransferAnswer::Done => Ok(()),
        TransferAnswer::VoteChanged { expected, actual } => Err(TransferLeaderError::VoteChanged {
            expected: expected.vote(),
            actual: actual.vote(),
        }),
        TransferAnswer::LogNotFlushed { expected, actual } => {
            Err(TransferLeaderError::LogNotFlushed {
                expected: expected.map(to_log_id),
                actual: actual.map(to_log_id),
            })
        }
    })
}

// ---- log frames ------------------------------------------------------------------------------

#[derive(Serialize, Deserialize)]
struct AppendHead {
    vote: VoteBytes,
    prev: Option<LogPosition>,
    commit: Option<LogPosition>,
    entries: u32,
}

#[derive(Serialize, Deserialize)]
struct EntryHead {
    at: LogPosition,
    kind: u8,
    bytes: u32,
}

/// What the receiver made of a frame.
#[derive(Serialize, Deserialize)]
enum AppendAnswer {
    Matched(Option<LogPosition>),
    Conflict(LogPosition),
    HigherVote(VoteBytes),
}

pub(crate) fn append_ask(
    kind: Kind,
    route: Route,
    ask: &AppendEntriesRequest<Types>,
) -> Result<Bytes, CodecError> {
    let what = "log frame";
    let payload = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(batch) => batch.0.len(),
        _ => 256,
    };
    let capacity = ask.entries.iter().map(|entry| 48 + payload(entry)).sum::<usize>() + 96;
    let head_of = AppendHead {
        vote: VoteBytes::of(&ask.vote),
        prev: position(&ask.prev_log_id),
        commit: position(&ask.leader_commit),
        entries: u32::try_from(ask.entries.len()).map_err(|error| CodecError::body(what, error))?,
    };
    let mut buffer = put(head(kind, route, capacity), what, &head_of)?;
    for entry in &ask.entries {
        let (kind, payload) = record::encode_payload(&entry.payload)?;
        let bytes = u32::try_from(payload.len()).map_err(|error| CodecError::body(what, error))?;
        let at = to_position(&entry.log_id);
        buffer = put(buffer, what, &EntryHead { at, kind, bytes })?;
        buffer.put_slice(&payload);
    }
    Ok(buffer.freeze())
}

pub(crate) fn append_asked(body: &Bytes) -> Result<AppendEntriesRequest<Types>, CodecError> {
    let what = "log frame";
    let (head, mut rest): (AppendHead, &[u8]) = decode_first(what, body)?;
    let mut entries = Vec::new();
    for _ in 0..head.entries {
        let (entry, after): (EntryHead, &[u8]) = decode_first(what, rest)?;
        let Some((payload, after)) = after.split_at_checked(entry.bytes as usize) else {
            return Err(CodecError::body(what, "a record is cut short"));
        };
        let payload = record::payload(entry.kind, &body.slice_ref(payload))?;
        entries.push(Entry { log_id: to_log_id(entry.at), payload });
        rest = after;
    }
    if !rest.is_empty() {
        return Err(CodecError::Trailing { what, left: rest.len() });
    }
    check_consecutive(head.prev, &entries)?;
    Ok(AppendEntriesRequest {
        vote: head.vote.vote(),
        prev_log_id: head.prev.map(to_log_id),
        entries,
        leader_commit: head.commit.map(to_log_id),
    })
}

/// The consensus library trusts that a frame has no hole; a sender must not be able to break it.
fn check_consecutive(prev: Option<LogPosition>, entries: &[Entry]) -> Result<(), CodecError> {
    let mut next = prev.map_or(0, |prev| prev.index.saturating_add(1));
    for entry in entries {
        if entry.log_id.index != next {
            let why = format!("record {} where {next} was expected", entry.log_id.index);
            return Err(CodecError::body("log frame", why));
        }
        next = next.saturating_add(1);
    }
    Ok(())
}

/// Answer to a frame of the pipelined stream.
pub(crate) fn append_answer(said: &StreamAppendResult<Types>) -> Result<Bytes, CodecError> {
    let said = match said {
        Ok(matched) => AppendAnswer::Matched(position(matched)),
        Err(StreamAppendError::Conflict(at)) => AppendAnswer::Conflict(to_position(at)),
        Err(StreamAppendError::HigherVote(vote)) => AppendAnswer::HigherVote(VoteBytes::of(vote)),
    };
    answer(Kind::Append, &said)
}

pub(crate) fn append_answered(bytes: &[u8]) -> Result<StreamAppendResult<Types>, CodecError> {
    Ok(match answered(Kind::Append, bytes)? {
        AppendAnswer::Matched(at) => Ok(at.map(to_log_id)),
        AppendAnswer::Conflict(at) => Err(StreamAppendError::Conflict(to_log_id(at))),
        AppendAnswer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote.vote())),
    })
}

/// Turns the library's unary answer into the stream's; `None` when it makes no sense.
pub(crate) fn heartbeat_result(
    said: AppendEntriesResponse<Types>,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Option<StreamAppendResult<Types>> {
    // A conflict with nothing cannot be; the library would panic on it.
    if matches!(said, AppendEntriesResponse::Conflict) && prev.is_none() {
        return None;
    }
    Some(said.into_stream_result(prev, last))
}

// ---- snapshots -------------------------------------------------------------------------------

/// The first frame of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotBegin {
    pub(crate) vote: VoteBytes,
    /// Size of the file that follows.
    pub(crate) bytes: u64,
}

pub(crate) fn snapshot_begin(route: Route, begin: &SnapshotBegin) -> Result<Bytes, CodecError> {
    message(Kind::SnapshotBegin, route, begin)
}

pub(crate) fn snapshot_begun(body: &[u8]) -> Result<SnapshotBegin, CodecError> {
    whole("snapshot", body)
}

/// A piece of the file behind a message's head.
pub(crate) fn snapshot_chunk(route: Route, chunk: &[u8]) -> Bytes {
    let mut buffer = head(Kind::SnapshotChunk, route, chunk.len());
    buffer.put_slice(chunk);
    buffer.freeze()
}

pub(crate) fn snapshot_answer(said: &SnapshotResponse<Types>) -> Result<Bytes, CodecError> {
    answer(Kind::SnapshotBegin, &VoteBytes::of(&said.vote))
}

pub(crate) fn snapshot_answered(bytes: &[u8]) -> Result<SnapshotResponse<Types>, CodecError> {
    let vote: VoteBytes = answered(Kind::SnapshotBegin, bytes)?;
    Ok(SnapshotResponse::new(vote.vote()))
}

#[cfg(test)]
mod tests;
