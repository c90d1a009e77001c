//! The Raft log on disk: entries, votes and the marks around them, in one order in one sequence
//! of checksummed segment files.
//!
//! One thread writes. It takes everything that waits, writes it with one call, syncs once, and
//! then reports all of it; that is how thousands of appends share a sync. Old segments are
//! deleted whole: each segment begins with a copy of the vote and the marks.
//!
//! In reading order: `format` (bytes), `marks` (rules), `segment`, `index` and `tail` (where
//! entries are), `queue` (what callers and the writer share), `effect` (what a write changes for
//! readers), `writer`, `prepare` (zero-written files ahead of need), `survey` (reading everything
//! back), `recover` (open), `check` (offline).
//!
//! **Invariant:** nothing is reported done before a sync covered it; after a failed write or sync
//! nothing is reported done any more; nothing on disk is repaired except an unfinished last
//! write. This module knows nothing of Raft's types or of what payloads mean.

mod check;
mod effect;
mod format;
mod index;
mod marks;
mod prepare;
mod queue;
mod recover;
mod segment;
mod survey;
mod tail;
mod writer;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use bytes::Bytes;

use crate::error::StoreError;
use crate::files::Files;
use queue::{Queue, Work};
use segment::{Segment, Wanted};
use tail::Batch;

pub use check::{CheckReport, Dump, RawRecord, check, dump};
pub use format::{Carry, FORMAT_VERSION, Item, PAYLOAD_BYTES_MAX};
pub use marks::Marks;

/// A vote is repeated at the head of every segment, so it must stay small.
pub const VOTE_BYTES_MAX: usize = 4096;
/// Smallest accepted segment: room for the largest vote twice and a few records.
pub const SEGMENT_BYTES_MIN: u64 = 16 << 10;
/// Largest accepted segment: one is read into memory whole to verify it, offsets are 32 bit.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Longest accepted queue.
pub const QUEUE_LEN_MAX: usize = 1 << 20;
/// Bytes read from a segment at once when entries are no longer in memory.
const READ_BYTES_MAX: u64 = 1 << 20;

/// Position of a record: (term, leader's node id, index).
#[derive(
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Debug,
    Default,
    Hash,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct LogPosition {
    /// Term of the leader that wrote the entry.
    pub term: u64,
    /// Node id of that leader.
    pub leader: u64,
    /// Place in the log.
    pub index: u64,
}

/// One log entry: position, kind byte (owned by the codec), payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub at: LogPosition,
    /// Meaning of the payload; not interpreted here.
    pub kind: u8,
    /// At most [`PAYLOAD_BYTES_MAX`] bytes. It stays in memory for a while: a slice of a larger
    /// buffer keeps that whole buffer alive.
    pub payload: Bytes,
}

impl Record {
    fn bytes_on_disk(&self) -> usize {
        format::bytes_on_disk(self.payload.len())
    }
}

/// Called exactly once, on the writer's thread, when a request is durable or has failed. It must
/// not block: every later request waits for it.
pub type Done = Box<dyn FnOnce(io::Result<()>) + Send + 'static>;

/// Sizes of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// A full segment, in bytes. Purging frees space in these units.
    pub segment_bytes: u64,
    /// The first segment of a new log; each next one is twice as large up to `segment_bytes`, so
    /// that a small log does not write a large file of zeroes.
    pub segment_bytes_first: u64,
    /// Bound of the entries kept in memory for readers; those not written yet come on top.
    pub cache_bytes: usize,
    /// Requests that may wait before a caller is made to wait.
    pub queue_len: usize,
    /// Id of a new log; drawn at random when absent. Set it where bytes must be reproducible.
    pub log_id: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segment_bytes_first: 4 << 20,
            cache_bytes: 64 << 20,
            queue_len: 4096,
            log_id: None,
        }
    }
}

impl Options {
    fn validate(&self) -> Result<(), StoreError> {
        let setting = |field, value, min, max| match (min..=max).contains(&value) {
            true => Ok(()),
            false => Err(StoreError::Setting { field, value, min, max }),
        };
        let (min, max) = (SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        setting("log.segment_bytes", self.segment_bytes, min, max)?;
        setting("log.segment_bytes_first", self.segment_bytes_first, min, self.segment_bytes)?;
        setting("log.queue_len", self.queue_len as u64, 1, QUEUE_LEN_MAX as u64)
    }
}

/// Figures of an open log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Segments on disk.
    pub segments: usize,
    /// Bytes of records and headers on disk, without the zeroes written ahead.
    pub bytes_on_disk: u64,
    /// Writes since the log was opened.
    pub writes: u64,
    /// Syncs of segments since the log was opened.
    pub syncs: u64,
    /// Bytes of records written since the log was opened.
    pub bytes_written: u64,
    /// Entries kept in memory.
    pub cached_records: usize,
    /// Bytes they take.
    pub cached_bytes: usize,
    /// Requests that wait for the writer.
    pub queued: usize,
    /// Bytes of an unfinished last write that opening cut off.
    pub cut_bytes: u64,
    /// Whether a failed write has stopped the log for good.
    pub stopped: bool,
}

/// Handle to an open log; clones share it. Dropping the last one waits for the writer thread,
/// which finishes what is queued.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
}

struct Inner {
    queue: Arc<Queue>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Log {
    /// Opens the log in `dir`, or makes an empty one there. Every byte is verified. The tail of
    /// the last segment is cut when it is an unfinished write; anything else that is wrong is
    /// refused and left untouched, with the place, the fault and the allowed repair.
    pub fn open(dir: &Path, files: Arc<dyn Files>, options: Options) -> Result<Self, StoreError> {
        options.validate()?;
        let (queue, writer) = recover::open(dir, files, &options)?;
        let handle = thread::Builder::new()
            .name("log-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| StoreError::io("start the writer thread of", dir, source))?;
        let inner = Inner { queue, writer: Mutex::new(Some(handle)) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Appends entries. They are readable when this returns; `done` follows the sync. The first
    /// index must follow the last entry (an empty log takes any), the others must be
    /// consecutive; otherwise nothing is changed, the error is returned and `done` is dropped.
    /// Blocks while the queue is full.
    pub fn append(&self, records: Vec<Record>, done: Done) -> io::Result<()> {
        // All that takes time per entry comes before the lock.
        let batch = Batch::new(records)?;
        let mut state = self.queue().lock_with_room()?;
        if let (Some(first), Some(last)) = (batch.records.first(), batch.records.last()) {
            check_follows(state.marks.next_index(), first.at.index)?;
            state.marks.last = Some(last.at);
        }
        let ticket = state.next_ticket();
        state.tail.push(batch.clone(), ticket);
        self.queue().push(state, Work::Append(batch), done);
        Ok(())
    }

    /// Saves the vote, at most [`VOTE_BYTES_MAX`] bytes; durable before `done`, ordered with
    /// appends. Blocks while the queue is full.
    pub fn save_vote(&self, vote: Bytes, done: Done) -> io::Result<()> {
        limit("vote", vote.len(), VOTE_BYTES_MAX)?;
        self.mark(Item::Vote(vote), done)
    }

    /// Saves the committed position without a sync of its own: it becomes durable with the next
    /// write, or when the log is closed. Never blocks for long.
    pub fn save_committed(&self, at: Option<LogPosition>) -> io::Result<()> {
        let mut state = self.queue().lock();
        if let Some(failure) = state.failure() {
            return Err(failure.error());
        }
        if state.marks.committed != at {
            state.marks.committed = at;
            state.enqueue_committed(at);
        }
        Ok(())
    }

    /// Voids all entries behind `last_kept` (`None`: all that are not purged), in one step that
    /// a crash cannot split. Keeping more than there is changes nothing; keeping less than is
    /// purged is refused.
    pub fn truncate_after(&self, last_kept: Option<u64>, done: Done) -> io::Result<()> {
        let mut state = self.queue().lock_with_room()?;
        let purged = state.marks.purged.map(|purged| purged.index);
        let last = state.marks.last.map(|last| last.index);
        if last_kept.is_some() && last_kept < purged {
            let text = format!("cannot truncate behind {last_kept:?}: purged up to {purged:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let last_kept = last_kept.or(purged);
        if last_kept >= last {
            self.queue().push(state, Work::Barrier, done);
            return Ok(());
        }
        let kept = last_kept.and_then(|index| state.position(index));
        if kept.map(|kept| kept.index) != last_kept {
            let text = format!("entry {last_kept:?} is not in the log");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        state.tail.truncate_after(last_kept);
        state.marks.last = kept;
        self.queue().push(state, Work::Mark(Item::Truncated(kept)), done);
        Ok(())
    }

    /// Gives up entries up to `upto`. The purge is recorded and synced first, then segments that
    /// hold nothing else are deleted, then `done` is called. A position behind the last entry
    /// empties the log, and the next entry follows it.
    pub fn purge(&self, upto: LogPosition, done: Done) -> io::Result<()> {
        let mut state = self.queue().lock_with_room()?;
        let item = Item::Purged(upto);
        if state.marks.apply(&item).is_err() {
            // Purged already.
            self.queue().push(state, Work::Barrier, done);
            return Ok(());
        }
        state.tail.purge(upto.index);
        self.queue().push(state, Work::Mark(item), done);
        Ok(())
    }

    /// Entries of `from..to_exclusive` that exist, in order, from memory or from disk (then the
    /// checksums are verified). Ends early once the payloads reach `max_bytes`, but holds at
    /// least one entry when the range has any.
    pub fn read(&self, from: u64, to_exclusive: u64, max_bytes: usize) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut on_disk: Vec<(Arc<Segment>, Vec<Wanted>)> = Vec::new();
        {
            let state = self.queue().lock();
            let Some(last) = state.marks.last else { return Ok(records) };
            let to = to_exclusive.min(last.index.saturating_add(1));
            let mut budget = Budget::new(max_bytes);
            // A log may begin anywhere, so what is there counts too, not only what was purged.
            let held = state.index.range().map(|(first, _)| first);
            let first = held.into_iter().chain(state.tail.first_index()).min().unwrap_or(to);
            for index in from.max(first).max(state.marks.first_index())..to {
                if let Some(record) = state.tail.get(index) {
                    if !budget.admit(record.payload.len()) {
                        break;
                    }
                    records.push(record.clone());
                    continue;
                }
                let Some((segment, wanted)) = state.index.find(index) else {
                    let text = format!("entry {index} is neither in memory nor on disk");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                };
                if !budget.admit(wanted.place.payload_bytes as usize) {
                    break;
                }
                group(&mut on_disk, segment, wanted);
            }
        }
        if on_disk.is_empty() {
            return Ok(records);
        }
        // What is in memory is newer than what is on disk.
        let newer = std::mem::take(&mut records);
        for (segment, wanted) in &on_disk {
            segment.read(wanted, &mut records)?;
        }
        records.extend(newer);
        Ok(records)
    }

    /// Last saved vote.
    pub fn vote(&self) -> Option<Bytes> {
        self.queue().lock().marks.vote.clone()
    }

    /// Last saved committed position.
    pub fn committed(&self) -> Option<LogPosition> {
        self.queue().lock().marks.committed
    }

    /// Last purged position.
    pub fn last_purged(&self) -> Option<LogPosition> {
        self.queue().lock().marks.purged
    }

    /// Last entry; the last purged position when no entry is left behind it.
    pub fn last(&self) -> Option<LogPosition> {
        self.queue().lock().marks.last
    }

    /// Position of an entry, or of the last purged one; `None` when it is neither. Never reads
    /// the disk.
    pub fn position(&self, index: u64) -> io::Result<Option<LogPosition>> {
        Ok(self.queue().lock().position(index))
    }

    /// Present figures.
    pub fn stats(&self) -> Stats {
        let state = self.queue().lock();
        Stats {
            cached_records: state.tail.len(),
            cached_bytes: state.tail.bytes(),
            queued: state.queued(),
            stopped: state.failure().is_some(),
            ..state.stats
        }
    }

    fn mark(&self, item: Item, done: Done) -> io::Result<()> {
        let mut state = self.queue().lock_with_room()?;
        state
            .marks
            .apply(&item)
            .map_err(|text| io::Error::new(io::ErrorKind::InvalidInput, text))?;
        self.queue().push(state, Work::Mark(item), done);
        Ok(())
    }

    fn queue(&self) -> &Queue {
        &self.inner.queue
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            // A callback may hold the last handle, and a thread cannot wait for itself.
            && writer.thread().id() != thread::current().id()
        {
            // A panic of the writer has already been reported to everybody who waited.
            let _ = writer.join();
        }
    }
}

/// How much of a read's byte limit is left; the first entry always fits.
struct Budget {
    left: usize,
    any: bool,
}

impl Budget {
    fn new(max_bytes: usize) -> Self {
        Self { left: max_bytes, any: false }
    }

    fn admit(&mut self, bytes: usize) -> bool {
        if self.any && bytes > self.left {
            return false;
        }
        self.any = true;
        self.left = self.left.saturating_sub(bytes);
        true
    }
}

/// Puts an entry to those read with the same call when it lies close behind them.
fn group(groups: &mut Vec<(Arc<Segment>, Vec<Wanted>)>, segment: &Arc<Segment>, wanted: Wanted) {
    if let Some((held, members)) = groups.last_mut()
        && Arc::ptr_eq(held, segment)
        && let Some(first) = members.first()
        && wanted.place.end() <= u64::from(first.place.offset) + READ_BYTES_MAX
    {
        members.push(wanted);
        return;
    }
    groups.push((segment.clone(), vec![wanted]));
}

/// Whether an entry may stand where `next` must follow; the index that must follow it.
fn check_follows(next: Option<u64>, index: u64) -> io::Result<u64> {
    if next.is_some_and(|next| next != index) || index == u64::MAX {
        let text = format!("entry {index} where entry {next:?} must follow");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(index + 1)
}

fn limit(what: &str, bytes: usize, bytes_max: usize) -> io::Result<()> {
    if bytes <= bytes_max {
        return Ok(());
    }
    let text = format!("{what}: {bytes} bytes, the limit is {bytes_max}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}
