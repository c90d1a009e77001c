//! Packing experiments on a small trace of our own making: equal seeds give equal rows, sums hold,
//! threads do not matter.

use scheduler_core::plan::Policy;
use scheduler_core::unit::{DurationMs, TimeMs};
use simulator::packing::{Durations, Pattern, fill, gangs, steady};
use simulator::parallel;
use simulator::trace::{TraceJob, TraceNode, TraceShape};
use std::sync::atomic::AtomicBool;

fn nodes() -> Vec<TraceNode> {
    let node = |number: usize| {
        let (gpus, model) = [(8, "big"), (8, "big"), (4, "old"), (2, "small")][number % 4];
        TraceNode {
            name: format!("n{number}"),
            cpu_milli: u64::from(gpus) * 12_000,
            memory_mib: u64::from(gpus) * 65_536,
            gpus,
            model: model.to_owned(),
            ..TraceNode::default()
        }
    };
    (0..24).map(node).collect()
}

fn shape(gpus: u32, gpu_milli: u32) -> TraceShape {
    TraceShape {
        cpu_milli: 2_000 * u64::from(gpus.max(1)),
        memory_mib: 4_096,
        gpus,
        gpu_milli,
        models: Vec::new(),
    }
}

/// Shares, whole GPUs, CPU jobs; some name a model.
fn jobs() -> Vec<TraceJob> {
    let sizes =
        [(1, 300), (1, 500), (1, 1_000), (1, 810), (2, 1_000), (8, 1_000), (0, 0), (1, 1_000)];
    let job = |number: usize| {
        let (gpus, gpu_milli) = sizes[number % sizes.len()];
        let mut shape = shape(gpus, gpu_milli);
        if number.is_multiple_of(11) && gpus > 0 {
            shape.models = vec!["big".to_owned()];
        }
        TraceJob {
            name: format!("j{number:03}"),
            replicas: 1,
            shape,
            submit: Some(TimeMs(number as u64 * 60_000)),
            duration: (!number.is_multiple_of(7))
                .then_some(DurationMs(600_000 + 100_000 * (number as u64 % 13))),
            ..TraceJob::default()
        }
    };
    (0..160).map(job).collect()
}

fn filled(policy: Policy, seed: u64) -> fill::Row {
    fill::run("sample", &nodes(), &jobs(), policy, seed).expect("a sound sample")
}

fn case(policy: Policy, load: f64) -> steady::Case {
    steady::Case {
        policy,
        seed: 5,
        load,
        pattern: Pattern::Bursty,
        durations: Durations::Trace,
        service: steady::Service::Queue,
        arrivals: 2_000,
    }
}

fn steadied(case: &steady::Case) -> steady::Row {
    let row = steady::run("sample", &nodes(), &jobs(), case).expect("a sound sample");
    row.expect("the sample has durations")
}

#[test]
fn equal_seeds_give_equal_rows_on_any_number_of_threads() {
    let cases: Vec<(Policy, u64)> =
        Policy::ALL.into_iter().flat_map(|policy| [(policy, 1), (policy, 2)]).collect();
    let never = AtomicBool::new(false);
    let work = |&(policy, seed): &(Policy, u64)| Ok::<_, ()>(Some(filled(policy, seed)));
    let one = parallel::run(&cases, 1, &never, work, |_| ()).expect("all run");
    let three = parallel::run(&cases, 3, &never, work, |_| ()).expect("all run");
    assert_eq!(one, three);
    assert_ne!(one[0], one[1], "seeds matter");
    let case = case(Policy::Foresight, 1.0);
    assert_eq!(steadied(&case), steadied(&case));
}

#[test]
fn the_fleet_fills_up_and_never_empties() {
    for policy in Policy::ALL {
        let row = filled(policy, 3);
        let curve: Vec<f64> = row.allocated_percent.iter().flatten().copied().collect();
        assert!(curve.windows(2).all(|pair| pair[0] <= pair[1]), "{policy}: {curve:?}");
        let last = curve.last().copied().unwrap_or(0.0);
        assert!((70.0..=100.0).contains(&last), "{policy}: {last}");
        assert!(row.placed < row.jobs, "{policy}: more is asked for than there is");
    }
}

#[test]
fn at_a_low_load_all_is_placed_and_the_allocation_is_the_load() {
    for service in steady::Service::ALL {
        let row = steadied(&steady::Case {
            pattern: Pattern::Poisson,
            service,
            ..case(Policy::BestFit, 0.3)
        });
        assert!((24.0..36.0).contains(&row.allocated_percent), "{}", row.allocated_percent);
        assert_eq!((row.refused_percent, row.waiting_percent), (0.0, 0.0));
        assert_eq!((row.refused_time_percent, row.waiting_work_h), (0.0, 0.0));
        assert_eq!((row.wait_p99_s, row.bounded_slowdown_mean), (0.0, 1.0));
    }
}

#[test]
fn at_overload_jobs_are_refused_or_wait_but_never_both() {
    let over = |service| steadied(&steady::Case { service, ..case(Policy::Fgd, 1.5) });
    let refused = over(steady::Service::Reject);
    assert!(refused.refused_percent > 10.0 && refused.waiting_percent == 0.0);
    assert_eq!((refused.wait_p99_s, refused.waiting_work_h), (0.0, 0.0));
    // What is asked for is allocated or refused, whatever the policy.
    let asked = |row: &steady::Row| row.allocated_percent / (100.0 - row.refused_time_percent);
    let reject = steady::Service::Reject;
    let others = steadied(&steady::Case { service: reject, ..case(Policy::BestFit, 1.5) });
    assert!(
        (asked(&refused) - asked(&others)).abs() < 1e-9,
        "{} {}",
        asked(&refused),
        asked(&others)
    );
    assert!((1.3..1.7).contains(&asked(&refused)), "{}", asked(&refused));
    let queued = over(steady::Service::Queue);
    assert!(queued.waiting_percent > 10.0 && queued.refused_percent == 0.0);
    assert!(queued.waiting_work_h > 0.0 && queued.refused_time_percent == 0.0);
    assert!(queued.wait_p95_s >= queued.wait_p50_s && queued.bounded_slowdown_mean > 1.0);
    assert!(queued.allocated_percent > 75.0, "{}", queued.allocated_percent);
    let jobs: u64 = queued.classes.iter().map(|class| class.jobs).sum();
    assert!(jobs > 0, "classes count jobs");
}

#[test]
fn gangs_are_placed_or_give_up() {
    let gang = TraceJob {
        name: "g".to_owned(),
        replicas: 9,
        shape: shape(8, 1_000),
        duration: Some(DurationMs(3_600_000)),
        ..TraceJob::default()
    };
    let case = gangs::Case {
        policy: Policy::Foresight,
        seed: 1,
        singles_load: 0.2,
        gangs_load: 0.3,
        gangs: 40,
    };
    let run = |gang: TraceJob| {
        gangs::run("sample", &nodes(), &jobs(), &[gang], &case).expect("a sound sample")
    };
    let row = run(gang.clone()).expect("there are gangs");
    assert!(row.gangs > 0 && row.gangs_accepted_percent > 0.0);
    assert!(row.allocated_percent > row.singles_allocated_percent);
    // 13 nodes of 8 are more than there are.
    let never = run(TraceJob { replicas: 13, ..gang.clone() }).expect("there are gangs");
    assert_eq!(never.allocated_percent, never.singles_allocated_percent);
    // Those that still wait at the end were not placed either.
    assert_eq!((never.gangs_accepted_percent, never.large_gangs), (0.0, 0));
    assert!(never.large_wait_mean_s.is_sign_positive(), "a mean of nothing is no negative zero");
    assert!(run(TraceJob { replicas: 2, ..gang }).is_none(), "16 GPUs are no large gang");
}
