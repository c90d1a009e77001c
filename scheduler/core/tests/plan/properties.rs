//! What must hold of every answer of the planner, on random fleets and requests.

use crate::brute::{self, Answer};
use crate::checker::{Facts, Member, Stage, all_ranks, group_of, members, ranks};
use crate::scene::{SMALL, Scene, Size, TINY};
use rand::RngExt;
use scheduler_core::command::{Command, Commit, NodeTransition, Outcome, Plan, Scale};
use scheduler_core::fixture::entry::{TENANT, tenant};
use scheduler_core::fixture::fleet::submission;
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{GroupSpec, JobSpec};
use scheduler_core::node::NodeStatus;
use scheduler_core::plan::{Budget, Policy, Ranks, Request, Unplaceable, plan};
use scheduler_core::view::View;
use std::collections::BTreeMap;

/// Runs a case for many seeds, or for the one that `SEED` names.
#[expect(clippy::disallowed_methods, reason = "a failed case is run again by its seed")]
fn for_seeds(count: u64, case: impl Fn(u64)) {
    if let Some(seed) = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        return case(seed);
    }
    for seed in 0..count {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(seed)));
        if let Err(panic) = ran {
            eprintln!("failed with SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn run(scene: &Scene, spec: &JobSpec, policy: Policy) -> Result<Plan, Unplaceable> {
    ask(&View::new(&scene.world.state), scene, spec, policy, Budget::default())
}

fn ask(
    view: &View,
    scene: &Scene,
    spec: &JobSpec,
    policy: Policy,
    budget: Budget,
) -> Result<Plan, Unplaceable> {
    let around = scene.world.state.around(&tenant(TENANT), spec, None);
    plan(view, &Request { around: &around, ..Request::whole(spec) }, &policy, budget)
}

fn facts(scene: &Scene) -> Facts {
    Facts::new(&scene.world.state, &tenant(TENANT), None)
}

fn assert_sound(facts: &Facts, spec: &JobSpec, asked: &[u32], stay: &[Member], plan: &Plan) {
    let faults = facts.faults(spec, asked, stay, plan);
    assert!(faults.is_empty(), "{faults:#?}\nof {plan:?}\nfor {spec:?}");
}

/// Every plan keeps every constraint, whatever the policy, and the state takes it.
fn plans_are_sound(seed: u64, size: Size) -> bool {
    let mut scene = Scene::new(seed, size);
    let spec = scene.spec(size);
    let policy = Policy::ALL[scene.rng.random_range(0..Policy::ALL.len())];
    let facts = facts(&scene);
    let Ok(plan) = run(&scene, &spec, policy) else { return false };
    assert_sound(&facts, &spec, &all_ranks(&spec), &[], &plan);
    let again = run(&scene, &spec, policy);
    assert_eq!(again.as_ref(), Ok(&plan), "the same question, another answer");
    scene.world.done(submission("job", spec, Some(plan)));
    true
}

#[test]
fn every_plan_on_a_tiny_fleet_is_sound() {
    for_seeds(4_000, |seed| {
        plans_are_sound(seed, TINY);
    });
}

#[test]
fn every_plan_on_a_small_fleet_is_sound() {
    for_seeds(800, |seed| {
        plans_are_sound(seed, SMALL);
    });
}

/// As a server, its followers and the simulator ask it: in one process, one after the other.
#[test]
fn the_same_question_has_the_same_answer_however_often_it_is_asked() {
    // The first tries every set of near sites, of which there are many.
    for seed in [6_000_494].into_iter().chain(0..200) {
        let mut scene = Scene::new(seed, SMALL);
        let spec = scene.spec(SMALL);
        let policy = Policy::ALL[scene.rng.random_range(0..Policy::ALL.len())];
        let first = run(&scene, &spec, policy);
        for _ in 0..if first.is_ok() { 20 } else { 1 } {
            assert_eq!(run(&scene, &spec, policy), first, "seed {seed}");
        }
    }
}

/// What a quota leaves is enough for some replicas and not for others.
#[test]
fn a_plan_keeps_its_bound_on_gpus_and_every_rule() {
    let (mut whole, mut in_part) = (0, 0);
    for size in [TINY, SMALL] {
        for seed in 0..1_500 {
            let mut scene = Scene::new(seed, size);
            let spec = scene.spec(size);
            let (facts, view) = (facts(&scene), View::new(&scene.world.state));
            let around = scene.world.state.around(&tenant(TENANT), &spec, None);
            let asked = Request { around: &around, ..Request::whole(&spec) };
            let least = asked.least_gpu_milli();
            let gpu_milli_max = scene.rng.random_range(least..=least.max(spec.gpu_milli()));
            let request = Request { gpu_milli_max, ..asked };
            let found = plan(&view, &request, &Policy::BestFit, Budget::default());
            let Ok(plan) = found else { continue };
            assert_sound(&facts, &spec, &all_ranks(&spec), &[], &plan);
            let milli = |rank| spec.groups[spec.group_of(rank).expect("one")].shape.gpu_milli();
            let held: u64 = plan.placements.iter().map(|one| milli(one.rank)).sum();
            assert!(held <= gpu_milli_max, "seed {seed}: {held} of {gpu_milli_max}");
            match held == spec.gpu_milli() {
                true => whole += 1,
                false => in_part += 1,
            }
        }
    }
    assert!(whole > 100 && in_part > 100, "{whole} {in_part}");
}

/// A generator that places nothing, or everything, proves nothing.
#[test]
fn random_requests_are_placed_and_refused() {
    for size in [TINY, SMALL] {
        let placed = (0..400).filter(|&seed| plans_are_sound(seed, size)).count();
        assert!((80..=320).contains(&placed), "{placed} of 400 were placed");
    }
}

/// Where the planner places too little, no way exists to place more.
fn refusals_are_true(seed: u64) -> (bool, Answer) {
    let mut scene = Scene::new(seed, TINY);
    let spec = scene.spec(TINY);
    let facts = facts(&scene);
    let most: Vec<u32> = spec.groups.iter().map(|group| group.replicas).collect();
    let least: Vec<u32> = spec.groups.iter().map(|group| group.replicas_min).collect();
    match run(&scene, &spec, Policy::BestFit) {
        Ok(plan) => {
            let mut placed = vec![0; most.len()];
            for placement in &plan.placements {
                placed[group_of(&spec, placement.rank.0).expect("a rank")] += 1;
            }
            if placed == most {
                return (true, Answer::Fits);
            }
            let answer = brute::fits(&facts, &spec, &most);
            assert_ne!(answer, Answer::Fits, "all would fit, {placed:?} were placed: {spec:?}");
            (true, answer)
        }
        Err(refusal) => {
            let answer = brute::any_fits(&facts, &spec, &least, &most);
            assert_ne!(answer, Answer::Fits, "it fits: {spec:?}: {refusal:?}");
            (false, answer)
        }
    }
}

#[test]
fn what_is_refused_on_a_tiny_fleet_is_impossible() {
    for_seeds(4_000, |seed| {
        refusals_are_true(seed);
    });
}

#[test]
fn nearly_every_tiny_question_is_settled() {
    let mut endings: BTreeMap<_, u32> = BTreeMap::new();
    for seed in 0..600 {
        *endings.entry(refusals_are_true(seed)).or_default() += 1;
    }
    let count = |ending| endings.get(&ending).copied().unwrap_or(0);
    assert!(count((false, Answer::Never)) >= 100, "{endings:?}");
    assert!(count((true, Answer::Fits)) >= 100, "{endings:?}");
    let open = count((false, Answer::Open)) + count((true, Answer::Open));
    assert!(open * 50 < 600, "{endings:?}");
}

/// The checker itself must find what is wrong: moving one replica of a sound plan anywhere at
/// random is found out by the state and by the checker alike.
#[test]
fn checker_and_state_agree_on_plans_that_were_tampered_with() {
    let (mut wrong, mut right) = (0_u32, 0_u32);
    for seed in 0..1_500 {
        let mut scene = Scene::new(seed, TINY);
        let spec = scene.spec(TINY);
        let facts = facts(&scene);
        let Ok(mut plan) = run(&scene, &spec, Policy::BestFit) else { continue };
        let nodes: Vec<NodeId> = facts.nodes.keys().copied().collect();
        let at = scene.rng.random_range(0..plan.placements.len());
        let placement = &mut plan.placements[at];
        placement.node = nodes[scene.rng.random_range(0..nodes.len())];
        placement.node_epoch = facts.nodes[&placement.node].epoch;
        if !placement.gpus.is_empty() {
            let gpus = facts.nodes[&placement.node].gpus.len().max(1);
            let shift = scene.rng.random_range(0..gpus);
            placement.gpus.0 = placement.gpus.0.rotate_left(u32::try_from(shift).expect("few"));
        }
        let faults = facts.faults(&spec, &all_ranks(&spec), &[], &plan);
        let taken = scene.world.system(submission("job", spec.clone(), Some(plan.clone())));
        assert_eq!(faults.is_empty(), taken.is_ok(), "{faults:?}, {taken:?}: {plan:?}: {spec:?}");
        if faults.is_empty() { right += 1 } else { wrong += 1 }
    }
    assert!(wrong > 100 && right > 50, "{wrong} wrong, {right} right");
}

/// A node is lost; the replacements keep every rule together with the members that stay.
fn repairs_are_sound(seed: u64, size: Size) {
    let mut scene = Scene::new(seed, size);
    let spec = scene.spec(size);
    let Ok(first) = run(&scene, &spec, Policy::default()) else { return };
    let lost = first.placements[scene.rng.random_range(0..first.placements.len())].node;
    let submitted = scene.world.done(submission("job", spec.clone(), Some(first)));
    let Outcome::Submitted { job, .. } = submitted else { panic!("{submitted:?}") };
    lose(&mut scene, lost);
    fill_up(&mut scene, job);
}

fn lose(scene: &mut Scene, node: NodeId) {
    let epoch = scene.world.state.node(node).expect("known").epoch;
    let status = NodeStatus::Down;
    scene.world.done(Command::NodeStatuses(vec![NodeTransition { node, epoch, status }]));
}

/// Places what waits of a job beside what runs; whatever the planner places must be sound.
fn fill_up(scene: &mut Scene, job: JobId) {
    let state = &scene.world.state;
    let spec = state.job(job).expect("known").spec.clone();
    let facts = Facts::new(state, &tenant(TENANT), Some(job));
    let (wanted, stay) = members(state, job, &spec);
    let fixed: Vec<_> = stay.iter().map(|member| (Rank(member.rank), member.node)).collect();
    let missing = ranks(&wanted);
    let around = state.around(&tenant(TENANT), &spec, Some(job));
    let request = Request {
        ranks: Ranks::Some(&missing),
        fixed: &fixed,
        around: &around,
        ..Request::whole(&spec)
    };
    let view = View::new(state);
    if let Ok(plan) = plan(&view, &request, &Policy::default(), Budget::default()) {
        assert_sound(&facts, &spec, &wanted, &stay, &plan);
        scene.world.done(Command::Commit(Commit { job, plan }));
    }
}

/// Groups grow, after a loss and after having shrunk, so that ranks are left out in the middle.
fn growth_is_sound(seed: u64, size: Size) {
    let mut scene = Scene::new(seed, size);
    let spec = scene.spec(size);
    let Ok(first) = run(&scene, &spec, Policy::default()) else { return };
    let lost = first.placements[scene.rng.random_range(0..first.placements.len())].node;
    let submitted = scene.world.done(submission("job", spec.clone(), Some(first)));
    let Outcome::Submitted { job, .. } = submitted else { panic!("{submitted:?}") };
    let scale = |scene: &mut Scene, group: &GroupSpec, replicas: u32| {
        let request_id = format!("{}={replicas}", group.name).into();
        let group = group.name.clone();
        let asked = Scale { job, group, replicas, expected: None, request_id };
        scene.world.done(Command::Scale(asked));
    };
    if seed.is_multiple_of(2) {
        lose(&mut scene, lost);
        for group in &spec.groups {
            let fewer = (group.replicas - 1).max(group.replicas_min);
            scale(&mut scene, group, fewer);
        }
    }
    for group in &spec.groups {
        scale(&mut scene, group, group.replicas_max);
    }
    fill_up(&mut scene, job);
}

#[test]
fn growth_keeps_every_rule() {
    for_seeds(1_500, |seed| growth_is_sound(seed, TINY));
    for_seeds(300, |seed| growth_is_sound(seed, SMALL));
}

#[test]
fn repairs_keep_every_rule() {
    for_seeds(1_500, |seed| repairs_are_sound(seed, TINY));
    for_seeds(300, |seed| repairs_are_sound(seed, SMALL));
}

/// Nodes that are not to be used are not used.
#[test]
fn avoided_nodes_are_avoided() {
    for_seeds(500, |seed| {
        let mut scene = Scene::new(seed, TINY);
        let spec = scene.spec(TINY);
        let avoid: Vec<NodeId> = scene.world.state.nodes().map(|node| node.id).take(2).collect();
        let around = scene.world.state.around(&tenant(TENANT), &spec, None);
        let request = Request { avoid: &avoid, around: &around, ..Request::whole(&spec) };
        let view = View::new(&scene.world.state);
        if let Ok(plan) = plan(&view, &request, &Policy::default(), Budget::default()) {
            assert!(plan.placements.iter().all(|one| !avoid.contains(&one.node)));
            assert_sound(&facts(&scene), &spec, &all_ranks(&spec), &[], &plan);
        }
    });
}

/// More nodes never make a job unplaceable that fitted before.
///
/// Exceptions: a new node may open a domain that a binding spread must then count as empty.
#[test]
fn more_capacity_never_makes_a_job_unplaceable() {
    let mut fitting = 0;
    for seed in 0..2_000 {
        let mut scene = Scene::new(seed, TINY);
        let mut spec = scene.spec(TINY);
        for group in &mut spec.groups {
            group.rules.spread.retain(|spread| spread.preferred);
        }
        let Ok(before) = run(&scene, &spec, Policy::BestFit) else { continue };
        fitting += 1;
        let more = scene.rng.random_range(1..=3);
        for number in 100..100 + more {
            scene.join(number, TINY);
        }
        match run(&scene, &spec, Policy::BestFit) {
            Ok(after) => assert!(
                after.placements.len() >= before.placements.len(),
                "SEED={seed}: fewer placed with more nodes: {spec:?}"
            ),
            Err(refusal) => panic!("SEED={seed}: fits no more: {refusal:?}: {spec:?}"),
        }
    }
    assert!(fitting > 300, "{fitting}");
}

/// A view that was kept up through many changes, claims taken back included, answers like one made
/// afresh.
#[test]
fn an_old_view_answers_like_a_new_one() {
    for_seeds(400, |seed| {
        let mut scene = Scene::new(seed, TINY);
        let mut view = View::new(&scene.world.state);
        for step in 0..8 {
            let spec = scene.spec(TINY);
            let ask = |view: &View, scene: &Scene, spec: &JobSpec| {
                ask(view, scene, spec, Policy::BestFit, Budget::default())
            };
            let answer = ask(&view, &scene, &spec);
            assert_eq!(answer, ask(&View::new(&scene.world.state), &scene, &spec));
            let Ok(plan) = answer else { continue };
            view.claim(step, &spec, &plan);
            // What is asked between claim and release must leave no trace.
            let other = scene.spec(TINY);
            let _ = ask(&view, &scene, &other);
            view.unclaim(step);
            assert_eq!(
                ask(&view, &scene, &spec),
                Ok(plan.clone()),
                "a claim taken back left something"
            );
            if step % 2 == 0 {
                scene.world.done(submission(&format!("job-{step}"), spec, Some(plan)));
                let nodes: Vec<NodeId> = scene.world.state.nodes().map(|node| node.id).collect();
                view.refresh(&scene.world.state, &nodes);
            }
        }
    });
}

/// A small budget ends in a plan that is sound, or in a refusal; the numbers of a refusal sum up.
#[test]
fn any_budget_is_kept_and_refusals_sum_up() {
    for_seeds(600, |seed| {
        let mut scene = Scene::new(seed, SMALL);
        let spec = scene.spec(SMALL);
        let facts = facts(&scene);
        let view = View::new(&scene.world.state);
        for steps_max in [0, 1, 30, 1_000] {
            let budget = Budget { steps_max };
            match ask(&view, &scene, &spec, Policy::default(), budget) {
                Ok(plan) => assert_sound(&facts, &spec, &all_ranks(&spec), &[], &plan),
                Err(refusal) => {
                    let sum: u32 = refusal.counts.iter().map(|(_, count)| count).sum();
                    assert_eq!((sum, refusal.nodes as usize), (refusal.nodes, facts.nodes.len()));
                }
            }
        }
    });
}

/// The checker has teeth for every rule, also for those that the state does not take yet.
#[test]
fn the_checker_finds_each_broken_rule() {
    let mut found: BTreeMap<&str, u32> = BTreeMap::new();
    for seed in 0..3_000 {
        let mut scene = Scene::new(seed, TINY);
        let spec = scene.wild_spec(TINY);
        let facts = facts(&scene);
        let nodes: Vec<NodeId> = facts.nodes.keys().copied().collect();
        let members: Vec<Member> = all_ranks(&spec)
            .into_iter()
            .map(|rank| Member {
                rank,
                group: group_of(&spec, rank).expect("a rank"),
                node: nodes[scene.rng.random_range(0..nodes.len())],
                gpus: Vec::new(),
                share: 0,
            })
            .collect();
        for fault in facts.among(&spec, &members, Stage::Whole) {
            for kind in [
                "STRICT_PACK",
                "STRICT_SPREAD",
                "the job must share",
                "group 0 must share",
                "segment",
                "at most",
                "Spread {",
                "us at most",
                "costs over",
                "anti: true",
                "anti: false",
                "Groups {",
                "Jobs {",
                "a job that is there",
            ] {
                *found.entry(kind).or_default() += u32::from(fault.contains(kind));
            }
        }
    }
    // Jobs with affinities of their own are there only once the planner places such.
    let placed = found.remove("a job that is there");
    assert!(found.len() == 13 && found.values().all(|&count| count >= 10), "{found:?}, {placed:?}");
}
