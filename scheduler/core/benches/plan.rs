//! How long planning takes over 69,000 nodes with 461,772 GPUs, half of them occupied, and over a
//! fleet of 1,500 nodes.
//!
//! **Invariant:** the fleet comes from a seed, so figures of two runs are of the same case.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use scheduler_core::fixture::entry::models;
use scheduler_core::fixture::fleet::{Fleet, gang, occupy, workers};
use scheduler_core::id::NodeId;
use scheduler_core::job::{GpuAsk, JobSpec, Level, Strategy};
use scheduler_core::plan::{Budget, Policy, Request, plan};
use scheduler_core::state::State;
use scheduler_core::unit::RttUs;
use scheduler_core::view::View;
use std::hint::black_box;

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

fn cases() -> Vec<(&'static str, JobSpec)> {
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

fn gangs(c: &mut Criterion) {
    let view = View::new(&fleet(69_000, 300));
    let mut group = c.benchmark_group("gang/69000");
    group.sample_size(10);
    for (called, spec) in cases() {
        let answer = plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default());
        match &answer {
            Ok(plan) => eprintln!("{called}: {} placed", plan.placements.len()),
            Err(refusal) => eprintln!("{called}: {refusal} ({:?})", refusal.verdict),
        }
        group.bench_function(called, |b| {
            b.iter(|| {
                black_box(plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default()))
            });
        });
    }
    group.finish();
}

fn small_fleet(c: &mut Criterion) {
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
    for (fleet_called, state) in [("69000", fleet(69_000, 300)), ("1500", fleet(1_500, 12))] {
        let view = View::new(&state);
        let mut group = c.benchmark_group(format!("stream of 1000/{fleet_called}"));
        group.sample_size(10);
        let mut model = gang("one", 1, GpuAsk::Whole(1));
        model.groups[0].shape.alternatives = models(&["A10"]);
        let mut share = gang("share", 1, GpuAsk::Share(300));
        share.groups[0].shape.cpu.0 = 100;
        for (called, spec) in [
            ("1 GPU", gang("one", 1, GpuAsk::Whole(1))),
            ("1 GPU of a model", model),
            ("8 GPUs", gang("eight", 1, GpuAsk::Whole(8))),
            ("a share", share),
            ("a CPU", gang("cpu", 1, GpuAsk::None)),
        ] {
            group.bench_function(called, |b| {
                b.iter_batched_ref(
                    || view.clone(),
                    |view| {
                        for claim in 0..1_000 {
                            let request = Request::whole(&spec);
                            if let Ok(plan) =
                                plan(view, &request, &Policy::BestFit, Budget::default())
                            {
                                view.claim(claim, &spec, &plan);
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
    let state = fleet(69_000, 300);
    let mut group = c.benchmark_group("view/69000");
    group.sample_size(10);
    group.bench_function("new", |b| b.iter(|| black_box(View::new(&state))));
    let mut view = View::new(&state);
    let some: Vec<NodeId> = (0..1_000).map(|number| NodeId(number * 61)).collect();
    group.bench_function("refresh of 1000", |b| b.iter(|| view.refresh(&state, &some)));
    group.finish();
}

criterion_group!(benches, gangs, small_fleet, stream, upkeep);
criterion_main!(benches);
