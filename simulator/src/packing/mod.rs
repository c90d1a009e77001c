//! Packing experiments: how much of a fleet's GPUs each policy gets to use, by the production
//! planner on a trace's jobs.
//!
//! `fill` is the published experiment (nothing ever leaves), `steady` has arrivals and departures,
//! `gangs` mixes single jobs with large gangs.
//! **Invariant:** every choice of a node is made by `plan` on a [`View`](scheduler_core::view::View);
//! a run depends on its inputs and seed alone, never on threads or time.

pub mod fill;
mod fleet;
pub mod gangs;
mod load;
mod run;
pub mod steady;

pub use fleet::{Bed, BedError};
pub use load::{Durations, Pattern};

use scheduler_core::plan::Policy;
use serde::{Serialize, Serializer};

/// Sizes by which demand is told apart: GPUs of a job.
pub const CLASSES: [&str; 5] = ["share", "1", "2-4", "8", "more"];

/// Class of a job that asks for this many thousandths of GPUs; `None` for a CPU job.
pub fn class_of(gpu_milli: u64) -> Option<usize> {
    match gpu_milli {
        0 => None,
        1..1_000 => Some(0),
        1_000 => Some(1),
        1_001..=4_000 => Some(2),
        4_001..=8_000 => Some(3),
        _ => Some(4),
    }
}

fn by_name<S: Serializer>(policy: &Policy, serializer: S) -> Result<S::Ok, S::Error> {
    policy.name().serialize(serializer)
}
