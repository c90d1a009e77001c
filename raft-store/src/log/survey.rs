//! Reads a whole log back and says what it holds and everything that is wrong with it.
//!
//! How an unfinished write is told from damage: the log syncs after each write before it begins
//! the next one, and every record carries the offset at which its write began. So when the
//! records stop at offset `b` and a valid record further on belongs to a write that began behind
//! `b`, then `b` was durable once and has changed since: damage. When every valid record further
//! on belongs to a write that began at or before `b`, the power went in the middle of that write.
//!
//! **Invariant:** this module only reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    self, BadHeader, Carry, FORMAT_VERSION, Frame, Header, Item, PAYLOAD_BYTES_MAX, RECORD_ALIGN,
    SEGMENT_HEADER_BYTES, Salt,
};
use super::index::Index;
use super::marks::Marks;
use super::segment::{self, Place, Segment};
use super::{SEGMENT_BYTES_MAX, segment::PREPARED_NAME};
use crate::error::{Fault, Repair, StoreError};
use crate::files::Files;

/// Longest segment file that can be ours: a full one, or a fresh one with the largest entry.
const FILE_BYTES_MAX: u64 = SEGMENT_BYTES_MAX + PAYLOAD_BYTES_MAX as u64;

/// All that a log's files say.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) segments: Vec<Surveyed>,
    pub(super) marks: Marks,
    pub(super) index: Index,
    pub(super) faults: Vec<Fault>,
    /// Files in the directory that are no part of a log.
    pub(super) strays: Vec<PathBuf>,
    /// Entries up to here lie in segments that were deleted: they must be purged.
    absent_upto: Option<u64>,
}

/// One segment as found.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) segment: Arc<Segment>,
    /// Offset behind the last valid record, the seal not counted.
    pub(super) end: u64,
    /// Offset behind the last byte that is not zero; more than the records' end after a torn write.
    pub(super) dirty_end: u64,
    pub(super) file_bytes: u64,
    /// Where the last write began.
    pub(super) write_start: u64,
    pub(super) sealed: bool,
    /// Whether the last record says that the log was closed in order.
    pub(super) closed: bool,
    pub(super) records: u64,
    pub(super) entries: u64,
    previous_end: u32,
    /// Whether the segment ended as it should, as far as can be said without its neighbours.
    sound: bool,
}

/// Reads every segment in `dir`. Errors are those of the operating system and a format version
/// this build does not know; everything else that is wrong is a fault in the result.
pub(super) fn survey(dir: &Path, files: &dyn Files) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    for named in survey.list(dir, files)? {
        survey.read_segment(files, &named)?;
    }
    survey.check_links(dir);
    survey.check_holes(dir);
    Ok(survey)
}

/// A segment by its name.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    sequence: u64,
    first_index: u64,
    bytes: u64,
}

impl Survey {
    fn list(&mut self, dir: &Path, files: &dyn Files) -> Result<Vec<Named>, StoreError> {
        let listed = files.list(dir).map_err(|error| StoreError::io("list", dir, error))?;
        let mut named: Vec<Named> = Vec::new();
        for file in listed {
            let path = dir.join(&file.name);
            if !segment::is_segment_name(&file.name) {
                if file.name != PREPARED_NAME {
                    self.strays.push(path);
                }
                continue;
            }
            let Some((sequence, first_index)) = segment::parse_name(&file.name) else {
                self.fault(&path, 0, "not the name of a segment of this log", Repair::Rejoin);
                continue;
            };
            let bytes = file.bytes;
            named.push(Named { path, sequence, first_index, bytes });
        }
        named.sort_by_key(|named| (named.sequence, named.first_index));
        for pair in named.windows(2) {
            self.check_succession(dir, &pair[0], &pair[1]);
        }
        Ok(named)
    }

    fn check_succession(&mut self, dir: &Path, one: &Named, next: &Named) {
        let gap = next.sequence - one.sequence;
        if gap == 0 {
            let what = format!("a second segment with number {}", one.sequence);
            self.fault(&next.path, 0, what, Repair::Rejoin);
        } else if gap > 1 {
            let (from, to) = (one.sequence + 1, next.sequence - 1);
            let what = format!("segments {from} to {to} are missing, later ones are there");
            self.fault(dir, 0, what, Repair::Rejoin);
        }
    }

    fn read_segment(&mut self, files: &dyn Files, named: &Named) -> Result<(), StoreError> {
        let path = &named.path;
        if named.bytes > FILE_BYTES_MAX {
            let what = format!("{} bytes, a segment has at most {FILE_BYTES_MAX}", named.bytes);
            self.fault(path, 0, what, Repair::Rejoin);
            return Ok(());
        }
        let file = files.open_read(path).map_err(|error| StoreError::io("open", path, error))?;
        let content = crate::files::read_all(&*file);
        let content = Bytes::from(content.map_err(|error| StoreError::io("read", path, error))?);
        let Some(header) = self.check_header(named, &content)? else {
            return Ok(());
        };
        let salt = header.salt;
        let path = path.clone();
        let segment = Arc::new(Segment { path, file, salt });
        let mut surveyed = Surveyed::empty(segment, content.len() as u64);
        self.replay(&mut surveyed, &content);
        self.segments.push(surveyed);
        Ok(())
    }

    fn check_header(
        &mut self,
        named: &Named,
        content: &[u8],
    ) -> Result<Option<Header>, StoreError> {
        let path = &named.path;
        let header = match format::decode_header(content) {
            Ok(header) => header,
            Err(BadHeader::Version(found)) => {
                let supported = FORMAT_VERSION;
                return Err(StoreError::Format { path: path.clone(), found, supported });
            }
            Err(BadHeader::Damaged(what)) => {
                self.fault(path, 0, what, Repair::Rejoin);
                return Ok(None);
            }
        };
        let sequence = header.salt.sequence;
        if (sequence, header.first_index) != (named.sequence, named.first_index) {
            let what = format!(
                "the header says segment {sequence} from entry {}, the name says otherwise: a copy",
                header.first_index
            );
            self.fault(path, 0, what, Repair::Rejoin);
            return Ok(None);
        }
        let log_id = self.segments.first().map(|first| first.segment.salt.log_id);
        if log_id.is_some_and(|log_id| log_id != header.salt.log_id) {
            self.fault(path, 0, "a segment of another log", Repair::Rejoin);
            return Ok(None);
        }
        Ok(Some(header))
    }

    /// Lets the records of one segment take effect, up to the first that is not valid.
    fn replay(&mut self, surveyed: &mut Surveyed, content: &Bytes) {
        let segment = surveyed.segment.clone();
        let mut offset = SEGMENT_HEADER_BYTES;
        while let Ok(frame) = decode_at(content, segment.salt, offset) {
            if let Err(what) = self.admit(surveyed, offset, &frame) {
                self.fault(&segment.path, offset as u64, what, Repair::Rejoin);
                surveyed.sound = false;
                break;
            }
            surveyed.records += 1;
            surveyed.write_start = u64::from(frame.write_start);
            surveyed.closed = frame.item == Item::Closed;
            offset += frame.bytes;
            if let Item::Sealed(_) = frame.item {
                surveyed.sealed = true;
                break;
            }
            surveyed.end = offset as u64;
        }
        surveyed.dirty_end = dirty_end(content).max(offset) as u64;
        if let Some(what) = judge_rest(content, segment.salt, offset)
            && !surveyed.sealed
            && surveyed.sound
        {
            self.fault(&segment.path, offset as u64, what, Repair::Rejoin);
            surveyed.sound = false;
        }
    }

    fn admit(
        &mut self,
        surveyed: &mut Surveyed,
        offset: usize,
        frame: &Frame,
    ) -> Result<(), String> {
        if u64::from(frame.write_start) < surveyed.write_start {
            return Err("the record belongs to an older write than the one before it".to_owned());
        }
        let is_first = offset == SEGMENT_HEADER_BYTES;
        let segment = &surveyed.segment;
        match &frame.item {
            Item::Carry(carry) if is_first => {
                surveyed.previous_end = carry.previous_end;
                return self.begin_segment(segment.salt.sequence, carry);
            }
            Item::Carry(_) => return Err("a segment's head in the middle of it".to_owned()),
            _ if is_first => return Err("the segment does not begin with its head".to_owned()),
            Item::Sealed(next) if *next != segment.salt.sequence + 1 => {
                return Err(format!("the segment says that number {next} follows it"));
            }
            item => self.marks.apply(item)?,
        }
        match &frame.item {
            Item::Entry(record) => {
                let payload_bytes = u32::try_from(record.payload.len()).unwrap_or(u32::MAX);
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                self.index.push(record.at, segment, Place { offset, payload_bytes });
                surveyed.entries += 1;
            }
            Item::Truncated(kept) => {
                let kept = kept.map(|kept| kept.index);
                self.index.truncate_after(kept);
                self.absent_upto = self.absent_upto.min(kept);
            }
            Item::Purged(upto) => self.index.purge(upto.index),
            _ => {}
        }
        Ok(())
    }

    /// Compares what a segment carries over with what the segments before it said.
    fn begin_segment(&mut self, sequence: u64, carry: &Carry) -> Result<(), String> {
        let follows = self.segments.last().is_some_and(|before| {
            before.sound
                && before.segment.salt.sequence + 1 == sequence
                && before.end == u64::from(carry.previous_end)
        });
        if follows && self.marks != carry.marks {
            return Err(
                "what the segment carries over is not how the one before it ended".to_owned()
            );
        }
        if !follows {
            // The segments before are deleted, or already reported as faulty.
            self.index = Index::default();
            self.absent_upto = carry.marks.last.map(|last| last.index);
            self.marks = carry.marks.clone();
            // Copied: the vote would keep the whole segment in memory.
            let vote = self.marks.vote.take();
            self.marks.vote = vote.map(|vote| Bytes::copy_from_slice(&vote));
        }
        Ok(())
    }

    /// Each segment but the last must end with a seal, where the next one says it ended.
    fn check_links(&mut self, dir: &Path) {
        let mut found = Vec::new();
        for pair in self.segments.windows(2) {
            let (one, next) = (&pair[0], &pair[1]);
            if !one.sound || one.segment.salt.sequence + 1 != next.segment.salt.sequence {
                continue;
            }
            let agreed = one.end == u64::from(next.previous_end);
            let is_last_pair = std::ptr::eq(next, &self.segments[self.segments.len() - 1]);
            let unfinished_roll = is_last_pair && next.records == 1;
            let (what, repair) = match (one.sealed, agreed) {
                (true, true) => continue,
                (false, true) if unfinished_roll => {
                    ("the switch to the next segment is unfinished", Repair::FinishRoll)
                }
                (false, true) => ("the seal at the end of the segment is damaged", Repair::Rejoin),
                (_, false) => {
                    ("the records end before the place the next segment knows", Repair::Rejoin)
                }
            };
            found.push((one.segment.path.clone(), one.end, what.to_owned(), repair));
        }
        if let Some(last) = self.segments.last().filter(|last| last.sound) {
            let path = last.segment.path.clone();
            if last.sealed {
                let next = last.segment.salt.sequence + 1;
                let what = format!("segment {next} is missing, the one before says it follows");
                found.push((dir.to_path_buf(), 0, what, Repair::Rejoin));
            } else if last.records == 0 {
                let what = "the head of the segment is damaged".to_owned();
                found.push((path, last.end, what, Repair::Rejoin));
            } else if last.dirty_end > last.end {
                let bytes = last.dirty_end - last.end;
                let what = format!("{bytes} bytes of an unfinished write");
                found.push((path, last.end, what, Repair::CutTail));
            }
        }
        for (path, offset, what, repair) in found {
            self.fault(&path, offset, what, repair);
        }
    }

    /// Every entry that is not purged must be in a segment that is there.
    fn check_holes(&mut self, dir: &Path) {
        let purged = self.marks.purged.map(|purged| purged.index);
        if self.absent_upto > purged {
            let first = self.marks.first_index();
            let upto = self.absent_upto.unwrap_or_default();
            let what = format!("entries {first} to {upto} are missing and were never purged");
            self.fault(dir, 0, what, Repair::Rejoin);
        }
    }

    fn fault(&mut self, path: &Path, offset: u64, what: impl Into<String>, repair: Repair) {
        self.faults.push(Fault { path: path.to_path_buf(), offset, what: what.into(), repair });
    }
}

impl Surveyed {
    fn empty(segment: Arc<Segment>, file_bytes: u64) -> Self {
        Self {
            segment,
            end: SEGMENT_HEADER_BYTES as u64,
            dirty_end: 0,
            file_bytes,
            write_start: 0,
            sealed: false,
            closed: false,
            records: 0,
            entries: 0,
            previous_end: 0,
            sound: true,
        }
    }
}

/// Decodes the record at an offset of a segment's content.
pub(super) fn decode_at(content: &Bytes, salt: Salt, offset: usize) -> Result<Frame, format::Bad> {
    let place = u32::try_from(offset).map_err(|_| format::Bad::Cut)?;
    if offset > content.len() {
        return Err(format::Bad::Cut);
    }
    format::decode(&content.slice(offset..), salt, place)
}

/// Offset behind the last byte that is not zero.
fn dirty_end(content: &[u8]) -> usize {
    const BLOCK: usize = 4096;
    let mut end = content.len();
    // Whole blocks first: comparing them is many times faster than looking at each byte.
    while end >= BLOCK && content[end - BLOCK..end] == [0; BLOCK] {
        end -= BLOCK;
    }
    content[..end].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// What a valid record behind `stop` proves to be wrong at `stop`, if anything.
pub(super) fn judge_rest(content: &Bytes, salt: Salt, stop: usize) -> Option<String> {
    let dirty_end = dirty_end(content);
    let mut offset = stop.next_multiple_of(RECORD_ALIGN) + RECORD_ALIGN;
    while offset < dirty_end {
        let place = u32::try_from(offset).ok()?;
        let plausible = format::size_if_plausible(&content[offset..], place).is_ok();
        match decode_at(content, salt, offset) {
            Ok(frame) if plausible && frame.write_start as usize > stop => {
                let start = frame.write_start;
                return Some(format!(
                    "the record is damaged; a valid one at byte {offset} belongs to a write that \
                     began at byte {start}, after everything before it was synced"
                ));
            }
            Ok(frame) => offset += frame.bytes,
            Err(_) => offset += RECORD_ALIGN,
        }
    }
    None
}
