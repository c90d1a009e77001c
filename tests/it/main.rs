//! Tests that cross crates: the habits of the source tree, and whole clusters on loopback.
//!
//! One binary, so that the workspace links its heavy dependencies once.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod harness;

mod access;
mod bad_input;
mod explain;
mod introspection;
mod manifest;
mod placement;
mod probing;
mod queue;
mod quorum;
mod repairing;
mod reservation;
mod scaling;
mod sessions;
mod smoke;
mod starting;
mod tidy;
mod watching;
