//! Refusal: the short form of an explanation, made whenever nothing fits.
//!
//! **Invariant:** costs a few looks at the fleet and a few attempts to place the minimum, no more:
//! it is made for every job that must wait.

use super::cause::{Cause, Counts, Reach, count};
use super::{Nearest, Rule, Unplaceable, Verdict, miss, paper};
use crate::fit::Misfit;
use crate::job::{JobSpec, RttScope, Strategy};
use crate::plan::ask::Ask;
use crate::plan::draft::{Base, Members, by_site};
use crate::plan::field::{Domain, Field, covers};
use crate::plan::solve::Solver;
use crate::plan::{Steps, ruled, single};
use crate::unit::RttUs;

/// Why the ask, whose field this is, could not be placed.
pub(in crate::plan) fn unplaceable(
    ask: &Ask<'_>,
    field: &Field<'_>,
    steps: &mut Steps,
) -> Unplaceable {
    let aborted = steps.is_spent();
    let minimum = least(ask);
    let (verdict, rtt_max) =
        if aborted { (Verdict::Undecided, None) } else { verdict(ask, field, &minimum, steps) };
    let everywhere = Domain { sites: field.sites(), rack: None };
    let hardest = hardest(ask, field, &minimum);
    let groups = ask.spec.groups.len();
    let (placeable, wanted) = (vec![0; groups], vec![0; groups]);
    let mut nearest = Nearest { placeable, wanted, rtt_max, ..Nearest::default() };
    let mut near =
        (verdict == Verdict::Latency).then(|| miss::largest_part(ask, field, hardest, steps));
    let by_group = ask.spec.rtt_max.is_some() && ask.spec.rtt_scope == RttScope::WithinGroups;
    nearest.is_alone = true;
    let strict = ask.spec.strategy == Strategy::StrictSpread;
    let bare = strict.then(|| Field::bare(ask, Base::Now, steps));
    let bare = bare.as_ref().unwrap_or(field);
    for (at, group) in ask.groups.iter().enumerate() {
        // Bound by itself, each group has a part of the fleet of its own.
        let own = near.as_ref().filter(|_| by_group && at != hardest);
        let own = own.map(|_| miss::largest_part(ask, field, at, steps));
        let domain = own.as_ref().or(near.as_ref()).unwrap_or(&everywhere);
        let fits = paper::room(ask, bare, at, domain);
        nearest.is_alone &= fits >= minimum.get(at).copied().unwrap_or(0);
        if let Some(cell) = nearest.placeable.get_mut(group.group) {
            *cell = fits;
        }
        if let Some(cell) = nearest.wanted.get_mut(group.group) {
            *cell = group.wanted();
        }
    }
    if nearest.is_alone {
        let own = |rule: &Rule| *rule != Rule::Repair || !ask.homes.is_empty();
        nearest.rules = Rule::among_members(ask.spec).into_iter().filter(own).collect();
    }
    let counts = count(ask, hardest, &Reach::new(ask, hardest, near.take()));
    Unplaceable {
        nodes: counts.values().sum(),
        counts: counts.into_iter().collect(),
        group: ask.groups.get(hardest).map_or(0, |group| group.group),
        verdict,
        nearest: Box::new(nearest),
    }
}

/// Why a single replica, which is all that was asked, fits nowhere.
pub(in crate::plan) fn alone(ask: &Ask<'_>, steps: &mut Steps) -> Unplaceable {
    let counts = count(ask, 0, &Reach::everywhere());
    let verdict = if within_budget(ask, &counts, steps) {
        Verdict::Budget
    } else {
        verdict_of_one(ask, &counts)
    };
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
        nearest: Box::new(Nearest { placeable, wanted, ..Nearest::default() }),
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
fn verdict_of_one(ask: &Ask<'_>, counts: &Counts) -> Verdict {
    if counts.contains_key(&Cause::Usable) {
        Verdict::Undecided
    } else if counts.keys().any(|cause| cause.is_busy()) {
        Verdict::BusyUntil(None)
    } else if counts.keys().any(|cause| cause.is_closed()) {
        Verdict::NotReady
    } else {
        without_pool(ask)
    }
}

/// Verdict where no node could ever hold a replica: whether any could if the price were no object.
fn without_pool(ask: &Ask<'_>) -> Verdict {
    let priced = ask.spec.price_max.is_some() || ask.spec.bounds_cost();
    let by_price = priced && has_pool(&ask.with_spec(&unpriced(ask)));
    if by_price { Verdict::Budget } else { Verdict::NoSuchPool }
}

fn unpriced(ask: &Ask<'_>) -> JobSpec {
    JobSpec { price_max: None, cost_max: None, hourly_max: None, ..ask.spec.clone() }
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
    field: &Field<'_>,
    minimum: &[u32],
    steps: &mut Steps,
) -> (Verdict, Option<RttUs>) {
    if !has_pool(ask) {
        return (without_pool(ask), None);
    }
    let all_pairs = RttScope::AllPairs;
    let unbound = || JobSpec { rtt_max: None, rtt_scope: all_pairs, ..ask.spec.clone() };
    if ask.spec.rtt_max.is_some() {
        // What fits under a wider bound shows both that it fits without any and which would do.
        if let Some(bound) = miss::bound_needed(ask, field, minimum, steps) {
            return (Verdict::Latency, Some(bound));
        }
        let spec = unbound();
        let relaxed = ask.with_spec(&spec);
        if let Some(members) = fits(&relaxed, field, Base::Now, minimum, steps) {
            let bound = miss::bound_kept(ask, field, minimum, members, steps);
            return (Verdict::Latency, bound);
        }
    }
    if ask.spec.topology_required.is_some() || ask.spec.bounds_domains() {
        let free = unbound().without_domains_max();
        let free = JobSpec { topology_required: None, ..free };
        if holds(&ask.with_spec(&free), field, Base::Now, minimum, steps) {
            return (Verdict::Latency, None);
        }
    }
    if fits_unpriced(ask, Base::Now, minimum, steps) {
        return (Verdict::Budget, None);
    }
    let mut closed = ask.view.classes().iter();
    let closed = closed.any(|(_, class)| (class.open as usize) < class.nodes.len());
    // Open nodes first: a closed one may be a domain more to spread over. With none closed all are.
    let open = closed.then_some((Base::EmptyOpen, Verdict::BusyUntil(None)));
    let all = if closed { Verdict::NotReady } else { Verdict::BusyUntil(None) };
    for (base, verdict) in open.into_iter().chain([(Base::EmptyAll, all)]) {
        let empty = Field::new(ask, base, steps);
        if holds(ask, &empty, base, minimum, steps) {
            return (verdict, None);
        }
        if steps.is_spent() {
            return (Verdict::Undecided, None);
        }
    }
    // What it may cost is not enough even for an empty fleet, which would hold it.
    if fits_unpriced(ask, Base::EmptyAll, minimum, steps) {
        return (Verdict::Budget, None);
    }
    (if steps.is_spent() { Verdict::Undecided } else { Verdict::NeverFits }, None)
}

/// Whether so many fit where the price is no object and was one before.
fn fits_unpriced(ask: &Ask<'_>, base: Base, minimum: &[u32], steps: &mut Steps) -> bool {
    if ask.spec.price_max.is_none() && !ask.spec.bounds_cost() {
        return false;
    }
    let spec = unpriced(ask);
    let relaxed = ask.with_spec(&spec);
    let field = Field::new(&relaxed, base, steps);
    holds(&relaxed, &field, base, minimum, steps)
}

/// Whether so many fit; asks the planner only where capacity on paper does not tell.
fn holds(ask: &Ask<'_>, field: &Field<'_>, base: Base, minimum: &[u32], steps: &mut Steps) -> bool {
    let spec = ask.spec;
    // A group with its own strategy need not be apart as the others are.
    let own = spec.groups.iter().any(|group| group.rules.strategy.is_some());
    let apart = spec.strategy == Strategy::StrictSpread && own;
    let have = field.sum(&field.sites(), true);
    if !apart && !covers(&have, &Field::demand(ask, minimum, false)) {
        return false;
    }
    let plain = matches!(spec.strategy, Strategy::Pack | Strategy::Spread)
        && spec.rtt_max.is_none()
        && spec.topology_required.is_none()
        && !ruled::applies(ask);
    // Replicas of one shape stand in nobody's way but their own.
    let single = minimum.iter().filter(|&&count| count > 0).count() < 2;
    (plain && single) || fits(ask, field, base, minimum, steps).is_some()
}

/// Places so many, or as few more as the rules need; where they would be.
pub(super) fn fits(
    ask: &Ask<'_>,
    field: &Field<'_>,
    base: Base,
    minimum: &[u32],
    steps: &mut Steps,
) -> Option<Members> {
    let least = |steps: &mut Steps| {
        let placements = ruled::least(ask, base, steps)?;
        Some(by_site(ask.view, placements.iter().map(|placement| placement.node.0)))
    };
    if ruled::applies(ask) {
        return least(steps);
    }
    let solver = Solver { ask, field, base };
    match solver.draft(minimum, steps) {
        Some(draft) => Some(draft.members_by_site(ask.view)),
        None if solver.has_lone_sites() => least(steps),
        None => None,
    }
}

/// Whether every group has a node that could hold one of its replicas, if it were empty and up.
fn has_pool(ask: &Ask<'_>) -> bool {
    ask.groups.iter().all(|group| {
        let mut classes = group.serving(ask.view);
        classes.any(|class| group.serving_nodes(ask.view, class, true).next().is_some())
    })
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
