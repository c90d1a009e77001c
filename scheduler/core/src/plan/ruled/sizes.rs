//! Sizes: how many replicas of each group to try between the minimum and all.
//!
//! Without rules, what fits also fits with fewer. With them it need not: evenness may need a member
//! in every domain, nearness a neighbour in each. So where the minimum fails, other sizes are tried.
//! **Invariant:** no group below its minimum, and never nothing at all.

use crate::command::Placement;
use crate::plan::ask::Ask;

/// Combinations of sizes up to which all are tried where the fleet has few nodes for the job.
const ALL_MAX: u64 = 256;
/// Groups up to which every mixture of minima and maxima is tried.
const MIXED_GROUPS_MAX: usize = 5;
/// Sizes in step between minimum and all that are tried where the minimum does not fit.
const IN_STEP: u32 = 8;

/// What came of one size.
pub(super) enum Tried {
    Placed(Vec<Placement>),
    Failed,
    /// The steps ran out: no use to go on.
    Cut,
}

/// The best of what was placed, as long as the steps last.
struct Trial<F> {
    attempt: F,
    best: Option<(Vec<u32>, Vec<Placement>)>,
    over: bool,
}

impl<F: FnMut(&[u32]) -> Tried> Trial<F> {
    fn new(attempt: F) -> Self {
        Self { attempt, best: None, over: false }
    }

    /// Whether so many could be placed; keeps them if there are more than before.
    fn fits(&mut self, targets: &[u32]) -> bool {
        if self.over || targets.iter().all(|&count| count == 0) {
            return false;
        }
        match (self.attempt)(targets) {
            Tried::Failed => return false,
            Tried::Cut => {
                self.over = true;
                return false;
            }
            Tried::Placed(found) => {
                if self.best.as_ref().is_none_or(|(_, best)| best.len() < found.len()) {
                    self.best = Some((targets.to_vec(), found));
                }
            }
        }
        true
    }

    fn placements(self) -> Option<Vec<Placement>> {
        self.best.map(|(_, found)| found)
    }
}

/// As many as possible. `few`: an attempt costs so little that all sizes may be tried.
pub(super) fn largest(
    ask: &Ask<'_>,
    few: bool,
    attempt: impl FnMut(&[u32]) -> Tried,
) -> Option<Vec<Placement>> {
    let (wanted, minimum) = (ask.wanted(), ask.minimum());
    let mut trial = Trial::new(attempt);
    if trial.fits(&wanted) || minimum == wanted {
        return trial.placements();
    }
    if few && ways(&minimum, &wanted) <= ALL_MAX {
        let mut all = between(&minimum, &wanted);
        all.sort_by_key(|counts| std::cmp::Reverse(counts.iter().sum::<u32>()));
        let _ = all.iter().any(|counts| trial.fits(counts));
        return trial.placements();
    }
    let starts =
        trial.fits(&minimum) || others(&minimum, &wanted).iter().any(|one| trial.fits(one));
    // Nothing at all always "fits" where no group needs anything.
    if starts || minimum.iter().all(|&count| count == 0) {
        in_step(&mut trial, &minimum, &wanted);
    }
    for at in 0..wanted.len() {
        refill(&mut trial, at, &wanted);
    }
    trial.placements()
}

/// Enough to start.
pub(super) fn least(
    ask: &Ask<'_>,
    few: bool,
    attempt: impl FnMut(&[u32]) -> Tried,
) -> Option<Vec<Placement>> {
    let (wanted, mut minimum) = (ask.wanted(), ask.minimum());
    if minimum.iter().all(|&count| count == 0)
        && let Some(first) = minimum.first_mut()
    {
        *first = 1;
    }
    let mut trial = Trial::new(attempt);
    if !trial.fits(&minimum) && minimum != wanted {
        let more = match few && ways(&minimum, &wanted) <= ALL_MAX {
            true => between(&minimum, &wanted),
            false => others(&minimum, &wanted),
        };
        let _ = more.iter().any(|one| trial.fits(one)) || trial.fits(&wanted);
    }
    trial.placements()
}

/// All groups from the minimum towards all in step, by bisection.
fn in_step(trial: &mut Trial<impl FnMut(&[u32]) -> Tried>, minimum: &[u32], wanted: &[u32]) {
    let span = wanted.iter().zip(minimum).map(|(want, min)| want - min).max().unwrap_or(0);
    let (mut low, mut high) = (0u32, span.saturating_sub(1));
    while low < high && !trial.over {
        let middle = low + (high - low).div_ceil(2);
        if trial.fits(&grown(minimum, wanted, middle)) { low = middle } else { high = middle - 1 }
    }
}

/// Raises one group of the best as far as it goes beside the others.
fn refill(trial: &mut Trial<impl FnMut(&[u32]) -> Tried>, at: usize, wanted: &[u32]) {
    let Some((counts, _)) = trial.best.clone() else { return };
    let (Some(&have), Some(&most)) = (counts.get(at), wanted.get(at)) else { return };
    let (mut low, mut high) = (have, most);
    while low < high && !trial.over {
        let middle = low + (high - low).div_ceil(2);
        let with = |(place, &count): (usize, &u32)| if place == at { middle } else { count };
        let targets: Vec<u32> = counts.iter().enumerate().map(with).collect();
        if trial.fits(&targets) { low = middle } else { high = middle - 1 }
    }
}

/// Every group so many over its minimum, as far as it wants.
fn grown(minimum: &[u32], wanted: &[u32], by: u32) -> Vec<u32> {
    minimum.iter().zip(wanted).map(|(&min, &want)| min + (want - min).min(by)).collect()
}

fn ways(minimum: &[u32], wanted: &[u32]) -> u64 {
    let each = minimum.iter().zip(wanted).map(|(min, want)| u64::from(want - min) + 1);
    each.fold(1, u64::saturating_mul)
}

/// Every combination of sizes but the largest, the smallest first by the first group.
fn between(minimum: &[u32], wanted: &[u32]) -> Vec<Vec<u32>> {
    let mut all = vec![minimum.to_vec()];
    for at in 0..wanted.len() {
        let (from, to) = (minimum[at], wanted[at]);
        let widen = |counts: Vec<u32>| {
            (from..=to).map(move |count| {
                let mut counts = counts.clone();
                counts[at] = count;
                counts
            })
        };
        all = all.into_iter().flat_map(widen).collect();
    }
    all.retain(|counts| counts != wanted);
    all
}

/// Sizes to try where the minimum does not fit and there are too many to try all: every mixture of
/// least and most, and some in step.
fn others(minimum: &[u32], wanted: &[u32]) -> Vec<Vec<u32>> {
    let span = wanted.iter().zip(minimum).map(|(want, min)| want - min).max().unwrap_or(0);
    let steps = (1..IN_STEP).map(|step| {
        let by = u64::from(span) * u64::from(step) / u64::from(IN_STEP);
        grown(minimum, wanted, u32::try_from(by).unwrap_or(span))
    });
    let mut list: Vec<Vec<u32>> = steps.collect();
    // Few more than the minimum: enough for one in each domain.
    list.extend([1, 2, 3, 4, 6, 8, 12, 16].map(|by| grown(minimum, wanted, by)));
    if wanted.len() <= MIXED_GROUPS_MAX {
        for mask in 1..(1u32 << wanted.len()) - 1 {
            let each = minimum.iter().zip(wanted).enumerate();
            let pick = |(at, (&min, &want)): (usize, (&u32, &u32))| match mask >> at & 1 {
                1 => want,
                _ => min,
            };
            list.push(each.map(pick).collect());
        }
    }
    list.retain(|counts| counts != wanted && counts != minimum);
    list.dedup();
    list
}
