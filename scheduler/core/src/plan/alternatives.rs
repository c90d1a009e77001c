//! Alternatives: jobs that would take one of several kinds of GPUs, the most wanted first.
//!
//! What a group cannot have even by itself is told from the states of the fleet alone. Then every
//! group is given the first that is left; only if that does not hold all of them together, the
//! groups are tried one after the other, the earlier ones first.
//! **Invariant:** all of the job or nothing; half of the steps remain for mixing alternatives.

use super::ask::{Ask, GroupAsk};
use super::room::room;
use super::{Placed, Policy, Steps, place_any};
use crate::command::Placement;

/// Attempts to place the whole job: enough for each group once, and some that fail.
const TRIES_MAX: u32 = 96;
/// What holding a kind of node against the alternatives of a group costs in steps.
const KIND_STEPS: u64 = 8;
/// Share of the steps left that one attempt may cost.
const TRY_PART: u64 = 8;

/// Places all of the job with the most wanted single alternative of each group; `None` where no
/// group has alternatives, or none was found that holds all.
pub(super) fn place<'a>(
    ask: &Ask<'a>,
    policy: Option<Policy>,
    steps: &mut Steps,
) -> Option<Vec<Placement>> {
    let choosers: Vec<usize> =
        (0..ask.groups.len()).filter(|&at| ask.groups[at].needs.alternatives() > 1).collect();
    if choosers.is_empty() || steps.is_spent() {
        return None;
    }
    let mut search = Search { whole: ask, narrow: ask.clone(), policy, tries: TRIES_MAX };
    steps.half(|steps| search.run(&choosers, steps))
}

struct Search<'a, 'w> {
    whole: &'w Ask<'a>,
    /// The same with some groups reduced to one alternative.
    narrow: Ask<'a>,
    policy: Option<Policy>,
    tries: u32,
}

impl Search<'_, '_> {
    fn run(&mut self, choosers: &[usize], steps: &mut Steps) -> Option<Vec<Placement>> {
        let mut firsts = Vec::with_capacity(choosers.len());
        for &at in choosers {
            let first = self.next(at, 0, steps);
            if first.is_none() {
                self.widen(at);
            }
            firsts.push(first);
        }
        if firsts.iter().all(Option::is_none) {
            return None;
        }
        if let Some(found) = self.attempt(steps) {
            return Some(found);
        }
        choosers.iter().for_each(|&at| self.widen(at));
        let mut best = None;
        for (&at, first) in choosers.iter().zip(firsts) {
            // With one group alone the first was tried just now.
            let mut from = first.map(|first| first + usize::from(choosers.len() == 1));
            loop {
                let next = from.and_then(|from| self.next(at, from, steps));
                let Some(alternative) = next else {
                    self.widen(at);
                    break;
                };
                if let Some(found) = self.attempt(steps) {
                    best = Some(found);
                    break;
                }
                from = Some(alternative + 1);
            }
        }
        best
    }

    /// Reduces the group to the next of its alternatives that holds it by itself; which that is.
    fn next(&mut self, at: usize, from: usize, steps: &mut Steps) -> Option<usize> {
        let whole = self.whole.groups.get(at)?;
        let known = |alternative: &usize| !whole.needs.is_unknown(*alternative);
        for alternative in (from..whole.needs.alternatives()).filter(known) {
            let group = self.narrow.groups.get_mut(at)?;
            group.set_gpus(whole.needs.only(alternative));
            if steps.is_spent() {
                return None;
            }
            if holds(self.whole, group, steps) {
                return Some(alternative);
            }
        }
        None
    }

    /// Gives the group all of its alternatives again.
    fn widen(&mut self, at: usize) {
        if let Some((group, whole)) = self.narrow.groups.get_mut(at).zip(self.whole.groups.get(at))
        {
            group.set_gpus(whole.needs.clone());
        }
    }

    fn attempt(&mut self, steps: &mut Steps) -> Option<Vec<Placement>> {
        if self.tries == 0 || steps.is_spent() {
            return None;
        }
        self.tries -= 1;
        let most = steps.left().div_ceil(TRY_PART);
        let placed = steps.part(most, |steps| place_any(&self.narrow, self.policy, steps));
        let wanted = self.whole.groups.iter().map(|group| group.ranks.len()).sum::<usize>();
        match placed {
            Placed::All(found) if found.len() == wanted => Some(found),
            _ => None,
        }
    }
}

/// Whether the fleet has room for all replicas of the group, if it were alone and had no rules.
fn holds(ask: &Ask<'_>, group: &GroupAsk, steps: &mut Steps) -> bool {
    let (view, wanted) = (ask.view, u64::from(group.wanted()));
    let least = u8::try_from(group.whole_gpus()).unwrap_or(u8::MAX);
    let mut found = 0;
    for (id, kind) in view.classes().kinds() {
        if steps.is_spent() {
            return false;
        }
        steps.spend(KIND_STEPS + ask.unpaid());
        let Some(fit) = group.kind_fit(id, &kind.gpus) else { continue };
        for (_, state) in view.states().of_kind(id, least) {
            steps.spend(1);
            let room = u64::from(room(group, &kind.gpus, state.free(), fit, group.wanted()));
            if room == 0 {
                continue;
            }
            for (class, nodes) in state.pools() {
                steps.spend(1);
                let class = view.classes().get(class);
                if class.is_some_and(|class| group.admission(class).is_some()) {
                    found += room * nodes.len() as u64;
                }
                if found >= wanted {
                    return true;
                }
            }
        }
    }
    false
}
