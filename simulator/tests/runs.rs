//! Whole runs under virtual time: known answers, the oracle over random load with faults, and equal
//! runs from equal scenarios.

use scheduler_core::fixture::entry::{group, job_spec, node_spec};
use scheduler_core::fixture::fleet::Fleet;
use scheduler_core::id::JobId;
use scheduler_core::job::{GpuAsk, JobPhase, JobSpec};
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, TimeMs};
use simulator::observe::Nobody;
use simulator::scenario::{NetworkModel, PlannerModel};
use simulator::{
    Arrival, Happening, Latency, Observer, Report, Scenario, Seen, StartModel, Target, Violation,
};
use std::sync::Arc;

/// Remembers when jobs came into which phase.
#[derive(Default)]
struct Phases(Vec<(u64, JobId, JobPhase)>);

impl Observer for Phases {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, _: &State) {
        if let Seen::Phase { job, to, .. } = seen {
            self.0.push((at.0, job, to));
        }
    }
}

impl Phases {
    fn times(&self, job: u64, phase: JobPhase) -> Vec<u64> {
        let is_it = |seen: &&(u64, JobId, JobPhase)| seen.1 == JobId(job) && seen.2 == phase;
        self.0.iter().filter(is_it).map(|seen| seen.0).collect()
    }
}

fn run(scenario: &Scenario) -> Result<Report, Violation> {
    simulator::run(scenario, &mut Nobody)
}

/// Nothing takes time but starts, and reports wait 5 ms for others as in a server.
fn quick(nodes: usize, arrivals: Vec<Arrival>) -> Scenario {
    let network = NetworkModel { one_way: Latency::ZERO, ..NetworkModel::default() };
    let start = StartModel { process: Latency::Fixed(DurationMs(20)), ..StartModel::default() };
    let nodes = (0..nodes).map(|at| node_spec(&format!("n{at}"), 8)).collect();
    Scenario { nodes, arrivals, start, network, commit: Latency::ZERO, ..Scenario::default() }
}

fn gang(replicas: u32, gpus: u8) -> Arc<JobSpec> {
    Arc::new(job_spec(vec![group("workers", replicas, gpus)]))
}

fn arrival(at: u64, spec: Arc<JobSpec>, life: Option<u64>) -> Arrival {
    Arrival::new(TimeMs(at), spec, life.map(DurationMs))
}

#[test]
fn two_jobs_that_want_the_same_node_run_one_after_the_other() {
    let arrivals = vec![arrival(0, gang(1, 8), Some(100)), arrival(10, gang(1, 8), Some(50))];
    let mut phases = Phases::default();
    let report = simulator::run(&quick(1, arrivals), &mut phases).expect("no violation");
    assert_eq!((report.jobs_submitted, report.jobs_placed_at_once), (2, 1));
    assert_eq!((report.jobs_ready, report.jobs_over, report.jobs_waiting), (2, 2, 0));
    assert_eq!(report.gpu_milli_peak, 8_000);
    // 20 to start and 5 until the report is written, 100 to run; then 25 and 50.
    assert_eq!(phases.times(1, JobPhase::Ready), [25]);
    assert_eq!(phases.times(1, JobPhase::Ended), [125]);
    assert_eq!(phases.times(2, JobPhase::Placed), [125]);
    assert_eq!(phases.times(2, JobPhase::Ready), [150]);
    assert_eq!(phases.times(2, JobPhase::Ended), [200]);
}

#[test]
fn a_member_lost_is_replaced_on_the_spare_node_once_its_lease_is_over() {
    let mut scenario = quick(3, vec![arrival(0, gang(2, 8), None)]);
    let lose = Happening::Lose { target: Target::Node(0), repair: Some(DurationMs(60_000)) };
    scenario.events = vec![(TimeMs(20_000), lose)];
    let mut phases = Phases::default();
    let report = simulator::run(&scenario, &mut phases).expect("no violation");
    assert_eq!((report.jobs_ready, report.jobs_over, report.jobs_waiting), (1, 0, 0));
    assert_eq!(report.gpu_milli_peak, 16_000);
    // A lease of 10 s and a tenth of it after the last heartbeat, of which there is one every
    // 2.5 s; duties look every 250 ms.
    let lost = phases.times(1, JobPhase::Repairing);
    assert!(lost.len() == 1 && (28_500..=31_250).contains(&lost[0]), "{lost:?}");
    assert_eq!(phases.times(1, JobPhase::Ready), [25, lost[0] + 25]);
}

#[test]
fn a_gang_too_large_for_the_fleet_waits_for_ever_and_holds_nothing() {
    let report = run(&quick(1, vec![arrival(0, gang(9, 1), Some(1))])).expect("no violation");
    assert_eq!((report.jobs_waiting, report.jobs_ready, report.gpu_milli_peak), (1, 0, 0));
}

#[test]
fn jobs_wait_while_the_planner_is_at_others() {
    let arrivals = [0, 10, 20, 1_000].map(|at| arrival(at, gang(1, 1), None)).to_vec();
    let mut scenario = quick(1, arrivals);
    scenario.planner = PlannerModel { plan_ns: 100_000_000, ..PlannerModel::default() };
    let mut phases = Phases::default();
    let report = simulator::run(&scenario, &mut phases).expect("no violation");
    // The second and the third are planned together once the first is done, and answered together.
    let placed: Vec<u64> = (1..=4).flat_map(|job| phases.times(job, JobPhase::Placed)).collect();
    assert_eq!(placed, [100, 300, 300, 1_100]);
    assert_eq!(report.answer_slowest, DurationMs(290));
    assert_eq!(report.planner_ns, 400_000_000 + 4 * 100);
}

#[test]
fn a_run_ends_where_it_is_told_to() {
    let mut scenario = quick(1, vec![arrival(0, gang(1, 8), None), arrival(900, gang(1, 8), None)]);
    scenario.until = Some(TimeMs(500));
    let report = run(&scenario).expect("no violation");
    assert_eq!((report.jobs_submitted, report.jobs_ready), (1, 1));
}

/// Load and every kind of trouble on a small fleet.
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
    let (span, life) = (DurationMs(60_000), DurationMs(20_000));
    let site = fleet.nodes[7].place.site.clone();
    let mut scenario = Scenario::random(seed, fleet.nodes, specs, 12, span, life);
    scenario.rtts = fleet.rtts;
    scenario.commit = Latency::Uniform { min: DurationMs(1), max: DurationMs(400) };
    scenario.start.image = Latency::Uniform { min: DurationMs(100), max: DurationMs(4_000) };
    scenario.start.stop = Latency::Uniform { min: DurationMs(0), max: DurationMs(300) };
    (scenario.start.failing_ppm, scenario.network.loss_ppm) = (30_000, 20_000);
    let at = |seconds: u64, happening| (TimeMs(seconds * 1_000 + seed * 37), happening);
    scenario.events.extend([
        at(9, Happening::KillLeader),
        at(12, Happening::Cut { target: Target::Site(site.clone()) }),
        at(15, Happening::Drain { target: Target::Some(5) }),
        at(19, Happening::Lie { target: Target::Some(3), gpus_more: 4 }),
        at(22, Happening::KillLeader),
        at(20, Happening::Clone { target: Target::Some(6), length: DurationMs(35_000) }),
        at(28, Happening::Heal { target: Target::Site(site) }),
        at(30, Happening::Cancel { arrival: 4 }),
        at(33, Happening::Uncordon { target: Target::All }),
        at(40, Happening::Remove { target: Target::Some(2) }),
        at(41, Happening::Cut { target: Target::Some(6) }),
        at(70, Happening::Heal { target: Target::All }),
    ]);
    scenario
}

#[test]
fn random_load_with_faults_breaks_nothing() {
    let mut stale = 0;
    for seed in 0..6 {
        let report = run(&mixed(seed))
            .unwrap_or_else(|violation| panic!("{violation}; cargo test -p simulator random_load"));
        assert_eq!(report.jobs_submitted + report.jobs_refused, 120, "seed {seed}");
        assert!(report.jobs_ready > 60, "seed {seed}: the run did next to nothing: {report:?}");
        assert!(report.starts_failed > 0 && report.leaders_lost == 2, "seed {seed}: {report:?}");
        stale += report.plans_stale;
    }
    assert!(stale > 0, "no plan ever went stale");
}

#[test]
fn equal_scenarios_give_equal_runs() {
    for seed in [3, 4] {
        assert_eq!(run(&mixed(seed)).expect("no violation"), run(&mixed(seed)).expect("again"));
    }
    let (three, four) = (run(&mixed(3)).expect("no violation"), run(&mixed(4)).expect("again"));
    assert_ne!(three.state_hash, four.state_hash);
}
