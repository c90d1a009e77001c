//! The newest entries in memory: those not written yet, and as many written ones as fit.
//!
//! **Invariant:** entries are consecutive up to the last of the log, and one that is not on disk
//! is never evicted.

use std::collections::VecDeque;

use super::{LogPosition, Record};

#[derive(Debug)]
pub(super) struct Tail {
    held: VecDeque<Held>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Held {
    record: Record,
    /// Number of the request that brought it; evictable once that request is written.
    ticket: u64,
}

/// What an entry costs in memory besides its payload.
const OVERHEAD_BYTES: usize = std::mem::size_of::<Held>();

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { held: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn push(&mut self, record: Record, ticket: u64) {
        self.bytes += cost(&record);
        self.held.push_back(Held { record, ticket });
    }

    /// Index of the first entry held.
    pub(super) fn first_index(&self) -> Option<u64> {
        self.held.front().map(|held| held.record.at.index)
    }

    pub(super) fn get(&self, index: u64) -> Option<&Record> {
        let place = usize::try_from(index.checked_sub(self.first_index()?)?).ok()?;
        self.held.get(place).map(|held| &held.record)
    }

    pub(super) fn position(&self, index: u64) -> Option<LogPosition> {
        self.get(index).map(|record| record.at)
    }

    pub(super) fn truncate_after(&mut self, last_kept: Option<u64>) {
        while self.held.back().is_some_and(|held| Some(held.record.at.index) > last_kept) {
            self.forget(VecDeque::pop_back);
        }
    }

    pub(super) fn purge(&mut self, upto: u64) {
        while self.held.front().is_some_and(|held| held.record.at.index <= upto) {
            self.forget(VecDeque::pop_front);
        }
    }

    /// Drops the oldest entries that requests up to `written` brought, down to the bound.
    pub(super) fn evict(&mut self, written: u64) {
        while self.bytes > self.bytes_max
            && self.held.front().is_some_and(|held| held.ticket <= written)
        {
            self.forget(VecDeque::pop_front);
        }
    }

    /// Bytes held, overhead included.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    fn forget(&mut self, pop: impl FnOnce(&mut VecDeque<Held>) -> Option<Held>) {
        if let Some(held) = pop(&mut self.held) {
            self.bytes -= cost(&held.record);
        }
    }
}

fn cost(record: &Record) -> usize {
    record.payload.len() + OVERHEAD_BYTES
}
