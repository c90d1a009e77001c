//! Sets: which jobs go back whole, where those that may lose replicas are not enough.
//!
//! One job if one does; else the first of an order that do, less those who can be spared, and then
//! whether any smaller set does.

use super::{Found, Search, UNIT_STEPS};
use crate::plan::ahead::least;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Jobs tried each by itself, of those that hold enough; for a third of the steps at most.
const SINGLES_MAX: usize = 256;
/// Sets of jobs tried, the smallest first, where a smaller one may be enough than is known; and
/// looked at for whether they hold enough.
const SETS_MAX: usize = 2_048;
const SETS_LOOKED_MAX: usize = 65_536;

impl Search<'_> {
    /// The fewest jobs that are enough when they go back whole, beside all spares.
    pub(super) fn wholes(
        &mut self,
        spares: &BTreeSet<usize>,
        mut all: Vec<usize>,
    ) -> Option<Found> {
        all.sort_by_cached_key(|&unit| (self.whole_milli(unit), self.lost(unit), self.job(unit)));
        self.steps.spend(all.len() as u64 * UNIT_STEPS);
        if let Some(found) = self.single(spares, &all) {
            return Some(found);
        }
        all.retain(|&unit| self.helps(unit));
        let crowds = self.crowds(&all);
        let crowd = |unit: usize| crowds.get(&unit).copied().unwrap_or(usize::MAX);
        let mut best: Option<Found> = None;
        for order in 0..3 {
            let mut order_of = all.clone();
            match order {
                // Those on nodes that few jobs would have to leave.
                0 => order_of.sort_by_key(|&unit| (crowd(unit), Reverse(self.whole_milli(unit)))),
                1 => order_of.reverse(),
                // The youngest.
                _ => order_of.sort_by_key(|&unit| self.ran(unit)),
            }
            self.steps.spend(all.len() as u64 * UNIT_STEPS);
            let Some(found) = self.prefix(spares, &order_of) else { continue };
            if best.as_ref().is_none_or(|best| found.cost < best.cost) {
                best = Some(found);
            }
            if self.steps.is_spent() {
                break;
            }
        }
        let best = best?;
        Some(self.smaller_sets(spares, &all, &best).unwrap_or(best))
    }

    /// The least job that is enough alone.
    fn single(&mut self, spares: &BTreeSet<usize>, all: &[usize]) -> Option<Found> {
        let (given, own) = (self.given(spares), self.own_given(spares));
        let reserve = self.steps.left() / 3 * 2;
        let mut tries = 0;
        for &unit in all {
            if self.steps.left() < reserve || tries == SINGLES_MAX {
                return None;
            }
            let more = self.reach_of(unit).unwrap_or(0);
            let is_enough = given.saturating_add(more) >= self.reach.needed_milli
                && own.saturating_add(self.own_milli(unit)) >= self.over_quota;
            if !is_enough || !self.helps(unit) {
                continue;
            }
            tries += 1;
            if let Some(placements) = self.attempt(&with(spares, [unit])) {
                return Some(self.found(placements));
            }
        }
        None
    }

    /// The first so many that are enough, less those who can be spared.
    fn prefix(&mut self, spares: &BTreeSet<usize>, order: &[usize]) -> Option<Found> {
        let mut placed = None;
        let count = least(0, order.len(), 1, |count| {
            if self.steps.is_spent() && placed.is_some() {
                return None;
            }
            let found = self.attempt(&with(spares, order.iter().take(count).copied()));
            let fits = found.is_some();
            placed = found.or(placed.take());
            Some(fits)
        })?;
        let mut first: Vec<usize> = order.iter().take(count).copied().collect();
        self.free_all(&with(spares, first.iter().copied()));
        first.sort_by_key(|&unit| Reverse((self.whole_milli(unit), self.lost(unit))));
        let placements = self.reprieve(first, placed?);
        Some(self.found(placements))
    }

    /// A smaller set than the best known, if one is found among all small ones.
    fn smaller_sets(
        &mut self,
        spares: &BTreeSet<usize>,
        all: &[usize],
        best: &Found,
    ) -> Option<Found> {
        let most = usize::try_from(best.cost.whole).unwrap_or(usize::MAX).min(all.len());
        let (given, needed) = (self.given(spares), self.reach.needed_milli);
        let own = self.own_given(spares);
        let mut largest: Vec<u64> = all.iter().filter_map(|&unit| self.reach_of(unit)).collect();
        largest.sort_unstable_by_key(|&milli| Reverse(milli));
        let (mut tries, mut looked) = (0usize, 0usize);
        // All sets of one were tried, unless there were too many; of as many as are known, a
        // cheaper one may be found.
        for size in 2..=most {
            if largest.iter().take(size).fold(given, |sum, &milli| sum.saturating_add(milli))
                < needed
            {
                continue;
            }
            let mut found: Option<Found> = None;
            let mut places: Vec<usize> = (0..size).collect();
            loop {
                if tries == SETS_MAX || looked == SETS_LOOKED_MAX || self.steps.is_spent() {
                    return found.filter(|found| found.cost < best.cost);
                }
                looked += 1;
                self.steps.spend(size as u64);
                let set = places.iter().filter_map(|&place| all.get(place).copied());
                let more = set.clone().filter_map(|unit| self.reach_of(unit));
                let has_room = more.fold(given, u64::saturating_add) >= needed;
                let more = set.clone().map(|unit| self.own_milli(unit));
                if has_room && more.fold(own, u64::saturating_add) >= self.over_quota {
                    let set = with(spares, set);
                    tries += 1;
                    let known = found.as_ref().unwrap_or(best);
                    if self.cost_of(&set) < known.cost
                        && let Some(placements) = self.attempt(&set)
                    {
                        found = Some(self.found(placements));
                    }
                }
                if !next_set(&mut places, all.len()) {
                    break;
                }
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// For each of the units: the fewest of them that share one of its nodes.
    fn crowds(&mut self, all: &[usize]) -> BTreeMap<usize, usize> {
        let units = self.freed.units;
        let nodes = |unit: &usize| units.get(*unit).into_iter().flat_map(|one| one.nodes());
        // By node: how many units, and the last of them, as one may be there with several replicas.
        let mut on = vec![(0usize, usize::MAX); self.freed.view().node_end()];
        let mut replicas = on.len() / 8;
        for unit in all {
            for node in nodes(unit) {
                replicas += 1;
                if let Some((count, last)) =
                    on.get_mut(node as usize).filter(|(_, last)| last != unit)
                {
                    (*count, *last) = (*count + 1, *unit);
                }
            }
        }
        self.steps.spend(replicas as u64 * UNIT_STEPS);
        let count = |node: u32| on.get(node as usize).map(|(count, _)| *count);
        let fewest = |unit: &usize| nodes(unit).filter_map(count).min();
        all.iter().map(|unit| (*unit, fewest(unit).unwrap_or(usize::MAX))).collect()
    }
}

fn with(spares: &BTreeSet<usize>, more: impl IntoIterator<Item = usize>) -> BTreeSet<usize> {
    spares.iter().copied().chain(more).collect()
}

/// The next set of as many of the first `all` places, in order; false after the last.
fn next_set(places: &mut [usize], all: usize) -> bool {
    let size = places.len();
    for at in (0..size).rev() {
        let Some(place) = places.get_mut(at) else { return false };
        if *place + (size - at) < all {
            *place += 1;
            let first = *place;
            for (later, next) in places.iter_mut().skip(at + 1).zip(first + 1..) {
                *later = next;
            }
            return true;
        }
    }
    false
}
