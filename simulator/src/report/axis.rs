//! Axis: where a value lies on a chart, and the marks that say so.
//!
//! **Invariant:** marks are round numbers of the unit that the axis names; pure.

/// What the values of an axis are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A number.
    Number,
    /// Per cent; from 0, to 100 at least when anything is near it.
    Percent,
    /// Seconds from 0, shown in the unit that suits their range.
    Time,
    /// Seconds on a logarithmic scale from 1 s; less lies on the left edge.
    LogTime,
}

/// Marks aimed at on a linear axis.
const MARKS: f64 = 6.0;
/// Marks of a logarithmic time axis, in seconds.
const LOG_MARKS: [(f64, &str); 10] = [
    (1.0, "≤ 1 s"),
    (10.0, "10 s"),
    (60.0, "1 min"),
    (600.0, "10 min"),
    (3_600.0, "1 h"),
    (36_000.0, "10 h"),
    (86_400.0, "1 d"),
    (864_000.0, "10 d"),
    (8_640_000.0, "100 d"),
    (86_400_000.0, "1,000 d"),
];

/// An axis that holds a range of values.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    /// Name of the unit, if the axis has chosen one.
    pub(super) unit: &'static str,
    /// Values that get a mark, with their text.
    pub(super) marks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis on which all these values lie.
    pub(super) fn over(kind: Kind, values: impl Iterator<Item = f64>) -> Self {
        let high = values.filter(|value| value.is_finite()).fold(0.0, f64::max);
        match kind {
            Kind::Number => Self::linear(high, 1.0, ""),
            Kind::Percent if high > 80.0 && high <= 100.0 => Self::linear(100.0, 1.0, "%"),
            Kind::Percent => Self::linear(high, 1.0, "%"),
            Kind::Time => {
                let (size, unit) = match high {
                    high if high <= 300.0 => (1.0, "seconds"),
                    high if high <= 4.0 * 3_600.0 => (60.0, "minutes"),
                    high if high <= 4.0 * 86_400.0 => (3_600.0, "hours"),
                    _ => (86_400.0, "days"),
                };
                Self::linear(high, size, unit)
            }
            Kind::LogTime => Self::log_time(high),
        }
    }

    /// From 0 to a round number of `size`s that is at least `high`.
    fn linear(high: f64, size: f64, unit: &'static str) -> Self {
        let most = if high > 0.0 { high / size } else { 1.0 };
        let step = round_step(most / MARKS);
        let count = (most / step - 1e-9).ceil().max(1.0);
        let digits = if step >= 1.0 { 0 } else { (-step.log10()).ceil() as usize };
        let marks = (0..=count as u32)
            .map(|number| f64::from(number) * step)
            .map(|value| (value * size, number_text(value, digits)))
            .collect();
        Self { low: 0.0, high: count * step * size, log: false, unit, marks }
    }

    fn log_time(high: f64) -> Self {
        let end = LOG_MARKS.iter().position(|&(mark, _)| mark >= high).unwrap_or(LOG_MARKS.len());
        let shown = LOG_MARKS.iter().take(end.max(1) + 1);
        let marks: Vec<(f64, String)> =
            shown.map(|&(mark, text)| (mark, text.to_owned())).collect();
        let high = marks.last().map_or(10.0, |&(mark, _)| mark);
        Self { low: 1.0, high, log: true, unit: "", marks }
    }

    /// Where the value lies, 0 to 1.
    pub(super) fn place(&self, value: f64) -> f64 {
        let at = |value: f64| if self.log { value.max(self.low).ln() } else { value };
        let (low, high) = (at(self.low), at(self.high));
        ((at(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn round_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0]
        .map(|times| times * power)
        .into_iter()
        .find(|&round| round >= step * 0.999_999)
        .unwrap_or(power * 10.0)
}

/// A number with thousands apart.
pub fn number_text(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(kind: Kind, high: f64) -> Vec<String> {
        Axis::over(kind, [0.0, high].into_iter()).marks.into_iter().map(|mark| mark.1).collect()
    }

    #[test]
    fn marks_are_round_and_hold_all_values() {
        assert_eq!(marks(Kind::Number, 6_212.0), ["0", "2,000", "4,000", "6,000", "8,000"]);
        assert_eq!(marks(Kind::Number, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(marks(Kind::Percent, 95.2).last().map(String::as_str), Some("100"));
        assert_eq!(marks(Kind::Percent, 130.0).last().map(String::as_str), Some("150"));
        assert_eq!(marks(Kind::Number, 0.0).first().map(String::as_str), Some("0.0"));
        for high in [0.003, 7.0, 99.0, 1e9] {
            let axis = Axis::over(Kind::Number, [high].into_iter());
            assert!(axis.place(high) <= 1.0 && axis.place(high) > 0.5, "{high}");
            assert!(axis.marks.len() <= 8, "{:?}", axis.marks);
        }
    }

    #[test]
    fn times_are_shown_in_the_unit_of_their_range() {
        let axis = Axis::over(Kind::Time, [149.0 * 86_400.0].into_iter());
        assert_eq!(axis.unit, "days");
        assert_eq!(axis.marks.last(), Some(&(150.0 * 86_400.0, "150".to_owned())));
        assert_eq!(Axis::over(Kind::Time, [85.0].into_iter()).unit, "seconds");
    }

    #[test]
    fn a_logarithmic_axis_begins_at_a_second() {
        let axis = Axis::over(Kind::LogTime, [0.0, 5_000.0].into_iter());
        assert_eq!(axis.marks.last().map(|mark| mark.1.as_str()), Some("10 h"));
        assert_eq!((axis.place(0.0), axis.place(1.0), axis.place(36_000.0)), (0.0, 0.0, 1.0));
        assert!(axis.place(600.0) > 0.5);
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(number_text(1_234_567.0, 0), "1,234,567");
        assert_eq!(number_text(-999.25, 1), "-999.2");
    }
}
