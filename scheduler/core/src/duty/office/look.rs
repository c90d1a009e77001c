//! What a planner looks up in the state about one job.
//!
//! **Invariant:** reads only, and quickly: a server does all of it under the state's read lock.

use super::Submission;
use crate::command::{Kind, Rejection};
use crate::fit::Around;
use crate::id::{JobId, NodeId, Rank, TenantId};
use crate::job::{GroupSpec, Job, JobSpec, Priority, Reason, ReasonCode, Replica, ReplicaPhase};
use crate::plan::{Ranks, Request};
use crate::state::{State, check_deadline};
use crate::told::Utc;
use crate::unit::{GpuMilli, TimeMs};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::sync::Arc;

/// What became of a submission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Accepted(Accepted),
    Rejected(Rejection),
    /// The plan that was meant is not what would be done now; nothing was done.
    PlanChanged {
        why: String,
        /// Index of the state that it was held against.
        index: u64,
    },
    /// The log's answer makes no sense.
    Odd {
        why: &'static str,
    },
}

/// A job accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    pub job: JobId,
    /// Whether the request had been accepted before.
    pub known: bool,
    pub placed: bool,
    /// Log index whose state shows the job.
    pub index: u64,
    /// Time of the planner for this job; 0 for a known one.
    pub decide_us: u64,
}

/// What the state knows of a submission.
pub(super) enum Look {
    /// Known before, or refused at once.
    Settled(Answer),
    /// It must wait for quota, or is not to begin yet.
    Waits(Reason),
    /// May be placed, with so many thousandths of GPUs as its tenant may hold besides.
    New(u64),
}

/// Looks a submission up: was it accepted before, and may its tenant have it now?
pub(super) fn submitted(state: &State, call: &Submission, clock: TimeMs) -> Look {
    if let Some(job) = state.job_by_request(&call.tenant, &call.request_id)
        && let Some(known) = state.job(job)
    {
        if known.body_digest == call.body_digest {
            return Look::Settled(Answer::Accepted(Accepted {
                job,
                known: true,
                placed: known.placed_at.is_some(),
                index: state.index(),
                decide_us: 0,
            }));
        }
        let request_id = call.request_id.to_string();
        return Look::Settled(Answer::Rejected(Rejection::RequestIdReused { request_id, job }));
    }
    if state.tenant(&call.tenant).is_none() {
        let (what, id) = (Kind::Tenant, call.tenant.to_string());
        return Look::Settled(Answer::Rejected(Rejection::NotFound { what, id }));
    }
    let too_early = too_early(&call.spec, clock);
    let least = || Request::whole(&call.spec).least_gpu_milli();
    match too_early.or_else(|| over_quota(state, &call.tenant, least())) {
        Some(reason) => Look::Waits(reason),
        None => Look::New(quota_left(state, &call.tenant)),
    }
}

/// Why the job is not started yet, if its time has not come.
pub fn too_early(spec: &JobSpec, clock: TimeMs) -> Option<Reason> {
    let begin = spec.begin.filter(|begin| clock < *begin)?;
    Some(Reason::new(ReasonCode::Begin, format!("begins at {}", Utc(begin))))
}

/// Why the tenant may not hold this much more now; `None` = it may.
pub fn over_quota(state: &State, tenant: &TenantId, gpu_milli: u64) -> Option<Reason> {
    let holder = state.tenant(tenant)?;
    let (held, max) = (holder.gpu_milli_used, holder.quota.gpu_milli_max);
    (gpu_milli > quota_left(state, tenant)).then(|| quota_reason(held, gpu_milli, max))
}

/// What the tenant may hold on top of what it holds, in thousandths of GPUs.
pub fn quota_left(state: &State, tenant: &TenantId) -> u64 {
    let left = state.tenant(tenant).map(|tenant| match tenant.quota.gpu_milli_max {
        u64::MAX => u64::MAX,
        max => max.saturating_sub(tenant.gpu_milli_used),
    });
    left.unwrap_or(u64::MAX)
}

fn quota_reason(held: u64, asked: u64, max: u64) -> Reason {
    let [held, asked, max] = [held, asked, max].map(GpuMilli);
    let message = format!("the quota is {max} GPUs, {held} are held and {asked} asked for");
    Reason { code: ReasonCode::Quota, message: message.into() }
}

/// What these jobs are queued by; unknown ones are left out.
pub(super) fn queue(
    state: &State,
    jobs: impl Iterator<Item = JobId>,
) -> impl Iterator<Item = (JobId, Priority)> {
    jobs.filter_map(|job| Some((job, state.job(job)?.spec.priority)))
}

/// A waiting job with all that a plan for it needs.
#[derive(Debug)]
pub struct Waiting {
    pub job: Arc<Job>,
    /// Ranks to bind; `None` = all.
    pub ranks: Option<Vec<Rank>>,
    /// Live members that stay where they are.
    pub fixed: Vec<(Rank, NodeId)>,
    /// Nodes on which those of the ranks stood that are to be replaced near by.
    pub lost: Vec<(Rank, NodeId)>,
    /// Some of the ranks were lost and are to be replaced.
    pub is_repair: bool,
    /// Why the tenant may not even hold the least of it.
    pub over_quota: Option<Reason>,
    /// Thousandths of GPUs that its tenant may hold on top of what it holds.
    pub quota_left: u64,
    /// Where the tenant's other jobs stand, as far as the job's rules go.
    pub around: Around,
}

impl Waiting {
    /// What is to be planned.
    pub fn request(&self) -> Request<'_> {
        let ranks = self.ranks.as_deref().map_or(Ranks::All, Ranks::Some);
        let (spec, fixed, around) = (&*self.job.spec, &self.fixed[..], &self.around);
        let gpu_milli_max = self.quota_left;
        Request { spec, ranks, fixed, avoid: &[], lost: &self.lost, around, gpu_milli_max }
    }

    /// Whether all replicas wait.
    pub fn is_whole(&self) -> bool {
        self.ranks.is_none()
    }

    /// Replicas that wait.
    pub fn replicas(&self) -> u32 {
        let all = self.job.spec.replicas();
        self.ranks.as_ref().map_or(all, |ranks| u32::try_from(ranks.len()).unwrap_or(u32::MAX))
    }
}

/// Looks a waiting job up; `None` when it waits no more.
pub fn waiting(state: &State, id: JobId) -> Option<Waiting> {
    let job = state.job(id).filter(|job| !job.phase.is_over())?;
    let around = || state.around(&job.tenant, &job.spec, Some(id));
    let quota_left = quota_left(state, &job.tenant);
    let within_quota = |mut wait: Waiting| {
        let least = wait.request().least_gpu_milli();
        wait.over_quota = over_quota(state, &wait.job.tenant, least);
        wait
    };
    // Nearly always the whole job waits, and thousands of them are looked at in a row.
    let any_lost = Cell::new(false);
    let waits = |replica: &Replica| {
        any_lost.set(any_lost.get() || replica.phase == ReplicaPhase::Failed);
        replica.phase.is_waiting()
    };
    let all = state.replicas(id).map(|(rank, replica)| waits(&replica).then_some(rank));
    let all_wait = job.spec.replicas() > 0 && all.eq(job.spec.first_ranks().map(Some));
    if all_wait && !(any_lost.get() && job.spec.has_repairs()) {
        let is_repair = any_lost.get();
        let (job, ranks, fixed, lost) = (Arc::clone(job), None, Vec::new(), Vec::new());
        let (over_quota, around) = (None, around());
        let wait = Waiting { job, ranks, fixed, lost, is_repair, over_quota, quota_left, around };
        return Some(within_quota(wait));
    }
    let (mut ranks, mut fixed) = (Vec::new(), Vec::new());
    let mut rota = job.spec.has_repairs().then(|| Rota::new(state, job));
    for (rank, replica) in state.replicas(id) {
        if waits(&replica) {
            if rota.as_mut().is_some_and(|rota| !rota.takes(rank, replica.phase)) {
                continue;
            }
            ranks.push(rank);
        } else if let Some(allocation) = replica.allocation.filter(|_| replica.phase.is_live()) {
            fixed.push((rank, allocation.node));
        }
    }
    if ranks.is_empty() {
        return None;
    }
    let near = |rank: &Rank| Some((*rank, state.lost_from(job, *rank)?));
    let lost = rota.map_or_else(Vec::new, |_| ranks.iter().filter_map(near).collect());
    let (job, ranks, is_repair) = (Arc::clone(job), Some(ranks), any_lost.get());
    let (over_quota, around) = (None, around());
    let wait = Waiting { job, ranks, fixed, lost, is_repair, over_quota, quota_left, around };
    Some(within_quota(wait))
}

/// Lost replicas of a job of which none has its turn yet, where its groups bound how many are replaced at once: how many
/// wait, and for what. `None` = no such bound keeps any back.
pub fn kept_back(state: &State, id: JobId) -> Option<(u32, Reason)> {
    let job = state.job(id).filter(|job| !job.phase.is_over() && job.spec.has_repairs())?;
    let starts = job.spec.group_starts();
    let room = state.repair_room(job);
    let mut lost = vec![0u32; job.spec.groups.len()];
    for (rank, replica) in state.replicas(id) {
        let at = JobSpec::group_within(&starts, rank);
        let is_full = at.is_some_and(|at| room.get(at) == Some(&Some(0)));
        if replica.phase == ReplicaPhase::Failed && is_full {
            at.and_then(|at| lost.get_mut(at)).into_iter().for_each(|count| *count += 1);
        }
    }
    let waits = job.spec.groups.iter().zip(&lost).filter(|(_, lost)| **lost > 0);
    let told = |(group, lost): (&GroupSpec, &u32)| {
        let (name, most) = (&group.name, group.repair.in_flight_max);
        format!("{lost} lost of {name}, of which at most {most} may start at once")
    };
    let told: Vec<String> = waits.map(told).collect();
    let all = lost.iter().fold(0u32, |sum, count| sum.saturating_add(*count));
    let message = format!("waits until replacements that start now run: {}", told.join("; "));
    (all > 0).then(|| (all, Reason::new(ReasonCode::None, message)))
}

/// Which waiting replicas of a job may be bound next, where its groups bound how many are replaced at once.
struct Rota {
    starts: Vec<u32>,
    /// By group: how many more may be bound, and whether lost ones are among them.
    groups: Vec<(Option<u32>, bool)>,
}

impl Rota {
    fn new(state: &State, job: &Job) -> Self {
        let starts = job.spec.group_starts();
        let mut groups: Vec<(Option<u32>, bool)> =
            state.repair_room(job).into_iter().map(|room| (room, false)).collect();
        for (rank, replica) in state.replicas(job.id) {
            if replica.phase == ReplicaPhase::Failed
                && let Some(at) = JobSpec::group_within(&starts, rank)
                && let Some((room, lost)) = groups.get_mut(at)
            {
                // Where no lost one has its turn, all others may come.
                *lost = room.is_none_or(|room| room > 0);
            }
        }
        Self { starts, groups }
    }

    /// Whether the replica has its turn.
    fn takes(&mut self, rank: Rank, phase: ReplicaPhase) -> bool {
        let at = JobSpec::group_within(&self.starts, rank);
        let Some((room, lost)) = at.and_then(|at| self.groups.get_mut(at)) else { return true };
        match room {
            None => true,
            Some(_) if !*lost => phase != ReplicaPhase::Failed,
            Some(room) => {
                let takes = *room > 0;
                *room = room.saturating_sub(1);
                takes
            }
        }
    }
}

/// Why a dry run is refused before anything is planned.
pub fn refusal(
    state: &State,
    tenant: &TenantId,
    spec: &JobSpec,
    clock: TimeMs,
) -> Option<Rejection> {
    if state.tenant(tenant).is_none() {
        return Some(Rejection::NotFound { what: Kind::Tenant, id: tenant.to_string() });
    }
    let checks = state.check_models(spec).and_then(|()| state.check_priority(tenant, spec));
    checks.and_then(|()| check_deadline(spec, clock)).err()
}
