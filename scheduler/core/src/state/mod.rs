//! The replicated state: what the cluster has decided, and what follows from it.
//!
//! [`State::apply`] is the only mutator. `facts` holds what is stored, `index` what is derived
//! from it; `change` alone touches both. One file per family of commands decides.
//! **Invariant:** `apply` is total and deterministic: any entry gives an outcome or a rejection,
//! and a rejection leaves every fact as it was. Nothing here reads a clock or does I/O.

mod admit;
mod apply;
mod around;
mod brought;
mod change;
mod check;
mod ending;
mod facts;
mod index;
mod node;
mod preempt;
mod progress;
mod register;
mod repair;
mod replicas;
mod report;
mod roster;
mod rows;
mod scale;
mod shared;
mod submit;
#[cfg(any(test, feature = "fixture"))]
mod tamper;
mod tenant;
mod usage;
mod work;

pub use apply::Applied;
pub use brought::{Brought, MODELS_BROUGHT_MAX, SITES_BROUGHT_MAX};
pub use check::Finding;
pub use facts::Meta;
pub use index::{Counts, PhaseCounts, Tenant};
pub use rows::{
    Frozen, JOBS_PER_ROW, JobRow, NODES_PER_ROW, REPLICAS_INLINE_MAX, REPLICAS_PER_ROW,
    RestoreError, Row, RowKey,
};
pub use scale::SCALINGS_REMEMBERED;
pub use submit::check_deadline;
pub use usage::{Lack, Usage};

use crate::id::{JobId, Name, NodeId, Rank, SupplierId, TenantId};
use crate::job::{Job, Priority, Replica, ReplicaPhase, Scaling};
use crate::node::{Models, Node};
use crate::topology::Sites;
use crate::unit::{DurationMs, TimeMs};
use facts::Facts;
use index::Index;
use shared::Shared;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Most nodes registered at a time: over 1.5 times the largest fleet we build for.
pub const NODES_MAX: usize = 262_144;
/// Most nodes that one supplier may register at a time: more than the largest fleet we build for has,
/// and a quarter is left for others. What operators register for a supplier is not held against it.
pub const NODES_OF_SUPPLIER_MAX: usize = NODES_MAX / 4 * 3;
/// Most tenants: each costs a row, and all are copied into every frozen view.
pub const TENANTS_MAX: usize = 10_000;
/// Most jobs known at a time, over or not: bounds memory at about 1 KiB each.
pub const JOBS_MAX: usize = 2_000_000;
/// How long an ended job, and with it its request id, is remembered: longer than any sane client
/// goes on retrying one request.
pub const RETENTION: DurationMs = DurationMs(3_600_000);
/// Ended jobs remembered at most, whatever their age; the oldest go first.
pub const ENDED_JOBS_MAX: usize = 1_000_000;
/// A replica that ended with an error this often fails its job.
pub const FAILURES_MAX: u16 = 5;

/// The whole state of a cluster at one log index.
#[derive(Debug)]
pub struct State {
    facts: Facts,
    index: Index,
    /// Rows changed since they were last taken.
    dirty: Dirty,
    shared: Shared,
}

/// Keys of changed rows; the last one again and again is the usual case.
#[derive(Debug, Default)]
struct Dirty {
    /// The counters change with every entry.
    meta: bool,
    last: Option<RowKey>,
    keys: BTreeSet<RowKey>,
}

impl Dirty {
    fn mark(&mut self, key: RowKey) {
        if self.last.as_ref() != Some(&key) {
            self.keys.insert(key.clone());
            self.last = Some(key);
        }
    }

    fn take(&mut self) -> Vec<RowKey> {
        self.last = None;
        let meta = std::mem::take(&mut self.meta).then_some(RowKey::Meta);
        meta.into_iter().chain(std::mem::take(&mut self.keys)).collect()
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

/// Reading.
impl State {
    /// The empty state, before the first entry.
    pub fn new() -> Self {
        Self {
            facts: Facts::default(),
            index: Index::default(),
            dirty: Dirty::default(),
            shared: Shared::default(),
        }
    }

    /// Log index of the last entry applied, accepted or not.
    pub fn index(&self) -> u64 {
        self.facts.meta.index
    }

    /// The latest time any accepted entry carried.
    pub fn now(&self) -> TimeMs {
        self.facts.meta.now
    }

    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.facts.nodes.get(u64::from(id.0))
    }

    /// All nodes by rising id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.facts.nodes.iter().map(|(_, node)| node)
    }

    pub fn nodes_len(&self) -> usize {
        self.facts.nodes.len()
    }

    /// One past the highest node id ever given.
    pub fn node_id_end(&self) -> u32 {
        self.facts.meta.next_node
    }

    pub fn node_by_name(&self, supplier: &SupplierId, name: &Name) -> Option<NodeId> {
        self.index.node_by_name(&self.facts, supplier, name)
    }

    /// What live replicas hold of the node.
    pub fn usage(&self, id: NodeId) -> Option<&Usage> {
        self.index.usage(id)
    }

    /// Live replicas bound to the node, by rising job and rank; none for an unknown node.
    pub fn node_work(&self, id: NodeId) -> impl Iterator<Item = (JobId, Rank)> {
        self.index.node_work(id)
    }

    pub fn job(&self, id: JobId) -> Option<&Arc<Job>> {
        Some(&self.facts.jobs.get(id.0)?.job)
    }

    /// Jobs with ids above `after` (`None` = all), rising; those over and still remembered too.
    pub fn jobs_after(&self, after: Option<JobId>) -> impl Iterator<Item = &Arc<Job>> {
        let first = after.map_or(0, |id| id.0.saturating_add(1));
        self.facts.jobs.iter_from(first).map(|(_, slot)| &slot.job)
    }

    pub fn jobs_len(&self) -> usize {
        self.facts.jobs.len()
    }

    /// The job that the tenant submitted under this request id, while it is remembered.
    pub fn job_by_request(&self, tenant: &TenantId, request_id: &str) -> Option<JobId> {
        self.index.job_by_request(&self.facts, tenant, request_id)
    }

    /// The replica of a rank, be it absent.
    pub fn replica(&self, job: JobId, rank: Rank) -> Option<Replica> {
        self.facts.jobs.get(job.0)?.replicas.get(rank).copied()
    }

    /// The job's latest scalings, the oldest first.
    pub fn scalings(&self, job: JobId) -> &[Scaling] {
        let scalings = self.facts.jobs.get(job.0).and_then(|slot| slot.scalings.as_ref());
        scalings.map_or(&[], |scalings| scalings.as_slice())
    }

    /// All replicas of the job that are asked for, by rising rank; none for an unknown job.
    pub fn replicas(&self, job: JobId) -> impl Iterator<Item = (Rank, Replica)> {
        let replicas = self.facts.jobs.get(job.0).map(|slot| slot.replicas.iter());
        let all = (0u32..).map(Rank).zip(replicas.into_iter().flatten().copied());
        all.filter(|(_, replica)| replica.phase != ReplicaPhase::Absent)
    }

    /// How many replicas are in each phase, in all and per group.
    pub fn counts(&self, job: JobId) -> Option<Counts> {
        let slot = self.facts.jobs.get(job.0)?;
        let groups = match self.index.group_counts(job) {
            Some(groups) => groups.to_vec(),
            None => index::count_groups(&slot.job.spec, &slot.replicas),
        };
        Some(Counts::from_groups(groups))
    }

    /// Jobs with replicas that wait for a plan, pending or to be repaired, oldest first.
    pub fn waiting(&self) -> impl Iterator<Item = JobId> {
        self.index.waiting()
    }

    /// Up to `limit` jobs whose time is over at `now` or who have missed their deadline, and up to `limit` ended ones to forget:
    /// arguments for the next `Expire`.
    pub fn due(&self, now: TimeMs, limit: usize) -> (Vec<JobId>, Vec<JobId>) {
        (self.index.expiring(now, limit), self.index.forgettable(now, limit))
    }

    /// When started jobs end whose duration runs or who have a deadline, the first first.
    pub fn endings(&self) -> impl Iterator<Item = (TimeMs, JobId)> {
        self.index.endings()
    }

    /// Started jobs below the priority that others may disrupt, the lowest priorities first.
    pub fn disruptible(&self, below: Priority) -> impl Iterator<Item = (Priority, JobId)> {
        self.index.disruptible(below)
    }

    pub fn tenant(&self, id: &TenantId) -> Option<&Tenant> {
        self.index.tenant(id)
    }

    /// All tenants by name.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.index.tenants()
    }

    pub fn models(&self) -> &Models {
        &self.facts.models
    }

    pub fn sites(&self) -> &Sites {
        &self.facts.sites
    }

    /// Hash of all facts but the log index: equal states have equal hashes, however they came
    /// about. Costs a walk over everything (see [`Frozen::hash`] to do it elsewhere).
    pub fn hash(&self) -> u128 {
        self.facts.hash()
    }
}
