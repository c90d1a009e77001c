//! Looking at a stopped server's log: every fault with its place, and every record as it lies.
//!
//! **Invariant:** reads only; what `check` calls clean, `Log::open` opens.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::LogPosition;
use super::format::{self, Item, SEGMENT_HEADER_BYTES, Salt};
use super::segment;
use super::survey::{decode_at, judge_rest, survey};
use crate::error::{Fault, Repair, StoreError};
use crate::files::Files;

/// What a log holds and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CheckReport {
    /// Everything wrong, in reading order. Empty for a clean log.
    pub faults: Vec<Fault>,
    /// Files in the directory that belong to no log; harmless.
    pub strays: Vec<PathBuf>,
    /// Segment files read.
    pub segments: u64,
    /// Valid records of all kinds.
    pub records: u64,
    /// Valid entries, purged and truncated ones that are still on disk included.
    pub entries: u64,
    /// Bytes of headers and valid records.
    pub bytes: u64,
    /// Whether the log was closed in order.
    pub closed: bool,
    /// First entry that is not purged, if any is left.
    pub first_index: Option<u64>,
    /// Last entry or last purged position.
    pub last: Option<LogPosition>,
    /// Last purged position.
    pub last_purged: Option<LogPosition>,
    /// Last saved committed position.
    pub committed: Option<LogPosition>,
    /// Whether a vote is there.
    pub has_vote: bool,
}

impl CheckReport {
    /// Whether a server may start on it: no faults but those a start mends by itself.
    pub fn is_usable(&self) -> bool {
        self.faults.iter().all(|fault| fault.repair.is_automatic())
    }
}

/// Verifies every byte of the log in `dir` without changing any. Errors are those of the
/// operating system and an unknown format version; damage is in the report.
pub fn check(dir: &Path, files: &dyn Files) -> Result<CheckReport, StoreError> {
    let survey = survey(dir, files)?;
    let first_index = survey.index.range().map(|(first, _)| first.max(survey.marks.first_index()));
    let last_index = survey.index.range().map(|(_, last)| last);
    Ok(CheckReport {
        segments: survey.segments.len() as u64,
        records: survey.segments.iter().map(|segment| segment.records).sum(),
        entries: survey.segments.iter().map(|segment| segment.entries).sum(),
        bytes: survey.segments.iter().map(|segment| segment.end).sum(),
        closed: survey.segments.last().is_some_and(|last| last.closed),
        first_index: first_index.filter(|first| last_index.is_some_and(|last| *first <= last)),
        last: survey.marks.last,
        last_purged: survey.marks.purged,
        committed: survey.marks.committed,
        has_vote: survey.marks.vote.is_some(),
        faults: survey.faults,
        strays: survey.strays,
    })
}

/// One record where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// Segment file.
    pub path: PathBuf,
    /// Sequence number of the segment.
    pub sequence: u64,
    /// Byte in the file where the record begins.
    pub offset: u64,
    /// Bytes it takes there, padding included.
    pub bytes: u64,
    /// Byte in the file where the write that brought it began.
    pub write_start: u64,
    /// What it says.
    pub item: Item,
}

/// All records of a log in the order they were written, one segment in memory at a time. Of a
/// damaged segment the records before the damage are given, then one error, then the next
/// segment.
#[derive(Debug)]
pub struct Dump {
    files: Arc<dyn Files>,
    waiting: VecDeque<PathBuf>,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    salt: Salt,
    content: Bytes,
    offset: usize,
    /// Only in the last segment can an unfinished write be.
    is_last: bool,
}

/// Begins to dump the log in `dir`.
pub fn dump(dir: &Path, files: Arc<dyn Files>) -> Result<Dump, StoreError> {
    let listed = files.list(dir).map_err(|error| StoreError::io("list", dir, error))?;
    let names = listed.iter().filter(|file| segment::is_segment_name(&file.name));
    let waiting = names.map(|file| dir.join(&file.name)).collect();
    Ok(Dump { files, waiting, current: None })
}

impl Dump {
    fn begin(&self, path: PathBuf) -> Result<Current, StoreError> {
        let content =
            self.files.read(&path).map_err(|error| StoreError::io("read", &path, error))?;
        let salt = match format::decode_header(&content) {
            Ok(header) => header.salt,
            Err(format::BadHeader::Version(found)) => {
                let supported = format::FORMAT_VERSION;
                return Err(StoreError::Format { path, found, supported });
            }
            Err(format::BadHeader::Damaged(what)) => {
                return Err(StoreError::corrupt(&path, 0, what, Repair::Rejoin));
            }
        };
        Ok(Current {
            path,
            salt,
            content: Bytes::from(content),
            offset: SEGMENT_HEADER_BYTES,
            is_last: self.waiting.is_empty(),
        })
    }
}

impl Current {
    /// The next record; `None` at the end of the records.
    fn next(&mut self) -> Option<Result<RawRecord, StoreError>> {
        let offset = self.offset;
        match decode_at(&self.content, self.salt, offset) {
            Ok(frame) => {
                self.offset += frame.bytes;
                Some(Ok(RawRecord {
                    path: self.path.clone(),
                    sequence: self.salt.sequence,
                    offset: offset as u64,
                    bytes: frame.bytes as u64,
                    write_start: u64::from(frame.write_start),
                    item: frame.item,
                }))
            }
            Err(_) if self.content[offset.min(self.content.len())..].iter().all(|b| *b == 0) => {
                None
            }
            Err(bad) => {
                let error = self.explain(bad);
                self.offset = self.content.len();
                Some(Err(error))
            }
        }
    }

    fn explain(&self, bad: format::Bad) -> StoreError {
        let proof = judge_rest(&self.content, self.salt, self.offset);
        let repair = match self.is_last && proof.is_none() {
            true => Repair::CutTail,
            false => Repair::Rejoin,
        };
        let what = proof.unwrap_or_else(|| {
            let what = match bad {
                format::Bad::Cut => "the file ends inside a record",
                format::Bad::Empty => "zeroes where a record should be, more behind them",
                format::Bad::Checksum => "the checksum of the record does not match",
                format::Bad::Content => "a record of an unknown kind",
            };
            what.to_owned()
        });
        StoreError::corrupt(&self.path, self.offset as u64, what, repair)
    }
}

impl Iterator for Dump {
    type Item = Result<RawRecord, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current {
                match current.next() {
                    Some(found) => return Some(found),
                    None => self.current = None,
                }
            }
            let path = self.waiting.pop_front()?;
            match self.begin(path) {
                Ok(current) => self.current = Some(current),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
