//! Buckets: open nodes in the order in which a single replica wants to see them.
//!
//! **Invariant:** holds exactly the open nodes of the view, each under its present free capacity;
//! the order follows from content alone, never from the history of changes.

use super::Slot;
use super::class::{ClassId, KindId};
use std::collections::BTreeSet;

/// An open node: kind of GPUs, idle GPUs, headroom, class, node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Spot {
    kind: KindId,
    idle: u8,
    headroom: u8,
    class: ClassId,
    node: u32,
}

/// A shared GPU of an open node that has something left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Hole {
    left_milli: u16,
    class: ClassId,
    node: u32,
    gpu: u8,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Buckets {
    spots: BTreeSet<Spot>,
    holes: BTreeSet<Hole>,
    /// Open nodes per kind and number of idle GPUs.
    counts: Vec<Vec<u32>>,
}

impl Buckets {
    pub(super) fn build(slots: &[Option<Slot>]) -> Self {
        let mut made = Self::default();
        let mut spots = Vec::with_capacity(slots.len());
        for (slot, node) in slots.iter().zip(0u32..) {
            let Some(slot) = slot.as_ref().filter(|slot| slot.open) else { continue };
            let spot = spot(slot, node);
            made.count(spot.kind, spot.idle, 1);
            spots.push(spot);
            made.holes.extend(holes(slot, node));
        }
        made.spots = spots.into_iter().collect();
        made
    }

    pub(super) fn remove(&mut self, slot: &Slot, node: u32) {
        if slot.open {
            let spot = spot(slot, node);
            if self.spots.remove(&spot) {
                self.count(spot.kind, spot.idle, -1);
            }
            for hole in holes(slot, node) {
                self.holes.remove(&hole);
            }
        }
    }

    pub(super) fn insert(&mut self, slot: &Slot, node: u32) {
        if slot.open {
            let spot = spot(slot, node);
            if self.spots.insert(spot) {
                self.count(spot.kind, spot.idle, 1);
            }
            self.holes.extend(holes(slot, node));
        }
    }

    /// Kinds that have open nodes with exactly this many idle GPUs.
    pub(crate) fn kinds_with(&self, idle: u8) -> impl Iterator<Item = KindId> {
        (0u32..).map(KindId).zip(&self.counts).filter_map(move |(kind, levels)| {
            levels.get(usize::from(idle)).is_some_and(|&count| count > 0).then_some(kind)
        })
    }

    /// The largest number of idle GPUs that any open node may have.
    pub(crate) fn idle_max(&self) -> u8 {
        let most = self.counts.iter().map(Vec::len).max().unwrap_or(0);
        u8::try_from(most.saturating_sub(1)).unwrap_or(u8::MAX)
    }

    /// Open nodes of the kind with exactly this many idle GPUs, from a headroom and class on:
    /// (headroom, class, node).
    pub(crate) fn walk(
        &self,
        kind: KindId,
        idle: u8,
        headroom: u8,
        class: ClassId,
    ) -> impl Iterator<Item = (u8, ClassId, u32)> {
        let first = Spot { kind, idle, headroom, class, node: 0 };
        let (class, node) = (ClassId(u32::MAX), u32::MAX);
        let last = Spot { kind, idle, headroom: u8::MAX, class, node };
        self.spots.range(first..=last).map(|spot| (spot.headroom, spot.class, spot.node))
    }

    /// Shared GPUs with at least this much left, the least first: (class, node, GPU).
    pub(crate) fn holes_from(&self, milli: u16) -> impl Iterator<Item = (ClassId, u32, u8)> {
        let first = Hole { left_milli: milli, class: ClassId(0), node: 0, gpu: 0 };
        self.holes.range(first..).map(|hole| (hole.class, hole.node, hole.gpu))
    }

    fn count(&mut self, kind: KindId, idle: u8, change: i8) {
        let at = kind.0 as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, Vec::new());
        }
        let Some(levels) = self.counts.get_mut(at) else { return };
        if levels.len() <= usize::from(idle) {
            levels.resize(usize::from(idle) + 1, 0);
        }
        if let Some(count) = levels.get_mut(usize::from(idle)) {
            *count = count.saturating_add_signed(i32::from(change));
        }
    }
}

fn spot(slot: &Slot, node: u32) -> Spot {
    let idle = u8::try_from(slot.free.idle.len()).unwrap_or(u8::MAX);
    let headroom = slot.free.headroom();
    Spot { kind: slot.kind, idle, headroom, class: slot.class, node }
}

fn holes(slot: &Slot, node: u32) -> impl Iterator<Item = Hole> {
    let class = slot.class;
    slot.free.partial().iter().map(move |&(gpu, left_milli)| Hole { left_milli, class, node, gpu })
}
