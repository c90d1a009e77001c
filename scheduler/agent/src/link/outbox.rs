//! What waits to be sent on one session.
//!
//! **Invariant:** bounded by what the agent holds: of a replica only the newest report waits, of
//! heartbeats and of measured round trips only the last, so a server that does not read costs no memory. The hello goes first.

use futures::Stream;
use futures::task::AtomicWaker;
use proto::v1;
use proto::v1::session_request::Message;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// Most reports in one message, as in the contract.
const REPORTS_MAX: usize = 4096;

/// The side that fills it. When it is dropped, the stream ends.
#[derive(Debug)]
pub struct Outbox(Arc<Inner>);

/// The side that tonic reads.
#[derive(Debug)]
pub struct OutboxStream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waiting: Mutex<Waiting>,
    reader: AtomicWaker,
}

#[derive(Debug)]
struct Waiting {
    hello: Option<Box<v1::SessionHello>>,
    reports: BTreeMap<u64, v1::ReplicaReport>,
    heartbeat: Option<u64>,
    probes: Vec<v1::ProbeReport>,
    closed: bool,
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outbox {
    pub fn new(hello: v1::SessionHello) -> Outbox {
        let waiting = Waiting {
            hello: Some(Box::new(hello)),
            reports: BTreeMap::new(),
            heartbeat: None,
            probes: Vec::new(),
            closed: false,
        };
        Outbox(Arc::new(Inner { waiting: Mutex::new(waiting), reader: AtomicWaker::new() }))
    }

    /// The messages, for one reader.
    pub fn stream(&self) -> OutboxStream {
        OutboxStream(Arc::clone(&self.0))
    }

    /// Says how a replica is; an unsent older word about it is dropped.
    pub fn report(&self, report: v1::ReplicaReport) {
        self.0.lock().reports.insert(report.assignment, report);
        self.0.reader.wake();
    }

    /// Says what was measured; replaces what is unsent.
    pub fn probes(&self, reports: Vec<v1::ProbeReport>) {
        self.0.lock().probes = reports;
        self.0.reader.wake();
    }

    /// Whether a heartbeat still waits to be sent.
    pub fn has_heartbeat(&self) -> bool {
        self.0.lock().heartbeat.is_some()
    }

    /// Sends a heartbeat.
    pub fn heartbeat(&self, sequence: u64) {
        self.0.lock().heartbeat = Some(sequence);
        self.0.reader.wake();
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.reader.wake();
    }
}

impl Waiting {
    fn pop(&mut self) -> Option<Message> {
        if let Some(hello) = self.hello.take() {
            return Some(Message::Hello(*hello));
        }
        if !self.reports.is_empty() {
            let rest = match self.reports.keys().nth(REPORTS_MAX).copied() {
                Some(first_left) => self.reports.split_off(&first_left),
                None => BTreeMap::new(),
            };
            let now = std::mem::replace(&mut self.reports, rest);
            return Some(Message::Reports(v1::ReplicaReports {
                reports: now.into_values().collect(),
            }));
        }
        if let Some(sequence) = self.heartbeat.take() {
            return Some(Message::Heartbeat(v1::Heartbeat { sequence }));
        }
        let reports = std::mem::take(&mut self.probes);
        (!reports.is_empty()).then_some(Message::Probes(v1::ProbeReports { reports }))
    }
}

impl Stream for OutboxStream {
    type Item = v1::SessionRequest;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.reader.register(cx.waker());
        let mut waiting = self.0.lock();
        match waiting.pop() {
            Some(message) => Poll::Ready(Some(v1::SessionRequest { message: Some(message) })),
            None if waiting.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt, StreamExt};

    fn outbox() -> (Outbox, OutboxStream) {
        let outbox = Outbox::new(v1::SessionHello::default());
        let stream = outbox.stream();
        (outbox, stream)
    }

    fn next(stream: &mut OutboxStream) -> Option<Option<Message>> {
        let request = stream.next().now_or_never()?;
        Some(request.map(|request| request.message.unwrap()))
    }

    fn report(assignment: u64, phase: v1::ObservedPhase) -> v1::ReplicaReport {
        v1::ReplicaReport { assignment, phase: phase.into(), ..Default::default() }
    }

    #[test]
    fn hello_first_then_reports_then_heartbeat() {
        let (outbox, mut stream) = outbox();
        outbox.heartbeat(1);
        outbox.report(report(1, v1::ObservedPhase::Starting));
        outbox.report(report(1, v1::ObservedPhase::Ready));
        outbox.heartbeat(2);
        assert!(matches!(next(&mut stream), Some(Some(Message::Hello(_)))));
        let Some(Some(Message::Reports(reports))) = next(&mut stream) else { panic!("reports") };
        assert_eq!(reports.reports, [report(1, v1::ObservedPhase::Ready)]);
        let beat = Message::Heartbeat(v1::Heartbeat { sequence: 2 });
        assert_eq!(next(&mut stream), Some(Some(beat)));
        assert_eq!(next(&mut stream), None);
        drop(outbox);
        assert_eq!(next(&mut stream), Some(None));
    }

    #[test]
    fn messages_are_bounded() {
        let (outbox, mut stream) = outbox();
        for assignment in 0..REPORTS_MAX as u64 + 1 {
            outbox.report(report(assignment, v1::ObservedPhase::Ready));
        }
        next(&mut stream);
        for expected in [REPORTS_MAX, 1] {
            let Some(Some(Message::Reports(got))) = next(&mut stream) else { panic!("reports") };
            assert_eq!(got.reports.len(), expected);
        }
    }
}
