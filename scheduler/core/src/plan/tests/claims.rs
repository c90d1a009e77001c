//! Plans in flight: nothing is promised twice, and nothing stays taken.

use super::config;
use super::scene::Scene;
use crate::fixture::fleet::submission;
use crate::plan::{Budget, Policy, Request, plan};
use crate::view::View;
use proptest::prelude::*;
use rand::RngExt;

/// Plans many jobs with claims only, applies them in another order, drops some.
fn check(seed: u64) {
    let mut scene = Scene::new(seed, 6);
    let mut view = View::new(&scene.world.state);
    let mut flying = Vec::new();
    for claim in 0..12u64 {
        let spec = scene.spec();
        let answer = plan(&view, &Request::whole(&spec), &Policy::BestFit, Budget::default());
        if let Ok(plan) = answer {
            view.claim(claim, &spec, &plan);
            flying.push((claim, spec, plan));
        }
        let every = scene.nodes();
        if scene.rng.random_range(0..3) == 0 {
            // Reading nodes again in the middle must not free what is claimed.
            view.refresh(&scene.world.state, &every);
        }
    }
    while !flying.is_empty() {
        let at = scene.rng.random_range(0..flying.len());
        let (claim, spec, plan) = flying.swap_remove(at);
        let nodes: Vec<_> = plan.placements.iter().map(|placement| placement.node).collect();
        if scene.rng.random_range(0..3) > 0 {
            // Accepted whatever the order: claims never overlap.
            scene.world.done(submission(&format!("job-{claim}"), spec, Some(plan)));
            view.refresh(&scene.world.state, &nodes);
        }
        view.unclaim(claim);
        view.unclaim(claim);
    }
    let fresh = View::new(&scene.world.state);
    assert_eq!(view.claims_len(), 0);
    for (node, slot) in fresh.slots() {
        assert_eq!(view.slot(node).map(|slot| &slot.free), Some(&slot.free), "node {node}");
    }
    assert_eq!(view.slots().count(), fresh.slots().count());
    assert_eq!(view.states().content(), fresh.states().content());
    assert_eq!(view.states().holes(), fresh.states().holes());
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn claims_never_overlap_and_leave_no_trace(seed: u64) {
        check(seed);
    }
}
