//! Commands: what the consensus log asks of the state, and what came of it.
//!
//! **Invariant:** a command carries results, never instructions to compute: plans are explicit,
//! time comes with the entry, and nothing here is a float.

use crate::id::{AssignmentId, Epoch, JobId, Name, NodeId, Rank, SupplierId, TenantId};
use crate::job::{JobSpec, Priority, Reason};
use crate::node::{NodeSpec, NodeStatus};
use crate::topology::Coordinate;
use crate::unit::{GpuSet, RttUs, TimeMs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// On whose behalf an entry was proposed; checked against ownership inside `apply`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Actor {
    /// The scheduler itself: duties, plans, reports relayed from authenticated sessions.
    System,
    Operator,
    Supplier(SupplierId),
    Tenant(TenantId),
}

/// One decision of the consensus log. A log record carries one or more; each stands for itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// Clock of the proposing leader. The state's own time never runs backwards.
    pub at: TimeMs,
    pub by: Actor,
    pub command: Command,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Command {
    /// First registration or re-join of a node. Gives a new session epoch.
    RegisterNode(RegisterNode),
    /// Changes what people may change on a node.
    SetEligibility {
        node: NodeId,
        eligibility: crate::node::Eligibility,
    },
    /// Liveness transitions found by the leader; all or nothing is not needed: unknown or older
    /// epochs are skipped, the rest is done.
    NodeStatuses(Vec<NodeTransition>),
    /// Forgets a node. Refused while it holds live replicas, unless `force`.
    RemoveNode {
        node: NodeId,
        force: bool,
    },
    /// Round-trip times between sites, both directions the same; later ones replace earlier ones.
    /// All or nothing.
    SetSiteRtts(Vec<SiteRtt>),
    /// Accepts a job: placed at once where `plan` is given, with what it takes from others; pending
    /// otherwise.
    Submit(Submit),
    /// Binds waiting replicas of an existing job: pending jobs and repairs.
    Commit(Commit),
    /// Says why a job still waits (kept for people; changes nothing else).
    SetReason {
        job: JobId,
        reason: Reason,
    },
    /// What agents saw of their replicas, relayed in batches.
    Report(Vec<ReplicaReport>),
    /// Ends a job and releases all it holds.
    Cancel {
        job: JobId,
        reason: Reason,
    },
    /// Ends jobs whose duration is over or whose deadline has come, and forgets ended jobs past their retention, as of `at`.
    Expire {
        jobs: Vec<JobId>,
        forget: Vec<JobId>,
    },
    PutTenant(PutTenant),
    /// Refused while the tenant has jobs that are not over.
    RemoveTenant {
        tenant: TenantId,
    },
    /// Where sites lie in the space in which distance stands for RTT; for pairs that nobody
    /// measured. All or nothing.
    SetSiteCoordinates(Vec<SiteCoordinate>),
    /// Asks for another number of replicas of one group of a job that is not over.
    Scale(Scale),
    /// Binds a whole pending job to what it takes from running jobs of lower priorities, who go
    /// back to the queue or lose spare replicas. All or nothing.
    Preempt(Preempt),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct RegisterNode {
    pub supplier: SupplierId,
    pub spec: NodeSpec,
    /// Digest of the agent's own secret.
    pub key_digest: [u8; 32],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NodeTransition {
    pub node: NodeId,
    /// Only a node still in this epoch is changed.
    pub epoch: Epoch,
    pub status: NodeStatus,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SiteRtt {
    pub a: Name,
    pub b: Name,
    /// The usual RTT, the median.
    pub rtt: RttUs,
    /// What the RTT rarely exceeds; at least the median. Bounds are held against it.
    pub rtt_high: RttUs,
    /// Round trips measured; 0 = told by an operator.
    pub samples: u32,
}

impl SiteRtt {
    /// What an operator says who knows no more than one figure.
    pub fn told(a: Name, b: Name, rtt: RttUs) -> Self {
        Self { a, b, rtt, rtt_high: rtt, samples: 0 }
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct SiteCoordinate {
    pub site: Name,
    /// `None` takes away what was set before.
    pub coordinate: Option<Coordinate>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Submit {
    pub tenant: TenantId,
    /// At most one job per (tenant, request id) for as long as the job is remembered.
    pub request_id: Arc<str>,
    /// Digest of the request's canonical body.
    pub body_digest: u128,
    pub spec: Arc<JobSpec>,
    pub token: u128,
    pub plan: Option<Plan>,
    /// Whose GPUs the plan takes, by rising job; nobody's without a plan.
    pub victims: Vec<Victim>,
    /// Why it waits, when there is no plan.
    pub reason: Reason,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Commit {
    pub job: JobId,
    pub plan: Plan,
}

/// A plan for a pending job, and whose GPUs it takes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Preempt {
    pub job: JobId,
    pub plan: Plan,
    /// By rising job, at least one.
    pub victims: Vec<Victim>,
}

/// A running job that loses what it holds, or some of it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Victim {
    pub job: JobId,
    /// By rising rank; empty = all: the whole job waits again.
    pub ranks: Vec<Rank>,
}

/// Another number of replicas of one group. What runs and stays is not touched.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Scale {
    pub job: JobId,
    /// Name of the group.
    pub group: Name,
    /// The group's minimum to its maximum.
    pub replicas: u32,
    /// Refused unless the group asks for exactly so many now.
    pub expected: Option<u32>,
    /// Followed at most once for as long as it is among the job's latest.
    pub request_id: Arc<str>,
}

/// All new allocations of one job, by rising rank.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    pub placements: Vec<Placement>,
}

/// One replica on exact GPUs of one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Placement {
    pub rank: Rank,
    pub node: NodeId,
    /// The node's session epoch that the planner saw; another one makes the plan stale.
    pub node_epoch: Epoch,
    pub gpus: GpuSet,
    /// 0 = whole GPUs; else thousandths of the one GPU in `gpus`.
    pub share_milli: u16,
}

/// What an agent says of one assignment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ReplicaReport {
    pub job: JobId,
    pub rank: Rank,
    pub assignment: AssignmentId,
    /// The reporting node, from its authenticated session.
    pub node: NodeId,
    pub observed: Observed,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Observed {
    Starting,
    Ready,
    /// Exit code 0.
    Succeeded,
    /// Exit code or signal other than 0; or it could not be started.
    Failed {
        exit_code: i32,
    },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PutTenant {
    pub tenant: TenantId,
    pub quota: Quota,
}

/// Upper bounds on what a tenant may hold and ask for; `u64::MAX`/`u32::MAX` = no bound.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Quota {
    /// Thousandths of GPUs held by live replicas.
    pub gpu_milli_max: u64,
    /// Jobs that wait.
    pub pending_jobs_max: u32,
    /// Priority of a job. Tenants do not trust each other: nobody goes before others of its own
    /// accord, and everybody may let others go first.
    pub priority_max: Priority,
}

impl Default for Quota {
    fn default() -> Self {
        let priority_max = Priority::default();
        Self { gpu_milli_max: u64::MAX, pending_jobs_max: 10_000, priority_max }
    }
}

/// What `apply` made of an accepted command.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Outcome {
    /// The node's id and its new session epoch.
    Registered { node: NodeId, epoch: Epoch },
    /// `known`: the same request was accepted before; this is its job.
    Submitted { job: JobId, known: bool, placed: bool },
    /// How many reports changed something; the others were stale.
    Reported { changed: u32, stale: u32 },
    /// Anything else that has nothing more to say. `changed` is false for a repeat.
    Done { changed: bool },
    /// The group had `before` replicas. `known`: the same request was followed before; nothing
    /// changed now.
    Scaled { before: u32, known: bool },
}

/// A deterministic refusal; the state is bit-identical to before.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Rejection {
    #[error("{field} {problem}")]
    Invalid { field: String, problem: String },
    #[error("{what} {id} does not exist")]
    NotFound { what: Kind, id: String },
    #[error("not allowed: {why}")]
    Forbidden { why: String },
    #[error("request id {request_id} was used before with another body, for job {job}")]
    RequestIdReused { request_id: String, job: JobId },
    #[error("the plan is stale: {why}")]
    StalePlan { why: Stale },
    #[error("quota of tenant {tenant}: {why}")]
    QuotaExceeded { tenant: TenantId, why: String },
    #[error("{what} limit of {limit} reached")]
    LimitReached { what: String, limit: u64 },
    #[error("{what}")]
    Precondition { what: String },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Kind {
    Node,
    Job,
    Tenant,
    Site,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Job => "job",
            Self::Tenant => "tenant",
            Self::Site => "site",
        })
    }
}

/// Which check of a plan failed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Stale {
    #[error("{node} does not exist")]
    NodeGone { node: NodeId },
    #[error("{node} is not schedulable")]
    NodeUnschedulable { node: NodeId },
    #[error("{node} has a newer session")]
    NodeEpoch { node: NodeId },
    #[error("a GPU of {node} is taken or does not exist")]
    GpuTaken { node: NodeId },
    #[error("{node} has too little CPU, memory, disk or countable resources left")]
    NodeFull { node: NodeId },
    #[error("{node} does not satisfy rank {rank}")]
    DoesNotFit { node: NodeId, rank: Rank },
    #[error("rank {rank} is not waiting")]
    RankNotWaiting { rank: Rank },
    #[error("group {group} would have {placed} replicas, fewer than its minimum of {min}")]
    BelowMinimum { group: u16, placed: u32, min: u32 },
    #[error("the placements break the job's strategy, topology or RTT bound")]
    BreaksConstraint,
    #[error("placements are not in rising order of rank, or empty")]
    Malformed,
    #[error("the job is not to begin before {}", begin.0)]
    TooEarly { begin: TimeMs },
    #[error("after {} the job has too little time until its deadline", start_by.0)]
    TooLate { start_by: TimeMs },
    #[error("{job} cannot be preempted: {why}")]
    NoVictim { job: JobId, why: Spared },
}

/// Why a job is no victim of another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum Spared {
    #[error("it does not exist")]
    Gone,
    #[error("it holds nothing")]
    HoldsNothing,
    #[error("its priority is not lower")]
    Priority,
    #[error("it does not let others disrupt it")]
    Disruption,
    #[error("a rank is not live, or not of those it can spare")]
    Needed,
    #[error("the job wishes to be near to or apart from it")]
    Related,
}
