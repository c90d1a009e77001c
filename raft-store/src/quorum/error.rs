//! Why the quorum did not do what was asked.
//!
//! **Invariant:** a variant tells a caller what to do next: ask another server, try again, or give
//! up; a time-out or a lost leadership means "unknown", never "did not happen".

use super::member::Member;

/// Refusal or failure of a request to the quorum.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuorumError {
    /// This server does not lead; ask that one. Nothing was proposed.
    #[error("{}", not_leader(leader.as_ref()))]
    NotLeader {
        /// The leader, when one is known.
        leader: Option<Member>,
    },
    /// No majority answers at the moment, an election is running, or leadership was lost while
    /// the request was on its way (then its outcome is unknown): try again with the same
    /// request id.
    #[error("the quorum is not available: {0}")]
    Unavailable(String),
    /// Not done in time; it may still happen.
    #[error("no answer from the quorum in time; the outcome is unknown")]
    Timeout,
    /// The proposal is over a limit.
    #[error("{what} is {value}, the limit is {limit}")]
    TooLarge {
        /// What is over its limit, with its unit: "record in bytes".
        what: &'static str,
        value: u64,
        limit: u64,
    },
    /// The change of members makes no sense or cannot be made now.
    #[error("{0}")]
    Membership(String),
    /// This server's store has failed or was stopped; the process must be started again.
    #[error("this server has stopped: {0}")]
    Fatal(String),
    /// The proposal could not be turned into bytes.
    #[error("cannot encode the proposal: {0}")]
    Encode(String),
}

fn not_leader(leader: Option<&Member>) -> String {
    match leader {
        Some(member) => {
            format!("not the leader; server {} at {} is", member.id, member.api_address)
        }
        None => "not the leader; none is known at the moment".to_owned(),
    }
}
