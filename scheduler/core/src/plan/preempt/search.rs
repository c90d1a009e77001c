//! Search: some candidates that are enough, of as few as can be found.
//!
//! **Invariant:** what it says fits was placed by the planner itself; whoever it spares was shown
//! not to be needed.

use super::freed::Freed;
use super::{Candidate, Cost, Request, Steps, Victim, probe};
use crate::command::Placement;
use crate::id::Rank;
use crate::job::Priority;
use crate::plan::ahead::{free_gpu_milli, least, least_gpu_milli};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Steps of one try, at most: some 10 ms.
const TRY_STEPS: u64 = 2_000_000;
/// What a try costs beside the looks at nodes, in steps: some 20 us.
const TRY_STEPS_MIN: u64 = 4_000;
/// What it costs to free one replica or to take it back, in steps: some 300 ns.
const FREE_STEPS: u64 = 60;
/// Jobs tried each by itself, of those that hold enough; for a third of the steps at most.
const SINGLES_MAX: usize = 256;
/// Sets of jobs tried, the smallest first, where a smaller one may be enough than is known.
const SETS_MAX: usize = 2_048;

pub(super) struct Search<'a> {
    freed: Freed<'a>,
    request: Request<'a>,
    candidates: &'a [Candidate],
    steps: Steps,
    /// Thousandths of GPUs: free with nothing freed, and needed at least.
    idle_milli: u64,
    needed_milli: u64,
}

/// A set that is enough, and where the request goes with it.
struct Found {
    cost: Cost,
    units: Vec<usize>,
    placements: Vec<Placement>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        freed: Freed<'a>,
        request: Request<'a>,
        candidates: &'a [Candidate],
        steps: Steps,
    ) -> Self {
        let idle_milli = free_gpu_milli(freed.view());
        let needed_milli = least_gpu_milli(request.spec);
        // Where part of the job is done already, less is needed than that.
        let needed_milli = match request.ranks {
            crate::plan::Ranks::All => needed_milli,
            crate::plan::Ranks::Some(_) => 0,
        };
        Self { freed, request, candidates, steps, idle_milli, needed_milli }
    }

    pub(super) fn view(&self) -> &crate::view::View {
        self.freed.view()
    }

    /// Whether it ended for want of steps.
    pub(super) fn is_cut(&self) -> bool {
        self.steps.is_spent()
    }

    /// Frees what is enough, of as few jobs as it finds; where the request goes then. `None` if all
    /// candidates together are not enough.
    pub(super) fn run(&mut self) -> Option<Vec<Placement>> {
        let ceiling = self.ceiling()?;
        let may: Vec<bool> =
            (0..self.freed.units.len()).map(|unit| self.priority(unit) <= ceiling).collect();
        let may = |unit: usize| may.get(unit).copied().unwrap_or(false);
        let spares = |this: &Self, unit: usize| may(unit) && this.spare_rank(unit).is_some();
        let with_spares: BTreeSet<usize> =
            (0..self.freed.units.len()).filter(|&unit| spares(self, unit)).collect();
        self.free_all(|unit| with_spares.contains(&unit));
        let placements = match self.fits() {
            Some(placements) => placements,
            None => {
                let wholes: Vec<usize> = (0..self.freed.units.len())
                    .filter(|&unit| may(unit) && self.spare_rank(unit).is_none())
                    .collect();
                let found = self.wholes(&with_spares, wholes)?;
                self.free_all(|unit| found.units.binary_search(&unit).is_ok());
                found.placements
            }
        };
        // Spares of those who go back whole are free anyway.
        let gone = self.gone();
        let spares: Vec<usize> =
            with_spares.into_iter().filter(|&unit| !gone.contains(&self.of(unit))).collect();
        Some(self.reprieve(spares, placements))
    }

    /// Highest priority up to which candidates must give way.
    fn ceiling(&mut self) -> Option<Priority> {
        let levels: BTreeSet<Priority> = self.candidates.iter().map(|one| one.priority).collect();
        let levels: Vec<Priority> = levels.into_iter().collect();
        let up_to = |this: &mut Self, count: usize| {
            let highest = count.checked_sub(1).and_then(|last| levels.get(last)).copied();
            let all: Vec<bool> = (0..this.freed.units.len())
                .map(|unit| highest.is_some_and(|highest| this.priority(unit) <= highest))
                .collect();
            this.free_all(|unit| all.get(unit).copied().unwrap_or(false));
            this.fits().is_some()
        };
        if !up_to(self, levels.len()) {
            return None;
        }
        let enough = least(0, levels.len(), 1, |count| {
            (!self.steps.is_spent()).then(|| count == levels.len() || up_to(self, count))
        });
        let enough = enough.unwrap_or(levels.len());
        enough.checked_sub(1).and_then(|last| levels.get(last)).copied()
    }

    /// The fewest jobs that are enough when they go back whole, beside all spares.
    fn wholes(&mut self, spares: &BTreeSet<usize>, mut all: Vec<usize>) -> Option<Found> {
        all.sort_by_key(|&unit| (self.whole_milli(unit), self.lost(unit), self.job(unit)));
        if let Some(found) = self.single(spares, &all) {
            return Some(found);
        }
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
        let spare = spares.iter().map(|&unit| self.milli(unit));
        let given = spare.fold(self.idle_milli, u64::saturating_add);
        let reserve = self.steps.left() / 3 * 2;
        let enough = all
            .iter()
            .copied()
            .filter(|&unit| given.saturating_add(self.milli(unit)) >= self.needed_milli);
        let enough: Vec<usize> = enough.take(SINGLES_MAX).collect();
        for unit in enough {
            if self.steps.left() < reserve {
                return None;
            }
            self.free_all(|one| one == unit || spares.contains(&one));
            if let Some(placements) = self.fits() {
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
            let first: BTreeSet<usize> = order.iter().take(count).copied().collect();
            self.free_all(|unit| first.contains(&unit) || spares.contains(&unit));
            let found = self.fits();
            let fits = found.is_some();
            placed = found.or(placed.take());
            Some(fits)
        })?;
        let first: BTreeSet<usize> = order.iter().take(count).copied().collect();
        self.free_all(|unit| first.contains(&unit) || spares.contains(&unit));
        let mut order: Vec<usize> = order.iter().take(count).copied().collect();
        order.sort_by_key(|&unit| Reverse((self.whole_milli(unit), self.lost(unit))));
        let placements = self.reprieve(order, placed?);
        Some(self.found(placements))
    }

    /// A smaller set than the best known, if one is found among all small ones.
    fn smaller_sets(
        &mut self,
        spares: &BTreeSet<usize>,
        all: &[usize],
        best: &Found,
    ) -> Option<Found> {
        let most = usize::try_from(best.cost.whole).unwrap_or(usize::MAX);
        let mut tries = 0usize;
        // All sets of one were tried, unless there were too many; of as many as are known, a
        // cheaper one may be found.
        for size in 2..=most {
            let mut found: Option<Found> = None;
            let mut places: Vec<usize> = (0..size).collect();
            if size > all.len() {
                return None;
            }
            loop {
                if tries == SETS_MAX || self.steps.is_spent() {
                    return found.filter(|found| found.cost < best.cost);
                }
                let set: BTreeSet<usize> =
                    places.iter().filter_map(|&place| all.get(place).copied()).collect();
                self.free_all(|unit| set.contains(&unit) || spares.contains(&unit));
                tries += 1;
                let known = found.as_ref().unwrap_or(best);
                if self.is_enough()
                    && self.cost() < known.cost
                    && let Some(placements) = self.fits()
                {
                    found = Some(self.found(placements));
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

    /// Takes back whoever of these can be spared, the first first, until nobody can; where the
    /// request goes in the end.
    fn reprieve(&mut self, order: Vec<usize>, placements: Vec<Placement>) -> Vec<Placement> {
        let mut placements = placements;
        self.spare(&order, &placements);
        loop {
            let mut spared = false;
            for &unit in &order {
                if !self.freed.is_free(unit) || self.steps.is_spent() {
                    continue;
                }
                self.turn(unit, false);
                match self.fits() {
                    Some(found) => {
                        (placements, spared) = (found, true);
                        self.spare(&order, &placements);
                    }
                    None => self.turn(unit, true),
                }
            }
            if !spared {
                return placements;
            }
        }
    }

    /// Takes back all that these very placements do not need.
    pub(super) fn spare_unneeded(&mut self, placements: &[Placement]) {
        let mut all = self.freed.all();
        all.retain(|&unit| self.spare_rank(unit).is_none());
        all.sort_by_key(|&unit| Reverse((self.whole_milli(unit), self.lost(unit))));
        self.spare(&all, placements);
        let gone = self.gone();
        let mut spares = self.freed.all();
        spares.retain(|&unit| !gone.contains(&self.of(unit)));
        self.spare(&spares, placements);
    }

    fn spare(&mut self, order: &[usize], placements: &[Placement]) {
        let mut by_node: BTreeMap<u32, Vec<&Placement>> = BTreeMap::new();
        for one in placements {
            by_node.entry(one.node.0).or_default().push(one);
        }
        for &unit in order {
            if !self.freed.is_free(unit) {
                continue;
            }
            let nodes: BTreeSet<u32> =
                self.freed.units.get(unit).into_iter().flat_map(|unit| unit.nodes()).collect();
            let mut there = nodes.iter().filter_map(|node| by_node.get(node)).peekable();
            self.steps.spend(nodes.len() as u64);
            if there.peek().is_none() {
                self.turn(unit, false);
                continue;
            }
            let there: Vec<&Placement> = there.flatten().copied().collect();
            self.turn(unit, false);
            if !self.freed.holds(self.request.spec, &there) {
                self.turn(unit, true);
            }
        }
    }

    /// Where the least of the request would go now.
    fn fits(&mut self) -> Option<Vec<Placement>> {
        if !self.is_enough() {
            return None;
        }
        self.steps.spend(TRY_STEPS_MIN);
        let (view, request) = (self.freed.view(), &self.request);
        // A try always gets something, or a search that is cut short would end with nothing.
        let mut part = Steps::new(TRY_STEPS);
        let found = probe(view, request, &mut part);
        self.steps.spend(part.used);
        found
    }

    /// Whether as many GPUs are free as are needed, whichever they are.
    fn is_enough(&mut self) -> bool {
        self.steps.spend(self.freed.units.len() as u64);
        let freed = self.freed.all().into_iter().map(|unit| self.milli(unit));
        freed.fold(self.idle_milli, u64::saturating_add) >= self.needed_milli
    }

    fn free_all(&mut self, wanted: impl Fn(usize) -> bool) {
        let replicas = self.freed.set(wanted) as u64;
        let units = self.freed.units.len() as u64;
        self.steps.spend(units.saturating_add(replicas.saturating_mul(FREE_STEPS)));
    }

    fn turn(&mut self, unit: usize, free: bool) {
        let size = self.freed.units.get(unit).map_or(0, |unit| unit.len() as u64);
        self.steps.spend(size.saturating_mul(FREE_STEPS));
        self.freed.turn(unit, free);
    }

    /// For each of the units: the fewest of them that share one of its nodes.
    fn crowds(&self, all: &[usize]) -> BTreeMap<usize, usize> {
        let mut on: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        let nodes =
            |unit: &usize| self.freed.units.get(*unit).into_iter().flat_map(|one| one.nodes());
        for unit in all {
            nodes(unit).for_each(|node| {
                on.entry(node).or_default().insert(*unit);
            });
        }
        let fewest =
            |unit: &usize| nodes(unit).filter_map(|node| on.get(&node)).map(BTreeSet::len).min();
        all.iter().map(|unit| (*unit, fewest(unit).unwrap_or(usize::MAX))).collect()
    }

    fn found(&self, placements: Vec<Placement>) -> Found {
        Found { cost: self.cost(), units: self.freed.all(), placements }
    }

    /// Candidates that go back whole.
    fn gone(&self) -> BTreeSet<usize> {
        let all = self.freed.all().into_iter();
        all.filter(|&unit| self.spare_rank(unit).is_none()).map(|unit| self.of(unit)).collect()
    }

    pub(super) fn cost(&self) -> Cost {
        let gone = self.gone();
        let whole = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        let (mut highest, mut gpu_milli, mut lost) = (Priority::MIN, 0u64, 0u128);
        let mut jobs = BTreeSet::new();
        let mut add = |one: &Candidate, milli: u64| {
            highest = highest.max(one.priority);
            gpu_milli = gpu_milli.saturating_add(milli);
            lost = lost.saturating_add(u128::from(milli) * u128::from(one.ran.0));
            jobs.insert(one.job);
        };
        for &of in &gone {
            if let Some(one) = self.candidates.get(of) {
                add(one, whole_milli(one));
            }
        }
        for unit in self.freed.all() {
            let of = self.of(unit);
            if let Some(one) = self.candidates.get(of).filter(|_| !gone.contains(&of)) {
                add(one, self.milli(unit));
            }
        }
        Cost { highest, whole, gpu_milli, lost, jobs: jobs.into_iter().collect() }
    }

    /// Who gives way, by rising job.
    pub(super) fn victims(&self) -> Vec<Victim> {
        let gone = self.gone();
        let mut ranks: BTreeMap<usize, Vec<Rank>> = BTreeMap::new();
        for unit in self.freed.all() {
            let of = ranks.entry(self.of(unit)).or_default();
            of.extend(self.spare_rank(unit));
        }
        let victim = |(of, ranks): (usize, Vec<Rank>)| {
            let ranks = if gone.contains(&of) { Vec::new() } else { ranks };
            Some(Victim { job: self.candidates.get(of)?.job, ranks })
        };
        let mut victims: Vec<Victim> = ranks.into_iter().filter_map(victim).collect();
        victims.sort_by_key(|victim| victim.job);
        victims
    }

    fn of(&self, unit: usize) -> usize {
        self.freed.units.get(unit).map_or(usize::MAX, |unit| unit.of)
    }

    fn spare_rank(&self, unit: usize) -> Option<Rank> {
        self.freed.units.get(unit).and_then(|unit| unit.spare)
    }

    fn milli(&self, unit: usize) -> u64 {
        self.freed.units.get(unit).map_or(0, |unit| unit.gpu_milli)
    }

    fn candidate(&self, unit: usize) -> Option<&'a Candidate> {
        self.candidates.get(self.of(unit))
    }

    fn priority(&self, unit: usize) -> Priority {
        self.candidate(unit).map_or(Priority::MAX, |one| one.priority)
    }

    fn job(&self, unit: usize) -> Option<crate::id::JobId> {
        self.candidate(unit).map(|one| one.job)
    }

    fn ran(&self, unit: usize) -> (u64, Option<crate::id::JobId>) {
        (self.candidate(unit).map_or(0, |one| one.ran.0), self.job(unit))
    }

    /// All that the unit's job holds.
    fn whole_milli(&self, unit: usize) -> u64 {
        self.candidate(unit).map_or(0, whole_milli)
    }

    fn lost(&self, unit: usize) -> u128 {
        let ran = self.candidate(unit).map_or(0, |one| one.ran.0);
        u128::from(self.whole_milli(unit)) * u128::from(ran)
    }
}

fn whole_milli(one: &Candidate) -> u64 {
    let spares = one.spares.iter().map(|(_, milli, _)| *milli);
    spares.fold(one.rest_gpu_milli, u64::saturating_add)
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
