//! Ahead: the view as it will be as running work ends, one end after the other, and when and where
//! a request fits then.
//!
//! **Invariant:** the view is put back; what is found was placed by the planner itself.

use super::explain::outlook::End;
use super::{Budget, Request, probe, quote};
use crate::command::Placement;
use crate::job::JobSpec;
use crate::view::{Undo, View};

/// Ends that the view is ahead of the present.
#[derive(Default)]
pub(super) struct Ahead {
    /// How to take back each end.
    undo: Vec<Vec<Undo>>,
}

impl Ahead {
    /// Makes the view what it will be after so many of the ends; says how many replicas left it on
    /// the way.
    pub(super) fn go_to(&mut self, view: &mut View, ends: &[End], count: usize) -> u64 {
        while self.undo.len() > count {
            let Some(undo) = self.undo.pop() else { break };
            undo.into_iter().rev().for_each(|undo| view.undo(undo));
        }
        let mut left = 0;
        while self.undo.len() < count {
            let Some(end) = ends.get(self.undo.len()) else { break };
            left += end.held.len() as u64;
            self.undo.push(end.held.iter().filter_map(|held| view.release(held)).collect());
        }
        left
    }
}

/// The least of the numbers above `low` up to `last` that does, given that whatever comes after one
/// that does, does too: looks `step`, twice as far ... ahead, then bisects. `does` may answer `None`
/// to end the search; the least number known to do is told then.
pub(super) fn least(
    mut low: usize,
    last: usize,
    mut step: usize,
    mut does: impl FnMut(usize) -> Option<bool>,
) -> Option<usize> {
    let mut high = loop {
        if low >= last {
            return None;
        }
        let ahead = low.saturating_add(step).min(last);
        if does(ahead)? {
            break ahead;
        }
        (low, step) = (ahead, step.saturating_mul(2));
    };
    while low + 1 < high {
        let middle = low.midpoint(high);
        match does(middle) {
            Some(true) => high = middle,
            Some(false) => low = middle,
            None => break,
        }
    }
    Some(high)
}

/// When and where a request fits as running work ends; puts the view back when it goes.
pub(crate) struct Lookahead<'a> {
    view: &'a mut View,
    request: Request<'a>,
    ends: &'a [End],
    ahead: Ahead,
    /// Of one try.
    budget: Budget,
}

impl<'a> Lookahead<'a> {
    /// The ends rise in time.
    pub(crate) fn new(
        view: &'a mut View,
        request: Request<'a>,
        ends: &'a [End],
        budget: Budget,
    ) -> Self {
        Self { view, request, ends, ahead: Ahead::default(), budget }
    }

    /// Where the least of the request would go after so many ends.
    pub(crate) fn place_after(&mut self, ends: usize) -> Option<Vec<Placement>> {
        self.ahead.go_to(self.view, self.ends, ends);
        let mut steps = self.budget.steps(self.view);
        probe(self.view, &self.request, &mut steps)
    }

    /// Whether the GPUs of the placements are free after so many ends.
    pub(crate) fn is_free_after(&mut self, ends: usize, placements: &[Placement]) -> bool {
        self.ahead.go_to(self.view, self.ends, ends);
        quote::is_free(self.view, placements)
    }

    /// The least number of ends above `low` and up to `last` after which the request fits, and
    /// where it goes then; looks `step` ends ahead at first. The search ends early when `goes_on`
    /// says so.
    ///
    /// # Errors
    /// The number of ends that are known to be too few.
    pub(crate) fn first(
        &mut self,
        low: usize,
        last: usize,
        step: usize,
        mut goes_on: impl FnMut() -> bool,
    ) -> Result<(usize, Vec<Placement>), usize> {
        let mut found = None;
        let mut too_few = low.max(self.too_few()).min(last);
        let count = least(too_few, last, step, |ends| {
            if !goes_on() {
                return None;
            }
            let placed = self.place_after(ends);
            let does = placed.is_some();
            match placed {
                Some(placements) => found = Some(placements),
                None => too_few = ends,
            }
            Some(does)
        });
        count.zip(found).ok_or(too_few)
    }

    /// Ends that do not give back as many GPUs as the request needs, whichever they are.
    fn too_few(&mut self) -> usize {
        self.ahead.go_to(self.view, self.ends, 0);
        let mut sum = free_gpu_milli(self.view);
        let needed = least_gpu_milli(self.request.spec);
        let enough = self.ends.iter().position(|end| {
            sum = sum.saturating_add(end.gpu_milli);
            sum >= needed
        });
        enough.unwrap_or(self.ends.len())
    }
}

impl Drop for Lookahead<'_> {
    fn drop(&mut self) {
        self.ahead.go_to(self.view, self.ends, 0);
    }
}

/// GPUs that are free on open nodes, in thousandths.
pub(super) fn free_gpu_milli(view: &View) -> u64 {
    let each = |state: &crate::view::NodeState| {
        let shared = state.free().partial().iter().map(|&(_, left)| u64::from(left));
        (u64::from(state.idle()) * 1_000 + shared.sum::<u64>()) * u64::from(state.len())
    };
    view.states().iter().map(each).sum()
}

/// GPUs of the least with which the job starts, in thousandths.
pub(super) fn least_gpu_milli(spec: &JobSpec) -> u64 {
    let groups = spec.groups.iter();
    let least = groups.map(|one| one.shape.gpu_milli().saturating_mul(one.replicas_min.into()));
    least.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::least;

    #[test]
    fn the_least_number_that_does_is_found_and_a_search_may_end_early() {
        for last in 0..40 {
            for low in 0..=last {
                for first in low + 1..=last + 1 {
                    let wanted = (first <= last).then_some(first);
                    assert_eq!(least(low, last, 1 + first % 3, |at| Some(at >= first)), wanted);
                    let mut tries = 0;
                    let found = least(low, last, 1, |at| {
                        tries += 1;
                        (tries < 5).then_some(at >= first)
                    });
                    assert!(found.is_none_or(|found| (first..=last).contains(&found)));
                }
            }
        }
    }
}
