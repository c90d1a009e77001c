//! Damage: what nodes that are lost cost the jobs, and the fleet.
//!
//! A job is interrupted when it was ready and the servers take a member for lost, which is a lease
//! after the node fell silent, and mended when it is ready again.
//! **Invariant:** remembers nodes that are down, jobs under repair, and live jobs that were
//! interrupted.

use super::curve::Curve;
use super::times::Times;
use scheduler_core::id::{JobId, NodeId};
use scheduler_core::unit::TimeMs;
use std::collections::{BTreeMap, BTreeSet};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Damage {
    /// Nodes that were declared down; those that an operator removed do not count.
    pub(crate) nodes_lost: u64,
    /// GPU thousandths of nodes that are down.
    pub(crate) down: Curve,
    /// The same as an area, up to where means over time are taken, once that has passed.
    down_measured: Option<u128>,
    /// GPU thousandths that jobs under repair ask for.
    pub(crate) under_repair: Curve,
    pub(crate) interruptions: u64,
    pub(crate) jobs_interrupted: u64,
    /// From losing a member to ready again, in ms.
    pub(crate) repair: Times,
    /// Repairs that had not ended when the job or the run did.
    pub(crate) repairs_open: u64,
    nodes: BTreeMap<NodeId, u64>,
    repairing: BTreeMap<JobId, (TimeMs, u64)>,
    interrupted: BTreeSet<JobId>,
}

impl Damage {
    pub(super) fn new(at: TimeMs) -> Self {
        Self {
            nodes_lost: 0,
            down: Curve::new(at),
            down_measured: None,
            under_repair: Curve::new(at),
            interruptions: 0,
            jobs_interrupted: 0,
            repair: Times::new(),
            repairs_open: 0,
            nodes: BTreeMap::new(),
            repairing: BTreeMap::new(),
            interrupted: BTreeSet::new(),
        }
    }

    pub(super) fn node_down(&mut self, at: TimeMs, node: NodeId, gpu_milli: u64) {
        self.nodes_lost += 1;
        self.nodes.insert(node, gpu_milli);
        self.down.add(at, gpu_milli);
    }

    /// Means over time are taken up to here: nodes that were taken away for good would otherwise
    /// count for as long as the last job runs.
    pub(super) fn measure(&mut self, end: TimeMs) {
        self.down.pass(end);
        self.down_measured = Some(self.down.area());
    }

    /// GPU thousandths of nodes that were down, times milliseconds.
    pub(crate) fn down_area(&self) -> u128 {
        self.down_measured.unwrap_or_else(|| self.down.area())
    }

    /// The node is up again, or was removed.
    pub(super) fn node_settled(&mut self, at: TimeMs, node: NodeId) {
        if let Some(gpu_milli) = self.nodes.remove(&node) {
            self.down.sub(at, gpu_milli);
        }
    }

    pub(super) fn interrupted(&mut self, at: TimeMs, job: JobId, gpu_milli: u64) {
        self.interruptions += 1;
        self.jobs_interrupted += u64::from(self.interrupted.insert(job));
        self.repairing.insert(job, (at, gpu_milli));
        self.under_repair.add(at, gpu_milli);
    }

    pub(super) fn mended(&mut self, at: TimeMs, job: JobId) {
        if let Some((since, gpu_milli)) = self.repairing.remove(&job) {
            self.repair.add(at.0.saturating_sub(since.0));
            self.under_repair.sub(at, gpu_milli);
        }
    }

    pub(super) fn over(&mut self, at: TimeMs, job: JobId) {
        self.interrupted.remove(&job);
        if let Some((_, gpu_milli)) = self.repairing.remove(&job) {
            self.repairs_open += 1;
            self.under_repair.sub(at, gpu_milli);
        }
    }

    /// Repairs under way have not ended when the run does.
    pub(super) fn finish(&mut self, at: TimeMs) {
        self.repairs_open += self.repairing.len() as u64;
        self.down.pass(at);
        self.under_repair.pass(at);
    }
}
