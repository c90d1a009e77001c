//! Changes: which nodes' free capacity changed lately, so that what is remembered of them can be
//! brought up to date without a look at the whole fleet.
//!
//! **Invariant:** every change of a node is noted before anybody can read the changed node.

use std::collections::VecDeque;

/// Changes remembered: beyond that many it is cheaper to look at every node again.
const CHANGES_MAX: usize = 32_768;

/// Changed nodes, oldest first, numbered from 0 upwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Number of the first one remembered.
    first: u64,
    nodes: VecDeque<u32>,
}

impl Changes {
    pub(super) fn note(&mut self, node: u32) {
        if self.nodes.len() >= CHANGES_MAX {
            self.nodes.pop_front();
            self.first += 1;
        }
        self.nodes.push_back(node);
    }

    /// Number of the next change.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.nodes.len() as u64
    }

    /// Nodes changed from this number on, perhaps several times; `None` if some are forgotten.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = u32>> {
        let skip = usize::try_from(seen.checked_sub(self.first)?).ok()?;
        Some(self.nodes.range(skip.min(self.nodes.len())..).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_changes_are_forgotten_and_say_so() {
        let mut changes = Changes::default();
        for node in 0..10 {
            changes.note(node);
        }
        let seen = changes.end() - 3;
        assert_eq!(changes.since(seen).map(Iterator::collect::<Vec<_>>), Some(vec![7, 8, 9]));
        for _ in 0..CHANGES_MAX {
            changes.note(1);
        }
        assert!(changes.since(seen).is_none());
        let end = changes.end();
        assert_eq!(changes.since(end).map(Iterator::count), Some(0));
    }
}
