//! What sums alone settle is so: a single group that may go anywhere gets all the room there is, and
//! groups that ask for GPUs in powers of two fit together exactly if the GPUs of each size do.

use super::config;
use super::scene::Scene;
use crate::fixture::fleet::{Fleet, gang, occupy, workers};
use crate::job::{GpuAsk, Strategy};
use crate::plan::Steps;
use crate::plan::ask::Ask;
use crate::plan::draft::Base;
use crate::plan::field::{Field, covers};
use crate::plan::solve::Solver;
use crate::plan::{Ranks, Request};
use crate::view::View;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Asks for one replica more and more; also with members that stay and nodes to be avoided.
fn check(seed: u64) {
    let mut scene = Scene::new(seed, 8);
    let view = View::new(&scene.world.state);
    let mut spec = scene.spec();
    spec.groups.truncate(1);
    (spec.rtt_max, spec.topology_required) = (None, None);
    if spec.strategy == Strategy::StrictPack {
        spec.strategy = Strategy::Spread;
    }
    let nodes = scene.nodes();
    let any = |scene: &mut Scene| nodes[scene.rng.random_range(0..nodes.len())];
    let staying = scene.rng.random_range(0..3u32);
    let fixed: Vec<_> = (0..staying).map(|rank| (crate::id::Rank(rank), any(&mut scene))).collect();
    let avoid: Vec<_> = (0..scene.rng.random_range(0..2)).map(|_| any(&mut scene)).collect();
    let replicas = staying + scene.rng.random_range(1..16);
    spec.groups[0].replicas = replicas;
    let ranks: Vec<_> = (staying..replicas).map(crate::id::Rank).collect();
    let request = Request {
        ranks: Ranks::Some(&ranks),
        fixed: &fixed,
        avoid: &avoid,
        ..Request::whole(&spec)
    };
    let ask = Ask::new(&view, &request);
    for base in [Base::Now, Base::EmptyOpen, Base::EmptyAll] {
        let mut steps = Steps::new(u64::MAX);
        let field = Field::new(&ask, base, &mut steps);
        let solver = Solver { ask: &ask, field: &field, base };
        for target in 1..=replicas - staying {
            let placed = solver.solve(&[target], &mut steps).map(|placements| placements.len());
            let have = field.sum(&field.sites(), true);
            let enough = covers(&have, &Field::demand(&ask, &[target], false));
            assert_eq!(
                placed,
                enough.then_some(target as usize),
                "{base:?} {target} of {spec:?} beside {fixed:?}"
            );
        }
    }
}

/// Sizes of the replicas of each group; the second list has no size that divides the next.
const SIZES: [&[u8]; 3] = [&[8, 4, 2, 1], &[4, 2], &[7, 5, 3, 2]];

/// Random numbers of replicas, close to what there is.
fn check_sizes(seed: u64, sizes: &[u8], exact: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state = Fleet::new(60, 4, seed).state();
    occupy(&mut state, rng.random_range(100..900), seed);
    let view = View::new(&state);
    let mut spec = gang("sizes", 1, GpuAsk::None);
    let bare = |&size: &u8| {
        let mut group = workers(&format!("of-{size}"), 400, GpuAsk::Whole(size));
        (group.shape.cpu.0, group.shape.memory.0, group.shape.disk.0) = (0, 0, 0);
        group
    };
    spec.groups = sizes.iter().map(bare).collect();
    let ask = Ask::new(&view, &Request::whole(&spec));
    let mut steps = Steps::new(u64::MAX);
    let field = Field::new(&ask, Base::Now, &mut steps);
    let solver = Solver { ask: &ask, field: &field, base: Base::Now };
    let have = field.sum(&field.sites(), true);
    let mut idle: u64 = view.slots().map(|(_, slot)| u64::from(slot.free.idle.len())).sum();
    let mut targets: Vec<u32> = Vec::new();
    for (at, (&size, &room)) in sizes.iter().zip(&have).enumerate() {
        let left = (idle / u64::from(size)).min(room);
        // The last takes nearly all that is left.
        let last = at + 1 == sizes.len();
        let target = if last {
            left.saturating_sub(rng.random_range(0..4))
        } else {
            rng.random_range(0..=left)
        };
        let target = u32::try_from(target).expect("few").min(400);
        idle -= u64::from(target) * u64::from(size);
        targets.push(target);
    }
    let enough = covers(&have, &Field::demand(&ask, &targets, false));
    let placed = solver.draft(&targets, &mut steps).is_some();
    assert!(
        enough || !placed,
        "{targets:?} of {sizes:?} are placed where there is no room on paper"
    );
    assert!(!exact || placed == enough, "{targets:?} of {sizes:?}: {placed}, on paper {enough}");
}

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn sizes_in_powers_of_two_fit_as_they_do_on_paper(seed: u64) {
        check_sizes(seed, SIZES[0], true);
        check_sizes(seed, SIZES[1], true);
        check_sizes(seed, SIZES[2], false);
    }

    #[test]
    fn one_group_gets_all_the_room_there_is(seed: u64) {
        check(seed);
    }
}
