//! Ruled: gangs with rules among their members that the fast way does not know — blocks, evenness,
//! nearness and distance between groups and to other jobs, bounds per node, on domains, on the total price,
//! on RTTs within groups or to the head.
//!
//! `paths` numbers the domains, `map` says where each group could go, `tally` keeps what the rules allow next, `lot` places one group,
//! `held` knows the domains that a bound counts, `few` chooses them,
//! `sites` chooses sites under an RTT bound, `exact` tries every way where the case is small,
//! `sizes` says how many to try, `stage` is the fleet as the rules see it, `wish` what can be done without, `single` places one replica by
//! the policy, `apart` says what other jobs leave. Here: greedy, group by group, with a way back to
//! the last choice of a domain.
//! Replicas that replace lost ones may have a domain in which they must stay.
//! **Invariant:** what is returned keeps every rule, by the very check that `State::apply` makes;
//! running out of steps or tries may cost the answer.

mod apart;
mod exact;
mod few;
mod held;
mod lot;
mod map;
mod paths;
mod single;
mod sites;
mod sizes;
mod stage;
mod tally;
mod wish;

use super::Steps;
use super::ask::Ask;
use super::draft::{Base, Draft, Mark};
use crate::command::Placement;
use crate::fit::{self, Breach, Fleet};
use crate::id::{NodeId, Rank, SiteId};
use crate::job::{GroupSpec, RttScope};
pub(super) use apart::Apart;
use lot::{HINT_LEVELS, LOOK_STEPS, runs};
use map::{Cand, Map};
pub(super) use paths::{KnownPaths, Paths, depth};
pub(super) use single::place as place_single;
use sizes::Tried;
pub(super) use stage::KnownEligible;
use stage::Stage;
use std::cmp::Reverse;
use tally::{Rule, Tally};
use wish::{Wish, Wishes};

/// Domains tried for one group before a choice made earlier is taken back.
const DOMAINS_TRIED_MAX: usize = 48;
/// Domains tried for a group that may as well spread over several.
const HINTS_TRIED_MAX: usize = 6;
/// Groups placed in one search, taken back and placed again: bounds the whole search.
const LOTS_MAX: u32 = 4_096;

/// Whether the fast way does not know all the rules of the ask.
pub(super) fn applies(ask: &Ask<'_>) -> bool {
    ask.spec.has_rules() || !ask.around.closed.is_empty() || !ask.homes.is_empty()
}

/// As many replicas as can be placed, at least the minimum of every group.
pub(super) fn place(ask: &Ask<'_>, base: Base, steps: &mut Steps) -> Option<Vec<Placement>> {
    let map = Map::new(ask, base, steps);
    sizes::largest(ask, map.is_small(), |targets| solve(ask, &map, base, targets, steps))
}

/// Any number of replicas from the minimum of every group on, for a start the least.
pub(super) fn least(ask: &Ask<'_>, base: Base, steps: &mut Steps) -> Option<Vec<Placement>> {
    let map = Map::new(ask, base, steps);
    sizes::least(ask, map.is_small(), |targets| solve(ask, &map, base, targets, steps))
}

/// Places so many replicas of each group.
fn solve(ask: &Ask<'_>, map: &Map<'_>, base: Base, targets: &[u32], steps: &mut Steps) -> Tried {
    if steps.is_spent() {
        return Tried::Cut;
    }
    let shunned = map.cands.iter().flatten().any(|cand| cand.shuns);
    let search = |wishes: &Wishes, cheap: bool, shunned: bool, steps: &mut Steps| {
        let tally = Tally::new(ask.view, map, ask.spec, ask.around, wishes);
        let draft = Draft::new(ask, base);
        let (wishes, lots) = (wishes.clone(), LOTS_MAX);
        let mut search =
            Search { ask, map, draft, tally, targets, wishes, cheap, shunned, lots, steps };
        search.stay();
        search.run().then(|| search.draft.into_placements())
    };
    for shunned in [false, true].into_iter().filter(|&with| shunned || !with) {
        let found = Wishes::of(ask.spec).best(|wishes| {
            let ways = [false, true].into_iter().filter(|&with| ask.spec.bounds_cost() || !with);
            ways.into_iter().find_map(|cheap| {
                (!steps.is_spent()).then(|| search(wishes, cheap, shunned, steps)).flatten()
            })
        });
        if let Some(found) = found {
            return Tried::Placed(found);
        }
        if steps.is_spent() {
            return Tried::Cut;
        }
    }
    let wishes = Wishes::default();
    let tally = Tally::new(ask.view, map, ask.spec, ask.around, &wishes);
    let draft = Draft::new(ask, base);
    let (cheap, shunned, lots) = (false, true, 0);
    let mut search =
        Search { ask, map, draft, tally, targets, wishes, cheap, shunned, lots, steps };
    search.stay();
    match search.exact() {
        true => Tried::Placed(search.draft.into_placements()),
        false if search.steps.is_spent() => Tried::Cut,
        false => Tried::Failed,
    }
}

struct Search<'a, 's> {
    ask: &'a Ask<'a>,
    map: &'a Map<'a>,
    draft: Draft,
    tally: Tally<'a>,
    /// Replicas to place of each group of the ask.
    targets: &'a [u32],
    /// Preferences that count as required.
    wishes: Wishes,
    /// Cheap nodes first.
    cheap: bool,
    /// Nodes that ask to be used last may be used.
    shunned: bool,
    lots: u32,
    steps: &'s mut Steps,
}

/// Where a group may go in one try.
enum Way {
    Anywhere,
    /// Candidates from one place to another.
    Run(usize, usize),
    Sites(Vec<u16>),
}

impl<'a> Search<'a, '_> {
    fn group_of(&self, at: usize) -> usize {
        self.ask.groups.get(at).map_or(usize::MAX, |group| group.group)
    }

    fn group_spec(&self, at: usize) -> Option<&'a GroupSpec> {
        self.ask.spec.groups.get(self.group_of(at))
    }

    fn ranks(&self, at: usize) -> &'a [Rank] {
        let target = self.targets.get(at).copied().unwrap_or(0) as usize;
        let ask: &'a Ask<'a> = self.ask;
        ask.groups.get(at).and_then(|group| group.ranks.get(..target)).unwrap_or(&[])
    }

    /// Members that stay.
    fn stay(&mut self) {
        for &(rank, node) in &self.ask.members {
            if let Some(group) = self.ask.spec.group_of(rank) {
                self.tally.add(group, rank, node);
            }
        }
    }

    fn mark(&self) -> (Mark, usize) {
        (self.draft.mark(), self.tally.mark())
    }

    fn rollback(&mut self, mark: (Mark, usize)) {
        self.draft.rollback(mark.0);
        self.tally.rollback(mark.1);
    }

    fn run(&mut self) -> bool {
        let allowed: Vec<Vec<Cand>> = self
            .map
            .cands
            .iter()
            .map(|list| list.iter().filter(|one| self.shunned || !one.shuns).copied().collect())
            .collect();
        self.steps.spend(allowed.iter().map(Vec::len).sum::<usize>() as u64 * LOOK_STEPS);
        let short = |(list, &target): (&Vec<Cand>, &u32)| list.is_empty() && target > 0;
        if allowed.iter().zip(self.targets).any(short) {
            return false;
        }
        for order in self.orders(&allowed) {
            for choice in self.choices(&allowed) {
                let mark = self.mark();
                if self.place_from(&order, 0, &choice) {
                    return true;
                }
                self.rollback(mark);
                if self.steps.is_spent() || self.lots == 0 {
                    return false;
                }
            }
        }
        false
    }

    /// Orders in which to place the groups: those first whose place others depend on, then the
    /// largest bundles; and the scarcest first.
    fn orders(&self, allowed: &[Vec<Cand>]) -> Vec<Vec<usize>> {
        let head = self.ask.spec.head_rank();
        let heads = self.ask.spec.rtt_scope == RttScope::HeadToMembers;
        // How many groups a group wants to be near to: those that want none come first.
        let depends = |at: usize| {
            let near = |rule: &&Rule| matches!(rule, Rule::NearTo(..));
            self.tally.rules(self.group_of(at)).iter().filter(near).count()
        };
        let size = |at: usize| {
            let group = &self.ask.groups[at];
            (group.whole_gpus(), group.needs.resources().cpu.0)
        };
        let slack = |at: usize| {
            let have: u64 = allowed[at].iter().map(|cand| u64::from(cand.room)).sum();
            have.saturating_mul(1000) / u64::from(self.targets[at]).max(1)
        };
        let first = |at: usize| {
            let has_head = heads && self.ask.groups[at].ranks.contains(&head);
            (!has_head, depends(at))
        };
        let mut by_size: Vec<usize> = (0..self.ask.groups.len()).collect();
        by_size.sort_by_key(|&at| (first(at), Reverse(size(at)), slack(at), at));
        let mut by_slack = by_size.clone();
        by_slack.sort_by_key(|&at| (first(at), slack(at), Reverse(size(at)), at));
        let mut orders = vec![by_size];
        if !orders.contains(&by_slack) {
            orders.push(by_slack);
        }
        orders
    }

    fn place_from(&mut self, order: &[usize], next: usize, allowed: &[Vec<Cand>]) -> bool {
        let Some(&at) = order.get(next) else { return self.holds() };
        if self.ranks(at).is_empty() {
            return self.place_from(order, next + 1, allowed);
        }
        for way in self.ways(at, allowed) {
            if self.lots == 0 || self.steps.is_spent() {
                return false;
            }
            self.lots -= 1;
            let mark = self.mark();
            if self.place_group(at, &way, &allowed[at]) && self.place_from(order, next + 1, allowed)
            {
                return true;
            }
            self.rollback(mark);
        }
        false
    }

    fn place_group(&mut self, at: usize, way: &Way, cands: &[Cand]) -> bool {
        let ranks = self.ranks(at);
        let head = self.ask.spec.head_rank();
        match way {
            Way::Anywhere => self.lot(at, ranks, cands),
            Way::Run(from, to) => self.lot(at, ranks, cands.get(*from..*to).unwrap_or(&[])),
            Way::Sites(sites) => {
                let inside = |cand: &&Cand| sites.binary_search(&cand.site).is_ok();
                let here: Vec<Cand> = cands.iter().filter(inside).copied().collect();
                // Only the head is bound to the site; all others then to be near it.
                if self.ask.spec.rtt_scope == RttScope::HeadToMembers
                    && let Some((first, rest)) = ranks.split_first()
                    && *first == head
                {
                    return self.lot(at, &[*first], &here)
                        && (rest.is_empty() || self.lot(at, rest, cands));
                }
                self.lot(at, ranks, &here)
            }
        }
    }

    /// Where to try a group, the best first.
    fn ways(&mut self, at: usize, allowed: &[Vec<Cand>]) -> Vec<Way> {
        let cands = &allowed[at];
        let group = self.group_of(at);
        self.look(at, cands.len());
        if let Some(sites) = self.site_ways(at, cands) {
            return sites;
        }
        let mut ways = Vec::new();
        let mut hard: Option<(usize, Vec<usize>)> = None;
        for rule in self.tally.rules(group) {
            if let Rule::Together(depth, set) = rule
                && hard.as_ref().is_none_or(|(known, _)| *known < *depth)
            {
                hard = Some((*depth, set.clone()));
            }
        }
        if self.wishes.keeps(Wish::GroupTopology(group))
            && let Some(level) = self.group_spec(at).and_then(|spec| spec.rules.topology_preferred)
            && hard.as_ref().is_none_or(|(known, _)| *known < depth(level))
        {
            hard = Some((depth(level), vec![group]));
        }
        if let Some((depth, set)) = hard {
            if set.iter().any(|&one| self.tally.first(one).is_some()) {
                // The caps leave only the domain where the others are.
                ways.push(Way::Anywhere);
                return ways;
            }
            self.domains(at, depth, &set, allowed, DOMAINS_TRIED_MAX, &mut ways);
            return ways;
        }
        for level in HINT_LEVELS {
            let at_level = depth(level);
            let mut set = Vec::new();
            for (other, rules) in (0..self.ask.spec.groups.len()).map(|g| (g, self.tally.rules(g)))
            {
                for rule in rules {
                    match rule {
                        Rule::NearTo(depth, with) if *depth == at_level && *with == group => {
                            set.extend([group, other]);
                        }
                        Rule::Apart(depth, _) if *depth == at_level && other == group => {
                            set.push(group);
                        }
                        _ => {}
                    }
                }
            }
            if !set.is_empty() {
                self.domains(at, at_level, &set, allowed, HINTS_TRIED_MAX, &mut ways);
            }
        }
        ways.push(Way::Anywhere);
        ways
    }

    /// Domains that hold the group, and all others of the set that are not placed yet, on paper:
    /// the tightest first.
    fn domains(
        &mut self,
        at: usize,
        depth: usize,
        set: &[usize],
        allowed: &[Vec<Cand>],
        most: usize,
        ways: &mut Vec<Way>,
    ) {
        self.look(at, allowed[at].len() * (1 + set.len()));
        let mut found: Vec<(u64, usize, usize)> = Vec::new();
        let mut from = 0;
        let others: Vec<usize> = (0..self.ask.groups.len())
            .filter(|&other| other != at && set.contains(&self.group_of(other)))
            .filter(|&other| self.tally.first(self.group_of(other)).is_none())
            .collect();
        for run in runs(&allowed[at], depth) {
            let to = from + run.len();
            let need = self.ranks(at).len() as u64;
            let room = self.paper(at, 0, run).max(self.loose(at, run));
            let prefix = &run[0].path[..=depth];
            let hold = |&other: &usize| {
                let list = &allowed[other];
                let start = list.partition_point(|cand| &cand.path[..=depth] < prefix);
                let end = list.partition_point(|cand| &cand.path[..=depth] <= prefix);
                let inside = list.get(start..end).unwrap_or(&[]);
                let need = self.ranks(other).len() as u64;
                inside.iter().map(|cand| u64::from(cand.room)).sum::<u64>() >= need
            };
            if room >= need && others.iter().all(hold) {
                found.push((room, from, to));
            }
            from = to;
        }
        found.sort_unstable();
        ways.extend(found.into_iter().take(most).map(|(_, from, to)| Way::Run(from, to)));
    }

    /// Room where blocks need not be whole: the last one often is not.
    pub(super) fn loose(&self, at: usize, run: &[Cand]) -> u64 {
        if self.tally.segments(self.group_of(at)).is_empty() {
            return 0;
        }
        run.iter().map(|cand| u64::from(cand.room)).sum()
    }

    /// Whether all that stands keeps every rule, by the check that `apply` makes.
    fn holds(&mut self) -> bool {
        let (ask, spec) = (self.ask, self.ask.spec);
        let rules = |group: &GroupSpec| 1 + group.rules.spread.len() + group.rules.segments.len();
        let most = spec.groups.iter().map(rules).max().unwrap_or(0) + spec.affinities.len();
        self.steps.spend((self.tally.placed().len() * most) as u64 * 4);
        let stage = Stage::new(ask, Some(self.map));
        let members = self.tally.placed().iter();
        let members =
            members.filter_map(|&(_, rank, node)| Some((rank, stage.node(NodeId(node))?)));
        let breach = fit::breach(spec, &stage, ask.around, members);
        self.steps.spend(ask.unpaid());
        match breach {
            None => true,
            Some(Breach::Rtt) => self.joins(),
            Some(_) => false,
        }
    }

    /// Whether at least those who join a gang keep its bound, be those that stay how they may.
    fn joins(&self) -> bool {
        let (stay, spec) = (self.ask.members.len(), self.ask.spec);
        if stay == 0 || spec.rtt_scope != RttScope::AllPairs {
            return false;
        }
        let view = self.ask.view;
        let sites: Vec<SiteId> = self
            .tally
            .placed()
            .iter()
            .filter_map(|&(_, _, node)| Some(view.slot(node)?.site))
            .collect();
        let (old, new) = sites.split_at(stay.min(sites.len()));
        spec.rtt_max.is_none_or(|bound| fit::joins_within(view.sites(), old, new, bound))
    }
}
