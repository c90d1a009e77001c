//! Observers: who watches a run, and the log that tells whether two runs were alike.
//!
//! **Invariant:** what an observer is told is a function of the scenario alone; wall-clock times
//! are marked as such and never enter the event log.

use scheduler_core::command::{Rejection, Stale};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{JobPhase, Reason};
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;
use std::io::Write;

/// Watches a run.
pub trait Observer {
    /// Called after the entries of an event were applied, once for everything worth telling.
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State);

    /// Whether the run should end where it is; asked after every event.
    fn stops(&self) -> bool {
        false
    }

    /// Whether it wants to know how long the planner takes.
    fn is_timed(&self) -> bool {
        false
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen<'a> {
    /// The log knows the job of this arrival now (position in the scenario's list).
    Submitted {
        job: JobId,
        arrival: usize,
    },
    /// The arrival was refused for good.
    Refused {
        arrival: usize,
        why: &'a Rejection,
    },
    /// The planner was asked: did it find a plan, and how long did it take by the wall clock
    /// (`None` unless the observer's run is timed).
    Planned {
        placed: bool,
        took_ns: Option<u64>,
    },
    /// A plan came too late: what it was made for had changed.
    Stale {
        why: Stale,
    },
    /// The job waits for this reason.
    Waiting {
        job: JobId,
        reason: &'a Reason,
    },
    /// So many replicas were bound to nodes.
    Bound {
        job: JobId,
        replicas: u32,
    },
    /// The job is in another phase than before; from `None` when it is new.
    Phase {
        job: JobId,
        from: Option<JobPhase>,
        to: JobPhase,
    },
    /// An agent could not start a replica, or it ended by itself with an error.
    Failed {
        job: JobId,
        rank: Rank,
        node: NodeId,
    },
    /// The node was declared up: registered for the first time or again.
    NodeUp {
        node: NodeId,
    },
    /// The node was declared down.
    NodeDown {
        node: NodeId,
    },
    LeaderLost,
    LeaderFound,
}

/// Watches nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Observer for Nobody {
    fn saw(&mut self, _: TimeMs, _: Seen<'_>, _: &State) {}
}

/// Tells several observers.
#[derive(Default)]
pub struct All<'a>(pub Vec<&'a mut dyn Observer>);

impl Observer for All<'_> {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        for observer in &mut self.0 {
            observer.saw(at, seen, state);
        }
    }

    fn stops(&self) -> bool {
        self.0.iter().any(|observer| observer.stops())
    }

    fn is_timed(&self) -> bool {
        self.0.iter().any(|observer| observer.is_timed())
    }
}

/// Writes a line for everything seen. Two runs of one scenario give the same bytes.
#[derive(Debug)]
pub struct EventLog<W> {
    out: W,
    /// The first failure to write; nothing is written after it.
    failed: Option<std::io::Error>,
}

impl<W: Write> EventLog<W> {
    pub fn new(out: W) -> Self {
        Self { out, failed: None }
    }

    /// What was written to, once all is written.
    pub fn finish(mut self) -> std::io::Result<W> {
        match self.failed {
            Some(error) => Err(error),
            None => {
                self.out.flush()?;
                Ok(self.out)
            }
        }
    }
}

impl<W: Write> Observer for EventLog<W> {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        let seen = match seen {
            Seen::Planned { placed, .. } => Seen::Planned { placed, took_ns: None },
            other => other,
        };
        if self.failed.is_none() {
            let line = writeln!(self.out, "{} {} {seen:?}", at.0, state.index());
            self.failed = line.err();
        }
    }
}
