//! The state's check of itself, for servers to compare and to raise an alarm.
//!
//! **Invariant:** a finding is reported, never repaired: what broke the state may still be there.

use crate::state::{Finding, Frozen, State};

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
    report(state.index(), state.hash(), state.check())
}

/// The same for a frozen view, on another thread if need be; only the derived index stays unseen.
pub fn audit_frozen(frozen: &Frozen) -> Report {
    report(frozen.index(), frozen.hash(), frozen.check())
}

fn report(index: u64, hash: u128, mut findings: Vec<Finding>) -> Report {
    let count = findings.len();
    findings.truncate(FINDINGS_MAX);
    Report { index, hash, count, findings }
}
