//! What live replicas hold of one node, and whether one more allocation has room.
//!
//! **Invariant:** derived; equals a recount over the live replicas at any time.

use crate::job::{GpuAsk, Shape};
use crate::node::{Custom, Node, Resources};
use crate::unit::{GPU_MILLI_WHOLE, GpuSet};

/// What live replicas hold of one node.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// GPUs taken whole or in part.
    pub gpus_busy: GpuSet,
    /// Thousandths taken of each shared GPU, by rising GPU index; none is zero.
    pub shares: Vec<(u8, u16)>,
    pub used: Resources,
    /// Countable resources taken.
    pub custom: Custom,
    /// Number of live replicas.
    pub live: u32,
}

/// Why an allocation has no room on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lack {
    /// A GPU does not exist, or too little of it is free.
    Gpu,
    /// CPU, memory, disk or a countable resource.
    Resources,
}

impl Usage {
    /// Thousandths taken of a GPU in shares; 0 for a free GPU and for one taken whole.
    pub fn share_milli(&self, gpu: u8) -> u16 {
        match self.shares.binary_search_by_key(&gpu, |&(index, _)| index) {
            Ok(at) => self.shares.get(at).map_or(0, |&(_, milli)| milli),
            Err(_) => 0,
        }
    }

    /// The node's GPUs that nobody holds any part of.
    pub fn gpus_free(&self, node: &Node) -> GpuSet {
        GpuSet::first(node.gpus.len()) & !self.gpus_busy
    }

    /// Whether the allocation of `gpus` (of `share_milli` of the one, if not 0) and of the shape's
    /// other resources would fit beside what is held already.
    pub fn lack(&self, node: &Node, shape: &Shape, gpus: GpuSet, share_milli: u16) -> Option<Lack> {
        let exist = GpuSet::first(node.gpus.len());
        if !(gpus & !exist).is_empty() {
            return Some(Lack::Gpu);
        }
        let room = if share_milli == 0 {
            (gpus & self.gpus_busy).is_empty()
        } else {
            gpus.len() == 1 && gpus.iter().all(|gpu| self.share_fits(gpu, share_milli))
        };
        if !room {
            return Some(Lack::Gpu);
        }
        let fits = |used: u64, more: u64, total: u64| {
            used.checked_add(more).is_some_and(|sum| sum <= total)
        };
        let (used, total) = (&self.used, &node.resources);
        let roomy = fits(used.cpu.0, shape.cpu.0, total.cpu.0)
            && fits(used.memory.0, shape.memory.0, total.memory.0)
            && fits(used.disk.0, shape.disk.0, total.disk.0)
            && node.custom.holds(&self.custom, &shape.custom);
        (!roomy).then_some(Lack::Resources)
    }

    fn share_fits(&self, gpu: u8, milli: u16) -> bool {
        let held = self.share_milli(gpu);
        // Busy without a share means taken whole.
        let whole = held == 0 && self.gpus_busy.contains(gpu);
        !whole && held.checked_add(milli).is_some_and(|sum| sum <= GPU_MILLI_WHOLE)
    }

    /// Takes what [`Usage::lack`] found room for.
    pub fn take(&mut self, shape: &Shape, gpus: GpuSet, share_milli: u16) {
        self.live = self.live.saturating_add(1);
        self.used.cpu = self.used.cpu.saturating_add(shape.cpu);
        self.used.memory = self.used.memory.saturating_add(shape.memory);
        self.used.disk = self.used.disk.saturating_add(shape.disk);
        if !shape.custom.is_empty() {
            self.custom = self.custom.saturating_add(&shape.custom);
        }
        self.gpus_busy = self.gpus_busy | gpus;
        if share_milli == 0 {
            return;
        }
        for gpu in gpus.iter() {
            match self.shares.binary_search_by_key(&gpu, |&(index, _)| index) {
                Ok(at) => {
                    if let Some((_, milli)) = self.shares.get_mut(at) {
                        *milli = milli.saturating_add(share_milli);
                    }
                }
                Err(at) => self.shares.insert(at, (gpu, share_milli)),
            }
        }
    }

    /// Gives back what was taken.
    pub fn give(&mut self, shape: &Shape, gpus: GpuSet, share_milli: u16) {
        self.live = self.live.saturating_sub(1);
        self.used.cpu = self.used.cpu.saturating_sub(shape.cpu);
        self.used.memory = self.used.memory.saturating_sub(shape.memory);
        self.used.disk = self.used.disk.saturating_sub(shape.disk);
        if !shape.custom.is_empty() {
            self.custom = self.custom.saturating_sub(&shape.custom);
        }
        if share_milli == 0 {
            self.gpus_busy = self.gpus_busy & !gpus;
            return;
        }
        for gpu in gpus.iter() {
            let Ok(at) = self.shares.binary_search_by_key(&gpu, |&(index, _)| index) else {
                continue;
            };
            let Some((_, milli)) = self.shares.get_mut(at) else { continue };
            *milli = milli.saturating_sub(share_milli);
            if *milli == 0 {
                self.shares.remove(at);
                self.gpus_busy = self.gpus_busy & !GpuSet::single(gpu);
            }
        }
    }
}

/// Whether an allocation is of the kind and amount that the shape asks for.
pub(super) fn answers(ask: GpuAsk, gpus: GpuSet, share_milli: u16) -> bool {
    match ask {
        GpuAsk::None => gpus.is_empty() && share_milli == 0,
        GpuAsk::Whole(count) => gpus.len() == u32::from(count) && share_milli == 0,
        GpuAsk::Share(milli) => gpus.len() == 1 && share_milli == milli,
    }
}
