//! The world: turns what happens into entries, as a leader does, and watches the state.
//!
//! **Invariant:** the only way to change the state is `State::apply`; the only way to choose nodes
//! is `plan`.

use crate::heap::Heap;
use crate::observe::{Observer, Seen};
use crate::scenario::{Happening, Scenario, Target, sample};
use rand::SeedableRng;
use rand::rngs::StdRng;
use scheduler_core::command::{
    Actor, Command, Commit, Entry, NodeTransition, Observed, Outcome, Plan, PutTenant, Quota,
    RegisterNode, Rejection, ReplicaReport, Submit,
};
use scheduler_core::event;
use scheduler_core::id::{Epoch, JobId, Name, NodeId, Rank, SupplierId, TenantId};
use scheduler_core::job::{Job, JobPhase, Reason, ReplicaPhase};
use scheduler_core::node::{NodeSpec, NodeStatus};
use scheduler_core::plan::{Ranks, Request, Unplaceable, plan};
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, TimeMs};
use scheduler_core::view::View;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What came of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Events taken off the heap.
    pub events: u64,
    /// Entries applied.
    pub entries: u64,
    pub jobs_submitted: u64,
    /// Placed in the entry that submitted them.
    pub jobs_placed_at_once: u64,
    /// Ready at some time.
    pub jobs_ready: u64,
    /// Over when the run ended.
    pub jobs_over: u64,
    /// Still waiting when the run ended.
    pub jobs_waiting: u64,
    /// Most thousandths of GPUs held at one time.
    pub gpu_milli_peak: u64,
    /// Hash of the last state.
    pub state_hash: u128,
    /// Virtual time of the last event.
    pub ended_at: TimeMs,
}

/// The oracle found the state wrong, or an entry that had to be accepted was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("after event {event} at {at_ms} ms: {what}")]
pub struct Violation {
    pub event: u64,
    pub at_ms: u64,
    pub what: String,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive(usize),
    Ready(JobId),
    Leave(JobId),
    Expire,
    Happen(usize),
    Repair(usize),
}

struct World<'a> {
    scenario: &'a Scenario,
    observer: &'a mut dyn Observer,
    heap: Heap<Event>,
    state: State,
    view: View,
    nodes: Vec<(NodeId, Epoch)>,
    /// Life of the jobs, as their arrivals gave it.
    lives: BTreeMap<JobId, DurationMs>,
    report: Report,
    phases: BTreeMap<JobId, JobPhase>,
    rng: StdRng,
    index: u64,
}

/// Runs a scenario to its end.
pub fn run(scenario: &Scenario, observer: &mut dyn Observer) -> Result<Report, Violation> {
    let mut world = World::new(scenario, observer)?;
    let check_every = scenario.check_every.max(1);
    while let Some((_, event)) = world.heap.pop() {
        world.report.events += 1;
        world.turn(event)?;
        if world.report.events.is_multiple_of(check_every) {
            world.check()?;
        }
    }
    world.check()?;
    Ok(world.finish())
}

fn tenant() -> Option<TenantId> {
    Name::parse("load").ok().map(TenantId)
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, observer: &'a mut dyn Observer) -> Result<Self, Violation> {
        let state = State::new();
        let view = View::new(&state);
        let mut world = Self {
            scenario,
            observer,
            rng: StdRng::seed_from_u64(scenario.seed),
            heap: Heap::default(),
            state,
            view,
            nodes: Vec::with_capacity(scenario.nodes.len()),
            lives: BTreeMap::new(),
            phases: BTreeMap::new(),
            report: Report::default(),
            index: 0,
        };
        if let Some(tenant) = tenant() {
            let quota = Quota { pending_jobs_max: u32::MAX, ..Quota::default() };
            world.must(Actor::Operator, Command::PutTenant(PutTenant { tenant, quota }))?;
        }
        for at in 0..scenario.nodes.len() {
            world.register(at)?;
        }
        if !scenario.rtts.is_empty() {
            world.must(Actor::Operator, Command::SetSiteRtts(scenario.rtts.clone()))?;
        }
        for (at, arrival) in scenario.arrivals.iter().enumerate() {
            world.heap.push(arrival.at, Event::Arrive(at));
        }
        for (at, (time, _)) in scenario.events.iter().enumerate() {
            world.heap.push(*time, Event::Happen(at));
        }
        Ok(world)
    }

    fn turn(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Arrive(at) => self.arrive(at),
            Event::Ready(job) => self.ready(job),
            Event::Leave(job) => self.leave(job),
            Event::Expire => self.expire(),
            Event::Happen(at) => self.happen(at),
            Event::Repair(at) => self.repair(at),
        }
    }

    fn arrive(&mut self, at: usize) -> Result<(), Violation> {
        let (Some(arrival), Some(tenant)) = (self.scenario.arrivals.get(at), tenant()) else {
            return Ok(());
        };
        let spec = Arc::clone(&arrival.spec);
        let (plan, reason) = match self.choose(&spec, Ranks::All, &[]) {
            Ok(plan) => (Some(plan), Reason::default()),
            Err(why) => (None, why.to_reason()),
        };
        let submit = Submit {
            tenant,
            request_id: format!("arrival-{at}").into(),
            body_digest: at as u128,
            spec,
            token: 0,
            plan,
            reason,
        };
        self.report.jobs_submitted += 1;
        if let Outcome::Submitted { job, placed, .. } =
            self.must(Actor::System, Command::Submit(submit))?
        {
            self.report.jobs_placed_at_once += u64::from(placed);
            self.tell(Seen::Submitted { job, arrival: at });
            if let Some(life) = arrival.life {
                self.lives.insert(job, life);
            }
        }
        Ok(())
    }

    /// Every bound replica of the job comes up.
    fn ready(&mut self, job: JobId) -> Result<(), Violation> {
        let reports = self
            .state
            .replicas(job)
            .filter(|(_, replica)| replica.phase == ReplicaPhase::Assigned)
            .filter_map(|(rank, replica)| {
                let allocation = replica.allocation?;
                Some(ReplicaReport {
                    job,
                    rank,
                    assignment: allocation.assignment,
                    node: allocation.node,
                    observed: Observed::Ready,
                })
            })
            .collect::<Vec<_>>();
        if reports.is_empty() {
            return Ok(());
        }
        let before = self.state.job(job).and_then(|job| job.ready_at);
        self.must(Actor::System, Command::Report(reports))?;
        let Some(now) = self.state.job(job).cloned() else { return Ok(()) };
        if before.is_none() && now.ready_at.is_some() {
            self.became_ready(&now);
        }
        Ok(())
    }

    fn became_ready(&mut self, job: &Job) {
        self.report.jobs_ready += 1;
        let now = self.heap.now();
        if let Some(life) = self.lives.get(&job.id) {
            self.heap.push(TimeMs(now.0.saturating_add(life.0)), Event::Leave(job.id));
        }
        if let Some(duration) = job.spec.duration {
            self.heap.push(TimeMs(now.0.saturating_add(duration.0)), Event::Expire);
        }
    }

    fn leave(&mut self, job: JobId) -> Result<(), Violation> {
        let reason = Reason::default();
        self.must(Actor::System, Command::Cancel { job, reason })?;
        self.retry_waiting()
    }

    fn expire(&mut self) -> Result<(), Violation> {
        let (jobs, forget) = self.state.due(self.heap.now(), usize::MAX);
        if jobs.is_empty() && forget.is_empty() {
            return Ok(());
        }
        self.must(Actor::System, Command::Expire { jobs, forget })?;
        self.retry_waiting()
    }

    fn happen(&mut self, at: usize) -> Result<(), Violation> {
        let Some((_, happening)) = self.scenario.events.get(at) else { return Ok(()) };
        if let Happening::Lose { target, repair } = happening {
            for node in self.members(target) {
                self.lose(node, *repair)?;
            }
        }
        self.retry_waiting()
    }

    /// Positions of the nodes that are meant, rising.
    fn members(&mut self, target: &Target) -> Vec<usize> {
        let nodes = &self.scenario.nodes;
        if let Target::Some(count) = target {
            let count = usize::try_from(*count).unwrap_or(usize::MAX);
            return sample(count, nodes.len(), &mut self.rng).into_iter().collect();
        }
        let is_meant = |at: usize, node: &NodeSpec| match target {
            Target::Node(one) => at == *one,
            Target::Site(name) => node.place.site == *name,
            Target::Zone(name) => node.place.zone == *name,
            Target::Region(name) => node.place.region == *name,
            Target::Model(name) => node.gpus.iter().any(|gpu| gpu.model == *name),
            Target::Some(_) | Target::All => true,
        };
        let all = nodes.iter().enumerate();
        all.filter(|(at, node)| is_meant(*at, node)).map(|(at, _)| at).collect()
    }

    fn lose(&mut self, at: usize, repair: Option<DurationMs>) -> Result<(), Violation> {
        let Some(&(node, epoch)) = self.nodes.get(at) else { return Ok(()) };
        let down = NodeTransition { node, epoch, status: NodeStatus::Down };
        self.must(Actor::System, Command::NodeStatuses(vec![down]))?;
        self.tell(Seen::NodeDown { node });
        if let Some(repair) = repair {
            let back = TimeMs(self.heap.now().0.saturating_add(repair.0));
            self.heap.push(back, Event::Repair(at));
        }
        Ok(())
    }

    fn repair(&mut self, node: usize) -> Result<(), Violation> {
        self.register(node)?;
        self.retry_waiting()
    }

    fn tell(&mut self, seen: Seen<'_>) {
        self.observer.saw(self.heap.now(), seen, &self.state);
    }

    /// Plans for every job with waiting replicas, oldest first, as capacity comes back.
    fn retry_waiting(&mut self) -> Result<(), Violation> {
        for id in self.state.waiting().collect::<Vec<_>>() {
            let Some(job) = self.state.job(id).cloned() else { continue };
            let mut ranks = Vec::new();
            let mut fixed = Vec::new();
            for (rank, replica) in self.state.replicas(id) {
                match (replica.phase, replica.allocation) {
                    (ReplicaPhase::Waiting | ReplicaPhase::Failed, _) => ranks.push(rank),
                    (phase, Some(held)) if phase.is_live() => fixed.push((rank, held.node)),
                    _ => {}
                }
            }
            if let Ok(plan) = self.choose(&job.spec, Ranks::Some(&ranks), &fixed) {
                self.must(Actor::System, Command::Commit(Commit { job: id, plan }))?;
            }
        }
        Ok(())
    }

    fn choose(
        &self,
        spec: &scheduler_core::job::JobSpec,
        ranks: Ranks<'_>,
        fixed: &[(Rank, NodeId)],
    ) -> Result<Plan, Unplaceable> {
        let request = Request { ranks, fixed, ..Request::whole(spec) };
        plan(&self.view, &request, &self.scenario.policy, self.scenario.budget)
    }

    fn register(&mut self, at: usize) -> Result<(), Violation> {
        let (Some(spec), Ok(supplier)) =
            (self.scenario.nodes.get(at).cloned(), Name::parse("fleet"))
        else {
            return Ok(());
        };
        let supplier = SupplierId(supplier);
        let register = RegisterNode { supplier, spec, key_digest: [0; 32] };
        if let Outcome::Registered { node, epoch } =
            self.must(Actor::Operator, Command::RegisterNode(register))?
        {
            self.tell(Seen::NodeUp { node });
            if self.nodes.len() <= at {
                self.nodes.push((node, epoch));
            } else if let Some(known) = self.nodes.get_mut(at) {
                *known = (node, epoch);
            }
        }
        Ok(())
    }

    /// Applies an entry that has to be accepted, and does what its events call for.
    fn must(&mut self, by: Actor, command: Command) -> Result<Outcome, Violation> {
        self.index += 1;
        self.report.entries += 1;
        let entry = Entry { at: self.heap.now(), by, command };
        let applied = self.state.apply(self.index, &entry);
        self.follow(&applied.events);
        applied.result.map_err(|rejection: Rejection| self.violation(rejection.to_string()))
    }

    fn follow(&mut self, events: &[event::Event]) {
        let mut nodes = Vec::new();
        for event in events {
            match *event {
                event::Event::NodeChanged(node) | event::Event::NodeWorkChanged(node) => {
                    nodes.push(node);
                }
                event::Event::SitesChanged => self.view.refresh_sites(&self.state),
                event::Event::JobChanged(job) => {
                    self.tell_phase(job);
                    self.start_if_bound(job);
                }
                event::Event::JobWaiting(_)
                | event::Event::CapacityGrew
                | event::Event::TenantsChanged => {}
            }
        }
        nodes.sort_unstable();
        nodes.dedup();
        self.view.refresh(&self.state, &nodes);
        let held = self.state.tenants().map(|tenant| tenant.gpu_milli_used).sum();
        self.report.gpu_milli_peak = self.report.gpu_milli_peak.max(held);
    }

    fn tell_phase(&mut self, id: JobId) {
        let Some(to) = self.state.job(id).map(|job| job.phase) else { return };
        let from = self.phases.insert(id, to);
        if from != Some(to) {
            self.tell(Seen::Phase { job: id, from, to });
        }
    }

    fn start_if_bound(&mut self, id: JobId) {
        let assigned = self.state.counts(id).is_some_and(|counts| counts.total.assigned > 0);
        if assigned {
            let took = self.scenario.start.process.draw(&mut self.rng);
            let up = TimeMs(self.heap.now().0.saturating_add(took.0));
            self.heap.push(up, Event::Ready(id));
        }
    }

    fn check(&self) -> Result<(), Violation> {
        match self.state.check().first() {
            None => Ok(()),
            Some(finding) => Err(self.violation(format!("{finding:?}"))),
        }
    }

    fn violation(&self, what: String) -> Violation {
        Violation { event: self.report.events, at_ms: self.heap.now().0, what }
    }

    fn finish(mut self) -> Report {
        let phases = self.state.jobs_after(None).map(|job| job.phase);
        let (mut over, mut waiting) = (0, 0);
        for phase in phases {
            over += u64::from(phase.is_over());
            waiting += u64::from(phase == JobPhase::Pending);
        }
        self.report.jobs_over = over;
        self.report.jobs_waiting = waiting;
        self.report.state_hash = self.state.hash();
        self.report.ended_at = self.heap.now();
        self.report
    }
}
