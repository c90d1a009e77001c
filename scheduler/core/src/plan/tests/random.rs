//! Random tiny scenes: plans are accepted by the state, refusals are proven by trying every way.

use super::brute;
use super::config;
use super::scene::Scene;
use crate::command::{Command, Commit, NodeTransition, Outcome};
use crate::fixture::fleet::submission;
use crate::id::{JobId, NodeId, Rank};
use crate::job::JobSpec;
use crate::node::{Eligibility, NodeStatus};
use crate::plan::{Budget, Policy, Ranks, Request, Unplaceable, Verdict, plan};
use crate::state::State;
use crate::view::View;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NODES_MAX: usize = 4;

fn run(view: &View, request: &Request<'_>) -> Result<crate::command::Plan, Unplaceable> {
    plan(view, request, &Policy::BestFit, Budget::default())
}

/// Placed replicas per group.
fn placed(spec: &JobSpec, plan: &crate::command::Plan) -> Vec<u32> {
    let mut counts = vec![0; spec.groups.len()];
    for placement in &plan.placements {
        counts[spec.group_of(placement.rank).expect("a rank of the job")] += 1;
    }
    counts
}

fn check_counts(state: &State, refusal: &Unplaceable) {
    let sum: u32 = refusal.counts.iter().map(|(_, count)| count).sum();
    assert_eq!(sum, refusal.nodes);
    assert_eq!(sum as usize, state.nodes().count());
    assert!(refusal.to_string().is_ascii());
}

/// How a random case ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Ending {
    Whole,
    Shrunk,
    Refused(Verdict),
}

/// Plans a whole job and holds the answer against the state and against brute force.
fn check_whole(seed: u64) -> Ending {
    let mut scene = Scene::new(seed, NODES_MAX);
    let spec = scene.spec();
    let state = &scene.world.state;
    let view = View::new(state);
    let answer = run(&view, &Request::whole(&spec));
    assert_eq!(answer, run(&View::new(state), &Request::whole(&spec)), "not deterministic");
    let wanted: Vec<u32> = spec.groups.iter().map(|group| group.replicas).collect();
    let least: Vec<u32> = spec.groups.iter().map(|group| group.replicas_min).collect();
    match answer {
        Ok(plan) => {
            let whole = placed(&spec, &plan) == wanted;
            if !whole {
                assert!(!brute::fits(state, &spec, &wanted, &[]), "all would fit: {spec:?}");
            }
            scene.world.done(submission("job", spec, Some(plan)));
            if whole { Ending::Whole } else { Ending::Shrunk }
        }
        Err(refusal) => {
            check_counts(state, &refusal);
            assert!(!brute::fits(state, &spec, &least, &[]), "fits: {spec:?}: {refusal:?}");
            Ending::Refused(refusal.verdict)
        }
    }
}

#[test]
fn random_cases_end_in_every_way() {
    let mut endings = BTreeMap::new();
    for seed in 0..1_000 {
        *endings.entry(check_whole(seed)).or_insert(0u32) += 1;
    }
    for ending in [
        Ending::Whole,
        Ending::Shrunk,
        Ending::Refused(Verdict::NoSuchPool),
        Ending::Refused(Verdict::NeverFits),
        Ending::Refused(Verdict::Latency),
        Ending::Refused(Verdict::BusyUntil(None)),
    ] {
        let count = endings.get(&ending).copied().unwrap_or(0);
        assert!(count >= 10, "{ending:?} only {count} times: {endings:?}");
    }
}

/// Places a job, takes a node down, and repairs.
fn check_repair(seed: u64) {
    let mut scene = Scene::new(seed, NODES_MAX);
    let spec = scene.spec();
    let view = View::new(&scene.world.state);
    let Ok(plan) = run(&view, &Request::whole(&spec)) else { return };
    let lost = plan.placements[0].node;
    let submitted = scene.world.done(submission("job", spec.clone(), Some(plan)));
    let Outcome::Submitted { job, .. } = submitted else { panic!("{submitted:?}") };
    let epoch = scene.world.state.node(lost).expect("known").epoch;
    scene.world.done(Command::NodeStatuses(vec![NodeTransition {
        node: lost,
        epoch,
        status: NodeStatus::Down,
    }]));
    let state = &scene.world.state;
    let (ranks, fixed) = members(state, job);
    let view = View::new(state);
    let request = Request { ranks: Ranks::Some(&ranks), fixed: &fixed, ..Request::whole(&spec) };
    match run(&view, &request) {
        Ok(plan) => {
            scene.world.done(Command::Commit(Commit { job, plan }));
        }
        Err(refusal) => {
            check_counts(state, &refusal);
            let mut least: Vec<u32> = spec.groups.iter().map(|group| group.replicas_min).collect();
            for (rank, _) in &fixed {
                let group = spec.group_of(*rank).expect("a rank of the job");
                least[group] = least[group].saturating_sub(1);
            }
            let stay: Vec<NodeId> = fixed.iter().map(|(_, node)| *node).collect();
            if least.iter().any(|&count| count > 0) {
                assert!(!brute::fits(state, &spec, &least, &stay), "fits: {spec:?}: {refusal:?}");
            }
        }
    }
}

fn members(state: &State, job: JobId) -> (Vec<Rank>, Vec<(Rank, NodeId)>) {
    let mut waiting = Vec::new();
    let mut live = Vec::new();
    for (rank, replica) in state.replicas(job) {
        match replica.allocation.filter(|_| replica.phase.is_live()) {
            Some(allocation) => live.push((rank, allocation.node)),
            None => waiting.push(rank),
        }
    }
    (waiting, live)
}

/// Keeps one view over many changes; it must answer like a new one.
fn check_history(seed: u64) {
    let mut scene = Scene::new(seed, NODES_MAX);
    let mut view = View::new(&scene.world.state);
    for step in 0..6 {
        let spec = scene.spec();
        let answer = run(&view, &Request::whole(&spec));
        let fresh = View::new(&scene.world.state);
        assert_eq!(answer, run(&fresh, &Request::whole(&spec)));
        if let Ok(plan) = answer {
            view.claim(step, &spec, &plan);
            scene.world.done(submission(&format!("job-{step}"), spec, Some(plan)));
            view.unclaim(step);
            view.refresh(&scene.world.state, &scene.nodes());
        }
        // A node leaves its class and comes back: the old view gives other numbers.
        let nodes = scene.nodes();
        let node = nodes[usize::try_from(step).expect("few") % nodes.len()];
        for eligibility in [Eligibility::Cordoned, Eligibility::Eligible] {
            scene.world.done(Command::SetEligibility { node, eligibility });
            view.refresh(&scene.world.state, &[node]);
        }
    }
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn a_plan_is_accepted_and_a_refusal_is_true(seed: u64) {
        check_whole(seed);
    }

    #[test]
    fn a_repair_keeps_every_rule(seed: u64) {
        check_repair(seed);
    }

    #[test]
    fn an_old_view_answers_like_a_new_one(seed: u64) {
        check_history(seed);
    }
}
