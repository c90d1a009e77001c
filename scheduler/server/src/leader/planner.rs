//! The planner's thread: one round after another takes in what changed, tries waiting jobs, plans
//! new ones, and sends the plans off as batches.
//!
//! It runs beside the log, never inside it: while a batch is under way its plans are claims in the
//! planner's view, so that the next batch plans around them.
//! **Invariant:** a panic here ends the process: a leader that takes jobs but does not plan would
//! be worse than none. The state's lock is held for short slices only.

use super::batch::{Batch, Returned};
use super::explainer::{Explainer, offer};
use super::inbox::{
    Ask, BATCH_JOBS_MAX, BATCHES_IN_FLIGHT_MAX, DRY_RUNS_QUEUED_MAX, DryRun, Inbox, Notes,
    RETRY_MS, Work,
};
use super::look::{self, Look};
use super::offers::Offers;
use crate::call::{CallError, Check, PlanCall, Planned};
use crate::clock;
use crate::convert;
use raft_store::Quorum;
use scheduler_core::command::Plan;
use scheduler_core::duty::backlog::Backlog;
use scheduler_core::fit::Around;
use scheduler_core::id::{JobId, NodeId, TenantId};
use scheduler_core::job::{JobSpec, Reason, ReasonCode};
use scheduler_core::plan::quote;
use scheduler_core::plan::{self, Budget, Policy, Ranks, Request, Unplaceable};
use scheduler_core::state::State;
use scheduler_core::unit::DurationMs;
use scheduler_core::view::View;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Nodes re-read under one hold of the state's lock: about a millisecond.
const REFRESH_SLICE: usize = 512;
/// Waiting jobs tried in one round: new jobs must not wait behind a long backlog.
const TRIES_PER_ROUND: usize = 64;
/// Time for waiting jobs in one round; a gang that takes longer ends it.
const TRIES_TIME: Duration = Duration::from_millis(10);
/// A waiting job's reason is told again at most this often, unless its code changes.
const TELL_EVERY: DurationMs = DurationMs(10_000);

/// Plans for one term.
pub(super) struct Planner {
    quorum: Quorum,
    inbox: Arc<Inbox>,
    runtime: Handle,
    view: View,
    backlog: Backlog,
    /// Jobs whose plans went stale; they go first.
    again: VecDeque<Ask>,
    in_flight: usize,
    claims: u64,
    policy: Policy,
    explainer: Explainer,
    /// Questions for the explainer, which is busy.
    to_explain: Vec<DryRun>,
    offers: Offers,
}

impl Planner {
    /// A planner that continues every waiting job. The state must show all of earlier terms.
    pub(super) fn new(
        quorum: Quorum,
        inbox: Arc<Inbox>,
        runtime: Handle,
        explainer: Explainer,
    ) -> Self {
        let now = clock::monotonic();
        let (view, waiting) =
            quorum.read(|state| (view_of(state), state.waiting().collect::<Vec<_>>()));
        inbox.knows(view.index());
        let mut backlog = Backlog::default();
        waiting.into_iter().for_each(|job| backlog.add(job, now));
        tracing::info!(nodes = view.nodes_len(), "planning begins");
        Self {
            quorum,
            inbox,
            runtime,
            view,
            backlog,
            again: VecDeque::new(),
            in_flight: 0,
            claims: 0,
            policy: Policy::default(),
            explainer,
            to_explain: Vec::new(),
            offers: Offers::default(),
        }
    }

    /// Works until the inbox is closed.
    pub(super) fn run(mut self) {
        loop {
            let now = clock::monotonic();
            let room = self.in_flight < BATCHES_IN_FLIGHT_MAX;
            let until = match (room, self.again.is_empty()) {
                (false, _) => None,
                (true, false) => Some(now),
                (true, true) => self.backlog.next_at(now),
            };
            let until = until.map(|until| clock::deadline(clock::duration(until.since(now))));
            let work = self.inbox.wait(self.in_flight, until);
            if work.closed {
                return;
            }
            self.round(work);
        }
    }

    fn round(&mut self, work: Work) {
        let Work { asks, dry_runs, mut notes, returned, explained, .. } = work;
        if explained {
            self.explainer.came_back();
        }
        returned.into_iter().for_each(|batch| self.take_back(batch, &mut notes));
        self.take_in(notes);
        dry_runs.into_iter().for_each(|run| self.dry_run(run));
        self.explain();
        self.again.extend(asks);
        if self.in_flight >= BATCHES_IN_FLIGHT_MAX {
            return;
        }
        let mut batch = self.new_batch();
        self.try_waiting(&mut batch);
        self.plan_asks(&mut batch);
        self.send(batch);
    }

    /// Ends the claims of a batch that came back.
    fn take_back(&mut self, batch: Returned, notes: &mut Notes) {
        let now = clock::monotonic();
        self.in_flight = self.in_flight.saturating_sub(1);
        self.view.unclaim(batch.claim);
        // The claim is gone, so what it became must be read before anything is planned.
        batch.nodes.into_iter().for_each(|node| notes.node(node));
        for ask in batch.again.into_iter().rev() {
            self.again.push_front(ask);
        }
        for (job, growth) in batch.waiting {
            match growth {
                Some(growth) => self.backlog.add_tried(job, growth, now),
                None => self.backlog.add(job, now),
            }
        }
        for (job, accepted) in batch.commits {
            self.backlog.came_back(job, accepted, now);
        }
    }

    /// Reads what changed.
    fn take_in(&mut self, mut notes: Notes) {
        let now = clock::monotonic();
        if notes.everything {
            let view = &mut self.view;
            self.quorum.read(|state| *view = view_of(state));
        }
        if notes.sites {
            let view = &mut self.view;
            self.quorum.read(|state| view.refresh_sites(state));
        }
        self.refresh(&notes.take_nodes());
        notes.take_waiting().into_iter().for_each(|job| self.backlog.add(job, now));
        if notes.grew || notes.sites || notes.everything {
            self.backlog.grew();
        }
    }

    fn refresh(&mut self, nodes: &[NodeId]) {
        let view = &mut self.view;
        for slice in nodes.chunks(REFRESH_SLICE) {
            self.quorum.read(|state| view.refresh(state, slice));
        }
    }

    fn new_batch(&mut self) -> Batch {
        self.claims += 1;
        Batch::new(self.claims)
    }

    fn send(&mut self, batch: Batch) {
        if batch.is_empty() {
            return;
        }
        self.in_flight += 1;
        self.runtime.spawn(batch.send(self.quorum.clone(), Arc::clone(&self.inbox)));
    }

    /// Sends the batch when it is full and goes on with a new one.
    fn send_full(&mut self, batch: &mut Batch) {
        if batch.is_full() {
            let next = self.new_batch();
            self.send(std::mem::replace(batch, next));
        }
    }

    /// Tries waiting jobs, oldest first, within bounds.
    fn try_waiting(&mut self, batch: &mut Batch) {
        let start = clock::instant();
        let mut tries = 0;
        while tries < TRIES_PER_ROUND && start.elapsed() < TRIES_TIME {
            let Some(job) = self.backlog.next(1, clock::monotonic()).pop() else { return };
            tries += 1;
            self.try_one(job, batch);
            self.send_full(batch);
        }
    }

    fn try_one(&mut self, job: JobId, batch: &mut Batch) {
        let now = clock::monotonic();
        let Some(wait) = self.quorum.read(|state| look::waiting(state, job)) else {
            return self.backlog.remove(job);
        };
        let ranks = match &wait.ranks {
            Some(ranks) => Ranks::Some(ranks),
            None => Ranks::All,
        };
        let spec = &wait.job.spec;
        let found = match wait.over_quota {
            Some(reason) => Err(reason),
            None => {
                let (fixed, around) = (&wait.fixed[..], &wait.around);
                let request = Request { spec, ranks, fixed, avoid: &[], around };
                plan::plan(&self.view, &request, &self.policy, Budget::default())
                    .map_err(|unplaceable| unplaceable.to_reason())
            }
        };
        match found {
            Ok(plan) => {
                self.view.claim(batch.claim, spec, &plan);
                self.backlog.sent(job);
                batch.commit(job, plan);
            }
            Err(reason) => {
                self.backlog.in_vain(job, now);
                let news = wait.job.reason.code != reason.code;
                let every = if news { DurationMs::ZERO } else { TELL_EVERY };
                if wait.job.reason != reason && self.backlog.tell(job, every, now) {
                    batch.tell(job, reason);
                }
            }
        }
    }

    /// Plans new jobs, at most one batch full.
    fn plan_asks(&mut self, batch: &mut Batch) {
        let count = self.again.len().min(BATCH_JOBS_MAX);
        let mut asks: Vec<Ask> = self.again.drain(..count).collect();
        asks.retain(|ask| !ask.slot.is_abandoned());
        if asks.is_empty() {
            return;
        }
        let looks: Vec<Look> = self
            .quorum
            .read(|state| asks.iter().map(|ask| look::submitted(state, &ask.call)).collect());
        for (ask, look) in asks.into_iter().zip(looks) {
            match look {
                Look::Settled(result) => ask.slot.settle(result),
                Look::OverQuota(reason) if ask.call.check.is_some() => {
                    self.plan_changed(ask, reason.message.to_string());
                }
                Look::OverQuota(reason) => batch.submit(ask, None, reason, None, 0),
                Look::New => self.plan_one(ask, batch),
            }
            self.send_full(batch);
        }
    }

    fn plan_one(&mut self, mut ask: Ask, batch: &mut Batch) {
        if let Some(check) = ask.call.check {
            return self.plan_checked(ask, check, batch);
        }
        if let Some(reason) = ask.pending.take() {
            return batch.submit(ask, None, reason, None, 0);
        }
        let start = clock::instant();
        self.view.note_arrival(&ask.call.spec);
        match self.find_surely(&ask.call.tenant, &ask.call.spec) {
            Ok(plan) => {
                self.view.claim(batch.claim, &ask.call.spec, &plan);
                let decide_us = clock::micros_since(start).max(1);
                batch.submit(ask, Some(plan), Reason::default(), None, decide_us);
            }
            Err(unplaceable) => {
                let decide_us = clock::micros_since(start).max(1);
                let growth = Some(self.backlog.growth());
                batch.submit(ask, None, unplaceable.to_reason(), growth, decide_us);
            }
        }
    }

    /// Takes in what the state shows and nobody has told yet; whether there was something. Nobody
    /// is told "no" for a node that has just been acknowledged.
    fn catch_up(&mut self) -> bool {
        let index = self.quorum.read(State::index);
        let notes = self.inbox.catch_up(index);
        let news = !notes.is_empty();
        self.take_in(notes);
        news
    }

    fn find_surely(&mut self, tenant: &TenantId, spec: &JobSpec) -> Result<Plan, Unplaceable> {
        let found = self.find(tenant, spec);
        if found.is_err() && self.catch_up() { self.find(tenant, spec) } else { found }
    }

    fn find(&self, tenant: &TenantId, spec: &JobSpec) -> Result<Plan, Unplaceable> {
        let around = match spec.looks_around() {
            true => self.quorum.read(|state| state.around(tenant, spec, None)),
            false => Around::default(),
        };
        let request = Request { around: &around, ..Request::whole(spec) };
        let found = plan::answer(&self.view, &request, &self.policy, Budget::default())?;
        if found.exhausted {
            tracing::warn!(job = %spec.name, "planning budget ran out; a better plan may exist");
        }
        Ok(found.plan)
    }

    /// Places the job by the plan that its caller means, or not at all.
    fn plan_checked(&mut self, ask: Ask, check: Check, batch: &mut Batch) {
        let start = clock::instant();
        let spec = Arc::clone(&ask.call.spec);
        match self.plan_meant(&ask, check) {
            Ok(plan) => {
                self.view.note_arrival(&spec);
                self.view.claim(batch.claim, &spec, &plan);
                let decide_us = clock::micros_since(start).max(1);
                batch.submit(ask, Some(plan), Reason::default(), None, decide_us);
            }
            Err(why) => self.plan_changed(ask, why),
        }
    }

    /// The plan meant, if it can still be carried out as far as is known here; else why not.
    fn plan_meant(&mut self, ask: &Ask, check: Check) -> Result<Plan, String> {
        let (call, index) = (&ask.call, check.index);
        if ask.stale > 0 || ask.pending.is_some() {
            return Err(format!("what the plan of index {index} uses was taken meanwhile"));
        }
        self.catch_up();
        if let Some(plan) = self.offers.find(&call.tenant, call.body_digest, check) {
            if quote::is_free(&self.view, &plan.placements) {
                return Ok(Plan::clone(&plan));
            }
            return Err(format!("what the plan of index {index} uses is not free any more"));
        }
        let Some(meant) = check.digest else {
            return Err(format!("this server knows of no plan for this job at index {index}"));
        };
        match self.find(&call.tenant, &call.spec) {
            Ok(plan) if quote::digest(&call.spec, &plan.placements) == meant => Ok(plan),
            Ok(_) => Err(format!("the plan of index {index} is not what would be done now")),
            Err(why) => Err(format!("the plan of index {index} does not fit now: {why}")),
        }
    }

    fn plan_changed(&self, ask: Ask, why: String) {
        ask.slot.settle(Err(CallError::PlanChanged { why, index: self.view.index() }));
    }

    fn dry_run(&mut self, run: DryRun) {
        match run {
            run if run.is_abandoned() => {}
            DryRun::Plan { call, answer } => match self.dry_plan(&call) {
                Ok(Some(planned)) => drop(answer.send(Ok(planned))),
                Ok(None) => self.to_explain.push(DryRun::Plan { call, answer }),
                Err(error) => drop(answer.send(Err(error))),
            },
            run @ DryRun::Explain { .. } => self.to_explain.push(run),
        }
    }

    /// A plan that is not carried out; `None` where none is found or the quota is in the way.
    fn dry_plan(&mut self, call: &PlanCall) -> Result<Option<Planned>, CallError> {
        let start = clock::instant();
        let PlanCall { tenant, spec, .. } = call;
        let look = |state: &State| match look::refusal(state, tenant, spec) {
            Some(refusal) => Err(refusal),
            None => Ok(look::over_quota(state, tenant, spec.gpu_milli()).is_some()),
        };
        if self.quorum.read(look)? {
            return Ok(None);
        }
        let Ok(plan) = self.find_surely(tenant, spec) else { return Ok(None) };
        let (index, offer) = (self.view.index(), offer(&self.view, spec, plan));
        let (body, digest) = (convert::job::digest(spec), offer.digest);
        self.offers.remember(tenant, body, index, digest, Arc::new(offer.plan.clone()));
        let decide_us = clock::micros_since(start).max(1);
        Ok(Some(Planned { index, decide_us, verdict: Ok(offer) }))
    }

    /// Hands what waits for an explanation to the explainer, unless that is busy.
    fn explain(&mut self) {
        while self.to_explain.len() > DRY_RUNS_QUEUED_MAX {
            let Some(last) = self.to_explain.pop() else { return };
            last.refuse(CallError::Busy { retry_ms: RETRY_MS });
        }
        if !self.explainer.is_busy() && !self.to_explain.is_empty() {
            self.catch_up();
            let runs = std::mem::take(&mut self.to_explain);
            self.explainer.ask(self.view.clone(), self.policy, runs);
        }
    }
}

/// The fleet, and what the jobs known so far say of those to come.
fn view_of(state: &State) -> View {
    let mut view = View::new(state);
    view.learn(state);
    view
}

/// Runs the planner on a thread of its own until its inbox is closed.
pub(super) fn spawn(
    quorum: Quorum,
    inbox: Arc<Inbox>,
    runtime: Handle,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let explainer = Explainer::start(quorum.clone(), Arc::clone(&inbox))?;
    std::thread::Builder::new().name("planner".to_owned()).spawn(move || {
        let guard = EndsProcess;
        Planner::new(quorum, inbox, runtime, explainer).run();
        std::mem::forget(guard);
    })
}

/// Ends the process when it is dropped, that is, when the thread that holds it panics.
struct EndsProcess;

impl Drop for EndsProcess {
    fn drop(&mut self) {
        tracing::error!("the planner has panicked; the process ends");
        std::process::abort();
    }
}

/// Text of a reason for a quota; kept here so that both users say the same.
pub(super) fn quota_reason(held: u64, asked: u64, max: u64) -> Reason {
    let message = format!(
        "the quota is {}.{:03} GPUs, {}.{:03} are held and {}.{:03} asked for",
        max / 1000,
        max % 1000,
        held / 1000,
        held % 1000,
        asked / 1000,
        asked % 1000
    );
    Reason { code: ReasonCode::Quota, message: message.into() }
}
