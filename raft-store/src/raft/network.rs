//! The consensus library's view of the network: messages to bytes, bytes to the transport.
//!
//! Heartbeats and votes are single calls, so that they never wait behind log frames; records go
//! through one pipelined stream per member; a snapshot is a stream of its own.
//!
//! **Invariant:** an unreadable or refused answer is an error, never a guess; every wait is
//! bounded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use futures::{FutureExt, Stream};
use openraft::RPCTypes;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::types::{Address, Types, Vote};
use crate::codec::CodecError;
use crate::codec::peer::{self, Kind, Route, SnapshotBegin};
use crate::codec::record::VoteBytes;
use crate::quorum::{BoxStream, Member, Transport, TransportError};
use crate::snapshot::SnapshotFile;

/// A pipelined stream is given up when frames wait this long without any answer: time for the
/// largest record over some 16 Mbit/s and its sync.
const STALL: Duration = Duration::from_secs(5);
/// Pieces of a snapshot.
const CHUNK_BYTES: usize = 1024 * 1024;
/// Least time for a snapshot: verifying and installing takes a while after the last byte.
const SNAPSHOT_TTL_MIN: Duration = Duration::from_secs(30);
/// Slowest link a snapshot is expected to pass, in bytes per second.
const SNAPSHOT_BYTES_PER_S: u64 = 2 * 1024 * 1024;

type RpcError = RPCError<Types>;
type Answers<'s> = futures::stream::BoxStream<'s, Result<StreamAppendResult<Types>, RpcError>>;
type Boxed<'s, T> = futures::future::BoxFuture<'s, T>;

/// Makes clients to other members.
pub(crate) struct Network {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) cluster: u64,
    pub(crate) from: u64,
}

impl Network {
    fn peer(&self, target: u64, address: &Address, heartbeat: bool) -> Peer {
        Peer {
            transport: self.transport.clone(),
            // Whether it votes makes no difference to a message.
            target: address.member(target, true),
            route: Route { cluster: self.cluster, from: self.from, to: target },
            heartbeat,
        }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &Address) -> Peer {
        self.peer(target, node, false)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Address) -> Peer {
        self.peer(target, node, true)
    }
}

/// A client to one member.
pub(crate) struct Peer {
    transport: Arc<dyn Transport>,
    target: Member,
    route: Route,
    heartbeat: bool,
}

impl Peer {
    async fn call(&self, rpc: RPCTypes, body: Bytes, ttl: Duration) -> Result<Bytes, RpcError> {
        let call = self.transport.call(&self.target, body, ttl);
        match tokio::time::timeout(ttl, call).await {
            Ok(answer) => answer.map_err(|error| self.failure(rpc, ttl, error)),
            Err(_) => Err(self.failure(rpc, ttl, TransportError::Timeout)),
        }
    }

    async fn ask_vote(
        &self,
        kind: Kind,
        ask: &VoteRequest<Types>,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        let body = peer::vote_ask(kind, self.route, ask).map_err(unreadable)?;
        let answer = self.call(RPCTypes::Vote, body, option.soft_ttl()).await?;
        peer::vote_answered(kind, &answer).map_err(unreadable)
    }

    async fn beat(
        &self,
        ask: AppendEntriesRequest<Types>,
        ttl: Duration,
    ) -> Result<StreamAppendResult<Types>, RpcError> {
        let body = peer::append_ask(Kind::Heartbeat, self.route, &ask).map_err(unreadable)?;
        let answer = self.call(RPCTypes::AppendEntries, body, ttl).await?;
        peer::append_answered(&answer).map_err(unreadable)
    }

    fn failure(&self, action: RPCTypes, timeout: Duration, error: TransportError) -> RpcError {
        match error {
            TransportError::Timeout => {
                let (id, target) = (self.route.from, self.route.to);
                RPCError::Timeout(Timeout { action, id, target, timeout })
            }
            TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&error)),
            TransportError::Refused(_) => {
                let target = self.route.to;
                tracing::warn!(target, address = %self.target.peer_address, %error, "peer refuses");
                RPCError::Unreachable(Unreachable::new(&error))
            }
        }
    }
}

impl NetBackoff<Types> for Peer {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetVote<Types> for Peer {
    async fn vote(
        &mut self,
        ask: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(Kind::Vote, &ask, &option).await
    }

    async fn pre_vote(
        &mut self,
        ask: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RpcError> {
        self.ask_vote(Kind::PreVote, &ask, &option).await
    }
}

impl NetTransferLeader<Types> for Peer {
    async fn transfer_leader(
        &mut self,
        ask: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RpcError> {
        let body = peer::transfer_ask(self.route, &ask).map_err(unreadable)?;
        let answer = self.call(RPCTypes::TransferLeader, body, option.soft_ttl()).await?;
        peer::transfer_answered(&answer).map_err(unreadable)
    }
}

impl NetStreamAppend<Types> for Peer {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> Boxed<'s, Result<Answers<'s>, RpcError>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        if self.heartbeat {
            let ttl = option.hard_ttl();
            return async move {
                let Some(ask) = input.next().await else {
                    return Ok(stream::empty().boxed());
                };
                let answer = self.beat(ask, ttl).await;
                Ok(stream::once(async move { answer }).boxed())
            }
            .boxed();
        }
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let frames = frames(input, self.route, waiting.clone());
        async move {
            let begun = self.transport.append_stream(&self.target, frames);
            let answers = match tokio::time::timeout(STALL, begun).await {
                Ok(answers) => answers,
                Err(_) => Err(TransportError::Timeout),
            };
            let answers = answers.map_err(|e| self.failure(RPCTypes::AppendEntries, STALL, e))?;
            Ok(self.answers(answers, waiting).boxed())
        }
        .boxed()
    }
}

/// Frames on their way: how many, and since when nothing has come back.
#[derive(Default)]
struct Waiting {
    frames: u64,
    since: Option<Instant>,
}

impl Waiting {
    fn lock(shared: &Mutex<Self>) -> MutexGuard<'_, Self> {
        shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&mut self) {
        self.frames += 1;
        self.since.get_or_insert_with(Instant::now);
    }

    fn answered(&mut self) {
        self.frames = self.frames.saturating_sub(1);
        self.since = (self.frames > 0).then(Instant::now);
    }

    fn patience(&self) -> Duration {
        self.since.map_or(STALL, |since| STALL.saturating_sub(since.elapsed()))
    }
}

fn frames(
    input: impl Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    route: Route,
    waiting: Arc<Mutex<Waiting>>,
) -> BoxStream<Bytes> {
    let encoded = stream::unfold((input, waiting), move |(mut input, waiting)| async move {
        let ask = input.next().await?;
        match peer::append_ask(Kind::Append, route, &ask) {
            Ok(frame) => {
                Waiting::lock(&waiting).sent();
                Some((frame, (input, waiting)))
            }
            Err(error) => {
                tracing::error!(%error, "records cannot be sent");
                None
            }
        }
    });
    encoded.boxed()
}

impl Peer {
    fn answers<'s>(
        &'s self,
        answers: BoxStream<Result<Bytes, TransportError>>,
        waiting: Arc<Mutex<Waiting>>,
    ) -> impl Stream<Item = Result<StreamAppendResult<Types>, RpcError>> + Send + 's {
        stream::unfold(Some((answers, waiting)), move |state| async move {
            let (mut answers, waiting) = state?;
            let failed = |error| self.failure(RPCTypes::AppendEntries, STALL, error);
            loop {
                let patience = Waiting::lock(&waiting).patience();
                let Ok(answer) = tokio::time::timeout(patience, answers.next()).await else {
                    let stalled = Waiting::lock(&waiting).patience().is_zero();
                    match stalled {
                        true => return Some((Err(failed(TransportError::Timeout)), None)),
                        false => continue,
                    }
                };
                return match answer? {
                    Err(error) => Some((Err(failed(error)), None)),
                    Ok(bytes) => match peer::append_answered(&bytes) {
                        Err(error) => Some((Err(unreadable(error)), None)),
                        // After a conflict or a higher vote the follower reads no further.
                        Ok(Err(error)) => Some((Ok(Err(error)), None)),
                        Ok(matched) => {
                            Waiting::lock(&waiting).answered();
                            Some((Ok(matched), Some((answers, waiting))))
                        }
                    },
                };
            }
        })
    }
}

impl NetSnapshot<Types> for Peer {
    type SnapshotData = SnapshotFile;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let file = snapshot.snapshot;
        let ttl = SNAPSHOT_TTL_MIN + Duration::from_secs(file.bytes / SNAPSHOT_BYTES_PER_S);
        let begin = SnapshotBegin { vote: VoteBytes::of(&vote), bytes: file.bytes };
        let begin = peer::snapshot_begin(self.route, &begin)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let frames = stream::once(async move { begin }).chain(chunks(file, self.route)).boxed();
        let sent = self.transport.snapshot(&self.target, frames, ttl);
        let answer = tokio::select! {
            closed = cancel => return Err(StreamingError::Closed(closed)),
            answer = tokio::time::timeout(ttl, sent) => answer,
        };
        let answer = answer.unwrap_or(Err(TransportError::Timeout));
        let answer = answer.map_err(|e| self.failure(RPCTypes::InstallSnapshot, ttl, e))?;
        Ok(peer::snapshot_answered(&answer).map_err(unreadable)?)
    }
}

/// The file in pieces; ends early when it cannot be read, which the receiver notices.
fn chunks(file: SnapshotFile, route: Route) -> impl Stream<Item = Bytes> + Send {
    stream::unfold((file, 0), move |(file, at)| async move {
        let left = file.bytes.saturating_sub(at);
        if left == 0 {
            return None;
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let reading = file.file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            crate::files::read_exact_at(&*reading, &mut bytes, at).map(|()| bytes)
        });
        match read.await.map_err(std::io::Error::other) {
            Ok(Ok(bytes)) => {
                Some((peer::snapshot_chunk(route, &bytes), (file, at + length as u64)))
            }
            Ok(Err(error)) | Err(error) => {
                tracing::error!(snapshot = ?file, %error, "cannot read a snapshot to send it");
                None
            }
        }
    })
}

fn unreadable(error: CodecError) -> RpcError {
    RPCError::Network(NetworkError::new(&error))
}
