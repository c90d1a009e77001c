//! Single: the short way for a request that fits on one node — no look at the whole fleet.
//!
//! Walks the view's buckets from the fullest nodes up and takes the first that holds everything.
//! **Invariant:** only ever finds what the long way would accept too; "nowhere" is certain.

use super::ask::{Ask, Fit, GroupAsk};
use super::room::pick;
use super::{Policy, Steps, policy};
use crate::command::Placement;
use crate::id::NodeId;
use crate::job::{GpuAsk, Strategy};
use crate::view::{ClassId, KindId, Slot, headroom};
use std::cmp::Reverse;
use std::collections::BTreeMap;

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
    if let ([group], 1, Some(policy)) = (ask.groups.as_slice(), replicas, policy) {
        return by_policy(ask, group, policy, steps);
    }
    let mut order: Vec<&GroupAsk> = ask.groups.iter().collect();
    order.sort_by_key(|group| Reverse((group.whole_gpus(), group.needs.gpus() != GpuAsk::None)));
    let mut walk = Walk {
        ask,
        headroom: least_headroom(&order),
        order,
        replicas,
        known: BTreeMap::new(),
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

/// The one replica of the group, where the policy wants it.
fn by_policy(ask: &Ask<'_>, group: &GroupAsk, policy: Policy, steps: &mut Steps) -> Answer {
    let mut placement = || {
        let (node, gpus) = policy::choose(ask, group, policy, steps)?;
        let slot = ask.view.slot(node.0)?;
        let known = group.class_fit(&ask.view.classes().get(slot.class)?.sample);
        let gpus = match gpus {
            Some(gpus) => gpus,
            None => pick(group, &slot.node, &slot.free, group.fit(slot, known))?,
        };
        let share_milli = match group.needs.gpus() {
            GpuAsk::Share(milli) => milli,
            GpuAsk::None | GpuAsk::Whole(_) => 0,
        };
        let rank = *group.ranks.first()?;
        Some(Placement { rank, node, node_epoch: slot.node.epoch, gpus, share_milli })
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

struct Walk<'a> {
    ask: &'a Ask<'a>,
    /// Largest first.
    order: Vec<&'a GroupAsk>,
    replicas: u32,
    headroom: u8,
    /// Per class met: how it fits every group of `order`; `None` = not all.
    known: BTreeMap<ClassId, Option<Vec<Fit>>>,
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
        let buckets = self.ask.view.buckets();
        for idle in self.least_idle()?..=buckets.idle_max() {
            for kind in buckets.kinds_with(idle) {
                if !self.kind_fits(kind) {
                    continue;
                }
                let found = self.in_bucket(kind, idle);
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

    fn kind_fits(&self, kind: KindId) -> bool {
        let gpus = self.ask.view.classes().kind_gpus(kind);
        self.order.iter().all(|group| group.needs.gpu_misfit(gpus).is_none())
    }

    /// Walks class by class; a class that does not fit is passed over at once.
    fn in_bucket(&mut self, kind: KindId, idle: u8) -> Option<Vec<Placement>> {
        let buckets = self.ask.view.buckets();
        let mut from = (self.headroom, ClassId(0));
        loop {
            let mut passed = None;
            for (headroom, class, node) in buckets.walk(kind, idle, from.0, from.1) {
                if self.look() {
                    return None;
                }
                if !self.class_fits(class) {
                    passed = Some((headroom, class));
                    break;
                }
                if let Some(found) = self.try_node(class, node) {
                    return Some(found);
                }
            }
            let (headroom, ClassId(class)) = passed?;
            from = (headroom, ClassId(class.checked_add(1)?));
        }
    }

    /// A single share in the tightest hole of a shared GPU.
    fn in_holes(&mut self, milli: u16) -> Option<Vec<Placement>> {
        let mut last = None;
        for (class, node, _) in self.ask.view.buckets().holes_from(milli) {
            if self.look() {
                return None;
            }
            if last == Some(node) || !self.class_fits(class) {
                continue;
            }
            last = Some(node);
            if let Some(found) = self.try_node(class, node) {
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

    /// Whether nodes of the class may hold every group, and are wanted in this run.
    fn class_fits(&mut self, class: ClassId) -> bool {
        if !self.known.contains_key(&class) {
            let fits = self.ask.view.classes().get(class).and_then(|found| {
                let fit = |group: &&GroupAsk| {
                    let fit = group.class_fit(&found.sample);
                    (fit.misfit.is_none() || group.reads_identity()).then_some(fit)
                };
                self.order.iter().map(fit).collect::<Option<Vec<Fit>>>()
            });
            self.known.insert(class, fits);
        }
        let Some(Some(fits)) = self.known.get(&class) else { return false };
        let shuns = fits.iter().any(|fit| fit.shuns);
        self.met |= shuns;
        self.shunned || !shuns
    }

    fn try_node(&self, class: ClassId, node: u32) -> Option<Vec<Placement>> {
        let fits = self.known.get(&class)?.as_ref()?;
        let slot = self.ask.view.slot(node)?;
        if self.ask.avoids(node) || (self.replicas > 1 && !self.inner_rtt_holds(slot)) {
            return None;
        }
        let mut free = slot.free.clone();
        let mut placements = Vec::with_capacity(self.replicas as usize);
        for (group, &known) in self.order.iter().zip(fits) {
            let fit = group.fit(slot, known);
            if fit.misfit.is_some() {
                return None;
            }
            let share_milli = match group.needs.gpus() {
                GpuAsk::Share(milli) => milli,
                GpuAsk::None | GpuAsk::Whole(_) => 0,
            };
            for &rank in &group.ranks {
                let gpus = pick(group, &slot.node, &free, fit)?;
                free.take(gpus, share_milli, group.needs.resources());
                free.take_custom(group.needs.custom());
                let (node, node_epoch) = (NodeId(node), slot.node.epoch);
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
