//! Replays load through the production planner and `State::apply` under virtual time.
//!
//! One event heap, no async, no clock: the same scenario gives the same run, bit for bit. An
//! oracle holds the state against its invariants after every event.
//! **Invariant:** no rule of the scheduler is written here a second time; the world only makes
//! entries, as servers do, and looks at what comes of them.

pub mod cli;
pub mod compare;
pub mod generate;
pub mod grouping;
pub mod heap;
pub mod interrupt;
pub mod metrics;
pub mod observe;
pub mod packing;
pub mod parallel;
pub mod replay;
pub mod report;
pub mod scenario;
pub mod trace;
pub mod transform;
pub mod world;

pub use observe::{EventLog, Observer, Seen};
pub use scenario::{Arrival, Happening, Latency, Scenario, StartModel, Target};
pub use world::{Report, Rules, Violation, run, run_by};
