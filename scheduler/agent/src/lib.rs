//! The agent: our process on a worker machine. It joins the quorum, keeps a session, starts and
//! stops the replicas that the scheduler wants on its node, and says how they are.
//!
//! What it decides is in the crate `agent-core`: what to start and to stop, until when, when to try
//! again. Reading order: [`replica`] (what is to run), [`identity`] (who may say so), [`runtime`]
//! (how it is done), [`link`] (who says so), [`probe`] (how far others are), [`agent`] (all
//! together), [`fleet`] (thousands of them in one process), [`profile`] (fleets to imitate).
//!
//! **Invariant:** an agent never acts on an older epoch or index than it has seen, never gives one
//! GPU to two replicas, and stops everything when its lease ends.

pub mod agent;
mod board;
pub mod config;
pub mod detect;
pub mod fleet;
pub mod identity;
pub mod link;
pub mod probe;
pub mod profile;
pub mod program;
pub mod replica;
pub mod runtime;
pub mod serve;
