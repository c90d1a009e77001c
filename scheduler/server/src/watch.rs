//! Wakes those who watch a job when it has changed, and parts with those who do not read.
//!
//! **Invariant:** level-triggered: a watcher learns that something changed, looks at the state
//! itself, and gets one wake for any number of changes it has not looked at yet. Memory is bounded
//! however slow the watchers are: each has at most two messages on the way, one that the connection
//! holds and one that waits for room there, and those that wait have a bound in bytes together.

use crate::applied::{Fanout, lock};
use crate::clock;
use scheduler_core::id::JobId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Most watches on one server: each is an open stream.
pub const WATCHES_MAX: usize = 16_384;
/// Most bytes of messages that wait for room in their connections, which clients make by reading.
/// A quarter of what a server of a large fleet takes itself.
pub const UNREAD_BYTES_MAX: usize = 128 << 20;
/// Looks for clients that do not read, in one time that they may take.
const LOOKS_PER_STALL: u32 = 4;

/// Too many watches are open on this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{WATCHES_MAX} watches are open on this server; no more are taken")]
pub struct TooMany;

/// Why a watch is ended before its job is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Part {
    #[error("this watch was not read for {} ms; watch again to see the job as it is now", .0.as_millis())]
    Slow(Duration),
    #[error(
        "the watches of this server hold {UNREAD_BYTES_MAX} bytes that nobody reads; no more are sent"
    )]
    Full,
}

/// All watches of this server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct WatchHub {
    inner: Arc<Mutex<Inner>>,
    /// A client that takes nothing for so long is parted with.
    stall: Duration,
}

#[derive(Debug, Default)]
struct Inner {
    jobs: BTreeMap<JobId, watch::Sender<()>>,
    watches: usize,
    /// Messages on the way, by watch.
    unread: BTreeMap<u64, Unread>,
    unread_bytes: usize,
    /// Number of the newest watch.
    last: u64,
    shut: bool,
}

/// A message handed over whose stream has not asked for the next one since.
#[derive(Debug)]
struct Unread {
    bytes: usize,
    since: Instant,
    /// The watch is ended; what the connection buffers stays until the client reads it or goes.
    parted: bool,
}

/// One watch of one job; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    hub: WatchHub,
    number: u64,
    job: JobId,
    changed: watch::Receiver<()>,
}

impl WatchHub {
    /// Without watches. Clients that take nothing for `stall` are parted with.
    pub fn new(stall: Duration) -> Self {
        Self { inner: Arc::default(), stall }
    }

    /// Watches a job. Subscribe first, then look at the state: what changes after that wakes.
    pub fn subscribe(&self, job: JobId) -> Result<Watch, TooMany> {
        let mut inner = lock(&self.inner);
        if inner.watches >= WATCHES_MAX {
            return Err(TooMany);
        }
        inner.watches += 1;
        inner.last += 1;
        let number = inner.last;
        let changed = if inner.shut {
            // Its sender is gone already: the watch ends at once.
            watch::channel(()).1
        } else {
            inner.jobs.entry(job).or_insert_with(|| watch::channel(()).0).subscribe()
        };
        drop(inner);
        Ok(Watch { hub: self.clone(), number, job, changed })
    }

    /// Wakes watchers and parts with those who do not read, for as long as it is polled.
    pub async fn run(self, fanout: Arc<Fanout>) {
        futures::future::join(self.wake_always(&fanout), self.look_always()).await;
    }

    async fn wake_always(&self, fanout: &Fanout) {
        loop {
            let changes = fanout.jobs.next().await;
            if changes.everything {
                lock(&self.inner).jobs.values().for_each(|job| job.send_modify(|()| ()));
            } else {
                self.wake(&changes.items);
            }
        }
    }

    async fn look_always(&self) {
        loop {
            tokio::time::sleep(self.stall / LOOKS_PER_STALL).await;
            self.part_with_slow(clock::instant());
        }
    }

    /// Ends the watches whose clients have taken nothing since long before `now`. They learn of it
    /// when they read on; their places are free at once.
    fn part_with_slow(&self, now: Instant) {
        let mut inner = lock(&self.inner);
        let mut parted = 0;
        for unread in inner.unread.values_mut() {
            if !unread.parted && now.saturating_duration_since(unread.since) >= self.stall {
                unread.parted = true;
                parted += 1;
            }
        }
        inner.watches = inner.watches.saturating_sub(parted);
        drop(inner);
        if parted > 0 {
            tracing::warn!(watches = parted, "parted with clients that do not read their watches");
        }
    }

    fn wake(&self, changed: &[JobId]) {
        let inner = lock(&self.inner);
        if inner.jobs.len() < changed.len() {
            // Few watches beside a flood of jobs: the usual case under load.
            for (id, job) in &inner.jobs {
                if changed.binary_search(id).is_ok() {
                    job.send_modify(|()| ());
                }
            }
        } else {
            let jobs = changed.iter().filter_map(|id| inner.jobs.get(id));
            jobs.for_each(|job| job.send_modify(|()| ()));
        }
    }

    /// Ends all watches, and new ones at once.
    pub fn shut_down(&self) {
        let mut inner = lock(&self.inner);
        inner.shut = true;
        inner.jobs.clear();
    }

    /// Watches open now, those parted with not counted.
    pub fn len(&self) -> usize {
        lock(&self.inner).watches
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of messages that wait for room; at most [`UNREAD_BYTES_MAX`].
    pub fn unread_bytes(&self) -> usize {
        lock(&self.inner).unread_bytes
    }
}

impl Inner {
    fn forget_unread(&mut self, number: u64) -> Option<Unread> {
        let unread = self.unread.remove(&number)?;
        self.unread_bytes = self.unread_bytes.saturating_sub(unread.bytes);
        Some(unread)
    }
}

impl Watch {
    /// Waits for a change since the last call (or since subscribing). `false` = the server shuts
    /// down, nothing more will come. Safe to drop half-way.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }

    /// A message of so many bytes is handed to the connection now.
    pub fn handed(&self, bytes: usize) -> Result<(), Part> {
        let mut inner = lock(&self.hub.inner);
        if inner.unread_bytes.saturating_add(bytes) > UNREAD_BYTES_MAX {
            return Err(Part::Full);
        }
        inner.unread_bytes += bytes;
        let unread = Unread { bytes, since: clock::instant(), parted: false };
        inner.unread.insert(self.number, unread);
        Ok(())
    }

    /// The connection asks for more: what was handed to it before is on its way, or so late that
    /// the watch has been ended.
    pub fn taken(&self) -> Result<(), Part> {
        let mut inner = lock(&self.hub.inner);
        match inner.unread.get(&self.number) {
            Some(unread) if unread.parted => Err(Part::Slow(self.hub.stall)),
            _ => {
                inner.forget_unread(self.number);
                Ok(())
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = lock(&self.hub.inner);
        let unread = inner.forget_unread(self.number);
        if unread.is_none_or(|unread| !unread.parted) {
            inner.watches = inner.watches.saturating_sub(1);
        }
        // This receiver is still counted.
        if inner.jobs.get(&self.job).is_some_and(|job| job.receiver_count() <= 1) {
            inner.jobs.remove(&self.job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    const STALL: Duration = Duration::from_secs(30);

    fn hub() -> WatchHub {
        WatchHub::new(STALL)
    }

    #[tokio::test]
    async fn many_changes_are_one_wake_and_other_jobs_none() {
        let hub = hub();
        let mut one = hub.subscribe(JobId(1)).expect("room");
        let mut two = hub.subscribe(JobId(2)).expect("room");
        for _ in 0..100 {
            hub.wake(&[JobId(1), JobId(7), JobId(9)]);
        }
        assert!(one.changed().await);
        assert!(one.changed().now_or_never().is_none());
        assert!(two.changed().now_or_never().is_none());
        hub.wake(&[JobId(2)]);
        assert!(two.changed().await);
    }

    #[tokio::test]
    async fn nothing_is_kept_of_watches_that_are_gone() {
        let hub = hub();
        let first = hub.subscribe(JobId(1)).expect("room");
        let mut second = hub.subscribe(JobId(1)).expect("room");
        drop(first);
        hub.wake(&[JobId(1)]);
        assert!(second.changed().await);
        drop(second);
        assert!(hub.is_empty());
        assert!(lock(&hub.inner).jobs.is_empty());
    }

    #[tokio::test]
    async fn shutting_down_ends_watches_old_and_new() {
        let hub = hub();
        let mut before = hub.subscribe(JobId(1)).expect("room");
        hub.shut_down();
        assert!(!before.changed().await);
        assert!(!hub.subscribe(JobId(1)).expect("room").changed().await);
    }

    #[tokio::test]
    async fn changes_are_picked_up_from_the_applying_task() {
        let (hub, fanout) = (hub(), Arc::new(Fanout::default()));
        let mut watch = hub.subscribe(JobId(1)).expect("room");
        let task = tokio::spawn(hub.clone().run(Arc::clone(&fanout)));
        fanout.jobs.extend([JobId(1)].into_iter());
        assert!(watch.changed().await);
        fanout.jobs.everything();
        assert!(watch.changed().await);
        task.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_nothing_for_long_is_parted_with_and_others_are_not() {
        let (hub, fanout) = (hub(), Arc::new(Fanout::default()));
        let task = tokio::spawn(hub.clone().run(fanout));
        let watch = || hub.subscribe(JobId(1)).expect("room");
        let (slow, reading, idle) = (watch(), watch(), watch());
        slow.handed(1_000).expect("room");
        for _ in 0..10 {
            reading.handed(500).expect("room");
            tokio::time::sleep(STALL / 5).await;
            reading.taken().expect("read in time");
        }
        assert_eq!(slow.taken(), Err(Part::Slow(STALL)));
        idle.taken().expect("nothing was sent to it");
        // Its place is free, but what lies in its connection still counts until it is gone.
        assert_eq!((hub.len(), hub.unread_bytes()), (2, 1_000));
        drop(slow);
        assert_eq!((hub.len(), hub.unread_bytes()), (2, 0));
        drop((reading, idle));
        assert!(hub.is_empty() && lock(&hub.inner).unread.is_empty());
        task.abort();
    }

    #[tokio::test]
    async fn what_nobody_reads_is_bounded_in_bytes() {
        let hub = hub();
        let message = UNREAD_BYTES_MAX / 10;
        let watches: Vec<_> = (0..11).map(|_| hub.subscribe(JobId(1)).expect("room")).collect();
        for watch in &watches[..10] {
            watch.handed(message).expect("room");
        }
        assert_eq!(watches[10].handed(message), Err(Part::Full));
        watches[3].taken().expect("read");
        watches[10].handed(message).expect("room again");
        assert!(hub.unread_bytes() <= UNREAD_BYTES_MAX);
        drop(watches);
        assert_eq!((hub.len(), hub.unread_bytes()), (0, 0));
    }
}
