//! How long explanations take over 69,000 nodes with 461,772 GPUs, half of them occupied: the short
//! form that every refusal carries, and the long form with all that would help; and what it costs to
//! copy the view for them.
//!
//! **Invariant:** the fleet comes from a seed, so figures of two runs are of the same case.

use criterion::{Criterion, criterion_group, criterion_main};
use scheduler_core::fixture::entry::models;
use scheduler_core::fixture::fleet::{Fleet, gang, occupy, workers};
use scheduler_core::job::{Condition, GpuAsk, JobSpec, Level, Selector};
use scheduler_core::node::Resources;
use scheduler_core::plan::explain::outlook::{ENDS_MAX, End};
use scheduler_core::plan::{Budget, Outlook, Policy, Request, explain, plan};
use scheduler_core::state::State;
use scheduler_core::unit::{PriceMicroUsd, RttUs, TimeMs};
use scheduler_core::view::{Held, View};
use std::hint::black_box;

/// What the server gives a search.
const BUDGET: Budget = Budget { steps_max: 8_000_000 };

fn cases() -> Vec<(&'static str, JobSpec)> {
    let near = |rtt_ms: u32, replicas| {
        let mut spec = gang("near", replicas, GpuAsk::Whole(8));
        spec.rtt_max = Some(RttUs(rtt_ms * 1_000));
        spec
    };
    let mut model = gang("model", 1_250, GpuAsk::Whole(8));
    model.groups[0].shape.alternatives = models(&["V100-16G"]);
    model.price_max = Some(PriceMicroUsd(100_000));
    let mut one = gang("one", 1, GpuAsk::Whole(8));
    one.groups[0].shape.alternatives = models(&["T4"]);
    one.groups[0].selectors =
        vec![Selector { key: "muster/site".into(), condition: Condition::In(vec!["no".into()]) }];
    let mut rack = gang("rack", 64, GpuAsk::Whole(8));
    rack.topology_required = Some(Level::Rack);
    let mut groups = near(1, 1);
    groups.groups = vec![
        workers("eights", 4_000, GpuAsk::Whole(8)),
        workers("fours", 6_000, GpuAsk::Whole(4)),
        workers("twos", 10_000, GpuAsk::Whole(2)),
        workers("ones", 24_000, GpuAsk::Whole(1)),
        workers("cpus", 5_000, GpuAsk::None),
    ];
    vec![
        ("60000x8, never", gang("huge", 60_000, GpuAsk::Whole(8))),
        ("40000x8, busy", gang("busy", 40_000, GpuAsk::Whole(8))),
        ("3000x8 within 5 ms", near(5, 3_000)),
        ("1250x8 of a model and price", model),
        ("64x8 in one rack", rack),
        ("1x8 at no site", one),
        ("five groups within 1 ms", groups),
    ]
}

/// As if every job on the fleet ended, one a second.
fn outlook(state: &State) -> Outlook {
    let mut outlook = Outlook::default();
    for (at, job) in (1u64..).zip(state.jobs_after(None)).take(ENDS_MAX) {
        let shapes = &job.spec.groups;
        let held = state.replicas(job.id).filter_map(|(rank, replica)| {
            let allocation = replica.allocation?;
            let shape = &shapes.get(job.spec.group_of(rank)?)?.shape;
            let used = Resources { cpu: shape.cpu, memory: shape.memory, disk: shape.disk };
            let (node, gpus, share_milli) =
                (allocation.node, allocation.gpus, allocation.share_milli);
            let custom = shape.custom.clone();
            Some(Held { node, gpus, share_milli, used, custom })
        });
        let held: Vec<Held> = held.collect();
        let at = TimeMs(at * 1_000);
        outlook.ends.push(End { at, job: job.id, own: false, gpu_milli: 0, held });
    }
    outlook
}

fn explanations(c: &mut Criterion) {
    let mut state = Fleet::new(69_000, 300, 7).state();
    occupy(&mut state, 500, 8);
    let mut view = View::new(&state);
    let outlook = outlook(&state);
    let policy = Policy::default();
    let mut group = c.benchmark_group("explain/69000");
    group.sample_size(10);
    group.bench_function("copy of the view", |b| b.iter(|| black_box(view.clone())));
    // What copies share is parted where one of them changes: on the planner's side by its plans.
    let large = gang("large", 1_250, GpuAsk::Whole(8));
    let found = plan(&view, &Request::whole(&large), &policy, Budget::default()).expect("fits");
    group.bench_function("1250x8 claimed", |b| {
        b.iter(|| {
            view.claim(1, &large, &found);
            view.unclaim(1);
        });
    });
    group.bench_function("1250x8 claimed beside a new copy", |b| {
        b.iter(|| {
            let copy = view.clone();
            view.claim(1, &large, &found);
            view.unclaim(1);
            copy
        });
    });
    for (called, spec) in cases() {
        let request = Request::whole(&spec);
        let answer = explain(&mut view, &request, &policy, &outlook, BUDGET);
        eprintln!("{called}: {:?}, {}", answer.verdict, answer.summary);
        for help in &answer.helps {
            eprintln!("    {:?}{}", help.change, if help.is_least { "" } else { " (not least)" });
        }
        eprintln!("    cut short: {}", answer.is_cut_short);
        group.bench_function(format!("{called}: short"), |b| {
            b.iter(|| black_box(plan(&view, &request, &policy, Budget::default())));
        });
        group.bench_function(format!("{called}: long"), |b| {
            b.iter(|| black_box(explain(&mut view, &request, &policy, &outlook, BUDGET)));
        });
    }
    group.finish();
}

criterion_group!(benches, explanations);
criterion_main!(benches);
