//! The consensus library and its three sides: the log it writes, the state it drives, the
//! network it speaks over. The only place that instantiates it.
//!
//! **Invariant:** no type of the library leaves this crate; nothing in here knows what a command
//! means, except that the state applies it.

pub(crate) mod config;
pub(crate) mod inbound;
pub(crate) mod live;
pub(crate) mod log_store;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod types;

#[cfg(test)]
mod tests;
