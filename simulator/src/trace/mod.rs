//! Traces: jobs, nodes and what befell them as files tell of it, in one form.
//!
//! One file per format; [`Source`] reads any of the job formats into a [`Trace`]. All of them may
//! be packed with gzip. A job trace is one of
//!
//! | format | columns or fields |
//! |---|---|
//! | `openb:FILE` | CSV `name, cpu_milli, memory_mib, num_gpu, gpu_milli` and, where known, `gpu_spec, creation_time, deletion_time, scheduled_time` (seconds) |
//! | `philly:FILE` | CSV `job, submit_s, duration_s, gpus, vc` |
//! | `kalos:FILE` | CSV `job, submit_s, duration_s, tasks, gpus_per_task, cpu_per_gpu` |
//! | `swf:FILE` | the Standard Workload Format of the Parallel Workloads Archive; a processor counts as a GPU |
//! | `jsonl:FILE` | our own, which `muster record` and `muster sim gen` write; see [`jsonl`] |
//!
//! Beside them there are [`nodes`], [`faults`], [`spot`], [`rtt`] and [`prices`].
//! **Invariant:** reads only, in bounded memory; nothing of a trace is part of the program; a bad
//! row is told by file, line, column and value.

mod error;
pub mod faults;
pub mod jsonl;
pub mod kalos;
mod lines;
pub mod nodes;
pub mod openb;
pub mod philly;
pub mod prices;
pub mod rtt;
mod source;
pub mod specs;
pub mod spot;
pub mod swf;
mod table;

pub use error::{BadRows, TraceError};
pub use lines::{FILE_BYTES_MAX, LINE_BYTES_MAX, ROWS_MAX};
pub(crate) use source::by_time;
pub use source::{Format, Source, SourceError};

use scheduler_core::command::SiteRtt;
use scheduler_core::job::JobSpec;
use scheduler_core::node::NodeSpec;
use scheduler_core::unit::{DurationMs, PriceMicroUsd, TimeMs};
use scheduler_core::validate::REPLICAS_MAX;
use std::sync::Arc;

/// GPUs of a node or replica: what one machine word of a node's GPU set holds.
const GPUS_MAX: u32 = 64;
/// Thousandths of a GPU.
const MILLI_MAX: u32 = 1_000;
/// CPU thousandths and memory MiB of a node or replica: a thousand times the largest in the traces.
const AMOUNT_MAX: u64 = 1_000_000_000;
/// GPUs of a machine on which gangs of a trace ran that tells only how many GPUs a job had.
const GPUS_PER_MACHINE: u64 = 8;
/// CPU and memory per GPU where the trace does not tell: so little that GPUs decide.
const CPU_MILLI_UNTOLD: u64 = 1_000;
const MEMORY_MIB_UNTOLD: u64 = 1_024;
/// Longest name of a job, tenant or node in bytes.
const NAME_BYTES_MAX: usize = 128;

/// All that a trace tells.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Trace {
    /// By rising time of submission; those without one first, in the file's order.
    pub jobs: Vec<TraceJob>,
    pub nodes: Vec<TraceNode>,
    /// By rising time.
    pub changes: Vec<NodeChange>,
    pub rtts: Vec<SiteRtt>,
}

/// A worker machine of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TraceNode {
    pub name: String,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub gpus: u32,
    /// Of all its GPUs; may be empty on a node without.
    pub model: String,
    /// Of each GPU; 0 = not told.
    pub vram_mib: u32,
    /// `None` = not told.
    pub place: Option<TracePlace>,
    /// Per GPU and hour; 0 = not told.
    pub price_micro_usd: u64,
    /// Both ways; 0 = not told.
    pub bandwidth_mbps: u32,
    /// What kind of supplier has it: a label `class` of the node; empty = not told.
    pub class: String,
    /// All there is to say of a recorded node whose declaration has more than the fields above.
    pub spec: Option<Arc<NodeSpec>>,
}

/// Where a node of a trace stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct TracePlace {
    pub region: String,
    pub zone: String,
    pub site: String,
    pub rack: String,
}

/// What one replica of a job asks for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct TraceShape {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// GPUs; 0 = a CPU job.
    pub gpus: u32,
    /// Thousandths of each GPU; below 1,000 only when `gpus` is 1.
    pub gpu_milli: u32,
    /// Any of these models, rising; empty = any model.
    pub models: Vec<String>,
}

/// A job of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TraceJob {
    pub name: String,
    /// Whose it is; empty = not told.
    pub tenant: String,
    /// Replicas, all of one shape, placed all or none.
    pub replicas: u32,
    pub shape: TraceShape,
    /// From the trace's beginning, where the trace tells.
    pub submit: Option<TimeMs>,
    /// How long it ran once it was ready, where the trace tells.
    pub duration: Option<DurationMs>,
    /// All there is to say of a recorded job that asked for more than equal replicas of `shape`,
    /// which then is the shape of its largest group.
    pub spec: Option<Arc<JobSpec>>,
}

/// Something that befell a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeChange {
    /// From the trace's beginning.
    pub at: TimeMs,
    /// Its name.
    pub node: String,
    pub change: Change,
}

/// What befell it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Change {
    /// It is there for the first time, or again after it was removed.
    Joined,
    /// It answers again.
    Up,
    /// It does not answer.
    Down,
    /// It takes new work again.
    Eligible,
    Cordoned,
    Draining,
    /// Per GPU and hour.
    Price(PriceMicroUsd),
    Removed,
}

impl TraceShape {
    /// Thousandths of GPUs of one replica.
    pub fn total_milli(&self) -> u64 {
        u64::from(self.gpus) * u64::from(self.gpu_milli)
    }
}

impl TraceJob {
    /// Thousandths of GPUs of all replicas.
    pub fn total_milli(&self) -> u64 {
        match &self.spec {
            Some(spec) => spec.gpu_milli(),
            None => self.shape.total_milli() * u64::from(self.replicas),
        }
    }

    /// A gang of a trace that tells only how many GPUs a job had: equal replicas of as many as go
    /// into one machine, with so little of everything else that GPUs decide. `None` = of none, or
    /// of more replicas than a job may have.
    pub(crate) fn of_gpus(name: String, gpus: u64) -> Option<Self> {
        let each = (1..=GPUS_PER_MACHINE).rev().find(|each| gpus.is_multiple_of(*each))?;
        let replicas =
            u32::try_from(gpus / each).ok().filter(|r| (1..=REPLICAS_MAX).contains(r))?;
        let shape = TraceShape {
            cpu_milli: each * CPU_MILLI_UNTOLD,
            memory_mib: each * MEMORY_MIB_UNTOLD,
            gpus: u32::try_from(each).ok()?,
            gpu_milli: MILLI_MAX,
            models: Vec::new(),
        };
        Some(Self { name, replicas, shape, ..Self::default() })
    }
}

/// What is wrong with a text as a name of something, if anything is.
fn name_fault(text: &str) -> Option<String> {
    if text.is_empty() {
        Some("is empty".to_owned())
    } else if text.len() > NAME_BYTES_MAX {
        Some(format!("is longer than {NAME_BYTES_MAX} bytes"))
    } else if text.chars().any(char::is_control) {
        Some("has control characters".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
