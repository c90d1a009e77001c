//! Held: the domains of a level in which a job, or one group of it, stands so far, of which there
//! may be so many.
//!
//! **Invariant:** counts equal a recount of the members added and taken back.

use super::map::Map;
use super::paths::{Path, depth};
use crate::job::{DomainsMax, JobSpec};

/// One such bound.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) depth: usize,
    max: u32,
    /// Index in the spec; `None` = all groups together.
    pub(super) group: Option<usize>,
    /// Members by domain.
    counts: Vec<u32>,
    /// Domains with members.
    domains: u32,
}

impl Held {
    /// All bounds of the spec, those of each owner from wide to narrow.
    pub(super) fn of(spec: &JobSpec, map: &Map<'_>) -> Vec<Self> {
        let of_groups = spec.groups.iter().enumerate();
        let of_groups = of_groups
            .flat_map(|(at, group)| group.rules.domains_max.iter().map(move |one| (Some(at), one)));
        let all = spec.domains_max.iter().map(|one| (None, one)).chain(of_groups);
        let mut held: Vec<Self> = all.map(|(group, one)| Self::new(group, *one, map)).collect();
        held.sort_by_key(|one| (one.group, one.depth));
        held
    }

    fn new(group: Option<usize>, bound: DomainsMax, map: &Map<'_>) -> Self {
        let depth = depth(bound.level);
        Self { depth, max: bound.max, group, counts: vec![0; map.end(depth)], domains: 0 }
    }

    /// Whether members of the group count.
    pub(super) fn is_about(&self, group: usize) -> bool {
        self.group.is_none_or(|own| own == group)
    }

    /// A member comes or goes.
    pub(super) fn change(&mut self, path: &Path, comes: bool) {
        let Some(count) = self.counts.get_mut(path[self.depth] as usize) else { return };
        let before = *count > 0;
        *count = if comes { count.saturating_add(1) } else { count.saturating_sub(1) };
        match (before, *count > 0) {
            (false, true) => self.domains += 1,
            (true, false) => self.domains = self.domains.saturating_sub(1),
            _ => {}
        }
    }

    /// Whether there are members in the domain.
    pub(super) fn holds(&self, domain: u32) -> bool {
        self.counts.get(domain as usize).is_some_and(|&count| count > 0)
    }

    /// Further domains that are allowed.
    pub(super) fn left(&self) -> usize {
        self.max.saturating_sub(self.domains) as usize
    }

    /// Whether another member may stand there.
    pub(super) fn admits(&self, path: &Path) -> bool {
        self.left() > 0 || self.holds(path[self.depth])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    use std::collections::BTreeSet;

    /// Against the list of members, told by its distinct domains.
    #[test]
    fn what_is_counted_is_what_a_recount_finds() {
        let mut closed = 0;
        for seed in 0..300 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (depth, max) = (rng.random_range(0..5), rng.random_range(1..4));
            let mut held = Held { depth, max, group: None, counts: vec![0; 6], domains: 0 };
            let mut members: Vec<Path> = Vec::new();
            for _ in 0..60 {
                if rng.random_range(0..2) == 0 && !members.is_empty() {
                    let path = members.swap_remove(rng.random_range(0..members.len()));
                    held.change(&path, false);
                } else {
                    let path = std::array::from_fn(|_| rng.random_range(0..6));
                    members.push(path);
                    held.change(&path, true);
                }
                let domains: BTreeSet<u32> = members.iter().map(|path| path[depth]).collect();
                assert_eq!(held.left(), (max as usize).saturating_sub(domains.len()));
                for domain in 0..6 {
                    let mut path = [9; 5];
                    path[depth] = domain;
                    let open = domains.contains(&domain) || domains.len() < max as usize;
                    assert_eq!(
                        held.admits(&path),
                        open,
                        "SEED={seed}: {domain} beside {domains:?}"
                    );
                    assert_eq!(held.holds(domain), domains.contains(&domain));
                    closed += u32::from(!open);
                }
            }
        }
        assert!(closed > 10_000, "{closed}");
    }
}
