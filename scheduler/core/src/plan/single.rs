//! Single: the short way for a request that fits on one node — no look at the whole fleet.
//!
//! Walks the view's buckets from the fullest nodes up and takes the first that holds everything.
//! **Invariant:** only ever finds what the long way would accept too; "not found" says nothing.

use super::Steps;
use super::ask::{Ask, Fit, GroupAsk};
use super::room::pick;
use crate::command::Placement;
use crate::id::NodeId;
use crate::job::{GpuAsk, Strategy};
use crate::view::{ClassId, Slot};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Most replicas for which one node is tried this way.
pub(super) const REPLICAS_MAX: u32 = 16;
/// Nodes and classes looked at before the long way takes over.
const LOOKS_MAX: u32 = 4_096;

/// All replicas on one node; `None` where this does not apply or finds nothing.
pub(super) fn place(ask: &Ask<'_>, steps: &mut Steps) -> Option<Vec<Placement>> {
    let replicas: u32 = ask.groups.iter().map(GroupAsk::wanted).sum();
    let together = matches!(ask.spec.strategy, Strategy::Pack | Strategy::StrictPack);
    let applies = replicas == 1 || (together && replicas <= REPLICAS_MAX);
    if !applies || replicas == 0 || !ask.fixed.is_empty() {
        return None;
    }
    let mut order: Vec<&GroupAsk> = ask.groups.iter().collect();
    order.sort_by_key(|group| Reverse((group.whole_gpus(), group.needs.gpus() != GpuAsk::None)));
    let mut walk =
        Walk { ask, order, known: BTreeMap::new(), looks: 0, shunned: false, met: false };
    let mut found = walk.run();
    if found.is_none() && walk.met {
        walk.shunned = true;
        found = walk.run();
    }
    steps.spend(u64::from(walk.looks));
    found
}

struct Walk<'a> {
    ask: &'a Ask<'a>,
    /// Largest first.
    order: Vec<&'a GroupAsk>,
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
        let replicas: u32 = self.order.iter().map(|group| group.wanted()).sum();
        if let ([group], 1) = (self.order.as_slice(), replicas)
            && let GpuAsk::Share(milli) = group.needs.gpus()
            && let Some(found) = self.in_holes(milli)
        {
            return Some(found);
        }
        let buckets = self.ask.view.buckets();
        let whole: u32 =
            self.order.iter().map(|group| group.whole_gpus().saturating_mul(group.wanted())).sum();
        let first = u8::try_from(whole).ok()?;
        for idle in first..=buckets.idle_max() {
            for kind in buckets.kinds_with(idle) {
                let mut from = ClassId(0);
                // Walks class by class; a class that does not fit is passed over at once.
                'class: loop {
                    let mut passed = None;
                    for (class, node) in buckets.walk(kind, idle, from, 0) {
                        if self.is_over() {
                            return None;
                        }
                        if !self.class_fits(class) {
                            passed = Some(class);
                            break;
                        }
                        if let Some(found) = self.try_node(class, node) {
                            return Some(found);
                        }
                    }
                    match passed.and_then(|ClassId(class)| class.checked_add(1)) {
                        Some(next) => from = ClassId(next),
                        None => break 'class,
                    }
                }
            }
        }
        None
    }

    /// A single share in the tightest hole of a shared GPU.
    fn in_holes(&mut self, milli: u16) -> Option<Vec<Placement>> {
        let mut last = None;
        for (class, node, _) in self.ask.view.buckets().holes_from(milli) {
            if self.is_over() {
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

    fn is_over(&mut self) -> bool {
        self.looks += 1;
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
        let replicas: u32 = self.order.iter().map(|group| group.wanted()).sum();
        if self.ask.avoids(node) || (replicas > 1 && !self.inner_rtt_holds(slot)) {
            return None;
        }
        let mut free = slot.free.clone();
        let mut placements = Vec::with_capacity(replicas as usize);
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
