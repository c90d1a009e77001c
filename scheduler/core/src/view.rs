//! The planner's own compact copy of the fleet: what every node is and has free, plans in flight
//! already taken off.
//!
//! Made once from the state and then kept up to date node by node.
//! **Invariant:** free capacity here never exceeds the state's less the claims in flight; two
//! views of equal content that saw the same arrivals answer alike, whatever their histories.

mod changes;
mod claims;
mod class;
mod demand;
mod free;
mod node_set;
mod overlay;
mod pages;
mod racks;
mod states;

pub(crate) use class::{Class, ClassId, Classes, KindId, NodeKind};
pub(crate) use demand::{Kind, Mix};
pub(crate) use free::{Free, headroom};
pub(crate) use node_set::NodeSet;
pub use overlay::Held;
pub(crate) use overlay::Undo;
pub(crate) use states::{NodeState, StateId, States};

use crate::command::Plan;
use crate::id::{Epoch, NodeId, SiteId};
use crate::job::{JobSpec, Shape};
use crate::node::{Models, Node};
use crate::plan::policy::{Boards, Outlook};
use crate::state::{State, Usage};
use crate::topology::{Net, Sites};
use crate::unit::GpuSet;
use claims::{Claims, Part};
use demand::Demand;
use pages::Pages;
use racks::Racks;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Jobs of the state that a new view learns from: enough for a mix, within milliseconds.
const JOBS_LEARNED_MAX: usize = 4_096;

/// One node as the planner sees it.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) node: Arc<Node>,
    pub(crate) free: Free,
    /// Of the node; kept here so that binding a replica to it reads one place in memory.
    pub(crate) epoch: Epoch,
    pub(crate) class: ClassId,
    pub(crate) kind: KindId,
    /// Its state, while it is open.
    pub(crate) state: Option<StateId>,
    pub(crate) site: SiteId,
    /// Number of its rack, which no rack of another site has.
    pub(crate) rack: u32,
    /// Up and eligible.
    pub(crate) open: bool,
}

/// What binding a replica to a node needs of the node itself, where its state tells the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Brief {
    pub(crate) idle: GpuSet,
    pub(crate) epoch: Epoch,
}

/// The fleet as the planner sees it. A copy shares what neither changes afterwards.
#[derive(Clone, Debug)]
pub struct View {
    index: u64,
    nodes: usize,
    /// By node id.
    slots: Pages<Option<Slot>>,
    /// By node id: small enough that a gang's thousands of nodes stay in the caches.
    briefs: Pages<Brief>,
    classes: Classes,
    states: States,
    claims: Claims,
    sites: Arc<Sites>,
    net: Arc<Net>,
    models: Models,
    racks: Racks,
    demand: Demand,
    outlook: (u64, Arc<Outlook>),
    boards: Memo,
}

/// What policies keep between plans; never changes an answer.
#[derive(Debug, Default)]
struct Memo(Mutex<Boards>);

impl Memo {
    /// A thread that died in between left at worst scores that are made again.
    fn lock(&self) -> MutexGuard<'_, Boards> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy begins with nothing: making again what is asked for is cheaper than copying all.
impl Clone for Memo {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl View {
    /// Reads the whole fleet. About 0.5 us a node.
    pub fn new(state: &State) -> Self {
        let mut view = Self {
            index: state.index(),
            nodes: 0,
            slots: Pages::default(),
            briefs: Pages::default(),
            classes: Classes::default(),
            states: States::default(),
            claims: Claims::default(),
            sites: Arc::new(state.sites().clone()),
            net: Arc::new(Net::new(state.sites())),
            models: state.models().clone(),
            racks: Racks::default(),
            demand: Demand::default(),
            outlook: (0, Arc::default()),
            boards: Memo::default(),
        };
        view.slots.grow(state.node_id_end() as usize);
        view.briefs.grow(state.node_id_end() as usize);
        for node in state.nodes() {
            view.put(node, free_of(node, state.usage(node.id)));
        }
        view.look_ahead();
        view
    }

    /// Learns from a job that came, placed or not: policies expect more of its kind.
    pub fn note_arrival(&mut self, spec: &JobSpec) {
        if self.demand.note(spec, self.nodes) {
            self.look_ahead();
        }
    }

    /// Learns that a job's replicas left, where no state is read that shows it.
    pub fn note_departure(&mut self, spec: &JobSpec) {
        self.demand.note_ended(spec.replicas());
    }

    /// Learns from the latest jobs that the state holds, as if they had come in a past in which as
    /// many left: for a new view of a cluster that is not new.
    pub fn learn(&mut self, state: &State) {
        let skip = state.jobs_len().saturating_sub(JOBS_LEARNED_MAX);
        for job in state.jobs_after(None).skip(skip) {
            self.note_arrival(&job.spec);
            self.note_departure(&job.spec);
        }
    }

    /// Tells which shapes arrive and how often, for good: nothing is learned any more. For
    /// experiments with a mix known in advance.
    pub fn tell_demand(&mut self, shapes: &[(Shape, u64)]) {
        self.demand.tell(shapes);
        self.look_ahead();
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
        if self.classes.are_littered() {
            self.renumber();
        }
    }

    /// Numbers classes, kinds and states anew, and forgets what is remembered by the old numbers.
    fn renumber(&mut self) {
        let known = self.slots().map(|(_, slot)| (Arc::clone(&slot.node), slot.free.clone()));
        let known: Vec<(Arc<Node>, Free)> = known.collect();
        self.nodes = 0;
        (self.classes, self.states) = (Classes::default(), States::default());
        (self.racks, self.boards) = (Racks::default(), Memo::default());
        for (node, free) in known {
            self.put(&node, free);
        }
        self.look_ahead();
    }

    /// Reads sites and RTTs again: costs what has changed of them.
    pub fn refresh_sites(&mut self, state: &State) {
        self.index = state.index();
        let sites = Arc::new(state.sites().clone());
        Arc::make_mut(&mut self.net).update(&self.sites, &sites);
        self.sites = sites;
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
            let used = shape.resources();
            let (gpus, share_milli) = (placement.gpus, placement.share_milli);
            let part = Part { claim, gpus, share_milli, used, custom: shape.custom.clone() };
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

    /// One past the largest number of a rack.
    pub(crate) fn racks_len(&self) -> usize {
        self.racks.end()
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

    /// Only of a node that is there.
    pub(crate) fn brief(&self, node: u32) -> Brief {
        self.briefs.get(node as usize).copied().unwrap_or_default()
    }

    /// All nodes by rising id.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (0u32..).zip(self.slots.iter()).filter_map(|(node, slot)| Some((node, slot.as_ref()?)))
    }

    /// One past the largest node id.
    pub(crate) fn node_end(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn classes(&self) -> &Classes {
        &self.classes
    }

    pub(crate) fn states(&self) -> &States {
        &self.states
    }

    /// Kinds of replicas that arrive.
    pub(crate) fn mix(&self) -> &Mix {
        self.demand.mix()
    }

    /// Arrivals noted so far.
    pub(crate) fn arrivals(&self) -> u64 {
        self.demand.arrivals()
    }

    /// What is likely to arrive, and its number, which differs between any two of a view.
    pub(crate) fn outlook(&self) -> (u64, &Arc<Outlook>) {
        (self.outlook.0, &self.outlook.1)
    }

    /// Whether replicas that ask for this many GPUs (0 = a share) run on the node, and whether
    /// others do. Exact for plans in flight; of what the state holds, whole GPUs count as others,
    /// since it does not say how many belong together.
    pub(crate) fn work(&self, node: u32, gpus: u8) -> (bool, bool) {
        let Some(slot) = self.slot(node) else { return (false, false) };
        self.claims.work(node, &slot.free, slot.node.gpus.len(), gpus)
    }

    /// Gives the boards of the policies to `use_them`.
    pub(crate) fn with_boards<R>(&self, use_them: impl FnOnce(&mut Boards) -> R) -> R {
        use_them(&mut self.boards.lock())
    }

    /// Plays through what is likely to come, as of now.
    fn look_ahead(&mut self) {
        let outlook =
            Arc::new(Outlook::new(self, self.mix(), self.demand.fills(), &self.outlook.1));
        self.outlook = (self.outlook.0 + 1, outlook);
    }

    /// Memory held by the planning index, in bytes: slots, classes, states and claims. Nodes, sites
    /// and RTTs, which are shared with the state, are not counted.
    pub fn index_bytes(&self) -> usize {
        self.slots.bytes()
            + self.briefs.bytes()
            + self.classes.bytes()
            + self.states.bytes()
            + self.claims.bytes()
            + self.racks.bytes()
    }

    fn reread(&mut self, at: usize, node: &Arc<Node>, usage: Option<&Usage>) {
        let number = node.id.0;
        self.demand.note_live(at, usage.map_or(0, |usage| usage.live));
        let free = self.claims.rebase(number, free_of(node, usage));
        let same = |slot: &Slot| Arc::ptr_eq(&slot.node, node);
        if self.slot(number).is_some_and(same) {
            return self.set_free(number, free);
        }
        if !self.exchange(node, &free) {
            self.forget(at);
            self.put(node, free);
        }
    }

    /// Takes a node in that has changed in nothing a class or a rack tells: sessions begin and end,
    /// people let it work or not. Whether it is such a one.
    fn exchange(&mut self, node: &Arc<Node>, free: &Free) -> bool {
        let number = node.id.0;
        let Some(slot) = self.slot(number) else { return false };
        let (class, known) = (slot.class, Arc::clone(&slot.node));
        if known.place.rack != node.place.rack || !self.classes.exchange(class, &known, node) {
            return false;
        }
        let Some(Some(slot)) = self.slots.get_mut(number as usize) else { return false };
        (slot.node, slot.epoch) = (Arc::clone(node), node.epoch);
        if let Some(brief) = self.briefs.get_mut(number as usize) {
            brief.epoch = node.epoch;
        }
        self.set_free(number, free.clone());
        self.set_state(number, node.is_schedulable());
        true
    }

    /// Takes in a node of which nothing is known yet.
    fn put(&mut self, node: &Arc<Node>, free: Free) {
        let at = node.id.0 as usize;
        self.slots.grow(at + 1);
        self.briefs.grow(at + 1);
        let class = self.classes.enter(node);
        let kind = self.classes.get(class).map_or(KindId(0), |class| class.kind);
        let (site, open, epoch) = (node.site, node.is_schedulable(), node.epoch);
        let rack = self.racks.enter(node);
        let (node, state, alike) = (Arc::clone(node), None, self.classes.are_alike(kind));
        let mut slot = Slot { node, free, epoch, class, kind, state, site, rack, open };
        if open {
            slot.state = Some(self.states.insert(&slot, alike, slot.node.id.0));
        }
        if let Some(brief) = self.briefs.get_mut(at) {
            *brief = Brief { idle: slot.free.idle, epoch };
        }
        if let Some(place) = self.slots.get_mut(at) {
            *place = Some(slot);
            self.nodes += 1;
        }
    }

    fn forget(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::take) else { return };
        self.slots.clear(at, Option::is_none);
        self.briefs.clear(at, |brief| *brief == Brief::default());
        self.nodes -= 1;
        self.racks.leave(&slot.node, slot.rack);
        let node = slot.node.id.0;
        if let Some(state) = slot.state {
            self.states.remove(state, &slot, node);
        }
        self.classes.leave(slot.class, node, slot.open);
    }

    fn take(&mut self, node: u32, part: Part) {
        let Some(slot) = self.slots.get(node as usize).and_then(Option::as_ref) else { return };
        let free = self.claims.add(node, &slot.free, part);
        self.set_free(node, free);
    }

    /// Lets the planner use the node or not; whether that is a change.
    fn set_open(&mut self, node: u32, open: bool) -> bool {
        let Some(slot) = self.slot(node).filter(|slot| slot.open != open) else { return false };
        self.classes.set_open(slot.class, open);
        self.set_state(node, open);
        true
    }

    /// The node is open from now on, or not any more; its class knows.
    fn set_state(&mut self, node: u32, open: bool) {
        let Some(Some(slot)) = self.slots.get_mut(node as usize) else { return };
        if slot.open == open {
            return;
        }
        slot.open = open;
        match slot.state.take() {
            Some(state) => self.states.remove(state, slot, node),
            None => {
                let alike = self.classes.are_alike(slot.kind);
                slot.state = Some(self.states.insert(slot, alike, node));
            }
        }
    }

    fn set_free(&mut self, node: u32, free: Free) {
        let Some(Some(slot)) = self.slots.get_mut(node as usize) else { return };
        if slot.free == free {
            return;
        }
        if let Some(state) = slot.state {
            self.states.remove(state, slot, node);
        }
        slot.free = free;
        if let Some(brief) = self.briefs.get_mut(node as usize) {
            brief.idle = slot.free.idle;
        }
        if slot.open {
            let alike = self.classes.are_alike(slot.kind);
            slot.state = Some(self.states.insert(slot, alike, node));
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
    free.take_custom(&usage.custom);
    free
}
