//! Jobs: what a tenant asks for, and how far it has come.
//!
//! **Invariant:** a [`JobSpec`] in the state has passed [`crate::validate`]; a job's phase follows
//! from its replicas and is changed by `State::apply` alone.

use crate::id::{AssignmentId, JobId, Name, NodeId, Rank, TenantId};
use crate::node::{Custom, Labels, Resources, TaintEffect, Vendor};
use crate::unit::{
    BandwidthMbps, ComputeCapability, CostMicroUsd, CpuMilli, DiskMib, DurationMs, GpuSet,
    MemoryMib, PriceMicroUsd, RttUs, TimeMs, VramMib,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// What the members become once they run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum JobKind {
    Ray,
    Kubernetes,
    Plain,
}

/// Who goes first where not all fit: the higher one. -1,000 to 1,000; usually 0.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Priority(pub i16);

impl Priority {
    pub const MIN: Self = Self(-1_000);
    pub const MAX: Self = Self(1_000);
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a waiting job may take from jobs that run.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum PreemptionPolicy {
    #[default]
    Never,
    /// What jobs of a strictly lower priority hold, as far as their [`Disruption`] lets it.
    LowerPriority,
}

/// What jobs of a higher priority may take from one that runs.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Disruption {
    /// Nothing: tenants do not trust each other, so nobody loses what it did not say that it may.
    #[default]
    None,
    /// Replicas above their group's minimum alone; if more is needed, the whole job.
    Single,
    /// The whole job, and no part of it.
    All,
}

/// Who takes GPUs from whom.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Preemption {
    pub policy: PreemptionPolicy,
    pub disruption: Disruption,
}

/// How the replicas of a job spread over nodes, as Ray's placement groups define it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Strategy {
    /// On as few nodes as possible.
    #[default]
    Pack,
    /// On different nodes as far as possible.
    Spread,
    /// All on ONE node, or not at all.
    StrictPack,
    /// No two on one node, or not at all.
    StrictSpread,
}

/// Levels of the topology, from wide to narrow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Level {
    Region,
    Zone,
    Site,
    Rack,
    /// A single node. Not a level to keep a whole job or group within: that is `StrictPack`.
    Node,
}

/// GPUs that one replica needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum GpuAsk {
    None,
    /// This many whole GPUs of one node, 1 to 64, all of one model.
    Whole(u8),
    /// Thousandths of a single GPU, 1 to 999.
    Share(u16),
}

/// What one replica needs.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Shape {
    pub gpus: GpuAsk,
    /// GPUs that would do, the most wanted first; empty = any.
    pub alternatives: Vec<GpuAlternative>,
    pub cpu: CpuMilli,
    pub memory: MemoryMib,
    pub disk: DiskMib,
    /// At least this much bandwidth of the node, shared with all else there; 0 = any.
    pub bandwidth_up_min: BandwidthMbps,
    pub bandwidth_down_min: BandwidthMbps,
    /// Countable resources that one replica takes.
    pub custom: Custom,
}

impl Shape {
    /// Whether a replica takes GPUs, cores or what is counted; memory and disk alone do not make one.
    pub fn asks_something(&self) -> bool {
        self.gpus != GpuAsk::None || self.cpu > CpuMilli::ZERO || !self.custom.is_empty()
    }
}

/// GPUs that would do; all of it must hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct GpuAlternative {
    /// Any of these models; empty = any model.
    pub models: Vec<Name>,
    /// `None` = any vendor.
    pub vendor: Option<Vendor>,
    /// At least this much vRAM on each GPU; 0 = any.
    pub vram_min: VramMib,
    /// 0 = any.
    pub compute_capability_min: ComputeCapability,
}

impl GpuAlternative {
    /// Whether it is told by models and vRAM alone.
    pub fn is_short(&self) -> bool {
        self.vendor.is_none() && self.compute_capability_min == ComputeCapability::ZERO
    }
}

/// One condition on a node's labels. The labels `muster/region`, `muster/zone`, `muster/site`,
/// `muster/rack`, `muster/supplier`, `muster/node` are always there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Selector {
    pub key: Arc<str>,
    pub condition: Condition,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Condition {
    In(Vec<Arc<str>>),
    NotIn(Vec<Arc<str>>),
    Exists,
    DoesNotExist,
}

impl Condition {
    /// The values it names.
    pub fn values(&self) -> &[Arc<str>] {
        match self {
            Self::In(values) | Self::NotIn(values) => values,
            Self::Exists | Self::DoesNotExist => &[],
        }
    }
}

/// A taint that the replicas put up with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Toleration {
    /// Empty = every key.
    pub key: Arc<str>,
    /// `None` = every value.
    pub value: Option<Arc<str>>,
    /// `None` = every effect.
    pub effect: Option<TaintEffect>,
}

#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum Role {
    #[default]
    Worker,
    /// Exactly one replica of one group: the head of a Ray cluster, the control plane of a
    /// Kubernetes one. Without such a group, rank 0 is the head.
    Head,
}

/// Replicas of one shape.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct GroupSpec {
    pub name: Name,
    pub role: Role,
    pub replicas: u32,
    /// The job may start with this many; 1 to `replicas`.
    pub replicas_min: u32,
    pub shape: Shape,
    /// All must hold.
    pub selectors: Vec<Selector>,
    pub tolerations: Vec<Toleration>,
    /// The job may be scaled up to this many; at least `replicas`. As many ranks belong to the
    /// group for good, so that scaling gives no replica another one.
    pub replicas_max: u32,
    pub rules: GroupRules,
    /// Other groups, by their index in the job, rising: replicas of this one are started only once each of those has
    /// its minimum running or done.
    pub depends_on: Vec<u16>,
    pub repair: Repair,
}

/// How lost replicas of a group are replaced.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Repair {
    /// Most replicas of the group that may be bound and not running yet when a lost one is bound again, once the job
    /// has been ready; 0 = no bound.
    pub in_flight_max: u32,
    /// A lost replica is replaced inside the domain of this level in which it stood.
    pub level: Option<Level>,
    /// As far as possible only.
    pub preferred: bool,
}

impl GroupSpec {
    /// Ranks that belong to the group, whether it asks for a replica of that rank now or not.
    pub fn ranks(&self) -> u32 {
        self.replicas_max.max(self.replicas)
    }

    /// Phases of a new job's ranks, in their order, and how many are in each.
    pub fn first_phases(&self) -> [(ReplicaPhase, u32); 2] {
        let spare = self.ranks() - self.replicas;
        [(ReplicaPhase::Waiting, self.replicas), (ReplicaPhase::Absent, spare)]
    }
}

/// Rules among the replicas of one group, beside those of the job.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct GroupRules {
    /// Most replicas of the group on one node; 0 = no bound.
    pub replicas_per_node_max: u32,
    /// In place of the job's, which then binds the other groups only.
    pub strategy: Option<Strategy>,
    /// All replicas of the group inside one domain of this level, or not at all.
    pub topology_required: Option<Level>,
    /// All replicas of the group inside one domain of this level, if there is one that fits.
    pub topology_preferred: Option<Level>,
    /// Wider levels first; each size is a multiple of the next.
    pub segments: Vec<Segment>,
    pub spread: Vec<Spread>,
    /// At most so many domains hold replicas of the group; each level once.
    pub domains_max: Vec<DomainsMax>,
}

impl GroupRules {
    /// Whether they say nothing that a job of this strategy does not say already.
    pub fn are_plain(&self, strategy: Strategy) -> bool {
        let alike = matches!(strategy, Strategy::Pack | Strategy::Spread);
        Self { strategy: None, ..self.clone() } == Self::default()
            && self.strategy.is_none_or(|own| own == strategy && alike)
    }
}

/// Every so many consecutive replicas of a group share one domain of the level; the last ones may
/// be fewer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Segment {
    pub level: Level,
    pub size: u32,
    /// No two blocks share a domain.
    pub exclusive: bool,
}

/// Evenness over the domains of a level that have at least one schedulable node which could hold a
/// replica of the group: the fullest may hold so many replicas more than the emptiest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Spread {
    pub level: Level,
    /// At least 1.
    pub skew_max: u32,
    /// As far as possible only.
    pub preferred: bool,
}

/// At most so many domains of the level hold replicas.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct DomainsMax {
    pub level: Level,
    /// At least 1.
    pub max: u32,
}

/// Which pairs of members the RTT bound is about.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum RttScope {
    #[default]
    AllPairs,
    /// Pairs within the same group.
    WithinGroups,
    /// The head and each other member.
    HeadToMembers,
}

/// What to make small when there is a choice of sites.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum RttObjective {
    /// Up to the planner.
    #[default]
    None,
    /// The largest RTT between two members.
    Diameter,
    /// The mean RTT over all pairs of members.
    Mean,
}

/// A wish to be near to, or apart from, other replicas.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Affinity {
    /// Apart instead of near.
    pub anti: bool,
    /// As far as possible only.
    pub preferred: bool,
    pub level: Level,
    pub target: Target,
}

/// Whom an affinity is between. Groups by their index in the job.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Target {
    /// Near: every replica of `group` shares a domain with at least one of `with`, and all share
    /// one if both are the same group. Apart: no domain holds replicas of both, and no two of one
    /// group if both are the same.
    Groups { group: u16, with: u16 },
    /// Live replicas of the tenant's other jobs that have all these labels. Near: each replica of
    /// the group (`None` = of the job) shares a domain with at least one. Apart: with none; that
    /// also keeps such jobs away that come later.
    Jobs { group: Option<u16>, labels: Labels },
}

/// Command that a `process` runtime runs for every replica; empty for other runtimes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Program {
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
}

/// One request for a cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct JobSpec {
    pub name: Name,
    pub kind: JobKind,
    pub groups: Vec<GroupSpec>,
    pub strategy: Strategy,
    /// All replicas inside one domain of this level, or not at all.
    pub topology_required: Option<Level>,
    /// All replicas inside one domain of this level, if there is one that fits.
    pub topology_preferred: Option<Level>,
    /// Upper bound on the RTT between the sites of any two replicas.
    pub rtt_max: Option<RttUs>,
    /// The job ends this long after it became ready; `None` = when cancelled.
    pub duration: Option<DurationMs>,
    /// Upper bound on the price of each GPU-hour.
    pub price_max: Option<PriceMicroUsd>,
    pub program: Program,
    /// Facts for people, and for affinities of the tenant's other jobs.
    pub labels: Labels,
    /// Whom `rtt_max` binds.
    pub rtt_scope: RttScope,
    pub rtt_objective: RttObjective,
    /// Upper bound on the price of all live members' GPUs for the whole of `duration`.
    pub cost_max: Option<CostMicroUsd>,
    pub affinities: Vec<Affinity>,
    /// At most what the tenant may give its jobs.
    pub priority: Priority,
    /// It is not started before; `None` = at once.
    pub begin: Option<TimeMs>,
    /// It is over by then; `None` = nothing hurries.
    pub deadline: Option<TimeMs>,
    /// Not started later than so long before the deadline; `None` = `duration`.
    pub duration_min: Option<DurationMs>,
    /// Upper bound on the price of all live members' GPUs for an hour.
    pub hourly_max: Option<CostMicroUsd>,
    /// At most so many domains hold replicas; each level once.
    pub domains_max: Vec<DomainsMax>,
    pub preemption: Preemption,
}

impl JobSpec {
    /// At least so much of its time is left when it is started.
    pub fn time_min(&self) -> DurationMs {
        // Without any, it is started before its deadline.
        self.duration_min.or(self.duration).unwrap_or(DurationMs(1))
    }

    /// The last moment to start it; `None` = any will do.
    pub fn start_by(&self) -> Option<TimeMs> {
        Some(self.deadline?.saturating_sub(TimeMs(self.time_min().0)))
    }

    /// Replicas over all groups; saturates (validated specs cannot reach that).
    pub fn replicas(&self) -> u32 {
        self.groups.iter().fold(0u32, |sum, group| sum.saturating_add(group.replicas))
    }

    /// One past the last rank; the ranks of absent replicas count too.
    pub fn rank_end(&self) -> u32 {
        self.groups.iter().fold(0u32, |sum, group| sum.saturating_add(group.ranks()))
    }

    /// Ranks of a job that was never scaled, rising: the first ones of each group.
    pub fn first_ranks(&self) -> impl Iterator<Item = Rank> {
        let mut start = 0u32;
        self.groups.iter().flat_map(move |group| {
            let asked = start..start.saturating_add(group.replicas);
            start = start.saturating_add(group.ranks());
            asked.map(Rank)
        })
    }

    /// Group of a rank: its index in `groups`; `None` past the last rank.
    pub fn group_of(&self, rank: Rank) -> Option<usize> {
        let mut end = 0u32;
        self.groups.iter().position(|group| {
            end = end.saturating_add(group.ranks());
            rank.0 < end
        })
    }

    /// First rank of each group, and one past the last rank of the job.
    pub fn group_starts(&self) -> Vec<u32> {
        let mut starts = vec![0u32];
        let mut end = 0u32;
        for group in &self.groups {
            end = end.saturating_add(group.ranks());
            starts.push(end);
        }
        starts
    }

    /// As [`JobSpec::group_of`], from what [`JobSpec::group_starts`] gave: for many ranks in turn.
    pub fn group_within(starts: &[u32], rank: Rank) -> Option<usize> {
        let after = starts.partition_point(|&start| start <= rank.0);
        after.checked_sub(1).filter(|_| after < starts.len())
    }

    /// Whether there are rules among the members beside the job's strategy, required topology and
    /// RTT bound on all pairs.
    pub fn has_rules(&self) -> bool {
        let plain = |group: &GroupSpec| group.rules.are_plain(self.strategy);
        self.rtt_scope != RttScope::AllPairs
            || self.bounds_cost()
            || !self.affinities.is_empty()
            || !self.domains_max.is_empty()
            || !self.groups.iter().all(plain)
    }

    /// Whether what all members cost together is bound.
    pub fn bounds_cost(&self) -> bool {
        self.cost_max.is_some() || self.hourly_max.is_some()
    }

    /// Whether in how many domains members stand is bound.
    pub fn bounds_domains(&self) -> bool {
        let of_groups = self.groups.iter().any(|group| !group.rules.domains_max.is_empty());
        !self.domains_max.is_empty() || of_groups
    }

    /// The same in however many domains.
    pub fn without_domains_max(&self) -> Self {
        let mut free = self.clone();
        free.domains_max.clear();
        free.groups.iter_mut().for_each(|group| group.rules.domains_max.clear());
        free
    }

    /// Whether some groups ask how their lost replicas are replaced.
    pub fn has_repairs(&self) -> bool {
        self.groups.iter().any(|group| group.repair != Repair::default())
    }

    /// Whether some groups start only once others run.
    pub fn has_order(&self) -> bool {
        self.groups.iter().any(|group| !group.depends_on.is_empty())
    }

    /// Whether it wishes to be near to, or apart from, the tenant's other jobs.
    pub fn is_about_jobs(&self) -> bool {
        let about_jobs = |one: &Affinity| matches!(one.target, Target::Jobs { .. });
        self.affinities.iter().any(about_jobs)
    }

    /// Whether where the tenant's other jobs stand may matter to this one.
    pub fn looks_around(&self) -> bool {
        !self.labels.is_empty() || self.is_about_jobs()
    }

    /// Whole GPUs asked for in all (shares count as part of one), in thousandths.
    pub fn gpu_milli(&self) -> u64 {
        self.groups.iter().fold(0u64, |sum, group| {
            sum.saturating_add(group.shape.gpu_milli().saturating_mul(u64::from(group.replicas)))
        })
    }

    /// Rank of the head: the first replica of the HEAD group, else rank 0.
    pub fn head_rank(&self) -> Rank {
        let mut start = 0u32;
        for group in &self.groups {
            if group.role == Role::Head {
                return Rank(start);
            }
            start = start.saturating_add(group.ranks());
        }
        Rank(0)
    }
}

impl Shape {
    /// The most vRAM that one of its alternatives demands.
    pub fn vram_min(&self) -> VramMib {
        self.alternatives.iter().map(|one| one.vram_min).max().unwrap_or_default()
    }

    /// What one replica takes beside GPUs and countable resources.
    pub fn resources(&self) -> Resources {
        Resources { cpu: self.cpu, memory: self.memory, disk: self.disk }
    }

    /// GPUs of one replica in thousandths.
    pub fn gpu_milli(&self) -> u64 {
        match self.gpus {
            GpuAsk::None => 0,
            GpuAsk::Whole(count) => u64::from(count) * 1000,
            GpuAsk::Share(milli) => u64::from(milli),
        }
    }
}

/// How far a job has come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum JobPhase {
    /// Waits for capacity; nothing is reserved.
    Pending,
    /// Every replica (or at least every group's minimum) is bound to GPUs; no agent has answered.
    Placed,
    /// Agents are starting replicas.
    Starting,
    /// At least every group's minimum runs.
    Ready,
    /// Was ready (or starting) and lost members that are being replaced.
    Repairing,
    /// Over: finished or cancelled.
    Ended,
    Failed,
    Expired,
}

impl JobPhase {
    /// Whether the job is over and holds nothing.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Failed | Self::Expired)
    }
}

/// How one replica is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ReplicaPhase {
    /// Has no node.
    Waiting,
    /// Bound to GPUs, not yet confirmed by the agent.
    Assigned,
    Starting,
    Ready,
    /// Ran to its end with success; holds nothing.
    Succeeded,
    /// Ended with an error, or its node was lost; holds nothing; waits to be replaced.
    Failed,
    /// Was running or about to when its job ended; holds nothing.
    Released,
    /// Not asked for: the group has fewer replicas now than it may have. Of no account until the
    /// job is scaled up.
    Absent,
}

impl ReplicaPhase {
    /// Whether the replica holds capacity of its node.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Assigned | Self::Starting | Self::Ready)
    }

    /// Whether a plan may bind the replica, as long as its job is not over.
    pub fn is_waiting(self) -> bool {
        matches!(self, Self::Waiting | Self::Failed)
    }
}

/// The part of a node that a live replica holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Allocation {
    pub node: NodeId,
    /// Exact GPUs; one bit for a share.
    pub gpus: GpuSet,
    /// 0 = the GPUs are whole; else thousandths of the one GPU.
    pub share_milli: u16,
    pub assignment: AssignmentId,
}

/// One member of a group. The last allocation is kept when it has ended, for people to look at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Replica {
    pub phase: ReplicaPhase,
    pub allocation: Option<Allocation>,
    /// Times it has ended with an error. A lost node does not count.
    pub failures: u16,
}

/// Why a pending job waits, or why a job ended; codes for programs, text for people.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Reason {
    pub code: ReasonCode,
    /// One line with numbers, at most [`REASON_BYTES_MAX`] bytes.
    pub message: Arc<str>,
}

/// Longest reason text in bytes.
pub const REASON_BYTES_MAX: usize = 512;

impl Reason {
    /// A reason whose text is cut where it is too long.
    pub fn new(code: ReasonCode, mut message: String) -> Self {
        message.truncate(message.floor_char_boundary(REASON_BYTES_MAX));
        Self { code, message: message.into() }
    }
}

#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub enum ReasonCode {
    #[default]
    None,
    /// The whole fleet, empty and up, would not hold it.
    NeverFits,
    /// Fits an empty fleet, but not what is free now.
    Busy,
    /// Enough capacity, but not within the RTT bound or topology domain.
    Network,
    /// The tenant's quota is used up.
    Quota,
    /// Plans went stale again and again; tried again later.
    Contention,
    Cancelled,
    Finished,
    /// A replica failed more often than allowed.
    ReplicaFailed,
    DurationOver,
    /// No node of the fleet, empty and up, could hold one replica of some group.
    NoSuchPool,
    /// Fits, but nodes are down or cordoned.
    NotReady,
    /// Fits but for the bound on the price.
    Budget,
    /// It is not to begin yet.
    Begin,
    /// Could not be started in time for its deadline, or ran until then.
    Deadline,
    /// A job of a higher priority took its GPUs.
    Preempted,
}

/// An accepted change of a group's number of replicas, remembered so that its request id is not
/// followed twice.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Scaling {
    pub request_id: Arc<str>,
    /// Index in the spec.
    pub group: u16,
    pub replicas: u32,
    /// Replicas that the caller said there were.
    pub expected: Option<u32>,
    /// Replicas that there were.
    pub before: u32,
}

/// A job as the state holds it; its replicas are kept in pages beside it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Job {
    pub id: JobId,
    pub tenant: TenantId,
    pub request_id: Arc<str>,
    /// Digest of the request's body: the same request id with another body is refused.
    pub body_digest: u128,
    pub spec: Arc<JobSpec>,
    pub phase: JobPhase,
    pub reason: Reason,
    pub submitted_at: TimeMs,
    pub placed_at: Option<TimeMs>,
    pub ready_at: Option<TimeMs>,
    pub ended_at: Option<TimeMs>,
    /// Log index of the last change, for resumable watches.
    pub modified_index: u64,
    /// Distinguishes this job's replicas for its agents' processes; made by the proposer.
    pub token: u128,
    /// Times that jobs of a higher priority took some or all of its replicas' GPUs; saturates.
    pub preemptions: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_cut_between_letters() {
        let long = format!("{}\u{e9}t\u{e9}", "a".repeat(REASON_BYTES_MAX - 1));
        let reason = Reason::new(ReasonCode::Busy, long);
        assert_eq!(&*reason.message, "a".repeat(REASON_BYTES_MAX - 1));
        assert_eq!(
            &*Reason::new(ReasonCode::Busy, "\u{e9}t\u{e9}".into()).message,
            "\u{e9}t\u{e9}"
        );
    }
}
