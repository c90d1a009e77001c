//! Tables of `bench packing`: means over the seeds.
//!
//! **Invariant:** shows what the rows say and nothing else.

use crate::output::table::Table;
use scheduler_core::plan::Policy;
use simulator::packing::{fill, gangs, steady};
use simulator::trace::openb::Published;
use std::collections::BTreeMap;

/// Rows grouped by a key, in the key's order.
fn by<'a, R, K: Ord>(rows: &'a [R], key: impl Fn(&'a R) -> K) -> BTreeMap<K, Vec<&'a R>> {
    let mut groups: BTreeMap<K, Vec<&R>> = BTreeMap::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups
}

/// Mean over the rows that have the value; `None` if none has.
fn mean<R>(rows: &[&R], of: impl Fn(&R) -> Option<f64>) -> Option<f64> {
    let values: Vec<f64> = rows.iter().filter_map(|row| of(row)).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(String::new, |value| format!("{value:.digits$}"))
}

pub(super) fn fill_table(rows: &[fill::Row], published: &[Published]) -> Table {
    let mut table = Table::new(&[
        "WORKLOAD",
        "POLICY",
        ">SEEDS",
        ">AT 100 %",
        ">THEIRS",
        ">AT 130 %",
        ">THEIRS",
    ]);
    let theirs = |workload: &str, policy: Policy, percent: u64| {
        let found = published.iter().find(|known| {
            known.workload == workload
                && known.policy == policy.name()
                && known.arrived_percent == percent
        });
        shown(found.map(|known| known.allocated_percent), 2)
    };
    for ((workload, policy), rows) in by(rows, |row| (row.workload.as_str(), row.policy)) {
        table.row(vec![
            workload.to_owned(),
            policy.to_string(),
            rows.len().to_string(),
            shown(mean(&rows, |row| row.at(100)), 2),
            theirs(workload, policy, 100),
            shown(mean(&rows, |row| row.at(fill::DEMAND_PERCENT)), 2),
            theirs(workload, policy, 130),
        ]);
    }
    table.note(
        "Mean allocation in per cent of all GPUs when so much has been asked for; THEIRS is what \
         the authors of fgd publish.",
    );
    table
}

pub(super) fn steady_table(rows: &[steady::Row]) -> Table {
    let mut table = Table::new(&[
        "WORKLOAD",
        "LOAD",
        "ARRIVALS",
        "DURATIONS",
        "NO ROOM",
        "POLICY",
        ">ALLOCATED %",
        ">REFUSED %",
        ">OF GPU TIME %",
        ">WAITING %",
        ">FLEET HOURS",
        ">WAIT P50 S",
        ">P95",
        ">P99",
        ">SLOWDOWN",
    ]);
    let word = |value: &dyn std::fmt::Debug| format!("{value:?}").to_lowercase();
    let key = |row: &'_ steady::Row| {
        let load = (row.load * 100.0).round() as u32;
        (row.workload.clone(), load, row.pattern, row.durations, row.service, row.policy)
    };
    for ((workload, load, pattern, durations, service, policy), rows) in by(rows, key) {
        let of = |value: fn(&steady::Row) -> f64, digits| {
            shown(mean(&rows, |row| Some(value(row))), digits)
        };
        table.row(vec![
            workload,
            format!("{load} %"),
            word(&pattern),
            word(&durations),
            word(&service),
            policy.to_string(),
            of(|row| row.allocated_percent, 2),
            of(|row| row.refused_percent, 2),
            of(|row| row.refused_time_percent, 2),
            of(|row| row.waiting_percent, 2),
            of(|row| row.waiting_work_h, 2),
            of(|row| row.wait_p50_s, 0),
            of(|row| row.wait_p95_s, 0),
            of(|row| row.wait_p99_s, 0),
            of(|row| row.bounded_slowdown_mean, 1),
        ]);
    }
    table.note(
        "Allocated GPU time in per cent of the fleet's; refused GPUs, and GPU time, in per \
         cent of what was asked for; waiting GPUs on average in per cent of the fleet's, and their \
         GPU time in hours of the whole fleet; means over the seeds.",
    );
    table
}

pub(super) fn gangs_table(rows: &[gangs::Row]) -> Table {
    let mut table = Table::new(&[
        "WORKLOAD",
        "LOAD",
        "POLICY",
        ">ALLOCATED %",
        ">SINGLES %",
        ">REFUSED %",
        ">GANGS",
        ">ACCEPTED %",
        ">WAIT S",
        ">OF 256+",
        ">ACCEPTED %",
        ">WAIT S",
        ">P95",
    ]);
    let key = |row: &'_ gangs::Row| {
        (row.workload.clone(), (row.singles_load * 100.0).round() as u32, row.policy)
    };
    for ((workload, load, policy), rows) in by(rows, key) {
        let of = |value: fn(&gangs::Row) -> f64, digits| {
            shown(mean(&rows, |row| Some(value(row))), digits)
        };
        // Of gangs that never came there is nothing to say.
        let of_large = |value: fn(&gangs::Row) -> f64, digits| {
            shown(mean(&rows, |row| (row.large_gangs > 0).then(|| value(row))), digits)
        };
        table.row(vec![
            workload,
            format!("{load} %"),
            policy.to_string(),
            of(|row| row.allocated_percent, 2),
            of(|row| row.singles_allocated_percent, 2),
            of(|row| row.singles_refused_percent, 2),
            of(|row| row.gangs as f64, 0),
            of(|row| row.gangs_accepted_percent, 1),
            of(|row| row.gangs_wait_mean_s, 0),
            of(|row| row.large_gangs as f64, 0),
            of_large(|row| row.large_accepted_percent, 1),
            of_large(|row| row.large_wait_mean_s, 0),
            of_large(|row| row.large_wait_p95_s, 0),
        ]);
    }
    table.note(
        "LOAD is that of single jobs, SINGLES and REFUSED theirs too; a gang waits at most six \
         hours; waits are means over those that came.",
    );
    table
}
