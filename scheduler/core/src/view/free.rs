//! What is free on a node, and how taking a part of it changes that.
//!
//! **Invariant:** exact integers; taking more than there is saturates and never wraps.

use crate::node::{Custom, Node, Resources};
use crate::unit::{CpuMilli, DiskMib, GPU_MILLI_WHOLE, GpuSet, MemoryMib};

/// Free capacity of one node.
///
/// The order means nothing; it serves to find equal ones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Free {
    /// GPUs of which nothing is used.
    pub(crate) idle: GpuSet,
    pub(crate) rest: Resources,
    /// GPUs that are shared and have something left: (index, thousandths left), by index.
    /// Empty on nearly all nodes.
    partial: Vec<(u8, u16)>,
    custom: Custom,
}

impl Free {
    /// All of the node.
    pub(crate) fn whole(node: &Node) -> Self {
        Self {
            idle: GpuSet::first(node.gpus.len()),
            rest: node.resources,
            partial: Vec::new(),
            custom: node.custom.clone(),
        }
    }

    /// The same with GPUs numbered anew: idle ones first, then shared ones from the fullest up.
    /// Two nodes of one kind whose GPUs are all alike have equal ones exactly if what fits one
    /// fits the other.
    pub(crate) fn canonical(&self) -> Self {
        let mut free = self.clone();
        let shared = self.idle.len()..;
        free.idle = GpuSet::first(self.idle.len() as usize);
        free.partial.sort_unstable_by_key(|&(_, left)| left);
        for ((index, _), number) in free.partial.iter_mut().zip(shared) {
            *index = u8::try_from(number).unwrap_or(u8::MAX);
        }
        free
    }

    /// The same with other idle GPUs, as many of them.
    pub(crate) fn with_idle(&self, idle: GpuSet) -> Self {
        Self { idle, ..self.clone() }
    }

    /// Shared GPUs with their free thousandths, by rising index.
    pub(crate) fn partial(&self) -> &[(u8, u16)] {
        &self.partial
    }

    /// Takes the GPUs (whole, or a share of the one) and the resources of one replica.
    pub(crate) fn take(&mut self, gpus: GpuSet, share_milli: u16, used: Resources) {
        self.take_resources(used);
        if share_milli == 0 {
            self.idle = self.idle & !gpus;
            self.partial.retain(|&(index, _)| !gpus.contains(index));
        } else {
            for index in gpus.iter() {
                self.take_share(index, share_milli);
            }
        }
    }

    /// Gives back what [`Free::take`] took, at most up to the whole node.
    pub(crate) fn give(&mut self, whole: &Self, gpus: GpuSet, share_milli: u16, used: Resources) {
        let (rest, most) = (self.rest, whole.rest);
        self.rest = Resources {
            cpu: rest.cpu.saturating_add(used.cpu).min(most.cpu),
            memory: rest.memory.saturating_add(used.memory).min(most.memory),
            disk: rest.disk.saturating_add(used.disk).min(most.disk),
        };
        let gpus = gpus & whole.idle;
        if share_milli == 0 {
            self.idle = self.idle | gpus;
            self.partial.retain(|&(index, _)| !gpus.contains(index));
            return;
        }
        for index in (gpus & !self.idle).iter() {
            let at = self.partial.partition_point(|&(other, _)| other < index);
            match self.partial.get_mut(at).filter(|(other, _)| *other == index) {
                Some((_, left)) => *left = left.saturating_add(share_milli).min(GPU_MILLI_WHOLE),
                None => self.partial.insert(at, (index, share_milli.min(GPU_MILLI_WHOLE))),
            }
            if self.partial.get(at).is_some_and(|&(_, left)| left == GPU_MILLI_WHOLE) {
                self.partial.remove(at);
                self.idle = self.idle | GpuSet::single(index);
            }
        }
    }

    /// Takes resources only.
    pub(crate) fn take_resources(&mut self, used: Resources) {
        self.rest = Resources {
            cpu: self.rest.cpu.saturating_sub(used.cpu),
            memory: self.rest.memory.saturating_sub(used.memory),
            disk: self.rest.disk.saturating_sub(used.disk),
        };
    }

    /// Takes countable resources only.
    pub(crate) fn take_custom(&mut self, used: &Custom) {
        if !used.is_empty() {
            self.custom = self.custom.saturating_sub(used);
        }
    }

    /// Gives countable resources back, at most up to what there is of them.
    pub(crate) fn give_custom(&mut self, all: &Custom, used: &Custom) {
        if !used.is_empty() {
            let sum = self.custom.saturating_add(used);
            self.custom = sum.saturating_sub(&sum.saturating_sub(all));
        }
    }

    /// Takes a share of one GPU, which is idle or partly used.
    pub(crate) fn take_share(&mut self, index: u8, milli: u16) {
        if self.idle.contains(index) {
            self.idle = self.idle & !GpuSet::single(index);
            let at = self.partial.partition_point(|&(other, _)| other < index);
            self.partial.insert(at, (index, GPU_MILLI_WHOLE));
        }
        if let Some((_, left)) = self.partial.iter_mut().find(|(other, _)| *other == index) {
            *left = left.saturating_sub(milli);
        }
        self.partial.retain(|&(_, left)| left > 0);
    }

    /// Whether the GPUs (whole, or a share of the one) are free.
    pub(crate) fn has_gpus(&self, gpus: GpuSet, share_milli: u16) -> bool {
        let has_left = |index: u8| {
            let shared = self.partial.iter().find(|(other, _)| *other == index);
            self.idle.contains(index)
                || shared.is_some_and(|&(_, left)| share_milli > 0 && left >= share_milli)
        };
        gpus.iter().all(has_left)
    }

    /// Coarse measure of what is left besides GPUs; see [`headroom`].
    pub(crate) fn headroom(&self) -> u8 {
        headroom(self.rest)
    }

    /// How many replicas with these countable resources fit beside each other, at most `most`.
    pub(crate) fn custom_slots(&self, one: &Custom, most: u32) -> u32 {
        if one.is_empty() { most } else { self.custom.slots(one, most) }
    }

    /// How many replicas with these resources fit beside each other, at most `most`.
    pub(crate) fn resource_slots(&self, one: Resources, most: u32) -> u32 {
        let fits = |left: u64, need: u64, most: u32| {
            if need.saturating_mul(u64::from(most)) <= left {
                most
            } else {
                u32::try_from(left / need.max(1)).unwrap_or(u32::MAX).min(most)
            }
        };
        let CpuMilli(cpu) = self.rest.cpu;
        let MemoryMib(memory) = self.rest.memory;
        let DiskMib(disk) = self.rest.disk;
        let most = fits(cpu, one.cpu.0, most);
        let most = fits(memory, one.memory.0, most);
        fits(disk, one.disk.0, most)
    }
}

/// Binary digits of the scarcer of CPU thousandths and memory MiB. What has room for some resources
/// has at least their headroom.
pub(crate) fn headroom(of: Resources) -> u8 {
    let scarcer = of.cpu.0.min(of.memory.0);
    u8::try_from(u64::BITS - scarcer.leading_zeros()).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_open_a_gpu_and_fill_it() {
        let mut free = Free { idle: GpuSet::first(2), ..Free::default() };
        free.take_share(1, 400);
        assert_eq!((free.idle, free.partial()), (GpuSet::first(1), &[(1u8, 600u16)][..]));
        free.take_share(1, 600);
        assert_eq!((free.idle, free.partial()), (GpuSet::first(1), &[][..]));
        free.take(GpuSet::first(1), 0, Resources::default());
        assert!(free.idle.is_empty());
    }

    #[test]
    fn the_scarcest_resource_bounds_the_slots() {
        let rest = Resources { cpu: CpuMilli(10), memory: MemoryMib(9), disk: DiskMib(0) };
        let free = Free { rest, ..Free::default() };
        let one = |cpu, memory, disk| Resources {
            cpu: CpuMilli(cpu),
            memory: MemoryMib(memory),
            disk: DiskMib(disk),
        };
        assert_eq!(free.resource_slots(one(1, 1, 0), 64), 9);
        assert_eq!(free.resource_slots(one(4, 1, 0), 64), 2);
        assert_eq!(free.resource_slots(one(0, 0, 1), 64), 0);
        assert_eq!(free.resource_slots(one(0, 0, 0), 64), 64);
    }
}
