//! The only place where facts, index and the list of changed rows change, and then together.
//!
//! **Invariant:** nothing here decides or refuses; callers have validated. Nothing else writes to
//! facts or index.

use super::State;
use super::facts::JobSlot;
use super::replicas::Replicas;
use super::rows::{JOBS_PER_ROW, NODES_PER_ROW, RowKey, replica_row, replica_rows};
use crate::command::Quota;
use crate::id::{AssignmentId, JobId, ModelId, NodeId, Rank, SiteId, SupplierId, TenantId};
use crate::job::{Job, JobSpec, Replica, Scaling};
use crate::node::{Models, Node};
use crate::topology::Sites;
use std::sync::Arc;

fn node_row(id: NodeId) -> RowKey {
    RowKey::Nodes(id.0 / NODES_PER_ROW)
}

fn job_row(id: JobId) -> RowKey {
    RowKey::Jobs(id.0 / JOBS_PER_ROW)
}

impl State {
    pub(super) fn change_models(&mut self) -> &mut Models {
        self.dirty.mark(RowKey::Models);
        Arc::make_mut(&mut self.facts.models)
    }

    pub(super) fn change_sites(&mut self) -> &mut Sites {
        self.dirty.mark(RowKey::Sites);
        Arc::make_mut(&mut self.facts.sites)
    }

    /// The supplier brought names that nobody had before, numbered above all others.
    pub(super) fn note_brought(
        &mut self,
        supplier: &SupplierId,
        site: Option<SiteId>,
        models: Vec<ModelId>,
    ) {
        self.dirty.mark(RowKey::Supplier(supplier.clone()));
        let brought = Arc::make_mut(&mut self.facts.brought).entry(supplier.clone()).or_default();
        brought.sites.extend(site);
        brought.models.extend(models);
    }

    pub(super) fn put_tenant_facts(&mut self, id: &TenantId, quota: Quota) {
        self.dirty.mark(RowKey::Tenant(id.clone()));
        Arc::make_mut(&mut self.facts.tenants).insert(id.clone(), quota);
        self.index.tenant_put(id, quota);
    }

    pub(super) fn drop_tenant(&mut self, id: &TenantId) {
        self.dirty.mark(RowKey::Tenant(id.clone()));
        Arc::make_mut(&mut self.facts.tenants).remove(id);
        self.index.tenant_removed(id);
    }

    /// A node under a new id.
    pub(super) fn add_node(&mut self, node: Node) {
        let node = Arc::new(node);
        self.dirty.mark(node_row(node.id));
        self.index.node_added(&node);
        self.facts.meta.next_node = self.facts.meta.next_node.max(node.id.0.saturating_add(1));
        self.facts.nodes.insert(u64::from(node.id.0), node);
    }

    /// Changes a node; its id, supplier and name stay.
    pub(super) fn change_node(&mut self, id: NodeId, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.facts.nodes.get_mut(u64::from(id.0)) {
            self.dirty.mark(node_row(id));
            let old = Arc::clone(node);
            change(Arc::make_mut(node));
            self.index.node_changed(&old, node);
        }
    }

    /// A node without live replicas goes.
    pub(super) fn drop_node(&mut self, id: NodeId) {
        if let Some(node) = self.facts.nodes.remove(u64::from(id.0)) {
            self.dirty.mark(node_row(id));
            self.index.node_removed(&node);
        }
    }

    /// A job under a new id, with all replicas waiting.
    pub(super) fn add_job(&mut self, job: Job) {
        let id = job.id;
        let replicas = Replicas::new(&job.spec);
        self.dirty.mark(job_row(id));
        for key in replica_rows(id, replicas.len()) {
            self.dirty.mark(key);
        }
        self.index.job_added(&job, super::index::count_new(&job.spec));
        self.facts.meta.next_job = self.facts.meta.next_job.max(id.0.saturating_add(1));
        self.facts.jobs.insert(id.0, JobSlot { job: Arc::new(job), replicas, scalings: None });
    }

    /// Changes a job's own facts; its id, tenant and request id stay, and what the index goes by of
    /// its spec: labels, affinities, duration, shapes and ranks of groups.
    pub(super) fn change_job(&mut self, id: JobId, change: impl FnOnce(&mut Job)) {
        if let Some(slot) = self.facts.jobs.get_mut(id.0) {
            self.dirty.mark(job_row(id));
            self.index.leave(&slot.job);
            change(Arc::make_mut(&mut slot.job));
            self.index.enter(&slot.job);
        }
    }

    /// Another number of replicas of a group of a job that is not over, and the scaling that asked
    /// for it. The replicas themselves are the caller's to change.
    pub(super) fn rescale(&mut self, id: JobId, spec: JobSpec, scalings: Vec<Scaling>) {
        let spec = self.shared.spec(&Arc::new(spec));
        self.change_job(id, |job| job.spec = spec);
        if let Some(slot) = self.facts.jobs.get_mut(id.0) {
            self.dirty.mark(RowKey::Scalings(id));
            slot.scalings = Some(Arc::new(scalings));
        }
    }

    /// Changes one replica of a job that is not over.
    pub(super) fn put_replica(&mut self, id: JobId, rank: Rank, new: Replica) {
        let Some(JobSlot { job, replicas, .. }) = self.facts.jobs.get_mut(id.0) else { return };
        let count = replicas.len();
        let Some(place) = replicas.get_mut(rank) else { return };
        let old = std::mem::replace(place, new);
        self.dirty.mark(replica_row(id, count, rank));
        self.index.replica_changed(job, rank, &old, &new);
    }

    /// An ended job goes, and its request id with it.
    pub(super) fn drop_job(&mut self, id: JobId) {
        if let Some(slot) = self.facts.jobs.remove(id.0) {
            self.dirty.mark(job_row(id));
            for key in replica_rows(id, slot.replicas.len()) {
                self.dirty.mark(key);
            }
            if slot.scalings.is_some() {
                self.dirty.mark(RowKey::Scalings(id));
            }
            self.index.job_removed(&slot.job);
        }
    }

    /// A number for one binding, never given before.
    pub(super) fn next_assignment(&mut self) -> AssignmentId {
        let next = self.facts.meta.next_assignment;
        self.facts.meta.next_assignment = next.saturating_add(1);
        AssignmentId(next)
    }
}
