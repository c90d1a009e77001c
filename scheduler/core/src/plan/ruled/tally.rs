//! Tally: who stands where so far, and how many more replicas of a group a node may take by the
//! rules.
//!
//! **Invariant:** a cap never forbids what the rules allow, but for two things that hold only once
//! all are placed and are checked then: nearness to a group that comes later, and evenness.

use super::held::Held;
use super::map::Map;
use super::paths::depth;
use super::wish::Wishes;
use crate::fit::{Around, milli_price_max};
use crate::id::{NodeId, Rank};
use crate::job::{JobSpec, Level, RttScope, Segment, Strategy, Target};
use crate::topology::Net;
use crate::view::View;
use std::collections::BTreeMap;

/// One rule as seen by one group. Groups by their index in the spec.
#[derive(Clone, Debug)]
pub(super) enum Rule {
    PerNode(u32),
    /// At most one member of these groups on a node.
    Alone(Vec<usize>),
    /// All members of these groups in one domain.
    Together(usize, Vec<usize>),
    /// At most one member of the group in a domain.
    OneEach(usize),
    Apart(usize, usize),
    /// Only where the other group is; binds once that one has members.
    NearTo(usize, usize),
    In(usize, Vec<u32>),
    Out(usize, Vec<u32>),
    /// So many thousandths of a GPU each, against what is left of the total price.
    Cost(u64),
    /// Within the bound of the head's site.
    NearHead(u32),
    /// At most one member of these groups at a site whose inner RTT is over the bound.
    Lone(u32, Vec<usize>),
    /// Only so many domains, by the number of the bound.
    Held(usize),
}

/// Blocks of so many replicas, each in one domain at the depth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blocks {
    pub(super) depth: usize,
    pub(super) size: u32,
    /// No two in one domain.
    pub(super) exclusive: bool,
}

#[derive(Debug)]
pub(super) struct Tally<'a> {
    view: &'a View,
    map: &'a Map<'a>,
    /// Per group of the spec.
    rules: Vec<Vec<Rule>>,
    /// Per group of the spec and depth, by domain; empty where no rule asks.
    counts: Vec<[Vec<u32>; 5]>,
    placed: Vec<(usize, Rank, u32)>,
    /// Per group of the spec: node of its first member, and how many it has.
    first: Vec<(Option<u32>, u32)>,
    head: Rank,
    head_node: Option<u32>,
    price_left: Option<u128>,
    /// First rank of each group of the spec.
    starts: Vec<u32>,
    segments: Vec<Vec<Blocks>>,
    /// (group, segment, block): the domain and how many stand there.
    blocks: BTreeMap<(usize, usize, u32), (u32, u32)>,
    held: Vec<Held>,
}

impl<'a> Tally<'a> {
    /// `wishes`: preferences that count as required.
    pub(super) fn new(
        view: &'a View,
        map: &'a Map<'a>,
        spec: &JobSpec,
        around: &Around,
        wishes: &Wishes,
    ) -> Self {
        let held = Held::of(spec, map);
        let mut rules = rules(map, spec, around, wishes);
        for (group, list) in rules.iter_mut().enumerate() {
            let own = held.iter().enumerate().filter(|(_, bound)| bound.is_about(group));
            list.extend(own.map(|(at, _)| Rule::Held(at)));
        }
        let mut counts: Vec<[Vec<u32>; 5]> = vec![Default::default(); spec.groups.len()];
        let mut need = |group: usize, at: usize| {
            if let Some(lists) = counts.get_mut(group)
                && lists[at].is_empty()
            {
                lists[at] = vec![0; map.end(at)];
            }
        };
        for (group, rules) in rules.iter().enumerate() {
            for rule in rules {
                match rule {
                    Rule::PerNode(_) => need(group, 4),
                    Rule::Alone(set) => set.iter().for_each(|&one| need(one, 4)),
                    Rule::Lone(_, set) => set.iter().for_each(|&one| need(one, 2)),
                    Rule::OneEach(at) => need(group, *at),
                    Rule::Apart(at, other) | Rule::NearTo(at, other) => need(*other, *at),
                    Rule::Together(..)
                    | Rule::In(..)
                    | Rule::Out(..)
                    | Rule::Cost(_)
                    | Rule::NearHead(_)
                    | Rule::Held(_) => {}
                }
            }
            for spread in spec.groups.get(group).into_iter().flat_map(|g| &g.rules.spread) {
                need(group, depth(spread.level));
            }
            for one in spec.groups.get(group).into_iter().flat_map(|g| &g.rules.segments) {
                if one.exclusive {
                    need(group, depth(one.level));
                }
            }
        }
        let segments = |group: &crate::job::GroupSpec| {
            let blocks = |one: &Segment| {
                let (depth, size) = (depth(one.level), one.size.max(1));
                Blocks { depth, size, exclusive: one.exclusive }
            };
            group.rules.segments.iter().map(blocks).collect()
        };
        Self {
            view,
            map,
            rules,
            counts,
            placed: Vec::new(),
            first: vec![(None, 0); spec.groups.len()],
            head: spec.head_rank(),
            head_node: None,
            price_left: milli_price_max(spec),
            starts: spec.group_starts(),
            segments: spec.groups.iter().map(segments).collect(),
            blocks: BTreeMap::new(),
            held,
        }
    }

    pub(super) fn rules(&self, group: usize) -> &[Rule] {
        self.rules.get(group).map_or(&[], Vec::as_slice)
    }

    /// Bounds on domains, those of each owner from wide to narrow.
    pub(super) fn held(&self) -> &[Held] {
        &self.held
    }

    /// Segments of the group.
    pub(super) fn segments(&self, group: usize) -> &[Blocks] {
        self.segments.get(group).map_or(&[], Vec::as_slice)
    }

    /// Block of the group's segment in which the rank is.
    pub(super) fn block(&self, group: usize, size: u32, rank: Rank) -> u32 {
        rank.0.saturating_sub(self.starts.get(group).copied().unwrap_or(0)) / size.max(1)
    }

    /// Domain in which the block stands already.
    pub(super) fn block_home(&self, group: usize, segment: usize, block: u32) -> Option<u32> {
        let (domain, count) = self.blocks.get(&(group, segment, block))?;
        (*count > 0).then_some(*domain)
    }

    /// Whether another block may stand in the domain.
    pub(super) fn is_free_for(&self, group: usize, blocks: &Blocks, domain: u32) -> bool {
        !blocks.exclusive || self.count(group, blocks.depth, domain) == 0
    }

    pub(super) fn mark(&self) -> usize {
        self.placed.len()
    }

    pub(super) fn placed(&self) -> &[(usize, Rank, u32)] {
        &self.placed
    }

    /// Members of the group in the domain; 0 where no rule asks.
    pub(super) fn count(&self, group: usize, at: usize, domain: u32) -> u32 {
        let lists = self.counts.get(group);
        lists.and_then(|lists| lists[at].get(domain as usize)).copied().unwrap_or(0)
    }

    pub(super) fn first(&self, group: usize) -> Option<u32> {
        self.first.get(group).and_then(|(first, _)| *first)
    }

    pub(super) fn head_is_placed(&self) -> bool {
        self.head_node.is_some()
    }

    pub(super) fn add(&mut self, group: usize, rank: Rank, node: u32) {
        self.change(group, node, 1);
        if let Some((first, total)) = self.first.get_mut(group) {
            first.get_or_insert(node);
            *total += 1;
        }
        if rank == self.head {
            self.head_node = Some(node);
        }
        self.touch_blocks(group, rank, node, true);
        self.placed.push((group, rank, node));
    }

    pub(super) fn rollback(&mut self, mark: usize) {
        while self.placed.len() > mark {
            let Some((group, rank, node)) = self.placed.pop() else { return };
            self.change(group, node, -1);
            if let Some((first, total)) = self.first.get_mut(group) {
                *total = total.saturating_sub(1);
                if *total == 0 {
                    *first = None;
                }
            }
            if rank == self.head {
                self.head_node = None;
            }
            self.touch_blocks(group, rank, node, false);
        }
    }

    fn touch_blocks(&mut self, group: usize, rank: Rank, node: u32, more: bool) {
        for segment in 0..self.segments(group).len() {
            let Blocks { depth, size, .. } = self.segments(group)[segment];
            let block = self.block(group, size, rank);
            let domain = self.map.path(node)[depth];
            let entry = self.blocks.entry((group, segment, block)).or_insert((domain, 0));
            if more {
                if entry.1 == 0 {
                    entry.0 = domain;
                }
                entry.1 += 1;
            } else {
                entry.1 = entry.1.saturating_sub(1);
            }
        }
    }

    fn change(&mut self, group: usize, node: u32, by: i32) {
        let path = self.map.path(node);
        if let Some(lists) = self.counts.get_mut(group) {
            for (list, domain) in lists.iter_mut().zip(path) {
                if let Some(count) = list.get_mut(domain as usize) {
                    *count = count.saturating_add_signed(by);
                }
            }
        }
        let held = self.held.iter_mut().filter(|held| held.is_about(group));
        held.for_each(|held| held.change(&path, by > 0));
        let milli = self.rules(group).iter().find_map(|rule| match rule {
            Rule::Cost(milli) => Some(*milli),
            _ => None,
        });
        if let Some((milli, left)) = milli.zip(self.price_left) {
            let price = self.view.slot(node).map_or(0, |slot| slot.node.price.0);
            let part = u128::from(milli) * u128::from(price);
            // Members that stay may cost more than the bound leaves; nothing is left then.
            self.price_left =
                Some(if by > 0 { left.saturating_sub(part) } else { left.saturating_add(part) });
        }
    }

    /// How many more replicas of the group the node may take, at most `most`.
    pub(super) fn cap(&self, group: usize, node: u32, most: u32) -> u32 {
        let path = self.map.path(node);
        self.rules(group).iter().fold(most, |most, rule| {
            if most == 0 { 0 } else { self.cap_by(rule, group, node, &path).min(most) }
        })
    }

    /// Whether another member of the group on the node could still end well.
    pub(super) fn may(&self, group: usize, rank: Rank, node: u32) -> bool {
        let path = self.map.path(node);
        let certain = |rule: &&Rule| !matches!(rule, Rule::NearTo(..));
        let mut certain = self.rules(group).iter().filter(certain);
        let home = |(segment, blocks): (usize, &Blocks)| {
            let (domain, block) = (path[blocks.depth], self.block(group, blocks.size, rank));
            match self.block_home(group, segment, block) {
                Some(home) => home == domain,
                None => self.is_free_for(group, blocks, domain),
            }
        };
        certain.all(|rule| self.cap_by(rule, group, node, &path) > 0)
            && self.segments(group).iter().enumerate().all(home)
    }

    fn cap_by(&self, rule: &Rule, group: usize, node: u32, path: &[u32; 5]) -> u32 {
        let all_or_none = |yes: bool| if yes { u32::MAX } else { 0 };
        match rule {
            Rule::PerNode(max) => max.saturating_sub(self.count(group, 4, node)),
            Rule::Alone(set) => u32::from(set.iter().all(|&one| self.count(one, 4, node) == 0)),
            Rule::Together(at, set) => {
                let home = set.iter().find_map(|&one| self.first(one));
                all_or_none(home.is_none_or(|home| self.map.path(home)[*at] == path[*at]))
            }
            Rule::OneEach(at) => u32::from(self.count(group, *at, path[*at]) == 0),
            Rule::Apart(at, other) => all_or_none(self.count(*other, *at, path[*at]) == 0),
            Rule::NearTo(at, other) => {
                all_or_none(self.first(*other).is_none() || self.count(*other, *at, path[*at]) > 0)
            }
            Rule::Lone(bound, set) => match u16::try_from(path[2]) {
                Ok(site) if self.view.net().high(site, site) > *bound => {
                    u32::from(set.iter().all(|&one| self.count(one, 2, path[2]) == 0))
                }
                _ => u32::MAX,
            },
            Rule::Held(at) => all_or_none(self.held.get(*at).is_none_or(|held| held.admits(path))),
            Rule::In(at, domains) => all_or_none(domains.binary_search(&path[*at]).is_ok()),
            Rule::Out(at, domains) => all_or_none(domains.binary_search(&path[*at]).is_err()),
            Rule::Cost(milli) => {
                let price = self.view.slot(node).map_or(0, |slot| slot.node.price.0);
                let each = u128::from(*milli) * u128::from(price);
                let left = self.price_left.unwrap_or(u128::MAX);
                left.checked_div(each).map_or(u32::MAX, |n| u32::try_from(n).unwrap_or(u32::MAX))
            }
            Rule::NearHead(bound) => all_or_none(self.head_node.is_none_or(|head| {
                let site = |node: u32| self.view.slot(node).map(|slot| slot.site.0);
                let net: &Net = self.view.net();
                site(head).zip(site(node)).is_some_and(|(a, b)| net.high(a, b) <= *bound)
            })),
        }
    }
}

fn rules(map: &Map<'_>, spec: &JobSpec, around: &Around, wishes: &Wishes) -> Vec<Vec<Rule>> {
    let groups = spec.groups.len();
    let mut rules: Vec<Vec<Rule>> = vec![Vec::new(); groups];
    let common: Vec<usize> =
        (0..groups).filter(|&at| spec.groups[at].rules.strategy.is_none()).collect();
    let all: Vec<usize> = (0..groups).collect();
    for (at, group) in spec.groups.iter().enumerate() {
        let list = &mut rules[at];
        let (strategy, set) = match group.rules.strategy {
            Some(own) => (own, vec![at]),
            None => (spec.strategy, common.clone()),
        };
        match strategy {
            Strategy::StrictPack => list.push(Rule::Together(4, set)),
            Strategy::StrictSpread => list.push(Rule::Alone(set)),
            Strategy::Pack | Strategy::Spread => {}
        }
        if let Some(level) = spec.topology_required {
            list.push(Rule::Together(depth(level), all.clone()));
        }
        if let Some(level) = group.rules.topology_required {
            list.push(Rule::Together(depth(level), vec![at]));
        }
        if group.rules.replicas_per_node_max > 0 {
            list.push(Rule::PerNode(group.rules.replicas_per_node_max));
        }
        if spec.bounds_cost() && group.shape.gpu_milli() > 0 {
            list.push(Rule::Cost(group.shape.gpu_milli()));
        }
        match (spec.rtt_max, spec.rtt_scope) {
            (None, _) => {}
            (Some(bound), RttScope::AllPairs) => list.push(Rule::Lone(bound.0, all.clone())),
            (Some(bound), RttScope::WithinGroups) => list.push(Rule::Lone(bound.0, vec![at])),
            (Some(bound), RttScope::HeadToMembers) => list.push(Rule::NearHead(bound.0)),
        }
    }
    let domains = |level: Level, nodes: &[NodeId]| {
        let mut found: Vec<u32> = nodes.iter().map(|node| map.path(node.0)[depth(level)]).collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    for (number, one) in spec.affinities.iter().enumerate() {
        if !wishes.binds(spec, number) {
            continue;
        }
        let at = depth(one.level);
        match &one.target {
            Target::Groups { group, with } => {
                let (group, with) = (usize::from(*group), usize::from(*with));
                let (near, far) = match (one.anti, group == with) {
                    (true, true) => (Rule::OneEach(at), None),
                    (true, false) => (Rule::Apart(at, with), Some(Rule::Apart(at, group))),
                    (false, true) => (Rule::Together(at, vec![group]), None),
                    (false, false) => (Rule::NearTo(at, with), None),
                };
                rules[group].push(near);
                rules[with].extend(far);
            }
            Target::Jobs { group, .. } => {
                let nodes = around.targets.get(number).map_or(&[][..], Vec::as_slice);
                let domains = domains(one.level, nodes);
                let rule = if one.anti { Rule::Out(at, domains) } else { Rule::In(at, domains) };
                for (index, list) in rules.iter_mut().enumerate() {
                    if group.is_none_or(|group| usize::from(group) == index) {
                        list.push(rule.clone());
                    }
                }
            }
        }
    }
    for (level, nodes) in &around.closed {
        let rule = Rule::Out(depth(*level), domains(*level, nodes));
        rules.iter_mut().for_each(|list| list.push(rule.clone()));
    }
    rules
}
