//! Times: how often each length of time was seen, in bounded memory and to three digits.
//!
//! **Invariant:** depends on what was recorded alone, not on its order.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Digits kept of every value.
const DIGITS: u8 = 3;
/// Points of a distribution written out: enough for a smooth line.
const STEPS: usize = 100;

/// Values of one kind: milliseconds, or whatever the owner says.
#[derive(Clone, PartialEq, Debug)]
pub struct Times {
    /// `None` until the first value: most classes of most runs stay empty.
    histogram: Option<Histogram<u64>>,
    sum: u128,
}

/// What a distribution comes to; all 0 for an empty one.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Quantiles {
    pub count: u64,
    pub mean: f64,
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
}

impl Default for Times {
    fn default() -> Self {
        Self::new()
    }
}

impl Times {
    pub const fn new() -> Self {
        Self { histogram: None, sum: 0 }
    }

    /// Records one value.
    pub fn add(&mut self, value: u64) {
        if self.histogram.is_none() {
            // Three digits are within what the type allows, so there is always one.
            self.histogram = Histogram::new(DIGITS).ok();
        }
        // It grows as needed, so that every value has a place.
        if let Some(histogram) = &mut self.histogram
            && histogram.record(value).is_ok()
        {
            self.sum += u128::from(value);
        }
    }

    /// Takes over all that the other one has seen.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.histogram, &other.histogram) {
            (Some(own), Some(more)) => {
                if own.add(more).is_ok() {
                    self.sum += other.sum;
                }
            }
            (None, Some(_)) => *self = other.clone(),
            (_, None) => {}
        }
    }

    /// Values recorded.
    pub fn len(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value that this share (0 to 1) of all does not exceed, to three digits; 0 when empty.
    pub fn quantile(&self, share: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| {
            // The top of the value's bucket may lie above all that was recorded.
            histogram.value_at_quantile(share).min(histogram.max())
        })
    }

    /// Median, tail and mean, in units of `unit` recorded ones: 1,000 makes seconds of
    /// milliseconds.
    pub fn quantiles(&self, unit: f64) -> Quantiles {
        let Some(histogram) = &self.histogram else { return Quantiles::default() };
        let at = |share| self.quantile(share) as f64 / unit;
        Quantiles {
            count: histogram.len(),
            mean: self.sum as f64 / histogram.len().max(1) as f64 / unit,
            p50: at(0.5),
            p95: at(0.95),
            p99: at(0.99),
            max: histogram.max() as f64 / unit,
        }
    }

    /// Value and the share of all up to it, rising: at most a hundred steps, the last one at 1.
    pub fn distribution(&self, unit: f64) -> Vec<(f64, f64)> {
        let Some(histogram) = &self.histogram else { return Vec::new() };
        let mut steps: Vec<(f64, f64)> = Vec::new();
        for step in 0..=STEPS {
            let value = self.quantile(step as f64 / STEPS as f64);
            let share = histogram.count_between(0, value) as f64 / histogram.len() as f64;
            let value = value as f64 / unit;
            if steps.last().is_none_or(|&(last, _)| last < value) {
                steps.push((value, share));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_values_to_three_digits() {
        let mut times = Times::new();
        assert_eq!(times.quantiles(1.0), Quantiles::default());
        assert!(times.is_empty() && times.distribution(1.0).is_empty());
        for value in (1..=1_000u64).rev() {
            times.add(value * 1_000);
        }
        let told = times.quantiles(1_000.0);
        assert_eq!((told.count, told.mean), (1_000, 500.5));
        for (told, exact) in [(told.p50, 500.0), (told.p95, 950.0), (told.p99, 990.0)] {
            assert!((told - exact).abs() <= exact / 1_000.0, "{told} for {exact}");
        }
        let steps = times.distribution(1_000.0);
        assert_eq!(steps.last().map(|&(_, share)| share), Some(1.0));
        assert!(steps.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1));
    }

    #[test]
    fn zeros_are_values_too() {
        let mut times = Times::new();
        times.add(0);
        times.add(0);
        times.add(10);
        assert_eq!((times.len(), times.quantile(0.5), times.quantile(1.0)), (3, 0, 10));
        assert_eq!(times.distribution(1.0), [(0.0, 2.0 / 3.0), (10.0, 1.0)]);
    }
}
