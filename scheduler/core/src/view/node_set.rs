//! A set of node numbers in rising order.
//!
//! **Invariant:** holds no number twice; its order follows from content alone.

use std::collections::VecDeque;

/// Node numbers, rising. A ring, because what leaves is nearly always the least: the next node to
/// be used. Elsewhere a change moves at most half of the numbers, four bytes each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeSet {
    /// The least number, kept where the set itself lies: a planner looks at thousands of sets and
    /// into few of them.
    first: Option<u32>,
    nodes: VecDeque<u32>,
}

impl NodeSet {
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The least number.
    pub(crate) fn first(&self) -> Option<u32> {
        self.first
    }

    /// The number at this place of the rising order.
    pub(crate) fn get(&self, at: usize) -> Option<u32> {
        self.nodes.get(at).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.nodes.iter().copied()
    }

    /// Takes a number in; whether it is new.
    pub(super) fn insert(&mut self, node: u32) -> bool {
        // A fleet is read by rising number.
        let last = self.nodes.back().is_none_or(|&last| last < node);
        let found = if last { Err(self.nodes.len()) } else { self.nodes.binary_search(&node) };
        if let Err(at) = found {
            self.nodes.insert(at, node);
            self.first = self.nodes.front().copied();
        }
        found.is_err()
    }

    /// Takes a number out; whether it was there.
    pub(super) fn remove(&mut self, node: u32) -> bool {
        let at = match self.first {
            Some(first) if first == node => Ok(0),
            _ => self.nodes.binary_search(&node),
        };
        let removed = at.is_ok_and(|at| self.nodes.remove(at).is_some());
        self.first = self.nodes.front().copied();
        removed
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<u32>()
    }
}
