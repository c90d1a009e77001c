//! Large fleets with much room: there the default policy sends whole GPUs to the fullest node that
//! holds them.

use crate::fixture::fleet::{Fleet, gang, occupy};
use crate::id::NodeId;
use crate::job::{GpuAlternative, GpuAsk, JobSpec};
use crate::plan::ask::Ask;
use crate::plan::room::room;
use crate::plan::{Budget, Policy, Request, find};
use crate::state::State;
use crate::view::View;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// One node more than a fleet that is not large.
const NODES: usize = 8_193;
/// Jobs that come.
const JOBS: u64 = 120;

fn state(nodes: usize, milli: u32) -> State {
    let mut state = Fleet::new(nodes, 12, 5).state();
    occupy(&mut state, milli, 5);
    state
}

fn is_roomy(state: &State) -> bool {
    View::new(state).outlook().1.is_roomy()
}

fn spec(view: &View, rng: &mut StdRng) -> JobSpec {
    let gpus = match rng.random_range(0..6) {
        0 => GpuAsk::None,
        drawn => GpuAsk::Whole([1, 1, 2, 4, 8][drawn - 1]),
    };
    let mut spec = gang("one", 1, gpus);
    let shape = &mut spec.groups[0].shape;
    shape.cpu.0 = rng.random_range(1..64) * 1_000;
    if gpus != GpuAsk::None && rng.random_range(0..3) == 0 {
        let models = view.models().iter().map(|(_, name)| name.clone()).take(2).collect();
        shape.alternatives = vec![GpuAlternative { models, ..GpuAlternative::default() }];
    }
    spec
}

/// Idle GPUs of each node that has room for the one replica.
fn able(view: &View, spec: &JobSpec) -> Vec<(NodeId, u32)> {
    let request = Request::whole(spec);
    let ask = Ask::new(view, &request);
    let group = &ask.groups[0];
    let idle = view.slots().filter_map(|(node, slot)| {
        let fit = group.gpu_fit(&slot.node.gpus).filter(|_| slot.open)?;
        let holds = room(group, &slot.node.gpus, &slot.free, fit, 1) == 1;
        holds.then(|| (NodeId(node), slot.free.idle.len()))
    });
    idle.collect()
}

/// Where the jobs go; each choice is held against all nodes.
fn choices(state: &State) -> Vec<Option<NodeId>> {
    let mut rng = StdRng::seed_from_u64(9);
    let mut view = View::new(state);
    let mut chosen = Vec::new();
    for claim in 0..JOBS {
        let spec = spec(&view, &mut rng);
        view.note_arrival(&spec);
        let plan = find(&view, &Request::whole(&spec), &Policy::Foresight, Budget::default());
        let node = plan.as_ref().and_then(|plan| plan.placements.first()).map(|one| one.node);
        let able = able(&view, &spec);
        let fullest = able.iter().map(|&(_, idle)| idle).min();
        let idle = able.iter().find(|(other, _)| Some(*other) == node).map(|&(_, idle)| idle);
        assert_eq!(idle, fullest, "{node:?} for {spec:?}");
        if let Some(plan) = plan {
            view.claim(claim, &spec, &plan);
        }
        chosen.push(node);
    }
    chosen
}

#[test]
fn whole_gpus_go_to_the_fullest_node_that_holds_them() {
    let state = state(NODES, 500);
    assert!(is_roomy(&state));
    let chosen = choices(&state);
    assert!(chosen.iter().filter(|node| node.is_some()).count() > 100, "{chosen:?}");
    assert_eq!(chosen, choices(&state), "the same fleet and jobs, the same nodes");
}

#[test]
fn a_small_fleet_and_a_full_one_are_not_roomy() {
    assert!(!is_roomy(&state(NODES - 1, 500)));
    assert!(!is_roomy(&state(NODES, 1_600)));
}
