//! Every byte format of this crate except the log's own framing: log payloads, messages between
//! servers, rows of the state, the head and foot of a snapshot.
//!
//! Each encoded value begins with a format byte. Bodies are postcard: little, fast, and the same
//! on every machine.
//!
//! **Invariant:** bytes on disk and on the wire are a contract: a format number is never reused,
//! the golden bytes in the tests never change; decoding is bounded by the input's length, never
//! panics and leaves no byte unread.

mod entry;
mod heads;
pub(crate) mod peer;
pub(crate) mod record;
pub(crate) mod row;
pub(crate) mod snapshot;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use entry::{encode_entries, entries};

/// Format number of everything but the core's values.
pub(crate) const FORMAT: u8 = 1;
/// Format number of rows of the core's values but jobs. 2 had tenants without a highest priority; 5
/// is one of entries and jobs.
pub(crate) const PLAIN_FORMAT: u8 = 4;
/// Format number of entries, and of rows of jobs, which share what jobs have in common. 3 had jobs
/// without priorities, times, order of starting and repair, 5 without preemption and bounds on the
/// price per hour and on domains.
pub(crate) const PACKED_FORMAT: u8 = 6;
/// Format number of entries of which some submission takes from running jobs, which builds that
/// write 6 alone do not know of; all else is as in 6.
pub(crate) const TAKING_FORMAT: u8 = 7;

/// Why bytes could not be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("{what}: no bytes")]
    Empty { what: &'static str },
    #[error("{what}: format {found}, this build reads {read}")]
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
    encode_into(Vec::new(), FORMAT, what, value)
}

/// As [`encode`], into an empty buffer.
fn encode_into<T: Serialize>(
    mut buffer: Vec<u8>,
    format: u8,
    what: &'static str,
    value: &T,
) -> Result<Vec<u8>, CodecError> {
    buffer.push(format);
    postcard::to_extend(value, buffer).map_err(|error| CodecError::body(what, error))
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

#[cfg(test)]
mod tests;
