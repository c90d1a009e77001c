//! Sends every node that has a session here what it should run, whenever that has changed.
//!
//! **Invariant:** level-triggered: a message holds all that should run and replaces all before
//! it, so that changes may be merged and none needs to be remembered. The state is read in short
//! slices.

use super::table::{Slot, Table, end};
use crate::applied::Fanout;
use crate::convert::session::Desires;
use proto::v1::{DesiredState, SessionEnd, SessionEndReason};
use raft_store::Quorum;
use scheduler_core::id::{AssignmentId, JobId, NodeId};
use scheduler_core::node::NodeStatus;
use scheduler_core::state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Nodes looked at under one read lock: about half a millisecond.
const SLICE_NODES: usize = 256;
/// Heads remembered before those of ended jobs are looked for and dropped.
const HEADS_SWEEP: usize = 4_096;

/// What a session is to be told.
#[derive(Clone, PartialEq, Debug)]
pub enum Told {
    Desired(DesiredState),
    End(SessionEnd),
}

/// What the session must be told by this state.
pub fn look(state: &State, desires: &mut Desires<'_>, slot: &Slot) -> Told {
    let over = |reason, message: &str| Told::End(end(reason, message));
    match state.node(slot.node) {
        None => over(SessionEndReason::Removed, "the node was removed"),
        Some(node) if node.epoch != slot.epoch => {
            over(SessionEndReason::Superseded, "the node has registered again since")
        }
        Some(node) if node.status == NodeStatus::Down => {
            over(SessionEndReason::LeaseLost, "the node was declared down")
        }
        Some(node) => Told::Desired(desires.of(node)),
    }
}

/// Tells the session what follows from the state now.
pub fn tell(slot: &Slot, told: Told) {
    match told {
        Told::Desired(desired) => {
            slot.outbox.post(desired);
        }
        Told::End(end) => slot.outbox.end(end),
    }
}

/// Where the heads of jobs with several members are. Members are told the head's address, so a
/// head that has moved concerns nodes on which nothing else has changed.
#[derive(Debug, Default)]
pub struct Heads {
    known: BTreeMap<JobId, AssignmentId>,
    sweep_at: usize,
}

impl Heads {
    /// Adds the nodes that must hear of heads which have come to `node`.
    pub fn moved(&mut self, state: &State, node: NodeId, concerned: &mut BTreeSet<NodeId>) {
        for (id, rank) in state.node_work(node) {
            let Some(job) = state.job(id) else { continue };
            if rank != job.spec.head_rank() || job.spec.replicas() < 2 {
                continue;
            }
            let head = state.replica(id, rank).and_then(|head| head.allocation);
            let Some(head) = head else { continue };
            if self.known.insert(id, head.assignment) == Some(head.assignment) {
                continue;
            }
            let members = state.replicas(id).filter(|(_, member)| member.phase.is_live());
            concerned.extend(members.filter_map(|(_, member)| Some(member.allocation?.node)));
        }
        if self.known.len() > self.sweep_at.max(HEADS_SWEEP) {
            self.known.retain(|id, _| state.job(*id).is_some_and(|job| !job.phase.is_over()));
            self.sweep_at = 2 * self.known.len();
        }
    }
}

/// Dispatches for as long as it is polled.
pub async fn run(fanout: Arc<Fanout>, quorum: Quorum, table: Arc<Table>) {
    let mut heads = Heads::default();
    loop {
        let changes = fanout.nodes.next().await;
        let nodes = if changes.everything {
            table.all().iter().map(|slot| slot.node).collect()
        } else {
            changes.items
        };
        let mut concerned = BTreeSet::new();
        for slice in nodes.chunks(SLICE_NODES) {
            dispatch(&quorum, &table, slice, |state| {
                slice.iter().for_each(|node| heads.moved(state, *node, &mut concerned));
            });
            tokio::task::yield_now().await;
        }
        nodes.iter().for_each(|node| {
            concerned.remove(node);
        });
        let concerned: Vec<NodeId> = concerned.into_iter().collect();
        for slice in concerned.chunks(SLICE_NODES) {
            dispatch(&quorum, &table, slice, |_| ());
            tokio::task::yield_now().await;
        }
    }
}

fn dispatch(quorum: &Quorum, table: &Table, nodes: &[NodeId], also: impl FnOnce(&State)) {
    let slots = table.find(nodes.iter().copied());
    let told: Vec<Told> = quorum.read(|state| {
        also(state);
        let mut desires = Desires::new(state);
        slots.iter().map(|slot| look(state, &mut desires, slot)).collect()
    });
    for (slot, told) in slots.iter().zip(told) {
        tell(slot, told);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::command::{Command, Commit, NodeTransition};
    use scheduler_core::duty::leases::Instance;
    use scheduler_core::fixture::entry::{World, placement};
    use scheduler_core::id::Epoch;

    fn slot(table: &Table, node: u32, epoch: u32) -> Arc<Slot> {
        table.open(NodeId(node), Epoch(epoch), Instance([1; 16])).expect("opens")
    }

    fn told(world: &World, slot: &Slot) -> Told {
        look(&world.state, &mut Desires::new(&world.state), slot)
    }

    fn reason(told: Told) -> SessionEndReason {
        match told {
            Told::End(end) => end.reason(),
            Told::Desired(desired) => panic!("{desired:?}"),
        }
    }

    fn down(world: &mut World, node: u32) {
        let (node, epoch, status) = (NodeId(node), Epoch(1), NodeStatus::Down);
        world.done(Command::NodeStatuses(vec![NodeTransition { node, epoch, status }]));
    }

    #[test]
    fn a_node_is_told_all_that_should_run_there_and_nothing_else() {
        let mut world = World::with_nodes(2, 8);
        let table = Table::default();
        let (first, second) = (slot(&table, 0, 1), slot(&table, 1, 1));
        let job = world.submit_placed("a", &[(0, 0b1111), (1, 0b1111), (0, 0b1111_0000)]);
        let Told::Desired(desired) = told(&world, &first) else { panic!("up") };
        assert_eq!((desired.epoch, desired.index), (1, world.state.index()));
        let ranks: Vec<u32> = desired.assignments.iter().map(|a| a.rank).collect();
        assert_eq!(ranks, [0, 2]);
        let last = &desired.assignments[1];
        assert_eq!(last.gpus, [4, 5, 6, 7]);
        assert_eq!((last.job_id, last.world_size, last.head_rank), (job.0, 3, 0));
        assert_eq!((last.group.as_str(), last.head_address.as_str()), ("w", "n0"));
        assert_eq!(last.job_token.len(), 16);
        assert_eq!(last.program, None);
        let Told::Desired(desired) = told(&world, &second) else { panic!("up") };
        assert_eq!(desired.assignments.len(), 1);
    }

    #[test]
    fn sessions_that_are_over_are_told_why() {
        let mut world = World::with_nodes(3, 8);
        let table = Table::default();
        let slots: Vec<_> = (0..3).map(|node| slot(&table, node, 1)).collect();
        world.rejoin(0);
        down(&mut world, 1);
        world.done(Command::RemoveNode { node: NodeId(2), force: false });
        let reasons: Vec<_> = slots.iter().map(|slot| reason(told(&world, slot))).collect();
        assert_eq!(
            reasons,
            [SessionEndReason::Superseded, SessionEndReason::LeaseLost, SessionEndReason::Removed,]
        );
    }

    #[test]
    fn members_hear_of_a_head_that_has_moved_and_of_nothing_twice() {
        let mut world = World::with_nodes(3, 8);
        let job = world.submit_placed("a", &[(0, 0xff), (1, 0xff)]);
        let mut heads = Heads::default();
        let mut moved = |world: &World, node: u32| {
            let mut concerned = BTreeSet::new();
            heads.moved(&world.state, NodeId(node), &mut concerned);
            concerned.into_iter().map(|node| node.0).collect::<Vec<_>>()
        };
        assert_eq!(moved(&world, 0), [0, 1]);
        assert!(moved(&world, 0).is_empty());
        assert!(moved(&world, 1).is_empty());
        down(&mut world, 0);
        assert!(moved(&world, 0).is_empty());
        let plan = scheduler_core::command::Plan { placements: vec![placement(0, 2, 0xff)] };
        world.done(Command::Commit(Commit { job, plan }));
        assert_eq!(moved(&world, 2), [1, 2]);
    }
}
