//! Tags: which classes of nodes have which labels, so that a selector is held against the values
//! that the fleet has and not against its nodes.
//!
//! **Invariant:** of every class exactly the labels of its nodes, but for those in which nodes of
//! one class differ: their names and racks.

use crate::bits;
use crate::fit::labels;
use crate::job::{Condition, Selector};
use crate::node::Node;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Labels that differ among the nodes of one class.
pub(super) const NODE_KEY: &str = "muster/node";
pub(super) const RACK_KEY: &str = "muster/rack";

/// A text behind its first eight bytes, by which most comparisons end without a look at it.
type Prefixed = (u64, Arc<str>);

fn prefixed(text: &Arc<str>) -> Prefixed {
    (prefix(text), text.clone())
}

/// Orders as the texts do, as far as it goes.
fn prefix(text: &str) -> u64 {
    let mut first = [0u8; 8];
    for (to, from) in first.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    u64::from_be_bytes(first)
}

/// A set of classes that takes as many words as it has members, and never more than a bit for each
/// class: the word's place and the word, by rising place.
#[derive(Debug, Default)]
struct Sparse(Vec<(u32, u64)>);

impl Sparse {
    fn place(class: u32) -> (u32, u64) {
        (class / u64::BITS, 1 << (class % u64::BITS))
    }

    fn insert(&mut self, class: u32) {
        let (at, bit) = Self::place(class);
        match self.0.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(found) => self.0.get_mut(found).into_iter().for_each(|(_, word)| *word |= bit),
            Err(place) => self.0.insert(place, (at, bit)),
        }
    }

    /// Takes the class out; whether none is left.
    fn remove(&mut self, class: u32) -> bool {
        let (at, bit) = Self::place(class);
        if let Ok(found) = self.0.binary_search_by_key(&at, |(at, _)| *at)
            && let Some((_, word)) = self.0.get_mut(found)
        {
            *word &= !bit;
            if *word == 0 {
                self.0.remove(found);
            }
        }
        self.0.is_empty()
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        self.0
            .iter()
            .flat_map(|&(at, word)| bits::iter_word(word).map(move |bit| at * u64::BITS + bit))
    }

    fn for_words(&self, words: &mut [u64], change: impl Fn(&mut u64, u64)) {
        for &(at, word) in &self.0 {
            if let Some(place) = words.get_mut(at as usize) {
                change(place, word);
            }
        }
    }
}

/// Classes with a label of one key.
#[derive(Debug, Default)]
struct Key {
    all: Sparse,
    values: BTreeMap<Prefixed, Sparse>,
}

#[derive(Debug, Default)]
pub(super) struct Tags(BTreeMap<Arc<str>, Key>);

impl Tags {
    /// A class comes into being, of which the node is one.
    pub(super) fn enter(&mut self, class: u32, node: &Node) {
        for (key, value) in class_labels(node) {
            let entry = match self.0.get_mut(key) {
                Some(entry) => entry,
                None => self.0.entry(key.into()).or_default(),
            };
            entry.all.insert(class);
            entry.values.entry((prefix(value), value.into())).or_default().insert(class);
        }
    }

    /// The class, of which the node was one, is no more.
    pub(super) fn leave(&mut self, class: u32, node: &Node) {
        for (key, value) in class_labels(node) {
            let Some(entry) = self.0.get_mut(key) else { continue };
            let value = (prefix(value), value.into());
            if entry.values.get_mut(&value).is_some_and(|set| set.remove(class)) {
                entry.values.remove(&value);
            }
            if entry.all.remove(class) {
                self.0.remove(key);
            }
        }
    }

    /// Keeps those classes that meet the selector, which is about none of the labels in which nodes
    /// of a class differ.
    pub(super) fn narrow(&self, classes: &mut [u64], selector: &Selector) {
        let key = self.0.get(&selector.key);
        match (&selector.condition, key) {
            (Condition::Exists | Condition::In(_), None) => classes.fill(0),
            (Condition::DoesNotExist | Condition::NotIn(_), None) => {}
            (Condition::Exists, Some(key)) => keep(classes, [&key.all]),
            (Condition::DoesNotExist, Some(key)) => {
                key.all.for_words(classes, |word, gone| *word &= !gone);
            }
            (Condition::In(values), Some(key)) => keep(classes, key.sets(values)),
            (Condition::NotIn(values), Some(key)) => {
                for set in key.sets(values) {
                    set.for_words(classes, |word, gone| *word &= !gone);
                }
            }
        }
    }

    /// All that is told, with another number in the place of each class's.
    pub(super) fn by<T: Ord>(
        &self,
        number: impl Fn(u32) -> T,
    ) -> Vec<(&str, Option<&str>, Vec<T>)> {
        let sorted = |set: &Sparse| {
            let mut list: Vec<T> = set.iter().map(&number).collect();
            list.sort_unstable();
            list
        };
        let mut told = Vec::new();
        for (key, entry) in &self.0 {
            told.push((key.as_ref(), None, sorted(&entry.all)));
            for ((_, value), set) in &entry.values {
                told.push((key.as_ref(), Some(value.as_ref()), sorted(set)));
            }
        }
        told
    }
}

impl Key {
    /// Classes with each of these values that any class has.
    fn sets<'a>(&'a self, values: &'a [Arc<str>]) -> impl Iterator<Item = &'a Sparse> {
        values.iter().filter_map(|value| self.values.get(&prefixed(value)))
    }
}

/// Keeps what is in any of the sets.
fn keep<'a>(classes: &mut [u64], sets: impl IntoIterator<Item = &'a Sparse>) {
    let mut any = vec![0; classes.len()];
    for set in sets {
        set.for_words(&mut any, |word, more| *word |= more);
    }
    bits::keep(classes, &any);
}

/// Labels that all nodes of the node's class have.
fn class_labels(node: &Node) -> impl Iterator<Item = (&str, &str)> {
    labels(node).filter(|(key, _)| ![NODE_KEY, RACK_KEY].contains(key))
}
