//! Gangs of 10,000 with rules among their members on the reference fleet, half of it in use.

use criterion::{Criterion, criterion_group, criterion_main};
use scheduler_core::fixture::fleet::{Fleet, gang, occupy};
use scheduler_core::job::{Affinity, DomainsMax, GpuAsk, JobSpec, Level, Segment, Spread, Target};
use scheduler_core::plan::{Budget, Policy, Request, plan};
use scheduler_core::unit::RttUs;
use scheduler_core::view::View;
use std::hint::black_box;

fn with(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = gang("gang", 10_000, GpuAsk::Whole(1));
    change(&mut spec);
    spec
}

fn cases() -> Vec<(&'static str, JobSpec)> {
    let segment = |level, size| Segment { level, size, exclusive: false };
    let at_most = |level, max| DomainsMax { level, max };
    let apart = Affinity {
        anti: true,
        preferred: false,
        level: Level::Node,
        target: Target::Groups { group: 0, with: 0 },
    };
    vec![
        ("per_node", with(|spec| spec.groups[0].rules.replicas_per_node_max = 2)),
        (
            "segments",
            with(|spec| {
                spec.groups[0].rules.segments =
                    vec![segment(Level::Site, 64), segment(Level::Node, 4)];
            }),
        ),
        ("apart", with(|spec| spec.affinities = vec![apart])),
        (
            "domains",
            with(|spec| {
                spec.domains_max = vec![at_most(Level::Site, 60), at_most(Level::Node, 2_500)];
            }),
        ),
        (
            "near domains",
            with(|spec| {
                spec.rtt_max = Some(RttUs(60_000));
                spec.domains_max = vec![at_most(Level::Site, 60)];
            }),
        ),
        (
            "racks of a group",
            with(|spec| {
                spec.groups[0].rules.domains_max = vec![at_most(Level::Rack, 400)];
            }),
        ),
        (
            "spread",
            with(|spec| {
                let (level, preferred) = (Level::Region, false);
                spec.groups[0].rules.spread = vec![Spread { level, skew_max: 100, preferred }];
            }),
        ),
    ]
}

fn ruled(criterion: &mut Criterion) {
    let mut state = Fleet::new(69_000, 300, 1).state();
    occupy(&mut state, 500, 2);
    let view = View::new(&state);
    let mut bench = criterion.benchmark_group("ruled");
    bench.sample_size(10);
    for (called, spec) in cases() {
        let find = || plan(&view, &Request::whole(&spec), &Policy::default(), Budget::default());
        assert!(find().is_ok_and(|plan| plan.placements.len() == 10_000), "{called}");
        bench.bench_function(called, |bencher| bencher.iter(|| black_box(find())));
    }
    bench.finish();
}

criterion_group!(benches, ruled);
criterion_main!(benches);
