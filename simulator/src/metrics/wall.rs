//! Wall: what a run took by the clock of the machine that ran it.
//!
//! **Invariant:** kept apart from all that follows from the scenario; never part of a comparison.

use super::times::Times;
use serde::Serialize;

/// Time of the planner, as far as the run was timed.
#[derive(Clone, Debug, Default)]
pub struct Wall {
    plan_ns: Times,
    plan_ns_sum: u64,
}

/// What it comes to.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct WallFigures {
    /// From the first event to the last.
    pub run_s: f64,
    /// In the planner.
    pub planner_s: f64,
    pub decisions_per_s: f64,
    pub plan_us_p50: f64,
    pub plan_us_p99: f64,
    pub plan_us_max: f64,
}

impl Wall {
    pub(super) fn planned(&mut self, took_ns: u64) {
        self.plan_ns.add(took_ns);
        self.plan_ns_sum = self.plan_ns_sum.saturating_add(took_ns);
    }

    /// Of a run of `run_s` seconds in which the planner was asked `decisions` times.
    pub fn figures(&self, run_s: f64, decisions: u64) -> WallFigures {
        let us = self.plan_ns.quantiles(1_000.0);
        WallFigures {
            run_s,
            planner_s: self.plan_ns_sum as f64 / 1e9,
            decisions_per_s: if run_s > 0.0 { decisions as f64 / run_s } else { 0.0 },
            plan_us_p50: us.p50,
            plan_us_p99: us.p99,
            plan_us_max: us.max,
        }
    }
}
