//! Repair: what a group asks of how its lost replicas are replaced.
//!
//! **Invariant:** a job that has not been ready yet is not bound by how many are replaced at once: it is being started,
//! not repaired.

use super::State;
use crate::command::{Placement, Plan, Stale};
use crate::fit::Fleet as _;
use crate::id::{JobId, NodeId, Rank};
use crate::job::{Job, JobSpec, Level, ReplicaPhase};

impl State {
    /// How many more replicas of each group may be bound when a lost one is among them; `None` = any number.
    pub fn repair_room(&self, job: &Job) -> Vec<Option<u32>> {
        let counts = self.index.group_counts(job.id).unwrap_or_default();
        let groups = job.spec.groups.iter().enumerate();
        let room = groups.map(|(at, group)| {
            let most = group.repair.in_flight_max;
            let is_bound = most > 0 && job.ready_at.is_some();
            let flying = counts.get(at).map_or(0, |own| own.assigned.saturating_add(own.starting));
            is_bound.then(|| most.saturating_sub(flying))
        });
        room.collect()
    }

    /// Whether a replica waits because it was lost, and is to be replaced near the node on which it stood; that node.
    pub fn lost_from(&self, job: &Job, rank: Rank) -> Option<NodeId> {
        let group = job.spec.groups.get(job.spec.group_of(rank)?)?;
        let replica = self.replica(job.id, rank)?;
        let held = replica.allocation.filter(|_| replica.phase == ReplicaPhase::Failed)?;
        (group.repair.level.is_some() && self.node(held.node).is_some()).then_some(held.node)
    }

    /// Holds the lost replicas of a plan to what their groups ask.
    pub(super) fn check_repairs(&self, id: JobId, plan: &Plan) -> Result<(), Stale> {
        let Some(job) = self.job(id).filter(|job| job.spec.has_repairs()) else { return Ok(()) };
        let starts = job.spec.group_starts();
        let mut placed: Vec<(u32, bool)> = vec![(0, false); job.spec.groups.len()];
        for placement in &plan.placements {
            let at = JobSpec::group_within(&starts, placement.rank).ok_or(Stale::Malformed)?;
            let (count, any_lost) = placed.get_mut(at).ok_or(Stale::Malformed)?;
            let phase = self.replica(id, placement.rank).map(|replica| replica.phase);
            *count = count.saturating_add(1);
            *any_lost |= phase == Some(ReplicaPhase::Failed);
            let repair = job.spec.groups.get(at).map(|group| group.repair);
            let level = repair.filter(|repair| !repair.preferred).and_then(|repair| repair.level);
            if level.is_some_and(|level| !self.is_near_lost(job, level, placement)) {
                return Err(Stale::BreaksConstraint);
            }
        }
        let too_many = |(room, (count, any_lost)): (Option<u32>, (u32, bool))| {
            any_lost && room.is_some_and(|room| count > room)
        };
        let crowded = self.repair_room(job).into_iter().zip(placed).any(too_many);
        if crowded { Err(Stale::BreaksConstraint) } else { Ok(()) }
    }

    fn is_near_lost(&self, job: &Job, level: Level, placement: &Placement) -> bool {
        let Some(before) = self.lost_from(job, placement.rank) else { return true };
        let domain = |id: NodeId| self.node(id).map(|node| self.domain(level, node));
        domain(before) == domain(placement.node)
    }
}
