//! What a leader's planner does in one term: who is tried next, what goes into the log, and what
//! is made of the answers.
//!
//! An [`Office`] takes notes of what changed, tries waiting jobs, decides new ones, and sends what
//! comes of it as batches of entries. Batches under way are claims in its view, so that the next
//! ones plan around them; plans that went stale are made anew. The first waiting jobs may have
//! reservations (`reserve`), for which capacity is held (`holds`). Whoever runs it is its [`Shell`]: a
//! server's planner thread, or a simulated leader. A new term has a new office, made from the state.
//! **Invariant:** decides nothing for good: every plan is checked again by `State::apply`. Every
//! submission is answered once, or still waiting here or in a batch.

mod batch;
mod decide;
mod holds;
mod hopeless;
pub mod look;
mod notes;
mod offers;
mod preempt;
mod reserve;
mod shell;

pub use batch::{Batch, Returned, Sent};
pub use holds::Reserve;
pub use hopeless::Kind;
pub use look::{Accepted, Answer};
pub use notes::Notes;
pub use offers::{Offer, Taking};
pub use shell::Shell;

use super::backlog::Backlog;
use crate::command::{Actor, Plan};
use crate::id::{JobId, NodeId, TenantId};
use crate::job::{Job, JobPhase, JobSpec, Priority, Reason};
use crate::plan::Policy;
use crate::state::State;
use crate::unit::{DurationMs, TimeMs};
use crate::view::View;
use holds::{Holds, Lifted, end_of};
use hopeless::Hopeless;
use look::Waiting;
use offers::Offers;
use preempt::{Preempted, Preempting};
use reserve::Looks;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;

/// Most jobs of one batch: one log record of about 100 KiB.
pub const BATCH_JOBS_MAX: usize = 512;
/// Batches under way at a time: enough to hide one commit behind the planning of the next.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// While batches are under way, a new one waits for this many jobs ...
const BATCH_JOBS_GOOD: usize = 64;
/// ... but not for longer than this.
pub const LINGER: DurationMs = DurationMs(1);
/// A plan that went stale this often is given up; the job then waits.
pub const STALE_MAX: u8 = 3;
/// Nodes re-read in one look at the state: about a millisecond.
const REFRESH_SLICE: usize = 512;
/// Waiting jobs tried in one round: new jobs must not wait behind a long backlog.
const TRIES_PER_ROUND: usize = 64;
/// Time for waiting jobs in one round; a gang that takes longer ends it.
const TRIES_TIME_US: u64 = 10_000;
/// A waiting job's reason is told again at most this often, unless its code changes.
const TELL_EVERY: DurationMs = DurationMs(10_000);

/// Longest sleep of a job that is not to begin yet: the wall clock, by which it begins, may be set.
const SLEEP_MAX: DurationMs = DurationMs(300_000);

/// One job to accept. Its spec has been validated.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Submission {
    pub tenant: TenantId,
    pub by: Actor,
    pub request_id: Arc<str>,
    pub body_digest: u128,
    pub spec: Arc<JobSpec>,
    /// Only this plan will do.
    pub check: Option<Check>,
}

/// The plan that is meant, and no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// Index that its dry run told.
    pub index: u64,
    /// Its digest, if the caller knows it.
    pub digest: Option<u128>,
}

/// A submission on its way, and what its caller keeps with it.
#[derive(Debug)]
pub struct Ask<T> {
    call: Submission,
    ticket: T,
    /// How often a plan of it was refused as stale.
    stale: u8,
    /// Do not plan: accept as pending for this reason.
    pending: Option<Reason>,
}

impl<T> Ask<T> {
    pub fn new(call: Submission, ticket: T) -> Self {
        Self { call, ticket, stale: 0, pending: None }
    }
}

/// The planner's work of one term.
#[derive(Debug)]
pub struct Office<T> {
    view: View,
    backlog: Backlog,
    /// Jobs to decide; those whose plans went stale are first.
    asks: VecDeque<Ask<T>>,
    in_flight: usize,
    claims: u64,
    policy: Policy,
    offers: Offers,
    hopeless: Hopeless,
    holds: Holds,
    looks: Looks,
    preempting: Preempting,
}

impl<T> Office<T> {
    /// An office that continues every waiting job. The state must show all of earlier terms.
    pub fn new(state: &State, policy: Policy, reserve: Reserve, now: TimeMs) -> Self {
        let mut backlog = Backlog::default();
        look::queue(state, state.waiting())
            .for_each(|(job, priority)| backlog.add(job, priority, now));
        let mut looks = Looks::default();
        if reserve.is_on() {
            looks.want(now);
        }
        Self {
            view: view_of(state),
            backlog,
            asks: VecDeque::new(),
            in_flight: 0,
            claims: 0,
            policy,
            offers: Offers::default(),
            hopeless: Hopeless::default(),
            holds: Holds::new(reserve),
            looks,
            preempting: Preempting::default(),
        }
    }

    /// The fleet as the office knows it, with what is promised to batches under way.
    pub fn view(&self) -> &View {
        &self.view
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Waiting jobs that have a reservation, and the claim in the view that is held for each.
    pub fn holds(&self) -> impl Iterator<Item = (JobId, u64)> {
        self.holds.iter().map(|held| (held.job, held.claim))
    }

    /// Batches under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// When a round may have something to do without further news; `None` = not before.
    pub fn next_at(&self, now: TimeMs) -> Option<TimeMs> {
        match (self.has_room(), self.asks.is_empty()) {
            (false, _) => None,
            (true, false) => Some(now),
            (true, true) => {
                [self.backlog.next_at(now), self.looks.next_at()].into_iter().flatten().min()
            }
        }
    }

    fn has_room(&self) -> bool {
        self.in_flight < BATCHES_IN_FLIGHT_MAX
    }

    /// Jobs to decide in the next rounds.
    pub fn submit(&mut self, asks: impl IntoIterator<Item = Ask<T>>) {
        self.asks.extend(asks);
    }

    /// The term is over: the tickets of those whose submission no batch has taken along.
    pub fn close(self) -> impl Iterator<Item = T> {
        self.asks.into_iter().map(|ask| ask.ticket)
    }

    /// Takes in what became of a batch. What it left in the state is only noted: `notes` must be
    /// taken in before anything is planned, since its claims are gone.
    pub fn take_back(&mut self, batch: Returned<T>, notes: &mut Notes, now: TimeMs) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.view.unclaim(batch.claim);
        batch.nodes.into_iter().for_each(|node| notes.nodes.push(node));
        for ask in batch.again.into_iter().rev() {
            self.asks.push_front(ask);
        }
        if self.holds.rules.is_on() && !batch.waiting.is_empty() {
            self.looks.want(now.after(self.holds.rules.after));
        }
        for (job, priority, growth) in batch.waiting {
            match growth {
                Some(growth) => self.backlog.add_tried(job, priority, growth, now),
                None => self.backlog.add(job, priority, now),
            }
        }
        if !self.backlog.is_empty() && !batch.placed.is_empty() {
            batch.placed.into_iter().for_each(|job| self.holds.note_start(job));
            self.look_for_more(now);
        }
        self.preempting.came_back(&batch.victims);
        for (job, accepted) in batch.commits {
            self.backlog.came_back(job, accepted, now);
            match accepted {
                true => {
                    self.end_reservation(job);
                    self.holds.note_start(job);
                }
                false => self.holds.was_refused(job),
            }
        }
        if batch.freed {
            self.grew();
        }
    }

    /// Something grew or started: a job for which no time was known may get a reservation now.
    fn look_for_more(&mut self, now: TimeMs) {
        if self.backlog.highest().is_some_and(|highest| self.holds.place_for(highest).is_some()) {
            self.looks.want(now);
        }
    }

    fn grew(&mut self) {
        self.backlog.grew();
        self.hopeless.clear();
        self.preempting.grew();
    }

    /// Reads what changed.
    pub fn take_in<S: Shell<Ticket = T>>(&mut self, shell: &S, mut notes: Notes) {
        let now = shell.now();
        let (view, backlog) = (&mut self.view, &mut self.backlog);
        if notes.everything {
            shell.look(|state| {
                *view = view_of(state);
                look::queue(state, state.waiting())
                    .for_each(|(job, priority)| backlog.add(job, priority, now));
            });
        }
        if notes.sites {
            shell.look(|state| view.refresh_sites(state));
        }
        let nodes: Vec<NodeId> = notes.nodes.take();
        for slice in nodes.chunks(REFRESH_SLICE) {
            shell.look(|state| view.refresh(state, slice));
        }
        if self.holds.note_nodes(view, &nodes) {
            self.looks.want(now);
        }
        for slice in notes.waiting.take().chunks(REFRESH_SLICE) {
            shell.look(|state| {
                look::queue(state, slice.iter().copied())
                    .for_each(|(job, priority)| backlog.add(job, priority, now));
            });
        }
        if notes.grew || notes.sites || notes.everything {
            self.grew();
            self.look_for_more(now);
            let due = self.holds.due(shell.clock());
            due.for_each(|job| self.backlog.hurry(job, now));
        }
    }

    /// Takes in what the state shows and nobody has told yet; whether there was something. Nobody
    /// is told "no" for a node that has just been acknowledged.
    pub fn catch_up<S: Shell<Ticket = T>>(&mut self, shell: &mut S) -> bool {
        let notes = shell.news();
        let news = !notes.is_empty();
        self.take_in(shell, notes);
        news
    }

    /// One round: tries waiting jobs, decides new ones, and sends what comes of it; nothing while
    /// enough is under way.
    pub fn round<S: Shell<Ticket = T>>(&mut self, shell: &mut S) {
        if !self.has_room() {
            return;
        }
        let mut batch = self.new_batch();
        self.try_waiting(shell, &mut batch);
        self.reserve(shell, &batch);
        self.decide(shell, &mut batch);
        self.hold_all();
        self.send(shell, batch);
    }

    /// Nothing is lifted any more.
    fn hold_all(&mut self) {
        self.holds.lift(&mut self.view, Lifted::NONE);
    }

    fn new_claim(&mut self) -> u64 {
        self.claims += 1;
        self.claims
    }

    fn new_batch(&mut self) -> Batch<T> {
        Batch::new(self.new_claim())
    }

    fn send<S: Shell<Ticket = T>>(&mut self, shell: &mut S, batch: Batch<T>) {
        if !batch.is_empty() {
            self.in_flight += 1;
            shell.send(batch);
        }
    }

    /// Sends the batch when it is full and goes on with a new one.
    fn send_full<S: Shell<Ticket = T>>(&mut self, shell: &mut S, batch: &mut Batch<T>) {
        if batch.is_full() {
            let next = self.new_batch();
            self.send(shell, std::mem::replace(batch, next));
        }
    }

    /// Tries waiting jobs in the order of the queue, within bounds.
    fn try_waiting<S: Shell<Ticket = T>>(&mut self, shell: &mut S, batch: &mut Batch<T>) {
        let start_us = shell.work_us();
        let mut tries = 0;
        while tries < TRIES_PER_ROUND && shell.work_us().saturating_sub(start_us) < TRIES_TIME_US {
            let Some(job) = self.backlog.next(shell.now()) else { return };
            tries += 1;
            self.try_one(shell, job, batch);
            self.send_full(shell, batch);
        }
    }

    fn try_one<S: Shell<Ticket = T>>(&mut self, shell: &mut S, job: JobId, batch: &mut Batch<T>) {
        let now = shell.now();
        let Some(wait) = shell.look(|state| look::waiting(state, job)) else {
            self.end_reservation(job);
            return self.backlog.remove(job);
        };
        if let Some(reason) = self.wait_for_begin(shell, &wait.job) {
            return self.tell_waiting(shell, &wait.job, reason, batch);
        }
        match self.find_waiting(shell, &wait) {
            Ok(plan) => {
                self.claim(shell, batch, &wait.job.spec, &plan);
                self.backlog.sent(job);
                self.holds.sent(job);
                batch.commit(job, plan, shell.clock());
            }
            Err(reason) => {
                let preempted = self.preempt(shell, &wait, &reason, batch);
                if preempted == Preempted::Sent {
                    return;
                }
                self.backlog.in_vain(job, now);
                if let Preempted::Later(at) = preempted {
                    self.backlog.try_again(job, at);
                }
                self.tell_waiting(shell, &wait.job, reason, batch);
            }
        }
    }

    /// Says why the job waits, if that is news.
    fn tell_waiting<S>(&mut self, shell: &S, job: &Job, reason: Reason, batch: &mut Batch<T>)
    where
        S: Shell<Ticket = T>,
    {
        let now = shell.now();
        let reason = preempt::told_still(&job.reason, reason);
        let news = job.reason.code != reason.code;
        let every = if news { DurationMs::ZERO } else { TELL_EVERY };
        if news && self.holds.rules.is_on() {
            self.looks.want(now);
        }
        if self.backlog.tell(job.id, every, now, || job.reason != reason) {
            batch.tell(job.id, reason, shell.clock());
        }
    }

    /// Lets a job sleep that is not to begin yet; the reason that it waits for then.
    fn wait_for_begin<S: Shell>(&mut self, shell: &S, job: &Job) -> Option<Reason> {
        let clock = shell.clock();
        let begin = job.spec.begin.filter(|_| job.phase == JobPhase::Pending)?;
        let reason = look::too_early(&job.spec, clock)?;
        let left = begin.since(clock).min(SLEEP_MAX);
        self.backlog.sleep(job.id, shell.now().after(left));
        Some(reason)
    }

    fn find_waiting<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        wait: &Waiting,
    ) -> Result<Plan, Reason> {
        if let Some(reason) = &wait.over_quota {
            return Err(reason.clone());
        }
        let lifted = self.lift_for_waiting(shell, wait);
        let (spec, job) = (&wait.job.spec, wait.job.id);
        let is_usual = wait.is_whole() && self.holds.of(job).is_none();
        let hopeless = &mut self.hopeless;
        let kind = is_usual.then(|| self.backlog.kind(job, spec, || hopeless.kind(spec))).flatten();
        if let Some(why) = kind.and_then(|kind| hopeless.why(kind, lifted)) {
            return Err(why.clone());
        }
        let found = shell.plan(&self.view, &wait.request(), self.policy);
        let found = found.map_err(|no| self.holds.tell(no.to_reason(), Some(job), lifted));
        if let (Err(why), Some(kind)) = (&found, kind) {
            self.hopeless.note(kind, lifted, why);
        }
        found
    }

    /// Lifts the holds that a waiting job need not mind; a repair minds none.
    fn lift_for_waiting<S: Shell>(&mut self, shell: &S, wait: &Waiting) -> Lifted {
        if self.holds.is_empty() {
            return Lifted::NONE;
        }
        let lifted = match (wait.is_repair, wait.is_whole()) {
            (true, _) => {
                self.holds.doubt();
                self.looks.want(shell.now());
                Lifted::ALL
            }
            (false, true) => {
                let (spec, own) = (&wait.job.spec, Some(wait.job.id));
                self.holds.lifted(own, spec.priority, end_of(spec, shell.clock()))
            }
            (false, false) => Lifted::NONE,
        };
        self.holds.lift(&mut self.view, lifted);
        lifted
    }

    /// Lifts the holds that a new job need not mind: those that begin when it has ended, and those of
    /// jobs that it goes before.
    fn lift_for_new<S: Shell>(&mut self, shell: &S, spec: &JobSpec) -> Lifted {
        if self.holds.is_empty() {
            return Lifted::NONE;
        }
        let lifted = self.holds.lifted(None, spec.priority, end_of(spec, shell.clock()));
        self.holds.lift(&mut self.view, lifted);
        lifted
    }

    /// Claims what a plan takes, be it held for jobs that its own goes before.
    fn claim<S>(&mut self, shell: &S, batch: &Batch<T>, spec: &JobSpec, plan: &Plan)
    where
        S: Shell<Ticket = T>,
    {
        self.view.claim(batch.claim(), spec, plan);
        self.doubt_below(shell, spec.priority, plan);
    }

    /// A job of the priority takes this, or will.
    fn doubt_below<S: Shell>(&mut self, shell: &S, priority: Priority, plan: &Plan) {
        if self.holds.doubt_below(priority, plan) {
            self.looks.want(shell.now());
        }
    }
}

/// Whether so many jobs are worth a batch now while so many batches are under way; else they wait
/// for more, or until the oldest of them has waited for [`LINGER`].
pub fn is_ripe(asks: usize, in_flight: usize) -> bool {
    in_flight == 0 || asks >= BATCH_JOBS_GOOD
}

/// The fleet, and what the jobs known so far say of those to come.
fn view_of(state: &State) -> View {
    let mut view = View::new(state);
    view.learn(state);
    view
}

#[cfg(test)]
mod tests;
