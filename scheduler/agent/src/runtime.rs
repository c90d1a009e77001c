//! How replicas are brought up and taken down: the seam between the agent and what runs on the
//! machine.
//!
//! **Invariant:** a runtime does what it is told and says what happened; it decides nothing. It
//! says that a replica ended only when its GPUs are free.

pub mod process;
pub mod simulated;

use crate::replica::Assignment;
use agent_core::replica::{AssignmentId, Binding, Exit};
use std::future::Future;
use std::sync::Arc;

/// How quickly a replica must go.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Haste {
    /// It may put its things away first.
    Graceful,
    /// At once: the right to run it is over.
    Now,
}

/// What `start` came to at once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Start {
    /// [`Event::Ready`] or [`Event::Ended`] follows.
    Underway,
    /// Runs already; no `Ready` follows.
    Ready,
    /// Cannot be started; nothing follows.
    Refused(String),
}

/// What `stop` came to at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// [`Event::Ended`] follows.
    Underway,
    /// Gone, its GPUs are free; nothing follows.
    Done,
}

/// What happened to a replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    Ready(AssignmentId),
    /// It is gone and its GPUs are free; always the last word about it.
    Ended {
        id: AssignmentId,
        exit: Exit,
        message: Option<String>,
    },
}

/// A replica of an earlier agent process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Adopted {
    pub binding: Binding,
    /// `None` = still runs; [`Event::Ended`] follows some day.
    pub exit: Option<Exit>,
}

/// Why a runtime cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: String, source: std::io::Error },
    #[error("{path} is damaged: {what}; make sure that nothing of it still runs, then delete it")]
    Damaged { path: String, what: String },
}

/// See the module. Dropping a runtime leaves what it started as it is.
pub trait Runtime: Send + 'static {
    /// Takes up what an earlier agent process left. Called once, before anything else.
    fn adopt(&mut self) -> impl Future<Output = Result<Vec<Adopted>, RuntimeError>> + Send;

    /// Starts a replica whose GPUs are free.
    fn start(&mut self, assignment: &Arc<Assignment>) -> Start;

    /// Stops a replica; may be called again with more haste.
    fn stop(&mut self, id: AssignmentId, haste: Haste) -> Stop;

    /// The replica has ended and the scheduler wants it no more: what is kept of it may go.
    fn forget(&mut self, id: AssignmentId);

    /// What happened next; waits for ever when nothing is under way. May be dropped and called
    /// again.
    fn event(&mut self) -> impl Future<Output = Event> + Send;
}
