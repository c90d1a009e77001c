//! Messages from other servers: bytes to the consensus library and back.
//!
//! **Invariant:** nothing is believed before the message proves to come from a member of this
//! cluster and to be meant for this server; whatever the bytes are, the answer is an answer or a
//! refusal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::Semaphore;

use super::machine::offered;
use super::types::{Raft, Types, Vote};
use crate::codec::peer::{self, Kind, Route};
use crate::quorum::{BoxStream, TransportError};
use crate::snapshot;

/// A snapshot transfer without a byte for this long is given up.
const SNAPSHOT_IDLE: Duration = Duration::from_secs(30);

/// Transfers at once: a broken one may linger while the next has begun, more is nobody's wish.
const TRANSFERS_MAX: usize = 2;

/// The receiving side of one server.
#[derive(Clone)]
pub(crate) struct Inbound {
    raft: Raft,
    snapshots: Arc<snapshot::Store>,
    cluster: u64,
    server: u64,
    transfers: Arc<Semaphore>,
}

impl Inbound {
    pub(crate) fn new(
        raft: Raft,
        snapshots: Arc<snapshot::Store>,
        cluster: u64,
        server: u64,
    ) -> Self {
        let transfers = Arc::new(Semaphore::new(TRANSFERS_MAX));
        Self { raft, snapshots, cluster, server, transfers }
    }
}

type Refused<T> = Result<T, TransportError>;

impl Inbound {
    pub(crate) async fn call(&self, message: Bytes) -> Refused<Bytes> {
        let (kind, route, body) = self.open(&message)?;
        match kind {
            Kind::Vote => {
                let ask = peer::vote_asked(&body).map_err(refusal)?;
                self.is_from(route, &ask.vote)?;
                let answer = self.raft.vote(ask).await.map_err(refusal)?;
                peer::vote_answer(kind, &answer).map_err(refusal)
            }
            Kind::PreVote => {
                let ask = peer::vote_asked(&body).map_err(refusal)?;
                self.is_from(route, &ask.vote)?;
                let answer = self.raft.pre_vote(ask).await.map_err(refusal)?;
                peer::vote_answer(kind, &answer).map_err(refusal)
            }
            Kind::TransferLeader => {
                let ask = peer::transfer_asked(&body).map_err(refusal)?;
                self.is_from(route, ask.from_leader())?;
                let answer = self.raft.handle_transfer_leader(ask).await.map_err(refusal)?;
                peer::transfer_answer(&answer).map_err(refusal)
            }
            Kind::Heartbeat => self.heartbeat(route, &body).await,
            Kind::Append | Kind::SnapshotBegin | Kind::SnapshotChunk => {
                Err(TransportError::Refused("this message belongs in a stream".to_owned()))
            }
        }
    }

    async fn heartbeat(&self, route: Route, body: &Bytes) -> Refused<Bytes> {
        let ask = peer::append_asked(body).map_err(refusal)?;
        self.is_from(route, &ask.vote)?;
        let prev = ask.prev_log_id;
        let last = ask.entries.last().map(|entry| entry.log_id).or(prev);
        let answer = self.raft.append_entries(ask).await.map_err(refusal)?;
        let Some(result) = peer::heartbeat_result(answer, prev, last) else {
            return Err(TransportError::Refused("a conflict with nothing".to_owned()));
        };
        peer::append_answer(&result).map_err(refusal)
    }

    /// Feeds log frames to the library. A frame that is refused ends the stream with the reason,
    /// after the answers to those before it.
    pub(crate) fn append_stream(
        &self,
        frames: BoxStream<Bytes>,
    ) -> BoxStream<Result<Bytes, TransportError>> {
        let refused = Arc::new(Mutex::new(None));
        let inbound = self.clone();
        let noted = refused.clone();
        let asks = stream::unfold(Some(frames), move |frames| {
            let inbound = inbound.clone();
            let noted = noted.clone();
            async move {
                let mut frames = frames?;
                let frame = frames.next().await?;
                match inbound.frame(&frame) {
                    Ok(ask) => Some((ask, Some(frames))),
                    Err(error) => {
                        *noted.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        None
                    }
                }
            }
        });
        let answers = self.raft.stream_append(asks.boxed()).map(|answer| match answer {
            Ok(result) => peer::append_answer(&result).map_err(refusal),
            Err(fatal) => Err(refusal(fatal)),
        });
        let last = stream::once(async move {
            refused.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err)
        });
        answers.chain(last.filter_map(|refused| async move { refused })).boxed()
    }

    fn frame(&self, frame: &Bytes) -> Refused<AppendEntriesRequest<Types>> {
        let (kind, route, body) = self.open(frame)?;
        self.is_kind(Kind::Append, kind)?;
        let ask = peer::append_asked(&body).map_err(refusal)?;
        self.is_from(route, &ask.vote)?;
        Ok(ask)
    }

    /// Receives a snapshot into a temporary file, verifies it whole, and installs it.
    pub(crate) async fn snapshot(&self, mut frames: BoxStream<Bytes>) -> Refused<Bytes> {
        let Some(first) = next_frame(&mut frames).await? else {
            return Err(TransportError::Refused("an empty snapshot transfer".to_owned()));
        };
        let (kind, route, body) = self.open(&first)?;
        self.is_kind(Kind::SnapshotBegin, kind)?;
        let begin = peer::snapshot_begun(&body).map_err(refusal)?;
        let vote = begin.vote.vote();
        self.is_from(route, &vote)?;
        let Ok(_transfer) = self.transfers.try_acquire() else {
            return Err(TransportError::Refused("too many snapshot transfers at once".to_owned()));
        };
        let mut receiver = self.snapshots.receive(begin.bytes).map_err(refusal)?;
        while let Some(frame) = next_frame(&mut frames).await? {
            let (kind, _, chunk) = self.open(&frame)?;
            self.is_kind(Kind::SnapshotChunk, kind)?;
            receiver =
                tokio::task::spawn_blocking(move || receiver.write(&chunk).map(|()| receiver))
                    .await
                    .map_err(refusal)?
                    .map_err(refusal)?;
        }
        let received = tokio::task::spawn_blocking(move || {
            let file = receiver.finish()?;
            // Made here, where a bad one is refused, and not where it would stop the server.
            let state = file.load()?;
            *file.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
            Ok::<_, crate::error::StoreError>(file)
        });
        let file = received.await.map_err(refusal)?.map_err(refusal)?;
        let snapshot = offered(file).map_err(refusal)?;
        self.is_possible(&vote, &snapshot.meta.last_log_id)?;
        let answer = self.raft.install_full_snapshot(vote, snapshot).await.map_err(refusal)?;
        peer::snapshot_answer(&answer).map_err(refusal)
    }

    /// The library panics on a snapshot from beyond its sender's term.
    fn is_possible(&self, vote: &Vote, last: &Option<super::types::LogId>) -> Refused<()> {
        match last {
            Some(last) if last.leader_id <= vote.leader_id && vote.committed => Ok(()),
            _ => Err(TransportError::Refused("a snapshot its sender cannot have".to_owned())),
        }
    }

    fn open(&self, message: &Bytes) -> Refused<(Kind, Route, Bytes)> {
        let (kind, route, body) = peer::open(message).map_err(refusal)?;
        if route.cluster != self.cluster {
            return Err(TransportError::Refused("this is another cluster".to_owned()));
        }
        if route.to != self.server {
            let text = format!("this is server {}, not {}", self.server, route.to);
            return Err(TransportError::Refused(text));
        }
        Ok((kind, route, body))
    }

    fn is_kind(&self, wanted: Kind, found: Kind) -> Refused<()> {
        if wanted == found {
            return Ok(());
        }
        Err(TransportError::Refused(format!("{found:?} where {wanted:?} belongs")))
    }

    /// Whoever asks in the name of a candidate or leader must be it.
    fn is_from(&self, route: Route, vote: &Vote) -> Refused<()> {
        if vote.leader_id.node_id == route.from {
            return Ok(());
        }
        let (claimed, from) = (vote.leader_id.node_id, route.from);
        Err(TransportError::Refused(format!("server {from} speaks for server {claimed}")))
    }
}

async fn next_frame(frames: &mut BoxStream<Bytes>) -> Refused<Option<Bytes>> {
    tokio::time::timeout(SNAPSHOT_IDLE, frames.next()).await.map_err(|_| TransportError::Timeout)
}

fn refusal(error: impl std::fmt::Display) -> TransportError {
    TransportError::Refused(error.to_string())
}
