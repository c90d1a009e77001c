//! What each change keeps and what it changes, on random traces.

use super::*;
use crate::trace::TraceShape;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn jobs() -> impl Strategy<Value = Vec<TraceJob>> {
    let one =
        (proptest::option::weighted(0.9, 0..10_000_000u64), 1..5_000_000u64, 0..9u32, 1..5u32);
    proptest::collection::vec(one, 0..60).prop_map(|list| {
        let jobs =
            list.into_iter().enumerate().map(|(at, (submit, ran, gpus, replicas))| TraceJob {
                name: format!("j{at}"),
                replicas,
                shape: TraceShape {
                    gpus,
                    gpu_milli: 1_000,
                    cpu_milli: at as u64,
                    ..TraceShape::default()
                },
                submit: submit.map(TimeMs),
                duration: Some(DurationMs(ran)),
                ..TraceJob::default()
            });
        by_time(jobs.collect())
    })
}

fn is_sound(jobs: &[TraceJob]) {
    assert!(jobs.iter().map(|job| job.submit).is_sorted());
    let names: BTreeSet<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names.len(), jobs.len(), "names repeat");
}

fn original<'a>(of: &TraceJob, jobs: &'a [TraceJob]) -> &'a TraceJob {
    let stem = of.name.split('~').next().unwrap_or_default();
    let found = jobs.iter().find(|job| job.name == stem).expect("a copy of one of the jobs");
    assert_eq!(
        (&of.shape, of.replicas, of.duration),
        (&found.shape, found.replicas, found.duration)
    );
    found
}

proptest! {
    #[test]
    fn time_is_stretched_for_gaps_and_durations_alike(jobs in jobs(), by in 0.01..100.0f64) {
        let slow = scale_time(jobs.clone(), by).expect("a sound factor");
        is_sound(&slow);
        prop_assert_eq!(slow.len(), jobs.len());
        for (old, new) in jobs.iter().zip(&slow) {
            let off = |old: u64, new: u64| (old as f64 * by - new as f64).abs();
            prop_assert!(off(old.submit.unwrap_or_default().0, new.submit.unwrap_or_default().0) <= 0.5);
            prop_assert!(off(old.duration.unwrap_or_default().0, new.duration.unwrap_or_default().0) <= 1.0);
            prop_assert_eq!((&old.name, &old.shape), (&new.name, &new.shape));
        }
    }

    #[test]
    fn gaps_shrink_and_durations_stay(jobs in jobs(), load in 0.1..10.0f64) {
        let dense = shorter_gaps(jobs.clone(), load).expect("a sound factor");
        is_sound(&dense);
        for (old, new) in jobs.iter().zip(&dense) {
            let (was, is) = (old.submit.unwrap_or_default().0, new.submit.unwrap_or_default().0);
            prop_assert!((was as f64 / load - is as f64).abs() <= 0.5001);
            prop_assert_eq!(old.duration, new.duration);
        }
    }

    #[test]
    fn more_arrivals_are_copies_near_their_originals(jobs in jobs(), load in 0.1..5.0f64, seed: u64) {
        let more = more_arrivals(jobs.clone(), load, seed).expect("a sound factor");
        is_sound(&more);
        prop_assert_eq!(more.len(), (jobs.len() as f64 * load).round() as usize);
        let mut times: BTreeMap<&str, u32> = BTreeMap::new();
        for job in &more {
            let from = original(job, &jobs);
            *times.entry(&from.name).or_default() += 1;
            let late = job.submit.unwrap_or_default().0 - from.submit.unwrap_or_default().0;
            prop_assert!(late < COPY_WITHIN_MS && job.submit.is_some() == from.submit.is_some());
        }
        let (least, most) = (load.floor() as u32, load.ceil() as u32);
        let alike = |job: &TraceJob| {
            let count = times.get(job.name.as_str()).copied().unwrap_or(0);
            (least..=most).contains(&count)
        };
        prop_assert!(jobs.iter().all(alike), "some jobs are copied far more often than others");
    }

    #[test]
    fn inflating_asks_for_as_much_as_fits_under_the_share(
        jobs in jobs(), capacity in 1_000..2_000_000u64, percent in 1..300u64, seed: u64,
    ) {
        let most = u128::from(capacity) * u128::from(percent) / 100;
        match inflate(jobs.clone(), capacity, percent, seed) {
            Err(error) => {
                prop_assert_eq!(error, TransformError::NoDemand);
                prop_assert_eq!(demand(&jobs), 0);
            }
            Ok(inflated) => {
                is_sound(&inflated);
                let asked = demand(&inflated);
                prop_assert!(asked <= most);
                let largest = jobs.iter().map(TraceJob::total_milli).max().unwrap_or(0);
                for job in &inflated {
                    original(job, &jobs);
                }
                prop_assert!(asked + u128::from(largest) > most || asked == 0);
            }
        }
    }

    #[test]
    fn a_sample_has_its_size_and_order(jobs in jobs(), share in 0.0..=1.0f64, seed: u64) {
        let some = sample(jobs.clone(), share, seed).expect("a share");
        prop_assert_eq!(some.len(), (jobs.len() as f64 * share).round() as usize);
        let mut all = jobs.iter();
        prop_assert!(some.iter().all(|one| all.any(|job| job == one)), "order or content changed");
    }

    #[test]
    fn merging_loses_nothing(a in jobs(), b in jobs()) {
        let both = merge(vec![a.clone(), b.clone()]);
        is_sound(&both);
        let facts = |jobs: &[TraceJob]| {
            let mut list: Vec<_> = jobs.iter().map(|j| (j.submit, j.duration, j.shape.clone())).collect();
            list.sort();
            list
        };
        prop_assert_eq!(facts(&both), facts(&[a, b].concat()));
    }

    #[test]
    fn clipping_keeps_what_lies_within(jobs in jobs(), from in 0..5_000_000u64, long in 0..9_000_000u64) {
        let (from, to) = (TimeMs(from), TimeMs(from + long));
        let kept = clip(jobs.clone(), from, to);
        let within = |job: &&TraceJob| job.submit.is_some_and(|at| from <= at && at < to);
        prop_assert_eq!(kept, jobs.iter().filter(within).cloned().collect::<Vec<_>>());
    }

    #[test]
    fn shifting_keeps_gaps(jobs in jobs(), to in 0..9_000_000u64) {
        let moved = shift(jobs.clone(), TimeMs(to));
        is_sound(&moved);
        let times = |jobs: &[TraceJob]| -> Vec<u64> {
            jobs.iter().filter_map(|job| job.submit).map(|at| at.0).collect()
        };
        let (old, new) = (times(&jobs), times(&moved));
        prop_assert!(new.first().is_none_or(|first| *first == to));
        let gaps = |times: &[u64]| times.windows(2).map(|two| two[1] - two[0]).collect::<Vec<_>>();
        prop_assert_eq!(gaps(&old), gaps(&new));
        prop_assert_eq!(old.len(), new.len());
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let none = Vec::new();
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY, 20_000.0] {
        assert!(matches!(scale_time(none.clone(), bad), Err(TransformError::Factor { .. })));
        assert!(matches!(shorter_gaps(none.clone(), bad), Err(TransformError::Factor { .. })));
        assert!(matches!(more_arrivals(none.clone(), bad, 1), Err(TransformError::Factor { .. })));
    }
    assert!(matches!(sample(none.clone(), 1.5, 1), Err(TransformError::Share { .. })));
    assert_eq!(inflate(none, 1, 1, 1), Err(TransformError::NoDemand));
    let many = vec![TraceJob::default(); 600];
    assert_eq!(more_arrivals(many, 9_999.0, 1), Err(TransformError::TooManyJobs));
}
