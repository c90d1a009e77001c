//! Draft: placements being tried, with what they leave free; can be rolled back to any mark.
//!
//! **Invariant:** what is free in a draft is what the view has free less the draft's placements;
//! after a rollback it is exactly what it was at the mark.

use super::ask::{Ask, GpuFit, GroupAsk};
use super::bulk::Bulk;
use super::room::{room, take};
use super::touched::{Nodes, Touched};
use crate::command::Placement;
use crate::id::{Epoch, NodeId, Rank, SiteId};
use crate::node::Gpu;
use crate::view::{Brief, Free, Slot, View};
use std::collections::BTreeMap;

/// Which capacity a draft starts from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Base {
    /// What is free now on open nodes.
    Now,
    /// Open nodes, as if nothing ran on them.
    EmptyOpen,
    /// All nodes, as if nothing ran on them and all were up and eligible.
    EmptyAll,
}

impl Base {
    pub(super) fn admits(self, slot: &Slot) -> bool {
        slot.open || self == Self::EmptyAll
    }

    /// What is free on a node before anything is placed there.
    pub(super) fn free(self, slot: &Slot) -> Free {
        match self {
            Self::Now => slot.free.clone(),
            Self::EmptyOpen | Self::EmptyAll => Free::whole(&slot.node),
        }
    }
}

/// How many members are at each site.
pub(super) type Members = BTreeMap<SiteId, u64>;

/// Members on these nodes, one on each item.
pub(super) fn by_site(view: &View, nodes: impl Iterator<Item = u32>) -> Members {
    let mut members = Members::new();
    for site in nodes.filter_map(|node| Some(view.slot(node)?.site)) {
        *members.entry(site).or_default() += 1;
    }
    members
}

/// A state of the draft to return to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    placements: usize,
    undo: usize,
}

/// How to take back one change.
#[derive(Clone, Debug)]
enum Undo {
    /// The node was untouched before.
    Forget,
    /// What the node had free, and its members.
    Restore(Box<(u32, Free, u32)>),
}

#[derive(Clone, Debug)]
pub(super) struct Draft {
    base: Base,
    touched: Nodes,
    undo: Vec<Undo>,
    placements: Vec<Placement>,
    /// The whole gang, where it was packed in bulk.
    bulk: Option<Bulk>,
}

impl Draft {
    pub(super) fn new(ask: &Ask<'_>, base: Base) -> Self {
        let (undo, placements) = (Vec::new(), Vec::new());
        let mut draft = Self { base, touched: Nodes::default(), undo, placements, bulk: None };
        for &node in &ask.fixed {
            let Some(slot) = ask.view.slot(node) else { continue };
            match draft.touched.get_mut(node) {
                Some(touched) => touched.members += 1,
                None => {
                    let free = base.free(slot);
                    draft.touched.push(Touched { node, free, members: 1 });
                }
            }
        }
        draft
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { placements: self.placements.len(), undo: self.undo.len() }
    }

    pub(super) fn rollback(&mut self, mark: Mark) {
        self.placements.truncate(mark.placements);
        while self.undo.len() > mark.undo {
            match self.undo.pop() {
                Some(Undo::Restore(before)) => {
                    let (node, free, members) = *before;
                    if let Some(touched) = self.touched.get_mut(node) {
                        touched.free = free;
                        touched.members = members;
                    }
                }
                Some(Undo::Forget) => self.touched.pop(),
                None => return,
            }
        }
    }

    /// Nodes with placements or members that stay, in no particular order.
    pub(super) fn touched(&self) -> impl Iterator<Item = &Touched> {
        self.touched.iter()
    }

    /// Whether the node has neither placements nor members that stay.
    pub(super) fn is_untouched(&self, node: u32) -> bool {
        self.touched.get(node).is_none()
    }

    /// Members of the job on the node, those that stay included.
    pub(super) fn members(&self, node: u32) -> u32 {
        self.touched.get(node).map_or(0, |touched| touched.members)
    }

    /// Reads what is free on the node.
    pub(super) fn with_free<R>(&self, node: u32, slot: &Slot, read: impl FnOnce(&Free) -> R) -> R {
        match (self.touched.get(node), self.base) {
            (Some(touched), _) => read(&touched.free),
            (None, Base::Now) => read(&slot.free),
            (None, Base::EmptyOpen | Base::EmptyAll) => read(&Free::whole(&slot.node)),
        }
    }

    /// Replicas of the group that would still fit on the node, at most `most`.
    pub(super) fn room(
        &self,
        group: &GroupAsk,
        node: u32,
        slot: &Slot,
        fit: GpuFit,
        most: u32,
    ) -> u32 {
        self.with_free(node, slot, |free| room(group, &slot.node.gpus, free, fit, most))
    }

    /// Places ranks of the group on the node, in order, as many as fit; returns how many.
    pub(super) fn place(
        &mut self,
        group: &GroupAsk,
        node: u32,
        slot: &Slot,
        fit: GpuFit,
        ranks: &[Rank],
    ) -> u32 {
        match self.touched.get(node) {
            Some(touched) => {
                let before = (node, touched.free.clone(), touched.members);
                self.undo.push(Undo::Restore(Box::new(before)));
            }
            None => self.touch(node, self.base.free(slot)),
        }
        self.bind(group, node, slot.epoch, &slot.node.gpus, fit, ranks)
    }

    /// The same on an untouched node of a pool whose nodes differ in their briefs alone.
    pub(super) fn place_in_pool(
        &mut self,
        group: &GroupAsk,
        pool: (&Free, GpuFit),
        node: u32,
        brief: Brief,
        ranks: &[Rank],
    ) -> u32 {
        let (free, fit) = pool;
        self.touch(node, free.with_idle(brief.idle));
        self.bind(group, node, brief.epoch, &[], fit, ranks)
    }

    fn touch(&mut self, node: u32, free: Free) {
        self.undo.push(Undo::Forget);
        self.touched.push(Touched { node, free, members: 0 });
    }

    /// Places ranks on a node that was just touched, and takes the touch back if none fits.
    fn bind(
        &mut self,
        group: &GroupAsk,
        node: u32,
        node_epoch: Epoch,
        gpus: &[Gpu],
        fit: GpuFit,
        ranks: &[Rank],
    ) -> u32 {
        let Some(touched) = self.touched.get_mut(node) else { return 0 };
        let mut placed = 0;
        for &rank in ranks {
            let taken = take(group, gpus, &mut touched.free, fit);
            let Some((gpus, share_milli)) = taken else { break };
            touched.members += 1;
            placed += 1;
            let node = NodeId(node);
            self.placements.push(Placement { rank, node, node_epoch, gpus, share_milli });
        }
        if placed == 0 {
            let mark = Mark { placements: self.placements.len(), undo: self.undo.len() - 1 };
            self.rollback(mark);
        }
        placed
    }

    /// Holds the whole gang from now on; nothing is placed or taken back after that.
    pub(super) fn fill(&mut self, bulk: Bulk) {
        self.bulk = Some(bulk);
    }

    pub(super) fn bulk(&self) -> Option<&Bulk> {
        self.bulk.as_ref()
    }

    /// Members placed at each site.
    pub(super) fn members_by_site(&self, view: &View) -> Members {
        match &self.bulk {
            Some(bulk) => bulk.members(),
            None => by_site(view, self.placements.iter().map(|placement| placement.node.0)),
        }
    }

    /// Hands over the placements by rising rank, none of which are in bulk. The draft is of no use
    /// after that.
    pub(super) fn into_placements(mut self) -> Vec<Placement> {
        let rank = |placement: &Placement| placement.rank;
        if !self.placements.is_sorted_by_key(rank) {
            self.placements.sort_unstable_by_key(rank);
        }
        self.placements
    }
}

/// Two drafts are equal when what they hold is; how they came there does not matter.
#[cfg(test)]
impl PartialEq for Draft {
    fn eq(&self, other: &Self) -> bool {
        self.placements == other.placements
            && self.undo.len() == other.undo.len()
            && self.touched.iter().eq(other.touched.iter())
    }
}
