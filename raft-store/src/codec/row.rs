//! Rows of the state and their keys, as the mirror and the snapshots hold them.
//!
//! **Invariant:** the encoding of a key is never the beginning of another key's, so a key may be
//! followed by anything.

use scheduler_core::state::{Row, RowKey};

use super::{CORE_FORMAT, CodecError, decode_as, decode_first, encode_as};

pub(crate) fn encode_row(row: &Row) -> Result<Vec<u8>, CodecError> {
    encode_as(CORE_FORMAT, "row", row)
}

pub(crate) fn row(bytes: &[u8]) -> Result<Row, CodecError> {
    decode_as(CORE_FORMAT, "row", bytes)
}

/// Appends the bytes of a key to a prefix.
pub(crate) fn encode_key(prefix: Vec<u8>, key: &RowKey) -> Result<Vec<u8>, CodecError> {
    postcard::to_extend(key, prefix).map_err(|error| CodecError::body("row key", error))
}

/// A key at the front of bytes, and what follows it.
pub(crate) fn key(bytes: &[u8]) -> Result<(RowKey, &[u8]), CodecError> {
    decode_first("row key", bytes)
}
