//! Holds: what is kept free for waiting jobs that have a reservation, and for whom it is lifted.
//!
//! A hold is a claim in the view. It is lifted while a job is planned that may use what is held: the
//! reservation's own, one of a higher priority, one that must end before the reservation begins
//! (backfill), or a repair.
//! **Invariant:** between rounds every hold is in the view, but for those whose jobs are being
//! committed; without reservations nothing here costs anything.

use crate::command::{Placement, Plan};
use crate::id::{JobId, NodeId, TenantId};
use crate::job::{JobSpec, Priority, Reason, ReasonCode};
use crate::told::Utc;
use crate::unit::{DurationMs, TimeMs};
use crate::view::View;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

/// Time for which a job that starts now may hold its GPUs before its duration begins: fetching an
/// image of usual size and starting its processes.
pub(super) const BRING_UP: DurationMs = DurationMs(60_000);
/// Jobs remembered that are not ready yet: more start within a minute only where nothing waits.
const STARTING_MAX: usize = 4_096;

/// Who gets a reservation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserve {
    /// A job that has waited for so long; zero = nobody.
    pub after: DurationMs,
    /// At most so many at a time.
    pub most: u32,
}

impl Reserve {
    pub const NOBODY: Self = Self { after: DurationMs::ZERO, most: 0 };
    /// Reservations at a time at most: a bit each in [`Lifted`].
    pub const MOST: u32 = 64;
    /// Reservations at a time where nothing is said.
    pub const MOST_USUAL: u32 = 4;

    /// Whether anybody does.
    pub fn is_on(self) -> bool {
        self.after > DurationMs::ZERO && self.most > 0
    }
}

/// Which holds are lifted, a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Lifted(u64);

impl Lifted {
    pub(super) const NONE: Self = Self(0);
    pub(super) const ALL: Self = Self(u64::MAX);

    pub(super) fn only(place: usize) -> Self {
        Self(u32::try_from(place).ok().and_then(|place| 1u64.checked_shl(place)).unwrap_or(0))
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn has(self, place: usize) -> bool {
        self.0 & Self::only(place).0 != 0
    }
}

/// What a waiting job is promised.
#[derive(Clone, Debug)]
pub(super) struct Reservation {
    pub(super) job: JobId,
    pub(super) tenant: TenantId,
    pub(super) spec: Arc<JobSpec>,
    /// What is held in the view under the number `claim`.
    pub(super) plan: Plan,
    /// Nodes of the plan, rising.
    nodes: Vec<NodeId>,
    pub(super) claim: u64,
    /// By then all that runs on it has ended, by the leader's wall clock.
    pub(super) at: TimeMs,
    /// Growth of capacity that it knows of.
    pub(super) growth: u64,
    /// Something happened to its nodes.
    pub(super) is_doubtful: bool,
    /// A commit for the job is under way.
    pub(super) in_flight: bool,
    is_held: bool,
}

impl Reservation {
    pub(super) fn new(
        job: JobId,
        (tenant, spec): (TenantId, Arc<JobSpec>),
        (plan, at): (Plan, TimeMs),
        claim: u64,
        growth: u64,
    ) -> Self {
        let nodes = nodes_of(&plan);
        let (is_doubtful, in_flight, is_held) = (false, false, false);
        Self { job, tenant, spec, plan, nodes, claim, at, growth, is_doubtful, in_flight, is_held }
    }

    fn gpus(&self) -> u64 {
        let gpus = |one: &Placement| u64::from(one.gpus.len());
        self.plan.placements.iter().map(gpus).sum()
    }

    /// Whether the session of the node that the plan is for is over, or takes nothing now.
    fn has_lost(&self, view: &View, node: NodeId) -> bool {
        if self.nodes.binary_search(&node).is_err() {
            return false;
        }
        let mut on_it = self.plan.placements.iter().filter(|one| one.node == node);
        let slot = view.slot(node.0).filter(|slot| slot.open);
        on_it.any(|one| slot.is_none_or(|slot| slot.epoch != one.node_epoch))
    }
}

/// All reservations of a term.
#[derive(Debug)]
pub(super) struct Holds {
    pub(super) rules: Reserve,
    places: Vec<Option<Reservation>>,
    /// Jobs with a duration that were placed and were not yet seen to be ready.
    starting: BTreeSet<JobId>,
}

impl Holds {
    pub(super) fn new(rules: Reserve) -> Self {
        let most = if rules.is_on() { rules.most.min(Reserve::MOST) } else { 0 };
        let places = (0..most).map(|_| None).collect();
        Self { rules, places, starting: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Places for reservations, taken or not.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Reservation> {
        self.places.iter().flatten()
    }

    pub(super) fn get(&mut self, place: usize) -> Option<&mut Reservation> {
        self.places.get_mut(place)?.as_mut()
    }

    pub(super) fn of(&self, job: JobId) -> Option<&Reservation> {
        self.iter().find(|one| one.job == job)
    }

    fn of_mut(&mut self, job: JobId) -> Option<&mut Reservation> {
        self.places.iter_mut().flatten().find(|one| one.job == job)
    }

    /// A place for a job of the priority: one that nobody has, else that of the lowest and latest
    /// job that it goes before.
    pub(super) fn place_for(&self, priority: Priority) -> Option<usize> {
        let vacant = self.places.iter().position(Option::is_none);
        vacant.or_else(|| self.lowest_below(priority, |_| true))
    }

    /// As [`Holds::place_for`], for a tenant that has as many as it may: of its own ones only.
    pub(super) fn place_of(&self, tenant: &TenantId, priority: Priority) -> Option<usize> {
        self.lowest_below(priority, |held| held.tenant == *tenant)
    }

    /// Of those reservations, the lowest and latest below the priority.
    fn lowest_below(
        &self,
        priority: Priority,
        of_those: impl Fn(&Reservation) -> bool,
    ) -> Option<usize> {
        let rank = |(place, held): (usize, &Option<Reservation>)| {
            let held = held.as_ref().filter(|held| !held.in_flight && of_those(held))?;
            let below = held.spec.priority < priority;
            below.then_some((held.spec.priority, Reverse(held.job), place))
        };
        self.places.iter().enumerate().filter_map(rank).min().map(|(_, _, place)| place)
    }

    /// Gives a place to a reservation; the job that had it has none any more.
    pub(super) fn put(
        &mut self,
        view: &mut View,
        place: usize,
        reservation: Reservation,
    ) -> Option<JobId> {
        let place = self.places.get_mut(place)?;
        let ended = place.replace(reservation)?;
        view.unclaim(ended.claim);
        Some(ended.job)
    }

    /// Ends the reservation of a job, if it has one; whether it had.
    pub(super) fn end(&mut self, view: &mut View, job: JobId) -> bool {
        let place = self.places.iter_mut().find(|one| one.as_ref().is_some_and(|r| r.job == job));
        let ended = place.and_then(Option::take);
        ended.inspect(|ended| view.unclaim(ended.claim)).is_some()
    }

    /// Holds something else from now on, until another time.
    pub(super) fn renew(&mut self, view: &mut View, place: usize, plan: Plan, at: TimeMs) {
        if let Some(Some(reservation)) = self.places.get_mut(place) {
            view.unclaim(reservation.claim);
            reservation.nodes = nodes_of(&plan);
            (reservation.plan, reservation.at, reservation.is_held) = (plan, at, false);
        }
    }

    /// What a job of the priority may use, beside what nobody holds: its own reservation, those of
    /// lower priorities, and those that begin when it has ended.
    pub(super) fn lifted(
        &self,
        own: Option<JobId>,
        priority: Priority,
        end: Option<TimeMs>,
    ) -> Lifted {
        let may = |held: &Reservation| {
            let comes_later = end.is_some_and(|end| end <= held.at);
            Some(held.job) == own || held.spec.priority < priority || comes_later
        };
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, held)| held.as_ref().is_some_and(may))
            .fold(Lifted::NONE, |lifted, (place, _)| lifted.and(Lifted::only(place)))
    }

    /// Makes the view one in which these holds are lifted and all others are not.
    pub(super) fn lift(&mut self, view: &mut View, lifted: Lifted) {
        for (place, held) in self.places.iter_mut().enumerate() {
            let Some(held) = held else { continue };
            let is_held = !held.in_flight && !lifted.has(place);
            if is_held && !held.is_held {
                view.claim(held.claim, &held.spec, &held.plan);
            } else if !is_held && held.is_held {
                view.unclaim(held.claim);
            }
            held.is_held = is_held;
        }
    }

    /// A commit for the job is under way: what it takes is claimed by its batch.
    pub(super) fn sent(&mut self, job: JobId) {
        if let Some(held) = self.of_mut(job) {
            held.in_flight = true;
        }
    }

    /// The commit was refused.
    pub(super) fn was_refused(&mut self, job: JobId) {
        if let Some(held) = self.of_mut(job) {
            (held.in_flight, held.is_doubtful) = (false, true);
        }
    }

    /// All reservations are to be looked at.
    pub(super) fn doubt(&mut self) {
        self.places.iter_mut().flatten().for_each(|held| held.is_doubtful = true);
    }

    /// A job of the priority takes this: reservations of lower ones on those nodes are to be looked
    /// at; whether there are some.
    pub(super) fn doubt_below(&mut self, priority: Priority, plan: &Plan) -> bool {
        let mut any = false;
        let below = |held: &&mut Reservation| held.spec.priority < priority;
        for held in self.places.iter_mut().flatten().filter(below) {
            let takes = |one: &Placement| held.nodes.binary_search(&one.node).is_ok();
            if plan.placements.iter().any(takes) {
                (held.is_doubtful, any) = (true, true);
            }
        }
        any
    }

    /// These nodes have changed; whether a reservation has lost something by it.
    pub(super) fn note_nodes(&mut self, view: &View, nodes: &[NodeId]) -> bool {
        let mut lost = false;
        for held in self.places.iter_mut().flatten() {
            if nodes.iter().any(|&node| held.has_lost(view, node)) {
                (held.is_doubtful, lost) = (true, true);
            }
        }
        lost
    }

    /// Jobs for which all should be free by now.
    pub(super) fn due(&self, clock: TimeMs) -> impl Iterator<Item = JobId> {
        self.iter().filter(move |held| held.at <= clock).map(|held| held.job)
    }

    pub(super) fn note_start(&mut self, job: JobId) {
        if !self.places.is_empty() && self.starting.len() < STARTING_MAX {
            self.starting.insert(job);
        }
    }

    /// Jobs that may not be ready yet; those that `is_starting` says no of are forgotten.
    pub(super) fn starting(&mut self, is_starting: impl FnMut(&JobId) -> bool) {
        self.starting.retain(is_starting);
    }

    /// Says in a reason what reservations have to do with it.
    pub(super) fn tell(&self, reason: Reason, own: Option<JobId>, lifted: Lifted) -> Reason {
        if reason.code != ReasonCode::Busy || self.is_empty() {
            return reason;
        }
        let mut message = reason.message.to_string();
        if let Some(own) = own.and_then(|own| self.of(own)) {
            let _ = write!(message, "; reserved, starts at about {}", Utc(own.at));
        }
        let places = self.places.iter().enumerate().filter(|(place, _)| !lifted.has(*place));
        let others = places.filter_map(|(_, held)| held.as_ref());
        let (jobs, gpus) =
            others.fold((0u32, 0u64), |(jobs, gpus), held| (jobs + 1, gpus + held.gpus()));
        if jobs > 0 {
            let _ = write!(message, "; {gpus} GPUs are held for {jobs} other waiting job(s)");
        }
        Reason::new(reason.code, message)
    }
}

/// When a job that is planned at `clock` has ended for sure; `None` = nobody knows.
pub(super) fn end_of(spec: &JobSpec, clock: TimeMs) -> Option<TimeMs> {
    let ran = spec.duration.map(|duration| clock.after(BRING_UP).after(duration));
    [ran, spec.deadline].into_iter().flatten().min()
}

fn nodes_of(plan: &Plan) -> Vec<NodeId> {
    let mut nodes: Vec<NodeId> = plan.placements.iter().map(|one| one.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}
