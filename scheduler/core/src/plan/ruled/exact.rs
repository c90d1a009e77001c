//! Exact: every way to place a small gang under its rules, for cases in which greed gets stuck.
//!
//! **Invariant:** bounded in size and tries; within the bounds a miss is a proof.

use super::Search;
use super::map::Cand;
use crate::id::Rank;
use crate::job::RttScope;
use crate::plan::ask::GpuFit;
use crate::plan::exact;
use crate::unit::GpuSet;

/// Most replicas for which every way is tried: beyond, the ways outgrow any budget.
const REPLICAS_MAX: usize = 10;
/// Most nodes, for the same reason.
const NODES_MAX: usize = 12;
/// Placements tried in one search: some milliseconds.
const TRIES_MAX: u32 = 20_000;

impl Search<'_, '_> {
    /// Tries every node for every replica; whether that found a way.
    pub(super) fn exact(&mut self) -> bool {
        let replicas: usize = self.targets.iter().map(|&count| count as usize).sum();
        let map = self.map;
        let lists = map.cands.iter().zip(self.targets).filter(|(_, target)| **target > 0);
        let mut nodes: Vec<u32> = Vec::new();
        for (list, _) in lists {
            if list.is_empty() || list.len() > NODES_MAX {
                return false;
            }
            nodes.extend(list.iter().map(|cand| cand.node));
        }
        nodes.sort_unstable();
        nodes.dedup();
        if replicas > REPLICAS_MAX || nodes.len() > NODES_MAX {
            return false;
        }
        let mut items: Vec<(usize, Rank)> = Vec::with_capacity(replicas);
        for at in 0..self.ask.groups.len() {
            items.extend(self.ranks(at).iter().map(|&rank| (at, rank)));
        }
        let mut tries = TRIES_MAX;
        self.step(&items, 0, &mut tries)
    }

    /// Places the items; the first one on candidates from `from` on.
    fn step(&mut self, items: &[(usize, Rank)], from: usize, tries: &mut u32) -> bool {
        let Some((&(at, rank), rest)) = items.split_first() else { return self.holds() };
        let map = self.map;
        // Replicas that nothing tells apart take nodes in order: exchanging them gives nothing new.
        let alike = rest.first().is_some_and(|&(next, _)| next == at)
            && self.tally.segments(self.group_of(at)).is_empty()
            && self.ask.spec.rtt_scope != RttScope::HeadToMembers
            && self.ask.homes.is_empty();
        for (index, cand) in map.cands[at].iter().enumerate().skip(from) {
            let next = if alike { index } else { 0 };
            for gpus in self.gpu_ways(at, rank, cand) {
                if *tries == 0 || self.steps.is_spent() {
                    return false;
                }
                *tries -= 1;
                self.look(at, 2);
                let mark = self.mark();
                if self.place_one(at, rank, cand, gpus) && self.step(rest, next, tries) {
                    return true;
                }
                self.rollback(mark);
            }
        }
        false
    }

    /// Sets of GPUs from which the replica may be served there; none where a rule forbids it.
    fn gpu_ways(&self, at: usize, rank: Rank, cand: &Cand) -> Vec<GpuSet> {
        let Some((group, slot)) = self.ask.groups.get(at).zip(self.ask.view.slot(cand.node)) else {
            return Vec::new();
        };
        let at_home = self.home(rank).is_none_or(|home| home.holds(cand));
        let may = at_home && self.tally.may(group.group, rank, cand.node);
        if !may || !self.is_near(group.group, cand) {
            return Vec::new();
        }
        exact::ways(group, &self.draft, cand.node, slot, cand.gpus)
    }

    fn place_one(&mut self, at: usize, rank: Rank, cand: &Cand, mask: GpuSet) -> bool {
        let Some((group, slot)) = self.ask.groups.get(at).zip(self.ask.view.slot(cand.node)) else {
            return false;
        };
        let fit = GpuFit { mask, ..cand.gpus };
        if self.draft.place(group, cand.node, slot, fit, &[rank]) == 0 {
            return false;
        }
        self.tally.add(group.group, rank, cand.node);
        true
    }

    /// Whether the site is within the bound of all members that it must be near to, and of itself.
    fn is_near(&self, group: usize, cand: &Cand) -> bool {
        let Some(bound) = self.ask.spec.rtt_max else { return true };
        let net = self.ask.view.net();
        let concerned = |other: usize| match self.ask.spec.rtt_scope {
            RttScope::AllPairs => true,
            RttScope::WithinGroups => other == group,
            RttScope::HeadToMembers => false,
        };
        self.tally.placed().iter().filter(|(other, ..)| concerned(*other)).all(|&(_, _, node)| {
            let site = self.ask.view.slot(node).map(|slot| slot.site.0);
            site.is_some_and(|site| net.high(site, cand.site) <= bound.0)
        })
    }
}
