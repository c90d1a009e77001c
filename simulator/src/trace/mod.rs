//! Traces: jobs and nodes as other people's files tell of them, in one form.
//!
//! One file per format; each reads a folder or file given by path and says of a bad row which it
//! is: file, line, column, value.
//! **Invariant:** reads only; nothing of a trace is part of the program.

pub mod kalos;
pub mod openb;
pub mod rtt;
mod table;

pub use table::TraceError;

/// A worker machine of a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceNode {
    pub name: String,
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub gpus: u32,
    /// Of all its GPUs; may be empty on a node without.
    pub model: String,
}

/// What one replica of a job asks for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceJob {
    pub name: String,
    /// Replicas, all of one shape, placed all or none.
    pub replicas: u32,
    pub shape: TraceShape,
    /// Seconds from the trace's beginning, where the trace tells.
    pub submit_s: Option<u64>,
    /// How long it ran, in seconds, where the trace tells.
    pub duration_s: Option<u64>,
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
        self.shape.total_milli() * u64::from(self.replicas)
    }
}
