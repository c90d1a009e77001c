//! All agents: what they are told, what they tell, how they lose their servers and come back.
//!
//! **Invariant:** what reaches a machine was true when it was sent; what was under way to a session
//! that is over never arrives.

use super::log::Origin;
use super::machine::{Hardware, Reaction, Session, Step, wanted_on};
use super::outage::Outage;
use super::{Turn, Violation, World};
use crate::observe::Seen;
use crate::scenario::happens;
use agent_core::reconcile::Wants;
use agent_core::replica::{AssignmentId as AssignmentNo, Binding, EXIT_NOT_STARTED, Exit};
use scheduler_core::command::{Actor, Command, Observed, Outcome, Rejection, ReplicaReport};
use scheduler_core::id::{AssignmentId, Epoch, NodeId};
use scheduler_core::node::NodeStatus;
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::BTreeMap;

/// Reports in one entry.
const REPORTS_MAX: usize = 4_096;
/// How long the first report of an entry waits for others.
const LINGER: DurationMs = DurationMs(5);
/// Entries of reports on their way at a time.
const REPORTS_IN_FLIGHT_MAX: u32 = 2;

/// Exit code of a replica that crashes at its work.
const CRASH_CODE: i32 = 1;

/// Reports on their way into the log.
#[derive(Debug, Default)]
pub(super) struct Reports {
    waiting: BTreeMap<(AssignmentId, NodeId), ReplicaReport>,
    in_flight: u32,
    flushing: bool,
    /// Machines that register now.
    joins: Vec<(usize, u32)>,
}

impl World<'_> {
    /// The machine is this node from now on, and in session.
    pub(super) fn seat_machine(&mut self, at: usize, node: NodeId, epoch: Epoch) {
        let now = self.now();
        let Some(machine) = self.machines.get_mut(at) else { return };
        machine.id = Some(node);
        machine.epoch = epoch;
        machine.session = Session::Open;
        machine.opened_at = now;
        machine.outage = None;
        let slot = node.0 as usize;
        if slot >= self.by_node.len() {
            self.by_node.resize(slot + 1, None);
        }
        self.by_node[slot] = Some(at);
    }

    /// Tells whoever is in session as the node what to run, or that the session is over.
    pub(super) fn dispatch(&mut self, id: NodeId) {
        for at in self.machines_of(id) {
            self.dispatch_to(at, id);
        }
    }

    fn dispatch_to(&mut self, at: usize, id: NodeId) {
        let machine = &self.machines[at];
        if machine.session != Session::Open || machine.id != Some(id) {
            return;
        }
        let node = self.state.node(id);
        let valid =
            node.is_some_and(|node| node.epoch == machine.epoch && node.status == NodeStatus::Up);
        let valid = self.rules.holds(valid);
        let wanted = valid.then(|| wanted_on(&self.state, id));
        if node.is_none() {
            self.machines[at].removed = true;
        }
        let delay = self.network.delay(at, &mut self.dice.network);
        let arrives = self.now().after(delay).max(self.machines[at].told_at);
        self.machines[at].told_at = arrives;
        let era = self.machines[at].era;
        self.heap.push(arrives, Turn::Told { machine: at, era, wanted });
    }

    pub(super) fn told(&mut self, at: usize, era: u32, wanted: Option<Wants<Binding>>) {
        let now = self.now();
        let Some(machine) = self.machines.get_mut(at).filter(|machine| machine.era == era) else {
            return;
        };
        let Some(wanted) = wanted else {
            machine.fence();
            return self.come_back(at);
        };
        let hardware = Hardware { now, start: &self.scenario.start, rng: &mut self.dice.start };
        let reaction = machine.told(wanted, hardware);
        self.react(at, reaction);
    }

    pub(super) fn step(&mut self, at: usize, life: u32, step: Step) {
        let now = self.now();
        let Some(machine) = self.machines.get_mut(at).filter(|machine| machine.life == life) else {
            return;
        };
        let hardware = Hardware { now, start: &self.scenario.start, rng: &mut self.dice.start };
        let reaction = machine.step(step, hardware);
        for report in &reaction.reports {
            if report.observed == Observed::Ready {
                self.begins_work(at, life, report);
            }
        }
        self.react(at, reaction);
    }

    /// A replica is ready; some end by themselves after a while.
    fn begins_work(&mut self, at: usize, life: u32, report: &ReplicaReport) {
        let Some(work) = self.arrivals.work_of(self.scenario, &self.state, report.job) else {
            return;
        };
        let took = work.length.draw(&mut self.dice.work);
        let crashes = happens(work.crashing_ppm, &mut self.dice.work);
        let exit = if crashes { Exit::Failed(CRASH_CODE) } else { Exit::Succeeded };
        let step = Step::Ended(AssignmentNo(report.assignment.0), exit);
        self.push_after(took, Turn::Step { machine: at, life, step });
    }

    fn react(&mut self, at: usize, reaction: Reaction) {
        let life = self.machines[at].life;
        for (after, step) in reaction.steps {
            self.push_after(after, Turn::Step { machine: at, life, step });
        }
        // An agent without a server says all of it once it has one.
        if self.machines[at].session == Session::Open {
            self.say(at, reaction.reports);
        }
    }

    fn say(&mut self, at: usize, reports: Vec<ReplicaReport>) {
        for report in reports {
            let delay = self.network.delay(at, &mut self.dice.network);
            self.push_after(delay, Turn::Report(report));
        }
    }

    /// A report has reached a server.
    pub(super) fn heard(&mut self, report: ReplicaReport) {
        if let Observed::Failed { exit_code } = report.observed {
            self.report.starts_failed += u64::from(exit_code == EXIT_NOT_STARTED);
            let ReplicaReport { job, rank, node, .. } = report;
            self.tell(Seen::Failed { job, rank, node });
        }
        self.reports.waiting.insert((report.assignment, report.node), report);
        self.flush_later();
    }

    pub(super) fn flush_later(&mut self) {
        let room = self.reports.in_flight < REPORTS_IN_FLIGHT_MAX;
        if room && !self.reports.flushing && !self.reports.waiting.is_empty() {
            self.reports.flushing = true;
            self.push_after(LINGER, Turn::Flush);
        }
    }

    pub(super) fn flush_reports(&mut self) {
        self.reports.flushing = false;
        if self.leader.is_none() || self.reports.waiting.is_empty() {
            return;
        }
        let all = std::mem::take(&mut self.reports.waiting);
        let mut reports = Vec::with_capacity(all.len().min(REPORTS_MAX));
        for (key, report) in all {
            if reports.len() < REPORTS_MAX {
                reports.push(report);
            } else {
                self.reports.waiting.insert(key, report);
            }
        }
        self.reports.in_flight += 1;
        self.send(vec![(Actor::System, Command::Report(reports))], Origin::Reports);
        self.flush_later();
    }

    pub(super) fn reports_done(&mut self) {
        self.reports.in_flight = self.reports.in_flight.saturating_sub(1);
        self.flush_later();
    }

    /// The machine can no longer be heard: its lease runs out on both sides. `noticed`: its agent
    /// sees at once that it has lost its server, and not only when a heartbeat has no answer.
    pub(super) fn falls_silent(&mut self, at: usize, noticed: bool) {
        let now = self.now();
        let Some(machine) = self.machines.get(at) else { return };
        let Some(node) = machine.id.filter(|_| machine.session != Session::None) else { return };
        let (epoch, opened_at) = (machine.epoch, machine.opened_at);
        let times = (opened_at, self.answered_until(), now);
        let (heard, answered) = self.network.last_words(at, times, &mut self.dice.network);
        let answered = self.last_answer(at).unwrap_or(answered);
        let lengths = self.network.lengths;
        let begun = self.outage(at, now).with_lease(lengths.lease, answered);
        let machine = &mut self.machines[at];
        machine.session = Session::Away;
        machine.era += 1;
        let era = machine.era;
        let outage = machine.outage.get_or_insert_with(|| {
            let next = answered.after(lengths.heartbeat);
            Box::new(if noticed { begun } else { begun.unnoticed(next) })
        });
        let until = outage.lease_until().unwrap_or(now);
        self.heap.push(until, Turn::Fence { machine: at, era });
        if let Some(leader) = &mut self.leader {
            leader.fell_silent(node, epoch, heard);
        }
    }

    /// An agent that looks for a server from now on.
    fn outage(&self, at: usize, now: TimeMs) -> Outage {
        let seed = self.scenario.seed ^ (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ now.0;
        Outage::without_lease(seed, self.network.lengths.heartbeat, now)
    }

    /// The agent's lease is over: it stops all, and joins again when it can.
    pub(super) fn fence(&mut self, at: usize, era: u32) {
        let now = self.now();
        let Some(machine) = self.machines.get(at) else { return };
        let over = match machine.session {
            Session::None => false,
            Session::Away => true,
            Session::Open => self.is_overdue(at),
        };
        if machine.era != era || !over || !self.rules.fences() {
            return;
        }
        self.report.agents_fenced += 1;
        let reachable = machine.is_reachable();
        let machine = &mut self.machines[at];
        machine.fence();
        // Who cannot be heard plays through later what the agent did then.
        if let Some(outage) = machine.outage.as_mut().filter(|_| reachable) {
            outage.end_lease(now);
        }
        self.come_back(at);
    }

    /// The agent tries to connect, after a wait that grows with every try.
    pub(super) fn come_back(&mut self, at: usize) {
        self.try_at(at, |outage, now| outage.next_try(now, None));
    }

    /// As [`World::come_back`], of an agent whose tries were all in vain so far.
    pub(super) fn come_back_from_afar(&mut self, at: usize) {
        self.try_at(at, Outage::first_try_after);
    }

    fn try_at(&mut self, at: usize, when: impl FnOnce(&mut Outage, TimeMs) -> TimeMs) {
        let now = self.now();
        let Some(machine) = self.machines.get(at) else { return };
        if !machine.is_reachable() || machine.removed {
            return;
        }
        let fresh = self.outage(at, now);
        let machine = &mut self.machines[at];
        let era = machine.era;
        let try_at = when(machine.outage.get_or_insert_with(|| Box::new(fresh)), now);
        self.heap.push(try_at, Turn::Connect { machine: at, era });
    }

    pub(super) fn connect(&mut self, at: usize, era: u32) {
        let now = self.now();
        let Some(machine) = self.machines.get(at) else { return };
        if machine.era != era || !machine.is_reachable() {
            return;
        }
        if self.leader.is_none() || self.is_sent_away() {
            return self.come_back(at);
        }
        let (Some(machine), Some(leader)) = (self.machines.get(at), &mut self.leader) else {
            return;
        };
        let node = machine.id.and_then(|id| self.state.node(id));
        let holds = node.filter(|node| {
            machine.session == Session::Away
                && (node.epoch, node.status) == (machine.epoch, NodeStatus::Up)
                && leader.heard(machine.hello(at, node.id), now)
        });
        if let Some(id) = holds.map(|node| node.id) {
            return self.resume(at, id);
        }
        if machine.session != Session::Open {
            // A session that the servers know nothing of any more: what ran for it is stopped.
            let machine = &mut self.machines[at];
            machine.fence();
            if let Some(outage) = &mut machine.outage {
                outage.end_lease(now);
            }
            let era = machine.era;
            self.join(at, era);
        }
    }

    /// The agent registers, together with all others that do so now.
    pub(super) fn join(&mut self, at: usize, era: u32) {
        if self.reports.joins.is_empty() {
            self.heap.push(self.now(), Turn::Join);
        }
        self.reports.joins.push((at, era));
    }

    /// The session goes on: the agent repeats all it knows and is told all it should run.
    fn resume(&mut self, at: usize, node: NodeId) {
        let machine = &mut self.machines[at];
        machine.session = Session::Open;
        machine.opened_at = self.heap.now();
        machine.outage = None;
        machine.era += 1;
        self.begin_beats(at);
        let reports = self.machines[at].repeat();
        self.say(at, reports);
        self.dispatch(node);
    }

    pub(super) fn propose_joins(&mut self) {
        let joins = std::mem::take(&mut self.reports.joins);
        if self.leader.is_none() {
            return self.joins_lost(&joins);
        }
        let joins: Vec<_> =
            joins.into_iter().filter(|(at, era)| self.may_join(*at, *era)).collect();
        if joins.is_empty() {
            return;
        }
        let command = |&(at, _): &(usize, u32)| (Actor::System, self.registration(at));
        let commands = joins.iter().map(command).collect();
        self.send(commands, Origin::Joins(joins));
    }

    /// Whether the leader lets the machine join; if not, the machine asks again.
    fn may_join(&mut self, at: usize, era: u32) -> bool {
        let now = self.now();
        let (Some(machine), Some(leader)) = (self.machines.get(at), &self.leader) else {
            return false;
        };
        let Some(node) = machine.id else { return true };
        let Err(held) = leader.may_join(node, machine.instance(at), now) else { return true };
        self.report.joins_held += 1;
        if machine.era == era {
            self.try_at(at, |outage, now| outage.next_try(now, Some(held.retry_after)));
        }
        false
    }

    /// Registrations died with their leader: the agents try again.
    pub(super) fn joins_lost(&mut self, joins: &[(usize, u32)]) {
        for &(at, era) in joins {
            if self.machines.get(at).is_some_and(|machine| machine.era == era) {
                self.come_back(at);
            }
        }
    }

    pub(super) fn joined(
        &mut self,
        joins: &[(usize, u32)],
        results: &[Result<Outcome, Rejection>],
    ) -> Result<(), Violation> {
        let now = self.now();
        for (&(at, era), result) in joins.iter().zip(results) {
            let (node, epoch) = match result {
                Ok(Outcome::Registered { node, epoch }) => (*node, *epoch),
                Ok(other) => {
                    return Err(self.violation(format!("a registration was answered {other:?}")));
                }
                Err(why) => {
                    return Err(self.violation(format!("a registration was refused: {why}")));
                }
            };
            let current = self
                .machines
                .get(at)
                .is_some_and(|machine| machine.era == era && machine.is_reachable());
            self.shared_node_joined(at, node, epoch);
            let instance = self.machines[at].instance(at);
            if let Some(leader) = &mut self.leader {
                leader.joined(node, epoch, instance, now);
                if !current {
                    // It has gone again in the meantime.
                    leader.fell_silent(node, epoch, now);
                }
            }
            if current {
                let beats = self.machines[at].is_in_session();
                let before = self.by_node.get(node.0 as usize).copied().flatten();
                self.report.nodes_taken_over += u64::from(before.is_some_and(|was| was != at));
                self.seat_machine(at, node, epoch);
                if !beats {
                    self.begin_beats(at);
                }
                let reports = self.machines[at].repeat();
                self.say(at, reports);
            } else {
                self.forget_seat(at, node, epoch);
            }
        }
        Ok(())
    }

    /// The log knows of a session that the agent never heard of.
    fn forget_seat(&mut self, at: usize, node: NodeId, epoch: Epoch) {
        self.seat_machine(at, node, epoch);
        self.machines[at].session = Session::None;
    }

    /// Nodes that are up by the log and cannot be heard now.
    pub(super) fn silent(&self) -> Vec<(NodeId, Epoch)> {
        let known = self.machines.iter().filter_map(|machine| {
            let node = self.state.node(machine.id?)?;
            let heard = machine.is_in_session() && machine.epoch == node.epoch;
            (node.status == NodeStatus::Up && !heard).then_some((node.id, node.epoch))
        });
        known.collect()
    }
}
