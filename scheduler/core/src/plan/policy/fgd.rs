//! Fragmentation gradient descent (Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing
//! Workloads with Fragmentation Gradient Descent", USENIX ATC 2023), with the rounding and the
//! order of ties of the authors' simulator, which are part of its result.
//!
//! **Invariant:** knows the mix that the view was told, else the one it learned.

use super::Scorer;
use super::draw::exp;
use super::fragment::{Fragment, TYPICAL_PERCENT, Weighted, frequent, typical_max};
use super::look::{Look, Opening};
use crate::job::GpuAsk;
use crate::node::Models;
use crate::unit::{GPU_MILLI_WHOLE, MemoryMib};
use crate::view::{Classes, Kind, Mix};
use std::collections::BTreeMap;

pub(super) struct Fgd {
    fragment: Fragment,
}

impl Fgd {
    pub(super) fn new(mix: &Mix, classes: &Classes, models: &Models) -> Self {
        let typical = typical(mix, typical_max(classes.gpu_lists().count()));
        let weighted: Vec<Weighted<'_>> =
            typical.iter().map(|(kind, weight)| (kind, *weight)).collect();
        Self { fragment: Fragment::new(&weighted, classes, models) }
    }

    fn opening_score(&self, look: &Look<'_>, before: f64, opening: Option<Opening>) -> i32 {
        let after = self.fragment.of(look.kind, &look.after(opening));
        let gain = (before - after) / f64::from(GPU_MILLI_WHOLE);
        (100.0 / (1.0 + exp(-gain))) as i32
    }

    /// The best score, and for a share the GPU that has it; the lower GPU of equals.
    fn best(&self, look: &Look<'_>) -> (i32, Option<u8>) {
        let before = self.fragment.of(look.kind, &look.spare);
        let GpuAsk::Share(milli) = look.gpus else {
            return (self.opening_score(look, before, None), None);
        };
        let scores = look.openings(milli).map(|opening| {
            (self.opening_score(look, before, Some(opening)), std::cmp::Reverse(opening.gpu))
        });
        match scores.max() {
            Some((score, std::cmp::Reverse(gpu))) => (score, Some(gpu)),
            None => (0, None),
        }
    }
}

impl Scorer for Fgd {
    fn score(&self, look: &Look<'_>) -> i32 {
        self.best(look).0
    }

    fn device(&self, look: &Look<'_>) -> Option<u8> {
        self.best(look).1
    }
}

/// The most frequent kinds, so many at most, with their shares among themselves. Memory is no part of
/// a kind here.
fn typical(mix: &Mix, most: usize) -> Vec<(Kind, f64)> {
    let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
    for (kind, count) in &mix.kinds {
        let kind = Kind { memory: MemoryMib::ZERO, ..kind.clone() };
        *counts.entry(kind).or_insert(0) += count;
    }
    let counts: Vec<(Kind, u64)> = counts.into_iter().collect();
    let chosen = frequent(counts.iter(), TYPICAL_PERCENT, most);
    let sum: u64 = chosen.iter().map(|(_, count)| count).sum();
    chosen.iter().map(|(kind, count)| (kind.clone(), *count as f64 / sum.max(1) as f64)).collect()
}
