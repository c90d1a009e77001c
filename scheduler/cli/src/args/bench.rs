//! Flags of the benches that need servers.

use super::odd_servers;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `bench`.
#[derive(Clone, Debug, Subcommand)]
pub enum BenchCommand {
    /// From the request for 10,000 GPUs to all members ready.
    E2e(E2eArgs),
    /// Single-GPU jobs per second.
    Jobs(JobsBenchArgs),
    /// From kill -9 of the leader to the next accepted write.
    Failover(FailoverArgs),
    /// Memory, restart and snapshots with 69,000 nodes.
    Scale(ScaleArgs),
    /// How much of a fleet each packing policy gets to use, on the jobs of a trace.
    Packing(crate::bench::PackingArgs),
    /// How near the planner chooses sites over given RTTs, against exact search.
    Grouping(crate::bench::GroupingArgs),
}

/// Flags of all benches.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// Servers of the quorum: 1, 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = odd_servers, value_name = "N")]
    pub servers: u32,
    /// Write the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Keep the servers' data and logs here; otherwise they are temporary.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// `bench e2e`.
#[derive(Clone, Debug, Args)]
pub struct E2eArgs {
    /// Flags of all benches.
    #[command(flatten)]
    pub bench: BenchArgs,
    /// Shape of the fleet: 1,250 of 1,500 nodes with 8 GPUs, or 10,000 of 10,000 with one.
    #[arg(long, value_enum, default_value_t = FleetShape::Eight)]
    pub shape: FleetShape,
    /// How often to submit, wait and cancel.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// GPUs to ask for.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub gpus: u32,
}

/// Shape of the fleet of `bench e2e`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FleetShape {
    /// Nodes with 8 GPUs, mostly.
    Eight,
    /// Nodes with one GPU.
    Single,
}

/// `bench jobs`.
#[derive(Clone, Debug, Args)]
pub struct JobsBenchArgs {
    /// Flags of all benches.
    #[command(flatten)]
    pub bench: BenchArgs,
    /// Callers at a time, each with one job per call.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4_096))]
    pub callers: u32,
    /// Jobs of a batch call.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub batch: u32,
    /// Batch callers at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub batch_callers: u32,
    /// Jobs of a round, one per call.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub unary_jobs: u32,
    /// Jobs of a round, in batches.
    #[arg(long, default_value_t = 102_400, value_parser = clap::value_parser!(u32).range(1..=2_000_000))]
    pub batch_jobs: u32,
    /// Rounds of each mode.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// GPUs of the fleet: registered nodes with 16 GPUs each, without sessions.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(16..=2_000_000))]
    pub gpus: u32,
}

/// `bench failover`.
#[derive(Clone, Debug, Args)]
pub struct FailoverArgs {
    /// Flags of all benches.
    #[command(flatten)]
    pub bench: BenchArgs,
    /// How often to kill the leader.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rounds: u32,
    /// Callers that submit all the time.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub callers: u32,
}

/// `bench scale`.
#[derive(Clone, Debug, Args)]
pub struct ScaleArgs {
    /// Flags of all benches.
    #[command(flatten)]
    pub bench: BenchArgs,
    /// Nodes to register.
    #[arg(long, default_value_t = 69_000, value_parser = clap::value_parser!(u32).range(10..=200_000))]
    pub nodes: u32,
    /// GPUs of all nodes together.
    #[arg(long, default_value_t = 461_772, value_parser = clap::value_parser!(u32).range(10..=2_000_000))]
    pub gpus: u32,
    /// How often to kill a server and start it again.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub restarts: u32,
}
