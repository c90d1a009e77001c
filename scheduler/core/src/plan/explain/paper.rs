//! Paper: how many replicas of one group would fit now by itself, its own rules included.
//!
//! **Invariant:** an upper bound: what it says does not fit never does. With rules at more than one
//! level it may be a little high.

use crate::fit::milli_price_max;
use crate::job::{Level, RttScope, Strategy, Target};
use crate::plan::ask::{Ask, GroupAsk};
use crate::plan::field::{Cand, Domain, Field};
use crate::plan::ruled::{self, Apart, Paths};
use crate::unit::RttUs;
use crate::view::Slot;
use std::collections::BTreeMap;

/// A node with room.
struct Spot<'a> {
    room: u64,
    node: u32,
    slot: &'a Slot,
}

/// Number of the domain of the level in which the node lies.
fn domain_of(ask: &Ask<'_>, level: Level, node: u32, slot: &Slot) -> u32 {
    match level {
        Level::Site => slot.site.0.into(),
        Level::Node => node,
        Level::Region | Level::Zone | Level::Rack => Paths::of(ask).domain(level, node),
    }
}

/// Replicas of the group at this place of the ask that would fit inside the domain if it were
/// alone; at most as many as wait. The field is a bare one: it goes by the job's strategy, which
/// need not be the group's.
pub(super) fn room(ask: &Ask<'_>, field: &Field<'_>, at: usize, domain: &Domain) -> u32 {
    let Some(group) = ask.groups.get(at) else { return 0 };
    let wanted = u64::from(group.wanted());
    let spec = ask.spec;
    let strict = matches!(spec.strategy, Strategy::StrictPack | Strategy::StrictSpread);
    let ruled = ruled::applies(ask) || strict || spec.topology_required.is_some();
    let most: u64 = match (ruled, spec.rtt_max) {
        (false, None) => field.sum(&domain.sites, true).get(at).copied().unwrap_or(0),
        (false, Some(bound)) => domain
            .sites
            .iter()
            .map(|&site| {
                let room = field.amounts(site, true).get(at).copied().unwrap_or(0);
                if is_slow(ask, site, bound) { room.min(1) } else { room }
            })
            .sum(),
        (true, _) => {
            let cands = admitted(ask, field, at, domain);
            let spot =
                |(cand, slot): (Cand, _)| Spot { room: cand.room.into(), node: cand.node, slot };
            by_rules(ask, at, cands.map(spot).collect())
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
        spots = first_of_each(ask, level, spots);
    }
    if let Some(bound) = spec.rtt_max.filter(|_| spec.rtt_scope != RttScope::HeadToMembers) {
        let (slow, mut near): (Vec<Spot<'_>>, Vec<Spot<'_>>) =
            spots.into_iter().partition(|spot| is_slow(ask, spot.slot.site.0, bound));
        near.extend(first_of_each(ask, Level::Site, slow));
        spots = near;
    }
    let all = match together.into_iter().max() {
        None => {
            let sum = spots.iter().map(|spot| spot.room).sum::<u64>();
            sum.min(evenly(ask, at, &spots)).min(affordable(ask, at, &spots)).min(in_few(
                ask,
                group.group,
                &spots,
            ))
        }
        Some(level) => rooms(ask, level, &spots).into_values().max().unwrap_or(0),
    };
    own.rules.segments.first().map_or(all, |segment| {
        let size = u64::from(segment.size.max(1));
        let mut rooms = rooms(ask, segment.level, &spots);
        if segment.exclusive {
            rooms.values_mut().for_each(|room| *room = size.min(*room));
        }
        let whole: u64 = rooms.values().map(|room| room / size * size).sum();
        // The last block need not be whole.
        let rest = rooms.values().map(|room| room % size).max().unwrap_or(0);
        all.min(whole + rest)
    })
}

/// Whether the site is so slow inside that it takes one member.
fn is_slow(ask: &Ask<'_>, site: u16, bound: RttUs) -> bool {
    ask.view.net().high(site, site) > bound.0
}

fn rooms(ask: &Ask<'_>, level: Level, spots: &[Spot<'_>]) -> BTreeMap<u32, u64> {
    let mut rooms = BTreeMap::new();
    for spot in spots {
        *rooms.entry(domain_of(ask, level, spot.node, spot.slot)).or_default() += spot.room;
    }
    rooms
}

fn first_of_each<'a>(ask: &Ask<'_>, level: Level, mut spots: Vec<Spot<'a>>) -> Vec<Spot<'a>> {
    let mut seen = BTreeMap::new();
    // The cheapest, as the price may be bound.
    spots.sort_by_key(|spot| spot.slot.node.price);
    for spot in spots {
        let domain = domain_of(ask, level, spot.node, spot.slot);
        seen.entry(domain).or_insert(Spot { room: 1, ..spot });
    }
    seen.into_values().collect()
}

/// Replicas of the group at this place of the ask that each site holds, less what others' rules keep
/// from it; by site.
pub(super) fn rooms_admitted(ask: &Ask<'_>, field: &Field<'_>, at: usize) -> BTreeMap<u16, u64> {
    let everywhere = Domain { sites: field.sites(), rack: None };
    let mut rooms = BTreeMap::new();
    for (cand, slot) in admitted(ask, field, at, &everywhere) {
        *rooms.entry(slot.site.0).or_default() += u64::from(cand.room);
    }
    rooms
}

/// Nodes with room on which the group may stand beside other jobs and that are not too dear.
fn admitted<'a>(
    ask: &'a Ask<'_>,
    field: &'a Field<'_>,
    at: usize,
    domain: &'a Domain,
) -> impl Iterator<Item = (Cand, &'a Slot)> {
    let apart = Apart::required(ask, at);
    let open = move |slot: &Slot| apart.admits(&slot.node) && !apart.is_too_dear(&slot.node);
    field.cands(ask, at, domain, true).filter(move |(_, slot)| open(slot))
}

/// Most that as many domains hold as are allowed.
fn in_few(ask: &Ask<'_>, group: usize, spots: &[Spot<'_>]) -> u64 {
    let own = ask.spec.groups.get(group).map_or(&[][..], |group| &group.rules.domains_max);
    let most = ask.spec.domains_max.iter().chain(own).map(|bound| {
        let mut rooms: Vec<u64> = rooms(ask, bound.level, spots).into_values().collect();
        rooms.sort_unstable_by(|a, b| b.cmp(a));
        rooms.truncate(usize::try_from(bound.max).unwrap_or(usize::MAX));
        rooms.iter().sum()
    });
    most.min().unwrap_or(u64::MAX)
}

/// Most that can be spread so that no domain holds too many more than another.
fn evenly(ask: &Ask<'_>, at: usize, spots: &[Spot<'_>]) -> u64 {
    let Some(group) = ask.groups.get(at) else { return 0 };
    let Some(own) = ask.spec.groups.get(group.group) else { return 0 };
    // Members that stay may leave room for more than this would count.
    let binding = own.rules.spread.iter().filter(|one| !one.preferred && ask.fixed.is_empty());
    let most = binding.map(|spread| {
        let rooms = rooms(ask, spread.level, spots);
        // Where a domain is full, no other may hold much.
        let full = has_full_domain(ask, group, spread.level, &rooms);
        let least = if full { 0 } else { rooms.values().min().copied().unwrap_or(0) };
        let top = least.saturating_add(spread.skew_max.into());
        rooms.into_values().map(|room| room.min(top)).sum::<u64>()
    });
    most.min().unwrap_or(u64::MAX)
}

/// Whether an open node that could hold a replica if it were empty lies outside these domains.
fn has_full_domain(
    ask: &Ask<'_>,
    group: &GroupAsk,
    level: Level,
    rooms: &BTreeMap<u32, u64>,
) -> bool {
    // Nodes of one class stand at one site.
    let most = if level > Level::Site { usize::MAX } else { 1 };
    group.serving(ask.view).any(|class| {
        let mut nodes = group.serving_nodes(ask.view, class, false).take(most);
        nodes.any(|(node, slot)| !rooms.contains_key(&domain_of(ask, level, node, slot)))
    })
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
