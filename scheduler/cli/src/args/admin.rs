//! What operators do to tenants, the quorum and stored data.

use clap::{Subcommand, ValueEnum};
use std::path::PathBuf;

/// `tenants`.
#[derive(Clone, Debug, Subcommand)]
pub enum TenantsCommand {
    /// List tenants.
    List,
    /// Create a tenant, or replace its bounds.
    Put {
        /// Name.
        name: String,
        /// Most GPUs in use; left out = no bound.
        #[arg(long, value_name = "N")]
        gpus_max: Option<u32>,
        /// Most jobs that may wait; left out = 10,000.
        #[arg(long, value_name = "N")]
        pending_jobs_max: Option<u32>,
        /// Highest priority of its jobs, -1000 to 1000; left out = 0.
        #[arg(long, value_name = "N", allow_negative_numbers = true)]
        priority_max: Option<i32>,
    },
    /// Forget a tenant that has no live jobs.
    Remove {
        /// Name.
        name: String,
    },
}

/// `quorum`.
#[derive(Clone, Debug, Subcommand)]
pub enum QuorumCommand {
    /// Show every server: role, term, how far its log and its state are.
    Status {
        /// Also compare hashes of the states; costs a pass over each.
        #[arg(long)]
        hash: bool,
    },
    /// Add a server that follows the log but does not vote yet.
    Add {
        /// Its number, never used before in this cluster.
        id: u64,
        /// host:port for other servers.
        #[arg(long, value_name = "HOST:PORT")]
        peer_address: String,
        /// host:port for clients and agents.
        #[arg(long, value_name = "HOST:PORT")]
        api_address: String,
    },
    /// Let a server vote.
    Promote {
        /// Its number.
        id: u64,
    },
    /// Take a server out; its number may never be used again.
    Remove {
        /// Its number.
        id: u64,
    },
    /// Hand leadership to another voter.
    Transfer {
        /// Its number; left out = the one with the most of the log.
        #[arg(default_value_t = 0, hide_default_value = true)]
        id: u64,
    },
    /// Write a snapshot on one of the servers now.
    Snapshot,
}

/// `store`.
#[derive(Clone, Debug, Subcommand)]
pub enum StoreCommand {
    /// Verify log, snapshots and state, and say what is wrong.
    Check {
        /// Data directory of a stopped server.
        dir: PathBuf,
    },
    /// Print state or log as JSON.
    Dump {
        /// Data directory of a stopped server.
        dir: PathBuf,
        /// What to print.
        #[arg(long, value_enum, default_value_t = DumpPart::State, value_name = "PART")]
        part: DumpPart,
    },
}

/// Part of a store to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DumpPart {
    /// The state as copied to sled.
    State,
    /// The newest snapshot.
    Snapshot,
    /// The log.
    Log,
}
