//! Single: the short way for a request that fits on one node — no look at the whole fleet.
//!
//! Walks the view's states from the fullest nodes up and takes the first node that holds everything.
//! **Invariant:** only ever finds what the long way would accept too; "nowhere" is certain.

use super::ask::{Ask, GpuFit, GroupAsk};
use super::room::{pick, room};
use super::{Policy, Steps, policy};
use crate::command::Placement;
use crate::id::NodeId;
use crate::job::{GpuAsk, Strategy};
use crate::view::{ClassId, KindId, NodeState, Slot, headroom};
use std::cmp::Reverse;

/// Most replicas for which one node is tried this way.
pub(super) const REPLICAS_MAX: u32 = 16;
/// Nodes and classes looked at before the long way takes over.
const LOOKS_MAX: u32 = 4_096;

/// What the short way found.
pub(super) enum Answer {
    Found(Vec<Placement>),
    /// Certain: no node holds what was asked.
    Nowhere,
    /// Take the long way.
    Unknown,
}

/// All replicas on one node, where that is worth a try.
///
/// A single replica goes where the policy wants it; without a policy, where one is found soonest.
pub(super) fn place(ask: &Ask<'_>, policy: Option<Policy>, steps: &mut Steps) -> Answer {
    let replicas: u32 = ask.groups.iter().map(GroupAsk::wanted).sum();
    let together = matches!(ask.spec.strategy, Strategy::Pack | Strategy::StrictPack);
    let applies = replicas == 1 || (together && replicas <= REPLICAS_MAX);
    if !applies || replicas == 0 || !ask.fixed.is_empty() {
        return Answer::Unknown;
    }
    if let ([group], 1, Some(policy)) = (ask.groups.as_slice(), replicas, policy)
        && !takes_fullest(ask, group, policy)
    {
        return by_policy(ask, group, policy, steps);
    }
    let mut order: Vec<&GroupAsk> = ask.groups.iter().collect();
    order.sort_by_key(|group| Reverse((group.whole_gpus(), group.needs.gpus() != GpuAsk::None)));
    let mut walk = Walk {
        ask,
        headroom: least_headroom(&order),
        order,
        replicas,
        known: Vec::new(),
        looks: 0,
        shunned: false,
        met: false,
    };
    let mut found = walk.run();
    if found.is_none() && walk.met && !walk.is_spent() {
        walk.shunned = true;
        found = walk.run();
    }
    steps.spend(u64::from(walk.looks));
    match found {
        Some(placements) => Answer::Found(placements),
        None if replicas == 1 && !walk.is_spent() => Answer::Nowhere,
        None => Answer::Unknown,
    }
}

/// Whether the policy wants no more than the fullest node: whole GPUs in a large fleet with room.
fn takes_fullest(ask: &Ask<'_>, group: &GroupAsk, policy: Policy) -> bool {
    policy == Policy::Foresight
        && !matches!(group.needs.gpus(), GpuAsk::Share(_))
        && ask.view.outlook().1.is_roomy()
}

/// The one replica of the group, where the policy wants it.
fn by_policy(ask: &Ask<'_>, group: &GroupAsk, policy: Policy, steps: &mut Steps) -> Answer {
    let mut placement = || {
        let (node, gpus) = policy::choose(ask, group, policy, steps)?;
        let slot = ask.view.slot(node.0)?;
        let known = group.class_fit(ask.view.classes().get(slot.class)?);
        let gpus = match gpus {
            Some(gpus) => gpus,
            None => pick(group, &slot.node.gpus, &slot.free, group.fit(slot, known).gpus)?,
        };
        let share_milli = match group.needs.gpus() {
            GpuAsk::Share(milli) => milli,
            GpuAsk::None | GpuAsk::Whole(_) => 0,
        };
        let rank = *group.ranks.first()?;
        Some(Placement { rank, node, node_epoch: slot.epoch, gpus, share_milli })
    };
    match placement() {
        Some(placement) => Answer::Found(vec![placement]),
        None => Answer::Nowhere,
    }
}

/// Headroom that every node must have that holds all the groups.
fn least_headroom(groups: &[&GroupAsk]) -> u8 {
    let each = groups.iter().map(|group| group.needs.resources());
    each.map(headroom).max().unwrap_or(0)
}

/// What is known of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Nothing,
    Refuses,
    /// Lets every group in.
    Open,
    /// The same, but asks to be used last.
    Shuns,
}

struct Walk<'a> {
    ask: &'a Ask<'a>,
    /// Largest first.
    order: Vec<&'a GroupAsk>,
    replicas: u32,
    headroom: u8,
    /// By class, as far as one was met.
    known: Vec<Known>,
    looks: u32,
    /// Whether nodes that ask to be used last may be used.
    shunned: bool,
    /// Whether such a node was met.
    met: bool,
}

impl Walk<'_> {
    fn run(&mut self) -> Option<Vec<Placement>> {
        if let ([group], 1) = (self.order.as_slice(), self.replicas)
            && let GpuAsk::Share(milli) = group.needs.gpus()
            && let Some(found) = self.in_holes(milli)
        {
            return Some(found);
        }
        let view = self.ask.view;
        for idle in self.least_idle()?..=view.states().idle_max() {
            for (id, kind) in view.classes().kinds() {
                if !view.states().has(id, idle) || self.look() {
                    continue;
                }
                let fits = self.order.iter().map(|group| group.kind_fit(id, &kind.gpus));
                let Some(fits) = fits.collect::<Option<Vec<GpuFit>>>() else { continue };
                let found = self.in_level(id, idle, &fits);
                if found.is_some() || self.is_spent() {
                    return found;
                }
            }
        }
        None
    }

    /// Idle GPUs that a node must have; where only shares are asked for, those without an idle GPU
    /// were looked at by their holes.
    fn least_idle(&self) -> Option<u8> {
        let whole: u32 =
            self.order.iter().map(|group| group.whole_gpus().saturating_mul(group.wanted())).sum();
        let shares = self.order.iter().any(|group| matches!(group.needs.gpus(), GpuAsk::Share(_)));
        u8::try_from(whole.max(u32::from(shares))).ok()
    }

    /// Walks the states of a kind with so many idle GPUs, the fullest first.
    fn in_level(&mut self, kind: KindId, idle: u8, fits: &[GpuFit]) -> Option<Vec<Placement>> {
        let view = self.ask.view;
        let gpus = &view.classes().kind(kind)?.gpus;
        for (_, state) in view.states().level(kind, idle, self.headroom) {
            if self.look() {
                return None;
            }
            let mut each = self.order.iter().zip(fits);
            if !each.all(|(group, &fit)| room(group, gpus, state.free(), fit, 1) > 0) {
                continue;
            }
            let found = self.in_state(state, fits);
            if found.is_some() || self.is_spent() {
                return found;
            }
        }
        None
    }

    /// The least node of the state that will do. Nodes of one class differ only where names, racks
    /// or the request itself tell them apart.
    fn in_state(&mut self, state: &NodeState, fits: &[GpuFit]) -> Option<Vec<Placement>> {
        let differ =
            !self.ask.avoid.is_empty() || self.order.iter().any(|group| group.reads_identity());
        if differ {
            return self.in_state_by_node(state, fits);
        }
        for (node, class) in state.firsts() {
            if self.look() {
                return None;
            }
            if !self.class_fits(class) {
                continue;
            }
            let found = self.try_node(node, fits);
            // Without a bound on the RTT, what one node of a state cannot hold no other can.
            if found.is_some() || self.ask.spec.rtt_max.is_none() {
                return found;
            }
        }
        None
    }

    fn in_state_by_node(&mut self, state: &NodeState, fits: &[GpuFit]) -> Option<Vec<Placement>> {
        let mut nodes = Vec::new();
        for (class, pool) in state.pools() {
            if self.look() {
                return None;
            }
            if self.class_fits(class) {
                nodes.extend(pool.iter());
            }
        }
        nodes.sort_unstable();
        for node in nodes {
            if self.look() {
                return None;
            }
            if let Some(found) = self.try_node(node, fits) {
                return Some(found);
            }
        }
        None
    }

    /// A single share in the tightest hole of a shared GPU.
    fn in_holes(&mut self, milli: u16) -> Option<Vec<Placement>> {
        let group = *self.order.first()?;
        let view = self.ask.view;
        let mut last = None;
        let mut kind_fit = None;
        for (node, _) in view.states().holes_from(milli) {
            if self.look() {
                return None;
            }
            let Some(slot) = view.slot(node).filter(|_| last != Some(node)) else { continue };
            if !self.class_fits(slot.class) {
                continue;
            }
            last = Some(node);
            if kind_fit.is_none_or(|(kind, _)| kind != slot.kind) {
                kind_fit = Some((slot.kind, group.gpu_fit(&slot.node.gpus)));
            }
            let Some((_, Some(fit))) = kind_fit else { continue };
            if let Some(found) = self.try_node(node, &[fit]) {
                return Some(found);
            }
        }
        None
    }

    /// Counts a look; whether that was one too many.
    fn look(&mut self) -> bool {
        self.looks += 1;
        self.is_spent()
    }

    fn is_spent(&self) -> bool {
        self.looks > LOOKS_MAX
    }

    /// Whether nodes of the class, whose GPUs must serve, may hold every group, and are wanted in
    /// this run.
    fn class_fits(&mut self, id: ClassId) -> bool {
        let classes = self.ask.view.classes();
        if self.known.is_empty() {
            self.known = vec![Known::Nothing; classes.end()];
        }
        let Some(known) = self.known.get_mut(id.0 as usize) else { return false };
        if *known == Known::Nothing {
            let class = classes.get(id);
            let admission = |group: &&GroupAsk| class.and_then(|class| group.admission(class));
            let each = self.order.iter().map(admission);
            *known = match each.collect::<Option<Vec<bool>>>() {
                None => Known::Refuses,
                Some(shuns) if shuns.contains(&true) => Known::Shuns,
                Some(_) => Known::Open,
            };
        }
        self.met |= *known == Known::Shuns;
        *known == Known::Open || (self.shunned && *known == Known::Shuns)
    }

    fn try_node(&self, node: u32, fits: &[GpuFit]) -> Option<Vec<Placement>> {
        let slot = self.ask.view.slot(node)?;
        if self.ask.avoids(node) || (self.replicas > 1 && !self.inner_rtt_holds(slot)) {
            return None;
        }
        let mut free = slot.free.clone();
        let mut placements = Vec::with_capacity(self.replicas as usize);
        for (group, &fit) in self.order.iter().zip(fits) {
            if !group.admits(&slot.node) {
                return None;
            }
            let share_milli = match group.needs.gpus() {
                GpuAsk::Share(milli) => milli,
                GpuAsk::None | GpuAsk::Whole(_) => 0,
            };
            for &rank in &group.ranks {
                let gpus = pick(group, &slot.node.gpus, &free, fit)?;
                free.take(gpus, share_milli, group.needs.resources());
                free.take_custom(group.needs.custom());
                let (node, node_epoch) = (NodeId(node), slot.epoch);
                placements.push(Placement { rank, node, node_epoch, gpus, share_milli });
            }
        }
        placements.sort_unstable_by_key(|placement| placement.rank);
        Some(placements)
    }

    fn inner_rtt_holds(&self, slot: &Slot) -> bool {
        let inner = self.ask.view.sites().rtt(slot.site, slot.site);
        self.ask.spec.rtt_max.is_none_or(|bound| inner.is_some_and(|rtt| rtt <= bound))
    }
}
