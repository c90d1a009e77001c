//! Whole runs under virtual time: known answers, the oracle over random load, and equal runs from
//! equal scenarios.

use scheduler_core::fixture::entry::{group, job_spec, node_spec};
use scheduler_core::fixture::fleet::Fleet;
use scheduler_core::job::{GpuAsk, JobSpec};
use scheduler_core::unit::{DurationMs, TimeMs};
use simulator::observe::Nobody;
use simulator::{Arrival, Happening, Latency, Report, Scenario, StartModel, Target};
use std::sync::Arc;

fn run(scenario: &Scenario) -> Result<Report, simulator::Violation> {
    simulator::run(scenario, &mut Nobody)
}

fn start(ms: u64) -> StartModel {
    StartModel { process: Latency::Fixed(DurationMs(ms)), ..StartModel::default() }
}

fn gang(replicas: u32, gpus: u8) -> Arc<JobSpec> {
    Arc::new(job_spec(vec![group("workers", replicas, gpus)]))
}

fn arrival(at: u64, spec: Arc<JobSpec>, life: Option<u64>) -> Arrival {
    Arrival { at: TimeMs(at), spec, life: life.map(DurationMs) }
}

#[test]
fn two_jobs_that_want_the_same_node_run_one_after_the_other() {
    let scenario = Scenario {
        nodes: vec![node_spec("a", 8)],
        arrivals: vec![arrival(0, gang(1, 8), Some(100)), arrival(10, gang(1, 8), Some(50))],
        start: start(5),
        ..Scenario::default()
    };
    let report = run(&scenario).expect("no violation");
    assert_eq!((report.jobs_submitted, report.jobs_placed_at_once), (2, 1));
    assert_eq!((report.jobs_ready, report.jobs_over, report.jobs_waiting), (2, 2, 0));
    assert_eq!(report.gpu_milli_peak, 8_000);
    // 5 to start and 100 to run, then 5 and 50.
    assert_eq!(report.ended_at, TimeMs(160));
}

#[test]
fn a_member_lost_is_replaced_on_the_spare_node() {
    let lose = Happening::Lose { target: Target::Node(0), repair: Some(DurationMs(1_000)) };
    let scenario = Scenario {
        nodes: vec![node_spec("a", 8), node_spec("b", 8), node_spec("c", 8)],
        arrivals: vec![arrival(0, gang(2, 8), None)],
        events: vec![(TimeMs(50), lose)],
        start: start(5),
        ..Scenario::default()
    };
    let report = run(&scenario).expect("no violation");
    assert_eq!((report.jobs_ready, report.jobs_over, report.jobs_waiting), (1, 0, 0));
    assert_eq!(report.gpu_milli_peak, 16_000);
}

#[test]
fn a_gang_too_large_for_the_fleet_waits_for_ever_and_holds_nothing() {
    let scenario = Scenario {
        nodes: vec![node_spec("a", 8)],
        arrivals: vec![arrival(0, gang(9, 1), Some(1))],
        ..Scenario::default()
    };
    let report = run(&scenario).expect("no violation");
    assert_eq!((report.jobs_waiting, report.jobs_ready, report.gpu_milli_peak), (1, 0, 0));
}

fn mixed(seed: u64) -> Scenario {
    let fleet = Fleet::new(60, 6, seed);
    let mut specs = Vec::new();
    for n in 0..120u32 {
        let mut spec = job_spec(vec![group("workers", 1 + n % 7, 1 + (n % 4) as u8)]);
        if n % 5 == 0 {
            spec.groups[0].shape.gpus = GpuAsk::Share(100 + 70 * (n % 11) as u16);
        }
        spec.duration = (n % 3 == 0).then_some(DurationMs(4_000));
        specs.push(Arc::new(spec));
    }
    let (span, life) = (DurationMs(20_000), DurationMs(8_000));
    let mut scenario = Scenario::random(seed, fleet.nodes, specs, 12, span, life);
    scenario.rtts = fleet.rtts;
    scenario.start = start(30);
    scenario
}

#[test]
fn random_load_with_faults_breaks_nothing() {
    for seed in 0..12 {
        let report = run(&mixed(seed)).unwrap_or_else(|violation| {
            panic!("seed {seed}: {violation}; cargo test -p simulator random_load")
        });
        assert_eq!(report.jobs_submitted, 120, "seed {seed}");
        assert!(report.jobs_ready > 60, "seed {seed}: the run did next to nothing: {report:?}");
    }
}

#[test]
fn equal_scenarios_give_equal_runs() {
    for seed in [3, 4] {
        assert_eq!(run(&mixed(seed)).expect("no violation"), run(&mixed(seed)).expect("again"));
    }
    let (three, four) = (run(&mixed(3)).expect("no violation"), run(&mixed(4)).expect("again"));
    assert_ne!(three.state_hash, four.state_hash);
}
