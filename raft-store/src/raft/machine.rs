//! The consensus library's view of the state: apply, snapshot, install.
//!
//! **Invariant:** `apply` answers a proposer only after its effects are readable; a snapshot is
//! durable before the library hears of it. A panic while applying leaves the state in doubt, so
//! it must end the process (release builds abort).

use std::io;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use scheduler_core::state::Frozen;

use super::live::{Body, Committed, Live, Point};
use super::types::{LogId, Reply, StoredMembership, Types, to_log_id, to_position};
use crate::codec;
use crate::codec::record::StoredMembershipBytes;
use crate::codec::snapshot::Head;
use crate::error::StoreError;
use crate::log::LogPosition;
use crate::mirror::Mirror;
use crate::snapshot::{self, SnapshotFile};

/// Commands applied under one hold of the state's lock: at a few microseconds each, readers wait
/// at most some ten milliseconds.
const SLICE_ENTRIES: usize = 2048;
/// The same bound for few, large commands: a plan of 10,000 placements is some 300 KiB and takes
/// up to 10 ms.
const SLICE_BYTES: usize = 512 * 1024;

type Snapshot = openraft::type_config::alias::SnapshotOf<Types, SnapshotFile>;
type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<Types>;

/// The applying side of one server.
pub(crate) struct Machine {
    live: Arc<Live>,
    snapshots: Arc<snapshot::Store>,
    mirror: Arc<Mirror>,
    /// Held by everything that must be gone before the data directory is free again.
    _alive: tokio::sync::mpsc::Sender<()>,
}

impl Machine {
    pub(crate) fn new(
        live: Arc<Live>,
        snapshots: Arc<snapshot::Store>,
        mirror: Arc<Mirror>,
        alive: tokio::sync::mpsc::Sender<()>,
    ) -> Self {
        Self { live, snapshots, mirror, _alive: alive }
    }

    fn apply_slice(&self, slice: &mut Slice) {
        let slice = std::mem::take(slice);
        if slice.records.is_empty() {
            return;
        }
        let results = self.live.apply(slice.records);
        for (responder, results) in slice.responders.into_iter().zip(results) {
            if let Some(responder) = responder {
                responder.send(Reply { results });
            }
        }
        self.mirror.wake();
    }

    fn builder(&self) -> Builder {
        let (frozen, applied, membership) = self.live.freeze();
        Builder { frozen, applied, membership, snapshots: self.snapshots.clone() }
    }
}

/// Records to be applied under one hold of the lock.
#[derive(Default)]
struct Slice {
    records: Vec<Committed>,
    responders: Vec<Option<ApplyResponder<Types>>>,
    entries: usize,
    bytes: usize,
}

impl Slice {
    fn push(&mut self, (entry, responder): EntryResponder<Types>) -> io::Result<()> {
        let body = match entry.payload {
            EntryPayload::Blank => Body::Blank,
            EntryPayload::Normal(batch) => {
                let entries = codec::entries(&batch.0).map_err(|error| {
                    let text = format!("record {}: {error}", entry.log_id);
                    io::Error::new(io::ErrorKind::InvalidData, text)
                })?;
                self.entries += entries.len();
                self.bytes += batch.0.len();
                Body::Entries(entries)
            }
            EntryPayload::Membership(membership) => Body::Members(membership),
        };
        self.records.push(Committed { at: to_position(&entry.log_id), body });
        self.responders.push(responder);
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.entries >= SLICE_ENTRIES
            || self.bytes >= SLICE_BYTES
            || self.records.len() >= SLICE_ENTRIES
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let point = self.live.read();
        Ok((point.applied.map(to_log_id), point.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut slice = Slice::default();
        while let Some(entry) = entries.next().await {
            slice.push(entry?)?;
            if slice.is_full() {
                self.apply_slice(&mut slice);
                // Lets readers of the state and other tasks in between.
                tokio::task::yield_now().await;
            }
        }
        self.apply_slice(&mut slice);
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<Builder> {
        Some(self.builder())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        self.builder()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotFile,
    ) -> Result<(), io::Error> {
        let snapshots = self.snapshots.clone();
        let (state, head) = blocking(move || {
            let state = snapshot.take_state()?;
            let installed = snapshots.install(snapshot).map_err(|error| {
                StoreError::io("install a snapshot in", "snapshots".as_ref(), error)
            })?;
            Ok::<_, StoreError>((state, installed.head))
        })
        .await?
        .map_err(io::Error::other)?;
        let applied = head.last;
        let membership = head.membership.stored().map_err(io::Error::other)?;
        if meta.last_log_id.as_ref().map(to_position) != applied {
            return Err(io::Error::other("the snapshot is not the one announced"));
        }
        self.live.replace(Point { state, applied, membership });
        self.mirror.wake();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.snapshots.current().map(offered).transpose()
    }
}

/// Builds a snapshot of the state as it was when the builder was made.
pub(crate) struct Builder {
    frozen: Frozen,
    applied: Option<LogPosition>,
    membership: StoredMembership,
    snapshots: Arc<snapshot::Store>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let membership = StoredMembershipBytes::of(&self.membership);
        let head = Head { cluster: 0, last: self.applied, membership };
        let (frozen, snapshots) = (self.frozen.clone(), self.snapshots.clone());
        let built = blocking(move || snapshots.build(&frozen, head)).await??;
        tracing::info!(snapshot = ?built, rows = built.foot.rows, "snapshot built");
        offered(built)
    }
}

/// A snapshot file as the library wants it.
pub(crate) fn offered(file: SnapshotFile) -> io::Result<Snapshot> {
    let last_membership = file.head.membership.clone().stored().map_err(io::Error::other)?;
    let last_log_id = file.head.last.map(to_log_id);
    Ok(Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: file })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)
}
