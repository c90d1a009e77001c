//! Touched: the few nodes that a draft has changed, found by number.
//!
//! A table of its own instead of an array over the fleet, so that a small plan costs little
//! however large the fleet is.
//! **Invariant:** nodes leave in the reverse order of their coming; nothing is ever met in the
//! table's order.

use crate::view::Free;

/// A node that a draft has changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Touched {
    pub(super) node: u32,
    pub(super) free: Free,
    /// Members of the job there, those that stay included.
    pub(super) members: u32,
}

/// Slots of the smallest table: most plans touch few nodes.
const SLOTS_MIN: usize = 64;
/// Odd, with well spread bits (the golden ratio's), as in Fibonacci hashing.
const SPREAD: u32 = 0x9e37_79b9;

/// Touched nodes by order of coming, and a table with open addressing over them.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    list: Vec<Touched>,
    /// Place in `list` plus one; 0 = nothing. A power of two long, at most half full.
    table: Vec<u32>,
}

impl Nodes {
    /// By order of coming.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Touched> {
        self.list.iter()
    }

    pub(super) fn get(&self, node: u32) -> Option<&Touched> {
        if self.list.is_empty() {
            return None;
        }
        self.list.get(self.find(node).ok()?)
    }

    pub(super) fn get_mut(&mut self, node: u32) -> Option<&mut Touched> {
        let at = if self.list.is_empty() { None } else { self.find(node).ok() };
        self.list.get_mut(at?)
    }

    /// Takes in a node that is not there yet.
    pub(super) fn push(&mut self, touched: Touched) {
        if (self.list.len() + 1) * 2 > self.table.len() {
            self.grow();
        }
        let found = self.find(touched.node);
        self.list.push(touched);
        if let Err(slot) = found
            && let Some(place) = self.table.get_mut(slot)
        {
            *place = u32::try_from(self.list.len()).unwrap_or(0);
        }
    }

    /// Takes the last node out. What came before it never had to step over its slot.
    pub(super) fn pop(&mut self) {
        let Some(last) = self.list.last() else { return };
        let at = u32::try_from(self.list.len()).unwrap_or(0);
        let mut slot = self.home(last.node);
        let mask = self.table.len().wrapping_sub(1);
        while let Some(place) = self.table.get_mut(slot) {
            if *place == at {
                *place = 0;
                break;
            }
            slot = (slot + 1) & mask;
        }
        self.list.pop();
    }

    /// Place of the node in `list`, or the free slot where it belongs.
    fn find(&self, node: u32) -> Result<usize, usize> {
        let mask = self.table.len().wrapping_sub(1);
        let mut slot = self.home(node);
        loop {
            let place = self.table.get(slot).copied().unwrap_or(0) as usize;
            let Some(at) = place.checked_sub(1) else { return Err(slot) };
            if self.list.get(at).is_some_and(|touched| touched.node == node) {
                return Ok(at);
            }
            slot = (slot + 1) & mask;
        }
    }

    fn home(&self, node: u32) -> usize {
        let bits = self.table.len().trailing_zeros();
        // The upper bits are the well mixed ones.
        let shift = u32::BITS.saturating_sub(bits);
        node.wrapping_mul(SPREAD).checked_shr(shift).unwrap_or(0) as usize
    }

    fn grow(&mut self) {
        self.table = vec![0; (self.table.len() * 2).max(SLOTS_MIN)];
        for at in 0..self.list.len() {
            let Some(node) = self.list.get(at).map(|touched| touched.node) else { return };
            if let Err(slot) = self.find(node)
                && let Some(place) = self.table.get_mut(slot)
            {
                *place = u32::try_from(at + 1).unwrap_or(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Nodes, Touched};
    use crate::view::Free;

    #[test]
    fn what_came_last_leaves_without_a_trace() {
        let mut nodes = Nodes::default();
        let mut model: Vec<u32> = Vec::new();
        let mut seed = 7u64;
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let node = u32::try_from(seed >> 52).expect("twelve bits");
            if seed >> 40 & 7 < 3 {
                nodes.pop();
                model.pop();
            } else if nodes.get(node).is_none() {
                assert!(!model.contains(&node));
                nodes.push(Touched { node, free: Free::default(), members: node });
                model.push(node);
            }
            assert_eq!(nodes.get(node).map(|found| found.members), {
                model.contains(&node).then_some(node)
            });
        }
        assert!(nodes.iter().map(|touched| touched.node).eq(model.iter().copied()));
        assert!(model.iter().all(|&node| nodes.get(node).is_some()));
    }
}
