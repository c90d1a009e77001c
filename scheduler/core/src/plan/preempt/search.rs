//! Search: some candidates that are enough, of as few as can be found.
//!
//! It costs what it frees, so it frees little: the largest of the lowest priority first, and what
//! gives too few GPUs where the request may go is not even tried.
//! **Invariant:** what it says fits was placed by the planner itself; whoever it spares was shown
//! not to be needed.

mod sets;

use super::freed::Freed;
use super::reach::Reach;
use super::{Candidate, Cost, Request, Steps, Victim, probe};
use crate::command::Placement;
use crate::id::{JobId, Rank};
use crate::job::Priority;
use crate::plan::ahead::least;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Steps of one try, at most: some 10 ms.
pub(super) const TRY_STEPS: u64 = 2_000_000;
/// What a try costs beside the looks at nodes, in steps: some 20 us.
const TRY_STEPS_MIN: u64 = 4_000;
/// What it costs to free one replica or to take it back, in steps: some 1,000 ns.
const FREE_STEPS: u64 = 200;
/// What it costs to look at one unit of a list or of a set, in steps.
const UNIT_STEPS: u64 = 10;
/// Where what is enough by its GPUs does not do, so many times as many are freed next.
const MORE: usize = 4;

pub(super) struct Search<'a> {
    freed: Freed<'a>,
    request: Request<'a>,
    candidates: &'a [Candidate],
    /// By candidate: thousandths of GPUs that it holds.
    wholes: Vec<u64>,
    reach: Reach,
    /// Thousandths of GPUs that the tenant's own jobs must give back, and what those do that are
    /// freed.
    over_quota: u64,
    own_freed: u64,
    steps: Steps,
    /// Steps of one try, at most.
    try_steps: u64,
    /// Some try ended for want of steps: what it did not place might have fitted.
    is_try_cut: bool,
}

/// A set that is enough, and where the request goes with it.
struct Found {
    cost: Cost,
    units: BTreeSet<usize>,
    placements: Vec<Placement>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        freed: Freed<'a>,
        request: Request<'a>,
        candidates: &'a [Candidate],
        mut steps: Steps,
        try_steps: u64,
    ) -> Self {
        let reach = Reach::new(freed.view(), &request, freed.units.len());
        let wholes = candidates.iter().map(whole_milli).collect();
        let over_quota = request.least_gpu_milli().saturating_sub(request.gpu_milli_max);
        steps.spend(freed.units.len() as u64 * UNIT_STEPS);
        Self {
            freed,
            request,
            candidates,
            wholes,
            reach,
            over_quota,
            own_freed: 0,
            steps,
            try_steps,
            is_try_cut: false,
        }
    }

    pub(super) fn view(&self) -> &crate::view::View {
        self.freed.view()
    }

    /// Whether it, or one of its tries, ended for want of steps: fewer might do.
    pub(super) fn is_cut(&self) -> bool {
        self.steps.is_spent() || self.is_try_cut
    }

    /// Whether what was tried in vain might have fitted with more steps.
    pub(super) fn is_try_cut(&self) -> bool {
        self.is_try_cut
    }

    /// Frees what is enough, of as few jobs as it finds; where the request goes then. `None` if all
    /// candidates together are not enough.
    pub(super) fn run(&mut self) -> Option<Vec<Placement>> {
        let known = self.ceiling()?;
        let ceiling = known.cost.highest;
        let may = |this: &Self, unit: &usize| this.priority(*unit) <= ceiling;
        let (spares, wholes): (Vec<usize>, Vec<usize>) = (0..self.freed.units.len())
            .filter(|unit| may(self, unit))
            .partition(|&unit| self.spare_rank(unit).is_some());
        // The youngest lose the least.
        let mut by_age = spares.clone();
        by_age.sort_by_cached_key(|&unit| (self.ran(unit), unit));
        self.steps.spend(by_age.len() as u64 * UNIT_STEPS);
        let placements = match self.first(&by_age) {
            Some(found) => found.placements,
            None => {
                let spares = spares.into_iter().collect();
                let found = self.wholes(&spares, wholes).unwrap_or(known);
                self.free_all(&found.units);
                found.placements
            }
        };
        // Spares of those who go back whole are free anyway.
        let gone = self.gone();
        by_age.retain(|&unit| !gone.contains(&self.of(unit)));
        by_age.reverse();
        Some(self.reprieve(by_age, placements))
    }

    /// Some that are enough, of priorities as low as can be.
    fn ceiling(&mut self) -> Option<Found> {
        let mut order: Vec<usize> = (0..self.freed.units.len()).collect();
        order.sort_by_cached_key(|&unit| {
            (self.priority(unit), Reverse(self.whole_milli(unit)), unit)
        });
        let mut known = self.first(&order)?;
        let mut levels: Vec<Priority> = order.iter().map(|&unit| self.priority(unit)).collect();
        levels.dedup();
        levels.retain(|level| *level < known.cost.highest);
        self.steps.spend(order.len() as u64 * UNIT_STEPS);
        // The one after the last is known to do.
        least(0, levels.len() + 1, 1, |count| {
            let Some(highest) = count.checked_sub(1).and_then(|last| levels.get(last)) else {
                return Some(true);
            };
            if self.steps.is_spent() {
                return None;
            }
            let below = order.partition_point(|&unit| self.priority(unit) <= *highest);
            let below = order.iter().take(below).copied();
            let below = below.filter(|&unit| self.helps(unit)).collect();
            let placements = self.attempt(&below);
            let fits = placements.is_some();
            if let Some(placements) = placements {
                known = self.found(placements);
            }
            Some(fits)
        });
        Some(known)
    }

    /// So many of the first of them that they are enough, if all are. Without steps, all at once.
    fn first(&mut self, order: &[usize]) -> Option<Found> {
        let (mut sum, needed) = (self.reach.idle_milli, self.reach.needed_milli);
        let mut own = 0u64;
        let enough = order.iter().position(|&unit| {
            sum = sum.saturating_add(self.reach_of(unit).unwrap_or(0));
            own = own.saturating_add(self.own_milli(unit));
            self.helps(unit) && sum >= needed && own >= self.over_quota
        });
        let mut count = enough?.saturating_add(1);
        loop {
            count = if self.steps.is_spent() { order.len() } else { count.min(order.len()) };
            let first = order.iter().take(count).copied();
            let first: BTreeSet<usize> = first.filter(|&unit| self.helps(unit)).collect();
            if let Some(placements) = self.attempt(&first) {
                return Some(self.found(placements));
            }
            if count == order.len() {
                return None;
            }
            count = count.saturating_mul(MORE);
        }
    }

    /// Takes back whoever of these can be spared, the first first, until nobody can; where the
    /// request goes in the end.
    fn reprieve(&mut self, order: Vec<usize>, placements: Vec<Placement>) -> Vec<Placement> {
        let mut placements = placements;
        self.spare(&order, &placements);
        let mut given = self.given_now();
        loop {
            let mut spared = false;
            for &unit in &order {
                if !self.freed.is_free(unit) || self.steps.is_spent() {
                    continue;
                }
                let left = given.saturating_sub(self.reach_of(unit).unwrap_or(0));
                if left < self.reach.needed_milli || self.is_owed(unit) {
                    continue;
                }
                self.turn(unit, false);
                match self.fits() {
                    Some(found) => {
                        (placements, spared) = (found, true);
                        self.spare(&order, &placements);
                        given = self.given_now();
                    }
                    None => self.turn(unit, true),
                }
            }
            if !spared {
                return placements;
            }
        }
    }

    /// What the tenant may hold once these have given way, in thousandths of GPUs.
    pub(super) fn quota_milli(&self) -> u64 {
        self.request.gpu_milli_max.saturating_add(self.own_freed)
    }

    /// Of the quota, what these very placements need is wanted.
    pub(super) fn owes_for(&mut self, placements: &[Placement]) {
        let spec = self.request.spec;
        let milli = |one: &Placement| {
            let group = spec.group_of(one.rank).and_then(|at| spec.groups.get(at));
            group.map_or(0, |group| group.shape.gpu_milli())
        };
        let placed = placements.iter().map(milli).fold(0, u64::saturating_add);
        self.over_quota = placed.saturating_sub(self.request.gpu_milli_max);
    }

    /// Takes back all that these very placements do not need.
    pub(super) fn spare_unneeded(&mut self, placements: &[Placement]) {
        let all = self.freed.all().iter().copied().filter(|&unit| self.spare_rank(unit).is_none());
        let mut all: Vec<usize> = all.collect();
        all.sort_by_key(|&unit| Reverse((self.whole_milli(unit), self.lost(unit))));
        self.spare(&all, placements);
        let gone = self.gone();
        let spares =
            self.freed.all().iter().copied().filter(|&unit| !gone.contains(&self.of(unit)));
        let spares: Vec<usize> = spares.collect();
        self.spare(&spares, placements);
    }

    fn spare(&mut self, order: &[usize], placements: &[Placement]) {
        let mut by_node: BTreeMap<u32, Vec<&Placement>> = BTreeMap::new();
        for one in placements {
            by_node.entry(one.node.0).or_default().push(one);
        }
        for &unit in order {
            if !self.freed.is_free(unit) || self.is_owed(unit) {
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

    /// Frees these alone, and says where the least of the request would go then.
    fn attempt(&mut self, wanted: &BTreeSet<usize>) -> Option<Vec<Placement>> {
        let is_enough = self.given(wanted) >= self.reach.needed_milli
            && self.own_given(wanted) >= self.over_quota;
        if !is_enough {
            return None;
        }
        self.free_all(wanted);
        self.fits()
    }

    /// Where the least of the request would go now.
    fn fits(&mut self) -> Option<Vec<Placement>> {
        self.steps.spend(TRY_STEPS_MIN);
        let (view, request) = (self.freed.view(), &self.request);
        // A try always gets something, or a search that is cut short would end with nothing.
        let mut part = Steps::new(self.try_steps);
        let found = probe(view, request, &mut part);
        self.steps.spend(part.used);
        self.is_try_cut |= found.is_none() && part.cut;
        found
    }

    /// GPUs that the request could have if these were freed, in thousandths: at most.
    fn given(&mut self, wanted: &BTreeSet<usize>) -> u64 {
        self.steps.spend(wanted.len() as u64 * UNIT_STEPS);
        wanted.iter().fold(self.reach.idle_milli, |sum, &unit| {
            sum.saturating_add(self.reach_of(unit).unwrap_or(0))
        })
    }

    /// As [`Search::given`], of what is freed.
    fn given_now(&mut self) -> u64 {
        let all = self.freed.all().clone();
        self.given(&all)
    }

    /// Thousandths of GPUs that the unit may give to the request; `None` if it cannot help it.
    fn reach_of(&mut self, unit: usize) -> Option<u64> {
        let of = self.freed.units.get(unit)?;
        self.reach.of(self.freed.view(), unit, of, &mut self.steps)
    }

    /// Whether it could help the request to its place, or into the quota.
    fn helps(&mut self, unit: usize) -> bool {
        self.reach_of(unit).is_some() || self.own_milli(unit) > 0
    }

    /// Thousandths of GPUs of the quota that the unit gives back, where any are wanted.
    fn own_milli(&self, unit: usize) -> u64 {
        let is_own = self.over_quota > 0 && self.candidate(unit).is_some_and(|one| one.own);
        if is_own { self.milli(unit) } else { 0 }
    }

    fn own_given(&self, units: &BTreeSet<usize>) -> u64 {
        match self.over_quota {
            0 => 0,
            _ => units.iter().fold(0, |sum: u64, &unit| sum.saturating_add(self.own_milli(unit))),
        }
    }

    /// Whether the quota would be exceeded without what this one that is freed gives back.
    fn is_owed(&self, unit: usize) -> bool {
        self.own_freed.saturating_sub(self.own_milli(unit)) < self.over_quota
    }

    fn free_all(&mut self, wanted: &BTreeSet<usize>) {
        let units = wanted.len().saturating_add(self.freed.all().len()) as u64;
        let replicas = self.freed.set(wanted) as u64;
        self.own_freed = self.own_given(wanted);
        let turned = replicas.saturating_mul(FREE_STEPS);
        self.steps.spend(units.saturating_mul(UNIT_STEPS).saturating_add(turned));
    }

    fn turn(&mut self, unit: usize, free: bool) {
        let size = self.freed.units.get(unit).map_or(0, |unit| unit.len() as u64);
        self.steps.spend(size.saturating_mul(FREE_STEPS));
        if self.freed.is_free(unit) != free {
            let own = self.own_milli(unit);
            self.own_freed = match free {
                true => self.own_freed.saturating_add(own),
                false => self.own_freed.saturating_sub(own),
            };
        }
        self.freed.turn(unit, free);
    }

    fn found(&self, placements: Vec<Placement>) -> Found {
        Found { cost: self.cost(), units: self.freed.all().clone(), placements }
    }

    /// Candidates that go back whole.
    fn gone(&self) -> BTreeSet<usize> {
        self.gone_of(self.freed.all().iter().copied())
    }

    fn gone_of(&self, units: impl Iterator<Item = usize>) -> BTreeSet<usize> {
        units.filter(|&unit| self.spare_rank(unit).is_none()).map(|unit| self.of(unit)).collect()
    }

    pub(super) fn cost(&self) -> Cost {
        self.cost_of(self.freed.all())
    }

    /// What it costs to free these.
    fn cost_of(&self, units: &BTreeSet<usize>) -> Cost {
        let gone = self.gone_of(units.iter().copied());
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
            if let (Some(one), Some(&milli)) = (self.candidates.get(of), self.wholes.get(of)) {
                add(one, milli);
            }
        }
        for &unit in units {
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
        for &unit in self.freed.all() {
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

    fn job(&self, unit: usize) -> Option<JobId> {
        self.candidate(unit).map(|one| one.job)
    }

    fn ran(&self, unit: usize) -> (u64, Option<JobId>) {
        (self.candidate(unit).map_or(0, |one| one.ran.0), self.job(unit))
    }

    /// All that the unit's job holds.
    fn whole_milli(&self, unit: usize) -> u64 {
        self.wholes.get(self.of(unit)).copied().unwrap_or(0)
    }

    fn lost(&self, unit: usize) -> u128 {
        let ran = self.candidate(unit).map_or(0, |one| one.ran.0);
        u128::from(self.whole_milli(unit)) * u128::from(ran)
    }
}

fn whole_milli(one: &Candidate) -> u64 {
    let spares = one.spares.iter().map(|(_, held)| held.gpu_milli());
    spares.fold(one.rest_gpu_milli, u64::saturating_add)
}
