//! Draft: placements being tried, with what they leave free; can be rolled back to any mark.
//!
//! **Invariant:** what is free in a draft is what the view has free less the draft's placements;
//! after a rollback it is exactly what it was at the mark.

use super::ask::{Ask, Fit, GroupAsk};
use super::room::{pick, room};
use crate::command::Placement;
use crate::id::NodeId;
use crate::job::GpuAsk;
use crate::view::{Free, Slot};

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
}

/// A node that the draft has touched.
#[derive(Clone, Debug)]
struct Touched {
    free: Free,
    /// Members of the job there, those that stay included.
    members: u32,
}

/// A state of the draft to return to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    placements: usize,
    undo: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Draft<'a> {
    ask: &'a Ask<'a>,
    base: Base,
    /// Per node: its place in `touched` plus one; 0 = untouched.
    at: Vec<u32>,
    touched: Vec<Touched>,
    /// What `touched` held before each change.
    undo: Vec<(u32, Free, u32)>,
    placements: Vec<Placement>,
}

impl<'a> Draft<'a> {
    pub(super) fn new(ask: &'a Ask<'a>, base: Base) -> Self {
        let mut draft = Self {
            ask,
            base,
            at: vec![0; ask.view.node_end()],
            touched: Vec::new(),
            undo: Vec::new(),
            placements: Vec::new(),
        };
        for &node in &ask.fixed {
            if let Some(touched) = draft.touch(node) {
                touched.members += 1;
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
            let Some((at, free, members)) = self.undo.pop() else { return };
            if let Some(touched) = self.touched.get_mut(at as usize) {
                touched.free = free;
                touched.members = members;
            }
        }
    }

    /// Members of the job on the node, those that stay included.
    pub(super) fn members(&self, node: u32) -> u32 {
        self.known(node).map_or(0, |touched| touched.members)
    }

    /// Reads what is free on the node.
    pub(super) fn with_free<R>(&self, node: u32, slot: &Slot, read: impl FnOnce(&Free) -> R) -> R {
        match (self.known(node), self.base) {
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
        fit: Fit,
        most: u32,
    ) -> u32 {
        self.with_free(node, slot, |free| room(group, &slot.node, free, fit, most))
    }

    /// Places ranks of the group on the node, in order, as many as fit; returns how many.
    pub(super) fn place(
        &mut self,
        group: &GroupAsk,
        node: u32,
        slot: &Slot,
        fit: Fit,
        ranks: &[crate::id::Rank],
    ) -> u32 {
        let share_milli = match group.needs.gpus() {
            GpuAsk::Share(milli) => milli,
            GpuAsk::None | GpuAsk::Whole(_) => 0,
        };
        let Some(touched) = self.touch(node) else { return 0 };
        let before = (touched.free.clone(), touched.members);
        let mut made = Vec::with_capacity(ranks.len().min(64));
        for &rank in ranks {
            let Some(gpus) = pick(group, &slot.node, &touched.free, fit) else { break };
            touched.free.take(gpus, share_milli, group.needs.resources());
            touched.free.take_custom(group.needs.custom());
            touched.members += 1;
            let node_epoch = slot.node.epoch;
            made.push(Placement { rank, node: NodeId(node), node_epoch, gpus, share_milli });
        }
        let at = self.at.get(node as usize).copied().unwrap_or(0).saturating_sub(1);
        self.undo.push((at, before.0, before.1));
        self.placements.extend_from_slice(&made);
        u32::try_from(made.len()).unwrap_or(u32::MAX)
    }

    /// The placements by rising rank.
    pub(super) fn placements(&self) -> Vec<Placement> {
        let mut all = self.placements.clone();
        all.sort_unstable_by_key(|placement| placement.rank);
        all
    }

    fn known(&self, node: u32) -> Option<&Touched> {
        let at = self.at.get(node as usize)?.checked_sub(1)?;
        self.touched.get(at as usize)
    }

    fn touch(&mut self, node: u32) -> Option<&mut Touched> {
        let at = self.at.get_mut(node as usize)?;
        if *at == 0 {
            let slot = self.ask.view.slot(node)?;
            let free = match self.base {
                Base::Now => slot.free.clone(),
                Base::EmptyOpen | Base::EmptyAll => Free::whole(&slot.node),
            };
            self.touched.push(Touched { free, members: 0 });
            *at = u32::try_from(self.touched.len()).unwrap_or(0);
        }
        let index = at.checked_sub(1)?;
        self.touched.get_mut(index as usize)
    }
}
