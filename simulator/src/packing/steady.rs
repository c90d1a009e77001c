//! Steady state: jobs arrive and leave at an offered load; who would be there in the long run is
//! there at the start. What does not fit goes away, or waits.
//!
//! **Invariant:** the same seed gives every policy the same arrivals, durations and node order.
//! `fgd` is told the mix of the whole workload; the other policies learn or need no mix.

use super::fleet::{Bed, BedError};
use super::load::{Durations, Pattern, Source};
use super::run::{Counted, Patience, Plot, Tally, run as play};
use super::{CLASSES, by_name};
use crate::trace::{TraceJob, TraceNode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use scheduler_core::plan::Policy;
use serde::Serialize;

/// Part of the arrivals after which counting begins: the placements of the start are then replaced
/// or settled.
const WARM_UP: f64 = 0.4;

const MS_PER_H: f64 = 3_600_000.0;

/// What becomes of a job that does not fit at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// It goes away.
    Reject,
    /// It waits until it fits; others may overtake it.
    Queue,
}

impl Service {
    pub const ALL: [Self; 2] = [Self::Reject, Self::Queue];
}

/// A case.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Case {
    pub policy: Policy,
    pub seed: u64,
    /// Offered load: GPU time asked for over GPU time there is.
    pub load: f64,
    pub pattern: Pattern,
    pub durations: Durations,
    pub service: Service,
    pub arrivals: usize,
}

/// What became of a size class.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Class {
    pub gpus: &'static str,
    pub jobs: u64,
    /// Refused thousandths of GPUs, in per cent of those asked for.
    pub refused_percent: f64,
    /// Waiting thousandths of GPUs on average, in per cent of the fleet's.
    pub waiting_percent: f64,
    pub wait_p95_s: f64,
}

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    pub workload: String,
    #[serde(serialize_with = "by_name")]
    pub policy: Policy,
    pub seed: u64,
    pub load: f64,
    pub pattern: Pattern,
    pub durations: Durations,
    pub service: Service,
    /// GPU time allocated, in per cent of the fleet's.
    pub allocated_percent: f64,
    /// Thousandths of GPUs refused, in per cent of those asked for.
    pub refused_percent: f64,
    /// Thousandths of GPUs waiting on average, in per cent of the fleet's.
    pub waiting_percent: f64,
    /// GPU time of the measured span that was refused, in per cent of that asked for: it also counts
    /// who was turned away before, and would still run.
    pub refused_time_percent: f64,
    /// GPU time of the jobs that wait, on average, in hours of the whole fleet.
    pub waiting_work_h: f64,
    /// Seconds waited by jobs with GPUs, those that still wait included.
    pub wait_p50_s: f64,
    pub wait_p95_s: f64,
    pub wait_p99_s: f64,
    /// (Waiting + running) / running, the latter at least 10 s; the mean over jobs that started.
    pub bounded_slowdown_mean: f64,
    pub classes: Vec<Class>,
}

/// Runs a case; `None` if it needs durations that the workload has not.
pub fn run(
    workload: &str,
    nodes: &[TraceNode],
    jobs: &[TraceJob],
    case: &Case,
) -> Result<Option<Row>, BedError> {
    let Some(source) = Source::new(jobs, case.durations) else { return Ok(None) };
    let mut rng = StdRng::seed_from_u64(case.seed);
    let bed = Bed::shuffled(nodes, jobs, case.policy, &mut rng)?;
    let capacity = bed.gpu_milli;
    let rate = source.rate(capacity, case.load);
    let mut comings = source.residents(rate, &mut rng);
    let residents = comings.len();
    comings.extend(source.arrivals(rate, case.pattern, case.arrivals, &mut rng));
    let warm = residents + (case.arrivals as f64 * WARM_UP) as usize;
    let measure_from_ms = comings.get(warm).map_or(0, |coming| coming.at_ms);
    let patience = |_: &TraceJob| match case.service {
        Service::Reject => Patience::None,
        Service::Queue => Patience::Ms(u64::MAX),
    };
    let plot =
        Plot { jobs, comings: &comings, measure_from_ms, patience: &patience, policy: case.policy };
    let counted = play(bed, &plot)?;
    Ok(Some(row(workload, case, capacity, &counted)))
}

fn row(workload: &str, case: &Case, capacity: u64, counted: &Counted) -> Row {
    let whole = capacity as f64 * counted.span_ms.max(1) as f64;
    let sum = |of: fn(&Tally) -> f64| counted.classes.iter().map(of).sum::<f64>();
    let asked = sum(|tally| tally.asked_milli as f64);
    let waits: Vec<f64> =
        counted.classes.iter().flat_map(|tally| tally.waits_s.iter().copied()).collect();
    let slowdowns = sum(|tally| tally.slowdowns.iter().sum());
    let started = sum(|tally| tally.slowdowns.len() as f64);
    let classes = CLASSES.iter().zip(&counted.classes).map(|(gpus, tally)| Class {
        gpus,
        jobs: tally.jobs,
        refused_percent: percent(tally.refused_milli as f64, tally.asked_milli as f64),
        waiting_percent: percent(tally.waiting_milli_ms, whole),
        wait_p95_s: quantile(&tally.waits_s, 0.95),
    });
    Row {
        workload: workload.to_owned(),
        policy: case.policy,
        seed: case.seed,
        load: case.load,
        pattern: case.pattern,
        durations: case.durations,
        service: case.service,
        allocated_percent: percent(counted.allocated_milli_ms, whole),
        refused_percent: percent(sum(|tally| tally.refused_milli as f64), asked),
        waiting_percent: percent(sum(|tally| tally.waiting_milli_ms), whole),
        refused_time_percent: percent(counted.refused_milli_ms, counted.asked_milli_ms),
        waiting_work_h: counted.waiting_work_ms / whole / MS_PER_H,
        wait_p50_s: quantile(&waits, 0.5),
        wait_p95_s: quantile(&waits, 0.95),
        wait_p99_s: quantile(&waits, 0.99),
        bounded_slowdown_mean: slowdowns / started.max(1.0),
        classes: classes.collect(),
    }
}

/// `part` of `whole` in per cent; 0 of nothing.
pub(super) fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part * 100.0 / whole } else { 0.0 }
}

/// The smallest value that at least this share of all does not exceed; 0 without values.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}
