//! Draws: repeatable random numbers and the exponential, alike on every machine.
//!
//! **Invariant:** no state but the seed; only sums, products and shifts, so no library's rounding.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Draw(u64);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`; 0 if `end` is 0. The bias is below end / 2^64.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let wide = u128::from(self.next()) * end as u128;
        usize::try_from(wide >> 64).unwrap_or(0)
    }

    /// A number from 0 up to but not including 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A Poisson number with this mean, which should be small (Knuth's product of uniforms).
    pub(super) fn poisson(&mut self, mean: f64) -> u32 {
        let end = exp(-mean);
        let mut product = self.unit();
        let mut count = 0;
        while product > end {
            count += 1;
            product *= self.unit();
        }
        count
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

/// e to the power of `x`, to about 12 digits: a short series at x / 1024, squared ten times.
pub(super) fn exp(x: f64) -> f64 {
    let small = x.clamp(-700.0, 700.0) / 1024.0;
    let mut term = 1.0;
    let mut sum = 1.0;
    for power in 1..=8u32 {
        term *= small / f64::from(power);
        sum += term;
    }
    for _ in 0..10 {
        sum *= sum;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponential_is_close_to_the_librarys() {
        for tenth in -300..300 {
            let x = f64::from(tenth) / 10.0;
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-10, "{x}");
        }
    }

    #[test]
    fn draws_have_the_right_means() {
        let mut draw = Draw::new(1);
        let sum: u32 = (0..10_000).map(|_| draw.poisson(3.0)).sum();
        assert!((29_000..31_000).contains(&sum), "{sum}");
        let low = (0..10_000).filter(|_| draw.below(10) < 3).count();
        assert!((2_800..3_200).contains(&low), "{low}");
        assert_eq!(draw.below(0), 0);
    }
}
