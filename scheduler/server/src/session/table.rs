//! The sessions that end on this server: one slot per node, found by node id.
//!
//! **Invariant:** at most one slot per node; a slot is taken only for an identity that was
//! verified. The lock of the table is never held while a slot is woken or a message is built.

use super::Digest;
use super::outbox::Outbox;
use super::probes::Asked;
use crate::applied::lock;
use crate::clock;
use proto::v1::{SessionEnd, SessionEndReason};
use raft_store::ServerId;
use scheduler_core::duty::leases::{Closed, Heard, Instance};
use scheduler_core::id::{Epoch, NodeId};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The session of one node.
#[derive(Debug)]
pub struct Slot {
    pub node: NodeId,
    pub epoch: Epoch,
    pub instance: Instance,
    pub outbox: Outbox,
    /// Nodes to which it measures round trips.
    pub asked: Asked,
    opened: Instant,
    /// When the agent was heard last, in milliseconds since `opened`.
    heard_ms: AtomicU64,
    /// Messages heard so far, the hello counted.
    said: AtomicU64,
    /// `said` as of the last digest that the leader took in.
    told: AtomicU64,
    /// Number of the newest heartbeat; 0 = none yet (agents count from 1).
    beat: AtomicU64,
}

impl Slot {
    fn new(node: NodeId, epoch: Epoch, instance: Instance) -> Self {
        Self {
            node,
            epoch,
            instance,
            outbox: Outbox::default(),
            asked: Asked::default(),
            opened: clock::instant(),
            heard_ms: AtomicU64::new(0),
            said: AtomicU64::new(1),
            told: AtomicU64::new(0),
            beat: AtomicU64::new(0),
        }
    }

    /// The agent said something.
    pub fn hear(&self) {
        self.heard_ms.store(clock::millis(self.opened.elapsed()).0, Relaxed);
        self.said.fetch_add(1, Relaxed);
    }

    /// The agent sent this heartbeat; it is acknowledged once the leader has counted it. Returns
    /// whether it was the first.
    pub fn beat(&self, sequence: u64) -> bool {
        let before = self.beat.swap(sequence, Relaxed);
        self.hear();
        before == 0
    }

    /// How long the agent has been silent.
    pub fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard_ms.load(Relaxed));
        self.opened.elapsed().saturating_sub(heard)
    }

    fn closed(&self) -> Closed {
        Closed { node: self.node, epoch: self.epoch, instance: self.instance }
    }
}

/// Why a session cannot open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process of the same identity is connected.
    #[error("another process with this node's key is connected")]
    Held,
    /// A session of a newer epoch is open.
    #[error("a session of a newer epoch is open")]
    Stale,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("the server has lost touch with the quorum")]
    CutOff,
    #[error("{SESSIONS_MAX} sessions are open on this server; no more are taken")]
    Full,
}

/// Most sessions on one server: half the largest fleet, at about 25 KiB each.
pub const SESSIONS_MAX: usize = 131_072;

/// All sessions of this server.
#[derive(Debug, Default)]
pub struct Table {
    inner: Mutex<Inner>,
    /// Rung when a digest should not wait for its turn.
    hurry: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<NodeId, Arc<Slot>>,
    /// Sessions closed since the last digest that came through; one per node is enough.
    closed: BTreeMap<NodeId, Closed>,
    shutting_down: bool,
    cut_off: bool,
}

/// What one digest was made of, to be settled when its answer is here.
#[derive(Debug)]
pub struct Sweep {
    pub digest: Digest,
    told: Vec<Told>,
}

#[derive(Debug)]
struct Told {
    slot: Arc<Slot>,
    said: u64,
    beat: u64,
}

impl Table {
    /// Opens the session of a verified identity. An older session of the node is told to end.
    pub fn open(
        &self,
        node: NodeId,
        epoch: Epoch,
        instance: Instance,
    ) -> Result<Arc<Slot>, OpenError> {
        let mut inner = lock(&self.inner);
        if inner.shutting_down {
            return Err(OpenError::ShuttingDown);
        }
        if inner.cut_off {
            return Err(OpenError::CutOff);
        }
        if let Some(old) = inner.slots.get(&node) {
            if old.epoch > epoch {
                return Err(OpenError::Stale);
            }
            if old.epoch == epoch && old.instance != instance {
                return Err(OpenError::Held);
            }
        } else if inner.slots.len() >= SESSIONS_MAX {
            return Err(OpenError::Full);
        }
        let slot = Arc::new(Slot::new(node, epoch, instance));
        // What the leader was told of an older session of this process must not end this one.
        inner.closed.remove(&node);
        let old = inner.slots.insert(node, Arc::clone(&slot));
        drop(inner);
        if let Some(old) = old {
            old.outbox.end(end(SessionEndReason::Superseded, "a newer session has opened"));
        }
        Ok(slot)
    }

    /// The stream of a slot is gone.
    pub fn close(&self, slot: &Arc<Slot>) {
        let mut inner = lock(&self.inner);
        if inner.slots.get(&slot.node).is_some_and(|held| Arc::ptr_eq(held, slot)) {
            inner.slots.remove(&slot.node);
            inner.closed.insert(slot.node, slot.closed());
        }
    }

    /// The sessions of these nodes that end here.
    pub fn find(&self, nodes: impl Iterator<Item = NodeId>) -> Vec<Arc<Slot>> {
        let inner = lock(&self.inner);
        nodes.filter_map(|node| inner.slots.get(&node).cloned()).collect()
    }

    /// All sessions.
    pub fn all(&self) -> Vec<Arc<Slot>> {
        lock(&self.inner).slots.values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        lock(&self.inner).slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends all sessions and takes no new ones.
    pub fn shut_down(&self) {
        lock(&self.inner).shutting_down = true;
        for slot in self.all() {
            slot.outbox.end(end(SessionEndReason::Shutdown, "the server shuts down"));
        }
    }

    /// No leader has counted our heartbeats for a while (`true`), or one does again. Without one
    /// the agents' leases would run out here while another server might serve them: they are sent
    /// there, and no sessions are taken.
    pub fn cut_off(&self, is: bool) {
        let was = std::mem::replace(&mut lock(&self.inner).cut_off, is);
        if is && !was {
            tracing::warn!("no leader is heard of; agents are sent to other servers");
            let message = OpenError::CutOff.to_string();
            for slot in self.all() {
                slot.outbox.end(end(SessionEndReason::Unspecified, &message));
            }
        }
    }

    /// Whether sessions are refused because no leader counts them.
    pub fn is_cut_off(&self) -> bool {
        lock(&self.inner).cut_off
    }

    /// Asks for a digest soon.
    pub fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Waits until a digest is asked for.
    pub async fn hurried(&self) {
        self.hurry.notified().await;
    }

    /// Whom to tell the leader of: everyone heard since the last digest that came through.
    pub fn sweep(&self, server: ServerId) -> Sweep {
        let mut inner = lock(&self.inner);
        let closed = std::mem::take(&mut inner.closed).into_values().collect();
        let slots: Vec<Arc<Slot>> = inner.slots.values().cloned().collect();
        drop(inner);
        let mut sweep =
            Sweep { digest: Digest { server, heard: Vec::new(), closed }, told: Vec::new() };
        for slot in slots {
            // The beat first: what is heard later may only make the leader more patient.
            let (beat, said) = (slot.beat.load(Relaxed), slot.said.load(Relaxed));
            let heard_ms = slot.heard_ms.load(Relaxed);
            if slot.told.load(Relaxed) == said {
                continue;
            }
            let age_ms = clock::millis(slot.opened.elapsed()).0.saturating_sub(heard_ms);
            sweep.digest.heard.push(Heard {
                node: slot.node,
                epoch: slot.epoch,
                instance: slot.instance,
                age_ms: u32::try_from(age_ms).unwrap_or(u32::MAX),
            });
            sweep.told.push(Told { slot, said, beat });
        }
        sweep
    }

    /// The leader has counted the digest: acknowledges the heartbeats in it. `refused` are
    /// sessions that must end instead.
    pub fn settle(&self, sweep: Sweep, refused: &BTreeMap<(NodeId, Epoch), SessionEnd>) {
        for Told { slot, said, beat } in sweep.told {
            slot.told.store(said, Relaxed);
            match refused.get(&(slot.node, slot.epoch)) {
                Some(end) => slot.outbox.end(end.clone()),
                None if beat > 0 => slot.outbox.acknowledge(beat),
                None => {}
            }
        }
    }

    /// The digest did not come through: its closings are told again with the next one. What was
    /// heard is told again by itself.
    pub fn keep(&self, sweep: Sweep) {
        let mut inner = lock(&self.inner);
        for closed in sweep.digest.closed {
            if !inner.slots.contains_key(&closed.node) {
                inner.closed.entry(closed.node).or_insert(closed);
            }
        }
    }
}

/// A farewell.
pub fn end(reason: SessionEndReason, message: &str) -> SessionEnd {
    SessionEnd { reason: reason.into(), message: message.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::v1::HeartbeatAck;
    use proto::v1::session_response::Message;
    use std::task::{Context, Poll, Waker};

    const OWN: ServerId = ServerId(1);

    fn open(table: &Table, node: u32, epoch: u32, process: u8) -> Result<Arc<Slot>, OpenError> {
        table.open(NodeId(node), Epoch(epoch), Instance([process; 16]))
    }

    fn next(slot: &Slot) -> Option<Message> {
        match slot.outbox.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(message) => message,
            Poll::Pending => None,
        }
    }

    fn ending(slot: &Slot) -> Option<SessionEndReason> {
        match next(slot) {
            Some(Message::End(end)) => Some(end.reason()),
            _ => None,
        }
    }

    #[test]
    fn a_reconnect_supersedes_and_a_second_process_is_kept_out() {
        let table = Table::default();
        let first = open(&table, 1, 1, 1).expect("opens");
        assert_eq!(open(&table, 1, 1, 2).expect_err("another process"), OpenError::Held);
        assert_eq!(next(&first), None);
        let again = open(&table, 1, 1, 1).expect("the same process");
        assert_eq!(ending(&first), Some(SessionEndReason::Superseded));
        // The end of the old stream does not end the new session.
        table.close(&first);
        assert_eq!(table.len(), 1);
        let newer = open(&table, 1, 2, 2).expect("a newer epoch");
        assert_eq!(ending(&again), Some(SessionEndReason::Superseded));
        assert_eq!(open(&table, 1, 1, 1).expect_err("an older epoch"), OpenError::Stale);
        table.close(&newer);
        assert!(table.is_empty());
    }

    #[test]
    fn a_heartbeat_is_acknowledged_only_after_the_leader_counted_it() {
        let table = Table::default();
        let slot = open(&table, 1, 1, 1).expect("opens");
        assert!(slot.beat(7));
        let sweep = table.sweep(OWN);
        assert_eq!(sweep.digest.heard.len(), 1);
        assert_eq!(next(&slot), None);
        // Not delivered: the next sweep tells it again.
        table.keep(sweep);
        assert!(!slot.beat(8));
        let sweep = table.sweep(OWN);
        slot.beat(9);
        table.settle(sweep, &BTreeMap::new());
        assert_eq!(next(&slot), Some(Message::HeartbeatAck(HeartbeatAck { sequence: 8 })));
        assert_eq!(next(&slot), None);
        // The ninth is still to be told; after that the agent is silent.
        let sweep = table.sweep(OWN);
        assert_eq!(sweep.digest.heard.len(), 1);
        table.settle(sweep, &BTreeMap::new());
        assert!(table.sweep(OWN).digest.heard.is_empty());
    }

    #[test]
    fn who_is_refused_gets_a_farewell_and_no_lease() {
        let table = Table::default();
        let slot = open(&table, 1, 1, 1).expect("opens");
        slot.beat(1);
        let farewell = end(SessionEndReason::LeaseLost, "over");
        let refused = [((NodeId(1), Epoch(1)), farewell)].into();
        table.settle(table.sweep(OWN), &refused);
        assert_eq!(ending(&slot), Some(SessionEndReason::LeaseLost));
    }

    #[test]
    fn closings_are_told_until_they_come_through_unless_the_agent_is_back() {
        let table = Table::default();
        for node in 1..=2 {
            table.close(&open(&table, node, 1, 1).expect("opens"));
        }
        let sweep = table.sweep(OWN);
        assert_eq!(sweep.digest.closed.len(), 2);
        let _back = open(&table, 1, 1, 1).expect("opens");
        table.keep(sweep);
        let sweep = table.sweep(OWN);
        assert_eq!(sweep.digest.closed.iter().map(|c| c.node.0).collect::<Vec<_>>(), [2]);
        table.settle(sweep, &BTreeMap::new());
        assert!(table.sweep(OWN).digest.closed.is_empty());
    }

    #[test]
    fn a_server_without_a_leader_sends_everyone_elsewhere_until_there_is_one() {
        let table = Table::default();
        let slot = open(&table, 1, 1, 1).expect("opens");
        table.cut_off(true);
        assert_eq!(ending(&slot), Some(SessionEndReason::Unspecified));
        assert_eq!(open(&table, 1, 1, 1).expect_err("cut off"), OpenError::CutOff);
        table.cut_off(false);
        assert_eq!(next(&open(&table, 1, 1, 1).expect("opens again")), None);
    }

    #[test]
    fn shutting_down_sends_everyone_elsewhere() {
        let table = Table::default();
        let slot = open(&table, 1, 1, 1).expect("opens");
        table.shut_down();
        assert_eq!(ending(&slot), Some(SessionEndReason::Shutdown));
        assert_eq!(open(&table, 2, 1, 1).expect_err("closed"), OpenError::ShuttingDown);
    }
}
