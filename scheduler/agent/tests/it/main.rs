//! The agent against a server that tests pull the strings of, and against real processes.

mod fake;
mod fleet;
mod process;
mod puppet;
mod serve;
mod session;
