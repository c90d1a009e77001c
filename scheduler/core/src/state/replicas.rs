//! All replicas of one job, packed, in pages that frozen views share.
//!
//! **Invariant:** one for each rank, those of absent replicas too, so their number never changes in
//! the life of a job.

use super::rows::REPLICAS_PER_ROW;
use crate::id::Rank;
use crate::job::{GroupSpec, JobSpec, Replica, ReplicaPhase};
use std::sync::Arc;

#[derive(Clone, PartialEq, Debug)]
pub(super) enum Replicas {
    /// At most one page.
    Few(Arc<[Replica]>),
    /// Full pages and a last one of the rest.
    Many(Arc<Vec<Arc<[Replica]>>>),
}

/// A replica that was never bound.
pub(super) const fn blank(phase: ReplicaPhase) -> Replica {
    Replica { phase, allocation: None, failures: 0 }
}

fn page_of(rank: Rank) -> (usize, usize) {
    let rank = usize::try_from(rank.0).unwrap_or(usize::MAX);
    (rank / REPLICAS_PER_ROW, rank % REPLICAS_PER_ROW)
}

impl Replicas {
    /// Those of a new job: waiting where the spec asks for them, absent else. Equal neighbouring
    /// pages of one phase are one until they differ.
    pub(super) fn new(spec: &JobSpec) -> Self {
        let mut runs: Vec<(ReplicaPhase, usize)> = Vec::new();
        let size = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        for (phase, count) in
            spec.groups.iter().flat_map(GroupSpec::first_phases).filter(|(_, count)| *count > 0)
        {
            match runs.last_mut() {
                Some((last, sum)) if *last == phase => *sum = sum.saturating_add(size(count)),
                _ => runs.push((phase, size(count))),
            }
        }
        let mut pages: Vec<Arc<[Replica]>> = Vec::new();
        let mut begun: Vec<Replica> = Vec::new();
        for (phase, mut left) in runs {
            while left > 0 {
                if begun.is_empty() && left >= REPLICAS_PER_ROW {
                    // Made once, however many there are: who asks for much must not cost more than it weighs.
                    let page: Arc<[Replica]> = vec![blank(phase); REPLICAS_PER_ROW].into();
                    pages.extend(std::iter::repeat_n(page, left / REPLICAS_PER_ROW));
                    left %= REPLICAS_PER_ROW;
                } else {
                    let part = left.min(REPLICAS_PER_ROW - begun.len());
                    begun.extend(std::iter::repeat_n(blank(phase), part));
                    left -= part;
                    if begun.len() == REPLICAS_PER_ROW {
                        pages.push(std::mem::take(&mut begun).into());
                    }
                }
            }
        }
        if !begun.is_empty() {
            pages.push(begun.into());
        }
        Self::from_pages(pages)
    }

    /// From stored pages in order, all but the last one full.
    pub(super) fn from_pages(mut pages: Vec<Arc<[Replica]>>) -> Self {
        match (pages.pop(), pages.is_empty()) {
            (None, _) => Self::Few(Vec::new().into()),
            (Some(only), true) => Self::Few(only),
            (Some(last), false) => {
                pages.push(last);
                Self::Many(Arc::new(pages))
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Few(page) => page.len(),
            // Asked at every change of a replica: never by going over all pages.
            Self::Many(pages) => pages
                .last()
                .map_or(0, |last| pages.len().saturating_sub(1) * REPLICAS_PER_ROW + last.len()),
        }
    }

    /// The replicas of one stored page; `None` past the last.
    pub(super) fn page(&self, number: usize) -> Option<&Arc<[Replica]>> {
        match self {
            Self::Few(page) => (number == 0).then_some(page),
            Self::Many(pages) => pages.get(number),
        }
    }

    pub(super) fn get(&self, rank: Rank) -> Option<&Replica> {
        let (page, slot) = page_of(rank);
        self.page(page)?.get(slot)
    }

    pub(super) fn get_mut(&mut self, rank: Rank) -> Option<&mut Replica> {
        let (number, slot) = page_of(rank);
        match self {
            Self::Few(page) => {
                if number != 0 || slot >= page.len() {
                    return None;
                }
                Arc::make_mut(page).get_mut(slot)
            }
            Self::Many(pages) => {
                if slot >= pages.get(number)?.len() {
                    return None;
                }
                Arc::make_mut(Arc::make_mut(pages).get_mut(number)?).get_mut(slot)
            }
        }
    }

    /// All by rising rank.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Replica> {
        let pages: &[Arc<[Replica]>] = match self {
            Self::Few(page) => std::slice::from_ref(page),
            Self::Many(pages) => pages,
        };
        pages.iter().flat_map(|page| page.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{group, job_spec};

    /// Groups of all sizes around a page, with ranks to spare and without.
    #[test]
    fn a_new_job_has_a_replica_for_every_rank_in_pages_that_are_shared() {
        let sizes = [1, 2, 255, 256, 257, 511, 512, 700, 2_000];
        for first in sizes {
            for (second, spare) in sizes.into_iter().flat_map(|size| [(size, 0), (size, 300)]) {
                let mut spec = job_spec(vec![group("a", first, 1), group("b", second, 1)]);
                spec.groups.first_mut().into_iter().for_each(|one| one.replicas_max += spare);
                let replicas = Replicas::new(&spec);
                let phases: Vec<ReplicaPhase> = replicas.iter().map(|one| one.phase).collect();
                let all = spec.groups.iter().flat_map(GroupSpec::first_phases);
                let wanted: Vec<ReplicaPhase> = all
                    .flat_map(|(phase, count)| std::iter::repeat_n(phase, count as usize))
                    .collect();
                assert_eq!(phases, wanted, "{first} {second} {spare}");
                assert_eq!(replicas.len(), wanted.len());
            }
        }
        let replicas = Replicas::new(&job_spec(vec![group("a", 50_000, 1); 2]));
        let pages = (0..).map_while(|number| replicas.page(number));
        let mut kinds: Vec<_> = pages.map(|page| page.as_ptr()).collect();
        let all = kinds.len();
        kinds.dedup();
        assert_eq!((all, kinds.len()), (391, 2), "full pages, and the last one");
    }
}
