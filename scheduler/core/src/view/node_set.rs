//! A set of node numbers in rising order.
//!
//! **Invariant:** holds no number twice; its order follows from content alone.

use std::collections::VecDeque;

/// Node numbers, rising. A ring, because what leaves is nearly always the least: the next node to
/// be used. Elsewhere a change moves at most half of the numbers, four bytes each.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeSet(VecDeque<u32>);

impl NodeSet {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The least number.
    pub(crate) fn first(&self) -> Option<u32> {
        self.0.front().copied()
    }

    /// The number at this place of the rising order.
    pub(crate) fn get(&self, at: usize) -> Option<u32> {
        self.0.get(at).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }

    /// Takes a number in; whether it is new.
    pub(super) fn insert(&mut self, node: u32) -> bool {
        // A fleet is read by rising number.
        if self.0.back().is_none_or(|&last| last < node) {
            self.0.push_back(node);
            return true;
        }
        match self.0.binary_search(&node) {
            Ok(_) => false,
            Err(at) => {
                self.0.insert(at, node);
                true
            }
        }
    }

    /// Takes a number out; whether it was there.
    pub(super) fn remove(&mut self, node: u32) -> bool {
        let found = self.0.binary_search(&node);
        found.is_ok_and(|at| self.0.remove(at).is_some())
    }

    /// Memory held, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<u32>()
    }
}
