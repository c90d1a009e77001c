//! What the records of one write change for readers, kept until the write is durable.
//!
//! **Invariant:** published in the order in which the records were written; entries that follow
//! each other in one segment, term and leader are one step, whatever their number.

use std::sync::Arc;

use super::LogPosition;
use super::format::Item;
use super::index::{self, Index};
use super::segment::{Place, Segment};

/// Effects of the present write. Its room is kept from write to write.
#[derive(Debug, Default)]
pub(super) struct Effects {
    steps: Vec<Step>,
    /// Of the entries of all runs, in order.
    places: Vec<Place>,
}

#[derive(Debug)]
enum Step {
    Entries { first: LogPosition, segment: Arc<Segment>, count: usize },
    Truncate(Option<u64>),
    Purge(u64),
}

impl Effects {
    /// An entry was put at `place` of `segment`.
    pub(super) fn note_entry(&mut self, at: LogPosition, segment: &Arc<Segment>, place: Place) {
        self.places.push(place);
        if let Some(Step::Entries { first, segment: held, count }) = self.steps.last_mut()
            && Arc::ptr_eq(held, segment)
            && index::follows(*first, *count, at)
        {
            *count += 1;
            return;
        }
        self.steps.push(Step::Entries { first: at, segment: segment.clone(), count: 1 });
    }

    /// A record other than an entry was put.
    pub(super) fn note(&mut self, item: &Item) {
        match item {
            Item::Truncated(kept) => {
                self.steps.push(Step::Truncate(kept.map(|kept| kept.index)));
            }
            Item::Purged(upto) => self.steps.push(Step::Purge(upto.index)),
            _ => {}
        }
    }

    /// Lets all of it take effect, and forgets it.
    pub(super) fn publish(&mut self, index: &mut Index) {
        let mut places = self.places.as_slice();
        for step in self.steps.drain(..) {
            match step {
                Step::Entries { first, segment, count } => {
                    let (run, rest) = places.split_at(count.min(places.len()));
                    index.extend(first, &segment, run);
                    places = rest;
                }
                Step::Truncate(kept) => index.truncate_after(kept),
                Step::Purge(upto) => index.purge(upto),
            }
        }
        self.places.clear();
    }
}
