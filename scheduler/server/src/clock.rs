//! Time as this server sees it: the only file that asks the system for it.
//!
//! **Invariant:** wall-clock time is only ever put into entries; deadlines and leases run on the
//! monotonic clock.

use scheduler_core::unit::{DurationMs, TimeMs};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Wall-clock time; 0 when the system's clock stands before 1970.
pub fn now() -> TimeMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    TimeMs(millis(since).0)
}

/// Monotonic time.
pub fn instant() -> Instant {
    Instant::now()
}

/// Monotonic time in milliseconds since this process first asked for it: for duties of the core.
pub fn monotonic() -> TimeMs {
    TimeMs(monotonic_us() / 1_000)
}

/// Monotonic time in microseconds since this process first asked for it.
pub fn monotonic_us() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    // Asked for before the time now is, or a first call might lie before its own start.
    let start = *START;
    micros_since(start)
}

/// A length of time in whole milliseconds, as the core counts it.
pub fn millis(length: Duration) -> DurationMs {
    DurationMs(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

/// A length of time of the core.
pub fn duration(length: DurationMs) -> Duration {
    Duration::from_millis(length.0)
}

/// The point `after` from now.
pub fn deadline(after: Duration) -> Instant {
    Instant::now() + after
}

/// Microseconds since `start`.
pub fn micros_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX)
}
