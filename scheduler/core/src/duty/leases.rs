//! The leader's table of leases: which node was heard when, and who holds its session.
//!
//! Lives in the memory of the leader and is built anew in every term: only transitions enter the
//! log. All time is passed in, of a clock that never jumps. `S` names the servers that sessions
//! end on.
//! **Invariant:** a node is declared down only when nothing of its epoch was heard for its lease
//! and a margin, counted within this term; from then on nothing of that epoch counts any more.

use super::timing::Timing;
use crate::command::NodeTransition;
use crate::id::{Epoch, NodeId};
use crate::node::NodeStatus;
use crate::state::State;
use crate::unit::{DurationMs, TimeMs};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Most transitions in one entry: about 40 KB.
pub const TRANSITIONS_MAX: usize = 4_096;
/// An agent that has just joined has this long to open its session before another process of the
/// same identity may join: much longer than the open takes, short for a restarted agent.
const JOIN_HOLD: DurationMs = DurationMs(2_000);
/// A leader that did not look at its leases for this long was itself stopped (suspended, starved);
/// the agents could not be heard meanwhile, so all get a full lease again.
const STALL: DurationMs = DurationMs(2_000);
/// The table is compared with the whole state this often: catches registrations whose outcome got
/// lost on the way; costs milliseconds for a large fleet.
const RESYNC_EVERY: DurationMs = DurationMs(5_000);
/// A transition whose proposal did not come through is proposed again after this time.
const PROPOSE_AGAIN: DurationMs = DurationMs(2_000);
/// The smallest step of time: a lease is over after its last millisecond, not in it.
const TICK: DurationMs = DurationMs(1);

/// Random number of one agent process: tells a reconnect from a second machine with a copied key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Instance(pub [u8; 16]);

/// One node that was heard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Heard {
    pub node: NodeId,
    pub epoch: Epoch,
    pub instance: Instance,
    /// Milliseconds between hearing it and telling of it.
    pub age_ms: u32,
}

/// One session that has closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Closed {
    pub node: NodeId,
    pub epoch: Epoch,
    pub instance: Instance,
}

/// A session that must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    pub node: NodeId,
    pub epoch: Epoch,
    pub why: RefusedWhy,
}

/// Why a session must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RefusedWhy {
    /// The node has registered again since, or another process of the same identity was first.
    Superseded,
    /// The node was declared down in this epoch.
    LeaseLost,
}

/// Another process of the same identity holds a live session; try again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    pub node: NodeId,
    /// Time after which a retry may have an answer.
    pub retry_after: DurationMs,
}

/// Who holds the session of a node.
#[derive(Clone, Copy, Debug)]
struct Holder<S> {
    instance: Instance,
    /// Server that has the stream; `None` between Join and session.
    server: Option<S>,
    since: TimeMs,
}

/// What is known of one node in this term.
#[derive(Clone, Copy, Debug)]
struct Slot<S> {
    epoch: Epoch,
    heard: TimeMs,
    holder: Option<Holder<S>>,
    /// When it was last proposed to declare the node down in this epoch.
    lost: Option<TimeMs>,
    /// Its place in the queue.
    queued: TimeMs,
}

/// Which nodes have a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Listed {
    /// All that are up: who is not heard of is silent.
    Everyone,
    /// Those that are silent, and those that are watched: who is not listed is heard all the time.
    Silent,
}

/// Liveness of all nodes, as the leader of one term sees it.
#[derive(Debug)]
pub struct Leases<S> {
    timing: Timing,
    listed: Listed,
    slots: BTreeMap<NodeId, Slot<S>>,
    /// In a table of silent nodes: those that keep their slots while they are heard.
    watched: BTreeSet<NodeId>,
    /// When each node with a slot is looked at next; too early once it was heard, which does no
    /// harm and keeps hearing cheap.
    queue: BTreeSet<(TimeMs, NodeId)>,
    /// Node ids ever given, as of the last look at the state.
    fleet: u32,
    /// Nobody is declared down before everyone had a full lease from here.
    grace_from: TimeMs,
    looked: TimeMs,
    resynced: Option<TimeMs>,
}

impl<S: Copy + PartialEq> Leases<S> {
    /// An empty table at the start of a term.
    pub fn new(timing: Timing, now: TimeMs) -> Self {
        Self {
            timing,
            listed: Listed::Everyone,
            slots: BTreeMap::new(),
            watched: BTreeSet::new(),
            queue: BTreeSet::new(),
            fleet: 0,
            grace_from: now,
            looked: now,
            resynced: None,
        }
    }

    /// A table for a caller who knows who is silent and says so with [`Leases::fell_silent`]: all
    /// other nodes count as heard all the time, and cost nothing. Who holds their sessions is not
    /// known, unless they are watched ([`Leases::watch`]).
    pub fn of_silent(timing: Timing, now: TimeMs) -> Self {
        Self { listed: Listed::Silent, ..Self::new(timing, now) }
    }

    /// A new term begins: forgets everything, and every node has a full lease from now on. A table
    /// of silent nodes still lists them.
    pub fn reset_for_new_term(&mut self, now: TimeMs) {
        let old = std::mem::replace(self, Self::new(self.timing, now));
        if old.listed == Listed::Silent {
            (self.listed, self.fleet, self.watched) = (Listed::Silent, old.fleet, old.watched);
            let silent = old.slots.into_iter();
            silent.for_each(|(node, slot)| self.put(node, Slot::new(slot.epoch, now)));
        }
    }

    /// In a table of silent nodes: nothing of this epoch of the node was heard after `since`.
    pub fn fell_silent(&mut self, node: NodeId, epoch: Epoch, since: TimeMs) {
        if self.slots.get(&node).is_none_or(|slot| slot.epoch < epoch) {
            self.put(node, Slot::new(epoch, since));
        }
    }

    /// In a table of silent nodes: from now on the node must be heard like any node of a full table,
    /// and other processes of its identity are kept out while its holder is.
    pub fn watch(&mut self, node: NodeId, epoch: Epoch, now: TimeMs) {
        self.watched.insert(node);
        self.fell_silent(node, epoch, now);
    }

    /// Ends [`Leases::watch`]: the node counts as silent until it is heard once more.
    pub fn unwatch(&mut self, node: NodeId) {
        self.watched.remove(&node);
    }

    /// Takes in whom `server` has heard, and which sessions it saw closing. Call it only after the
    /// quorum has confirmed that this server still leads, and answer only then: every heard node
    /// that is not among the refused has its lease extended.
    pub fn heard(
        &mut self,
        server: S,
        heard: &[Heard],
        closed: &[Closed],
        now: TimeMs,
    ) -> Vec<Refused> {
        closed.iter().for_each(|closed| self.closed(server, closed));
        let refusal = |one: &Heard| {
            let why = self.heard_one(server, one, now).err()?;
            Some(Refused { node: one.node, epoch: one.epoch, why })
        };
        heard.iter().filter_map(refusal).collect()
    }

    fn heard_one(&mut self, server: S, heard: &Heard, now: TimeMs) -> Result<(), RefusedWhy> {
        let at = TimeMs(now.0.saturating_sub(heard.age_ms.into()));
        let lease = self.timing.lease(self.fleet);
        match self.slots.get(&heard.node).map(|slot| slot.epoch) {
            Some(known) if known > heard.epoch => return Err(RefusedWhy::Superseded),
            Some(known) if known == heard.epoch => {}
            _ => self.put(heard.node, Slot::new(heard.epoch, at)),
        }
        let Some(slot) = self.slots.get_mut(&heard.node) else { return Ok(()) };
        if slot.lost.is_some() {
            return Err(RefusedWhy::LeaseLost);
        }
        let other = slot.holder.filter(|holder| holder.instance != heard.instance);
        if other.is_some_and(|holder| now < held_until(slot, &holder, lease)) {
            return Err(RefusedWhy::Superseded);
        }
        slot.heard = slot.heard.max(at);
        slot.holder = Some(Holder { instance: heard.instance, server: Some(server), since: now });
        if !self.lists_heard(heard.node) {
            self.remove(heard.node);
        }
        Ok(())
    }

    /// Whether the node has a slot though it is heard.
    fn lists_heard(&self, node: NodeId) -> bool {
        self.listed == Listed::Everyone || self.watched.contains(&node)
    }

    fn closed(&mut self, server: S, closed: &Closed) {
        let Some(slot) = self.slots.get_mut(&closed.node) else { return };
        let same = |holder: Holder<S>| {
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
    /// a second process then gets a newer epoch, which fences the first. Nothing is known of the
    /// holders of nodes that are not listed.
    pub fn may_join(&self, node: NodeId, instance: Instance, now: TimeMs) -> Result<(), Held> {
        let Some(slot) = self.slots.get(&node) else { return Ok(()) };
        let other = slot.holder.filter(|holder| holder.instance != instance);
        let Some(holder) = other.filter(|_| slot.lost.is_none()) else { return Ok(()) };
        let left = held_until(slot, &holder, self.timing.lease(self.fleet)).since(now);
        if left == DurationMs::ZERO {
            return Ok(());
        }
        Err(Held { node, retry_after: left.min(self.timing.heartbeat(self.fleet)).max(TICK) })
    }

    /// A registration has come through: the node has a full lease in its new epoch.
    pub fn joined(&mut self, node: NodeId, epoch: Epoch, instance: Instance, now: TimeMs) {
        if self.slots.get(&node).is_some_and(|slot| slot.epoch > epoch) {
            return;
        }
        self.fleet = self.fleet.max(node.0.saturating_add(1));
        if !self.lists_heard(node) {
            return self.remove(node);
        }
        let holder = Some(Holder { instance, server: None, since: now });
        self.put(node, Slot { holder, ..Slot::new(epoch, now) });
    }

    /// The transitions to propose now, at most [`TRANSITIONS_MAX`]; call it several times a second,
    /// a table of silent nodes at [`Leases::due_at`]. A lost site of more nodes takes a few calls.
    /// What it has returned counts as decided: nothing of those epochs is accepted any more.
    pub fn due(&mut self, now: TimeMs, state: &State) -> Vec<NodeTransition> {
        self.fleet = self.fleet.max(state.node_id_end());
        if self.listed == Listed::Everyone {
            self.look_around(now, state);
        }
        let mut due = Vec::new();
        if now < self.grace_ends() {
            return due;
        }
        while due.len() < TRANSITIONS_MAX
            && let Some(&(at, node)) = self.queue.first()
            && at <= now
        {
            self.queue.pop_first();
            due.extend(self.judge(node, now, state));
        }
        due
    }

    /// When [`Leases::due`] may have something next, if nothing is heard or said of any node
    /// meanwhile; `None` if no node has a slot.
    pub fn due_at(&self) -> Option<TimeMs> {
        self.queue.first().map(|(at, _)| (*at).max(self.grace_ends()))
    }

    fn look_around(&mut self, now: TimeMs, state: &State) {
        if now.since(self.looked) > STALL {
            self.grace_from = now;
        }
        self.looked = now;
        if self.resynced.is_none_or(|at| now.since(at) >= RESYNC_EVERY) {
            self.resync(now, state);
        }
    }

    /// What is to be said of a node that has come out of the queue; it is queued up again.
    fn judge(&mut self, id: NodeId, now: TimeMs, state: &State) -> Option<NodeTransition> {
        let over = self.over_at(self.slots.get(&id)?);
        if over > now {
            self.queue_up(id, over);
            return None;
        }
        let slot = self.slots.get_mut(&id)?;
        let known = state.node(id);
        match known.map(|node| (node.epoch.cmp(&slot.epoch), node.status)) {
            Some((Ordering::Greater, _)) => {
                let epoch = known.map_or(slot.epoch, |node| node.epoch);
                self.put(id, Slot::new(epoch, now));
                None
            }
            // A registration that this server has yet to apply.
            Some((Ordering::Less, _)) => {
                self.queue_up(id, now.after(TICK));
                None
            }
            Some((Ordering::Equal, NodeStatus::Up)) => {
                slot.lost = Some(now);
                let epoch = slot.epoch;
                self.queue_up(id, now.after(PROPOSE_AGAIN));
                Some(NodeTransition { node: id, epoch, status: NodeStatus::Down })
            }
            // Down or removed.
            _ => {
                self.remove(id);
                None
            }
        }
    }

    /// When the lease is over that this slot stands for, its margin included; or, where that was
    /// found before, when it is said again.
    fn over_at(&self, slot: &Slot<S>) -> TimeMs {
        let over = slot.heard.after(self.patience()).after(TICK);
        slot.lost.map_or(over, |at| at.after(PROPOSE_AGAIN).max(over))
    }

    fn patience(&self) -> DurationMs {
        self.timing.lease(self.fleet).saturating_add(self.timing.drift(self.fleet))
    }

    fn grace_ends(&self) -> TimeMs {
        self.grace_from.after(self.patience()).after(TICK)
    }

    /// Gives a slot to every node that is up and has none.
    fn resync(&mut self, now: TimeMs, state: &State) {
        self.resynced = Some(now);
        for node in state.nodes().filter(|node| node.status == NodeStatus::Up) {
            if self.slots.get(&node.id).is_none_or(|slot| slot.epoch < node.epoch) {
                self.put(node.id, Slot::new(node.epoch, now));
            }
        }
    }

    fn put(&mut self, node: NodeId, slot: Slot<S>) {
        let at = self.over_at(&slot);
        let slot = Slot { queued: at, ..slot };
        if let Some(old) = self.slots.insert(node, slot) {
            self.queue.remove(&(old.queued, node));
        }
        self.queue.insert((at, node));
    }

    fn queue_up(&mut self, node: NodeId, at: TimeMs) {
        let Some(slot) = self.slots.get_mut(&node) else { return };
        self.queue.remove(&(slot.queued, node));
        slot.queued = at;
        self.queue.insert((at, node));
    }

    fn remove(&mut self, node: NodeId) {
        if let Some(slot) = self.slots.remove(&node) {
            self.queue.remove(&(slot.queued, node));
        }
    }
}

impl<S> Slot<S> {
    fn new(epoch: Epoch, heard: TimeMs) -> Self {
        Self { epoch, heard, holder: None, lost: None, queued: heard }
    }
}

/// Until when the holder keeps other processes of its identity away.
fn held_until<S>(slot: &Slot<S>, holder: &Holder<S>, lease: DurationMs) -> TimeMs {
    match holder.server {
        Some(_) => slot.heard.after(lease),
        None => holder.since.after(JOIN_HOLD.min(lease)),
    }
}

#[cfg(test)]
mod tests;
