//! One server of the scheduler: gRPC services, the leader's work, agents' sessions, the wiring of
//! the quorum.
//!
//! Reading order is the order of the modules below; [`app`] puts them together.
//! **Invariant:** decides nothing about jobs and nodes by itself: it converts, proposes, reads and
//! passes on. What is decided is decided by `scheduler_core::state::State::apply`.

pub mod config;
pub mod app;
pub mod clock;
pub mod auth;
pub mod status;
pub mod convert;
pub mod api;
mod call;
pub mod forward;
pub mod leader;
pub mod applied;
pub mod watch;
pub mod session;
pub mod raft;

pub use app::{Server, StartError};
pub use config::Config;
