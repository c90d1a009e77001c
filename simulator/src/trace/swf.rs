//! The Standard Workload Format of the Parallel Workloads Archive (Feitelson, Tsafrir and Krakov,
//! JPDC 2014): lines of 18 numbers, -1 where a number is not known, and comments after `;`.
//!
//! Used are job number (1), submission (2), run time (4), processors allocated (5) and asked for
//! (8), memory per processor in KiB used (7) and asked for (10), and user (12). A processor counts
//! as a GPU, as that is what such a machine's scheduler hands out.
//! **Invariant:** one line is one gang; a job that never ran has no duration.

use super::lines::Lines;
use super::table::SECONDS_MAX;
use super::{AMOUNT_MAX, BadRows, GPUS_PER_MACHINE, REPLICAS_MAX, TraceError, TraceJob};
use scheduler_core::unit::{DurationMs, TimeMs};
use std::path::Path;

/// Names of the fields, in order.
const FIELDS: [&str; 18] = [
    "job",
    "submit",
    "wait",
    "run time",
    "processors allocated",
    "cpu time",
    "memory used",
    "processors asked for",
    "time asked for",
    "memory asked for",
    "status",
    "user",
    "group",
    "program",
    "queue",
    "partition",
    "preceding job",
    "think time",
];

/// Jobs of the file, in its order.
pub fn jobs(file: &Path, bad: &mut BadRows) -> Result<Vec<TraceJob>, TraceError> {
    let mut lines = Lines::open(file)?;
    let mut jobs = Vec::new();
    loop {
        let job = match lines.next() {
            Ok(None) => break,
            Ok(Some((number, line))) => job(line, file, number),
            Err(error) => Err(error),
        };
        jobs.extend(bad.take(job)?.flatten());
    }
    if jobs.is_empty() { Err(bad.nothing(file)) } else { Ok(jobs) }
}

/// `None` = a comment.
fn job(line: &str, file: &Path, number: u64) -> Result<Option<TraceJob>, TraceError> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(';') {
        return Ok(None);
    }
    let mut values = [None; FIELDS.len()];
    let mut count = 0;
    for text in line.split_ascii_whitespace() {
        if let (Some(value), Some(field)) = (values.get_mut(count), FIELDS.get(count)) {
            *value = known(text)
                .map_err(|what| TraceError::value(file, number, field, text, what.to_owned()))?;
        }
        count += 1;
    }
    if count != FIELDS.len() {
        let what = format!("has {count} fields; {} are wanted", FIELDS.len());
        return Err(TraceError::Row { file: file.to_owned(), line: number, what });
    }
    let [id, submit, _, ran, had, _, used, asked, _, wanted, _, user, ..] = values;
    let missing = |field: &str| {
        TraceError::value(file, number, field, "-1", "is not known, but is needed".to_owned())
    };
    let id = id.ok_or_else(|| missing("job"))?;
    let seconds = submit.ok_or_else(|| missing("submit"))?;
    let positive = |value: Option<f64>| value.filter(|value| *value > 0.0);
    let processors =
        positive(asked).or(positive(had)).ok_or_else(|| missing("processors asked for"))?;
    let Some(mut job) = TraceJob::of_gpus(format!("swf-{id}"), processors as u64) else {
        let what = format!("is not 1 to {REPLICAS_MAX} equal parts of up to {GPUS_PER_MACHINE}");
        let value = processors.to_string();
        return Err(TraceError::value(file, number, "processors asked for", &value, what));
    };
    if let Some(kib) = positive(wanted).or(positive(used)) {
        let mib = (kib / 1_024.0).ceil() as u64;
        job.shape.memory_mib = mib.saturating_mul(u64::from(job.shape.gpus)).min(AMOUNT_MAX);
    }
    job.tenant = user.map(|user| format!("user-{user}")).unwrap_or_default();
    job.submit = Some(TimeMs((seconds * 1_000.0).round() as u64));
    job.duration = positive(ran).map(|s| DurationMs(((s * 1_000.0).round() as u64).max(1)));
    Ok(Some(job))
}

/// `None` = not known.
fn known(text: &str) -> Result<Option<f64>, &'static str> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=SECONDS_MAX as f64).contains(&value) => Ok(Some(value)),
        Ok(-1.0) => Ok(None),
        _ => Err("is neither a number from 0 to 4,000,000,000 nor -1"),
    }
}
