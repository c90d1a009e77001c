//! Preemption: a waiting job that asks for it takes what running jobs of lower priorities let go.
//!
//! Tried when a plan was looked for and capacity is busy, or when the tenant's quota is taken. Who
//! gives way is told in the same entry in which the job is placed; what they hold stays taken in the
//! view until the state shows that it is free, and is promised to that plan alone. As priorities fall from job to job, whoever is sent
//! back may send others back in turn, but never one who sent it.
//! **Invariant:** nobody is to give way twice at a time; searches take one part in
//! [`WORK_PART`] of the planner's time at most.

use super::batch::Batch;
use super::holds::Lifted;
use super::hopeless::Kind;
use super::look::Waiting;
use super::offers::Taking;
use super::{Office, Shell, Submission};
use crate::command::Victim;
use crate::id::{JobId, TenantId};
use crate::job::{JobPhase, PreemptionPolicy, Priority, Reason, ReasonCode};
use crate::plan::preempt::{
    Asker, Candidate, Candidates, SEARCH, Vain, choose, may_help, with_taken,
};
use crate::plan::quote;
use crate::unit::{DurationMs, TimeMs};
use std::collections::BTreeSet;

/// Searches take at most one part in so many of the planner's time: others must not wait for long.
const WORK_PART: u64 = 8;
/// Replicas of running jobs read in one look at the state: about a millisecond.
const READ_SLICE: usize = 8_192;
/// Kinds of jobs remembered for which all that could give way is not enough.
const IN_VAIN_MAX: usize = 1_024;

/// What came of a try.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Preempted {
    /// It is in the batch.
    Sent,
    /// Not before this time.
    Later(TimeMs),
    No,
}

/// What was searched for, and by whom and how much its quota would be exceeded, where that is in
/// the way.
type Asked = (Kind, Lifted, Priority, Option<(TenantId, u64)>);

/// What is known of preemption between rounds.
#[derive(Debug, Default)]
pub(super) struct Preempting {
    /// Jobs that are to give way by an entry that is under way.
    pub(super) giving: BTreeSet<JobId>,
    /// For whom all that could give way was not enough since capacity last grew.
    in_vain: BTreeSet<Asked>,
    not_before: TimeMs,
}

impl Preempting {
    /// These are to give way by an entry that is sent now.
    pub(super) fn give(&mut self, victims: &[Victim]) {
        self.giving.extend(victims.iter().map(|victim| victim.job));
    }

    /// An entry by which these were to give way is applied or lost.
    pub(super) fn came_back(&mut self, victims: &[JobId]) {
        victims.iter().for_each(|victim| {
            self.giving.remove(victim);
        });
    }

    pub(super) fn grew(&mut self) {
        self.in_vain.clear();
    }
}

impl<T> Office<T> {
    /// Has others give way to a waiting job that does not fit for this reason, if that helps.
    pub(super) fn preempt<S: Shell<Ticket = T>>(
        &mut self,
        shell: &mut S,
        wait: &Waiting,
        why: &Reason,
        batch: &mut Batch<T>,
    ) -> Preempted {
        let spec = &wait.job.spec;
        let asks = spec.preemption.policy == PreemptionPolicy::LowerPriority;
        if !asks || wait.job.phase != JobPhase::Pending || !may_help(why.code) {
            return Preempted::No;
        }
        let lifted = self.lift_for_waiting(shell, wait);
        let request = wait.request();
        let over_quota = request.least_gpu_milli().saturating_sub(request.gpu_milli_max);
        // What is in vain for one who is over its quota need not be for others of its kind.
        let quota = (over_quota > 0).then(|| (wait.job.tenant.clone(), over_quota));
        let kind = self.hopeless.kind(spec).map(|kind| (kind, lifted, spec.priority, quota));
        if kind.as_ref().is_some_and(|kind| self.preempting.in_vain.contains(kind)) {
            return Preempted::No;
        }
        let now = shell.now();
        if now < self.preempting.not_before {
            return Preempted::Later(self.preempting.not_before);
        }
        let begun_us = shell.work_us();
        let candidates = self.could_give_way(shell, wait);
        let policy = self.policy;
        let found = choose(&mut self.view, &request, &candidates, &policy, SEARCH);
        let took_ms = shell.work_us().saturating_sub(begun_us) / 1_000;
        self.preempting.not_before = now.after(DurationMs(took_ms.saturating_mul(WORK_PART)));
        let found = match found {
            Ok(found) => found,
            Err(why) => {
                // Who gives way just now is no candidate, and may leave enough in the end.
                let is_certain = why == Vain::NotEnough && self.preempting.giving.is_empty();
                if is_certain && self.preempting.in_vain.len() < IN_VAIN_MAX {
                    self.preempting.in_vain.extend(kind);
                }
                return Preempted::No;
            }
        };
        self.claim(shell, batch, spec, &found.plan);
        self.backlog.sent(wait.job.id);
        self.holds.sent(wait.job.id);
        self.preempting.give(&found.victims);
        batch.preempt(wait.job.id, found.plan, found.victims, shell.clock());
        Preempted::Sent
    }

    /// Who could give way to the job.
    fn could_give_way<S: Shell<Ticket = T>>(&self, shell: &S, wait: &Waiting) -> Vec<Candidate> {
        let asker = Asker::of(&wait.job.tenant, &wait.job.spec);
        let giving = &self.preempting.giving;
        let all = shell.look(|state| Candidates::begin(state, asker.priority, giving));
        read(shell, all, asker)
    }

    /// Whether all that a plan is made of that its caller was told of is free, or held by those who
    /// would give way.
    pub(super) fn is_to_be_had<S: Shell<Ticket = T>>(
        &mut self,
        shell: &S,
        call: &Submission,
        meant: &Taking,
    ) -> bool {
        let (placements, victims) = (&meant.plan.placements, &meant.victims);
        if victims.is_empty() {
            return quote::is_free(&self.view, placements);
        }
        let mut jobs = victims.iter().map(|victim| victim.job);
        if jobs.clone().any(|job| self.preempting.giving.contains(&job)) {
            return false;
        }
        let all = Candidates::named(&mut jobs);
        let held = read(shell, all, Asker::of(&call.tenant, &call.spec));
        with_taken(&mut self.view, &held, victims, |view| quote::is_free(view, placements))
    }
}

/// Reads what candidates hold, in slices.
fn read<S: Shell>(shell: &S, mut all: Candidates, asker: Asker<'_>) -> Vec<Candidate> {
    let now = shell.clock();
    while shell.look(|state| all.read_on(state, asker, now, READ_SLICE)) {}
    all.found
}

/// The reason to tell a job that waits for busy capacity or for its quota: that it was preempted
/// stays told.
pub(super) fn told_still(before: &Reason, reason: Reason) -> Reason {
    let is_usual = matches!(reason.code, ReasonCode::Busy | ReasonCode::Quota);
    if before.code != ReasonCode::Preempted || !is_usual {
        return reason;
    }
    let first = before.message.split(';').next().unwrap_or_default();
    Reason::new(ReasonCode::Preempted, format!("{first}; {}", reason.message))
}
