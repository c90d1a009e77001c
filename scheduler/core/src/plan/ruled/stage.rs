//! Stage: the fleet as the rules see it while a gang is planned.
//!
//! **Invariant:** tells of open nodes what the state would tell, and of closed ones, where these count as
//! open, what it would tell then; what is found out about a group is kept for all attempts at the
//! same ask.

use super::map::{Eligible, Map, eligible};
use super::paths::{Paths, depth};
use crate::fit::{Fleet, Needs, Outside};
use crate::id::NodeId;
use crate::job::{JobSpec, Level};
use crate::node::Node;
use crate::plan::ask::{Ask, GroupAsk};
use crate::topology::Sites;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Domains that could hold replicas of groups, by the group's place in the spec and by whether closed
/// nodes count.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct KnownEligible(Rc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    lists: RefCell<BTreeMap<(usize, bool), Rc<Eligible>>>,
    unpaid: Cell<u64>,
}

impl KnownEligible {
    /// Steps of a budget that were worked since this was last asked.
    pub(in crate::plan) fn unpaid(&self) -> u64 {
        self.0.unpaid.take()
    }

    fn of(&self, ask: &Ask<'_>, group: &GroupAsk, all: bool) -> Rc<Eligible> {
        let KnownEligible(cells) = self;
        if let Some(known) = cells.lists.borrow().get(&(group.group, all)) {
            return Rc::clone(known);
        }
        // All alternatives count, whichever are being tried.
        let mut group = group.clone();
        group.set_gpus(Needs::new(ask.spec, group.group, ask.view.models()));
        let (found, cost) = eligible(ask, &group, all);
        cells.unpaid.set(cells.unpaid.get().saturating_add(cost));
        let found = Rc::new(found);
        cells.lists.borrow_mut().insert((group.group, all), Rc::clone(&found));
        found
    }
}

pub(super) struct Stage<'a> {
    ask: &'a Ask<'a>,
    map: Option<&'a Map<'a>>,
}

impl<'a> Stage<'a> {
    pub(super) fn new(ask: &'a Ask<'a>, map: Option<&'a Map<'a>>) -> Self {
        Self { ask, map }
    }
}

impl Fleet for Stage<'_> {
    fn sites(&self) -> &Sites {
        self.ask.view.sites()
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.ask.view.slot(id.0).map(|slot| slot.node.as_ref())
    }

    fn domain(&self, level: Level, node: &Node) -> u64 {
        Paths::of(self.ask).domain(level, node.id.0).into()
    }

    fn has_beside(&self, spec: &JobSpec, group: usize, held: &Outside<'_>) -> bool {
        let ask = self.ask;
        let beside = |lists: &Eligible| {
            held.iter().any(|(level, held)| {
                let mut domains = lists[depth(level)].iter();
                domains.any(|&domain| held.binary_search(&domain.into()).is_err())
            })
        };
        let placed = ask.groups.iter().position(|one| one.group == group);
        let mapped = placed.filter(|&at| asks_for_all(&ask.groups[at], spec));
        let all = self.map.is_some_and(Map::counts_closed);
        match (mapped.and_then(|at| self.map?.all_eligible(at)), placed) {
            (Some(lists), _) => beside(lists),
            (None, Some(at)) => beside(&ask.eligible.of(ask, &ask.groups[at], all)),
            (None, None) => {
                let rest = ask.rest.iter().find(|one| one.group == group);
                rest.is_none_or(|group| beside(&ask.eligible.of(ask, group, all)))
            }
        }
    }
}

/// Whether all GPUs are allowed that the spec allows, and not one alternative alone.
fn asks_for_all(group: &GroupAsk, spec: &JobSpec) -> bool {
    let all = spec.groups.get(group.group).map_or(0, |group| group.shape.alternatives.len());
    group.needs.alternatives() == all
}
