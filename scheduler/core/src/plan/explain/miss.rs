//! Miss: how far off a gang is that its RTT bound or topology keeps out — the bound that would do,
//! and the largest part of the gang that fits inside.
//!
//! **Invariant:** a bound is only named after the planner has placed the minimum under it; both
//! searches are short: a refusal must not wait for the last microsecond of RTT.

use super::paper;
use super::refusal::fits;
use crate::id::SiteId;
use crate::job::{JobSpec, Level, RttScope, Strategy};
use crate::plan::Steps;
use crate::plan::ask::Ask;
use crate::plan::draft::{Base, Members, by_site};
use crate::plan::field::{Domain, Field};
use crate::plan::near::{self, Objective, Question, Vertex};
use crate::plan::ruled::{self, Paths};
use crate::plan::solve::Solver;
use crate::topology::FAR;
use crate::unit::RttUs;
use std::collections::{BTreeMap, BTreeSet};

/// Steps for the bound that sites need on paper, and for the largest part: a millisecond or two
/// each.
const SEARCH_STEPS: u64 = 400_000;
/// Bounds tried, each wider than the one before, where a gang fits on paper and not in fact.
const BOUNDS_TRIED_MAX: usize = 4;
/// Bounds tried between one that does and one that does not.
const BOUNDS_HALVED_MAX: usize = 3;
/// Nothing is tried to win less than one part in so many.
const PRECISION: u32 = 64;

/// A bound on all pairs that would do, the smallest found; `None` where none was, or where the bound
/// is not on all pairs.
pub(super) fn bound_needed(
    ask: &Ask<'_>,
    field: &Field<'_>,
    minimum: &[u32],
    steps: &mut Steps,
) -> Option<RttUs> {
    if ask.spec.rtt_scope != RttScope::AllPairs {
        return None;
    }
    let need = Field::demand(ask, minimum, false);
    let (needed, fixed) = (positive(&need, &need), fixed(ask));
    // Sites that are no nearer to themselves than a bound would take one member under it, which may
    // make a smaller one do.
    let net = ask.view.net();
    let (mut on_paper, mut sites) = (FAR, Vec::new());
    for _ in 0..BOUNDS_TRIED_MAX {
        let vertices = vertices(ask, field, on_paper, &need, None);
        let question = question(ask, &vertices, &needed, &fixed, None);
        let found =
            steps.part(SEARCH_STEPS, |steps| near::bound_needed_within_steps(&question, steps));
        let Some(found) = found.filter(|(bound, _)| *bound < on_paper) else { break };
        (on_paper, sites) = found;
        if !vertices.iter().any(|vertex| net.high(vertex.site, vertex.site) >= on_paper) {
            break;
        }
    }
    if on_paper == FAR {
        return None;
    }
    // Mostly the very sites hold the gang; several groups need more room than they do on paper.
    let lone = sites.iter().any(|&site| net.high(site, site) > on_paper);
    let free = !lone && is_free(ask);
    if free && ask.groups.len() == 1 {
        let solver = Solver { ask, field, base: Base::Now };
        if let Some(draft) = solver.draft_at(sites.clone(), minimum, steps) {
            return widest(ask, draft.members_by_site(ask.view));
        }
    }
    let least = on_paper.max(ask.spec.rtt_max?.0.saturating_add(1));
    let tries = Tries { ask, field, minimum, free };
    tries.least(least, &sites, steps).map(RttUs)
}

/// The bound that members keep who would go there without any, or a smaller one that does too.
pub(super) fn bound_kept(
    ask: &Ask<'_>,
    field: &Field<'_>,
    minimum: &[u32],
    members: Members,
    steps: &mut Steps,
) -> Option<RttUs> {
    let low = ask.spec.rtt_max?.0.saturating_add(1);
    let high = widest(ask, members)?.0.max(low);
    let tries = Tries { ask, field, minimum, free: false };
    let within = tries.widest(high, None, steps)?;
    Some(RttUs(tries.halve(low, high, within, steps)))
}

/// Wider bounds, tried with the planner.
struct Tries<'a> {
    ask: &'a Ask<'a>,
    field: &'a Field<'a>,
    minimum: &'a [u32],
    /// Nothing else says where members may go: the last way that the planner tries is enough.
    free: bool,
}

impl Tries<'_> {
    /// How far apart the members are under this bound, if they fit; `sites` are known to hold them on
    /// paper.
    fn widest(&self, bound: u32, sites: Option<&[u16]>, steps: &mut Steps) -> Option<u32> {
        let spec = JobSpec { rtt_max: Some(RttUs(bound)), ..self.ask.spec.clone() };
        let (ask, base) = (&self.ask.with_spec(&spec), Base::Now);
        let members = if self.free {
            let solver = Solver { ask, field: self.field, base };
            solver.draft_roomy(self.minimum, sites, steps)?.members_by_site(ask.view)
        } else {
            fits(ask, self.field, base, self.minimum, steps)?
        };
        widest(ask, members).map(|RttUs(rtt)| rtt)
    }

    /// The least bound found that does, from `least` on, under which the sites hold the gang on paper:
    /// wider and wider until one does, then between those that do and those that do not.
    fn least(&self, least: u32, sites: &[u16], steps: &mut Steps) -> Option<u32> {
        let (mut low, mut high) = (least, least);
        let mut found = self.widest(high, Some(sites), steps);
        for _ in 1..BOUNDS_TRIED_MAX {
            if found.is_some() || steps.is_spent() {
                break;
            }
            low = high.saturating_add(1);
            high = high.saturating_add(high / 8).max(low);
            found = self.widest(high, None, steps);
        }
        found.map(|within| self.halve(low, high, within, steps))
    }

    /// A bound that does, from `low` to `high`, which does and under which the members are `within`.
    fn halve(&self, mut low: u32, mut high: u32, mut within: u32, steps: &mut Steps) -> u32 {
        steps.part(SEARCH_STEPS, |steps| {
            for _ in 0..BOUNDS_HALVED_MAX {
                if high - low <= high / PRECISION || steps.is_spent() {
                    break;
                }
                // What the members keep in fact mostly does as a bound as well.
                let middle = if within < high { within.max(low) } else { low + (high - low) / 2 };
                match self.widest(middle, None, steps) {
                    Some(rtt) => (high, within) = (middle, rtt),
                    None => (low, within) = (middle.saturating_add(1), high),
                }
            }
            high
        })
    }
}

/// Whether nothing but the RTT bound says where members may go.
fn is_free(ask: &Ask<'_>) -> bool {
    matches!(ask.spec.strategy, Strategy::Pack | Strategy::Spread)
        && ask.spec.topology_required.is_none()
        && !ruled::applies(ask)
}

/// The largest RTT among the members, those that stay included; `None` where one is not known.
fn widest(ask: &Ask<'_>, mut members: Members) -> Option<RttUs> {
    for (site, count) in by_site(ask.view, ask.fixed.iter().copied()) {
        *members.entry(site).or_default() += count;
    }
    let net = ask.view.net();
    let mut widest = 0;
    for (&a, &count) in &members {
        for (&b, _) in members.range(a..).filter(|&(&b, _)| a != b || count > 1) {
            widest = widest.max(net.high(a.0, b.0));
        }
    }
    (widest != FAR).then_some(RttUs(widest))
}

/// The part of the fleet inside the bounds that holds most of the gang; where groups are bound
/// each by itself, of the group at this place of the ask.
pub(super) fn largest_part(
    ask: &Ask<'_>,
    field: &Field<'_>,
    group: usize,
    steps: &mut Steps,
) -> Domain {
    let everywhere = Domain { sites: field.sites(), rack: None };
    let (level, bound, scope) = (ask.spec.topology_required, ask.spec.rtt_max, ask.spec.rtt_scope);
    match (level, scope) {
        (Some(Level::Rack), _) => return best_rack(ask, field, &everywhere),
        // All sites that a head has near it, wherever it is: too many kinds of parts to tell one.
        (None, RttScope::HeadToMembers) => return everywhere,
        _ => {}
    }
    // What others' rules keep from the gang, sites do not hold for it.
    let admitted = ruled::applies(ask).then(|| {
        let groups = 0..ask.groups.len();
        groups.map(|at| paper::rooms_admitted(ask, field, at)).collect::<Vec<_>>()
    });
    steps.spend(admitted.iter().flatten().map(BTreeMap::len).sum::<usize>() as u64);
    let admitted = admitted.as_deref();
    let only = (scope == RttScope::WithinGroups).then_some(group);
    let nearest = (level.is_none() && bound.is_some())
        .then(|| nearest_part(ask, field, only, admitted, steps))
        .flatten();
    nearest.unwrap_or_else(|| greedy_part(ask, field, &everywhere, admitted))
}

/// The largest part within the bound, all groups alike; `None` if none was found.
fn nearest_part(
    ask: &Ask<'_>,
    field: &Field<'_>,
    only: Option<usize>,
    admitted: Option<&[BTreeMap<u16, u64>]>,
    steps: &mut Steps,
) -> Option<Domain> {
    let mut targets = ask.wanted();
    for (at, target) in targets.iter_mut().enumerate() {
        *target = if only.is_none_or(|only| only == at) { *target } else { 0 };
    }
    let parts = targets.iter().max().copied().unwrap_or(0);
    let need = Field::demand(ask, &targets, false);
    let slow_us = ask.spec.rtt_max?.0.saturating_add(1);
    let vertices = vertices(ask, field, slow_us, &need, admitted);
    let (needed, fixed) = (positive(&need, &need), fixed(ask));
    let question = question(ask, &vertices, &needed, &fixed, ask.spec.rtt_max);
    let (_, choice) =
        steps.part(SEARCH_STEPS, |steps| near::largest_within_steps(&question, parts, steps));
    Some(Domain { sites: choice?.sites, rack: None })
}

fn question<'a>(
    ask: &'a Ask<'_>,
    vertices: &'a [Vertex],
    need: &'a [u64],
    fixed: &'a [(u16, u64)],
    bound: Option<RttUs>,
) -> Question<'a> {
    let (net, bound_us) = (ask.view.net(), bound.map(|bound| bound.0));
    Question { net, vertices, need, fixed, bound_us, objective: Objective::Any }
}

/// Those of the amounts of which something is needed: fewer dimensions to look at.
fn positive(amounts: &[u64], need: &[u64]) -> Vec<u64> {
    let each = amounts.iter().zip(need).filter(|(_, need)| **need > 0);
    each.map(|(&amount, _)| amount).collect()
}

/// All sites with what they hold of what is needed; those with an inner RTT of `slow_us` or more for
/// one member. `admitted`: no more replicas of each group than this.
fn vertices(
    ask: &Ask<'_>,
    field: &Field<'_>,
    slow_us: u32,
    need: &[u64],
    admitted: Option<&[BTreeMap<u16, u64>]>,
) -> Vec<Vertex> {
    let net = ask.view.net();
    let gpus = ask.groups.iter().map(|group| u64::from(group.whole_gpus())).max().unwrap_or(0);
    let vertex = |site: u16| {
        let mut have = field.amounts(site, true).to_vec();
        for (amount, rooms) in have.iter_mut().zip(admitted.unwrap_or(&[])) {
            *amount = (*amount).min(rooms.get(&site).copied().unwrap_or(0));
        }
        let lone = net.high(site, site) >= slow_us;
        // Replicas of each group, GPUs by the size of replicas, nodes.
        if let Some((of_nodes, rest)) = have.split_last_mut().filter(|_| lone) {
            let (of_groups, of_sizes) = rest.split_at_mut(ask.groups.len().min(rest.len()));
            of_groups.iter_mut().chain([of_nodes]).for_each(|amount| *amount = (*amount).min(1));
            of_sizes.iter_mut().for_each(|amount| *amount = (*amount).min(gpus));
        }
        Vertex { site, have: positive(&have, need), lone }
    };
    field.sites().into_iter().map(vertex).collect()
}

fn fixed(ask: &Ask<'_>) -> Vec<(u16, u64)> {
    let sites = ask.fixed.iter().filter_map(|&node| Some(ask.view.slot(node)?.site.0));
    sites.collect::<BTreeSet<u16>>().into_iter().map(|site| (site, 1)).collect()
}

fn best_rack(ask: &Ask<'_>, field: &Field<'_>, everywhere: &Domain) -> Domain {
    let racks = Paths::of(ask);
    let number = |node: u32| racks.domain(Level::Rack, node) as usize;
    let mut parts = vec![0u64; racks.len(Level::Rack)];
    let mut rooms = vec![0u64; parts.len()];
    for (at, want) in ask.wanted().into_iter().enumerate() {
        rooms.fill(0);
        for (cand, _) in field.cands(ask, at, everywhere, true) {
            if let Some(room) = rooms.get_mut(number(cand.node)) {
                *room += u64::from(cand.room);
            }
        }
        parts.iter_mut().zip(&rooms).for_each(|(part, room)| *part += (*room).min(want.into()));
    }
    // Of equal ones the rack of the least node.
    let best = parts.iter().enumerate().max_by_key(|&(at, part)| (part, std::cmp::Reverse(at)));
    let slot = best.filter(|(_, part)| **part > 0).and_then(|(best, _)| {
        let mut slots = ask.view.slots();
        slots.find(|&(node, _)| number(node) == best).map(|(_, slot)| slot)
    });
    slot.map_or_else(
        || everywhere.clone(),
        |slot| Domain { sites: vec![slot.site.0], rack: Some(slot.node.place.rack.clone()) },
    )
}

/// Around each site the others that keep the RTT bound towards all taken so far, the roomiest
/// first, inside one domain of the level.
fn greedy_part(
    ask: &Ask<'_>,
    field: &Field<'_>,
    everywhere: &Domain,
    admitted: Option<&[BTreeMap<u16, u64>]>,
) -> Domain {
    let (table, net) = (ask.view.sites(), ask.view.net());
    let room = |site: u16| -> u64 {
        let amounts = field.amounts(site, true).iter().take(ask.groups.len()).enumerate();
        let own = |(at, amount): (usize, &u64)| {
            let rooms = admitted.and_then(|admitted| admitted.get(at));
            rooms.map_or(*amount, |rooms| rooms.get(&site).map_or(0, |room| *amount.min(room)))
        };
        amounts.map(own).sum()
    };
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
    let bound = ask.spec.rtt_max.filter(|_| ask.spec.rtt_scope == RttScope::AllPairs);
    let near = |a: u16, b: u16| alike(a, b) && bound.is_none_or(|bound| net.high(a, b) <= bound.0);
    let mut by_room = everywhere.sites.clone();
    by_room.sort_by_key(|&site| (std::cmp::Reverse(room(site)), site));
    let mut best: (u64, Vec<u16>) = (0, Vec::new());
    for &centre in &everywhere.sites {
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
