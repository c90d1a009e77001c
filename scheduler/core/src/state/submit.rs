//! Jobs coming in, and waiting replicas being bound.
//!
//! **Invariant:** a job enters whole or not at all; a (tenant, request id) names at most one job.

use super::admit::Given;
use super::apply::{Turn, forbidden};
use super::{JOBS_MAX, State};
use crate::command::{Actor, Commit, Outcome, Plan, Rejection, Stale, Submit};
use crate::event::Event;
use crate::id::{JobId, TenantId};
use crate::job::{Allocation, Job, JobPhase, JobSpec, Replica, ReplicaPhase};
use crate::unit::{GpuMilli, TimeMs};
use crate::validate;
use std::sync::Arc;

/// Known GPU models that a refusal lists at most: enough to spot a misspelling.
const MODELS_LISTED_MAX: usize = 8;

impl State {
    pub(super) fn submit(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &Submit,
    ) -> Result<Outcome, Rejection> {
        match turn.by {
            Actor::System | Actor::Operator => {}
            Actor::Tenant(tenant) if *tenant == asked.tenant => {}
            _ => return Err(forbidden("only the tenant itself submits its jobs")),
        }
        validate::request_id(&asked.request_id)?;
        self.known_tenant(&asked.tenant)?;
        let known = self.job_by_request(&asked.tenant, &asked.request_id);
        if let Some(known) = known {
            return self.repeated(asked, known);
        }
        let submitted = self.shared.submitted(&asked.spec);
        if submitted.is_none() {
            validate::job(&asked.spec)?;
        }
        validate::reason(&asked.reason)?;
        self.check_models(&asked.spec)?;
        self.check_priority(&asked.tenant, &asked.spec)?;
        check_deadline(&asked.spec, turn.now)?;
        self.check_capacity(&asked.tenant, &asked.spec, asked.plan.is_some())?;
        match &asked.plan {
            Some(plan) => {
                check_start(&asked.spec, turn.now)?;
                let given = self.check_victims(&asked.tenant, &asked.spec, &asked.victims)?;
                self.admit(&asked.spec, &asked.tenant, None, plan, &given)?;
            }
            None if asked.victims.is_empty() => {}
            None => return Err(Rejection::StalePlan { why: Stale::Malformed }),
        }

        let id = JobId(self.facts.meta.next_job);
        let spec = submitted.unwrap_or_else(|| self.shared.submit(&asked.spec));
        self.add_job(self.fresh_job(turn, asked, id, spec));
        if let Some(plan) = &asked.plan {
            self.take_from(turn, &asked.victims, asked.spec.priority);
            self.bind(turn, id, plan);
        }
        self.settle(turn, id);
        Ok(Outcome::Submitted { job: id, known: false, placed: asked.plan.is_some() })
    }

    fn fresh_job(&self, turn: &Turn<'_>, asked: &Submit, id: JobId, spec: Arc<JobSpec>) -> Job {
        // All jobs of a tenant share one copy of its name.
        let tenant = self.tenant(&asked.tenant).map_or(&asked.tenant, |tenant| &tenant.id);
        Job {
            id,
            tenant: tenant.clone(),
            request_id: asked.request_id.clone(),
            body_digest: asked.body_digest,
            spec,
            phase: JobPhase::Pending,
            reason: asked.reason.clone(),
            submitted_at: turn.now,
            placed_at: None,
            preemptions: 0,
            ready_at: None,
            ended_at: None,
            modified_index: turn.index,
            token: asked.token,
        }
    }

    fn repeated(&self, asked: &Submit, known: JobId) -> Result<Outcome, Rejection> {
        let job = self.known_job(known)?;
        if job.body_digest != asked.body_digest {
            let request_id = asked.request_id.to_string();
            return Err(Rejection::RequestIdReused { request_id, job: known });
        }
        let placed = job.placed_at.is_some();
        Ok(Outcome::Submitted { job: known, known: true, placed })
    }

    /// Refuses GPU models that the fleet has never shown, naming some that it has.
    pub fn check_models(&self, spec: &JobSpec) -> Result<(), Rejection> {
        let mut named = spec.groups.iter().flat_map(|group| &group.shape.alternatives);
        if named.all(|one| one.models.iter().all(|model| self.models().find(model).is_some())) {
            return Ok(());
        }
        for (at, group) in spec.groups.iter().enumerate() {
            let path = format!("spec.groups[{at}].shape");
            for (field, model) in validate::gpu_models(&path, &group.shape) {
                if self.models().find(model).is_some() {
                    continue;
                }
                let mut known: Vec<&str> =
                    self.models().iter().map(|(_, name)| name.as_str()).collect();
                known.sort_unstable();
                let more = if known.len() > MODELS_LISTED_MAX { ", …" } else { "" };
                known.truncate(MODELS_LISTED_MAX);
                let problem = if known.is_empty() {
                    format!("{model} is not a GPU model of this fleet, which has none yet")
                } else {
                    let known = known.join(", ");
                    format!("{model} is not a GPU model of this fleet; known: {known}{more}")
                };
                return Err(Rejection::Invalid { field, problem });
            }
        }
        Ok(())
    }

    /// Refuses a priority that the tenant may not give its jobs.
    pub fn check_priority(&self, tenant: &TenantId, spec: &JobSpec) -> Result<(), Rejection> {
        let max = self.known_tenant(tenant)?.quota.priority_max;
        if spec.priority <= max {
            return Ok(());
        }
        let problem =
            format!("is {}; tenant {tenant} may give its jobs {max} at most", spec.priority);
        Err(Rejection::Invalid { field: "spec.priority".to_owned(), problem })
    }

    /// Refuses what its tenant may not have, whatever becomes free, and a job that may not wait beside those that
    /// wait already.
    pub fn check_capacity(
        &self,
        tenant: &TenantId,
        spec: &JobSpec,
        is_placed: bool,
    ) -> Result<(), Rejection> {
        if self.jobs_len() >= JOBS_MAX {
            let what = "jobs".to_owned();
            return Err(Rejection::LimitReached { what, limit: JOBS_MAX as u64 });
        }
        let holder = self.known_tenant(tenant)?;
        let refuse = |why: String| Rejection::QuotaExceeded { tenant: tenant.clone(), why };
        let least = spec.groups.iter().fold(0u64, |sum, group| {
            let group = group.shape.gpu_milli().saturating_mul(u64::from(group.replicas_min));
            sum.saturating_add(group)
        });
        let max = holder.quota.gpu_milli_max;
        if least > max {
            let [least, max] = [least, max].map(GpuMilli);
            return Err(refuse(format!("at least {least} GPUs are needed, {max} allowed")));
        }
        let (pending, max) = (holder.pending_jobs, holder.quota.pending_jobs_max);
        if !is_placed && pending >= max {
            return Err(refuse(format!("{pending} jobs wait already, {max} may")));
        }
        Ok(())
    }

    pub(super) fn commit(
        &mut self,
        turn: &mut Turn<'_>,
        asked: &Commit,
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let job = self.known_job(asked.job)?.clone();
        if job.phase.is_over() {
            return Err(Rejection::Precondition { what: format!("{} is over", job.id) });
        }
        if job.phase == JobPhase::Pending {
            check_start(&job.spec, turn.now)?;
        }
        self.admit(&job.spec, &job.tenant, Some(job.id), &asked.plan, &Given::default())?;
        // Nobody else may hold the job while it changes, or it would be copied.
        drop(job);
        self.bind(turn, asked.job, &asked.plan);
        self.settle(turn, asked.job);
        Ok(Outcome::Done { changed: true })
    }

    /// Binds what [`State::admit`] let pass.
    pub(super) fn bind(&mut self, turn: &mut Turn<'_>, id: JobId, plan: &Plan) {
        for placement in &plan.placements {
            let failures = self.replica(id, placement.rank).map_or(0, |replica| replica.failures);
            let allocation = Allocation {
                node: placement.node,
                gpus: placement.gpus,
                share_milli: placement.share_milli,
                assignment: self.next_assignment(),
            };
            let phase = ReplicaPhase::Assigned;
            let replica = Replica { phase, allocation: Some(allocation), failures };
            self.put_replica(id, placement.rank, replica);
            turn.event(Event::NodeWorkChanged(placement.node));
        }
    }
}

/// Refuses a job that could not be started in time for its deadline.
pub fn check_deadline(spec: &JobSpec, now: TimeMs) -> Result<(), Rejection> {
    spec.deadline.map_or(Ok(()), |deadline| validate::time_left(spec, deadline, now, "now"))
}

/// Refuses to start a job before it is to begin, or too late for its deadline.
pub(super) fn check_start(spec: &JobSpec, now: TimeMs) -> Result<(), Rejection> {
    let why = match (spec.begin, spec.start_by()) {
        (Some(begin), _) if now < begin => Stale::TooEarly { begin },
        (_, Some(start_by)) if now > start_by => Stale::TooLate { start_by },
        _ => return Ok(()),
    };
    Err(Rejection::StalePlan { why })
}
