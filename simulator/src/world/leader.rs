//! The leader of one term: what a server's leader loop does, run under virtual time.
//!
//! The only file of the world that uses `scheduler_core::duty`. The planning is that of
//! `duty::office`, leases are `duty::leases`, jobs end by `duty::expiry`; what is here is when each
//! of them has its turn.
//! **Invariant:** decides nothing by itself.

use super::rules::Rules;
use super::servers::Servers;
use crate::observe::{Observer, Seen};
use crate::scenario::Scenario;
use scheduler_core::command::{Actor, Command, Entry, Outcome, Plan, Rejection};
use scheduler_core::duty::expiry;
use scheduler_core::duty::leases::{Closed, Heard, Held, Instance, Leases};
use scheduler_core::duty::office::{
    self, Answer, Ask, Batch, Notes, Office, Sent, Shell, Submission,
};
use scheduler_core::duty::timing::Timing;
use scheduler_core::event::Event;
use scheduler_core::id::{Epoch, NodeId, TenantId};
use scheduler_core::plan::{Policy, Request, Unplaceable};
use scheduler_core::state::{RETENTION, State};
use scheduler_core::unit::{DurationMs, TimeMs};
use scheduler_core::view::View;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant as WallClock;

/// The planner's time is counted in nanoseconds, the world's in milliseconds.
const NS_PER_MS: u64 = 1_000_000;
/// How often duties look whether something is due.
const TICK: DurationMs = DurationMs(250);

/// What a leader looks at while it plans, and what it says meanwhile.
pub(super) struct Desk<'a> {
    /// When the round began, also by the leader's wall clock.
    pub(super) now: TimeMs,
    pub(super) clock: TimeMs,
    /// When the planner is done with all before this round and what it has done of it.
    pub(super) done_ns: u64,
    pub(super) state: &'a State,
    pub(super) scenario: &'a Scenario,
    pub(super) tenant: &'a TenantId,
    pub(super) rules: &'a mut dyn Rules,
    pub(super) observer: &'a mut dyn Observer,
    /// What the planner says, and when.
    pub(super) said: Vec<(TimeMs, Said)>,
}

/// What comes of planning.
#[derive(Debug)]
pub(super) enum Said {
    /// To be proposed.
    Batch(Batch<usize>),
    /// To an arrival, by its position in the scenario.
    Answer(usize, Answer),
}

impl Shell for Desk<'_> {
    /// Position in the scenario's arrivals.
    type Ticket = usize;

    fn look<R>(&self, at: impl FnOnce(&State) -> R) -> R {
        at(self.state)
    }

    /// The leader hears of everything before its round begins, and nothing changes in a round.
    fn news(&mut self) -> Notes {
        Notes::default()
    }

    fn now(&self) -> TimeMs {
        TimeMs(self.done_ns / NS_PER_MS)
    }

    fn work_us(&self) -> u64 {
        self.done_ns / 1_000
    }

    fn clock(&self) -> TimeMs {
        self.clock.after(Shell::now(self).since(self.now))
    }

    fn token(&mut self) -> u128 {
        0
    }

    fn is_gone(&self, _arrival: &usize) -> bool {
        false
    }

    fn answer(&mut self, arrival: usize, answer: Answer) {
        self.said.push((Shell::now(self), Said::Answer(arrival, answer)));
    }

    fn send(&mut self, batch: Batch<usize>) {
        self.said.push((Shell::now(self), Said::Batch(batch)));
    }

    fn plan(
        &mut self,
        view: &View,
        request: &Request<'_>,
        policy: Policy,
    ) -> Result<Plan, Unplaceable> {
        let begun = self.observer.is_timed().then(WallClock::now);
        let found = self.rules.plan(view, request, &policy, self.scenario.budget);
        let took = begun.map(|begun| begun.elapsed().as_nanos());
        let took_ns = took.map(|nanos| u64::try_from(nanos).unwrap_or(u64::MAX));
        let placed = found.as_ref().ok().map(|plan| plan.placements.len());
        let cost_ns = self.scenario.planner.cost_ns(placed, self.scenario.nodes.len());
        self.done_ns = self.done_ns.saturating_add(cost_ns);
        self.observer.saw(self.now, Seen::Planned { placed: found.is_ok(), took_ns }, self.state);
        found
    }
}

impl Desk<'_> {
    fn ask(&self, arrival: usize) -> Option<Ask<usize>> {
        let asked = self.scenario.arrivals.get(arrival)?;
        let named = asked.nature.as_ref().and_then(|nature| nature.tenant.as_ref());
        let submission = Submission {
            tenant: named.unwrap_or(self.tenant).clone(),
            by: Actor::System,
            request_id: format!("arrival-{arrival}").into(),
            body_digest: arrival as u128,
            spec: Arc::clone(&asked.spec),
            check: None,
        };
        Some(Ask::new(submission, arrival))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Leader {
    office: Office<usize>,
    leases: Leases<()>,
    /// Arrivals that wait for others, to fill a batch.
    asks: VecDeque<usize>,
    /// They wait until then.
    linger: Option<TimeMs>,
    /// What changed since the last round.
    notes: Notes,
    /// Whether something of it is worth a round.
    has_news: bool,
    /// When jobs ended that are still remembered, oldest first.
    ended: VecDeque<TimeMs>,
    duty_in_flight: bool,
    /// When the planner is done with all that it was given.
    done_ns: u64,
}

impl Leader {
    /// A leader who continues every waiting job.
    pub(super) fn new(state: &State, scenario: &Scenario, now: TimeMs) -> Self {
        let mut ended: Vec<TimeMs> =
            state.jobs_after(None).filter_map(|job| job.ended_at).collect();
        ended.sort_unstable();
        Self {
            office: Office::new(state, scenario.policy, scenario.reserve, now),
            leases: Leases::of_silent(Timing::new(scenario.servers.lease), now),
            asks: VecDeque::new(),
            linger: None,
            notes: Notes::default(),
            has_news: false,
            ended: ended.into(),
            duty_in_flight: false,
            done_ns: now.0.saturating_mul(NS_PER_MS),
        }
    }

    /// Takes in what an entry changed.
    pub(super) fn note(&mut self, event: Event) {
        let matters =
            matches!(event, Event::JobWaiting(_) | Event::CapacityGrew | Event::SitesChanged);
        self.has_news |= matters;
        self.notes.take_in(event);
    }

    /// A job ended.
    pub(super) fn note_end(&mut self, at: TimeMs) {
        self.ended.push_back(at);
    }

    pub(super) fn submit(&mut self, arrival: usize) {
        self.asks.push_back(arrival);
    }

    /// The leader dies: arrivals that no batch has taken along.
    pub(super) fn close(self) -> impl Iterator<Item = usize> {
        self.office.close().chain(self.asks)
    }

    /// When the next round is due; `None` = when something happens.
    pub(super) fn round_at(&mut self, now: TimeMs) -> Option<TimeMs> {
        if self.office.in_flight() >= office::BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        let asks = match self.asks.len() {
            0 => None,
            some if office::is_ripe(some, self.office.in_flight()) => Some(now),
            _ => Some(*self.linger.get_or_insert(now.after(office::LINGER))),
        };
        let news = self.has_news.then_some(now);
        let at = [asks, news, self.office.next_at(now)].into_iter().flatten().min()?;
        Some(at.max(TimeMs(self.done_ns / NS_PER_MS)))
    }

    /// Takes in what changed, tries waiting jobs, plans new ones. Gives the nanoseconds that it took.
    pub(super) fn round(&mut self, desk: &mut Desk<'_>) -> u64 {
        (self.linger, self.has_news) = (None, false);
        desk.done_ns = self.done_ns.max(desk.now.0.saturating_mul(NS_PER_MS));
        let begun_ns = desk.done_ns;
        self.office.take_in(desk, std::mem::take(&mut self.notes));
        let some = self.asks.len().min(office::BATCH_JOBS_MAX);
        self.office.submit(self.asks.drain(..some).filter_map(|arrival| desk.ask(arrival)));
        self.office.round(desk);
        self.done_ns = desk.done_ns;
        self.done_ns - begun_ns
    }

    /// Takes back a batch that was committed as the record `index`; gives the answers to callers.
    pub(super) fn returned(
        &mut self,
        sent: Sent<usize>,
        results: Vec<Result<Outcome, Rejection>>,
        index: u64,
        now: TimeMs,
    ) -> Vec<(usize, Answer)> {
        let mut answers = Vec::new();
        let back = sent.applied(results, index, |arrival, answer| answers.push((arrival, answer)));
        self.office.take_back(back, &mut self.notes, now);
        answers
    }

    /// Nothing of this session of the node was heard after `since`.
    pub(super) fn fell_silent(&mut self, node: NodeId, epoch: Epoch, since: TimeMs) {
        self.leases.fell_silent(node, epoch, since);
    }

    /// The node is in session; whether that session still holds.
    pub(super) fn heard(&mut self, heard: Heard, now: TimeMs) -> bool {
        self.leases.heard((), &[heard], &[], now).is_empty()
    }

    /// A session of the node is over; its agent may come back.
    pub(super) fn closed(&mut self, closed: Closed, now: TimeMs) {
        self.leases.heard((), &[], &[closed], now);
    }

    /// Several machines may have the identity of this node.
    pub(super) fn watch(&mut self, node: NodeId, epoch: Epoch, now: TimeMs) {
        self.leases.watch(node, epoch, now);
    }

    /// Only one machine is left with the identity of this node.
    pub(super) fn unwatch(&mut self, node: NodeId) {
        self.leases.unwatch(node);
    }

    /// # Errors
    /// Another process of the same identity is alive.
    pub(super) fn may_join(
        &self,
        node: NodeId,
        instance: Instance,
        now: TimeMs,
    ) -> Result<(), Held> {
        self.leases.may_join(node, instance, now)
    }

    pub(super) fn joined(&mut self, node: NodeId, epoch: Epoch, instance: Instance, now: TimeMs) {
        self.leases.joined(node, epoch, instance, now);
    }

    /// When duties have something to do, to the tick; `None` = when something happens. `servers`
    /// know when the leader's clock shows what.
    pub(super) fn duty_at(&self, state: &State, servers: &Servers) -> Option<TimeMs> {
        if self.duty_in_flight {
            return None;
        }
        let expiry = state.endings().next().map(|(at, _)| at);
        let forget = self.ended.front().map(|at| at.after(RETENTION));
        let by_clock = expiry.into_iter().chain(forget).min();
        let by_clock = by_clock.map(|shown| servers.when_leader_shows(shown));
        let due = self.leases.due_at().into_iter().chain(by_clock).min()?;
        Some(TimeMs(due.0.div_ceil(TICK.0).saturating_mul(TICK.0)))
    }

    /// What is due; one duty's proposal is under way at a time. `clock` is the leader's wall clock.
    pub(super) fn duties(&mut self, state: &State, now: TimeMs, clock: TimeMs) -> Vec<Entry> {
        let lost = self.leases.due(now, state);
        let lost = (!lost.is_empty()).then_some(Command::NodeStatuses(lost));
        let expire = expiry::next(state, clock);
        if let Some(Command::Expire { forget, .. }) = &expire {
            self.ended.drain(..forget.len().min(self.ended.len()));
        } else if self.ended.front().is_some_and(|at| at.after(RETENTION) <= clock) {
            // Forgotten before, by an earlier leader.
            self.ended.pop_front();
        }
        let commands = lost.into_iter().chain(expire);
        let entries: Vec<Entry> = commands.map(|command| system(clock, command)).collect();
        self.duty_in_flight = !entries.is_empty();
        entries
    }

    pub(super) fn duty_done(&mut self) {
        self.duty_in_flight = false;
    }
}

/// Lengths that agents are told of, for a fleet of so many nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) lease: DurationMs,
    pub(super) heartbeat: DurationMs,
    pub(super) digest: DurationMs,
    /// Without a leader for so long, servers send their agents away.
    pub(super) cut_off: DurationMs,
}

impl Lengths {
    pub(super) fn new(scenario: &Scenario, fleet: u32) -> Self {
        let timing = Timing::new(scenario.servers.lease);
        let (lease, heartbeat) = (timing.lease(fleet), timing.heartbeat(fleet));
        Self { lease, heartbeat, digest: timing.digest(), cut_off: timing.cut_off(fleet) }
    }
}

fn system(at: TimeMs, command: Command) -> Entry {
    Entry { at, by: Actor::System, command }
}
