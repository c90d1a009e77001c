//! Flags of the commands about nodes.

use super::ReadArgs;
use clap::{Args, ValueEnum};

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
