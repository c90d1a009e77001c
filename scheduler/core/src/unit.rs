//! Quantities with their units. All are integers: nothing here may round.
//!
//! **Invariant:** arithmetic on a unit is checked or saturating; none wraps.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);
        impl $name {
            pub const ZERO: Self = Self(0);
            /// Sum, or `None` past the largest value.
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }
            /// Difference, or `None` below zero.
            pub fn checked_sub(self, other: Self) -> Option<Self> {
                self.0.checked_sub(other.0).map(Self)
            }
            /// Sum, held at the largest value.
            pub fn saturating_add(self, other: Self) -> Self {
                Self(self.0.saturating_add(other.0))
            }
            /// Difference, held at zero.
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }
    };
}

unit!(
    /// A point in time in milliseconds; never read from a clock in the core. In entries and state:
    /// since 1970, as the proposing leader saw it. In duties: of whatever clock without jumps the
    /// caller keeps to.
    TimeMs(u64)
);
unit!(
    /// A length of time in milliseconds.
    DurationMs(u64)
);
unit!(
    /// Thousandths of a CPU core.
    CpuMilli(u64)
);
unit!(
    /// Memory in MiB.
    MemoryMib(u64)
);
unit!(
    /// Disk in MiB.
    DiskMib(u64)
);
unit!(
    /// Video memory of one GPU in MiB.
    VramMib(u32)
);
unit!(
    /// Thousandths of a GPU; 1000 is a whole one.
    GpuMilli(u64)
);
unit!(
    /// Round-trip time in microseconds.
    RttUs(u32)
);
unit!(
    /// Network bandwidth in Mbit/s.
    BandwidthMbps(u32)
);
unit!(
    /// Price of one GPU for an hour in millionths of a US dollar.
    PriceMicroUsd(u64)
);

unit!(
    /// Price of something as a whole in millionths of a US dollar.
    CostMicroUsd(u64)
);
unit!(
    /// What a GPU can compute, as its vendor numbers it: major x 100 + minor, so 8.9 is 809.
    ComputeCapability(u16)
);

impl fmt::Display for GpuMilli {
    /// In GPUs, without needless digits: 12000 is 12, 1250 is 1.25.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1000, self.0 % 1000);
        match part {
            0 => write!(f, "{whole}"),
            _ => write!(f, "{whole}.{}", format!("{part:03}").trim_end_matches('0')),
        }
    }
}

impl TimeMs {
    /// The time `length` later, held at the last one.
    pub fn after(self, length: DurationMs) -> Self {
        Self(self.0.saturating_add(length.0))
    }

    /// How long ago `earlier` was; nothing if it is still to come.
    pub fn since(self, earlier: Self) -> DurationMs {
        DurationMs(self.0.saturating_sub(earlier.0))
    }
}

/// Thousandths in one whole GPU.
pub const GPU_MILLI_WHOLE: u16 = 1000;
/// Most GPUs on one node: a [`GpuSet`] is one machine word.
pub const GPUS_PER_NODE_MAX: usize = 64;

/// Exact GPUs of one node, bit i for the GPU with index i.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct GpuSet(pub u64);

impl GpuSet {
    pub const EMPTY: Self = Self(0);

    /// The one GPU with this index; empty past the last possible one.
    pub fn single(index: u8) -> Self {
        Self(1u64.checked_shl(u32::from(index)).unwrap_or(0))
    }

    /// The GPUs 0 to count - 1.
    pub fn first(count: usize) -> Self {
        if count >= GPUS_PER_NODE_MAX { Self(u64::MAX) } else { Self((1u64 << count) - 1) }
    }

    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, index: u8) -> bool {
        !(self & Self::single(index)).is_empty()
    }

    /// Indexes in rising order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let index = rest.trailing_zeros();
                rest &= rest - 1;
                u8::try_from(index).unwrap_or(u8::MAX)
            })
        })
    }
}

impl std::ops::BitAnd for GpuSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl std::ops::BitOr for GpuSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl std::ops::Not for GpuSet {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_gpus_are_told_in_gpus() {
        for (milli, told) in [(0, "0"), (12_000, "12"), (1_250, "1.25"), (1, "0.001"), (900, "0.9")]
        {
            assert_eq!(GpuMilli(milli).to_string(), told);
        }
    }
}
