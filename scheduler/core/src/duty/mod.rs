//! What the leader does of its own accord, as functions of the state and of what it has seen.
//!
//! The server's leader loop and the simulator call these and propose what comes out. `leases` says
//! whose lease is over (`timing` how long it is), `office` what is planned and proposed (`backlog`
//! which waiting job is next, `bag` what changed), `expiry` whose time is over, `probes` what measured round trips mean, `audit` whether the state is sound.
//! **Invariant:** pure but for the bookkeeping each type owns; time is an argument; losing that
//! bookkeeping with the leadership costs a little time, never correctness.

pub mod audit;
pub mod backlog;
pub mod bag;
pub mod expiry;
pub mod leases;
pub mod office;
pub mod probes;
pub mod timing;
