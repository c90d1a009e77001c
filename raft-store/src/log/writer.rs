//! The one thread that writes the log.
//!
//! It takes everything that waits, writes it with one call, syncs, lets readers know where the
//! entries lie, and then calls back in order. A full segment is followed by a new one: the new
//! file gets its header and a copy of the marks while it still has another name, is synced,
//! renamed, its name synced; then the old segment gets its seal; only then do records follow.
//!
//! **Invariant:** at most one write is unsynced at any time, and the write that failed is the
//! last one ever made.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::effect::Effects;
use super::format::{self, Carry, Header, Item, SEGMENT_HEADER_BYTES, Salt, Spot};
use super::marks::Marks;
use super::prepare::Preparer;
use super::queue::{Failure, Queue, Request, Work};
use super::segment::{self, PREPARED_NAME, Place, Segment};
use super::{Options, Record, Stats};
use crate::files::{File, Files};

/// Bytes taken from the queue for one write: long enough to share a sync among thousands of
/// appends, short enough (some 20 ms of a slow disk) not to make the first of them wait.
const WRITE_BYTES_MAX: usize = 8 << 20;
/// Zeroes are written ahead only while writes are smaller than this. Larger ones take their time
/// for the data itself, and writing every byte twice would double that.
const ZEROES_WRITE_BYTES_MAX: u64 = 64 << 10;
/// Written pages are released in steps of this, so that the next ones come from memory the
/// processor still holds. Without it every append writes into memory that was cold for a gigabyte
/// of log, which costs more than all else the log does.
const RELEASE_BYTES: u64 = 256 << 10;
/// Released are whole pages: a part of one would be read back for the next write into it.
const PAGE_BYTES: u64 = 4096;
/// A write buffer that grew beyond this for a giant request is given back afterwards.
const BUFFER_BYTES_KEPT: usize = 2 * WRITE_BYTES_MAX;

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) files: Arc<dyn Files>,
    pub(super) options: Options,
    pub(super) queue: Arc<Queue>,
    /// Oldest first.
    pub(super) older: VecDeque<Older>,
    pub(super) active: Active,
    /// As of the last record put into the buffer.
    pub(super) marks: Marks,
    /// Whether the last record on disk says that the log was closed in order.
    pub(super) closed: bool,
    pub(super) preparer: Preparer,
    pub(super) buffer: Vec<u8>,
    pub(super) effects: Effects,
    /// Entries that have left the tail and are dropped when nobody waits for it.
    pub(super) evicted: Vec<Arc<Vec<Record>>>,
    pub(super) counts: Counts,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    /// Bytes on disk and synced; the next write begins here.
    pub(super) end: u64,
    /// Size at which the next segment begins.
    pub(super) bytes_max: u64,
    /// Pages before this need not stay in memory.
    pub(super) released: u64,
    /// Whether it holds nothing but its head.
    pub(super) is_fresh: bool,
}

/// A segment that is complete.
#[derive(Debug)]
pub(super) struct Older {
    pub(super) segment: Arc<Segment>,
    /// Bytes of records, without the zeroes behind them.
    pub(super) bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) writes: u64,
    pub(super) syncs: u64,
    pub(super) bytes_written: u64,
    /// Of the last eight or so writes.
    pub(super) write_bytes_mean: u64,
}

impl Writer {
    /// Works until the log closes or a write fails.
    pub(super) fn run(mut self) {
        let guard = StopOnExit(self.queue.clone());
        while let Some(requests) = self.queue.take(WRITE_BYTES_MAX) {
            match self.write(&requests) {
                Ok(()) => {
                    self.publish(&requests);
                    self.report(requests);
                    self.evicted.clear();
                    self.order_zeroes();
                    self.release(RELEASE_BYTES);
                }
                Err(error) => {
                    self.fail(requests, &error);
                    return;
                }
            }
        }
        self.close();
        drop(guard);
    }

    fn write(&mut self, requests: &[Request]) -> io::Result<()> {
        for request in requests {
            match &request.work {
                Work::Barrier => {}
                Work::Mark(item) => self.put(item)?,
                Work::Append(batch) => {
                    for record in batch.records.iter() {
                        self.put_entry(record)?;
                    }
                }
            }
        }
        self.flush()
    }

    fn put(&mut self, item: &Item) -> io::Result<()> {
        if let Item::Entry(record) = item {
            return self.put_entry(record);
        }
        let spot = self.spot(item.bytes_on_disk())?;
        self.marks.apply(item).map_err(io::Error::other)?;
        format::encode(&mut self.buffer, spot, item);
        self.effects.note(item);
        Ok(())
    }

    fn put_entry(&mut self, record: &Record) -> io::Result<()> {
        let spot = self.spot(record.bytes_on_disk())?;
        self.marks.append(record.at).map_err(io::Error::other)?;
        format::encode_entry(&mut self.buffer, spot, record);
        let payload_bytes = u32::try_from(record.payload.len()).map_err(io::Error::other)?;
        let place = Place { offset: spot.offset, payload_bytes };
        self.effects.note_entry(record.at, &self.active.segment, place);
        Ok(())
    }

    /// Where the next record goes; begins a new segment when it does not fit in this one.
    fn spot(&mut self, bytes: usize) -> io::Result<Spot> {
        let room = bytes + Item::Sealed(0).bytes_on_disk();
        let full = self.buffer_end() + room as u64 > self.active.bytes_max;
        if full && !(self.active.is_fresh && self.buffer.is_empty()) {
            self.flush()?;
            self.roll()?;
        } else if self.buffer.len() >= BUFFER_BYTES_KEPT {
            self.flush()?;
        }
        let salt = self.active.segment.salt;
        let write_start = offset(self.active.end)?;
        let offset = offset(self.buffer_end())?;
        Ok(Spot { salt, offset, write_start })
    }

    fn buffer_end(&self) -> u64 {
        self.active.end + self.buffer.len() as u64
    }

    /// Writes the buffer and syncs it.
    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = &self.active.segment.file;
        file.write_all_at(&self.buffer, self.active.end)?;
        file.sync_data()?;
        self.counts.writes += 1;
        self.counts.syncs += 1;
        self.counts.bytes_written += self.buffer.len() as u64;
        self.counts.write_bytes_mean =
            (7 * self.counts.write_bytes_mean + self.buffer.len() as u64) / 8;
        self.active.end += self.buffer.len() as u64;
        self.active.is_fresh = false;
        self.closed = false;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    /// Begins the next segment; the buffer is empty.
    fn roll(&mut self) -> io::Result<()> {
        let salt = self.active.segment.salt;
        let next = Salt { sequence: salt.sequence + 1, ..salt };
        let file = match self.preparer.take() {
            Some(file) => file,
            None => create_beside(&*self.files, &self.dir.join(PREPARED_NAME))?,
        };
        let carry = Carry { previous_end: offset(self.active.end)?, marks: self.marks.clone() };
        let begun = begin_segment(&*self.files, &self.dir, file, next, carry)?;
        self.release(PAGE_BYTES);
        let mut seal = Vec::new();
        let at = offset(self.active.end)?;
        let spot = Spot { salt, offset: at, write_start: at };
        format::encode(&mut seal, spot, &Item::Sealed(next.sequence));
        let file = &self.active.segment.file;
        file.write_all_at(&seal, self.active.end)?;
        file.sync_data()?;
        self.counts.syncs += 2;
        self.older.push_back(Older {
            segment: self.active.segment.clone(),
            bytes: self.active.end + seal.len() as u64,
        });
        let bytes_max = self.next_bytes_max();
        self.active = Active { bytes_max, ..begun };
        Ok(())
    }

    fn next_bytes_max(&self) -> u64 {
        self.active.bytes_max.saturating_mul(2).min(self.options.segment_bytes)
    }

    /// Lets readers see where the entries lie, and evicts from memory.
    fn publish(&mut self, requests: &[Request]) {
        let mut state = self.queue.lock();
        self.effects.publish(&mut state.index);
        if let Some(last) = requests.last() {
            state.tail.evict(last.ticket, &mut self.evicted);
        }
        self.count(&mut state.stats);
    }

    pub(super) fn count(&self, stats: &mut Stats) {
        stats.writes = self.counts.writes;
        stats.syncs = self.counts.syncs;
        stats.bytes_written = self.counts.bytes_written;
        stats.segments = self.older.len() + 1;
        let older: u64 = self.older.iter().map(|older| older.bytes).sum();
        stats.bytes_on_disk = older + self.active.end;
    }

    /// Calls back in order. A purge is done when its segments are gone.
    fn report(&mut self, requests: Vec<Request>) {
        for request in requests {
            let is_purge = matches!(request.work, Work::Mark(Item::Purged(_)));
            let result = if is_purge { self.delete_purged() } else { Ok(()) };
            if let Some(done) = request.done {
                done(result);
            }
        }
    }

    /// Deletes, from the front, segments that hold no needed entry. Each name is synced away
    /// before the next goes, so that a power cut never leaves a gap.
    fn delete_purged(&mut self) -> io::Result<()> {
        let needed = self.queue.lock().index.first_sequence();
        while let Some(oldest) = self.older.front() {
            if needed.is_some_and(|needed| oldest.segment.salt.sequence >= needed) {
                break;
            }
            self.files.remove(&oldest.segment.path)?;
            self.files.sync_dir(&self.dir)?;
            self.older.pop_front();
        }
        self.count(&mut self.queue.lock().stats);
        Ok(())
    }

    /// Has the next segment's zeroes written in step with the present one's filling.
    fn order_zeroes(&mut self) {
        if self.counts.write_bytes_mean > ZEROES_WRITE_BYTES_MAX {
            return;
        }
        let next = self.next_bytes_max();
        let filled = self.active.end.min(self.active.bytes_max);
        let goal = next * filled / self.active.bytes_max + super::prepare::STEP_BYTES;
        self.preparer.reach(goal.min(next), goal >= next);
    }

    /// Lets go of written pages of the active segment, once there are `bytes_min` of them: the
    /// newest entries are in the tail, and older ones are hardly ever read again.
    fn release(&mut self, bytes_min: u64) {
        let upto = self.active.end / PAGE_BYTES * PAGE_BYTES;
        if upto >= self.active.released + bytes_min {
            // Mere advice: a system that does not take it only uses more memory.
            let _ = self.active.segment.file.release(self.active.released, upto);
            self.active.released = upto;
        }
    }

    fn fail(&self, requests: Vec<Request>, error: &io::Error) {
        let dir = self.dir.display();
        tracing::error!(%error, %dir, "a log write failed; the log has stopped for good");
        let failure = Failure::new(error);
        let waiting = self.queue.stop(&failure);
        report_failure(requests.into_iter().chain(waiting), &failure);
    }

    /// Marks an orderly end, which lets the next start tell damage from an unfinished write even
    /// in the last records.
    fn close(&mut self) {
        if self.closed {
            return;
        }
        if let Err(error) = self.put(&Item::Closed).and_then(|()| self.flush()) {
            let dir = self.dir.display();
            tracing::warn!(%error, %dir, "cannot mark the log as closed");
        }
    }
}

/// Whatever ends the writer thread, a panic in a callback included, nobody waits for ever.
struct StopOnExit(Arc<Queue>);

impl Drop for StopOnExit {
    fn drop(&mut self) {
        let failure = Failure::new(&io::Error::other("the writer thread has ended"));
        report_failure(self.0.stop(&failure), &failure);
    }
}

fn report_failure(requests: impl IntoIterator<Item = Request>, failure: &Failure) {
    for request in requests {
        if let Some(done) = request.done {
            done(Err(failure.error()));
        }
    }
}

/// Gives a file, still under its preparing name, the head of a segment and then its name.
pub(super) fn begin_segment(
    files: &dyn Files,
    dir: &Path,
    file: Arc<dyn File>,
    salt: Salt,
    carry: Carry,
) -> io::Result<Active> {
    let first_index = carry.marks.next_index().unwrap_or(0);
    let mut head = format::encode_header(&Header { salt, first_index }).to_vec();
    let spot = Spot { salt, offset: offset(SEGMENT_HEADER_BYTES as u64)?, write_start: 0 };
    format::encode(&mut head, spot, &Item::Carry(carry));
    file.write_all_at(&head, 0)?;
    file.sync_data()?;
    let path = segment::path(dir, salt.sequence, first_index);
    files.rename(&dir.join(PREPARED_NAME), &path)?;
    files.sync_dir(dir)?;
    Ok(Active {
        segment: Arc::new(Segment { path, file, salt }),
        end: head.len() as u64,
        bytes_max: 0,
        released: 0,
        is_fresh: true,
    })
}

/// Creates the file that becomes the next segment, replacing a leftover.
pub(super) fn create_beside(files: &dyn Files, path: &Path) -> io::Result<Arc<dyn File>> {
    match files.remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => files.create(path),
    }
}

fn offset(bytes: u64) -> io::Result<u32> {
    u32::try_from(bytes).map_err(|_| io::Error::other("a segment outgrew its offsets"))
}
