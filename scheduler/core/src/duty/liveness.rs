//! Which nodes have fallen silent, and which are back.
//!
//! **Invariant:** a node is judged by its newest session alone, and never before the leader has
//! been leading for long enough to have heard of it.

use crate::command::NodeTransition;
use crate::id::{Epoch, NodeId};
use crate::node::{Node, NodeStatus};
use crate::state::State;
use crate::table::Table;
use crate::unit::{DurationMs, TimeMs};

/// Lease of a node's session in a small fleet: long enough for a lost connection to be replaced.
pub const LEASE_MIN: DurationMs = DurationMs(10_000);
/// Signs of life a node gives in one lease, so that two may be lost.
pub const BEATS_PER_LEASE: u64 = 3;
/// Signs of life that the servers together should have to take in a second.
const BEATS_PER_SECOND_MAX: u64 = 10_000;
/// Most transitions in one entry: about 40 KB.
pub const TRANSITIONS_MAX: usize = 4_096;

/// Lease for a fleet of this many nodes: [`LEASE_MIN`] up to 33,000, longer in proportion above.
pub fn lease(nodes: usize) -> DurationMs {
    let beats = u64::try_from(nodes).unwrap_or(u64::MAX).saturating_mul(BEATS_PER_LEASE);
    DurationMs(beats.saturating_mul(1_000) / BEATS_PER_SECOND_MAX).max(LEASE_MIN)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Sighting {
    epoch: Epoch,
    at: TimeMs,
}

/// When each node last gave a sign of life, as far as this leader knows.
///
/// Times are the leader's own and may be of a clock that never jumps, as long as it is always the
/// same one.
#[derive(Debug)]
pub struct LeaseTable {
    /// No silence counts from before this.
    since: TimeMs,
    seen: Table<Sighting>,
}

impl LeaseTable {
    /// For a leader that begins at `now`. It knows of no sign of life yet: all nodes get a whole
    /// lease, and `grace` for their sessions to find it.
    pub fn new(now: TimeMs, grace: DurationMs) -> Self {
        Self { since: TimeMs(now.0.saturating_add(grace.0)), seen: Table::default() }
    }

    /// A node gave a sign of life in a session with this epoch.
    pub fn saw(&mut self, node: NodeId, epoch: Epoch, at: TimeMs) {
        let key = u64::from(node.0);
        match self.seen.get_mut(key) {
            Some(last) if (last.epoch, last.at) >= (epoch, at) => {}
            Some(last) => *last = Sighting { epoch, at },
            None => {
                self.seen.insert(key, Sighting { epoch, at });
            }
        }
    }

    /// The node is gone for good.
    pub fn forget(&mut self, node: NodeId) {
        self.seen.remove(u64::from(node.0));
    }

    /// When the node was last seen in its current session.
    pub fn last_seen(&self, node: &Node) -> Option<TimeMs> {
        let last = self.seen.get(u64::from(node.id.0))?;
        (last.epoch == node.epoch).then_some(last.at)
    }

    /// Changes of status to propose at `now`, at most [`TRANSITIONS_MAX`], by rising node id:
    /// silent for more than a lease means down; seen within the lease means up.
    pub fn transitions(
        &self,
        state: &State,
        now: TimeMs,
        lease: DurationMs,
    ) -> Vec<NodeTransition> {
        let next = |node: &Node| {
            let seen = self.last_seen(node);
            let silent_since = seen.map_or(self.since, |at| at.max(self.since));
            let expired = now.0.saturating_sub(silent_since.0) > lease.0;
            match node.status {
                NodeStatus::Up if expired => Some(NodeStatus::Down),
                NodeStatus::Down if self.is_fresh(seen, now, lease) => Some(NodeStatus::Up),
                _ => None,
            }
        };
        state
            .nodes()
            .filter_map(|node| {
                let status = next(node)?;
                Some(NodeTransition { node: node.id, epoch: node.epoch, status })
            })
            .take(TRANSITIONS_MAX)
            .collect()
    }

    fn is_fresh(&self, seen: Option<TimeMs>, now: TimeMs, lease: DurationMs) -> bool {
        seen.is_some_and(|at| now.0.saturating_sub(at.0) <= lease.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::fixture::entry::World;

    const LEASE: DurationMs = DurationMs(10_000);

    fn statuses(leases: &LeaseTable, world: &World, now: u64) -> Vec<(u32, NodeStatus)> {
        let found = leases.transitions(&world.state, TimeMs(now), LEASE);
        found.iter().map(|t| (t.node.0, t.status)).collect()
    }

    #[test]
    fn silence_for_a_lease_is_down_and_a_sign_of_life_is_up_again() {
        let mut world = World::with_nodes(3, 8);
        let mut leases = LeaseTable::new(TimeMs(0), DurationMs(0));
        for node in 0..3 {
            leases.saw(NodeId(node), Epoch(1), TimeMs(1_000));
        }
        leases.saw(NodeId(1), Epoch(1), TimeMs(5_000));
        assert_eq!(statuses(&leases, &world, 11_000), []);
        let down = [(0, NodeStatus::Down), (2, NodeStatus::Down)];
        assert_eq!(statuses(&leases, &world, 11_001), down);
        let found = leases.transitions(&world.state, TimeMs(11_001), LEASE);
        world.done(Command::NodeStatuses(found));
        assert_eq!(statuses(&leases, &world, 11_001), []);
        leases.saw(NodeId(2), Epoch(1), TimeMs(11_500));
        assert_eq!(statuses(&leases, &world, 11_600), [(2, NodeStatus::Up)]);
    }

    #[test]
    fn a_new_leader_waits_for_a_lease_and_its_grace() {
        let world = World::with_nodes(1, 8);
        let leases = LeaseTable::new(TimeMs(100_000), DurationMs(3_000));
        assert_eq!(statuses(&leases, &world, 113_000), []);
        assert_eq!(statuses(&leases, &world, 113_001), [(0, NodeStatus::Down)]);
    }

    #[test]
    fn an_old_session_keeps_nothing_alive() {
        let mut world = World::with_nodes(1, 8);
        world.rejoin(0);
        let mut leases = LeaseTable::new(TimeMs(0), DurationMs(0));
        leases.saw(NodeId(0), Epoch(2), TimeMs(1_000));
        // An old connection that still sends changes nothing.
        leases.saw(NodeId(0), Epoch(1), TimeMs(20_000));
        assert_eq!(statuses(&leases, &world, 20_000), [(0, NodeStatus::Down)]);
    }

    #[test]
    fn leases_grow_with_the_fleet() {
        assert_eq!(lease(0), LEASE_MIN);
        assert_eq!(lease(1_500), LEASE_MIN);
        assert_eq!(lease(150_000), DurationMs(45_000));
    }
}
