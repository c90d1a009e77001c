//! Within: whether all sites of a list lie within a bound of each other, for many lists at a time.
//!
//! **Invariant:** looks at a pair of sites once for each list that has both, or once in all where
//! the lists have more pairs together than there are.

use super::Sites;
use crate::bits;
use crate::id::SiteId;
use crate::unit::RttUs;

pub(super) fn are_within(sites: &Sites, lists: &[Vec<SiteId>], bound: RttUs) -> bool {
    let near = |a: SiteId, b: SiteId| sites.rtt(a, b).is_some_and(|rtt| rtt <= bound);
    let mut sets: Vec<Vec<SiteId>> = Vec::with_capacity(lists.len());
    for list in lists {
        let mut set = list.clone();
        set.sort_unstable();
        // Members at one site count with its inner RTT.
        let mut neighbours = set.iter().zip(set.iter().skip(1));
        if neighbours.any(|(&a, &b)| a == b && !near(a, b)) {
            return false;
        }
        set.dedup();
        sets.push(set);
    }
    let pairs: usize = sets.iter().map(|set| set.len() * set.len() / 2).sum();
    if pairs > sites.len() * sites.len() {
        return sets.iter().all(by_rows(sites, bound));
    }
    // What was measured lies by the larger site.
    let below = |set: &[SiteId], at: usize, b: SiteId| set.iter().take(at).all(|&a| near(a, b));
    sets.iter().all(|set| set.iter().enumerate().all(|(at, &b)| below(set, at, b)))
}

/// The same for one list after another, with a row of bits for every site that was met.
fn by_rows(sites: &Sites, bound: RttUs) -> impl FnMut(&Vec<SiteId>) -> bool {
    let words = bits::words(sites.len());
    let mut rows: Vec<Option<Vec<u64>>> = vec![None; sites.len()];
    let row = move |from: SiteId| {
        let mut row = vec![0; words];
        for (site, _) in sites.iter() {
            if site == from || sites.rtt(from, site).is_some_and(|rtt| rtt <= bound) {
                bits::set(&mut row, usize::from(site.0));
            }
        }
        row
    };
    move |set| {
        let mut members = vec![0; words];
        set.iter().for_each(|site| bits::set(&mut members, usize::from(site.0)));
        set.len() < 2
            || set.iter().all(|&site| {
                let Some(known) = rows.get_mut(usize::from(site.0)) else { return false };
                let near = known.get_or_insert_with(|| row(site));
                members.iter().zip(near.iter()).all(|(members, near)| members & !near == 0)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::cities::no_geometry;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    /// Pair by pair, as the rule is told.
    fn naive(sites: &Sites, list: &[SiteId], bound: RttUs) -> bool {
        list.iter().enumerate().all(|(at, &site)| {
            let near = |&other: &SiteId| sites.rtt(site, other).is_some_and(|rtt| rtt <= bound);
            list.iter().skip(at + 1).all(near)
        })
    }

    #[test]
    fn lists_are_within_a_bound_if_every_pair_is() {
        let mut rng = StdRng::seed_from_u64(5);
        let sites = no_geometry(24, 3);
        let (mut yes, mut no) = (0, 0);
        for round in 0..2_000 {
            let count = if round % 2 == 0 { 2 } else { 60 };
            let bound = RttUs(rng.random_range(100..400_000));
            let lists: Vec<Vec<SiteId>> = (0..count)
                .map(|_| {
                    // Now and then one that does not exist.
                    let site = |_| SiteId(rng.random_range(0..24) + u16::from(round % 97 == 0));
                    (0..round % 7).map(site).collect()
                })
                .collect();
            let truth = lists.iter().all(|list| naive(&sites, list, bound));
            assert_eq!(sites.are_within(&lists, bound), truth, "{lists:?} {bound:?}");
            for list in &lists {
                let truth = naive(&sites, list, bound);
                assert_eq!(
                    by_rows(&sites, bound)(&unique(list)),
                    naive(&sites, &unique(list), bound)
                );
                if truth { yes += 1 } else { no += 1 }
            }
        }
        assert!(yes > 1_000 && no > 1_000, "{yes} {no}");
    }

    fn unique(list: &[SiteId]) -> Vec<SiteId> {
        let mut set = list.to_vec();
        set.sort_unstable();
        set.dedup();
        set
    }
}
