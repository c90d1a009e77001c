//! Jobs whose time is over, and ended ones that need no longer be remembered.
//!
//! **Invariant:** only asks; `apply` decides by its own time.

use crate::command::Command;
use crate::state::State;
use crate::unit::TimeMs;

/// Most jobs of each kind in one entry: releasing a thousand big ones may take a few ms.
pub const JOBS_PER_ENTRY_MAX: usize = 1_024;

/// The next `Expire` to propose at `now`, if anything is due.
pub fn next(state: &State, now: TimeMs) -> Option<Command> {
    let (jobs, forget) = state.due(now, JOBS_PER_ENTRY_MAX);
    (!jobs.is_empty() || !forget.is_empty()).then_some(Command::Expire { jobs, forget })
}
