//! Wishes: what a job would like and can do without.
//!
//! All of them are tried together first. Where they do not all hold, they are taken up one by one,
//! the most important first, and each is kept that holds beside those kept before: the topology of
//! the job, then those of its groups, its affinities in their order, and evenness last.
//! **Invariant:** no wish ever costs a replica.

use crate::job::JobSpec;

/// Wishes tried one by one; of more, the least important are dropped together.
const WISHES_MAX: usize = 24;

/// One preference; groups, affinities and spreads by their places in the spec.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Wish {
    Topology,
    GroupTopology(usize),
    Affinity(usize),
    Spread(usize, usize),
}

/// Those that are to hold as if they were required.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Wishes(Vec<Wish>);

impl Wishes {
    /// All of the job's, the most important first.
    pub(super) fn of(spec: &JobSpec) -> Self {
        let mut all: Vec<Wish> =
            spec.topology_preferred.map(|_| Wish::Topology).into_iter().collect();
        let affinities = spec.affinities.iter().enumerate().filter(|(_, one)| one.preferred);
        all.extend(affinities.map(|(at, _)| Wish::Affinity(at)));
        for (at, group) in spec.groups.iter().enumerate() {
            all.extend(group.rules.topology_preferred.map(|_| Wish::GroupTopology(at)));
            let spreads = group.rules.spread.iter().enumerate().filter(|(_, one)| one.preferred);
            all.extend(spreads.map(|(nth, _)| Wish::Spread(at, nth)));
        }
        all.sort_unstable();
        Self(all)
    }

    pub(super) fn keeps(&self, wish: Wish) -> bool {
        self.0.binary_search(&wish).is_ok()
    }

    /// Whether the affinity binds: required, or a wish that is kept.
    pub(super) fn binds(&self, spec: &JobSpec, affinity: usize) -> bool {
        let preferred = spec.affinities.get(affinity).is_some_and(|one| one.preferred);
        !preferred || self.keeps(Wish::Affinity(affinity))
    }

    /// The best that `attempt` makes of these wishes; `None` if it fails even without any.
    pub(super) fn best<R>(self, mut attempt: impl FnMut(&Self) -> Option<R>) -> Option<R> {
        if let Some(found) = attempt(&self) {
            return Some(found);
        }
        if self.0.is_empty() {
            return None;
        }
        let mut kept = Self::default();
        let mut best = attempt(&kept)?;
        let single = self.0.len() == 1;
        for wish in self.0.into_iter().take(WISHES_MAX).filter(|_| !single) {
            kept.0.push(wish);
            match attempt(&kept) {
                Some(found) => best = found,
                None => drop(kept.0.pop()),
            }
        }
        Some(best)
    }
}
