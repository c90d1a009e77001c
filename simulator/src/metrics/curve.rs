//! Curve: a quantity that stays as it is until it changes, over virtual time, in bounded memory.
//!
//! Time is cut into cells of one width; when the last one is reached, neighbours are merged and
//! the width doubles. A cell keeps the area under the quantity, so means over cells, and over all
//! of the time, are exact however often the width has doubled.
//! **Invariant:** depends on the values and their times alone; never more than [`CELLS_MAX`] cells.

use scheduler_core::unit::TimeMs;

/// Cells of a curve: more than a chart has columns to show.
pub const CELLS_MAX: usize = 512;

/// A quantity over time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Curve {
    began: u64,
    width_ms: u64,
    cells: Vec<Cell>,
    last: u64,
    value: u64,
    peak: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Cell {
    /// Value times milliseconds.
    area: u128,
    span_ms: u64,
}

/// The mean of a cell.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    /// Where the cell begins.
    pub at: TimeMs,
    pub mean: f64,
}

impl Curve {
    /// Is zero from `began` on.
    pub fn new(began: TimeMs) -> Self {
        let began = began.0;
        Self { began, width_ms: 1, cells: Vec::new(), last: began, value: 0, peak: 0 }
    }

    /// The quantity as it is now.
    pub fn value(&self) -> u64 {
        self.value
    }

    /// The largest value that held for any time at all.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// From `at` on it is `value`. A time before the last one counts as the last one.
    pub fn set(&mut self, at: TimeMs, value: u64) {
        if value != self.value {
            self.pass(at);
            self.value = value;
        }
    }

    /// From `at` on it is larger by `more`.
    pub fn add(&mut self, at: TimeMs, more: u64) {
        self.set(at, self.value.saturating_add(more));
    }

    /// From `at` on it is smaller by `less`.
    pub fn sub(&mut self, at: TimeMs, less: u64) {
        self.set(at, self.value.saturating_sub(less));
    }

    /// It stayed as it is until `at`.
    pub fn pass(&mut self, at: TimeMs) {
        if at.0 <= self.last {
            return;
        }
        self.peak = self.peak.max(self.value);
        while (at.0 - 1 - self.began) / self.width_ms >= CELLS_MAX as u64 {
            self.widen();
        }
        while self.last < at.0 {
            let number = (self.last - self.began) / self.width_ms;
            let end = self.began.saturating_add((number + 1).saturating_mul(self.width_ms));
            let span = end.min(at.0) - self.last;
            let number = usize::try_from(number).unwrap_or(CELLS_MAX);
            if self.cells.len() <= number {
                self.cells.resize(number + 1, Cell::default());
            }
            if let Some(cell) = self.cells.get_mut(number) {
                cell.area += u128::from(self.value) * u128::from(span);
                cell.span_ms += span;
            }
            self.last += span;
        }
    }

    fn widen(&mut self) {
        let pair = |pair: &[Cell]| Cell {
            area: pair.iter().map(|cell| cell.area).sum(),
            span_ms: pair.iter().map(|cell| cell.span_ms).sum(),
        };
        self.cells = self.cells.chunks(2).map(pair).collect();
        self.width_ms = self.width_ms.saturating_mul(2);
    }

    /// Value times milliseconds, over all of the time.
    pub fn area(&self) -> u128 {
        self.cells.iter().map(|cell| cell.area).sum()
    }

    /// Mean over all of the time; 0 if none has passed.
    pub fn mean(&self) -> f64 {
        let span = self.last - self.began;
        if span == 0 { 0.0 } else { self.area() as f64 / span as f64 }
    }

    /// Means of the cells, at most [`CELLS_MAX`].
    pub fn points(&self) -> impl Iterator<Item = Point> {
        let starts = (0u64..).map(|number| self.began + number * self.width_ms);
        starts.zip(&self.cells).filter(|(_, cell)| cell.span_ms > 0).map(|(at, cell)| Point {
            at: TimeMs(at),
            mean: cell.area as f64 / cell.span_ms as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_exact_through_every_doubling() {
        let mut curve = Curve::new(TimeMs(100));
        let mut area = 0u128;
        let (mut at, mut value) = (100u64, 0u64);
        for step in 1..2_000u64 {
            let next = at + step * step % 977;
            area += u128::from(value) * u128::from(next - at);
            value = step * 31 % 101;
            curve.set(TimeMs(next), value);
            at = next;
        }
        curve.pass(TimeMs(at + 7));
        area += u128::from(value) * 7;
        assert_eq!(curve.area(), area);
        assert_eq!(curve.mean(), area as f64 / (at + 7 - 100) as f64);
        let points: Vec<Point> = curve.points().collect();
        assert!(points.len() <= CELLS_MAX && points.len() > CELLS_MAX / 2, "{}", points.len());
        assert_eq!(curve.peak(), 100);
    }

    #[test]
    fn a_value_that_held_for_no_time_leaves_no_trace() {
        let mut curve = Curve::new(TimeMs(0));
        curve.set(TimeMs(5), 9);
        curve.set(TimeMs(5), 2);
        curve.pass(TimeMs(10));
        assert_eq!((curve.area(), curve.peak(), curve.value()), (10, 2, 2));
        // Time does not run backwards.
        curve.set(TimeMs(3), 1);
        curve.pass(TimeMs(11));
        assert_eq!(curve.area(), 11);
    }

    #[test]
    fn a_cell_tells_its_own_mean() {
        let mut curve = Curve::new(TimeMs(0));
        curve.set(TimeMs(0), 4);
        curve.set(TimeMs(512), 8);
        curve.pass(TimeMs(1_024));
        let points: Vec<Point> = curve.points().collect();
        assert_eq!(points.len(), 512, "each is 2 ms wide");
        assert_eq!((points[255].mean, points[256].mean), (4.0, 8.0));
        assert_eq!(points[256].at, TimeMs(512));
    }
}
