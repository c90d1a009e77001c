//! What the leader does of its own accord, as functions of the state and of what it has seen.
//!
//! The server's leader loop and the simulator call these and propose what comes out.
//! **Invariant:** pure but for the bookkeeping each type owns; time is an argument; losing that
//! bookkeeping with the leadership costs a little time, never correctness.

pub mod audit;
pub mod expiry;
pub mod liveness;
pub mod probes;
pub mod repair;
