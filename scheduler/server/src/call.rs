//! Calls that only the leader can answer, their answers, and how both look on the wire.
//!
//! **Invariant:** plain values. The bytes are a contract between servers of one cluster: a format
//! byte, then postcard; variants are only ever added at the end.

use crate::session::{Digest, DigestReply, JoinCall, Joined};
use bytes::Bytes;
use raft_store::{Member, ServerId};
use scheduler_core::command::{Command, Entry, Outcome, Plan, Rejection};
use scheduler_core::duty::office::{self, Submission};
use scheduler_core::duty::probes::Probe;
use scheduler_core::id::{JobId, TenantId};
use scheduler_core::job::{JobSpec, Reason};
use scheduler_core::plan::Verdict;
use scheduler_core::plan::explain::{Change, Taken};
use scheduler_core::plan::quote::Quote;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// First byte of every forwarded call and answer; another one is refused.
const FORMAT: u8 = 5;

/// What a server asks of the leader, itself or another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeaderCall {
    /// Plain proposals that need no planning. The leader puts its own clock into the entries.
    Propose(Vec<Entry>),
    /// Jobs to accept; each stands for itself.
    Submit(Arc<Vec<Submission>>),
    /// Where a job would go now; changes nothing.
    Plan(PlanCall),
    /// The point up to which a server must have applied for a linearizable read.
    ReadIndex,
    /// An agent asks to join.
    Join(Box<JoinCall>),
    /// Which agents were heard on a server.
    Digest(Digest),
    /// A change of the quorum itself.
    Membership(MembershipCall),
    /// Why a job does not fit, and what would help; changes nothing.
    Explain(ExplainCall),
    /// Round trips that agents measured.
    Probed(Vec<Probe>),
}

/// One job to plan for, without consequences.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PlanCall {
    pub tenant: TenantId,
    pub spec: Arc<JobSpec>,
    /// Whether to look for what would help, if it does not fit.
    pub with_helps: bool,
}

/// A job to explain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExplainCall {
    /// The job's tenant.
    pub tenant: TenantId,
    pub target: ExplainTarget,
}

/// What is to be explained.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ExplainTarget {
    /// A job that was submitted.
    Job(JobId),
    /// One that was not.
    Spec(Arc<JobSpec>),
}

/// A change of the quorum itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum MembershipCall {
    AddLearner(Member),
    Promote(ServerId),
    Remove(ServerId),
    /// To this voter, or to the one with the most of the log.
    Transfer(Option<ServerId>),
}

impl LeaderCall {
    /// Whether doing it twice is as good as doing it once, so that it may be sent again after an
    /// answer was lost.
    pub fn is_repeatable(&self) -> bool {
        match self {
            Self::Propose(entries) => entries.iter().all(|entry| {
                // A second removal finds nothing and would report a failure that was a success.
                !matches!(entry.command, Command::RemoveNode { .. } | Command::RemoveTenant { .. })
            }),
            // Deduplicated by request id, or changing nothing, or (a join) made new each time.
            Self::Submit(_)
            | Self::Plan(_)
            | Self::Explain(_)
            | Self::ReadIndex
            | Self::Join(_)
            | Self::Digest(_)
            | Self::Probed(_) => true,
            Self::Membership(_) => false,
        }
    }
}

/// The leader's answer, of the variant that belongs to the call.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum LeaderReply {
    Proposed {
        /// Log index at which the entries were applied.
        index: u64,
        /// One result per entry, in order.
        results: Vec<Result<Outcome, Rejection>>,
    },
    /// One result per job, in order.
    Submitted(Vec<Result<Accepted, CallError>>),
    Planned(Box<Planned>),
    Index(u64),
    Joined(Joined),
    /// A digest was taken in; whose leases are extended by it, and whose are not.
    Heard(DigestReply),
    /// Membership changed; the leader after it, where it is known.
    Changed {
        leader: Option<ServerId>,
    },
    Explained(Box<Explained>),
    /// What was told was taken in.
    Noted,
}

/// A job accepted, and what its commit took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Accepted {
    pub decided: office::Accepted,
    /// Time from proposal to applied; 0 for a known one.
    pub commit_us: u64,
}

/// What a dry run found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Planned {
    /// Log index of the state it was computed against.
    pub index: u64,
    pub decide_us: u64,
    pub verdict: Result<Offer, NoPlan>,
}

/// A plan, and what it amounts to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    pub plan: Plan,
    pub digest: u128,
    pub quote: Quote,
    /// What running jobs would lose to it.
    pub taken: Option<Taken>,
}

/// What became of a request to explain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explained {
    /// Log index of the state it was computed against.
    pub index: u64,
    pub decide_us: u64,
    /// Replicas that wait for a node; without any there is nothing to explain.
    pub waiting: u32,
    pub why: Option<NoPlan>,
}

/// Why there is no plan, in numbers, and what would help.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NoPlan {
    /// `None` = it fits now.
    pub verdict: Option<Verdict>,
    pub reason: Reason,
    pub nodes_total: u32,
    /// Index in the spec of the group that is hardest to place.
    pub hardest: usize,
    pub groups: Vec<GroupNoPlan>,
    /// Changes that help, and whether each is the least that does.
    pub helps: Vec<(Change, bool)>,
    pub is_cut_short: bool,
}

/// What keeps the nodes of the fleet from serving one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupNoPlan {
    /// Index in the spec.
    pub group: usize,
    /// Nodes by cause; the counts add up to `nodes_total`.
    pub causes: Vec<(String, u32)>,
    /// Replicas that could be placed now, the group by itself.
    pub placeable: u32,
    pub wanted: u32,
}

/// Why a call to the leader failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum CallError {
    /// Nothing was done here; ask that server.
    #[error("not the leader")]
    NotLeader { leader: Option<Member> },
    /// Surely not done; worth another try.
    #[error("the quorum is not available: {why}")]
    Unavailable { why: String },
    /// It may or may not have happened.
    #[error("the outcome is unknown: {why}")]
    Unknown { why: String },
    #[error("not done in time; the outcome is unknown")]
    Timeout,
    /// A queue is full.
    #[error("too much is waiting; try again in {retry_ms} ms")]
    Busy { retry_ms: u64 },
    /// The state refused it.
    #[error(transparent)]
    Rejected(Rejection),
    /// The agent may not join now: another process with its key holds a lease.
    #[error("{why}")]
    Held { why: String, retry_ms: u64 },
    /// A change of the quorum that cannot be made.
    #[error("{why}")]
    Membership { why: String },
    /// Larger than the log takes.
    #[error("{what} is {value}; at most {limit} are allowed")]
    TooLarge { what: String, value: u64, limit: u64 },
    /// This server or the called one cannot go on.
    #[error("{why}")]
    Internal { why: String },
    /// The plan that was meant is not what would be done now; nothing was done.
    #[error("nothing was placed: {why}; the state is now at index {index}")]
    PlanChanged { why: String, index: u64 },
}

impl From<Rejection> for CallError {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Turns a call or an answer into bytes.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Bytes, CallError> {
    postcard::to_extend(value, vec![FORMAT])
        .map(Bytes::from)
        .map_err(|error| CallError::Internal { why: format!("cannot encode a call: {error}") })
}

/// Reads what [`encode`] wrote; never panics, whatever the bytes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CallError> {
    let refuse = |why: String| CallError::Internal { why };
    match bytes.split_first() {
        Some((&FORMAT, body)) => postcard::from_bytes(body)
            .map_err(|error| refuse(format!("cannot read a forwarded call: {error}"))),
        Some((other, _)) => {
            Err(refuse(format!("a forwarded call has format {other}, this server reads {FORMAT}")))
        }
        None => Err(refuse("a forwarded call is empty".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_a_contract() {
        let call = LeaderCall::ReadIndex;
        assert_eq!(encode(&call).expect("encodes").as_ref(), [5, 3]);
        let error: Result<LeaderReply, CallError> = Err(CallError::Busy { retry_ms: 5 });
        assert_eq!(encode(&error).expect("encodes").as_ref(), [5, 1, 4, 5]);
    }

    #[test]
    fn garbage_is_refused() {
        for bytes in [&[][..], &[0], &[4, 3], &[5], &[5, 200, 1, 1], &[5, 0, 255, 255, 255, 255]] {
            assert!(decode::<LeaderCall>(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn only_calls_that_may_be_done_twice_are_repeatable() {
        let entry = |command| Entry {
            at: scheduler_core::unit::TimeMs(0),
            by: scheduler_core::command::Actor::Operator,
            command,
        };
        let node = scheduler_core::id::NodeId(1);
        let cancel = entry(Command::Cancel { job: JobId(1), reason: Reason::default() });
        let remove = entry(Command::RemoveNode { node, force: false });
        assert!(LeaderCall::Propose(vec![cancel.clone()]).is_repeatable());
        assert!(!LeaderCall::Propose(vec![cancel, remove]).is_repeatable());
        assert!(!LeaderCall::Membership(MembershipCall::Promote(ServerId(2))).is_repeatable());
    }
}
