//! Replays load through the production planner and `State::apply` under virtual time.
//!
//! One event heap, no async, no clock: the same scenario gives the same run, bit for bit. An
//! oracle holds the state against its invariants after every event.
//! **Invariant:** no rule of the scheduler is written here a second time; the world only makes
//! entries, as servers do, and looks at what comes of them.

pub mod grouping;
pub mod heap;
pub mod packing;
pub mod scenario;
pub mod trace;
pub mod world;

pub use scenario::{Arrival, Fault, Scenario};
pub use world::{Report, Violation, run};
