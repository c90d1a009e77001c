//! How long leases are and how often agents are heard, by size of the fleet.
//!
//! **Invariant:** a larger fleet never has a shorter lease, so a lease that an agent was told of
//! never outlasts the one that the leader counts.

use scheduler_core::duty::liveness;
use std::time::Duration;

/// Heartbeats in one lease: three may be lost.
const HEARTBEATS_PER_LEASE: u32 = 4;
/// Digests in one lease: a heartbeat waits at most this part of the lease for its answer.
const DIGESTS_PER_LEASE: u32 = 10;
/// Longest time between digests: a restarted agent waits for one before it may join again.
const DIGEST_MAX: Duration = Duration::from_secs(1);
/// Shortest lease of a small fleet: no interval derived from it may be zero.
const LEASE_FLOOR: Duration = Duration::from_millis(100);

/// Lengths of leases and intervals; the same on all servers of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    lease_base: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self::new(Duration::from_millis(liveness::LEASE_MIN.0))
    }
}

impl Timing {
    /// Timing with this lease for a small fleet; below a tenth of a second it is that.
    pub fn new(lease_base: Duration) -> Self {
        Self { lease_base: lease_base.max(LEASE_FLOOR) }
    }

    /// An agent must be heard within this time. `fleet` is the number of node ids ever given: it
    /// never shrinks, and so neither does the lease.
    pub fn lease(&self, fleet: u32) -> Duration {
        let scaled = liveness::lease(usize::try_from(fleet).unwrap_or(usize::MAX));
        let least = u128::from(liveness::LEASE_MIN.0);
        let millis = self.lease_base.as_millis().saturating_mul(scaled.0.into()) / least;
        Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
    }

    /// Agents send a heartbeat this often.
    pub fn heartbeat(&self, fleet: u32) -> Duration {
        self.lease(fleet) / HEARTBEATS_PER_LEASE
    }

    /// The leader declares a node down only this long after its lease has ended: clocks of agents
    /// and leader may run at slightly different speeds.
    pub fn drift(&self, fleet: u32) -> Duration {
        self.lease(fleet) / 10
    }

    /// Servers tell the leader whom they have heard this often.
    pub fn digest(&self) -> Duration {
        (self.lease_base / DIGESTS_PER_LEASE).min(DIGEST_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_grow_with_the_fleet_and_never_shrink() {
        let (timing, ten) = (Timing::default(), Duration::from_secs(10));
        assert_eq!(timing.lease(0), ten);
        assert_eq!(timing.lease(10_000), ten);
        assert!(timing.lease(69_000) > 2 * ten);
        let mut last = Duration::ZERO;
        for fleet in (0..200_000).step_by(777) {
            assert!(timing.lease(fleet) >= last);
            last = timing.lease(fleet);
            assert!(timing.heartbeat(fleet) * 3 < timing.lease(fleet));
        }
        assert!(timing.lease(u32::MAX) > last);
        assert!(Timing::new(Duration::ZERO).digest() > Duration::ZERO);
        assert_eq!(Timing::new(ten / 10).lease(0), ten / 10);
    }
}
