//! Offers: the plans that dry runs told of lately, so that a caller can have one of them applied.
//!
//! **Invariant:** bounded, and only a memory: a forgotten offer makes a submission abort, never
//! place something else.

use super::Check;
use crate::command::{Plan, Victim};
use crate::id::TenantId;
use std::collections::VecDeque;
use std::sync::Arc;

/// Offers remembered: some minutes of people's dry runs.
const OFFERS_MAX: usize = 4_096;
/// Replicas in all of them together: ten of the largest jobs, some 30 MB.
const PLACEMENTS_MAX: usize = 1_000_000;

/// A plan that a caller was told of.
#[derive(Debug)]
pub struct Offer {
    pub tenant: TenantId,
    /// Digest of the spec, which a submission of it will carry.
    pub body: u128,
    /// Of the state that it was made against.
    pub index: u64,
    /// Of the plan.
    pub digest: u128,
    pub taking: Arc<Taking>,
}

/// A plan, and whose GPUs it takes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Taking {
    pub plan: Plan,
    /// By rising job.
    pub victims: Vec<Victim>,
}

impl From<Plan> for Taking {
    /// From nobody.
    fn from(plan: Plan) -> Self {
        Self { plan, victims: Vec::new() }
    }
}

impl Taking {
    /// Replicas that it is about, placed or taken.
    fn weight(&self) -> usize {
        let taken = self.victims.iter().map(|victim| victim.ranks.len() + 1);
        self.plan.placements.len() + taken.sum::<usize>()
    }
}

/// The latest offers of one term.
#[derive(Debug, Default)]
pub(super) struct Offers {
    latest: VecDeque<Offer>,
    placements: usize,
}

impl Offers {
    pub(super) fn remember(&mut self, offer: Offer) {
        self.placements += offer.taking.weight();
        self.latest.push_back(offer);
        while self.latest.len() > OFFERS_MAX || self.placements > PLACEMENTS_MAX {
            let Some(oldest) = self.latest.pop_front() else { return };
            self.placements -= oldest.taking.weight();
        }
    }

    /// The plan meant, which was told for this spec; the last one where the digest is left out.
    pub(super) fn find(&self, tenant: &TenantId, body: u128, meant: Check) -> Option<Arc<Taking>> {
        let is_meant = |offer: &&Offer| {
            offer.index == meant.index
                && meant.digest.is_none_or(|digest| digest == offer.digest)
                && offer.body == body
                && offer.tenant == *tenant
        };
        self.latest.iter().rev().find(is_meant).map(|offer| Arc::clone(&offer.taking))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Placement;
    use crate::id::{Epoch, Name, NodeId, Rank};
    use crate::unit::GpuSet;

    fn tenant(text: &str) -> TenantId {
        TenantId(Name::parse(text).expect("a name"))
    }

    /// A plan that can be told by its length.
    fn plan(replicas: u32) -> Arc<Taking> {
        let placement = |rank| Placement {
            rank: Rank(rank),
            node: NodeId(0),
            node_epoch: Epoch(1),
            gpus: GpuSet::EMPTY,
            share_milli: 0,
        };
        Arc::new(Taking::from(Plan { placements: (0..replicas).map(placement).collect() }))
    }

    fn offer(
        tenant: &TenantId,
        body: u128,
        index: u64,
        digest: u128,
        taking: Arc<Taking>,
    ) -> Offer {
        Offer { tenant: tenant.clone(), body, index, digest, taking }
    }

    fn meant(index: u64, digest: Option<u128>) -> Check {
        Check { index, digest }
    }

    #[test]
    fn an_offer_is_found_by_what_names_it() {
        let (a, b) = (tenant("a"), tenant("b"));
        let mut offers = Offers::default();
        offers.remember(offer(&a, 1, 7, 100, plan(1)));
        offers.remember(offer(&a, 1, 7, 101, plan(2)));
        offers.remember(offer(&a, 1, 8, 102, plan(3)));
        let found =
            |who, body, meant| offers.find(who, body, meant).map(|it| it.plan.placements.len());
        assert_eq!(found(&a, 1, meant(7, None)), Some(2));
        assert_eq!(found(&a, 1, meant(7, Some(100))), Some(1));
        assert_eq!(found(&a, 1, meant(8, None)), Some(3));
        for (who, body, meant) in [
            (&a, 1, meant(8, Some(100))),
            (&a, 1, meant(9, None)),
            (&a, 2, meant(7, None)),
            (&b, 1, meant(7, None)),
        ] {
            assert_eq!(found(who, body, meant), None, "{meant:?}");
        }
    }

    #[test]
    fn the_oldest_are_forgotten_by_number_and_by_size() {
        let a = tenant("a");
        let mut offers = Offers::default();
        for index in 0..=OFFERS_MAX as u64 {
            offers.remember(offer(&a, 1, index, 0, plan(1)));
        }
        assert!(offers.find(&a, 1, meant(0, None)).is_none());
        assert!(offers.find(&a, 1, meant(1, None)).is_some());
        for index in 0..20 {
            offers.remember(offer(&a, 2, index, 0, plan(100_000)));
        }
        assert_eq!(offers.latest.len(), 10);
        assert!(offers.placements <= PLACEMENTS_MAX);
        assert!(offers.find(&a, 2, meant(19, None)).is_some());
    }
}
