//! The servers of the quorum: which of them leads, which are cut off from the others, what their
//! clocks show.
//!
//! **Invariant:** nobody leads without a majority that hears each other. A server's clock is only
//! ever put into entries; leases and pauses go by a clock that never jumps.

use super::{Turn, World};
use crate::scenario::Scenario;
use rand::RngExt;
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::BTreeSet;

/// See the module. Servers are numbered from 0.
#[derive(Debug)]
pub(super) struct Servers {
    count: u32,
    /// Which one leads, or led last.
    seat: u32,
    /// Those that the others do not hear.
    cut_off: BTreeSet<u32>,
    /// By how much each clock is ahead of the world's time.
    ahead_ms: Vec<i64>,
    /// Whether an election waits until there is a majority again.
    stuck: bool,
    /// Since when the server on the seat leads.
    led_from: TimeMs,
    /// Up to when the leaders before it counted heartbeats.
    counted_until: TimeMs,
}

impl Servers {
    pub(super) fn new(scenario: &Scenario) -> Self {
        let count = scenario.servers.count.max(1);
        Self {
            count,
            seat: 0,
            cut_off: BTreeSet::new(),
            ahead_ms: vec![0; count as usize],
            stuck: false,
            led_from: TimeMs::ZERO,
            counted_until: TimeMs::ZERO,
        }
    }

    /// What the clock of the leading server shows.
    pub(super) fn leaders_clock(&self, now: TimeMs) -> TimeMs {
        self.clock_of(self.seat, now)
    }

    fn clock_of(&self, server: u32, now: TimeMs) -> TimeMs {
        let ahead = self.ahead_ms.get(server as usize).copied().unwrap_or(0);
        TimeMs(now.0.saturating_add_signed(ahead))
    }

    /// The world's time at which the leader's clock shows this.
    pub(super) fn when_leader_shows(&self, shown: TimeMs) -> TimeMs {
        let ahead = self.ahead_ms.get(self.seat as usize).copied().unwrap_or(0);
        TimeMs(shown.0.saturating_add_signed(ahead.saturating_neg()))
    }

    fn has_majority(&self) -> bool {
        (self.cut_off.len() as u32) < self.count.div_ceil(2)
    }
}

impl World<'_> {
    /// What the clock of some server shows: that of whoever took a call, as a leader's or another's.
    pub(super) fn some_clock(&mut self) -> TimeMs {
        let now = self.now();
        if self.servers.ahead_ms.iter().all(|ahead| *ahead == 0) {
            return now;
        }
        let server = self.dice.servers.random_range(0..self.servers.count);
        self.servers.clock_of(server, now)
    }

    pub(super) fn set_clock(&mut self, server: u32, ahead_ms: i64) {
        if let Some(clock) = self.servers.ahead_ms.get_mut(server as usize) {
            *clock = ahead_ms;
            // What was due by the clock may be due earlier now.
            self.duty_at = None;
        }
    }

    /// The leader does not hear the others any more.
    pub(super) fn cut_leader(&mut self) {
        self.servers.cut_off.insert(self.servers.seat);
        self.lose_leader(false);
    }

    /// All servers hear each other again; who waited for a majority has one.
    pub(super) fn heal_servers(&mut self) {
        self.servers.cut_off.clear();
        if std::mem::take(&mut self.servers.stuck) {
            self.call_election();
        }
    }

    /// Whether an agent that tries now happens on a server that is cut off, which sends it away.
    pub(super) fn is_sent_away(&mut self) -> bool {
        let cut_off = self.servers.cut_off.len() as u32;
        cut_off > 0 && self.dice.servers.random_range(0..self.servers.count) < cut_off
    }

    /// Up to when heartbeats were answered: none is without a leader, nor before the first digest
    /// that a new one counts.
    pub(super) fn answered_until(&self) -> TimeMs {
        let (now, led_from) = (self.now(), self.servers.led_from);
        let counts = self.leader.is_some() && now.since(led_from) >= self.network.lengths.digest;
        if counts { now } else { self.servers.counted_until }
    }

    /// The leader is about to be lost. Should nobody lead for long, all agents will be sent away.
    pub(super) fn note_last_answers(&mut self) {
        self.servers.counted_until = self.answered_until();
        let leaders_lost = self.report.leaders_lost;
        self.push_after(self.network.lengths.cut_off, Turn::SendAway { leaders_lost });
    }

    /// No server can have heartbeats answered, and each tells its agents to look for another one.
    pub(super) fn send_away(&mut self, leaders_lost: u64) {
        if self.leader.is_some() || self.report.leaders_lost != leaders_lost {
            return;
        }
        for at in 0..self.machines.len() {
            self.lose_stream(at, true);
        }
    }

    fn lose_stream(&mut self, at: usize, noticed: bool) {
        if self.machines[at].is_in_session() {
            self.falls_silent(at, noticed);
            self.come_back(at);
        }
    }

    /// The agent's connection breaks, which both ends notice.
    pub(super) fn reset_stream(&mut self, at: usize) {
        let was = self.machines[at].is_in_session();
        self.lose_stream(at, true);
        if was {
            self.tell_closed(at);
        }
    }

    /// Sessions on the server that led are gone, and their agents look for another one. `noticed`:
    /// its death closed them; else no heartbeat is answered any more.
    pub(super) fn lose_streams(&mut self, noticed: bool) {
        let (first, step) = (self.servers.seat as usize, self.servers.count as usize);
        for at in (first..self.machines.len()).step_by(step) {
            self.lose_stream(at, noticed);
        }
    }

    /// Somebody else will lead, once a majority has found together.
    pub(super) fn call_election(&mut self) {
        if !self.servers.has_majority() {
            self.servers.stuck = true;
            return;
        }
        let took: DurationMs = self.scenario.servers.election.draw(&mut self.dice.servers);
        self.push_after(took, Turn::Elect);
    }

    /// The next server that the others hear takes the seat; false if there is no majority.
    pub(super) fn take_seat(&mut self) -> bool {
        let servers = &mut self.servers;
        servers.stuck = !servers.has_majority();
        if servers.stuck {
            return false;
        }
        let next = (1..=servers.count).map(|step| (servers.seat + step) % servers.count);
        let heard = next.into_iter().find(|server| !servers.cut_off.contains(server));
        servers.seat = heard.unwrap_or(servers.seat);
        servers.led_from = self.heap.now();
        true
    }
}
