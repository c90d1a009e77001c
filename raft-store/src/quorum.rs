//! One server's part in the quorum: the handle everything else in the server uses.
//!
//! Open it, hand it the messages of the other servers, propose entries when it leads, read the
//! state at any time.
//!
//! In reading order: `member`, `settings`, `transport`, `error` (the vocabulary), `open`
//! (start and stop), `status` (how it stands), `change` (members and leadership), `keeper` (when
//! to snapshot and purge).
//!
//! **Invariant:** no type of the consensus library appears in this interface; an `Ok` from
//! [`Quorum::propose`] means durable on a majority and applied here.

mod change;
mod error;
mod keeper;
mod member;
mod open;
mod settings;
mod status;
mod transport;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ReadPolicy;
use openraft::errors::{
    ClientWriteError, ForwardToLeader, InitializeError, LinearizableReadError, RaftError,
};
use openraft::impls::OneshotResponder;
use scheduler_core::command::{Entry, Outcome, Rejection};
use scheduler_core::state::State;
use tokio::time::Instant;

pub use error::QuorumError;
pub use member::{Member, PeerLag, Role, ServerId, Status};
pub use settings::Settings;
pub use transport::{BoxFuture, BoxStream, Observer, Transport, TransportError};

use crate::codec;
use crate::error::StoreError;
use crate::log;
use crate::mirror;
use crate::raft::types::{Address, Batch, Types};
use open::Inner;

/// Largest record, encoded: it must pass to every follower within its patience, and be read into
/// memory whole.
pub const RECORD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most entries in one record: they are applied under one hold of the state's lock.
pub const RECORD_ENTRIES_MAX: usize = 4096;
/// Largest frame of [`Transport::append_stream`]: one largest record, or a mebibyte of small ones
/// with their heads.
pub const FRAME_BYTES_MAX: usize = RECORD_BYTES_MAX + 2 * 1024 * 1024;
/// First wait before a proposal that met an unconfirmed leadership is tried again; doubled each
/// time.
const RETRY_FIRST: Duration = Duration::from_millis(5);
const RETRY_LONGEST: Duration = Duration::from_millis(80);
/// Longest wait for a majority to confirm that this server leads, in longest election times.
const READ_PATIENCE: u32 = 2;

/// What became of a proposal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Index of the record that carries the entries.
    pub index: u64,
    /// Term of the leader that wrote it.
    pub term: u64,
    /// One result per entry, in their order.
    pub results: Vec<Result<Outcome, Rejection>>,
}

/// Figures of a server's storage.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StoreStats {
    pub log: log::Stats,
    pub mirror: mirror::Stats,
    /// Index of the newest snapshot; 0 when there is none.
    pub snapshot_index: u64,
    /// Bytes of the newest snapshot.
    pub snapshot_bytes: u64,
}

/// Handle to one server's part in the quorum; clones share it. It runs until
/// [`Quorum::shutdown`].
#[derive(Clone)]
pub struct Quorum {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "server {}", self.inner.server)
    }
}

/// Life.
impl Quorum {
    /// Opens (or makes) the data directory and starts to take part. Fails on anything that is
    /// not as a crash may have left it, and says what repair is allowed.
    pub async fn open(
        settings: Settings,
        transport: Arc<dyn Transport>,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, StoreError> {
        let inner = open::open(settings, transport, observer).await?;
        Ok(Self { inner })
    }

    /// Founds the cluster. Every initial server may call it with the same voters; on a server
    /// that has data already it changes nothing and is `Ok`.
    ///
    /// Never call it on a server whose disk was lost: that one comes back under a new id, through
    /// [`Quorum::add_learner`].
    pub async fn bootstrap(&self, members: Vec<Member>) -> Result<(), QuorumError> {
        change::check_founders(&members, self.inner.server)?;
        let nodes: BTreeMap<u64, Address> =
            members.iter().map(|member| (member.id.0, Address::of(member))).collect();
        match self.inner.raft.initialize(nodes).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotInMembers(error))) => {
                Err(QuorumError::Membership(error.to_string()))
            }
            Err(RaftError::Fatal(fatal)) => Err(self.inner.fatal(fatal)),
        }
    }

    /// Stops, writes what is behind, and frees the data directory. Repeated calls are `Ok`.
    pub async fn shutdown(&self) -> Result<(), QuorumError> {
        self.inner.shutdown().await
    }
}

/// Writing.
impl Quorum {
    /// Has entries written to a majority's disks and applied, in one record. Only on the leader.
    pub async fn propose(&self, entries: Vec<Entry>) -> Result<Proposed, QuorumError> {
        let limit = |what, value: usize, limit: usize| match value > limit {
            true => {
                let (value, limit) = (value as u64, limit as u64);
                Err(QuorumError::TooLarge { what, value, limit })
            }
            false => Ok(()),
        };
        limit("entries of a proposal", entries.len(), RECORD_ENTRIES_MAX)?;
        let bytes = codec::encode_entries(&entries)
            .map_err(|error| QuorumError::Encode(error.to_string()))?;
        drop(entries);
        limit("bytes of a proposal", bytes.len(), RECORD_BYTES_MAX)?;
        let deadline = Instant::now() + self.inner.election_ms_max * READ_PATIENCE;
        let mut wait = RETRY_FIRST;
        loop {
            let forward = match self.write(bytes.clone()).await? {
                Ok(proposed) => return Ok(proposed),
                Err(forward) => forward,
            };
            self.inner.pause(&forward, &mut wait, deadline).await?;
        }
    }

    /// One attempt; the inner error means that nothing was written.
    async fn write(
        &self,
        bytes: Bytes,
    ) -> Result<Result<Proposed, ForwardToLeader<Types>>, QuorumError> {
        let (responder, answer) = OneshotResponder::<Types, _>::new_pair();
        let sent = self.inner.raft.client_write_ff(Batch(bytes), Some(responder)).await;
        sent.map_err(|fatal| self.inner.fatal(fatal))?;
        let Ok(answer) = answer.await else {
            return Err(QuorumError::Fatal("stopped while a proposal was on its way".to_owned()));
        };
        match answer {
            Ok(done) => Ok(Ok(Proposed {
                index: done.log_id.index,
                term: done.log_id.leader_id.term,
                results: done.data.results,
            })),
            Err(ClientWriteError::ForwardToLeader(forward)) => Ok(Err(forward)),
            Err(ClientWriteError::LogEntryDiscarded(_)) => {
                let text = "leadership was lost with the proposal on its way; outcome unknown";
                Err(QuorumError::Unavailable(text.to_owned()))
            }
            Err(other) => Err(QuorumError::Membership(other.to_string())),
        }
    }
}

/// Reading.
impl Quorum {
    /// Index that a read must have seen to be linearizable: everything acknowledged anywhere
    /// before this call. Only on the leader, which asks a majority whether it still is.
    pub async fn read_index(&self) -> Result<u64, QuorumError> {
        let deadline = Instant::now() + self.inner.election_ms_max * READ_PATIENCE;
        let mut wait = RETRY_FIRST;
        loop {
            let asked = self.inner.raft.get_read_log_id(ReadPolicy::ReadIndex).await;
            let forward = match asked {
                Ok((read, _)) => return Ok(read.log_id().index),
                Err(RaftError::Fatal(fatal)) => return Err(self.inner.fatal(fatal)),
                Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(error))) => {
                    return Err(QuorumError::Unavailable(error.to_string()));
                }
                Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                    forward
                }
            };
            self.inner.pause(&forward, &mut wait, deadline).await?;
        }
    }

    /// Waits until the local state shows everything up to `index`.
    pub async fn wait_applied(
        &self,
        index: u64,
        deadline: std::time::Instant,
    ) -> Result<(), QuorumError> {
        let mut applied = self.inner.live.watch_applied();
        let reached = applied.wait_for(|now| *now >= index);
        match tokio::time::timeout_at(deadline.into(), reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(QuorumError::Fatal("stopped".to_owned())),
            Err(_) => Err(QuorumError::Timeout),
        }
    }

    /// Reads the state under a short lock. Applying waits meanwhile: copy out and return.
    pub fn read<R>(&self, f: impl FnOnce(&State) -> R) -> R {
        f(&self.inner.live.read().state)
    }

    /// Hash of the state and the index it belongs to. Walks everything, but outside the lock.
    pub fn state_hash(&self) -> (u64, u128) {
        let (frozen, applied, _) = self.inner.live.freeze();
        (crate::raft::live::index(applied), frozen.hash())
    }

    /// How this server stands.
    pub fn status(&self) -> Status {
        self.inner.status()
    }

    /// Changes whenever leader, term, role or members do. Indexes in it are as of that change.
    pub fn watch(&self) -> tokio::sync::watch::Receiver<Status> {
        self.inner.standing.subscribe()
    }

    /// Figures of log, copy and snapshots.
    pub fn store_stats(&self) -> StoreStats {
        self.inner.store_stats()
    }
}

/// Messages from other servers.
impl Quorum {
    /// Answers one call of another server's [`Transport::call`].
    pub async fn handle_call(&self, body: Bytes) -> Result<Bytes, TransportError> {
        self.inner.inbound.call(body).await
    }

    /// Answers another server's [`Transport::append_stream`]. Must be polled to the end; `frames`
    /// must end when the sender goes away.
    pub fn handle_append_stream(
        &self,
        frames: BoxStream<Bytes>,
    ) -> BoxStream<Result<Bytes, TransportError>> {
        self.inner.inbound.append_stream(frames)
    }

    /// Takes another server's [`Transport::snapshot`].
    pub async fn handle_snapshot(&self, frames: BoxStream<Bytes>) -> Result<Bytes, TransportError> {
        self.inner.inbound.snapshot(frames).await
    }
}
