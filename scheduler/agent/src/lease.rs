//! The lease: until when this node may run what it was given.
//!
//! **Invariant:** the lease counts from when the acknowledged heartbeat was SENT. The server counts
//! from when it was received, which is later, so the agent always gives up first.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// Heartbeats without an answer that are remembered; an answer to an older one is of no use.
const UNANSWERED_MAX: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Lease {
    length: Duration,
    until: Option<Instant>,
    sequence: u64,
    unanswered: VecDeque<(u64, Instant)>,
}

impl Lease {
    /// A lease of `length` from `sent_at`, the moment at which it was asked for. Heartbeats of an
    /// earlier lease count no more.
    pub fn grant(&mut self, length: Duration, sent_at: Instant) {
        self.length = length;
        self.until = Some(sent_at + length);
        self.unanswered.clear();
    }

    /// No lease any more.
    pub fn clear(&mut self) {
        self.until = None;
        self.unanswered.clear();
    }

    /// When it ends; `None` when there is none.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Its length.
    pub fn length(&self) -> Duration {
        self.length
    }

    /// A new stream: what the old one has not answered will not be answered.
    pub fn forget_unanswered(&mut self) {
        self.unanswered.clear();
    }

    /// Notes that a heartbeat goes out now; gives its number.
    pub fn heartbeat(&mut self, now: Instant) -> u64 {
        self.sequence += 1;
        if self.unanswered.len() == UNANSWERED_MAX {
            self.unanswered.pop_front();
        }
        self.unanswered.push_back((self.sequence, now));
        self.sequence
    }

    /// Takes the answer to a heartbeat; true if the lease now holds longer.
    pub fn acknowledged(&mut self, sequence: u64) -> bool {
        let Some(at) = self.unanswered.iter().position(|(sent, _)| *sent == sequence) else {
            return false;
        };
        let Some((_, sent_at)) = self.unanswered.drain(..=at).next_back() else { return false };
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

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn counts_from_the_sending() {
        let (start, mut lease) = (Instant::now(), Lease::default());
        lease.grant(LENGTH, start);
        assert_eq!(lease.until(), Some(after(start, 10)));
        let first = lease.heartbeat(after(start, 2));
        let second = lease.heartbeat(after(start, 4));
        assert!(lease.acknowledged(second));
        assert_eq!(lease.until(), Some(after(start, 14)));
        assert!(!lease.acknowledged(first), "older than what was answered");
        assert!(!lease.acknowledged(second), "answered twice");
        assert!(!lease.acknowledged(999), "never sent");
        assert_eq!(lease.until(), Some(after(start, 14)));
    }

    #[test]
    fn answers_of_an_earlier_lease_do_not_count() {
        let (start, mut lease) = (Instant::now(), Lease::default());
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
    fn unanswered_heartbeats_are_bounded() {
        let (start, mut lease) = (Instant::now(), Lease::default());
        lease.grant(LENGTH, start);
        let first = lease.heartbeat(start);
        for _ in 0..100 {
            lease.heartbeat(start);
        }
        assert_eq!(lease.unanswered.len(), UNANSWERED_MAX);
        assert!(!lease.acknowledged(first));
    }
}
