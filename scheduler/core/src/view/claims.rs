//! Claims: plans that were proposed and are not yet applied. The view counts them as taken.
//!
//! **Invariant:** a claimed node's free capacity is always its capacity by the state less every
//! claim on it, in whatever order claims, refreshes and releases come.

use super::free::Free;
use crate::node::{Custom, Resources};
use crate::unit::GpuSet;
use std::collections::BTreeMap;

/// What one placement of a claim takes.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) claim: u64,
    pub(super) gpus: GpuSet,
    pub(super) share_milli: u16,
    pub(super) used: Resources,
    pub(super) custom: Custom,
}

impl Part {
    fn take_from(&self, free: &mut Free) {
        free.take(self.gpus, self.share_milli, self.used);
        free.take_custom(&self.custom);
    }
}

/// A node with claims: what is free by the state, and what the claims take of it.
#[derive(Clone, Debug)]
struct Claimed {
    base: Free,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    nodes: BTreeMap<u32, Claimed>,
    by_claim: BTreeMap<u64, Vec<u32>>,
}

impl Claims {
    pub(super) fn len(&self) -> usize {
        self.by_claim.len()
    }

    /// Memory held, in bytes, trees by estimate.
    pub(super) fn bytes(&self) -> usize {
        let parts = |claimed: &Claimed| claimed.parts.capacity() * size_of::<Part>();
        let nodes = |nodes: &Vec<u32>| nodes.capacity() * size_of::<u32>();
        let claimed = self.nodes.values().map(parts).sum::<usize>();
        let claims = self.by_claim.values().map(nodes).sum::<usize>();
        claimed + claims + 2 * self.nodes.len() * size_of::<(u32, Claimed)>()
    }

    /// Adds a part on the node. `free` is what is free there before it; what is left is returned.
    pub(super) fn add(&mut self, node: u32, free: &Free, part: Part) -> Free {
        let claimed = self
            .nodes
            .entry(node)
            .or_insert_with(|| Claimed { base: free.clone(), parts: Vec::new() });
        let touched = self.by_claim.entry(part.claim).or_default();
        if touched.last() != Some(&node) {
            touched.push(node);
        }
        let mut left = free.clone();
        part.take_from(&mut left);
        claimed.parts.push(part);
        left
    }

    /// Whether claims that ask for this many GPUs (0 = a share) are on the node, and whether other
    /// work is: see `View::work`.
    pub(super) fn work(&self, node: u32, free: &Free, gpus: usize, asked: u8) -> (bool, bool) {
        let claimed = self.nodes.get(&node);
        let base = claimed.map_or(free, |claimed| &claimed.base);
        let shared = !base.partial().is_empty();
        let busy = base.idle.len() as usize + base.partial().len() < gpus;
        let mut found = if asked == 0 { (shared, busy) } else { (false, shared || busy) };
        let parts = claimed.map_or(&[][..], |claimed| &claimed.parts);
        for part in parts.iter().filter(|part| !part.gpus.is_empty()) {
            let count = if part.share_milli > 0 { 0 } else { part.gpus.len() };
            if count == u32::from(asked) {
                found.0 = true;
            } else {
                found.1 = true;
            }
        }
        found
    }

    /// Drops a claim; returns the nodes it was on with what is free there without it.
    pub(super) fn drop_claim(&mut self, claim: u64) -> Vec<(u32, Free)> {
        let mut freed = Vec::new();
        let mut nodes = self.by_claim.remove(&claim).unwrap_or_default();
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            let Some(claimed) = self.nodes.get_mut(&node) else { continue };
            claimed.parts.retain(|part| part.claim != claim);
            freed.push((node, claimed.left()));
            if claimed.parts.is_empty() {
                self.nodes.remove(&node);
            }
        }
        freed
    }

    /// What is free on the node but for the claims, if there are any on it.
    pub(super) fn base(&self, node: u32) -> Option<&Free> {
        self.nodes.get(&node).map(|claimed| &claimed.base)
    }

    /// Takes over what is free by the state now; returns what the claims leave of it.
    pub(super) fn rebase(&mut self, node: u32, base: Free) -> Free {
        match self.nodes.get_mut(&node) {
            Some(claimed) => {
                claimed.base = base;
                claimed.left()
            }
            None => base,
        }
    }
}

impl Claimed {
    fn left(&self) -> Free {
        self.parts.iter().fold(self.base.clone(), |mut free, part| {
            part.take_from(&mut free);
            free
        })
    }
}
