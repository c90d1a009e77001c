//! What `replay` and `compare` share: which trace on which nodes, how many runs of it, how they
//! are followed, and where the answers go.
//!
//! **Invariant:** progress goes to stderr, and only where a person looks; files are written whole.

use super::Error;
use crate::parallel;
use crate::replay::{Case, Input, Run, Watch, sweep};
use crate::report::Page;
use crate::trace::{BadRows, Source, TraceNode, nodes};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use signal_hook::consts::SIGINT;
use signal_hook::flag;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// CPU, memory and disk per GPU of nodes that are told by number: more than any trace's jobs ask
/// for, so that GPUs decide.
const CPU_MILLI_PER_GPU: u64 = 32_000;
const MEMORY_MIB_PER_GPU: u64 = 256 * 1_024;
/// Nodes told by number at most: what the state takes.
const NODES_MAX: u32 = 262_144;
/// How often bars move.
const TICK: Duration = Duration::from_millis(200);
/// The first seed, where none is given.
const SEED_FIRST: u64 = 42;
/// Exit code of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;
const BAR: &str = "{wide_bar} {percent:>3} %  {pos}/{len} jobs  {elapsed} gone, {eta} left";

/// What is replayed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct InputArgs {
    /// Jobs: FORMAT:FILE with one of the formats openb, philly, kalos, swf, jsonl; may be packed.
    #[arg(long, value_name = "FORMAT:FILE")]
    trace: Source,
    /// Nodes: a file with the columns of openb's or PAI's list, or numbers: 1250x8 are 1,250 nodes
    /// of 8 GPUs, 231x8,321x2 are of two kinds.
    #[arg(long, value_name = "FILE|NxG")]
    nodes: String,
    /// Leave out rows that cannot be read, and say how many.
    #[arg(long)]
    skip_bad: bool,
}

/// How often, and how it is told.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct SweepArgs {
    /// Seeds: of the order of nodes and of all draws; by default from 42 on.
    #[arg(long, value_delimiter = ',', value_name = "S,S")]
    seed: Vec<u64>,
    /// So many seeds from the first on.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    seeds: Option<u64>,
    /// Arrivals per time, as multiples of the trace's.
    #[arg(long, value_delimiter = ',', default_values_t = [1.0], value_name = "X,X", value_parser = load)]
    load: Vec<f64>,
    /// Threads; by default one for each core. Results do not depend on it.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_024))]
    threads: Option<u32>,
    /// Write the page with tables and charts to a file; it needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the charts as SVG files to a folder.
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

fn load(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(load) if (0.01..=10_000.0).contains(&load) => Ok(load),
        _ => Err("is not a number from 0.01 to 10000".to_owned()),
    }
}

impl InputArgs {
    pub(super) fn read(&self) -> Result<Input, Error> {
        let mut bad = if self.skip_bad { BadRows::skip() } else { BadRows::refuse() };
        let usage = |error: &dyn std::fmt::Display| Error::Usage(error.to_string());
        let trace = self.trace.read(&mut bad).map_err(|error| usage(&error))?;
        let nodes = match by_number(&self.nodes) {
            Some(nodes) => nodes,
            None => nodes::read(Path::new(&self.nodes), &mut bad).map_err(|error| usage(&error))?,
        };
        if bad.skipped > 0 {
            eprintln!("{} rows could not be read and are left out; the first:", bad.skipped);
            bad.first.iter().for_each(|row| eprintln!("  {row}"));
        }
        let ran = trace.jobs.iter().filter(|job| job.duration.is_some()).count();
        if ran < trace.jobs.len() {
            eprintln!("{} jobs never ran in the trace and are left out", trace.jobs.len() - ran);
        }
        Ok(Input { nodes, jobs: trace.jobs, rtts: trace.rtts })
    }

    pub(super) fn trace(&self) -> String {
        self.trace.to_string()
    }

    pub(super) fn nodes(&self) -> &str {
        &self.nodes
    }
}

/// What a page says of where it comes from.
pub(super) fn facts(command: &str, input: &InputArgs, seeds: &[u64]) -> Vec<(String, String)> {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    [
        ("command", command.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("trace", input.trace.to_string()),
        ("nodes", input.nodes.clone()),
        ("seeds", seeds.join(", ")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec()
}

/// `1250x8,10x2` as nodes; `None` if it is something else.
fn by_number(text: &str) -> Option<Vec<TraceNode>> {
    let mut nodes = Vec::new();
    for part in text.split(',') {
        let (count, gpus) = part.split_once('x')?;
        let (count, gpus) = (count.parse::<u32>().ok()?, gpus.parse::<u8>().ok()?);
        if count > NODES_MAX || gpus > 64 {
            return None;
        }
        nodes.extend((0..count).map(|number| TraceNode {
            name: format!("node-{gpus}x-{number}"),
            cpu_milli: CPU_MILLI_PER_GPU * u64::from(gpus.max(1)),
            memory_mib: MEMORY_MIB_PER_GPU * u64::from(gpus.max(1)),
            gpus: u32::from(gpus),
            model: "gpu".to_owned(),
            ..TraceNode::default()
        }));
    }
    Some(nodes)
}

impl SweepArgs {
    /// The seeds to run; `usual` many if neither seeds nor their number are given.
    pub(super) fn seeds(&self, usual: u64) -> Vec<u64> {
        if self.seed.is_empty() {
            let first = SEED_FIRST;
            return (first..first + self.seeds.unwrap_or(usual)).collect();
        }
        match (self.seeds, self.seed.as_slice()) {
            (Some(count), [first, ..]) => (*first..first.saturating_add(count)).collect(),
            (_, seeds) => seeds.to_vec(),
        }
    }

    pub(super) fn loads(&self) -> &[f64] {
        &self.load
    }

    /// Runs the cases, with a bar where a person looks; Ctrl-C ends it with what there is.
    pub(super) fn run(&self, input: &Input, cases: &[Case]) -> Result<Vec<Run>, Error> {
        let threads = self.threads.map_or_else(parallel::cores, |threads| threads as usize);
        let (stop, bar) = (until_ctrl_c()?, bar(input.jobs.len() as u64 * cases.len() as u64));
        let watch = Watch { arrived: &|| bar.inc(1), stop: &stop };
        let runs = sweep(input, cases, threads, watch);
        bar.finish_and_clear();
        let runs = runs.map_err(|error| Error::Refused(error.to_string()))?;
        if runs.len() < cases.len() {
            eprintln!("stopped: {} of {} runs were made", runs.len(), cases.len());
        }
        Ok(runs)
    }

    /// Writes the page and its charts where that was asked for.
    pub(super) fn write_page(&self, page: &Page) -> Result<(), Error> {
        if let Some(file) = &self.html {
            write(file, &page.html())?;
        }
        if let Some(dir) = &self.svg {
            std::fs::create_dir_all(dir).map_err(|error| cannot(dir, &error))?;
            for (name, svg) in page.svgs() {
                write(&dir.join(name), &svg)?;
            }
        }
        Ok(())
    }
}

/// The command as it was given, with the program's own name.
pub(super) fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program.as_str()).file_name();
        *program = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    }
    words.join(" ")
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(file, text).map_err(|error| cannot(file, &error))
}

pub(super) fn write_json(file: &Path, document: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(document)
        .map_err(|error| Error::Refused(format!("cannot write JSON: {error}")))?;
    write(file, &(text + "\n"))
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::Refused(format!("cannot write {}: {error}", path.display()))
}

/// Is set by the first Ctrl-C; whoever presses it twice means it, and ends the program.
pub(super) fn until_ctrl_c() -> Result<Arc<AtomicBool>, Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let listen = || {
        flag::register_conditional_shutdown(SIGINT, INTERRUPTED, Arc::clone(&stop))?;
        flag::register(SIGINT, Arc::clone(&stop))
    };
    listen().map_err(|error| Error::Refused(format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(stop)
}

/// A bar up to `all` on stderr, if that is a terminal.
pub(super) fn bar(all: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(BAR) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}
