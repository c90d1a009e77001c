//! Every byte format of this crate except the log's own framing: log payloads, messages between
//! servers, rows of the state, the head and foot of a snapshot.
//!
//! Each encoded value begins with a format byte. Bodies are postcard: little, fast, and the same
//! on every machine.
//!
//! **Invariant:** bytes on disk and on the wire are a contract: a format number is never reused,
//! the golden bytes in the tests never change; decoding is bounded by the input's length, never
//! panics and leaves no byte unread.

pub(crate) mod peer;
pub(crate) mod record;
pub(crate) mod row;
pub(crate) mod snapshot;

use bytes::Bytes;
use scheduler_core::command::Entry;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Format number of everything but the core's values.
pub(crate) const FORMAT: u8 = 1;
/// Format number of what holds values of the core: entries and rows. 1 had jobs without rules among
/// their members, and nodes without countable resources. 2 has gained since, without a change to any
/// bytes that there were: scalings (an entry, a row) and absent replicas. A build that does not know
/// these reads everything else, and refuses them as a fault of the body.
pub(crate) const CORE_FORMAT: u8 = 2;

/// Why bytes could not be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("{what}: no bytes")]
    Empty { what: &'static str },
    #[error("{what}: format {found}, this build reads only {read}")]
    Format { what: &'static str, found: u8, read: u8 },
    #[error("{what}: kind {found} is unknown")]
    Kind { what: &'static str, found: u8 },
    #[error("{what}: {left} bytes too many")]
    Trailing { what: &'static str, left: usize },
    #[error("{what}: {why}")]
    Body { what: &'static str, why: String },
}

impl CodecError {
    pub(crate) fn body(what: &'static str, why: impl ToString) -> Self {
        Self::Body { what, why: why.to_string() }
    }
}

/// Format byte and postcard body.
pub(crate) fn encode<T: Serialize>(what: &'static str, value: &T) -> Result<Vec<u8>, CodecError> {
    encode_as(FORMAT, what, value)
}

fn encode_as<T: Serialize>(
    format: u8,
    what: &'static str,
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(value, vec![format]).map_err(|error| CodecError::body(what, error))
}

/// The opposite of [`encode`]; nothing may follow the body.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    decode_as(FORMAT, what, bytes)
}

fn decode_as<T: DeserializeOwned>(
    format: u8,
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let (value, rest) = decode_first(what, checked(format, what, bytes)?)?;
    match rest.len() {
        0 => Ok(value),
        left => Err(CodecError::Trailing { what, left }),
    }
}

/// Checks and drops the format byte.
fn checked<'a>(format: u8, what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty { what }),
        Some((&found, rest)) if found == format => Ok(rest),
        Some((&found, _)) => Err(CodecError::Format { what, found, read: format }),
    }
}

/// A postcard body at the front of bytes, and what follows it.
fn decode_first<'a, T: DeserializeOwned>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), CodecError> {
    postcard::take_from_bytes(bytes).map_err(|error| CodecError::body(what, error))
}

/// The entries of one record.
pub(crate) fn encode_entries(entries: &[Entry]) -> Result<Bytes, CodecError> {
    encode_as(CORE_FORMAT, "entries", &entries).map(Bytes::from)
}

/// The opposite of [`encode_entries`].
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, CodecError> {
    decode_as(CORE_FORMAT, "entries", bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::command::{Actor, Command};
    use scheduler_core::id::JobId;
    use scheduler_core::unit::TimeMs;

    pub(super) fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn entries_have_these_bytes() {
        let command = Command::Expire { jobs: vec![JobId(300)], forget: Vec::new() };
        let entry = Entry { at: TimeMs(1_000), by: Actor::System, command };
        let bytes = encode_entries(std::slice::from_ref(&entry)).expect("encodes");
        assert_eq!(hex(&bytes), "0201e807000a01ac0200");
        assert_eq!(entries(&bytes), Ok(vec![entry]));
    }

    /// What format 2 gained later: new kinds beside the old ones, whose bytes are as they were.
    #[test]
    fn scalings_have_these_bytes() {
        use scheduler_core::command::Scale;
        use scheduler_core::fixture::entry::{World, group, job_spec, name, plan, submit};
        let request_id = "s-1".into();
        let asked =
            Scale { job: JobId(1), group: name("w"), replicas: 2, expected: Some(1), request_id };
        let command = Command::Scale(asked);
        let entry = [Entry { at: TimeMs(1), by: Actor::System, command: command.clone() }];
        let bytes = encode_entries(&entry).expect("encodes");
        assert_eq!(hex(&bytes), "020101000e01017702010103732d31");
        assert_eq!(entries(&bytes).as_deref(), Ok(&entry[..]));

        let mut world = World::with_nodes(1, 8);
        let mut spec = job_spec(vec![group("w", 1, 8)]);
        spec.groups[0].replicas_max = 3;
        world.submit(submit("r", spec, Some(plan(&[(0, 0xff)]))));
        world.done(command);
        let key = scheduler_core::state::RowKey::Scalings(JobId(1));
        let scaling = world.state.row(&key).expect("was scaled");
        let bytes = row::encode_row(&scaling).expect("encodes");
        assert_eq!(hex(&bytes), "0207010103732d310002010101");
        assert_eq!(row::row(&bytes), Ok(scaling));
    }

    /// Values of the core in which nothing has its default, by length and hash of their bytes:
    /// whoever changes their shape must raise [`CORE_FORMAT`].
    #[test]
    fn values_of_the_core_have_these_bytes() {
        use scheduler_core::fixture::entry::{World, full_job, full_node, register, submit};
        let pin = |bytes: &[u8]| {
            let mut hasher = scheduler_core::hash::Hasher::new();
            std::hash::Hasher::write(&mut hasher, bytes);
            (bytes.len(), format!("{:032x}", hasher.finish128()))
        };
        let command = |command| Entry { at: TimeMs(1), by: Actor::Operator, command };
        let of_job = [command(Command::Submit(submit("request-1", full_job(), None)))];
        let of_node = [command(register(full_node("n1")))];
        let mut world = World::new();
        world.join(full_node("n1"));
        let key = scheduler_core::state::RowKey::Nodes(0);
        let node = world.state.row(&key).expect("has a node");
        let encoded = [
            encode_entries(&of_job).expect("encodes").to_vec(),
            encode_entries(&of_node).expect("encodes").to_vec(),
            row::encode_row(&node).expect("encodes"),
        ];
        let pins = encoded.each_ref().map(|bytes| pin(bytes));
        assert_eq!(entries(&encoded[0]).as_deref(), Ok(&of_job[..]));
        assert_eq!(entries(&encoded[1]).as_deref(), Ok(&of_node[..]));
        assert_eq!(row::row(&encoded[2]), Ok(node));
        assert_eq!(
            pins.map(|(len, hash)| format!("{len} {hash}")),
            [
                "232 b5050a0676ea938da138efda4aa31b29",
                "140 8fa1aab6a6d196abce59dded086b2007",
                "142 b12775c933f2ac253c4855f43823d1ca",
            ]
        );
    }

    #[test]
    fn bad_bytes_are_refused_with_their_fault() {
        assert_eq!(entries(b""), Err(CodecError::Empty { what: "entries" }));
        for found in [1, 9] {
            let refusal = CodecError::Format { what: "entries", found, read: CORE_FORMAT };
            assert_eq!(entries(&[found, 0]), Err(refusal));
        }
        assert_eq!(entries(&[2, 0, 7]), Err(CodecError::Trailing { what: "entries", left: 1 }));
        // A length of 2^60 entries must not be believed.
        let absurd = [2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
        assert!(matches!(entries(&absurd), Err(CodecError::Body { .. })));
    }
}
