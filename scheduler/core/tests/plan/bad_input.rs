//! Requests and fleets that make no sense: a clear refusal, in bounded work.

use crate::checker::{Facts, all_ranks};
use scheduler_core::command::{Command, Plan, Rejection, SiteRtt};
use scheduler_core::fixture::entry::{
    TENANT, World, gpu_spec, group, job_spec, name, node_spec, register, submit, tenant,
};
use scheduler_core::id::Name;
use scheduler_core::job::{
    Affinity, Condition, GpuAlternative, GpuAsk, JobSpec, Level, Segment, Selector, Spread,
    Strategy, Target, Toleration,
};
use scheduler_core::node::{Custom, Labels};
use scheduler_core::plan::{Budget, Outlook, Policy, Request, Unplaceable, Verdict, explain, plan};
use scheduler_core::unit::{
    CostMicroUsd, CpuMilli, DiskMib, DurationMs, MemoryMib, PriceMicroUsd, RttUs, VramMib,
};
use scheduler_core::validate;
use scheduler_core::view::View;
use std::collections::BTreeMap;

/// Enough for anything these tests ask; a plan that needs more is a runaway.
const STEPS_MAX: u64 = 3_000_000;

fn run(world: &World, spec: &JobSpec) -> Result<Plan, Unplaceable> {
    let mut view = View::new(&world.state);
    let budget = Budget { steps_max: STEPS_MAX };
    let around = world.state.around(&tenant(TENANT), spec, None);
    let request = Request { around: &around, ..Request::whole(spec) };
    let answer = plan(&view, &request, &Policy::default(), budget);
    if let Ok(plan) = &answer {
        let facts = Facts::new(&world.state, &tenant(TENANT), None);
        let faults = facts.faults(spec, &all_ranks(spec), &[], plan);
        assert!(faults.is_empty(), "{faults:?}: {plan:?}");
    }
    // Explaining is bounded as well, whatever is asked.
    let _ = explain(&mut view, &request, &Policy::default(), &Outlook::default(), budget);
    answer
}

fn refused(world: &World, spec: &JobSpec) -> Unplaceable {
    match run(world, spec) {
        Ok(plan) => panic!("placed as {plan:?}"),
        Err(refusal) => {
            assert_ne!(refusal.verdict, Verdict::Undecided, "{refusal:?}");
            let sum: u32 = refusal.counts.iter().map(|(_, count)| count).sum();
            assert_eq!(sum, refusal.nodes);
            assert!(!refusal.to_string().is_empty());
            refusal
        }
    }
}

fn invalid(spec: &JobSpec) -> (String, String) {
    match validate::job(spec) {
        Err(Rejection::Invalid { field, problem }) => (field, problem),
        other => panic!("{other:?}"),
    }
}

fn one(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = job_spec(vec![group("w", 2, 1)]);
    change(&mut spec);
    spec
}

fn condition(key: &str, condition: Condition) -> Selector {
    Selector { key: key.into(), condition }
}

fn values(of: &[&str]) -> Vec<std::sync::Arc<str>> {
    of.iter().map(|&value| value.into()).collect()
}

#[test]
fn conditions_that_contradict_each_other_fit_nowhere() {
    let world = World::with_nodes(20, 8);
    let pairs = [
        [Condition::Exists, Condition::DoesNotExist],
        [Condition::In(values(&["s1"])), Condition::NotIn(values(&["s1"]))],
        [Condition::In(values(&["s1"])), Condition::In(values(&["s2"]))],
        [Condition::In(Vec::new()), Condition::Exists],
    ];
    for pair in pairs {
        let spec = one(|spec| {
            let both = pair.into_iter().map(|one| condition("muster/site", one));
            spec.groups[0].selectors = both.collect();
        });
        if validate::job(&spec).is_ok() {
            assert_eq!(refused(&world, &spec).verdict, Verdict::NoSuchPool, "{spec:?}");
        }
    }
}

#[test]
fn rules_that_contradict_each_other_are_refused() {
    let mut world = World::new();
    for number in 0..12 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.place.site = name(&format!("site-{}", number % 3));
        spec.place.rack = name(&format!("rack-{}", number % 2));
        world.done(register(spec));
    }
    let anti = |level, target| Affinity { anti: true, preferred: false, level, target };
    let near = |level, target| Affinity { anti: false, ..anti(level, target) };
    let own = Target::Groups { group: 0, with: 0 };
    let specs: Vec<(&str, JobSpec)> = vec![
        (
            "all on one node, one per node",
            one(|spec| {
                spec.strategy = Strategy::StrictPack;
                spec.groups[0].rules.replicas_per_node_max = 1;
            }),
        ),
        (
            "more apart than there are regions",
            one(|spec| {
                spec.affinities = vec![anti(Level::Region, own.clone())];
            }),
        ),
        (
            "near itself and apart from itself",
            one(|spec| {
                let both = [near(Level::Site, own.clone()), anti(Level::Site, own.clone())];
                spec.affinities = both.to_vec();
            }),
        ),
        (
            "apart from a group that it must be near",
            job_spec(vec![group("a", 1, 1), group("b", 1, 1)]),
        ),
        (
            "one node for all, no two on one node",
            one(|spec| {
                spec.groups[0].rules.strategy = Some(Strategy::StrictSpread);
                spec.affinities = vec![near(Level::Node, own.clone())];
            }),
        ),
        (
            "a segment on one node, one per node",
            one(|spec| {
                spec.groups[0].rules.segments =
                    vec![Segment { level: Level::Node, size: 2, exclusive: false }];
                spec.groups[0].rules.replicas_per_node_max = 1;
            }),
        ),
        (
            "even over sites, inside one site",
            one(|spec| {
                spec.groups[0].replicas = 6;
                spec.groups[0].replicas_min = 6;
                spec.groups[0].replicas_max = 6;
                spec.topology_required = Some(Level::Site);
                let spread = Spread { level: Level::Site, skew_max: 1, preferred: false };
                spec.groups[0].rules.spread = vec![spread];
            }),
        ),
        (
            "near a job that is nowhere",
            one(|spec| {
                let labels: Labels = [("app".into(), "none".into())].into();
                spec.affinities = vec![near(Level::Rack, Target::Jobs { group: None, labels })];
            }),
        ),
        (
            "a micro-dollar for all of it",
            one(|spec| {
                spec.duration = Some(DurationMs(3_600_000));
                spec.cost_max = Some(CostMicroUsd(1));
            }),
        ),
    ];
    for (what, mut spec) in specs {
        if what.starts_with("apart from a group") {
            let pair = Target::Groups { group: 0, with: 1 };
            spec.affinities = vec![near(Level::Site, pair.clone()), anti(Level::Site, pair)];
        }
        match validate::job(&spec) {
            Ok(()) => {
                refused(&world, &spec);
            }
            // Refused for what it contradicts, or not planned yet: told with its path.
            Err(Rejection::Invalid { field, problem }) => {
                assert!(field.starts_with("spec.") && !problem.is_empty(), "{what}: {field}");
            }
            Err(other) => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn nodes_without_anything_hold_nothing_and_break_nothing() {
    let mut world = World::new();
    for number in 0..30 {
        let mut spec = node_spec(&format!("n{number}"), usize::from(number % 3 == 0));
        if number % 2 == 0 {
            spec.resources.cpu = CpuMilli(0);
            spec.resources.memory = MemoryMib(0);
            spec.resources.disk = DiskMib(0);
        }
        spec.price = PriceMicroUsd(0);
        world.done(register(spec));
    }
    // GPUs on every third node, cores on every second: both on n3, n9, n15, n21 and n27.
    let spec = |replicas| job_spec(vec![group("w", replicas, 1)]);
    let placed = run(&world, &spec(5)).expect("fits exactly");
    assert_eq!(placed.placements.len(), 5);
    refused(&world, &spec(6));
    let mut none = World::new();
    assert_eq!(refused(&none, &spec(1)).nodes, 0);
    let mut empty = node_spec("empty", 0);
    empty.resources.cpu = CpuMilli(0);
    none.done(register(empty));
    refused(&none, &spec(1));
}

#[test]
fn a_group_apart_from_itself_is_placed_apart_or_refused() {
    let mut world = World::new();
    for number in 0..6 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.place.rack = name(&format!("rack-{}", number / 2));
        world.done(register(spec));
    }
    for (level, domains) in [(Level::Node, 6), (Level::Rack, 3), (Level::Site, 1)] {
        for replicas in [domains, domains + 1] {
            let mut spec = job_spec(vec![group("w", replicas, 1)]);
            let target = Target::Groups { group: 0, with: 0 };
            spec.affinities = vec![Affinity { anti: true, preferred: false, level, target }];
            if validate::job(&spec).is_err() {
                continue;
            }
            assert_eq!(run(&world, &spec).is_ok(), replicas == domains, "{level:?} {replicas}");
        }
    }
}

/// Times that are told twice and differently, or one way only, or not at all.
#[test]
fn contradicting_and_missing_rtts_are_never_taken_for_near() {
    let mut world = World::new();
    let sites: Vec<Name> = (0..4).map(|number| name(&format!("site-{number}"))).collect();
    for (number, site) in sites.iter().enumerate() {
        let mut spec = node_spec(&format!("n{number}"), 1);
        spec.place.site = site.clone();
        world.done(register(spec));
    }
    let told =
        |a: usize, b: usize, us| SiteRtt::told(sites[a].clone(), sites[b].clone(), RttUs(us));
    // 0-1 is told both ways, far last; 1-2 near; 2-3 is not known; 0-3 near with a high tail.
    let mut tail = told(0, 3, 1_000);
    tail.rtt_high = RttUs(90_000);
    world.done(Command::SetSiteRtts(vec![
        told(0, 1, 1_000),
        told(1, 0, 80_000),
        told(2, 1, 1_000),
        tail,
    ]));
    let spec = |replicas| {
        let mut spec = job_spec(vec![group("w", replicas, 1)]);
        spec.rtt_max = Some(RttUs(5_000));
        spec
    };
    let pair = run(&world, &spec(2)).expect("sites 1 and 2");
    let nodes: Vec<u32> = pair.placements.iter().map(|one| one.node.0).collect();
    assert!(nodes.contains(&1) && nodes.contains(&2), "{nodes:?}");
    let refusal = refused(&world, &spec(3));
    assert_eq!(refusal.verdict, Verdict::Latency);
    // Nonsense in the table is refused whole.
    for bad in [told(0, 1, 0), told(0, 1, u32::MAX)] {
        world.refused(Command::SetSiteRtts(vec![told(0, 2, 1_000), bad]));
    }
    assert_eq!(refused(&world, &spec(3)).verdict, Verdict::Latency);
}

/// Far more of everything than is allowed: refused with the path; and should a planner be handed
/// it all the same, it neither hangs nor panics.
#[test]
fn a_thousand_alternatives_and_ten_thousand_conditions_are_bounded() {
    let world = World::with_nodes(200, 8);
    let many = one(|spec| {
        spec.groups[0].shape.alternatives = (0..1_000)
            .map(|number| GpuAlternative {
                models: (0..64).map(|model| name(&format!("m{number}-{model}"))).collect(),
                vram_min: VramMib(number),
                ..GpuAlternative::default()
            })
            .collect();
    });
    let (field, problem) = invalid(&many);
    assert_eq!(field, "spec.groups[0].shape.gpu_alternatives");
    assert!(problem.contains("1000"), "{problem}");
    refused(&world, &many);

    let selectors = one(|spec| {
        let each = |number: u32| {
            let named = (0..64).map(|value| format!("v{number}-{value}").into()).collect();
            condition(&format!("key-{number}"), Condition::NotIn(named))
        };
        spec.groups[0].selectors = (0..10_000).map(each).collect();
        let toleration = |number: u32| Toleration {
            key: format!("key-{number}").into(),
            value: None,
            effect: None,
        };
        spec.groups[0].tolerations = (0..10_000).map(toleration).collect();
    });
    let (field, problem) = invalid(&selectors);
    assert_eq!(field, "spec.groups[0].selectors");
    assert!(problem.contains("10000"), "{problem}");
    assert!(run(&world, &selectors).is_ok(), "all of them hold");

    let values = one(|spec| {
        let named = |nth: u32| (0..64).map(|value| format!("v{nth}-{value}").into()).collect();
        let each = |nth| condition("number", Condition::NotIn(named(nth)));
        let groups = (0..64).map(|at| group(&format!("g{at}"), 1, 1));
        spec.groups = groups.collect();
        spec.groups.iter_mut().for_each(|group| group.selectors = (0..5).map(each).collect());
    });
    let (field, problem) = invalid(&values);
    assert_eq!(field, "spec.groups[62].selectors[2].values");
    assert!(problem.contains("20032") && problem.contains("20000"), "{problem}");

    let affinities = one(|spec| {
        let target = Target::Groups { group: 0, with: 0 };
        let one = Affinity { anti: true, preferred: false, level: Level::Node, target };
        spec.affinities = vec![one; 10_000];
    });
    assert_eq!(invalid(&affinities).0, "spec.affinities");
    let custom = one(|spec| {
        let all = (0..1_000).map(|number| (name(&format!("c{number}")), 1));
        spec.groups[0].shape.custom = Custom::from(all.collect::<BTreeMap<_, _>>());
    });
    assert_eq!(invalid(&custom).0, "spec.groups[0].shape.custom");
}

/// As much as is allowed of everything, on a fleet where nothing is equal.
#[test]
fn groups_with_all_conditions_that_are_allowed_stay_in_their_budget() {
    let mut world = World::new();
    for number in 0..300 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        for (at, gpu) in spec.gpus.iter_mut().enumerate() {
            *gpu = gpu_spec(&format!("m{}", (number + at) % 40), 80_000);
        }
        spec.labels.insert("number".into(), number.to_string().into());
        spec.place.site = name(&format!("site-{}", number % 30));
        world.done(register(spec));
    }
    // Eight groups: with all 64 that are allowed, trying the alternatives takes minutes.
    let groups = (0..8).map(|at| {
        let mut group = group(&format!("g{at}"), 3, 1);
        group.shape.alternatives = (0..16)
            .map(|nth| GpuAlternative {
                models: vec![name(&format!("m{}", (at + nth) % 40))],
                ..GpuAlternative::default()
            })
            .collect();
        let each = |nth: u32| {
            let values = (0..39).map(|value| (value * 64 + nth).to_string().into()).collect();
            condition("number", Condition::NotIn(values))
        };
        group.selectors = (0..64).map(each).collect();
        group
    });
    let spec = job_spec(groups.collect());
    validate::job(&spec).expect("within the limits");
    let answer = run(&world, &spec);
    if let Err(refusal) = answer {
        assert_eq!(refusal.nodes, 300);
    }
}

/// Ranks and sums at the end of their ranges.
#[test]
fn absurd_numbers_are_refused_with_their_path() {
    let cases: [(&str, JobSpec); 9] = [
        ("spec.groups[0].replicas", one(|spec| spec.groups[0].replicas = u32::MAX)),
        ("spec.groups[0].replicas", one(|spec| spec.groups[0].replicas = 0)),
        ("spec.groups[0].replicas_min", one(|spec| spec.groups[0].replicas_min = 3)),
        ("spec.groups[0].shape.gpus", one(|spec| spec.groups[0].shape.gpus = GpuAsk::Whole(65))),
        (
            "spec.groups[0].shape.gpu_share_milli",
            one(|spec| spec.groups[0].shape.gpus = GpuAsk::Share(1_000)),
        ),
        ("spec.rtt_us_max", one(|spec| spec.rtt_max = Some(RttUs(0)))),
        ("spec.price_micro_usd_max", one(|spec| spec.price_max = Some(PriceMicroUsd(u64::MAX)))),
        (
            "spec.price_hour_micro_usd_max",
            one(|spec| spec.hourly_max = Some(CostMicroUsd(1_000_000_000_000_001))),
        ),
        ("spec.price_hour_micro_usd_max", one(|spec| spec.hourly_max = Some(CostMicroUsd(0)))),
    ];
    let mut world = World::with_nodes(4, 8);
    for (path, spec) in cases {
        assert_eq!(invalid(&spec).0, path);
        // The state takes none of it either.
        let refusal = world.refused(Command::Submit(submit("bad", spec, None)));
        assert!(refusal.to_string().contains(path), "{refusal}");
    }
}
