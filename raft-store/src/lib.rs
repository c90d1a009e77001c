//! Durable storage of a server: its Raft log, its snapshots and a copy of the applied state.
//!
//! **Invariant:** nothing is acknowledged before it would survive a power cut, and nothing that
//! fails its checksum is ever served.

mod codec;
mod dir;
pub mod error;
pub mod files;
pub mod inspect;
pub mod log;
mod mirror;
pub mod quorum;
mod raft;
mod snapshot;

pub use error::StoreError;
pub use mirror::{Stats as MirrorStats, panic_is_caught};
pub use quorum::{
    BoxFuture, BoxStream, FRAME_BYTES_MAX, Member, Observer, PeerLag, Proposed, Quorum,
    QuorumError, RECORD_BYTES_MAX, RECORD_ENTRIES_MAX, Role, ServerId, Settings, Status,
    StoreStats, Transport, TransportError,
};
