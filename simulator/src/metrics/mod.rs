//! Metrics: what a run comes to, gathered while it goes.
//!
//! `curve` keeps quantities over time, `times` lengths of time, `fragments` what free GPUs are
//! worth, `figures` is what is written out. Memory does not grow with the number of jobs that have
//! come and gone: curves have a fixed number of cells, times are histograms, and only jobs that
//! wait, come up or are under repair are remembered one by one.
//! **Invariant:** all but [`Wall`] follows from the scenario alone; wall-clock times stay there.

mod bring_up;
pub mod class;
pub mod curve;
mod damage;
pub mod figures;
mod fragments;
pub mod times;
mod wall;

pub use bring_up::{BringUp, PHASES};
pub use class::SizeClass;
pub use figures::Figures;
pub use wall::{Wall, WallFigures};

use crate::observe::{Observer, Seen};
use bring_up::BringUps;
use curve::Curve;
use damage::Damage;
use fragments::Demand;
use scheduler_core::id::{JobId, NodeId, SiteId};
use scheduler_core::job::{Job, JobPhase, JobSpec, Reason, ReasonCode};
use scheduler_core::state::State;
use scheduler_core::unit::{GPU_MILLI_WHOLE, TimeMs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use times::Times;

/// Runs shorter than this count as this long in the bounded slowdown (Feitelson's usual bound).
const SLOWDOWN_BOUND_MS: u64 = 10_000;
/// Slowdowns are recorded in hundredths.
const SLOWDOWN_UNIT: u64 = 100;
/// Fragmentation is looked at after each such part of the time that has passed, in a fleet of so
/// many nodes at most; in larger ones more rarely, since each look walks over all nodes.
const LOOKS: u64 = 256;
const LOOKS_NODES: u64 = 20_000;
/// But not more often than this, nor less often than sixteen times.
const LOOK_PAUSE_MS: u64 = 1_000;
const LOOKS_MIN: u64 = 16;

/// What is told of one size class, or of all jobs together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) jobs: u64,
    pub(crate) placed: u64,
    pub(crate) became_ready: u64,
    pub(crate) ended: u64,
    /// Failed, or expired without having been placed.
    pub(crate) failed: u64,
    pub(crate) gpu_milli: u128,
    /// From submission to placement, in ms; at the end also of those that still wait.
    pub(crate) wait: Times,
    /// In hundredths, of jobs that ran to their end.
    pub(crate) slowdown: Times,
    /// From submission to ready for the first time, in ms.
    pub(crate) ready: Times,
}

/// Time spent waiting for one reason.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waited {
    pub(crate) jobs: u64,
    pub(crate) job_ms: u128,
}

/// What changes over time.
#[derive(Clone, Debug)]
pub(crate) struct Quantities {
    pub(crate) capacity: Curve,
    pub(crate) allocated: Curve,
    pub(crate) useful: Curve,
    pub(crate) queue_jobs: Curve,
    pub(crate) queue_gpus: Curve,
    /// Of a hundred thousand free GPU thousandths, how many the mean job cannot use.
    pub(crate) fragments: Curve,
    /// Millionths of US dollars per hour.
    pub(crate) spending: Curve,
}

impl Quantities {
    fn new(at: TimeMs) -> Self {
        let curve = || Curve::new(at);
        Self {
            capacity: curve(),
            allocated: curve(),
            useful: curve(),
            queue_jobs: curve(),
            queue_gpus: curve(),
            fragments: curve(),
            spending: curve(),
        }
    }

    fn pass(&mut self, at: TimeMs) {
        for curve in [
            &mut self.capacity,
            &mut self.allocated,
            &mut self.useful,
            &mut self.queue_jobs,
            &mut self.queue_gpus,
            &mut self.fragments,
            &mut self.spending,
        ] {
            curve.pass(at);
        }
    }
}

/// Watches a run and counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) began: Option<TimeMs>,
    pub(crate) now: TimeMs,
    pub(crate) classes: [Tally; SizeClass::ALL.len()],
    pub(crate) gangs: Tally,
    pub(crate) over_time: Quantities,
    /// The same up to `measured_until`, once that has passed.
    pub(crate) measured: Option<Box<Quantities>>,
    measured_until: Option<TimeMs>,
    pub(crate) bring_ups: BringUps,
    pub(crate) damage: Damage,
    pub(crate) starts_failed: u64,
    /// Widest RTT between two members, in microseconds, of jobs of several replicas.
    pub(crate) rtt: Times,
    pub(crate) reasons: BTreeMap<ReasonCode, Waited>,
    pub(crate) decisions: u64,
    pub(crate) stale: u64,
    pub(crate) refused: u64,
    pub(crate) leaders_lost: u64,
    /// GPU thousandths of the nodes that are up.
    nodes: BTreeMap<NodeId, u64>,
    priced: bool,
    /// Jobs not placed yet: when each was submitted, and as what.
    queued: BTreeMap<JobId, (TimeMs, Arc<JobSpec>)>,
    /// Jobs that were preempted whole and are not over.
    requeued: BTreeSet<JobId>,
    waiting: BTreeMap<JobId, (ReasonCode, TimeMs)>,
    rates: BTreeMap<JobId, u64>,
    demand: Demand,
    next_look: TimeMs,
    wall: Wall,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            began: None,
            now: TimeMs::ZERO,
            classes: Default::default(),
            gangs: Tally::default(),
            over_time: Quantities::new(TimeMs::ZERO),
            measured: None,
            measured_until: None,
            bring_ups: BringUps::default(),
            damage: Damage::new(TimeMs::ZERO),
            starts_failed: 0,
            rtt: Times::new(),
            reasons: BTreeMap::new(),
            decisions: 0,
            stale: 0,
            refused: 0,
            leaders_lost: 0,
            nodes: BTreeMap::new(),
            priced: false,
            queued: BTreeMap::new(),
            requeued: BTreeSet::new(),
            waiting: BTreeMap::new(),
            rates: BTreeMap::new(),
            demand: Demand::default(),
            next_look: TimeMs::ZERO,
            wall: Wall::default(),
        }
    }
}

impl Observer for Metrics {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        if self.began.is_none() {
            self.begin(at, state);
        }
        self.now = at;
        self.measure(at);
        self.look(at, state);
        match seen {
            Seen::Refused { .. } => self.refused += 1,
            Seen::Planned { took_ns, .. } => {
                self.decisions += 1;
                if let Some(took_ns) = took_ns {
                    self.wall.planned(took_ns);
                }
            }
            Seen::Stale { .. } => self.stale += 1,
            Seen::Waiting { job, reason } => self.waits(at, job, reason),
            Seen::Bound { job, .. } => self.held(at, job, state),
            Seen::Phase { job, from, to } => self.phase(at, job, from, to, state),
            Seen::Failed { job, .. } => {
                self.starts_failed += 1;
                self.held(at, job, state);
            }
            Seen::NodeUp { node } => self.node_up(at, node, state),
            Seen::NodeDown { node } => {
                let gpu_milli = self.nodes.remove(&node).unwrap_or(0);
                self.over_time.capacity.sub(at, gpu_milli);
                match state.node(node) {
                    Some(_) => self.damage.node_down(at, node, gpu_milli),
                    None => self.damage.node_settled(at, node),
                }
            }
            Seen::LeaderLost => self.leaders_lost += 1,
            // A job's first phase tells of it too.
            Seen::Submitted { .. } | Seen::LeaderFound => {}
        }
    }
}

impl Metrics {
    /// Means over time are taken up to here, so that the end of a trace, when nothing comes any
    /// more and all is left to end, does not count.
    pub fn until(at: TimeMs) -> Self {
        Self { measured_until: Some(at), ..Self::default() }
    }

    /// Puts the quantities aside when the time has come.
    fn measure(&mut self, at: TimeMs) {
        if let Some(end) = self.measured_until
            && at > end
            && self.measured.is_none()
        {
            self.over_time.pass(end);
            self.measured = Some(Box::new(self.over_time.clone()));
            self.damage.measure(end);
        }
    }

    /// Wall-clock times of the run so far.
    pub fn wall(&self) -> &Wall {
        &self.wall
    }

    fn begin(&mut self, at: TimeMs, state: &State) {
        self.began = Some(at);
        self.over_time = Quantities::new(at);
        self.damage = Damage::new(at);
        let nodes: Vec<NodeId> = state.nodes().map(|node| node.id).collect();
        for node in nodes {
            self.node_up(at, node, state);
        }
    }

    fn node_up(&mut self, at: TimeMs, id: NodeId, state: &State) {
        let Some(node) = state.node(id) else { return };
        self.damage.node_settled(at, id);
        self.priced |= node.price.0 > 0;
        let gpu_milli = node.gpus.len() as u64 * u64::from(GPU_MILLI_WHOLE);
        let before = self.nodes.insert(id, gpu_milli).unwrap_or(0);
        let all = self.over_time.capacity.value();
        self.over_time.capacity.set(at, (all + gpu_milli).saturating_sub(before));
    }

    /// Looks at what is free, if it is time.
    fn look(&mut self, at: TimeMs, state: &State) {
        if at < self.next_look {
            return;
        }
        if let Some(lost) = self.demand.lost_ppht(state) {
            self.over_time.fragments.set(at, lost);
        }
        let passed = at.0 - self.began.unwrap_or(at).0;
        let nodes = (state.nodes_len() as u64).max(1);
        let looks = (LOOKS * LOOKS_NODES / nodes).clamp(LOOKS_MIN, LOOKS);
        self.next_look = TimeMs(at.0 + (passed / looks).max(LOOK_PAUSE_MS));
    }

    /// Counts in the job's class, and among gangs if it is one.
    fn tally(&mut self, spec: &JobSpec, mut count: impl FnMut(&mut Tally)) {
        let class = SizeClass::of(spec.gpu_milli()) as usize;
        if let Some(tally) = self.classes.get_mut(class) {
            count(tally);
        }
        if spec.replicas() > 1 {
            count(&mut self.gangs);
        }
    }

    fn submitted(&mut self, at: TimeMs, job: &Arc<Job>) {
        let gpu_milli = job.spec.gpu_milli();
        self.demand.note(&job.spec);
        self.tally(&job.spec, |tally| {
            tally.jobs += 1;
            tally.gpu_milli += u128::from(gpu_milli);
        });
        self.queued.insert(job.id, (job.submitted_at, Arc::clone(&job.spec)));
        self.over_time.queue_jobs.add(at, 1);
        self.over_time.queue_gpus.add(at, gpu_milli);
    }

    /// The job was preempted whole: it waits again.
    fn requeued(&mut self, at: TimeMs, job: &Arc<Job>) {
        self.requeued.insert(job.id);
        self.bring_ups.forget(job.id);
        self.queued.insert(job.id, (job.submitted_at, Arc::clone(&job.spec)));
        self.over_time.queue_jobs.add(at, 1);
        self.over_time.queue_gpus.add(at, job.spec.gpu_milli());
        self.waits(at, job.id, &job.reason);
    }

    fn leaves_queue(&mut self, at: TimeMs, job: &Job) {
        if self.queued.remove(&job.id).is_some() {
            self.over_time.queue_jobs.sub(at, 1);
            self.over_time.queue_gpus.sub(at, job.spec.gpu_milli());
        }
    }

    fn waits(&mut self, at: TimeMs, id: JobId, reason: &Reason) {
        if self.waiting.get(&id).is_some_and(|&(code, _)| code == reason.code) {
            return;
        }
        self.waits_no_more(at, id);
        self.waiting.insert(id, (reason.code, at));
        self.reasons.entry(reason.code).or_default().jobs += 1;
    }

    fn waits_no_more(&mut self, at: TimeMs, id: JobId) {
        let Some((code, since)) = self.waiting.remove(&id) else { return };
        let waited = self.reasons.entry(code).or_default();
        waited.job_ms += u128::from(at.0.saturating_sub(since.0));
    }

    /// What the job holds may have changed.
    fn held(&mut self, at: TimeMs, id: JobId, state: &State) {
        let used = state.tenants().map(|tenant| tenant.gpu_milli_used).sum();
        self.over_time.allocated.set(at, used);
        if !self.priced {
            return;
        }
        let price = |node: NodeId| state.node(node).map_or(0, |node| node.price.0);
        let live = state.replicas(id).filter(|(_, replica)| replica.phase.is_live());
        let rate: u64 = live
            .filter_map(|(rank, replica)| Some((rank, replica.allocation?.node)))
            .map(|(rank, node)| {
                let milli = state.job(id).map_or(0, |job| milli_of(job, rank));
                price(node).saturating_mul(milli) / u64::from(GPU_MILLI_WHOLE)
            })
            .sum();
        let before = if rate > 0 { self.rates.insert(id, rate) } else { self.rates.remove(&id) };
        let all = self.over_time.spending.value();
        self.over_time.spending.set(at, (all + rate).saturating_sub(before.unwrap_or(0)));
    }

    fn phase(
        &mut self,
        at: TimeMs,
        id: JobId,
        from: Option<JobPhase>,
        to: JobPhase,
        state: &State,
    ) {
        self.held(at, id, state);
        let Some(job) = state.job(id).cloned() else { return };
        let gpu_milli = job.spec.gpu_milli();
        if from.is_none() {
            self.submitted(at, &job);
            if to == JobPhase::Pending && job.reason.code != ReasonCode::None {
                self.waits(at, id, &job.reason);
            }
        }
        let before = from.unwrap_or(JobPhase::Pending);
        if before == JobPhase::Pending && to != JobPhase::Pending {
            self.leaves_queue(at, &job);
            self.waits_no_more(at, id);
            // One that was preempted has been counted.
            if !to.is_over() && !self.requeued.contains(&id) {
                self.placed(at, &job, state);
            }
        }
        if from.is_some() && to == JobPhase::Pending {
            self.requeued(at, &job);
        }
        if from == Some(JobPhase::Ready) {
            self.over_time.useful.sub(at, gpu_milli);
            if matches!(to, JobPhase::Repairing | JobPhase::Pending) {
                self.damage.interrupted(at, id, gpu_milli);
            }
        }
        match to {
            JobPhase::Starting => self.bring_ups.answered(at, id),
            JobPhase::Repairing => self.bring_ups.setback(at, id),
            JobPhase::Ready => self.ready(at, &job),
            JobPhase::Ended | JobPhase::Failed | JobPhase::Expired => self.over(at, &job, to),
            JobPhase::Pending | JobPhase::Placed => {}
        }
    }

    fn placed(&mut self, at: TimeMs, job: &Job, state: &State) {
        let wait = at.0.saturating_sub(job.submitted_at.0);
        self.tally(&job.spec, |tally| {
            tally.placed += 1;
            tally.wait.add(wait);
        });
        self.bring_ups.placed(at, job);
        if job.spec.replicas() > 1
            && let Some(rtt) = widest_rtt_us(job.id, state)
        {
            self.rtt.add(rtt);
        }
    }

    fn ready(&mut self, at: TimeMs, job: &Job) {
        self.over_time.useful.add(at, job.spec.gpu_milli());
        self.waits_no_more(at, job.id);
        self.damage.mended(at, job.id);
        if self.bring_ups.ready(at, job) {
            let took = at.0.saturating_sub(job.submitted_at.0);
            self.tally(&job.spec, |tally| {
                tally.became_ready += 1;
                tally.ready.add(took);
            });
        }
    }

    fn over(&mut self, at: TimeMs, job: &Job, to: JobPhase) {
        self.waits_no_more(at, job.id);
        self.requeued.remove(&job.id);
        self.bring_ups.forget(job.id);
        self.damage.over(at, job.id);
        let slowdown = job.placed_at.filter(|_| to != JobPhase::Failed).map(|placed| {
            let all = at.0.saturating_sub(job.submitted_at.0);
            let ran = at.0.saturating_sub(placed.0).max(SLOWDOWN_BOUND_MS);
            (all.saturating_mul(SLOWDOWN_UNIT) / ran).max(SLOWDOWN_UNIT)
        });
        self.tally(&job.spec, |tally| match slowdown {
            Some(slowdown) => {
                tally.ended += 1;
                tally.slowdown.add(slowdown);
            }
            None => tally.failed += 1,
        });
    }

    /// Counts what is still under way as it stands at `at`, the end of the run.
    pub fn finish(&mut self, at: TimeMs) {
        self.now = at;
        for id in self.waiting.keys().copied().collect::<Vec<_>>() {
            self.waits_no_more(at, id);
        }
        let first = |(id, _): &(&JobId, _)| !self.requeued.contains(id);
        let queued = self.queued.iter().filter(first).map(|(_, queued)| queued.clone());
        for (submitted, spec) in queued.collect::<Vec<_>>() {
            let waited = at.0.saturating_sub(submitted.0);
            self.tally(&spec, |tally| tally.wait.add(waited));
        }
        self.damage.finish(at);
        self.measure(at);
        self.over_time.pass(at);
    }
}

fn milli_of(job: &Job, rank: scheduler_core::id::Rank) -> u64 {
    let group = job.spec.group_of(rank).and_then(|at| job.spec.groups.get(at));
    group.map_or(0, |group| group.shape.gpu_milli())
}

/// The widest usual RTT between two members; `None` if some pair's is unknown.
fn widest_rtt_us(id: JobId, state: &State) -> Option<u64> {
    let nodes = state.replicas(id).filter_map(|(_, replica)| Some(replica.allocation?.node));
    let sites: BTreeSet<SiteId> =
        nodes.filter_map(|node| state.node(node).map(|node| node.site)).collect();
    let sites: Vec<SiteId> = sites.into_iter().collect();
    let mut widest = 0;
    for (at, &a) in sites.iter().enumerate() {
        for &b in sites.iter().skip(at) {
            widest = widest.max(state.sites().spread(a, b)?.median.0);
        }
    }
    Some(u64::from(widest))
}
