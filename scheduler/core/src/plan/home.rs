//! Home: lost replicas that are to be replaced inside the domain in which they stood.
//!
//! All at once first; then without the homes that are wishes; and where one domain is full, the others' replicas
//! without it.
//! **Invariant:** a home that is required is kept or its replica waits.

use super::ask::Ask;
use super::{Placed, Policy, Steps, place_chosen};
use crate::command::Placement;
use crate::id::Rank;
use crate::plan::ruled::Paths;
use std::collections::{BTreeMap, BTreeSet};

/// Domains tried one after the other where not all replicas can be replaced.
const HOMES_TRIED_MAX: usize = 16;

/// Places what is asked, as many of the lost replicas as can be.
pub(super) fn place<'a>(ask: &Ask<'a>, policy: Option<Policy>, steps: &mut Steps) -> Placed<'a> {
    let wanted: usize = ask.groups.iter().map(|group| group.ranks.len()).sum();
    let first = steps.half(|steps| place_chosen(ask, policy, steps));
    let mut best = Vec::new();
    let refusal = match first {
        Placed::All(found) if found.len() == wanted => return Placed::All(found),
        Placed::All(found) => {
            best = found;
            None
        }
        refusal => Some(refusal),
    };
    let musts = ask.narrowed(|_| true, |rank| !ask.prefers_home(rank));
    if musts.homes.len() < ask.homes.len()
        && let Placed::All(found) = steps.half(|steps| place_chosen(&musts, policy, steps))
        && found.len() > best.len()
    {
        best = found;
    }
    if best.len() < wanted {
        one_by_one(&musts, policy, steps, &mut best);
    }
    match refusal {
        Some(refusal) if best.is_empty() => refusal,
        _ => Placed::All(best),
    }
}

/// Takes up the replicas of one domain after the other, and leaves out those whose domain has no room.
fn one_by_one(ask: &Ask<'_>, policy: Option<Policy>, steps: &mut Steps, best: &mut Vec<Placement>) {
    let mut by_home: BTreeMap<Option<(usize, u32)>, Vec<Rank>> = BTreeMap::new();
    for rank in ask.groups.iter().flat_map(|group| &group.ranks) {
        let home =
            ask.home(*rank).map(|(depth, node)| (depth, Paths::of(ask).of_node(node)[depth]));
        by_home.entry(home).or_default().push(*rank);
    }
    if by_home.len() < 2 {
        return;
    }
    let enough = |found: &[Placement]| {
        ask.groups.iter().all(|group| {
            let own = found.iter().filter(|one| group.ranks.binary_search(&one.rank).is_ok());
            u32::try_from(own.count()).unwrap_or(u32::MAX) >= group.min
        })
    };
    let mut kept: BTreeSet<Rank> = BTreeSet::new();
    for ranks in by_home.into_values().take(HOMES_TRIED_MAX) {
        let with: BTreeSet<Rank> = kept.iter().chain(&ranks).copied().collect();
        let narrow = ask.narrowed(|rank| with.contains(&rank), |_| true);
        if let Placed::All(found) = steps.half(|steps| place_chosen(&narrow, policy, steps)) {
            kept = found.iter().map(|placement| placement.rank).collect();
            if found.len() > best.len() && enough(&found) {
                *best = found;
            }
        }
    }
}
