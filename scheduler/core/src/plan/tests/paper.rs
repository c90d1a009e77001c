//! What sums alone settle is so: a single group that may go anywhere gets all the room there is.

use super::config;
use super::scene::Scene;
use crate::job::Strategy;
use crate::plan::Steps;
use crate::plan::ask::Ask;
use crate::plan::draft::Base;
use crate::plan::field::{Field, covers};
use crate::plan::solve::Solver;
use crate::plan::{Ranks, Request};
use crate::view::View;
use proptest::prelude::*;
use rand::RngExt;

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

proptest! {
    #![proptest_config(config(2000))]

    #[test]
    fn one_group_gets_all_the_room_there_is(seed: u64) {
        check(seed);
    }
}
