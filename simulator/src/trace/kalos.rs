//! Large training jobs of the Acme Kalos cluster (AcmeTrace): gangs of `tasks` with
//! `gpus_per_task` GPUs each.
//!
//! **Invariant:** one row is one gang of equal replicas.

use super::table::{Row, Table};
use super::{BadRows, GPUS_MAX, MILLI_MAX, REPLICAS_MAX, TraceError, TraceJob, TraceShape};
use std::path::Path;

/// CPU cores per GPU.
const CORES_MAX: u64 = 1_024;
/// Memory of a replica per GPU in MiB. The trace does not tell; this is the median of openb.
const MEMORY_MIB_PER_GPU: u64 = 31_232;

/// Gangs of the file, in its order.
pub fn jobs(file: &Path, bad: &mut BadRows) -> Result<Vec<TraceJob>, TraceError> {
    Table::open(file)?.rows(bad, gang)
}

fn gang(row: &Row<'_>) -> Result<TraceJob, TraceError> {
    let replicas = row.small("tasks", REPLICAS_MAX)?;
    if replicas == 0 {
        return Err(row.bad("tasks", "0", "is no gang".to_owned()));
    }
    let gpus = row.whole("gpus_per_task", u64::from(GPUS_MAX))?;
    let cpu_milli_per_gpu = row.thousandths("cpu_per_gpu", CORES_MAX)?;
    Ok(TraceJob {
        name: format!("kalos-{}", row.name("job")?),
        replicas,
        shape: TraceShape {
            cpu_milli: cpu_milli_per_gpu * gpus,
            memory_mib: gpus * MEMORY_MIB_PER_GPU,
            gpus: u32::try_from(gpus).unwrap_or(GPUS_MAX),
            gpu_milli: if gpus == 0 { 0 } else { MILLI_MAX },
            models: Vec::new(),
        },
        submit: row.maybe_time("submit_s")?,
        duration: row.maybe_duration("duration_s")?,
        ..TraceJob::default()
    })
}
