//! Simplex: linear programs whose columns are made as they are needed.
//!
//! The revised primal method with the whole inverse of the basis (Dantzig and Orchard-Hays, 1954),
//! for some hundred rows: the largest sum of gains, every row at most its bound, nothing below zero.
//! **Invariant:** sums run in a fixed order, and of equals the first is taken, so the same program
//! has the same prices on every machine.

/// Less than this is nothing.
const EPSILON: f64 = 1e-9;

/// A program at one of its corners; first that at which nothing is done.
#[derive(Clone, Debug)]
pub(super) struct Simplex {
    rows: usize,
    /// Of the basis, row by row.
    inverse: Vec<f64>,
    /// How much there is of the column in each place of the basis.
    amounts: Vec<f64>,
    prices: Vec<f64>,
    /// Of the entering column, by place of the basis.
    step: Vec<f64>,
}

impl Simplex {
    /// A program with these bounds of its rows, none below zero.
    pub(super) fn new(bounds: Vec<f64>) -> Self {
        let rows = bounds.len();
        let mut inverse = vec![0.0; rows * rows];
        inverse.iter_mut().step_by(rows + 1).for_each(|one| *one = 1.0);
        Self { rows, inverse, amounts: bounds, prices: vec![0.0; rows], step: vec![0.0; rows] }
    }

    /// What one more of each row's bound would gain. One below zero is a row of which less should be
    /// used up: [`Self::loosen`].
    pub(super) fn prices(&self) -> &[f64] {
        &self.prices
    }

    /// Takes in as much as can be of a column (row, number) that gains this much for each: its place
    /// in the basis; `None` if there is no end to it.
    pub(super) fn enter(&mut self, column: &[(usize, f64)], gain: f64) -> Option<usize> {
        let cost: f64 = column.iter().map(|&(row, number)| self.price(row) * number).sum();
        for (place, step) in self.step.iter_mut().enumerate() {
            let inverse = self.inverse.get(place * self.rows..).unwrap_or(&[]);
            let part = |&(row, number): &(usize, f64)| inverse.get(row).map_or(0.0, |a| a * number);
            *step = column.iter().map(part).sum();
        }
        let mut leaves: Option<(f64, f64, usize)> = None;
        for (place, (&step, &amount)) in self.step.iter().zip(&self.amounts).enumerate() {
            if step <= EPSILON {
                continue;
            }
            let most = amount / step;
            let sooner = |&(least, width, _): &(f64, f64, usize)| {
                most < least - EPSILON || (most <= least + EPSILON && step > width)
            };
            if leaves.as_ref().is_none_or(sooner) {
                leaves = Some((most, step, place));
            }
        }
        let (most, width, place) = leaves?;
        self.pivot(place, width, most, gain - cost);
        Some(place)
    }

    /// Uses less of a row than its bound.
    pub(super) fn loosen(&mut self, row: usize) -> Option<usize> {
        self.enter(&[(row, 1.0)], 0.0)
    }

    fn price(&self, row: usize) -> f64 {
        self.prices.get(row).copied().unwrap_or(0.0)
    }

    /// The entering column takes the place in the basis.
    fn pivot(&mut self, place: usize, width: f64, most: f64, gain: f64) {
        let rows = self.rows;
        let (above, rest) = self.inverse.split_at_mut(place * rows);
        let (row, below) = rest.split_at_mut(rows);
        row.iter_mut().for_each(|one| *one /= width);
        let others = above.chunks_exact_mut(rows).zip(0..);
        let others = others.chain(below.chunks_exact_mut(rows).zip(place + 1..));
        for (other, at) in others {
            let step = self.step.get(at).copied().unwrap_or(0.0);
            if step != 0.0 {
                other.iter_mut().zip(row.iter()).for_each(|(other, one)| *other -= step * one);
            }
        }
        for (price, one) in self.prices.iter_mut().zip(row.iter()) {
            *price += gain * one;
        }
        for (at, (amount, step)) in self.amounts.iter_mut().zip(&self.step).enumerate() {
            *amount = if at == place { most } else { (*amount - step * most).max(0.0) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::draw::Draw;
    use super::*;

    /// Rows with numbers, and what one of it gains.
    type Column = (Vec<(usize, f64)>, f64);

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    /// The program at its end, and which column is in each place of the basis.
    fn solved(bounds: &[f64], columns: &[Column]) -> (Simplex, Vec<Option<usize>>) {
        let mut simplex = Simplex::new(bounds.to_vec());
        let mut basis = vec![None; bounds.len()];
        for _ in 0..10_000 {
            let over: Vec<f64> = columns.iter().map(|column| over(&simplex, column)).collect();
            let best = (0..columns.len()).max_by(|&a, &b| over[a].total_cmp(&over[b]));
            let best = best.filter(|&best| over[best] > 1e-9);
            let loose = simplex.prices().iter().position(|&price| price < -1e-9);
            let place = match (best, loose) {
                (Some(best), _) => simplex.enter(&columns[best].0, columns[best].1),
                (None, Some(row)) => simplex.loosen(row),
                (None, None) => return (simplex, basis),
            };
            basis[place.expect("the first row bounds all")] = best;
        }
        panic!("it has no end");
    }

    /// What one of the column gains over the prices of its rows.
    fn over(simplex: &Simplex, (numbers, gain): &Column) -> f64 {
        gain - numbers.iter().map(|&(row, number)| simplex.prices()[row] * number).sum::<f64>()
    }

    #[test]
    fn amounts_keep_the_bounds_and_gain_what_the_prices_say() {
        let mut draw = Draw::new(3);
        let mut gained = 0;
        for case in 0..1_000 {
            let rows = 1 + draw.below(12);
            let bounds: Vec<f64> = (0..rows).map(|_| draw.below(30) as f64).collect();
            let columns: Vec<Column> = (0..1 + draw.below(25))
                .map(|_| {
                    let mut numbers = vec![(0, 1.0 + draw.below(3) as f64)];
                    for row in (1..rows).filter(|_| draw.below(3) == 0).collect::<Vec<_>>() {
                        numbers.push((row, draw.below(9) as f64 - 3.0));
                    }
                    (numbers, draw.below(20) as f64 - 2.0)
                })
                .collect();
            let (simplex, basis) = solved(&bounds, &columns);
            let mut used = vec![0.0; rows];
            let mut gain = 0.0;
            for (amount, column) in simplex.amounts.iter().zip(&basis) {
                assert!(*amount >= 0.0, "case {case}");
                let Some(column) = column.and_then(|at: usize| columns.get(at)) else { continue };
                column.0.iter().for_each(|&(row, number)| used[row] += amount * number);
                gain += amount * column.1;
            }
            let kept = used.iter().zip(&bounds).all(|(used, bound)| *used < bound + 1e-6);
            assert!(kept, "case {case}: {used:?} of {bounds:?}");
            // No plan gains more than prices that no column beats: so this one is a best one.
            let bound: f64 = simplex.prices().iter().zip(&bounds).map(|(a, b)| a * b).sum();
            assert!(close(gain, bound), "case {case}: {gain}, not {bound}");
            assert!(columns.iter().all(|column| over(&simplex, column) < 1e-6), "case {case}");
            assert!(simplex.prices().iter().all(|&price| price > -1e-6), "case {case}");
            gained += u32::from(gain > 0.0);
        }
        assert!(gained > 700, "{gained}");
    }

    #[test]
    fn what_has_no_end_is_told() {
        let mut simplex = Simplex::new(vec![1.0, 2.0]);
        assert_eq!(simplex.enter(&[(0, -1.0)], 1.0), None);
        assert_eq!(simplex.prices(), [0.0, 0.0]);
    }
}
