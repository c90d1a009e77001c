//! Who the servers are and how they stand: ids, members, roles, the status of one server.
//!
//! **Invariant:** plain values; nothing here reads the log or the state.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Number of one server. Never given a second time: a server that lost its disk comes back under
/// a new number, as a learner.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, Default,
)]
pub struct ServerId(pub u64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u64> for ServerId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

/// One server of the quorum as the others know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: ServerId,
    /// `host:port` where it talks to the other servers.
    pub peer_address: String,
    /// `host:port` where it serves gateways, agents and operators.
    pub api_address: String,
    /// Whether it counts for the majority; else it is a learner that only copies.
    pub voter: bool,
}

/// What a server is doing at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Copies the log without a vote.
    Learner,
    Follower,
    /// Asks for votes.
    Candidate,
    Leader,
    /// Stopped, by request or after a storage fault; it will not come back in this process.
    Stopped,
}

/// How one server stands. Indexes are 0 while there is nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub server: ServerId,
    pub role: Role,
    pub term: u64,
    /// The leader this server follows (itself when it leads); `None` while electing.
    pub leader: Option<Member>,
    /// Last record of the local log.
    pub last_log_index: u64,
    /// Last record known to be on a majority.
    pub committed_index: u64,
    /// Last record whose effects the local state shows.
    pub applied_index: u64,
    /// Last record covered by the newest durable snapshot.
    pub snapshot_index: u64,
    /// Last record deleted from the log.
    pub purged_index: u64,
    /// All members by id, voters and learners.
    pub members: Vec<Member>,
    /// While leading: how far each other member is.
    pub peers: Vec<PeerLag>,
    /// While leading: milliseconds since a majority last confirmed it.
    pub quorum_ack_age_ms: Option<u64>,
    /// Why it stopped, when it stopped by a fault.
    pub fault: Option<String>,
}

impl Status {
    /// Whether this server leads as far as it knows.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// The member entry of a server.
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }
}

/// How far one member is, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerLag {
    pub id: ServerId,
    /// Last record the member is known to hold; 0 while unknown.
    pub matched_index: u64,
    /// Records of the leader's log that the member does not hold yet.
    pub lag: u64,
    /// Milliseconds since it last answered; `None` while it never has.
    pub last_ack_ms: Option<u64>,
}
