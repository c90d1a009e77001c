//! Bring-ups: how long jobs took from submission to ready, phase by phase.
//!
//! Waiting ends when a plan is committed, dispatching with the first answer of an agent, starting
//! when the job is ready or a member is lost, and replacing, if there is any, when it is ready.
//! **Invariant:** remembers jobs that are on their way, and the [`KEPT`] largest that came up.

use super::times::Times;
use scheduler_core::id::JobId;
use scheduler_core::job::Job;
use scheduler_core::unit::TimeMs;
use serde::Serialize;
use std::collections::BTreeMap;

/// Largest jobs whose bring-up is kept: rows of one chart.
const KEPT: usize = 24;
/// Phases by name, in their order.
pub const PHASES: [&str; 4] = ["waiting", "dispatching", "starting", "replacing"];

/// One job's way up.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct BringUp {
    pub job: u64,
    pub gpus: f64,
    pub submitted_s: f64,
    /// Seconds of each of [`PHASES`].
    pub phases_s: [f64; PHASES.len()],
}

#[derive(Clone, Copy, Debug)]
struct Rising {
    placed: TimeMs,
    answered: Option<TimeMs>,
    setback: Option<TimeMs>,
}

/// All bring-ups of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct BringUps {
    rising: BTreeMap<JobId, Rising>,
    /// By thousandths of GPUs; of equals the earlier ones stay.
    largest: BTreeMap<(u64, std::cmp::Reverse<JobId>), BringUp>,
    /// Milliseconds of each of [`PHASES`], of all jobs that came up.
    pub(crate) phases: [Times; PHASES.len()],
    /// From submission to ready.
    pub(crate) whole: Times,
}

impl BringUps {
    pub(super) fn placed(&mut self, at: TimeMs, job: &Job) {
        self.rising.insert(job.id, Rising { placed: at, answered: None, setback: None });
    }

    pub(super) fn answered(&mut self, at: TimeMs, job: JobId) {
        if let Some(rising) = self.rising.get_mut(&job) {
            rising.answered.get_or_insert(at);
        }
    }

    /// A member was lost on the way.
    pub(super) fn setback(&mut self, at: TimeMs, job: JobId) {
        if let Some(rising) = self.rising.get_mut(&job) {
            rising.answered.get_or_insert(at);
            rising.setback.get_or_insert(at);
        }
    }

    pub(super) fn forget(&mut self, job: JobId) {
        self.rising.remove(&job);
    }

    /// The job is ready. Returns whether that is so for the first time.
    pub(super) fn ready(&mut self, at: TimeMs, job: &Job) -> bool {
        let Some(rising) = self.rising.remove(&job.id) else { return false };
        let answered = rising.answered.unwrap_or(at);
        let started = rising.setback.unwrap_or(at);
        let times = [job.submitted_at, rising.placed, answered, started, at];
        let mut phases_s = [0.0; PHASES.len()];
        for ((phase, pair), seconds) in
            self.phases.iter_mut().zip(times.windows(2)).zip(&mut phases_s)
        {
            let ms = match pair {
                [from, to] => to.0.saturating_sub(from.0),
                _ => 0,
            };
            phase.add(ms);
            *seconds = ms as f64 / 1_000.0;
        }
        self.whole.add(at.0.saturating_sub(job.submitted_at.0));
        let gpu_milli = job.spec.gpu_milli();
        let up = BringUp {
            job: job.id.0,
            gpus: gpu_milli as f64 / 1_000.0,
            submitted_s: job.submitted_at.0 as f64 / 1_000.0,
            phases_s,
        };
        self.largest.insert((gpu_milli, std::cmp::Reverse(job.id)), up);
        if self.largest.len() > KEPT {
            self.largest.pop_first();
        }
        true
    }

    /// The largest jobs that came up, the largest first.
    pub(crate) fn largest(&self) -> impl Iterator<Item = &BringUp> {
        self.largest.values().rev()
    }
}
