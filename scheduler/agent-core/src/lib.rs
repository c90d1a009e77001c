//! What an agent decides: which replicas to start and stop, until when it may run them, how long it
//! waits before it tries a server again.
//!
//! The agent on a machine and the machines of the simulator follow the same rules, these. Reading
//! order: [`replica`] (what a node holds), [`holdings`] (all of it), [`reconcile`] (what to do
//! about what is wanted), [`lease`] (until when), [`backoff`] (when to try again).
//!
//! **Invariant:** values in, values out: no I/O, no clock, no threads, nothing but `std`; every
//! time and every seed is an argument.

pub mod backoff;
pub mod holdings;
pub mod lease;
pub mod reconcile;
pub mod replica;
