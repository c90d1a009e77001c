//! Small texts: amounts with units as job files write them, and names made safe for a terminal.
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

/// Milliseconds since 1970 as RFC 3339 in UTC; `None` for 0 and for years that have no such form.
pub fn time(ms: u64) -> Option<String> {
    let ms = i64::try_from(ms).ok().filter(|&ms| ms > 0)?;
    Timestamp::from_millisecond(ms).ok().map(|at| at.to_string())
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

/// Longest word that a near one is looked for.
const WORD_BYTES_MAX: usize = 48;

/// The known word that this one was most likely meant to be, if any is near.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let plain = |text: &str| -> Vec<char> {
        text.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
    };
    let word = plain(word);
    let slips_max = (word.len() / 4).clamp(1, 3);
    // Of equally near ones, that of which it is the beginning: `cpus` is `cpu`, not `gpus`.
    let far = |known: &'a str| {
        let other = plain(known);
        (slips(&word, &other), !(other.starts_with(&word) || word.starts_with(&other)))
    };
    let all = known.map(|known| (far(known), known));
    let near = all.filter(|((slips, _), _)| *slips <= slips_max);
    near.min_by_key(|(far, _)| *far).map(|(_, known)| known)
}

/// Letters to put in, leave out, change, or swap with their neighbours: the optimal string alignment
/// distance, a row at a time.
fn slips(one: &[char], other: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = last[j] + usize::from(a != b);
            let mut least = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or_default()
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
    fn slips_of_the_hand_have_a_word_nearby() {
        let known = ["parallelism", "completions", "replicas", "minReplicas", "cpu", "gpus"];
        for (word, wanted) in [
            ("paralelism", Some("parallelism")),
            ("completoins", Some("completions")),
            ("min_replicas", Some("minReplicas")),
            ("Replica", Some("replicas")),
            ("gpu", Some("gpus")),
            ("cpus", Some("cpu")),
            ("image", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), wanted, "{word}");
        }
        assert_eq!(nearest(&"r".repeat(10_000), known.into_iter()), None);
    }

    #[test]
    fn amounts() {
        assert_eq!(milli(8_000), "8");
        assert_eq!(milli(500), "0.5");
        assert_eq!(milli(1), "0.001");
        assert_eq!(mebibytes(65_536), "64GiB");
        assert_eq!(mebibytes(1_536), "1536MiB");
        assert_eq!(mebibytes(2 * 1_048_576), "2TiB");
        assert_eq!(rtt(60_000), "60ms");
        assert_eq!(rtt(1_234), "1.234ms");
        assert_eq!(dollars(2_500_000), "2.50");
        assert_eq!(dollars(1), "0.000001");
        assert_eq!(seconds(5_400), "1h30m");
        assert_eq!(seconds(90_061), "1d1h1m1s");
        assert_eq!(seconds(0), "0s");
    }
}
