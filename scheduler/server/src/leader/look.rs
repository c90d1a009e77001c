//! What the planner looks up in the state about one job.
//!
//! **Invariant:** reads only, and quickly: all of it runs under the state's read lock.

use super::planner::quota_reason;
use crate::call::{Accepted, CallError, SubmitCall};
use scheduler_core::command::{Kind, Rejection};
use scheduler_core::fit::Around;
use scheduler_core::id::{JobId, NodeId, Rank, TenantId};
use scheduler_core::job::{Job, JobSpec, Reason};
use scheduler_core::state::State;
use std::sync::Arc;

/// What the state knows of a submission.
pub(super) enum Look {
    /// Known before, or refused at once.
    Settled(Result<Accepted, CallError>),
    /// It must wait for quota.
    OverQuota(Reason),
    New,
}

/// Looks a submission up: was it accepted before, and may its tenant have it now?
pub(super) fn submitted(state: &State, call: &SubmitCall) -> Look {
    if let Some(job) = state.job_by_request(&call.tenant, &call.request_id)
        && let Some(known) = state.job(job)
    {
        if known.body_digest == call.body_digest {
            return Look::Settled(Ok(Accepted {
                job,
                known: true,
                placed: known.placed_at.is_some(),
                index: state.index(),
                decide_us: 0,
                commit_us: 0,
            }));
        }
        let request_id = call.request_id.to_string();
        let reused = Rejection::RequestIdReused { request_id, job };
        return Look::Settled(Err(reused.into()));
    }
    if state.tenant(&call.tenant).is_none() {
        let (what, id) = (Kind::Tenant, call.tenant.to_string());
        return Look::Settled(Err(Rejection::NotFound { what, id }.into()));
    }
    match over_quota(state, &call.tenant, call.spec.gpu_milli()) {
        Some(reason) => Look::OverQuota(reason),
        None => Look::New,
    }
}

/// Why the tenant may not hold this much more now; `None` = it may.
pub(super) fn over_quota(state: &State, tenant: &TenantId, gpu_milli: u64) -> Option<Reason> {
    let tenant = state.tenant(tenant)?;
    let (held, max) = (tenant.gpu_milli_used, tenant.quota.gpu_milli_max);
    (held.saturating_add(gpu_milli) > max).then(|| quota_reason(held, gpu_milli, max))
}

/// A waiting job with all that a plan for it needs.
pub(super) struct Waiting {
    pub(super) job: Arc<Job>,
    /// Ranks to bind; `None` = all.
    pub(super) ranks: Option<Vec<Rank>>,
    /// Live members that stay where they are.
    pub(super) fixed: Vec<(Rank, NodeId)>,
    pub(super) over_quota: Option<Reason>,
    /// Where the tenant's other jobs stand, as far as the job's rules go.
    pub(super) around: Around,
}

/// Looks a waiting job up; `None` when it waits no more.
pub(super) fn waiting(state: &State, id: JobId) -> Option<Waiting> {
    let job = state.job(id).filter(|job| !job.phase.is_over())?;
    let mut ranks = Vec::new();
    let mut fixed = Vec::new();
    let mut total = 0usize;
    let mut asked = 0u64;
    for (rank, replica) in state.replicas(id) {
        total += 1;
        if replica.phase.is_waiting() {
            ranks.push(rank);
            let group = job.spec.group_of(rank).and_then(|at| job.spec.groups.get(at));
            asked = asked.saturating_add(group.map_or(0, |group| group.shape.gpu_milli()));
        } else if let Some(allocation) = replica.allocation.filter(|_| replica.phase.is_live()) {
            fixed.push((rank, allocation.node));
        }
    }
    if ranks.is_empty() {
        return None;
    }
    let ranks = (ranks.len() < total).then_some(ranks);
    let over_quota = over_quota(state, &job.tenant, asked);
    let around = state.around(&job.tenant, &job.spec, Some(id));
    Some(Waiting { job: Arc::clone(job), ranks, fixed, over_quota, around })
}

/// Why a dry run is refused before anything is planned.
pub(super) fn refusal(state: &State, tenant: &TenantId, spec: &JobSpec) -> Option<Rejection> {
    if state.tenant(tenant).is_none() {
        return Some(Rejection::NotFound { what: Kind::Tenant, id: tenant.to_string() });
    }
    state.check_models(spec).err()
}
