//! Gangs: large gangs among single jobs. What a policy does with single jobs decides how many
//! whole machines are left for gangs.
//!
//! Single jobs of the workload come and go with exponential durations, and go away if they do not
//! fit; gangs of 64 to 1,024 GPUs come with the sizes and durations of a trace of training jobs,
//! and wait for some hours.
//! **Invariant:** the same seed gives every policy the same arrivals, durations and node order.

use super::by_name;
use super::fleet::{Bed, BedError};
use super::load::{Durations, Pattern, Source};
use super::run::{Patience, Plot, Tally, run as play};
use super::steady::{percent, quantile};
use crate::trace::{TraceJob, TraceNode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use scheduler_core::plan::Policy;
use serde::Serialize;

/// Sizes of gangs taken from the trace, in thousandths of GPUs.
const GANG_MILLI: std::ops::RangeInclusive<u64> = 64_000..=1_024_000;
/// A gang gives up after this time.
const PATIENCE_MS: u64 = 6 * 3_600_000;
/// CPU of a gang's replica per GPU: the trace's own machines have more of it than openb's.
const CPU_MILLI_PER_GPU_MAX: u64 = 8_000;
/// Part of the time that is not counted, at the beginning.
const WARM_UP: f64 = 0.1;

/// A case.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Case {
    pub policy: Policy,
    pub seed: u64,
    /// Offered load of single jobs.
    pub singles_load: f64,
    /// Offered load of gangs.
    pub gangs_load: f64,
    /// Gangs that come.
    pub gangs: usize,
}

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    pub workload: String,
    #[serde(serialize_with = "by_name")]
    pub policy: Policy,
    pub seed: u64,
    pub singles_load: f64,
    pub gangs_load: f64,
    /// GPU time allocated, in per cent of the fleet's.
    pub allocated_percent: f64,
    /// GPU time allocated to single jobs, in per cent of the fleet's.
    pub singles_allocated_percent: f64,
    /// Thousandths of GPUs of single jobs refused, in per cent of those asked for.
    pub singles_refused_percent: f64,
    pub gangs: u64,
    /// Of the gangs that were placed or gave up, those that were placed, in per cent; the others still
    /// waited at the end.
    pub gangs_accepted_percent: f64,
    pub gangs_wait_mean_s: f64,
    /// Gangs of at least 256 GPUs.
    pub large_gangs: u64,
    pub large_accepted_percent: f64,
    pub large_wait_mean_s: f64,
    pub large_wait_p95_s: f64,
}

/// Gangs of the wanted sizes, fitted to machines with less CPU per GPU.
pub fn fitted(gangs: &[TraceJob]) -> Vec<TraceJob> {
    let fitting = gangs.iter().filter(|gang| {
        GANG_MILLI.contains(&gang.total_milli()) && gang.replicas > 1 && gang.shape.gpus > 0
    });
    let fit = |gang: &TraceJob| {
        let mut gang = gang.clone();
        let most = u64::from(gang.shape.gpus) * CPU_MILLI_PER_GPU_MAX;
        gang.shape.cpu_milli = gang.shape.cpu_milli.min(most);
        gang
    };
    fitting.map(fit).collect()
}

/// Runs a case; `None` if there are no gangs of the wanted sizes with durations.
pub fn run(
    workload: &str,
    nodes: &[TraceNode],
    singles: &[TraceJob],
    gangs: &[TraceJob],
    case: &Case,
) -> Result<Option<Row>, BedError> {
    let gangs = fitted(gangs);
    let (Some(single_source), Some(gang_source)) =
        (Source::new(singles, Durations::Exponential), Source::new(&gangs, Durations::Trace))
    else {
        return Ok(None);
    };
    let mut rng = StdRng::seed_from_u64(case.seed);
    let bed = Bed::shuffled(nodes, singles, case.policy, &mut rng)?;
    let capacity = bed.gpu_milli;
    let gang_rate = gang_source.rate(capacity, case.gangs_load);
    let single_rate = single_source.rate(capacity, case.singles_load);
    let mut coming_gangs = gang_source.arrivals(gang_rate, Pattern::Poisson, case.gangs, &mut rng);
    let end_ms = coming_gangs.last().map_or(0, |last| last.at_ms);
    let count = (single_rate * end_ms as f64 / 1_000.0) as usize;
    for coming in &mut coming_gangs {
        coming.job += singles.len();
    }
    let mut arrivals = single_source.arrivals(single_rate, Pattern::Poisson, count, &mut rng);
    arrivals.extend(coming_gangs);
    arrivals.sort_by_key(|coming| (coming.at_ms, coming.job));
    let mut comings = single_source.residents(single_rate, &mut rng);
    comings.extend(arrivals);
    let jobs: Vec<TraceJob> = singles.iter().chain(&gangs).cloned().collect();
    let patience = |job: &TraceJob| match job.replicas {
        0 | 1 => Patience::None,
        _ => Patience::Ms(PATIENCE_MS),
    };
    let measure_from_ms = (end_ms as f64 * WARM_UP) as u64;
    let plot = Plot {
        jobs: &jobs,
        comings: &comings,
        measure_from_ms,
        patience: &patience,
        policy: case.policy,
    };
    let counted = play(bed, &plot)?;
    let whole = capacity as f64 * counted.span_ms.max(1) as f64;
    let [shares, ones, some, eights, all_gangs] = &counted.classes;
    let small = [shares, ones, some, eights];
    let large = &counted.large;
    let asked: u64 = small.iter().map(|tally| tally.asked_milli).sum();
    let refused: u64 = small.iter().map(|tally| tally.refused_milli).sum();
    let mean = |values: &[f64]| values.iter().fold(0.0, |a, b| a + b) / values.len().max(1) as f64;
    let accepted = |tally: &Tally| {
        let decided = tally.placed_jobs + tally.refused_jobs;
        percent(tally.placed_jobs as f64, decided as f64)
    };
    Ok(Some(Row {
        workload: workload.to_owned(),
        policy: case.policy,
        seed: case.seed,
        singles_load: case.singles_load,
        gangs_load: case.gangs_load,
        allocated_percent: percent(counted.allocated_milli_ms, whole),
        singles_allocated_percent: percent(counted.single_milli_ms, whole),
        singles_refused_percent: percent(refused as f64, asked as f64),
        gangs: all_gangs.jobs,
        gangs_accepted_percent: accepted(all_gangs),
        gangs_wait_mean_s: mean(&all_gangs.waits_s),
        large_gangs: large.jobs,
        large_accepted_percent: accepted(large),
        large_wait_mean_s: mean(&large.waits_s),
        large_wait_p95_s: quantile(&large.waits_s, 0.95),
    }))
}
