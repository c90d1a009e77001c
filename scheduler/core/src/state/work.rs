//! Work: the live replicas bound to one node.
//!
//! **Invariant:** each once, rising; a change costs little however many there are, since one node may
//! hold a whole job's replicas that ask for next to nothing.

use crate::id::{JobId, Rank};
use std::collections::BTreeSet;

/// Replicas in a list at most: few nodes have more, and moving as many costs no more than a tree.
const LIST_MAX: usize = 64;

/// Replicas by job and rank.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// Empty while the tree is not.
    list: Vec<(JobId, Rank)>,
    tree: BTreeSet<(JobId, Rank)>,
}

impl Work {
    pub(super) fn iter(&self) -> impl Iterator<Item = (JobId, Rank)> {
        self.list.iter().chain(&self.tree).copied()
    }

    pub(super) fn insert(&mut self, job: JobId, rank: Rank) {
        let key = (job, rank);
        if !self.tree.is_empty() {
            self.tree.insert(key);
            return;
        }
        // Newer jobs and higher ranks come last, nearly always.
        let is_last = self.list.last().is_none_or(|last| *last < key);
        let place = if is_last { Err(self.list.len()) } else { self.list.binary_search(&key) };
        if let Err(at) = place {
            self.list.insert(at, key);
        }
        if self.list.len() > LIST_MAX {
            self.tree = std::mem::take(&mut self.list).into_iter().collect();
        }
    }

    pub(super) fn remove(&mut self, job: JobId, rank: Rank) {
        let key = (job, rank);
        if !self.tree.is_empty() {
            self.tree.remove(&key);
        } else if let Ok(at) = self.list.binary_search(&key) {
            self.list.remove(at);
        }
    }
}

/// Whether list or tree hangs on history.
impl PartialEq for Work {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::noise::Dice;

    #[test]
    fn few_or_many_it_is_a_set() {
        let (mut work, mut model) = (Work::default(), BTreeSet::new());
        let mut dice = Dice::new(7);
        let mut largest = 0;
        for step in 0..20_000u64 {
            // Long stretches of growth and of decline.
            let grows = dice.below(10) < if step / 1_000 % 2 == 0 { 7 } else { 3 };
            let (job, rank) = (JobId(dice.below(4)), Rank(dice.small(300)));
            if grows {
                work.insert(job, rank);
                model.insert((job, rank));
            } else {
                work.remove(job, rank);
                model.remove(&(job, rank));
            }
            assert!(work.iter().eq(model.iter().copied()));
            largest = largest.max(model.len());
        }
        assert!(largest > 2 * LIST_MAX);
        for (job, rank) in model {
            work.remove(job, rank);
        }
        assert!(work == Work::default());
    }
}
