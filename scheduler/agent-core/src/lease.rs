//! The lease: until when this node may run what it was given.
//!
//! **Invariant:** the lease counts from when the acknowledged heartbeat was SENT. The server counts
//! from when it was received, which is later, so the agent always gives up first.

use std::collections::VecDeque;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A join, or the opening of a session, that takes longer has failed.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Heartbeats without an answer that are remembered; an answer to an older one is of no use.
const UNANSWERED_MAX: usize = 8;
/// A server has a third of the lease to answer: a heartbeat sent after a quarter of it still leaves
/// two fifths for another server. Less would make agents of an overloaded server move about.
const PATIENCE_PER_LEASE: u32 = 3;
/// However little of the lease is left, a server has an eighth of it: answers are gathered for a
/// tenth of the lease.
const HASTE_PER_LEASE: u32 = 8;

/// A point of a clock that never jumps: an instant of the machine's, or the time since a start.
pub trait Moment: Copy + Ord + Add<Duration, Output = Self> + Sub<Output = Duration> {}

impl<T: Copy + Ord + Add<Duration, Output = T> + Sub<Output = Duration>> Moment for T {}

/// See the module.
#[derive(Clone, Debug)]
pub struct Lease<T> {
    length: Duration,
    until: Option<T>,
    sequence: u64,
    unanswered: VecDeque<(u64, T)>,
    /// When the oldest heartbeat was sent that has no answer, remembered or not.
    waiting_since: Option<T>,
}

impl<T> Default for Lease<T> {
    /// None yet.
    fn default() -> Lease<T> {
        let (length, sequence, unanswered) = (Duration::ZERO, 0, VecDeque::new());
        Lease { length, until: None, sequence, unanswered, waiting_since: None }
    }
}

impl<T: Moment> Lease<T> {
    /// A lease of `length` from `sent_at`, the moment at which it was asked for. Heartbeats of an
    /// earlier lease count no more.
    pub fn grant(&mut self, length: Duration, sent_at: T) {
        self.length = length;
        self.until = Some(sent_at + length);
        self.forget_unanswered();
    }

    /// No lease any more.
    pub fn clear(&mut self) {
        self.until = None;
        self.forget_unanswered();
    }

    /// When it ends; `None` when there is none.
    pub fn until(&self) -> Option<T> {
        self.until
    }

    /// How much is left of it; `None` when there is none.
    pub fn left(&self, now: T) -> Option<Duration> {
        let until = self.until?;
        Some(if until > now { until - now } else { Duration::ZERO })
    }

    /// When the server, asked to prolong the lease and giving no answer, is taken for silent; `None`
    /// while nothing is asked. What else it says does not matter: only this keeps the lease. Always
    /// early enough to ask another server before the lease ends.
    pub fn silent_at(&self) -> Option<T> {
        let sent_at = self.waiting_since?;
        let left = self.left(sent_at)?;
        let patience = (self.length / PATIENCE_PER_LEASE).min(left / 2);
        Some(sent_at + patience.max(self.length / HASTE_PER_LEASE))
    }

    /// A new stream: what the old one has not answered will not be answered.
    pub fn forget_unanswered(&mut self) {
        self.unanswered.clear();
        self.waiting_since = None;
    }

    /// Notes that a heartbeat goes out now; gives its number.
    pub fn heartbeat(&mut self, now: T) -> u64 {
        self.sequence += 1;
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((self.sequence, now));
        self.waiting_since.get_or_insert(now);
        self.sequence
    }

    /// Takes the answer to a heartbeat; true if the lease now holds longer.
    pub fn acknowledged(&mut self, sequence: u64) -> bool {
        let Some(at) = self.unanswered.iter().position(|(sent, _)| *sent == sequence) else {
            return false;
        };
        let Some((_, sent_at)) = self.unanswered.drain(..=at).next_back() else { return false };
        self.waiting_since = self.unanswered.front().map(|(_, sent_at)| *sent_at);
        let until = sent_at + self.length;
        let longer = self.until.is_some_and(|now| until > now);
        if longer {
            self.until = Some(until);
        }
        longer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(10);

    /// What the clock shows when a test begins.
    const START: Duration = Duration::from_secs(1_000);

    fn after(start: Duration, seconds: u64) -> Duration {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn counts_from_the_sending() {
        let (start, mut lease) = (START, Lease::default());
        lease.grant(LENGTH, start);
        assert_eq!(lease.until(), Some(after(start, 10)));
        let first = lease.heartbeat(after(start, 2));
        let second = lease.heartbeat(after(start, 4));
        assert!(lease.acknowledged(second));
        assert_eq!(lease.until(), Some(after(start, 14)));
        assert!(!lease.acknowledged(first), "older than what was answered");
        assert!(!lease.acknowledged(second), "answered twice");
        assert!(!lease.acknowledged(999), "never sent");
        assert_eq!(lease.left(after(start, 11)), Some(Duration::from_secs(3)));
        assert_eq!(lease.left(after(start, 15)), Some(Duration::ZERO));
        assert_eq!(lease.until(), Some(after(start, 14)));
    }

    #[test]
    fn answers_of_an_earlier_lease_do_not_count() {
        let (start, mut lease) = (START, Lease::default());
        lease.grant(LENGTH, start);
        let old = lease.heartbeat(after(start, 9));
        lease.clear();
        assert!(!lease.acknowledged(old));
        assert_eq!(lease.until(), None);
        let other = lease.heartbeat(after(start, 9));
        lease.grant(LENGTH, after(start, 5));
        assert!(!lease.acknowledged(other));
        assert_eq!(lease.until(), Some(after(start, 15)));
    }

    #[test]
    fn silence_is_found_out_well_before_the_end() {
        let (start, mut lease) = (START, Lease::default());
        lease.grant(LENGTH, start);
        assert_eq!(lease.silent_at(), None, "nothing was asked");
        let first = lease.heartbeat(after(start, 2));
        lease.heartbeat(after(start, 4));
        assert_eq!(lease.silent_at(), Some(after(start, 2) + LENGTH / 3), "the oldest counts");
        assert!(lease.acknowledged(first));
        assert_eq!(lease.silent_at(), Some(after(start, 4) + LENGTH / 3));
        // Another server is asked late: half of what is left, then the least there is.
        lease.forget_unanswered();
        assert_eq!(lease.silent_at(), None);
        lease.heartbeat(after(start, 8));
        assert_eq!(lease.silent_at(), Some(after(start, 10)));
        lease.forget_unanswered();
        lease.heartbeat(after(start, 11));
        assert_eq!(lease.silent_at(), Some(after(start, 11) + LENGTH / 8));
        // More heartbeats than are remembered do not make it look as if one had been answered.
        for second in 12..12 + 2 * UNANSWERED_MAX as u64 {
            lease.heartbeat(after(start, second));
        }
        assert_eq!(lease.silent_at(), Some(after(start, 11) + LENGTH / 8));
    }

    #[test]
    fn unanswered_heartbeats_are_bounded() {
        let (start, mut lease) = (START, Lease::default());
        lease.grant(LENGTH, start);
        let first = lease.heartbeat(start);
        for _ in 0..100 {
            lease.heartbeat(start);
        }
        assert_eq!(lease.unanswered.len(), UNANSWERED_MAX);
        assert!(!lease.acknowledged(first));
    }
}
