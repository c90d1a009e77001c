//! The world: what happens around a leader, under virtual time, and what comes of it.
//!
//! `arrivals` brings jobs and ends them, `log` is the way from a proposal to its being applied,
//! `leader` plans and does the duties, `machine` is one agent and `agents` the way to all of them,
//! `outage` is an agent without a server, `clones` are machines with one identity, `network` who
//! hears whom and how late, `faults` what goes wrong, `oracle` watches.
//! **Invariant:** the only way to change the state is `State::apply`; the only way to choose nodes
//! is `plan`. Nothing costs a step per node or per job and event: nodes that are heard cost
//! nothing, only silence does.

mod agents;
mod arrivals;
mod clones;
mod faults;
mod leader;
mod log;
mod machine;
mod network;
mod oracle;
mod outage;
mod rules;
mod servers;

pub use rules::{Production, Rules};

use crate::heap::Heap;
use crate::observe::{Observer, Seen};
use crate::scenario::Scenario;
use agent_core::reconcile::Wants;
use agent_core::replica::Binding;
use agents::Reports;
use arrivals::Arrivals;
use clones::Clones;
use leader::Leader;
use log::Log;
use machine::{Machine, Step};
use network::Network;
use oracle::Oracle;
use rand::SeedableRng;
use rand::rngs::StdRng;
use scheduler_core::command::{
    Actor, Command, Entry, Outcome, PutTenant, Quota, RegisterNode, Rejection, ReplicaReport,
};
use scheduler_core::duty::leases::{Closed, Heard};
use scheduler_core::event;
use scheduler_core::id::{Epoch, JobId, Name, NodeId, SupplierId, TenantId};
use scheduler_core::job::{JobPhase, Priority};
use scheduler_core::node::NodeStatus;
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, TimeMs};
use servers::Servers;
use std::collections::{BTreeMap, BTreeSet};

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Events taken off the heap.
    pub events: u64,
    /// Log records applied, and the entries in them.
    pub records: u64,
    pub entries: u64,
    pub jobs_submitted: u64,
    /// Arrivals refused for good.
    pub jobs_refused: u64,
    /// Placed in the entry that submitted them.
    pub jobs_placed_at_once: u64,
    /// Ready at some time.
    pub jobs_ready: u64,
    /// Ended, failed or expired at some time.
    pub jobs_over: u64,
    /// Of those, failed.
    pub jobs_failed: u64,
    /// Still waiting for their first place when the run ended.
    pub jobs_waiting: u64,
    /// Jobs that gave way to one of a higher priority, whole or in part; once for each time.
    pub jobs_preempted: u64,
    /// Nanoseconds of virtual time for which leaders planned.
    pub planner_ns: u64,
    /// The longest that a caller waited for the answer to its submission.
    pub answer_slowest: DurationMs,
    /// Plans that were refused because something had changed.
    pub plans_stale: u64,
    /// Starts that failed, as the agents told.
    pub starts_failed: u64,
    /// Machines that were kept out because another one of their identity lives, each time anew.
    pub joins_held: u64,
    /// Nodes that another machine of their identity took over, each time anew.
    pub nodes_taken_over: u64,
    /// Agents whose lease ended, each time anew: they stopped all that they ran.
    pub agents_fenced: u64,
    /// Times that a leader was lost.
    pub leaders_lost: u64,
    /// Most thousandths of GPUs held at one time.
    pub gpu_milli_peak: u64,
    /// Thousandths of GPUs held when the run ended.
    pub gpu_milli_held: u64,
    /// Hash of the last state.
    pub state_hash: u128,
    /// Virtual time of the last thing that an observer was told, or at which the run was cut short.
    /// That jobs long over are forgotten later does not count.
    pub ended_at: TimeMs,
}

/// The oracle found something wrong.
#[derive(Clone, Debug, thiserror::Error)]
#[error("seed {seed}, event {event} at {at_ms} ms: {what}; run again with: {replay}")]
pub struct Violation {
    pub seed: u64,
    pub event: u64,
    pub at_ms: u64,
    pub what: String,
    /// A command that does the same again.
    pub replay: String,
}

/// What a step of the world is about.
#[derive(Clone, Debug)]
enum Turn {
    /// The next arrivals are due.
    Arrive,
    /// A tenant ends its job.
    Leave(JobId),
    /// Something of the scenario's list.
    Happen(usize),
    /// The oldest proposal under way is committed.
    Commit,
    /// The leader has something to plan.
    Round,
    /// The leader's planner has got so far as to say something.
    Say,
    Duty,
    /// Another server leads.
    Elect,
    /// Nobody has led since this many leaders were lost: the servers send their agents away.
    SendAway {
        leaders_lost: u64,
    },
    /// What the machine should run reaches it; `None` = its session is over.
    Told {
        machine: usize,
        era: u32,
        wanted: Option<Wants<Binding>>,
    },
    Step {
        machine: usize,
        life: u32,
        step: Step,
    },
    /// A report reaches the servers.
    Report(ReplicaReport),
    /// Reports that waited for others go into the log.
    Flush,
    /// Registrations that came at one time go into the log.
    Join,
    /// The agent tries to reach a server.
    Connect {
        machine: usize,
        era: u32,
    },
    /// The lease of an agent that hears nothing ends.
    Fence {
        machine: usize,
        era: u32,
    },
    /// An agent whose identity others have sends a heartbeat.
    Beat {
        machine: usize,
        era: u32,
    },
    /// The leader hears of such a heartbeat.
    Counted {
        machine: usize,
        era: u32,
        sent: TimeMs,
        heard: Heard,
    },
    /// The leader hears of the end of such an agent's session.
    Closed {
        machine: usize,
        era: u32,
        closed: Closed,
    },
    /// Of several machines of an identity one joined in this epoch, a lease ago.
    Alone {
        identity: usize,
        epoch: Epoch,
    },
    /// A clone is switched off.
    Retire {
        machine: usize,
    },
    /// The machine is switched on again.
    Restore {
        machine: usize,
        life: u32,
    },
}

/// Generators of their own for what is independent, so that a change to one leaves the others.
struct Dice {
    commit: StdRng,
    start: StdRng,
    network: StdRng,
    servers: StdRng,
    faults: StdRng,
    work: StdRng,
}

impl Dice {
    fn new(seed: u64) -> Self {
        let of = |part: u64| StdRng::seed_from_u64(seed ^ (part << 56));
        Self {
            commit: of(1),
            start: of(2),
            network: of(3),
            servers: of(4),
            faults: of(5),
            work: of(6),
        }
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    observer: &'a mut dyn Observer,
    rules: &'a mut dyn Rules,
    tenant: TenantId,
    supplier: SupplierId,
    heap: Heap<Turn>,
    dice: Dice,
    state: State,
    /// `None` while there is none.
    leader: Option<Leader>,
    servers: Servers,
    log: Log,
    arrivals: Arrivals,
    /// Those of the scenario in its order, then clones.
    machines: Vec<Machine>,
    clones: Clones,
    /// Positions of machines by node id.
    by_node: Vec<Option<usize>>,
    /// What suppliers say of their machines where it is not what the scenario says.
    declared: BTreeMap<usize, scheduler_core::node::NodeSpec>,
    network: Network,
    reports: Reports,
    oracle: Oracle,
    /// The earliest round and duty on the heap, so that none is there twice.
    round_at: Option<TimeMs>,
    duty_at: Option<TimeMs>,
    /// Phase of every job that is not over, and whether it was ever ready.
    phases: BTreeMap<JobId, (JobPhase, bool)>,
    up: Vec<bool>,
    report: Report,
}

/// Runs a scenario to its end.
///
/// # Errors
/// The first thing that the oracle finds wrong.
pub fn run(scenario: &Scenario, observer: &mut dyn Observer) -> Result<Report, Violation> {
    run_by(scenario, observer, &mut Production)
}

/// As [`run`], by rules that a test has changed.
///
/// # Errors
/// The first thing that the oracle finds wrong.
pub fn run_by(
    scenario: &Scenario,
    observer: &mut dyn Observer,
    rules: &mut dyn Rules,
) -> Result<Report, Violation> {
    let mut world = World::new(scenario, observer, rules)?;
    let check_every = scenario.check_every.max(1);
    while let Some(at) = world.heap.next_at() {
        if scenario.until.is_some_and(|until| at > until) {
            break;
        }
        let Some((_, turn)) = world.heap.pop() else { break };
        world.report.events += 1;
        world.rules.begin_event(world.report.events);
        world.turn(turn)?;
        world.plan_next();
        if world.report.events.is_multiple_of(check_every) {
            world.check()?;
        }
        if world.observer.stops() {
            break;
        }
    }
    world.check()?;
    world.finish()
}

fn name(text: &str) -> Result<Name, Violation> {
    Name::parse(text).map_err(|error| Violation {
        seed: 0,
        event: 0,
        at_ms: 0,
        what: format!("{text:?} {error}"),
        replay: String::new(),
    })
}

impl<'a> World<'a> {
    fn new(
        scenario: &'a Scenario,
        observer: &'a mut dyn Observer,
        rules: &'a mut dyn Rules,
    ) -> Result<Self, Violation> {
        let machines = scenario.nodes.iter().enumerate();
        let machines = machines.map(|(at, node)| Machine::new(at, node.gpus.len()));
        let mut world = Self {
            scenario,
            observer,
            rules,
            tenant: TenantId(name("load")?),
            supplier: SupplierId(name("fleet")?),
            heap: Heap::default(),
            dice: Dice::new(scenario.seed),
            state: State::new(),
            leader: None,
            servers: Servers::new(scenario),
            log: Log::default(),
            arrivals: Arrivals::new(scenario),
            machines: machines.collect(),
            clones: Clones::default(),
            by_node: Vec::new(),
            declared: BTreeMap::new(),
            network: Network::new(scenario),
            reports: Reports::default(),
            oracle: Oracle::default(),
            round_at: None,
            duty_at: None,
            phases: BTreeMap::new(),
            up: Vec::new(),
            report: Report::default(),
        };
        world.found()?;
        for (at, (time, _)) in scenario.events.iter().enumerate() {
            world.heap.push(*time, Turn::Happen(at));
        }
        if let Some(first) = world.arrivals.next_at(scenario) {
            world.heap.push(first, Turn::Arrive);
        }
        Ok(world)
    }

    /// A fleet that has joined, and a leader.
    fn found(&mut self) -> Result<(), Violation> {
        let mut commands = self.tenants();
        let first = commands.len();
        commands.extend((0..self.machines.len()).map(|at| self.registration(at)));
        if !self.scenario.rtts.is_empty() {
            commands.push(Command::SetSiteRtts(self.scenario.rtts.clone()));
        }
        let mut touched = Touched::default();
        for (at, command) in commands.into_iter().enumerate() {
            let entry = Entry { at: TimeMs::ZERO, by: Actor::Operator, command };
            let outcome = self.apply(&entry, &mut touched);
            let outcome = outcome.map_err(|why| self.violation(why.to_string()))?;
            if let Outcome::Registered { node, epoch } = outcome {
                self.seat_machine(at - first, node, epoch);
            }
        }
        self.leader = Some(Leader::new(&self.state, self.scenario, TimeMs::ZERO));
        self.follow(touched)
    }

    /// All tenants that any job is of: with the quota that the scenario names, or none.
    fn tenants(&self) -> Vec<Command> {
        let priority_max = Priority::MAX;
        let none = Quota { pending_jobs_max: u32::MAX, priority_max, ..Quota::default() };
        let natures = self.scenario.arrivals.iter().filter_map(|arrival| arrival.nature.as_ref());
        let named = natures.filter_map(|nature| nature.tenant.as_ref());
        let mut all: BTreeMap<&TenantId, Quota> = named.map(|tenant| (tenant, none)).collect();
        all.insert(&self.tenant, none);
        all.extend(self.scenario.tenants.iter().map(|(tenant, quota)| (tenant, *quota)));
        let put = |(tenant, quota): (&TenantId, Quota)| {
            Command::PutTenant(PutTenant { tenant: tenant.clone(), quota })
        };
        all.into_iter().map(put).collect()
    }

    fn turn(&mut self, turn: Turn) -> Result<(), Violation> {
        match turn {
            Turn::Arrive => self.arrive(),
            Turn::Leave(job) => self.leave(job),
            Turn::Happen(at) => self.happen(at)?,
            Turn::Commit => self.commit()?,
            Turn::Round => self.round()?,
            Turn::Say => self.say_planned()?,
            Turn::Duty => self.duty(),
            Turn::Elect => self.elect()?,
            Turn::SendAway { leaders_lost } => self.send_away(leaders_lost),
            Turn::Told { machine, era, wanted } => self.told(machine, era, wanted),
            Turn::Step { machine, life, step } => self.step(machine, life, step),
            Turn::Report(report) => self.heard(report),
            Turn::Flush => self.flush_reports(),
            Turn::Join => self.propose_joins(),
            Turn::Connect { machine, era } => self.connect(machine, era),
            Turn::Fence { machine, era } => self.fence(machine, era),
            Turn::Beat { machine, era } => self.beat(machine, era),
            Turn::Counted { machine, era, sent, heard } => self.counted(machine, era, sent, heard),
            Turn::Closed { machine, era, closed } => self.closed(machine, era, closed),
            Turn::Alone { identity, epoch } => self.must_be_alone(identity, epoch)?,
            Turn::Retire { machine } => self.retire(machine),
            Turn::Restore { machine, life } => self.restore(machine, life),
        }
        Ok(())
    }

    fn now(&self) -> TimeMs {
        self.heap.now()
    }

    fn push_after(&mut self, length: DurationMs, turn: Turn) {
        self.heap.push(self.heap.now().after(length), turn);
    }

    fn tell(&mut self, seen: Seen<'_>) {
        self.report.ended_at = self.heap.now();
        self.observer.saw(self.heap.now(), seen, &self.state);
    }

    fn registration(&self, at: usize) -> Command {
        let at = self.machines[at].identity;
        let spec = self.declared.get(&at).unwrap_or(&self.scenario.nodes[at]).clone();
        let supplier = self.supplier.clone();
        Command::RegisterNode(RegisterNode { supplier, spec, key_digest: [0; 32] })
    }

    /// Applies one entry and notes what it touched.
    fn apply(&mut self, entry: &Entry, touched: &mut Touched) -> Result<Outcome, Rejection> {
        self.report.entries += 1;
        let index = self.report.records.max(1);
        let applied = self.rules.apply(&mut self.state, index, entry);
        for event in applied.events {
            match event {
                event::Event::NodeChanged(node) | event::Event::NodeWorkChanged(node) => {
                    touched.nodes.insert(node);
                }
                event::Event::JobChanged(job) => {
                    touched.jobs.insert(job);
                }
                _ => {}
            }
            if let Some(leader) = &mut self.leader {
                leader.note(event);
            }
        }
        applied.result
    }

    /// Looks at all that a record touched: the oracle recounts it, observers and agents hear of it.
    fn follow(&mut self, touched: Touched) -> Result<(), Violation> {
        for &node in &touched.nodes {
            self.oracle.node(&self.state, node).map_err(|what| self.violation(what))?;
        }
        for &job in &touched.jobs {
            self.oracle.job(&self.state, job).map_err(|what| self.violation(what))?;
        }
        self.oracle.totals(&self.state).map_err(|what| self.violation(what))?;
        self.oracle.clock(&self.state).map_err(|what| self.violation(what))?;
        self.report.gpu_milli_peak = self.report.gpu_milli_peak.max(self.oracle.held_milli());
        for &node in &touched.nodes {
            self.tell_status(node)?;
            self.dispatch(node);
        }
        touched.jobs.into_iter().for_each(|job| self.tell_phase(job));
        Ok(())
    }

    fn tell_status(&mut self, node: NodeId) -> Result<(), Violation> {
        let at = node.0 as usize;
        let up = self.state.node(node).is_some_and(|node| node.status == NodeStatus::Up);
        if at >= self.up.len() {
            self.up.resize(at + 1, false);
        }
        if std::mem::replace(&mut self.up[at], up) == up {
            return Ok(());
        }
        if up {
            self.tell(Seen::NodeUp { node });
            return Ok(());
        }
        self.tell(Seen::NodeDown { node });
        self.must_be_fenced(node)
    }

    /// A node that was declared down must have stopped by itself before.
    fn must_be_fenced(&self, id: NodeId) -> Result<(), Violation> {
        let Some(node) = self.state.node(id) else { return Ok(()) };
        let runs = |at: usize| {
            let machine = &self.machines[at];
            machine.epoch <= node.epoch && machine.runs()
        };
        if self.machines_of(id).into_iter().any(runs) {
            return Err(self
                .violation(format!("{id} was declared down while its agent still runs replicas")));
        }
        Ok(())
    }

    fn tell_phase(&mut self, id: JobId) {
        let Some(job) = self.state.job(id) else {
            self.phases.remove(&id);
            return;
        };
        let (to, ready) = (job.phase, job.ready_at.is_some());
        let before = match to.is_over() {
            true => self.phases.remove(&id),
            // One that was preempted became ready for the first time before.
            false => {
                let was = self.phases.get(&id).is_some_and(|(_, ready)| *ready);
                self.phases.insert(id, (to, ready || was))
            }
        };
        let from = before.map(|(phase, _)| phase);
        if from == Some(to) || (from.is_none() && to.is_over()) {
            return;
        }
        if ready && before.is_none_or(|(_, before)| !before) {
            self.became_ready(id);
        }
        if to.is_over() {
            self.report.jobs_over += 1;
            self.report.jobs_failed += u64::from(to == JobPhase::Failed);
            let now = self.state.now();
            if let Some(leader) = &mut self.leader {
                leader.note_end(now);
            }
        }
        self.tell(Seen::Phase { job: id, from, to });
    }

    /// Puts the leader's next round and duty on the heap.
    fn plan_next(&mut self) {
        let now = self.heap.now();
        let Some(leader) = &mut self.leader else { return };
        if let Some(at) = leader.round_at(now)
            && self.round_at.is_none_or(|known| at < known)
        {
            self.round_at = Some(at);
            self.heap.push(at, Turn::Round);
        }
        if let Some(at) = leader.duty_at(&self.state, &self.servers)
            && self.duty_at.is_none_or(|known| at < known)
        {
            self.duty_at = Some(at);
            self.heap.push(at, Turn::Duty);
        }
    }

    fn check(&self) -> Result<(), Violation> {
        self.oracle.whole(&self.state).map_err(|what| self.violation(what))
    }

    fn violation(&self, what: String) -> Violation {
        let (seed, event) = (self.scenario.seed, self.report.events);
        let replay = self.scenario.replay.clone();
        Violation { seed, event, at_ms: self.heap.now().0, what, replay }
    }

    fn finish(mut self) -> Result<Report, Violation> {
        let answered = self.report.jobs_submitted + self.report.jobs_refused;
        if self.heap.next_at().is_none() && answered != self.scenario.arrivals.len() as u64 {
            let all = self.scenario.arrivals.len();
            let what = format!("{all} jobs arrived, {answered} were answered");
            return Err(self.violation(what));
        }
        let pending = |known: &&(JobPhase, bool)| known.0 == JobPhase::Pending;
        self.report.jobs_waiting = self.phases.values().filter(pending).count() as u64;
        self.report.state_hash = self.state.hash();
        self.report.gpu_milli_held = self.oracle.held_milli();
        if self.heap.next_at().is_some() {
            self.report.ended_at = self.heap.now();
        }
        Ok(self.report)
    }
}

/// What the entries of a record touched.
#[derive(Debug, Default)]
struct Touched {
    nodes: BTreeSet<NodeId>,
    jobs: BTreeSet<JobId>,
}
