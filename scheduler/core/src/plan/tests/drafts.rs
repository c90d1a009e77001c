//! Drafts go back to their marks without a trace; a spent budget still gives a plan that holds.

use super::config;
use crate::fixture::entry::World;
use crate::fixture::fleet::{Fleet, gang, occupy, submission, workers};
use crate::job::GpuAsk;
use crate::plan::ask::Ask;
use crate::plan::draft::{Base, Draft};
use crate::plan::field::{Domain, Field};
use crate::plan::{Answer, Budget, Policy, Request, Steps, answer};
use crate::unit::TimeMs;
use crate::view::View;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Places at random, marks at random, goes back at random.
fn check_rollback(seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut state = Fleet::new(60, 4, seed).state();
    occupy(&mut state, 300, seed);
    let mut spec = gang("drafted", 1, GpuAsk::None);
    let asks = [GpuAsk::Whole(1), GpuAsk::Share(300), GpuAsk::Whole(4), GpuAsk::None];
    spec.groups = asks.into_iter().map(|gpus| workers("g", 1_000, gpus)).collect();
    let view = View::new(&state);
    let ask = Ask::new(&view, &Request::whole(&spec));
    let field = Field::new(&ask, Base::Now, &mut Steps::new(u64::MAX));
    let domain = Domain { sites: field.sites(), rack: None };
    let mut draft = Draft::new(&ask, Base::Now);
    let mut marks = vec![(draft.mark(), draft.clone())];
    for _ in 0..200 {
        let at = rng.random_range(0..ask.groups.len());
        let pools: Vec<_> = field.pools(at, &domain, true).collect();
        let pool = pools[rng.random_range(0..pools.len())];
        let node = pool.get(rng.random_range(0..pool.len())).expect("a node of the pool");
        let group = &ask.groups[at];
        let ranks = &group.ranks[..rng.random_range(1..12)];
        let slot = view.slot(node).expect("a node of the view");
        match (pool.free, draft.is_untouched(node)) {
            (Some(free), true) => {
                let brief = view.brief(node);
                draft.place_in_pool(group, (free, pool.gpus), node, brief, ranks)
            }
            _ => draft.place(group, node, slot, pool.gpus, ranks),
        };
        match rng.random_range(0..5) {
            0 => marks.push((draft.mark(), draft.clone())),
            1 => {
                let (mark, before) = marks.pop().expect("the first one stays");
                draft.rollback(mark);
                assert_eq!(draft, before);
                marks.push((mark, before));
            }
            2 if marks.len() > 1 => {
                marks.pop();
            }
            _ => {}
        }
    }
    let (mark, before) = marks.swap_remove(0);
    draft.rollback(mark);
    assert_eq!(draft, before);
    assert_eq!(draft.touched().count(), 0);
}

#[test]
fn a_spent_budget_gives_the_best_plan_so_far_and_says_so() {
    let state = busy_fleet();
    let mut spec = gang("elastic", 1, GpuAsk::None);
    spec.groups = vec![
        workers("eights", 500, GpuAsk::Whole(8)),
        workers("twos", 500, GpuAsk::Whole(2)),
        workers("cpus", 200, GpuAsk::None),
    ];
    for group in &mut spec.groups {
        group.replicas_min = 5;
    }
    let view = View::new(&state);
    let run =
        |steps_max| answer(&view, &Request::whole(&spec), &Policy::BestFit, Budget { steps_max });
    let best = run(u64::MAX).expect("the minimum fits");
    assert!(!best.exhausted);
    let mut exhausted = 0;
    for bits in 0..40 {
        let Ok(Answer { plan, exhausted: cut }) = run(1 << bits) else { continue };
        assert!(plan.placements.len() <= best.plan.placements.len());
        exhausted += u32::from(cut);
        assert!(cut || plan == best.plan, "neither the best nor said to be less");
        let mut world = World { state: busy_fleet(), at: TimeMs(1_000_000) };
        world.done(submission("elastic", spec.clone(), Some(plan)));
    }
    assert!(exhausted > 0, "no budget was too small");
}

fn busy_fleet() -> crate::state::State {
    let mut state = Fleet::new(300, 24, 5).state();
    occupy(&mut state, 500, 5);
    state
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn a_draft_goes_back_to_its_mark_without_a_trace(seed: u64) {
        check_rollback(seed);
    }
}
