//! Cause: what keeps each node of the fleet from serving a group, counted.
//!
//! **Invariant:** every node of the fleet is counted under exactly one cause, the first that
//! applies in the order of [`Cause`].

use crate::fit::Misfit;
use crate::id::SiteId;
use crate::node::{Gpu, NodeStatus};
use crate::plan::ask::{Ask, Fit, GroupAsk};
use crate::plan::field::Domain;
use crate::plan::room::{gpu_room, room};
use crate::plan::ruled::Apart;
use crate::view::{ClassId, Free, Slot};
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
    /// Has room, but an affinity, or a job that wants to be apart, keeps the group off.
    Affinity,
    /// Has room, but one replica there costs more than the whole job may.
    TotalPrice,
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
            Self::Affinity => "affinity",
            Self::TotalPrice => "total price",
            Self::TooFar => "too far",
            Self::Usable => "usable",
        })
    }
}

/// Nodes per cause.
pub(super) type Counts = BTreeMap<Cause, u32>;

/// Where a group may go by the rules of its job.
pub(super) struct Reach<'a> {
    /// `None` = anywhere.
    domain: Option<Domain>,
    apart: Option<Apart<'a>>,
}

impl<'a> Reach<'a> {
    pub(super) fn everywhere() -> Self {
        Self { domain: None, apart: None }
    }

    /// What the rules leave to the group at this place of the ask, inside the domain.
    pub(super) fn new(ask: &Ask<'a>, group: usize, domain: Option<Domain>) -> Self {
        let apart = Some(Apart::required(ask, group)).filter(|apart| !apart.is_nothing());
        Self { domain, apart }
    }

    /// What keeps the group off nodes with room at this site; `None` where not all fare alike.
    fn cause_at(&self, SiteId(site): SiteId) -> Option<Cause> {
        if self.apart.is_some() {
            return None;
        }
        let Some(domain) = &self.domain else { return Some(Cause::Usable) };
        match domain.sites.binary_search(&site) {
            Err(_) => Some(Cause::TooFar),
            Ok(_) => domain.rack.is_none().then_some(Cause::Usable),
        }
    }

    /// What keeps the group off a node with room.
    fn cause(&self, slot: &Slot) -> Cause {
        if self.apart.as_ref().is_some_and(|apart| !apart.admits(&slot.node)) {
            Cause::Affinity
        } else if self.apart.as_ref().is_some_and(|apart| apart.is_too_dear(&slot.node)) {
            Cause::TotalPrice
        } else if self.domain.as_ref().is_some_and(|domain| !domain.admits(slot)) {
            Cause::TooFar
        } else {
            Cause::Usable
        }
    }
}

/// Counts all nodes for the group at this place of the ask.
pub(super) fn count(ask: &Ask<'_>, group: usize, reach: &Reach<'_>) -> Counts {
    let Some(group) = ask.groups.get(group) else {
        // Nothing was asked; every node would do.
        let nodes = u32::try_from(ask.view.nodes_len()).unwrap_or(u32::MAX);
        return Counts::from([(Cause::Usable, nodes)]);
    };
    let fits = group.class_fits(ask.view);
    let mut count = Count { ask, group, fits, reach, counts: Counts::new(), run: None };
    if group.reads_identity() || !ask.avoid.is_empty() || reach.apart.is_some() {
        ask.view.slots().for_each(|(node, slot)| count.node(node, slot));
    } else {
        count.closed();
        count.open();
    }
    count.all()
}

struct Count<'a> {
    ask: &'a Ask<'a>,
    group: &'a GroupAsk,
    /// By class.
    fits: Vec<Option<Fit>>,
    reach: &'a Reach<'a>,
    counts: Counts,
    /// Nodes of one cause in a row that are not in the counts yet.
    run: Option<(Cause, u32)>,
}

impl Count<'_> {
    fn fit(&self, class: ClassId) -> Option<Fit> {
        self.fits.get(class.0 as usize).copied().flatten()
    }

    fn add(&mut self, cause: Cause, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
        match &mut self.run {
            Some((same, sum)) if *same == cause => *sum += nodes,
            run => {
                if let Some((cause, sum)) = run.replace((cause, nodes)) {
                    *self.counts.entry(cause).or_insert(0) += sum;
                }
            }
        }
    }

    fn all(mut self) -> Counts {
        if let Some((cause, sum)) = self.run {
            *self.counts.entry(cause).or_insert(0) += sum;
        }
        self.counts
    }

    fn node(&mut self, node: u32, slot: &Slot) {
        let Some(fit) = self.fit(slot.class).map(|known| self.group.fit(slot, known)) else {
            return;
        };
        let cause = match fit.misfit {
            Some(misfit) => Cause::Misfit(misfit),
            None if slot.node.status == NodeStatus::Down => Cause::Down,
            None if !slot.open => Cause::Cordoned,
            None if self.ask.avoids(node) => Cause::Avoided,
            None => {
                let taken = self.taken(&slot.node.gpus, &slot.free, fit);
                taken.unwrap_or_else(|| self.reach.cause(slot))
            }
        };
        self.add(cause, 1);
    }

    /// Classes that do not fit as a whole; of the others the nodes that are closed.
    fn closed(&mut self) {
        let view = self.ask.view;
        for (id, class) in view.classes().iter() {
            match self.fit(id).map(|fit| fit.misfit) {
                Some(Some(misfit)) => self.add(Cause::Misfit(misfit), class.nodes.len()),
                Some(None) if (class.open as usize) < class.nodes.len() => {
                    let slots =
                        class.nodes.iter().filter_map(|node| Some((node, view.slot(node)?)));
                    slots.filter(|(_, slot)| !slot.open).for_each(|(n, slot)| self.node(n, slot));
                }
                Some(None) | None => {}
            }
        }
    }

    /// Open nodes that fit, state by state.
    fn open(&mut self) {
        let view = self.ask.view;
        for (id, kind) in view.classes().kinds() {
            for (_, state) in view.states().of_kind(id, 0) {
                for (class, nodes) in state.pools() {
                    let Some(fit) = self.fit(class).filter(|fit| fit.misfit.is_none()) else {
                        continue;
                    };
                    if let Some(cause) = self.taken(&kind.gpus, state.free(), fit) {
                        self.add(cause, nodes.len());
                        continue;
                    }
                    // Nodes of one class stand at one site.
                    let site = view.classes().get(class).map(|class| class.site);
                    if let Some(cause) = site.and_then(|site| self.reach.cause_at(site)) {
                        self.add(cause, nodes.len());
                        continue;
                    }
                    let slots = nodes.iter().filter_map(|node| view.slot(node));
                    slots.for_each(|slot| self.add(self.reach.cause(slot), 1));
                }
            }
        }
    }

    /// What is used up, if that keeps the group away.
    fn taken(&self, gpus: &[Gpu], free: &Free, fit: Fit) -> Option<Cause> {
        (room(self.group, gpus, free, fit.gpus, 1) == 0).then(|| busy(self.group, gpus, free, fit))
    }
}

/// What of the node is used up.
fn busy(group: &GroupAsk, gpus: &[Gpu], free: &Free, fit: Fit) -> Cause {
    let (need, left) = (group.needs.resources(), free.rest);
    if gpu_room(group, gpus, free, fit.gpus, 1) == 0 {
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
