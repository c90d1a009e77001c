//! Hole prices: how much of a partly used GPU will stay unused in the end.
//!
//! A hole is what is left on one GPU, in hundredths. The learned mix of shares is poured, as a
//! fluid, over all holes of the fleet in several steps, each share going where the price rises
//! least; then the same steps are gone through backwards, which gives the exact derivative of the
//! final waste by one more hole of each size at each step: the prices. Prices of one pass guide the
//! next, so a few passes at each refresh settle them.
//! **Invariant:** sums run in a fixed order; the only randomness is the given draw.

use super::draw::Draw;

/// Sizes of holes: 0 to 100 hundredths of a GPU.
pub(super) const SIZES: usize = 101;
/// Steps in which the future is cut.
const STEPS: usize = 32;
/// Weight of a pass against those before.
const BLEND: f32 = 0.2;
/// Passes at a refresh.
const PASSES: usize = 4;
/// Less of a hole than this is none.
const EPSILON: f32 = 1e-6;
/// Place of "no hole has room" in the record.
const REJECTED: u8 = u8::MAX;

type Table = [f32; SIZES];

/// Prices of holes by size, in hundredths of a GPU that stay unused.
#[derive(Clone, Debug)]
pub(super) struct Prices {
    steps: Vec<Table>,
}

/// One share size in one step: which holes it used, in order. All but the last were used up.
struct Pour {
    step: usize,
    size: usize,
    holes: std::ops::Range<usize>,
}

impl Default for Prices {
    /// Every hole stays as it is.
    fn default() -> Self {
        Self { steps: vec![left_over(); STEPS] }
    }
}

fn left_over() -> Table {
    let mut table = [0.0; SIZES];
    for (size, price) in (0u8..).zip(&mut table) {
        *price = f32::from(size);
    }
    table
}

impl Prices {
    /// Price of a hole now.
    pub(super) fn of(&self, size: usize) -> f32 {
        self.steps.first().and_then(|table| table.get(size)).copied().unwrap_or(0.0)
    }

    /// Learns the fleet's holes by size and the shares to come: (size, how many).
    pub(super) fn learn(&mut self, stock: &Table, shares: &[(usize, f32)], draw: &mut Draw) {
        for _ in 0..PASSES {
            let spread: Vec<(usize, f32)> = shares
                .iter()
                .map(|&(size, count)| {
                    // A sum of six uniforms is near enough to a normal.
                    let normal: f64 = (0..6).map(|_| draw.unit() - 0.5).sum::<f64>() * 1.414;
                    let spread = normal as f32 / count.max(0.25).sqrt();
                    (size, count * (1.0 + spread).max(0.0) / STEPS as f32)
                })
                .collect();
            self.pass(stock, &spread, draw);
        }
    }

    fn pass(&mut self, stock: &Table, rates: &[(usize, f32)], draw: &mut Draw) {
        let mut holes = *stock;
        let mut record: Vec<u8> = Vec::new();
        let mut pours: Vec<Pour> = Vec::new();
        let mut order: Vec<(usize, f32)> = rates.to_vec();
        for (step, table) in self.steps.iter().enumerate() {
            draw.shuffle(&mut order);
            for &(size, need) in &order {
                let from = record.len();
                pour(table, &mut holes, size, need, &mut record);
                pours.push(Pour { step, size, holes: from..record.len() });
            }
        }
        let mut prices = left_over();
        let mut at = STEPS;
        for pour in pours.iter().rev() {
            if pour.step != at {
                self.blend(at, &prices);
                at = pour.step;
            }
            take_back(&mut prices, pour.size, record.get(pour.holes.clone()).unwrap_or(&[]));
        }
        self.blend(at, &prices);
    }

    fn blend(&mut self, step: usize, prices: &Table) {
        for (old, new) in self.steps.get_mut(step).into_iter().flatten().zip(prices) {
            *old += BLEND * (new - *old);
        }
    }
}

/// Pours shares of a size into the holes where the price rises least.
fn pour(table: &Table, holes: &mut Table, size: usize, mut need: f32, record: &mut Vec<u8>) {
    while need > 0.0 {
        let mut best: Option<(f32, usize)> = None;
        let after = table.iter();
        let before = table.iter().zip(holes.iter()).enumerate().skip(size);
        for ((at, (before, &stock)), after) in before.zip(after) {
            let rise = after - before;
            if stock > 0.0 && best.is_none_or(|(least, _)| rise < least) {
                best = Some((rise, at));
            }
        }
        let Some((_, at)) = best else {
            record.push(REJECTED);
            return;
        };
        record.push(u8::try_from(at).unwrap_or(REJECTED));
        let Some(stock) = holes.get_mut(at) else { return };
        let moved = stock.min(need);
        *stock -= moved;
        if *stock <= EPSILON {
            *stock = 0.0;
        }
        let used_up = *stock == 0.0;
        need -= moved;
        if let Some(smaller) = holes.get_mut(at - size) {
            *smaller += moved;
        }
        if used_up && need <= EPSILON {
            return;
        }
    }
}

/// Goes back over one pour: prices after it become prices before it.
fn take_back(prices: &mut Table, size: usize, used: &[u8]) {
    let Some((&last, used_up)) = used.split_last() else { return };
    let price = |prices: &Table, at: usize| prices.get(at).copied().unwrap_or(0.0);
    let last = usize::from(last);
    let gain = if last < SIZES && last >= size {
        price(prices, last) - price(prices, last - size)
    } else {
        0.0
    };
    let after = *prices;
    for &hole in used_up {
        let hole = usize::from(hole);
        if let Some(place) = prices.get_mut(hole) {
            *place = price(&after, hole.saturating_sub(size)) + gain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(stock: &[(usize, f32)], shares: &[(usize, f32)]) -> Prices {
        let mut table = [0.0; SIZES];
        for &(size, count) in stock {
            table[size] = count;
        }
        let mut prices = Prices::default();
        let mut draw = Draw::new(1);
        for _ in 0..10 {
            prices.learn(&table, shares, &mut draw);
        }
        prices
    }

    #[test]
    fn holes_that_nothing_fits_stay_and_others_are_filled() {
        // Shares of half a GPU, more than there is room for.
        let prices = prices(&[(100, 100.0), (50, 100.0), (30, 50.0)], &[(50, 1_000.0)]);
        assert!((prices.of(30) - 30.0).abs() < 0.5, "{}", prices.of(30));
        assert!(prices.of(50) < 5.0, "{}", prices.of(50));
        assert!(prices.of(100) < 10.0, "{}", prices.of(100));
        assert!(prices.of(80) > 25.0, "30 of it stay: {}", prices.of(80));
    }

    #[test]
    fn without_shares_all_stays() {
        let prices = prices(&[(100, 10.0)], &[]);
        assert!((prices.of(70) - 70.0).abs() < 1e-3);
    }
}
