//! A site's place in a made-up space in which distance stands for RTT.
//!
//! Coordinates with a height as in Dabek, Cox, Kaashoek and Morris, "Vivaldi: A Decentralized
//! Network Coordinate System", SIGCOMM 2004: the way through the Internet's core is the distance
//! between the points, the way to the core is each side's height.
//! **Invariant:** integers only, and no operation rounds differently anywhere: estimates decide in
//! the replicated state.

use super::{Origin, Spread};
use crate::unit::RttUs;
use serde::{Deserialize, Serialize};

/// Axes of the space. With a height, more hardly bring anything (Vivaldi, section 5.4; the bench
/// of grouping shows it for ours).
pub const DIMENSIONS: usize = 3;
/// Farthest that a point may lie from the origin on an axis, and most height, in microseconds:
/// beyond any RTT that is allowed.
const AXIS_US_MAX: i32 = 10_000_000;

/// Where a site lies. All lengths in microseconds of RTT.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Coordinate {
    pub axes: [i32; DIMENSIONS],
    /// Way from the site to the core: part of every RTT to elsewhere.
    pub height_us: u32,
    /// By so many thousandths of the estimate the high RTTs of its measured pairs stay below
    /// estimate and error together, but for the worst of them.
    pub error_milli: u32,
}

impl Coordinate {
    /// Most that `error_milli` says: eleven times the estimate. Worse is no estimate at all.
    pub const ERROR_MILLI_MAX: u32 = 10_000;

    /// Whether all values lie within their limits.
    pub fn is_sane(&self) -> bool {
        let axis = |axis: &i32| (-AXIS_US_MAX..=AXIS_US_MAX).contains(axis);
        self.axes.iter().all(axis)
            && i64::from(self.height_us) <= i64::from(AXIS_US_MAX)
            && self.error_milli <= Self::ERROR_MILLI_MAX
    }

    /// RTT to another site: the same whichever of the two is asked.
    pub fn estimate(&self, other: &Self) -> Spread {
        let square = |(a, b): (&i32, &i32)| {
            let way = u64::from(a.abs_diff(*b));
            way.saturating_mul(way)
        };
        let squares = self.axes.iter().zip(&other.axes).map(square);
        let core = squares.fold(0u64, u64::saturating_add).isqrt();
        let heights = u64::from(self.height_us).saturating_add(u64::from(other.height_us));
        // Even two sites at one point are not one site.
        let usual = core.saturating_add(heights).max(1);
        let error = u64::from(self.error_milli.max(other.error_milli));
        let high = usual.saturating_add(usual.saturating_mul(error) / 1_000);
        let narrow = |us: u64| RttUs(u32::try_from(us).unwrap_or(u32::MAX - 1).min(u32::MAX - 1));
        Spread { median: narrow(usual), high: narrow(high), origin: Origin::Estimated }
    }
}
