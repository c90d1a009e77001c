//! The leader of one term: plans what comes and what waits, and does the duties.
//!
//! The only file of the world that uses `scheduler_core::duty` and the planner.
//! **Invariant:** decides nothing by itself: jobs wait by `duty::backlog`, nodes are lost by
//! `duty::leases`, jobs end by `duty::expiry`, places come from `plan`.

use super::rules::Rules;
use crate::observe::{Observer, Seen};
use crate::scenario::Scenario;
use scheduler_core::command::{Actor, Command, Commit, Entry, Outcome, Plan, Rejection, Submit};
use scheduler_core::duty::backlog::Backlog;
use scheduler_core::duty::expiry;
use scheduler_core::duty::leases::{Heard, Instance, Leases};
use scheduler_core::duty::timing::Timing;
use scheduler_core::event::Event;
use scheduler_core::fit::Around;
use scheduler_core::id::{Epoch, JobId, NodeId, Rank, TenantId};
use scheduler_core::job::{Job, JobSpec, Reason, ReasonCode};
use scheduler_core::plan::{Ranks, Request, Unplaceable};
use scheduler_core::state::{RETENTION, State};
use scheduler_core::unit::{DurationMs, TimeMs};
use scheduler_core::view::View;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant as WallClock;

/// Waiting jobs tried in one round: new jobs must not wait behind a long backlog.
const TRIES_PER_ROUND: usize = 64;
/// A plan that went stale this often is given up; the job then waits.
const STALE_MAX: u8 = 3;
/// A batch is sent once it has this many jobs or its plans this many placements.
const BATCH_JOBS_MAX: usize = 512;
const BATCH_PLACEMENTS_MAX: usize = 1_024;
/// Batches under way at a time.
const BATCHES_IN_FLIGHT_MAX: usize = 4;
/// While batches are under way, a new one waits for this many jobs, but not longer than `LINGER`.
const BATCH_JOBS_GOOD: usize = 64;
const LINGER: DurationMs = DurationMs(1);
/// A waiting job's reason is told again at most this often, unless its code changes.
const TELL_EVERY: DurationMs = DurationMs(10_000);
/// How often duties look whether something is due.
const TICK: DurationMs = DurationMs(250);

/// Every session of the world is of the only process that the machine ever ran.
const INSTANCE: Instance = Instance([0; 16]);

/// A job that is to be accepted.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// Position in the scenario's arrivals.
    pub(super) arrival: usize,
    stale: u8,
    pending: Option<Reason>,
}

impl Ask {
    pub(super) fn new(arrival: usize) -> Self {
        Self { arrival, stale: 0, pending: None }
    }
}

/// What one entry of a batch is about.
#[derive(Clone, Debug)]
enum Item {
    /// `growth`: as of which growth of capacity it was found not to fit.
    Submit {
        ask: Ask,
        planned: bool,
        growth: Option<u64>,
    },
    Commit(JobId),
    Tell,
}

/// Entries that go into one log record.
#[derive(Debug)]
pub(super) struct Batch {
    claim: u64,
    pub(super) entries: Vec<Entry>,
    items: Vec<Item>,
    nodes: Vec<NodeId>,
    placements: usize,
}

/// What came of a submission, for its caller.
#[derive(Debug)]
pub(super) enum Answer {
    Accepted { arrival: usize, job: JobId },
    Refused { arrival: usize, why: Rejection },
}

/// What a leader looks at while it works.
pub(super) struct Desk<'a> {
    pub(super) now: TimeMs,
    pub(super) state: &'a State,
    pub(super) scenario: &'a Scenario,
    pub(super) tenant: &'a TenantId,
    pub(super) rules: &'a mut dyn Rules,
    pub(super) observer: &'a mut dyn Observer,
}

impl Desk<'_> {
    fn tell(&mut self, seen: Seen<'_>) {
        self.observer.saw(self.now, seen, self.state);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Leader {
    view: View,
    backlog: Backlog,
    leases: Leases<()>,
    asks: VecDeque<Ask>,
    in_flight: usize,
    claims: u64,
    /// No round before this time, so that a batch fills up.
    linger: Option<TimeMs>,
    /// What changed since the last round.
    nodes: Vec<NodeId>,
    waiting: Vec<JobId>,
    grew: bool,
    sites: bool,
    /// Specs found not to fit since capacity last grew: equal jobs need not be tried. Specs that
    /// look around are never here. By address, and kept so that no other takes the address.
    hopeless: BTreeMap<usize, (Arc<JobSpec>, Reason)>,
    /// When jobs ended that are still remembered, oldest first.
    ended: VecDeque<TimeMs>,
    duty_in_flight: bool,
}

impl Leader {
    /// A leader who continues every waiting job.
    pub(super) fn new(state: &State, scenario: &Scenario, now: TimeMs) -> Self {
        let mut view = View::new(state);
        view.learn(state);
        let mut backlog = Backlog::default();
        state.waiting().for_each(|job| backlog.add(job, now));
        let mut ended: Vec<TimeMs> =
            state.jobs_after(None).filter_map(|job| job.ended_at).collect();
        ended.sort_unstable();
        Self {
            view,
            backlog,
            leases: Leases::of_silent(Timing::new(scenario.servers.lease), now),
            asks: VecDeque::new(),
            in_flight: 0,
            claims: 0,
            linger: None,
            nodes: Vec::new(),
            waiting: Vec::new(),
            grew: false,
            sites: false,
            hopeless: BTreeMap::new(),
            ended: ended.into(),
            duty_in_flight: false,
        }
    }

    /// Takes in what an entry changed.
    pub(super) fn note(&mut self, event: Event) {
        match event {
            Event::NodeChanged(node) | Event::NodeWorkChanged(node) => self.nodes.push(node),
            Event::SitesChanged => self.sites = true,
            Event::JobWaiting(job) => self.waiting.push(job),
            Event::CapacityGrew => self.grew = true,
            Event::JobChanged(_) | Event::TenantsChanged => {}
        }
    }

    /// A job ended.
    pub(super) fn note_end(&mut self, at: TimeMs) {
        self.ended.push_back(at);
    }

    pub(super) fn submit(&mut self, ask: Ask) {
        self.asks.push_back(ask);
    }

    /// Jobs that this leader was asked to accept and did not yet propose.
    pub(super) fn take_asks(&mut self) -> impl Iterator<Item = Ask> {
        std::mem::take(&mut self.asks).into_iter()
    }

    /// When the next round is due; `None` = when something happens.
    pub(super) fn round_at(&mut self, now: TimeMs) -> Option<TimeMs> {
        if self.in_flight >= BATCHES_IN_FLIGHT_MAX {
            return None;
        }
        let asks = match self.asks.len() {
            0 => None,
            some if self.in_flight == 0 || some >= BATCH_JOBS_GOOD => Some(now),
            _ => Some(*self.linger.get_or_insert(now.after(LINGER))),
        };
        let news = (!self.waiting.is_empty() || self.grew || self.sites).then_some(now);
        [asks, news, self.backlog.next_at(now)].into_iter().flatten().min()
    }

    /// Takes in what changed, tries waiting jobs, plans new ones.
    pub(super) fn round(&mut self, desk: &mut Desk<'_>) -> Vec<Batch> {
        self.take_in(desk);
        let mut batches = vec![self.new_batch()];
        for _ in 0..TRIES_PER_ROUND {
            if self.is_busy(&batches) {
                break;
            }
            let Some(job) = self.backlog.next(1, desk.now).pop() else { break };
            self.try_one(job, desk, &mut batches);
        }
        self.linger = None;
        for _ in 0..BATCH_JOBS_MAX {
            if self.is_busy(&batches) {
                break;
            }
            let Some(ask) = self.asks.pop_front() else { break };
            self.plan_one(ask, desk, &mut batches);
        }
        batches.retain(|batch| !batch.entries.is_empty());
        self.in_flight += batches.len();
        batches
    }

    fn is_busy(&self, batches: &[Batch]) -> bool {
        self.in_flight + batches.len() > BATCHES_IN_FLIGHT_MAX
    }

    fn take_in(&mut self, desk: &Desk<'_>) {
        if std::mem::take(&mut self.sites) {
            self.view.refresh_sites(desk.state);
            self.grew = true;
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.sort_unstable();
        nodes.dedup();
        self.view.refresh(desk.state, &nodes);
        std::mem::take(&mut self.waiting).into_iter().for_each(|job| {
            self.backlog.add(job, desk.now);
        });
        if std::mem::take(&mut self.grew) {
            self.backlog.grew();
            self.hopeless.clear();
        }
    }

    fn new_batch(&mut self) -> Batch {
        self.claims += 1;
        let (entries, items, nodes) = (Vec::new(), Vec::new(), Vec::new());
        Batch { claim: self.claims, entries, items, nodes, placements: 0 }
    }

    /// The batch to put the next entry into.
    fn open_batch<'b>(&mut self, batches: &'b mut Vec<Batch>) -> &'b mut Batch {
        let full = |batch: &Batch| {
            batch.placements >= BATCH_PLACEMENTS_MAX || batch.items.len() >= BATCH_JOBS_MAX
        };
        if batches.last().is_none_or(full) {
            batches.push(self.new_batch());
        }
        let last = batches.len() - 1;
        &mut batches[last]
    }

    fn try_one(&mut self, id: JobId, desk: &mut Desk<'_>, batches: &mut Vec<Batch>) {
        let Some(wait) = Wait::of(desk.state, id) else { return self.backlog.remove(id) };
        let spec = Arc::clone(&wait.job.spec);
        let found = match over_quota(desk.state, &wait.job.tenant, wait.asked) {
            Some(reason) => Err(reason),
            None => self.place_waiting(&wait, desk),
        };
        match found {
            Ok(plan) => {
                let batch = self.open_batch(batches);
                batch.weigh(&plan);
                batch.entries.push(system(desk.now, Command::Commit(Commit { job: id, plan })));
                batch.items.push(Item::Commit(id));
                let (claim, entry) = (batch.claim, batch.entries.last());
                if let Some(Entry { command: Command::Commit(Commit { plan, .. }), .. }) = entry {
                    self.view.claim(claim, &spec, plan);
                }
                self.backlog.sent(id);
            }
            Err(reason) => {
                self.backlog.in_vain(id, desk.now);
                let news = wait.job.reason.code != reason.code;
                let every = if news { DurationMs::ZERO } else { TELL_EVERY };
                if wait.job.reason != reason && self.backlog.tell(id, every, desk.now) {
                    let batch = self.open_batch(batches);
                    let command = Command::SetReason { job: id, reason };
                    batch.entries.push(system(desk.now, command));
                    batch.items.push(Item::Tell);
                }
            }
        }
    }

    fn place_waiting(&mut self, wait: &Wait, desk: &mut Desk<'_>) -> Result<Plan, Reason> {
        let spec = &wait.job.spec;
        let key = Arc::as_ptr(spec).addr();
        let whole = wait.ranks.is_none();
        if let Some((_, reason)) = self.hopeless.get(&key).filter(|_| whole) {
            return Err(reason.clone());
        }
        let around = desk.state.around(&wait.job.tenant, spec, Some(wait.job.id));
        let ranks = wait.ranks.as_deref().map_or(Ranks::All, Ranks::Some);
        let request = Request { spec, ranks, fixed: &wait.fixed, avoid: &[], around: &around };
        let found = self.plan(&request, desk).map_err(|why| why.to_reason());
        if let Err(reason) = &found
            && whole
            && !spec.looks_around()
        {
            self.hopeless.insert(key, (Arc::clone(spec), reason.clone()));
        }
        found
    }

    fn plan_one(&mut self, mut ask: Ask, desk: &mut Desk<'_>, batches: &mut Vec<Batch>) {
        let Some(arrival) = desk.scenario.arrivals.get(ask.arrival) else { return };
        let spec = Arc::clone(&arrival.spec);
        let quota = || over_quota(desk.state, desk.tenant, spec.gpu_milli());
        let (plan, reason, growth) = match ask.pending.take().or_else(quota) {
            Some(reason) => (None, reason, None),
            None => {
                self.view.note_arrival(&spec);
                let around = match spec.looks_around() {
                    true => desk.state.around(desk.tenant, &spec, None),
                    false => Around::default(),
                };
                let request = Request { around: &around, ..Request::whole(&spec) };
                match self.plan(&request, desk) {
                    Ok(plan) => (Some(plan), Reason::default(), None),
                    Err(why) => (None, why.to_reason(), Some(self.backlog.growth())),
                }
            }
        };
        let batch = self.open_batch(batches);
        let planned = plan.is_some();
        if let Some(plan) = &plan {
            batch.weigh(plan);
            let claim = batch.claim;
            self.view.claim(claim, &spec, plan);
        }
        let submit = Submit {
            tenant: desk.tenant.clone(),
            request_id: format!("arrival-{}", ask.arrival).into(),
            body_digest: ask.arrival as u128,
            spec,
            token: 0,
            plan,
            reason,
        };
        batch.entries.push(system(desk.now, Command::Submit(submit)));
        batch.items.push(Item::Submit { ask, planned, growth });
    }

    fn plan(&self, request: &Request<'_>, desk: &mut Desk<'_>) -> Result<Plan, Unplaceable> {
        let (policy, budget) = (&desk.scenario.policy, desk.scenario.budget);
        let begun = desk.observer.is_timed().then(WallClock::now);
        let found = desk.rules.plan(&self.view, request, policy, budget);
        let took = begun.map(|begun| begun.elapsed().as_nanos());
        let took_ns = took.map(|nanos| u64::try_from(nanos).unwrap_or(u64::MAX));
        desk.tell(Seen::Planned { placed: found.is_ok(), took_ns });
        found
    }

    /// Takes back a batch that was committed; gives the answers to callers.
    pub(super) fn returned(
        &mut self,
        batch: Batch,
        results: Vec<Result<Outcome, Rejection>>,
        now: TimeMs,
    ) -> Vec<Answer> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.view.unclaim(batch.claim);
        self.nodes.extend(batch.nodes);
        let mut answers = Vec::new();
        for (item, result) in batch.items.into_iter().zip(results) {
            match (item, result) {
                (Item::Tell, _) => {}
                (Item::Commit(job), result) => {
                    self.backlog.came_back(job, result.is_ok(), now);
                }
                (Item::Submit { ask, growth, .. }, Ok(outcome)) => {
                    let Outcome::Submitted { job, known, placed } = outcome else { continue };
                    match growth {
                        _ if placed || known => {}
                        Some(growth) => self.backlog.add_tried(job, growth, now),
                        None => self.backlog.add(job, now),
                    }
                    answers.push(Answer::Accepted { arrival: ask.arrival, job });
                }
                (Item::Submit { ask, planned, .. }, Err(why)) => {
                    answers.extend(self.refused(ask, planned, why));
                }
            }
        }
        answers
    }

    /// A refused plan is not a refused job: it is planned again, and in the end it waits.
    fn refused(&mut self, mut ask: Ask, planned: bool, why: Rejection) -> Option<Answer> {
        let (code, message) = match why {
            Rejection::StalePlan { why } if planned => {
                ask.stale += 1;
                let message = format!("{STALE_MAX} plans went stale; the last because {why}");
                (ReasonCode::Contention, message)
            }
            Rejection::QuotaExceeded { why, .. } if planned => {
                ask.stale = STALE_MAX;
                (ReasonCode::Quota, why)
            }
            why => return Some(Answer::Refused { arrival: ask.arrival, why }),
        };
        if ask.stale >= STALE_MAX {
            ask.pending = Some(Reason { code, message: message.into() });
        }
        self.asks.push_front(ask);
        None
    }

    /// Submissions of a batch whose leader is gone: their callers will ask again.
    pub(super) fn asks_of(batch: Batch) -> impl Iterator<Item = Ask> {
        batch.items.into_iter().filter_map(|item| match item {
            Item::Submit { ask, .. } => Some(Ask::new(ask.arrival)),
            Item::Commit(_) | Item::Tell => None,
        })
    }

    /// Nothing of this session of the node was heard after `since`.
    pub(super) fn fell_silent(&mut self, node: NodeId, epoch: Epoch, since: TimeMs) {
        self.leases.fell_silent(node, epoch, since);
    }

    /// The node's session is open again; whether its lease still holds.
    pub(super) fn heard(&mut self, node: NodeId, epoch: Epoch, now: TimeMs) -> bool {
        let heard = Heard { node, epoch, instance: INSTANCE, age_ms: 0 };
        self.leases.heard((), &[heard], &[], now).is_empty()
    }

    pub(super) fn joined(&mut self, node: NodeId, epoch: Epoch, now: TimeMs) {
        self.leases.joined(node, epoch, INSTANCE, now);
    }

    /// When duties have something to do, to the tick; `None` = when something happens.
    pub(super) fn duty_at(&self, state: &State) -> Option<TimeMs> {
        if self.duty_in_flight {
            return None;
        }
        let expiry = state.endings().next().map(|(at, _)| at);
        let forget = self.ended.front().map(|at| at.after(RETENTION));
        let due = [self.leases.due_at(), expiry, forget].into_iter().flatten().min()?;
        Some(TimeMs(due.0.div_ceil(TICK.0).saturating_mul(TICK.0)))
    }

    /// What is due; one duty's proposal is under way at a time.
    pub(super) fn duties(&mut self, state: &State, now: TimeMs) -> Vec<Entry> {
        let lost = self.leases.due(now, state);
        let lost = (!lost.is_empty()).then_some(Command::NodeStatuses(lost));
        let expire = expiry::next(state, now);
        if let Some(Command::Expire { forget, .. }) = &expire {
            self.ended.drain(..forget.len().min(self.ended.len()));
        } else if self.ended.front().is_some_and(|at| at.after(RETENTION) <= now) {
            // Forgotten before, by an earlier leader.
            self.ended.pop_front();
        }
        let commands = lost.into_iter().chain(expire);
        let entries: Vec<Entry> = commands.map(|command| system(now, command)).collect();
        self.duty_in_flight = !entries.is_empty();
        entries
    }

    pub(super) fn duty_done(&mut self) {
        self.duty_in_flight = false;
    }
}

impl Batch {
    fn weigh(&mut self, plan: &Plan) {
        self.placements += plan.placements.len();
        self.nodes.extend(plan.placements.iter().map(|placement| placement.node));
    }
}

/// Lengths that agents are told of, for a fleet of so many nodes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub(super) lease: DurationMs,
    pub(super) heartbeat: DurationMs,
    pub(super) digest: DurationMs,
}

impl Lengths {
    pub(super) fn new(scenario: &Scenario, fleet: u32) -> Self {
        let timing = Timing::new(scenario.servers.lease);
        let (lease, heartbeat) = (timing.lease(fleet), timing.heartbeat(fleet));
        Self { lease, heartbeat, digest: timing.digest() }
    }
}

/// A waiting job with all that a plan for it needs.
struct Wait {
    job: Arc<Job>,
    /// Ranks to bind; `None` = all.
    ranks: Option<Vec<Rank>>,
    fixed: Vec<(Rank, NodeId)>,
    /// Thousandths of GPUs that are to be bound.
    asked: u64,
}

impl Wait {
    fn of(state: &State, id: JobId) -> Option<Self> {
        let job = state.job(id).filter(|job| !job.phase.is_over())?;
        let (mut ranks, mut fixed) = (Vec::new(), Vec::new());
        let mut asked = 0u64;
        for (rank, replica) in state.replicas(id) {
            if replica.phase.is_waiting() {
                ranks.push(rank);
                let group = job.spec.group_of(rank).and_then(|at| job.spec.groups.get(at));
                asked = asked.saturating_add(group.map_or(0, |group| group.shape.gpu_milli()));
            } else if let Some(held) = replica.allocation.filter(|_| replica.phase.is_live()) {
                fixed.push((rank, held.node));
            }
        }
        if ranks.is_empty() {
            return None;
        }
        let all = ranks.iter().copied().eq(job.spec.first_ranks());
        let ranks = (!all).then_some(ranks);
        Some(Self { job: Arc::clone(job), ranks, fixed, asked })
    }
}

/// Why the tenant may not hold this much more now; `None` = it may.
fn over_quota(state: &State, tenant: &TenantId, gpu_milli: u64) -> Option<Reason> {
    let tenant = state.tenant(tenant)?;
    let (held, max) = (tenant.gpu_milli_used, tenant.quota.gpu_milli_max);
    let over = held.saturating_add(gpu_milli) > max;
    let message = || format!("{held} thousandths of GPUs are held, {max} allowed").into();
    over.then(|| Reason { code: ReasonCode::Quota, message: message() })
}

fn system(at: TimeMs, command: Command) -> Entry {
    Entry { at, by: Actor::System, command }
}
