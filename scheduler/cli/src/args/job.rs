//! Flags of the commands about jobs.

use super::ReadArgs;
use clap::Args;

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

fn group_replicas(text: &str) -> Result<GroupReplicas, String> {
    let (group, replicas) = text.rsplit_once('=').ok_or("must be GROUP=N, as in workers=8")?;
    let replicas =
        replicas.parse().map_err(|_| format!("`{replicas}` is not a number of replicas"))?;
    Ok(GroupReplicas { group: group.to_owned(), replicas })
}
