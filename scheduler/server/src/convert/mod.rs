//! The only place that knows both vocabularies: proto and core.
//!
//! **Invariant:** what comes in is taken whole or refused with the path of the first bad field;
//! unknown enum values are refused, nothing is guessed. What goes out shows no secrets.

pub mod explain;
pub mod job;
pub mod node;
pub mod session;
pub mod view;
