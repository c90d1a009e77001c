//! Standing: what the second look finds of states as they are, before anything is placed there.
//!
//! It is the same for every shape, so all boards of a policy share it.
//! **Invariant:** a memo, as the boards are.

use super::Policy;
use super::board::Choice;
use crate::view::{StateId, States};

/// Values by state.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// Whose they are, and by which scorer.
    of: Option<(Policy, u64)>,
    /// Changes of states taken in.
    seen: u64,
    values: Vec<Option<f64>>,
}

impl Standing {
    /// Forgets states that began or ended since the last time, or all if they are another scorer's.
    pub(super) fn update(&mut self, policy: Policy, choice: &Choice<'_>) {
        let states: &States = choice.ask.view.states();
        let of = Some((policy, choice.version));
        let changed = states.changes().since(self.seen).filter(|_| self.of == of);
        (self.of, self.seen) = (of, states.changes().end());
        match changed {
            Some(changed) => changed.for_each(|StateId(state)| {
                if let Some(value) = self.values.get_mut(state as usize) {
                    *value = None;
                }
            }),
            None => self.values.clear(),
        }
        self.values.resize(states.end(), None);
    }

    /// The value of a state, worked out where it is not known.
    pub(super) fn of(&mut self, StateId(state): StateId, work_out: impl FnOnce() -> f64) -> f64 {
        match self.values.get_mut(state as usize) {
            Some(value) => *value.get_or_insert_with(work_out),
            None => work_out(),
        }
    }
}
