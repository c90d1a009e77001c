//! How long to wait before the next try, so that 69,000 agents that lost the same server do not
//! come back in the same second.
//!
//! **Invariant:** waits are drawn from the whole range up to a bound that grows 1.5-fold; a server's
//! own wish (RetryInfo) is never undercut.

use std::time::Duration;

/// Longest ordinary wait.
pub const WAIT_MAX: Duration = Duration::from_secs(15);
/// Bound of the first wait where nothing else is known.
const WAIT_FIRST: Duration = Duration::from_millis(500);
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

    /// How long to wait now, at least as long as the server wished.
    pub fn wait(&mut self, wish: Option<Duration>) -> Duration {
        let wait = self.jitter.up_to(self.bound);
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
                    backoff.wait(None);
                }
                backoff.wait(None)
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
        backoff.wait(None);
        assert_eq!(backoff.bound, WAIT_FIRST * 3 / 2);
        for _ in 0..50 {
            backoff.wait(None);
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
            let wait = backoff.wait(Some(wish));
            assert!(wait >= wish && wait <= wish + WAIT_MAX);
        }
        assert!(backoff.wait(Some(Duration::MAX)) <= WISH_MAX * 3 / 2);
    }
}
