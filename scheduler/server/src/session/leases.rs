//! The leader's table of leases: which node was heard when, and who holds its session.
//!
//! Lives in the memory of the leader and is built anew in every term: only transitions enter the
//! log. All time is passed in.
//! **Invariant:** a node is declared down only when nothing of its epoch was heard for its lease
//! and a margin, counted within this term; from then on nothing of that epoch counts any more.

use super::{Closed, Digest, DigestReply, Heard, Held, Instance, Refused, RefusedWhy, Timing};
use raft_store::ServerId;
use scheduler_core::command::NodeTransition;
use scheduler_core::duty::liveness::TRANSITIONS_MAX;
use scheduler_core::id::{Epoch, NodeId};
use scheduler_core::node::NodeStatus;
use scheduler_core::state::State;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// An agent that has just joined has this long to open its session before another process of the
/// same identity may join: much longer than the open takes, short for a restarted agent.
const JOIN_HOLD: Duration = Duration::from_secs(2);
/// A leader that did not look at its leases for this long was itself stopped (suspended, starved);
/// the agents could not be heard meanwhile, so all get a full lease again.
const STALL: Duration = Duration::from_secs(2);
/// The table is compared with the whole state this often: catches registrations whose outcome got
/// lost on the way; costs milliseconds for a large fleet.
const RESYNC_EVERY: Duration = Duration::from_secs(5);
/// A transition whose proposal did not come through is proposed again after this time.
const PROPOSE_AGAIN: Duration = Duration::from_secs(2);

/// Who holds the session of a node.
#[derive(Clone, Copy, Debug)]
struct Holder {
    instance: Instance,
    /// Server that has the stream; `None` between Join and session.
    server: Option<ServerId>,
    since: Instant,
}

/// What is known of one node in this term.
#[derive(Clone, Copy, Debug)]
struct Slot {
    epoch: Epoch,
    heard: Instant,
    holder: Option<Holder>,
    /// When it was last proposed to declare the node down in this epoch.
    lost: Option<Instant>,
}

/// Liveness of all nodes, as the leader of one term sees it.
#[derive(Debug)]
pub struct Leases {
    timing: Timing,
    slots: BTreeMap<NodeId, Slot>,
    /// Node ids ever given, as of the last look at the state.
    fleet: u32,
    /// Nobody is declared down before everyone had a full lease from here.
    grace_from: Instant,
    looked: Instant,
    resynced: Option<Instant>,
}

impl Leases {
    /// An empty table at the start of a term.
    pub fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            slots: BTreeMap::new(),
            fleet: 0,
            grace_from: now,
            looked: now,
            resynced: None,
        }
    }

    /// Forgets everything: a new term begins, and every node has a full lease from now on.
    pub fn reset_for_new_term(&mut self, now: Instant) {
        *self = Self::new(self.timing, now);
    }

    /// Takes in whom a server has heard. Call it only after the quorum has confirmed that this
    /// server still leads, and answer the digest only then: the reply grants leases.
    pub fn heard(&mut self, digest: &Digest, now: Instant) -> DigestReply {
        for closed in &digest.closed {
            self.closed(digest.server, closed);
        }
        let mut reply = DigestReply::default();
        for heard in &digest.heard {
            if let Err(why) = self.heard_one(digest.server, heard, now) {
                reply.refused.push(Refused { node: heard.node, epoch: heard.epoch, why });
            }
        }
        reply
    }

    fn heard_one(
        &mut self,
        server: ServerId,
        heard: &Heard,
        now: Instant,
    ) -> Result<(), RefusedWhy> {
        let at = now.checked_sub(Duration::from_millis(heard.age_ms.into())).unwrap_or(now);
        let lease = self.timing.lease(self.fleet);
        let fresh = Slot { epoch: heard.epoch, heard: at, holder: None, lost: None };
        let slot = self.slots.entry(heard.node).or_insert(fresh);
        if slot.epoch > heard.epoch {
            return Err(RefusedWhy::Superseded);
        }
        if slot.epoch < heard.epoch {
            *slot = fresh;
        }
        if slot.lost.is_some() {
            return Err(RefusedWhy::LeaseLost);
        }
        let other = slot.holder.filter(|holder| holder.instance != heard.instance);
        if other.is_some_and(|holder| now < held_until(slot, &holder, lease)) {
            return Err(RefusedWhy::Superseded);
        }
        slot.heard = slot.heard.max(at);
        slot.holder = Some(Holder { instance: heard.instance, server: Some(server), since: now });
        Ok(())
    }

    fn closed(&mut self, server: ServerId, closed: &Closed) {
        let Some(slot) = self.slots.get_mut(&closed.node) else { return };
        let same = |holder: Holder| {
            holder.instance == closed.instance
                && holder.server.is_none_or(|holding| holding == server)
        };
        if slot.epoch == closed.epoch && slot.holder.is_some_and(same) {
            // The lease runs on: the agent may come back, here or elsewhere.
            slot.holder = None;
        }
    }

    /// Whether a process may register for the node now. Refused while another process of the same
    /// identity holds a live session. In the first second of a term the holders are not known yet;
    /// a second process then gets a newer epoch, which fences the first.
    pub fn may_join(&self, node: NodeId, instance: Instance, now: Instant) -> Result<(), Held> {
        let Some(slot) = self.slots.get(&node) else { return Ok(()) };
        let other = slot.holder.filter(|holder| holder.instance != instance);
        let Some(holder) = other.filter(|_| slot.lost.is_none()) else { return Ok(()) };
        let until = held_until(slot, &holder, self.timing.lease(self.fleet));
        let Some(left) = until.checked_duration_since(now).filter(|left| !left.is_zero()) else {
            return Ok(());
        };
        let wait = left.min(self.timing.heartbeat(self.fleet)).max(Duration::from_millis(1));
        let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Err(Held { node, retry_after_ms })
    }

    /// A registration has come through: the node has a full lease in its new epoch.
    pub fn joined(&mut self, node: NodeId, epoch: Epoch, instance: Instance, now: Instant) {
        if self.slots.get(&node).is_some_and(|slot| slot.epoch > epoch) {
            return;
        }
        let holder = Some(Holder { instance, server: None, since: now });
        self.slots.insert(node, Slot { epoch, heard: now, holder, lost: None });
        self.fleet = self.fleet.max(node.0.saturating_add(1));
    }

    /// The transitions to propose now, at most [`TRANSITIONS_MAX`]; call it several times a second.
    /// A lost site of more nodes takes a few calls. What it has
    /// returned counts as decided: nothing of those epochs is accepted any more.
    pub fn due(&mut self, now: Instant, state: &State) -> Vec<NodeTransition> {
        if now.saturating_duration_since(self.looked) > STALL {
            self.grace_from = now;
        }
        self.looked = now;
        if self.resynced.is_none_or(|at| now.saturating_duration_since(at) >= RESYNC_EVERY) {
            self.resync(now, state);
        }
        let patience = self.timing.lease(self.fleet) + self.timing.drift(self.fleet);
        if now.saturating_duration_since(self.grace_from) <= patience {
            return Vec::new();
        }
        let mut due = Vec::new();
        let mut gone = Vec::new();
        for (&id, slot) in &mut self.slots {
            if now.saturating_duration_since(slot.heard) <= patience {
                continue;
            }
            let proposed = |at: Instant| now.saturating_duration_since(at) < PROPOSE_AGAIN;
            if slot.lost.is_some_and(proposed) {
                continue;
            }
            match state.node(id) {
                Some(node) if node.epoch > slot.epoch => {
                    *slot = Slot { epoch: node.epoch, heard: now, holder: None, lost: None };
                }
                Some(node) if node.status == NodeStatus::Up && node.epoch == slot.epoch => {
                    slot.lost = Some(now);
                    let (epoch, status) = (slot.epoch, NodeStatus::Down);
                    due.push(NodeTransition { node: id, epoch, status });
                    if due.len() == TRANSITIONS_MAX {
                        break;
                    }
                }
                // Down or removed; or a registration that this server has yet to apply.
                Some(node) if node.epoch < slot.epoch => {}
                _ => gone.push(id),
            }
        }
        for id in gone {
            self.slots.remove(&id);
        }
        due
    }

    /// Gives a slot to every node that is up and has none; drops those of nodes that are gone.
    fn resync(&mut self, now: Instant, state: &State) {
        self.resynced = Some(now);
        self.fleet = self.fleet.max(state.node_id_end());
        for node in state.nodes().filter(|node| node.status == NodeStatus::Up) {
            let fresh = Slot { epoch: node.epoch, heard: now, holder: None, lost: None };
            let slot = self.slots.entry(node.id).or_insert(fresh);
            if slot.epoch < node.epoch {
                *slot = fresh;
            }
        }
    }
}

/// Until when the holder keeps other processes of its identity away.
fn held_until(slot: &Slot, holder: &Holder, lease: Duration) -> Instant {
    match holder.server {
        Some(_) => slot.heard + lease,
        None => holder.since + JOIN_HOLD.min(lease),
    }
}

#[cfg(test)]
mod tests;
