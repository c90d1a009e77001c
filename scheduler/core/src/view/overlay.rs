//! Overlay: the view as it would be if some work ended or some nodes came back, and back again.
//!
//! **Invariant:** undoing all changes, last first, leaves the view as it was; a node never has
//! more free than the whole of it.

use super::{Free, View};
use crate::node::{Custom, Resources};
use crate::unit::GpuSet;

/// What one live replica holds of its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Id of the node.
    pub node: crate::id::NodeId,
    pub gpus: GpuSet,
    /// 0 = the GPUs are whole; else thousandths of the one GPU.
    pub share_milli: u16,
    pub used: Resources,
    pub custom: Custom,
}

/// One change of an overlay.
#[derive(Debug)]
pub(crate) enum Undo {
    /// What was free on the node.
    Free(u32, Free),
    /// The node was not open.
    Closed(u32),
}

impl View {
    /// Gives back what a replica holds; `None` if its node is gone.
    pub(crate) fn release(&mut self, held: &Held) -> Option<Undo> {
        let node = held.node.0;
        let slot = self.slot(node)?;
        let before = slot.free.clone();
        let mut free = before.clone();
        free.give(&Free::whole(&slot.node), held.gpus, held.share_milli, held.used);
        free.give_custom(&slot.node.custom, &held.custom);
        self.set_free(node, free);
        Some(Undo::Free(node, before))
    }

    /// Lets the planner use a node that is down, cordoned or draining; `None` if it may already.
    pub(crate) fn open(&mut self, node: u32) -> Option<Undo> {
        self.set_open(node, true).then_some(Undo::Closed(node))
    }

    /// Takes a change back.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Free(node, free) => self.set_free(node, free),
            Undo::Closed(node) => {
                self.set_open(node, false);
            }
        }
    }
}
