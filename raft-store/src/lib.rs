//! Durable storage of a server: its Raft log, its snapshots and a copy of the applied state.
//!
//! **Invariant:** nothing is acknowledged before it would survive a power cut, and nothing that
//! fails its checksum is ever served.

pub mod error;
pub mod files;
pub mod log;
