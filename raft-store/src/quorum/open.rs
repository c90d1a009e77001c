//! Starting and stopping one server's part in the quorum.
//!
//! The state comes from the copy in sled when that is right and no older than the newest intact
//! snapshot, else from the snapshot; the consensus library replays the log's tail on top.
//!
//! **Invariant:** the library is started only on a state that the log continues without a gap;
//! the data directory is free again when [`Inner::shutdown`] returns.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use openraft::errors::{Fatal, ForwardReason, ForwardToLeader};
use scheduler_core::state::State;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::error::QuorumError;
use super::member::{ServerId, Status};
use super::settings::Settings;
use super::transport::{Observer, Transport};
use super::{RETRY_LONGEST, StoreStats, keeper, status};
use crate::codec::peer::fingerprint;
use crate::dir::DataDir;
use crate::error::{Repair, StoreError};
use crate::log::{Log, LogPosition};
use crate::mirror::{self, Mirror};
use crate::raft::config;
use crate::raft::inbound::Inbound;
use crate::raft::live::{Live, Point, index};
use crate::raft::log_store::{Durable, LogStore};
use crate::raft::machine::Machine;
use crate::raft::network::Network;
use crate::raft::types::{Raft, StoredMembership, Types};
use crate::snapshot;

/// Longest wait for the library's tasks to let go of the data directory.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// Everything one server runs.
pub(super) struct Inner {
    pub(super) server: ServerId,
    pub(super) raft: Raft,
    pub(super) live: Arc<Live>,
    pub(super) snapshots: Arc<snapshot::Store>,
    pub(super) inbound: Inbound,
    pub(super) standing: watch::Sender<Status>,
    pub(super) election_ms_max: Duration,
    held: Mutex<Option<Held>>,
    /// One shutdown at a time; later ones wait for it.
    closing: tokio::sync::Mutex<()>,
}

/// What is given back at shutdown, in this order.
struct Held {
    tasks: Vec<JoinHandle<()>>,
    /// Ends when the library has dropped its log and machine.
    alive: mpsc::Receiver<()>,
    mirror: Arc<Mirror>,
    log: Log,
    dir: DataDir,
}

/// What was found in the data directory.
struct Found {
    dir: DataDir,
    log: Log,
    snapshots: Arc<snapshot::Store>,
    copy: mirror::Store,
    point: Point,
    /// The copy holds exactly this point.
    mirrored: bool,
}

pub(super) async fn open(
    settings: Settings,
    transport: Arc<dyn Transport>,
    observer: Arc<dyn Observer>,
) -> Result<Arc<Inner>, StoreError> {
    settings.check()?;
    let config = config::config(&settings)?;
    let cluster = fingerprint(&settings.cluster_id);
    let from = settings.clone();
    let data_dir = settings.data_dir.clone();
    let failed = |error: String| StoreError::io("open", &data_dir, std::io::Error::other(error));
    let found = tokio::task::spawn_blocking(move || find(&from, cluster))
        .await
        .map_err(|error| failed(error.to_string()))??;

    let durable = Durable::new(index(found.log.last()));
    let live = Live::new(found.point, found.mirrored, durable.clone(), observer.clone());
    let live = Arc::new(live);
    let interval = Duration::from_millis(settings.mirror_interval_ms);
    let mirror = Mirror::start(found.copy, live.clone(), interval, settings.mirror_cache_bytes)?;
    let mirror = Arc::new(mirror);
    mirror.wake();
    let (alive_sender, alive) = mpsc::channel(1);
    let log_store = LogStore::new(found.log.clone(), durable, alive_sender.clone());
    let machine = Machine::new(live.clone(), found.snapshots.clone(), mirror.clone(), alive_sender);
    let server = settings.server_id;
    let network = Network { transport, cluster, from: server.0 };
    let raft = Raft::new(server.0, config, network, log_store, machine)
        .await
        .map_err(|fatal| failed(fatal.to_string()))?;

    let inbound = Inbound::new(raft.clone(), found.snapshots.clone(), cluster, server.0);
    let (standing, _) = watch::channel(status::of(&raft));
    let watcher = status::watch(raft.clone(), standing.clone(), observer);
    let keeper = keeper::Keeper {
        raft: raft.clone(),
        log: found.log.clone(),
        snapshots: found.snapshots.clone(),
        every_bytes: settings.snapshot_every_bytes,
    };
    let tasks = vec![tokio::spawn(watcher), tokio::spawn(keeper.run())];
    let held = Held { tasks, alive, mirror, log: found.log, dir: found.dir };
    Ok(Arc::new(Inner {
        server,
        raft,
        live,
        snapshots: found.snapshots,
        inbound,
        standing,
        election_ms_max: Duration::from_millis(settings.election_ms_max),
        held: Mutex::new(Some(held)),
        closing: tokio::sync::Mutex::new(()),
    }))
}

/// Reads the data directory.
fn find(settings: &Settings, cluster: u64) -> Result<Found, StoreError> {
    let files = &settings.files;
    let dir = DataDir::claim(&settings.data_dir, &settings.cluster_id, settings.server_id, files)?;
    let log = Log::open(&dir.log(), files.clone(), settings.log.clone())?;
    let snapshots = snapshot::Store::open(&dir.snapshots(), files.clone(), cluster)?;
    let (copy, loaded) = mirror::open(&dir.state(), cluster, settings.mirror_cache_bytes)?;
    let newest = snapshots.current().and_then(|snapshot| snapshot.head.last);
    let loaded = loaded.filter(|loaded| loaded.mark.applied >= newest);
    let mirrored = loaded.is_some();
    let point = match loaded {
        Some(loaded) => {
            let membership = loaded.mark.membership.stored().map_err(|error| {
                StoreError::corrupt(&dir.state(), 0, error.to_string(), Repair::Rebuild)
            })?;
            Point { state: loaded.state, applied: loaded.mark.applied, membership }
        }
        None => from_snapshots(&snapshots)?,
    };
    let (applied, from) = (index(point.applied), if mirrored { "copy" } else { "snapshot" });
    tracing::info!(applied, from, last = ?log.last(), "state found");
    check_continues(&dir, &log, point.applied)?;
    check_remembers(&dir, &log, point.applied, newest)?;
    Ok(Found { dir, log, snapshots: Arc::new(snapshots), copy, point, mirrored })
}

/// The newest snapshot that makes a state; the empty state when there is none.
fn from_snapshots(snapshots: &snapshot::Store) -> Result<Point, StoreError> {
    for file in snapshots.newest_first() {
        let state = match file.load() {
            Ok(state) => state,
            Err(why @ StoreError::Corrupt { .. }) => {
                snapshots.discard(&file, &why);
                continue;
            }
            Err(other) => return Err(other),
        };
        let membership = file.head.membership.clone().stored().map_err(|error| {
            StoreError::corrupt(&file.path, 0, error.to_string(), Repair::Rejoin)
        })?;
        return Ok(Point { state, applied: file.head.last, membership });
    }
    let membership = StoredMembership::default();
    Ok(Point { state: State::new(), applied: None, membership })
}

/// Records between the state and the log's beginning are gone for good when there is a gap.
fn check_continues(
    dir: &DataDir,
    log: &Log,
    applied: Option<LogPosition>,
) -> Result<(), StoreError> {
    let purged = log.last_purged();
    if purged.map(|at| at.index) <= applied.map(|at| at.index) {
        return Ok(());
    }
    let what = format!(
        "the log begins behind record {}, but no intact snapshot reaches further than record {}",
        index(purged),
        index(applied)
    );
    Err(StoreError::corrupt(&dir.snapshots(), 0, what, Repair::Rejoin))
}

/// A server that has applied something has voted, and its log reaches at least to what it has
/// applied: a log that does not was lost or replaced, and with it perhaps a vote and records
/// that others count on. Only an installed snapshot may be ahead, if a crash came before the
/// log was purged.
fn check_remembers(
    dir: &DataDir,
    log: &Log,
    applied: Option<LogPosition>,
    snapshot: Option<LogPosition>,
) -> Result<(), StoreError> {
    let forgot = |what: String| Err(StoreError::corrupt(&dir.log(), 0, what, Repair::Rejoin));
    if log.vote().is_none() && (applied.is_some() || snapshot.is_some()) {
        return forgot("no vote, though the state holds records".to_owned());
    }
    let last = log.last().max(snapshot);
    if applied > last {
        let (applied, last) = (index(applied), index(last));
        return forgot(format!("ends at record {last}, though record {applied} was applied"));
    }
    Ok(())
}

impl Inner {
    pub(super) fn status(&self) -> Status {
        status::of(&self.raft)
    }

    pub(super) fn fatal(&self, fatal: Fatal<Types>) -> QuorumError {
        QuorumError::Fatal(fatal.to_string())
    }

    /// After a refusal for want of a confirmed leader: waits for the next attempt while this
    /// server leads, else says who does.
    pub(super) async fn pause(
        &self,
        forward: &ForwardToLeader<Types>,
        wait: &mut Duration,
        deadline: Instant,
    ) -> Result<(), QuorumError> {
        let other = forward.leader_id.filter(|id| *id != self.server.0);
        if let (Some(id), Some(address)) = (other, &forward.leader_node) {
            return Err(QuorumError::NotLeader { leader: Some(address.member(id, true)) });
        }
        if !self.raft.is_leader() {
            let leader = self.status().leader.filter(|leader| leader.id != self.server);
            return Err(QuorumError::NotLeader { leader });
        }
        if Instant::now() + *wait > deadline {
            let why = match forward.reason {
                ForwardReason::LeaseExpired => "no majority has confirmed this leader lately",
                ForwardReason::LeadershipTransfer => "leadership is being handed over",
                ForwardReason::NotLeader => "this leader is not confirmed yet",
            };
            return Err(QuorumError::Unavailable(why.to_owned()));
        }
        tokio::time::sleep(*wait).await;
        *wait = (*wait * 2).min(RETRY_LONGEST);
        Ok(())
    }

    pub(super) fn store_stats(&self) -> StoreStats {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (log, mirror) = match &*held {
            Some(held) => (held.log.stats(), held.mirror.stats()),
            None => Default::default(),
        };
        let snapshot = self.snapshots.current();
        StoreStats {
            log,
            mirror,
            snapshot_index: index(snapshot.as_ref().and_then(|found| found.head.last)),
            snapshot_bytes: snapshot.map_or(0, |found| found.bytes),
        }
    }

    pub(super) async fn shutdown(&self) -> Result<(), QuorumError> {
        let _one = self.closing.lock().await;
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut held) = held else { return Ok(()) };
        for task in &held.tasks {
            task.abort();
        }
        let stopped = self.raft.shutdown().await;
        for task in held.tasks.drain(..) {
            // Aborted a moment ago.
            let _ = task.await;
        }
        let let_go = tokio::time::timeout(CLOSE_PATIENCE, held.alive.recv()).await;
        self.standing.send_modify(|standing| standing.role = super::Role::Stopped);
        let closed = tokio::task::spawn_blocking(move || {
            let Held { mirror, log, dir, .. } = held;
            drop(mirror);
            drop(log);
            drop(dir);
        });
        let fatal = |text: String| QuorumError::Fatal(text);
        closed.await.map_err(|error| fatal(error.to_string()))?;
        stopped.map_err(|error| fatal(error.to_string()))?;
        let_go.map_err(|_| fatal("a task holds the data directory".to_owned()))?;
        Ok(())
    }
}
