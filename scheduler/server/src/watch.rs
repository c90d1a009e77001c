//! Wakes those who watch a job when it has changed.
//!
//! **Invariant:** level-triggered: a watcher learns that something changed, looks at the state
//! itself, and gets one wake for any number of changes it has not looked at yet. Memory is bounded
//! by the number of watchers, however slow they are.

use crate::applied::{Fanout, lock};
use scheduler_core::id::JobId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// Most watches on one server: each is an open stream.
pub const WATCHES_MAX: usize = 16_384;

/// Too many watches are open on this server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{WATCHES_MAX} watches are open on this server; no more are taken")]
pub struct TooMany;

/// All watches of this server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct WatchHub(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    jobs: BTreeMap<JobId, watch::Sender<()>>,
    watches: usize,
    shut: bool,
}

/// One watch of one job; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    hub: WatchHub,
    job: JobId,
    changed: watch::Receiver<()>,
}

impl WatchHub {
    /// Watches a job. Subscribe first, then look at the state: what changes after that wakes.
    pub fn subscribe(&self, job: JobId) -> Result<Watch, TooMany> {
        let mut inner = lock(&self.0);
        if inner.watches >= WATCHES_MAX {
            return Err(TooMany);
        }
        inner.watches += 1;
        let changed = if inner.shut {
            // Its sender is gone already: the watch ends at once.
            watch::channel(()).1
        } else {
            inner.jobs.entry(job).or_insert_with(|| watch::channel(()).0).subscribe()
        };
        drop(inner);
        Ok(Watch { hub: self.clone(), job, changed })
    }

    /// Wakes watchers for as long as it is polled.
    pub async fn run(self, fanout: Arc<Fanout>) {
        loop {
            let changes = fanout.jobs.next().await;
            if changes.everything {
                lock(&self.0).jobs.values().for_each(|job| job.send_modify(|()| ()));
            } else {
                self.wake(&changes.items);
            }
        }
    }

    fn wake(&self, changed: &[JobId]) {
        let inner = lock(&self.0);
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
        let mut inner = lock(&self.0);
        inner.shut = true;
        inner.jobs.clear();
    }

    /// Watches open now.
    pub fn len(&self) -> usize {
        lock(&self.0).watches
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Watch {
    /// Waits for a change since the last call (or since subscribing). `false` = the server shuts
    /// down, nothing more will come. Safe to drop half-way.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut inner = lock(&self.hub.0);
        inner.watches = inner.watches.saturating_sub(1);
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

    #[tokio::test]
    async fn many_changes_are_one_wake_and_other_jobs_none() {
        let hub = WatchHub::default();
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
        let hub = WatchHub::default();
        let first = hub.subscribe(JobId(1)).expect("room");
        let mut second = hub.subscribe(JobId(1)).expect("room");
        drop(first);
        hub.wake(&[JobId(1)]);
        assert!(second.changed().await);
        drop(second);
        assert!(hub.is_empty());
        assert!(lock(&hub.0).jobs.is_empty());
    }

    #[tokio::test]
    async fn shutting_down_ends_watches_old_and_new() {
        let hub = WatchHub::default();
        let mut before = hub.subscribe(JobId(1)).expect("room");
        hub.shut_down();
        assert!(!before.changed().await);
        assert!(!hub.subscribe(JobId(1)).expect("room").changed().await);
    }

    #[tokio::test]
    async fn changes_are_picked_up_from_the_applying_task() {
        let (hub, fanout) = (WatchHub::default(), Arc::new(Fanout::default()));
        let mut watch = hub.subscribe(JobId(1)).expect("room");
        let task = tokio::spawn(hub.clone().run(Arc::clone(&fanout)));
        fanout.jobs.extend([JobId(1)].into_iter());
        assert!(watch.changed().await);
        fanout.jobs.everything();
        assert!(watch.changed().await);
        task.abort();
    }
}
