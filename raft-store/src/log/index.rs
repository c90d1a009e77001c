//! Where each written entry lies: 8 bytes per entry, grouped in runs.
//!
//! A run holds consecutive entries of one segment, one term and one leader, so the position of
//! any entry is known without reading the disk.
//!
//! **Invariant:** runs are consecutive and their segments' sequence numbers never fall.

use std::collections::VecDeque;
use std::sync::Arc;

use super::LogPosition;
use super::segment::{Place, Segment, Wanted};

/// All written entries that are not purged and not truncated, plus purged ones whose run still
/// holds a needed entry.
#[derive(Debug, Default)]
pub(super) struct Index {
    runs: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    first: LogPosition,
    segment: Arc<Segment>,
    places: Vec<Place>,
}

impl Index {
    /// Adds the entry that follows the last one; on an index left empty, any.
    pub(super) fn push(&mut self, at: LogPosition, segment: &Arc<Segment>, place: Place) {
        self.extend(at, segment, &[place]);
    }

    /// Adds entries of one segment, term and leader; the first follows the last one there is.
    pub(super) fn extend(&mut self, first: LogPosition, segment: &Arc<Segment>, places: &[Place]) {
        match self.runs.back_mut() {
            Some(run) if run.goes_on_with(first, segment) => run.places.extend_from_slice(places),
            _ if places.is_empty() => {}
            _ => self.runs.push_back(Run {
                first,
                segment: segment.clone(),
                places: places.to_vec(),
            }),
        }
    }

    /// Forgets entries behind `last_kept`.
    pub(super) fn truncate_after(&mut self, last_kept: Option<u64>) {
        let Some(last_kept) = last_kept else {
            self.runs.clear();
            return;
        };
        while let Some(run) = self.runs.back_mut() {
            if run.first.index <= last_kept {
                let kept = (last_kept - run.first.index).saturating_add(1);
                run.places.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
                return;
            }
            self.runs.pop_back();
        }
    }

    /// Forgets runs that hold no entry behind `upto`.
    pub(super) fn purge(&mut self, upto: u64) {
        while self.runs.front().is_some_and(|run| run.last_index() <= upto) {
            self.runs.pop_front();
        }
    }

    /// Position of a written entry.
    pub(super) fn position(&self, index: u64) -> Option<LogPosition> {
        let run = &self.runs[self.run_of(index)?];
        Some(LogPosition { index, ..run.first })
    }

    /// The entry and the segment it is in.
    pub(super) fn find(&self, index: u64) -> Option<(&Arc<Segment>, Wanted)> {
        let run = &self.runs[self.run_of(index)?];
        let place = run.places[usize::try_from(index - run.first.index).ok()?];
        let at = LogPosition { index, ..run.first };
        Some((&run.segment, Wanted { at, place }))
    }

    /// Sequence number of the oldest segment that still holds a needed entry.
    pub(super) fn first_sequence(&self) -> Option<u64> {
        self.runs.front().map(|run| run.segment.salt.sequence)
    }

    /// First and last index held.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        Some((self.runs.front()?.first.index, self.runs.back()?.last_index()))
    }

    fn run_of(&self, index: u64) -> Option<usize> {
        let behind = self.runs.partition_point(|run| run.first.index <= index);
        let place = behind.checked_sub(1)?;
        (index <= self.runs[place].last_index()).then_some(place)
    }
}

impl Run {
    fn last_index(&self) -> u64 {
        self.first.index + self.places.len() as u64 - 1
    }

    fn goes_on_with(&self, at: LogPosition, segment: &Arc<Segment>) -> bool {
        Arc::ptr_eq(&self.segment, segment) && follows(self.first, self.places.len(), at)
    }
}

/// Whether `at` goes on a run of `count` entries that begins at `first`.
pub(super) fn follows(first: LogPosition, count: usize, at: LogPosition) -> bool {
    (first.term, first.leader) == (at.term, at.leader) && at.index == first.index + count as u64
}
