//! One server of the scheduler: gRPC services, the leader's work, agents' sessions, the wiring of
//! the quorum.
//!
//! [`app`] puts the parts together; a call goes through [`auth`], [`api`] and [`forward`] to
//! [`leader`], which plans and proposes.
//! **Invariant:** decides nothing about jobs and nodes by itself: it converts, proposes, reads and
//! passes on. What is decided is decided by `scheduler_core::state::State::apply`.

pub mod api;
pub mod app;
pub mod applied;
pub mod auth;
mod call;
pub mod clock;
pub mod config;
pub mod convert;
pub mod forward;
pub mod leader;
mod raft;
pub mod session;
pub mod status;
pub mod watch;

pub use app::{Server, StartError};
pub use config::Config;
