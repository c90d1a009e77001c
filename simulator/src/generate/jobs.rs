//! Jobs of two kinds of clusters, after published statistics of their traces.
//!
//! `Openb` is a shared cluster for inference and small training (Alibaba, Weng et al., USENIX ATC
//! 2023): 86 of 100 jobs ask for one GPU, 44 of 100 of these for a share of it; a third of all GPU
//! jobs name the models that would do; CPU and memory per GPU spread widely. `Philly` is a training
//! cluster (Microsoft, Jeon et al., USENIX ATC 2019): whole GPUs, 93 of 100 jobs with one, in
//! virtual clusters of very different sizes; the logarithm of a duration in seconds has a mean of
//! 6.79 and a spread of 2.16, and medians rise with size.
//! **Invariant:** no job of over 32 GPUs: those come from [`super::mega`].

use super::{Arrivals, Draw};
use crate::trace::{TraceJob, TraceShape};
use scheduler_core::unit::DurationMs;

/// Whose jobs to imitate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    Openb,
    Philly,
}

/// GPUs by their share of a hundred thousand jobs: openb's default workload.
const OPENB_GPUS: [(u32, u32); 5] = [(0, 13_346), (1, 85_734), (2, 196), (4, 184), (8, 540)];
/// Thousandths of a GPU by their share of ten thousand one-GPU jobs there.
const OPENB_MILLI: [(u32, u32); 14] = [
    (1_000, 5_600),
    (810, 1_542),
    (470, 1_073),
    (320, 469),
    (650, 362),
    (230, 200),
    (460, 183),
    (590, 107),
    (160, 106),
    (550, 103),
    (220, 89),
    (370, 67),
    (110, 54),
    (480, 45),
];
/// How many of a hundred GPU jobs name models, and which: openb's workload `gpuspec33`.
const NAME_MODELS: f64 = 0.33;
const OPENB_MODELS: [(&[&str], u32); 8] = [
    (&["T4"], 355),
    (&["G2"], 120),
    (&["P100"], 100),
    (&["V100M16", "V100M32"], 61),
    (&["P100", "V100M16", "V100M32"], 26),
    (&["G2", "P100", "T4", "V100M16", "V100M32"], 25),
    (&["G3"], 17),
    (&["P100", "V100M16"], 6),
];
/// Cores and GiB of memory per GPU by quantile (0, 5, 25, 50, 75, 95, 100 per cent).
const CORES: [(f64, f64); 7] =
    [(0.0, 1.0), (0.05, 3.2), (0.25, 4.0), (0.5, 9.8), (0.75, 11.9), (0.95, 16.4), (1.0, 32.0)];
const MEMORY_GIB: [(f64, f64); 7] =
    [(0.0, 2.0), (0.05, 5.5), (0.25, 10.4), (0.5, 30.5), (0.75, 47.0), (0.95, 63.0), (1.0, 128.0)];
/// How much memory a replica can do without beyond what its CPU tells: half of the jobs take both
/// from the same quantile.
const ALIKE: f64 = 0.5;
/// Seconds that jobs of openb ran, by quantile; some services run for the whole trace.
const OPENB_S: [(f64, f64); 10] = [
    (0.0, 10.0),
    (0.01, 20.0),
    (0.05, 48.0),
    (0.25, 184.0),
    (0.5, 640.0),
    (0.75, 2_280.0),
    (0.9, 7_600.0),
    (0.95, 16_500.0),
    (0.99, 120_000.0),
    (1.0, 5_000_000.0),
];
/// GPUs of Philly's jobs by their share of ten thousand.
const PHILLY_GPUS: [(u32, u32); 6] = [(1, 9_318), (2, 221), (4, 228), (8, 201), (16, 24), (32, 8)];
/// Of those that do not fail early: median seconds and spread of the logarithm, by GPUs.
const PHILLY_S: [(u32, f64, f64); 6] = [
    (1, 1_480.0, 1.45),
    (2, 99.0, 3.0),
    (4, 24_300.0, 2.0),
    (8, 34_500.0, 2.0),
    (16, 73_000.0, 2.0),
    (32, 20_000.0, 2.0),
];
/// Jobs that fail early, and how soon.
const FAILING: f64 = 0.13;
const FAILING_S: (f64, f64) = (18.0, 1.2);
/// Philly's virtual clusters by their share of a thousand jobs.
const PHILLY_TENANTS: [(&str, u32); 11] = [
    ("vc-0", 501),
    ("vc-1", 196),
    ("vc-2", 121),
    ("vc-3", 90),
    ("vc-4", 24),
    ("vc-5", 18),
    ("vc-6", 17),
    ("vc-7", 14),
    ("vc-8", 9),
    ("vc-9", 5),
    ("vc-10", 5),
];

impl Profile {
    pub const ALL: [Self; 2] = [Self::Openb, Self::Philly];

    pub fn name(self) -> &'static str {
        match self {
            Self::Openb => "openb",
            Self::Philly => "philly",
        }
    }

    /// How its jobs come: jobs an hour and dispersion of the trace, and jobs of one second.
    pub fn arrivals(self) -> Arrivals {
        match self {
            Self::Openb => Arrivals { per_hour: 2.28, dispersion: 6.0, bunch: 1.05 },
            Self::Philly => Arrivals { per_hour: 31.5, dispersion: 161.0, bunch: 1.15 },
        }
    }
}

/// So many jobs of a profile by rising time. A rate other than the trace's keeps the hours' relative
/// spread, and so its dispersion grows with it.
pub fn jobs(profile: Profile, count: usize, per_hour: Option<f64>, seed: u64) -> Vec<TraceJob> {
    let mut arrivals = profile.arrivals();
    if let Some(per_hour) = per_hour {
        arrivals.dispersion = 1.0 + (arrivals.dispersion - 1.0) * per_hour / arrivals.per_hour;
        arrivals.per_hour = per_hour;
    }
    let times = arrivals.times(count, &mut Draw::new(seed, "arrivals"));
    let mut draw = Draw::new(seed, profile.name());
    let jobs = times.into_iter().enumerate().map(|(number, at)| {
        let job = match profile {
            Profile::Openb => openb(&mut draw),
            Profile::Philly => philly(&mut draw),
        };
        TraceJob { name: format!("{}-{number}", profile.name()), submit: Some(at), ..job }
    });
    jobs.collect()
}

fn openb(draw: &mut Draw) -> TraceJob {
    let gpus = draw.weighed(&OPENB_GPUS).copied().unwrap_or(1);
    let gpu_milli = match gpus {
        0 => 0,
        1 => draw.weighed(&OPENB_MILLI).copied().unwrap_or(1_000),
        _ => 1_000,
    };
    let mut models = Vec::new();
    if gpus > 0 && draw.chance(NAME_MODELS) {
        let named = draw.weighed(&OPENB_MODELS).copied().unwrap_or_default();
        models.extend(named.iter().map(|&model| model.to_owned()));
    }
    let mut other = draw.clone();
    let cores = draw.quantiles(&CORES);
    let gib =
        if draw.chance(ALIKE) { other.quantiles(&MEMORY_GIB) } else { draw.quantiles(&MEMORY_GIB) };
    let parts = f64::from(gpus.max(1));
    TraceJob {
        replicas: 1,
        shape: TraceShape {
            cpu_milli: (cores * parts * 10.0).round() as u64 * 100,
            memory_mib: (gib * parts * 1_024.0).round() as u64,
            gpus,
            gpu_milli,
            models,
        },
        duration: Some(seconds(draw.quantiles(&OPENB_S))),
        ..TraceJob::default()
    }
}

fn philly(draw: &mut Draw) -> TraceJob {
    let gpus = draw.weighed(&PHILLY_GPUS).copied().unwrap_or(1);
    let (_, median_s, sigma) =
        PHILLY_S.into_iter().find(|(of, ..)| *of == gpus).unwrap_or((1, 1_480.0, 1.45));
    let (median_s, sigma) = if draw.chance(FAILING) { FAILING_S } else { (median_s, sigma) };
    let ran_s = draw.lognormal(median_s, sigma);
    let tenant = draw.weighed(&PHILLY_TENANTS).copied().unwrap_or("vc-0");
    let gang = TraceJob::of_gpus(String::new(), u64::from(gpus)).unwrap_or_default();
    TraceJob { tenant: tenant.to_owned(), duration: Some(seconds(ran_s)), ..gang }
}

/// Whole seconds, as traces have them; at least one, at most a year.
pub(super) fn seconds(s: f64) -> DurationMs {
    DurationMs((s.round() as u64).clamp(1, 31_536_000) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::super::arrivals::hourly;
    use super::super::draw::ln;
    use super::*;

    fn share(jobs: &[TraceJob], of: impl Fn(&TraceJob) -> bool) -> f64 {
        jobs.iter().filter(|job| of(job)).count() as f64 * 100.0 / jobs.len() as f64
    }

    fn quantile(mut list: Vec<f64>, at: f64) -> f64 {
        list.sort_by(f64::total_cmp);
        list[((list.len() - 1) as f64 * at) as usize]
    }

    fn near(found: f64, published: f64, tolerance: f64) {
        let off = (found / published - 1.0).abs();
        assert!(off <= tolerance, "{found}, published {published}");
    }

    fn seconds_of(jobs: &[TraceJob], gpus: u64) -> Vec<f64> {
        let of = jobs.iter().filter(|job| gpus == 0 || job.total_milli() == gpus * 1_000);
        of.filter_map(|job| job.duration).map(|ran| ran.0 as f64 / 1_000.0).collect()
    }

    #[test]
    fn openb_jobs_are_as_published() {
        let jobs = jobs(Profile::Openb, 60_000, None, 11);
        assert!(jobs.iter().map(|job| job.submit).is_sorted());
        let gpu: Vec<TraceJob> = jobs.iter().filter(|job| job.shape.gpus > 0).cloned().collect();
        let one: Vec<TraceJob> = gpu.iter().filter(|job| job.shape.gpus == 1).cloned().collect();
        near(share(&jobs, |job| job.shape.gpus == 0), 13.3, 0.05);
        near(share(&gpu, |job| job.shape.gpus == 1), 98.9, 0.01);
        near(share(&one, |job| job.shape.gpu_milli < 1_000), 44.0, 0.03);
        for (milli, percent) in [(810, 15.4), (470, 10.7), (320, 4.7), (650, 3.6)] {
            near(share(&one, |job| job.shape.gpu_milli == milli), percent, 0.1);
        }
        near(share(&gpu, |job| !job.shape.models.is_empty()), 33.0, 0.05);
        let per_gpu = |of: fn(&TraceShape) -> u64, unit: f64, at| {
            let list =
                gpu.iter().map(|job| of(&job.shape) as f64 / unit / f64::from(job.shape.gpus));
            quantile(list.collect(), at)
        };
        for (at, cores, gib) in [(0.05, 3.2, 5.5), (0.5, 9.8, 30.5), (0.95, 16.4, 63.0)] {
            near(per_gpu(|shape| shape.cpu_milli, 1_000.0, at), cores, 0.05);
            near(per_gpu(|shape| shape.memory_mib, 1_024.0, at), gib, 0.05);
        }
        near(quantile(seconds_of(&jobs, 0), 0.5), 616.0, 0.1);
        let times: Vec<_> = jobs.iter().filter_map(|job| job.submit).collect();
        let (per_hour, dispersion) = hourly(&times);
        near(per_hour, 2.28, 0.05);
        near(dispersion, 6.0, 0.15);
    }

    #[test]
    fn philly_jobs_are_as_published() {
        let jobs = jobs(Profile::Philly, 82_247, None, 5);
        near(share(&jobs, |job| job.total_milli() == 1_000), 93.2, 0.01);
        near(share(&jobs, |job| job.total_milli() == 8_000), 2.0, 0.1);
        assert!(jobs.iter().all(|job| job.total_milli() <= 32_000));
        for (gpus, median_s) in [(1, 1_117.0), (4, 17_410.0), (8, 23_683.0)] {
            near(quantile(seconds_of(&jobs, gpus), 0.5), median_s, 0.15);
        }
        let logs: Vec<f64> = seconds_of(&jobs, 0).into_iter().map(ln).collect();
        let mean = logs.iter().sum::<f64>() / logs.len() as f64;
        let square = logs.iter().map(|log| (log - mean) * (log - mean)).sum::<f64>();
        near(mean, 6.79, 0.02);
        near((square / logs.len() as f64).sqrt(), 2.16, 0.06);
        near(share(&jobs, |job| job.tenant == "vc-0"), 50.1, 0.03);
        let times: Vec<_> = jobs.iter().filter_map(|job| job.submit).collect();
        let (per_hour, dispersion) = hourly(&times);
        near(per_hour, 31.5, 0.15);
        near(dispersion, 161.0, 0.2);
    }

    #[test]
    fn equal_seeds_give_equal_jobs_and_more_jobs_begin_alike() {
        let few = jobs(Profile::Openb, 100, None, 3);
        let more = jobs(Profile::Openb, 200, None, 3);
        assert_eq!(few[..], more[..100]);
        assert_ne!(few, jobs(Profile::Openb, 100, None, 4));
        let fast = jobs(Profile::Philly, 5_000, Some(1_000.0), 3);
        let last = fast.last().and_then(|job| job.submit).expect("a time").0 as f64 / 3_600_000.0;
        assert!((1.0..40.0).contains(&last), "{last} hours");
    }
}
