//! Load: arrivals with their durations, for a wanted share of the fleet, and who is there at the
//! start.
//!
//! **Invariant:** follows from the jobs, the capacity and the seed.

use crate::trace::TraceJob;
use rand::RngExt;
use rand::rngs::StdRng;
use serde::Serialize;
use std::ops::Range;

/// How jobs come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pattern {
    /// One by one, at one rate.
    Poisson,
    /// In bunches of four on average, in busy and quiet spells: an index of dispersion of about
    /// 6 over an hour, as the openb trace has.
    Bursty,
}

/// How long jobs run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Durations {
    /// As long as they ran in the trace; those that never ran there as long as any other.
    Trace,
    /// Exponential with a mean of [`MEAN_S`], whatever the job.
    Exponential,
}

impl Pattern {
    pub const ALL: [Self; 2] = [Self::Poisson, Self::Bursty];
}

impl Durations {
    pub const ALL: [Self; 2] = [Self::Exponential, Self::Trace];
}

/// Mean of exponential durations in seconds: that of the openb trace.
const MEAN_S: f64 = 28_949.0;
/// Jobs of a bunch.
const BUNCH: f64 = 4.0;
/// Rate in busy and in quiet spells over the mean rate, as hours of a day differ in the traces.
const SPELL_RATES: [f64; 2] = [1.7, 0.3];
/// Mean length of a spell over the mean duration of a job.
const SPELL: f64 = 0.25;

/// One arrival.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Coming {
    pub(super) at_ms: u64,
    /// Position in the list of jobs.
    pub(super) job: usize,
    pub(super) runs_ms: u64,
}

impl Coming {
    /// Thousandths of GPUs times the milliseconds that they run.
    pub(super) fn work(&self, job: &TraceJob) -> u64 {
        job.total_milli().saturating_mul(self.runs_ms)
    }

    /// Milliseconds of the span in which it runs, if it starts as it comes.
    pub(super) fn runs_within(&self, span: &Range<u64>) -> u64 {
        let end = self.at_ms.saturating_add(self.runs_ms).min(span.end);
        end.saturating_sub(self.at_ms.max(span.start))
    }
}

/// Jobs with weights for being drawn, and how long each runs.
pub(super) struct Source<'a> {
    jobs: &'a [TraceJob],
    durations: Durations,
    /// Durations that the trace knows, in milliseconds.
    known_ms: Vec<u64>,
}

impl<'a> Source<'a> {
    /// `None` if durations of the trace are wanted and it has none.
    pub(super) fn new(jobs: &'a [TraceJob], durations: Durations) -> Option<Self> {
        let known_ms: Vec<u64> =
            jobs.iter().filter_map(|job| job.duration).map(|duration| duration.0).collect();
        let usable = durations == Durations::Exponential || !known_ms.is_empty();
        (usable && !jobs.is_empty()).then_some(Self { jobs, durations, known_ms })
    }

    fn known_mean_s(&self) -> f64 {
        let sum_ms = self.known_ms.iter().map(|&ms| ms as f64).sum::<f64>();
        sum_ms / 1_000.0 / self.known_ms.len().max(1) as f64
    }

    /// Mean duration of the job in seconds.
    fn mean_s(&self, job: &TraceJob) -> f64 {
        match (self.durations, job.duration) {
            (Durations::Exponential, _) => MEAN_S,
            (Durations::Trace, Some(duration)) => duration.0 as f64 / 1_000.0,
            (Durations::Trace, None) => self.known_mean_s(),
        }
    }

    fn duration_ms(&self, job: &TraceJob, rng: &mut StdRng) -> u64 {
        match (self.durations, job.duration) {
            (Durations::Exponential, _) => ms(exponential(MEAN_S, rng)),
            (Durations::Trace, Some(duration)) => duration.0,
            (Durations::Trace, None) => self
                .known_ms
                .get(rng.random_range(0..self.known_ms.len().max(1)))
                .copied()
                .unwrap_or(1),
        }
    }

    /// Arrivals per second that keep this share of the capacity busy, if all are placed.
    pub(super) fn rate(&self, capacity: u64, load: f64) -> f64 {
        let work = |job: &TraceJob| job.total_milli() as f64 * self.mean_s(job);
        let mean = self.jobs.iter().map(work).sum::<f64>() / self.jobs.len() as f64;
        capacity as f64 * load / mean.max(1.0)
    }

    /// Mean duration over all jobs in seconds.
    pub(super) fn mean_all_s(&self) -> f64 {
        self.jobs.iter().map(|job| self.mean_s(job)).sum::<f64>() / self.jobs.len() as f64
    }

    /// Who would be there in the long run, each with what is left of its duration: jobs in
    /// proportion to how long they run, at a random time of their run.
    pub(super) fn residents(&self, rate: f64, rng: &mut StdRng) -> Vec<Coming> {
        let mut sums = Vec::with_capacity(self.jobs.len());
        let mut sum = 0.0;
        for job in self.jobs {
            sum += self.mean_s(job);
            sums.push(sum);
        }
        let count = rate * self.mean_all_s();
        let mut list = Vec::new();
        for _ in 0..count.round() as usize {
            let drawn = rng.random::<f64>() * sum;
            let job = sums.partition_point(|&end| end <= drawn).min(self.jobs.len() - 1);
            let Some(found) = self.jobs.get(job) else { continue };
            let runs_ms = match self.durations {
                // An exponential does not age.
                Durations::Exponential => ms(exponential(MEAN_S, rng)),
                Durations::Trace => {
                    (self.duration_ms(found, rng) as f64 * rng.random::<f64>()) as u64
                }
            };
            list.push(Coming { at_ms: 0, job, runs_ms: runs_ms.max(1) });
        }
        list
    }

    /// So many arrivals at this mean rate.
    pub(super) fn arrivals(
        &self,
        rate: f64,
        pattern: Pattern,
        count: usize,
        rng: &mut StdRng,
    ) -> Vec<Coming> {
        let mut list = Vec::with_capacity(count);
        let mut now_s = 0.0;
        let spell_s = SPELL * self.mean_all_s();
        let mut spell = 0usize;
        let mut spell_ends_s = exponential(spell_s, rng);
        while list.len() < count {
            let (mean_s, bunch) = match pattern {
                Pattern::Poisson => (1.0 / rate, 1),
                Pattern::Bursty => {
                    let factor = SPELL_RATES.get(spell).copied().unwrap_or(1.0);
                    (BUNCH / (rate * factor), geometric(BUNCH, rng))
                }
            };
            let next_s = now_s + exponential(mean_s, rng);
            if pattern == Pattern::Bursty && next_s > spell_ends_s {
                // Nothing is remembered across the change of rate, as in any Poisson process.
                now_s = spell_ends_s;
                spell = 1 - spell;
                spell_ends_s = now_s + exponential(spell_s, rng);
                continue;
            }
            now_s = next_s;
            for _ in 0..bunch.min(count - list.len()) {
                let job = rng.random_range(0..self.jobs.len());
                let Some(found) = self.jobs.get(job) else { continue };
                let runs_ms = self.duration_ms(found, rng);
                list.push(Coming { at_ms: ms(now_s), job, runs_ms });
            }
        }
        list
    }
}

fn ms(seconds: f64) -> u64 {
    ((seconds * 1_000.0) as u64).max(1)
}

fn exponential(mean: f64, rng: &mut StdRng) -> f64 {
    -mean * (1.0 - rng.random::<f64>()).ln()
}

/// 1 or more, with this mean.
fn geometric(mean: f64, rng: &mut StdRng) -> usize {
    let again = 1.0 - 1.0 / mean;
    let mut count = 1;
    while rng.random::<f64>() < again {
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::TraceShape;
    use rand::SeedableRng;
    use scheduler_core::unit::DurationMs;

    fn job(gpus: u32, duration_s: Option<u64>) -> TraceJob {
        let shape =
            TraceShape { cpu_milli: 1, memory_mib: 1, gpus, gpu_milli: 1_000, models: Vec::new() };
        let duration = duration_s.map(|seconds| DurationMs(seconds * 1_000));
        TraceJob { name: "j".to_owned(), replicas: 1, shape, duration, ..TraceJob::default() }
    }

    #[test]
    fn rate_and_residents_make_the_load() {
        let jobs = [job(1, Some(100)), job(3, Some(300)), job(2, None)];
        let source = Source::new(&jobs, Durations::Trace).expect("durations are known");
        // Mean work: (1 * 100 + 3 * 300 + 2 * 200) / 3 = 466.67 GPU seconds; 0.5 * 100 GPUs of it.
        let rate = source.rate(100_000, 0.5);
        assert!((rate - 50.0 / (1_400.0 / 3.0)).abs() < 1e-9, "{rate}");
        let mut rng = StdRng::seed_from_u64(1);
        let held: u64 = (0..200)
            .flat_map(|_| source.residents(rate, &mut rng))
            .map(|coming| jobs[coming.job].total_milli())
            .sum();
        let mean = held as f64 / 200.0;
        assert!((48_000.0..52_000.0).contains(&mean), "{mean} of 50,000");
        assert!(Source::new(&jobs[2..], Durations::Trace).is_none());
    }

    #[test]
    fn bursts_keep_the_rate_and_spread_the_counts() {
        let jobs = [job(1, Some(100))];
        let source = Source::new(&jobs, Durations::Exponential).expect("needs no durations");
        let dispersion = |pattern| {
            let mut rng = StdRng::seed_from_u64(2);
            let list = source.arrivals(1.0, pattern, 400_000, &mut rng);
            let hours = list.last().map_or(0, |last| last.at_ms / 3_600_000);
            let mut counts = vec![0.0f64; hours as usize];
            for coming in &list {
                if let Some(count) = counts.get_mut((coming.at_ms / 3_600_000) as usize) {
                    *count += 1.0;
                }
            }
            let mean = counts.iter().sum::<f64>() / counts.len() as f64;
            let variance = counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>();
            (mean, variance / counts.len() as f64 / mean)
        };
        let (mean, poisson) = dispersion(Pattern::Poisson);
        assert!((3_400.0..3_800.0).contains(&mean) && poisson < 2.0, "{mean} {poisson}");
        let (mean, bursty) = dispersion(Pattern::Bursty);
        assert!((2_700.0..4_700.0).contains(&mean) && bursty > 6.0, "{mean} {bursty}");
    }
}
