//! Settings of one server's store and consensus, with defaults and their limits.
//!
//! **Invariant:** read once at open; every value is checked there, and a bad one is named with its
//! limits.

use std::path::PathBuf;
use std::sync::Arc;

use super::member::ServerId;
use crate::error::StoreError;
use crate::files::{Disk, Files};
use crate::log;

/// Longest heartbeat and election settings: beyond a minute nobody means it.
const TIMING_MS_MAX: u64 = 60_000;
/// Least records between two snapshots: fewer would write snapshots all the time.
const SNAPSHOT_ENTRIES_MIN: u64 = 16;
/// Least log bytes between two snapshots.
const SNAPSHOT_BYTES_MIN: u64 = 64 * 1024;
/// Longest text of an address or of the cluster's name, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// How one server stores, votes and replicates.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the cluster; data and messages of another cluster are refused.
    pub cluster_id: String,
    pub server_id: ServerId,
    /// Directory of this server alone.
    pub data_dir: PathBuf,
    /// Own `host:port` for the other servers.
    pub peer_address: String,
    /// Own `host:port` for everybody else.
    pub api_address: String,
    /// Interval of the leader's heartbeats; also how long it waits for each answer, so it must
    /// exceed the round trip to the farthest server.
    pub heartbeat_ms: u64,
    /// A leader is given up after `election_ms_max` without a sign of life, and a server stands
    /// for election after a further random time between both: a new leader writes within about
    /// `2 * election_ms_max` plus a round trip.
    pub election_ms_min: u64,
    pub election_ms_max: u64,
    /// A snapshot is taken after this many bytes of log.
    pub snapshot_every_bytes: u64,
    /// A snapshot is taken after this many log records.
    pub snapshot_every_entries: u64,
    /// The log's own options.
    pub log: log::Options,
    /// Least time between two writes of the state's copy in sled. A write costs 16 to 40 us of
    /// CPU per row, so bursts are gathered.
    pub mirror_interval_ms: u64,
    /// Memory sled may use for its cache.
    pub mirror_cache_bytes: u64,
    /// The file layer of log, snapshots and identity; the real disk except in tests.
    pub files: Arc<dyn Files>,
}

impl Settings {
    /// Default settings of a server.
    pub fn new(
        cluster_id: impl Into<String>,
        server_id: ServerId,
        data_dir: impl Into<PathBuf>,
        peer_address: impl Into<String>,
        api_address: impl Into<String>,
    ) -> Self {
        Self {
            cluster_id: cluster_id.into(),
            server_id,
            data_dir: data_dir.into(),
            peer_address: peer_address.into(),
            api_address: api_address.into(),
            heartbeat_ms: 50,
            election_ms_min: 300,
            election_ms_max: 600,
            snapshot_every_bytes: 256 * 1024 * 1024,
            snapshot_every_entries: 50_000,
            log: log::Options::default(),
            mirror_interval_ms: 150,
            mirror_cache_bytes: 32 * 1024 * 1024,
            files: Arc::new(Disk),
        }
    }

    /// Checks every value; the first one outside its limits is named.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        let within = |field, value, min, max| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(StoreError::Setting { field, value, min, max })
        };
        let texts = [
            ("cluster_id", &self.cluster_id),
            ("peer_address", &self.peer_address),
            ("api_address", &self.api_address),
        ];
        for (field, text) in texts {
            within(field, text.len() as u64, 1, TEXT_BYTES_MAX as u64)?;
        }
        within("heartbeat_ms", self.heartbeat_ms, 5, TIMING_MS_MAX)?;
        within("election_ms_min", self.election_ms_min, self.heartbeat_ms + 1, TIMING_MS_MAX)?;
        within("election_ms_max", self.election_ms_max, self.election_ms_min + 1, TIMING_MS_MAX)?;
        let entries = self.snapshot_every_entries;
        within("snapshot_every_entries", entries, SNAPSHOT_ENTRIES_MIN, u64::MAX / 16)?;
        within("snapshot_every_bytes", self.snapshot_every_bytes, SNAPSHOT_BYTES_MIN, u64::MAX)?;
        within("mirror_interval_ms", self.mirror_interval_ms, 1, TIMING_MS_MAX)?;
        within("mirror_cache_bytes", self.mirror_cache_bytes, 1024 * 1024, 1 << 40)
    }
}
