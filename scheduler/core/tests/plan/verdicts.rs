//! Verdicts and counterfactuals against every way there is: what a refusal calls the reason is the
//! reason, and what is told to help helps.

use crate::brute::{self, Answer};
use crate::checker::{Facts, Member, group_of, members, ranks};
use crate::scene::{Scene, TINY};
use rand::RngExt;
use scheduler_core::command::{Command, NodeTransition, Outcome};
use scheduler_core::fixture::entry::{TENANT, tenant};
use scheduler_core::fixture::fleet::submission;
use scheduler_core::id::Rank;
use scheduler_core::job::{JobSpec, RttScope};
use scheduler_core::node::{Custom, NodeStatus};
use scheduler_core::plan::explain::Change;
use scheduler_core::plan::{Budget, Outlook, Policy, Ranks, Request, Verdict, explain, plan};
use scheduler_core::unit::{CpuMilli, RttUs};
use scheduler_core::view::View;
use std::collections::BTreeMap;

/// A tiny fleet and a job that mostly has a bound on RTTs.
fn scene(seed: u64) -> (Scene, JobSpec) {
    let mut scene = Scene::new(seed, TINY);
    let mut spec = scene.spec(TINY);
    if scene.rng.random_range(0..3) > 0 {
        spec.rtt_max.get_or_insert(RttUs(scene.rng.random_range(0..6) * 1_000 + 500));
    }
    if scene.rng.random_range(0..3) > 0 {
        // Mostly something else is in the way than what a node is.
        for group in &mut spec.groups {
            group.selectors.clear();
            group.shape.alternatives.clear();
            group.shape.custom = Custom::default();
            group.shape.cpu = group.shape.cpu.max(CpuMilli(500));
        }
    }
    (scene, spec)
}

/// Whether the job could start.
fn fits(facts: &Facts, spec: &JobSpec) -> Answer {
    let least: Vec<u32> = spec.groups.iter().map(|group| group.replicas_min).collect();
    let most: Vec<u32> = spec.groups.iter().map(|group| group.replicas).collect();
    brute::any_fits(facts, spec, &least, &most)
}

/// Whether every group has a node that could hold one replica, if it were empty and up.
fn has_pool(facts: &Facts, spec: &JobSpec) -> bool {
    let all = facts.opened();
    let holds = |group| all.nodes.values().any(|node| all.could_hold(spec, group, node));
    (0..spec.groups.len()).all(holds)
}

/// The reason by trying every way; `None` where that takes too long.
fn reason(facts: &Facts, spec: &JobSpec) -> Option<Verdict> {
    let unpriced = JobSpec { price_max: None, cost_max: None, hourly_max: None, ..spec.clone() };
    let priced = spec.price_max.is_some() || spec.bounds_cost();
    if !has_pool(facts, spec) {
        let by_price = priced && has_pool(facts, &unpriced);
        return Some(if by_price { Verdict::Budget } else { Verdict::NoSuchPool });
    }
    let all_pairs = RttScope::AllPairs;
    let unbound = JobSpec { rtt_max: None, rtt_scope: all_pairs, ..spec.clone() };
    let anywhere = JobSpec { topology_required: None, ..unbound.without_domains_max() };
    let idle = facts.emptied();
    let all = idle.opened();
    let mut questions = Vec::new();
    if spec.rtt_max.is_some() {
        questions.push((facts, &unbound, Verdict::Latency));
    }
    if spec.topology_required.is_some() || spec.bounds_domains() {
        questions.push((facts, &anywhere, Verdict::Latency));
    }
    if priced {
        questions.push((facts, &unpriced, Verdict::Budget));
    }
    // Open nodes first: a closed one may be a domain more to spread over.
    questions.push((&idle, spec, Verdict::BusyUntil(None)));
    questions.push((&all, spec, Verdict::NotReady));
    if priced {
        // Dear even where everything is free.
        questions.push((&all, &unpriced, Verdict::Budget));
    }
    for (facts, spec, verdict) in questions {
        match fits(facts, spec) {
            Answer::Fits => return Some(verdict),
            Answer::Open => return None,
            Answer::Never => {}
        }
    }
    Some(Verdict::NeverFits)
}

/// The bound told does, too, and is hardly ever wider than need be.
#[test]
fn the_reason_told_is_the_reason() {
    let mut told: BTreeMap<Verdict, u32> = BTreeMap::new();
    let (mut bounds, mut wide) = (0, 0);
    // The last: a spread over domains of which some are closed.
    for seed in (0..4_000).chain([11_001_424, 41_000_195, 122_000_040, 137_002_143]) {
        let (scene, spec) = scene(seed);
        let around = scene.world.state.around(&tenant(TENANT), &spec, None);
        let request = Request { around: &around, ..Request::whole(&spec) };
        let view = View::new(&scene.world.state);
        let answer = plan(&view, &request, &Policy::default(), Budget::default());
        let Err(refusal) = answer else { continue };
        let facts = Facts::new(&scene.world.state, &tenant(TENANT), None);
        let Some(reason) = reason(&facts, &spec) else { continue };
        *told.entry(reason).or_default() += 1;
        if let Some(bound) = refusal.nearest.rtt_max {
            let within = |rtt| JobSpec { rtt_max: Some(RttUs(rtt)), ..spec.clone() };
            assert_ne!(fits(&facts, &within(bound.0)), Answer::Never, "SEED={seed}: {spec:?}");
            bounds += 1;
            let less = fits(&facts, &within(bound.0 - 1));
            wide += u32::from(less == Answer::Fits);
        }
        assert_eq!(refusal.verdict, reason, "SEED={seed}: {refusal}: {spec:?}");
    }
    assert!(told.len() == 6 && told.values().all(|&count| count > 60), "{told:?}");
    assert!(bounds > 80 && wide * 20 < bounds, "{wide} of {bounds} bounds told are too wide");
}

/// A member is lost, or a node closed; what waits is refused only if there is no way beside the
/// members that stay, for the true reason, and the bound told does.
#[test]
fn so_it_is_for_repairs() {
    let (mut refused, mut bounds) = (0, 0);
    for seed in 0..3_000 {
        let (mut scene, spec) = scene(seed);
        let around = scene.world.state.around(&tenant(TENANT), &spec, None);
        let request = Request { around: &around, ..Request::whole(&spec) };
        let view = View::new(&scene.world.state);
        let Ok(first) = plan(&view, &request, &Policy::default(), Budget::default()) else {
            continue;
        };
        let lost = first.placements[scene.rng.random_range(0..first.placements.len())].node;
        let submitted = scene.world.done(submission("job", spec.clone(), Some(first)));
        let Outcome::Submitted { job, .. } = submitted else { panic!("{submitted:?}") };
        let epoch = scene.world.state.node(lost).expect("known").epoch;
        let status = NodeStatus::Down;
        let down = NodeTransition { node: lost, epoch, status };
        scene.world.done(Command::NodeStatuses(vec![down]));
        let state = &scene.world.state;
        let facts = Facts::new(state, &tenant(TENANT), Some(job));
        let (missing, stay) = members(state, job, &spec);
        let fixed: Vec<_> = stay.iter().map(|member| (Rank(member.rank), member.node)).collect();
        let around = state.around(&tenant(TENANT), &spec, Some(job));
        let ranks = ranks(&missing);
        let (ranks, fixed) = (Ranks::Some(&ranks), fixed.as_slice());
        let request = Request { ranks, fixed, around: &around, ..Request::whole(&spec) };
        let view = View::new(state);
        let answer = plan(&view, &request, &Policy::default(), Budget::default());
        let Err(refusal) = answer else { continue };
        refused += 1;
        let least = least_missing(&spec, &missing, &stay);
        let fits =
            |facts: &Facts, spec: &JobSpec| brute::fits_beside(facts, spec, &stay, least.clone());
        assert_ne!(fits(&facts, &spec), Answer::Fits, "SEED={seed}: {refusal}: {spec:?}");
        let unbound = JobSpec { rtt_max: None, rtt_scope: RttScope::AllPairs, ..spec.clone() };
        if refusal.verdict == Verdict::Latency
            && spec.topology_required.is_none()
            && !spec.bounds_domains()
        {
            assert_ne!(fits(&facts, &unbound), Answer::Never, "SEED={seed}: {refusal}: {spec:?}");
        }
        if let Some(bound) = refusal.nearest.rtt_max {
            bounds += 1;
            let wider = JobSpec { rtt_max: Some(bound), ..spec.clone() };
            assert_ne!(fits(&facts, &wider), Answer::Never, "SEED={seed}: {refusal}: {spec:?}");
            let request = Request { spec: &wider, ..request };
            let answer = plan(&view, &request, &Policy::default(), Budget::default());
            assert!(answer.is_ok(), "SEED={seed}: {bound:?} does not do: {spec:?}");
        }
    }
    assert!(refused > 100 && bounds > 5, "{refused} refused, {bounds} bounds told");
}

/// The first waiting ranks of each group that it needs beside those that stay, and one at least.
fn least_missing(spec: &JobSpec, missing: &[u32], stay: &[Member]) -> Vec<u32> {
    let mut least = Vec::new();
    for (group, asked) in spec.groups.iter().enumerate() {
        let staying = stay.iter().filter(|member| member.group == group).count();
        let own = missing.iter().filter(|&&rank| group_of(spec, rank) == Some(group));
        least.extend(own.take((asked.replicas_min as usize).saturating_sub(staying)));
    }
    if least.is_empty() { missing.iter().take(1).copied().collect() } else { least }
}

/// What is told to help, tried with the planner itself and, nodes opened, by every way.
#[test]
fn every_change_told_to_help_does() {
    let mut told = 0;
    for seed in 0..1_500 {
        let (scene, spec) = scene(seed);
        let state = &scene.world.state;
        let around = state.around(&tenant(TENANT), &spec, None);
        let request = Request { around: &around, ..Request::whole(&spec) };
        let outlook = Outlook::new(state, &tenant(TENANT));
        let mut view = View::new(state);
        let policy = Policy::default();
        let answer = explain(&mut view, &request, &policy, &outlook, Budget::default());
        let facts = Facts::new(state, &tenant(TENANT), None);
        for group in &answer.groups {
            let sum: u32 = group.counts.iter().map(|(_, count)| count).sum();
            assert_eq!(sum, answer.nodes, "SEED={seed}");
        }
        for help in &answer.helps {
            told += 1;
            let Some(changed) = help.change.apply(&spec) else {
                if let Change::Open { .. } = help.change {
                    assert_ne!(fits(&facts.opened(), &spec), Answer::Never, "SEED={seed}");
                }
                continue;
            };
            assert_ne!(fits(&facts, &changed), Answer::Never, "SEED={seed}: {help:?}: {spec:?}");
            let around = state.around(&tenant(TENANT), &changed, None);
            let request = Request { around: &around, ..Request::whole(&changed) };
            let placed = plan(&view, &request, &policy, Budget::default());
            assert!(placed.is_ok(), "SEED={seed}: {help:?} does not do: {spec:?}");
        }
    }
    assert!(told > 300, "{told}");
}
