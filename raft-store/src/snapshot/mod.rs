//! Snapshots: the whole state at one log position in one checksummed file.
//!
//! A file is written beside its final name, synced, renamed, and the directory synced; so what
//! bears a final name is complete. The two newest are kept: should the newest turn out damaged,
//! the one before it and the log (which is kept from there on) still make the state.
//!
//! In reading order: `file` (bytes of one snapshot), `store` (the directory of them).
//!
//! **Invariant:** a snapshot is given out only after it was verified whole or written by this
//! process; a damaged one is moved aside, never deleted, never used.

mod file;
mod store;

pub(crate) use file::SnapshotFile;
pub(crate) use store::{NAME_PREFIX, Store};

#[cfg(test)]
mod tests;
