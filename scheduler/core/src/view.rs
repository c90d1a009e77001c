//! The planner's own compact copy of the fleet: what every node is and has free, plans in flight
//! already taken off.
//!
//! Made once from the state and then kept up to date node by node.
//! **Invariant:** free capacity here never exceeds the state's less the claims in flight; two
//! views of equal content answer alike, whatever their histories.

mod buckets;
mod claims;
mod class;
mod free;
mod overlay;

pub(crate) use buckets::Buckets;
pub(crate) use class::{ClassId, Classes, KindId};
pub(crate) use free::{Free, headroom};
pub use overlay::Held;
pub(crate) use overlay::Undo;

use crate::command::Plan;
use crate::id::{NodeId, SiteId};
use crate::job::JobSpec;
use crate::node::{Models, Node, Resources};
use crate::state::{State, Usage};
use crate::topology::{Net, Sites};
use claims::{Claims, Part};
use std::sync::Arc;

/// One node as the planner sees it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) node: Arc<Node>,
    pub(crate) free: Free,
    pub(crate) class: ClassId,
    pub(crate) kind: KindId,
    pub(crate) site: SiteId,
    /// Up and eligible.
    pub(crate) open: bool,
}

/// The fleet as the planner sees it.
#[derive(Clone, Debug)]
pub struct View {
    index: u64,
    nodes: usize,
    /// Nodes at each site, by site id.
    site_nodes: Vec<u32>,
    /// By node id.
    slots: Vec<Option<Slot>>,
    classes: Classes,
    buckets: Buckets,
    claims: Claims,
    sites: Arc<Sites>,
    net: Arc<Net>,
    models: Models,
}

impl View {
    /// Reads the whole fleet. About 0.5 us a node.
    pub fn new(state: &State) -> Self {
        let mut view = Self {
            index: state.index(),
            nodes: 0,
            site_nodes: Vec::new(),
            slots: Vec::new(),
            classes: Classes::default(),
            buckets: Buckets::default(),
            claims: Claims::default(),
            sites: Arc::new(state.sites().clone()),
            net: Arc::new(Net::new(state.sites())),
            models: state.models().clone(),
        };
        view.slots.resize(state.node_id_end() as usize, None);
        for node in state.nodes() {
            let slot = view.read(node, state.usage(node.id));
            if let Some(place) = view.slots.get_mut(node.id.0 as usize) {
                *place = Some(slot);
                view.nodes += 1;
            }
        }
        view.buckets = Buckets::build(&view.slots);
        view
    }

    /// Reads these nodes again: they may be new, changed or gone. Claims in flight stay taken off.
    pub fn refresh(&mut self, state: &State, nodes: &[NodeId]) {
        self.index = state.index();
        if state.models().len() != self.models.len() {
            self.models = state.models().clone();
        }
        if state.sites().len() != self.sites.len() {
            self.refresh_sites(state);
        }
        for &id in nodes {
            let at = id.0 as usize;
            match state.node(id) {
                Some(node) => self.reread(at, node, state.usage(id)),
                None => self.forget(at),
            }
        }
    }

    /// Reads sites and RTTs again.
    pub fn refresh_sites(&mut self, state: &State) {
        self.index = state.index();
        self.sites = Arc::new(state.sites().clone());
        self.net = Arc::new(Net::new(state.sites()));
    }

    /// Takes a proposed plan off what is free, under a number of the caller's choice, until
    /// [`View::unclaim`].
    pub fn claim(&mut self, claim: u64, spec: &JobSpec, plan: &Plan) {
        let mut group = 0usize;
        let starts = spec.group_starts();
        for placement in &plan.placements {
            // Ranks rise in a plan, so the group does too.
            while starts.get(group + 1).is_some_and(|&end| placement.rank.0 >= end) {
                group += 1;
            }
            let Some(shape) = spec.groups.get(group).map(|group| &group.shape) else { return };
            let used = Resources { cpu: shape.cpu, memory: shape.memory, disk: shape.disk };
            let (gpus, share_milli) = (placement.gpus, placement.share_milli);
            let part = Part { claim, gpus, share_milli, used };
            self.take(placement.node.0, part);
        }
    }

    /// Ends a claim: its plan was refused, or it was applied and the caller now refreshes its
    /// nodes. An unknown number changes nothing.
    pub fn unclaim(&mut self, claim: u64) {
        for (node, free) in self.claims.drop_claim(claim) {
            self.set_free(node, free);
        }
    }

    /// Log index of the state last read.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Nodes of the fleet, schedulable or not.
    pub fn nodes_len(&self) -> usize {
        self.nodes
    }

    /// Claims in flight.
    pub fn claims_len(&self) -> usize {
        self.claims.len()
    }

    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    pub fn models(&self) -> &Models {
        &self.models
    }

    /// RTTs of all pairs of sites, as known at [`View::index`].
    pub fn net(&self) -> &Net {
        &self.net
    }

    pub(crate) fn slot(&self, node: u32) -> Option<&Slot> {
        self.slots.get(node as usize)?.as_ref()
    }

    /// Nodes at the site, schedulable or not.
    pub(crate) fn site_nodes(&self, site: SiteId) -> u32 {
        self.site_nodes.get(usize::from(site.0)).copied().unwrap_or(0)
    }

    /// All nodes by rising id.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0u32..).zip(&self.slots).filter_map(|(node, slot)| Some((node, slot.as_ref()?)))
    }

    /// One past the largest node id.
    pub(crate) fn node_end(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn classes(&self) -> &Classes {
        &self.classes
    }

    pub(crate) fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    fn read(&mut self, node: &Arc<Node>, usage: Option<&Usage>) -> Slot {
        let class = self.classes.enter(node);
        let kind = self.classes.get(class).map_or(KindId(0), |class| class.kind);
        let node = Arc::clone(node);
        let (site, open) = (node.site, node.is_schedulable());
        let at = usize::from(site.0);
        if self.site_nodes.len() <= at {
            self.site_nodes.resize(at + 1, 0);
        }
        if let Some(count) = self.site_nodes.get_mut(at) {
            *count += 1;
        }
        Slot { free: free_of(&node, usage), node, class, kind, site, open }
    }

    fn reread(&mut self, at: usize, node: &Arc<Node>, usage: Option<&Usage>) {
        if at >= self.slots.len() {
            self.slots.resize(at + 1, None);
        }
        let number = node.id.0;
        let free = self.claims.rebase(number, free_of(node, usage));
        let same = |slot: &Slot| Arc::ptr_eq(&slot.node, node);
        if self.slot(number).is_some_and(same) {
            self.set_free(number, free);
            return;
        }
        self.forget(at);
        let mut slot = self.read(node, usage);
        slot.free = free;
        self.buckets.insert(&slot, number);
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(slot);
            self.nodes += 1;
        }
    }

    fn forget(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::take) else { return };
        self.nodes -= 1;
        if let Some(count) = self.site_nodes.get_mut(usize::from(slot.site.0)) {
            *count = count.saturating_sub(1);
        }
        self.buckets.remove(&slot, slot.node.id.0);
        self.classes.leave(slot.class);
    }

    fn take(&mut self, node: u32, part: Part) {
        let Some(slot) = self.slots.get(node as usize).and_then(Option::as_ref) else { return };
        let free = self.claims.add(node, &slot.free, part);
        self.set_free(node, free);
    }

    fn set_free(&mut self, node: u32, free: Free) {
        let Some(Some(slot)) = self.slots.get_mut(node as usize) else { return };
        let same = slot.free.idle.len() == free.idle.len()
            && slot.free.headroom() == free.headroom()
            && slot.free.partial() == free.partial();
        if same {
            slot.free = free;
        } else {
            self.buckets.remove(slot, node);
            slot.free = free;
            self.buckets.insert(slot, node);
        }
    }
}

fn free_of(node: &Node, usage: Option<&Usage>) -> Free {
    let mut free = Free::whole(node);
    let Some(usage) = usage else { return free };
    for &(gpu, milli) in &usage.shares {
        free.take_share(gpu, milli);
    }
    // Shared GPUs are busy too, and were dealt with above.
    free.idle = free.idle & !usage.gpus_busy;
    free.take_resources(usage.used);
    free
}
