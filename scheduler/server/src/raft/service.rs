//! The service on the peer port: log replication, snapshots, votes, forwarded calls.
//!
//! **Invariant:** nothing is read from a caller that does not show the cluster's passport or that
//! means another server.

use super::{Acquaintance, MESSAGE_BYTES_MAX, Passport};
use crate::app::Context;
use crate::call;
use crate::clock;
use crate::leader::Leader;
use bytes::Bytes;
use futures::StreamExt as _;
use proto::v1::peer_service_server::{PeerService, PeerServiceServer};
use proto::v1::{
    AppendRequest, AppendResponse, CallRequest, CallResponse, ForwardRequest, ForwardResponse,
    InstallSnapshotRequest, InstallSnapshotResponse,
};
use raft_store::{BoxStream, TransportError};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// How long a forwarded call may take when its caller names no deadline.
const FORWARD_DEADLINE: Duration = Duration::from_secs(10);

/// Serves the other servers.
pub(crate) struct PeerApi {
    context: Context,
    leader: Leader,
    passport: Passport,
}

impl PeerApi {
    /// The service with its size limits set.
    pub(crate) fn service(
        context: Context,
        leader: Leader,
        passport: Passport,
    ) -> PeerServiceServer<Self> {
        PeerServiceServer::new(Self { context, leader, passport })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn admit<T>(&self, request: &Request<T>, how: Acquaintance) -> Result<(), Status> {
        self.passport.check(request.metadata(), how).map_err(|why| {
            tracing::warn!(from = ?request.remote_addr(), why, "a peer was refused");
            Status::permission_denied(why)
        })
    }

    fn signed<T>(&self, answer: T) -> Response<T> {
        let mut response = Response::new(answer);
        self.passport.sign(response.metadata_mut());
        response
    }

    fn is_meant(&self, target: u64) -> Result<(), Status> {
        let own = self.context.config.server.id;
        if target == own {
            return Ok(());
        }
        Err(Status::failed_precondition(format!("server {target} was meant, this is {own}")))
    }

    /// Bodies of a stream; it ends at the first frame that is broken or means another server.
    /// The answer must not wait for a frame: the caller may have none for a while.
    fn frames<T, F>(&self, stream: Streaming<T>, open: F) -> BoxStream<Bytes>
    where
        T: Send + 'static,
        F: Fn(T) -> (u64, Bytes) + Send + Sync + 'static,
    {
        let own = self.context.config.server.id;
        let stop = self.context.stop.clone();
        stream
            .map(move |frame| {
                let (target, body) = open(frame.ok()?);
                (target == own).then_some(body)
            })
            .take_while(|body| std::future::ready(body.is_some()))
            .filter_map(std::future::ready)
            .take_until(async move { stop.cancelled().await })
            .boxed()
    }
}

fn refused(error: &TransportError) -> Status {
    match error {
        TransportError::Refused(why) => Status::failed_precondition(why.clone()),
        TransportError::Timeout => Status::deadline_exceeded("not done in time"),
        TransportError::Unreachable(why) => Status::unavailable(why.clone()),
    }
}

#[tonic::async_trait]
impl PeerService for PeerApi {
    type AppendStream = BoxStream<Result<AppendResponse, Status>>;

    async fn call(&self, request: Request<CallRequest>) -> Result<Response<CallResponse>, Status> {
        self.admit(&request, Acquaintance::Lasting)?;
        let CallRequest { target, body } = request.into_inner();
        self.is_meant(target)?;
        let answer = self.context.quorum.handle_call(body).await;
        let body = answer.map_err(|error| refused(&error))?;
        Ok(self.signed(CallResponse { body }))
    }

    async fn append(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        self.admit(&request, Acquaintance::Lasting)?;
        let open = |frame: AppendRequest| (frame.target, frame.body);
        let frames = self.frames(request.into_inner(), open);
        let answers = self.context.quorum.handle_append_stream(frames);
        let answers = answers.map(|answer| match answer {
            Ok(body) => Ok(AppendResponse { body }),
            Err(error) => Err(refused(&error)),
        });
        Ok(self.signed(answers.boxed()))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<InstallSnapshotRequest>>,
    ) -> Result<Response<InstallSnapshotResponse>, Status> {
        self.admit(&request, Acquaintance::Lasting)?;
        let open = |frame: InstallSnapshotRequest| (frame.target, frame.body);
        let frames = self.frames(request.into_inner(), open);
        let answer = self.context.quorum.handle_snapshot(frames).await;
        let body = answer.map_err(|error| refused(&error))?;
        Ok(self.signed(InstallSnapshotResponse { body }))
    }

    async fn forward(
        &self,
        request: Request<ForwardRequest>,
    ) -> Result<Response<ForwardResponse>, Status> {
        self.admit(&request, Acquaintance::Passing)?;
        let deadline = clock::deadline(crate::api::time_left(&request, FORWARD_DEADLINE));
        let ForwardRequest { target, body } = request.into_inner();
        self.is_meant(target)?;
        let answer = match call::decode(&body) {
            Ok(call) => self.leader.call(call, deadline).await,
            Err(error) => Err(error),
        };
        let body = call::encode(&answer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ForwardResponse { body }))
    }
}
