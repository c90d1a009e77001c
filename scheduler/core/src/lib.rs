//! The heart of the scheduler: the fleet's model, the replicated state and the planner.
//!
//! Values in, values out: clock, seed and configuration are arguments.
//! **Invariant:** no I/O, no clock, no threads, no async, no hash maps in anything that reaches
//! state or output order. Reading order is the order of the modules below.

pub mod command;
pub mod event;
pub mod fit;
pub mod id;
pub mod job;
pub mod node;
pub mod told;
pub mod topology;
pub mod unit;
#[deny(
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
pub mod validate;
// None of the three knows anything of the scheduler.
#[deny(clippy::float_arithmetic, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
mod bits;
#[deny(clippy::float_arithmetic, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub mod hash;
#[deny(
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
pub mod table;
// `apply` is total: nothing in it may panic or round.
pub mod duty;
#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod plan;
#[deny(
    clippy::float_arithmetic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]
pub mod state;
pub mod view;
