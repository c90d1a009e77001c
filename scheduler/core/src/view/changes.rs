//! Changes: which states of nodes began or ended lately, so that what is remembered of them can be
//! brought up to date without a look at all of them.
//!
//! **Invariant:** every change is noted before anybody can read the changed state.

use super::states::StateId;
use std::collections::VecDeque;

/// Changes remembered: beyond that many it is cheaper to look at every state again.
const CHANGES_MAX: usize = 32_768;

/// Changed states, oldest first, numbered from 0 upwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changes {
    /// Number of the first one remembered.
    first: u64,
    states: VecDeque<StateId>,
}

impl Changes {
    pub(super) fn note(&mut self, state: StateId) {
        if self.states.len() >= CHANGES_MAX {
            self.states.pop_front();
            self.first += 1;
        }
        self.states.push_back(state);
    }

    /// Number of the next change.
    pub(crate) fn end(&self) -> u64 {
        self.first + self.states.len() as u64
    }

    /// States changed from this number on, perhaps several times; `None` if some are forgotten.
    pub(crate) fn since(&self, seen: u64) -> Option<impl Iterator<Item = StateId>> {
        let skip = usize::try_from(seen.checked_sub(self.first)?).ok()?;
        Some(self.states.range(skip.min(self.states.len())..).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_changes_are_forgotten_and_say_so() {
        let mut changes = Changes::default();
        for state in 0..10 {
            changes.note(StateId(state));
        }
        let seen = changes.end() - 3;
        assert_eq!(
            changes.since(seen).map(Iterator::collect::<Vec<_>>),
            Some([7, 8, 9].map(StateId).to_vec())
        );
        for _ in 0..CHANGES_MAX {
            changes.note(StateId(1));
        }
        assert!(changes.since(seen).is_none());
        let end = changes.end();
        assert_eq!(changes.since(end).map(Iterator::count), Some(0));
    }
}
