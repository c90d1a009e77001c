//! Terms: what a node's labels, taints, price and capacity say to every group of an ask, worked out
//! once for each node that is asked about.
//!
//! Selectors are not held against nodes one by one: all that they name is kept sorted by a hash,
//! and each label of a node finds those that are about it. So a node costs what it has of labels,
//! not what the job has of conditions.
//! **Invariant:** says exactly what [`Needs::misfit`] and [`Needs::shuns`] say, GPUs left aside.

use super::ask::{GroupAsk, Known};
use crate::fit::{Misfit, Needs, labels};
use crate::hash::Hasher;
use crate::job::{Condition, Selector};
use crate::node::Node;
use std::cell::Cell;
use std::hash::Hasher as _;
use std::rc::Rc;
use std::sync::Arc;

/// Conditions of all groups together from which on this pays; fewer are simply held against each
/// node.
const CONDITIONS_MIN: usize = 64;
/// Steps of a budget for noting one value that a selector names.
const NAME_STEPS: u64 = 4;
/// For looking up one label of a node, with its value and without.
const LABEL_STEPS: u64 = 16;
/// For a selector that such a label is about.
const MEET_STEPS: u64 = 2;
/// For what a node says to one group besides.
const GROUP_STEPS: u64 = 2;

/// What a node says to one group, GPUs left aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Term {
    pub(super) misfit: Option<Misfit>,
    pub(super) shuns: bool,
}

/// The terms of all groups of an ask.
#[derive(Debug)]
pub(super) struct Terms {
    index: Rc<Index>,
    /// Per group of the ask.
    needs: Vec<Needs>,
    /// By node.
    known: Known<Rc<[Term]>>,
}

impl Terms {
    /// `None` where the groups have too few conditions for it to pay.
    pub(super) fn new(groups: &[GroupAsk]) -> Option<Self> {
        let conditions = |needs: &Needs| {
            let each = needs.selectors().iter().map(|one| 1 + one.condition.values().len());
            each.sum::<usize>() + needs.tolerations().len()
        };
        let all: usize = groups.iter().map(|group| conditions(&group.needs)).sum();
        (all >= CONDITIONS_MIN).then(|| Self::of_needs(needs_of(groups)))
    }

    /// The same for groups with the same selectors.
    pub(super) fn again(&self, groups: &[GroupAsk]) -> Self {
        let (index, needs) = (Rc::clone(&self.index), needs_of(groups));
        Self { index, needs, known: Known::default() }
    }

    fn of_needs(needs: Vec<Needs>) -> Self {
        let index = Rc::new(Index::new(&needs));
        Self { index, needs, known: Known::default() }
    }

    /// What the node says to the group at this place of the ask.
    pub(super) fn of(&self, group: usize, node: &Node) -> Option<Term> {
        self.known.get(node.id.0, || self.ask(node)).get(group).copied()
    }

    fn ask(&self, node: &Node) -> Rc<[Term]> {
        let misses = self.index.misses(node);
        let term = |(needs, list): (&Needs, &u32)| {
            self.index.work(GROUP_STEPS + (node.taints.len() * needs.tolerations().len()) as u64);
            let selected = || misses.get(*list as usize).is_some_and(|&misses| misses == 0);
            Term { misfit: needs.term_misfit(node, selected), shuns: needs.shuns(node) }
        };
        self.needs.iter().zip(&self.index.list_of).map(term).collect()
    }

    /// Steps of a budget that were worked since this was last asked.
    pub(super) fn unpaid(&self) -> u64 {
        self.index.unpaid.take()
    }
}

fn needs_of(groups: &[GroupAsk]) -> Vec<Needs> {
    groups.iter().map(|group| group.needs.clone()).collect()
}

/// One value that a selector names, or its key alone.
#[derive(Clone, Copy, Debug)]
struct Named {
    hash: u64,
    list: u32,
    selector: u32,
    /// Place in the selector's values.
    value: Option<u32>,
    /// The next of the same slot, plus one; 0 = none.
    next: u32,
}

/// The selectors of all groups, by what they name.
#[derive(Debug)]
struct Index {
    /// Lists that differ, as far as was looked.
    lists: Vec<Arc<[Selector]>>,
    /// Per group: its list.
    list_of: Vec<u32>,
    named: Vec<Named>,
    /// By hash: the first of `named`, plus one; 0 = none. A power of two long.
    heads: Vec<u32>,
    /// Per list: selectors that a node without any labels misses.
    bare: Vec<i64>,
    /// By node: how many selectors of each list it misses.
    known: Known<Rc<[i64]>>,
    unpaid: Cell<u64>,
}

impl Index {
    fn new(needs: &[Needs]) -> Self {
        let (lists, list_of) = lists(needs);
        let mut named = Vec::new();
        let mut bare = vec![0; lists.len()];
        for ((list, selectors), bare) in (0u32..).zip(&lists).zip(&mut bare) {
            for (selector, one) in (0u32..).zip(selectors.iter()) {
                *bare += i64::from(matches!(one.condition, Condition::In(_) | Condition::Exists));
                let key = hash_of_key(&one.key);
                let mut note = |hash, value| {
                    named.push(Named { hash, list, selector, value, next: 0 });
                };
                match &one.condition {
                    Condition::Exists | Condition::DoesNotExist => note(key.finish(), None),
                    Condition::In(values) | Condition::NotIn(values) => {
                        for (value, text) in (0u32..).zip(values) {
                            note(hash_of_value(&key, text), Some(value));
                        }
                    }
                }
            }
        }
        let heads = heads(&mut named);
        let unpaid = Cell::new(named.len() as u64 * NAME_STEPS);
        Self { lists, list_of, named, heads, bare, known: Known::default(), unpaid }
    }

    fn work(&self, steps: u64) {
        self.unpaid.set(self.unpaid.get().saturating_add(steps));
    }

    /// Per list: how many of its selectors the node misses.
    fn misses(&self, node: &Node) -> Rc<[i64]> {
        self.known.get(node.id.0, || {
            let mut misses = self.bare.clone();
            for (key, value) in labels(node) {
                self.work(LABEL_STEPS);
                let hash = hash_of_key(key);
                self.meet(hash.finish(), key, None, &mut misses);
                self.meet(hash_of_value(&hash, value), key, Some(value), &mut misses);
            }
            misses.into()
        })
    }

    /// A node has this label.
    fn meet(&self, hash: u64, key: &str, text: Option<&str>, misses: &mut [i64]) {
        let mut last = None;
        let mut next = self.heads.get(slot(hash, self.heads.len())).copied().unwrap_or(0);
        while let Some(named) = next.checked_sub(1).and_then(|at| self.named.get(at as usize)) {
            next = named.next;
            self.work(MEET_STEPS);
            if named.hash != hash {
                continue;
            }
            let list = self.lists.get(named.list as usize);
            let selector = list.and_then(|list| list.get(named.selector as usize));
            let Some(selector) = selector.filter(|one| one.key.as_ref() == key) else { continue };
            let value = named.value.and_then(|at| selector.condition.values().get(at as usize));
            // A value named twice by one selector counts once.
            let place = Some((named.list, named.selector));
            if value.map(|value| value.as_ref()) != text || last == place {
                continue;
            }
            last = place;
            let meets = matches!(selector.condition, Condition::In(_) | Condition::Exists);
            if let Some(count) = misses.get_mut(named.list as usize) {
                *count += if meets { -1 } else { 1 };
            }
        }
    }
}

/// Lists of selectors that differ, and for each group which is its own. Groups of one job mostly
/// have the same, or each its own: a list is compared with the first and the last one known.
fn lists(needs: &[Needs]) -> (Vec<Arc<[Selector]>>, Vec<u32>) {
    let mut lists: Vec<Arc<[Selector]>> = Vec::new();
    let mut list_of = Vec::with_capacity(needs.len());
    for needs in needs {
        let own = needs.selectors();
        let last = lists.len().saturating_sub(1);
        let known = [0, last].into_iter().find(|&at| lists.get(at) == Some(own));
        let at = known.unwrap_or_else(|| {
            lists.push(Arc::clone(own));
            lists.len() - 1
        });
        list_of.push(u32::try_from(at).unwrap_or(u32::MAX));
    }
    (lists, list_of)
}

/// Chains what falls into one slot, in the order of `named`; returns where each chain begins.
fn heads(named: &mut [Named]) -> Vec<u32> {
    let slots = named.len().next_power_of_two();
    let mut heads = vec![0u32; slots];
    for (at, one) in named.iter_mut().enumerate().rev() {
        if let Some(head) = heads.get_mut(slot(one.hash, slots)) {
            one.next = std::mem::replace(head, u32::try_from(at + 1).unwrap_or(0));
        }
    }
    heads
}

/// The slot of a hash among so many, a power of two.
fn slot(hash: u64, slots: usize) -> usize {
    usize::try_from(hash).unwrap_or(0) & slots.saturating_sub(1)
}

fn hash_of_key(key: &str) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.write(key.as_bytes());
    hasher
}

fn hash_of_value(key: &Hasher, value: &str) -> u64 {
    let mut hasher = key.clone();
    hasher.write(value.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{World, group, job_spec, node_spec, register};
    use crate::job::Toleration;
    use crate::node::{Taint, TaintEffect};
    use crate::unit::PriceMicroUsd;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const KEYS: [&str; 6] = ["a", "b", "c", "muster/site", "muster/node", "muster/none"];
    const VALUES: [&str; 5] = ["", "x", "y", "site-0", "n1"];

    fn selector(rng: &mut StdRng) -> Selector {
        let key = KEYS[rng.random_range(0..KEYS.len())].into();
        let count = rng.random_range(1..4);
        let values = (0..count).map(|_| VALUES[rng.random_range(0..VALUES.len())].into()).collect();
        let condition = match rng.random_range(0..4) {
            0 => Condition::In(values),
            1 => Condition::NotIn(values),
            2 => Condition::Exists,
            _ => Condition::DoesNotExist,
        };
        Selector { key, condition }
    }

    /// Random selectors, taints and prices: each node says what it says when asked directly.
    #[test]
    fn terms_are_what_each_node_says_when_asked_directly() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut world = World::new();
        for number in 0..40 {
            let mut spec = node_spec(&format!("n{number}"), 1);
            for key in &KEYS[..3] {
                if rng.random_range(0..2) == 0 {
                    let value = VALUES[rng.random_range(0..VALUES.len())];
                    spec.labels.insert((*key).into(), value.into());
                }
            }
            if rng.random_range(0..3) == 0 {
                let effect = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule]
                    [rng.random_range(0..2)];
                spec.taints.push(Taint { key: "t".into(), value: "v".into(), effect });
            }
            spec.price = PriceMicroUsd(rng.random_range(0..3));
            world.done(register(spec));
        }
        let (mut refused, mut let_in) = (0, 0);
        for _ in 0..200 {
            let mut spec = job_spec((0..4).map(|at| group(&format!("g{at}"), 1, 1)).collect());
            spec.price_max = Some(PriceMicroUsd(1));
            for group in &mut spec.groups {
                group.selectors = (0..rng.random_range(0..3)).map(|_| selector(&mut rng)).collect();
                if rng.random_range(0..2) == 0 {
                    let key = "t".into();
                    group.tolerations.push(Toleration { key, value: None, effect: None });
                }
            }
            let models = world.state.models();
            let needs: Vec<Needs> = (0..4).map(|at| Needs::new(&spec, at, models)).collect();
            let terms = Terms::of_needs(needs.clone());
            for node in world.state.nodes() {
                for (at, needs) in needs.iter().enumerate() {
                    let misfit = needs.term_misfit(node, || needs.selects(node));
                    assert!(misfit.is_none() || needs.misfit(node).is_some());
                    let term = Term { misfit, shuns: needs.shuns(node) };
                    assert_eq!(terms.of(at, node), Some(term), "{:?}", spec.groups[at]);
                    if misfit.is_some() { refused += 1 } else { let_in += 1 }
                }
            }
        }
        assert!(refused > 1_000 && let_in > 1_000, "{refused} {let_in}");
    }
}
