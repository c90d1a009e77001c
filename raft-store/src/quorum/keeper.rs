//! Decides when a snapshot is due by bytes, and how much of the log may go.
//!
//! The consensus library snapshots by number of records; a few large records can make a long log
//! too. And it would purge by the newest snapshot alone, while we want to survive the loss of it.
//!
//! **Invariant:** the log is kept from the older of two verified, durable snapshots on.

use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use tokio::time::MissedTickBehavior;

use crate::log::Log;
use crate::raft::config::PURGE_ENTRIES_MIN;
use crate::raft::types::Raft;
use crate::snapshot;

/// How often it looks. The log grows by some hundred megabytes in between at the very most.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Keeper {
    pub(super) raft: Raft,
    pub(super) log: Log,
    pub(super) snapshots: Arc<snapshot::Store>,
    pub(super) every_bytes: u64,
}

impl Keeper {
    pub(super) async fn run(self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Bytes of an earlier run count too, or a server restarted often would never snapshot.
        let mut base: u64 = 0;
        let already = self.log.stats().bytes_on_disk;
        let mut snapshot_seen = self.snapshot_index();
        loop {
            ticks.tick().await;
            let written = already.saturating_add(self.log.stats().bytes_written);
            let snapshot = self.snapshot_index();
            if snapshot != snapshot_seen {
                snapshot_seen = snapshot;
                base = written;
            }
            if written.saturating_sub(base) >= self.every_bytes {
                base = written;
                if self.raft.trigger().snapshot().await.is_err() {
                    return;
                }
            }
            if let Some(upto) = self.purgeable()
                && self.raft.trigger().purge_log(upto).await.is_err()
            {
                return;
            }
        }
    }

    fn snapshot_index(&self) -> Option<u64> {
        self.snapshots.current().and_then(|snapshot| snapshot.head.last).map(|last| last.index)
    }

    fn purgeable(&self) -> Option<u64> {
        let upto = self.snapshots.purgeable_index()?;
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let purged = metrics.purged.as_ref().map_or(0, |purged| purged.index);
        let known = metrics.snapshot.as_ref().map_or(0, |snapshot| snapshot.index);
        // The library must know of the snapshot before it lets go of what the snapshot holds.
        let upto = upto.min(known);
        (upto >= purged.saturating_add(PURGE_ENTRIES_MIN)).then_some(upto)
    }
}
