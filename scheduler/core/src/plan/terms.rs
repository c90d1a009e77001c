//! Terms: what a node's labels, taints, price and capacity say to every group of an ask, worked out
//! once for each node that is asked about.
//!
//! Selectors are not held against nodes one by one: all that they name is kept sorted by a hash,
//! and each label of a node finds those that are about it. So a node costs what it has of labels,
//! not what the job has of conditions.
//! **Invariant:** says exactly what [`Needs::misfit`] and [`Needs::shuns`] say, GPUs left aside.

use super::ask::GroupAsk;
use crate::fit::{Misfit, Needs, labels};
use crate::hash::Hasher;
use crate::job::{Condition, Selector};
use crate::node::Node;
use std::cell::RefCell;
use std::hash::{Hash, Hasher as _};
use std::rc::Rc;
use std::sync::Arc;

/// Conditions of all groups together from which on this pays; fewer are simply held against each
/// node.
const CONDITIONS_MIN: usize = 64;

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
    known: RefCell<Vec<Option<Rc<[Term]>>>>,
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
        Self { index, needs, known: RefCell::default() }
    }

    fn of_needs(needs: Vec<Needs>) -> Self {
        let index = Rc::new(Index::new(&needs));
        Self { index, needs, known: RefCell::default() }
    }

    /// What the node says to the group at this place of the ask.
    pub(super) fn of(&self, group: usize, node: &Node) -> Option<Term> {
        let at = node.id.0 as usize;
        if let Some(Some(known)) = self.known.borrow().get(at) {
            return known.get(group).copied();
        }
        let misses = self.index.misses(node);
        let term = |(needs, misses): (&Needs, i64)| Term {
            misfit: needs.term_misfit(node, || misses == 0),
            shuns: needs.shuns(node),
        };
        let all: Rc<[Term]> = self.needs.iter().zip(misses).map(term).collect();
        let found = all.get(group).copied();
        let mut known = self.known.borrow_mut();
        if known.len() <= at {
            known.resize(at + 1, None);
        }
        known[at] = Some(all);
        found
    }
}

fn needs_of(groups: &[GroupAsk]) -> Vec<Needs> {
    groups.iter().map(|group| group.needs.clone()).collect()
}

/// One value that a selector names, or its key alone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Named {
    hash: u64,
    group: u32,
    selector: u32,
    /// Place in the selector's values.
    value: Option<u32>,
}

/// The selectors of all groups, by what they name.
#[derive(Debug)]
struct Index {
    selectors: Vec<Arc<[Selector]>>,
    named: Vec<Named>,
    /// Per group: selectors that a node without any labels misses.
    bare: Vec<i64>,
}

impl Index {
    fn new(needs: &[Needs]) -> Self {
        let selectors: Vec<Arc<[Selector]>> =
            needs.iter().map(|needs| Arc::clone(needs.selectors())).collect();
        let mut named = Vec::new();
        let mut bare = vec![0; selectors.len()];
        for ((group, list), bare) in (0u32..).zip(&selectors).zip(&mut bare) {
            for (selector, one) in (0u32..).zip(list.iter()) {
                *bare += i64::from(matches!(one.condition, Condition::In(_) | Condition::Exists));
                let mut note = |text: Option<&str>, value| {
                    named.push(Named { hash: hash(&one.key, text), group, selector, value });
                };
                match &one.condition {
                    Condition::Exists | Condition::DoesNotExist => note(None, None),
                    Condition::In(values) | Condition::NotIn(values) => {
                        for (value, text) in (0u32..).zip(values) {
                            note(Some(text), Some(value));
                        }
                    }
                }
            }
        }
        named.sort_unstable();
        Self { selectors, named, bare }
    }

    /// Per group: how many of its selectors the node misses.
    fn misses(&self, node: &Node) -> Vec<i64> {
        let mut misses = self.bare.clone();
        for (key, value) in labels(node) {
            for text in [None, Some(value)] {
                self.meet(key, text, &mut misses);
            }
        }
        misses
    }

    /// A node has this label.
    fn meet(&self, key: &str, text: Option<&str>, misses: &mut [i64]) {
        let hash = hash(key, text);
        let from = self.named.partition_point(|named| named.hash < hash);
        let alike = self.named.iter().skip(from).take_while(|named| named.hash == hash);
        let mut last = None;
        for named in alike {
            let selector = self
                .selectors
                .get(named.group as usize)
                .and_then(|list| list.get(named.selector as usize));
            let Some(selector) = selector.filter(|one| one.key.as_ref() == key) else { continue };
            let value = named.value.and_then(|at| selector.condition.values().get(at as usize));
            // A value named twice by one selector counts once.
            let place = Some((named.group, named.selector));
            if value.map(|value| value.as_ref()) != text || last == place {
                continue;
            }
            last = place;
            let meets = matches!(selector.condition, Condition::In(_) | Condition::Exists);
            if let Some(count) = misses.get_mut(named.group as usize) {
                *count += if meets { -1 } else { 1 };
            }
        }
    }
}

fn hash(key: &str, value: Option<&str>) -> u64 {
    let mut hasher = Hasher::new();
    (key, value).hash(&mut hasher);
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
