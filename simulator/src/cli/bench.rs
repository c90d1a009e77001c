//! `bench`: how many jobs of made load a whole process gets through in a second.
//!
//! A day of single-GPU jobs (one in eight asks for 8, or for a whole node where that has fewer; one
//! in four for half of one). As many as hold nine tenths of the fleet are there when the day begins
//! (three quarters of all jobs at most); the others come evenly, and as many leave. One run, one
//! thread.
//! **Invariant:** the load follows from the arguments; only times and memory differ between runs.

use super::sweep::{command, until_ctrl_c, write_json};
use super::{Ending, Error};
use crate::metrics::{Metrics, WallFigures};
use crate::observe::{Observer, Seen};
use crate::report::{Table, number_text};
use crate::scenario::{Arrival, Latency, Scenario};
use crate::world;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::fixture::entry::{group, job_spec, node_spec};
use scheduler_core::job::{GpuAsk, JobSpec};
use scheduler_core::plan::Policy;
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, TimeMs};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

const DAY_MS: u64 = 86_400_000;
/// GPU time asked for, in per cent of the fleet's.
const LOAD_PERCENT: u64 = 90;
/// Of all jobs, those that may be there when the day begins: the others are what the day is about.
const THERE_PERCENT_MAX: u64 = 75;
/// How many of eight jobs ask for one GPU, for the large number, for half of one.
const SHARES: [u64; 3] = [5, 1, 2];
/// GPUs of a large job, unless nodes have fewer.
const LARGE: u8 = 8;
/// Thousandths of the smallest job's GPU.
const SMALL_MILLI: u16 = 500;

/// `bench`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 69_000, value_parser = clap::value_parser!(u32).range(1..=262_144))]
    nodes: u32,
    /// GPUs of each node.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u8).range(1..=64))]
    gpus: u8,
    /// Jobs of the day.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    jobs: u32,
    #[arg(long, default_value = "best-fit", value_name = "P", value_parser = |text: &str| text.parse::<Policy>())]
    policy: Policy,
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Write the figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    command: String,
    /// Whether the day came to its end; Ctrl-C cuts it short.
    complete: bool,
    nodes: u32,
    gpus: u64,
    jobs: u32,
    placed: u64,
    allocated_percent: f64,
    decisions: u64,
    events: u64,
    /// Of the whole process, most at a time; `None` where the system does not tell.
    memory_mib: Option<u64>,
    wall: WallFigures,
}

struct Timed {
    metrics: Metrics,
    stop: Arc<AtomicBool>,
}

impl Observer for Timed {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        self.metrics.saw(at, seen, state);
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn is_timed(&self) -> bool {
        true
    }
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    let begun = Instant::now();
    let stop = until_ctrl_c()?;
    let mut timed = Timed { metrics: Metrics::until(TimeMs(DAY_MS)), stop };
    let report = world::run(&scenario(args), &mut timed)
        .map_err(|violation| Error::Refused(violation.to_string()))?;
    let run_s = begun.elapsed().as_secs_f64();
    let complete = !timed.stops();
    timed.metrics.finish(report.ended_at);
    let told = timed.metrics.figures();
    let figures = Figures {
        command: command(),
        complete,
        nodes: args.nodes,
        gpus: u64::from(args.nodes) * u64::from(args.gpus),
        jobs: args.jobs,
        placed: told.jobs.placed,
        allocated_percent: told.allocated_percent,
        decisions: told.decisions,
        events: report.events,
        memory_mib: memory_mib(),
        wall: timed.metrics.wall().figures(run_s, told.decisions),
    };
    let mut table = Table::new("Bench", &["figure", ">value"], "");
    for (name, value, digits) in [
        ("jobs placed", figures.placed as f64, 0),
        ("allocated %", figures.allocated_percent, 1),
        ("wall s", figures.wall.run_s, 1),
        ("planner s", figures.wall.planner_s, 1),
        ("decisions/s", figures.wall.decisions_per_s, 0),
        ("plan p50 us", figures.wall.plan_us_p50, 1),
        ("plan p99 us", figures.wall.plan_us_p99, 1),
        ("memory MiB", figures.memory_mib.unwrap_or(0) as f64, 0),
    ] {
        table.rows.push(vec![name.to_owned(), number_text(value, digits)]);
    }
    write!(out, "{}", table.text())?;
    if let Some(file) = &args.json {
        write_json(file, &figures)?;
    }
    Ok(Ending::of_sweep(complete))
}

fn scenario(args: &Args) -> Scenario {
    let mut rng = StdRng::seed_from_u64(args.seed);
    let specs: Vec<Arc<JobSpec>> =
        [GpuAsk::Whole(1), GpuAsk::Whole(LARGE.min(args.gpus)), GpuAsk::Share(SMALL_MILLI)]
            .into_iter()
            .map(|ask| {
                let mut workers = group("workers", 1, 1);
                workers.shape.gpus = ask;
                Arc::new(job_spec(vec![workers]))
            })
            .collect();
    let eight: u64 = specs.iter().zip(SHARES).map(|(spec, share)| spec.gpu_milli() * share).sum();
    let capacity = u64::from(args.nodes) * u64::from(args.gpus) * 1_000;
    let jobs = u64::from(args.jobs);
    let there_max = (jobs * THERE_PERCENT_MAX).div_ceil(100);
    let there = (capacity / 100 * LOAD_PERCENT * 8 / eight.max(1)).clamp(1, there_max);
    let coming = (jobs - there).max(1);
    // As many are there as come per time, times how long each stays.
    let life = Latency::Exponential { mean: DurationMs(there * DAY_MS / coming) };
    let arrivals = (0..jobs).filter_map(|number| {
        let kind = match rng.random_range(0..SHARES.iter().sum::<u64>()) {
            0 => 1,
            1 | 2 => 2,
            _ => 0,
        };
        let at = TimeMs(number.saturating_sub(there) * DAY_MS / coming);
        Some(Arrival::new(at, Arc::clone(specs.get(kind)?), Some(life.draw(&mut rng))))
    });
    let arrivals = arrivals.collect();
    Scenario {
        seed: args.seed,
        nodes: (0..args.nodes)
            .map(|number| node_spec(&format!("node-{number}"), usize::from(args.gpus)))
            .collect(),
        arrivals,
        policy: args.policy,
        until: Some(TimeMs(DAY_MS)),
        check_every: crate::replay::CHECK_EVERY * 10,
        replay: command(),
        ..Scenario::default()
    }
}

/// The process's largest resident memory so far, as Linux tells it.
fn memory_mib() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1_024)
}
