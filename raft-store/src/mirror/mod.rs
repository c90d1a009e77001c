//! The copy of the applied state in sled, so that a restart needs neither the last snapshot nor
//! a long tail of the log.
//!
//! It runs behind: a thread of its own gathers what changed, freezes the state, and writes the
//! changed rows together with the position they belong to in one batch. sled syncs less than it
//! says and can come back damaged or with rows missing (it has been measured to), therefore the
//! copy carries its own checksums, a count and a sum over all rows, and nothing depends on it: a
//! copy that is not perfectly right is moved aside and written anew.
//!
//! In reading order: `pieces` (rows as sled keeps them), `store` (one sled directory), `writer`
//! (the thread).
//!
//! **Invariant:** never a source of truth: the log is purged by what the snapshots hold, whatever
//! is in here; rows and the position they belong to are always taken under one lock.

mod guard;
mod pieces;
mod store;
mod writer;

pub use guard::panic_is_caught;
pub(crate) use store::{Store, open, verify};
pub use writer::Stats;
pub(crate) use writer::{Changes, Mirror, Source, Taken, View};

#[cfg(test)]
mod tests;
