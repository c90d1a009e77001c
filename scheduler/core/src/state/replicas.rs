//! All replicas of one job, packed, in pages that frozen views share.
//!
//! **Invariant:** one for each rank, those of absent replicas too, so their number never changes in
//! the life of a job.

use super::rows::REPLICAS_PER_ROW;
use crate::id::Rank;
use crate::job::{JobSpec, Replica, ReplicaPhase};
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
    /// pages are one until they differ.
    pub(super) fn new(spec: &JobSpec) -> Self {
        let mut all = spec.groups.iter().flat_map(|group| {
            let asked = usize::try_from(group.replicas).unwrap_or(usize::MAX);
            let spare = usize::try_from(group.ranks() - group.replicas).unwrap_or(usize::MAX);
            let waiting = std::iter::repeat_n(blank(ReplicaPhase::Waiting), asked);
            waiting.chain(std::iter::repeat_n(blank(ReplicaPhase::Absent), spare))
        });
        let mut pages: Vec<Arc<[Replica]>> = Vec::new();
        loop {
            let page: Vec<Replica> = all.by_ref().take(REPLICAS_PER_ROW).collect();
            if page.is_empty() {
                return Self::from_pages(pages);
            }
            let same = pages.last().filter(|last| ***last == *page).cloned();
            pages.push(same.unwrap_or_else(|| page.into()));
        }
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
