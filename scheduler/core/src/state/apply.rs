//! From an entry to the command that decides on it.
//!
//! **Invariant:** every command checks who asks, then everything else, and only then changes
//! anything; so a rejection leaves the facts as they were.

use super::State;
use crate::command::{Actor, Command, Entry, Kind, Outcome, Rejection};
use crate::event::Event;
use crate::id::{JobId, NodeId, TenantId};
use crate::job::Job;
use crate::node::Node;
use crate::unit::TimeMs;
use std::sync::Arc;

/// What came of one entry.
#[derive(Clone, PartialEq, Debug)]
pub struct Applied {
    pub result: Result<Outcome, Rejection>,
    /// What changed, sorted, each once; empty after a rejection.
    pub events: Vec<Event>,
}

/// Circumstances of the entry being applied.
pub(super) struct Turn<'a> {
    pub(super) index: u64,
    /// The state's time once the entry is accepted.
    pub(super) now: TimeMs,
    pub(super) by: &'a Actor,
    pub(super) events: Vec<Event>,
}

impl State {
    /// Decides on one entry. Several entries may share one log index. Never panics.
    pub fn apply(&mut self, index: u64, entry: &Entry) -> Applied {
        let now = self.facts.meta.now.max(entry.at);
        let mut turn = Turn { index, now, by: &entry.by, events: Vec::new() };
        let result = self.decide(&mut turn, &entry.command);
        self.facts.meta.index = self.facts.meta.index.max(index);
        self.dirty.meta = true;
        if result.is_err() {
            return Applied { result, events: Vec::new() };
        }
        self.facts.meta.now = now;
        turn.events.sort_unstable();
        turn.events.dedup();
        Applied { result, events: turn.events }
    }

    fn decide(&mut self, turn: &mut Turn<'_>, command: &Command) -> Result<Outcome, Rejection> {
        match command {
            Command::RegisterNode(asked) => self.register_node(turn, asked),
            Command::SetEligibility { node, eligibility } => {
                self.set_eligibility(turn, *node, *eligibility)
            }
            Command::NodeStatuses(transitions) => self.node_statuses(turn, transitions),
            Command::RemoveNode { node, force } => self.remove_node(turn, *node, *force),
            Command::SetSiteRtts(rtts) => self.set_site_rtts(turn, rtts),
            Command::SetSiteCoordinates(list) => self.set_site_coordinates(turn, list),
            Command::Submit(asked) => self.submit(turn, asked),
            Command::Commit(asked) => self.commit(turn, asked),
            Command::SetReason { job, reason } => self.set_reason(turn, *job, reason),
            Command::Report(reports) => self.report(turn, reports),
            Command::Cancel { job, reason } => self.cancel(turn, *job, reason),
            Command::Expire { jobs, forget } => self.expire(turn, jobs, forget),
            Command::PutTenant(asked) => self.put_tenant(turn, asked),
            Command::RemoveTenant { tenant } => self.remove_tenant(turn, tenant),
            Command::Scale(asked) => self.scale(turn, asked),
            Command::Preempt(asked) => self.preempt(turn, asked),
        }
    }

    /// The node, if the actor may change it. Other suppliers' nodes do not exist for a supplier.
    pub(super) fn owned_node(&self, turn: &Turn<'_>, id: NodeId) -> Result<&Arc<Node>, Rejection> {
        let missing = || Rejection::NotFound { what: Kind::Node, id: id.to_string() };
        match (self.node(id), turn.by) {
            (_, Actor::Tenant(_)) => Err(forbidden("tenants do not change nodes")),
            (Some(node), Actor::Supplier(supplier)) if node.supplier != *supplier => Err(missing()),
            (found, _) => found.ok_or_else(missing),
        }
    }

    /// The job, if the actor may change it. Other tenants' jobs do not exist for a tenant.
    pub(super) fn owned_job(&self, turn: &Turn<'_>, id: JobId) -> Result<&Arc<Job>, Rejection> {
        let missing = || Rejection::NotFound { what: Kind::Job, id: id.to_string() };
        match (self.job(id), turn.by) {
            (_, Actor::Supplier(_)) => Err(forbidden("suppliers do not change jobs")),
            (Some(job), Actor::Tenant(tenant)) if job.tenant != *tenant => Err(missing()),
            (found, _) => found.ok_or_else(missing),
        }
    }

    pub(super) fn known_job(&self, id: JobId) -> Result<&Arc<Job>, Rejection> {
        self.job(id).ok_or_else(|| Rejection::NotFound { what: Kind::Job, id: id.to_string() })
    }

    pub(super) fn known_tenant(&self, id: &TenantId) -> Result<&super::Tenant, Rejection> {
        let missing = || Rejection::NotFound { what: Kind::Tenant, id: id.to_string() };
        self.tenant(id).ok_or_else(missing)
    }
}

impl Turn<'_> {
    /// Refuses everyone but the scheduler itself and operators.
    pub(super) fn scheduler_only(&self) -> Result<(), Rejection> {
        match self.by {
            Actor::System | Actor::Operator => Ok(()),
            Actor::Supplier(_) => Err(forbidden("suppliers do not run the scheduler")),
            Actor::Tenant(_) => Err(forbidden("tenants do not run the scheduler")),
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        // Batches repeat themselves; what is left is sorted out at the end.
        if self.events.last() != Some(&event) {
            self.events.push(event);
        }
    }
}

pub(super) fn forbidden(why: &str) -> Rejection {
    Rejection::Forbidden { why: why.to_owned() }
}
