//! The state's check of itself, for servers to compare and to raise an alarm.
//!
//! **Invariant:** a finding is reported, never repaired: what broke the state may still be there.

use crate::state::{Finding, State};

/// Most findings in a report: one is already too many, and one cause tends to show everywhere.
pub const FINDINGS_MAX: usize = 100;

/// What an audit found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Log index of the state.
    pub index: u64,
    /// Servers with the same index, running the same release, have the same hash.
    pub hash: u128,
    /// Number of findings in all; there must be none.
    pub count: usize,
    /// The first of them, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
}

/// Recounts and hashes the whole state. Takes as long as a restart: not between two entries of a
/// busy server.
pub fn audit(state: &State) -> Report {
    let mut findings = state.check();
    let count = findings.len();
    findings.truncate(FINDINGS_MAX);
    Report { index: state.index(), hash: state.hash(), count, findings }
}
