//! Large training jobs of the Acme Kalos cluster (AcmeTrace): gangs of `tasks` with
//! `gpus_per_task` GPUs each.
//!
//! **Invariant:** one row is one gang of equal replicas.

use super::table::{Row, Table};
use super::{TraceError, TraceJob, TraceShape};
use std::path::Path;

/// Replicas of a gang: what one job may have.
const TASKS_MAX: u64 = 100_000;
/// GPUs of one replica.
const GPUS_MAX: u64 = 64;
/// CPU cores per GPU.
const CORES_MAX: u64 = 1_024;
/// Memory of a replica per GPU in MiB. The trace does not tell; this is the median of openb.
const MEMORY_MIB_PER_GPU: u64 = 31_232;

/// Gangs of the file, in its order.
pub fn jobs(file: &Path) -> Result<Vec<TraceJob>, TraceError> {
    Table::open(file)?.rows(gang)
}

fn gang(row: &Row<'_>) -> Result<TraceJob, TraceError> {
    let replicas = row.number("tasks", TASKS_MAX)?;
    if replicas == 0 {
        return Err(row.bad("tasks", "0", "is no gang".to_owned()));
    }
    let gpus = row.whole("gpus_per_task", GPUS_MAX)?;
    let cpu_milli_per_gpu = row.thousandths("cpu_per_gpu", CORES_MAX)?;
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Ok(TraceJob {
        name: format!("kalos-{}", row.text("job")?),
        replicas: number(replicas),
        shape: TraceShape {
            cpu_milli: cpu_milli_per_gpu * gpus,
            memory_mib: gpus * MEMORY_MIB_PER_GPU,
            gpus: number(gpus),
            gpu_milli: if gpus == 0 { 0 } else { 1_000 },
            models: Vec::new(),
        },
        submit_s: row.maybe_number("submit_s")?,
        duration_s: row.maybe_number("duration_s")?.map(|seconds| seconds.max(1)),
    })
}
