//! One segment file: its name, and reading records back from it.
//!
//! **Invariant:** no payload leaves this module unless its checksum matched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{self, Item, Salt};
use super::{LogPosition, Record};
use crate::files::{File, read_exact_at};

const EXTENSION: &str = ".seg";
/// The file that becomes the next segment; it is not part of the log yet.
pub(super) const PREPARED_NAME: &str = "next.prepared";

/// A segment that belongs to the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    pub(super) salt: Salt,
}

/// Where an entry lies in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u32,
    /// Bytes of its payload.
    pub(super) payload_bytes: u32,
}

impl Place {
    /// First byte behind the record.
    pub(super) fn end(self) -> u64 {
        u64::from(self.offset) + format::bytes_on_disk(self.payload_bytes as usize) as u64
    }
}

/// An entry to read: what the index promises and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) at: LogPosition,
    pub(super) place: Place,
}

impl Segment {
    /// Reads entries that lie behind each other in this segment with one call to the file.
    /// `wanted` must be in the order of their places.
    pub(super) fn read(&self, wanted: &[Wanted], records: &mut Vec<Record>) -> io::Result<()> {
        let (Some(first), Some(last)) = (wanted.first(), wanted.last()) else {
            return Ok(());
        };
        let base = u64::from(first.place.offset);
        let size =
            usize::try_from(last.place.end().saturating_sub(base)).map_err(io::Error::other)?;
        let mut region = vec![0; size];
        read_exact_at(&*self.file, &mut region, base)
            .map_err(|error| self.damaged(first, &error))?;
        let region = Bytes::from(region);
        for one in wanted {
            let from = (one.place.offset - first.place.offset) as usize;
            let frame = format::decode(&region.slice(from..), self.salt, one.place.offset)
                .map_err(|bad| self.damaged(one, &format!("{bad:?}").to_lowercase()))?;
            match frame.item {
                Item::Entry(record) if record.at == one.at => records.push(record),
                other => return Err(self.damaged(one, &format!("found {other:?}"))),
            }
        }
        Ok(())
    }

    fn damaged(&self, wanted: &Wanted, what: &dyn std::fmt::Display) -> io::Error {
        let (path, index) = (self.path.display(), wanted.at.index);
        let text = format!("{path}: byte {}: entry {index}: {what}", wanted.place.offset);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

/// File name of a segment: sequence number, then first index, so that names sort as the log runs.
pub(super) fn file_name(sequence: u64, first_index: u64) -> String {
    format!("{sequence:016x}-{first_index:016x}{EXTENSION}")
}

/// Path of a segment.
pub(super) fn path(dir: &Path, sequence: u64, first_index: u64) -> PathBuf {
    dir.join(file_name(sequence, first_index))
}

/// Whether the name claims to be a segment.
pub(super) fn is_segment_name(name: &str) -> bool {
    name.ends_with(EXTENSION)
}

/// Sequence number and first index of a segment's name, when the name is exactly as we write it.
pub(super) fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (sequence, first) = name.strip_suffix(EXTENSION)?.split_once('-')?;
    let sequence = u64::from_str_radix(sequence, 16).ok()?;
    let first = u64::from_str_radix(first, 16).ok()?;
    (file_name(sequence, first) == name).then_some((sequence, first))
}
