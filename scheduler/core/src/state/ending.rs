//! Jobs ending by request or by the clock, being forgotten, and why the others wait.
//!
//! **Invariant:** what is over stays over; ending twice changes nothing.

use super::apply::Turn;
use super::index::{end_of_time, is_past_retention};
use super::{ENDED_JOBS_MAX, State};
use crate::command::{Outcome, Rejection};
use crate::event::Event;
use crate::id::JobId;
use crate::job::{Job, JobPhase, Reason, ReasonCode};
use crate::unit::TimeMs;
use crate::validate;

impl State {
    pub(super) fn cancel(
        &mut self,
        turn: &mut Turn<'_>,
        id: JobId,
        reason: &Reason,
    ) -> Result<Outcome, Rejection> {
        validate::reason(reason)?;
        if self.owned_job(turn, id)?.phase.is_over() {
            return Ok(Outcome::Done { changed: false });
        }
        self.end_job(turn, id, JobPhase::Ended, reason.clone());
        Ok(Outcome::Done { changed: true })
    }

    /// Jobs that are not due, or not to be forgotten yet, are skipped: the list may be old.
    pub(super) fn expire(
        &mut self,
        turn: &mut Turn<'_>,
        jobs: &[JobId],
        forget: &[JobId],
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        let mut changed = false;
        for &id in jobs {
            let Some(job) = self.job(id) else { continue };
            if end_of_time(job).is_none_or(|at| at > turn.now) {
                continue;
            }
            let (phase, reason) = expired(job, turn.now);
            self.end_job(turn, id, phase, reason);
            changed = true;
        }
        for &id in forget {
            let surplus = self.index.ended_len() > ENDED_JOBS_MAX;
            let over = self.job(id).filter(|job| job.phase.is_over());
            let Some(ended) = over.and_then(|job| job.ended_at) else { continue };
            if surplus || is_past_retention(ended, turn.now) {
                self.drop_job(id);
                turn.event(Event::JobChanged(id));
                changed = true;
            }
        }
        Ok(Outcome::Done { changed })
    }

    pub(super) fn set_reason(
        &mut self,
        turn: &mut Turn<'_>,
        id: JobId,
        reason: &Reason,
    ) -> Result<Outcome, Rejection> {
        turn.scheduler_only()?;
        validate::reason(reason)?;
        let job = self.known_job(id)?;
        if job.phase.is_over() || job.reason == *reason {
            return Ok(Outcome::Done { changed: false });
        }
        let index = turn.index;
        self.change_job(id, |job| {
            job.reason = reason.clone();
            job.modified_index = index;
        });
        turn.event(Event::JobChanged(id));
        Ok(Outcome::Done { changed: true })
    }
}

/// How a job ends whose time is over.
fn expired(job: &Job, now: TimeMs) -> (JobPhase, Reason) {
    let at_deadline = job.spec.deadline.is_some_and(|deadline| deadline <= now);
    let (phase, code, message) = match (job.phase, job.spec.duration) {
        (JobPhase::Pending, _) => {
            let message =
                format!("could not be started {} ms before its deadline", job.spec.time_min().0);
            (JobPhase::Failed, ReasonCode::Deadline, message)
        }
        (_, Some(duration)) if !at_deadline => {
            let message = format!("ran for its {} ms", duration.0);
            (JobPhase::Expired, ReasonCode::DurationOver, message)
        }
        _ => (JobPhase::Expired, ReasonCode::Deadline, "its deadline has come".to_owned()),
    };
    (phase, Reason { code, message: message.into() })
}
