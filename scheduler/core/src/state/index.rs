//! Everything derived from the facts, kept up to date with every change.
//!
//! **Invariant:** [`Index::build`] over the same facts gives an equal value at any time; `check`
//! does that. Nothing here is stored, hashed or sent.

use super::around::repels;
use super::check::Finding;
use super::facts::Facts;
use super::replicas::Replicas;
use super::roster::Roster;
use super::usage::{Usage, answers};
use super::work::Work;
use super::{ENDED_JOBS_MAX, RETENTION};
use crate::command::Quota;
use crate::id::{JobId, Name, NodeId, Rank, SupplierId, TenantId};
use crate::job::{Disruption, Job, JobPhase, JobSpec, Priority, Replica, ReplicaPhase, Shape};
use crate::node::{Labels, Node};
use crate::table::Table;
use crate::unit::{DurationMs, TimeMs};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Replicas by phase.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PhaseCounts {
    pub waiting: u32,
    pub assigned: u32,
    pub starting: u32,
    pub ready: u32,
    pub succeeded: u32,
    pub failed: u32,
    pub released: u32,
    /// Not asked for.
    pub absent: u32,
}

impl PhaseCounts {
    fn of(&mut self, phase: ReplicaPhase) -> &mut u32 {
        match phase {
            ReplicaPhase::Waiting => &mut self.waiting,
            ReplicaPhase::Assigned => &mut self.assigned,
            ReplicaPhase::Starting => &mut self.starting,
            ReplicaPhase::Ready => &mut self.ready,
            ReplicaPhase::Succeeded => &mut self.succeeded,
            ReplicaPhase::Failed => &mut self.failed,
            ReplicaPhase::Released => &mut self.released,
            ReplicaPhase::Absent => &mut self.absent,
        }
    }

    /// One of the replicas is in another phase.
    pub(super) fn turn(&mut self, from: ReplicaPhase, to: ReplicaPhase) {
        let before = self.of(from);
        *before = before.saturating_sub(1);
        let after = self.of(to);
        *after = after.saturating_add(1);
    }

    /// Replicas that hold capacity.
    pub fn live(&self) -> u32 {
        self.assigned.saturating_add(self.starting).saturating_add(self.ready)
    }

    /// Replicas that a plan may bind while the job is not over.
    pub fn to_place(&self) -> u32 {
        self.waiting.saturating_add(self.failed)
    }

    /// All replicas that are asked for.
    pub fn all(&self) -> u32 {
        let rest = self.succeeded.saturating_add(self.released);
        self.live().saturating_add(self.to_place()).saturating_add(rest)
    }

    fn add(&mut self, other: &Self) {
        for phase in [
            ReplicaPhase::Waiting,
            ReplicaPhase::Assigned,
            ReplicaPhase::Starting,
            ReplicaPhase::Ready,
            ReplicaPhase::Succeeded,
            ReplicaPhase::Failed,
            ReplicaPhase::Released,
            ReplicaPhase::Absent,
        ] {
            let more = *other.clone().of(phase);
            let sum = self.of(phase);
            *sum = sum.saturating_add(more);
        }
    }
}

/// Replicas by phase, of a whole job and of each of its groups.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub total: PhaseCounts,
    pub groups: Vec<PhaseCounts>,
}

impl Counts {
    pub(super) fn from_groups(groups: Vec<PhaseCounts>) -> Self {
        Self { total: sum(&groups), groups }
    }
}

pub(super) fn sum(groups: &[PhaseCounts]) -> PhaseCounts {
    let mut total = PhaseCounts::default();
    for group in groups {
        total.add(group);
    }
    total
}

pub(super) fn count_groups(spec: &JobSpec, replicas: &Replicas) -> Vec<PhaseCounts> {
    let mut rest = replicas.iter();
    let count = |group: &crate::job::GroupSpec| {
        let mut counts = PhaseCounts::default();
        let size = usize::try_from(group.ranks()).unwrap_or(usize::MAX);
        for replica in rest.by_ref().take(size) {
            *counts.of(replica.phase) += 1;
        }
        counts
    };
    spec.groups.iter().map(count).collect()
}

/// The same for a new job, whose replicas need not be looked at.
pub(super) fn count_new(spec: &JobSpec) -> Vec<PhaseCounts> {
    let count = |group: &crate::job::GroupSpec| {
        let mut counts = PhaseCounts::default();
        for (phase, count) in group.first_phases() {
            *counts.of(phase) += count;
        }
        counts
    };
    spec.groups.iter().map(count).collect()
}

/// A tenant: its bounds, and what it holds of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    pub id: TenantId,
    pub quota: Quota,
    /// Thousandths of GPUs held by live replicas.
    pub gpu_milli_used: u64,
    /// Jobs in phase pending.
    pub pending_jobs: u32,
    /// Jobs that are not over.
    pub live_jobs: u32,
}

#[derive(Clone, PartialEq, Debug, Default)]
struct NodeUse {
    usage: Usage,
    work: Work,
}

/// A tenant's request id as a number: a million of them take little room, and most lookups touch no
/// text. The hash of the standard library, which is hard to make collisions of on purpose.
fn request_hash(tenant: &TenantId, request_id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    tenant.hash(&mut hasher);
    request_id.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Index {
    roster: Roster,
    nodes: Table<NodeUse>,
    /// Nodes of each supplier that has any.
    suppliers: BTreeMap<SupplierId, usize>,
    /// Counts per group of every job that is not over.
    counts: Table<Box<[PhaseCounts]>>,
    /// Jobs by the hash of tenant and request id.
    requests: BTreeSet<(u64, JobId)>,
    waiting: BTreeSet<JobId>,
    /// Started jobs by when their time is over.
    expiring: BTreeSet<(TimeMs, JobId)>,
    /// Pending jobs by when it is too late to start them.
    missing: BTreeSet<(TimeMs, JobId)>,
    ended: BTreeSet<(TimeMs, JobId)>,
    /// Started jobs that others may disrupt, by priority.
    disruptible: BTreeSet<(Priority, JobId)>,
    tenants: BTreeMap<TenantId, Tenant>,
    /// Jobs with labels that are not over, by tenant, key and value; at most
    /// [`crate::validate::JOB_LABELS_MAX`] entries for each.
    labelled: BTreeSet<(TenantId, Arc<str>, Arc<str>, JobId)>,
    /// Jobs that are not over and keep others away by their labels.
    repelling: BTreeSet<(TenantId, JobId)>,
}

/// Reading.
impl Index {
    pub(super) fn node_by_name(
        &self,
        facts: &Facts,
        supplier: &SupplierId,
        name: &Name,
    ) -> Option<NodeId> {
        let node = |id: NodeId| facts.nodes.get(u64::from(id.0));
        let is_it = |id: &NodeId| node(*id).is_some_and(|node| node.supplier == *supplier);
        self.roster.named(supplier, name).find(is_it)
    }

    pub(super) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Nodes of the supplier.
    pub(super) fn nodes_of(&self, supplier: &SupplierId) -> usize {
        self.suppliers.get(supplier).copied().unwrap_or(0)
    }

    /// For tests that meet a limit.
    #[cfg(any(test, feature = "fixture"))]
    pub(super) fn set_nodes_of(&mut self, supplier: SupplierId, count: usize) {
        self.suppliers.insert(supplier, count);
    }

    pub(super) fn usage(&self, node: NodeId) -> Option<&Usage> {
        Some(&self.nodes.get(u64::from(node.0))?.usage)
    }

    pub(super) fn node_work(&self, node: NodeId) -> impl Iterator<Item = (JobId, Rank)> {
        self.nodes.get(u64::from(node.0)).into_iter().flat_map(|node| node.work.iter())
    }

    pub(super) fn group_counts(&self, job: JobId) -> Option<&[PhaseCounts]> {
        self.counts.get(job.0).map(AsRef::as_ref)
    }

    pub(super) fn job_by_request(
        &self,
        facts: &Facts,
        tenant: &TenantId,
        request_id: &str,
    ) -> Option<JobId> {
        let hash = request_hash(tenant, request_id);
        let alike = self.requests.range((hash, JobId(0))..=(hash, JobId(u64::MAX)));
        let is_it = |job: &Job| job.tenant == *tenant && *job.request_id == *request_id;
        let of = |id: JobId| facts.jobs.get(id.0).is_some_and(|slot| is_it(&slot.job));
        alike.map(|&(_, id)| id).find(|&id| of(id))
    }

    /// Jobs of the tenant that are not over and have the first of these labels, rising.
    pub(super) fn labelled(
        &self,
        tenant: &TenantId,
        labels: &Labels,
    ) -> impl Iterator<Item = JobId> {
        let range = |(key, value): (&Arc<str>, &Arc<str>)| {
            let at = |job| (tenant.clone(), key.clone(), value.clone(), job);
            self.labelled.range(at(JobId(0))..=at(JobId(u64::MAX)))
        };
        labels.iter().take(1).flat_map(range).map(|(_, _, _, job)| *job)
    }

    /// Jobs of the tenant that are not over and keep others away by their labels, rising.
    pub(super) fn repelling(&self, tenant: &TenantId) -> impl Iterator<Item = JobId> {
        let at = |job| (tenant.clone(), job);
        self.repelling.range(at(JobId(0))..=at(JobId(u64::MAX))).map(|(_, job)| *job)
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = JobId> {
        self.waiting.iter().copied()
    }

    /// Jobs whose time is over, or that have missed their deadline.
    pub(super) fn expiring(&self, now: TimeMs, limit: usize) -> Vec<JobId> {
        let due = [&self.expiring, &self.missing];
        let due = due.into_iter().flat_map(|all| all.iter().take_while(|(at, _)| *at <= now));
        due.take(limit).map(|(_, job)| *job).collect()
    }

    /// When started jobs end whose duration runs or who have a deadline, the first first.
    pub(super) fn endings(&self) -> impl Iterator<Item = (TimeMs, JobId)> {
        self.expiring.iter().copied()
    }

    /// Ended jobs past their retention or over the number kept, oldest first.
    pub(super) fn forgettable(&self, now: TimeMs, limit: usize) -> Vec<JobId> {
        let surplus = self.ended.len().saturating_sub(ENDED_JOBS_MAX);
        let due = (0usize..)
            .zip(&self.ended)
            .take_while(|(at, (ended, _))| *at < surplus || is_past_retention(*ended, now));
        due.take(limit).map(|(_, (_, job))| *job).collect()
    }

    /// Started jobs below the priority that others may disrupt, the lowest priorities first.
    pub(super) fn disruptible(&self, below: Priority) -> impl Iterator<Item = (Priority, JobId)> {
        self.disruptible.range(..(below, JobId(0))).copied()
    }

    pub(super) fn ended_len(&self) -> usize {
        self.ended.len()
    }

    pub(super) fn tenant(&self, id: &TenantId) -> Option<&Tenant> {
        self.tenants.get(id)
    }

    pub(super) fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.values()
    }
}

fn label_keys(job: &Job) -> impl Iterator<Item = (TenantId, Arc<str>, Arc<str>, JobId)> {
    let labels = job.spec.labels.iter();
    labels.map(|(key, value)| (job.tenant.clone(), key.clone(), value.clone(), job.id))
}

/// Whether the job has been started and others may take something from it.
fn is_disruptible(job: &Job) -> bool {
    let may = job.spec.preemption.disruption != Disruption::None;
    may && job.phase != JobPhase::Pending && !job.phase.is_over()
}

pub(super) fn is_past_retention(ended: TimeMs, now: TimeMs) -> bool {
    ended.0.saturating_add(RETENTION.0) <= now.0
}

/// When the job's time is over, if it is known: when its duration is or its deadline comes; for one
/// that is pending, when it is too late to start it.
pub(super) fn end_of_time(job: &Job) -> Option<TimeMs> {
    match job.phase {
        JobPhase::Ended | JobPhase::Failed | JobPhase::Expired => None,
        JobPhase::Pending => job.spec.start_by().map(|by| by.after(DurationMs(1))),
        _ => {
            let ran = job.ready_at.zip(job.spec.duration);
            let ran = ran.map(|(ready, duration)| ready.after(duration));
            [ran, job.spec.deadline].into_iter().flatten().min()
        }
    }
}

/// Keeping up.
impl Index {
    pub(super) fn node_added(&mut self, node: &Arc<Node>) {
        self.roster.enter(node);
        match self.suppliers.get_mut(&node.supplier) {
            Some(nodes) => *nodes += 1,
            None => {
                self.suppliers.insert(node.supplier.clone(), 1);
            }
        }
        self.nodes.insert(u64::from(node.id.0), NodeUse::default());
    }

    /// A node changed in something else than its id, supplier and name.
    pub(super) fn node_changed(&mut self, old: &Arc<Node>, new: &Arc<Node>) {
        self.roster.change(old, new);
    }

    pub(super) fn node_removed(&mut self, node: &Node) {
        self.roster.leave(node);
        if let Some(nodes) = self.suppliers.get_mut(&node.supplier) {
            *nodes -= 1;
            if *nodes == 0 {
                self.suppliers.remove(&node.supplier);
            }
        }
        self.nodes.remove(u64::from(node.id.0));
    }

    pub(super) fn tenant_put(&mut self, id: &TenantId, quota: Quota) {
        match self.tenants.get_mut(id) {
            Some(tenant) => tenant.quota = quota,
            None => {
                let id = id.clone();
                let tenant = Tenant {
                    id: id.clone(),
                    quota,
                    gpu_milli_used: 0,
                    pending_jobs: 0,
                    live_jobs: 0,
                };
                self.tenants.insert(id, tenant);
            }
        }
    }

    pub(super) fn tenant_removed(&mut self, id: &TenantId) {
        self.tenants.remove(id);
    }

    /// A job that came into being, with its replicas; live ones must be announced afterwards.
    pub(super) fn job_added(&mut self, job: &Job, counts: Vec<PhaseCounts>) {
        self.requests.insert((request_hash(&job.tenant, &job.request_id), job.id));
        self.enter(job);
        if !job.phase.is_over() {
            if sum(&counts).to_place() > 0 {
                self.waiting.insert(job.id);
            }
            self.counts.insert(job.id.0, counts.into());
        }
    }

    /// The job is forgotten; it must be over.
    pub(super) fn job_removed(&mut self, job: &Job) {
        self.leave(job);
        self.requests.remove(&(request_hash(&job.tenant, &job.request_id), job.id));
        self.counts.remove(job.id.0);
        self.waiting.remove(&job.id);
    }

    /// The job's own facts as they are from now on. A job that ends must hold nothing any more.
    pub(super) fn enter(&mut self, job: &Job) {
        if let Some(at) = end_of_time(job) {
            self.timed(job).insert((at, job.id));
        }
        if job.phase.is_over() {
            self.ended.insert((job.ended_at.unwrap_or_default(), job.id));
            self.counts.remove(job.id.0);
            self.waiting.remove(&job.id);
            return;
        }
        self.labelled.extend(label_keys(job));
        if is_disruptible(job) {
            self.disruptible.insert((job.spec.priority, job.id));
        }
        if repels(job) {
            self.repelling.insert((job.tenant.clone(), job.id));
        }
        if let Some(tenant) = self.tenants.get_mut(&job.tenant) {
            tenant.live_jobs = tenant.live_jobs.saturating_add(1);
            let pending = u32::from(job.phase == JobPhase::Pending);
            tenant.pending_jobs = tenant.pending_jobs.saturating_add(pending);
        }
    }

    /// The job's own facts are about to change; [`Index::enter`] must follow.
    pub(super) fn leave(&mut self, job: &Job) {
        if let Some(at) = end_of_time(job) {
            self.timed(job).remove(&(at, job.id));
        }
        if job.phase.is_over() {
            self.ended.remove(&(job.ended_at.unwrap_or_default(), job.id));
            return;
        }
        for key in label_keys(job) {
            self.labelled.remove(&key);
        }
        if is_disruptible(job) {
            self.disruptible.remove(&(job.spec.priority, job.id));
        }
        if repels(job) {
            self.repelling.remove(&(job.tenant.clone(), job.id));
        }
        if let Some(tenant) = self.tenants.get_mut(&job.tenant) {
            tenant.live_jobs = tenant.live_jobs.saturating_sub(1);
            let pending = u32::from(job.phase == JobPhase::Pending);
            tenant.pending_jobs = tenant.pending_jobs.saturating_sub(pending);
        }
    }

    /// Where the job stands by the end of its time.
    fn timed(&mut self, job: &Job) -> &mut BTreeSet<(TimeMs, JobId)> {
        match job.phase {
            JobPhase::Pending => &mut self.missing,
            _ => &mut self.expiring,
        }
    }

    /// One replica of a job that is not over changed.
    pub(super) fn replica_changed(&mut self, job: &Job, rank: Rank, old: &Replica, new: &Replica) {
        let Some(group) = job.spec.group_of(rank) else { return };
        if let Some(counts) = self.counts.get_mut(job.id.0) {
            if let Some(counts) = counts.get_mut(group) {
                counts.turn(old.phase, new.phase);
            }
            let waits = counts.iter().any(|counts| counts.to_place() > 0);
            // The set is only touched when the answer may have changed.
            if old.phase.is_waiting() != new.phase.is_waiting() {
                if waits {
                    self.waiting.insert(job.id);
                } else {
                    self.waiting.remove(&job.id);
                }
            }
        }
        let Some(shape) = job.spec.groups.get(group).map(|group| &group.shape) else { return };
        if old.phase.is_live() && (!new.phase.is_live() || old.allocation != new.allocation) {
            self.release(job, rank, shape, old);
        }
        if new.phase.is_live() && (!old.phase.is_live() || old.allocation != new.allocation) {
            self.hold(job, rank, shape, new);
        }
    }

    fn hold(&mut self, job: &Job, rank: Rank, shape: &Shape, replica: &Replica) {
        let Some(allocation) = &replica.allocation else { return };
        if let Some(node) = self.nodes.get_mut(u64::from(allocation.node.0)) {
            node.usage.take(shape, allocation.gpus, allocation.share_milli);
            node.work.insert(job.id, rank);
        }
        if let Some(tenant) = self.tenants.get_mut(&job.tenant) {
            tenant.gpu_milli_used = tenant.gpu_milli_used.saturating_add(shape.gpu_milli());
        }
    }

    fn release(&mut self, job: &Job, rank: Rank, shape: &Shape, replica: &Replica) {
        let Some(allocation) = &replica.allocation else { return };
        if let Some(node) = self.nodes.get_mut(u64::from(allocation.node.0)) {
            node.usage.give(shape, allocation.gpus, allocation.share_milli);
            node.work.remove(job.id, rank);
        }
        if let Some(tenant) = self.tenants.get_mut(&job.tenant) {
            tenant.gpu_milli_used = tenant.gpu_milli_used.saturating_sub(shape.gpu_milli());
        }
    }
}

/// Rebuilding.
impl Index {
    /// The index of these facts, and every contradiction found on the way.
    pub(super) fn build(facts: &Facts) -> (Self, Vec<Finding>) {
        let mut index = Self::default();
        let mut findings = Vec::new();
        for (key, node) in facts.nodes.iter() {
            if u64::from(node.id.0) != key
                || index.node_by_name(facts, &node.supplier, &node.name).is_some()
            {
                findings.push(Finding::DuplicateNode { node: node.id });
            }
            index.node_added(node);
        }
        for (id, quota) in facts.tenants.iter() {
            index.tenant_put(id, *quota);
        }
        for (key, slot) in facts.jobs.iter() {
            let job = &slot.job;
            let known = index.job_by_request(facts, &job.tenant, &job.request_id);
            if job.id.0 != key || known.is_some() {
                findings.push(Finding::DuplicateJob { job: job.id });
            }
            if !job.phase.is_over() && !facts.tenants.contains_key(&job.tenant) {
                findings.push(Finding::NoTenant { job: job.id });
            }
            let counts = count_groups(&job.spec, &slot.replicas);
            let asked = job.spec.groups.iter().zip(&counts);
            if u64::from(job.spec.rank_end()) != slot.replicas.len() as u64
                || asked.into_iter().any(|(group, counts)| group.replicas != counts.all())
            {
                findings.push(Finding::ReplicaCount { job: job.id });
            }
            index.job_added(job, counts);
            for (rank, replica) in (0u32..).map(Rank).zip(slot.replicas.iter()) {
                if replica.phase.is_live() {
                    findings.extend(index.hold_checked(facts, job, rank, replica));
                }
            }
        }
        (index, findings)
    }

    fn hold_checked(
        &mut self,
        facts: &Facts,
        job: &Job,
        rank: Rank,
        replica: &Replica,
    ) -> Option<Finding> {
        let shape = &job.spec.groups.get(job.spec.group_of(rank)?)?.shape;
        let lost = Finding::Unbound { job: job.id, rank };
        let Some(held) = replica.allocation else { return Some(lost) };
        let Some(node) = facts.nodes.get(u64::from(held.node.0)) else { return Some(lost) };
        let usage = self.usage(held.node)?;
        let lack = usage.lack(node, shape, held.gpus, held.share_milli);
        self.hold(job, rank, shape, replica);
        if job.phase.is_over() {
            return Some(Finding::LiveAfterEnd { job: job.id, rank });
        }
        let wrong = lack.is_some() || !answers(shape.gpus, held.gpus, held.share_milli);
        wrong.then_some(Finding::OverCommitted { node: held.node, job: job.id, rank })
    }
}
