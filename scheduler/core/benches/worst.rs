//! The hardest requests that are accepted, on 2,000 nodes of which no two are alike: as many groups,
//! alternatives, conditions and rules as a job may have, both where it fits and where it does not.
//!
//! **Invariant:** every request passes validation.

use criterion::{Criterion, criterion_group, criterion_main};
use scheduler_core::fixture::entry::{TENANT, group, job_spec, name, tenant};
use scheduler_core::fixture::fleet::{Fleet, occupy};
use scheduler_core::job::{
    Affinity, Condition, DomainsMax, GpuAlternative, GpuAsk, JobSpec, Level, RttObjective,
    RttScope, Segment, Selector, Spread, Strategy, Target, Toleration,
};
use scheduler_core::plan::{Budget, Policy, Request, answer};
use scheduler_core::unit::{CostMicroUsd, DurationMs, RttUs};
use scheduler_core::validate;
use scheduler_core::view::View;
use std::hint::black_box;

const NODES: usize = 2_000;
const MODELS: usize = 40;

/// Every node has labels of its own; there are many models.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new(NODES, 40, 7);
    for (number, node) in fleet.nodes.iter_mut().enumerate() {
        node.gpus.iter_mut().for_each(|gpu| gpu.model = name(&format!("m{}", number % MODELS)));
        for key in 0..20 {
            node.labels.insert(format!("key-{key}").into(), format!("v{}", number + key).into());
        }
    }
    fleet
}

/// Selectors of 64 values that each of so many groups may have.
fn selectors(groups: usize) -> u32 {
    let all = validate::SELECTOR_VALUES_MAX / 64;
    u32::try_from((all / groups).min(validate::LIST_MAX)).expect("few")
}

/// So many groups of so many replicas, with all the alternatives and conditions allowed.
fn heavy(groups: usize, replicas: u32, condition: fn(u32) -> Condition) -> JobSpec {
    let each = (0..groups).map(|at| {
        let mut group = group(&format!("g{at}"), replicas, 1 + (at % 3) as u8);
        group.replicas_min = 1;
        group.shape.alternatives = (0..16)
            .map(|nth| GpuAlternative {
                models: (0..64).map(|model| model_of(at + nth, model)).collect(),
                ..GpuAlternative::default()
            })
            .collect();
        let selector = |nth: u32| Selector {
            key: format!("key-{}", nth % 20).into(),
            condition: condition(nth),
        };
        group.selectors = (0..selectors(groups)).map(selector).collect();
        let toleration =
            |nth: u32| Toleration { key: format!("t{nth}").into(), value: None, effect: None };
        group.tolerations = (0..64).map(toleration).collect();
        group
    });
    job_spec(each.collect())
}

/// One model that some node has among many that none has.
fn model_of(alternative: usize, nth: usize) -> scheduler_core::id::Name {
    let some = nth == 0 && alternative.is_multiple_of(3);
    let number = if some { alternative % MODELS } else { 1_000 + alternative * 64 + nth };
    name(&format!("m{number}"))
}

/// Holds on nearly every node.
fn mostly(nth: u32) -> Condition {
    Condition::NotIn((0..64).map(|value| format!("v{}", value * 64 + nth).into()).collect())
}

/// Holds on few nodes.
fn hardly(nth: u32) -> Condition {
    Condition::In((0..64).map(|value| format!("v{}", value * 7 + nth % 20).into()).collect())
}

/// Every group with conditions that no other has.
fn own_lists(mut spec: JobSpec) -> JobSpec {
    let groups = spec.groups.len();
    for (at, group) in spec.groups.iter_mut().enumerate() {
        let selector = |nth: u32| Selector {
            key: format!("key-{}", nth % 20).into(),
            condition: Condition::NotIn(
                (0..64)
                    .map(|value| format!("v{}", (at * 64 + value) * 64 + nth as usize).into())
                    .collect(),
            ),
        };
        group.selectors = (0..selectors(groups)).map(selector).collect();
    }
    spec
}

/// Groups near to and apart from each other, even, in blocks, near the head.
fn ruled(groups: usize, replicas: u32, anti: bool) -> JobSpec {
    let mut spec = heavy(groups, replicas, mostly);
    let levels = [Level::Region, Level::Zone, Level::Site, Level::Rack, Level::Node];
    // No two about the same pair, so that none contradicts another.
    spec.affinities = (0..groups.min(32) as u16)
        .map(|at| Affinity {
            anti: anti || at % 2 == 0,
            preferred: at % 3 == 0,
            level: levels[usize::from(at) % 5],
            target: Target::Groups { group: at, with: (at + 1) % groups as u16 },
        })
        .collect();
    for (at, group) in spec.groups.iter_mut().enumerate() {
        group.rules.spread = levels
            .map(|level| Spread { level, skew_max: 1 + at as u32 % 3, preferred: at % 2 == 0 })
            .to_vec();
        group.rules.replicas_per_node_max = 2;
        if at % 2 == 1 {
            group.rules.segments = vec![Segment { level: Level::Rack, size: 2, exclusive: false }];
        }
        group.rules.topology_preferred = Some(Level::Zone);
    }
    spec
}

/// Bounds on the domains of every level, for the job and for each group.
fn few(spec: &mut JobSpec) {
    let levels = [Level::Region, Level::Zone, Level::Site, Level::Rack, Level::Node];
    let bounds = |times: u32| {
        let each = levels.into_iter().zip([1, 2, 6, 12, 24]);
        each.map(|(level, max)| DomainsMax { level, max: max * times }).collect()
    };
    spec.domains_max = bounds(4);
    spec.groups.iter_mut().for_each(|group| group.rules.domains_max = bounds(1));
}

fn cases() -> Vec<(&'static str, JobSpec)> {
    let with = |mut spec: JobSpec, change: fn(&mut JobSpec)| {
        change(&mut spec);
        spec
    };
    let near: fn(&mut JobSpec) = |spec| {
        spec.rtt_max = Some(RttUs(20_000));
        spec.rtt_objective = RttObjective::Mean;
    };
    let plain = |replicas| {
        let mut spec = heavy(64, replicas, mostly);
        spec.groups.iter_mut().for_each(|group| group.replicas_min = group.replicas);
        spec
    };
    vec![
        ("64 groups that fit", heavy(64, 3, mostly)),
        ("64 groups, few nodes", heavy(64, 3, hardly)),
        ("64 groups, all needed", plain(40)),
        ("64 groups of 1,500", heavy(64, 1_500, mostly)),
        ("64 groups with lists of their own", own_lists(plain(3))),
        ("64 groups with lists of their own, all needed", own_lists(plain(40))),
        ("64 groups near each other", with(heavy(64, 3, mostly), near)),
        (
            "64 groups spread strictly",
            with(heavy(64, 20, mostly), |spec| {
                spec.strategy = Strategy::StrictSpread;
            }),
        ),
        ("one group of 100,000", heavy(1, 100_000, mostly)),
        ("rules among 64 groups", ruled(64, 3, false)),
        ("rules among 8 groups", ruled(8, 40, false)),
        ("nobody near anybody", ruled(64, 20, true)),
        (
            "rules and near in groups",
            with(ruled(32, 10, false), |spec| {
                spec.rtt_max = Some(RttUs(5_000));
                spec.rtt_scope = RttScope::WithinGroups;
            }),
        ),
        (
            "rules and near the head",
            with(ruled(32, 10, false), |spec| {
                spec.rtt_max = Some(RttUs(5_000));
                spec.rtt_scope = RttScope::HeadToMembers;
            }),
        ),
        (
            "rules and little money",
            with(ruled(16, 30, false), |spec| {
                spec.duration = Some(DurationMs(3_600_000));
                spec.cost_max = Some(CostMicroUsd(300_000_000));
            }),
        ),
        ("rules and few domains", with(ruled(16, 30, false), few)),
        (
            "few domains of 64 groups",
            with(heavy(64, 20, mostly), |spec| {
                few(spec);
                spec.rtt_max = Some(RttUs(20_000));
            }),
        ),
        (
            "a few of everything",
            with(ruled(3, 3, true), |spec| {
                spec.groups[1].shape.gpus = GpuAsk::Share(300);
                spec.rtt_max = Some(RttUs(50_000));
            }),
        ),
    ]
}

fn worst(criterion: &mut Criterion) {
    let mut state = fleet().state();
    occupy(&mut state, 500, 8);
    let view = View::new(&state);
    let mut bench = criterion.benchmark_group("worst");
    bench.sample_size(10);
    for (called, spec) in cases() {
        validate::job(&spec).expect(called);
        let around = state.around(&tenant(TENANT), &spec, None);
        let request = Request { around: &around, ..Request::whole(&spec) };
        let ask = || answer(&view, &request, &Policy::default(), Budget::default());
        match ask() {
            Ok(found) => {
                let (placed, all) = (found.plan.placements.len(), spec.replicas());
                eprintln!("{called}: {placed} of {all}, exhausted {}", found.exhausted);
            }
            Err(refusal) => eprintln!("{called}: {:?}, {refusal}", refusal.verdict),
        }
        bench.bench_function(called, |bencher| bencher.iter(|| black_box(ask())));
    }
    bench.finish();
}

criterion_group!(benches, worst);
criterion_main!(benches);
