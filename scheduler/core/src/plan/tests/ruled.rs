//! Gangs with rules among their members: plans are accepted, refusals are true on small fleets.

use crate::command::{Command, SiteRtt};
use crate::fit::{self, NOBODY};
use crate::fixture::entry::{World, group, job_spec, name, node_spec, register};
use crate::fixture::fleet::{Fleet, gang, occupy, submission};
use crate::id::{JobId, NodeId, Rank};
use crate::job::{
    Affinity, DomainsMax, GpuAsk, JobSpec, Level, Reason, RttScope, Segment, Spread, Strategy,
    Target,
};
use crate::node::{Labels, Node};
use crate::plan::{Budget, Policy, Ranks, Request, Unplaceable, Verdict, plan};
use crate::state::State;
use crate::unit::{CostMicroUsd, CpuMilli, DurationMs, MemoryMib, PriceMicroUsd, RttUs};
use crate::view::View;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

const LEVELS: [Level; 5] = [Level::Region, Level::Zone, Level::Site, Level::Rack, Level::Node];

fn one_in(rng: &mut StdRng, parts: u32) -> bool {
    rng.random_range(0..parts) == 0
}

fn level(rng: &mut StdRng) -> Level {
    LEVELS[rng.random_range(0..LEVELS.len())]
}

/// Up to 6 nodes of up to 3 equal GPUs, in up to 3 sites of 2 racks each.
fn world(rng: &mut StdRng) -> World {
    let mut world = World::new();
    for number in 0..rng.random_range(1..=6) {
        let mut spec = node_spec(&format!("n{number}"), rng.random_range(1..=3));
        spec.resources.cpu = CpuMilli(3_000);
        spec.resources.memory = MemoryMib(3 * 1024);
        let site = rng.random_range(0..3);
        spec.place.region = name(if site == 2 { "far" } else { "here" });
        spec.place.zone = name(&format!("zone-{site}"));
        spec.place.site = name(&format!("site-{site}"));
        spec.place.rack = name(&format!("rack-{}", rng.random_range(0..2)));
        spec.price = PriceMicroUsd(rng.random_range(1..4) * 1_000_000);
        world.done(register(spec));
    }
    let mut rtts = Vec::new();
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        let site = |n: u32| name(&format!("site-{n}"));
        let known = |n| world.state.sites().find(&site(n)).is_some();
        if known(a) && known(b) && !one_in(rng, 5) {
            rtts.push(SiteRtt::told(site(a), site(b), RttUs(rng.random_range(1..4) * 1000)));
        }
    }
    if !rtts.is_empty() {
        world.done(Command::SetSiteRtts(rtts));
    }
    world
}

fn labels(value: &str) -> Labels {
    [("app".into(), value.into())].into()
}

fn domains_max(rng: &mut StdRng) -> Vec<DomainsMax> {
    let mut bounds = vec![DomainsMax { level: level(rng), max: rng.random_range(1..4) }];
    let other = DomainsMax { level: level(rng), max: rng.random_range(1..4) };
    bounds.extend((other.level != bounds[0].level && one_in(rng, 2)).then_some(other));
    bounds
}

/// Up to 5 replicas in up to 3 groups, with some rules.
fn spec(rng: &mut StdRng) -> JobSpec {
    let mut groups = Vec::new();
    let mut left = rng.random_range(1..=5u32);
    while left > 0 && groups.len() < 3 {
        let replicas = rng.random_range(1..=left);
        left -= replicas;
        let mut one = group(&format!("g{}", groups.len()), replicas, rng.random_range(0..=2));
        let rules = &mut one.rules;
        if one_in(rng, 5) {
            rules.domains_max = domains_max(rng);
        }
        if one_in(rng, 5) {
            rules.replicas_per_node_max = rng.random_range(1..3);
        }
        if one_in(rng, 4) {
            let all =
                [Strategy::Pack, Strategy::Spread, Strategy::StrictPack, Strategy::StrictSpread];
            rules.strategy = Some(all[rng.random_range(0..4)]);
        }
        if one_in(rng, 5) {
            rules.topology_required = Some(LEVELS[rng.random_range(0..4)]);
        }
        if one_in(rng, 6) {
            rules.topology_preferred = Some(LEVELS[rng.random_range(0..4)]);
        }
        if one_in(rng, 4) {
            rules.segments = vec![Segment {
                level: level(rng),
                size: rng.random_range(1..=3),
                exclusive: rules.replicas_per_node_max == 0,
            }];
            if rules.segments[0].level < Level::Rack && one_in(rng, 2) {
                let size = rules.segments[0].size;
                rules.segments[0].size = size * 2;
                rules.segments.push(Segment { level: Level::Node, size, exclusive: false });
            }
        }
        if one_in(rng, 4) {
            let (skew_max, preferred) = (rng.random_range(1..3), one_in(rng, 4));
            rules.spread = vec![Spread { level: level(rng), skew_max, preferred }];
        }
        groups.push(one);
    }
    let count = u16::try_from(groups.len()).expect("few");
    let mut spec = job_spec(groups);
    if one_in(rng, 4) {
        spec.strategy = Strategy::StrictSpread;
    }
    if one_in(rng, 6) {
        spec.topology_required = Some(LEVELS[rng.random_range(0..4)]);
    }
    if one_in(rng, 3) {
        spec.rtt_max = Some(RttUs(rng.random_range(1..4) * 1000));
        spec.rtt_scope = [RttScope::AllPairs, RttScope::WithinGroups, RttScope::HeadToMembers]
            [rng.random_range(0..3)];
    }
    if one_in(rng, 5) {
        spec.duration = Some(DurationMs(3_600_000));
        spec.cost_max = Some(CostMicroUsd(rng.random_range(1..12) * 1_000_000));
    }
    if one_in(rng, 4) {
        spec.domains_max = domains_max(rng);
    }
    if one_in(rng, 8) {
        spec.hourly_max = Some(CostMicroUsd(rng.random_range(1..12) * 1_000_000));
    }
    for _ in 0..rng.random_range(0..3) {
        let target = if one_in(rng, 3) {
            let group = one_in(rng, 2).then(|| rng.random_range(0..count));
            Target::Jobs { group, labels: labels("other") }
        } else {
            let (group, with) = (rng.random_range(0..count), rng.random_range(0..count));
            Target::Groups { group, with }
        };
        let (anti, preferred) = (one_in(rng, 2), one_in(rng, 4));
        spec.affinities.push(Affinity { anti, preferred, level: level(rng), target });
    }
    if one_in(rng, 3) {
        spec.labels = labels("job");
    }
    spec
}

/// Whether any assignment of the first `targets` ranks of each group to nodes keeps room and rules.
fn fits(state: &State, spec: &JobSpec, targets: &[u32]) -> bool {
    let nodes: Vec<&Node> = state.nodes().map(AsRef::as_ref).collect();
    let starts = spec.group_starts();
    let ranks: Vec<(usize, Rank)> = targets
        .iter()
        .enumerate()
        .flat_map(|(at, &count)| (0..count).map(move |n| (at, n)))
        .map(|(at, n)| (at, Rank(starts[at] + n)))
        .collect();
    let around = state.around(&crate::fixture::entry::tenant("acme"), spec, None);
    let mut chosen: Vec<usize> = Vec::new();
    walk(&mut chosen, ranks.len(), nodes.len(), &mut |chosen| {
        let mut room: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        for (&at, &(group, _)) in chosen.iter().zip(&ranks) {
            let node = nodes[at];
            let used = state.usage(node.id).cloned().unwrap_or_default();
            let free = used.gpus_free(node).len();
            let cpu = node.resources.cpu.0 - used.used.cpu.0;
            let (gpus, left) = room.entry(node.id).or_insert((u64::from(free), cpu));
            let shape = &spec.groups[group].shape;
            let asked = if let GpuAsk::Whole(n) = shape.gpus { u64::from(n) } else { 0 };
            if *gpus < asked || *left < shape.cpu.0 {
                return false;
            }
            (*gpus, *left) = (*gpus - asked, *left - shape.cpu.0);
        }
        if chosen.len() < ranks.len() {
            return true;
        }
        let members = chosen.iter().zip(&ranks).map(|(&at, &(_, rank))| (rank, nodes[at]));
        fit::breach(spec, state, &around, members).is_none()
    })
}

/// Whether some sequence of `len` numbers below `end` pleases, all of whose beginnings please.
fn walk(
    chosen: &mut Vec<usize>,
    len: usize,
    end: usize,
    pleases: &mut dyn FnMut(&[usize]) -> bool,
) -> bool {
    if !pleases(chosen) {
        return false;
    }
    if chosen.len() == len {
        return true;
    }
    for next in 0..end {
        chosen.push(next);
        if walk(chosen, len, end, pleases) {
            return true;
        }
        chosen.pop();
    }
    false
}

/// What came of one case.
fn check(seed: u64) -> &'static str {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = world(&mut rng);
    for number in 0..rng.random_range(0..3) {
        let mut other = job_spec(vec![group("g", rng.random_range(1..3), 1)]);
        other.labels = labels("other");
        if one_in(&mut rng, 4) {
            let target = Target::Jobs { group: None, labels: labels("job") };
            let level = level(&mut rng);
            other.affinities = vec![Affinity { anti: true, preferred: false, level, target }];
        }
        let view = View::new(&world.state);
        let request = Request::whole(&other);
        if let Ok(plan) = plan(&view, &request, &Policy::default(), Budget::default()) {
            world.done(submission(&format!("other-{number}"), other, Some(plan)));
        }
    }
    let mut spec = spec(&mut rng);
    if one_in(&mut rng, 3) {
        for group in &mut spec.groups {
            group.replicas_min = rng.random_range(1..=group.replicas);
        }
    }
    if crate::validate::job(&spec).is_err() {
        return "invalid";
    }
    let tenant = crate::fixture::entry::tenant("acme");
    let around = world.state.around(&tenant, &spec, None);
    let view = View::new(&world.state);
    let request = Request { around: &around, ..Request::whole(&spec) };
    let answer = plan(&view, &request, &Policy::default(), Budget::default());
    assert_eq!(answer, plan(&view, &request, &Policy::default(), Budget::default()));
    match answer {
        Ok(found) => {
            let whole = found.placements.len() == spec.replicas() as usize;
            world.done(submission("job", spec, Some(found)));
            if whole { "whole" } else { "shrunk" }
        }
        Err(_) => {
            let least: Vec<u32> = spec.groups.iter().map(|group| group.replicas_min).collect();
            assert!(!fits(&world.state, &spec, &least), "fits: {spec:?}");
            "refused"
        }
    }
}

proptest! {
    #![proptest_config(super::config(400))]

    #[test]
    fn plans_keep_every_rule_and_refusals_are_true(seed: u64) {
        check(seed);
    }
}

#[test]
fn random_cases_end_in_every_way() {
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..400 {
        *ends.entry(check(seed)).or_default() += 1;
    }
    for end in ["whole", "shrunk", "refused"] {
        assert!(ends.get(end).is_some_and(|&count| count >= 10), "{end}: {ends:?}");
    }
}

fn big(change: impl FnOnce(&mut JobSpec)) -> JobSpec {
    let mut spec = gang("gang", 2_000, GpuAsk::Whole(1));
    change(&mut spec);
    spec
}

/// Rules that a big gang may have, each alone.
fn rules() -> Vec<(&'static str, JobSpec)> {
    let apart = |level| Affinity {
        anti: true,
        preferred: false,
        level,
        target: Target::Groups { group: 0, with: 0 },
    };
    vec![
        ("per node", big(|spec| spec.groups[0].rules.replicas_per_node_max = 3)),
        (
            "segments",
            big(|spec| {
                spec.groups[0].rules.segments = vec![
                    Segment { level: Level::Site, size: 64, exclusive: false },
                    Segment { level: Level::Rack, size: 16, exclusive: false },
                    Segment { level: Level::Node, size: 4, exclusive: false },
                ];
            }),
        ),
        (
            "apart",
            big(|spec| {
                spec.affinities = vec![apart(Level::Node)];
                (spec.groups[0].replicas, spec.groups[0].replicas_min) = (1_000, 1_000);
                spec.groups[0].replicas_max = 1_000;
            }),
        ),
        (
            "spread",
            big(|spec| {
                spec.groups[0].rules.spread =
                    vec![Spread { level: Level::Region, skew_max: 10, preferred: false }];
            }),
        ),
        (
            "price",
            big(|spec| {
                spec.duration = Some(DurationMs(3_600_000));
                spec.cost_max = Some(CostMicroUsd(2_000 * 1_400_000));
            }),
        ),
        (
            "domains",
            big(|spec| {
                let at_most = |level, max| DomainsMax { level, max };
                spec.domains_max = vec![at_most(Level::Site, 12), at_most(Level::Node, 400)];
            }),
        ),
        (
            "near domains",
            big(|spec| {
                spec.rtt_max = Some(RttUs(100_000));
                spec.domains_max = vec![DomainsMax { level: Level::Site, max: 12 }];
            }),
        ),
        (
            "head",
            big(|spec| {
                spec.rtt_max = Some(RttUs(60_000));
                spec.rtt_scope = RttScope::HeadToMembers;
            }),
        ),
    ]
}

#[test]
fn big_gangs_with_rules_are_accepted() {
    let mut state = Fleet::new(2_000, 40, 1).state();
    occupy(&mut state, 300, 2);
    let mut world = World { state, at: crate::unit::TimeMs(1_000_000) };
    for (called, spec) in rules() {
        let view = View::new(&world.state);
        let found = plan(&view, &Request::whole(&spec), &Policy::default(), Budget::default());
        let found = found.unwrap_or_else(|refusal| panic!("{called}: {refusal}"));
        assert_eq!(found.placements.len(), spec.replicas() as usize, "{called}");
        let job = world.done(submission(called, spec, Some(found)));
        let crate::command::Outcome::Submitted { job, .. } = job else { panic!("{job:?}") };
        world.done(Command::Cancel { job, reason: Reason::default() });
        assert_ne!(job, JobId(0));
    }
}

/// The roomiest node stands in a rack that does not hold the gang; too large to try every way.
#[test]
fn domains_are_chosen_before_nodes() {
    let mut world = World::new();
    let racks = [("a", 8), ("b", 4), ("b", 4), ("b", 4), ("c", 7), ("d", 6), ("d", 5)];
    for (number, (rack, gpus)) in racks.into_iter().enumerate() {
        let mut spec = node_spec(&format!("n{number}"), gpus);
        spec.place.rack = name(rack);
        world.done(register(spec));
    }
    let view = View::new(&world.state);
    let racks = |spec: &JobSpec| {
        let found = plan(&view, &Request::whole(spec), &Policy::default(), Budget::default());
        let found = found.unwrap_or_else(|refusal| panic!("{refusal}: {spec:?}"));
        let rack = |one: &crate::command::Placement| {
            world.state.node(one.node).expect("known").place.rack.to_string()
        };
        found.placements.iter().map(rack).collect::<std::collections::BTreeSet<String>>()
    };
    let bound = |max| vec![DomainsMax { level: Level::Rack, max }];
    let mut of_job = job_spec(vec![group("w", 12, 1)]);
    of_job.domains_max = bound(1);
    assert_eq!(racks(&of_job), ["b".to_owned()].into());
    let mut own = job_spec(vec![group("w", 12, 1)]);
    own.groups[0].rules.domains_max = bound(1);
    assert_eq!(racks(&own), ["b".to_owned()].into());
    // Two groups together need the two racks that no group alone would take first.
    let mut two = job_spec(vec![group("w", 3, 4), group("x", 11, 1)]);
    two.domains_max = bound(2);
    assert_eq!(racks(&two), ["b".to_owned(), "d".to_owned()].into());
}

/// Members that stay count: growth and repairs use the racks that the job is in before new ones.
#[test]
fn growth_and_repairs_keep_to_as_many_domains() {
    let mut world = World::new();
    for (number, rack) in ["a", "a", "b", "b", "c", "c", "c", "c"].into_iter().enumerate() {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.place.rack = name(rack);
        world.done(register(spec));
    }
    let mut spec = job_spec(vec![group("w", 7, 8)]);
    spec.domains_max = vec![DomainsMax { level: Level::Rack, max: 2 }];
    let view = View::new(&world.state);
    let racks = |fixed: &[(u32, u32)], wanted: std::ops::Range<u32>, spec: &JobSpec| {
        let fixed: Vec<(Rank, NodeId)> =
            fixed.iter().map(|&(rank, node)| (Rank(rank), NodeId(node))).collect();
        // What stays holds its nodes.
        let (avoid, ranks): (Vec<NodeId>, Vec<Rank>) =
            (fixed.iter().map(|(_, node)| *node).collect(), wanted.map(Rank).collect());
        let (ranks, around) = (Ranks::Some(&ranks), &NOBODY);
        let whole = Request::whole(spec);
        let request = Request { ranks, fixed: &fixed, avoid: &avoid, around, ..whole };
        let found = plan(&view, &request, &Policy::default(), Budget::default())?;
        let rack = |one: &crate::command::Placement| {
            world.state.node(one.node).expect("known").place.rack.to_string()
        };
        let mut racks: Vec<String> = found.placements.iter().map(rack).collect();
        racks.sort();
        Ok::<Vec<String>, Unplaceable>(racks)
    };
    // One in `a` stays: the others find five places in `a` and `c`, and no sixth.
    assert_eq!(racks(&[(0, 0)], 1..6, &spec).expect("fits"), ["a", "c", "c", "c", "c"]);
    let refusal = racks(&[(0, 0)], 1..7, &spec).expect_err("too many");
    assert_eq!(refusal.verdict, Verdict::Latency);
    // Members in `a` and `b` leave no other rack, however roomy.
    let kept = racks(&[(0, 0), (1, 2)], 2..4, &spec).expect("fits");
    assert_eq!(kept.iter().collect::<std::collections::BTreeSet<_>>().len(), 2, "{kept:?}");
    assert!(kept.iter().all(|rack| rack != "c"), "{kept:?}");
    assert!(racks(&[(0, 0), (1, 2)], 2..5, &spec).is_err());
    // The same where the group has the bound.
    spec.groups[0].rules.domains_max = std::mem::take(&mut spec.domains_max);
    assert!(racks(&[(0, 0)], 1..6, &spec).is_ok() && racks(&[(0, 0)], 1..7, &spec).is_err());
}

#[test]
fn nobody_is_around_a_job_without_labels() {
    let world = World::with_nodes(2, 8);
    let spec = job_spec(vec![group("w", 1, 1)]);
    let around = world.state.around(&crate::fixture::entry::tenant("acme"), &spec, None);
    assert_eq!(around, NOBODY);
}
