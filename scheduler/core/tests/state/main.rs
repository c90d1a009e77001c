//! The replicated state: scenarios per command, and properties over random histories.
//!
//! Every entry that a `World` applies is followed by the state's check of itself, and every
//! rejection by a comparison of hashes.

mod ending;
mod input;
mod nodes;
mod order;
mod plans;
mod preempt;
mod progress;
mod random;
mod rows;
mod scale;
mod submit;
