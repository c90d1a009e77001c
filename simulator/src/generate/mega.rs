//! The mega tail: gangs of 64 to 1,024 GPUs, after the large jobs of Acme's Kalos cluster (Hu et
//! al., NSDI 2024).
//!
//! Of that trace's completed training jobs 22.9 per cent have 512 GPUs, 16.3 have 256, 11.9 have
//! 1,024 and 6.9 have 64. Few jobs of a cluster are this large (1.2 per cent over 32 GPUs in Seren,
//! 5.4 in Kalos), but they take 81 and 98 per cent of its GPU time.
//! **Invariant:** replicas are whole machines of 8 GPUs.

use super::jobs::seconds;
use super::{Arrivals, Draw};
use crate::trace::{TraceJob, TraceShape};

/// GPUs by their share of a thousand jobs of the trace; the rest of its jobs are small.
const GPUS: [(u32, u32); 10] = [
    (64, 69),
    (96, 9),
    (128, 9),
    (256, 163),
    (296, 3),
    (320, 3),
    (496, 13),
    (504, 22),
    (512, 229),
    (1_024, 122),
];
const GPUS_PER_REPLICA: u32 = 8;
/// Cores per GPU of most of these jobs, and the median memory per GPU of openb, as the trace has
/// none.
const CPU_MILLI_PER_GPU: u64 = 15_000;
const MEMORY_MIB_PER_GPU: u64 = 31_232;
/// Median seconds by size, up to so many GPUs, and the spread of the logarithm: many end at once, a
/// few run for days.
const MEDIAN_S: [(u32, f64); 3] = [(256, 362.0), (512, 907.0), (u32::MAX, 108.0)];
const SIGMA: f64 = 2.67;

/// So many gangs by rising time, one by one in quiet and busy spells.
pub fn gangs(count: usize, per_hour: f64, seed: u64) -> Vec<TraceJob> {
    let arrivals = Arrivals { per_hour, dispersion: 2.0, bunch: 1.0 };
    let times = arrivals.times(count, &mut Draw::new(seed, "mega-arrivals"));
    let mut draw = Draw::new(seed, "mega");
    let jobs = times.into_iter().enumerate().map(|(number, at)| {
        let gpus = draw.weighed(&GPUS).copied().unwrap_or(512);
        let median_s =
            MEDIAN_S.iter().find(|(most, _)| gpus <= *most).map_or(362.0, |(_, median)| *median);
        TraceJob {
            name: format!("mega-{number}"),
            replicas: gpus / GPUS_PER_REPLICA,
            shape: TraceShape {
                cpu_milli: CPU_MILLI_PER_GPU * u64::from(GPUS_PER_REPLICA),
                memory_mib: MEMORY_MIB_PER_GPU * u64::from(GPUS_PER_REPLICA),
                gpus: GPUS_PER_REPLICA,
                gpu_milli: 1_000,
                models: Vec::new(),
            },
            submit: Some(at),
            duration: Some(seconds(draw.lognormal(median_s, SIGMA))),
            ..TraceJob::default()
        }
    });
    jobs.collect()
}

#[cfg(test)]
mod tests {
    use super::super::jobs::{Profile, jobs};
    use super::*;

    #[test]
    fn sizes_are_as_published() {
        let gangs = gangs(20_000, 1.0, 9);
        let large: u32 = GPUS.iter().map(|(_, weight)| weight).sum();
        for (gpus, percent) in [(512, 22.9), (256, 16.3), (1_024, 11.9), (64, 6.9)] {
            let found = gangs.iter().filter(|gang| gang.total_milli() == gpus * 1_000).count();
            // Per cent of all jobs of the trace, of which the large ones are a part.
            let found = found as f64 / gangs.len() as f64 * f64::from(large) / 10.0;
            assert!((found / percent - 1.0).abs() < 0.07, "{gpus} GPUs: {found}, not {percent}");
        }
    }

    #[test]
    fn few_gangs_take_most_of_the_gpu_time() {
        let work = |jobs: &[TraceJob]| {
            let one = |job: &TraceJob| {
                job.total_milli() as f64 * job.duration.map_or(0.0, |ran| ran.0 as f64)
            };
            jobs.iter().map(one).sum::<f64>() / jobs.len() as f64
        };
        let small = work(&jobs(Profile::Openb, 100_000, None, 2));
        let large = work(&gangs(100_000, 1.0, 2));
        // Seren and Kalos: jobs over 32 GPUs, and their GPU time.
        for (of_jobs, published) in [(0.012, 0.81), (0.054, 0.98)] {
            let share = large * of_jobs / (large * of_jobs + small * (1.0 - of_jobs));
            assert!((share - published).abs() < 0.1, "{of_jobs} of the jobs take {share}");
        }
    }
}
