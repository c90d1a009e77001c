//! Ranks: whether pairs of figures differ by more than chance.
//!
//! The test is the signed rank test of Wilcoxon ("Individual comparisons by ranking methods",
//! Biometrics Bulletin 1, 1945), two-sided: it supposes nothing of the figures' distribution but
//! that differences are as likely up as down when the ways do not differ. Pairs without a
//! difference are left out, as there; equal differences share their ranks.
//! **Invariant:** pure.

use serde::Serialize;

/// Up to this many pairs the probability is counted out exactly; beyond, the sum of ranks is close
/// enough to normal.
const PAIRS_EXACT_MAX: usize = 40;

/// The test's result.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct SignedRank {
    /// Pairs that differ.
    pub pairs: usize,
    /// Median of second less first, over all pairs.
    pub median_difference: f64,
    /// Probability of ranks at least as lopsided by chance alone; 1 without a difference.
    pub p: f64,
}

/// Compares pairs of (first, second).
pub fn signed_rank(pairs: &[(f64, f64)]) -> SignedRank {
    let all: Vec<f64> = pairs.iter().map(|&(first, second)| second - first).collect();
    let median_difference = quantile(&all, 0.5);
    let mut differences: Vec<f64> =
        all.into_iter().filter(|difference| difference.is_finite() && *difference != 0.0).collect();
    differences.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let ranks = doubled_ranks(&differences);
    let positive: u64 = differences
        .iter()
        .zip(&ranks)
        .filter(|(difference, _)| **difference > 0.0)
        .map(|(_, rank)| rank)
        .sum();
    let all: u64 = ranks.iter().sum();
    let least = positive.min(all - positive);
    let p = match differences.len() {
        0 => 1.0,
        1..=PAIRS_EXACT_MAX => exact(&ranks, least),
        _ => normal(&ranks, least),
    };
    SignedRank { pairs: differences.len(), median_difference, p }
}

/// Twice the rank of each, so that shared ranks stay whole numbers.
fn doubled_ranks(sorted: &[f64]) -> Vec<u64> {
    let mut ranks = Vec::with_capacity(sorted.len());
    for group in sorted.chunk_by(|a, b| a.abs() == b.abs()) {
        let before = ranks.len() as u64;
        let shared = 2 * before + group.len() as u64 + 1;
        ranks.extend(std::iter::repeat_n(shared, group.len()));
    }
    ranks
}

/// The share of all ways to sign the ranks whose smaller sum is at most `least`.
fn exact(ranks: &[u64], least: u64) -> f64 {
    let most = usize::try_from(ranks.iter().sum::<u64>()).unwrap_or(0);
    // How many of the ways make each sum of positive ranks.
    let mut ways = vec![0.0f64; most + 1];
    if let Some(none) = ways.first_mut() {
        *none = 1.0;
    }
    for rank in ranks {
        let rank = usize::try_from(*rank).unwrap_or(0);
        for sum in (rank..=most).rev() {
            let more = ways.get(sum - rank).copied().unwrap_or(0.0);
            if let Some(way) = ways.get_mut(sum) {
                *way += more;
            }
        }
    }
    let least = usize::try_from(least).unwrap_or(most);
    let low: f64 = ways.iter().take(least + 1).sum();
    (2.0 * low / 2f64.powi(i32::try_from(ranks.len()).unwrap_or(i32::MAX))).min(1.0)
}

/// By the normal distribution of the same mean and variance; shared ranks lower the variance by
/// themselves, since it is the sum of the ranks' squares.
fn normal(ranks: &[u64], least: u64) -> f64 {
    let mean = ranks.iter().sum::<u64>() as f64 / 2.0;
    let variance = ranks.iter().map(|rank| (*rank as f64).powi(2)).sum::<f64>() / 4.0;
    // One step of the doubled sum lies between neighbours.
    let z = ((mean - least as f64 - 1.0) / variance.sqrt()).max(0.0);
    (2.0 * upper_tail(z)).min(1.0)
}

/// Probability that a standard normal exceeds `z`, which is at least 0: Abramowitz and Stegun,
/// Handbook of Mathematical Functions (1964), 26.2.17; off by less than 7.5e-8.
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let factors = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let sum = factors.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum
}

/// The smallest value that at least this share of all does not exceed, the mean of the two middle
/// ones for the median of an even number; 0 of none.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share * sorted.len() as f64;
    let at = |rank: f64| sorted.get((rank as usize).saturating_sub(1)).copied();
    let low = at(place.ceil().max(1.0)).unwrap_or(0.0);
    let even = share == 0.5 && !sorted.is_empty() && sorted.len().is_multiple_of(2);
    if even { (low + at(place + 1.0).unwrap_or(low)) / 2.0 } else { low }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(differences: &[f64]) -> SignedRank {
        let pairs: Vec<(f64, f64)> = differences.iter().map(|&more| (10.0, 10.0 + more)).collect();
        signed_rank(&pairs)
    }

    #[test]
    fn one_sided_differences_have_the_least_probability_there_is() {
        for count in 1..=12 {
            let differences: Vec<f64> = (1..=count).map(f64::from).collect();
            let told = test(&differences);
            let least = 2.0 / 2f64.powi(count);
            assert!((told.p - least.min(1.0)).abs() < 1e-12, "{count}: {}", told.p);
        }
    }

    #[test]
    fn tabled_values_are_met() {
        // Wilcoxon's table: of 10 pairs, a smaller sum of 8 is significant at 5 % two-sided (exactly
        // 0.0488), 9 is not.
        let told = test(&[1.0, 2.0, -8.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0, 10.0]);
        assert!((told.p - 0.048_828_125).abs() < 1e-9, "{}", told.p);
        let told = test(&[1.0, 2.0, -9.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0]);
        assert!(told.p > 0.05, "{}", told.p);
    }

    #[test]
    fn shared_ranks_and_pairs_without_difference() {
        assert_eq!(test(&[0.0, 0.0]), SignedRank { pairs: 0, median_difference: 0.0, p: 1.0 });
        // Two equal differences of either sign: every signing is at least as lopsided.
        assert_eq!(test(&[2.0, -2.0]).p, 1.0);
        assert_eq!(doubled_ranks(&[1.0, -1.0, 3.0]), [3, 3, 6]);
    }

    #[test]
    fn the_normal_way_agrees_with_the_exact_one() {
        let differences: Vec<f64> = (1..=40)
            .map(|rank| if rank % 3 == 0 { -f64::from(rank) } else { f64::from(rank) })
            .collect();
        let mut sorted = differences.clone();
        sorted.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
        let ranks = doubled_ranks(&sorted);
        let least =
            2 * differences.iter().filter(|d| **d < 0.0).map(|d| d.abs() as u64).sum::<u64>();
        let (exact, near) = (exact(&ranks, least), normal(&ranks, least));
        assert!((exact - near).abs() < 0.003, "{exact} and {near}");
        assert!((upper_tail(1.959_964) - 0.025).abs() < 1e-6);
    }

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), 2.5);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0, 4.0], 0.25), 1.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0, 4.0], 1.0), 4.0);
    }
}
