//! Fills: long seeded streams of single jobs, pinned by a hash of where each of them went, so that
//! a change meant to be quicker is seen to choose the same nodes. A change that is meant to choose
//! others has to show what it does to packing (`muster bench packing`), and then changes the hashes.

use crate::fixture::fleet::{Fleet, gang, occupy};
use crate::hash::Hasher;
use crate::job::{GpuAlternative, GpuAsk, JobSpec};
use crate::plan::{Budget, Policy, Request, find};
use crate::view::View;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;
use std::hash::{Hash, Hasher as _};

/// Jobs that come.
const JOBS: u64 = 1_200;

/// Shapes as they come in traces: mostly shares and single GPUs, some with little CPU, some with
/// much, some bound to models.
fn specs(view: &View, rng: &mut StdRng) -> Vec<JobSpec> {
    let shape = |rng: &mut StdRng| {
        let gpus = match rng.random_range(0..12) {
            0 => GpuAsk::None,
            1..=5 => GpuAsk::Share(rng.random_range(1..20) * 50),
            6..=8 => GpuAsk::Whole(1),
            drawn => GpuAsk::Whole(1 << (drawn - 8)),
        };
        let mut spec = gang("one", 1, gpus);
        let shape = &mut spec.groups[0].shape;
        shape.cpu.0 = rng.random_range(1..24) * 1_000;
        shape.memory.0 = rng.random_range(1..16) * 4_096;
        if gpus != GpuAsk::None && rng.random_range(0..5) == 0 {
            let models = view.models().iter().map(|(_, name)| name.clone()).take(2).collect();
            shape.alternatives = vec![GpuAlternative { models, ..GpuAlternative::default() }];
        }
        spec
    };
    (0..32).map(|_| shape(rng)).collect()
}

/// Hash of all choices of a policy. `leaving`: of four jobs that come, so many leave.
fn choices(policy: Policy, leaving: u64) -> u64 {
    let mut rng = StdRng::seed_from_u64(11);
    let mut state = Fleet::new(90, 5, 3).state();
    occupy(&mut state, 300, 3);
    let mut view = View::new(&state);
    let specs = specs(&view, &mut rng);
    let mut living = VecDeque::new();
    let mut hash = Hasher::new();
    for claim in 0..JOBS {
        let spec = &specs[rng.random_range(0..specs.len())];
        view.note_arrival(spec);
        let plan = find(&view, &Request::whole(spec), &policy, Budget::default());
        let chosen = plan.as_ref().and_then(|plan| plan.placements.first());
        chosen.map(|one| (one.node.0, one.gpus.0)).hash(&mut hash);
        if let Some(plan) = plan {
            view.claim(claim, spec, &plan);
            living.push_back((claim, spec));
        }
        if claim % 4 < leaving
            && let Some((claim, spec)) = living.pop_front()
        {
            view.unclaim(claim);
            view.note_departure(spec);
        }
    }
    hash.finish()
}

/// While nothing leaves, and while three of four that come do.
#[test]
fn policies_choose_as_ever() {
    let found = Policy::ALL.map(|policy| (policy, [0, 3].map(|leaving| choices(policy, leaving))));
    let known = [
        (Policy::Random, [8_110_218_999_684_229_163, 11_121_963_539_351_144_273]),
        (Policy::DotProduct, [11_786_701_031_192_817_114, 13_751_953_873_359_612_343]),
        (Policy::GpuClustering, [11_346_948_431_040_033_415, 5_239_969_371_641_364_658]),
        (Policy::GpuPacking, [15_310_187_555_693_513_052, 11_971_914_698_897_663_853]),
        (Policy::BestFit, [6_777_317_864_334_467_074, 13_124_673_710_310_106_503]),
        (Policy::Fgd, [10_315_258_713_630_089_777, 15_494_214_938_901_068_613]),
        (Policy::Foresight, [8_262_004_883_331_587_604, 14_201_312_189_184_932_009]),
    ];
    assert_eq!(found, known);
}
