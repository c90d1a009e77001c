//! Preemption: a waiting job takes what running jobs of lower priorities hold and let go.
//!
//! A job that goes back whole waits as if it had just been submitted: none of it is bound, and its
//! duration begins anew when it is placed again. What its replicas ran to a successful end stays
//! done where the job is PLAIN, a bag of tasks; the members of a cluster all begin anew. How often
//! a replica failed is not forgotten. One that loses spare replicas alone goes on as it is, and its
//! spares wait.
//! **Invariant:** both sides have asked for it; nobody of an equal or higher priority loses
//! anything; and either the plan is bound and every victim gave way, or nothing changes at all.

use super::State;
use super::admit::Given;
use super::apply::Turn;
use super::progress::next_phase;
use super::submit::check_start;
use crate::command::{Outcome, Preempt, Rejection, Spared, Stale, Victim};
use crate::event::Event;
use crate::id::{JobId, Rank, TenantId};
use crate::job::{
    Disruption, Job, JobKind, JobPhase, JobSpec, PreemptionPolicy, Priority, Reason, ReasonCode,
    Replica, ReplicaPhase,
};
use std::cmp::Reverse;

impl State {
    pub(super) fn preempt(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &Preempt,
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let job = self.known_job(asked.job)?.clone();
        if job.phase != JobPhase::Pending {
            return Err(Rejection::Precondition { what: format!("{} is not pending", job.id) });
        }
        check_start(&job.spec, turn.now)?;
        if asked.victims.is_empty() {
            return Err(Rejection::StalePlan { why: Stale::Malformed });
        }
        let given = self.check_victims(&job.tenant, &job.spec, &asked.victims)?;
        self.admit(&job.spec, &job.tenant, Some(job.id), &asked.plan, &given)?;
        let priority = job.spec.priority;
        // Nobody else may hold the job while it changes, or it would be copied.
        drop(job);
        self.take_from(turn, &asked.victims, priority);
        self.bind(turn, asked.job, &asked.plan);
        self.settle(turn, asked.job);
        Ok(Outcome::Done { changed: true })
    }

    /// What [`State::check_victims`] let pass goes to a job of this priority.
    pub(super) fn take_from(
        &mut self,
        turn: &mut Turn<'_>,
        victims: &[Victim],
        priority: Priority,
    ) {
        for victim in victims {
            match victim.ranks.as_slice() {
                [] => self.send_back(turn, victim.job, priority),
                ranks => self.take_spares(turn, victim.job, ranks, priority),
            }
        }
    }

    /// Live replicas of a started job that others may take alone, all of them or any part: those
    /// above the minimum of their group, the least advanced ones first, then the highest ranks; none
    /// of a job that lets itself be disrupted as a whole only, or not at all.
    pub fn spare_ranks(&self, job: &Job) -> Vec<Rank> {
        let mut spare = Vec::new();
        if job.spec.preemption.disruption != Disruption::Single {
            return spare;
        }
        let counts = self.counts(job.id).unwrap_or_default().groups;
        let (starts, head) = (job.spec.group_starts(), job.spec.head_rank());
        let mut live: Vec<Vec<(ReplicaPhase, Reverse<Rank>)>> = vec![Vec::new(); counts.len()];
        for (rank, replica) in self.replicas(job.id).filter(|(_, one)| one.phase.is_live()) {
            let at = JobSpec::group_within(&starts, rank).filter(|_| rank != head);
            if let Some(live) = at.and_then(|at| live.get_mut(at)) {
                live.push((replica.phase, Reverse(rank)));
            }
        }
        for ((mut live, counts), group) in live.into_iter().zip(&counts).zip(&job.spec.groups) {
            let over = |have: u32| {
                have.saturating_add(counts.succeeded).saturating_sub(group.replicas_min)
            };
            let (mut all, mut ready) = (over(counts.live()), over(counts.ready));
            live.sort_unstable();
            for (phase, Reverse(rank)) in live {
                let is_ready = phase == ReplicaPhase::Ready && job.phase == JobPhase::Ready;
                if all == 0 || (is_ready && ready == 0) {
                    break;
                }
                all -= 1;
                ready = ready.saturating_sub(u32::from(is_ready));
                spare.push(rank);
            }
        }
        spare.sort_unstable();
        // While it is not even bound to the least that it needs, it has nothing to spare.
        if self.can_spare(job, &spare) { spare } else { Vec::new() }
    }

    /// Whether all of them may lose something to a waiting job of the tenant; what they would give
    /// back.
    pub(super) fn check_victims(
        &self,
        tenant: &TenantId,
        spec: &JobSpec,
        victims: &[Victim],
    ) -> Result<Given, Rejection> {
        let stale = |why| Rejection::StalePlan { why };
        if !victims.is_empty() && spec.preemption.policy != PreemptionPolicy::LowerPriority {
            let what = format!("{} does not ask for the GPUs of others", spec.name);
            return Err(Rejection::Precondition { what });
        }
        if !victims.is_sorted_by(|a, b| a.job < b.job) {
            return Err(stale(Stale::Malformed));
        }
        let mut given = Given::default();
        for victim in victims {
            let spared = |why| stale(Stale::NoVictim { job: victim.job, why });
            let found = self.check_victim(tenant, spec, victim).map_err(spared)?;
            let takes =
                |rank: &Rank| victim.ranks.is_empty() || victim.ranks.binary_search(rank).is_ok();
            for (rank, replica) in self.replicas(victim.job).filter(|(rank, _)| takes(rank)) {
                self.note_given(&mut given, found, rank, &replica, tenant);
            }
        }
        Ok(given)
    }

    fn note_given(
        &self,
        given: &mut Given,
        of: &Job,
        rank: Rank,
        replica: &Replica,
        to: &TenantId,
    ) {
        let group = of.spec.group_of(rank).and_then(|at| of.spec.groups.get(at));
        let held = replica.allocation.filter(|_| replica.phase.is_live());
        if let (Some(group), Some(held)) = (group, held) {
            let usage = given.usage.entry(held.node);
            let usage = usage.or_insert_with(|| self.usage(held.node).cloned().unwrap_or_default());
            usage.give(&group.shape, held.gpus, held.share_milli);
            if of.tenant == *to {
                given.own_gpu_milli = given.own_gpu_milli.saturating_add(group.shape.gpu_milli());
            }
        }
    }

    fn check_victim(
        &self,
        tenant: &TenantId,
        spec: &JobSpec,
        victim: &Victim,
    ) -> Result<&Job, Spared> {
        let found = self.job(victim.job).ok_or(Spared::Gone)?;
        let live = self.counts(found.id).map_or(0, |counts| counts.total.live());
        if found.phase == JobPhase::Pending || found.phase.is_over() || live == 0 {
            return Err(Spared::HoldsNothing);
        }
        if found.spec.priority >= spec.priority {
            return Err(Spared::Priority);
        }
        if found.tenant == *tenant && spec.is_about_jobs() {
            return Err(Spared::Related);
        }
        match (found.spec.preemption.disruption, victim.ranks.as_slice()) {
            (Disruption::None, _) | (Disruption::All, [_, ..]) => Err(Spared::Disruption),
            (_, []) => Ok(found),
            (Disruption::Single, ranks) if self.can_spare(found, ranks) => Ok(found),
            (Disruption::Single, _) => Err(Spared::Needed),
        }
    }

    /// Whether the job can lose these replicas, by rising rank, and be as far as it is: with at least
    /// the minimum of each group bound or done, and with its head.
    pub(super) fn can_spare(&self, job: &Job, ranks: &[Rank]) -> bool {
        let mut groups = self.counts(job.id).unwrap_or_default().groups;
        let starts = job.spec.group_starts();
        let (mut before, head) = (None, job.spec.head_rank());
        for &rank in ranks {
            let live = self.replica(job.id, rank).filter(|one| one.phase.is_live());
            let at = JobSpec::group_within(&starts, rank);
            let group = at.and_then(|at| groups.get_mut(at));
            let (Some(live), Some(group)) = (live, group) else { return false };
            if before.is_some_and(|before| before >= rank) || rank == head {
                return false;
            }
            before = Some(rank);
            group.turn(live.phase, ReplicaPhase::Waiting);
        }
        let enough = job.spec.groups.iter().zip(&groups).all(|(group, counts)| {
            counts.live().saturating_add(counts.succeeded) >= group.replicas_min
        });
        enough && next_phase(job, &groups) == job.phase
    }

    /// The whole job waits again.
    fn send_back(&mut self, turn: &mut Turn<'_>, id: JobId, priority: Priority) {
        let Some(job) = self.job(id) else { return };
        let keeps_done = job.spec.kind == JobKind::Plain;
        let returns = |phase: ReplicaPhase| {
            let done = phase == ReplicaPhase::Succeeded && !keeps_done;
            phase.is_live() || phase == ReplicaPhase::Failed || done
        };
        let all: Vec<(Rank, Replica)> =
            self.replicas(id).filter(|(_, replica)| returns(replica.phase)).collect();
        for (rank, replica) in all {
            match replica.phase.is_live() {
                true => self.let_go(turn, id, rank, ReplicaPhase::Waiting),
                false => {
                    self.put_replica(id, rank, Replica { phase: ReplicaPhase::Waiting, ..replica });
                }
            }
        }
        let index = turn.index;
        self.change_job(id, |job| {
            job.phase = JobPhase::Pending;
            (job.placed_at, job.ready_at) = (None, None);
            job.reason = preempted(format!("preempted by a job of priority {priority}"));
            job.preemptions = job.preemptions.saturating_add(1);
            job.modified_index = index;
        });
        turn.event(Event::JobChanged(id));
        turn.event(Event::JobWaiting(id));
    }

    fn take_spares(&mut self, turn: &mut Turn<'_>, id: JobId, ranks: &[Rank], priority: Priority) {
        for &rank in ranks {
            self.let_go(turn, id, rank, ReplicaPhase::Waiting);
        }
        let count = ranks.len();
        self.change_job(id, |job| {
            job.reason = preempted(format!(
                "{count} spare replica(s) preempted by a job of priority {priority}"
            ));
            job.preemptions = job.preemptions.saturating_add(1);
        });
        self.settle(turn, id);
    }
}

fn preempted(message: String) -> Reason {
    Reason::new(ReasonCode::Preempted, message)
}
