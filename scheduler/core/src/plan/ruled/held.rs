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
