//! Plans in flight: nothing is promised twice, and nothing stays taken.

use super::config;
use super::scene::Scene;
use crate::command::Command;
use crate::event::Event;
use crate::fixture::entry::{World, name, node_spec};
use crate::fixture::fleet::{gang, submission};
use crate::fixture::noise;
use crate::job::GpuAsk;
use crate::plan::{Budget, Policy, Request, plan};
use crate::view::View;
use proptest::prelude::*;
use rand::RngExt;
use std::sync::Arc;

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

/// What a view holds, whatever the numbers of its classes.
fn content(view: &View) -> impl PartialEq + std::fmt::Debug + use<> {
    let slots = view.slots().map(|(id, slot)| {
        let node = Arc::as_ptr(&slot.node);
        assert_eq!((view.brief(id).idle, view.brief(id).epoch), (slot.free.idle, slot.epoch));
        (id, node, slot.free.clone(), slot.epoch, slot.site, slot.open, slot.state.is_some())
    });
    let slots: Vec<_> = slots.collect();
    let mut classes: Vec<_> =
        view.classes().iter().map(|(_, class)| (class.nodes.clone(), class.open)).collect();
    classes.sort_by_key(|(nodes, _)| nodes.first());
    (slots, classes, view.states().content(), view.states().holes())
}

/// A view that reads what events name is one made anew.
fn check_following(seeds: &[u64]) {
    let mut state = Scene::new(0, 6).world.state;
    let mut view = View::new(&state);
    for &seed in seeds {
        let applied = state.apply(state.index() + 1, &noise::entry(&state, seed));
        let node = |event: &Event| match event {
            Event::NodeChanged(node) | Event::NodeWorkChanged(node) => Some(*node),
            _ => None,
        };
        let nodes: Vec<_> = applied.events.iter().filter_map(node).collect();
        view.refresh(&state, &nodes);
        assert_eq!(content(&view), content(&View::new(&state)), "after {seed}");
    }
}

#[test]
fn machines_that_change_at_every_join_leave_nothing_behind() {
    let mut world = World::with_nodes(4, 8);
    let mut view = View::new(&world.state);
    let before = view.index_bytes();
    let spec = gang("one", 1, GpuAsk::Whole(1));
    for round in 0..3_000u32 {
        let mut changed = node_spec("n0", 8);
        changed.gpus.iter_mut().for_each(|gpu| gpu.vram.0 += round);
        changed.place.rack = name(&format!("rack-{round}"));
        let (changed, _) = world.join(changed);
        let (brief, _) = world.join(node_spec(&format!("brief-{round}"), 1));
        world.done(Command::RemoveNode { node: brief, force: false });
        view.refresh(&world.state, &[changed, brief]);
        if round % 100 == 0 {
            for policy in [Policy::BestFit, Policy::Foresight] {
                let ask =
                    |view: &View| plan(view, &Request::whole(&spec), &policy, Budget::default());
                assert_eq!(ask(&view), ask(&View::new(&world.state)));
            }
        }
    }
    assert!(view.classes().gpu_lists().count() < 1_100);
    assert_eq!(view.racks_len(), 2);
    assert!(view.index_bytes() < before + 64 * 1_024);
    assert_eq!(content(&view), content(&View::new(&world.state)));
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn claims_never_overlap_and_leave_no_trace(seed: u64) {
        check(seed);
    }

    #[test]
    fn a_view_follows_all_that_happens(seeds in proptest::collection::vec(any::<u64>(), 1..40)) {
        check_following(&seeds);
    }
}
