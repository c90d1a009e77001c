//! Paper: how many replicas of one group would fit now by itself, its own rules included.
//!
//! **Invariant:** an upper bound: what it says does not fit never does. With rules at more than one
//! level it may be a little high.

use crate::fit::{Domain as Place, milli_price_max};
use crate::job::{Level, RttScope, Strategy, Target};
use crate::plan::ask::Ask;
use crate::plan::draft::{Base, Draft};
use crate::plan::field::{Cand, Domain, Field};
use crate::plan::ruled::{self, Apart};
use crate::view::Slot;
use std::collections::BTreeMap;

/// A node with room.
struct Spot<'a> {
    room: u64,
    slot: &'a Slot,
}

/// Replicas of the group at this place of the ask that would fit inside the domain if it were
/// alone; at most as many as wait.
pub(super) fn room(ask: &Ask<'_>, field: &Field<'_>, at: usize, domain: &Domain) -> u32 {
    let Some(group) = ask.groups.get(at) else { return 0 };
    let wanted = u64::from(group.wanted());
    let spec = ask.spec;
    let strict = matches!(spec.strategy, Strategy::StrictPack | Strategy::StrictSpread);
    let bound = spec.rtt_max.is_some() || spec.topology_required.is_some();
    let most: u64 = match ruled::applies(ask) || strict || bound {
        false => field.sum(&domain.sites, true).get(at).copied().unwrap_or(0),
        true => {
            let apart = Apart::required(ask, at);
            let open = |slot: &Slot| apart.admits(&slot.node) && !apart.is_too_dear(&slot.node);
            // The field goes by the job's strategy, which need not be the group's.
            let draft = Draft::new(ask, Base::Now);
            let spot = |(cand, slot): (Cand, _)| {
                let fit = field.fit(ask, at, slot)?;
                let room = draft.room(group, cand.node, slot, fit.gpus, group.wanted());
                Some(Spot { room: room.into(), slot })
            };
            let cands = field.cands(ask, at, domain, true);
            by_rules(ask, at, cands.filter(|(_, slot)| open(slot)).filter_map(spot).collect())
        }
    };
    u32::try_from(most.min(wanted)).unwrap_or(u32::MAX)
}

fn by_rules(ask: &Ask<'_>, at: usize, mut spots: Vec<Spot<'_>>) -> u64 {
    let spec = ask.spec;
    let Some(group) = ask.groups.get(at) else { return 0 };
    let Some(own) = spec.groups.get(group.group) else { return 0 };
    let strategy = own.rules.strategy.unwrap_or(spec.strategy);
    let per_node = match (strategy, own.rules.replicas_per_node_max) {
        (Strategy::StrictSpread, _) => 1,
        (_, 0) => u64::MAX,
        (_, most) => most.into(),
    };
    spots.iter_mut().for_each(|spot| spot.room = spot.room.min(per_node));
    // Levels of which one domain must hold the whole group, and such that may hold one member each.
    let mut together: Vec<Level> =
        [spec.topology_required, own.rules.topology_required].into_iter().flatten().collect();
    let mut each: Option<Level> = None;
    if strategy == Strategy::StrictPack {
        together.push(Level::Node);
    }
    for one in spec.affinities.iter().filter(|one| !one.preferred) {
        let Target::Groups { group: a, with: b } = &one.target else { continue };
        if (usize::from(*a), usize::from(*b)) != (group.group, group.group) {
            continue;
        }
        match one.anti {
            true => each = each.into_iter().chain([one.level]).min(),
            false => together.push(one.level),
        }
    }
    if let Some(level) = each {
        spots = first_of_each(level, spots);
    }
    if let Some(bound) = spec.rtt_max.filter(|_| spec.rtt_scope != RttScope::HeadToMembers) {
        // A site that is too slow inside takes one member.
        let net = ask.view.net();
        let (slow, mut near): (Vec<Spot<'_>>, Vec<Spot<'_>>) =
            spots.into_iter().partition(|spot| {
                let site = spot.slot.site.0;
                net.high(site, site) > bound.0
            });
        near.extend(first_of_each(Level::Site, slow));
        spots = near;
    }
    let all = match together.into_iter().max() {
        None => {
            let sum = spots.iter().map(|spot| spot.room).sum::<u64>();
            sum.min(evenly(ask, at, &spots)).min(affordable(ask, at, &spots))
        }
        Some(level) => rooms(level, &spots).into_values().max().unwrap_or(0),
    };
    own.rules.segments.first().map_or(all, |segment| {
        let size = u64::from(segment.size.max(1));
        let rooms = rooms(segment.level, &spots);
        let whole: u64 = rooms.values().map(|room| room / size * size).sum();
        // The last block need not be whole.
        let rest = rooms.values().map(|room| room % size).max().unwrap_or(0);
        all.min(whole + rest)
    })
}

fn rooms<'a>(level: Level, spots: &[Spot<'a>]) -> BTreeMap<Place<'a>, u64> {
    let mut rooms = BTreeMap::new();
    for spot in spots {
        *rooms.entry(Place::of(level, &spot.slot.node)).or_default() += spot.room;
    }
    rooms
}

fn first_of_each<'a>(level: Level, spots: Vec<Spot<'a>>) -> Vec<Spot<'a>> {
    let mut seen = BTreeMap::new();
    for spot in spots {
        seen.entry(Place::of(level, &spot.slot.node)).or_insert(Spot { room: 1, ..spot });
    }
    seen.into_values().collect()
}

/// Most that can be spread so that no domain holds too many more than another.
fn evenly(ask: &Ask<'_>, at: usize, spots: &[Spot<'_>]) -> u64 {
    let Some(group) = ask.groups.get(at) else { return 0 };
    let Some(own) = ask.spec.groups.get(group.group) else { return 0 };
    // Members that stay may leave room for more than this would count.
    let binding = own.rules.spread.iter().filter(|one| !one.preferred && ask.fixed.is_empty());
    let most = binding.map(|spread| {
        let mut rooms = rooms(spread.level, spots);
        // Domains that are full now count as empty ones.
        let fits = group.class_fits(ask.view);
        for (_, slot) in ask.view.slots().filter(|(_, slot)| slot.open) {
            let known = fits.get(slot.class.0 as usize).copied().flatten();
            if known.is_some_and(|known| group.fit(slot, known).misfit.is_none()) {
                rooms.entry(Place::of(spread.level, &slot.node)).or_default();
            }
        }
        let least = rooms.values().min().copied().unwrap_or(0);
        let top = least.saturating_add(spread.skew_max.into());
        rooms.into_values().map(|room| room.min(top)).sum::<u64>()
    });
    most.min().unwrap_or(u64::MAX)
}

/// Most that the bound on the total price pays for, on the cheapest nodes.
fn affordable(ask: &Ask<'_>, at: usize, spots: &[Spot<'_>]) -> u64 {
    let milli = ask.groups.get(at).and_then(|group| ask.spec.groups.get(group.group));
    let milli = milli.map_or(0, |group| u128::from(group.shape.gpu_milli()));
    let Some(mut left) = milli_price_max(ask.spec).filter(|_| milli > 0) else { return u64::MAX };
    let mut prices: Vec<(u64, u64)> =
        spots.iter().map(|spot| (spot.slot.node.price.0, spot.room)).collect();
    prices.sort_unstable();
    let mut count = 0u64;
    for (price, room) in prices {
        let cost = milli * u128::from(price);
        let paid =
            left.checked_div(cost).map_or(room, |n| room.min(u64::try_from(n).unwrap_or(room)));
        left = left.saturating_sub(cost * u128::from(paid));
        count += paid;
    }
    count
}
