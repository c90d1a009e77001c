//! When jobs come: in bunches, more at some hours of the day, and in spells of busy and quiet hours.
//!
//! Hourly counts of real clusters spread far more than a Poisson process would: their index of
//! dispersion (variance over mean) is 6 for openb, 39 for Venus, 161 for Philly; hours of the day
//! differ by factors of 0.2 to 1.7.
//! **Invariant:** the mean rate and the index of dispersion are what was asked for, in the long run;
//! the dispersion cannot be below what bunches and hours of the day bring by themselves.

use super::Draw;
use scheduler_core::unit::TimeMs;

/// Arrivals by hour of the day, in per cent of the mean hour: night, morning, working hours.
const HOURS: [u32; 24] = [
    50, 40, 30, 20, 20, 30, 50, 50, 110, 140, 160, 170, 150, 140, 150, 170, 150, 150, 130, 120,
    110, 90, 90, 80,
];
const HOUR_MS: f64 = 3_600_000.0;
/// Jobs of a bunch come within so long.
const BUNCH_MS: u64 = 1_000;

/// How jobs come.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Arrivals {
    pub per_hour: f64,
    /// Variance over mean of the counts of hours.
    pub dispersion: f64,
    /// Jobs of a bunch that comes within one second, on average; 1 = one by one.
    pub bunch: f64,
}

impl Arrivals {
    /// So many times of arrival, rising, from 0 on.
    pub fn times(&self, count: usize, draw: &mut Draw) -> Vec<TimeMs> {
        let mut times = Vec::with_capacity(count);
        let spread = self.spell_spread();
        let bunches_per_hour = self.per_hour.max(f64::MIN_POSITIVE) / self.bunch.max(1.0);
        for (hour, percent) in (0u32..).zip(HOURS.into_iter().cycle()) {
            if times.len() >= count {
                break;
            }
            let spell = if spread > 0.0 { draw.gamma(1.0 / spread, 1.0) } else { 1.0 };
            let gap_ms = HOUR_MS / (bunches_per_hour * f64::from(percent) / 100.0 * spell);
            let start_ms = f64::from(hour) * HOUR_MS;
            let mut at_ms = draw.exponential(gap_ms);
            while at_ms < HOUR_MS && times.len() < count {
                let bunch = draw.geometric(self.bunch);
                for _ in 0..bunch {
                    let within = if bunch > 1 { draw.below(BUNCH_MS) } else { 0 };
                    times.push(TimeMs((start_ms + at_ms) as u64 + within));
                }
                at_ms += draw.exponential(gap_ms);
            }
        }
        times.sort_unstable();
        times.truncate(count);
        times
    }

    /// Variance of the rate of an hour's spell, whose mean is 1. With bunches of mean b, m jobs an
    /// hour on average and H and G the factors of hour and spell, counts have the dispersion
    /// (2b - 1) + m (E(H^2) E(G^2) - 1).
    fn spell_spread(&self) -> f64 {
        let squares: f64 = HOURS.iter().map(|&p| f64::from(p) * f64::from(p) / 10_000.0).sum();
        let of_hours = squares / HOURS.len() as f64;
        let rate = (self.dispersion - 2.0 * self.bunch.max(1.0) + 1.0) / self.per_hour;
        ((rate + 1.0) / of_hours - 1.0).max(0.0)
    }
}

#[cfg(test)]
pub(super) fn hourly(times: &[TimeMs]) -> (f64, f64) {
    let hours = times.last().map_or(0, |last| last.0 / 3_600_000);
    let mut counts = vec![0.0f64; hours as usize];
    for at in times {
        if let Some(count) = counts.get_mut((at.0 / 3_600_000) as usize) {
            *count += 1.0;
        }
    }
    let mean = counts.iter().sum::<f64>() / counts.len() as f64;
    let square = counts.iter().map(|count| (count - mean) * (count - mean)).sum::<f64>();
    (mean, square / counts.len() as f64 / mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_spread_as_published() {
        assert_eq!(HOURS.iter().sum::<u32>(), 2_400);
        assert_eq!((HOURS.iter().min(), HOURS.iter().max()), (Some(&20), Some(&170)));
        // openb, Venus, Philly: jobs an hour and dispersion.
        for (per_hour, dispersion, bunch) in
            [(2.28, 6.0, 1.05), (25.0, 39.0, 1.2), (31.5, 161.0, 1.15)]
        {
            let asked = Arrivals { per_hour, dispersion, bunch };
            let times = asked.times(400_000, &mut Draw::new(3, "hours"));
            assert!(times.is_sorted() && times.len() == 400_000);
            let (mean, found) = hourly(&times);
            assert!((mean / per_hour - 1.0).abs() < 0.06, "{mean} jobs an hour, not {per_hour}");
            assert!((found / dispersion - 1.0).abs() < 0.12, "{found}, not {dispersion}");
        }
    }

    #[test]
    fn bunches_come_within_a_second() {
        let asked = Arrivals { per_hour: 10.0, dispersion: 20.0, bunch: 4.0 };
        let times = asked.times(50_000, &mut Draw::new(5, "bunches"));
        let near = times.windows(2).filter(|pair| pair[1].0 - pair[0].0 < 1_000).count();
        // Three of four have one of their bunch before them, a few more by chance.
        assert!((0.74..0.80).contains(&(near as f64 / times.len() as f64)), "{near}");
    }
}
