//! Draws from distributions, the same on every machine.
//!
//! **Invariant:** see [the module above](super): no function of the platform's mathematical library.

use scheduler_core::fixture::noise::Dice;

const LN_2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// Longest run of a geometric draw: bounds memory of whoever makes something of each.
const GEOMETRIC_MAX: u32 = 10_000;

/// Random numbers of one purpose.
#[derive(Clone, Debug)]
pub struct Draw(Dice);

impl Draw {
    /// Streams of one seed with different purposes are independent, so that asking for more of one
    /// thing does not change another.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut mixed = Dice::new(seed).number();
        for byte in purpose.bytes() {
            mixed = Dice::new(mixed ^ u64::from(byte)).number();
        }
        Self(Dice::new(mixed))
    }

    /// Evenly from 0 up to and without 1, in steps of 2^-53.
    pub fn unit(&mut self) -> f64 {
        (self.0.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Evenly from 0 up to and without `end`; 0 for an `end` of 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn between(&mut self, least: f64, most: f64) -> f64 {
        least + (most - least) * self.unit()
    }

    /// Memoryless with this mean.
    pub fn exponential(&mut self, mean: f64) -> f64 {
        -mean * ln(1.0 - self.unit())
    }

    /// Standard normal (the polar method of Marsaglia and Bray, SIAM Review 1964).
    pub fn normal(&mut self) -> f64 {
        loop {
            let (x, y) = (self.between(-1.0, 1.0), self.between(-1.0, 1.0));
            let square = x * x + y * y;
            if square > 0.0 && square < 1.0 {
                return x * (-2.0 * ln(square) / square).sqrt();
            }
        }
    }

    /// Half of the draws are below the median; `sigma` is the spread of the natural logarithm.
    pub fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * exp(sigma * self.normal())
    }

    /// Gamma with this shape and mean (Marsaglia and Tsang, ACM TOMS 2000).
    pub fn gamma(&mut self, shape: f64, mean: f64) -> f64 {
        if shape < 1.0 {
            let boost = exp(ln(1.0 - self.unit()) / shape);
            return self.gamma(shape + 1.0, mean * (shape + 1.0) / shape) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let normal = self.normal();
            let root = 1.0 + c * normal;
            let cube = root * root * root;
            let squeeze = 0.5 * normal * normal + d - d * cube;
            if root > 0.0 && ln(1.0 - self.unit()) < squeeze + d * ln(cube) {
                return d * cube * mean / shape;
            }
        }
    }

    /// 1 or more, with this mean; at most 10,000.
    pub fn geometric(&mut self, mean: f64) -> u32 {
        let again = 1.0 - 1.0 / mean.max(1.0);
        let mut count = 1;
        while count < GEOMETRIC_MAX && self.chance(again) {
            count += 1;
        }
        count
    }

    /// One of these, by weight.
    pub fn weighed<'a, T>(&mut self, from: &'a [(T, u32)]) -> Option<&'a T> {
        let total: u64 = from.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut at = self.below(total);
        let found = from.iter().find(|(_, weight)| {
            let here = at < u64::from(*weight);
            at = at.saturating_sub(u64::from(*weight));
            here
        });
        found.map(|(one, _)| one)
    }

    /// In random order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            let with = usize::try_from(self.below(at as u64 + 1)).unwrap_or(at);
            list.swap(at, with);
        }
    }

    /// By its quantiles: (probability, value), both rising, the first at 0 and the last at 1; in
    /// between along straight lines.
    pub fn quantiles(&mut self, of: &[(f64, f64)]) -> f64 {
        let at = self.unit();
        let line = of.windows(2).find_map(|pair| match pair {
            &[(from, low), (to, high)] if at < to => {
                Some(low + (high - low) * (at - from) / (to - from))
            }
            _ => None,
        });
        line.or(of.last().map(|(_, value)| *value)).unwrap_or_default()
    }
}

/// So many of each kind as its weight says, spread over `count` in the order of the kinds: the kind
/// of each.
pub(super) fn apportion(weights: impl Iterator<Item = u64> + Clone, count: usize) -> Vec<usize> {
    let total: u64 = weights.clone().sum::<u64>().max(1);
    let mut ends = weights.scan(0u64, |sum, weight| {
        *sum += weight;
        Some(*sum)
    });
    let (mut kind, mut end) = (0, ends.next().unwrap_or(total));
    let kinds = (0..count as u64).map(|number| {
        while number * total / count as u64 >= end {
            kind += 1;
            end = ends.next().unwrap_or(u64::MAX);
        }
        kind
    });
    kinds.collect()
}

/// Natural logarithm of a positive number: the series of the inverse hyperbolic tangent.
pub(super) fn ln(x: f64) -> f64 {
    if !(f64::MIN_POSITIVE..=f64::MAX).contains(&x) {
        // Of what no draw gives: the smallest ones.
        return if x > 1.0 { f64::INFINITY } else { -745.0 };
    }
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as f64 - 1_023.0;
    let mut fraction = f64::from_bits((bits & ((1 << 52) - 1)) | (1_023 << 52));
    if fraction > std::f64::consts::SQRT_2 {
        fraction *= 0.5;
        exponent += 1.0;
    }
    let s = (fraction - 1.0) / (fraction + 1.0);
    let square = s * s;
    let series = (0..12).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    exponent * LN_2_HIGH + (2.0 * s * series + exponent * LN_2_LOW)
}

/// Exponential: powers of two, and Taylor's series for the rest.
pub(super) fn exp(x: f64) -> f64 {
    let x = x.clamp(-700.0, 700.0);
    let power = (x / std::f64::consts::LN_2).round();
    let rest = x - power * LN_2_HIGH - power * LN_2_LOW;
    let series = (1..15).rev().fold(1.0, |sum, k| 1.0 + rest / f64::from(k) * sum);
    let biased = (power as i64 + 1_023).clamp(1, 2_046);
    series * f64::from_bits(u64::try_from(biased).unwrap_or(1_023) << 52)
}

/// Arc sine from 0 to 1: halved until its series is short.
pub(super) fn asin(x: f64) -> f64 {
    let mut x = x.clamp(0.0, 1.0);
    for _ in 0..3 {
        // sin(a / 2) = sin a / sqrt(2 (1 + cos a))
        x /= (2.0 * (1.0 + (1.0 - x * x).sqrt())).sqrt();
    }
    // Below sin(pi / 16): ten terms reach the last digit.
    let (mut term, mut sum) = (x, x);
    for k in 1..12 {
        let k = f64::from(k);
        term *= x * x * (2.0 * k - 1.0) / (2.0 * k);
        sum += term / (2.0 * k + 1.0);
    }
    8.0 * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_agree_with_the_platforms() {
        let near = |ours: f64, theirs: f64| {
            assert!((ours - theirs).abs() <= 1e-13 * theirs.abs().max(1.0), "{ours} {theirs}");
        };
        for at in 1..4_000 {
            let x = f64::from(at) / 1_000.0;
            near(ln(x), x.ln());
            near(ln(x * 1e-9), (x * 1e-9).ln());
            let arc = f64::from(at) / 4_000.0;
            near(asin(arc), arc.asin());
            let e = (f64::from(at) - 2_000.0) / 50.0;
            assert!((exp(e) / e.exp() - 1.0).abs() < 1e-13, "{e}");
        }
        near(asin(1.0), std::f64::consts::FRAC_PI_2);
        assert_eq!((ln(1.0), exp(0.0), asin(0.0)), (0.0, 1.0, 0.0));
    }

    #[test]
    fn draws_have_the_moments_of_their_distribution() {
        let mut draw = Draw::new(7, "moments");
        let mut moments = |make: &mut dyn FnMut(&mut Draw) -> f64| {
            let list: Vec<f64> = (0..200_000).map(|_| make(&mut draw)).collect();
            let mean = list.iter().sum::<f64>() / list.len() as f64;
            let square = list.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
            (mean, square / list.len() as f64)
        };
        let near = |(mean, variance): (f64, f64), m: f64, v: f64| {
            assert!((mean - m).abs() < 0.02 * m.max(1.0), "mean {mean}, not {m}");
            assert!((variance - v).abs() < 0.05 * v, "variance {variance}, not {v}");
        };
        near(moments(&mut |draw| draw.unit()), 0.5, 1.0 / 12.0);
        near(moments(&mut Draw::normal), 0.0, 1.0);
        near(moments(&mut |draw| draw.exponential(3.0)), 3.0, 9.0);
        near(moments(&mut |draw| draw.gamma(0.3, 2.0)), 2.0, 4.0 / 0.3);
        near(moments(&mut |draw| draw.gamma(4.0, 2.0)), 2.0, 1.0);
        near(moments(&mut |draw| f64::from(draw.geometric(3.0))), 3.0, 6.0);
        near(moments(&mut |draw| ln(draw.lognormal(exp(2.0), 0.5))), 2.0, 0.25);
        near(
            moments(&mut |draw| draw.quantiles(&[(0.0, 0.0), (0.5, 1.0), (1.0, 3.0)])),
            1.25,
            0.7708,
        );
    }

    #[test]
    fn kinds_come_as_often_as_their_weights_say() {
        assert_eq!(apportion([3, 0, 1].into_iter(), 8), [0, 0, 0, 0, 0, 0, 2, 2]);
        assert_eq!(apportion([2, 1].into_iter(), 3), [0, 0, 1]);
        assert!(apportion([1].into_iter(), 0).is_empty());
        let mut draw = Draw::new(1, "kinds");
        let often = (0..10_000).filter(|_| draw.weighed(&[("a", 1), ("b", 3)]) == Some(&"b"));
        assert!((7_300..7_700).contains(&often.count()));
        assert_eq!(draw.weighed::<()>(&[]), None);
    }
}
