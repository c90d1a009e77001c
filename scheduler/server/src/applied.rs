//! Hands on what the applying task reports, to those who act on it: leader, sessions, watches.
//!
//! **Invariant:** never waits, never grows without bound: what is not picked up is merged, and
//! every consumer looks at the state again instead of trusting what it was told.

use raft_store::{Observer, Status};
use scheduler_core::duty::bag::Bag;
use scheduler_core::event::Event;
use scheduler_core::id::{JobId, NodeId};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Locks, also after a panic elsewhere: the data under our locks is whole between statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What changed since it was last looked at. `everything` after a snapshot replaced the state.
#[derive(Debug)]
pub struct Changes<T> {
    /// Sorted, without repeats.
    pub items: Vec<T>,
    /// Look at all there is, not at `items` alone.
    pub everything: bool,
}

/// A [`Bag`] with a bell: one consumer waits, the applying task fills.
#[derive(Debug)]
pub struct Changed<T> {
    bag: Mutex<(Bag<T>, bool)>,
    bell: Notify,
}

impl<T: Ord> Default for Changed<T> {
    fn default() -> Self {
        Self { bag: Mutex::default(), bell: Notify::new() }
    }
}

impl<T: Ord> Changed<T> {
    /// Adds items and wakes the consumer.
    pub fn extend(&self, items: impl Iterator<Item = T>) {
        let mut guard = lock(&self.bag);
        items.for_each(|item| guard.0.push(item));
        let ring = !guard.0.is_empty();
        drop(guard);
        if ring {
            self.bell.notify_one();
        }
    }

    /// Says that everything may have changed.
    pub fn everything(&self) {
        lock(&self.bag).1 = true;
        self.bell.notify_one();
    }

    /// Waits until something changed and takes it. For one consumer; safe to drop half-way.
    pub async fn next(&self) -> Changes<T> {
        loop {
            if let Some(changes) = self.try_next() {
                return changes;
            }
            self.bell.notified().await;
        }
    }

    /// Takes what changed, if something did.
    pub fn try_next(&self) -> Option<Changes<T>> {
        let mut guard = lock(&self.bag);
        if guard.0.is_empty() && !guard.1 {
            return None;
        }
        let everything = std::mem::take(&mut guard.1);
        Some(Changes { items: guard.0.take(), everything })
    }
}

/// Told of every applied slice while this server leads.
pub trait Follow: Send + Sync + 'static {
    /// As [`Observer::applied`].
    fn applied(&self, index: u64, events: &[Event]);
    /// As [`Observer::replaced`].
    fn replaced(&self);
}

/// The one observer of the quorum.
#[derive(Default)]
pub struct Fanout {
    /// Nodes whose own facts or whose work changed: for the session dispatcher.
    pub nodes: Changed<NodeId>,
    /// Jobs that changed: for the watch hub.
    pub jobs: Changed<JobId>,
    leader: Mutex<Option<std::sync::Arc<dyn Follow>>>,
}

impl Fanout {
    /// Sets or clears who is told as the leader's planner.
    pub(crate) fn follow(&self, follower: Option<std::sync::Arc<dyn Follow>>) {
        *lock(&self.leader) = follower;
    }
}

impl Observer for Fanout {
    fn applied(&self, index: u64, events: &[Event]) {
        let leader = lock(&self.leader).clone();
        if let Some(leader) = leader {
            leader.applied(index, events);
        }
        self.nodes.extend(events.iter().filter_map(|event| match event {
            Event::NodeChanged(node) | Event::NodeWorkChanged(node) => Some(*node),
            _ => None,
        }));
        self.jobs.extend(events.iter().filter_map(|event| match event {
            Event::JobChanged(job) => Some(*job),
            _ => None,
        }));
    }

    fn leadership(&self, status: &Status) {
        let leader = status.leader.as_ref().map_or(0, |member| member.id.0);
        tracing::info!(role = ?status.role, term = status.term, leader, "standing changed");
    }

    fn replaced(&self, index: u64) {
        tracing::info!(index, "a snapshot replaced the state");
        let leader = lock(&self.leader).clone();
        if let Some(leader) = leader {
            leader.replaced();
        }
        self.nodes.everything();
        self.jobs.everything();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_consumer_gets_what_came_while_it_was_away() {
        let changed = Changed::default();
        changed.extend([3, 1, 3].into_iter());
        changed.extend([2].into_iter());
        let changes = changed.next().await;
        assert_eq!((changes.items, changes.everything), (vec![1, 2, 3], false));
        changed.everything();
        assert!(changed.next().await.everything);
        assert!(changed.try_next().is_none());
    }
}
