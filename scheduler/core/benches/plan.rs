//! How long planning takes over 69,000 nodes with 461,772 GPUs, half of them occupied, over 150,000
//! nodes with a million GPUs, and over a fleet of 1,500 nodes.
//!
//! Beside criterion's tables the bench prints percentiles of single plans, the rate of a long
//! stream of arrivals and departures, and the memory of the planning index.
//! **Invariant:** the fleet comes from a seed, so figures of two runs are of the same case.

// A bench reads the clock; the core itself never does.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use scheduler_core::fixture::entry::models;
use scheduler_core::fixture::fleet::{Fleet, gang, occupy, workers};
use scheduler_core::id::NodeId;
use scheduler_core::job::{GpuAsk, JobSpec, Level, Strategy};
use scheduler_core::plan::{Budget, Policy, Request, plan};
use scheduler_core::state::State;
use scheduler_core::unit::RttUs;
use scheduler_core::view::View;
use std::collections::VecDeque;
use std::hint::black_box;
use std::time::{Duration, Instant};

fn fleet(nodes: usize, sites: usize) -> State {
    let mut state = Fleet::new(nodes, sites, 7).state();
    occupy(&mut state, 500, 8);
    state
}

fn mixed() -> JobSpec {
    let mut spec = gang("mixed", 1, GpuAsk::Whole(8));
    spec.groups = vec![
        workers("eights", 400, GpuAsk::Whole(8)),
        workers("fours", 600, GpuAsk::Whole(4)),
        workers("twos", 1_000, GpuAsk::Whole(2)),
        workers("ones", 2_400, GpuAsk::Whole(1)),
        workers("cpus", 500, GpuAsk::None),
    ];
    spec
}

/// As a Kubernetes manifest asks: five groups, of several models and with conditions.
fn five_groups() -> JobSpec {
    let mut spec = gang("five", 1, GpuAsk::Whole(8));
    spec.groups = vec![
        workers("control", 3, GpuAsk::None),
        workers("trainers", 64, GpuAsk::Whole(8)),
        workers("evaluators", 32, GpuAsk::Whole(2)),
        workers("servers", 100, GpuAsk::Whole(1)),
        workers("loaders", 200, GpuAsk::None),
    ];
    spec.groups[1].shape.alternatives = models(&["H100-SXM", "H200"]);
    spec.groups[3].shape.alternatives = models(&["A10", "L4", "L40S"]);
    spec.groups[4].shape.cpu.0 = 8_000;
    spec
}

fn cases() -> Vec<(&'static str, JobSpec)> {
    let mut cases = gang_cases();
    cases.push(("five groups", five_groups()));
    // One replica asks for more memory than any node has left beside eight idle GPUs.
    let mut hungry = gang("hungry", 40, GpuAsk::Whole(8));
    hungry.groups[0].shape.memory.0 = 2 << 20;
    cases.push(("40x8 refused for memory", hungry));
    cases
}

fn gang_cases() -> Vec<(&'static str, JobSpec)> {
    let eights = gang("eights", 1_250, GpuAsk::Whole(8));
    let ones = gang("ones", 10_000, GpuAsk::Whole(1));
    let mut near = eights.clone();
    near.rtt_max = Some(RttUs(60_000));
    let mut model = ones.clone();
    model.groups[0].shape.alternatives = models(&["H100-SXM"]);
    let mut region = eights.clone();
    region.topology_required = Some(Level::Region);
    let mut spread = ones.clone();
    spread.strategy = Strategy::Spread;
    let mut strict = ones.clone();
    strict.strategy = Strategy::StrictSpread;
    let mut shares = gang("shares", 10_000, GpuAsk::Share(250));
    shares.groups[0].shape.cpu.0 = 250;
    let too_large = gang("huge", 60_000, GpuAsk::Whole(8));
    let mut elastic = gang("elastic", 60_000, GpuAsk::Whole(8));
    elastic.groups[0].replicas_min = 1_000;
    vec![
        ("1250x8", eights),
        ("1250x8 within 60 ms", near),
        ("1250x8 in one region", region),
        ("10000x1", ones),
        ("10000x1 one model", model),
        ("10000x1 spread", spread),
        ("10000x1 strict spread", strict),
        ("mixed 10000 GPUs", mixed()),
        ("10000 quarter shares", shares),
        ("60000x8 refused", too_large),
        ("60000x8 shrunk", elastic),
    ]
}

/// Policies of the bench: the simplest and the default.
const POLICIES: [Policy; 2] = [Policy::BestFit, Policy::Foresight];
/// Fleets of the bench: nodes, sites.
const FLEETS: [(usize, usize); 2] = [(69_000, 300), (150_000, 600)];

/// Whether the command line asks for benches of this name, as criterion understands it.
fn is_wanted(called: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).peekable();
    filters.peek().is_none()
        || filters.any(|filter| called.starts_with(&filter) || filter.starts_with(called))
}

fn gangs(c: &mut Criterion) {
    for (nodes, sites) in FLEETS {
        let called = format!("gang/{nodes}");
        if is_wanted(&called) {
            gangs_on(c, &called, &View::new(&fleet(nodes, sites)));
        }
    }
}

fn gangs_on(c: &mut Criterion, fleet_called: &str, view: &View) {
    eprintln!("{fleet_called}: index of {} KiB", view.index_bytes() / 1024);
    let mut group = c.benchmark_group(fleet_called);
    group.sample_size(20);
    for (called, spec) in cases() {
        let run = || plan(view, &Request::whole(&spec), &Policy::default(), Budget::default());
        match run() {
            Ok(plan) => eprintln!("{called}: {} placed", plan.placements.len()),
            Err(refusal) => eprintln!("{called}: {refusal} ({:?})", refusal.verdict),
        }
        for policy in POLICIES {
            eprintln!("{fleet_called}/{policy}/{called}: {}", Spread::of(view, &spec, policy));
        }
        group.bench_function(called, |b| b.iter(|| black_box(run())));
    }
    group.finish();
}

/// The least and the median time of many runs: on a busy machine steadier than a mean.
struct Spread {
    least: Duration,
    median: Duration,
}

impl Spread {
    const RUNS: usize = 101;

    fn of(view: &View, spec: &JobSpec, policy: Policy) -> Self {
        let run = |_| {
            let start = Instant::now();
            let _ = black_box(plan(view, &Request::whole(spec), &policy, Budget::default()));
            start.elapsed()
        };
        let mut times: Vec<Duration> = (0..Self::RUNS).map(run).collect();
        times.sort_unstable();
        Self { least: times[0], median: times[Self::RUNS / 2] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {:?}, least {:?} of {} runs", self.median, self.least, Self::RUNS)
    }
}

/// Shapes of the line of many shapes: a trace has some dozens that come often.
const SHAPES: u16 = 64;

/// Requests for one replica, by name; several come in turn.
fn singles() -> Vec<(&'static str, Vec<JobSpec>)> {
    let mut model = gang("one", 1, GpuAsk::Whole(1));
    model.groups[0].shape.alternatives = models(&["A10"]);
    let share = |milli: u16| {
        let mut share = gang("share", 1, GpuAsk::Share(milli));
        share.groups[0].shape.cpu.0 = u64::from(milli % 7) * 1_000 + 100;
        share
    };
    vec![
        ("1 GPU", vec![gang("one", 1, GpuAsk::Whole(1))]),
        ("1 GPU of a model", vec![model]),
        ("8 GPUs", vec![gang("eight", 1, GpuAsk::Whole(8))]),
        ("a share", vec![share(300)]),
        ("shares of 64 shapes", (0..SHAPES).map(|number| share(50 + number * 14)).collect()),
        ("a CPU", vec![gang("cpu", 1, GpuAsk::None)]),
    ]
}

/// Single plans, each claimed, with as many leaving as come once 10,000 are there.
fn latencies(_: &mut Criterion) {
    for (nodes, sites) in FLEETS {
        let fleet_called = format!("single/{nodes}");
        if !is_wanted(&fleet_called) {
            continue;
        }
        let view = View::new(&fleet(nodes, sites));
        for policy in POLICIES {
            if !is_wanted(&format!("{fleet_called}/{policy}")) {
                continue;
            }
            for (called, specs) in singles() {
                let times = least_of_runs(|| timed(&mut view.clone(), &specs, policy));
                eprintln!("{fleet_called}/{policy}/{called}: {}", Percentiles(times));
            }
        }
    }
}

/// Runs of the same plans. Every run plans the same, so what only one of them waited for was the
/// machine's doing and not the planner's.
const SAME_RUNS: usize = 3;

/// Of each plan the least time over the runs.
fn least_of_runs(mut run: impl FnMut() -> Vec<Duration>) -> Vec<Duration> {
    let mut least = run();
    for _ in 1..SAME_RUNS {
        for (least, time) in least.iter_mut().zip(run()) {
            *least = time.min(*least);
        }
    }
    least
}

/// Times of 30,000 plans, each with what the view learns from the arrival.
fn timed(view: &mut View, specs: &[JobSpec], policy: Policy) -> Vec<Duration> {
    let mut living = VecDeque::new();
    let mut times = Vec::new();
    for (claim, spec) in (0..30_000).zip(specs.iter().cycle()) {
        let start = Instant::now();
        view.note_arrival(spec);
        let answer = plan(view, &Request::whole(spec), &policy, Budget::default());
        times.push(start.elapsed());
        if let Ok(plan) = answer {
            view.claim(claim, spec, &plan);
            living.push_back((claim, spec));
        }
        if living.len() > 10_000
            && let Some((oldest, spec)) = living.pop_front()
        {
            view.unclaim(oldest);
            view.note_departure(spec);
        }
    }
    times
}

struct Percentiles(Vec<Duration>);

impl std::fmt::Display for Percentiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut times = self.0.clone();
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 1_000).copied().unwrap_or_default();
        let (p50, p99, p999) = (at(500), at(990), at(999));
        let most = times.last().copied().unwrap_or_default();
        write!(f, "p50 {p50:?}, p99 {p99:?}, p99.9 {p999:?}, worst {most:?}")
    }
}

/// 100,000 jobs of one GPU come; three of four leave again, the oldest first.
fn churn(_: &mut Criterion) {
    for (nodes, sites) in FLEETS {
        let called = format!("churn/{nodes}");
        if !is_wanted(&called) {
            continue;
        }
        let fresh = View::new(&fleet(nodes, sites));
        for policy in POLICIES {
            if !is_wanted(&format!("{called}/{policy}")) {
                continue;
            }
            let mut rates: Vec<u64> = (0..5).map(|_| churned(&mut fresh.clone(), policy)).collect();
            rates.sort_unstable();
            eprintln!("{called}/{policy}: {} arrivals a second (median of five)", rates[2]);
        }
    }
}

/// Time that this process has spent on a core: others on the machine do not count.
fn busy_ns() -> u64 {
    let told = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn churned(view: &mut View, policy: Policy) -> u64 {
    const ARRIVALS: u64 = 100_000;
    let spec = &gang("one", 1, GpuAsk::Whole(1));
    let _ = black_box(plan(view, &Request::whole(spec), &policy, Budget::default()));
    let start = busy_ns();
    let mut left = 0;
    for claim in 0..ARRIVALS {
        if let Ok(plan) = plan(view, &Request::whole(spec), &policy, Budget::default()) {
            view.claim(claim, spec, &plan);
        }
        if claim % 4 != 0 {
            view.unclaim(left);
            left += 1;
        }
    }
    ARRIVALS * 1_000_000_000 / (busy_ns() - start).max(1)
}

fn small_fleet(c: &mut Criterion) {
    if !is_wanted("gang/1500") {
        return;
    }
    let view = View::new(&Fleet::new(1_500, 12, 7).state());
    let mut group = c.benchmark_group("gang/1500");
    group.sample_size(10);
    for (called, spec) in [
        ("1000x8", gang("eights", 1_000, GpuAsk::Whole(8))),
        ("8000x1", gang("ones", 8_000, GpuAsk::Whole(1))),
        ("4x8", gang("few", 4, GpuAsk::Whole(8))),
    ] {
        group.bench_function(called, |b| {
            b.iter(|| {
                black_box(plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default()))
            });
        });
    }
    group.finish();
}

/// One job after another, each claimed; every thousand jobs the claims end.
fn stream(c: &mut Criterion) {
    if !is_wanted("stream of 1000") {
        return;
    }
    for (fleet_called, state) in [("69000", fleet(69_000, 300)), ("1500", fleet(1_500, 12))] {
        let view = View::new(&state);
        let mut group = c.benchmark_group(format!("stream of 1000/{fleet_called}"));
        group.sample_size(10);
        for (called, specs) in singles() {
            group.bench_function(called, |b| {
                b.iter_batched_ref(
                    || view.clone(),
                    |view| {
                        for (claim, spec) in (0..1_000).zip(specs.iter().cycle()) {
                            let request = Request::whole(spec);
                            if let Ok(plan) =
                                plan(view, &request, &Policy::default(), Budget::default())
                            {
                                view.claim(claim, spec, &plan);
                            }
                        }
                    },
                    BatchSize::LargeInput,
                );
            });
        }
        group.finish();
    }
}

fn upkeep(c: &mut Criterion) {
    if !is_wanted("view/69000") {
        return;
    }
    let state = fleet(69_000, 300);
    let mut group = c.benchmark_group("view/69000");
    group.sample_size(10);
    group.bench_function("new", |b| b.iter(|| black_box(View::new(&state))));
    let mut view = View::new(&state);
    let some: Vec<NodeId> = (0..1_000).map(|number| NodeId(number * 61)).collect();
    group.bench_function("refresh of 1000", |b| b.iter(|| view.refresh(&state, &some)));
    group.finish();
}

criterion_group!(benches, gangs, small_fleet, latencies, churn, stream, upkeep);
criterion_main!(benches);
