//! An agent without a server: what is left of its lease, and when it tries again.
//!
//! The rules are those of `agent-core`; tries that cannot be heard cost no events, they are played
//! through when the network is back.
//! **Invariant:** decides nothing: what a try comes to is for the world to say.

use agent_core::backoff::{Backoff, Jitter};
use agent_core::lease::{CALL_TIMEOUT, Lease};
use scheduler_core::unit::{DurationMs, TimeMs};
use std::time::Duration;

/// See the module. Times are since the start of the run.
#[derive(Debug)]
pub(super) struct Outage {
    lease: Lease<Duration>,
    backoff: Backoff,
    /// The agent draws its next wait then: it knows that it has no server.
    waits_from: Duration,
}

impl Outage {
    /// An agent that has no lease, and begins to look for a server. `seed` is its own.
    pub(super) fn without_lease(seed: u64, heartbeat: DurationMs, now: TimeMs) -> Self {
        let mut backoff = Backoff::new(Jitter::new(seed));
        backoff.set_first(length(heartbeat));
        Self { lease: Lease::default(), backoff, waits_from: since_start(now) }
    }

    /// Its lease is of this length and counts from the sending of the last heartbeat that was
    /// answered.
    pub(super) fn with_lease(mut self, lease: DurationMs, answered: TimeMs) -> Self {
        self.lease.grant(length(lease), since_start(answered));
        self
    }

    /// The agent's words go nowhere, and it finds out by the next heartbeat having no answer.
    pub(super) fn unnoticed(mut self, next_heartbeat: TimeMs) -> Self {
        self.lease.heartbeat(since_start(next_heartbeat));
        self.waits_from = self.lease.silent_at().unwrap_or(self.waits_from).max(self.waits_from);
        self
    }

    /// When the lease ends; `None` when there is none.
    pub(super) fn lease_until(&self) -> Option<TimeMs> {
        self.lease.until().map(to_time)
    }

    /// The lease is over, or void: waits are those of an agent that has none.
    pub(super) fn end_lease(&mut self, now: TimeMs) {
        self.lease.clear();
        self.waits_from = self.waits_from.max(since_start(now));
    }

    /// When the agent tries a server next, of which it has known for a while or since now that it
    /// is gone. `wish`: the server wants it to wait for so long at least.
    pub(super) fn next_try(&mut self, now: TimeMs, wish: Option<DurationMs>) -> TimeMs {
        let from = self.waits_from.max(since_start(now));
        let at = from + self.backoff.wait(wish.map(length), self.lease.left(from));
        self.waits_from = at;
        to_time(at)
    }

    /// When the agent tries next after `healed`, up to which all of its tries were in vain: each
    /// took until the agent took the server for silent.
    pub(super) fn first_try_after(&mut self, healed: TimeMs) -> TimeMs {
        let healed = since_start(healed);
        loop {
            let at = self.waits_from + self.backoff.wait(None, self.lease.left(self.waits_from));
            // The end of the lease interrupts everything.
            if let Some(until) = self.lease.until().filter(|until| *until <= at) {
                if until >= healed {
                    return to_time(until);
                }
                self.lease.clear();
                self.waits_from = until;
                continue;
            }
            self.waits_from = at;
            if at >= healed {
                return to_time(at);
            }
            self.lease.forget_unanswered();
            self.lease.heartbeat(at);
            self.waits_from = self.lease.silent_at().unwrap_or(at + CALL_TIMEOUT);
        }
    }
}

fn length(time: DurationMs) -> Duration {
    Duration::from_millis(time.0)
}

fn since_start(time: TimeMs) -> Duration {
    Duration::from_millis(time.0)
}

/// Whole milliseconds, and never early.
fn to_time(at: Duration) -> TimeMs {
    TimeMs(u64::try_from(at.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: DurationMs = DurationMs(10_000);
    const HEARTBEAT: DurationMs = DurationMs(2_500);

    /// Cut off right after a heartbeat was answered that was sent at zero.
    fn cut(agent: u64) -> Outage {
        let outage = Outage::without_lease(agent, HEARTBEAT, TimeMs(1));
        outage.with_lease(LEASE, TimeMs(0)).unnoticed(TimeMs(2_500))
    }

    #[test]
    fn half_a_lease_without_a_network_costs_nobody_the_lease() {
        for agent in 0..10_000 {
            let mut outage = cut(agent);
            assert_eq!(outage.lease_until(), Some(TimeMs(10_000)));
            let at = outage.first_try_after(TimeMs(5_000));
            assert!((5_000..10_000).contains(&at.0), "agent {agent} came at {at:?}");
        }
    }

    #[test]
    fn agents_that_were_cut_off_for_long_come_back_spread() {
        let healed = 3_600_000;
        let mut slots = [0; 26];
        for agent in 0..26_000 {
            slots[((cut(agent).first_try_after(TimeMs(healed)).0 - healed) / 1_000) as usize] += 1;
        }
        // They are anywhere in a wait of up to 15 s, or in a call of 10 s.
        assert!(slots.iter().all(|count| *count < 2_600), "{slots:?}");
        assert!(slots[..15].iter().all(|count| *count > 400), "{slots:?}");
    }

    #[test]
    fn an_agent_that_is_refused_tries_until_its_lease_ends() {
        let mut outage =
            Outage::without_lease(7, HEARTBEAT, TimeMs(0)).with_lease(LEASE, TimeMs(0));
        let (mut now, mut tries) = (TimeMs(0), 0);
        while now < TimeMs(10_000) {
            now = outage.next_try(now, None);
            tries += 1;
        }
        assert!((8..60).contains(&tries), "{tries}");
        outage.end_lease(TimeMs(10_000));
        assert_eq!(outage.lease_until(), None);
    }
}
