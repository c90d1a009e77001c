//! Shrink: when not all replicas fit, the largest gang that does and still reaches the minimum.
//!
//! All groups shrink from what is wanted towards their minimum in step, by binary search; then
//! each group in turn takes back what still fits.
//! **Invariant:** no group is placed below its minimum, and an empty plan is never returned.

use super::Steps;
use super::solve::Solver;
use crate::command::Placement;

/// The largest gang found; `None` if not even the minimum was found possible.
pub(super) fn largest(solver: &Solver<'_>, steps: &mut Steps) -> Option<Vec<Placement>> {
    let wanted = solver.ask.wanted();
    let minimum = solver.ask.minimum();
    if minimum == wanted {
        return solver.solve(&wanted, steps);
    }
    if let Some(found) = steps.half(|steps| solver.solve(&wanted, steps)) {
        return Some(found);
    }
    // What the whole fleet holds on paper bounds each group.
    let have = solver.field.sum(&solver.field.sites(), true);
    let upper: Vec<u32> = wanted
        .iter()
        .zip(&have)
        .zip(&minimum)
        .map(|((&want, &have), &min)| want.min(u32::try_from(have).unwrap_or(want)).max(min))
        .collect();
    // Often that is reached at once: groups rarely stand in each other's way.
    if upper != wanted
        && let Some(found) = steps.half(|steps| attempt(solver, &upper, steps))
    {
        return Some(found);
    }
    let mut best = if minimum.iter().all(|&count| count == 0) {
        (minimum.clone(), None)
    } else {
        (minimum.clone(), Some(solver.solve(&minimum, steps)?))
    };
    shrink_in_step(solver, &minimum, &upper, &mut best, steps);
    for at in 0..upper.len() {
        refill(solver, at, &upper, &mut best, steps);
    }
    best.1
}

type Best = (Vec<u32>, Option<Vec<Placement>>);

fn shrink_in_step(
    solver: &Solver<'_>,
    minimum: &[u32],
    upper: &[u32],
    best: &mut Best,
    steps: &mut Steps,
) {
    let span = minimum.iter().zip(upper).map(|(min, most)| most - min).max().unwrap_or(0);
    let (mut low, mut high) = (0u32, span);
    while low < high && !steps.is_spent() {
        let middle = low + (high - low).div_ceil(2);
        let part = |(&min, &most): (&u32, &u32)| {
            let grown = u64::from(most - min) * u64::from(middle) / u64::from(span.max(1));
            min + u32::try_from(grown).unwrap_or(0)
        };
        let targets: Vec<u32> = minimum.iter().zip(upper).map(part).collect();
        match attempt(solver, &targets, steps) {
            Some(found) => {
                *best = (targets, Some(found));
                low = middle;
            }
            None => high = middle - 1,
        }
    }
}

/// Raises one group as far as it goes beside the others.
fn refill(solver: &Solver<'_>, at: usize, upper: &[u32], best: &mut Best, steps: &mut Steps) {
    let (mut low, mut high) = (best.0[at], upper[at]);
    while low < high && !steps.is_spent() {
        let middle = low + (high - low).div_ceil(2);
        let mut targets = best.0.clone();
        targets[at] = middle;
        match attempt(solver, &targets, steps) {
            Some(found) => {
                *best = (targets, Some(found));
                low = middle;
            }
            None => high = middle - 1,
        }
    }
}

fn attempt(solver: &Solver<'_>, targets: &[u32], steps: &mut Steps) -> Option<Vec<Placement>> {
    if targets.iter().all(|&count| count == 0) {
        return None;
    }
    solver.solve(targets, steps)
}
