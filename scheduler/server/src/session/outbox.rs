//! What waits to be sent to one agent: never more than one message of each sort.
//!
//! **Invariant:** bounded whatever the agent does: the newest desired state replaces an unsent
//! older one, an acknowledgement covers all before it, and after an `end` nothing follows.

use crate::applied::lock;
use proto::v1::session_response::Message;
use proto::v1::{DesiredState, HeartbeatAck, ProbeTargets, SessionEnd};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

/// Messages for one agent; one consumer.
#[derive(Debug, Default)]
pub struct Outbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    desired: Option<DesiredState>,
    /// Index of the newest desired state ever posted.
    index: u64,
    ack: Option<u64>,
    probes: Option<ProbeTargets>,
    end: Option<SessionEnd>,
    ended: bool,
    waker: Option<Waker>,
}

impl Outbox {
    /// Posts a desired state unless a newer one was posted before. Returns whether it was taken.
    pub fn post(&self, desired: DesiredState) -> bool {
        let mut inner = lock(&self.inner);
        if inner.ended || desired.index < inner.index {
            return false;
        }
        inner.index = desired.index;
        inner.desired = Some(desired);
        wake(inner);
        true
    }

    /// Posts the acknowledgement of a heartbeat and of all before it.
    pub fn acknowledge(&self, sequence: u64) {
        let mut inner = lock(&self.inner);
        if !inner.ended {
            inner.ack = Some(sequence);
            wake(inner);
        }
    }

    /// Posts whom to measure; replaces what is unsent.
    pub fn probe(&self, targets: ProbeTargets) {
        let mut inner = lock(&self.inner);
        if !inner.ended {
            inner.probes = Some(targets);
            wake(inner);
        }
    }

    /// Posts the farewell; the first one counts, and what is still unsent is dropped.
    pub fn end(&self, end: SessionEnd) {
        let mut inner = lock(&self.inner);
        if !inner.ended {
            inner.ended = true;
            inner.end = Some(end);
            inner.desired = None;
            inner.ack = None;
            inner.probes = None;
            wake(inner);
        }
    }

    /// The next message; `None` after the farewell was taken.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        let mut inner = lock(&self.inner);
        if let Some(message) = inner.take() {
            return Poll::Ready(Some(message));
        }
        if inner.ended {
            return Poll::Ready(None);
        }
        match &mut inner.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Inner {
    fn take(&mut self) -> Option<Message> {
        if let Some(end) = self.end.take() {
            return Some(Message::End(end));
        }
        if let Some(sequence) = self.ack.take() {
            return Some(Message::HeartbeatAck(HeartbeatAck { sequence }));
        }
        let desired = self.desired.take().map(Message::Desired);
        desired.or_else(|| self.probes.take().map(Message::Probes))
    }
}

/// Wakes the consumer after the lock is given back: it would only wait for it.
fn wake(mut inner: std::sync::MutexGuard<'_, Inner>) {
    let waker = inner.waker.take();
    drop(inner);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::SessionEndReason;

    fn desired(index: u64) -> DesiredState {
        DesiredState { epoch: 1, index, assignments: Vec::new() }
    }

    fn drain(outbox: &Outbox) -> Vec<Message> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut out = Vec::new();
        while let Poll::Ready(Some(message)) = outbox.poll(&mut cx) {
            out.push(message);
        }
        out
    }

    #[test]
    fn a_thousand_changes_while_the_agent_is_slow_become_one_message() {
        let outbox = Outbox::default();
        for index in 1..=1_000 {
            assert!(outbox.post(desired(index)));
            outbox.acknowledge(index);
        }
        let ack = Message::HeartbeatAck(HeartbeatAck { sequence: 1_000 });
        assert_eq!(drain(&outbox), [ack, Message::Desired(desired(1_000))]);
        assert!(drain(&outbox).is_empty());
    }

    #[test]
    fn an_older_state_never_follows_a_newer_one() {
        let outbox = Outbox::default();
        assert!(outbox.post(desired(7)));
        assert!(!outbox.post(desired(6)));
        assert_eq!(drain(&outbox), [Message::Desired(desired(7))]);
        // Not even once the newer one is on its way.
        assert!(!outbox.post(desired(6)));
        assert!(drain(&outbox).is_empty());
        // The same index again is another look at the same state.
        assert!(outbox.post(desired(7)));
    }

    #[test]
    fn nothing_follows_the_farewell() {
        let outbox = Outbox::default();
        outbox.post(desired(7));
        let end =
            |reason: SessionEndReason| SessionEnd { reason: reason.into(), message: String::new() };
        outbox.end(end(SessionEndReason::Shutdown));
        outbox.end(end(SessionEndReason::Removed));
        assert!(!outbox.post(desired(8)));
        outbox.acknowledge(3);
        assert_eq!(drain(&outbox), [Message::End(end(SessionEndReason::Shutdown))]);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll(&mut cx), Poll::Ready(None));
    }
}
