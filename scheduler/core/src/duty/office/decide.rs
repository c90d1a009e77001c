//! How new jobs are decided: placed, pending, or refused; and plans that are only told of.
//!
//! **Invariant:** a job is told to wait only after everything that the state shows was taken in.

use super::batch::{Batch, Decided};
use super::look::{self, Answer, Look};
use super::offers::{Offer, Taking};
use super::{Ask, BATCH_JOBS_MAX, Check, Office, Shell, Submission};
use crate::command::{Plan, Rejection};
use crate::fit::Around;
use crate::id::TenantId;
use crate::job::{JobSpec, PreemptionPolicy, Reason, ReasonCode};
use crate::plan::{Request, Unplaceable, quote};

impl<T> Office<T> {
    /// Decides new jobs, at most one batch full.
    pub(super) fn decide<S: Shell<Ticket = T>>(&mut self, shell: &mut S, batch: &mut Batch<T>) {
        let count = self.asks.len().min(BATCH_JOBS_MAX);
        let mut asks: Vec<Ask<T>> = self.asks.drain(..count).collect();
        asks.retain(|ask| !shell.is_gone(&ask.ticket));
        if asks.is_empty() {
            return;
        }
        let clock = shell.clock();
        let looks: Vec<Look> = shell.look(|state| {
            asks.iter().map(|ask| look::submitted(state, &ask.call, clock)).collect()
        });
        for (ask, look) in asks.into_iter().zip(looks) {
            match (look, ask.call.check) {
                (Look::Settled(answer), _) => shell.answer(ask.ticket, answer),
                (Look::Waits(reason), Some(check))
                    if reason.code == ReasonCode::Quota && self.would_take(&ask.call, check) =>
                {
                    self.decide_meant(shell, ask, check, 0, batch);
                }
                (Look::Waits(reason), Some(_)) => {
                    self.plan_changed(shell, ask, reason.message.to_string());
                }
                (Look::Waits(reason), None) => pend(shell, ask, reason, batch),
                (Look::New(left), Some(check)) => {
                    self.decide_meant(shell, ask, check, left, batch);
                }
                (Look::New(left), None) => self.decide_one(shell, ask, left, batch),
            }
            self.send_full(shell, batch);
        }
    }

    /// Decides a job of whose tenant's quota so much is left.
    fn decide_one<S>(
        &mut self,
        shell: &mut S,
        mut ask: Ask<T>,
        quota_left: u64,
        batch: &mut Batch<T>,
    ) where
        S: Shell<Ticket = T>,
    {
        if let Some(reason) = ask.pending.take() {
            return pend(shell, ask, reason, batch);
        }
        let start_us = shell.work_us();
        self.view.note_arrival(&ask.call.spec);
        let found = self.find_new(shell, &ask.call, quota_left);
        // One that may take from others is looked at again as soon as it waits.
        let takes = ask.call.spec.preemption.policy != PreemptionPolicy::Never;
        let growth = (found.is_err() && !takes).then(|| self.backlog.growth());
        if let Ok(plan) = &found {
            self.claim(shell, batch, &ask.call.spec, plan);
        }
        let decide_us = shell.work_us().saturating_sub(start_us).max(1);
        let decided = Decided { found: found.map(Taking::from), growth, decide_us };
        batch.submit(ask, decided, shell.token(), shell.clock());
    }

    /// Whether the plan meant takes from other jobs. Those of its tenant give back of the quota: only
    /// the log can tell whether that is enough.
    fn would_take(&self, call: &Submission, check: Check) -> bool {
        let meant = self.offers.find(&call.tenant, call.body_digest, check);
        meant.is_some_and(|meant| !meant.victims.is_empty())
    }

    /// Places the job by the plan that its caller means, or not at all.
    fn decide_meant<S>(
        &mut self,
        shell: &mut S,
        ask: Ask<T>,
        check: Check,
        quota_left: u64,
        batch: &mut Batch<T>,
    ) where
        S: Shell<Ticket = T>,
    {
        let start_us = shell.work_us();
        match self.plan_meant(shell, &ask, check, quota_left) {
            Ok(taking) => {
                self.view.note_arrival(&ask.call.spec);
                self.claim(shell, batch, &ask.call.spec, &taking.plan);
                self.preempting.give(&taking.victims);
                let decide_us = shell.work_us().saturating_sub(start_us).max(1);
                let decided = Decided { found: Ok(taking), growth: None, decide_us };
                batch.submit(ask, decided, shell.token(), shell.clock());
            }
            Err(why) => self.plan_changed(shell, ask, why),
        }
    }

    /// The plan meant, if it can still be carried out as far as is known here; else why not.
    fn plan_meant<S>(
        &mut self,
        shell: &mut S,
        ask: &Ask<T>,
        check: Check,
        quota_left: u64,
    ) -> Result<Taking, String>
    where
        S: Shell<Ticket = T>,
    {
        let (call, index) = (&ask.call, check.index);
        if ask.stale > 0 {
            return Err(format!("what the plan of index {index} uses was taken meanwhile"));
        }
        if let Some(reason) = &ask.pending {
            return Err(reason.message.to_string());
        }
        self.catch_up(shell);
        if let Some(meant) = self.offers.find(&call.tenant, call.body_digest, check) {
            self.lift_for_new(shell, &call.spec);
            if self.is_to_be_had(shell, call, &meant) {
                return Ok(Taking::clone(&meant));
            }
            return Err(format!("what the plan of index {index} uses is not free any more"));
        }
        let Some(meant) = check.digest else {
            return Err(format!("this server knows of no plan for this job at index {index}"));
        };
        match self.find(shell, &call.tenant, &call.spec, quota_left) {
            Ok(plan) if quote::digest(&call.spec, &plan.placements, &[]) == meant => {
                Ok(plan.into())
            }
            Ok(_) => Err(format!("the plan of index {index} is not what would be done now")),
            Err(why) => Err(format!("the plan of index {index} does not fit now: {why}")),
        }
    }

    fn plan_changed<S: Shell<Ticket = T>>(&self, shell: &mut S, ask: Ask<T>, why: String) {
        shell.answer(ask.ticket, Answer::PlanChanged { why, index: self.view.index() });
    }

    /// A plan that is not carried out; `None` where none is found or the quota is in the way.
    ///
    /// # Errors
    /// What a submission of the job would be refused for.
    pub fn dry_plan<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        tenant: &TenantId,
        spec: &JobSpec,
    ) -> Result<Option<Plan>, Rejection> {
        let clock = shell.clock();
        let left = shell.look(|state| match look::refusal(state, tenant, spec, clock) {
            Some(refusal) => Err(refusal),
            None => Ok(look::quota_left(state, tenant)),
        })?;
        let is_over = Request::whole(spec).least_gpu_milli() > left;
        let found = if is_over { None } else { self.find_surely(shell, tenant, spec, left).ok() };
        self.hold_all();
        Ok(found)
    }

    /// Remembers a plan that a caller was told of, so that a [`Check`] finds it.
    pub fn remember(&mut self, offer: Offer) {
        self.offers.remember(offer);
    }

    fn find_new<S>(
        &mut self,
        shell: &mut S,
        call: &Submission,
        quota_left: u64,
    ) -> Result<Plan, Reason>
    where
        S: Shell<Ticket = T>,
    {
        let lifted = self.lift_for_new(shell, &call.spec);
        if let Some(kind) = self.hopeless.known(&call.spec)
            && self.hopeless.why(kind, lifted).is_some()
        {
            self.catch_up(shell);
            if let Some(why) = self.hopeless.why(kind, lifted) {
                return Err(why.clone());
            }
        }
        let found = self.find_surely(shell, &call.tenant, &call.spec, quota_left);
        found.map_err(|unplaceable| {
            let lifted = self.lift_for_new(shell, &call.spec);
            let why = self.holds.tell(unplaceable.to_reason(), None, lifted);
            if let Some(kind) = self.hopeless.kind(&call.spec) {
                self.hopeless.note(kind, lifted, &why);
            }
            why
        })
    }

    fn find_surely<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        tenant: &TenantId,
        spec: &JobSpec,
        quota_left: u64,
    ) -> Result<Plan, Unplaceable> {
        let found = self.find(shell, tenant, spec, quota_left);
        if found.is_err() && self.catch_up(shell) {
            return self.find(shell, tenant, spec, quota_left);
        }
        found
    }

    fn find<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        tenant: &TenantId,
        spec: &JobSpec,
        gpu_milli_max: u64,
    ) -> Result<Plan, Unplaceable> {
        let around = match spec.looks_around() {
            true => shell.look(|state| state.around(tenant, spec, None)),
            false => Around::default(),
        };
        let request = Request { around: &around, gpu_milli_max, ..Request::whole(spec) };
        self.lift_for_new(shell, spec);
        shell.plan(&self.view, &request, self.policy)
    }
}

/// Accepts the job without a plan.
fn pend<S: Shell>(shell: &mut S, ask: Ask<S::Ticket>, why: Reason, batch: &mut Batch<S::Ticket>) {
    let decided = Decided { found: Err(why), growth: None, decide_us: 0 };
    batch.submit(ask, decided, shell.token(), shell.clock());
}
