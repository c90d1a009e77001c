//! Metrics of whole runs against figures worked out by hand.

use scheduler_core::fixture::entry::{group, job_spec, node_spec};
use scheduler_core::unit::{DurationMs, TimeMs};
use simulator::metrics::{Figures, Metrics};
use simulator::{Arrival, Happening, Latency, Scenario, StartModel, Target, run};
use std::sync::Arc;

fn arrival(at_s: u64, replicas: u32, gpus: u8, life_s: u64) -> Arrival {
    let spec = Arc::new(job_spec(vec![group("workers", replicas, gpus)]));
    Arrival::new(TimeMs(at_s * 1_000), spec, Some(DurationMs(life_s * 1_000)))
}

/// Jobs that take five seconds to start, on two nodes of eight GPUs.
fn scenario(arrivals: Vec<Arrival>) -> Scenario {
    let process = Latency::Fixed(DurationMs(5_000));
    Scenario {
        nodes: vec![node_spec("a", 8), node_spec("b", 8)],
        arrivals,
        start: StartModel { process, ..StartModel::default() },
        ..Scenario::default()
    }
}

fn figures(scenario: &Scenario, mut metrics: Metrics) -> Figures {
    let report = run(scenario, &mut metrics).expect("no violation");
    metrics.finish(report.ended_at);
    metrics.figures()
}

/// Within what messages and commits take, and three digits.
fn near(told: f64, exact: f64) {
    assert!((told - exact).abs() <= 0.3 + exact / 500.0, "{told} for {exact}");
}

#[test]
fn two_gangs_one_after_the_other() {
    // The second wants all GPUs too: it waits from 10 to 105, runs from 110 to 160.
    let scenario = scenario(vec![arrival(0, 2, 8, 100), arrival(10, 2, 8, 50)]);
    let told = figures(&scenario, Metrics::default());
    near(told.span_s, 160.0);
    near(told.fleet_gpus_mean, 16.0);
    near(told.allocated_percent, 100.0);
    near(told.utilised_percent, 150.0 * 100.0 / 160.0);
    near(told.gpu_hours, 16.0 * 160.0 / 3_600.0);
    near(told.wait_s.max, 95.0);
    near(told.queue_jobs_mean, 95.0 / 160.0);
    near(told.slowdown.max, 150.0 / 55.0);
    near(told.ready_s.max, 100.0);
    near(told.phases_s["dispatching"].max + told.phases_s["starting"].max, 5.0);
    assert_eq!((told.gangs.jobs, told.gangs.placed, told.gangs.became_ready), (2, 2, 2));
    assert_eq!((told.jobs.submitted, told.jobs.ended, told.jobs.waiting), (2, 2, 0));
    assert_eq!(told.queue_jobs_max, 1);
    let busy = told.reasons["busy"];
    near(busy.job_hours * 3_600.0, 95.0);
    assert_eq!(told.classes.len(), 1);
    assert_eq!((told.classes[0].gpus, told.classes[0].jobs), ("9-64", 2));
    assert_eq!(told.bring_ups.len(), 2);
    near(told.bring_ups.iter().map(|up| up.phases_s[0]).sum(), 95.0);
}

#[test]
fn means_end_where_they_are_told_to() {
    // Half of the GPUs for 20 seconds, all of them for another 20, none that counts after that.
    let scenario = scenario(vec![arrival(0, 1, 8, 500), arrival(20, 1, 8, 500)]);
    let told = figures(&scenario, Metrics::until(TimeMs(40_000)));
    near(told.allocated_percent, 75.0);
    near(told.span_s, 525.0);
    assert!(told.curves.allocated_gpus.len() > 256, "the curve goes on to the end");
    near(told.curves.allocated_gpus[0].1, 8.0);
}

#[test]
fn what_never_fits_waits_to_the_end() {
    let scenario = scenario(vec![arrival(0, 3, 8, 10), arrival(30, 1, 1, 10)]);
    let told = figures(&scenario, Metrics::default());
    assert_eq!((told.jobs.waiting, told.gangs.placed, told.gangs.accepted_percent), (1, 0, 0.0));
    near(told.wait_s.max, 45.0);
    assert_eq!(told.reasons.len(), 1, "{:?}", told.reasons);
    let mean = figures(&scenario, Metrics::default());
    assert_eq!(told, mean, "the same scenario has the same figures");
}

#[test]
fn a_lost_node_costs_its_gpus_and_a_jobs_time_until_it_is_mended() {
    // Two of three nodes are held; two are lost from 100 to 400, so that the job cannot be whole
    // before.
    let mut scenario = scenario(vec![arrival(0, 2, 8, 600)]);
    scenario.nodes.push(node_spec("c", 8));
    let mut first = Metrics::default();
    let report = run(&scenario, &mut first).expect("no violation");
    first.finish(report.ended_at);
    assert_eq!((first.figures().nodes_lost, first.figures().damage.interruptions), (0, 0));
    let lose = |node, at_s: u64| {
        let (target, repair) = (Target::Node(node), Some(DurationMs(300_000)));
        (TimeMs(at_s * 1_000), Happening::Lose { target, repair })
    };
    scenario.events = vec![lose(0, 100), lose(1, 100)];
    let told = figures(&scenario, Metrics::default());
    assert_eq!((told.nodes_lost, told.damage.jobs_interrupted), (2, 1));
    assert_eq!(told.repair_s.count, 1);
    let down_s = told.damage.down_gpu_hours * 3_600.0 / 16.0;
    // Servers notice when the leases are over, and agents come back within seconds.
    assert!((240.0..330.0).contains(&down_s), "{down_s}");
    let cut = figures(&scenario, Metrics::until(TimeMs(200_000))).damage;
    let cut_s = cut.down_gpu_hours * 3_600.0 / 16.0;
    assert!((80.0..95.0).contains(&cut_s), "{cut_s}: down since the leases' end");
    let repair_s = told.damage.under_repair_gpu_hours * 3_600.0 / 16.0;
    near(repair_s, told.repair_s.max);
    near(told.utilised_percent / 100.0 * told.fleet_gpus_mean * told.span_s, {
        16.0 * (600.0 - repair_s)
    });
}
