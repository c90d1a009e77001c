//! Cause: what keeps each node of the fleet from serving a group, counted.
//!
//! **Invariant:** every node of the fleet is counted under exactly one cause, the first that
//! applies in the order of [`Cause`].

use crate::fit::Misfit;
use crate::node::NodeStatus;
use crate::plan::ask::{Ask, Fit, GroupAsk};
use crate::plan::room::{gpu_room, room};
use crate::view::Slot;
use std::collections::BTreeMap;
use std::fmt;

/// What keeps one node from serving a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cause {
    /// Not even if it were empty and up.
    Misfit(Misfit),
    Down,
    /// Cordoned or draining.
    Cordoned,
    /// The request says to avoid it.
    Avoided,
    /// Too few of its suitable GPUs are free.
    GpusBusy,
    CpuBusy,
    MemoryBusy,
    DiskBusy,
    CustomBusy,
    /// Has room, but lies outside the largest part of the fleet that keeps the RTT bound or the
    /// required topology.
    TooFar,
    /// Has room; there are too few like it.
    Usable,
}

impl Cause {
    /// Whether work that ends could change it.
    pub fn is_busy(self) -> bool {
        matches!(
            self,
            Self::GpusBusy | Self::CpuBusy | Self::MemoryBusy | Self::DiskBusy | Self::CustomBusy
        )
    }

    /// Whether a node that comes back could change it.
    pub fn is_closed(self) -> bool {
        matches!(self, Self::Down | Self::Cordoned | Self::Avoided)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Misfit(misfit) => return misfit.fmt(f),
            Self::Down => "down",
            Self::Cordoned => "cordoned",
            Self::Avoided => "avoided",
            Self::GpusBusy => "GPUs busy",
            Self::CpuBusy => "CPU busy",
            Self::MemoryBusy => "memory busy",
            Self::DiskBusy => "disk busy",
            Self::CustomBusy => "custom resource busy",
            Self::TooFar => "too far",
            Self::Usable => "usable",
        })
    }
}

/// Nodes per cause.
pub(super) type Counts = BTreeMap<Cause, u32>;

/// Counts all nodes for one group of the ask; `within` = lies where the job may go.
pub(super) fn count(ask: &Ask<'_>, group: usize, within: impl Fn(&Slot) -> bool) -> Counts {
    let mut counts = Counts::new();
    let Some(group) = ask.groups.get(group) else {
        // Nothing was asked; every node would do.
        let nodes = u32::try_from(ask.view.nodes_len()).unwrap_or(u32::MAX);
        return Counts::from([(Cause::Usable, nodes)]);
    };
    let fits = group.class_fits(ask.view);
    for (node, slot) in ask.view.slots() {
        let known = fits.get(slot.class.0 as usize).copied().flatten();
        let Some(fit) = known.map(|known| group.fit(slot, known)) else { continue };
        let cause = match fit.misfit {
            Some(misfit) => Cause::Misfit(misfit),
            None if slot.node.status == NodeStatus::Down => Cause::Down,
            None if !slot.open => Cause::Cordoned,
            None if ask.avoids(node) => Cause::Avoided,
            None if room(group, &slot.node.gpus, &slot.free, fit.gpus, 1) == 0 => {
                busy(group, slot, fit)
            }
            None if !within(slot) => Cause::TooFar,
            None => Cause::Usable,
        };
        *counts.entry(cause).or_insert(0) += 1;
    }
    counts
}

/// What of the node is used up.
fn busy(group: &GroupAsk, slot: &Slot, fit: Fit) -> Cause {
    let (need, left) = (group.needs.resources(), slot.free.rest);
    if gpu_room(group, &slot.node.gpus, &slot.free, fit.gpus, 1) == 0 {
        Cause::GpusBusy
    } else if need.cpu > left.cpu {
        Cause::CpuBusy
    } else if need.memory > left.memory {
        Cause::MemoryBusy
    } else if need.disk > left.disk {
        Cause::DiskBusy
    } else {
        Cause::CustomBusy
    }
}
