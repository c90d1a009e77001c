//! Run: arrivals and departures over virtual time on one view, and what is counted meanwhile.
//!
//! **Invariant:** a job is in one of three places: gone, waiting, or on GPUs under one claim.

use super::fleet::{Bed, BedError};
use super::load::Coming;
use super::{CLASSES, class_of};
use crate::heap::Heap;
use crate::trace::TraceJob;
use crate::trace::specs::Specs;
use scheduler_core::job::JobSpec;
use scheduler_core::plan::{Budget, Policy, Request, find};
use scheduler_core::unit::TimeMs;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// Waiting jobs are tried again when this many jobs have ended, as a server tries them in rounds
/// and not at every single event.
const ENDS_PER_ROUND: u32 = 8;
/// Runs shorter than this count as this long in the bounded slowdown, in seconds (Feitelson's
/// usual bound).
const SLOWDOWN_BOUND_S: f64 = 10.0;

/// What becomes of a job that does not fit at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// It goes away.
    None,
    /// It waits, oldest first, others overtaking it if they fit, at most this long.
    Ms(u64),
}

/// What was counted of one size class, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    pub(super) jobs: u64,
    pub(super) placed_jobs: u64,
    pub(super) asked_milli: u64,
    pub(super) refused_jobs: u64,
    pub(super) refused_milli: u64,
    /// Thousandths of GPUs waiting, times milliseconds.
    pub(super) waiting_milli_ms: f64,
    /// Seconds that each job waited, whether it then ran, gave up or still waits.
    pub(super) waits_s: Vec<f64>,
    pub(super) slowdowns: Vec<f64>,
}

/// What was counted from the beginning of the measured time.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    pub(super) span_ms: u64,
    /// Thousandths of GPUs allocated, times milliseconds.
    pub(super) allocated_milli_ms: f64,
    /// The same of jobs of one replica.
    pub(super) single_milli_ms: f64,
    pub(super) classes: [Tally; CLASSES.len()],
    /// Gangs of at least [`LARGE_GANG_MILLI`].
    pub(super) large: Tally,
    /// Thousandths of GPUs times milliseconds of the measured time that all jobs asked for, and
    /// those that were refused, whenever that was.
    pub(super) asked_milli_ms: f64,
    pub(super) refused_milli_ms: f64,
    /// GPU time of the jobs that wait, in thousandths of GPUs times milliseconds, times the
    /// milliseconds that it waited.
    pub(super) waiting_work_ms: f64,
}

/// Gangs of 256 GPUs and more are counted on their own.
pub(super) const LARGE_GANG_MILLI: u64 = 256_000;

/// What happens.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Arrive(usize),
    End(usize),
    GiveUp(usize),
    Measure,
}

#[derive(Default)]
struct Waiting {
    /// By shape: the waiting arrivals, oldest first.
    by_shape: BTreeMap<usize, BTreeSet<usize>>,
    milli: [u64; CLASSES.len()],
    large_milli: u64,
    /// Thousandths of GPUs times the milliseconds that they will run.
    work: u64,
}

struct World<'a> {
    jobs: &'a [TraceJob],
    comings: &'a [Coming],
    patience: &'a dyn Fn(&TraceJob) -> Patience,
    policy: Policy,
    bed: Bed,
    specs: Vec<(usize, Arc<JobSpec>)>,
    heap: Heap<Happening>,
    waiting: Waiting,
    ended: u32,
    allocated: u64,
    single: u64,
    last_ms: u64,
    measured_ms: Range<u64>,
    /// From when on it is counted, once that time has come.
    measured_from_ms: Option<u64>,
    counted: Counted,
}

/// Everything that a run follows from.
pub(super) struct Plot<'a> {
    pub(super) jobs: &'a [TraceJob],
    /// Residents first, then arrivals by time.
    pub(super) comings: &'a [Coming],
    /// From when on it is counted.
    pub(super) measure_from_ms: u64,
    pub(super) patience: &'a dyn Fn(&TraceJob) -> Patience,
    pub(super) policy: Policy,
}

/// Runs until the last arrival.
pub(super) fn run(bed: Bed, plot: &Plot<'_>) -> Result<Counted, BedError> {
    let mut specs = Specs::default();
    let mut shapes: BTreeMap<*const JobSpec, usize> = BTreeMap::new();
    let mut list = Vec::with_capacity(plot.jobs.len());
    for job in plot.jobs {
        let spec = specs.of(job)?;
        let next = shapes.len();
        list.push((*shapes.entry(Arc::as_ptr(&spec)).or_insert(next), spec));
    }
    let last = plot.comings.last().map_or(0, |coming| coming.at_ms);
    let mut world = World {
        jobs: plot.jobs,
        comings: plot.comings,
        patience: plot.patience,
        policy: plot.policy,
        bed,
        specs: list,
        heap: Heap::default(),
        waiting: Waiting::default(),
        ended: 0,
        allocated: 0,
        single: 0,
        last_ms: 0,
        measured_ms: plot.measure_from_ms..last,
        measured_from_ms: None,
        counted: Counted::default(),
    };
    for (at, coming) in plot.comings.iter().enumerate() {
        world.heap.push(TimeMs(coming.at_ms), Happening::Arrive(at));
        let milli = plot.jobs.get(coming.job).map_or(0, TraceJob::total_milli) as f64;
        let runs_ms = coming.runs_within(&world.measured_ms) as f64;
        world.counted.asked_milli_ms += milli * runs_ms;
    }
    world.heap.push(TimeMs(plot.measure_from_ms), Happening::Measure);
    while let Some((TimeMs(now), happening)) = world.heap.pop() {
        world.pass(now.min(last));
        if now > last {
            break;
        }
        world.happen(now, happening);
    }
    world.finish(last);
    Ok(world.counted)
}

impl World<'_> {
    /// Counts the time up to now.
    fn pass(&mut self, now: u64) {
        let span = now.saturating_sub(self.last_ms);
        self.last_ms = now.max(self.last_ms);
        if self.measured_from_ms.is_none() || span == 0 {
            return;
        }
        self.counted.span_ms += span;
        self.counted.allocated_milli_ms += self.allocated as f64 * span as f64;
        self.counted.single_milli_ms += self.single as f64 * span as f64;
        for (tally, &milli) in self.counted.classes.iter_mut().zip(&self.waiting.milli) {
            tally.waiting_milli_ms += milli as f64 * span as f64;
        }
        self.counted.large.waiting_milli_ms += self.waiting.large_milli as f64 * span as f64;
        self.counted.waiting_work_ms += self.waiting.work as f64 * span as f64;
    }

    fn happen(&mut self, now: u64, happening: Happening) {
        match happening {
            Happening::Measure => self.measured_from_ms = Some(now),
            Happening::Arrive(at) => self.arrive(now, at),
            Happening::End(at) => self.end(now, at),
            Happening::GiveUp(at) => self.give_up(now, at),
        }
    }

    fn job(&self, at: usize) -> Option<(&TraceJob, Coming, usize)> {
        let coming = *self.comings.get(at)?;
        Some((self.jobs.get(coming.job)?, coming, self.specs.get(coming.job)?.0))
    }

    fn arrive(&mut self, now: u64, at: usize) {
        let Some((job, coming, shape)) = self.job(at) else { return };
        let (milli, patience) = (job.total_milli(), (self.patience)(job));
        if let Some((_, spec)) = self.specs.get(coming.job) {
            self.bed.view.note_arrival(spec);
        }
        self.tally(at, |tally| {
            tally.jobs += 1;
            tally.asked_milli += milli;
        });
        // Older ones of the same shape go first, and do not fit.
        let queued = self.waiting.by_shape.get(&shape).is_some_and(|list| !list.is_empty());
        if !queued && self.place(now, at) {
            return;
        }
        match patience {
            Patience::None => self.refuse(at),
            Patience::Ms(most) => {
                self.waiting.by_shape.entry(shape).or_default().insert(at);
                self.count_waiting(at, true);
                self.heap.push(TimeMs(now.saturating_add(most)), Happening::GiveUp(at));
            }
        }
    }

    fn refuse(&mut self, at: usize) {
        let Some((job, coming, _)) = self.job(at) else { return };
        let milli = job.total_milli();
        self.counted.refused_milli_ms +=
            milli as f64 * coming.runs_within(&self.measured_ms) as f64;
        self.tally(at, |tally| {
            tally.refused_jobs += 1;
            tally.refused_milli += milli;
        });
    }

    fn place(&mut self, now: u64, at: usize) -> bool {
        let Some((job, coming, _)) = self.job(at) else { return false };
        let (milli, single) = (job.total_milli(), job.replicas == 1);
        let Some((_, spec)) = self.specs.get(coming.job) else { return false };
        let spec = Arc::clone(spec);
        let request = Request::whole(&spec);
        let found = find(&self.bed.view, &request, &self.policy, Budget::default());
        let Some(plan) = found else { return false };
        self.bed.view.claim(at as u64, &spec, &plan);
        self.allocated += milli;
        self.single += if single { milli } else { 0 };
        self.heap.push(TimeMs(now.saturating_add(coming.runs_ms)), Happening::End(at));
        let waited_s = now.saturating_sub(coming.at_ms) as f64 / 1_000.0;
        let runs_s = coming.runs_ms as f64 / 1_000.0;
        self.tally(at, |tally| {
            tally.placed_jobs += 1;
            tally.waits_s.push(waited_s);
            let slowdown = (waited_s + runs_s) / runs_s.max(SLOWDOWN_BOUND_S);
            tally.slowdowns.push(slowdown.max(1.0));
        });
        true
    }

    fn end(&mut self, now: u64, at: usize) {
        let Some((job, coming, _)) = self.job(at) else { return };
        let (milli, single) = (job.total_milli(), job.replicas == 1);
        self.bed.view.unclaim(at as u64);
        if let Some((_, spec)) = self.specs.get(coming.job) {
            self.bed.view.note_departure(spec);
        }
        self.allocated -= milli;
        self.single -= if single { milli } else { 0 };
        self.ended += 1;
        if self.ended >= ENDS_PER_ROUND {
            self.ended = 0;
            self.try_waiting(now);
        }
    }

    /// Tries the waiting jobs, oldest first. One that does not fit stands for all of its shape.
    fn try_waiting(&mut self, now: u64) {
        let oldest = |list: &BTreeSet<usize>| list.first().copied();
        let mut next: BTreeMap<usize, usize> = self
            .waiting
            .by_shape
            .iter()
            .filter_map(|(&shape, list)| Some((oldest(list)?, shape)))
            .collect();
        while let Some((at, shape)) = next.pop_first() {
            if !self.place(now, at) {
                continue;
            }
            self.leave_queue(at, shape);
            if let Some(after) = self.waiting.by_shape.get(&shape).and_then(oldest) {
                next.insert(after, shape);
            }
        }
    }

    fn give_up(&mut self, now: u64, at: usize) {
        let Some((_, coming, shape)) = self.job(at) else { return };
        let waits = self.waiting.by_shape.get(&shape).is_some_and(|list| list.contains(&at));
        if waits {
            self.leave_queue(at, shape);
            self.refuse(at);
            let waited_s = now.saturating_sub(coming.at_ms) as f64 / 1_000.0;
            self.tally(at, |tally| tally.waits_s.push(waited_s));
        }
    }

    fn leave_queue(&mut self, at: usize, shape: usize) {
        if let Some(list) = self.waiting.by_shape.get_mut(&shape) {
            list.remove(&at);
        }
        self.count_waiting(at, false);
    }

    fn count_waiting(&mut self, at: usize, more: bool) {
        let Some((job, coming, _)) = self.job(at) else { return };
        let (milli, work) = (job.total_milli(), coming.work(job));
        let large = if milli >= LARGE_GANG_MILLI { milli } else { 0 };
        let class = class_of(milli).and_then(|class| self.waiting.milli.get_mut(class));
        let change = |sum: &mut u64, by: u64| *sum = if more { *sum + by } else { *sum - by };
        change(&mut self.waiting.large_milli, large);
        change(&mut self.waiting.work, work);
        if let Some(sum) = class {
            change(sum, milli);
        }
    }

    /// Counts something of a job that came in the measured time.
    fn tally(&mut self, at: usize, count: impl Fn(&mut Tally)) {
        let Some((job, _, _)) = self.job(at) else { return };
        let milli = job.total_milli();
        if !self.came_measured(at) {
            return;
        }
        if let Some(tally) = class_of(milli).and_then(|class| self.counted.classes.get_mut(class)) {
            count(tally);
        }
        if milli >= LARGE_GANG_MILLI {
            count(&mut self.counted.large);
        }
    }

    fn came_measured(&self, at: usize) -> bool {
        let came = self.comings.get(at).map(|coming| coming.at_ms);
        came.zip(self.measured_from_ms).is_some_and(|(came, from)| came >= from)
    }

    fn finish(&mut self, now: u64) {
        let waiting: Vec<usize> =
            self.waiting.by_shape.values().flat_map(|list| list.iter().copied()).collect();
        for at in waiting {
            let Some((_, coming, _)) = self.job(at) else { continue };
            let waited_s = now.saturating_sub(coming.at_ms) as f64 / 1_000.0;
            self.tally(at, |tally| tally.waits_s.push(waited_s));
        }
    }
}
