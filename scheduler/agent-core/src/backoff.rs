//! How long to wait before the next try, so that 69,000 agents that lost the same server do not
//! come back in the same second, and still each has several tries before its lease ends.
//!
//! **Invariant:** waits are drawn from the whole range up to a bound that grows 1.5-fold, but while a
//! lease runs not beyond a part of what is left of it; a server's own wish (RetryInfo) is never
//! undercut.

use std::time::Duration;

/// Longest ordinary wait.
pub const WAIT_MAX: Duration = Duration::from_secs(15);
/// Bound of the first wait where nothing else is known.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// While a lease runs, no wait is longer than a quarter of what is left of it, or than the bound of
/// the first wait, so that there are at least five tries in half of a lease. That bound is a
/// sixteenth of a lease: however little is left, a herd is never denser than when it began.
const WAITS_PER_REST: u32 = 4;
/// A server that asks for more than this is not obeyed to the letter: it may have lost its mind.
const WISH_MAX: Duration = Duration::from_secs(300);

/// A small generator (SplitMix64, Steele et al. 2014) for waits: one word per agent.
#[derive(Clone, Debug)]
pub struct Jitter(u64);

impl Jitter {
    pub fn new(seed: u64) -> Jitter {
        Jitter(seed)
    }

    /// The next number.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 up to and without 1.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly from zero to `most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.unit())
    }
}

/// The waits of one agent.
#[derive(Clone, Debug)]
pub struct Backoff {
    jitter: Jitter,
    bound: Duration,
    first: Duration,
}

impl Backoff {
    pub fn new(jitter: Jitter) -> Backoff {
        Backoff { jitter, bound: WAIT_FIRST, first: WAIT_FIRST }
    }

    /// Starts again from the first bound: something went well.
    pub fn reset(&mut self) {
        self.bound = self.first;
    }

    /// Bound of the first wait. Servers stretch heartbeats with the size of the fleet, so a part of
    /// that interval spreads a large fleet and keeps a small one quick.
    pub fn set_first(&mut self, heartbeat: Duration) {
        self.first = (heartbeat / 4).clamp(Duration::from_millis(20), WAIT_MAX);
        self.reset();
    }

    /// How long to wait now, at least as long as the server wished. `left`: what is left of the
    /// lease, where there is one.
    pub fn wait(&mut self, wish: Option<Duration>, left: Option<Duration>) -> Duration {
        let most = left.map_or(WAIT_MAX, |left| (left / WAITS_PER_REST).max(self.first));
        let wait = self.jitter.up_to(self.bound.min(most));
        self.bound = (self.bound * 3 / 2).min(WAIT_MAX);
        match wish.map(|wish| wish.min(WISH_MAX)) {
            // Spread beyond the wish too, or all come back at its end.
            Some(wish) => wish + wait.max(self.jitter.up_to(wish / 2)),
            None => wait,
        }
    }

    /// Random numbers.
    pub fn jitter(&mut self) -> &mut Jitter {
        &mut self.jitter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_herd_spreads() {
        let waits = |round: u32| {
            (0..69_000u64).map(move |agent| {
                let mut backoff = Backoff::new(Jitter::new(agent));
                for _ in 0..round {
                    backoff.wait(None, None);
                }
                backoff.wait(None, None)
            })
        };
        let mut slots = [0u32; 15];
        for wait in waits(20) {
            assert!(wait <= WAIT_MAX);
            slots[(wait.as_secs() as usize).min(14)] += 1;
        }
        assert!(slots.iter().all(|count| (4_300..=4_900).contains(count)), "{slots:?}");
        assert!(waits(0).all(|wait| wait <= WAIT_FIRST));
    }

    #[test]
    fn bounds_grow_and_start_again() {
        let mut backoff = Backoff::new(Jitter::new(1));
        backoff.wait(None, None);
        assert_eq!(backoff.bound, WAIT_FIRST * 3 / 2);
        for _ in 0..50 {
            backoff.wait(None, None);
        }
        assert_eq!(backoff.bound, WAIT_MAX);
        backoff.reset();
        assert_eq!(backoff.bound, WAIT_FIRST);
        backoff.set_first(Duration::from_secs(40));
        assert_eq!(backoff.bound, Duration::from_secs(10));
    }

    #[test]
    fn the_servers_wish_is_obeyed_within_reason() {
        let mut backoff = Backoff::new(Jitter::new(1));
        let wish = Duration::from_secs(20);
        for _ in 0..100 {
            let wait = backoff.wait(Some(wish), None);
            assert!(wait >= wish && wait <= wish + WAIT_MAX);
        }
        assert!(backoff.wait(Some(Duration::MAX), None) <= WISH_MAX * 3 / 2);
    }

    /// When an agent tries again that is refused at once each time, from the loss of its server up
    /// to the end of its lease.
    fn tries(agent: u64, lease: Duration) -> Vec<Duration> {
        let mut backoff = Backoff::new(Jitter::new(agent));
        backoff.set_first(lease / 4);
        let (mut now, mut tries) = (Duration::ZERO, Vec::new());
        loop {
            now += backoff.wait(None, Some(lease.saturating_sub(now)));
            if now >= lease {
                return tries;
            }
            tries.push(now);
        }
    }

    #[test]
    fn several_tries_fit_into_what_is_left_of_a_lease() {
        let lease = Duration::from_secs(10);
        for agent in 0..10_000 {
            let tries = tries(agent, lease);
            // Servers that are back after half of the lease find every agent in time.
            let late = tries.iter().filter(|at| **at >= lease / 2).count();
            assert!(late >= 4, "agent {agent} tried at {tries:?}");
        }
    }

    #[test]
    fn a_herd_whose_leases_run_spreads_too() {
        let lease = Duration::from_secs(20);
        let mut slots = [0u32; 200];
        for agent in 0..69_000 {
            for at in tries(agent, lease) {
                slots[at.as_millis() as usize / 100] += 1;
            }
        }
        // Agents that never waited longer than the first bound, 1.25 s, would come at a rate of one
        // in 625 ms each: 11,000 in a slot. Nobody comes more often than that.
        assert!(slots.iter().all(|count| (2_000..=12_000).contains(count)), "{slots:?}");
    }

    #[test]
    fn a_wish_is_obeyed_though_the_lease_ends_before() {
        let mut backoff = Backoff::new(Jitter::new(1));
        let (wish, left) = (Duration::from_secs(20), Duration::from_secs(1));
        assert!(backoff.wait(Some(wish), Some(left)) >= wish);
    }
}
