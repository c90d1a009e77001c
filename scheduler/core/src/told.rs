//! Times and lengths of time as people write them in job files.
//!
//! **Invariant:** what is told exactly reads back as the same time.

use crate::unit::{DurationMs, TimeMs};
use std::fmt;

/// A time in UTC: `{}` to the minute, `{:#}` exact, seconds and thousandths where there are any.
pub struct Utc(pub TimeMs);

impl fmt::Display for Utc {
    /// By the algorithm `civil_from_days` of Howard Hinnant ("chrono-compatible low-level date
    /// algorithms"): years begin in March, so that leap days are last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.0.0 / 60_000;
        let (days, minute) = (minutes / 1_440 + 719_468, minutes % 1_440);
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = year + era * 400 + later;
        write!(f, "{year}-{month:02}-{day:02}T{:02}:{:02}", minute / 60, minute % 60)?;
        let rest = self.0.0 % 60_000;
        match (f.alternate(), rest % 1_000) {
            (true, 0) => write!(f, ":{:02}", rest / 1_000)?,
            (true, milli) => write!(f, ":{:02}.{milli:03}", rest / 1_000)?,
            (false, _) => {}
        }
        f.write_str("Z")
    }
}

/// A length of time: 1d12h, 90s as 1m30s; what is less than a second in thousandths.
pub struct Long(pub DurationMs);

impl fmt::Display for Long {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.0.0;
        for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
            if left >= length {
                write!(f, "{}{unit}", left / length)?;
                left %= length;
            }
        }
        if left > 0 || self.0.0 == 0 { write!(f, "{left}ms") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_to_the_minute() {
        for (seconds, told) in [
            (0, "1970-01-01T00:00Z"),
            (951_782_399, "2000-02-28T23:59Z"),
            (951_782_400, "2000-02-29T00:00Z"),
            (1_795_391_999, "2026-11-22T23:59Z"),
            (1_798_761_600, "2027-01-01T00:00Z"),
        ] {
            assert_eq!(Utc(TimeMs(seconds * 1_000)).to_string(), told);
        }
    }

    #[test]
    fn or_exactly() {
        for (ms, told) in [
            (1_577_836_800_000, "2020-01-01T00:00:00Z"),
            (1_795_391_999_000, "2026-11-22T23:59:59Z"),
            (1_795_429_800_250, "2026-11-23T10:30:00.250Z"),
        ] {
            assert_eq!(format!("{:#}", Utc(TimeMs(ms))), told);
        }
    }

    #[test]
    fn lengths_have_their_units() {
        for (ms, told) in [
            (0, "0ms"),
            (1, "1ms"),
            (3_600_000, "1h"),
            (90_000, "1m30s"),
            (129_600_000, "1d12h"),
            (1_000_001, "16m40s1ms"),
        ] {
            assert_eq!(Long(DurationMs(ms)).to_string(), told);
        }
    }
}
