//! `run`: scenarios from files, a line for each seed, and what was not as expected.
//!
//! **Invariant:** the exit code says whether every expectation of every seed held.

use super::{Ending, Error};
use crate::observe::{EventLog, Nobody};
use crate::scenario::text::{Script, TEXT_BYTES_MAX, Verdict};
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Scenario files.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Run the seeds 0 to N - 1 instead of those that the file asks for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Run this seed alone.
    #[arg(long, value_name = "SEED", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Write every event of the run to a file; for one file and one seed.
    #[arg(long, value_name = "LOG", requires = "seed")]
    events: Option<PathBuf>,
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    if args.events.is_some() && args.files.len() > 1 {
        return Err(Error::Usage("--events is for one file".to_owned()));
    }
    let mut scripts = Vec::new();
    for file in &args.files {
        scripts.push((file, read(file)?));
    }
    let longest = args.files.iter().map(|file| file.display().to_string().chars().count()).max();
    let width = longest.unwrap_or(0).max("scenario".len());
    writeln!(
        out,
        "{:width$}  {:>5}  {:>9}  {:>8}  {:>8}  {:>8}  {:>6}  result",
        "scenario", "seed", "events", "jobs", "ready", "over", "stale"
    )?;
    let mut failed = 0;
    for (file, script) in &scripts {
        let seeds = match args.seed {
            Some(seed) => seed..seed.saturating_add(1),
            None => 0..args.seeds.unwrap_or(script.seeds()),
        };
        for seed in seeds {
            let replay = format!("muster sim run {} --seed {seed}", file.display());
            let verdict = match &args.events {
                None => script.evaluate(seed, replay, &mut Nobody),
                Some(path) => {
                    let mut log = EventLog::new(BufWriter::new(create(path)?));
                    let verdict = script.evaluate(seed, replay, &mut log);
                    log.finish()?;
                    verdict
                }
            };
            failed += usize::from(!verdict.failures.is_empty());
            show(out, file, width, &verdict)?;
        }
    }
    if failed == 0 {
        return Ok(Ending::Done);
    }
    writeln!(out, "{failed} runs were not as expected")?;
    Ok(Ending::Failed)
}

fn show(out: &mut dyn Write, file: &Path, width: usize, verdict: &Verdict) -> Result<(), Error> {
    let report = verdict.report.clone().unwrap_or_default();
    let result = if verdict.failures.is_empty() { "as expected" } else { "NOT AS EXPECTED" };
    writeln!(
        out,
        "{:width$}  {:>5}  {:>9}  {:>8}  {:>8}  {:>8}  {:>6}  {result}",
        file.display().to_string(),
        verdict.seed,
        report.events,
        report.jobs_submitted,
        report.jobs_ready,
        report.jobs_over,
        report.plans_stale,
    )?;
    for failure in &verdict.failures {
        writeln!(out, "  {failure}")?;
    }
    Ok(())
}

/// Reads and understands a scenario file.
pub(super) fn read(path: &Path) -> Result<Script, Error> {
    let name = path.display();
    let failed = |what: String| Error::Usage(format!("{name}: {what}"));
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let mut bytes = Vec::new();
    // One byte more than allowed is enough to be refused for it.
    let most = TEXT_BYTES_MAX as u64 + 1;
    file.take(most).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        failed(format!("is no UTF-8 text from byte {}", error.utf8_error().valid_up_to()))
    })?;
    Script::parse(&text).map_err(|fault| {
        Error::Usage(format!("{name}:{}:{}: {}", fault.line, fault.column, fault.what))
    })
}

fn create(path: &Path) -> Result<File, Error> {
    File::create(path).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
}
