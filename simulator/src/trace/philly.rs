//! Jobs of Microsoft's Philly cluster (Jeon et al., USENIX ATC 2019) as a table: when, how long, how
//! many GPUs, and whose virtual cluster.
//!
//! **Invariant:** one row is one gang; what the table does not tell asks for next to nothing.

use super::table::{Row, Table};
use super::{BadRows, GPUS_PER_MACHINE, REPLICAS_MAX, TraceError, TraceJob};
use std::path::Path;

/// Jobs of the file, in its order.
pub fn jobs(file: &Path, bad: &mut BadRows) -> Result<Vec<TraceJob>, TraceError> {
    Table::open(file)?.rows(bad, job)
}

fn job(row: &Row<'_>) -> Result<TraceJob, TraceError> {
    let gpus = row.number("gpus", u64::from(REPLICAS_MAX) * GPUS_PER_MACHINE)?;
    let name = format!("philly-{}", row.name("job")?);
    let Some(gang) = TraceJob::of_gpus(name, gpus) else {
        let what = format!("is not 1 to {REPLICAS_MAX} equal parts of up to {GPUS_PER_MACHINE}");
        return Err(row.bad("gpus", &gpus.to_string(), what));
    };
    Ok(TraceJob {
        tenant: row.maybe("vc").unwrap_or_default().to_owned(),
        submit: row.maybe_time("submit_s")?,
        duration: row.maybe_duration("duration_s")?,
        ..gang
    })
}
