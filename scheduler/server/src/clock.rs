//! Time as this server sees it: the only file that asks the system for it.
//!
//! **Invariant:** wall-clock time is only ever put into entries; deadlines and leases run on the
//! monotonic clock.

use scheduler_core::unit::TimeMs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Wall-clock time; 0 when the system's clock stands before 1970.
pub fn now() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    TimeMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Monotonic time.
pub fn instant() -> Instant {
    Instant::now()
}

/// The point `after` from now.
pub fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}

/// Microseconds since `start`.
pub fn micros_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
