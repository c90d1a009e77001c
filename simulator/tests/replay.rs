//! Sweeps of replays: the same on any number of threads, ended early from outside, and written as
//! documented.

use scheduler_core::plan::Policy;
use scheduler_core::unit::{DurationMs, TimeMs};
use simulator::compare::compare;
use simulator::replay::{Input, Run, Watch, cases, output, sweep};
use simulator::trace::{TraceJob, TraceNode, TraceShape};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Six nodes of 8 GPUs that 90 jobs of 1 to 8 GPUs want at once.
fn input() -> Input {
    let node = |number: u32| TraceNode {
        name: format!("node-{number}"),
        cpu_milli: 64_000,
        memory_mib: 65_536,
        gpus: 8,
        model: "gpu".to_owned(),
        ..TraceNode::default()
    };
    let job = |number: u64| TraceJob {
        name: format!("job-{number}"),
        replicas: 1 + u32::from(number.is_multiple_of(9)),
        shape: TraceShape {
            cpu_milli: 1_000,
            memory_mib: 1_024,
            gpus: [1, 2, 8, 1, 4][number as usize % 5],
            gpu_milli: 1_000,
            ..TraceShape::default()
        },
        submit: Some(TimeMs(number * 5_000)),
        // The last one never ran in the trace.
        duration: (number < 89).then(|| DurationMs(30_000 + number * 777 % 60_000)),
        ..TraceJob::default()
    };
    Input {
        nodes: (0..6).map(node).collect(),
        jobs: (0..90).map(job).collect(),
        ..Input::default()
    }
}

fn runs(threads: usize) -> Vec<Run> {
    let (arrived, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let count = || {
        arrived.fetch_add(1, Ordering::Relaxed);
    };
    let cases = cases(&[Policy::BestFit, Policy::Random], &[1, 2, 3], &[1.0, 2.0]);
    let watch = Watch { arrived: &count, stop: &stop };
    let made = sweep(&input(), &cases, threads, watch).expect("no violation");
    assert_eq!(arrived.load(Ordering::Relaxed), 12 * 89, "what never ran does not come");
    made
}

#[test]
fn threads_change_nothing() {
    let of = |runs: Vec<Run>| -> Vec<_> {
        runs.into_iter().map(|run| (run.case, run.state_hash, run.figures)).collect()
    };
    let (one, three) = (of(runs(1)), of(runs(3)));
    assert_eq!(one, three);
    assert_eq!(one.len(), 12);
    assert!(one.iter().all(|(_, _, figures)| figures.jobs.ended == 89), "all run to their end");
}

#[test]
fn twice_the_load_waits_longer() {
    let made = runs(2);
    let wait = |load: f64| -> f64 {
        let own = made.iter().filter(|run| run.case.load == load);
        own.map(|run| run.figures.wait_s.mean).sum()
    };
    assert!(wait(2.0) > wait(1.0) && wait(1.0) >= 0.0, "{} and {}", wait(2.0), wait(1.0));
    let told = compare(&made, &[Policy::BestFit, Policy::Random]);
    assert!(told.iter().all(|one| one.policies.len() == 2 && one.policies[0].test.is_none()));
    assert!(told.iter().any(|one| one.figure == "wait_s mean" && one.load == 2.0));
}

#[test]
fn a_sweep_that_is_stopped_has_no_half_runs() {
    let stop = AtomicBool::new(false);
    let seen = AtomicUsize::new(0);
    let interrupt = || {
        // In the middle of the second run.
        if seen.fetch_add(1, Ordering::Relaxed) == 100 {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let cases = cases(&[Policy::BestFit], &[1, 2, 3], &[1.0]);
    let watch = Watch { arrived: &interrupt, stop: &stop };
    let made = sweep(&input(), &cases, 1, watch).expect("no violation");
    assert_eq!(made.len(), 1);
}

#[test]
fn csv_has_a_row_for_all_jobs_and_one_for_every_class() {
    let made = runs(2);
    let text = output::csv(&made);
    let columns = output::COLUMNS.split(',').count();
    assert!(text.lines().all(|line| line.split(',').count() == columns), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(",all,")).count(), 12);
    assert!(text.contains("best-fit,1,1,all,89,89,"), "{text}");
}
