//! Machines with one identity: what a copied machine image does to the fleet.
//!
//! A clone has the name and the key of the machine that it was made of, and nothing of what runs
//! there. Of an identity with clones every heartbeat is an event, since it matters which of its
//! machines is heard.
//! **Invariant:** who has the node is for the leases to say. A lease after a machine has joined,
//! nothing of the node's earlier sessions runs anywhere.

use super::machine::{Machine, Session};
use super::{Turn, Violation, World};
use rand::RngExt;
use scheduler_core::duty::leases::{Closed, Heard};
use scheduler_core::id::{Epoch, NodeId};
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::BTreeMap;

/// Clones that are switched on, by position of the machine that they are like.
#[derive(Debug, Default)]
pub(super) struct Clones(BTreeMap<usize, Vec<usize>>);

impl Clones {
    /// Whether several machines have this identity now.
    fn share(&self, identity: usize) -> bool {
        self.0.contains_key(&identity)
    }

    /// All machines of an identity.
    fn of(&self, identity: usize) -> impl Iterator<Item = usize> {
        let clones = self.0.get(&identity).into_iter().flatten();
        std::iter::once(identity).chain(clones.copied())
    }
}

impl World<'_> {
    /// A second machine with the identity of this one is switched on, for so long.
    pub(super) fn clone_machine(&mut self, identity: usize, length: DurationMs) {
        let (original, clone) = (&self.machines[identity], self.machines.len());
        let mut machine = Machine::new(identity, self.scenario.nodes[identity].gpus.len());
        machine.id = original.id;
        let era = machine.era;
        self.machines.push(machine);
        self.network.add_like(identity);
        self.clones.0.entry(identity).or_default().push(clone);
        self.watch(identity);
        self.is_known_holder(identity);
        self.begin_beats(identity);
        self.heap.push(self.now(), Turn::Connect { machine: clone, era });
        self.push_after(length, Turn::Retire { machine: clone });
    }

    /// The clone is switched off for good.
    pub(super) fn retire(&mut self, clone: usize) {
        let identity = self.machines[clone].identity;
        self.falls_silent(clone, true);
        self.machines[clone].die();
        let known = self.machines[clone].id.take();
        let Some(others) = self.clones.0.get_mut(&identity) else { return };
        others.retain(|other| *other != clone);
        if !others.is_empty() {
            return;
        }
        self.clones.0.remove(&identity);
        let nodes = known.into_iter().chain(self.machines[identity].id);
        if let Some(leader) = &mut self.leader {
            nodes.for_each(|node| leader.unwatch(node));
        }
        self.beat(identity, self.machines[identity].era);
    }

    /// All machines that may think that they are the node.
    pub(super) fn machines_of(&self, node: NodeId) -> Vec<usize> {
        let Some(at) = self.by_node.get(node.0 as usize).copied().flatten() else {
            return Vec::new();
        };
        let identity = self.machines[at].identity;
        match self.clones.share(identity) {
            true => self.clones.of(identity).collect(),
            false => vec![at],
        }
    }

    /// The leader keeps an eye on the nodes of an identity that several machines have.
    fn watch(&mut self, identity: usize) {
        let now = self.now();
        let Some(leader) = &mut self.leader else { return };
        for at in self.clones.of(identity) {
            let node = self.machines[at].id.and_then(|id| self.state.node(id));
            if let Some(node) = node {
                leader.watch(node.id, node.epoch, now);
            }
        }
    }

    /// The leader has heard the machine all along, if that is in session.
    fn is_known_holder(&mut self, at: usize) {
        let (now, machine) = (self.heap.now(), &self.machines[at]);
        if let (Some(node), true, Some(leader)) =
            (machine.id, machine.is_in_session(), &mut self.leader)
        {
            leader.heard(machine.hello(at, node), now);
        }
    }

    /// As [`World::watch`], of a new leader.
    pub(super) fn watch_all(&mut self) {
        let identities: Vec<usize> = self.clones.0.keys().copied().collect();
        identities.into_iter().for_each(|identity| self.watch(identity));
    }

    /// The machine's session is open from now on: where others have its identity, it must be heard
    /// to keep it.
    pub(super) fn begin_beats(&mut self, at: usize) {
        let (now, machine) = (self.now(), &mut self.machines[at]);
        if machine.session == Session::Open && self.clones.share(machine.identity) {
            machine.answered_at = now;
            let era = machine.era;
            self.beat(at, era);
        }
    }

    /// The agent sends a heartbeat, and the next one after a while.
    pub(super) fn beat(&mut self, at: usize, era: u32) {
        let (now, lengths) = (self.now(), self.network.lengths);
        let machine = &self.machines[at];
        let Some(node) = machine.id else { return };
        if machine.era != era || machine.session != Session::Open {
            return;
        }
        let age_ms = u32::try_from(lengths.digest.0).unwrap_or(u32::MAX);
        let heard = Heard { age_ms, ..machine.hello(at, node) };
        if self.clones.share(machine.identity) {
            self.push_after(lengths.heartbeat, Turn::Beat { machine: at, era });
        }
        let way = self.network.delay(at, &mut self.dice.network).saturating_add(lengths.digest);
        self.push_after(way, Turn::Counted { machine: at, era, sent: now, heard });
    }

    /// The leader hears of a heartbeat, and the agent of what it says.
    pub(super) fn counted(&mut self, at: usize, era: u32, sent: TimeMs, heard: Heard) {
        let (now, lengths) = (self.now(), self.network.lengths);
        let Some(leader) = &mut self.leader else {
            // The server tells it again with its next digest.
            let again = Turn::Counted { machine: at, era, sent, heard };
            return self.push_after(lengths.digest, again);
        };
        let counts = self.rules.holds(leader.heard(heard, now));
        let machine = &mut self.machines[at];
        if machine.era != era {
            return;
        }
        if counts {
            machine.answered_at = sent;
            self.heap.push(sent.after(lengths.lease), Turn::Fence { machine: at, era });
        } else {
            let delay = self.network.delay(at, &mut self.dice.network);
            self.push_after(delay, Turn::Told { machine: at, era, wanted: None });
        }
    }

    /// The agent's stream has closed: the leader hears of it with the next digest, if anybody else
    /// might ask for the node meanwhile.
    pub(super) fn tell_closed(&mut self, at: usize) {
        let machine = &self.machines[at];
        let (era, instance) = (machine.era, machine.instance(at));
        let Some(node) = machine.id.filter(|_| self.clones.share(machine.identity)) else { return };
        let closed = Closed { node, epoch: machine.epoch, instance };
        let digest = self.dice.network.random_range(0..=self.network.lengths.digest.0);
        let turn = Turn::Closed { machine: at, era, closed };
        self.push_after(DurationMs(digest), turn);
    }

    /// The leader hears of it. From then on nobody holds the node, so that a restarted agent may
    /// join at once; so may a copy, though what the agent ran before runs on until its lease ends.
    pub(super) fn closed(&mut self, at: usize, era: u32, closed: Closed) {
        let now = self.now();
        if let (true, Some(leader)) = (self.machines[at].era == era, &mut self.leader) {
            leader.closed(closed, now);
        }
    }

    /// When the agent sent the last heartbeat that was answered, where that is known and not just
    /// to be computed.
    pub(super) fn last_answer(&self, at: usize) -> Option<TimeMs> {
        let machine = &self.machines[at];
        self.clones.share(machine.identity).then_some(machine.answered_at)
    }

    /// Whether an agent in session has waited for an answer for as long as its lease is. Where
    /// nobody else has its identity, heartbeats are no events and always answered.
    pub(super) fn is_overdue(&self, at: usize) -> bool {
        let silence = self.last_answer(at).map(|answered| self.now().since(answered));
        silence.is_some_and(|silence| silence >= self.network.lengths.lease)
    }

    /// A machine has joined as this node.
    pub(super) fn shared_node_joined(&mut self, at: usize, node: NodeId, epoch: Epoch) {
        let identity = self.machines[at].identity;
        if !self.clones.share(identity) {
            return;
        }
        if let Some(leader) = &mut self.leader {
            leader.watch(node, epoch, self.heap.now());
        }
        self.push_after(self.network.lengths.lease, Turn::Alone { identity, epoch });
    }

    /// The leases of all earlier sessions of the identity are over.
    pub(super) fn must_be_alone(&self, identity: usize, epoch: Epoch) -> Result<(), Violation> {
        for at in self.clones.of(identity) {
            let machine = &self.machines[at];
            if machine.epoch < epoch && machine.runs() {
                let what = format!(
                    "machine {at} still runs replicas of epoch {} of a node that another machine \
                     took over in epoch {epoch}, a lease ago",
                    machine.epoch
                );
                return Err(self.violation(what));
            }
        }
        Ok(())
    }
}
