//! Preempt: which running jobs must give way so that a waiting one fits, of as few as can be found.
//!
//! What is made small, in this order: the highest priority among those who lose something, jobs
//! that go back whole, GPUs taken, and GPU time for which these ran in vain. `candidates` reads who
//! may be disrupted, `freed` is the view as it would be without some of them. Here the least
//! priority is found up to which they would have to give way, then among those some that are
//! enough, in several orders and, where they are few, by trying all sets of them; and who can be
//! spared is. That reprieve, one by one with the planner asked each time, is how Kubernetes picks
//! victims on one node; here it goes over whole gangs on the whole fleet.
//! **Invariant:** proposes only; the view is put back. Without any one of the victims the plan that
//! is proposed could not stand.

mod candidates;
mod freed;
mod reach;
mod search;

pub use candidates::{Asker, Candidate, Candidates};

use super::explain::Taken;
use super::explain::change::OWN_TOLD_MAX;
use super::{Budget, Policy, Request, Steps, find, probe};
use crate::command::{Plan, Victim};
use crate::id::JobId;
use crate::job::{Priority, ReasonCode};
use crate::view::View;
use freed::{Freed, Unit};
use search::{Search, TRY_STEPS};

/// Steps of one search: a tenth of a second. Many thousands of tries on a small fleet, some dozens on
/// the largest.
pub const SEARCH: Budget = Budget { steps_max: 20_000_000 };

/// Whether a job waits for this reason because too little is free where it could go, or of its
/// tenant's quota.
pub fn may_help(why: ReasonCode) -> bool {
    matches!(
        why,
        ReasonCode::Busy
            | ReasonCode::Network
            | ReasonCode::Budget
            | ReasonCode::NotReady
            | ReasonCode::Quota
    )
}

/// What a job takes from others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    pub plan: Plan,
    /// By rising job.
    pub victims: Vec<Victim>,
    pub cost: Cost,
    /// The search ended for want of steps: fewer might do.
    pub is_cut: bool,
}

impl Choice {
    /// What it amounts to, as people are told.
    pub fn taken(&self, candidates: &[Candidate]) -> Taken {
        let is_victim = |one: &&Candidate| {
            self.victims.binary_search_by_key(&one.job, |victim| victim.job).is_ok()
        };
        let own = candidates.iter().filter(|one| one.own).filter(is_victim).map(|one| one.job);
        let mut own: Vec<JobId> = own.collect();
        own.sort_unstable();
        own.truncate(OWN_TOLD_MAX);
        let (all, whole) = (self.victims.len(), self.cost.whole);
        let part = u32::try_from(all).unwrap_or(u32::MAX).saturating_sub(whole);
        Taken { whole, part, gpu_milli: self.cost.gpu_milli, own }
    }
}

/// Looks at the view as it would be if these had given way: `candidates` must have been read after
/// whatever names the victims.
pub fn with_taken<R>(
    view: &mut View,
    candidates: &[Candidate],
    victims: &[Victim],
    look: impl FnOnce(&View) -> R,
) -> R {
    let units = Unit::all(candidates);
    let is_taken = |unit: &Unit<'_>| {
        let job = candidates.get(unit.of).map(|one| one.job);
        let victim = victims.iter().find(|victim| Some(victim.job) == job);
        victim.is_some_and(|victim| {
            let named = unit.spare.is_some_and(|rank| victim.ranks.binary_search(&rank).is_ok());
            named || victim.ranks.is_empty()
        })
    };
    let taken = units.iter().enumerate().filter(|(_, unit)| is_taken(unit)).map(|(at, _)| at);
    let taken = taken.collect();
    let mut freed = Freed::new(view, &units);
    freed.set(&taken);
    look(freed.view())
}

/// What a choice costs others; less is better, and the first field counts most.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cost {
    /// Highest priority among those who lose something.
    pub highest: Priority,
    /// Jobs that go back whole.
    pub whole: u32,
    /// Thousandths of GPUs taken.
    pub gpu_milli: u64,
    /// Thousandths of GPUs times milliseconds for which what is taken has been placed.
    pub lost: u128,
    /// So that the choice is always the same.
    pub jobs: Vec<JobId>,
}

/// Why nobody is to give way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vain {
    /// All candidates together would not be enough.
    NotEnough,
    /// A try ended for want of steps: they might be.
    Undecided,
}

/// Finds who gives way to the request, if it fits when all candidates do.
///
/// The request's bound on GPUs is what the tenant may hold now; where its least exceeds that, the
/// tenant's own jobs are among those who give way. The search ends when the budget does, with the best that it has found by then.
pub fn choose(
    view: &mut View,
    request: &Request<'_>,
    candidates: &[Candidate],
    policy: &Policy,
    budget: Budget,
) -> Result<Choice, Vain> {
    choose_by(view, request, candidates, policy, budget, TRY_STEPS)
}

/// The same, with so many steps for one try.
fn choose_by(
    view: &mut View,
    request: &Request<'_>,
    candidates: &[Candidate],
    policy: &Policy,
    budget: Budget,
    try_steps: u64,
) -> Result<Choice, Vain> {
    let units = Unit::all(candidates);
    let freed = Freed::new(view, &units);
    let steps = Steps::new(budget.steps_max);
    let mut search = Search::new(freed, *request, candidates, steps, try_steps);
    let Some(probed) = search.run() else {
        return Err(if search.is_try_cut() { Vain::Undecided } else { Vain::NotEnough });
    };
    let gpu_milli_max = search.quota_milli();
    let within = Request { gpu_milli_max, ..*request };
    let found = find(search.view(), &within, policy, Budget::default());
    let placements = found.map_or(probed, |plan| plan.placements);
    // Where the search was cut short, or not all could be placed that is asked for, some may be
    // there that this very plan does not need.
    search.owes_for(&placements);
    search.spare_unneeded(&placements);
    let (victims, cost, is_cut) = (search.victims(), search.cost(), search.is_cut());
    Ok(Choice { plan: Plan { placements }, victims, cost, is_cut })
}

#[cfg(test)]
mod tests;
