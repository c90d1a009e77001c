//! Scenarios, one per rule of placement.

use crate::command::{Command, Plan, SiteRtt};
use crate::fit::Misfit;
use crate::fixture::entry::{World, group, job_spec, models, name, node_spec, register};
use crate::fixture::fleet::submission;
use crate::id::NodeId;
use crate::job::{GpuAsk, JobSpec, Level, ReasonCode, Strategy};
use crate::node::{Taint, TaintEffect};
use crate::plan::{Budget, Cause, Policy, Request, Unplaceable, Verdict, plan};
use crate::unit::{CpuMilli, RttUs};
use crate::view::View;
use std::collections::BTreeSet;

fn run(world: &World, spec: &JobSpec) -> Result<Plan, Unplaceable> {
    plan(&View::new(&world.state), &Request::whole(spec), &Policy::BestFit, Budget::default())
}

fn nodes(plan: &Plan) -> Vec<u32> {
    plan.placements.iter().map(|placement| placement.node.0).collect()
}

fn distinct(plan: &Plan) -> usize {
    nodes(plan).into_iter().collect::<BTreeSet<_>>().len()
}

/// Two sites of four 8-GPU nodes, 10 ms apart.
fn two_sites() -> World {
    let mut world = World::new();
    for number in 0..8 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.place.site = name(if number < 4 { "east" } else { "west" });
        world.done(register(spec));
    }
    let rtt = SiteRtt::told(name("east"), name("west"), RttUs(10_000));
    world.done(Command::SetSiteRtts(vec![rtt]));
    world
}

#[test]
fn one_gpu_goes_to_the_fullest_node() {
    let mut world = World::with_nodes(3, 8);
    world.done(submission(
        "first",
        job_spec(vec![group("w", 1, 5)]),
        Some(crate::fixture::entry::plan(&[(1, 0b11111)])),
    ));
    let plan = run(&world, &job_spec(vec![group("w", 1, 1)])).expect("fits");
    assert_eq!(nodes(&plan), [1]);
    let plan = run(&world, &job_spec(vec![group("w", 1, 8)])).expect("fits");
    assert_eq!(nodes(&plan), [0]);
}

#[test]
fn pack_takes_the_fewest_nodes() {
    let world = World::with_nodes(6, 8);
    let plan = run(&world, &job_spec(vec![group("w", 20, 1)])).expect("fits");
    assert_eq!(distinct(&plan), 3);
}

#[test]
fn strategies_mean_what_they_say() {
    let world = World::with_nodes(3, 4);
    let spec = |strategy, replicas| {
        let mut spec = job_spec(vec![group("w", replicas, 1)]);
        spec.strategy = strategy;
        spec
    };
    assert_eq!(distinct(&run(&world, &spec(Strategy::Spread, 3)).expect("fits")), 3);
    assert_eq!(distinct(&run(&world, &spec(Strategy::Spread, 5)).expect("fits")), 3);
    assert_eq!(distinct(&run(&world, &spec(Strategy::StrictPack, 4)).expect("fits")), 1);
    assert_eq!(distinct(&run(&world, &spec(Strategy::StrictSpread, 3)).expect("fits")), 3);
    run(&world, &spec(Strategy::StrictPack, 5)).expect_err("no node has five");
    run(&world, &spec(Strategy::StrictSpread, 4)).expect_err("there are three nodes");
}

#[test]
fn a_spread_job_prefers_nodes_enough_to_a_small_site() {
    let mut world = World::new();
    for number in 0..5 {
        let mut spec = node_spec(&format!("n{number}"), 8);
        spec.place.site = name(if number == 0 { "small" } else { "large" });
        world.done(register(spec));
    }
    let mut spec = job_spec(vec![group("w", 4, 1)]);
    spec.strategy = Strategy::Spread;
    assert_eq!(distinct(&run(&world, &spec).expect("fits")), 4);
}

#[test]
fn a_gang_one_gpu_too_large_is_refused_whole() {
    let world = World::with_nodes(4, 8);
    run(&world, &job_spec(vec![group("w", 32, 1)])).expect("fits exactly");
    let refusal = run(&world, &job_spec(vec![group("w", 33, 1)])).expect_err("one too many");
    assert_eq!(refusal.verdict, Verdict::NeverFits);
    assert_eq!((refusal.nearest.placeable, refusal.nearest.wanted), (vec![32], vec![33]));
    assert_eq!(refusal.counts, [(Cause::Usable, 4)]);
}

#[test]
fn a_busy_fleet_says_busy_and_shrinks_to_the_minimum() {
    let mut world = World::with_nodes(2, 8);
    let load = job_spec(vec![group("w", 1, 8)]);
    world.done(submission("load", load, Some(crate::fixture::entry::plan(&[(0, 0xff)]))));
    let mut spec = job_spec(vec![group("w", 12, 1)]);
    let refusal = run(&world, &spec).expect_err("only eight are free");
    assert_eq!(refusal.verdict, Verdict::BusyUntil(None));
    assert_eq!(refusal.counts, [(Cause::GpusBusy, 1), (Cause::Usable, 1)]);
    assert_eq!(refusal.to_reason().code, ReasonCode::Busy);
    assert_eq!(refusal.to_string(), "1 of 2 nodes usable: 1 GPUs busy; 8 of 12 replicas would fit");
    spec.groups[0].replicas_min = 3;
    assert_eq!(run(&world, &spec).expect("eight fit").placements.len(), 8);
}

#[test]
fn an_unknown_pool_is_told_from_a_down_one() {
    let mut world = World::with_nodes(2, 8);
    let mut spec = job_spec(vec![group("w", 1, 1)]);
    spec.groups[0].shape.alternatives = models(&["nowhere"]);
    let refusal = run(&world, &spec).expect_err("no such model");
    assert_eq!(
        (refusal.verdict, refusal.counts),
        (Verdict::NoSuchPool, vec![(Cause::Misfit(Misfit::GpuModel), 2)])
    );
    let eligibility = crate::node::Eligibility::Cordoned;
    for node in 0..2 {
        world.done(Command::SetEligibility { node: NodeId(node), eligibility });
    }
    let refusal = run(&world, &job_spec(vec![group("w", 1, 1)])).expect_err("all cordoned");
    assert_eq!((refusal.verdict, refusal.counts), (Verdict::NotReady, vec![(Cause::Cordoned, 2)]));
}

#[test]
fn the_rtt_bound_keeps_a_gang_together() {
    let world = two_sites();
    let mut spec = job_spec(vec![group("w", 4, 8)]);
    let plan = run(&world, &spec).expect("fits");
    assert!(nodes(&plan).iter().all(|&node| node < 4) || nodes(&plan).iter().all(|&n| n >= 4));
    spec.groups[0].replicas = 5;
    spec.groups[0].replicas_min = 5;
    spec.rtt_max = Some(RttUs(10_000));
    assert_eq!(run(&world, &spec).expect("just near enough").placements.len(), 5);
    spec.rtt_max = Some(RttUs(9_999));
    let refusal = run(&world, &spec).expect_err("too far");
    assert_eq!(refusal.verdict, Verdict::Latency);
    assert_eq!(refusal.nearest.rtt_max, Some(RttUs(10_000)));
    assert_eq!(refusal.nearest.placeable, [4]);
    assert_eq!(refusal.counts, [(Cause::TooFar, 4), (Cause::Usable, 4)]);
}

#[test]
fn a_required_domain_binds_and_a_preferred_one_gives_way() {
    let world = two_sites();
    let mut spec = job_spec(vec![group("w", 5, 8)]);
    spec.topology_preferred = Some(Level::Site);
    run(&world, &spec).expect("over both sites");
    spec.topology_required = Some(Level::Site);
    let refusal = run(&world, &spec).expect_err("no site has five");
    assert_eq!(refusal.verdict, Verdict::Latency);
    spec.topology_required = Some(Level::Zone);
    run(&world, &spec).expect("one zone");
}

#[test]
fn nodes_that_ask_to_be_last_are_last() {
    let mut world = World::new();
    for number in 0..3 {
        let mut spec = node_spec(&format!("n{number}"), 4);
        if number == 0 {
            spec.taints.push(Taint {
                key: "spot".into(),
                value: "".into(),
                effect: TaintEffect::PreferNoSchedule,
            });
        }
        world.done(register(spec));
    }
    let plan = run(&world, &job_spec(vec![group("w", 1, 1)])).expect("fits");
    assert_ne!(nodes(&plan), [0]);
    let plan = run(&world, &job_spec(vec![group("w", 2, 4)])).expect("fits");
    assert_eq!(nodes(&plan), [1, 2]);
    let plan = run(&world, &job_spec(vec![group("w", 3, 4)])).expect("fits");
    assert_eq!(nodes(&plan), [1, 2, 0]);
}

#[test]
fn shares_fill_one_gpu_before_the_next() {
    let mut world = World::with_nodes(2, 2);
    let mut spec = job_spec(vec![group("w", 1, 1)]);
    spec.groups[0].shape.gpus = GpuAsk::Share(300);
    spec.groups[0].shape.cpu = CpuMilli(10);
    let mut used = BTreeSet::new();
    for number in 0..4 {
        let plan = run(&world, &spec).expect("fits");
        used.insert((plan.placements[0].node, plan.placements[0].gpus));
        world.done(submission(&format!("s{number}"), spec.clone(), Some(plan)));
        assert_eq!(used.len(), if number < 3 { 1 } else { 2 });
    }
}

#[test]
fn groups_find_room_beside_each_other() {
    // The replica that takes any GPU must leave the big ones to the one that needs them.
    let mut world = World::new();
    for (number, called) in ["small", "big"].iter().enumerate() {
        let mut spec = node_spec(&format!("n{number}"), 1);
        spec.gpus[0].model = name(called);
        world.done(register(spec));
    }
    let mut spec = job_spec(vec![group("any", 1, 1), group("big", 1, 1)]);
    spec.groups[1].shape.alternatives = models(&["big"]);
    assert_eq!(nodes(&run(&world, &spec).expect("fits")), [0, 1]);
}

#[test]
fn a_spent_budget_is_no_verdict() {
    let world = World::with_nodes(3, 8);
    let spec = job_spec(vec![group("w", 25, 1)]);
    let view = View::new(&world.state);
    let refusal = plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget { steps_max: 1 })
        .expect_err("no steps");
    assert_eq!(refusal.verdict, Verdict::Undecided);
}
