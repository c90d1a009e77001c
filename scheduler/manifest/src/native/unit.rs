//! Amounts with units, read exactly.
//!
//! **Invariant:** decimal digits in, integers out; what does not come out whole is refused, never rounded.

use jiff::Timestamp;

/// Digits in front of and behind the point that we take: more is a slip of the hand.
const DIGITS_MAX: usize = 18;

/// An amount in the unit of 10^-`digits`; refuses more digits behind the point than that.
pub(crate) fn decimal(text: &str, digits: usize) -> Result<u64, String> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !is_number(whole) || !is_number(part) {
        return Err(format!("`{text}` is not a plain decimal number"));
    }
    let part = part.trim_end_matches('0');
    if part.len() > digits {
        return Err(match digits {
            0 => format!("`{text}` must be whole"),
            _ => format!("`{text}` has more than {digits} digits behind the point"),
        });
    }
    if whole.len() + digits > DIGITS_MAX + 1 {
        return Err(format!("`{text}` is too large"));
    }
    let number = format!("{whole}{part:0<digits$}");
    if number.is_empty() {
        return Ok(0);
    }
    number.parse().map_err(|_| format!("`{text}` is too large"))
}

/// MiB from `64GiB`, `512MiB`, `1.5TiB`, `64Gi`.
pub(super) fn mebibytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale: u64 = match unit {
        "MiB" | "Mi" => 1,
        "GiB" | "Gi" => 1 << 10,
        "TiB" | "Ti" => 1 << 20,
        "" => return Err(format!("needs a unit, for example {text}GiB")),
        "KB" | "MB" | "GB" | "TB" | "K" | "M" | "G" | "T" => {
            return Err(format!("`{text}`: use powers of two: MiB, GiB or TiB"));
        }
        _ => return Err(format!("`{text}`: unit must be MiB, GiB or TiB")),
    };
    let thousandths = u128::from(decimal(number, 3)?) * u128::from(scale);
    if !thousandths.is_multiple_of(1000) {
        return Err(format!("`{text}` is not a whole number of MiB"));
    }
    u64::try_from(thousandths / 1000).map_err(|_| format!("`{text}` is too large"))
}

/// Thousandths of a core from `8`, `0.5`, `500m`.
pub(super) fn cpu(text: &str) -> Result<u64, String> {
    match text.strip_suffix('m') {
        Some(milli) => decimal(milli, 0),
        None => decimal(text, 3),
    }
}

/// Mbit/s from `10Gbps`, `500Mbps`, `2.5Gbps`.
pub(super) fn bandwidth(text: &str) -> Result<u32, String> {
    let (number, unit) = split(text);
    let amount = match unit {
        "Mbps" => decimal(number, 0),
        "Gbps" => decimal(number, 3),
        "Tbps" => decimal(number, 6),
        "" => return Err(format!("needs a unit, for example {text}Gbps")),
        _ => return Err(format!("`{text}`: unit must be Mbps, Gbps or Tbps")),
    }?;
    u32::try_from(amount).map_err(|_| format!("`{text}` is too large"))
}

/// Major x 100 + minor from `8.9` (809) or `9`. The text decides: 8.10 is not 8.1.
pub(super) fn compute_capability(text: &str) -> Result<u32, String> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    let part = |part: &str| part.parse::<u32>().ok().filter(|number| *number < 100);
    match (part(major), part(minor)) {
        (Some(major), Some(minor)) => Ok(major * 100 + minor),
        _ => Err(format!("`{text}` is no compute capability, such as 8.9")),
    }
}

/// Microseconds from `60ms`, `0.5ms`, `500us`, `1s`.
pub fn microseconds(text: &str) -> Result<u32, String> {
    let (number, unit) = split(text);
    let amount = match unit {
        "us" | "µs" => decimal(number, 0),
        "ms" => decimal(number, 3),
        "s" => decimal(number, 6),
        "" => return Err(format!("needs a unit, for example {text}ms")),
        _ => return Err(format!("`{text}`: unit must be us, ms or s")),
    }?;
    u32::try_from(amount).map_err(|_| format!("`{text}` is too long"))
}

/// Milliseconds since 1970 from a time of RFC 3339, such as `2027-01-31T08:00:00Z`.
pub(super) fn time(text: &str) -> Result<u64, String> {
    let wanted = "must be a time such as 2027-01-31T08:00:00Z";
    let at: Timestamp = text.parse().map_err(|_| format!("{wanted}, is `{text}`"))?;
    if at.subsec_nanosecond() % 1_000_000 != 0 {
        return Err(format!("`{text}` has more than 3 digits behind the point"));
    }
    u64::try_from(at.as_millisecond()).map_err(|_| format!("`{text}` is before 1970"))
}

/// Seconds from `90s`, `30m`, `2h`, `1d12h`.
pub fn seconds(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("is empty; for example 2h".into());
    }
    let mut total = 0_u64;
    let mut rest = text;
    let mut last_scale = u64::MAX;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(|| format!("needs a unit, for example {text}s"))?;
        let (number, tail) = rest.split_at(end);
        let unit = tail.chars().next().unwrap_or(' ');
        let scale = match unit {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(format!("`{text}`: units are d, h, m and s, as in 1h30m")),
        };
        if scale >= last_scale {
            return Err(format!("`{text}`: units go from wide to narrow, as in 1h30m"));
        }
        last_scale = scale;
        let amount = decimal(number, 0)?;
        total = amount
            .checked_mul(scale)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(|| format!("`{text}` is too long"))?;
        rest = &tail[unit.len_utf8()..];
    }
    Ok(total)
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        assert_eq!(decimal("2.50", 6), Ok(2_500_000));
        assert_eq!(decimal("0.1", 6), Ok(100_000));
        assert_eq!(decimal("0.3", 6), Ok(300_000));
        assert_eq!(decimal(".5", 3), Ok(500));
        assert_eq!(decimal("8", 3), Ok(8_000));
        assert_eq!(decimal("1000.000000", 6), Ok(1_000_000_000));
        for bad in
            ["", ".", "-1", "1e3", "1_000", "0x10", "1.2.3", "٣", "99999999999999999999", "NaN"]
        {
            assert!(decimal(bad, 6).is_err(), "{bad}");
        }
        assert!(decimal("0.0000001", 6).is_err());
        assert!(decimal("1.5", 0).is_err());
    }

    #[test]
    fn sizes() {
        assert_eq!(mebibytes("64GiB"), Ok(65_536));
        assert_eq!(mebibytes("64Gi"), Ok(65_536));
        assert_eq!(mebibytes("1.5 TiB"), Ok(1_572_864));
        assert_eq!(mebibytes("512MiB"), Ok(512));
        for bad in ["64", "64GB", "1.0001MiB", "GiB", "-1GiB", "9999999999999999TiB"] {
            assert!(mebibytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times() {
        assert_eq!(microseconds("60ms"), Ok(60_000));
        assert_eq!(microseconds("0.5ms"), Ok(500));
        assert_eq!(microseconds("250us"), Ok(250));
        assert!(
            microseconds("60").is_err()
                && microseconds("1h").is_err()
                && microseconds("0.0005ms").is_err()
        );
        assert_eq!(seconds("2h"), Ok(7_200));
        assert_eq!(seconds("1d12h"), Ok(129_600));
        assert_eq!(seconds("0s"), Ok(0));
        for bad in ["", "2", "2x", "1m1h", "1h1h", "h", "999999999999999d", "1.5h"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn points_in_time() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1_000));
        assert_eq!(time("2026-11-23T12:30:00.25+02:00"), Ok(1_795_429_800_250));
        for bad in ["", "+2h", "1000", "2026-11-23", "2026-11-23T10:00:00", "noon"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert!(
            time("1969-12-31T23:59:59Z").is_err() && time("2026-11-23T10:00:00.0001Z").is_err()
        );
        for ms in [1, 1_795_429_800_250, 253_370_764_800_000] {
            assert_eq!(crate::text::time(ms).map(|text| time(&text)), Some(Ok(ms)));
        }
    }

    #[test]
    fn bandwidths_and_capabilities() {
        assert_eq!(bandwidth("10Gbps"), Ok(10_000));
        assert_eq!(bandwidth("2.5 Gbps"), Ok(2_500));
        for bad in ["10", "10GB", "0.5Mbps", "Gbps", "99999999Tbps"] {
            assert!(bandwidth(bad).is_err(), "{bad}");
        }
        assert_eq!(compute_capability("8.9"), Ok(809));
        assert_eq!(compute_capability("12.10"), Ok(1_210));
        assert_eq!(compute_capability("9"), Ok(900));
        for bad in ["", "8.", ".9", "8.9.1", "-8.9", "100.0", "sm_89"] {
            assert!(compute_capability(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cores() {
        assert_eq!(cpu("8"), Ok(8_000));
        assert_eq!(cpu("0.25"), Ok(250));
        assert_eq!(cpu("250m"), Ok(250));
        assert!(cpu("0.0001").is_err() && cpu("m").is_err());
    }
}
