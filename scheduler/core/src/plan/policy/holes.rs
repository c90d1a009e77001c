//! Hole prices: how much of a partly used GPU will stay unused in the end.
//!
//! A hole is what is left on one GPU, in hundredths. What is to come is cut out of the fleet's holes
//! as well as can be: a cutting stock problem (Gilmore and Gomory, "A linear programming approach to
//! the cutting-stock problem", 1961), solved as a linear program whose columns are patterns, one hole
//! with what is cut out of it, made as they are needed from the prices so far. First of all
//! everything is to be accepted for as long as possible, in the proportions of the learned mix; what
//! still fits afterwards counts too, but less, for a policy refuses nothing that fits and so cannot
//! choose it. What a hole is worth in that program, against the largest, is what of it will be used.
//! **Invariant:** a function of the holes and the demand alone.

use super::simplex::Simplex;

/// Sizes of holes: 0 to 100 hundredths of a GPU.
pub(super) const SIZES: usize = 101;
/// Sizes asked for that are planned with, those most asked for: enough for all but one GPU in
/// some hundred, and a bound on the time.
const ASKED_MAX: usize = 12;
/// What counts of a GPU that is used after something had to be refused. Found by search on the openb
/// workloads, as the weights.
const LATER: f64 = 0.85;
/// Most steps of the program: a bound on the time. While the openb workloads fill a fleet, 75 were the
/// most that were needed.
const STEPS_MAX: usize = 1_000;
/// Gain below which the program is solved.
const EPSILON: f64 = 1e-7;
/// Lets the first steps move at all: without it nothing can be accepted before all patterns are there.
const SLACK: f64 = 1e-6;

pub(super) type Table = [f32; SIZES];

/// Prices of holes by size, in hundredths of a GPU that stay unused.
#[derive(Clone, Debug)]
pub(super) struct Prices(Table);

impl Default for Prices {
    /// Every hole stays as it is.
    fn default() -> Self {
        let mut table = [0.0; SIZES];
        for (size, price) in (0u8..).zip(&mut table) {
            *price = f32::from(size);
        }
        Self(table)
    }
}

/// GPUs of a size that are to come.
#[derive(Clone, Copy, Debug)]
struct Asked {
    /// In hundredths, 1 to 100.
    size: usize,
    /// How many in all.
    count: f64,
}

impl Prices {
    /// Prices where there are so many holes of each size, and so many of each size are to come.
    pub(super) fn new(stock: &Table, asked: &[(usize, f32)]) -> Self {
        let largest = stock.iter().rposition(|&count| count > 0.0).unwrap_or(0);
        let asked = asked.iter().map(|&(size, count)| Asked { size, count: f64::from(count) });
        let mut asked: Vec<Asked> =
            asked.filter(|one| one.size > 0 && one.size <= largest && one.count > 0.0).collect();
        asked.sort_by(|a, b| b.count.total_cmp(&a.count));
        asked.truncate(ASKED_MAX);
        asked.sort_by_key(|one| one.size);
        let mut prices = Self::default();
        if !asked.is_empty() {
            let worth = Program::new(stock, &asked).worth();
            let whole = worth.get(largest).copied().unwrap_or(0.0);
            if whole > EPSILON {
                let scale = largest as f64 / whole;
                for (price, worth) in prices.0.iter_mut().zip(&worth) {
                    *price -= (worth * scale) as f32;
                }
            }
        }
        prices
    }

    /// Price of a hole.
    pub(super) fn of(&self, size: usize) -> f32 {
        self.0.get(size).copied().unwrap_or(0.0)
    }
}

/// The program. Its rows: of each size asked for, what is accepted is at most what is cut, and at
/// most what comes; of each size of holes, no more is cut up than there is.
struct Program<'a> {
    asked: &'a [Asked],
    /// GPUs asked for in all.
    total: f64,
    /// Sizes of holes that there are.
    holes: Vec<usize>,
    simplex: Simplex,
}

/// What a hole of each size is worth, and the size cut first out of it; 0 = none.
type Cuts = [(f64, usize); SIZES];

enum Entering {
    /// Everything in proportion.
    All,
    /// One size alone.
    One(usize),
    /// A pattern for the hole in this place.
    Pattern(usize),
    /// Less of a row than there is.
    Less(usize),
}

impl<'a> Program<'a> {
    /// What is asked for by rising size.
    fn new(stock: &Table, asked: &'a [Asked]) -> Self {
        let smallest = asked.first().map_or(SIZES, |one| one.size);
        let holes = stock.iter().enumerate().skip(smallest);
        let holes: Vec<(usize, f32)> =
            holes.filter(|(_, count)| **count > 0.0).map(|(size, &count)| (size, count)).collect();
        let cut = asked.iter().map(|_| SLACK);
        let comes = asked.iter().map(|one| one.count);
        let bounds = cut.chain(comes).chain(holes.iter().map(|(_, count)| f64::from(*count)));
        let total = asked.iter().map(|one| one.count * one.size as f64 / 100.0).sum();
        let simplex = Simplex::new(bounds.collect());
        Self { asked, total, holes: holes.into_iter().map(|(size, _)| size).collect(), simplex }
    }

    /// What a hole of each size is worth in the end.
    fn worth(self) -> Vec<f64> {
        let asked = self.asked;
        cuts(asked, &self.solved()).iter().map(|(worth, _)| *worth).collect()
    }

    fn solved(mut self) -> Simplex {
        for _ in 0..STEPS_MAX {
            let cuts = cuts(self.asked, &self.simplex);
            let Some(entering) = self.entering(&cuts) else { break };
            let place = match entering {
                Entering::All => self.simplex.enter(&self.all(), 1.0),
                Entering::One(at) => {
                    let (cut, comes) = (at, self.asked.len() + at);
                    self.simplex.enter(&[(cut, 1.0), (comes, 1.0)], self.gain(at))
                }
                Entering::Pattern(at) => self.simplex.enter(&self.pattern(at, &cuts), 0.0),
                Entering::Less(row) => self.simplex.loosen(row),
            };
            if place.is_none() {
                break;
            }
        }
        self.simplex
    }

    fn price(&self, row: usize) -> f64 {
        self.simplex.prices().get(row).copied().unwrap_or(0.0)
    }

    /// What one of a size counts if it is accepted by itself.
    fn gain(&self, at: usize) -> f64 {
        self.asked.get(at).map_or(0.0, |one| LATER * one.size as f64 / 100.0)
    }

    /// One GPU of everything: of each size its part.
    fn all(&self) -> Vec<(usize, f64)> {
        let parts = self.asked.iter().map(|one| one.count / self.total).enumerate();
        parts.flat_map(|(at, part)| [(at, part), (self.asked.len() + at, part)]).collect()
    }

    /// What the hole in this place is cut into at best.
    fn pattern(&self, at: usize, cuts: &Cuts) -> Vec<(usize, f64)> {
        let mut column = vec![(self.asked.len() * 2 + at, 1.0)];
        let mut left = self.holes.get(at).copied().unwrap_or(0);
        while let Some(&(_, size)) = cuts.get(left).filter(|(_, size)| *size > 0) {
            let row = self.asked.partition_point(|one| one.size < size);
            match column.iter_mut().find(|(cut, _)| *cut == row) {
                Some((_, number)) => *number -= 1.0,
                None => column.push((row, -1.0)),
            }
            left -= size.min(left);
        }
        column
    }

    /// What gains most; `None` if nothing does.
    fn entering(&self, cuts: &Cuts) -> Option<Entering> {
        let sizes = self.asked.len();
        let of_two = |at: usize| self.price(at) + self.price(sizes + at);
        let parts = self.asked.iter().enumerate();
        let all: f64 = parts.map(|(at, one)| one.count / self.total * of_two(at)).sum();
        let mut best = (1.0 - all, Entering::All);
        let ones = (0..sizes).map(|at| (self.gain(at) - of_two(at), Entering::One(at)));
        let patterns = self.holes.iter().enumerate().map(|(at, &hole)| {
            let worth = cuts.get(hole).map_or(0.0, |(worth, _)| *worth);
            (worth - self.price(sizes * 2 + at), Entering::Pattern(at))
        });
        let prices = self.simplex.prices().iter().enumerate();
        let less = prices.map(|(row, price)| (-price, Entering::Less(row)));
        for one in ones.chain(patterns).chain(less) {
            if one.0 > best.0 {
                best = one;
            }
        }
        (best.0 > EPSILON).then_some(best.1)
    }
}

/// The best cuts by the prices so far: a knapsack for every size of hole.
fn cuts(asked: &[Asked], simplex: &Simplex) -> Cuts {
    let mut cuts = [(0.0, 0); SIZES];
    for left in 1..SIZES {
        // Nothing cut off is worth what the next smaller hole is.
        let mut best = cuts.get(left - 1).copied().unwrap_or((0.0, 0));
        for (one, price) in asked.iter().zip(simplex.prices()) {
            let Some(rest) = left.checked_sub(one.size) else { break };
            let worth = price + cuts.get(rest).map_or(0.0, |(worth, _)| *worth);
            if worth > best.0 + EPSILON * 1e-3 {
                best = (worth, one.size);
            }
        }
        if let Some(cut) = cuts.get_mut(left) {
            *cut = best;
        }
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::super::draw::Draw;
    use super::*;

    fn table(stock: &[(usize, f32)]) -> Table {
        let mut table = [0.0; SIZES];
        for &(size, count) in stock {
            table[size] = count;
        }
        table
    }

    fn prices(stock: &[(usize, f32)], asked: &[(usize, f32)]) -> Prices {
        Prices::new(&table(stock), asked)
    }

    fn close(a: f32, b: f32) -> bool {
        (a - b).abs() < 0.01
    }

    #[test]
    fn holes_that_nothing_fits_stay_and_others_are_filled() {
        // Shares of half a GPU, more than there is room for.
        let prices = prices(&[(100, 100.0), (50, 100.0), (30, 50.0)], &[(50, 1_000.0)]);
        assert!(close(prices.of(30), 30.0), "{}", prices.of(30));
        assert!(close(prices.of(50), 0.0), "{}", prices.of(50));
        assert!(close(prices.of(100), 0.0), "{}", prices.of(100));
        assert!(close(prices.of(80), 30.0), "30 of it stay: {}", prices.of(80));
    }

    #[test]
    fn what_fits_exactly_goes_first() {
        let asked = [(70, 100.0), (60, 100.0), (40, 300.0), (30, 300.0)];
        let prices = prices(&[(100, 160.0), (40, 20.0), (30, 20.0)], &asked);
        let rise = |hole: usize, size: usize| prices.of(hole - size) - prices.of(hole);
        assert!(rise(30, 30) < rise(40, 30) - 5.0, "{} {}", rise(30, 30), rise(40, 30));
        assert!(rise(40, 40) < rise(100, 40) + 0.01, "{} {}", rise(40, 40), rise(100, 40));
    }

    #[test]
    fn without_shares_all_stays() {
        for asked in [&[][..], &[(0, 5.0)], &[(80, 5.0)], &[(30, 0.0)]] {
            assert!(close(prices(&[(70, 10.0)], asked).of(70), 70.0));
        }
        assert!(close(prices(&[], &[(30, 9.0)]).of(70), 70.0));
    }

    /// GPUs of the given sizes that a plan cut at random accepts, as the program counts them.
    fn cut_at_random(stock: &Table, asked: &[Asked], draw: &mut Draw) -> f64 {
        let mut left: Vec<usize> = Vec::new();
        for (size, &count) in stock.iter().enumerate() {
            left.extend(std::iter::repeat_n(size, count as usize));
        }
        let mut coming: Vec<usize> = Vec::new();
        for (at, one) in asked.iter().enumerate() {
            coming.extend(std::iter::repeat_n(at, one.count as usize));
        }
        draw.shuffle(&mut coming);
        let mut accepted = vec![0.0; asked.len()];
        for at in coming {
            let rooms: Vec<usize> =
                (0..left.len()).filter(|&hole| left[hole] >= asked[at].size).collect();
            if let Some(&hole) = rooms.get(draw.below(rooms.len())) {
                left[hole] -= asked[at].size;
                accepted[at] += 1.0;
            }
        }
        let parts = asked.iter().zip(&accepted).map(|(one, accepted)| accepted / one.count);
        let all = parts.fold(1.0, f64::min);
        let gpus = |count: f64, one: &Asked| count * one.size as f64 / 100.0;
        let later = asked.iter().zip(&accepted);
        let later: f64 = later.map(|(one, got)| gpus(got - all * one.count, one)).sum();
        all * asked.iter().map(|one| gpus(one.count, one)).sum::<f64>() + LATER * later
    }

    #[test]
    fn no_plan_is_worth_more_than_its_holes() {
        let mut draw = Draw::new(8);
        let mut near = 0;
        for _ in 0..200 {
            let mut stock = table(&[]);
            for _ in 0..1 + draw.below(6) {
                stock[5 + draw.below(96)] += 1.0 + draw.below(9) as f32;
            }
            let mut asked: Vec<Asked> = (0..1 + draw.below(5))
                .map(|_| Asked { size: 5 + draw.below(60), count: 1.0 + draw.below(20) as f64 })
                .collect();
            asked.sort_by_key(|one| one.size);
            asked.dedup_by_key(|one| one.size);
            let program = Program::new(&stock, &asked);
            let simplex = program.solved();
            let rows = simplex.prices().iter();
            let comes = rows.skip(asked.len()).zip(&asked).map(|(price, one)| price * one.count);
            let holes = simplex.prices().iter().skip(asked.len() * 2);
            let stocked = stock.iter().enumerate().skip(asked[0].size);
            let stocked = stocked.filter(|(_, count)| **count > 0.0);
            let holes = holes.zip(stocked).map(|(price, (_, count))| price * f64::from(*count));
            let bound = comes.sum::<f64>() + holes.sum::<f64>();
            let best = (0..30).map(|_| cut_at_random(&stock, &asked, &mut draw));
            let best = best.fold(0.0, f64::max);
            assert!(best <= bound + 1e-3, "{best} over {bound}: {asked:?}");
            near += u32::from(best > bound * 0.8);
        }
        assert!(near > 100, "bounds are close to what can be done: {near} of 200");
    }
}
