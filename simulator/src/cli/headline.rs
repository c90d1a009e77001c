//! `headline`: 10,000 GPUs out of a fleet that spans the world, from request to ready, over many
//! seeds, and what each of the things that hold it up costs.
//!
//! The fleet stands at the places of a file of RTTs: of 100 nodes 82 are data-centre machines of 8
//! GPUs, 18 community machines of one. Half of the places have a network of homes (20 ms more one
//! way, 1 % of messages lost). The job is 1,150 x 8 GPUs anywhere and 800 x 1 on community
//! machines, no two members more than a bound apart. Images take 20 to 60 s, processes about 4 s,
//! 2 % of starts fail at their end, 1 % take three times as long. Each variant takes one of these
//! away, or adds something: spares, other work on the fleet. `case` has the worlds.
//! **Invariant:** every variant is run with the same seeds.

mod case;

use super::sweep::{bar, command, finish, tell_stopped, until_ctrl_c, write};
use super::{Ending, Error};
use crate::compare::ranks::quantile;
use crate::metrics::{BringUp, Metrics};
use crate::observe::{Observer, Seen};
use crate::parallel;
use crate::replay::output::{Head, Runs};
use crate::report::chart::{Body, Line, Scale};
use crate::report::{Chart, Kind, Page, Table, number_text, runs};
use crate::world;
use case::{Base, GIVE_UP, Variant};
use clap::ValueEnum;
use scheduler_core::id::JobId;
use scheduler_core::job::{JobPhase, Reason};
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// `headline`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// RTTs between places: pairs (src, dst, avg_ms, …) or a square; may be packed.
    #[arg(long, value_name = "FILE")]
    rtt: PathBuf,
    /// Nodes of the fleet.
    #[arg(long, default_value_t = 69_000, value_parser = clap::value_parser!(u32).range(10_000..=262_144))]
    nodes: u32,
    /// Runs of every variant, with seeds from 0 on.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: u64,
    /// Variants to run; by default all on a fleet that is empty, as a full one takes ten times as
    /// long to simulate.
    #[arg(long, value_delimiter = ',', value_enum, value_name = "V,V")]
    variant: Vec<Variant>,
    /// Largest RTT between two members, in milliseconds.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_rtt_ms: u32,
    /// Threads; by default one for each core.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    threads: Option<u32>,
    /// Write all times to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page with tables and charts to a file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    variant: Variant,
    seed: u64,
    /// `None` = not within an hour.
    ready_s: Option<f64>,
    starts_failed: u64,
    /// Why it was not placed, if it never was.
    waits: Option<String>,
    #[serde(skip)]
    up: Option<BringUp>,
}

impl Run {
    /// Seconds until it was ready, an hour where it was not.
    fn counted_s(&self) -> f64 {
        self.ready_s.unwrap_or(GIVE_UP.0 as f64 / 1_000.0)
    }
}

/// Gathers until the job is ready for the first time.
struct UntilReady<'a> {
    metrics: Metrics,
    /// Its arrival, and what the log calls it.
    wanted: usize,
    job: Option<JobId>,
    starts_failed: u64,
    waits: Option<String>,
    ready: Option<TimeMs>,
    stop: &'a AtomicBool,
}

impl Observer for UntilReady<'_> {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        match seen {
            Seen::Submitted { job, arrival } if arrival == self.wanted => {
                self.job = Some(job);
                // Why it waits was told before its number was.
                self.waits = state.job(job).and_then(|job| waits(&job.reason));
            }
            Seen::Failed { job, .. } if self.job == Some(job) => self.starts_failed += 1,
            Seen::Waiting { job, reason } if self.job == Some(job) => {
                self.waits = waits(reason);
            }
            Seen::Bound { job, .. } if self.job == Some(job) => self.waits = None,
            Seen::Phase { job, to: JobPhase::Ready, .. } if self.job == Some(job) => {
                self.ready = Some(at);
            }
            _ => {}
        }
        self.metrics.saw(at, seen, state);
    }

    fn stops(&self) -> bool {
        self.ready.is_some() || self.stop.load(Ordering::Relaxed)
    }
}

fn waits(reason: &Reason) -> Option<String> {
    (*reason != Reason::default()).then(|| reason.message.to_string())
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    let base = case::base(args)?;
    let variants: Vec<Variant> = match args.variant.as_slice() {
        [] => Variant::value_variants().iter().copied().filter(|one| one.is_usual()).collect(),
        asked => asked.to_vec(),
    };
    let cases: Vec<(Variant, u64)> =
        variants.iter().flat_map(|&one| (0..args.seeds).map(move |seed| (one, seed))).collect();
    let threads = args.threads.map_or_else(parallel::cores, |threads| threads as usize);
    let (stop, bar) = (until_ctrl_c()?, bar(cases.len() as u64, "runs"));
    let made = parallel::run(
        &cases,
        threads,
        &stop,
        |&(variant, seed)| one(&base, variant, seed, &stop),
        |_| bar.inc(1),
    );
    bar.finish_and_clear();
    let made = made.map_err(|error| Error::Refused(error.to_string()))?;
    tell_stopped(made.len(), cases.len());
    let command = command();
    let page = page(&made, &variants, &command);
    write!(out, "{}", page.text())?;
    if let Some(file) = &args.html {
        write(file, &page.html())?;
    }
    let head = Head::new(&command, made.len() == cases.len(), None);
    finish(args.json.as_deref(), head, Runs { runs: &made })
}

fn one(
    base: &Base,
    variant: Variant,
    seed: u64,
    stop: &AtomicBool,
) -> Result<Option<Run>, world::Violation> {
    let scenario = case::scenario(base, variant, seed);
    let wanted = scenario.arrivals.len().saturating_sub(1);
    let asked = scenario.arrivals.last().map_or(TimeMs::ZERO, |arrival| arrival.at);
    let mut watched = UntilReady {
        metrics: Metrics::default(),
        wanted,
        job: None,
        starts_failed: 0,
        waits: None,
        ready: None,
        stop,
    };
    let report = world::run(&scenario, &mut watched)?;
    if watched.ready.is_none() && stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    watched.metrics.finish(report.ended_at);
    // Nothing else in the world is as large.
    let up = watched.ready.and_then(|_| watched.metrics.figures().bring_ups.first().copied());
    Ok(Some(Run {
        variant,
        seed,
        ready_s: watched.ready.map(|ready| ready.since(asked).0 as f64 / 1_000.0),
        starts_failed: watched.starts_failed,
        waits: watched.waits,
        up,
    }))
}

fn page(made: &[Run], variants: &[Variant], command: &str) -> Page {
    let goal = runs::READY_GOAL_S;
    let of = |variant: Variant| made.iter().filter(move |run| run.variant == variant);
    // Those that Ctrl-C came before have nothing to tell.
    let told = variants.iter().copied().filter(|&variant| of(variant).next().is_some());
    let lines = told.map(|variant| ready_line(of(variant), variant)).collect();
    let chart = Chart {
        title: "Time from request to ready".to_owned(),
        x: Scale::new("since the request", Kind::Time),
        body: Body::Lines { y: Scale::new("runs", Kind::Percent), lines },
        limit: Some((goal, format!("{goal} s"))),
    };
    let first: Vec<BringUp> =
        variants.iter().filter_map(|&variant| of(variant).next()?.up).collect();
    let seeds = made.iter().map(|run| run.seed).max().map_or(0, |last| last + 1);
    let facts = [
        ("command", command.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("seeds", format!("0 to {}", seeds.saturating_sub(1))),
    ];
    Page {
        title: "10,000 GPUs around the world".to_owned(),
        facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        tables: vec![table(made, variants)],
        charts: vec![
            chart,
            runs::waterfall(
                "The first seed of every variant that became ready, in the table's order",
                &first,
            ),
        ],
    }
}

/// A row for every variant that was run.
fn table(made: &[Run], variants: &[Variant]) -> Table {
    let mut table = Table::new(
        "10,000 GPUs from request to ready",
        &[
            "variant",
            ">runs",
            ">ready",
            ">within 90 s %",
            ">p50 s",
            ">p90",
            ">p99",
            ">worst",
            ">failed starts",
            ">less s",
        ],
        "Over seeds; FAILED STARTS: median until ready. A run that was not ready within an hour \
         counts as an hour. LESS: what it is quicker than the first variant by, median over seeds.",
    );
    let of = |variant: Variant| made.iter().filter(move |run| run.variant == variant);
    for &variant in variants.iter().filter(|&&variant| of(variant).next().is_some()) {
        let times: Vec<f64> = of(variant).map(Run::counted_s).collect();
        let count = times.len().max(1) as f64;
        let ready = of(variant).filter_map(|run| run.ready_s);
        let within = ready.clone().filter(|time| *time <= runs::READY_GOAL_S).count() as f64;
        let failed: Vec<f64> = of(variant).map(|run| run.starts_failed as f64).collect();
        let less = variants.first().map(|&first| {
            let pairs = of(first).flat_map(|one| {
                let same = of(variant).find(|run| run.seed == one.seed);
                same.map(|run| one.counted_s() - run.counted_s())
            });
            quantile(&pairs.collect::<Vec<f64>>(), 0.5)
        });
        let mut row = vec![variant.name(), times.len().to_string()];
        row.push(ready.count().to_string());
        row.push(number_text(within * 100.0 / count, 1));
        row.extend([0.5, 0.9, 0.99, 1.0].map(|share| number_text(quantile(&times, share), 1)));
        row.push(number_text(quantile(&failed, 0.5), 0));
        row.push(number_text(less.unwrap_or(0.0), 1));
        table.rows.push(row);
    }
    table
}

/// How many of a variant's runs were ready by when.
fn ready_line<'a>(runs: impl Iterator<Item = &'a Run> + Clone, variant: Variant) -> Line {
    let count = runs.clone().count().max(1) as f64;
    let mut ready: Vec<f64> = runs.filter_map(|run| run.ready_s).collect();
    ready.sort_by(f64::total_cmp);
    let points =
        ready.iter().zip(1u32..).map(|(time, rank)| (*time, f64::from(rank) * 100.0 / count));
    Line { name: variant.name(), points: points.collect(), steps: true }
}
