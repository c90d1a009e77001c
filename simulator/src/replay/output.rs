//! What a sweep of replays is written as: one JSON document, or rows of CSV. Both are stable:
//! fields and columns are added at the end, never renamed.
//!
//! The document has `format` (1), `command`, `version`, `complete` (false when it was stopped), `trace`,
//! `nodes`, and where they were given `faults`, `spot`, `prices`, `rtt`, `reserve_after_s` and
//! `overestimate`, and `runs`; a run has its case (`policy`, `seed`, `load`), `events`, `entries`,
//! `state_hash`, `figures` (see [`crate::metrics::Figures`]) and `wall`, the only part that two
//! runs of one command may differ in. CSV has one row for every run and size class, and one for
//! all jobs of the run, whose class is `all`.
//! **Invariant:** writes what the runs say and nothing else.

use super::Run;
use crate::metrics::times::Quantiles;
use serde::Serialize;
use std::fmt::Write;

/// Number of the document's form.
const FORMAT: u32 = 1;

/// How every document of runs begins.
#[derive(Clone, Debug, Serialize)]
pub struct Head<'a> {
    pub format: u32,
    pub command: &'a str,
    pub version: &'static str,
    /// Whether all cases were run.
    pub complete: bool,
    /// What was replayed, where something was.
    #[serde(flatten)]
    pub replayed: Option<Replayed>,
}

/// What was replayed, as the command line told it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Replayed {
    pub trace: String,
    pub nodes: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spot: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prices: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve_after_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overestimate: Option<f64>,
}

impl<'a> Head<'a> {
    pub fn new(command: &'a str, complete: bool, replayed: Option<Replayed>) -> Self {
        Self { format: FORMAT, command, version: env!("CARGO_PKG_VERSION"), complete, replayed }
    }
}

/// A document: its head, and fields of the body after it.
#[derive(Clone, Debug, Serialize)]
pub struct Document<'a, B> {
    #[serde(flatten)]
    pub head: Head<'a>,
    #[serde(flatten)]
    pub body: B,
}

/// The body of a document that has all runs in it.
#[derive(Clone, Debug, Serialize)]
pub struct Runs<'a, R> {
    pub runs: &'a [R],
}

/// Columns of the CSV.
pub const COLUMNS: &str = "policy,seed,load,gpus,jobs,placed,wait_p50_s,wait_p95_s,wait_p99_s,\
    slowdown_p50,slowdown_p95,slowdown_p99,ready_p50_s,ready_p95_s,ready_p99_s,\
    allocated_percent,utilised_percent,fragmented_percent,queue_jobs_mean,gangs_accepted_percent,\
    repair_p50_s,rtt_p50_ms,cost_usd,state_hash,nodes_lost,jobs_interrupted,\
    under_repair_gpu_hours";

/// All runs as CSV, with a header.
pub fn csv(runs: &[Run]) -> String {
    let mut text = format!("{COLUMNS}\n");
    for run in runs {
        let (case, figures) = (run.case, &run.figures);
        let head = format!("{},{},{}", case.policy.name(), case.seed, case.load);
        let Quantiles { p50: repair, .. } = figures.repair_s;
        let _ = writeln!(
            text,
            "{head},all,{},{},{},{},{},{:.3},{:.3},{:.3},{:.3},{:.3},{},{:.3},{:.2},{},{},{},{:.3}",
            figures.jobs.submitted,
            figures.jobs.placed,
            three(figures.wait_s),
            three(figures.slowdown),
            three(figures.ready_s),
            figures.allocated_percent,
            figures.utilised_percent,
            figures.fragmented_percent,
            figures.queue_jobs_mean,
            figures.gangs.accepted_percent,
            repair,
            figures.rtt_ms.p50,
            figures.cost_usd,
            run.state_hash,
            figures.nodes_lost,
            figures.damage.jobs_interrupted,
            figures.damage.under_repair_gpu_hours
        );
        for class in &figures.classes {
            let _ = writeln!(
                text,
                "{head},{},{},{},{},{},{},,,,,,,,,{},,,",
                class.gpus,
                class.jobs,
                class.placed,
                three(class.wait_s),
                three(class.slowdown),
                three(class.ready_s),
                run.state_hash
            );
        }
    }
    text
}

fn three(told: Quantiles) -> String {
    format!("{},{},{}", told.p50, told.p95, told.p99)
}
