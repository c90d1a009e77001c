//! The newest entries in memory: those not written yet, and as many written ones as fit.
//!
//! Entries are held as they came, a request's worth at a time and shared with that request, so
//! that taking them in and letting them go costs nothing per entry.
//!
//! **Invariant:** entries are consecutive up to the last of the log, and one that is not on disk
//! is never evicted.

use std::collections::VecDeque;
use std::io;
use std::mem::size_of;
use std::ops::Range;
use std::sync::Arc;

use super::format::{PAYLOAD_BYTES_MAX, RECORD_HEADER_BYTES};
use super::{LogPosition, Record};

#[derive(Debug)]
pub(super) struct Tail {
    held: VecDeque<Held>,
    len: usize,
    bytes: usize,
    bytes_max: usize,
}

/// Consecutive entries as one request brings them, shared by the tail and the queue.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) records: Arc<Vec<Record>>,
    payload_bytes: usize,
}

/// What one request brought.
#[derive(Debug)]
struct Held {
    records: Arc<Vec<Record>>,
    /// Those that are neither truncated nor purged; never empty.
    range: Range<usize>,
    /// Index of the first one in the range.
    first_index: u64,
    /// In memory, until all of them go.
    bytes: usize,
    /// Number of the request; evictable once it is written.
    ticket: u64,
}

/// What a request's entries cost in memory besides themselves.
const OVERHEAD_BYTES: usize = size_of::<Held>() + size_of::<Vec<Record>>() + 2 * size_of::<usize>();

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held: VecDeque::new(), len: 0, bytes: 0, bytes_max }
    }

    /// Takes the entries that follow the last one.
    pub(super) fn push(&mut self, batch: Batch, ticket: u64) {
        let Batch { records, payload_bytes } = batch;
        let Some(first) = records.first() else { return };
        let first_index = first.at.index;
        let bytes = OVERHEAD_BYTES + records.capacity() * size_of::<Record>() + payload_bytes;
        let range = 0..records.len();
        self.bytes += bytes;
        self.len += range.len();
        self.held.push_back(Held { records, range, first_index, bytes, ticket });
    }

    /// Index of the first entry held.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.held.front().map(|held| held.first_index)
    }

    pub(super) fn get(&self, index: u64) -> Option<&Record> {
        let behind = self.held.partition_point(|held| held.first_index <= index);
        let held = self.held.get(behind.checked_sub(1)?)?;
        let place = usize::try_from(index - held.first_index).ok()?;
        held.records[held.range.clone()].get(place)
    }

    pub(super) fn position(&self, index: u64) -> Option<LogPosition> {
        self.get(index).map(|record| record.at)
    }

    pub(super) fn truncate_after(&mut self, last_kept: Option<u64>) {
        while let Some(held) = self.held.back_mut() {
            let kept = last_kept.map_or(0, |last| (last + 1).saturating_sub(held.first_index));
            let kept = usize::try_from(kept).unwrap_or(usize::MAX).min(held.range.len());
            if kept > 0 {
                self.len -= held.range.len() - kept;
                held.range.end = held.range.start + kept;
                return;
            }
            self.forget(VecDeque::pop_back);
        }
    }

    pub(super) fn purge(&mut self, upto: u64) {
        while let Some(held) = self.held.front_mut() {
            let gone = upto.saturating_add(1).saturating_sub(held.first_index);
            let gone = usize::try_from(gone).unwrap_or(usize::MAX);
            if gone < held.range.len() {
                self.len -= gone;
                held.range.start += gone;
                held.first_index += gone as u64;
                return;
            }
            self.forget(VecDeque::pop_front);
        }
    }

    /// Moves the oldest entries that requests up to `written` brought out, down to the bound. To
    /// drop them takes a while, which is better spent without the lock.
    pub(super) fn evict(&mut self, written: u64, evicted: &mut Vec<Arc<Vec<Record>>>) {
        while self.bytes > self.bytes_max
            && self.held.front().is_some_and(|held| held.ticket <= written)
        {
            evicted.extend(self.forget(VecDeque::pop_front));
        }
    }

    /// Bytes held, overhead included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn forget(
        &mut self,
        pop: impl FnOnce(&mut VecDeque<Held>) -> Option<Held>,
    ) -> Option<Arc<Vec<Record>>> {
        let held = pop(&mut self.held)?;
        self.bytes -= held.bytes;
        self.len -= held.range.len();
        Some(held.records)
    }
}

impl Batch {
    /// Accepts entries that are consecutive among themselves and none longer than a record can be.
    pub(super) fn new(records: Vec<Record>) -> io::Result<Self> {
        let (mut next, mut payload_bytes) = (None, 0);
        for record in &records {
            super::limit("payload", record.payload.len(), PAYLOAD_BYTES_MAX)?;
            next = Some(super::check_follows(next, record.at.index)?);
            payload_bytes += record.payload.len();
        }
        Ok(Self { records: Arc::new(records), payload_bytes })
    }

    /// Bytes on disk, or a few less: padding is not looked at.
    pub(super) fn bytes(&self) -> usize {
        self.payload_bytes + self.records.len() * RECORD_HEADER_BYTES
    }
}

#[cfg(test)]
mod tests;
