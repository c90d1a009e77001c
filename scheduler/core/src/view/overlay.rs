//! Overlay: the view as it would be if some work ended or some nodes came back, and back again.
//!
//! **Invariant:** undoing all changes, last first, leaves the view as it was; a node never has
//! more free than the whole of it less its claims.

use super::{Free, View};
use crate::id::{NodeId, Rank};
use crate::job::{JobSpec, Replica};
use crate::node::{Custom, Resources};
use crate::unit::{GPU_MILLI_WHOLE, GpuSet};

/// What one live replica holds of its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Id of the node.
    pub node: NodeId,
    pub gpus: GpuSet,
    /// 0 = the GPUs are whole; else thousandths of the one GPU.
    pub share_milli: u16,
    pub used: Resources,
    pub custom: Custom,
}

impl Held {
    /// What a replica holds if it is live; `starts` are the job's [`JobSpec::group_starts`].
    pub(crate) fn of(job: &JobSpec, starts: &[u32], rank: Rank, replica: &Replica) -> Option<Self> {
        let live = replica.allocation.filter(|_| replica.phase.is_live())?;
        let shape = &job.groups.get(JobSpec::group_within(starts, rank)?)?.shape;
        let (used, custom) = (shape.resources(), shape.custom.clone());
        let (node, gpus, share_milli) = (live.node, live.gpus, live.share_milli);
        Some(Self { node, gpus, share_milli, used, custom })
    }

    /// Thousandths of GPUs.
    pub(crate) fn gpu_milli(&self) -> u64 {
        match self.share_milli {
            0 => u64::from(self.gpus.len()) * u64::from(GPU_MILLI_WHOLE),
            share_milli => share_milli.into(),
        }
    }
}

/// One change of an overlay.
#[derive(Debug)]
pub(crate) enum Undo {
    /// What was free on the node but for the claims on it.
    Free(u32, Free),
    /// The node was not open.
    Closed(u32),
}

impl View {
    /// Gives back what a replica holds; `None` if its node is gone. What is claimed of it stays so.
    pub(crate) fn release(&mut self, held: &Held) -> Option<Undo> {
        let node = held.node.0;
        let before = self.base(node)?;
        let mut free = before.clone();
        self.give_to(node, &mut free, held);
        self.rebase(node, free);
        Some(Undo::Free(node, before))
    }

    /// What is free on a node but for the claims on it; `None` if it is gone.
    pub(crate) fn base(&self, node: u32) -> Option<Free> {
        Some(self.claims.base(node).unwrap_or(&self.slot(node)?.free).clone())
    }

    /// Adds what a replica holds of a node to what is free there.
    pub(crate) fn give_to(&self, node: u32, free: &mut Free, held: &Held) {
        let Some(slot) = self.slot(node) else { return };
        free.give(&Free::whole(&slot.node), held.gpus, held.share_milli, held.used);
        free.give_custom(&slot.node.custom, &held.custom);
    }

    /// Makes this what is free on a node but for the claims on it.
    pub(crate) fn rebase(&mut self, node: u32, base: Free) {
        let free = self.claims.rebase(node, base);
        self.set_free(node, free);
    }

    /// Lets the planner use a node that is down, cordoned or draining; `None` if it may already.
    pub(crate) fn open(&mut self, node: u32) -> Option<Undo> {
        self.set_open(node, true).then_some(Undo::Closed(node))
    }

    /// Takes a change back.
    pub(crate) fn undo(&mut self, undo: Undo) {
        match undo {
            Undo::Free(node, base) => self.rebase(node, base),
            Undo::Closed(node) => {
                self.set_open(node, false);
            }
        }
    }
}
