//! Fleets of a hundred machines: what is planned is accepted, and the short way for single
//! replicas finds a node exactly if the long way does.

use super::config;
use crate::fixture::entry::World;
use crate::fixture::fleet::{Fleet, gang, occupy, submission, workers};
use crate::job::{GpuAlternative, GpuAsk, JobSpec, Level, Strategy};
use crate::node::Models;
use crate::plan::ask::Ask;
use crate::plan::draft::Base;
use crate::plan::field::Field;
use crate::plan::solve::Solver;
use crate::plan::{Budget, Policy, Request, Steps, plan};
use crate::unit::{RttUs, TimeMs};
use crate::view::View;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn world(seed: u64) -> World {
    let mut state = Fleet::new(120, 10, seed).state();
    occupy(&mut state, 400, seed);
    World { state, at: TimeMs(1_000_000) }
}

fn shape(rng: &mut StdRng) -> GpuAsk {
    match rng.random_range(0..8) {
        0 => GpuAsk::None,
        1 => GpuAsk::Share(rng.random_range(1..10) * 100),
        2 => GpuAsk::Whole(rng.random_range(1..=8)),
        drawn => GpuAsk::Whole(1 << (drawn % 4)),
    }
}

fn spec(models: &Models, rng: &mut StdRng) -> JobSpec {
    let mut spec = gang("random", 1, GpuAsk::None);
    spec.groups = (0..rng.random_range(1..4))
        .map(|number| {
            let replicas = rng.random_range(1..60);
            let mut group = workers(&format!("g{number}"), replicas, shape(rng));
            group.replicas_min = rng.random_range(1..=replicas);
            if rng.random_range(0..4) == 0 && group.shape.gpus != GpuAsk::None {
                let known = models.iter().map(|(_, name)| name.clone());
                let models = known.take(2).collect();
                let one = GpuAlternative { models, ..GpuAlternative::default() };
                group.shape.alternatives = vec![one];
            }
            group.shape.cpu.0 = rng.random_range(1..9) * 1_000;
            group
        })
        .collect();
    spec.strategy =
        [Strategy::Pack, Strategy::Spread, Strategy::StrictSpread][rng.random_range(0..3)];
    spec.rtt_max = (rng.random_range(0..2) == 0).then(|| RttUs(rng.random_range(1..250) * 1_000));
    let levels = [Level::Region, Level::Zone, Level::Site, Level::Rack];
    spec.topology_required = (rng.random_range(0..5) == 0).then(|| levels[rng.random_range(0..4)]);
    spec.topology_preferred = (rng.random_range(0..5) == 0).then(|| levels[rng.random_range(0..4)]);
    spec
}

fn check_gangs(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = world(seed);
    let mut view = View::new(&world.state);
    for number in 0..6 {
        let spec = spec(world.state.models(), &mut rng);
        match plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default()) {
            Ok(plan) => {
                let nodes: Vec<_> = plan.placements.iter().map(|one| one.node).collect();
                world.done(submission(&format!("job-{number}"), spec, Some(plan)));
                view.refresh(&world.state, &nodes);
            }
            Err(refusal) => {
                let sum: u32 = refusal.counts.iter().map(|(_, count)| count).sum();
                assert_eq!((sum, refusal.nodes), (120, 120));
            }
        }
    }
}

fn check_single(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut world = world(seed);
    for number in 0..20 {
        let mut spec = gang("single", 1, shape(&mut rng));
        spec.groups[0].shape.cpu.0 = rng.random_range(1..200) * 1_000;
        spec.groups[0].shape.memory.0 = rng.random_range(0..3) * 400_000;
        let view = View::new(&world.state);
        let request = Request::whole(&spec);
        let short = plan(&view, &request, &Policy::BestFit, Budget::default());
        let ask = Ask::new(&view, &request);
        let mut steps = Steps::new(u64::MAX);
        let field = Field::new(&ask, Base::Now, &mut steps);
        let solver = Solver { ask: &ask, field: &field, base: Base::Now };
        let long = solver.solve(&[1], &mut steps);
        assert_eq!(short.is_ok(), long.is_some(), "{spec:?}");
        if let Ok(plan) = short {
            world.done(submission(&format!("job-{number}"), spec, Some(plan)));
        }
    }
}

proptest! {
    #![proptest_config(config(60))]

    #[test]
    fn gangs_on_a_fleet_are_accepted(seed: u64) {
        check_gangs(seed);
    }

    #[test]
    fn the_short_way_finds_what_the_long_way_finds(seed: u64) {
        check_single(seed);
    }
}
