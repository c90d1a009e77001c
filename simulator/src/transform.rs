//! Changing a trace before it is replayed: faster or slower, more or fewer jobs, a part of it,
//! several together.
//!
//! Two ways to raise the load, as they strain a scheduler differently: [`more_arrivals`] adds copies
//! of jobs and keeps the length of the trace; [`shorter_gaps`] keeps the jobs and makes the trace
//! shorter. [`scale_time`] does neither: it stretches gaps and durations alike.
//! **Invariant:** jobs come out by rising time of submission, names stay unique, and what a job asks
//! for never changes; jobs without a time stay without.

use crate::generate::Draw;
use crate::trace::{ROWS_MAX, TraceJob, by_time};
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Copies of a job come within so long after it: the same hour of the day, not the same bunch.
const COPY_WITHIN_MS: u64 = 3_600_000;
/// Most that times or numbers of jobs are multiplied or divided by.
pub const FACTOR_MAX: f64 = 10_000.0;

/// Why a trace cannot be changed so.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum TransformError {
    #[error("a factor of {factor} is not between 1/{FACTOR_MAX} and {FACTOR_MAX}")]
    Factor { factor: f64 },
    #[error("a share of {share} is not between 0 and 1")]
    Share { share: f64 },
    #[error("no job of the trace asks for a GPU; there is nothing to inflate")]
    NoDemand,
    #[error("that would be more than {ROWS_MAX} jobs")]
    TooManyJobs,
}

fn factor(factor: f64) -> Result<f64, TransformError> {
    let usual = (1.0 / FACTOR_MAX..=FACTOR_MAX).contains(&factor);
    usual.then_some(factor).ok_or(TransformError::Factor { factor })
}

/// Held at what is a millisecond below the largest.
fn scaled(ms: u64, by: f64) -> u64 {
    (ms as f64 * by).round() as u64
}

/// All times, gaps and durations, times this: the same load, played slower (above 1) or faster.
pub fn scale_time(mut jobs: Vec<TraceJob>, by: f64) -> Result<Vec<TraceJob>, TransformError> {
    let by = factor(by)?;
    let longer = |duration: DurationMs| DurationMs(scaled(duration.0, by).max(1));
    for job in &mut jobs {
        job.submit = job.submit.map(|at| TimeMs(scaled(at.0, by)));
        job.duration = job.duration.map(longer);
        if let Some(spec) = job.spec.as_mut().filter(|spec| spec.duration.is_some()) {
            let spec = Arc::make_mut(spec);
            spec.duration = spec.duration.map(longer);
        }
    }
    Ok(jobs)
}

/// The load times this by the gaps between jobs, which are divided by it; durations stay.
pub fn shorter_gaps(mut jobs: Vec<TraceJob>, load: f64) -> Result<Vec<TraceJob>, TransformError> {
    let load = factor(load)?;
    for job in &mut jobs {
        job.submit = job.submit.map(|at| TimeMs(scaled(at.0, 1.0 / load)));
    }
    Ok(jobs)
}

/// The load times this by the number of jobs: copies of jobs come within an hour after them, or
/// jobs are left out.
pub fn more_arrivals(
    jobs: Vec<TraceJob>,
    load: f64,
    seed: u64,
) -> Result<Vec<TraceJob>, TransformError> {
    let load = factor(load)?;
    if load <= 1.0 {
        return sample(jobs, load, seed);
    }
    let wanted = jobs.len() as f64 * load;
    if wanted > ROWS_MAX as f64 {
        return Err(TransformError::TooManyJobs);
    }
    let mut draw = Draw::new(seed, "more-arrivals");
    let mut names = Names::of(&jobs);
    // Every job as often as the whole part says, some of them once more.
    let whole = load.floor() as usize;
    let mut more = vec![whole - 1; jobs.len()];
    let rest = (wanted.round() as usize).saturating_sub(jobs.len() * whole);
    for at in chosen(jobs.len(), rest, &mut draw) {
        if let Some(times) = more.get_mut(at) {
            *times += 1;
        }
    }
    let mut copies = Vec::new();
    for (job, times) in jobs.iter().zip(more) {
        for _ in 0..times {
            let later = |at: TimeMs| TimeMs(at.0 + draw.below(COPY_WITHIN_MS));
            copies.push(TraceJob {
                name: names.copy(&job.name),
                submit: job.submit.map(later),
                ..job.clone()
            });
        }
    }
    Ok(by_time(jobs.into_iter().chain(copies).collect()))
}

/// So that all jobs together ask for this share of the capacity, as in the experiments of Weng et
/// al. (USENIX ATC 2023): copies of random jobs are added, or random jobs left out, until one more
/// would be too much. Copies come at the time of their original.
pub fn inflate(
    mut jobs: Vec<TraceJob>,
    capacity_gpu_milli: u64,
    percent: u64,
    seed: u64,
) -> Result<Vec<TraceJob>, TransformError> {
    let mut asked = demand(&jobs);
    if asked == 0 {
        return Err(TransformError::NoDemand);
    }
    let most = u128::from(capacity_gpu_milli) * u128::from(percent) / 100;
    let mut draw = Draw::new(seed, "inflate");
    while asked > most && !jobs.is_empty() {
        let gone = jobs.remove(draw.below(jobs.len() as u64) as usize);
        asked -= u128::from(gone.total_milli());
    }
    let originals = jobs.len() as u64;
    if asked == 0 {
        return Ok(jobs);
    }
    let mut names = Names::of(&jobs);
    while let Some(original) = jobs.get(draw.below(originals) as usize) {
        asked += u128::from(original.total_milli());
        if asked > most {
            break;
        }
        if jobs.len() as u64 >= ROWS_MAX {
            return Err(TransformError::TooManyJobs);
        }
        jobs.push(TraceJob { name: names.copy(&original.name), ..original.clone() });
    }
    Ok(by_time(jobs))
}

/// Thousandths of GPUs that all jobs ask for together.
fn demand(jobs: &[TraceJob]) -> u128 {
    jobs.iter().map(|job| u128::from(job.total_milli())).sum()
}

/// Random ones of the jobs: this share of them, to the nearest whole number.
pub fn sample(jobs: Vec<TraceJob>, share: f64, seed: u64) -> Result<Vec<TraceJob>, TransformError> {
    if !(0.0..=1.0).contains(&share) {
        return Err(TransformError::Share { share });
    }
    let wanted = (jobs.len() as f64 * share).round() as usize;
    let kept = chosen(jobs.len(), wanted, &mut Draw::new(seed, "sample"));
    let mut kept = kept.into_iter().peekable();
    let all = jobs.into_iter().enumerate();
    Ok(all.filter(|(at, _)| kept.next_if_eq(at).is_some()).map(|(_, job)| job).collect())
}

/// So many of the numbers below `of`, rising (Knuth, algorithm S).
fn chosen(of: usize, wanted: usize, draw: &mut Draw) -> Vec<usize> {
    let mut numbers = Vec::with_capacity(wanted.min(of));
    for at in 0..of {
        let (left, missing) = (of - at, wanted.saturating_sub(numbers.len()));
        if (draw.below(left as u64) as usize) < missing {
            numbers.push(at);
        }
    }
    numbers
}

/// All jobs of several traces, each from its own beginning.
pub fn merge(traces: Vec<Vec<TraceJob>>) -> Vec<TraceJob> {
    let mut names = Names::default();
    let mut all: Vec<TraceJob> = traces.into_iter().flatten().collect();
    for job in &mut all {
        if !names.used.insert(job.name.clone()) {
            job.name = names.copy(&job.name);
        }
    }
    by_time(all)
}

/// Jobs submitted at `from` or later and before `to`, at their times. Jobs without a time go.
pub fn clip(mut jobs: Vec<TraceJob>, from: TimeMs, to: TimeMs) -> Vec<TraceJob> {
    jobs.retain(|job| job.submit.is_some_and(|at| (from..to).contains(&at)));
    jobs
}

/// So that the first job comes at this time; gaps stay.
pub fn shift(mut jobs: Vec<TraceJob>, to: TimeMs) -> Vec<TraceJob> {
    let Some(first) = jobs.iter().filter_map(|job| job.submit).min() else { return jobs };
    for job in &mut jobs {
        job.submit = job.submit.map(|at| at.saturating_sub(first).saturating_add(to));
    }
    jobs
}

/// Names in use.
#[derive(Default)]
struct Names {
    used: BTreeSet<String>,
    copies: u64,
}

impl Names {
    fn of(jobs: &[TraceJob]) -> Self {
        Self { used: jobs.iter().map(|job| job.name.clone()).collect(), copies: 0 }
    }

    /// A name that is free, for a copy of a job.
    fn copy(&mut self, name: &str) -> String {
        // The copy of a copy is one of the original.
        let stem = name.split('~').next().unwrap_or(name);
        loop {
            self.copies += 1;
            let copy = format!("{stem}~{}", self.copies);
            if self.used.insert(copy.clone()) {
                return copy;
            }
        }
    }
}

#[cfg(test)]
mod tests;
