//! Flags of what keeps running: servers, agents, fleets, a cluster to try, a recorder.

use super::{odd_servers, timeout};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// `dev`.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Servers of the quorum: 1, 3 or 5.
    #[arg(long, default_value_t = 3, value_parser = odd_servers, value_name = "N")]
    pub servers: u32,
    /// Simulated nodes.
    #[arg(long, default_value_t = 1_500, value_parser = clap::value_parser!(u32).range(1..=150_000), value_name = "N")]
    pub nodes: u32,
    /// GPUs of the cluster to deploy.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=800_000), value_name = "N")]
    pub gpus: u32,
    /// GPUs of one worker of the cluster.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64), value_name = "N")]
    pub gpus_per_worker: u32,
    /// Fleet to imitate: global, single, or a file.
    #[arg(long, default_value = "global", value_name = "PROFILE")]
    pub profile: String,
    /// Widest round trip allowed between two members of the cluster; 0ms = any.
    #[arg(long, default_value = "300ms", value_parser = rtt_us, value_name = "TIME")]
    pub max_rtt: u32,
    /// Keep the servers' data here; such a directory can be started again. Otherwise it is temporary.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// End after the table; the exit code says whether the cluster became ready.
    #[arg(long)]
    pub exit: bool,
    /// Write the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Give up when the cluster is not ready after this time.
    #[arg(long, default_value = "90s", value_parser = timeout, value_name = "TIME")]
    pub deadline: Duration,
    /// How the simulated nodes behave.
    #[command(flatten)]
    pub simulated: SimulatedArgs,
}

/// How simulated replicas behave.
#[derive(Clone, Debug, Args)]
pub struct SimulatedArgs {
    /// Time that a simulated replica takes to start: a number of milliseconds, or FROM-TO.
    #[arg(long, default_value = "0", value_parser = start_ms, value_name = "MS")]
    pub start_ms: (u64, u64),
    /// Share of simulated replicas that fail to start, in thousandths.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000), value_name = "N")]
    pub fail: u32,
}

/// `server`.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// Configuration, TOML.
    #[arg(long, value_name = "FILE", required_unless_present = "example_config")]
    pub config: Option<PathBuf>,
    /// Everybody may do everything and listen anywhere; never on a network you do not trust.
    #[arg(long)]
    pub insecure_dev: bool,
    /// Check the configuration and end.
    #[arg(long)]
    pub check_config: bool,
    /// Print a commented configuration and end.
    #[arg(long, exclusive = true)]
    pub example_config: bool,
    /// Where the log goes.
    #[command(flatten)]
    pub log: LogArgs,
    /// Shut down when stdin ends: a parent that dies takes the server with it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// Where the log goes.
#[derive(Clone, Debug, Args)]
pub struct LogArgs {
    /// Form of log lines.
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub log_format: LogFormat,
    /// Write the log to this file rather than to stderr.
    #[arg(long, value_name = "FILE")]
    pub log_file: Option<PathBuf>,
    /// What to log, as in info,scheduler_server=debug.
    #[arg(long, env = "MUSTER_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// `agent`.
#[derive(Clone, Debug, Args)]
pub struct AgentArgs {
    /// Configuration, TOML. --server and --token win over it.
    #[arg(long, value_name = "FILE", required_unless_present = "example_config")]
    pub config: Option<PathBuf>,
    /// Print a commented configuration and end.
    #[arg(long)]
    pub example_config: bool,
    /// Where the agent keeps its identity and its replicas' logs; wins over the file.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Check the configuration and end.
    #[arg(long)]
    pub check_config: bool,
    /// When told to end, stop everything and say good-bye for long; otherwise what runs goes on.
    #[arg(long)]
    pub leave: bool,
    /// Where the log goes.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `fleet`.
#[derive(Clone, Debug, Args)]
pub struct FleetArgs {
    /// Simulated nodes.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=150_000), value_name = "N")]
    pub nodes: u32,
    /// Fleet to imitate: global, single, or a file.
    #[arg(long, default_value = "global", value_name = "PROFILE")]
    pub profile: String,
    /// The simulated machines' secrets come from it: the same seed again is the same machines.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub seed: u64,
    /// Tell the servers the profile's round trips between sites; needs an operator's token.
    #[arg(long)]
    pub set_rtts: bool,
    /// How the simulated nodes behave.
    #[command(flatten)]
    pub simulated: SimulatedArgs,
    /// Where the log goes.
    #[command(flatten)]
    pub log: LogArgs,
    /// End when stdin ends: a parent that dies takes the fleet with it.
    #[arg(long, hide = true)]
    pub stop_with_stdin: bool,
}

/// `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// File to write, lines of JSON; must not exist.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Time between two looks at the jobs; their times are exact whatever it is.
    #[arg(long, default_value = "2s", value_parser = timeout, value_name = "TIME")]
    pub every: Duration,
    /// Time between two looks at the nodes; what a node does twice in between counts once.
    #[arg(long, default_value = "10s", value_parser = timeout, value_name = "TIME")]
    pub nodes_every: Duration,
}

fn rtt_us(text: &str) -> Result<u32, String> {
    manifest::native::microseconds(text)
}

fn start_ms(text: &str) -> Result<(u64, u64), String> {
    let number = |part: &str| {
        part.trim().parse::<u64>().map_err(|_| format!("`{part}` is not a number of milliseconds"))
    };
    let (from, to) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some((from, to)) => (number(from)?, number(to)?),
    };
    if from > to || to > 3_600_000 {
        return Err("must be FROM-TO with FROM <= TO <= 3600000".to_owned());
    }
    Ok((from, to))
}
