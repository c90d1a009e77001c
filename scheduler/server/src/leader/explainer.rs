//! The explainer's thread: why jobs do not fit, on a copy of the planner's view.
//!
//! An explanation may take a hundred times as long as a plan, so it does not hold up the planner:
//! that only copies its view, once for all questions that have come meanwhile.
//! **Invariant:** one copy at a time; nothing is changed but the copy; the state's lock is held for
//! short slices only.

use super::inbox::{DryRun, Inbox};
use crate::call::{
    CallError, ExplainCall, ExplainTarget, Explained, GroupNoPlan, NoPlan, Offer, PlanCall, Planned,
};
use crate::{clock, convert};
use raft_store::Quorum;
use scheduler_core::command::{Plan, Victim};
use scheduler_core::duty::office::{self, Taking, look};
use scheduler_core::fit::Around;
use scheduler_core::id::{JobId, TenantId};
use scheduler_core::job::{JobSpec, PreemptionPolicy, Reason};
use scheduler_core::plan::explain::outlook::HELD_MAX;
use scheduler_core::plan::explain::{Change, Help};
use scheduler_core::plan::preempt::{
    Asker, Candidate, Candidates, Choice, SEARCH, Vain, choose, may_help, with_taken,
};
use scheduler_core::plan::quote::{Quote, Wholeness, digest};
use scheduler_core::plan::{
    Budget, Explanation, Outlook, Policy, Ranks, Request, Verdict, explain, plan,
};
use scheduler_core::state::State;
use scheduler_core::view::View;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Steps for the search of what would help: tens of milliseconds.
const HELPS: Budget = Budget { steps_max: 8_000_000 };
/// No search of what would help.
const NO_HELPS: Budget = Budget { steps_max: 0 };
/// Replicas of running jobs read under one hold of the state's lock: about a millisecond.
const READ_SLICE: usize = HELD_MAX / 16;

/// Questions, and the view to answer them on.
pub(super) struct Questions {
    pub(super) view: View,
    /// Waiting jobs with a reservation, and the claim in the view that is held for each.
    pub(super) holds: Vec<(JobId, u64)>,
    pub(super) policy: Policy,
    pub(super) runs: Vec<DryRun>,
}

/// The planner's hold of the explainer.
pub(super) struct Explainer {
    send: Sender<Questions>,
    is_busy: bool,
}

impl Explainer {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start(quorum: Quorum, inbox: Arc<Inbox>) -> std::io::Result<Self> {
        let (send, receive) = channel();
        let thread = std::thread::Builder::new().name("explainer".to_owned());
        thread.spawn(move || work_off(&quorum, &inbox, &receive))?;
        Ok(Self { send, is_busy: false })
    }

    pub(super) fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// It has answered all it was asked.
    pub(super) fn came_back(&mut self) {
        self.is_busy = false;
    }

    /// Asks; it must not be busy.
    pub(super) fn ask(&mut self, questions: Questions) {
        self.is_busy = true;
        // If the thread is gone, the questions are dropped, which answers them.
        let _ = self.send.send(questions);
    }
}

fn work_off(quorum: &Quorum, inbox: &Inbox, receive: &Receiver<Questions>) {
    while let Ok(Questions { mut view, holds, policy, runs }) = receive.recv() {
        for run in runs.into_iter().filter(|run| !run.is_abandoned()) {
            let mut desk = Desk { quorum, inbox, view: &mut view, holds: &holds, policy: &policy };
            // A caller that has gone away needs no answer.
            match run {
                DryRun::Plan { call, answer } => {
                    let _ = answer.send(desk.plan(&call));
                }
                DryRun::Explain { call, answer } => {
                    let _ = answer.send(desk.explain(&call));
                }
            }
        }
        inbox.explained();
    }
}

struct Desk<'a> {
    quorum: &'a Quorum,
    inbox: &'a Inbox,
    view: &'a mut View,
    holds: &'a [(JobId, u64)],
    policy: &'a Policy,
}

impl Desk<'_> {
    /// A dry run that the planner found no plan for.
    fn plan(&mut self, call: &PlanCall) -> Result<Planned, CallError> {
        let start = clock::instant();
        let (tenant, spec, index) = (&call.tenant, &call.spec, self.view.index());
        let (around, gpu_milli_max) = self.around(tenant, spec);
        let request = Request { around: &around, gpu_milli_max, ..Request::whole(spec) };
        let found = self.plan_late(tenant, &request);
        let verdict = match found {
            Ok((offer, victims)) => {
                self.inbox.offered(to_remember(tenant, spec, index, &offer, victims));
                Ok(offer)
            }
            Err(vain) => {
                let budget = if call.with_helps { HELPS } else { NO_HELPS };
                Err(self.why(tenant, &request, budget, vain))
            }
        };
        let decide_us = clock::micros_since(start).max(1);
        Ok(Planned { index, decide_us, verdict })
    }

    /// A plan for a job that has just not fitted: because what it lacked has come meanwhile, or others
    /// give way. Else why these do not, if that was asked.
    fn plan_late(
        &mut self,
        tenant: &TenantId,
        request: &Request<'_>,
    ) -> Result<(Offer, Vec<Victim>), Option<Vain>> {
        let spec = request.spec;
        let outlook = Outlook::default();
        let verdict = explain(self.view, request, self.policy, &outlook, NO_HELPS).verdict;
        match verdict {
            None => {
                let found = plan(self.view, request, self.policy, Budget::default());
                found.map(|plan| (offer(self.view, spec, plan), Vec::new())).map_err(|_| None)
            }
            Some(verdict) if may_help(verdict.code()) && asks_for_others(spec) => {
                self.taking(tenant, request).map_err(Some)
            }
            Some(_) => Err(None),
        }
    }

    /// A plan by which others give way.
    fn taking(
        &mut self,
        tenant: &TenantId,
        request: &Request<'_>,
    ) -> Result<(Offer, Vec<Victim>), Vain> {
        let (found, candidates) = self.by_preemption(tenant, request)?;
        let taken = Some(found.taken(&candidates));
        let (spec, Choice { plan, victims, .. }) = (request.spec, found);
        let quote = |view: &View| Quote::new(view, spec, &plan.placements);
        let quote = with_taken(self.view, &candidates, &victims, quote);
        let quote = Quote { before: Wholeness::of(self.view), ..quote };
        let digest = digest(spec, &plan.placements, &victims);
        Ok((Offer { plan, digest, quote, taken }, victims))
    }

    fn explain(&mut self, call: &ExplainCall) -> Result<Explained, CallError> {
        let start = clock::instant();
        let (waiting, why) = match &call.target {
            ExplainTarget::Spec(spec) => {
                let refusal = self
                    .quorum
                    .read(|state| look::refusal(state, &call.tenant, spec, clock::now()));
                refusal.map_or(Ok(()), Err)?;
                let (around, gpu_milli_max) = self.around(&call.tenant, spec);
                let request = Request { around: &around, gpu_milli_max, ..Request::whole(spec) };
                let why = self.why(&call.tenant, &request, HELPS, None);
                (spec.replicas(), Some(or_too_early(why, spec)))
            }
            ExplainTarget::Job(job) => {
                let wait = self.quorum.read(|state| {
                    look::waiting(state, *job).ok_or_else(|| look::kept_back(state, *job))
                });
                match wait {
                    Ok(wait) => {
                        let why = self.why_waiting(*job, &call.tenant, &wait.request());
                        (wait.replicas(), Some(or_too_early(why, &wait.job.spec)))
                    }
                    Err(Some((lost, reason))) => (lost, Some(self.kept_back(reason))),
                    Err(None) => (0, None),
                }
            }
        };
        let decide_us = clock::micros_since(start).max(1);
        Ok(Explained { index: self.view.index(), decide_us, waiting, why })
    }

    /// What is known of replicas that have not their turn: nothing is planned for them yet.
    fn kept_back(&self, reason: Reason) -> NoPlan {
        NoPlan {
            verdict: None,
            reason,
            nodes_total: u32::try_from(self.view.nodes_len()).unwrap_or(u32::MAX),
            hardest: 0,
            groups: Vec::new(),
            helps: Vec::new(),
            is_cut_short: false,
        }
    }

    /// Where the tenant's jobs stand, as far as the rules of a job that is not one go, and what is
    /// left of its quota.
    fn around(&self, tenant: &TenantId, spec: &JobSpec) -> (Around, u64) {
        let look =
            |state: &State| (state.around(tenant, spec, None), look::quota_left(state, tenant));
        self.quorum.read(look)
    }

    /// Why a waiting job waits, for whom what is held for it is free.
    fn why_waiting(&mut self, job: JobId, tenant: &TenantId, request: &Request<'_>) -> NoPlan {
        let Some(&(_, claim)) = self.holds.iter().find(|(held, _)| *held == job) else {
            return self.why(tenant, request, HELPS, None);
        };
        let mut view = self.view.clone();
        view.unclaim(claim);
        Desk { view: &mut view, ..*self }.why(tenant, request, HELPS, None)
    }

    /// Why it does not fit. `in_vain`: it was seen already that others cannot give way, for this reason.
    fn why(
        &mut self,
        tenant: &TenantId,
        request: &Request<'_>,
        budget: Budget,
        in_vain: Option<Vain>,
    ) -> NoPlan {
        let mut outlook = self.quorum.read(|state| Outlook::begin(state, tenant));
        let mut next = 0;
        let mut read_on = |state: &State| outlook.read_on(state, &mut next, READ_SLICE);
        while budget.steps_max > 0 && self.quorum.read(&mut read_on) {}
        let mut answer = explain(self.view, request, self.policy, &outlook, budget);
        let is_busy = answer.verdict.is_some_and(|verdict| may_help(verdict.code()));
        if budget.steps_max > 0 && is_busy && matches!(request.ranks, Ranks::All) {
            let found = in_vain.map_or_else(|| self.by_preemption(tenant, request), Err);
            match found {
                Ok((found, candidates)) => answer.helps.push(Help {
                    change: Change::Preempt(found.taken(&candidates)),
                    is_least: !found.is_cut,
                }),
                Err(why) => answer.is_cut_short |= why == Vain::Undecided,
            }
        }
        let over_quota = match answer.verdict {
            Some(Verdict::Quota) => {
                let least = request.least_gpu_milli();
                self.quorum.read(|state| look::over_quota(state, tenant, least))
            }
            _ => None,
        };
        no_plan(answer, over_quota)
    }

    /// Who would give way to a job that asked for it, or does.
    fn by_preemption(
        &mut self,
        tenant: &TenantId,
        request: &Request<'_>,
    ) -> Result<(Choice, Vec<Candidate>), Vain> {
        let (asker, now) = (Asker::of(tenant, request.spec), clock::now());
        let begin = |state: &State| Candidates::begin(state, asker.priority, &BTreeSet::new());
        let mut all = self.quorum.read(begin);
        while self.quorum.read(|state: &State| all.read_on(state, asker, now, READ_SLICE)) {}
        let found = choose(self.view, request, &all.found, self.policy, SEARCH)?;
        Ok((found, all.found))
    }
}

/// What fits waits nevertheless if it is not to begin yet.
fn or_too_early(why: NoPlan, spec: &JobSpec) -> NoPlan {
    match look::too_early(spec, clock::now()) {
        Some(reason) if why.verdict.is_none() => NoPlan { reason, ..why },
        _ => why,
    }
}

fn no_plan(answer: Explanation, over_quota: Option<Reason>) -> NoPlan {
    let code = answer.verdict.map_or_else(Default::default, Verdict::code);
    let reason = over_quota.unwrap_or_else(|| Reason::new(code, answer.summary));
    let groups = answer.groups.into_iter().map(|group| GroupNoPlan {
        group: group.group,
        causes: group.counts.iter().map(|(cause, nodes)| (cause.to_string(), *nodes)).collect(),
        placeable: group.placeable,
        wanted: group.wanted,
    });
    NoPlan {
        verdict: answer.verdict,
        reason,
        nodes_total: answer.nodes,
        hardest: answer.hardest,
        groups: groups.collect(),
        helps: answer.helps.into_iter().map(|help| (help.change, help.is_least)).collect(),
        is_cut_short: answer.is_cut_short,
    }
}

/// A plan as a dry run tells of it.
pub(super) fn offer(view: &View, spec: &JobSpec, plan: Plan) -> Offer {
    let quote = Quote::new(view, spec, &plan.placements);
    Offer { digest: digest(spec, &plan.placements, &[]), quote, plan, taken: None }
}

/// What is to be remembered of a plan that a caller is told of.
pub(super) fn to_remember(
    tenant: &TenantId,
    spec: &JobSpec,
    index: u64,
    offer: &Offer,
    victims: Vec<Victim>,
) -> office::Offer {
    let taking = Arc::new(Taking { plan: offer.plan.clone(), victims });
    let (body, digest) = (convert::job::digest(spec), offer.digest);
    office::Offer { tenant: tenant.clone(), body, index, digest, taking }
}

fn asks_for_others(spec: &JobSpec) -> bool {
    spec.preemption.policy == PreemptionPolicy::LowerPriority
}
