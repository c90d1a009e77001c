//! What a job would like: kept as far as it goes, and no farther.

use crate::scene::{Scene, TINY};
use scheduler_core::command::Plan;
use scheduler_core::fixture::entry::{
    TENANT, World, group, job_spec, name, node_spec, register, tenant,
};
use scheduler_core::job::{Affinity, JobSpec, Level, Spread, Strategy, Target};
use scheduler_core::plan::{Budget, Policy, Request, plan};
use scheduler_core::view::View;
use std::collections::BTreeSet;

fn run(world: &World, spec: &JobSpec, policy: Policy) -> Option<Plan> {
    let around = world.state.around(&tenant(TENANT), spec, None);
    let request = Request { around: &around, ..Request::whole(spec) };
    plan(&View::new(&world.state), &request, &policy, Budget::default()).ok()
}

/// So many sites of four racks with one node of two GPUs each.
fn hall(sites: usize) -> World {
    let mut world = World::new();
    for number in 0..sites * 4 {
        let mut spec = node_spec(&format!("n{number}"), 2);
        spec.place.site = name(&format!("site-{}", number / 4));
        spec.place.rack = name(&format!("rack-{}", number % 4));
        world.done(register(spec));
    }
    world
}

fn domains(world: &World, plan: &Plan, level: Level) -> usize {
    let nodes = plan.placements.iter().filter_map(|one| world.state.node(one.node));
    let place = |node: &scheduler_core::node::Node| match level {
        Level::Site => (node.site.0, String::new()),
        _ => (node.site.0, node.place.rack.to_string()),
    };
    nodes.map(|node| place(node)).collect::<BTreeSet<_>>().len()
}

/// A rule that binds nothing does not take a lone replica away from the policy.
#[test]
fn a_single_replica_goes_where_the_policy_wants_it_rules_or_not() {
    let mut told_apart = 0;
    for seed in 0..300 {
        let mut scene = Scene::new(seed, TINY);
        let mut spec = scene.spec(TINY);
        spec.groups.truncate(1);
        spec.affinities.clear();
        spec.labels.clear();
        spec.strategy = Strategy::Pack;
        (spec.cost_max, spec.hourly_max) = (None, None);
        spec.domains_max.clear();
        (spec.rtt_max, spec.rtt_scope) = (None, Default::default());
        spec.groups[0].rules = Default::default();
        spec.groups[0].replicas = 1;
        (spec.groups[0].replicas_min, spec.groups[0].replicas_max) = (1, 1);
        let mut ruled = spec.clone();
        ruled.groups[0].rules.replicas_per_node_max = 3;
        let mut chosen = BTreeSet::new();
        for policy in Policy::ALL {
            let plain = run(&scene.world, &spec, policy);
            assert_eq!(run(&scene.world, &ruled, policy), plain, "SEED={seed} {policy}");
            chosen.extend(plain.map(|plan| format!("{plan:?}")));
        }
        told_apart += u32::from(chosen.len() > 1);
    }
    assert!(told_apart > 10, "the policies hardly ever differ: {told_apart}");
}

/// Other jobs keep a lone replica off nodes; among the rest the policy chooses.
#[test]
fn a_single_replica_keeps_away_from_other_jobs_by_any_policy() {
    let mut world = hall(2);
    let labels: scheduler_core::node::Labels = [("app".into(), "noisy".into())].into();
    let mut noisy = job_spec(vec![group("w", 3, 1)]);
    noisy.labels = labels.clone();
    let there = run(&world, &noisy, Policy::BestFit).expect("fits");
    world.done(scheduler_core::fixture::fleet::submission("noisy", noisy, Some(there.clone())));
    let taken: BTreeSet<u32> = there.placements.iter().map(|one| one.node.0).collect();
    for (anti, preferred) in [(true, false), (true, true), (false, false), (false, true)] {
        let mut spec = job_spec(vec![group("w", 1, 1)]);
        let target = Target::Jobs { group: None, labels: labels.clone() };
        spec.affinities = vec![Affinity { anti, preferred, level: Level::Node, target }];
        for policy in Policy::ALL {
            let plan = run(&world, &spec, policy).expect("fits");
            let node = plan.placements[0].node.0;
            assert_eq!(taken.contains(&node), !anti, "{policy} {anti} {preferred}");
        }
    }
}

/// One wish that cannot be kept does not take the others with it.
#[test]
fn wishes_are_given_up_one_by_one() {
    let world = hall(3);
    // Eight GPUs of a site, two of a rack: a rack for all is too much, a site is not.
    let mut spec = job_spec(vec![group("a", 4, 1), group("b", 4, 1)]);
    spec.topology_preferred = Some(Level::Rack);
    let plan = run(&world, &spec, Policy::default()).expect("fits");
    let far = domains(&world, &plan, Level::Site);
    let target = Target::Groups { group: 0, with: 1 };
    let near = Affinity { anti: false, preferred: true, level: Level::Site, target };
    spec.affinities = vec![near];
    let plan = run(&world, &spec, Policy::default()).expect("fits");
    assert_eq!(domains(&world, &plan, Level::Site), 1, "{far} without the second wish");
    // Two that exclude each other: the first is kept.
    let own = Target::Groups { group: 0, with: 0 };
    let wish = |anti, level| Affinity { anti, preferred: true, level, target: own.clone() };
    for (first, second, racks) in [
        (wish(true, Level::Rack), wish(false, Level::Rack), 2),
        (wish(false, Level::Rack), wish(true, Level::Rack), 1),
    ] {
        let mut spec = job_spec(vec![group("w", 2, 1)]);
        spec.affinities = vec![first, second];
        let plan = run(&world, &spec, Policy::default()).expect("fits");
        assert_eq!(domains(&world, &plan, Level::Rack), racks);
    }
    // Evenness gives way to what comes before it, and holds where nothing is in its way.
    let mut spec = job_spec(vec![group("w", 6, 1)]);
    let spread = Spread { level: Level::Site, skew_max: 1, preferred: true };
    spec.groups[0].rules.spread = vec![spread];
    let plan = run(&world, &spec, Policy::default()).expect("fits");
    assert_eq!(domains(&world, &plan, Level::Site), 3);
    spec.topology_preferred = Some(Level::Site);
    let plan = run(&world, &spec, Policy::default()).expect("fits");
    assert_eq!(domains(&world, &plan, Level::Site), 1);
}
