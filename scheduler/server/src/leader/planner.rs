//! The planner's thread: one round after another takes in what changed and lets the office of the
//! term try waiting jobs, plan new ones, and send the plans off as batches.
//!
//! It runs beside the log, never inside it. What it does is the [`Office`]'s; here is what a server
//! adds: the wait for something to do, its locks and clocks, dry runs.
//! **Invariant:** a panic here ends the process: a leader that takes jobs but does not plan would
//! be worse than none. The state's lock is held for short slices only.

use super::answer::Slot;
use super::batch;
use super::explainer::{Explainer, Questions, offer, to_remember};
use super::inbox::{DRY_RUNS_QUEUED_MAX, DryRun, Inbox, RETRY_MS, Work};
use crate::call::{CallError, PlanCall, Planned};
use crate::clock;
use raft_store::Quorum;
use scheduler_core::command::Plan;
use scheduler_core::duty::office::{Answer, Batch, Notes, Office, Reserve, Shell};
use scheduler_core::plan::{self, Budget, Policy, Request, Unplaceable};
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;
use scheduler_core::view::View;
use std::sync::Arc;
use tokio::runtime::Handle;

/// Plans for one term.
struct Planner {
    office: Office<Slot>,
    desk: Desk,
    explainer: Explainer,
    /// Questions for the explainer, which is busy.
    to_explain: Vec<DryRun>,
}

/// What the office has of this server.
struct Desk {
    quorum: Quorum,
    inbox: Arc<Inbox>,
    runtime: Handle,
}

impl Planner {
    /// A planner that continues every waiting job. The state must show all of earlier terms.
    fn new(desk: Desk, explainer: Explainer, reserve: Reserve) -> Self {
        let now = clock::monotonic();
        let office = desk.quorum.read(|state| Office::new(state, Policy::default(), reserve, now));
        desk.inbox.knows(office.view().index());
        tracing::info!(nodes = office.view().nodes_len(), "planning begins");
        Self { office, desk, explainer, to_explain: Vec::new() }
    }

    /// Works until the inbox is closed.
    fn run(mut self) {
        loop {
            let now = clock::monotonic();
            let wait = self.office.next_at(now).map(|at| clock::duration(at.since(now)));
            let work = self.desk.inbox.wait(self.office.in_flight(), wait.map(clock::deadline));
            if work.closed {
                return;
            }
            self.round(work);
        }
    }

    fn round(&mut self, work: Work) {
        let Work { asks, dry_runs, mut notes, returned, offers, explained, .. } = work;
        if explained {
            self.explainer.came_back();
        }
        let now = clock::monotonic();
        for batch in returned {
            self.office.take_back(batch, &mut notes, now);
        }
        self.office.take_in(&self.desk, notes);
        offers.into_iter().for_each(|offer| self.office.remember(offer));
        dry_runs.into_iter().for_each(|run| self.dry_run(run));
        self.explain();
        self.office.submit(asks);
        self.office.round(&mut self.desk);
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
        let Some(plan) = self.office.dry_plan(&mut self.desk, tenant, spec)? else {
            return Ok(None);
        };
        let view = self.office.view();
        let (index, offer) = (view.index(), offer(view, spec, plan));
        self.office.remember(to_remember(tenant, spec, index, &offer, Vec::new()));
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
            self.office.catch_up(&mut self.desk);
            let runs = std::mem::take(&mut self.to_explain);
            let (view, holds) = (self.office.view().clone(), self.office.holds().collect());
            self.explainer.ask(Questions { view, holds, policy: self.office.policy(), runs });
        }
    }
}

impl Shell for Desk {
    type Ticket = Slot;

    fn look<R>(&self, at: impl FnOnce(&State) -> R) -> R {
        self.quorum.read(at)
    }

    fn news(&mut self) -> Notes {
        self.inbox.catch_up(self.quorum.read(State::index))
    }

    fn now(&self) -> TimeMs {
        clock::monotonic()
    }

    fn work_us(&self) -> u64 {
        clock::monotonic_us()
    }

    fn clock(&self) -> TimeMs {
        clock::now()
    }

    fn token(&mut self) -> u128 {
        uuid::Uuid::new_v4().as_u128()
    }

    fn is_gone(&self, ticket: &Slot) -> bool {
        ticket.is_abandoned()
    }

    fn answer(&mut self, ticket: Slot, answer: Answer) {
        ticket.answer(answer, 0);
    }

    fn send(&mut self, batch: Batch<Slot>) {
        let (quorum, inbox) = (self.quorum.clone(), Arc::clone(&self.inbox));
        self.runtime.spawn(batch::carry(batch, quorum, inbox));
    }

    fn plan(
        &mut self,
        view: &View,
        request: &Request<'_>,
        policy: Policy,
    ) -> Result<Plan, Unplaceable> {
        let found = plan::answer(view, request, &policy, Budget::default())?;
        if found.exhausted {
            let job = &request.spec.name;
            tracing::warn!(%job, "planning budget ran out; a better plan may exist");
        }
        Ok(found.plan)
    }
}

/// Runs the planner on a thread of its own until its inbox is closed.
pub(super) fn spawn(
    quorum: Quorum,
    inbox: Arc<Inbox>,
    runtime: Handle,
    reserve: Reserve,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    let explainer = Explainer::start(quorum.clone(), Arc::clone(&inbox))?;
    let desk = Desk { quorum, inbox, runtime };
    std::thread::Builder::new().name("planner".to_owned()).spawn(move || {
        let guard = EndsProcess;
        Planner::new(desk, explainer, reserve).run();
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
