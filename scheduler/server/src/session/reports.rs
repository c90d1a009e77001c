//! Gathers what agents say of their replicas into few big entries.
//!
//! Thousands of agents report within the same second when a large job starts; one log entry each
//! would drown the quorum. Reports wait a few milliseconds, or for the entry before them.
//! **Invariant:** bounded: one report per assignment and node waits, and sessions stop reading
//! when too many do. A report lost here is never lost for good: agents repeat all on reconnect,
//! and what could not be delivered is kept.

use crate::applied::lock;
use futures::future::BoxFuture;
use scheduler_core::command::ReplicaReport;
use scheduler_core::id::{AssignmentId, NodeId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore};

/// Reports in one entry: below 100 KiB and well below a millisecond of apply.
pub const BATCH_MAX: usize = 4_096;
/// How long the first report of a batch waits for others: invisible beside a start, and enough
/// for hundreds of agents to be heard.
const LINGER: Duration = Duration::from_millis(5);
/// Entries on their way at a time: one is being written while the next one travels.
const IN_FLIGHT_MAX: usize = 2;
/// Reports that wait before sessions stop reading: about 20 MiB.
const WAITING_MAX: usize = 262_144;
/// Pause before a failed batch is sent again: an election takes about a second.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Why a batch was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Undelivered {
    /// Worth another try; reports may safely come twice.
    Retry,
    /// Never to be accepted.
    Refused,
}

/// Sends one batch to the leader.
pub type Send = dyn Fn(Vec<ReplicaReport>) -> BoxFuture<'static, Result<(), Undelivered>>
    + std::marker::Send
    + Sync;

/// Reports on their way to the leader.
#[derive(Debug, Default)]
pub struct Reports {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

/// The node is part of the key: a node that reports for another one's assignment must not
/// displace what that one says.
type Key = (AssignmentId, NodeId);

#[derive(Debug, Default)]
struct Waiting {
    reports: BTreeMap<Key, ReplicaReport>,
    stalled: Vec<Waker>,
}

fn key(report: &ReplicaReport) -> Key {
    (report.assignment, report.node)
}

impl Reports {
    /// Whether there is room for more; if not, the task is woken when there is.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = lock(&self.waiting);
        if waiting.reports.len() < WAITING_MAX {
            return Poll::Ready(());
        }
        waiting.stalled.push(cx.waker().clone());
        Poll::Pending
    }

    /// Takes in reports; a later one of the same assignment replaces one that is still unsent.
    pub fn push(&self, reports: impl IntoIterator<Item = ReplicaReport>) {
        let mut waiting = lock(&self.waiting);
        for report in reports {
            waiting.reports.insert(key(&report), report);
        }
        let ring = !waiting.reports.is_empty();
        drop(waiting);
        if ring {
            self.bell.notify_one();
        }
    }

    /// Puts back what was not delivered, unless something newer waits.
    fn put_back(&self, reports: Vec<ReplicaReport>) {
        let mut waiting = lock(&self.waiting);
        for report in reports {
            waiting.reports.entry(key(&report)).or_insert(report);
        }
        drop(waiting);
        self.bell.notify_one();
    }

    fn take(&self) -> Vec<ReplicaReport> {
        let mut waiting = lock(&self.waiting);
        let batch = if waiting.reports.len() <= BATCH_MAX {
            std::mem::take(&mut waiting.reports).into_values().collect()
        } else {
            let keys: Vec<Key> = waiting.reports.keys().copied().take(BATCH_MAX).collect();
            keys.iter().filter_map(|key| waiting.reports.remove(key)).collect()
        };
        let stalled = if waiting.reports.len() < WAITING_MAX {
            std::mem::take(&mut waiting.stalled)
        } else {
            Vec::new()
        };
        drop(waiting);
        stalled.into_iter().for_each(Waker::wake);
        batch
    }

    fn waiting(&self) -> usize {
        lock(&self.waiting).reports.len()
    }

    /// Sends batches for as long as it is polled.
    pub async fn run(self: Arc<Self>, send: Arc<Send>) {
        let permits = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
        loop {
            if self.waiting() == 0 {
                self.bell.notified().await;
                continue;
            }
            if self.waiting() < BATCH_MAX {
                tokio::time::sleep(LINGER).await;
            }
            // Closed never; and what gathers while we wait goes along.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let batch = self.take();
            if batch.is_empty() {
                continue;
            }
            let (reports, send) = (Arc::clone(&self), Arc::clone(&send));
            tokio::spawn(async move {
                let _permit = permit;
                match send(batch.clone()).await {
                    Ok(()) => {}
                    Err(Undelivered::Retry) => {
                        reports.put_back(batch);
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                    Err(Undelivered::Refused) => {
                        tracing::error!(reports = batch.len(), "the leader refused reports");
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::command::Observed;
    use scheduler_core::id::{JobId, Rank};
    use tokio::sync::mpsc;

    fn report(assignment: u64, node: u32, observed: Observed) -> ReplicaReport {
        ReplicaReport {
            job: JobId(1),
            rank: Rank(0),
            assignment: AssignmentId(assignment),
            node: NodeId(node),
            observed,
        }
    }

    /// Runs the coalescer with a sender whose answers the test gives.
    struct Bench {
        reports: Arc<Reports>,
        sent: mpsc::UnboundedReceiver<Vec<ReplicaReport>>,
        task: tokio::task::JoinHandle<()>,
    }

    impl Drop for Bench {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    fn bench(answers: Vec<Result<(), Undelivered>>) -> Bench {
        let (tx, sent) = mpsc::unbounded_channel();
        let answers = Mutex::new(answers.into_iter());
        let reports = Arc::new(Reports::default());
        let send: Arc<Send> = Arc::new(move |batch| {
            let answer = lock(&answers).next().unwrap_or(Ok(()));
            let _ = tx.send(batch);
            Box::pin(async move { answer })
        });
        let task = tokio::spawn(Arc::clone(&reports).run(send));
        Bench { reports, sent, task }
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_report_replaces_an_unsent_one_of_the_same_node_only() {
        let mut bench = bench(Vec::new());
        bench.reports.push([report(1, 1, Observed::Starting), report(2, 1, Observed::Starting)]);
        bench.reports.push([report(1, 1, Observed::Ready), report(1, 9, Observed::Succeeded)]);
        let batch = bench.sent.recv().await.expect("a batch");
        assert_eq!(
            batch,
            [
                report(1, 1, Observed::Ready),
                report(1, 9, Observed::Succeeded),
                report(2, 1, Observed::Starting),
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn many_reports_become_few_batches_and_none_is_lost() {
        let mut bench = bench(Vec::new());
        for assignment in 0..10_000 {
            bench.reports.push([report(assignment, 1, Observed::Ready)]);
        }
        let mut sizes = Vec::new();
        while sizes.iter().sum::<usize>() < 10_000 {
            sizes.push(bench.sent.recv().await.expect("a batch").len());
        }
        assert_eq!(sizes, [BATCH_MAX, BATCH_MAX, 10_000 - 2 * BATCH_MAX]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_delivered_comes_again_but_not_over_something_newer() {
        let mut bench = bench(vec![Err(Undelivered::Retry)]);
        bench.reports.push([report(1, 1, Observed::Starting), report(2, 1, Observed::Starting)]);
        assert_eq!(bench.sent.recv().await.expect("a batch").len(), 2);
        bench.reports.push([report(2, 1, Observed::Ready)]);
        let mut seen = BTreeMap::new();
        while seen.get(&1) != Some(&Observed::Starting) || seen.get(&2) != Some(&Observed::Ready) {
            for report in bench.sent.recv().await.expect("a batch") {
                seen.insert(report.assignment.0, report.observed);
            }
        }
    }

    #[test]
    fn sessions_stop_reading_when_too_much_waits_and_go_on_when_it_is_taken() {
        let reports = Reports::default();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(reports.poll_room(&mut cx).is_ready());
        let many = 0..u64::try_from(WAITING_MAX).expect("fits");
        reports.push(many.map(|assignment| report(assignment, 1, Observed::Ready)));
        assert!(reports.poll_room(&mut cx).is_pending());
        assert_eq!(reports.take().len(), BATCH_MAX);
        assert!(reports.poll_room(&mut cx).is_ready());
        assert!(lock(&reports.waiting).stalled.is_empty());
    }
}
