//! Reach: how much each unit could give to the request at most, before anything is freed.
//!
//! **Invariant:** a bound from above: what it rules out could not help the planner, either.

use super::Request;
use super::freed::Unit;
use crate::plan::ask::Ask;
use crate::plan::{Ranks, Steps, ahead::least_gpu_milli};
use crate::view::View;

/// What it costs to look at the node of one replica, in steps: it is not in the caches.
const LOOK_STEPS: u64 = 12;

#[derive(Debug)]
pub(super) struct Reach {
    /// By number of the class: whether its nodes could take any replica of the request. `None`
    /// where classes do not tell.
    serves: Option<Vec<bool>>,
    /// By unit, as far as it was looked at.
    known: Vec<Option<Option<u64>>>,
    /// Thousandths of GPUs on nodes that serve: free with nothing freed; and needed at least.
    pub(super) idle_milli: u64,
    pub(super) needed_milli: u64,
}

impl Reach {
    pub(super) fn new(view: &View, request: &Request<'_>, units: usize) -> Self {
        let ask = Ask::new(view, request);
        let by_class = !ask.groups.iter().any(|group| group.reads_identity());
        let serves = by_class.then(|| {
            let mut serves = vec![false; view.classes().end()];
            for group in &ask.groups {
                for (serves, fit) in serves.iter_mut().zip(group.class_fits(view)) {
                    *serves |= fit.is_some_and(|fit| fit.misfit.is_none());
                }
            }
            serves
        });
        // Where part of the job is done already, less is needed than for all of it.
        let needed_milli = match request.ranks {
            Ranks::All => least_gpu_milli(request.spec),
            Ranks::Some(_) => 0,
        };
        let mut reach = Self { serves, known: vec![None; units], idle_milli: 0, needed_milli };
        reach.idle_milli = reach.idle(view);
        reach
    }

    /// Thousandths of GPUs that the unit holds on nodes that serve; `None` if on none.
    pub(super) fn of(
        &mut self,
        view: &View,
        unit: usize,
        of: &Unit<'_>,
        steps: &mut Steps,
    ) -> Option<u64> {
        if let Some(Some(known)) = self.known.get(unit) {
            return *known;
        }
        steps.spend(of.len() as u64 * LOOK_STEPS);
        let mut found = None;
        for (node, gpu_milli) in of.gpus() {
            let slot = view.slot(node).filter(|slot| slot.open);
            if slot.is_some_and(|slot| self.serves(slot.class.0)) {
                found = Some(gpu_milli.saturating_add(found.unwrap_or(0)));
            }
        }
        if let Some(place) = self.known.get_mut(unit) {
            *place = Some(found);
        }
        found
    }

    fn serves(&self, class: u32) -> bool {
        let serves = |serves: &Vec<bool>| serves.get(class as usize).copied().unwrap_or(false);
        self.serves.as_ref().is_none_or(serves)
    }

    fn idle(&self, view: &View) -> u64 {
        let each = |state: &crate::view::NodeState| {
            let serve = state.pools().filter(|(class, _)| self.serves(class.0));
            let nodes: u64 = serve.map(|(_, nodes)| nodes.len() as u64).sum();
            let shared = state.free().partial().iter().map(|&(_, left)| u64::from(left));
            (u64::from(state.idle()) * 1_000 + shared.sum::<u64>()) * nodes
        };
        view.states().iter().map(each).sum()
    }
}
