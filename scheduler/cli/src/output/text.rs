//! Small texts: amounts with units, ages, times, and names made safe for a terminal.
//!
//! **Invariant:** what came from outside never reaches a terminal with control characters in it.

use jiff::Timestamp;

/// The text with every control character (and every character that reorders text) escaped, line breaks too.
pub fn printable_line(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if is_hostile(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

/// Bidirectional and zero-width characters can make a line read as something else.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

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

/// Thousandths as a number without needless zeros: 8000 → 8, 500 → 0.5.
pub fn milli(amount: u64) -> String {
    decimal(amount, 3)
}

/// An amount counted in units of 10^-digits, as a number without needless zeros.
pub fn decimal(amount: u64, digits: u32) -> String {
    let unit = 10_u64.pow(digits);
    let (whole, part) = (amount / unit, amount % unit);
    if part == 0 {
        return whole.to_string();
    }
    let part = format!("{part:0width$}", width = digits as usize);
    format!("{whole}.{}", part.trim_end_matches('0'))
}

/// MiB as the widest unit that stays exact: 65536 → 64GiB.
pub fn mebibytes(mib: u64) -> String {
    const GIB: u64 = 1024;
    const TIB: u64 = 1024 * GIB;
    match mib {
        0 => "0".to_owned(),
        _ if mib.is_multiple_of(TIB) => format!("{}TiB", mib / TIB),
        _ if mib.is_multiple_of(GIB) => format!("{}GiB", mib / GIB),
        _ => format!("{mib}MiB"),
    }
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

/// Microseconds as milliseconds: 1234 → 1.234ms; 0 → "-".
pub fn rtt(us: u32) -> String {
    match us {
        0 => "-".to_owned(),
        us => format!("{}ms", decimal(u64::from(us), 3)),
    }
}

/// Seconds as days, hours, minutes and seconds, exactly: 5400 → 1h30m; 0 → 0s.
pub fn seconds(total: u64) -> String {
    if total == 0 {
        return "0s".to_owned();
    }
    let parts = [
        (total / 86_400, 'd'),
        (total / 3_600 % 24, 'h'),
        (total / 60 % 60, 'm'),
        (total % 60, 's'),
    ];
    parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect()
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

/// A point in time as RFC 3339 in UTC; 0 = none.
pub fn time(ms: u64) -> Option<String> {
    if ms == 0 {
        return None;
    }
    let ms = i64::try_from(ms).ok()?;
    Timestamp::from_millisecond(ms).ok().map(|at| at.to_string())
}

/// Now, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0)
}

/// US dollars from millionths, with two digits at least: 2.50.
pub fn dollars(micro: u64) -> String {
    let text = decimal(micro, 6);
    match text.split_once('.') {
        None => format!("{text}.00"),
        Some((_, part)) if part.len() == 1 => format!("{text}0"),
        Some(_) => text,
    }
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
    fn control_and_reordering_characters_are_escaped() {
        assert_eq!(printable_line("a\nb\u{1b}[2Jc\u{202e}d"), "a\\nb\\u{1b}[2Jc\\u{202e}d");
        assert_eq!(printable_line("grüße-1"), "grüße-1");
    }

    #[test]
    fn amounts() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(12_000), "12,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(milli(8_000), "8");
        assert_eq!(milli(500), "0.5");
        assert_eq!(milli(1), "0.001");
        assert_eq!(mebibytes(65_536), "64GiB");
        assert_eq!(mebibytes(1_536), "1536MiB");
        assert_eq!(mebibytes(2 * 1_048_576), "2TiB");
        assert_eq!(bytes(512), "512B");
        assert_eq!(bytes(1_572_864), "1.5MiB");
        assert_eq!(bytes(u64::MAX), "16777215.9TiB");
        assert_eq!(rtt(60_000), "60ms");
        assert_eq!(rtt(1_234), "1.234ms");
        assert_eq!(dollars(2_500_000), "2.50");
        assert_eq!(dollars(1), "0.000001");
        assert_eq!(dollars_rounded(12_345_678_900), "12,345.68");
    }

    #[test]
    fn times() {
        assert_eq!(seconds(5_400), "1h30m");
        assert_eq!(seconds(90_061), "1d1h1m1s");
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
