//! Exact: tries every way to place a small gang, for cases in which filling greedily gets stuck.
//!
//! **Invariant:** bounded in size and steps; a miss in a case within the bounds is a proof.

use super::Steps;
use super::ask::{Ask, GpuFit, GroupAsk};
use super::draft::Draft;
use super::field::{Domain, Field};
use crate::id::Rank;
use crate::job::{GpuAsk, Strategy};
use crate::unit::GpuSet;
use crate::view::Slot;

/// Most replicas for which every way is tried: beyond, the ways outgrow any budget.
const REPLICAS_MAX: usize = 12;
/// Most nodes, for the same reason.
const NODES_MAX: usize = 12;
/// Most placements tried in one search: some milliseconds.
const TRIES_MAX: u32 = 20_000;
/// What one of them costs in steps of the budget.
const TRY_STEPS: u64 = 32;

/// Candidates of any group in the domain; one more than the search takes, where there are more.
pub(super) fn nodes(ask: &Ask<'_>, field: &Field<'_>, domain: &Domain, shunned: bool) -> Vec<u32> {
    let mut nodes: Vec<u32> = Vec::new();
    for at in 0..ask.groups.len() {
        let of_group = field.cands(ask, at, domain, shunned).map(|(cand, _)| cand.node);
        nodes.extend(of_group.take(NODES_MAX + 1));
    }
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Places `targets` replicas per group on these nodes, or nothing. Gives up at once on cases over
/// the bounds, and on a single group, with which the greedy way never gets stuck.
pub(super) fn place(
    draft: &mut Draft,
    ask: &Ask<'_>,
    field: &Field<'_>,
    nodes: &[u32],
    targets: &[u32],
    steps: &mut Steps,
) -> bool {
    let replicas: usize = targets.iter().map(|&count| count as usize).sum();
    let groups = targets.iter().filter(|&&count| count > 0).count();
    if groups < 2 || replicas > REPLICAS_MAX || nodes.len() > NODES_MAX {
        return false;
    }
    let mut items: Vec<(usize, Rank)> = Vec::with_capacity(replicas);
    for (at, (group, &target)) in ask.groups.iter().zip(targets).enumerate() {
        items.extend(group.ranks.iter().take(target as usize).map(|&rank| (at, rank)));
    }
    let size = |&(at, _): &(usize, Rank)| ask.groups.get(at).map_or(0, GroupAsk::whole_gpus);
    items.sort_by_key(|item| (std::cmp::Reverse(size(item)), *item));
    let mut search = Search { ask, field, nodes, items: &items, tries: TRIES_MAX };
    let found = search.step(draft, 0, 0);
    steps.spend(u64::from(TRIES_MAX - search.tries) * TRY_STEPS);
    found
}

struct Search<'a> {
    ask: &'a Ask<'a>,
    field: &'a Field<'a>,
    nodes: &'a [u32],
    items: &'a [(usize, Rank)],
    tries: u32,
}

impl Search<'_> {
    /// Places the items from `at` on; equal ones only on nodes from `from` on, since exchanging
    /// them gives nothing new.
    fn step(&mut self, draft: &mut Draft, at: usize, from: usize) -> bool {
        let Some(&(group_at, rank)) = self.items.get(at) else { return true };
        let Some(group) = self.ask.groups.get(group_at) else { return false };
        let next_is_equal = self.items.get(at + 1).is_some_and(|&(next, _)| next == group_at);
        for (place, &node) in self.nodes.iter().enumerate().skip(from) {
            let Some(slot) = self.ask.view.slot(node) else { continue };
            let Some(fit) = self.field.fit(self.ask, group_at, slot) else { continue };
            let strict = self.ask.spec.strategy == Strategy::StrictSpread;
            if strict && draft.members(node) > 0 {
                continue;
            }
            for mask in ways(group, draft, node, slot, fit.gpus) {
                if self.tries == 0 {
                    return false;
                }
                self.tries -= 1;
                let mark = draft.mark();
                let next_from = if next_is_equal { place } else { 0 };
                if draft.place(group, node, slot, GpuFit { mask, ..fit.gpus }, &[rank]) == 1
                    && self.step(draft, at + 1, next_from)
                {
                    return true;
                }
                draft.rollback(mark);
            }
        }
        false
    }
}

/// Sets of GPUs from which a replica may be served on the node, such that any choice within one
/// set is as good as any other.
pub(super) fn ways(
    group: &GroupAsk,
    draft: &Draft,
    node: u32,
    slot: &Slot,
    fit: GpuFit,
) -> Vec<GpuSet> {
    let model = |index: u8| slot.node.gpus.get(usize::from(index)).map(|gpu| (gpu.model, gpu.vram));
    draft.with_free(node, slot, |free| match group.needs.gpus() {
        GpuAsk::None => vec![fit.mask],
        GpuAsk::Whole(_) => {
            let mut models: Vec<_> = fit.mask.iter().filter_map(model).map(|(m, _)| m).collect();
            models.sort_unstable();
            models.dedup();
            let of = |wanted| {
                let same = fit.mask.iter().filter(|&i| model(i).is_some_and(|(m, _)| m == wanted));
                same.fold(GpuSet::EMPTY, |set, index| set | GpuSet::single(index))
            };
            models.into_iter().map(of).collect()
        }
        GpuAsk::Share(milli) => {
            let mut seen = Vec::new();
            let left = |index: u8| {
                let partial = free.partial().iter().find(|(other, _)| *other == index);
                let idle = free.idle.contains(index).then_some(crate::unit::GPU_MILLI_WHOLE);
                partial.map(|&(_, left)| left).or(idle)
            };
            for index in fit.mask.iter() {
                let Some(left) = left(index).filter(|&left| left >= milli) else { continue };
                if !seen.iter().any(|&(what, _)| what == (model(index), left)) {
                    seen.push(((model(index), left), GpuSet::single(index)));
                }
            }
            seen.into_iter().map(|(_, set)| set).collect()
        }
    })
}
