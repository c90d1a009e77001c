//! `bench grouping`: how near to the best the planner chooses sites over given RTTs, and how fast.
//!
//! **Invariant:** the planner's own code is measured, in this process; no server is started.

use crate::cluster::machine::Machine;
use crate::exit::{Ending, Exit, Failure};
use crate::output::table::Table;
use crate::output::{Answer, Output};
use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::topology::Sites;
use serde::Serialize;
use simulator::grouping::{Guess, Row, guesses, measure};
use simulator::trace::BadRows;
use simulator::trace::rtt::RttTable;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// `bench grouping`.
#[derive(Clone, Debug, Args)]
pub struct GroupingArgs {
    /// RTTs: a list of pairs (src, dst, avg_ms, and maybe max_ms, mdev_ms) or a square, as CSV;
    /// packed if it ends in .gz.
    #[arg(long, value_name = "FILE")]
    pub rtt: PathBuf,
    /// Numbers of sites to draw from the file; by default 20, 40, 60, 120 and all.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(2..=4_096), value_name = "N,N")]
    pub sizes: Vec<u32>,
    /// Cases of each size.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub cases: u32,
    /// Seed of the draws.
    #[arg(long, default_value_t = 7)]
    pub seed: u64,
    /// Write the figures to a file as well.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Sizes when none are given; larger ones than the file has fall away.
const SIZES: [u32; 4] = [20, 40, 60, 120];

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    command: String,
    /// Whether all cases were measured; Ctrl-C leaves some out.
    complete: bool,
    machine: Machine,
    file: PathBuf,
    sites: usize,
    rows: Vec<Row>,
    guesses: Vec<Guess>,
}

pub(super) fn run(output: Output, args: &GroupingArgs) -> Ending {
    super::can_write(args.json.as_deref())?;
    let table = RttTable::read(&args.rtt, &mut BadRows::refuse())
        .map_err(|error| Failure::usage(error.to_string()))?;
    let places = table.places.len();
    let mut sizes: Vec<usize> = args.sizes.iter().map(|&size| size as usize).collect();
    if sizes.is_empty() {
        sizes.extend(SIZES.iter().map(|&size| size as usize).filter(|&size| size < places));
        sizes.push(places);
    }
    if let Some(size) = sizes.iter().find(|&&size| size > places) {
        return Err(Failure::usage(format!("--sizes: {size}, and the file has {places} places")));
    }
    let stop = super::until_ctrl_c()?;
    let stopped = || stop.load(Ordering::Relaxed);
    let mut rows = Vec::new();
    for size in sizes {
        if stopped() {
            break;
        }
        output.say(&format!("{} cases of {size} sites", args.cases));
        let mut draw =
            |rng: &mut StdRng| (!stopped()).then(|| table.sites(&some_of(places, size, rng)));
        let mut stopwatch = |work: &mut dyn FnMut()| {
            let started = Instant::now();
            work();
            started.elapsed()
        };
        rows.push(measure(size, args.cases, args.seed, &mut draw, &mut stopwatch));
    }
    let all: Sites = table.sites(&(0..places).collect::<Vec<_>>());
    let mut rng = StdRng::seed_from_u64(args.seed);
    let guesses = if stopped() { Vec::new() } else { guesses(&all, &mut rng) };
    let complete = !stopped();
    let report = Report {
        bench: "grouping",
        command: super::command_line(),
        complete,
        machine: Machine::look(&std::env::temp_dir()),
        file: args.rtt.clone(),
        sites: places,
        rows,
        guesses,
    };
    output.show(&report)?;
    if let Some(path) = &args.json {
        super::write_json(path, &report)?;
    }
    let wrong: Vec<&String> = report.rows.iter().flat_map(|row| &row.wrong).collect();
    match wrong.first() {
        None => Ok(if complete { Exit::Done } else { Exit::Interrupted }),
        Some(first) => {
            Err(Failure::refused(format!("{} wrong answers, first: {first}", wrong.len())))
        }
    }
}

/// So many different places, rising.
fn some_of(places: usize, size: usize, rng: &mut StdRng) -> Vec<usize> {
    let mut all: Vec<usize> = (0..places).collect();
    for at in 0..size.min(places) {
        all.swap(at, rng.random_range(at..places));
    }
    all.truncate(size);
    all.sort_unstable();
    all
}

impl Answer for Report {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let percent = |value: f64| format!("{value:.2} %");
        let mut quality = Table::new(&[
            ">SITES",
            ">CASES",
            ">EXACT",
            ">DIAMETER",
            ">WORST",
            ">QUICK",
            ">WORST",
            ">BOUNDS KEPT",
            ">REFUSED",
            ">MEAN",
            ">WORST",
            ">EXACT",
        ])
        .titled("Above the exact least (diameter) or the best lower bound (mean)");
        let mut time = Table::new(&[
            ">SITES",
            ">DIAMETER p50",
            ">max",
            ">QUICK p50",
            ">max",
            ">YES/NO p50",
            ">max",
            ">MEAN p50",
            ">max",
        ])
        .titled("Time of one choice in milliseconds");
        for row in &self.rows {
            // Where the exact search gave up, only what the planner itself proved is known.
            let gap = if row.diameter.cases > 0 { row.diameter } else { row.diameter_proven };
            quality.row(vec![
                row.sites.to_string(),
                row.cases.to_string(),
                row.diameter.cases.to_string(),
                percent(gap.mean_percent),
                percent(gap.worst_percent),
                percent(row.diameter_quick.mean_percent),
                percent(row.diameter_quick.worst_percent),
                format!("{}/{}", row.bounds_kept, row.bounds_possible),
                format!("{}/{}", row.bounds_refused, row.bounds_impossible),
                percent(row.mean.mean_percent),
                percent(row.mean.worst_percent),
                row.mean_exact.to_string(),
            ]);
            let mut cells = vec![row.sites.to_string()];
            for times in [row.diameter_time, row.quick_time, row.bound_time, row.mean_time] {
                cells.push(format!("{:.2}", times.p50_us / 1_000.0));
                cells.push(format!("{:.2}", times.max_us / 1_000.0));
            }
            time.row(cells);
        }
        let mut guesses = Table::new(&[
            ">MEASURED",
            ">ESTIMATED PAIRS",
            ">OFF, MEDIAN",
            ">OFF, p90",
            ">OVER ITS HIGH",
        ])
        .titled(format!(
            "Estimates from coordinates of {} axes and a height, of pairs left out",
            scheduler_core::topology::DIMENSIONS
        ));
        for guess in &self.guesses {
            guesses.row(vec![
                percent(guess.measured_percent),
                guess.pairs.to_string(),
                percent(guess.off_median_percent),
                percent(guess.off_p90_percent),
                percent(guess.over_high_percent),
            ]);
        }
        let mut about = Table::fields();
        about.field("Command", &self.command);
        about.field("Machine", self.machine.line());
        vec![quality, time, guesses, about]
    }
}
