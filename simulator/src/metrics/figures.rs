//! Figures: what a run came to, as written to files. Documented, stable, and the same for the same
//! scenario: fields are added, never renamed.
//!
//! Units are part of the names: `_s` seconds, `_percent` per cent, `_gpus` GPUs, `_ms`
//! milliseconds. GPUs count in full, shares as parts of one.
//! **Invariant:** nothing of the wall clock.

use super::bring_up::{BringUp, PHASES};
use super::curve::Curve;
use super::times::Quantiles;
use super::{Metrics, SizeClass, Tally};
use scheduler_core::job::ReasonCode;
use serde::Serialize;
use std::collections::BTreeMap;

/// Milliseconds of a second, and thousandths of a GPU.
const MILLI: f64 = 1_000.0;
/// Millisecond-thousandths of a GPU-hour.
const GPU_HOUR: f64 = 3_600_000.0 * MILLI;

/// A run's figures.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figures {
    /// Virtual time from the first event to the last.
    pub span_s: f64,
    /// GPUs of nodes that were up, on average and at most. Means over time are taken from the first
    /// event to the last arrival; what is called `_max`, and sums, are of the whole run.
    pub fleet_gpus_mean: f64,
    pub fleet_gpus_max: f64,
    pub jobs: Jobs,
    /// GPU time held by jobs, in per cent of that of nodes that were up.
    pub allocated_percent: f64,
    pub allocated_percent_max: f64,
    /// GPU time of jobs that were ready, in per cent likewise.
    pub utilised_percent: f64,
    pub gpu_hours: f64,
    /// Jobs and GPUs not placed yet, over time.
    pub queue_jobs_mean: f64,
    pub queue_jobs_max: u64,
    pub queue_gpus_mean: f64,
    /// Of the GPUs free, the part that the mean job could not use; see `fragments`.
    pub fragmented_percent: f64,
    pub wait_s: Quantiles,
    /// (Waiting + running) / running, the latter at least 10 s, of jobs that ended.
    pub slowdown: Quantiles,
    /// From submission to ready.
    pub ready_s: Quantiles,
    pub phases_s: BTreeMap<&'static str, Quantiles>,
    pub classes: Vec<Class>,
    pub gangs: Gangs,
    /// From losing a member to ready again.
    pub repair_s: Quantiles,
    /// Repairs that had not ended when the job or the run did.
    pub repairs_open: u64,
    pub starts_failed: u64,
    /// Widest usual RTT between two members of a job, of jobs of several replicas.
    pub rtt_ms: Quantiles,
    pub cost_usd: f64,
    /// Jobs that waited for a reason, and job-hours spent so.
    pub reasons: BTreeMap<String, Waiting>,
    /// Times that the planner was asked, and plans that came too late.
    pub decisions: u64,
    pub stale_plans: u64,
    pub nodes_lost: u64,
    pub leaders_lost: u64,
    pub damage: Damage,
    pub curves: Curves,
    /// The largest jobs that came up.
    pub bring_ups: Vec<BringUp>,
}

/// Jobs by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Jobs {
    pub submitted: u64,
    pub refused: u64,
    pub placed: u64,
    pub became_ready: u64,
    pub ended: u64,
    pub failed: u64,
    /// Not placed when the run ended.
    pub waiting: u64,
}

/// One size class.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Class {
    /// GPUs of its jobs.
    pub gpus: &'static str,
    pub jobs: u64,
    pub placed: u64,
    pub asked_gpus: f64,
    /// Jobs still waiting count with what they have waited so far.
    pub wait_s: Quantiles,
    pub slowdown: Quantiles,
    pub ready_s: Quantiles,
    /// Seconds and the share of jobs that waited no longer.
    pub waits: Vec<(f64, f64)>,
}

/// Jobs of several replicas.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Gangs {
    pub jobs: u64,
    pub placed: u64,
    pub became_ready: u64,
    /// Placed, in per cent of those submitted.
    pub accepted_percent: f64,
    pub wait_s: Quantiles,
    pub ready_s: Quantiles,
}

/// Time spent waiting.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Waiting {
    pub jobs: u64,
    pub job_hours: f64,
}

/// What lost nodes and failed members cost.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Damage {
    /// Jobs that were ready and lost a member, and how often that happened to all of them.
    pub jobs_interrupted: u64,
    pub interruptions: u64,
    /// GPU time of nodes that were down, up to where means over time are taken.
    pub down_gpu_hours: f64,
    /// GPU time of whole jobs from losing a member to ready again.
    pub under_repair_gpu_hours: f64,
}

/// Quantities over time: seconds and the mean from there to the next point.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Curves {
    pub fleet_gpus: Vec<(f64, f64)>,
    pub allocated_gpus: Vec<(f64, f64)>,
    pub utilised_gpus: Vec<(f64, f64)>,
    pub queue_jobs: Vec<(f64, f64)>,
    pub queue_gpus: Vec<(f64, f64)>,
    pub fragmented_percent: Vec<(f64, f64)>,
    /// Of nodes that were down.
    pub down_gpus: Vec<(f64, f64)>,
}

impl Metrics {
    /// What the run came to, once it was finished.
    pub fn figures(&self) -> Figures {
        let all_time = &self.over_time;
        let measured = self.measured.as_deref().unwrap_or(all_time);
        let capacity = measured.capacity.area() as f64;
        let percent = |curve: &Curve| {
            if capacity > 0.0 { curve.area() as f64 * 100.0 / capacity } else { 0.0 }
        };
        let all = self.all();
        let began = self.began.unwrap_or(self.now);
        Figures {
            span_s: self.now.0.saturating_sub(began.0) as f64 / MILLI,
            fleet_gpus_mean: measured.capacity.mean() / MILLI,
            fleet_gpus_max: all_time.capacity.peak() as f64 / MILLI,
            jobs: self.jobs(),
            allocated_percent: percent(&measured.allocated),
            allocated_percent_max: all_time.allocated.peak() as f64 * 100.0
                / (all_time.capacity.peak() as f64).max(1.0),
            utilised_percent: percent(&measured.useful),
            gpu_hours: all_time.allocated.area() as f64 / GPU_HOUR,
            queue_jobs_mean: measured.queue_jobs.mean(),
            queue_jobs_max: all_time.queue_jobs.peak(),
            queue_gpus_mean: measured.queue_gpus.mean() / MILLI,
            fragmented_percent: measured.fragments.mean() / MILLI,
            wait_s: all.wait.quantiles(MILLI),
            slowdown: all.slowdown.quantiles(super::SLOWDOWN_UNIT as f64),
            ready_s: self.bring_ups.whole.quantiles(MILLI),
            phases_s: PHASES
                .into_iter()
                .zip(self.bring_ups.phases.iter().map(|times| times.quantiles(MILLI)))
                .collect(),
            classes: self.class_figures(),
            gangs: self.gang_figures(),
            repair_s: self.damage.repair.quantiles(MILLI),
            repairs_open: self.damage.repairs_open,
            starts_failed: self.starts_failed,
            rtt_ms: self.rtt.quantiles(MILLI),
            // An hour's millionths of dollars, times milliseconds.
            cost_usd: all_time.spending.area() as f64 / 3_600_000.0 / 1e6,
            reasons: self.reason_figures(),
            decisions: self.decisions,
            stale_plans: self.stale,
            nodes_lost: self.damage.nodes_lost,
            damage: self.damage_figures(),
            leaders_lost: self.leaders_lost,
            curves: self.curves(),
            bring_ups: self.bring_ups.largest().copied().collect(),
        }
    }

    /// Waits and slowdowns of all classes together.
    fn all(&self) -> Tally {
        let mut all = Tally::default();
        for tally in &self.classes {
            all.wait.merge(&tally.wait);
            all.slowdown.merge(&tally.slowdown);
        }
        all
    }

    fn jobs(&self) -> Jobs {
        let sum = |of: fn(&Tally) -> u64| self.classes.iter().map(of).sum();
        Jobs {
            submitted: sum(|tally| tally.jobs),
            refused: self.refused,
            placed: sum(|tally| tally.placed),
            became_ready: sum(|tally| tally.became_ready),
            ended: sum(|tally| tally.ended),
            failed: sum(|tally| tally.failed),
            waiting: self.over_time.queue_jobs.value(),
        }
    }

    fn class_figures(&self) -> Vec<Class> {
        let told =
            SizeClass::ALL.into_iter().zip(&self.classes).filter(|(_, tally)| tally.jobs > 0);
        told.map(|(class, tally)| Class {
            gpus: class.name(),
            jobs: tally.jobs,
            placed: tally.placed,
            asked_gpus: tally.gpu_milli as f64 / MILLI,
            wait_s: tally.wait.quantiles(MILLI),
            slowdown: tally.slowdown.quantiles(super::SLOWDOWN_UNIT as f64),
            ready_s: tally.ready.quantiles(MILLI),
            waits: tally.wait.distribution(MILLI),
        })
        .collect()
    }

    fn gang_figures(&self) -> Gangs {
        let Tally { jobs, placed, became_ready, ref wait, ref ready, .. } = self.gangs;
        Gangs {
            jobs,
            placed,
            became_ready,
            accepted_percent: if jobs > 0 { placed as f64 * 100.0 / jobs as f64 } else { 0.0 },
            wait_s: wait.quantiles(MILLI),
            ready_s: ready.quantiles(MILLI),
        }
    }

    fn damage_figures(&self) -> Damage {
        let damage = &self.damage;
        Damage {
            jobs_interrupted: damage.jobs_interrupted,
            interruptions: damage.interruptions,
            down_gpu_hours: damage.down_area() as f64 / GPU_HOUR,
            under_repair_gpu_hours: damage.under_repair.area() as f64 / GPU_HOUR,
        }
    }

    fn reason_figures(&self) -> BTreeMap<String, Waiting> {
        let told = self.reasons.iter().map(|(&code, waited)| {
            let job_hours = waited.job_ms as f64 / 3_600_000.0;
            (reason_name(code).to_owned(), Waiting { jobs: waited.jobs, job_hours })
        });
        told.collect()
    }

    fn curves(&self) -> Curves {
        let points = |curve: &Curve, unit: f64| {
            curve.points().map(|point| (point.at.0 as f64 / MILLI, point.mean / unit)).collect()
        };
        Curves {
            fleet_gpus: points(&self.over_time.capacity, MILLI),
            allocated_gpus: points(&self.over_time.allocated, MILLI),
            utilised_gpus: points(&self.over_time.useful, MILLI),
            queue_jobs: points(&self.over_time.queue_jobs, 1.0),
            queue_gpus: points(&self.over_time.queue_gpus, MILLI),
            fragmented_percent: points(&self.over_time.fragments, MILLI),
            down_gpus: points(&self.damage.down, MILLI),
        }
    }
}

fn reason_name(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::None => "none told",
        ReasonCode::NeverFits => "never fits",
        ReasonCode::Busy => "busy",
        ReasonCode::Network => "network",
        ReasonCode::Quota => "quota",
        ReasonCode::Contention => "contention",
        ReasonCode::Cancelled => "cancelled",
        ReasonCode::Finished => "finished",
        ReasonCode::ReplicaFailed => "replica failed",
        ReasonCode::DurationOver => "duration over",
        ReasonCode::NoSuchPool => "no such pool",
        ReasonCode::NotReady => "not ready",
        ReasonCode::Budget => "budget",
        ReasonCode::Begin => "begin",
        ReasonCode::Deadline => "deadline",
        ReasonCode::Preempted => "preempted",
    }
}
