//! Whether a plan may become true: every limit is checked again, against the state as it is now.
//!
//! **Invariant:** reads only. What passes here can be bound without any further question, whatever
//! the planner was thinking: no GPU twice, no gang by half, no constraint broken.

use super::State;
use super::index::count_groups;
use super::roster::{Fitting, Roster};
use super::usage::{Lack, Usage};
use crate::command::{Placement, Plan, Rejection, Stale};
use crate::fit::{self, Breach, Needs};
use crate::id::{JobId, NodeId, Rank, SiteId, TenantId};
use crate::job::{JobSpec, Level, RttScope};
use crate::node::Node;
use crate::topology::Sites;
use crate::unit::{GpuMilli, RttUs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Names in the selectors, tolerations and alternatives of a group up to which a node is asked
/// itself: a microsecond at most.
const NAMES_FEW: usize = 64;
/// Nodes of a group with more that are asked themselves: the roster's answer costs some of them.
const NODES_FEW: usize = 16;

/// One node's part in a plan while it is checked.
struct Draft<'a> {
    node: &'a Arc<Node>,
    usage: Usage,
    /// Last group found to fit the node as such.
    fits: Option<usize>,
}

/// What running jobs would give back for a plan.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// What is held without it, of each node on which it is.
    pub(super) usage: BTreeMap<NodeId, Usage>,
    /// Thousandths of GPUs that the tenant of the plan itself would give back.
    pub(super) own_gpu_milli: u64,
}

impl State {
    /// Checks a plan for a job that is about to be submitted (`job` = `None`: all ranks wait), or
    /// for an existing one that is not over; `given` is free for it, too.
    pub(super) fn admit(
        &self,
        spec: &JobSpec,
        tenant: &TenantId,
        job: Option<JobId>,
        plan: &Plan,
        given: &Given,
    ) -> Result<(), Rejection> {
        let stale = |why: Stale| Rejection::StalePlan { why };
        self.check_ranks(spec, job, plan).map_err(stale)?;
        self.check_quota(spec, tenant, plan, given)?;
        self.check_nodes(spec, plan, given).map_err(stale)?;
        job.map_or(Ok(()), |id| self.check_repairs(id, plan)).map_err(stale)?;
        self.check_rules(spec, tenant, job, plan).map_err(stale)
    }

    fn check_ranks(&self, spec: &JobSpec, job: Option<JobId>, plan: &Plan) -> Result<(), Stale> {
        let starts = spec.group_starts();
        let mut placed: Vec<u32> = match job.and_then(|id| self.facts.jobs.get(id.0)) {
            None => vec![0; spec.groups.len()],
            Some(slot) => {
                let groups = match self.index.group_counts(slot.job.id) {
                    Some(groups) => groups.to_vec(),
                    None => count_groups(spec, &slot.replicas),
                };
                groups.iter().map(|group| group.live().saturating_add(group.succeeded)).collect()
            }
        };
        if plan.placements.is_empty() {
            return Err(Stale::Malformed);
        }
        let (before_plan, room) = (placed.clone(), self.room_of(job));
        let mut before: Option<Rank> = None;
        for placement in &plan.placements {
            let rank = placement.rank;
            if before.is_some_and(|before| before >= rank) {
                return Err(Stale::Malformed);
            }
            before = Some(rank);
            let at = JobSpec::group_within(&starts, rank).ok_or(Stale::Malformed)?;
            let waits = match job {
                Some(id) => {
                    self.replica(id, rank).is_some_and(|replica| replica.phase.is_waiting())
                }
                // A new job has the first ranks of each group.
                None => spec.groups.get(at).is_some_and(|group| {
                    let start = starts.get(at).copied().unwrap_or(u32::MAX);
                    rank.0.saturating_sub(start) < group.replicas
                }),
            };
            if !waits {
                return Err(Stale::RankNotWaiting { rank });
            }
            let group = placed.get_mut(at).ok_or(Stale::Malformed)?;
            *group = group.saturating_add(1);
        }
        for (at, (group, &placed)) in (0u16..).zip(spec.groups.iter().zip(&placed)) {
            let index = usize::from(at);
            let may = room.get(index).copied().flatten().map_or(u32::MAX, |room| {
                // No more may be bound at once; the rest comes later.
                before_plan.get(index).copied().unwrap_or(0).saturating_add(room)
            });
            let min = group.replicas_min.min(may);
            if placed < min {
                return Err(Stale::BelowMinimum { group: at, placed, min });
            }
        }
        Ok(())
    }

    fn room_of(&self, job: Option<JobId>) -> Vec<Option<u32>> {
        let job = job.and_then(|id| self.job(id)).filter(|job| job.spec.has_repairs());
        job.map(|job| self.repair_room(job)).unwrap_or_default()
    }

    fn check_quota(
        &self,
        spec: &JobSpec,
        tenant: &TenantId,
        plan: &Plan,
        given: &Given,
    ) -> Result<(), Rejection> {
        let holder = self.known_tenant(tenant)?;
        let starts = spec.group_starts();
        let asked = plan.placements.iter().fold(0u64, |sum, placement| {
            let group = JobSpec::group_within(&starts, placement.rank);
            let group = group.and_then(|group| spec.groups.get(group));
            sum.saturating_add(group.map_or(0, |group| group.shape.gpu_milli()))
        });
        let used = holder.gpu_milli_used.saturating_sub(given.own_gpu_milli);
        let max = holder.quota.gpu_milli_max;
        if used.saturating_add(asked) <= max {
            return Ok(());
        }
        let [asked, used, max] = [asked, used, max].map(GpuMilli);
        let why = format!("{asked} GPUs on top of the {used} in use would exceed {max}");
        Err(Rejection::QuotaExceeded { tenant: tenant.clone(), why })
    }

    /// Node by node: session, health, fit, and room beside what is held and what the plan itself
    /// puts there.
    fn check_nodes(&self, spec: &JobSpec, plan: &Plan, given: &Given) -> Result<(), Stale> {
        let mut fits = Fits::new(spec, self);
        let mut by_node: Vec<&Placement> = plan.placements.iter().collect();
        by_node.sort_by_key(|placement| (placement.node, placement.rank));
        let mut draft: Option<Draft<'_>> = None;
        for placement in by_node {
            let mut open = match draft.take() {
                Some(same) if same.node.id == placement.node => same,
                _ => self.open_draft(placement, given)?,
            };
            if open.node.epoch != placement.node_epoch {
                return Err(Stale::NodeEpoch { node: placement.node });
            }
            check_placement(spec, &mut fits, &mut open, placement)?;
            draft = Some(open);
        }
        Ok(())
    }

    fn open_draft(&self, placement: &Placement, given: &Given) -> Result<Draft<'_>, Stale> {
        let id = placement.node;
        let gone = Stale::NodeGone { node: id };
        let node = self.node(id).ok_or(gone)?;
        if !node.is_schedulable() {
            return Err(Stale::NodeUnschedulable { node: id });
        }
        let usage = given.usage.get(&id).or_else(|| self.usage(id)).ok_or(gone)?.clone();
        Ok(Draft { node, usage, fits: None })
    }

    /// The rules about all live members together, old and new.
    fn check_rules(
        &self,
        spec: &JobSpec,
        tenant: &TenantId,
        job: Option<JobId>,
        plan: &Plan,
    ) -> Result<(), Stale> {
        let old = job
            .into_iter()
            .flat_map(|id| self.replicas(id))
            .filter(|(_, replica)| replica.phase.is_live())
            .filter_map(|(rank, replica)| Some((rank, replica.allocation?.node)));
        let new = plan.placements.iter().map(|placement| (placement.rank, placement.node));
        let node = |(rank, node)| Some((rank, self.node(node)?.as_ref()));
        let around = self.around(tenant, spec, job);
        let old: Vec<(Rank, NodeId)> = old.collect();
        let members = old.iter().copied().chain(new.clone()).filter_map(node);
        match fit::breach(spec, self, &around, members) {
            None => Ok(()),
            // Found last, so no other rule is broken; and only the new must keep this one.
            Some(Breach::Rtt) if job.is_some() && spec.rtt_scope == RttScope::AllPairs => {
                let site = |(_, id)| self.node(id).map(|node| node.site);
                let (old, new): (Vec<SiteId>, Vec<SiteId>) =
                    (old.into_iter().filter_map(site).collect(), new.filter_map(site).collect());
                let bound = spec.rtt_max.unwrap_or(RttUs(u32::MAX));
                let kept = fit::joins_within(self.sites(), &old, &new, bound);
                if kept { Ok(()) } else { Err(Stale::BreaksConstraint) }
            }
            Some(_) => Err(Stale::BreaksConstraint),
        }
    }
}

impl fit::Fleet for State {
    fn sites(&self) -> &Sites {
        self.sites()
    }

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.node(id).map(AsRef::as_ref)
    }

    fn domain(&self, level: Level, node: &Node) -> u64 {
        self.index.roster().domain(level, node)
    }

    fn has_beside(&self, spec: &JobSpec, group: usize, held: &fit::Outside<'_>) -> bool {
        let needs = Needs::new(spec, group, self.models());
        self.index.roster().any_outside(&needs, held)
    }
}

/// Whether nodes could hold replicas of each group: asked of the node itself, or, where groups name
/// much and have many nodes, of the roster.
struct Fits<'a> {
    roster: &'a Roster,
    groups: Vec<GroupFits>,
    /// First rank of each group, and one past the last.
    starts: Vec<u32>,
}

struct GroupFits {
    needs: Needs,
    /// Nodes asked so far; none where there is little to ask.
    asked: Option<usize>,
    fitting: Option<Fitting>,
}

impl<'a> Fits<'a> {
    fn new(spec: &JobSpec, state: &'a State) -> Self {
        let group = |at| {
            let needs = Needs::new(spec, at, state.models());
            let asked = (needs.names() > NAMES_FEW).then_some(0);
            GroupFits { needs, asked, fitting: None }
        };
        let groups = (0..spec.groups.len()).map(group).collect();
        Self { roster: state.index.roster(), groups, starts: spec.group_starts() }
    }

    fn fits(&mut self, group: usize, node: &Node) -> bool {
        let Some(group) = self.groups.get_mut(group) else { return false };
        if let Some(asked) = &mut group.asked {
            *asked += 1;
            if *asked > NODES_FEW {
                let make = || self.roster.fitting(&group.needs);
                return self.roster.fits(group.fitting.get_or_insert_with(make), node.id);
            }
        }
        group.needs.misfit(node).is_none()
    }
}

fn check_placement(
    spec: &JobSpec,
    fits: &mut Fits<'_>,
    draft: &mut Draft<'_>,
    placement: &Placement,
) -> Result<(), Stale> {
    let (node, rank) = (placement.node, placement.rank);
    let misfit = Stale::DoesNotFit { node, rank };
    let group = JobSpec::group_within(&fits.starts, rank).ok_or(Stale::Malformed)?;
    let group_spec = spec.groups.get(group).ok_or(Stale::Malformed)?;
    if draft.fits != Some(group) {
        if !fits.fits(group, draft.node) {
            return Err(misfit);
        }
        draft.fits = Some(group);
    }
    let (gpus, share) = (placement.gpus, placement.share_milli);
    let shape = &group_spec.shape;
    match draft.usage.lack(draft.node, shape, gpus, share) {
        Some(Lack::Gpu) => return Err(Stale::GpuTaken { node }),
        Some(Lack::Resources) => return Err(Stale::NodeFull { node }),
        None => {}
    }
    let needs = &fits.groups.get(group).ok_or(Stale::Malformed)?.needs;
    if !needs.accepts_gpus(draft.node, gpus, share) {
        return Err(misfit);
    }
    draft.usage.take(shape, gpus, share);
    Ok(())
}
