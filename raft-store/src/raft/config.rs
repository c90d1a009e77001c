//! The consensus library's settings, derived from ours.
//!
//! **Invariant:** the library never decides to purge: the keeper does, when two snapshots are
//! durable.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use crate::error::StoreError;
use crate::quorum::Settings;

/// Records in one frame to another server, at most; the bytes are bounded by the log store.
const FRAME_ENTRIES_MAX: u64 = 4096;
/// Records in one write to the log, at most.
const APPEND_ENTRIES_MAX: u64 = 4096;
/// A purge is a write with a sync; small ones are not worth it.
pub(crate) const PURGE_ENTRIES_MIN: u64 = 1000;
/// A member further behind than this many snapshot intervals gets a snapshot even if the log
/// still reaches back: replaying would take longer.
const LAG_SNAPSHOTS: u64 = 4;
/// Messages waiting for the consensus task; beyond it callers wait.
const QUEUE_LEN: u64 = 16 * 1024;
/// Waits between attempts to reach a dead member. Short, so that a restarted server is back
/// within its peers' election time.
const BACKOFF: &str = "50ms 100ms 200ms ...500ms";

pub(crate) fn config(settings: &Settings) -> Result<Arc<Config>, StoreError> {
    let config = Config {
        cluster_name: settings.cluster_id.clone(),
        heartbeat_interval: settings.heartbeat_ms,
        election_timeout_min: settings.election_ms_min,
        election_timeout_max: settings.election_ms_max,
        max_payload_entries: FRAME_ENTRIES_MAX,
        max_append_entries: Some(APPEND_ENTRIES_MAX),
        replication_lag_threshold: settings.snapshot_every_entries.saturating_mul(LAG_SNAPSHOTS),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(settings.snapshot_every_entries),
        // Beyond reach: see the keeper.
        max_in_snapshot_log_to_keep: u64::MAX / 2,
        purge_batch_size: PURGE_ENTRIES_MIN,
        api_channel_size: Some(QUEUE_LEN),
        enable_pre_vote: Some(true),
        // A restarted leader must be elected anew, as its state may be behind what it had
        // committed.
        enable_leader_restore: Some(false),
        backoff: BACKOFF.to_owned(),
        ..Config::default()
    };
    // Timing was checked with the settings; what is left cannot be out of limits.
    config.validate().map(Arc::new).map_err(|_| StoreError::Setting {
        field: "election_ms_min",
        value: settings.election_ms_min,
        min: settings.heartbeat_ms + 1,
        max: settings.election_ms_max,
    })
}
