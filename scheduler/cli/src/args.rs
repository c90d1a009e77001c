//! The command line: every subcommand and flag, with its help.
//!
//! **Invariant:** nothing happens here; values are only parsed and bounded.

use crate::exit::EXIT_CODES;
use crate::job_file;
use crate::output::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Where a server is expected when nobody says otherwise.
pub const DEFAULT_SERVER: &str = "http://127.0.0.1:7700";

/// Distributed GPU scheduler: a quorum of servers, agents on nodes, and the commands to use them.
#[derive(Debug, Parser)]
#[command(name = "muster", version, after_help = EXIT_CODES, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    /// How to reach the servers and how to print.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Servers and output, for every command")]
pub struct Global {
    /// Servers, as http://HOST:PORT; may be repeated or a list with commas.
    #[arg(long, global = true, env = "MUSTER_SERVER", value_delimiter = ',', default_value = DEFAULT_SERVER, value_name = "URL")]
    pub server: Vec<String>,
    /// Token to show to the servers.
    #[arg(long, global = true, env = "MUSTER_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Tenant to act for; operators only.
    #[arg(long, global = true, env = "MUSTER_TENANT", value_name = "NAME")]
    pub tenant: Option<String>,
    /// How to print answers.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    /// Time for a call, repeats included: 500ms, 10s, 2m.
    #[arg(long, global = true, default_value = "10s", value_parser = timeout, value_name = "TIME")]
    pub timeout: Duration,
    /// No colour and no moving bars; NO_COLOR does the same.
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start three servers and a simulated fleet on this machine, deploy a cluster of 10,000 GPUs, keep serving.
    Dev(DevArgs),
    /// Run one server of a quorum.
    Server(ServerArgs),
    /// Run the agent of this machine.
    Agent(AgentArgs),
    /// Run many simulated agents in one process.
    Fleet(FleetArgs),
    /// Submit a job: a native job file, or a manifest of Ray, KubeRay, Kubernetes, Kueue, KAI or YuniKorn.
    #[command(after_long_help = job_file::HELP)]
    Submit(SubmitArgs),
    /// Say where a job would go, or why it would wait; changes nothing.
    #[command(after_long_help = job_file::HELP)]
    Plan(PlanArgs),
    /// Say why a job waits, or would wait, and what would make it fit.
    #[command(after_long_help = job_file::HELP)]
    Explain(ExplainArgs),
    /// List jobs.
    Jobs(JobsArgs),
    /// Show one job and its replicas.
    Job(JobArgs),
    /// Follow a job until it is over; Ctrl-C stops following, not the job.
    Watch(WatchArgs),
    /// Ask for another number of replicas of a job's group; what runs and stays is not touched.
    Scale(ScaleJobArgs),
    /// End a job.
    Cancel(JobId),
    /// List nodes.
    Nodes(NodesArgs),
    /// Show one node and what runs there.
    Node(NodeArgs),
    /// Keep new work from a node and move away what is there.
    Drain(NodeId),
    /// Keep new work from a node.
    Cordon(NodeId),
    /// Let a node take new work again.
    Uncordon(NodeId),
    /// Forget a node.
    Remove(RemoveArgs),
    /// Show the fleet's GPUs by model.
    Gpus(ReadArgs),
    /// List, create, change and forget tenants.
    #[command(subcommand)]
    Tenants(TenantsCommand),
    /// Look at the quorum and change it.
    #[command(subcommand)]
    Quorum(QuorumCommand),
    /// Look into the data of a stopped server.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Write jobs, nodes and what befalls them to a file as they happen, until Ctrl-C, for `muster sim`.
    Record(RecordArgs),
    /// Replay load through the planner under virtual time.
    #[command(subcommand)]
    Sim(Box<simulator::cli::Verb>),
    /// Measure.
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Show the versions of client and servers.
    Version,
    /// Print completions for a shell.
    Completions(CompletionsArgs),
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

/// `submit`.
#[derive(Clone, Debug, Args)]
pub struct SubmitArgs {
    /// Manifest of any kind in YAML or JSON; - for stdin.
    #[arg(short, long, value_name = "FILE")]
    pub file: String,
    /// Makes a repeat safe: the same id places at most one job. Made up when left out.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
    /// Follow the job until it is over.
    #[arg(long)]
    pub watch: bool,
    /// Apply exactly the plan that `plan` showed at this index, or nothing.
    #[arg(long, value_name = "INDEX", value_parser = clap::value_parser!(u64).range(1..))]
    pub check_index: Option<u64>,
    /// Digest of that plan, as `plan` showed it; needed when another server leads meanwhile.
    #[arg(long, value_name = "HEX", requires = "check_index")]
    pub plan_digest: Option<String>,
}

/// `explain`.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ExplainArgs {
    /// Number of a job that was submitted.
    #[arg(value_name = "ID")]
    pub id: Option<u64>,
    /// Job file in YAML or JSON of a job that was not; - for stdin.
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
}

/// `plan`.
#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Manifest of any kind in YAML or JSON; - for stdin.
    #[arg(short, long, value_name = "FILE")]
    pub file: String,
}

/// Flags of commands that only read.
#[derive(Clone, Copy, Debug, Args)]
pub struct ReadArgs {
    /// Take what the called server has, even if it lags behind or has lost the quorum.
    #[arg(long)]
    pub stale: bool,
}

/// `jobs`.
#[derive(Clone, Debug, Args)]
pub struct JobsArgs {
    /// Also jobs that are over.
    #[arg(long)]
    pub all: bool,
    /// At most this many.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub limit: u32,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Number of a job.
#[derive(Clone, Copy, Debug, Args)]
pub struct JobId {
    /// Number of the job.
    #[arg(value_name = "ID")]
    pub id: u64,
}

/// `job`.
#[derive(Clone, Copy, Debug, Args)]
pub struct JobArgs {
    /// Number of the job.
    #[arg(value_name = "ID")]
    pub id: u64,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `scale`.
#[derive(Clone, Debug, Args)]
pub struct ScaleJobArgs {
    /// Number of the job.
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Group, and how many replicas it is to have: its min_replicas to its max_replicas.
    #[arg(value_name = "GROUP=N", value_parser = group_replicas)]
    pub to: GroupReplicas,
    /// Only if the group asks for exactly so many now.
    #[arg(long, value_name = "N")]
    pub from: Option<u32>,
    /// Makes a repeat safe: the same id is followed once. Made up when left out.
    #[arg(long, value_name = "ID")]
    pub request_id: Option<String>,
}

/// A group and a number of replicas.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupReplicas {
    /// Name of the group.
    pub group: String,
    /// Replicas.
    pub replicas: u32,
}

/// `watch`.
#[derive(Clone, Copy, Debug, Args)]
pub struct WatchArgs {
    /// Number of the job.
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Only what changed after this log index.
    #[arg(long, default_value_t = 0, value_name = "INDEX")]
    pub after: u64,
    /// End as soon as the job is ready (or over).
    #[arg(long)]
    pub until_ready: bool,
}

/// `nodes`.
#[derive(Clone, Debug, Args)]
pub struct NodesArgs {
    /// Only nodes with this status.
    #[arg(long, value_enum, value_name = "STATUS")]
    pub status: Option<NodeStatus>,
    /// Only nodes of this region.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "REGION")]
    pub region: String,
    /// At most this many.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub limit: u32,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// Whether a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NodeStatus {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// Number of a node.
#[derive(Clone, Copy, Debug, Args)]
pub struct NodeId {
    /// Number of the node.
    #[arg(value_name = "ID")]
    pub id: u32,
}

/// `node`.
#[derive(Clone, Copy, Debug, Args)]
pub struct NodeArgs {
    /// Number of the node.
    #[arg(value_name = "ID")]
    pub id: u32,
    /// How fresh the answer must be.
    #[command(flatten)]
    pub read: ReadArgs,
}

/// `remove`.
#[derive(Clone, Copy, Debug, Args)]
pub struct RemoveArgs {
    /// Number of the node.
    #[arg(value_name = "ID")]
    pub id: u32,
    /// Also when replicas run there; they count as lost.
    #[arg(long)]
    pub force: bool,
}

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

/// `completions`.
#[derive(Clone, Copy, Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Longest time that a flag takes: an hour.
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);

fn timeout(text: &str) -> Result<Duration, String> {
    let time = if let Some(ms) = text.strip_suffix("ms") {
        ms.parse().map(Duration::from_millis).map_err(|e| e.to_string())?
    } else {
        Duration::from_secs(manifest::native::seconds(text)?)
    };
    if time.is_zero() || time > TIMEOUT_MAX {
        return Err("must be more than nothing and at most an hour".to_owned());
    }
    Ok(time)
}

fn rtt_us(text: &str) -> Result<u32, String> {
    manifest::native::microseconds(text)
}

fn group_replicas(text: &str) -> Result<GroupReplicas, String> {
    let (group, replicas) = text.rsplit_once('=').ok_or("must be GROUP=N, as in workers=8")?;
    let replicas =
        replicas.parse().map_err(|_| format!("`{replicas}` is not a number of replicas"))?;
    Ok(GroupReplicas { group: group.to_owned(), replicas })
}

fn odd_servers(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn several_servers_and_global_flags_anywhere() {
        let cli = parse(
            "muster jobs --server http://a:1,http://b:2 --server c:3 -o json --timeout 500ms",
        )
        .expect("valid");
        assert_eq!(cli.global.server, ["http://a:1", "http://b:2", "c:3"]);
        assert_eq!(cli.global.output, Format::Json);
        assert_eq!(cli.global.timeout, Duration::from_millis(500));
    }

    #[test]
    fn bad_values_are_usage_errors() {
        for line in [
            "muster",
            "muster dev --servers 2",
            "muster dev --nodes 0",
            "muster submit",
            "muster job x",
            "muster scale 7",
            "muster scale 7 workers",
            "muster scale 7 workers=few",
            "muster scale 7 workers=-1",
            "muster jobs --timeout 0s",
            "muster jobs --timeout 5",
            "muster server",
            "muster dev --start-ms 9-1",
            "muster dev --max-rtt 5",
            "muster quorum add 4 --peer-address h:1",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_help_lists_exit_codes_and_the_job_format() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("3    `plan`"));
        let mut command = Cli::command();
        let submit = command.find_subcommand_mut("submit").expect("there");
        assert!(submit.render_long_help().to_string().contains("max_rtt: 60ms"));
    }
}
