//! Look: one node with what is free there, as a score sees it.
//!
//! **Invariant:** reads only; made for nodes on which the replica fits.

use crate::job::GpuAsk;
use crate::node::Resources;
use crate::unit::{GPU_MILLI_WHOLE, GPUS_PER_NODE_MAX, GpuSet};
use crate::view::{Free, KindId};

/// What is free on a node, without saying which GPUs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spare {
    pub(super) cpu: u64,
    pub(super) memory: u64,
    /// GPUs of which nothing is used.
    pub(super) idle: u32,
    len: usize,
    /// Thousandths left of each shared GPU that has any.
    left: [u16; GPUS_PER_NODE_MAX],
}

impl Spare {
    pub(super) fn of(free: &Free) -> Self {
        let mut left = [0; GPUS_PER_NODE_MAX];
        let mut len = 0;
        for (to, &(_, milli)) in left.iter_mut().zip(free.partial()) {
            *to = milli;
            len += 1;
        }
        let (cpu, memory) = (free.rest.cpu.0, free.rest.memory.0);
        Self { cpu, memory, idle: free.idle.len(), len, left }
    }

    /// Thousandths left of each shared GPU; zeros may be among them.
    pub(super) fn shared(&self) -> &[u16] {
        self.left.get(..self.len).unwrap_or(&[])
    }

    /// Thousandths of all free GPUs.
    pub(super) fn gpu_milli(&self) -> u32 {
        let shared: u32 = self.shared().iter().map(|&left| u32::from(left)).sum();
        self.idle * u32::from(GPU_MILLI_WHOLE) + shared
    }

    /// Takes CPU and memory.
    pub(super) fn take_resources(&mut self, needs: Resources) {
        self.cpu = self.cpu.saturating_sub(needs.cpu.0);
        self.memory = self.memory.saturating_sub(needs.memory.0);
    }

    pub(super) fn take_idle(&mut self, count: u32) {
        self.idle = self.idle.saturating_sub(count);
    }

    /// Takes a share of the shared GPU at this position, or of an idle one.
    pub(super) fn take_share(&mut self, at: Option<usize>, milli: u16) {
        match at {
            Some(at) => {
                if let Some(left) = self.left.get_mut(at) {
                    *left = left.saturating_sub(milli);
                }
            }
            None => {
                self.idle = self.idle.saturating_sub(1);
                if let Some(left) = self.left.get_mut(self.len) {
                    *left = GPU_MILLI_WHOLE.saturating_sub(milli);
                    self.len += 1;
                }
            }
        }
    }
}

/// A GPU that has room for a share: which, where among the shared ones (`None` = it is idle), and
/// thousandths left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opening {
    pub(super) gpu: u8,
    pub(super) at: Option<usize>,
    pub(super) left: u16,
}

/// A node and a replica that fits there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look<'a> {
    pub(super) gpus: GpuAsk,
    pub(super) needs: Resources,
    pub(super) free: &'a Free,
    pub(super) spare: Spare,
    /// GPUs of the node that the replica may use.
    pub(super) mask: GpuSet,
    /// GPUs of the node in all.
    pub(super) gpus_all: u32,
    pub(super) kind: KindId,
    pub(super) work: Work,
}

/// What kinds of replicas run on a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Work {
    /// Some that ask for this many GPUs; a share counts as asking for 0.
    pub(super) same: bool,
    /// Some that ask for another number.
    pub(super) others: bool,
}

/// Thousandths of GPUs that are asked for.
pub(super) fn asked_milli(gpus: GpuAsk) -> u32 {
    match gpus {
        GpuAsk::None => 0,
        GpuAsk::Whole(count) => u32::from(count) * u32::from(GPU_MILLI_WHOLE),
        GpuAsk::Share(milli) => u32::from(milli),
    }
}

impl Look<'_> {
    /// Thousandths of GPUs that the replica takes.
    pub(super) fn asked_milli(&self) -> u32 {
        asked_milli(self.gpus)
    }

    /// GPUs that have room for the share: each shared one, and of the idle ones the first.
    pub(super) fn openings(&self, milli: u16) -> impl Iterator<Item = Opening> {
        let usable = self.free.idle & self.mask;
        let idle = usable.iter().next();
        let idle = idle.map(|gpu| Opening { gpu, at: None, left: GPU_MILLI_WHOLE });
        let shared = self.free.partial().iter().enumerate();
        let mask = self.mask;
        shared
            .filter(move |&(_, &(gpu, left))| left >= milli && mask.contains(gpu))
            .map(|(at, &(gpu, left))| Opening { gpu, at: Some(at), left })
            .chain(idle)
    }

    /// The fullest GPU that has room for the share.
    pub(super) fn tightest(&self, milli: u16) -> Option<Opening> {
        self.openings(milli).min_by_key(|opening| (opening.left, opening.gpu))
    }

    /// What is free after the replica has taken its part; a share takes it of this GPU.
    pub(super) fn after(&self, opening: Option<Opening>) -> Spare {
        let mut spare = self.spare;
        spare.take_resources(self.needs);
        match self.gpus {
            GpuAsk::None => {}
            GpuAsk::Whole(count) => spare.take_idle(u32::from(count)),
            GpuAsk::Share(milli) => {
                if let Some(opening) = opening {
                    spare.take_share(opening.at, milli);
                }
            }
        }
        spare
    }
}
