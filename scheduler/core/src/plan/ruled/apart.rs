//! Apart: which nodes the tenant's other jobs and the price leave to each group of a job.
//!
//! **Invariant:** only what holds wherever the other members of the job stand.

use super::wish::Wishes;
use crate::fit::{Domain, milli_price_max};
use crate::id::NodeId;
use crate::job::{Level, Target};
use crate::node::Node;
use crate::plan::ask::Ask;
use std::collections::BTreeSet;

/// Domains that a group must be in, or must not be in.
struct Fence<'a> {
    level: Level,
    out: bool,
    domains: BTreeSet<Domain<'a>>,
}

/// What keeps a group off nodes.
pub(in crate::plan) struct Apart<'a> {
    fences: Vec<Fence<'a>>,
    /// Price of a GPU-hour over which even one replica costs too much in all.
    price_max: Option<u128>,
}

impl<'a> Apart<'a> {
    /// For the group at this place of the ask; wishes that are kept count as required.
    pub(super) fn new(ask: &Ask<'a>, at: usize, wishes: &Wishes) -> Self {
        let (spec, around) = (ask.spec, ask.around);
        let own = ask.groups.get(at).map_or(usize::MAX, |group| group.group);
        let fence = |level: Level, out: bool, nodes: &[NodeId]| {
            let nodes = nodes.iter().filter_map(|node| ask.view.slot(node.0));
            let domains = nodes.map(|slot| Domain::of(level, &slot.node)).collect();
            Fence { level, out, domains }
        };
        let mut fences: Vec<Fence<'a>> =
            around.closed.iter().map(|(level, nodes)| fence(*level, true, nodes)).collect();
        for (number, one) in spec.affinities.iter().enumerate() {
            let Target::Jobs { group, .. } = &one.target else { continue };
            let concerned = group.is_none_or(|group| usize::from(group) == own);
            if concerned && wishes.binds(spec, number) {
                let nodes = around.targets.get(number).map_or(&[][..], Vec::as_slice);
                fences.push(fence(one.level, one.anti, nodes));
            }
        }
        let milli = spec.groups.get(own).map_or(0, |group| group.shape.gpu_milli());
        let price_max = milli_price_max(spec).and_then(|most| most.checked_div(milli.into()));
        Self { fences, price_max }
    }

    /// As [`Apart::new`], going by what is required alone.
    pub(in crate::plan) fn required(ask: &Ask<'a>, at: usize) -> Self {
        Self::new(ask, at, &Wishes::default())
    }

    /// Whether it keeps any node away at all.
    pub(in crate::plan) fn is_nothing(&self) -> bool {
        self.fences.is_empty() && self.price_max.is_none()
    }

    /// Whether other jobs leave the node to the group.
    pub(in crate::plan) fn admits(&self, node: &Node) -> bool {
        self.fences
            .iter()
            .all(|fence| fence.domains.contains(&Domain::of(fence.level, node)) != fence.out)
    }

    /// Whether one replica there costs more than all of the job may.
    pub(in crate::plan) fn is_too_dear(&self, node: &Node) -> bool {
        self.price_max.is_some_and(|most| u128::from(node.price.0) > most)
    }
}
