//! Exact search for the best sites, written apart from the planner's: to measure it by.
//!
//! **Invariant:** shares no code with the planner's search, and says when it gave up.

use super::split::Split;

/// An instance: what each pair of sites costs (`None` = not allowed), what each site has, and what
/// is needed, per dimension.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Row by row, the diagonal for pairs inside a site.
    pub cost: Vec<Vec<Option<u32>>>,
    pub have: Vec<Vec<u64>>,
    pub need: Vec<u64>,
}

/// What an exact search ended with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exact<T> {
    Best(T),
    /// Proven: there is none.
    None,
    /// Its limit of nodes was reached.
    Aborted,
}

impl Instance {
    fn cost(&self, a: usize, b: usize) -> Option<u32> {
        *self.cost.get(a)?.get(b)?
    }

    fn near(&self, a: usize, b: usize, most: u32) -> bool {
        self.cost(a, b).is_some_and(|cost| cost <= most)
    }

    fn covers(&self, sites: &[usize]) -> bool {
        self.need.iter().enumerate().all(|(at, need)| {
            let have: u64 = sites.iter().filter_map(|&site| self.have.get(site)?.get(at)).sum();
            have >= *need
        })
    }

    /// The least largest cost among sites that together have what is needed: binary search over
    /// the costs there are, each decided by leaving out conflicting sites.
    pub fn diameter(&self, nodes_max: u64) -> Exact<u32> {
        let mut costs: Vec<u32> = self.cost.iter().flatten().flatten().copied().collect();
        costs.sort_unstable();
        costs.dedup();
        let (mut low, mut high) = (0, costs.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(&most) = costs.get(middle) else { break };
            match self.within(most, nodes_max) {
                Exact::Best(_) => high = middle,
                Exact::None => low = middle + 1,
                Exact::Aborted => return Exact::Aborted,
            }
        }
        costs.get(low).map_or(Exact::None, |&best| Exact::Best(best))
    }

    /// Whether some sites no two of which cost more have what is needed.
    pub fn within(&self, most: u32, nodes_max: u64) -> Exact<()> {
        let some = |site: &usize| self.near(*site, *site, most);
        let mut nodes = nodes_max;
        self.leave_out((0..self.have.len()).filter(some).collect(), most, &mut nodes)
    }

    /// Of the site with most conflicts: it leaves, or all it conflicts with leave.
    fn leave_out(&self, sites: Vec<usize>, most: u32, nodes: &mut u64) -> Exact<()> {
        if *nodes == 0 {
            return Exact::Aborted;
        }
        *nodes -= 1;
        if !self.covers(&sites) {
            return Exact::None;
        }
        let foes = |site: usize| {
            sites.iter().filter(|&&other| other != site && !self.near(site, other, most)).count()
        };
        let worst = sites.iter().map(|&site| (foes(site), site)).max();
        let Some((_, worst)) = worst.filter(|(foes, _)| *foes > 0) else {
            return Exact::Best(());
        };
        if !self.covers_despite_pairs(&sites, most) {
            return Exact::None;
        }
        let stays = |&&site: &&usize| site == worst || self.near(site, worst, most);
        let with = self.leave_out(sites.iter().filter(stays).copied().collect(), most, nodes);
        if with != Exact::None {
            return with;
        }
        let rest = sites.iter().filter(|&&site| site != worst).copied().collect();
        self.leave_out(rest, most, nodes)
    }

    /// Of every two conflicting sites at least the smaller is lost, for as many disjoint pairs as
    /// are found.
    fn covers_despite_pairs(&self, sites: &[usize], most: u32) -> bool {
        (0..self.need.len()).all(|at| {
            let have = |site: usize| self.have[site][at];
            let mut left: u64 = sites.iter().map(|&site| have(site)).sum();
            let mut free: Vec<usize> = sites.to_vec();
            free.sort_by_key(|&site| (std::cmp::Reverse(have(site)), site));
            while let Some(site) = (!free.is_empty()).then(|| free.remove(0)) {
                if let Some(foe) = free.iter().position(|&other| !self.near(site, other, most)) {
                    left -= have(free.remove(foe));
                }
            }
            left >= self.need[at]
        })
    }

    /// Bounds of the least sum of costs over all pairs of members, where each site takes up to
    /// what it has of the first dimension: a lower one that is proven, and whether it is reached.
    /// Right where moving is concave (see below), which small inner costs make sure of.
    pub fn sum(&self, at_most: u128, nodes_max: u64) -> (u128, bool) {
        let (split, floor) = Split::best(self, at_most);
        if floor >= at_most {
            return (at_most, true);
        }
        let (best, nodes) = (at_most, nodes_max);
        let mut dive = SumDive { instance: self, split, best, floor: u128::MAX, nodes };
        let open: Vec<usize> =
            (0..self.have.len()).filter(|&site| self.have[site][0] > 0).collect();
        dive.step(&Part { full: Vec::new(), sum: 0, left: self.need[0], partial: None }, &open);
        (dive.best.min(dive.floor.max(floor)), dive.floor >= dive.best)
    }
}

/// Sites that are full, what their pairs cost, and how many members are left. Since moving is
/// concave, in some best choice at most one site is partly used.
#[derive(Clone)]
struct Part {
    full: Vec<usize>,
    sum: u128,
    left: u64,
    partial: Option<usize>,
}

struct SumDive<'a> {
    instance: &'a Instance,
    /// Which end pays how much of a pair, for the bounds.
    split: Split,
    best: u128,
    /// Least bound of what was not looked at.
    floor: u128,
    nodes: u64,
}

impl SumDive<'_> {
    fn step(&mut self, part: &Part, open: &[usize]) {
        if part.left == 0 {
            self.best = self.best.min(part.sum);
            return;
        }
        let last = part.partial.filter(|&site| self.instance.have[site][0] >= part.left);
        if let Some(more) = last.and_then(|site| self.with(part, site, part.left)) {
            self.best = self.best.min(part.sum + more);
        }
        let Some((bound, site)) = self.bound(part, open) else { return };
        if part.sum + bound >= self.best {
            return;
        }
        if self.nodes == 0 {
            self.floor = self.floor.min(part.sum + bound);
            return;
        }
        self.nodes -= 1;
        let Some(site) = site else { return };
        let rest: Vec<usize> = open.iter().filter(|&&other| other != site).copied().collect();
        let beside: Vec<usize> = rest
            .iter()
            .filter(|&&other| self.instance.cost(site, other).is_some())
            .copied()
            .collect();
        let room = self.instance.have[site][0];
        let fits = part.partial.is_none_or(|other| self.instance.cost(site, other).is_some());
        let whole = fits && room <= part.left;
        if let Some(more) = whole.then(|| self.with(part, site, room)).flatten() {
            let mut with = part.clone();
            with.full.push(site);
            (with.sum, with.left) = (part.sum + more, part.left - room);
            self.step(&with, &beside);
        }
        if part.partial.is_none() {
            self.step(&Part { partial: Some(site), ..part.clone() }, &beside);
        }
        self.step(part, &rest);
    }

    /// What so many members at the site add.
    fn with(&self, part: &Part, site: usize, members: u64) -> Option<u128> {
        let mut sum = 0;
        for &other in &part.full {
            let pairs = u128::from(members) * u128::from(self.instance.have[other][0]);
            sum += pairs * u128::from(self.instance.cost(site, other)?);
        }
        let pairs = u128::from(members) * u128::from(members - 1) / 2;
        Some(sum + pairs * u128::from(self.instance.cost(site, site)?))
    }

    /// What the members left add at least, each paying to the full sites, and its part to the
    /// cheapest others there could be; and the open site that is the cheapest so.
    fn bound(&self, part: &Part, open: &[usize]) -> Option<(u128, Option<usize>)> {
        let usable: Vec<usize> = open.iter().chain(&part.partial).copied().collect();
        let mut prices: Vec<(i128, usize)> = Vec::new();
        for &site in &usable {
            let mut near: Vec<(i64, u64)> = usable
                .iter()
                .filter_map(|&other| {
                    let own = u64::from(other == site);
                    Some((self.split.pays(site, other)?, self.instance.have[other][0] - own))
                })
                .collect();
            near.sort_unstable();
            let (mut left, mut twice) = (part.left - 1, 0i128);
            for (cost, room) in near {
                let some = room.min(left);
                twice += i128::from(some) * i128::from(cost);
                left -= some;
            }
            let to_full = |&other: &usize| {
                Some(
                    u128::from(self.instance.cost(site, other)?)
                        * u128::from(self.instance.have[other][0]),
                )
            };
            let full: Option<u128> = part.full.iter().map(to_full).sum();
            if let Some(full) = full.filter(|_| left == 0) {
                prices.push((2 * Split::parts(full) + twice, site));
            }
        }
        prices.sort_unstable();
        let (mut left, mut twice) = (part.left, 0i128);
        for &(price, site) in &prices {
            let some = self.instance.have[site][0].min(left);
            twice += i128::from(some) * price;
            left -= some;
        }
        let first = prices.iter().map(|&(_, site)| site).find(|site| open.contains(site));
        (left == 0).then_some((Split::sum(twice), first))
    }
}
