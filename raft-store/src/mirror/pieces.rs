//! Rows as sled keeps them: cut in pieces, each with a checksum.
//!
//! sled writes values (and leaves of its tree) above some 7 KiB to files it never syncs, so
//! nothing larger than 4 KiB is given to it.
//!
//! ```text
//! key:   'r' | row key | part u16 big-endian
//! value: crc32c(key, rest) u32 | parts u16 | bytes
//! ```
//!
//! **Invariant:** a row is the parts `0..parts`, no more and no fewer, all with the same `parts`.

use scheduler_core::state::{Row, RowKey};

use crate::codec::{self, CodecError};

/// Bytes of a row in one piece.
pub(crate) const PIECE_BYTES: usize = 4096;
/// Checksum and number of parts before them.
const HEAD_BYTES: usize = 6;
pub(crate) const ROW_PREFIX: u8 = b'r';
pub(crate) const MARK_KEY: &[u8] = b"m";

/// A row cut up, and what the ledger keeps of it.
pub(crate) struct Pieces {
    /// Key without the part number.
    pub(crate) key: Vec<u8>,
    pub(crate) values: Vec<Vec<u8>>,
    pub(crate) digest: u64,
}

/// Key of all parts of a row, without the part number.
pub(crate) fn row_key(key: &RowKey) -> Result<Vec<u8>, CodecError> {
    codec::row::encode_key(vec![ROW_PREFIX], key)
}

/// Key of one part.
pub(crate) fn part_key(key: &[u8], part: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 2);
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&part.to_be_bytes());
    bytes
}

pub(crate) fn cut(key: &RowKey, row: &Row) -> Result<Pieces, CodecError> {
    let key = row_key(key)?;
    let bytes = codec::row::encode_row(row)?;
    let parts = u16::try_from(bytes.len().div_ceil(PIECE_BYTES))
        .map_err(|_| CodecError::body("row", format!("{} bytes are too many", bytes.len())))?;
    let values = (0u16..).zip(bytes.chunks(PIECE_BYTES));
    let values = values.map(|(part, chunk)| value(&part_key(&key, part), parts, chunk)).collect();
    let digest = digest(&key, &bytes);
    Ok(Pieces { key, values, digest })
}

fn value(key: &[u8], parts: u16, chunk: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEAD_BYTES + chunk.len());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&parts.to_le_bytes());
    bytes.extend_from_slice(chunk);
    let crc = checksum(key, &bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// A checksum over key and content, so that a value under a wrong key is found too.
pub(crate) fn checksum(key: &[u8], content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), content)
}

/// What the sum over all rows is made of.
fn digest(key: &[u8], row: &[u8]) -> u64 {
    u64::from(crc32c::crc32c(key)) << 32 | u64::from(checksum(key, row))
}

/// Puts rows together from pieces in rising order of key.
#[derive(Default)]
pub(crate) struct Joiner {
    key: Vec<u8>,
    bytes: Vec<u8>,
    next: u16,
    parts: u16,
}

/// A row put together.
pub(crate) struct Joined {
    pub(crate) key: RowKey,
    pub(crate) row: Row,
    pub(crate) parts: u16,
    pub(crate) digest: u64,
}

impl Joiner {
    /// Takes the next piece; gives the row when it was the last one of it.
    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) -> Result<Option<Joined>, String> {
        let at = || format!("key {}", hex(key));
        let Some((row_key, part)) = key.split_last_chunk::<2>() else {
            return Err(format!("{}: too short", at()));
        };
        let part = u16::from_be_bytes(*part);
        let Some((head, chunk)) = value.split_first_chunk::<HEAD_BYTES>() else {
            return Err(format!("{}: a value of {} bytes", at(), value.len()));
        };
        let crc = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        if crc != checksum(key, &value[4..]) {
            return Err(format!("{}: the checksum is wrong", at()));
        }
        let parts = u16::from_le_bytes([head[4], head[5]]);
        if self.next == 0 {
            self.key = row_key.to_vec();
            self.parts = parts;
            self.bytes.clear();
        }
        if self.key != row_key || part != self.next || parts != self.parts || part >= parts {
            return Err(format!("{}: a part of a row is missing or too many", at()));
        }
        self.bytes.extend_from_slice(chunk);
        self.next += 1;
        if self.next < parts {
            return Ok(None);
        }
        self.next = 0;
        let bad = |error: CodecError| format!("{}: {error}", at());
        let (key, rest) = codec::row::key(self.key.get(1..).unwrap_or_default()).map_err(bad)?;
        let row = codec::row::row(&self.bytes).map_err(bad)?;
        if !rest.is_empty() || row.key() != key {
            return Err(format!("{}: another row's content", at()));
        }
        Ok(Some(Joined { key, row, parts, digest: digest(&self.key, &self.bytes) }))
    }

    /// There must be nothing half done at the end.
    pub(crate) fn finish(&self) -> Result<(), String> {
        match self.next {
            0 => Ok(()),
            _ => Err("the last row is cut short".to_owned()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
