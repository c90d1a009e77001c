//! Freed: the view as it would be if some of what runs were gone, in any order and back again.
//!
//! **Invariant:** what is free on a node follows from what is freed there alone, not from the order
//! in which it was; with nothing freed, and when this goes, the view is what it was.

use super::Candidate;
use crate::command::Placement;
use crate::id::Rank;
use crate::job::JobSpec;
use crate::view::{Free, Held, View};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// What one candidate can give back at a time.
#[derive(Debug)]
pub(super) struct Unit<'a> {
    /// Index of the candidate.
    pub(super) of: usize,
    /// A spare replica; `None` = all that cannot be spared, with which the job goes back whole.
    pub(super) spare: Option<Rank>,
    pub(super) gpu_milli: u64,
    held: &'a [Held],
}

impl<'a> Unit<'a> {
    /// Of all candidates, spares before what cannot be spared.
    pub(super) fn all(candidates: &'a [Candidate]) -> Vec<Self> {
        let mut units = Vec::with_capacity(candidates.len());
        for (of, one) in candidates.iter().enumerate() {
            units.extend(one.spares.iter().map(|(rank, held)| Unit {
                of,
                spare: Some(*rank),
                gpu_milli: held.gpu_milli(),
                held: std::slice::from_ref(held),
            }));
            if !one.rest.is_empty() {
                let gpu_milli = one.rest_gpu_milli;
                units.push(Unit { of, spare: None, gpu_milli, held: &one.rest });
            }
        }
        units
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = u32> {
        self.held.iter().map(|held| held.node.0)
    }

    /// Node of each replica, and its thousandths of GPUs.
    pub(super) fn gpus(&self) -> impl Iterator<Item = (u32, u64)> {
        self.held.iter().map(|held| (held.node.0, held.gpu_milli()))
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

/// What is free on a node with nothing freed, and what is: by rising unit.
#[derive(Debug)]
struct OnNode<'a> {
    before: Free,
    freed: Vec<(usize, &'a Held)>,
}

/// Knows the nodes alone on which something was freed so far, so that a search costs what it
/// touches and not what runs.
#[derive(Debug)]
pub(super) struct Freed<'a> {
    view: &'a mut View,
    pub(super) units: &'a [Unit<'a>],
    nodes: BTreeMap<u32, OnNode<'a>>,
    is_free: BTreeSet<usize>,
}

impl<'a> Freed<'a> {
    pub(super) fn new(view: &'a mut View, units: &'a [Unit<'a>]) -> Self {
        Self { view, units, nodes: BTreeMap::new(), is_free: BTreeSet::new() }
    }

    pub(super) fn view(&self) -> &View {
        self.view
    }

    pub(super) fn is_free(&self, unit: usize) -> bool {
        self.is_free.contains(&unit)
    }

    /// Units that are freed.
    pub(super) fn all(&self) -> &BTreeSet<usize> {
        &self.is_free
    }

    /// Frees these and no others; how many replicas that is about which were not so before.
    pub(super) fn set(&mut self, wanted: &BTreeSet<usize>) -> usize {
        let changed: Vec<usize> = self.is_free.symmetric_difference(wanted).copied().collect();
        let (mut touched, mut replicas) = (Vec::new(), 0);
        for unit in changed {
            replicas += self.note(unit, wanted.contains(&unit), &mut touched);
        }
        touched.sort_unstable();
        touched.dedup();
        touched.into_iter().for_each(|node| self.renew(node));
        replicas
    }

    /// Frees one, or takes it back.
    pub(super) fn turn(&mut self, unit: usize, free: bool) {
        if self.is_free(unit) != free {
            let mut touched = Vec::new();
            self.note(unit, free, &mut touched);
            touched.dedup();
            touched.into_iter().for_each(|node| self.renew(node));
        }
    }

    /// Notes on its nodes, which are to be renewed, what becomes of a unit; its replicas.
    fn note(&mut self, unit: usize, free: bool, touched: &mut Vec<u32>) -> usize {
        let Some(of) = self.units.get(unit) else { return 0 };
        match free {
            true => self.is_free.insert(unit),
            false => self.is_free.remove(&unit),
        };
        for held in of.held {
            let node = held.node.0;
            let there = match self.nodes.entry(node) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let Some(before) = self.view.base(node) else { continue };
                    new.insert(OnNode { before, freed: Vec::new() })
                }
            };
            let at = there.freed.partition_point(|(known, _)| *known < unit);
            match free {
                true => there.freed.insert(at, (unit, held)),
                false => there.freed.retain(|(known, _)| *known != unit),
            }
            touched.push(node);
        }
        of.len()
    }

    fn renew(&mut self, node: u32) {
        let Some(OnNode { before, freed }) = self.nodes.get(&node) else { return };
        let mut free = before.clone();
        for (_, held) in freed {
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
        self.set(&BTreeSet::new());
    }
}
