//! Around: where live replicas of other jobs stand that a job wants to be near to, or apart from.
//!
//! **Invariant:** reads only. Costs nothing for a job without labels and affinities; for others it
//! grows with the live replicas of the tenant's jobs that are meant.

use super::State;
use crate::fit::Around;
use crate::id::{JobId, NodeId, TenantId};
use crate::job::{Affinity, Job, JobSpec, Level, Target};
use crate::node::Labels;
use std::collections::BTreeMap;

impl State {
    /// What the rules of a job of the tenant need to know of the tenant's other jobs; `job` is the
    /// job itself, once it has been submitted.
    pub fn around(&self, tenant: &TenantId, spec: &JobSpec, job: Option<JobId>) -> Around {
        let target = |affinity: &Affinity| match &affinity.target {
            Target::Groups { .. } => Vec::new(),
            Target::Jobs { labels, .. } => {
                let jobs = self.index.labelled(tenant, labels).filter(|&id| Some(id) != job);
                let alike = jobs.filter_map(|id| self.job(id)).filter(|job| has(job, labels));
                sorted(alike.flat_map(|job| self.live_nodes(job.id, None)))
            }
        };
        Around {
            targets: spec.affinities.iter().map(target).collect(),
            closed: self.closed(tenant, spec, job),
        }
    }

    /// Domains that the anti-affinities of other jobs keep a job with these labels out of.
    fn closed(
        &self,
        tenant: &TenantId,
        spec: &JobSpec,
        job: Option<JobId>,
    ) -> Vec<(Level, Vec<NodeId>)> {
        if spec.labels.is_empty() {
            return Vec::new();
        }
        let mut closed: BTreeMap<Level, Vec<NodeId>> = BTreeMap::new();
        for other in self.index.repelling(tenant).filter(|&id| Some(id) != job) {
            let Some(other) = self.job(other) else { continue };
            for affinity in other.spec.affinities.iter().filter(|one| one.anti && !one.preferred) {
                let Target::Jobs { group, labels } = &affinity.target else { continue };
                if is_within(labels, &spec.labels) {
                    let nodes = self.live_nodes(other.id, *group);
                    closed.entry(affinity.level).or_default().extend(nodes);
                }
            }
        }
        closed.into_iter().map(|(level, nodes)| (level, sorted(nodes.into_iter()))).collect()
    }

    /// Nodes of the live replicas of a job, or of one of its groups.
    fn live_nodes(&self, job: JobId, group: Option<u16>) -> impl Iterator<Item = NodeId> {
        let spec = self.job(job).map(|job| &job.spec);
        self.replicas(job)
            .filter(|(_, replica)| replica.phase.is_live())
            .filter(move |(rank, _)| {
                group.is_none_or(|group| {
                    spec.and_then(|spec| spec.group_of(*rank)) == Some(usize::from(group))
                })
            })
            .filter_map(|(_, replica)| Some(replica.allocation?.node))
    }
}

/// Whether the job keeps jobs away by their labels.
pub(super) fn repels(job: &Job) -> bool {
    job.spec.affinities.iter().any(|affinity| {
        affinity.anti && !affinity.preferred && matches!(affinity.target, Target::Jobs { .. })
    })
}

fn has(job: &Job, labels: &Labels) -> bool {
    is_within(labels, &job.spec.labels)
}

fn is_within(wanted: &Labels, labels: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn sorted(nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = nodes.collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
