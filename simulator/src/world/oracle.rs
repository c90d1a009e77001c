//! The oracle: recounts what every event touched, by other means than the state's own check.
//!
//! No GPU in two live allocations, no node over what it has, nothing live on a lost node or of an
//! ended job, every GPU held counted once (conservation), gangs whole when placed, no job lost,
//! nobody disrupted who does not let it or is not of a lower priority.
//! **Invariant:** reads only replicas and nodes, never a derived counter but to compare it.

use scheduler_core::command::{Command, Victim};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{Disruption, GpuAsk, Job, JobPhase, Priority, Replica};
use scheduler_core::node::{Eligibility, Node, NodeStatus};
use scheduler_core::state::State;
use scheduler_core::unit::{GPU_MILLI_WHOLE, GPUS_PER_NODE_MAX, TimeMs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the oracle remembers between events.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// Thousandths of GPUs held on each node, by node id, as of its last recount.
    held: Vec<u64>,
    held_total: u64,
    /// Jobs that were acknowledged and are not over, with their last known phase.
    jobs: BTreeMap<JobId, JobPhase>,
    /// The job of every arrival, by its position; [`UNKNOWN`] while it has none.
    arrivals: Vec<JobId>,
    /// The state's time, which never goes back.
    clock: TimeMs,
}

/// No job has this number.
const UNKNOWN: JobId = JobId(u64::MAX);

impl Oracle {
    /// Thousandths of GPUs held by live replicas.
    pub(super) fn held_milli(&self) -> u64 {
        self.held_total
    }

    /// The job of an arrival is this one, now and for good.
    pub(super) fn is_job_of(&mut self, arrival: usize, job: JobId) -> Result<(), String> {
        if arrival >= self.arrivals.len() {
            self.arrivals.resize(arrival + 1, UNKNOWN);
        }
        match std::mem::replace(&mut self.arrivals[arrival], job) {
            other if other == job || other == UNKNOWN => Ok(()),
            other => Err(format!("arrival {arrival} became {other} and {job}")),
        }
    }

    /// The job of an arrival.
    pub(super) fn job_of(&self, arrival: usize) -> Option<JobId> {
        self.arrivals.get(arrival).copied().filter(|job| *job != UNKNOWN)
    }

    /// Whatever leaders' clocks show, the state's own time never goes back.
    pub(super) fn clock(&mut self, state: &State) -> Result<(), String> {
        let before = std::mem::replace(&mut self.clock, state.now());
        match before <= state.now() {
            true => Ok(()),
            false => {
                Err(format!("the state's time went back from {} to {}", before.0, state.now().0))
            }
        }
    }

    /// Recounts a node.
    pub(super) fn node(&mut self, state: &State, id: NodeId) -> Result<(), String> {
        let held = match state.node(id) {
            Some(node) => recount(state, node)?,
            None if state.node_work(id).next().is_some() => {
                return Err(format!("{id} does not exist and has work"));
            }
            None => 0,
        };
        let at = id.0 as usize;
        if at >= self.held.len() {
            self.held.resize(at + 1, 0);
        }
        self.held_total = self.held_total - self.held[at] + held;
        self.held[at] = held;
        Ok(())
    }

    /// Follows a job; `None` for one that has been forgotten.
    pub(super) fn job(&mut self, state: &State, id: JobId) -> Result<(), String> {
        let Some(job) = state.job(id) else {
            return match self.jobs.remove(&id) {
                Some(phase) => Err(format!("{id} was {phase:?} and is no longer known")),
                None => Ok(()),
            };
        };
        let times = [Some(job.submitted_at), job.placed_at, job.ready_at, job.ended_at];
        if !times.iter().flatten().is_sorted() {
            return Err(format!("{id} was submitted, placed, ready and over at {times:?}"));
        }
        if !job.phase.is_over() {
            if self.jobs.insert(id, job.phase).is_none() {
                // The digest of a request is its arrival: a request never becomes two jobs.
                let arrival = usize::try_from(job.body_digest).unwrap_or(usize::MAX);
                self.is_job_of(arrival, id)?;
            }
            return Ok(());
        }
        self.jobs.remove(&id);
        match state.replicas(id).find(|(_, replica)| replica.phase.is_live()) {
            Some((rank, _)) => Err(format!("{id} is over and its rank {rank} is live")),
            None => Ok(()),
        }
    }

    /// A plan for the job was accepted: every group has its minimum.
    pub(super) fn placed(&self, state: &State, id: JobId) -> Result<(), String> {
        let (Some(job), Some(counts)) = (state.job(id), state.counts(id)) else {
            return Err(format!("a plan for {id} was accepted, and there is no such job"));
        };
        let mut starts = job.spec.group_starts().into_iter();
        let mut first = starts.next().unwrap_or(0);
        for (group, counts) in job.spec.groups.iter().zip(&counts.groups) {
            let end = starts.next().unwrap_or(first);
            let there = counts.live().saturating_add(counts.succeeded);
            let own = |(rank, _): &(Rank, Replica)| (first..end).contains(&rank.0);
            let ranks = state.replicas(id).filter(own);
            let bound = ranks.filter(|(_, replica)| replica.phase.is_live()).count();
            if there < group.replicas_min || bound as u64 != u64::from(counts.live()) {
                return Err(format!(
                    "{id} was placed with {bound} replicas of group {}, which needs {}",
                    group.name, group.replicas_min
                ));
            }
            first = end;
        }
        Ok(())
    }

    /// Conservation: what tenants are said to hold is what was counted on the nodes.
    pub(super) fn totals(&self, state: &State) -> Result<(), String> {
        let said: u64 = state.tenants().map(|tenant| tenant.gpu_milli_used).sum();
        if said == self.held_total {
            return Ok(());
        }
        let counted = self.held_total;
        Err(format!(
            "tenants hold {said} thousandths of GPUs, the nodes' work adds up to {counted}"
        ))
    }

    /// The whole state: its own check, and every acknowledged job still there.
    pub(super) fn whole(&self, state: &State) -> Result<(), String> {
        if let Some(finding) = state.check().first() {
            return Err(finding.to_string());
        }
        for (&id, phase) in &self.jobs {
            match state.job(id) {
                Some(job) if job.phase == *phase => {}
                Some(job) => return Err(format!("{id} is {:?}, last seen {phase:?}", job.phase)),
                None => return Err(format!("{id} was {phase:?} and is lost")),
            }
        }
        let live = state.jobs_after(None).filter(|job| !job.phase.is_over()).count();
        if live != self.jobs.len() {
            return Err(format!("{live} jobs are not over, {} are known", self.jobs.len()));
        }
        Ok(())
    }
}

/// Thousandths of GPUs held on the node.
fn recount(state: &State, node: &Node) -> Result<u64, String> {
    let id = node.id;
    let mut milli = [0u64; GPUS_PER_NODE_MAX];
    let (mut cpu, mut memory, mut disk, mut held) = (0u64, 0u64, 0u64, 0u64);
    let lost = node.status == NodeStatus::Down || node.eligibility == Eligibility::Draining;
    for (job, rank) in state.node_work(id) {
        let name = || format!("rank {rank} of {job} on {id}");
        let known = state.job(job).filter(|job| !job.phase.is_over());
        let Some(spec) = known.map(|job| &job.spec) else {
            return Err(format!("{} is of no job that runs", name()));
        };
        let live = state.replica(job, rank).filter(|replica| replica.phase.is_live());
        let Some(allocation) = live.and_then(|replica| replica.allocation) else {
            return Err(format!("{} holds nothing", name()));
        };
        if lost || allocation.node != id {
            return Err(format!("{} is live there, which it must not be", name()));
        }
        let group = spec.group_of(rank).and_then(|group| spec.groups.get(group));
        let Some(shape) = group.map(|group| &group.shape) else {
            return Err(format!("{} is past the last rank", name()));
        };
        let each = match shape.gpus {
            GpuAsk::Share(milli) => u64::from(milli),
            GpuAsk::None | GpuAsk::Whole(_) => u64::from(GPU_MILLI_WHOLE),
        };
        for gpu in allocation.gpus.iter() {
            let at = usize::from(gpu);
            milli[at] += each;
            if at >= node.gpus.len() || milli[at] > u64::from(GPU_MILLI_WHOLE) {
                return Err(format!(
                    "GPU {gpu} of {id} is held twice, or does not exist: {}",
                    name()
                ));
            }
            held += each;
        }
        cpu += shape.cpu.0;
        memory += shape.memory.0;
        disk += shape.disk.0;
    }
    let has = &node.resources;
    if cpu > has.cpu.0 || memory > has.memory.0 || disk > has.disk.0 {
        return Err(format!("{id} is over its CPU, memory or disk"));
    }
    Ok(held)
}

/// Who is to give way by an entry, as it was before.
#[derive(Debug)]
pub(super) struct Disrupted {
    by: Priority,
    victims: Vec<(Victim, Arc<Job>)>,
}

impl Disrupted {
    /// `None` for an entry by which nobody is to give way.
    pub(super) fn before(state: &State, command: &Command) -> Option<Self> {
        let (by, victims) = match command {
            Command::Preempt(asked) => (state.job(asked.job)?.spec.priority, &asked.victims),
            Command::Submit(asked) => (asked.spec.priority, &asked.victims),
            _ => return None,
        };
        let victim = |victim: &Victim| Some((victim.clone(), state.job(victim.job)?.clone()));
        let victims: Vec<_> = victims.iter().filter_map(victim).collect();
        (!victims.is_empty()).then_some(Self { by, victims })
    }

    pub(super) fn jobs(&self) -> usize {
        self.victims.len()
    }

    /// Only who is of a lower priority and lets it gave way: whole, or what it can spare.
    pub(super) fn check(&self, state: &State) -> Result<(), String> {
        for (victim, job) in &self.victims {
            let (id, priority) = (job.id, job.spec.priority);
            let disruption = job.spec.preemption.disruption;
            let is_part = !victim.ranks.is_empty();
            if disruption == Disruption::None || (is_part && disruption != Disruption::Single) {
                return Err(format!("{id} was disrupted, and does not let it"));
            }
            if priority >= self.by {
                return Err(format!("{id} of priority {priority} gave way to {}", self.by));
            }
            let live = state.replicas(id).filter(|(_, one)| one.phase.is_live()).count();
            let now = state.job(id).map(|job| job.phase);
            let whole = now == Some(JobPhase::Pending) && live == 0;
            let part = now == Some(job.phase) && live > 0;
            if !(if is_part { part } else { whole }) {
                return Err(format!("{id} was {:?} and is {now:?} with {live} live", job.phase));
            }
        }
        Ok(())
    }
}
