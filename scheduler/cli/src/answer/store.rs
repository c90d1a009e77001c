//! What a stopped server's data holds, as an answer.

use crate::output::Answer;
use crate::output::table::Table;
use crate::output::text::{bytes, grouped};
use raft_store::inspect::Report;
use serde::Serialize;

/// The verdict over a data directory, with everything it rests on.
#[derive(Debug, Serialize)]
pub struct Checked {
    /// Whether there is no fault at all.
    pub clean: bool,
    /// Whether the server may be started; it mends by itself what can be mended.
    pub usable: bool,
    /// What was found.
    #[serde(flatten)]
    pub report: Report,
}

impl From<Report> for Checked {
    fn from(report: Report) -> Self {
        Self { clean: report.is_clean(), usable: report.is_usable(), report }
    }
}

impl Answer for Checked {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let report = &self.report;
        let verdict = match (self.clean, self.usable) {
            (true, _) => "No fault.",
            (false, true) => "Faults that the next start mends by itself.",
            (false, false) => "Faults that need a hand; do not start the server on this data.",
        };
        let mut table = Table::fields().titled(verdict);
        table.field("Cluster", &report.cluster_id);
        table.field("Server", report.server_id.to_string());
        for snapshot in &report.snapshots {
            let rows = grouped(snapshot.rows);
            table.field(
                "Snapshot",
                format!("{} ({rows} rows, {})", snapshot.name, bytes(snapshot.bytes)),
            );
        }
        let copy = &report.copy;
        let usable = if copy.usable { "usable" } else { "not usable, will be rebuilt" };
        table.field("Copy in sled", format!("{usable}, {} rows", grouped(copy.rows)));
        if let Some(replay) = &report.replay {
            let (from, to) = (replay.from_index, replay.to_index);
            table.field(
                "Replayed",
                format!("index {from} to {to}: {} nodes, {} jobs", replay.nodes, replay.jobs),
            );
            table.field("State hash", &replay.state_hash);
            for finding in &replay.findings {
                table.field("Finding", finding);
            }
            if replay.copy_agrees == Some(false) {
                table.field("Finding", "the copy in sled differs from the replayed state");
            }
        }
        for fault in report.log.faults.iter().chain(&report.faults) {
            table.field("Fault", fault.to_string());
        }
        vec![table]
    }
}
