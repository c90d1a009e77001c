//! How long leases are and how often agents are heard, by size of the fleet.
//!
//! **Invariant:** a larger fleet never has a shorter lease, so a lease that an agent was told of
//! never outlasts the one that the leader counts.

use crate::unit::DurationMs;

/// Lease of a node's session in a small fleet: long enough for a lost connection to be replaced.
pub const LEASE_MIN: DurationMs = DurationMs(10_000);
/// Every node of a large fleet makes all leases longer by this much, so that the servers together
/// never have to take in more than some 13,000 heartbeats in a second.
const LEASE_US_PER_NODE: u64 = 300;
/// Heartbeats in one lease: three may be lost.
const HEARTBEATS_PER_LEASE: u64 = 4;
/// Digests in one lease: a heartbeat waits at most this part of the lease for its answer.
const DIGESTS_PER_LEASE: u64 = 10;
/// Servers whose digests have not come through for this part of a lease send their agents away: there
/// is still time for another server to keep the leases.
const CUT_OFFS_PER_LEASE: u64 = 3;
/// Longest time between digests: a restarted agent waits for one before it may join again.
const DIGEST_MAX: DurationMs = DurationMs(1_000);
/// Shortest lease of a small fleet: no interval derived from it may be zero.
const LEASE_FLOOR: DurationMs = DurationMs(100);

/// Lengths of leases and intervals; the same on all servers of a cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    lease_base: DurationMs,
}

impl Default for Timing {
    fn default() -> Self {
        Self::new(LEASE_MIN)
    }
}

impl Timing {
    /// Timing with this lease for a small fleet; below a tenth of a second it is that.
    pub fn new(lease_base: DurationMs) -> Self {
        Self { lease_base: lease_base.max(LEASE_FLOOR) }
    }

    /// An agent must be heard within this time. `fleet` is the number of node ids ever given: it
    /// never shrinks, and so neither does the lease.
    pub fn lease(&self, fleet: u32) -> DurationMs {
        let scaled = (u64::from(fleet) * LEASE_US_PER_NODE / 1_000).max(LEASE_MIN.0);
        DurationMs(self.lease_base.0.saturating_mul(scaled) / LEASE_MIN.0)
    }

    /// Agents send a heartbeat this often.
    pub fn heartbeat(&self, fleet: u32) -> DurationMs {
        DurationMs(self.lease(fleet).0 / HEARTBEATS_PER_LEASE)
    }

    /// The leader declares a node down only this long after its lease has ended: clocks of agents
    /// and leader may run at slightly different speeds.
    pub fn drift(&self, fleet: u32) -> DurationMs {
        DurationMs(self.lease(fleet).0 / 10)
    }

    /// Servers tell the leader whom they have heard this often.
    pub fn digest(&self) -> DurationMs {
        DurationMs(self.lease_base.0 / DIGESTS_PER_LEASE).min(DIGEST_MAX)
    }

    /// A server that no leader has counted the digests of for longer sends its agents away.
    pub fn cut_off(&self, fleet: u32) -> DurationMs {
        DurationMs(self.lease(fleet).0 / CUT_OFFS_PER_LEASE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_grow_with_the_fleet_and_never_shrink() {
        let timing = Timing::default();
        assert_eq!(timing.lease(0), DurationMs(10_000));
        assert_eq!(timing.lease(10_000), DurationMs(10_000));
        assert!(timing.lease(69_000) > DurationMs(20_000));
        assert_eq!(timing.lease(150_000), DurationMs(45_000));
        let mut last = DurationMs::ZERO;
        for fleet in (0..200_000).step_by(777) {
            assert!(timing.lease(fleet) >= last);
            last = timing.lease(fleet);
            assert!(timing.heartbeat(fleet).0 * 3 < timing.lease(fleet).0);
            assert!(timing.digest() < timing.cut_off(fleet));
        }
        assert!(timing.lease(u32::MAX) > last);
        assert!(Timing::new(DurationMs::ZERO).digest() > DurationMs::ZERO);
        assert_eq!(Timing::new(DurationMs(1_000)).lease(0), DurationMs(1_000));
        assert!(Timing::new(DurationMs(u64::MAX)).lease(u32::MAX) > last);
    }
}
