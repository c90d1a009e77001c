//! Split: a lower bound of the least sum over pairs that is far tighter than each member's own
//! cheapest company.
//!
//! What a pair of sites costs is paid by both ends, half and half or in any other split. For every
//! split, each member pays at least for the company that is cheapest to it, and members take the
//! cheapest sites: the bound of Gilmore and Lawler. The best split is looked for by subgradients
//! (the Lagrangian dual of the first level of the reformulation of Adams and Sherali).
//! **Invariant:** the split is in whole numbers and its bound is worked out exactly, so the bound
//! holds whatever the floats on the way to it did.

use super::exact::Instance;

/// Parts of a microsecond in which a split is told.
const SCALE: i64 = 256;
/// Looks at better splits; after some hundred, little is won.
const ROUNDS_MAX: usize = 400;
/// Rounds in vain after which steps become shorter.
const PATIENCE: usize = 12;

/// What each site pays for a member of another one, so that both ends together pay the pair twice.
#[derive(Clone, Debug)]
pub(super) struct Split {
    len: usize,
    /// Row by row; `None` = not allowed together.
    pays: Vec<Option<i64>>,
}

/// A bound and where it comes from.
struct Bound {
    /// Of twice the sum over pairs, in parts.
    twice: i128,
    /// Members at each site, and for each of them the members beside, as it would have them.
    units: Vec<u64>,
    beside: Vec<Vec<u64>>,
}

impl Split {
    /// Each end pays the pair once.
    pub(super) fn even(instance: &Instance) -> Self {
        let scaled = |cost: &Option<u32>| cost.map(|cost| i64::from(cost) * SCALE);
        let pays = instance.cost.iter().flatten().map(scaled).collect();
        Self { len: instance.have.len(), pays }
    }

    /// The best split found, and its lower bound of the sum over pairs. Stops where the bound
    /// comes up to `at_most`.
    pub(super) fn best(instance: &Instance, at_most: u128) -> (Self, u128) {
        let mut split = Self::even(instance);
        let aim = i128::try_from(at_most).unwrap_or(i128::MAX / 4).min(i128::MAX / 4096);
        let aim = aim * 2 * i128::from(SCALE);
        let mut best: Option<(Self, i128)> = None;
        let (mut pace, mut vain) = (1.0f64, 0);
        for _ in 0..ROUNDS_MAX {
            let Some(bound) = split.bound(instance) else { break };
            if best.as_ref().is_none_or(|(_, least)| bound.twice > *least) {
                best = Some((split.clone(), bound.twice));
                vain = 0;
            } else {
                vain += 1;
            }
            if bound.twice >= aim {
                break;
            }
            if vain == PATIENCE {
                (pace, vain) = (pace * 0.7, 0);
                split = best.as_ref().map_or(split, |(best, _)| best.clone());
                continue;
            }
            if !split.shift(&bound, pace * (aim - bound.twice) as f64) {
                break;
            }
        }
        let (split, twice) = best.unwrap_or((split, 0));
        (split, Self::sum(twice))
    }

    /// A bound of the sum over pairs from one of twice the sum in parts.
    pub(super) fn sum(twice: i128) -> u128 {
        u128::try_from(twice / (2 * i128::from(SCALE))).unwrap_or(0)
    }

    /// Parts that a cost is told in.
    pub(super) fn parts(cost: u128) -> i128 {
        i128::try_from(cost).unwrap_or(i128::MAX / 4096) * i128::from(SCALE)
    }

    /// What a member at `site` pays for one at `other`.
    pub(super) fn pays(&self, site: usize, other: usize) -> Option<i64> {
        *self.pays.get(site * self.len + other)?
    }

    fn bound(&self, instance: &Instance) -> Option<Bound> {
        let need = *instance.need.first()?;
        let room = |site: usize| instance.have[site][0];
        let mut beside = vec![vec![0u64; self.len]; self.len];
        let mut prices: Vec<(i128, usize)> = Vec::new();
        for (site, chosen) in beside.iter_mut().enumerate().filter(|(site, _)| room(*site) > 0) {
            let mut near: Vec<(i64, usize)> =
                (0..self.len).filter_map(|other| Some((self.pays(site, other)?, other))).collect();
            near.sort_unstable();
            let (mut left, mut price) = (need - 1, 0i128);
            for (pays, other) in near {
                let some = (room(other) - u64::from(other == site).min(room(other))).min(left);
                price += i128::from(some) * i128::from(pays);
                chosen[other] = some;
                left -= some;
                if left == 0 {
                    break;
                }
            }
            if left == 0 {
                prices.push((price, site));
            }
        }
        prices.sort_unstable();
        let (mut left, mut twice, mut units) = (need, 0i128, vec![0u64; self.len]);
        for (price, site) in prices {
            let some = room(site).min(left);
            twice += i128::from(some) * price;
            units[site] = some;
            left -= some;
        }
        (left == 0).then_some(Bound { twice, units, beside })
    }

    /// Moves what pairs cost to the end that has more of the other as company. `way`: how far the
    /// bound may rise. Whether anything is to be moved.
    fn shift(&mut self, bound: &Bound, way: f64) -> bool {
        let company =
            |site: usize, other: usize| bound.units[site] as f64 * bound.beside[site][other] as f64;
        let mut slopes: Vec<(usize, usize, f64)> = Vec::new();
        let mut norm = 0.0;
        for site in 0..self.len {
            for other in site + 1..self.len {
                let slope = company(site, other) - company(other, site);
                if slope != 0.0 {
                    slopes.push((site, other, slope));
                    norm += slope * slope;
                }
            }
        }
        for &(site, other, slope) in &slopes {
            let more = (way * slope / norm).round() as i64;
            for (at, more) in [(site * self.len + other, more), (other * self.len + site, -more)] {
                self.pays[at] = self.pays[at].map(|pays| pays.saturating_add(more));
            }
        }
        norm > 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Few sites with any costs between them, small ones inside, and some pairs barred.
    fn instance(rng: &mut StdRng) -> Instance {
        let len = rng.random_range(2..6);
        let mut cost = vec![vec![Some(rng.random_range(0..5)); len]; len];
        for (a, b) in (0..len).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let some = (rng.random_range(0..8) > 0).then(|| rng.random_range(10..1_000));
            (cost[a][b], cost[b][a]) = (some, some);
        }
        let have = (0..len).map(|_| vec![rng.random_range(0..6)]).collect();
        Instance { cost, have, need: vec![rng.random_range(2..10)] }
    }

    /// The least sum over pairs, by every way to share the members out.
    fn least(instance: &Instance, units: &mut Vec<u64>, left: u64) -> Option<u128> {
        let at = units.len();
        if at == instance.have.len() {
            return (left == 0).then(|| sum(instance, units)).flatten();
        }
        let all = 0..=instance.have[at][0].min(left);
        all.filter_map(|some| {
            units.push(some);
            let found = least(instance, units, left - some);
            units.pop();
            found
        })
        .min()
    }

    fn sum(instance: &Instance, units: &[u64]) -> Option<u128> {
        let mut sum = 0;
        for (a, &some) in units.iter().enumerate().filter(|(_, some)| **some > 0) {
            sum += u128::from(some * (some - 1) / 2) * u128::from(instance.cost[a][a]?);
            for (b, &others) in units[..a].iter().enumerate().filter(|(_, some)| **some > 0) {
                sum += u128::from(some * others) * u128::from(instance.cost[a][b]?);
            }
        }
        Some(sum)
    }

    #[test]
    fn no_choice_is_below_the_bound_and_the_best_split_is_no_worse_than_the_even_one() {
        let (mut compared, mut better, mut reached) = (0, 0, 0);
        for seed in 0..500 {
            let instance = instance(&mut StdRng::seed_from_u64(seed));
            let Some(least) = least(&instance, &mut Vec::new(), instance.need[0]) else { continue };
            let even = Split::even(&instance).bound(&instance).expect("there is a choice");
            let even = Split::sum(even.twice);
            let (_, bound) = Split::best(&instance, least);
            assert!(even <= bound && bound <= least, "seed {seed}: {even}, {bound}, {least}");
            compared += 1;
            better += u32::from(bound > even);
            reached += u32::from(bound == least);
        }
        assert!(compared > 100 && better > 20, "{better} of {compared} better");
        assert!(reached * 2 > compared, "{reached} of {compared} reached");
    }
}
