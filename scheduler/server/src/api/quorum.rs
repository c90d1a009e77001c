//! `QuorumService`: how the servers stand, and changes of who belongs to them.
//!
//! **Invariant:** operators only, which the gate has settled. Status and snapshot are about the
//! called server; everything else is done by the leader.

use super::{WRITE_TIME, odd_answer, time_left};
use crate::app::Context;
use crate::clock;
use crate::config::is_address;
use crate::forward::{LeaderCall, LeaderReply, MembershipCall};
use crate::status;
use proto::v1;
use proto::v1::quorum_service_server::{QuorumService, QuorumServiceServer};
use raft_store::{Member, Role, ServerId};
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Largest message; the longest is two addresses.
const REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Deadline of a change whose caller names none: a new server may have to copy everything first.
const CHANGE_TIME: Duration = Duration::from_secs(60);

/// Serves the quorum's own affairs.
pub struct QuorumApi {
    context: Context,
}

impl QuorumApi {
    /// The service with its size limits set.
    pub fn service(context: Context) -> QuorumServiceServer<Self> {
        QuorumServiceServer::new(Self { context }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// Has the leader change the quorum; the leader after it.
    async fn change<T>(
        &self,
        request: &Request<T>,
        default: Duration,
        change: MembershipCall,
    ) -> Result<Option<ServerId>, Status> {
        let deadline = clock::deadline(time_left(request, default));
        tracing::info!(?change, "the quorum is asked to change");
        let answer = self.context.router.call(LeaderCall::Membership(change), deadline).await;
        match answer.map_err(|error| status::from_call(&error))? {
            LeaderReply::Changed { leader } => Ok(leader),
            other => Err(odd_answer(&other)),
        }
    }
}

fn server_id(id: u64) -> Result<ServerId, Status> {
    match id {
        0 => Err(status::bad_field("server_id", "is 0; numbers start at 1")),
        id => Ok(ServerId(id)),
    }
}

fn address(field: &str, text: &str) -> Result<String, Status> {
    if is_address(text) {
        return Ok(text.to_owned());
    }
    Err(status::bad_field(field, "is not host:port, as in s1.example.org:7070"))
}

fn role(role: Role) -> v1::ServerRole {
    match role {
        Role::Leader => v1::ServerRole::Leader,
        Role::Follower => v1::ServerRole::Follower,
        Role::Candidate => v1::ServerRole::Candidate,
        Role::Learner => v1::ServerRole::Learner,
        Role::Stopped => v1::ServerRole::Unspecified,
    }
}

fn server(standing: &raft_store::Status, member: &Member) -> v1::ServerStatus {
    let mut shown = v1::ServerStatus {
        server_id: member.id.0,
        peer_address: member.peer_address.clone(),
        api_address: member.api_address.clone(),
        voter: member.voter,
        ..v1::ServerStatus::default()
    };
    if member.id == standing.server && standing.is_leader() {
        shown.matched_index = standing.last_log_index;
    } else if let Some(peer) = standing.peers.iter().find(|peer| peer.id == member.id) {
        shown.matched_index = peer.matched_index;
        shown.lag = peer.lag;
        shown.last_contact_ms = peer.last_ack_ms.unwrap_or(0);
    }
    shown
}

#[tonic::async_trait]
impl QuorumService for QuorumApi {
    async fn get_quorum_status(
        &self,
        request: Request<v1::GetQuorumStatusRequest>,
    ) -> Result<Response<v1::GetQuorumStatusResponse>, Status> {
        let quorum = &self.context.quorum;
        let (mut state_hash, mut state_hash_index) = (String::new(), 0);
        if request.into_inner().with_state_hash {
            let hashing = quorum.clone();
            let hash = tokio::task::spawn_blocking(move || hashing.state_hash()).await;
            let (index, hash) = hash.map_err(|error| status::internal(&error.to_string()))?;
            (state_hash, state_hash_index) = (format!("{hash:032x}"), index);
        }
        let standing = quorum.status();
        let sessions = self.context.sessions.sessions();
        Ok(Response::new(v1::GetQuorumStatusResponse {
            server_id: standing.server.0,
            cluster_id: self.context.config.cluster.id.to_string(),
            role: role(standing.role).into(),
            term: standing.term,
            leader_id: standing.leader.as_ref().map_or(0, |member| member.id.0),
            last_log_index: standing.last_log_index,
            committed_index: standing.committed_index,
            applied_index: standing.applied_index,
            snapshot_index: standing.snapshot_index,
            servers: standing.members.iter().map(|one| server(&standing, one)).collect(),
            state_hash,
            state_hash_index,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log_bytes: quorum.store_stats().log.bytes_on_disk,
            sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
        }))
    }

    async fn add_learner(
        &self,
        request: Request<v1::AddLearnerRequest>,
    ) -> Result<Response<v1::AddLearnerResponse>, Status> {
        let asked = request.get_ref();
        let member = Member {
            id: server_id(asked.server_id)?,
            peer_address: address("peer_address", &asked.peer_address)?,
            api_address: address("api_address", &asked.api_address)?,
            voter: false,
        };
        self.change(&request, CHANGE_TIME, MembershipCall::AddLearner(member)).await?;
        Ok(Response::new(v1::AddLearnerResponse {}))
    }

    async fn promote_server(
        &self,
        request: Request<v1::PromoteServerRequest>,
    ) -> Result<Response<v1::PromoteServerResponse>, Status> {
        let id = server_id(request.get_ref().server_id)?;
        self.change(&request, CHANGE_TIME, MembershipCall::Promote(id)).await?;
        Ok(Response::new(v1::PromoteServerResponse {}))
    }

    async fn remove_server(
        &self,
        request: Request<v1::RemoveServerRequest>,
    ) -> Result<Response<v1::RemoveServerResponse>, Status> {
        let id = server_id(request.get_ref().server_id)?;
        self.change(&request, CHANGE_TIME, MembershipCall::Remove(id)).await?;
        Ok(Response::new(v1::RemoveServerResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let to = match request.get_ref().server_id {
            0 => None,
            id => Some(ServerId(id)),
        };
        let leader = self.change(&request, WRITE_TIME, MembershipCall::Transfer(to)).await?;
        let leader_id = leader.map_or(0, |id| id.0);
        Ok(Response::new(v1::TransferLeaderResponse { leader_id }))
    }

    async fn take_snapshot(
        &self,
        request: Request<v1::TakeSnapshotRequest>,
    ) -> Result<Response<v1::TakeSnapshotResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, CHANGE_TIME));
        let quorum = &self.context.quorum;
        let taken = tokio::time::timeout_at(deadline, quorum.snapshot_now()).await;
        let failed = |error| status::from_call(&status::quorum_to_call(error));
        match taken {
            Ok(taken) => taken.map_err(failed)?,
            Err(_) => return Err(failed(raft_store::QuorumError::Timeout)),
        }
        let index = quorum.status().snapshot_index;
        Ok(Response::new(v1::TakeSnapshotResponse { index }))
    }
}
