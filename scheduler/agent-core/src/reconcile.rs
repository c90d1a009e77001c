//! What to start and what to stop, from what is wanted and what is held.
//!
//! **Invariant:** pure. It never starts a replica on a GPU whose holder has not been seen to end,
//! never two bindings of one replica, and nothing that is not wanted.

use crate::holdings::Holdings;
use crate::replica::{AssignmentId, Binding, GPU_MILLI, GPUS_MAX, Phase};
use std::sync::Arc;

/// Something that is wanted: a binding, with whatever it takes to start it.
pub trait Want {
    fn binding(&self) -> &Binding;
}

impl Want for Binding {
    fn binding(&self) -> &Binding {
        self
    }
}

impl<T: Want> Want for Arc<T> {
    fn binding(&self) -> &Binding {
        (**self).binding()
    }
}

/// All that should run on a node: each assignment once, in rising order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wants<T>(Box<[T]>);

impl<T> Default for Wants<T> {
    fn default() -> Wants<T> {
        Wants(Box::default())
    }
}

impl<T: Want> Wants<T> {
    /// In any order; of an assignment that is there twice, the first counts.
    pub fn new(mut all: Vec<T>) -> Wants<T> {
        all.sort_by_key(|want| want.binding().id);
        all.dedup_by_key(|want| want.binding().id);
        Wants(all.into())
    }

    pub fn contains(&self, id: AssignmentId) -> bool {
        self.0.binary_search_by_key(&id, |want| want.binding().id).is_ok()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action<T> {
    /// Runs, but is not wanted.
    Stop(AssignmentId),
    /// Has ended and is not wanted: forget it.
    Forget(AssignmentId),
    /// Wanted, and its GPUs are free.
    Start(T),
}

/// What to do now. Wanted replicas whose GPUs are still held get no action; ask again when a stop
/// has been confirmed. Stops come first.
pub fn reconcile<T: Want + Clone>(wants: &Wants<T>, held: &Holdings) -> Vec<Action<T>> {
    let mut actions = Vec::new();
    for held in held.iter().filter(|held| !wants.contains(held.binding.id)) {
        match held.phase {
            Phase::Starting | Phase::Ready => actions.push(Action::Stop(held.binding.id)),
            Phase::Stopping { .. } => {}
            Phase::Ended(_) => actions.push(Action::Forget(held.binding.id)),
        }
    }
    let mut missing = wants.iter().filter(|want| held.get(want.binding().id).is_none()).peekable();
    if missing.peek().is_none() {
        return actions;
    }
    let mut room = Room::beside(held);
    for want in missing {
        let binding = want.binding();
        let comes = |action: &Action<T>| match action {
            Action::Start(other) => other.binding().is_of_same_replica(binding),
            Action::Stop(_) | Action::Forget(_) => false,
        };
        if !is_there(held, binding) && !actions.iter().any(comes) && room.take(binding) {
            actions.push(Action::Start(want.clone()));
        }
    }
    actions
}

/// Whether the replica is there in some binding.
fn is_there(held: &Holdings, binding: &Binding) -> bool {
    let mut live = held.iter().filter(|held| held.phase.holds_gpus());
    live.any(|held| held.binding.is_of_same_replica(binding))
}

/// What is left of the GPUs.
struct Room {
    milli_used: [u32; GPUS_MAX as usize],
}

impl Room {
    fn beside(held: &Holdings) -> Room {
        let mut room = Room { milli_used: [0; GPUS_MAX as usize] };
        held.iter().filter(|held| held.phase.holds_gpus()).for_each(|held| room.add(&held.binding));
        room
    }

    fn add(&mut self, binding: &Binding) {
        for gpu in binding.gpus.iter() {
            self.milli_used[gpu as usize] += binding.milli_per_gpu();
        }
    }

    /// Takes the replica's GPUs, or leaves all as it was.
    fn take(&mut self, binding: &Binding) -> bool {
        let milli = binding.milli_per_gpu();
        let fits =
            binding.gpus.iter().all(|gpu| self.milli_used[gpu as usize] + milli <= GPU_MILLI);
        if fits {
            self.add(binding);
        }
        fits
    }
}

#[cfg(test)]
mod tests;
