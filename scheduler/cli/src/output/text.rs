//! Small texts: amounts with units, ages, times, and names made safe for a terminal.
//!
//! **Invariant:** what came from outside never reaches a terminal with control characters in it.

use jiff::Timestamp;
pub use manifest::text::{decimal, dollars, mebibytes, milli, printable_line, rtt, time};

/// A whole number in groups of three digits: 12,000.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with one decimal in a fitting unit, for people.
pub fn bytes(amount: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut scale = 1_u64;
    while unit + 1 < UNITS.len() && amount / scale >= 1024 {
        scale *= 1024;
        unit += 1;
    }
    if unit == 0 {
        return format!("{amount}B");
    }
    let tenths = (u128::from(amount) * 10 / u128::from(scale)) as u64;
    format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit])
}

/// Time from then until now in its two widest units: 3m12s.
pub fn age(then_ms: u64, now_ms: u64) -> String {
    if then_ms == 0 {
        return "-".to_owned();
    }
    let total = now_ms.saturating_sub(then_ms) / 1000;
    match total {
        0..60 => format!("{total}s"),
        60..3_600 => format!("{}m{}s", total / 60, total % 60),
        3_600..86_400 => format!("{}h{}m", total / 3_600, total / 60 % 60),
        _ => format!("{}d{}h", total / 86_400, total / 3_600 % 24),
    }
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// Dollars in cents, rounded half up, for sums that people compare: 12,345.68.
pub fn dollars_rounded(micro: u64) -> String {
    let cents = micro.saturating_add(5_000) / 10_000;
    format!("{}.{:02}", grouped(cents / 100), cents % 100)
}

/// Ranks as ranges: 0-1249,1300.
pub fn ranges(sorted: impl IntoIterator<Item = u32>) -> String {
    let mut text = String::new();
    let mut open: Option<(u32, u32)> = None;
    let mut push = |(first, last): (u32, u32)| {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&first.to_string());
        if last > first {
            text.push('-');
            text.push_str(&last.to_string());
        }
    };
    for number in sorted {
        match open {
            Some((first, last)) if last.checked_add(1) == Some(number) => {
                open = Some((first, number))
            }
            Some(range) => {
                push(range);
                open = Some((number, number));
            }
            None => open = Some((number, number)),
        }
    }
    if let Some(range) = open {
        push(range);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(12_000), "12,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(1_572_864), "1.5MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9TiB");
        assert_eq!(dollars_rounded(12_345_678_900), "12,345.68");
    }

    #[test]
    fn times() {
        assert_eq!(age(1_000, 193_000), "3m12s");
        assert_eq!(age(0, 5), "-");
        assert_eq!(age(10_000, 5_000), "0s");
        assert_eq!(time(0), None);
        assert_eq!(time(u64::MAX), None);
        assert_eq!(time(1_000).as_deref(), Some("1970-01-01T00:00:01Z"));
    }

    #[test]
    fn rank_ranges() {
        assert_eq!(ranges([]), "");
        assert_eq!(ranges([3]), "3");
        assert_eq!(ranges([0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges([u32::MAX - 1, u32::MAX]), "4294967294-4294967295");
    }
}
