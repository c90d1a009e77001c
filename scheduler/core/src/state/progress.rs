//! How far a job is, from how far its replicas are; and how replicas let go of what they hold.
//!
//! The rule, in order: all replicas succeeded: ended. A pending job of which nothing is bound is
//! pending. Every group has its minimum running (or
//! succeeded): ready; so members above the minimum are spares, of which neither the slowest start
//! nor a failed one keeps the job from being ready, and a job stays ready while it grows or replaces
//! them. Else, after a loss: repairing, until ready. Else starting once any agent has answered,
//! placed once anything was bound, pending before.
//! A group that depends on others is placed with them, but its replicas are not told to agents before each of those has
//! its minimum running or done.
//! **Invariant:** the phase of a job that is not over follows from its old phase and the counts of
//! its replicas, by [`next_phase`] alone.

use super::State;
use super::apply::Turn;
use super::index::{PhaseCounts, sum};
use crate::event::Event;
use crate::id::{JobId, NodeId, Rank};
use crate::job::{GroupSpec, Job, JobPhase, JobSpec, Reason, ReasonCode, ReplicaPhase};

/// Phase of a job that is not over, given its replicas by group.
pub(super) fn next_phase(job: &Job, groups: &[PhaseCounts]) -> JobPhase {
    let total = sum(groups);
    if total.succeeded > 0 && total.succeeded == total.all() {
        return JobPhase::Ended;
    }
    if job.phase == JobPhase::Pending && total.live() == 0 && total.failed == 0 {
        // Some may be done already of a bag of tasks that was preempted.
        return JobPhase::Pending;
    }
    if has_minimum(&job.spec, groups) {
        return JobPhase::Ready;
    }
    if total.failed > 0 || matches!(job.phase, JobPhase::Ready | JobPhase::Repairing) {
        return JobPhase::Repairing;
    }
    if total.starting > 0 || total.ready > 0 || total.succeeded > 0 {
        return JobPhase::Starting;
    }
    if total.assigned > 0 { JobPhase::Placed } else { job.phase }
}

/// Whether every group has its minimum of replicas running or done.
fn has_minimum(spec: &JobSpec, groups: &[PhaseCounts]) -> bool {
    let enough = |(group, counts): (&GroupSpec, &PhaseCounts)| runs(group, counts);
    spec.groups.len() == groups.len() && spec.groups.iter().zip(groups).all(enough)
}

/// Whether a group has its minimum of replicas running or done.
fn runs(group: &GroupSpec, counts: &PhaseCounts) -> bool {
    counts.ready.saturating_add(counts.succeeded) >= group.replicas_min
}

/// Whether all groups that this one depends on have their minimum running or done.
fn is_open(spec: &JobSpec, groups: &[PhaseCounts], at: usize) -> bool {
    let runs = |&other: &u16| {
        let other = usize::from(other);
        spec.groups
            .get(other)
            .zip(groups.get(other))
            .is_none_or(|(group, counts)| runs(group, counts))
    };
    spec.groups.get(at).is_none_or(|group| group.depends_on.iter().all(runs))
}

impl State {
    /// Work of a node that its agent is to be told of: all live replicas but those that have not begun to start and
    /// whose group is to wait for others.
    pub fn work_to_run(&self, node: NodeId) -> impl Iterator<Item = (JobId, Rank)> {
        self.node_work(node).filter(|&(job, rank)| self.may_run(job, rank).unwrap_or(true))
    }

    /// Whether a replica's agent is to be told of it. What has begun to start goes on, whatever becomes of others.
    fn may_run(&self, id: JobId, rank: Rank) -> Option<bool> {
        let job = self.job(id).filter(|job| job.spec.has_order())?;
        let at = job.spec.group_of(rank)?;
        let is_told = self.replica(id, rank)?.phase != ReplicaPhase::Assigned;
        Some(is_told || is_open(&job.spec, self.index.group_counts(id)?, at))
    }

    /// Groups of the job that have replicas bound which are not to start yet, each with those groups that it waits for;
    /// by their places in the spec.
    pub fn groups_waiting(&self, id: JobId) -> Vec<(usize, Vec<usize>)> {
        let Some(job) = self.job(id).filter(|job| !job.phase.is_over()) else { return Vec::new() };
        let Some(counts) = self.index.group_counts(id) else { return Vec::new() };
        let is_bound = |at: usize| counts.get(at).is_some_and(|own| own.assigned > 0);
        let waits_for = |at: usize| {
            let others = job.spec.groups.get(at).map_or(&[][..], |group| &group.depends_on);
            let others = others.iter().map(|&other| usize::from(other));
            let is_missing = |other: &usize| {
                let group = job.spec.groups.get(*other).zip(counts.get(*other));
                group.is_some_and(|(group, counts)| !runs(group, counts))
            };
            others.filter(is_missing).collect()
        };
        let held = self.held_back(id).into_iter().filter(|&at| is_bound(at));
        held.map(|at| (at, waits_for(at))).collect()
    }

    /// Groups of the job whose replicas are not to start yet.
    pub(super) fn held_back(&self, id: JobId) -> Vec<usize> {
        let Some(job) = self.job(id).filter(|job| job.spec.has_order()) else { return Vec::new() };
        let Some(counts) = self.index.group_counts(id) else { return Vec::new() };
        (0..job.spec.groups.len()).filter(|&at| !is_open(&job.spec, counts, at)).collect()
    }

    /// Has the agents told of replicas whose groups were held back and are so no more.
    pub(super) fn let_start(&self, turn: &mut Turn<'_>, id: JobId, before: &[usize]) {
        let Some(job) = self.job(id).filter(|job| !job.phase.is_over()) else { return };
        let (starts, held) = (job.spec.group_starts(), self.held_back(id));
        for &at in before.iter().filter(|at| !held.contains(at)) {
            let bound = |at: usize| starts.get(at).copied().unwrap_or(0);
            for rank in (bound(at)..bound(at + 1)).map(Rank) {
                let replica = self.replica(id, rank);
                let waits = replica.filter(|replica| replica.phase == ReplicaPhase::Assigned);
                if let Some(held) = waits.and_then(|replica| replica.allocation) {
                    turn.event(Event::NodeWorkChanged(held.node));
                }
            }
        }
    }

    /// Brings the job's phase up to its replicas, once an entry has changed some of them.
    pub(super) fn settle(&mut self, turn: &mut Turn<'_>, id: JobId) {
        let (Some(job), Some(groups)) = (self.job(id), self.index.group_counts(id)) else { return };
        let next = next_phase(job, groups);
        let waits = groups.iter().any(|group| group.to_place() > 0);
        if next == JobPhase::Ended {
            let reason =
                Reason { code: ReasonCode::Finished, message: "all replicas succeeded".into() };
            return self.end_job(turn, id, JobPhase::Ended, reason);
        }
        let (now, index) = (turn.now, turn.index);
        self.change_job(id, |job| {
            let was_pending = job.phase == JobPhase::Pending;
            job.phase = next;
            job.modified_index = index;
            if was_pending && next != JobPhase::Pending {
                job.placed_at = Some(now);
            }
            // A reason tells why it waits; it may change from one wait to the next.
            if !waits || (was_pending && next != JobPhase::Pending) {
                job.reason = Reason::default();
            }
            if next == JobPhase::Ready && job.ready_at.is_none() {
                job.ready_at = Some(now);
            }
        });
        turn.event(Event::JobChanged(id));
        if waits {
            turn.event(Event::JobWaiting(id));
        }
    }

    /// Ends a job and releases all it holds.
    pub(super) fn end_job(
        &mut self,
        turn: &mut Turn<'_>,
        id: JobId,
        phase: JobPhase,
        reason: Reason,
    ) {
        let live: Vec<Rank> = self
            .replicas(id)
            .filter(|(_, replica)| replica.phase.is_live())
            .map(|(rank, _)| rank)
            .collect();
        for rank in live {
            self.let_go(turn, id, rank, ReplicaPhase::Released);
        }
        let (now, index) = (turn.now, turn.index);
        self.change_job(id, |job| {
            job.phase = phase;
            job.reason = reason;
            job.ended_at = Some(now);
            job.modified_index = index;
        });
        turn.event(Event::JobChanged(id));
    }

    /// A live replica stops and gives back what it holds; its last allocation stays to be seen.
    pub(super) fn let_go(&mut self, turn: &mut Turn<'_>, id: JobId, rank: Rank, to: ReplicaPhase) {
        let Some(mut replica) = self.replica(id, rank) else { return };
        replica.phase = to;
        self.put_replica(id, rank, replica);
        if let Some(held) = replica.allocation {
            turn.event(Event::NodeWorkChanged(held.node));
            turn.event(Event::CapacityGrew);
        }
    }
}
