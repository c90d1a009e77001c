//! The self-check: recounts everything and tells what is wrong. There must be nothing.
//!
//! **Invariant:** reads only, trusts no index.

use super::State;
use super::brought::{MODELS_BROUGHT_MAX, SITES_BROUGHT_MAX};
use super::facts::Facts;
use super::index::{Index, count_groups, end_of_time, sum};
use super::progress::next_phase;
use crate::id::{AssignmentId, JobId, NodeId, Rank, SupplierId};
use crate::job::{Job, JobPhase};
use crate::node::{Eligibility, NodeStatus};
use std::collections::BTreeSet;

/// A fault of the state itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub enum Finding {
    #[error("{node} has the wrong number, or the name of another node")]
    DuplicateNode { node: NodeId },
    #[error("{node} refers to a site or GPU model that does not exist")]
    UnknownName { node: NodeId },
    #[error("{supplier:?} brought names that do not exist, that another brought, or too many")]
    WrongNames { supplier: SupplierId },
    #[error("{job} has the wrong number, or the request id of another job")]
    DuplicateJob { job: JobId },
    #[error("{job} is not over and has no tenant")]
    NoTenant { job: JobId },
    #[error("{job} has another number of replicas in some group than its spec")]
    ReplicaCount { job: JobId },
    #[error("rank {rank} of {job} is live and holds nothing, or its node does not exist")]
    Unbound { job: JobId, rank: Rank },
    #[error("rank {rank} of {job} is live and its job is over")]
    LiveAfterEnd { job: JobId, rank: Rank },
    #[error(
        "rank {rank} of {job} has no room on {node}, or holds another amount than it asked for"
    )]
    OverCommitted { node: NodeId, job: JobId, rank: Rank },
    #[error("{node} is down or draining and still has live replicas")]
    LiveOnLostNode { node: NodeId },
    #[error("{job} has phase {phase:?}, which does not follow from its replicas")]
    WrongPhase { job: JobId, phase: JobPhase },
    #[error("{job} lacks a time that its phase implies, or has one that it excludes")]
    WrongTimes { job: JobId },
    #[error("{assignment} was given twice or never")]
    WrongAssignment { assignment: AssignmentId },
    #[error("a number at or above the next one to give is in use")]
    WrongCounter,
    #[error("the derived index differs from a recount")]
    WrongIndex,
}

impl State {
    /// Recounts everything, the derived index too. Costs about as much as a restart.
    pub fn check(&self) -> Vec<Finding> {
        let (index, mut findings) = self.facts.recount();
        if index != self.index {
            findings.push(Finding::WrongIndex);
        }
        findings
    }
}

impl Facts {
    /// The index of these facts as it ought to be, and all that is wrong with them.
    pub(super) fn recount(&self) -> (Index, Vec<Finding>) {
        let (index, mut findings) = Index::build(self);
        self.check_nodes(&index, &mut findings);
        self.check_brought(&mut findings);
        let mut seen = BTreeSet::new();
        for (id, slot) in self.jobs.iter() {
            if id >= self.meta.next_job {
                findings.push(Finding::WrongCounter);
            }
            for replica in slot.replicas.iter() {
                let Some(held) = replica.allocation else { continue };
                let next = self.meta.next_assignment;
                if held.assignment.0 >= next || !seen.insert(held.assignment) {
                    let assignment = held.assignment;
                    findings.push(Finding::WrongAssignment { assignment });
                }
            }
            let groups = count_groups(&slot.job.spec, &slot.replicas);
            let job = &slot.job;
            if !job.phase.is_over() && next_phase(job, &groups) != job.phase {
                findings.push(Finding::WrongPhase { job: job.id, phase: job.phase });
            }
            if wrong_times(job, sum(&groups).live() > 0) {
                findings.push(Finding::WrongTimes { job: job.id });
            }
        }
        (index, findings)
    }

    fn check_nodes(&self, index: &Index, findings: &mut Vec<Finding>) {
        for (_, node) in self.nodes.iter() {
            let id = node.id;
            let gpus_known = node.gpus.iter().all(|gpu| self.models.name(gpu.model).is_some());
            let site_known = self.sites.find(&node.place.site) == Some(node.site);
            if !gpus_known || !site_known {
                findings.push(Finding::UnknownName { node: id });
            }
            if id.0 >= self.meta.next_node {
                findings.push(Finding::WrongCounter);
            }
            let lost = node.status == NodeStatus::Down || node.eligibility == Eligibility::Draining;
            if lost && index.usage(id).is_none_or(|usage| usage.live > 0) {
                findings.push(Finding::LiveOnLostNode { node: id });
            }
        }
    }
}

impl Facts {
    fn check_brought(&self, findings: &mut Vec<Finding>) {
        let (mut models, mut sites) = (BTreeSet::new(), BTreeSet::new());
        for (supplier, brought) in self.brought.iter() {
            let rising = brought.models.is_sorted() && brought.sites.is_sorted();
            let few = brought.models.len() <= MODELS_BROUGHT_MAX
                && brought.sites.len() <= SITES_BROUGHT_MAX;
            let new_models = brought
                .models
                .iter()
                .all(|&model| self.models.name(model).is_some() && models.insert(model));
            let new_sites = brought
                .sites
                .iter()
                .all(|&site| self.sites.site(site).is_some() && sites.insert(site));
            if !(rising && few && new_models && new_sites) {
                findings.push(Finding::WrongNames { supplier: supplier.clone() });
            }
        }
    }
}

fn wrong_times(job: &Job, live: bool) -> bool {
    let over = job.phase.is_over();
    let pending = job.phase == JobPhase::Pending;
    over != job.ended_at.is_some()
        || (live && (over || pending || job.placed_at.is_none()))
        || (pending && (job.placed_at.is_some() || job.ready_at.is_some()))
        || (job.phase == JobPhase::Ready && job.ready_at.is_none())
        || (over && end_of_time(job).is_some())
}
