//! `gen`: jobs, gangs, fleets, faults and spot nodes from a seed, and traces changed, written in the
//! formats that are read.
//!
//! **Invariant:** equal arguments write equal bytes, on every machine.

use super::{Ending, Error};
use crate::generate::{faults, fleet, jobs, mega, spot};
use crate::trace::{self, BadRows, Source, Trace, TraceNode, jsonl, nodes};
use crate::transform::{self, TransformError};
use clap::{Subcommand, ValueEnum};
use scheduler_core::unit::{DurationMs, TimeMs};
use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

const HOUR_MS: u64 = 3_600_000;
/// Most jobs of one call: what a reader takes.
const JOBS_MAX: u64 = trace::ROWS_MAX - 1;
/// Most nodes: twice the largest fleet that the scheduler is built for.
const NODES_MAX: u64 = 300_000;
/// Longest time of faults and spot nodes in days.
const DAYS_MAX: u64 = 3_650;

/// `gen`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// File to write; the answer's place if left out.
    #[arg(long, global = true, value_name = "FILE")]
    out: Option<PathBuf>,
    /// What all draws follow from.
    #[arg(long, global = true, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// What to make.
#[derive(Clone, Debug, Subcommand)]
enum What {
    /// Jobs of up to 32 GPUs, as JSONL.
    Jobs {
        /// Whose statistics they follow.
        #[arg(long, value_enum, default_value_t = JobsOf::Openb)]
        profile: JobsOf,
        #[arg(long, default_value_t = 8_000, value_parser = clap::value_parser!(u64).range(1..=JOBS_MAX), value_name = "N")]
        count: u64,
        /// Mean rate; that of the profile if left out.
        #[arg(long, value_name = "JOBS")]
        per_hour: Option<f64>,
    },
    /// Gangs of 64 to 1,024 GPUs, as JSONL.
    Mega {
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=JOBS_MAX), value_name = "N")]
        count: u64,
        #[arg(long, default_value_t = 0.15, value_name = "JOBS")]
        per_hour: f64,
    },
    /// Nodes and the round trips between their sites.
    Fleet {
        #[arg(long, value_enum, default_value_t = FleetOf::Global)]
        profile: FleetOf,
        #[arg(long, default_value_t = 69_000, value_parser = clap::value_parser!(u64).range(1..=NODES_MAX), value_name = "N")]
        nodes: u64,
        #[arg(long, default_value_t = fleet::CITIES_USUAL, value_parser = clap::value_parser!(u64).range(1..=fleet::CITIES_MAX as u64), value_name = "N")]
        cities: u64,
        /// JSONL with nodes and round trips, or a CSV list of nodes alone.
        #[arg(long, value_enum, default_value_t = NodesAs::Jsonl)]
        format: NodesAs,
    },
    /// Faults of the nodes of a list, by their class, as CSV.
    Faults {
        /// CSV list of nodes, such as `gen fleet --format csv` writes.
        #[arg(long, value_name = "FILE")]
        nodes: PathBuf,
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
        days: u64,
    },
    /// Spot nodes coming and going, as CSV.
    Spot {
        /// How many are wanted; three quarters are there in the long run.
        #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "N")]
        wanted: u32,
        #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=DAYS_MAX))]
        days: u64,
    },
    /// Traces read, merged, changed and written as JSONL. In this order: merge, clip, sample, time,
    /// load, inflate, shift.
    Trace(TraceArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct TraceArgs {
    /// FORMAT:FILE with openb, philly, kalos, swf or jsonl; several are merged.
    #[arg(long = "trace", required = true, value_name = "FORMAT:FILE")]
    traces: Vec<Source>,
    /// Count bad rows and go on.
    #[arg(long)]
    skip_bad: bool,
    /// Only jobs submitted from this hour on.
    #[arg(long, value_name = "HOURS")]
    from_h: Option<f64>,
    /// Only jobs submitted before this hour.
    #[arg(long, value_name = "HOURS")]
    to_h: Option<f64>,
    /// Only this share of the jobs, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    sample: Option<f64>,
    /// Gaps and durations times this.
    #[arg(long, value_name = "FACTOR")]
    time_scale: Option<f64>,
    /// The load times this.
    #[arg(long, value_name = "FACTOR")]
    load: Option<f64>,
    /// How the load is changed.
    #[arg(long, value_enum, default_value_t = LoadBy::Arrivals, value_name = "HOW")]
    load_by: LoadBy,
    /// Add or leave out jobs until all together ask for this many per cent of --capacity.
    #[arg(long, requires = "capacity", value_name = "PERCENT")]
    inflate: Option<u64>,
    /// GPUs that --inflate is about.
    #[arg(long, value_name = "GPUS")]
    capacity: Option<u64>,
    /// The first job comes at this hour.
    #[arg(long, value_name = "HOURS")]
    start_h: Option<f64>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum JobsOf {
    Openb,
    Philly,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FleetOf {
    Openb,
    Global,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NodesAs {
    Jsonl,
    Csv,
}

/// How a load is changed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LoadBy {
    /// More or fewer jobs in the same time.
    Arrivals,
    /// The same jobs in less or more time.
    Gaps,
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    match &args.out {
        None => make(args, out)?,
        Some(file) => {
            let failed = |error: io::Error| {
                Error::Usage(format!("{} cannot be written: {error}", file.display()))
            };
            let mut opened = BufWriter::new(File::create(file).map_err(failed)?);
            make(args, &mut opened)?;
            opened.flush().map_err(failed)?;
        }
    }
    Ok(Ending::Done)
}

fn make(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    let seed = args.seed;
    match &args.what {
        What::Jobs { profile, count, per_hour } => {
            let profile = match profile {
                JobsOf::Openb => jobs::Profile::Openb,
                JobsOf::Philly => jobs::Profile::Philly,
            };
            let per_hour = per_hour.map(|rate| self::rate("--per-hour", rate)).transpose()?;
            let jobs = jobs::jobs(profile, *count as usize, per_hour, seed);
            let source = format!("gen jobs of {}, seed {seed}", profile.name());
            jsonl::write(&Trace { jobs, ..Trace::default() }, &source, out)?;
        }
        What::Mega { count, per_hour } => {
            let jobs = mega::gangs(*count as usize, rate("--per-hour", *per_hour)?, seed);
            let source = format!("gen mega, seed {seed}");
            jsonl::write(&Trace { jobs, ..Trace::default() }, &source, out)?;
        }
        What::Fleet { profile, nodes, cities, format } => {
            let profile = match profile {
                FleetOf::Openb => fleet::Profile::Openb,
                FleetOf::Global => fleet::Profile::Global,
            };
            let fleet = fleet::fleet(profile, *nodes as usize, *cities as usize, seed);
            let source = format!("gen fleet of {}, seed {seed}", profile.name());
            let trace = Trace { nodes: fleet.nodes, rtts: fleet.rtts, ..Trace::default() };
            match format {
                NodesAs::Jsonl => jsonl::write(&trace, &source, out)?,
                NodesAs::Csv => nodes::write(&trace.nodes, out)?,
            }
        }
        What::Faults { nodes, days } => {
            let nodes: Vec<TraceNode> =
                trace::nodes::read(nodes, &mut BadRows::refuse()).map_err(usage)?;
            let span = DurationMs(days * 24 * HOUR_MS);
            trace::faults::write(&faults::faults(&nodes, span, seed), out)?;
        }
        What::Spot { wanted, days } => {
            let span = DurationMs(days * 24 * HOUR_MS);
            trace::spot::write(&spot::churn(*wanted, span, seed), out)?;
        }
        What::Trace(asked) => changed(asked, seed, out)?,
    }
    Ok(())
}

fn changed(asked: &TraceArgs, seed: u64, out: &mut dyn Write) -> Result<(), Error> {
    let mut bad = if asked.skip_bad { BadRows::skip() } else { BadRows::refuse() };
    let mut read = Vec::new();
    for source in &asked.traces {
        read.push(bad.apart(|bad| source.read(bad)).map_err(usage)?);
    }
    let names: Vec<String> = asked.traces.iter().map(ToString::to_string).collect();
    let mut note = format!("gen trace of {}, seed {seed}", names.join(" "));
    if bad.skipped > 0 {
        note.push_str(&format!(
            "; {} bad rows left out, first: {}",
            bad.skipped,
            bad.first.join("; ")
        ));
    }
    let mut trace = match read.len() {
        1 => read.pop().unwrap_or_default(),
        // Nodes of several traces are not one fleet.
        _ => {
            let jobs = read.into_iter().map(|trace| trace.jobs).collect();
            Trace { jobs: transform::merge(jobs), ..Trace::default() }
        }
    };
    trace.jobs = transformed(trace.jobs, asked, seed)?;
    jsonl::write(&trace, &note, out)?;
    Ok(())
}

fn transformed(
    mut jobs: Vec<trace::TraceJob>,
    asked: &TraceArgs,
    seed: u64,
) -> Result<Vec<trace::TraceJob>, Error> {
    let failed = |error: TransformError| usage(error);
    if asked.from_h.is_some() || asked.to_h.is_some() {
        let from = time("--from-h", asked.from_h.unwrap_or(0.0))?;
        let to = asked.to_h.map_or(Ok(TimeMs(u64::MAX)), |hours| time("--to-h", hours))?;
        jobs = transform::clip(jobs, from, to);
    }
    if let Some(share) = asked.sample {
        jobs = transform::sample(jobs, share, seed).map_err(failed)?;
    }
    if let Some(by) = asked.time_scale {
        jobs = transform::scale_time(jobs, by).map_err(failed)?;
    }
    if let Some(load) = asked.load {
        jobs = match asked.load_by {
            LoadBy::Arrivals => transform::more_arrivals(jobs, load, seed),
            LoadBy::Gaps => transform::shorter_gaps(jobs, load),
        }
        .map_err(failed)?;
    }
    if let (Some(percent), Some(gpus)) = (asked.inflate, asked.capacity) {
        let capacity = gpus.saturating_mul(1_000);
        jobs = transform::inflate(jobs, capacity, percent, seed).map_err(failed)?;
    }
    if let Some(hours) = asked.start_h {
        jobs = transform::shift(jobs, time("--start-h", hours)?);
    }
    Ok(jobs)
}

fn usage(error: impl Display) -> Error {
    Error::Usage(error.to_string())
}

/// Jobs an hour that make sense: one in a century to all of a reader's in a second.
fn rate(option: &str, per_hour: f64) -> Result<f64, Error> {
    if (1e-6..=1e10).contains(&per_hour) {
        return Ok(per_hour);
    }
    Err(usage(format!("{option} {per_hour} is not between 0.000001 and 10,000,000,000")))
}

fn time(option: &str, hours: f64) -> Result<TimeMs, Error> {
    if (0.0..=1e6).contains(&hours) {
        return Ok(TimeMs((hours * HOUR_MS as f64).round() as u64));
    }
    Err(usage(format!("{option} {hours} is not between 0 and 1,000,000")))
}

#[cfg(test)]
mod tests;
