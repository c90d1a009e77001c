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

/// Format number of everything written by this build.
pub(crate) const FORMAT: u8 = 1;

/// Why bytes could not be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("{what}: no bytes")]
    Empty { what: &'static str },
    #[error("{what}: format {found}, this build reads only {FORMAT}")]
    Format { what: &'static str, found: u8 },
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
    postcard::to_extend(value, vec![FORMAT]).map_err(|error| CodecError::body(what, error))
}

/// The opposite of [`encode`]; nothing may follow the body.
pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    bytes: &[u8],
) -> Result<T, CodecError> {
    let (value, rest) = decode_first(what, checked(what, bytes)?)?;
    match rest.len() {
        0 => Ok(value),
        left => Err(CodecError::Trailing { what, left }),
    }
}

/// Checks and drops the format byte.
fn checked<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8], CodecError> {
    match bytes.split_first() {
        None => Err(CodecError::Empty { what }),
        Some((&FORMAT, rest)) => Ok(rest),
        Some((&found, _)) => Err(CodecError::Format { what, found }),
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
    encode("entries", &entries).map(Bytes::from)
}

/// The opposite of [`encode_entries`].
pub(crate) fn entries(bytes: &[u8]) -> Result<Vec<Entry>, CodecError> {
    decode("entries", bytes)
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
        assert_eq!(hex(&bytes), "0101e807000a01ac0200");
        assert_eq!(entries(&bytes), Ok(vec![entry]));
    }

    #[test]
    fn bad_bytes_are_refused_with_their_fault() {
        assert_eq!(entries(b""), Err(CodecError::Empty { what: "entries" }));
        let found = 9;
        assert_eq!(entries(&[9, 0]), Err(CodecError::Format { what: "entries", found }));
        assert_eq!(entries(&[1, 0, 7]), Err(CodecError::Trailing { what: "entries", left: 1 }));
        // A length of 2^60 entries must not be believed.
        let absurd = [1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
        assert!(matches!(entries(&absurd), Err(CodecError::Body { .. })));
    }
}
