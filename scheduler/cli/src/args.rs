//! The command line: every subcommand and flag, with its help.
//!
//! **Invariant:** nothing happens here; values are only parsed and bounded.

mod admin;
mod bench;
mod job;
mod node;
mod process;

pub use admin::{DumpPart, QuorumCommand, StoreCommand, TenantsCommand};
pub use bench::{
    BenchArgs, BenchCommand, E2eArgs, FailoverArgs, FleetShape, JobsBenchArgs, ScaleArgs,
};
pub use job::{
    ExplainArgs, JobArgs, JobId, JobsArgs, PlanArgs, ScaleJobArgs, SubmitArgs, WatchArgs,
};
pub use node::{NodeArgs, NodeId, NodeStatus, NodesArgs, RemoveArgs};
pub use process::{
    AgentArgs, DevArgs, FleetArgs, LogArgs, LogFormat, RecordArgs, ServerArgs, SimulatedArgs,
};

use crate::exit::EXIT_CODES;
use crate::job_file;
use crate::output::Format;
use clap::{Args, Parser, Subcommand};
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

/// Flags of commands that only read.
#[derive(Clone, Copy, Debug, Args)]
pub struct ReadArgs {
    /// Take what the called server has, even if it lags behind or has lost the quorum.
    #[arg(long)]
    pub stale: bool,
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

fn odd_servers(text: &str) -> Result<u32, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("must be 1, 3 or 5".to_owned()),
    }
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
