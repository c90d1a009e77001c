//! What one agent holds, with its part of the process's figures.
//!
//! **Invariant:** the meter shows exactly what all boards hold; a board that goes takes its part
//! with it.

use crate::link::Shared;
use crate::link::meter::Figure;
use agent_core::holdings::Holdings;
use agent_core::replica::{AssignmentId, Binding, Exit, Held, Phase};
use std::sync::Arc;

/// See the module.
pub(crate) struct Board {
    shared: Arc<Shared>,
    held: Holdings,
    joined: bool,
    session: bool,
}

impl Board {
    pub(crate) fn new(shared: Arc<Shared>) -> Board {
        shared.meter.add(Figure::Agents);
        Board { shared, held: Holdings::default(), joined: false, session: false }
    }

    pub(crate) fn held(&self) -> &Holdings {
        &self.held
    }

    pub(crate) fn phase(&self, id: AssignmentId) -> Option<Phase> {
        self.held.get(id).map(|held| held.phase)
    }

    /// Notes how a replica is now, and gives it back.
    pub(crate) fn set(&mut self, binding: Binding, phase: Phase) -> Held {
        let before = self.held.set(binding, phase);
        self.count(before, Some(phase));
        Held { binding, phase }
    }

    pub(crate) fn remove(&mut self, id: AssignmentId) {
        let before = self.held.remove(id);
        self.count(before, None);
    }

    /// The node is registered.
    pub(crate) fn set_joined(&mut self) {
        if !std::mem::replace(&mut self.joined, true) {
            self.shared.meter.add(Figure::Joined);
        }
    }

    /// Whether there is a session that has got a desired state.
    pub(crate) fn set_session(&mut self, session: bool) {
        match (std::mem::replace(&mut self.session, session), session) {
            (false, true) => self.shared.meter.add(Figure::Sessions),
            (true, false) => self.shared.meter.sub(Figure::Sessions),
            _ => {}
        }
    }

    fn count(&self, before: Option<Phase>, after: Option<Phase>) {
        let figure = |phase| match phase {
            Phase::Starting => Some(Figure::Starting),
            Phase::Ready => Some(Figure::Ready),
            Phase::Stopping { .. } | Phase::Ended(_) => None,
        };
        let (from, to) = (before.and_then(figure), after.and_then(figure));
        if from == to {
            return;
        }
        if let Some(from) = from {
            self.shared.meter.sub(from);
        }
        if let Some(to) = to {
            self.shared.meter.add(to);
        }
    }

    /// Counts a failure that was not of the agent's making.
    pub(crate) fn count_exit(&self, exit: Exit) {
        if exit != Exit::Succeeded {
            self.shared.meter.add(Figure::Failures);
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        for held in std::mem::take(&mut self.held).iter() {
            self.count(Some(held.phase), None);
        }
        self.set_session(false);
        if self.joined {
            self.shared.meter.sub(Figure::Joined);
        }
        self.shared.meter.sub(Figure::Agents);
    }
}
