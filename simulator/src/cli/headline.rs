//! `headline`: 10,000 GPUs out of a fleet that spans the world, from request to ready, over many
//! seeds, and what each of the things that hold it up costs.
//!
//! The fleet stands at the places of a file of RTTs: of 100 nodes 82 are data-centre machines of 8
//! GPUs, 18 community machines of one. Half of the places have a network of homes (20 ms more one
//! way, 1 % of messages lost). The job is 1,150 x 8 GPUs anywhere and 800 x 1 on community
//! machines, no two members more than a bound apart. Images take 20 to 60 s, processes about 4 s,
//! 2 % of starts fail at their end, 1 % take three times as long. Each variant takes one of these
//! away.
//! **Invariant:** the fleet is the same for all seeds and variants; a seed decides the draws.

use super::sweep::{bar, command, until_ctrl_c, write, write_json};
use super::{Ending, Error};
use crate::compare::ranks::quantile;
use crate::metrics::{BringUp, Metrics};
use crate::observe::{Observer, Seen};
use crate::parallel;
use crate::report::chart::{Body, Line, Scale};
use crate::report::{Chart, Kind, Page, Table, number_text, runs};
use crate::scenario::{Arrival, Latency, NetworkModel, Scenario, SiteNetwork, StartModel};
use crate::trace::BadRows;
use crate::trace::rtt::RttTable;
use crate::world;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::command::SiteRtt;
use scheduler_core::fixture::entry::{group, job_spec, name, node_spec};
use scheduler_core::job::{Condition, GroupSpec, JobPhase, JobSpec, Selector};
use scheduler_core::node::{NodeSpec, Place};
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, RttUs, TimeMs};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Of all nodes, those that are community machines.
const COMMUNITY_PERCENT: u32 = 18;
/// Members on data-centre machines of 8 GPUs, and on community machines of one.
const MACHINES: u32 = 1_150;
const HOMES: u32 = 800;
/// Spare members, where there are any.
const SPARE_PERCENT: u32 = 4;
/// Whoever is not ready then never will be.
const GIVE_UP: TimeMs = TimeMs(3_600_000);
const FLEET_SEED: u64 = 7;

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
    /// Variants to run; by default all.
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

/// What is taken away from the world, or added to the job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Variant {
    /// Nothing: lost members are replaced.
    Replaced,
    /// 4 % more members than needed.
    Spares,
    /// No start fails.
    NoFailures,
    /// No start takes longer than the others.
    NoStragglers,
    /// The images are there already.
    ImagesThere,
    /// Images take 5 to 15 s.
    QuickImages,
}

#[derive(Clone, Debug, Serialize)]
struct Run {
    variant: Variant,
    seed: u64,
    /// `None` = not within an hour.
    ready_s: Option<f64>,
    starts_failed: u64,
    #[serde(skip)]
    up: Option<BringUp>,
}

/// Gathers until the job is ready for the first time.
struct UntilReady<'a> {
    metrics: Metrics,
    ready: bool,
    stop: &'a std::sync::atomic::AtomicBool,
}

impl Observer for UntilReady<'_> {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        self.ready |= matches!(seen, Seen::Phase { to: JobPhase::Ready, .. });
        self.metrics.saw(at, seen, state);
    }

    fn stops(&self) -> bool {
        self.ready || self.stop.load(Ordering::Relaxed)
    }
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    let base = base(args)?;
    let all = [
        Variant::Replaced,
        Variant::Spares,
        Variant::NoFailures,
        Variant::NoStragglers,
        Variant::ImagesThere,
        Variant::QuickImages,
    ];
    let variants = if args.variant.is_empty() { all.to_vec() } else { args.variant.clone() };
    let cases: Vec<(Variant, u64)> =
        variants.iter().flat_map(|&one| (0..args.seeds).map(move |seed| (one, seed))).collect();
    let threads = args.threads.map_or_else(parallel::cores, |threads| threads as usize);
    let (stop, bar) = (until_ctrl_c()?, bar(cases.len() as u64));
    let made = parallel::run(
        &cases,
        threads,
        |&(variant, seed)| {
            if stop.load(Ordering::Relaxed) { Ok(None) } else { one(&base, variant, seed, &stop) }
        },
        |_| bar.inc(1),
    );
    bar.finish_and_clear();
    let made: Vec<Run> =
        made.map_err(|error| Error::Refused(error.to_string()))?.into_iter().flatten().collect();
    let page = page(&made, &variants);
    write!(out, "{}", page.text())?;
    if let Some(file) = &args.html {
        write(file, &page.html())?;
    }
    if let Some(file) = &args.json {
        write_json(file, &made)?;
    }
    Ok(if made.len() == cases.len() { Ending::Done } else { Ending::Failed })
}

/// The world without anything taken away.
fn base(args: &Args) -> Result<Scenario, Error> {
    let mut bad = BadRows::refuse();
    let table =
        RttTable::read(&args.rtt, &mut bad).map_err(|error| Error::Usage(error.to_string()))?;
    let site = |number: usize| name(&format!("site-{number}"));
    let places = table.places.len();
    let mut rtts = Vec::new();
    for a in 0..places {
        for b in 0..a {
            if let Some((rtt, rtt_high)) = table.rtt(a, b) {
                rtts.push(SiteRtt { a: site(a), b: site(b), rtt, rtt_high, samples: 0 });
            }
        }
    }
    let home_network = |number: usize| SiteNetwork {
        site: site(number),
        one_way: Latency::Lognormal { median: DurationMs(20), sigma_milli: 500 },
        loss_ppm: 10_000,
    };
    let network = NetworkModel {
        home: Some(site(0)),
        sites: (0..places).filter(|number| number % 2 == 1).map(home_network).collect(),
        ..NetworkModel::default()
    };
    let start = StartModel {
        image: Latency::Uniform { min: DurationMs(20_000), max: DurationMs(60_000) },
        process: Latency::Lognormal { median: DurationMs(4_000), sigma_milli: 500 },
        failing_ppm: 20_000,
        straggling_ppm: 10_000,
        straggling_times: 3,
        stop: Latency::ZERO,
    };
    let rtt_max = RttUs(args.max_rtt_ms.saturating_mul(1_000));
    Ok(Scenario {
        nodes: fleet(args.nodes, places),
        rtts,
        arrivals: vec![Arrival { at: TimeMs::ZERO, spec: Arc::new(job(0, rtt_max)), life: None }],
        network,
        start,
        until: Some(GIVE_UP),
        check_every: crate::replay::CHECK_EVERY,
        replay: command(),
        ..Scenario::default()
    })
}

fn fleet(nodes: u32, places: usize) -> Vec<NodeSpec> {
    let mut rng = StdRng::seed_from_u64(FLEET_SEED);
    let all = name("all");
    (0..nodes)
        .map(|number| {
            let community = rng.random_range(0..100) < COMMUNITY_PERCENT;
            let mut spec = node_spec(&format!("node-{number}"), if community { 1 } else { 8 });
            let site = name(&format!("site-{}", rng.random_range(0..places)));
            spec.place = Place { region: all.clone(), zone: all.clone(), site, rack: all.clone() };
            let class = if community { "community" } else { "data-centre" };
            spec.labels.insert(crate::trace::specs::CLASS_LABEL.into(), class.into());
            spec
        })
        .collect()
}

/// The job, with so many per cent of spare members.
fn job(spare_percent: u32, rtt_max: RttUs) -> JobSpec {
    let members = |called: &str, replicas: u32, gpus: u8| {
        let more = replicas + replicas * spare_percent / 100;
        GroupSpec { replicas_min: replicas, replicas_max: more, ..group(called, more, gpus) }
    };
    let mut homes = members("homes", HOMES, 1);
    homes.selectors = vec![Selector {
        key: crate::trace::specs::CLASS_LABEL.into(),
        condition: Condition::In(vec!["community".into()]),
    }];
    let spec = job_spec(vec![members("machines", MACHINES, 8), homes]);
    JobSpec { rtt_max: Some(rtt_max), ..spec }
}

fn one(
    base: &Scenario,
    variant: Variant,
    seed: u64,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<Option<Run>, world::Violation> {
    let mut scenario = Scenario { seed, ..base.clone() };
    match variant {
        Variant::Replaced => {}
        Variant::Spares => {
            for arrival in &mut scenario.arrivals {
                let rtt_max = arrival.spec.rtt_max.unwrap_or_default();
                arrival.spec = Arc::new(job(SPARE_PERCENT, rtt_max));
            }
        }
        Variant::NoFailures => scenario.start.failing_ppm = 0,
        Variant::NoStragglers => scenario.start.straggling_ppm = 0,
        Variant::ImagesThere => scenario.start.image = Latency::ZERO,
        Variant::QuickImages => {
            scenario.start.image =
                Latency::Uniform { min: DurationMs(5_000), max: DurationMs(15_000) };
        }
    }
    let mut watched = UntilReady { metrics: Metrics::default(), ready: false, stop };
    let report = world::run(&scenario, &mut watched)?;
    if !watched.ready && stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    watched.metrics.finish(report.ended_at);
    let figures = watched.metrics.figures();
    Ok(Some(Run {
        variant,
        seed,
        ready_s: watched.ready.then_some(figures.ready_s.max),
        starts_failed: figures.starts_failed,
        up: figures.bring_ups.first().copied(),
    }))
}

fn page(made: &[Run], variants: &[Variant]) -> Page {
    let goal = runs::READY_GOAL_S;
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
        ],
        "Over seeds; FAILED STARTS: median until ready. A run that was not ready within an hour \
         counts as an hour.",
    );
    let mut lines = Vec::new();
    for &variant in variants {
        let own: Vec<&Run> = made.iter().filter(|run| run.variant == variant).collect();
        let give_up = GIVE_UP.0 as f64 / 1_000.0;
        let mut times: Vec<f64> = own.iter().map(|run| run.ready_s.unwrap_or(give_up)).collect();
        times.sort_by(f64::total_cmp);
        let count = times.len().max(1) as f64;
        let within = times.iter().filter(|time| **time <= goal).count() as f64;
        let failed: Vec<f64> = own.iter().map(|run| run.starts_failed as f64).collect();
        let called = variant_name(variant);
        let mut row = vec![called.clone(), own.len().to_string()];
        row.push(own.iter().filter(|run| run.ready_s.is_some()).count().to_string());
        row.push(number_text(within * 100.0 / count, 1));
        row.extend([0.5, 0.9, 0.99, 1.0].map(|share| number_text(quantile(&times, share), 1)));
        row.push(number_text(quantile(&failed, 0.5), 0));
        table.rows.push(row);
        let points =
            times.iter().zip(1u32..).map(|(time, rank)| (*time, f64::from(rank) * 100.0 / count));
        lines.push(Line { name: called, points: points.collect(), steps: true });
    }
    let chart = Chart {
        title: "Time from request to ready".to_owned(),
        x: Scale::new("since the request", Kind::Time),
        body: Body::Lines { y: Scale::new("runs", Kind::Percent), lines },
        limit: Some((goal, format!("{goal} s"))),
    };
    let first: Vec<BringUp> = variants
        .iter()
        .filter_map(|&variant| made.iter().find(|run| run.variant == variant)?.up)
        .collect();
    let facts = [("command", command()), ("version", env!("CARGO_PKG_VERSION").to_owned())];
    Page {
        title: "10,000 GPUs around the world".to_owned(),
        facts: facts.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        tables: vec![table],
        charts: vec![
            chart,
            runs::waterfall("The first seed of every variant, in the table's order", &first),
        ],
    }
}

fn variant_name(variant: Variant) -> String {
    use clap::ValueEnum;
    variant.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}
