//! Reservations: the first jobs of the queue that wait for busy capacity are promised some, and nobody
//! but those who go before them may be in the way of it then.
//!
//! A job gets one once it has waited long enough: the planner places it on the fleet as it will be
//! when enough of what runs has ended by its duration, and what that plan takes is held from now on.
//! Other jobs run around it, or on it if they must end before (backfill): EASY of Lifka ("The
//! ANL/IBM SP scheduling system", JSSPP 1995) with several reservations, as compared by Mu'alem and
//! Feitelson (IEEE TPDS 12(6), 2001). Reservations do not count on each other's ends. A job for
//! which not enough is known to end gets none: what runs without a duration may run for ever.
//! **Invariant:** of this term alone, and a promise, never a decision: who starts is decided by plans
//! as ever. While durations are kept, no node is lost and nobody of a higher priority comes, a promised
//! time never moves back.

use super::batch::Batch;
use super::holds::{BRING_UP, Reservation};
use super::look::{self, Waiting};
use super::{Office, Shell, TRIES_TIME_US};
use crate::command::Plan;
use crate::id::{JobId, TenantId};
use crate::job::{JobPhase, Priority, Reason, ReasonCode};
use crate::plan::explain::outlook::{End, Outlook};
use crate::plan::{Budget, Lookahead};
use crate::state::State;
use crate::unit::{DurationMs, TimeMs};

/// Reservations of one tenant at a time: others have their turn, too.
const OF_TENANT_MAX: usize = 2;
/// Waiting jobs looked through for the next to get one: less than a millisecond.
const LOOKS_MAX: usize = 1_024;
/// Steps of one try to place a job on the fleet to come: some 10 ms.
const TRY: Budget = Budget { steps_max: 2_000_000 };
/// Between two looks at reservations; their jobs are tried all the time anyway.
const LOOK_EVERY: DurationMs = DurationMs(30_000);
/// At least so long after one look the next one comes.
const PAUSE_MIN: DurationMs = DurationMs(1_000);
/// Looks take at most one part in so many of the planner's time.
const WORK_PART: u64 = 32;
/// Before that, no time is looked for again for a job for which none was found.
const AGAIN_AFTER: DurationMs = DurationMs(60_000);
/// What has not ended by its time for so long does not keep its promise: expiry takes a tick and a
/// commit.
const LATE: DurationMs = DurationMs(5_000);
/// Replicas of running jobs read in one look at the state: about a millisecond.
const READ_SLICE: usize = 8_192;

/// When reservations are next looked at.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// `None` = when a job has waited in vain.
    due: Option<TimeMs>,
    not_before: TimeMs,
    halted: Option<Halted>,
}

/// A search that took too long; it goes on with longer steps.
#[derive(Debug)]
struct Halted {
    job: JobId,
    /// Too little has ended by then.
    too_early: TimeMs,
    /// Ends that it looks ahead at first.
    step: usize,
}

/// What is known to end, as a tenant sees it.
#[derive(Debug)]
struct Ends {
    tenant: TenantId,
    ends: Vec<End>,
}

impl Looks {
    pub(super) fn next_at(&self) -> Option<TimeMs> {
        self.due.map(|due| due.max(self.not_before))
    }

    pub(super) fn want(&mut self, at: TimeMs) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

impl<T> Office<T> {
    /// Looks after reservations, if it is time.
    pub(super) fn reserve<S: Shell<Ticket = T>>(&mut self, shell: &mut S, batch: &Batch<T>) {
        let now = shell.now();
        if self.looks.next_at().is_none_or(|at| at > now) {
            return;
        }
        let begun_us = shell.work_us();
        self.looks.due = None;
        let is_settled = self.in_flight == 0 && batch.is_empty();
        let mut known = None;
        for place in 0..self.holds.len() {
            self.look_after(shell, place, begun_us, is_settled, &mut known);
        }
        self.reserve_more(shell, begun_us, is_settled, &mut known);
        if !self.holds.is_empty() {
            self.looks.want(now.after(LOOK_EVERY));
        }
        let took_ms = shell.work_us().saturating_sub(begun_us) / 1_000;
        let pause = DurationMs(took_ms.saturating_mul(WORK_PART)).max(PAUSE_MIN);
        self.looks.not_before = now.after(pause);
    }

    /// Sees whether a reservation still stands, or could begin sooner.
    fn look_after<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        place: usize,
        begun_us: u64,
        is_settled: bool,
        known: &mut Option<Ends>,
    ) {
        let (clock, growth) = (shell.clock(), self.backlog.growth());
        let Some(held) = self.holds.get(place).filter(|held| !held.in_flight) else { return };
        let (job, at, plan) = (held.job, held.at, held.plan.clone());
        let is_late = clock > at.after(LATE);
        let has_news = held.is_doubtful || is_late || held.growth != growth;
        (held.is_doubtful, held.growth) = (false, growth);
        let wait = shell.look(|state| look::waiting(state, job));
        let Some(wait) = wait.filter(|wait| wait.is_whole() && wait.over_quota.is_none()) else {
            return self.end_reservation(job);
        };
        if !has_news {
            return;
        }
        let ends = self.ends(shell, &wait.job.tenant, known);
        let lifted = self.holds.lifted(Some(job), wait.job.spec.priority, None);
        self.holds.lift(&mut self.view, lifted);
        let mut ahead = Lookahead::new(&mut self.view, wait.request(), ends, TRY);
        let before = ends.partition_point(|end| end.at < at);
        let until = ends.partition_point(|end| end.at <= at);
        let goes_on = || shell.work_us().saturating_sub(begun_us) < TRIES_TIME_US;
        let found = if before > 0 && ahead.place_after(before).is_some() {
            ahead.first(0, before, 1, goes_on)
        } else if !is_late && ahead.is_free_after(until, &plan.placements) {
            return;
        } else if !is_late && !is_settled {
            // Who is being placed on it may end in time, but is not known to end yet.
            drop(ahead);
            return self.look_again(place, shell.now());
        } else {
            ahead.first(before, ends.len(), 1, goes_on)
        };
        drop(ahead);
        let Ok((count, placements)) = found else {
            self.end_reservation(job);
            return self.backlog.tell_anew(job, shell.now());
        };
        let at = end_at(ends, count).max(clock);
        let plan = Plan { placements };
        self.doubt_below(shell, wait.job.spec.priority, &plan);
        self.holds.renew(&mut self.view, place, plan, at);
        // Others may have what is not held any more.
        self.grew();
    }

    fn look_again(&mut self, place: usize, now: TimeMs) {
        if let Some(held) = self.holds.get(place) {
            held.is_doubtful = true;
        }
        self.looks.want(now.after(PAUSE_MIN));
    }

    fn reserve_more<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        begun_us: u64,
        is_settled: bool,
        known: &mut Option<Ends>,
    ) {
        let highest = self.backlog.highest();
        if highest.is_none_or(|highest| self.holds.place_for(highest).is_none()) {
            return;
        }
        for (job, priority, tenant) in self.candidates(shell) {
            let has_all = self.held_of(&tenant) >= OF_TENANT_MAX;
            let place = match has_all {
                true => self.holds.place_of(&tenant, priority),
                false => self.holds.place_for(priority),
            };
            let Some(place) = place else {
                if has_all {
                    continue;
                }
                return;
            };
            if shell.work_us().saturating_sub(begun_us) >= TRIES_TIME_US {
                return self.looks.want(shell.now());
            }
            self.reserve_for(shell, (job, place), begun_us, is_settled, known);
        }
    }

    /// Reservations of the tenant.
    fn held_of(&self, tenant: &TenantId) -> usize {
        self.holds.iter().filter(|held| held.tenant == *tenant).count()
    }

    /// The first jobs of the queue that wait for busy capacity and have waited long enough. Of a
    /// tenant that has as many reservations as it may, one that goes before one of them.
    fn candidates<S: Shell<Ticket = T>>(&mut self, shell: &S) -> Vec<(JobId, Priority, TenantId)> {
        let (now, clock, after) = (shell.now(), shell.clock(), self.holds.rules.after);
        let (mut found, mut next) = (Vec::new(), None::<TimeMs>);
        let (holds, backlog) = (&self.holds, &self.backlog);
        shell.look(|state| {
            for (job, not_before) in backlog.in_order().take(LOOKS_MAX) {
                let Some(waiting) = state.job(job).filter(|job| is_busy(&job.phase, &job.reason))
                else {
                    continue;
                };
                let waited = clock.since(waiting.submitted_at);
                if waited < after {
                    let at = now.after(after.saturating_sub(waited));
                    next = Some(next.map_or(at, |next| next.min(at)));
                    continue;
                }
                if not_before > now || holds.of(job).is_some() {
                    continue;
                }
                let (tenant, priority) = (&waiting.tenant, waiting.spec.priority);
                let held = holds.iter().filter(|held| held.tenant == *tenant).count();
                let more = found.iter().filter(|(_, _, other)| other == tenant).count();
                let instead = more == 0 && holds.place_of(tenant, priority).is_some();
                if held + more < OF_TENANT_MAX || instead {
                    found.push((job, priority, tenant.clone()));
                }
            }
        });
        next.into_iter().for_each(|next| self.looks.want(next));
        found
    }

    /// Looks for a time and a place for the job, and holds what it finds.
    fn reserve_for<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        (job, place): (JobId, usize),
        begun_us: u64,
        is_settled: bool,
        known: &mut Option<Ends>,
    ) {
        let Some(wait) = shell.look(|state| look::waiting(state, job)) else { return };
        if !wait.is_whole() || self.is_over_quota_with_others(shell, &wait, place) {
            return self.backlog.reserve_later(job, shell.now().after(AGAIN_AFTER));
        }
        let ends = self.ends(shell, &wait.job.tenant, known);
        let lifted = self.holds.lifted(None, wait.job.spec.priority, None);
        self.holds.lift(&mut self.view, lifted);
        let halted = self.looks.halted.take().filter(|halted| halted.job == job);
        let (low, step) = halted.map_or((0, 1), |halted| {
            (ends.partition_point(|end| end.at <= halted.too_early), halted.step)
        });
        let mut ahead = Lookahead::new(&mut self.view, wait.request(), ends, TRY);
        let goes_on = || shell.work_us().saturating_sub(begun_us) < TRIES_TIME_US;
        let found = ahead.first(low, ends.len(), step, goes_on);
        drop(ahead);
        match found {
            Ok((count, placements)) => {
                let at = end_at(ends, count).max(shell.clock());
                if wait.job.spec.start_by().is_some_and(|by| at > by) {
                    return self.backlog.reserve_later(job, shell.now().after(AGAIN_AFTER));
                }
                let whose = (wait.job.tenant.clone(), wait.job.spec.clone());
                let plan = Plan { placements };
                self.doubt_below(shell, wait.job.spec.priority, &plan);
                let (claim, growth) = (self.new_claim(), self.backlog.growth());
                let reservation = Reservation::new(job, whose, (plan, at), claim, growth);
                let ended = self.holds.put(&mut self.view, place, reservation);
                ended.into_iter().chain([job]).for_each(|job| {
                    self.backlog.tell_anew(job, shell.now());
                });
            }
            Err(too_few) if too_few < ends.len() => {
                let (too_early, step) = (end_at(ends, too_few), step.saturating_mul(2));
                self.looks.halted = Some(Halted { job, too_early, step });
                self.looks.want(shell.now());
            }
            Err(_) => {
                let now = shell.now();
                if is_settled {
                    // Something must grow or start first.
                    return self.backlog.reserve_later(job, now.after(AGAIN_AFTER));
                }
                // What is under way counted as never ending.
                self.looks.want(now.after(PAUSE_MIN));
            }
        }
    }

    /// Whether the tenant may not hold this job and those that have a reservation, but for the one
    /// whose place it takes.
    fn is_over_quota_with_others<S: Shell>(
        &mut self,
        shell: &S,
        wait: &Waiting,
        place: usize,
    ) -> bool {
        let gone = self.holds.get(place).map(|held| held.job);
        let own = self.holds.iter().filter(|held| held.tenant == wait.job.tenant);
        let own = own.filter(|held| Some(held.job) != gone);
        let asked = own
            .fold(wait.job.spec.gpu_milli(), |sum, held| sum.saturating_add(held.spec.gpu_milli()));
        shell.look(|state| look::over_quota(state, &wait.job.tenant, asked)).is_some()
    }

    /// What is known to end, the first first, of jobs that are starting as well. Read once in a look
    /// at reservations, unless another tenant asks.
    fn ends<'a, S: Shell<Ticket = T>>(
        &mut self,
        shell: &S,
        tenant: &TenantId,
        known: &'a mut Option<Ends>,
    ) -> &'a [End] {
        let is_known = known.as_ref().is_some_and(|known| known.tenant == *tenant);
        if !is_known {
            *known = Some(Ends { tenant: tenant.clone(), ends: self.read_ends(shell, tenant) });
        }
        known.as_ref().map_or(&[], |known| &known.ends)
    }

    fn read_ends<S: Shell<Ticket = T>>(&mut self, shell: &S, tenant: &TenantId) -> Vec<End> {
        let holds = &mut self.holds;
        let mut outlook = shell.look(|state: &State| {
            let mut outlook = Outlook::begin(state, tenant);
            holds.starting(|&job| {
                let end = state.job(job).and_then(|job| {
                    let starting = !job.phase.is_over() && job.ready_at.is_none();
                    // The state knows when one with a deadline ends.
                    let starting = starting && job.spec.deadline.is_none();
                    let placed = job.placed_at.filter(|_| starting)?;
                    Some(placed.after(BRING_UP).after(job.spec.duration?))
                });
                end.into_iter().for_each(|end| outlook.expect(job, end));
                end.is_some()
            });
            outlook
        });
        let mut next = 0;
        while shell.look(|state| outlook.read_on(state, &mut next, READ_SLICE)) {}
        outlook.ends
    }

    /// Lets the job go without a reservation, if it has one: others may have what was held for it.
    pub(super) fn end_reservation(&mut self, job: JobId) {
        if self.holds.end(&mut self.view, job) {
            self.grew();
        }
    }
}

fn is_busy(phase: &JobPhase, reason: &Reason) -> bool {
    // Who was preempted waits for busy capacity, and is told why it has to.
    let waits = matches!(reason.code, ReasonCode::Busy | ReasonCode::Preempted);
    *phase == JobPhase::Pending && waits
}

/// When so many have ended.
fn end_at(ends: &[End], count: usize) -> TimeMs {
    count.checked_sub(1).and_then(|last| ends.get(last)).map_or(TimeMs::ZERO, |end| end.at)
}
