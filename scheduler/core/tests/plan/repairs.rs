//! Lost replicas are replaced where, and as many at once as, their groups ask.

use crate::scene::{LEVELS, SMALL, Scene, Size};
use rand::RngExt as _;
use scheduler_core::command::{
    Command, Commit, NodeTransition, Observed, Outcome, Placement, ReplicaReport,
};
use scheduler_core::duty::office::look;
use scheduler_core::fixture::entry::{TENANT, tenant};
use scheduler_core::fixture::fleet::submission;
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{GpuAsk, JobSpec, Level, Repair, Replica, ReplicaPhase};
use scheduler_core::node::{Node, NodeStatus};
use scheduler_core::plan::{Budget, Policy, Request, plan};
use scheduler_core::state::State;
use scheduler_core::view::View;

const SEEDS: u64 = 1_500;
/// Rounds of losses and repairs that one job goes through.
const ROUNDS: usize = 6;

/// Names of the domains in which a node stands, down to the level.
fn domain(node: &Node, level: Level) -> Vec<String> {
    let place = &node.place;
    let all = [&place.region, &place.zone, &place.site, &place.rack, &node.name];
    let depth = match level {
        Level::Region => 1,
        Level::Zone => 2,
        Level::Site => 3,
        Level::Rack => 4,
        Level::Node => 5,
    };
    all.into_iter().take(depth).map(ToString::to_string).collect()
}

fn replica(state: &State, job: JobId, rank: Rank) -> Replica {
    state.replica(job, rank).expect("known")
}

/// Replicas of the group that are bound and do not run yet.
fn flying(state: &State, job: JobId, spec: &JobSpec, group: usize) -> u32 {
    let own = state.replicas(job).filter(|(rank, _)| spec.group_of(*rank) == Some(group));
    let starts = |phase| matches!(phase, ReplicaPhase::Assigned | ReplicaPhase::Starting);
    u32::try_from(own.filter(|(_, replica)| starts(replica.phase)).count()).expect("few")
}

/// Whether the placement is where the lost replica's group wants it, from the words alone.
fn is_home(state: &State, job: JobId, spec: &JobSpec, placement: &Placement) -> bool {
    let before = replica(state, job, placement.rank);
    let repair = spec.groups[spec.group_of(placement.rank).expect("a group")].repair;
    let (Some(level), false, ReplicaPhase::Failed) = (repair.level, repair.preferred, before.phase)
    else {
        return true;
    };
    let home = before.allocation.and_then(|held| state.node(held.node));
    let now = state.node(placement.node).expect("known");
    home.is_none_or(|home| domain(home, level) == domain(now, level))
}

fn lose(scene: &mut Scene, node: NodeId) {
    let known = scene.world.state.node(node).expect("known");
    if known.status == NodeStatus::Up {
        let (epoch, status) = (known.epoch, NodeStatus::Down);
        scene.world.done(Command::NodeStatuses(vec![NodeTransition { node, epoch, status }]));
    }
}

fn report(scene: &mut Scene, job: JobId, which: impl Fn(Rank) -> bool, observed: Observed) {
    let state = &scene.world.state;
    let live = state.replicas(job).filter(|(rank, one)| one.phase.is_live() && which(*rank));
    let reports: Vec<ReplicaReport> =
        live.map(|(rank, _)| scene.world.report_of(job, rank.0, observed)).collect();
    scene.world.done(Command::Report(reports));
}

/// A job of the scene that is ready, with a wish of how it is repaired.
fn ready(scene: &mut Scene, spec: JobSpec) -> Option<JobId> {
    let around = scene.world.state.around(&tenant(TENANT), &spec, None);
    let request = Request { around: &around, ..Request::whole(&spec) };
    let view = View::new(&scene.world.state);
    let first = plan(&view, &request, &Policy::default(), Budget::default()).ok()?;
    let Outcome::Submitted { job, .. } = scene.world.done(submission("job", spec, Some(first)))
    else {
        panic!("is new")
    };
    report(scene, job, |_| true, Observed::Ready);
    Some(job)
}

/// Plans what waits, holds it against the words of the job, and has it committed.
fn repair(scene: &mut Scene, job: JobId, seed: u64) -> bool {
    let state = &scene.world.state;
    let Some(wait) = look::waiting(state, job) else { return false };
    let (spec, view) = (wait.job.spec.clone(), View::new(state));
    let found = plan(&view, &wait.request(), &Policy::default(), Budget::default());
    let Ok(plan) = found else { return false };
    for placement in &plan.placements {
        assert!(is_home(state, job, &spec, placement), "seed {seed}: {placement:?}");
    }
    let was_ready = wait.job.ready_at.is_some();
    for (at, group) in spec.groups.iter().enumerate() {
        let own = |one: &&Placement| spec.group_of(one.rank) == Some(at);
        let lost = |one: &Placement| replica(state, job, one.rank).phase == ReplicaPhase::Failed;
        let placed: Vec<&Placement> = plan.placements.iter().filter(own).collect();
        let most = group.repair.in_flight_max;
        if was_ready && most > 0 && placed.iter().any(|one| lost(one)) {
            let all = flying(state, job, &spec, at) + u32::try_from(placed.len()).expect("few");
            assert!(all <= most, "seed {seed}: {all} of group {at} at once, {most} may be");
        }
    }
    scene.world.done(Command::Commit(Commit { job, plan }));
    true
}

/// Whatever else a job asks, its lost replicas come back as it says, and what is planned is accepted.
#[test]
fn lost_replicas_are_replaced_as_their_groups_ask() {
    let mut repaired = 0;
    for seed in 0..SEEDS {
        let mut scene = Scene::new(seed, SMALL);
        let mut spec = scene.spec(SMALL);
        for group in &mut spec.groups {
            let levels = [None, Some(Level::Node), Some(Level::Rack), Some(Level::Site)];
            let level = levels[scene.rng.random_range(0..4)];
            let preferred = level.is_some() && scene.rng.random_range(0..3) == 0;
            group.repair = Repair { in_flight_max: scene.rng.random_range(0..4), level, preferred };
        }
        let Some(job) = ready(&mut scene, spec) else { continue };
        for _ in 0..ROUNDS {
            let state = &scene.world.state;
            if state.job(job).is_none_or(|job| job.phase.is_over()) {
                break;
            }
            let held = state.replicas(job).filter(|(_, one)| one.phase.is_live());
            let nodes: Vec<NodeId> =
                held.filter_map(|(_, one)| Some(one.allocation?.node)).collect();
            if !nodes.is_empty() && scene.rng.random_range(0..3) > 0 {
                let node = nodes[scene.rng.random_range(0..nodes.len())];
                lose(&mut scene, node);
            }
            repaired += usize::from(repair(&mut scene, job, seed));
            let lucky = scene.rng.random_range(0..3);
            report(&mut scene, job, |rank| rank.0 % 3 != lucky, Observed::Ready);
        }
    }
    assert!(repaired > 200, "{repaired} repairs: the test proves too little");
}

/// A group without other rules: after the planner's turn no lost replica waits whose own domain has an open node
/// with a free GPU.
#[test]
fn no_lost_replica_waits_for_nothing() {
    let mut waits = 0;
    for seed in 0..SEEDS {
        let size = Size { nodes_max: 12, gpus_max: 2, replicas_max: 8, jobs_max: 4 };
        let mut scene = Scene::new(seed, size);
        let mut spec = scene.spec(size);
        let mut group = scheduler_core::fixture::entry::group("w", 6, 1);
        group.replicas_min = 1;
        group.repair.level = Some(LEVELS[scene.rng.random_range(0..4)]);
        group.tolerations =
            vec![scheduler_core::job::Toleration { key: "".into(), value: None, effect: None }];
        (spec.groups, spec.affinities) = (vec![group], Vec::new());
        spec = JobSpec {
            name: spec.name,
            labels: scheduler_core::node::Labels::new(),
            ..scheduler_core::fixture::entry::job_spec(spec.groups)
        };
        let Some(job) = ready(&mut scene, spec.clone()) else { continue };
        let held =
            scene.world.state.replicas(job).filter_map(|(_, one)| Some(one.allocation?.node));
        let mut nodes: Vec<NodeId> = held.collect();
        nodes.dedup();
        nodes.truncate(nodes.len().div_ceil(2));
        nodes.into_iter().for_each(|node| lose(&mut scene, node));
        while repair(&mut scene, job, seed) {}
        let state = &scene.world.state;
        let around = state.around(&tenant(TENANT), &spec, Some(job));
        let closed = |node: &Node| {
            around.closed.iter().any(|(level, nodes)| {
                nodes
                    .iter()
                    .filter_map(|id| state.node(*id))
                    .any(|other| domain(other, *level) == domain(node, *level))
            })
        };
        for (rank, one) in state.replicas(job).filter(|(_, one)| one.phase == ReplicaPhase::Failed)
        {
            waits += 1;
            let home = one.allocation.and_then(|held| state.node(held.node)).expect("known");
            let level = spec.groups[0].repair.level.expect("set");
            let free = |node: &Node| {
                let usage = state.usage(node.id).expect("known");
                let (used, shape) = (&usage.used, &spec.groups[0].shape);
                let has_cpu = node.resources.cpu.0 >= used.cpu.0 + shape.cpu.0
                    && node.resources.memory.0 >= used.memory.0 + shape.memory.0
                    && node.resources.disk.0 >= used.disk.0 + shape.disk.0;
                node.is_schedulable() && has_cpu && !usage.gpus_free(node).is_empty()
            };
            let room = state.nodes().find(|node| {
                domain(node, level) == domain(home, level) && free(node) && !closed(node)
            });
            assert!(
                room.is_none(),
                "seed {seed}: {rank} waits, {:?} is free",
                room.map(|node| &node.name)
            );
        }
        assert_eq!(spec.groups[0].shape.gpus, GpuAsk::Whole(1));
    }
    assert!(waits > 50, "{waits} waited: the test proves too little");
}
