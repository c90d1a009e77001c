//! Changes of members and of leadership, and snapshots on demand.
//!
//! **Invariant:** one step at a time and only ever through the log; a server that is to vote has
//! caught up first; the last voter stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};

use super::member::{Member, ServerId, Status};
use super::{Quorum, QuorumError};
use crate::raft::types::{Address, Types};

/// A learner this many records behind may be promoted: it catches up within an election time.
const PROMOTE_LAG_MAX: u64 = 1000;
/// How long a promotion waits for the learner to come that close.
const PROMOTE_PATIENCE: Duration = Duration::from_secs(30);
/// A change of members needs two rounds and a leader.
const CHANGE_PATIENCE: Duration = Duration::from_secs(30);
/// A hand-over that is not done within this many longest election times has failed.
const TRANSFER_PATIENCE: u32 = 4;
/// Building a snapshot of the largest state takes seconds.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(120);
/// How often progress is looked at while nothing announces it.
const LOOK_EVERY: Duration = Duration::from_millis(20);

type Changed =
    Result<openraft::raft::ClientWriteResponse<Types>, RaftError<Types, ClientWriteError<Types>>>;

/// Members.
impl Quorum {
    /// Adds a server that copies the log without a vote.
    pub async fn add_learner(&self, member: Member) -> Result<(), QuorumError> {
        let status = self.leading().await?;
        if let Some(known) = status.member(member.id) {
            let same = (&known.peer_address, &known.api_address)
                == (&member.peer_address, &member.api_address);
            return match same {
                true => Ok(()),
                false => Err(QuorumError::Membership(format!(
                    "server {} is a member at {}; remove it first, and give a server that lost \
                     its disk a new number",
                    known.id, known.peer_address
                ))),
            };
        }
        let nodes = BTreeMap::from([(member.id.0, Address::of(&member))]);
        self.change(ChangeMembers::AddNodes(nodes)).await
    }

    /// Gives a learner a vote once it has caught up.
    pub async fn promote(&self, id: ServerId) -> Result<(), QuorumError> {
        let status = self.leading().await?;
        match status.member(id) {
            None => {
                let text = format!("server {id} is no member; add it as a learner first");
                return Err(QuorumError::Membership(text));
            }
            Some(member) if member.voter => return Ok(()),
            Some(_) => self.wait_caught_up(id).await?,
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id.0]))).await
    }

    /// Removes a server. When the leader removes itself it hands over afterwards.
    pub async fn remove(&self, id: ServerId) -> Result<(), QuorumError> {
        let status = self.leading().await?;
        let voters = status.members.iter().filter(|member| member.voter).count();
        match status.member(id) {
            None => Ok(()),
            Some(member) if member.voter && voters == 1 => {
                Err(QuorumError::Membership(format!("server {id} is the last voter")))
            }
            Some(member) if member.voter => {
                self.change(ChangeMembers::RemoveVoters(BTreeSet::from([id.0]))).await
            }
            Some(_) => self.change(ChangeMembers::RemoveNodes(BTreeSet::from([id.0]))).await,
        }
    }

    async fn change(&self, change: ChangeMembers<u64, Address>) -> Result<(), QuorumError> {
        let changed = self.inner.raft.change_membership(change, false);
        match tokio::time::timeout(CHANGE_PATIENCE, changed).await {
            Ok(result) => self.changed(result),
            Err(_) => Err(QuorumError::Timeout),
        }
    }

    fn changed(&self, result: Changed) -> Result<(), QuorumError> {
        match result {
            Ok(_) => Ok(()),
            Err(RaftError::Fatal(fatal)) => Err(self.inner.fatal(fatal)),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => {
                Err(QuorumError::NotLeader { leader: self.status().leader })
            }
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                let text = "leadership was lost during the change; look before trying again";
                Err(QuorumError::Unavailable(text.to_owned()))
            }
            Err(RaftError::APIError(other)) => Err(QuorumError::Membership(other.to_string())),
        }
    }

    /// The status of a confirmed leader.
    async fn leading(&self) -> Result<Status, QuorumError> {
        self.read_index().await?;
        Ok(self.status())
    }

    async fn wait_caught_up(&self, id: ServerId) -> Result<(), QuorumError> {
        let behind = |status: &Status| {
            let peer = status.peers.iter().find(|peer| peer.id == id);
            peer.filter(|peer| peer.matched_index > 0).map(|peer| peer.lag)
        };
        let near = |status: &Status| behind(status).is_some_and(|lag| lag <= PROMOTE_LAG_MAX);
        let status = self.wait_for(PROMOTE_PATIENCE, |s| near(s) || !s.is_leader()).await;
        match status {
            Ok(status) if status.is_leader() => Ok(()),
            Ok(status) => Err(QuorumError::NotLeader { leader: status.leader }),
            Err(_) => Err(QuorumError::Membership(match behind(&self.status()) {
                Some(lag) => format!("server {id} is {lag} records behind, too many for a vote"),
                None => format!("server {id} does not answer"),
            })),
        }
    }

    /// Waits for a condition on the status.
    async fn wait_for(
        &self,
        patience: Duration,
        done: impl Fn(&Status) -> bool,
    ) -> Result<Status, QuorumError> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut metrics = self.inner.raft.metrics();
        loop {
            let status = self.status();
            if done(&status) {
                return Ok(status);
            }
            if tokio::time::Instant::now() >= deadline {
                return Err(QuorumError::Timeout);
            }
            // Not every figure announces its changes.
            let look_again = tokio::time::timeout(LOOK_EVERY, metrics.changed());
            if let Ok(Err(_)) = look_again.await {
                return Err(QuorumError::Fatal("stopped".to_owned()));
            }
        }
    }
}

/// Leadership and snapshots.
impl Quorum {
    /// Hands leadership to a voter, by default to the one that is furthest; returns when another
    /// server leads.
    pub async fn transfer_leader(&self, to: Option<ServerId>) -> Result<(), QuorumError> {
        let status = self.leading().await?;
        let own = self.inner.server;
        let votes = |id| status.member(id).is_some_and(|member| member.voter);
        let to = match to {
            Some(to) if to == own => return Ok(()),
            Some(to) if !votes(to) => {
                return Err(QuorumError::Membership(format!("server {to} has no vote")));
            }
            Some(to) => to,
            None => {
                let candidates = status.peers.iter().filter(|peer| votes(peer.id));
                let best = candidates.max_by_key(|peer| (peer.matched_index, peer.id));
                let alone = || QuorumError::Membership("there is no other voter".to_owned());
                best.ok_or_else(alone)?.id
            }
        };
        let triggered = self.inner.raft.trigger().transfer_leader(to.0).await;
        triggered.map_err(|fatal| self.inner.fatal(fatal))?;
        let moved = |status: &Status| status.leader.as_ref().is_some_and(|it| it.id != own);
        self.wait_for(self.inner.election_ms_max * TRANSFER_PATIENCE, moved).await.map(drop)
    }

    /// Takes a snapshot of everything applied by now; returns when it is durable.
    pub async fn snapshot_now(&self) -> Result<(), QuorumError> {
        let wanted = self.status().applied_index;
        let triggered = self.inner.raft.trigger().snapshot().await;
        triggered.map_err(|fatal| self.inner.fatal(fatal))?;
        self.wait_for(SNAPSHOT_PATIENCE, |status| status.snapshot_index >= wanted).await.map(drop)
    }
}

/// The list a cluster is founded with.
pub(super) fn check_founders(members: &[Member], own: ServerId) -> Result<(), QuorumError> {
    let refuse = |text: String| Err(QuorumError::Membership(text));
    let ids: BTreeSet<ServerId> = members.iter().map(|member| member.id).collect();
    if ids.len() != members.len() {
        return refuse("two members have the same id".to_owned());
    }
    let addresses: BTreeSet<&str> =
        members.iter().map(|member| member.peer_address.as_str()).collect();
    if addresses.len() != members.len() {
        return refuse("two members have the same peer address".to_owned());
    }
    if !ids.contains(&own) {
        return refuse(format!("server {own} is not among the members"));
    }
    match members.iter().find(|member| !member.voter) {
        Some(member) => refuse(format!("server {}: a cluster is founded by voters", member.id)),
        None => Ok(()),
    }
}
