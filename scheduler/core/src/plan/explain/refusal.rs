//! Refusal: the short form of an explanation, made whenever nothing fits.
//!
//! **Invariant:** costs a few looks at the fleet and a few attempts to place the minimum, no more:
//! it is made for every job that must wait.

use super::cause::{Cause, Counts, count};
use super::{Nearest, Unplaceable, Verdict};
use crate::fit::Misfit;
use crate::id::SiteId;
use crate::job::{JobSpec, Level};
use crate::plan::Steps;
use crate::plan::ask::Ask;
use crate::plan::draft::Base;
use crate::plan::field::{Domain, Field, covers};
use crate::plan::single;
use crate::plan::solve::Solver;
use crate::unit::RttUs;
use crate::view::Slot;

/// Why the ask, whose field this is, could not be placed.
pub(in crate::plan) fn unplaceable(ask: &Ask<'_>, field: &Field, steps: &mut Steps) -> Unplaceable {
    let aborted = steps.is_spent();
    let minimum = least(ask);
    let (verdict, unbound_rtt) =
        if aborted { (Verdict::Undecided, None) } else { verdict(ask, field, &minimum, steps) };
    let network = verdict == Verdict::Latency;
    let near = network.then(|| largest_part(ask, field));
    let within = |slot: &Slot| near.as_ref().is_none_or(|domain| domain.admits(slot));
    let hardest = hardest(ask, field, &minimum);
    let counts = count(ask, hardest, within);
    let mut nearest = Nearest { rtt_max: unbound_rtt, ..Nearest::default() };
    nearest.placeable.resize(ask.spec.groups.len(), 0);
    nearest.wanted.resize(ask.spec.groups.len(), 0);
    for (at, group) in ask.groups.iter().enumerate() {
        let everywhere = Domain { sites: field.sites(), rack: None };
        let domain = near.as_ref().unwrap_or(&everywhere);
        let fits: u64 =
            field.cands(ask, at, domain, true).map(|(cand, _)| u64::from(cand.room)).sum();
        let fits = u32::try_from(fits).unwrap_or(u32::MAX).min(group.wanted());
        if let Some(cell) = nearest.placeable.get_mut(group.group) {
            *cell = fits;
        }
        if let Some(cell) = nearest.wanted.get_mut(group.group) {
            *cell = group.wanted();
        }
    }
    Unplaceable {
        nodes: counts.values().sum(),
        counts: counts.into_iter().collect(),
        group: ask.groups.get(hardest).map_or(0, |group| group.group),
        verdict,
        nearest,
    }
}

/// Why a single replica, which is all that was asked, fits nowhere.
pub(in crate::plan) fn alone(ask: &Ask<'_>, steps: &mut Steps) -> Unplaceable {
    let counts = count(ask, 0, |_| true);
    let verdict =
        if within_budget(ask, &counts, steps) { Verdict::Budget } else { verdict_of_one(&counts) };
    let group = ask.groups.first().map_or(0, |group| group.group);
    let mut wanted = vec![0; ask.spec.groups.len()];
    if let Some(cell) = wanted.get_mut(group) {
        *cell = 1;
    }
    let placeable = vec![0; ask.spec.groups.len()];
    Unplaceable {
        nodes: counts.values().sum(),
        counts: counts.into_iter().collect(),
        group,
        verdict,
        nearest: Nearest { placeable, wanted, rtt_max: None },
    }
}

/// The minimum of each group; one replica of the first where none is required at all.
fn least(ask: &Ask<'_>) -> Vec<u32> {
    let mut least = ask.minimum();
    if least.iter().all(|&count| count == 0)
        && let Some(first) = least.first_mut()
    {
        *first = 1;
    }
    least
}

/// Verdict on a single replica, which follows from the counts.
fn verdict_of_one(counts: &Counts) -> Verdict {
    if counts.contains_key(&Cause::Usable) {
        Verdict::Undecided
    } else if counts.keys().any(|cause| cause.is_busy()) {
        Verdict::BusyUntil(None)
    } else if counts.keys().any(|cause| cause.is_closed()) {
        Verdict::NotReady
    } else if counts.contains_key(&Cause::Misfit(Misfit::Price)) {
        Verdict::Budget
    } else {
        Verdict::NoSuchPool
    }
}

/// Whether the single replica asked for would fit now if the price were no object.
fn within_budget(ask: &Ask<'_>, counts: &Counts, steps: &mut Steps) -> bool {
    if !counts.contains_key(&Cause::Misfit(Misfit::Price)) {
        return false;
    }
    let spec = JobSpec { price_max: None, ..ask.spec.clone() };
    matches!(single::place(&ask.with_spec(&spec), None, steps), single::Answer::Found(_))
}

fn verdict(
    ask: &Ask<'_>,
    field: &Field,
    minimum: &[u32],
    steps: &mut Steps,
) -> (Verdict, Option<RttUs>) {
    let unpriced = JobSpec { price_max: None, ..ask.spec.clone() };
    let priced = ask.spec.price_max.is_some();
    if !has_pool(ask) {
        let by_price = priced && has_pool(&ask.with_spec(&unpriced));
        return (if by_price { Verdict::Budget } else { Verdict::NoSuchPool }, None);
    }
    let unbound = JobSpec { rtt_max: None, ..ask.spec.clone() };
    let free = JobSpec { topology_required: None, ..unbound.clone() };
    if ask.spec.rtt_max.is_some()
        && let Some(rtt) = widest_rtt(ask, &unbound, field, minimum, steps)
    {
        return (Verdict::Latency, rtt);
    }
    let bound = ask.spec.rtt_max.is_some() || ask.spec.topology_required.is_some();
    if bound && widest_rtt(ask, &free, field, minimum, steps).is_some() {
        return (Verdict::Latency, None);
    }
    if priced {
        let relaxed = ask.with_spec(&unpriced);
        let field = Field::new(&relaxed, Base::Now, steps);
        if (Solver { ask: &relaxed, field: &field, base: Base::Now })
            .solve(minimum, steps)
            .is_some()
        {
            return (Verdict::Budget, None);
        }
    }
    for (base, verdict) in
        [(Base::EmptyAll, Verdict::NeverFits), (Base::EmptyOpen, Verdict::NotReady)]
    {
        let empty = Field::new(ask, base, steps);
        if (Solver { ask, field: &empty, base }).solve(minimum, steps).is_none() {
            let certain = !steps.is_spent();
            return (if certain { verdict } else { Verdict::Undecided }, None);
        }
    }
    (Verdict::BusyUntil(None), None)
}

/// Whether every group has a node that could hold one of its replicas, if it were empty and up.
fn has_pool(ask: &Ask<'_>) -> bool {
    ask.groups.iter().all(|group| {
        let fits = group.class_fits(ask.view);
        if !group.reads_identity() {
            return fits.iter().flatten().any(|fit| fit.misfit.is_none());
        }
        ask.view.slots().any(|(_, slot)| {
            let known = fits.get(slot.class.0 as usize).copied().flatten();
            known.is_some_and(|known| group.fit(slot, known).misfit.is_none())
        })
    })
}

/// Places the minimum under a relaxed spec. `Some` = it fits, with the largest RTT among its sites
/// where all are known.
fn widest_rtt(
    ask: &Ask<'_>,
    spec: &JobSpec,
    field: &Field,
    minimum: &[u32],
    steps: &mut Steps,
) -> Option<Option<RttUs>> {
    let relaxed = ask.with_spec(spec);
    let solver = Solver { ask: &relaxed, field, base: Base::Now };
    let placements = solver.solve(minimum, steps)?;
    let nodes = placements.iter().map(|placement| placement.node.0).chain(ask.fixed.clone());
    let mut sites: Vec<SiteId> = nodes.filter_map(|node| Some(ask.view.slot(node)?.site)).collect();
    sites.sort_unstable();
    sites.dedup();
    let table = ask.view.sites();
    let mut widest = RttUs::ZERO;
    for (at, &a) in sites.iter().enumerate() {
        for &b in sites.iter().skip(at) {
            match table.rtt(a, b) {
                Some(rtt) => widest = widest.max(rtt),
                None => return Some(None),
            }
        }
    }
    Some(Some(widest))
}

/// The part of the fleet inside the bounds with the most room: around each site the others that
/// keep the RTT bound towards all taken so far, the roomiest first; or the roomiest domain.
fn largest_part(ask: &Ask<'_>, field: &Field) -> Domain {
    let sites = field.sites();
    let table = ask.view.sites();
    let room = |site: u16| -> u64 { field.amounts(site, true).iter().take(ask.groups.len()).sum() };
    let level = ask.spec.topology_required;
    let alike = |a: u16, b: u16| {
        let (Some(x), Some(y)) = (table.site(SiteId(a)), table.site(SiteId(b))) else {
            return false;
        };
        match level {
            None => true,
            Some(Level::Region) => x.region == y.region,
            Some(Level::Zone) => x.region == y.region && x.zone == y.zone,
            Some(Level::Site | Level::Rack | Level::Node) => a == b,
        }
    };
    let near = |a: u16, b: u16| {
        alike(a, b)
            && ask
                .spec
                .rtt_max
                .is_none_or(|bound| table.rtt(SiteId(a), SiteId(b)).is_some_and(|rtt| rtt <= bound))
    };
    let mut by_room = sites.clone();
    by_room.sort_by_key(|&site| (std::cmp::Reverse(room(site)), site));
    let mut best: (u64, Vec<u16>) = (0, Vec::new());
    for &centre in &sites {
        let mut part = vec![centre];
        for &site in by_room.iter().filter(|&&site| site != centre) {
            if part.iter().all(|&other| near(site, other)) {
                part.push(site);
            }
        }
        let total = part.iter().map(|&site| room(site)).sum();
        if total > best.0 {
            part.sort_unstable();
            best = (total, part);
        }
    }
    Domain { sites: best.1, rack: None }
}

/// The first group that does not even fit alone; else the one with the least slack.
fn hardest(ask: &Ask<'_>, field: &Field, minimum: &[u32]) -> usize {
    let have = field.sum(&field.sites(), true);
    let slack = |at: usize| {
        let have = have.get(at).copied().unwrap_or(0);
        let need = u64::from(minimum.get(at).copied().unwrap_or(0)).max(1);
        have.saturating_mul(1000) / need
    };
    let alone = (0..ask.groups.len()).find(|&at| {
        let (have, need) = (have.get(at).copied().unwrap_or(0), minimum.get(at).copied());
        !covers(&[have], &[u64::from(need.unwrap_or(0))])
    });
    alone.or_else(|| (0..ask.groups.len()).min_by_key(|&at| (slack(at), at))).unwrap_or(0)
}
