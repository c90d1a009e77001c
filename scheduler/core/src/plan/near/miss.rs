//! Miss: how far off a gang was that the bound on the RTT keeps out.
//!
//! **Invariant:** numbers for people, found under the same limits of work as a choice: the bound
//! needed may be a little wide, the largest part a little small, never the other way round.

use super::{Answer, Budget, Choice, Cost, Effort, Question, Steps, diameter, lay_out};

/// Steps for each tighter bound that is tried. What these leave open, as many again hardly ever
/// decide, and somebody waits for the refusal.
const TIGHTEN_STEPS: u64 = 30_000;

/// The smallest bound found under which the need is covered, in microseconds, whatever the
/// question's own bound. `None`: under none.
pub fn bound_needed(question: &Question<'_>, budget: Budget) -> Option<u32> {
    let found = bound_needed_within_steps(question, &mut Steps::new(budget.steps_max));
    found.map(|(bound, _)| bound)
}

/// The same, with sites that cover the need under it.
pub(in crate::plan) fn bound_needed_within_steps(
    question: &Question<'_>,
    steps: &mut Steps,
) -> Option<(u32, Vec<u16>)> {
    let unbound = Question { bound_us: None, ..*question };
    let (problem, first) = lay_out(&unbound, Cost::High, steps);
    let effort = Effort { precision: 128, tighten: TIGHTEN_STEPS, ..Effort::QUICK };
    let best = diameter::least(&problem, first, &effort, steps).ok()?;
    Some((best.cost, problem.sites_of(&best.vertices)))
}

/// The largest part of the need found that fits within the bound: of `parts` equal ones, how many,
/// and where. With the number of members as `parts`, how many members.
pub fn largest(question: &Question<'_>, parts: u32, budget: Budget) -> (u32, Option<Choice>) {
    largest_within_steps(question, parts, &mut Steps::new(budget.steps_max))
}

pub(in crate::plan) fn largest_within_steps(
    question: &Question<'_>,
    parts: u32,
    steps: &mut Steps,
) -> (u32, Option<Choice>) {
    let (mut low, mut high, mut best) = (0u32, parts, None);
    while low < high && !steps.is_spent() {
        let middle = low + (high - low).div_ceil(2);
        let part = |&need: &u64| {
            let part = (u128::from(need) * u128::from(middle)).div_ceil(u128::from(parts.max(1)));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        let need: Vec<u64> = question.need.iter().map(part).collect();
        let smaller = Question { need: &need, ..*question };
        match super::any_within_steps(&smaller, steps) {
            Answer::Chosen(choice) => (low, best) = (middle, Some(choice)),
            Answer::Infeasible | Answer::Aborted => high = middle - 1,
        }
    }
    (low, best)
}
