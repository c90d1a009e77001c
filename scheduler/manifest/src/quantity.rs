//! Kubernetes quantities, read exactly: `500m`, `64Gi`, `1e3`, `2`.
//!
//! **Invariant:** decimal digits in, integers out; what is finer than the unit asked for is rounded up, as
//! Kubernetes does, never down: a replica gets at least what was asked.

use crate::decode::{has_zero_in_front, zero_in_front};
use crate::finding::quote;

/// More digits than this are a slip of the hand.
const DIGITS_MAX: usize = 18;
/// Thousand-millionths in one: Kubernetes keeps nothing finer.
const NANO: u128 = 1_000_000_000;

/// An amount in thousand-millionths.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Quantity(u128);

impl Quantity {
    /// Reads a quantity; refuses negative ones.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let shown = || quote(text);
        if has_zero_in_front(text) {
            return Err(zero_in_front(text));
        }
        let rest = text.strip_prefix('+').unwrap_or(text);
        if rest.starts_with('-') {
            return Err(format!("{} is negative", shown()));
        }
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && part.is_empty()) || part.contains('.') {
            return Err(format!("{} is no quantity, such as 500m, 2 or 64Gi", shown()));
        }
        let part = part.trim_end_matches('0');
        let digits = format!("{whole}{part}");
        let digits = digits.trim_start_matches('0');
        if digits.len() > DIGITS_MAX {
            return Err(format!("{} has more than {DIGITS_MAX} digits", shown()));
        }
        let mantissa: u128 = if digits.is_empty() { 0 } else { digits.parse().unwrap_or_default() };
        let (ten, two) = scale(suffix)
            .ok_or_else(|| format!("{} has an unknown unit {}", shown(), quote(suffix)))?;
        let places = i32::try_from(part.len()).unwrap_or(i32::MAX);
        Self::scaled(mantissa, ten - places + 9, two)
            .ok_or_else(|| format!("{} is too large", shown()))
    }

    fn scaled(mantissa: u128, ten: i32, two: u32) -> Option<Self> {
        let power = |exponent: u32| 10_u128.checked_pow(exponent);
        let value = mantissa.checked_mul(1_u128.checked_shl(two)?)?;
        let value = match u32::try_from(ten) {
            Ok(up) => value.checked_mul(power(up)?)?,
            // Below any unit of ours: what is left is less than one.
            Err(_) => match power(ten.unsigned_abs()) {
                Some(down) => value.div_ceil(down),
                None => u128::from(value > 0),
            },
        };
        Some(Self(value))
    }

    pub(crate) fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// In units of `unit` of `Quantity::parse`'s ones, rounded up; whether that was exact.
    fn in_units(self, unit: u128) -> Option<(u64, bool)> {
        let units = u64::try_from(self.0.div_ceil(unit)).ok()?;
        Some((units, self.0.is_multiple_of(unit)))
    }

    /// In thousandths, rounded up; whether that was exact. `None` = too large.
    pub(crate) fn milli(self) -> Option<(u64, bool)> {
        self.in_units(NANO / 1000)
    }

    /// Bytes in MiB, rounded up; whether that was exact. `None` = too large.
    pub(crate) fn mebibytes(self) -> Option<(u64, bool)> {
        self.in_units(NANO << 20)
    }

    /// As a whole number, if it is one.
    pub(crate) fn whole(self) -> Option<u64> {
        self.in_units(NANO).filter(|(_, exact)| *exact).map(|(units, _)| units)
    }
}

/// Powers of ten and of two that a suffix stands for.
fn scale(suffix: &str) -> Option<(i32, u32)> {
    Some(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            (-30..=30).contains(&exponent).then_some((exponent, 0))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Quantity {
        Quantity::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
    }

    #[test]
    fn cpu() {
        for (text, milli, exact) in [
            ("500m", 500, true),
            ("2", 2000, true),
            ("0.25", 250, true),
            ("1.0001", 1001, false),
            ("100u", 1, false),
            ("0", 0, true),
            ("1k", 1_000_000, true),
            (".5", 500, true),
            ("+1", 1000, true),
        ] {
            assert_eq!(parse(text).milli(), Some((milli, exact)), "{text}");
        }
    }

    #[test]
    fn memory() {
        for (text, mib, exact) in [
            ("64Gi", 65_536, true),
            ("512Mi", 512, true),
            ("1.5Gi", 1536, true),
            ("1G", 954, false),
            ("1024", 1, false),
            ("1048576", 1, true),
            ("1e9", 954, false),
            ("1Ti", 1 << 20, true),
            ("1E", 953_674_316_407, false),
            ("1E3", 1, false),
        ] {
            assert_eq!(parse(text).mebibytes(), Some((mib, exact)), "{text}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(parse("8").whole(), Some(8));
        assert_eq!(parse("8.0").whole(), Some(8));
        assert_eq!(parse("2k").whole(), Some(2000));
        assert_eq!(parse("0.5").whole(), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "-1",
            "Gi",
            "1GiB",
            "1 Gi",
            "1.2.3",
            "0x10",
            "1e99",
            "1e",
            "NaN",
            "٣",
            "9999999999999999999",
            "1_000",
            "1e-99",
            "010",
            "00",
        ] {
            assert!(Quantity::parse(bad).is_err(), "{bad}");
        }
        assert!(Quantity::parse("999999999999999999E").is_err());
        assert_eq!(parse("9999E").milli(), None);
        assert!(parse("1n").milli() == Some((1, false)));
    }
}
