//! Bytes of a segment file: its header and its records. The only place that knows them.
//!
//! All integers are little-endian. A segment begins with a header of 64 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | magic `MUSTRLOG` |
//! | 8 | 4 | format version |
//! | 12 | 4 | zero |
//! | 16 | 8 | id of the log, drawn once when the log is made |
//! | 24 | 8 | sequence number of the segment in the log, from 1 |
//! | 32 | 8 | index of the first entry expected in it |
//! | 40 | 20 | zero |
//! | 60 | 4 | crc32c of the 60 bytes before |
//!
//! Records follow without gaps, each padded with zeroes to a multiple of 8 bytes:
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | payload length |
//! | 4 | 4 | crc32c of log id, sequence, own offset, payload length, everything from byte 8 on |
//! | 8 | 4 | offset at which the write that held this record began |
//! | 12 | 1 | kind of record |
//! | 13 | 1 | tag: the entry's own kind, or whether an optional position is there |
//! | 14 | 2 | zero |
//! | 16 | 24 | term, leader, index |
//! | 40 | n | payload |
//!
//! The crc covers the place (log, sequence, offset), so bytes of another segment, another log or
//! another offset are never valid. The write's beginning tells a torn write from damage: the log
//! syncs between two writes, so everything before the beginning of a write that is on disk was
//! durable once.
//!
//! **Invariant:** numbers are never reused; a change of the layout is a new format version.

use bytes::Bytes;

use super::{LogPosition, Marks, Record};

/// Version written and read by this build.
pub const FORMAT_VERSION: u32 = 1;
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const RECORD_HEADER_BYTES: usize = 40;
/// Records begin at multiples of this, which makes the search behind damage eight times shorter.
pub(super) const RECORD_ALIGN: usize = 8;
/// Largest payload: offsets are 32 bit, and a whole segment is held in memory to verify it.
pub const PAYLOAD_BYTES_MAX: usize = 256 << 20;

const MAGIC: &[u8; 8] = b"MUSTRLOG";
const CARRY_BYTES: usize = 80;
/// Kind of an entry's record; the others are in `Item::kind`.
const ENTRY: u8 = 1;

/// What makes a record valid in one segment only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt {
    pub(super) log_id: u64,
    pub(super) sequence: u64,
}

/// Beginning of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) salt: Salt,
    pub(super) first_index: u64,
}

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A log entry.
    Entry(Record),
    /// The vote, as the codec wrote it.
    Vote(Bytes),
    /// The committed position.
    Committed(Option<LogPosition>),
    /// Entries up to this position are no longer needed.
    Purged(LogPosition),
    /// Entries behind this position are void; `None` voids all.
    Truncated(Option<LogPosition>),
    /// State of the log when the segment began, so that older segments can be deleted whole.
    Carry(Carry),
    /// The segment is complete and the one with this sequence number follows.
    Sealed(u64),
    /// The log was closed in order; everything before is durable.
    Closed,
}

/// State of the log at the beginning of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    /// Where the segment before ends, in bytes; 0 for the first segment of a log.
    pub previous_end: u32,
    /// Vote, committed, purged and last position at this point.
    pub marks: Marks,
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) item: Item,
    pub(super) write_start: u32,
    /// Bytes on disk, padding included.
    pub(super) bytes: usize,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    /// Only zeroes where the header would be.
    Empty,
    /// The file ends inside the record.
    Cut,
    /// The checksum differs.
    Checksum,
    /// The checksum fits but the content is not one this version writes.
    Content,
}

impl Item {
    fn kind(&self) -> u8 {
        match self {
            Self::Entry(_) => ENTRY,
            Self::Vote(_) => 2,
            Self::Committed(_) => 3,
            Self::Purged(_) => 4,
            Self::Truncated(_) => 5,
            Self::Carry(_) => 6,
            Self::Sealed(_) => 7,
            Self::Closed => 8,
        }
    }

    /// Name of the kind, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Entry(_) => "entry",
            Self::Vote(_) => "vote",
            Self::Committed(_) => "committed",
            Self::Purged(_) => "purged",
            Self::Truncated(_) => "truncated",
            Self::Carry(_) => "carry",
            Self::Sealed(_) => "sealed",
            Self::Closed => "closed",
        }
    }

    /// Kind, tag and position of the record.
    fn head(&self) -> (u8, u8, LogPosition) {
        let nowhere = LogPosition::default();
        let (tag, at) = match self {
            Self::Entry(record) => (record.kind, record.at),
            Self::Committed(at) | Self::Truncated(at) => {
                (u8::from(at.is_some()), at.unwrap_or(nowhere))
            }
            Self::Purged(at) => (0, *at),
            Self::Sealed(next) => (0, LogPosition { index: *next, ..nowhere }),
            Self::Vote(_) | Self::Carry(_) | Self::Closed => (0, nowhere),
        };
        (self.kind(), tag, at)
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::Entry(record) => record.payload.len(),
            Self::Vote(vote) => vote.len(),
            Self::Carry(carry) => CARRY_BYTES + carry.marks.vote.as_ref().map_or(0, Bytes::len),
            _ => 0,
        }
    }

    /// Bytes the record takes on disk, padding included.
    pub(super) fn bytes_on_disk(&self) -> usize {
        bytes_on_disk(self.payload_bytes())
    }
}

/// Bytes on disk of a record with a payload of this length.
pub(super) fn bytes_on_disk(payload: usize) -> usize {
    (RECORD_HEADER_BYTES + payload).next_multiple_of(RECORD_ALIGN)
}

/// Encodes a segment's header.
pub(super) fn encode_header(header: &Header) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut bytes = [0; SEGMENT_HEADER_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes[16..24].copy_from_slice(&header.salt.log_id.to_le_bytes());
    bytes[24..32].copy_from_slice(&header.salt.sequence.to_le_bytes());
    bytes[32..40].copy_from_slice(&header.first_index.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Why a segment's header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHeader {
    /// Too short, not our magic, or the checksum differs.
    Damaged(&'static str),
    /// Undamaged, but of a version this build does not know.
    Version(u32),
}

/// Decodes a segment's header.
pub(super) fn decode_header(bytes: &[u8]) -> Result<Header, BadHeader> {
    let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
        return Err(BadHeader::Damaged("the file is shorter than a segment header"));
    };
    if &bytes[..8] != MAGIC {
        return Err(BadHeader::Damaged("the file does not begin like a log segment"));
    }
    if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
        return Err(BadHeader::Damaged("the checksum of the segment header does not match"));
    }
    let version = u32_at(bytes, 8);
    if version != FORMAT_VERSION {
        return Err(BadHeader::Version(version));
    }
    let salt = Salt { log_id: u64_at(bytes, 16), sequence: u64_at(bytes, 24) };
    let first_index = u64_at(bytes, 32);
    Ok(Header { salt, first_index })
}

/// Where a record will lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    pub(super) salt: Salt,
    pub(super) offset: u32,
    pub(super) write_start: u32,
}

/// Appends a record that will lie at `spot`. The payload must not be longer than
/// [`PAYLOAD_BYTES_MAX`], which the callers check where it comes in.
pub(super) fn encode(buffer: &mut Vec<u8>, spot: Spot, item: &Item) {
    match item {
        Item::Entry(record) => encode_entry(buffer, spot, record),
        Item::Vote(vote) => encode_parts(buffer, spot, item.head(), vote),
        Item::Carry(carry) => encode_parts(buffer, spot, item.head(), &carry_bytes(carry)),
        _ => encode_parts(buffer, spot, item.head(), &[]),
    }
}

/// Appends an entry's record; thousands of times per write, so without a copy of the entry.
pub(super) fn encode_entry(buffer: &mut Vec<u8>, spot: Spot, record: &Record) {
    encode_parts(buffer, spot, (ENTRY, record.kind, record.at), &record.payload);
}

fn encode_parts(buffer: &mut Vec<u8>, spot: Spot, head: (u8, u8, LogPosition), payload: &[u8]) {
    let (kind, tag, at) = head;
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[8..12].copy_from_slice(&spot.write_start.to_le_bytes());
    header[12] = kind;
    header[13] = tag;
    header[16..40].copy_from_slice(&position_bytes(at));
    let begin = buffer.len();
    buffer.reserve(bytes_on_disk(payload.len()));
    buffer.extend_from_slice(&header);
    buffer.extend_from_slice(payload);
    buffer.resize(begin + bytes_on_disk(payload.len()), 0);
    let crc = checksum(spot.salt, spot.offset, length, &buffer[begin + 8..]);
    buffer[begin + 4..begin + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Decodes the record at the front of `bytes`, which lie at `offset` of the segment. Payloads
/// share `bytes`, nothing is copied.
pub(super) fn decode(bytes: &Bytes, salt: Salt, offset: u32) -> Result<Frame, Bad> {
    let size = size_if_plausible(bytes, offset)?;
    let record = &bytes[..size];
    let length = u32_at(record, 0);
    if u32_at(record, 4) != checksum(salt, offset, length, &record[8..]) {
        return Err(Bad::Checksum);
    }
    let payload = RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + length as usize;
    let item = decode_item(record, &bytes.slice(payload)).ok_or(Bad::Content)?;
    let write_start = u32_at(record, 8);
    let bytes = size;
    Ok(Frame { item, write_start, bytes })
}

/// Whether the bytes could be a record at all, and its size; cheap, no checksum.
pub(super) fn size_if_plausible(bytes: &[u8], offset: u32) -> Result<usize, Bad> {
    let Some(header) = bytes.first_chunk::<RECORD_HEADER_BYTES>() else {
        let empty = bytes.iter().all(|byte| *byte == 0);
        return Err(if empty { Bad::Empty } else { Bad::Cut });
    };
    if header.iter().all(|byte| *byte == 0) {
        return Err(Bad::Empty);
    }
    let length = u32_at(header, 0) as usize;
    let size = bytes_on_disk(length);
    if size > bytes.len() {
        return Err(Bad::Cut);
    }
    let sane = length <= PAYLOAD_BYTES_MAX && u32_at(header, 8) <= offset;
    match sane && (1..=8).contains(&header[12]) {
        true => Ok(size),
        false => Err(Bad::Checksum),
    }
}

fn decode_item(record: &[u8], payload: &Bytes) -> Option<Item> {
    let at = position_at(record, 16);
    let tag = record[13];
    let flagged = || match tag {
        0 => Some(None),
        1 => Some(Some(at)),
        _ => None,
    };
    Some(match record[12] {
        ENTRY => {
            let payload = payload.clone();
            Item::Entry(Record { at, kind: tag, payload })
        }
        2 => Item::Vote(payload.clone()),
        3 => Item::Committed(flagged()?),
        4 => Item::Purged(at),
        5 => Item::Truncated(flagged()?),
        6 => Item::Carry(take_carry(payload)?),
        7 => Item::Sealed(at.index),
        8 => Item::Closed,
        _ => return None,
    })
}

fn checksum(salt: Salt, offset: u32, length: u32, rest: &[u8]) -> u32 {
    // Bytes that do not begin at a multiple of 8 are summed one by one.
    #[repr(align(8))]
    struct Place([u8; 24]);
    let mut place = Place([0; 24]);
    place.0[..8].copy_from_slice(&salt.log_id.to_le_bytes());
    place.0[8..16].copy_from_slice(&salt.sequence.to_le_bytes());
    place.0[16..20].copy_from_slice(&offset.to_le_bytes());
    place.0[20..].copy_from_slice(&length.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c(&place.0), rest)
}

/// previous end (4), which of the following are there (1), zero (3), committed, purged and last
/// position (24 each), then the vote.
fn carry_bytes(carry: &Carry) -> Vec<u8> {
    let Marks { vote, committed, purged, last } = &carry.marks;
    let there = [vote.is_some(), committed.is_some(), purged.is_some(), last.is_some()];
    let flags = there.iter().enumerate().map(|(bit, there)| u8::from(*there) << bit).sum();
    let mut bytes = carry.previous_end.to_le_bytes().to_vec();
    bytes.extend_from_slice(&[flags, 0, 0, 0]);
    for at in [committed, purged, last] {
        bytes.extend_from_slice(&position_bytes(at.unwrap_or_default()));
    }
    bytes.extend_from_slice(vote.as_deref().unwrap_or_default());
    bytes
}

fn take_carry(payload: &Bytes) -> Option<Carry> {
    if payload.len() < CARRY_BYTES {
        return None;
    }
    let flags = payload[4];
    let has = |bit: u8| flags >> bit & 1 == 1;
    let position = |bit: u8, at: usize| has(bit).then(|| position_at(payload, at));
    let vote = has(0).then(|| payload.slice(CARRY_BYTES..));
    if vote.is_none() && payload.len() > CARRY_BYTES {
        return None;
    }
    let marks =
        Marks { vote, committed: position(1, 8), purged: position(2, 32), last: position(3, 56) };
    let previous_end = u32_at(payload, 0);
    Some(Carry { previous_end, marks })
}

fn position_bytes(at: LogPosition) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&at.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&at.leader.to_le_bytes());
    bytes[16..].copy_from_slice(&at.index.to_le_bytes());
    bytes
}

fn position_at(bytes: &[u8], offset: usize) -> LogPosition {
    LogPosition {
        term: u64_at(bytes, offset),
        leader: u64_at(bytes, offset + 8),
        index: u64_at(bytes, offset + 16),
    }
}

/// Callers have checked the length: a fixed offset inside a header of known size.
fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    let part = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    part.map_or(0, |part| u32::from_le_bytes(*part))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    let part = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    part.map_or(0, |part| u64::from_le_bytes(*part))
}

#[cfg(test)]
mod tests;
