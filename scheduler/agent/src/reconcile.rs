//! What to start and what to stop, from what is wanted and what is held.
//!
//! **Invariant:** pure. It never starts a replica on a GPU whose holder has not been seen to end,
//! never two bindings of one replica, and nothing that is not wanted.

use crate::replica::{Assignment, AssignmentId, GPU_MILLI, GPUS_MAX, Held, JobId, Phase, Rank};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Everything the agent holds, by assignment.
pub type Holdings = BTreeMap<AssignmentId, Held>;

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Runs, but is not wanted.
    Stop(AssignmentId),
    /// Has ended and is not wanted: forget it.
    Forget(AssignmentId),
    /// Wanted, and its GPUs are free.
    Start(Arc<Assignment>),
}

/// What to do now. Wanted replicas whose GPUs are still held get no action; ask again when a stop
/// has been confirmed. Stops come first.
pub fn reconcile(desired: &[Arc<Assignment>], held: &Holdings) -> Vec<Action> {
    let wanted: BTreeSet<AssignmentId> = desired.iter().map(|want| want.binding.id).collect();
    let mut actions = Vec::new();
    for held in held.values().filter(|held| !wanted.contains(&held.binding.id)) {
        match held.phase {
            Phase::Starting | Phase::Ready => actions.push(Action::Stop(held.binding.id)),
            Phase::Stopping { .. } => {}
            Phase::Ended(_) => actions.push(Action::Forget(held.binding.id)),
        }
    }
    if desired.iter().all(|want| held.contains_key(&want.binding.id)) {
        return actions;
    }
    let mut room = Room::beside(held);
    let mut taken_up = BTreeSet::new();
    for want in desired {
        let id = want.binding.id;
        if !held.contains_key(&id) && taken_up.insert(id) && room.take(want) {
            actions.push(Action::Start(Arc::clone(want)));
        }
    }
    actions
}

/// What is left of the GPUs, and which replicas are there in some binding.
struct Room {
    milli_used: [u32; GPUS_MAX as usize],
    alive: BTreeSet<(JobId, Rank)>,
}

impl Room {
    fn beside(held: &Holdings) -> Room {
        let mut room = Room { milli_used: [0; GPUS_MAX as usize], alive: BTreeSet::new() };
        for held in held.values().filter(|held| held.phase.holds_gpus()) {
            room.alive.insert((held.binding.job, held.binding.rank));
            for gpu in held.binding.gpus.iter() {
                room.milli_used[gpu as usize] += held.binding.milli_per_gpu();
            }
        }
        room
    }

    /// Takes the replica's GPUs, or leaves all as it was.
    fn take(&mut self, want: &Assignment) -> bool {
        let binding = &want.binding;
        let milli = binding.milli_per_gpu();
        let fits = |gpu: u32| self.milli_used[gpu as usize] + milli <= GPU_MILLI;
        if !binding.gpus.iter().all(fits) || !self.alive.insert((binding.job, binding.rank)) {
            return false;
        }
        for gpu in binding.gpus.iter() {
            self.milli_used[gpu as usize] += milli;
        }
        true
    }
}

#[cfg(test)]
mod tests;
