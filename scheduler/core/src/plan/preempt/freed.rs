//! Freed: the view as it would be if some of what runs were gone, in any order and back again.
//!
//! **Invariant:** what is free on a node follows from what is freed there alone, not from the order
//! in which it was; with nothing freed, and when this goes, the view is what it was.

use super::Candidate;
use crate::command::Placement;
use crate::id::Rank;
use crate::job::JobSpec;
use crate::view::{Free, Held, View};
use std::collections::{BTreeMap, BTreeSet};

/// What one candidate can give back at a time.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    /// Index of the candidate.
    pub(super) of: usize,
    /// A spare replica; `None` = all that cannot be spared, with which the job goes back whole.
    pub(super) spare: Option<Rank>,
    pub(super) gpu_milli: u64,
    held: Vec<&'a Held>,
}

impl<'a> Unit<'a> {
    /// Of all candidates, spares before what cannot be spared.
    pub(super) fn all(candidates: &'a [Candidate]) -> Vec<Self> {
        let mut units = Vec::new();
        for (of, one) in candidates.iter().enumerate() {
            units.extend(one.spares.iter().map(|(rank, gpu_milli, held)| Unit {
                of,
                spare: Some(*rank),
                gpu_milli: *gpu_milli,
                held: vec![held],
            }));
            if !one.rest.is_empty() {
                let held = one.rest.iter().collect();
                units.push(Unit { of, spare: None, gpu_milli: one.rest_gpu_milli, held });
            }
        }
        units
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> {
        self.held.iter().map(|held| held.node.0)
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

/// What is free on a node with nothing freed, and all that could be.
#[derive(Debug)]
struct OnNode<'a> {
    before: Free,
    units: Vec<(usize, &'a Held)>,
}

#[derive(Debug)]
pub(super) struct Freed<'a> {
    view: &'a mut View,
    pub(super) units: &'a [Unit<'a>],
    nodes: BTreeMap<u32, OnNode<'a>>,
    is_free: Vec<bool>,
}

impl<'a> Freed<'a> {
    pub(super) fn new(view: &'a mut View, units: &'a [Unit<'a>]) -> Self {
        let mut nodes: BTreeMap<u32, OnNode<'a>> = BTreeMap::new();
        for (at, unit) in units.iter().enumerate() {
            for &held in &unit.held {
                let node = held.node.0;
                if let Some(known) = nodes.get_mut(&node) {
                    known.units.push((at, held));
                } else if let Some(before) = view.base(node) {
                    nodes.insert(node, OnNode { before, units: vec![(at, held)] });
                }
            }
        }
        Self { view, units, nodes, is_free: vec![false; units.len()] }
    }

    pub(super) fn view(&self) -> &View {
        self.view
    }

    pub(super) fn is_free(&self, unit: usize) -> bool {
        self.is_free.get(unit).copied().unwrap_or(false)
    }

    /// Units that are freed, rising.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.is_free.len()).filter(|&unit| self.is_free(unit)).collect()
    }

    /// Frees these and no others; how many replicas that is about which were not so before.
    pub(super) fn set(&mut self, wanted: impl Fn(usize) -> bool) -> usize {
        let (mut touched, mut replicas) = (BTreeSet::new(), 0);
        for (at, (unit, is_free)) in self.units.iter().zip(&mut self.is_free).enumerate() {
            if *is_free != wanted(at) {
                *is_free = !*is_free;
                replicas += unit.len();
                touched.extend(unit.nodes());
            }
        }
        touched.into_iter().for_each(|node| self.renew(node));
        replicas
    }

    /// Frees one, or takes it back.
    pub(super) fn turn(&mut self, unit: usize, free: bool) {
        let (Some(is_free), Some(of)) = (self.is_free.get_mut(unit), self.units.get(unit)) else {
            return;
        };
        if *is_free != free {
            *is_free = free;
            of.nodes().for_each(|node| self.renew(node));
        }
    }

    fn renew(&mut self, node: u32) {
        let Some(OnNode { before, units }) = self.nodes.get(&node) else { return };
        let mut free = before.clone();
        for (_, held) in units.iter().filter(|(unit, _)| self.is_free(*unit)) {
            self.view.give_to(node, &mut free, held);
        }
        self.view.rebase(node, free);
    }

    /// Whether all placements have room where they are.
    pub(super) fn holds(&self, spec: &JobSpec, placements: &[&Placement]) -> bool {
        let mut left: BTreeMap<u32, Free> = BTreeMap::new();
        placements.iter().all(|one| {
            let group = spec.group_of(one.rank).and_then(|at| spec.groups.get(at));
            let (Some(group), Some(slot)) = (group, self.view.slot(one.node.0)) else {
                return false;
            };
            let (shape, gpus) = (&group.shape, one.gpus);
            let used = shape.resources();
            let free = left.entry(one.node.0).or_insert_with(|| slot.free.clone());
            let has_room = slot.open
                && free.has_gpus(gpus, one.share_milli)
                && free.resource_slots(used, 1) == 1
                && free.custom_slots(&shape.custom, 1) == 1;
            free.take(gpus, one.share_milli, used);
            free.take_custom(&shape.custom);
            has_room
        })
    }
}

impl Drop for Freed<'_> {
    fn drop(&mut self) {
        self.set(|_| false);
    }
}
