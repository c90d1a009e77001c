//! Sites: where a gang, a group or a head may go under an RTT bound or a topology of the job.
//!
//! **Invariant:** sites chosen here keep the RTT bound among themselves; whether they hold the
//! replicas in fact is found out by placing them.

use super::held::Held;
use super::map::Cand;
use super::paths::depth;
use super::wish::Wish;
use super::{Search, Way};
use crate::job::{Level, RttScope};
use crate::plan::near::{self, Answer, Objective, Question, Vertex};
use crate::unit::RttUs;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// Single sites tried before sets of sites.
const SITES_TRIED_MAX: usize = 8;
/// Wider and wider sets of sites tried.
const WIDENINGS_MAX: usize = 6;
/// Sites for which every maximal clique is tried in the end.
const SITES_EXHAUSTIVE_MAX: usize = 14;
/// Domains of the job's required or preferred level that are tried.
const DOMAINS_TRIED_MAX: usize = 24;
/// Sites tried for a head.
const HEADS_TRIED_MAX: usize = 64;
/// Sites around which few domains are looked for.
const SEEDS_MAX: usize = 24;

impl Search<'_, '_> {
    /// Candidates of each group, narrowed to what the job as a whole may take: one domain of its
    /// level, and within that sites near enough to each other. The best first.
    pub(super) fn choices(&mut self, allowed: &[Vec<Cand>]) -> Vec<Vec<Vec<Cand>>> {
        let all: Vec<usize> = (0..self.ask.groups.len()).collect();
        let needs: Vec<u64> = self.targets.iter().map(|&count| count.into()).collect();
        let mut choices = Vec::new();
        for domain in self.job_domains(allowed) {
            let sets = match (self.ask.spec.rtt_max, self.ask.spec.rtt_scope) {
                (Some(_), RttScope::AllPairs) => self.near_sets(&all, &domain),
                (Some(_), RttScope::HeadToMembers) if !self.ask.spec.domains_max.is_empty() => {
                    self.sets_near_heads(&domain)
                }
                _ => Vec::new(),
            };
            for sites in sets {
                let near: Vec<Vec<Cand>> = domain.iter().map(|list| inside(list, &sites)).collect();
                choices.extend(self.few(None, &all, &needs, near));
                if self.steps.is_spent() {
                    return choices;
                }
            }
            let all_pairs = self.ask.spec.rtt_scope == RttScope::AllPairs;
            if self.ask.spec.rtt_max.is_none() || !all_pairs {
                choices.extend(self.few(None, &all, &needs, domain));
            }
            if self.steps.is_spent() {
                break;
            }
        }
        choices
    }

    /// For the best sites of the head: all sites near to each.
    fn sets_near_heads(&self, allowed: &[Vec<Cand>]) -> Vec<Vec<u16>> {
        let head = self.ask.spec.head_rank();
        let has_head = |at: &usize| self.ask.groups[*at].ranks.contains(&head);
        let Some(at) = (0..allowed.len()).find(has_head) else { return Vec::new() };
        let (net, bound) = (self.ask.view.net(), self.ask.spec.rtt_max.map_or(0, |bound| bound.0));
        let heads = self.head_sites(&allowed[at]).into_iter().take(SITES_TRIED_MAX);
        let all = 0..u16::try_from(self.ask.view.sites().len()).unwrap_or(u16::MAX);
        heads
            .map(|home| all.clone().filter(|&site| net.high(home, site) <= bound).collect())
            .collect()
    }

    fn job_domains(&self, allowed: &[Vec<Cand>]) -> Vec<Vec<Vec<Cand>>> {
        let spec = self.ask.spec;
        let wanted = spec.topology_preferred.filter(|_| self.wishes.keeps(Wish::Topology));
        let Some(level) = wanted.max(spec.topology_required).filter(|&l| l != Level::Node) else {
            return vec![allowed.to_vec()];
        };
        let at = depth(level);
        let home = self.tally.placed().first().map(|&(_, _, node)| self.map.path(node)[at]);
        let mut numbers: Vec<u32> = allowed.iter().flatten().map(|cand| cand.path[at]).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut rooms: Vec<Vec<u64>> = vec![vec![0; self.map.end(at)]; allowed.len()];
        for (rooms, list) in rooms.iter_mut().zip(allowed) {
            for cand in list {
                rooms[cand.path[at] as usize] += u64::from(cand.room);
            }
        }
        let mut found: Vec<(u64, u32)> = Vec::new();
        for number in numbers.into_iter().filter(|number| home.is_none_or(|home| home == *number)) {
            let room = |group: usize| rooms[group][number as usize];
            let holds = (0..allowed.len()).all(|one| room(one) >= u64::from(self.targets[one]));
            if holds {
                found.push(((0..allowed.len()).map(room).sum(), number));
            }
        }
        found.sort_unstable();
        let narrow = |number: u32| {
            let of = |list: &Vec<Cand>| {
                list.iter().filter(|cand| cand.path[at] == number).copied().collect()
            };
            allowed.iter().map(of).collect()
        };
        found.into_iter().take(DOMAINS_TRIED_MAX).map(|(_, number)| narrow(number)).collect()
    }

    /// For a group that is bound by itself: sets of sites to try; `None` where sites do not matter.
    pub(super) fn site_ways(&mut self, at: usize, cands: &[Cand]) -> Option<Vec<Way>> {
        self.ask.spec.rtt_max?;
        match self.ask.spec.rtt_scope {
            RttScope::AllPairs => None,
            RttScope::WithinGroups => {
                let mut lists = vec![Vec::new(); self.ask.groups.len()];
                lists[at] = cands.to_vec();
                let sets = self.near_sets(&[at], &lists);
                Some(sets.into_iter().map(Way::Sites).collect())
            }
            RttScope::HeadToMembers => {
                let head = self.ask.spec.head_rank();
                if self.tally.head_is_placed() || !self.ranks(at).contains(&head) {
                    return None;
                }
                Some(
                    self.head_sites(cands).into_iter().map(|site| Way::Sites(vec![site])).collect(),
                )
            }
        }
    }

    /// Sites for the head: those with the most around them within the bound first.
    fn head_sites(&self, cands: &[Cand]) -> Vec<u16> {
        let net = self.ask.view.net();
        let bound = self.ask.spec.rtt_max.map_or(0, |bound| bound.0);
        let mut rooms = vec![0u64; self.ask.view.sites().len()];
        for cand in self.map.cands.iter().flatten() {
            if let Some(room) = rooms.get_mut(usize::from(cand.site)) {
                *room += u64::from(cand.room);
            }
        }
        let sites: BTreeSet<u16> = cands.iter().map(|cand| cand.site).collect();
        let stay = |site: u16| {
            self.tally.placed().iter().all(|&(_, _, node)| {
                self.ask.view.slot(node).is_none_or(|slot| net.high(site, slot.site.0) <= bound)
            })
        };
        let around = |site: u16| -> u64 {
            let others = (0u16..).zip(&rooms);
            others.filter(|(other, _)| net.high(site, *other) <= bound).map(|(_, room)| room).sum()
        };
        let mut found: Vec<(Reverse<u64>, u16)> = sites
            .into_iter()
            .filter(|&site| stay(site))
            .map(|site| (Reverse(around(site)), site))
            .collect();
        found.sort_unstable();
        found.into_iter().take(HEADS_TRIED_MAX).map(|(_, site)| site).collect()
    }

    /// Sets of sites within the bound that hold these groups (by their place in the ask) on paper.
    fn near_sets(&mut self, groups: &[usize], lists: &[Vec<Cand>]) -> Vec<Vec<u16>> {
        let net = self.ask.view.net();
        let bound = self.ask.spec.rtt_max.map_or(u32::MAX, |bound| bound.0);
        let specs: Vec<usize> = groups.iter().map(|&at| self.group_of(at)).collect();
        let mut stay: BTreeSet<u16> = BTreeSet::new();
        for &(group, _, node) in self.tally.placed() {
            if specs.contains(&group) {
                stay.extend(self.ask.view.slot(node).map(|slot| slot.site.0));
            }
        }
        let need: Vec<u64> = groups.iter().map(|&at| u64::from(self.targets[at])).collect();
        let alone = need.iter().sum::<u64>() == 1 && stay.is_empty();
        let mut have = vec![vec![0u64; groups.len()]; self.ask.view.sites().len()];
        for (index, &at) in groups.iter().enumerate() {
            for cand in lists.get(at).into_iter().flatten() {
                if let Some(cell) = have.get_mut(usize::from(cand.site)) {
                    cell[index] += u64::from(cand.room);
                }
            }
        }
        let keeps = |site: u16| stay.iter().all(|&other| net.high(site, other) <= bound);
        let vertices: Vec<Vertex> = (0u16..)
            .zip(have)
            .filter(|(site, have)| have.iter().any(|&room| room > 0) && keeps(*site))
            .map(|(site, have)| match !alone && net.high(site, site) > bound {
                true => Vertex::lone(site, have),
                false => Vertex::new(site, have),
            })
            .collect();
        let covers = |have: &[u64]| have.iter().zip(&need).all(|(have, need)| have >= need);
        let mut singles: Vec<(u64, u16)> = vertices
            .iter()
            .filter(|vertex| !vertex.lone && covers(&vertex.have))
            .map(|vertex| (vertex.have.iter().sum(), vertex.site))
            .collect();
        singles.sort_unstable();
        let singles = singles.into_iter().take(SITES_TRIED_MAX);
        let mut sets: Vec<Vec<u16>> = singles.map(|(_, site)| vec![site]).collect();
        if alone || vertices.len() < 2 {
            return sets;
        }
        let fixed: Vec<(u16, u64)> = stay.into_iter().map(|site| (site, 1)).collect();
        let objective = Objective::Any;
        let question = Question {
            net,
            vertices: &vertices,
            need: &need,
            fixed: &fixed,
            bound_us: Some(bound),
            objective,
        };
        let mut found = near::within_steps(&question, self.steps);
        for _ in 0..WIDENINGS_MAX {
            let Answer::Chosen(choice) = found else { break };
            let rtt = choice.high_us;
            let grown = grow(&choice.sites, &vertices, |a, b| net.high(a, b) <= bound);
            for set in [choice.sites, grown] {
                if !sets.contains(&set) {
                    sets.push(set);
                }
            }
            if rtt >= bound || self.steps.is_spent() {
                break;
            }
            let wider = rtt.saturating_add(rtt / 4).saturating_add(1).min(bound);
            let question = Question { bound_us: Some(wider), ..question };
            found = near::any_within_steps(&question, self.steps);
        }
        for set in self.few_near(&specs, &vertices) {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
        if vertices.len() <= SITES_EXHAUSTIVE_MAX {
            let members: Vec<u16> = vertices.iter().map(|one| one.site).collect();
            for set in self.ask.view.sites().near_sets(&members, RttUs(bound)) {
                if !sets.contains(&set) {
                    sets.push(set);
                }
            }
        }
        sets
    }

    /// Where these groups of the spec have a bound on domains: around each of the roomiest sites the
    /// roomiest others, as many as are allowed, all near to each other.
    fn few_near(&mut self, groups: &[usize], vertices: &[Vertex]) -> Vec<Vec<u16>> {
        let bounds = self.tally.held().iter();
        let mut bounds =
            bounds.filter(|held| held.group.is_none_or(|own| groups.contains(&own))).peekable();
        if bounds.peek().is_none() {
            return Vec::new();
        }
        let of_sites = bounds.find(|held| held.depth == depth(Level::Site));
        let most = of_sites.map_or(usize::MAX, Held::left);
        let (net, bound) = (self.ask.view.net(), self.ask.spec.rtt_max.map_or(0, |bound| bound.0));
        let mut order: Vec<&Vertex> = vertices.iter().collect();
        order.sort_by_key(|vertex| (Reverse(vertex.have.iter().sum::<u64>()), vertex.site));
        let (mut sets, mut work) = (Vec::new(), 0);
        for seed in order.iter().take(SEEDS_MAX) {
            let (mut set, mut left) = (Vec::new(), most);
            for vertex in std::iter::once(seed).chain(&order) {
                let site = vertex.site;
                let free = of_sites.is_some_and(|held| held.holds(site.into()));
                work += 1 + set.len() as u64;
                if (free || left > 0)
                    && !set.contains(&site)
                    && set.iter().all(|&other| net.high(other, site) <= bound)
                {
                    set.push(site);
                    left -= usize::from(!free);
                }
            }
            set.sort_unstable();
            sets.push(set);
        }
        self.steps.spend(work);
        sets
    }
}

fn inside(cands: &[Cand], sites: &[u16]) -> Vec<Cand> {
    cands.iter().filter(|cand| sites.binary_search(&cand.site).is_ok()).copied().collect()
}

/// Adds the roomiest sites that are near to all others.
fn grow(sites: &[u16], vertices: &[Vertex], near: impl Fn(u16, u16) -> bool) -> Vec<u16> {
    let mut grown = sites.to_vec();
    let mut others: Vec<&Vertex> =
        vertices.iter().filter(|vertex| !sites.contains(&vertex.site)).collect();
    others.sort_by_key(|vertex| (Reverse(vertex.have.iter().sum::<u64>()), vertex.site));
    for vertex in others {
        if grown.iter().all(|&site| near(site, vertex.site)) {
            grown.push(vertex.site);
        }
    }
    grown.sort_unstable();
    grown
}
