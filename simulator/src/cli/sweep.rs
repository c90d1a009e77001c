//! What commands of many runs share: how many runs there are, how they are followed, and
//! where the answers go.
//!
//! **Invariant:** progress goes to stderr, and only where a person looks; files are written whole.

use super::input::InputArgs;
use super::{Ending, Error};
use crate::replay::output::{Document, Head};
use crate::replay::{Case, Input, Run, Watch, sweep};
use crate::report::Page;
use crate::{interrupt, parallel};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How often bars move.
const TICK: Duration = Duration::from_millis(200);
/// The first seed, where none is given.
const SEED_FIRST: u64 = 42;
const BAR: &str = "{wide_bar} {percent:>3} %  {pos}/{len} {msg}  {elapsed} gone, {eta} left";

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

/// What a page says of where it comes from.
pub(super) fn facts(command: &str, input: &InputArgs, seeds: &[u64]) -> Vec<(String, String)> {
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let told = input.told();
    let always = [
        ("command", command.to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("trace", told.trace),
        ("nodes", told.nodes),
        ("seeds", seeds.join(", ")),
    ];
    let more = [
        ("faults", told.faults),
        ("spot nodes", told.spot),
        ("prices", told.prices),
        ("round trips", told.rtt),
    ];
    let more = more.into_iter().filter_map(|(name, value)| Some((name, value?)));
    always.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect()
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
        let ran = input.jobs.iter().filter(|job| job.duration.is_some()).count();
        let arrivals = ran as u64 * cases.len() as u64;
        let (stop, bar) = (until_ctrl_c()?, bar(arrivals, "jobs"));
        let watch = Watch { arrived: &|| bar.inc(1), stop: &stop };
        let runs = sweep(input, cases, threads, watch);
        bar.finish_and_clear();
        let runs = runs.map_err(|error| Error::Refused(error.to_string()))?;
        tell_stopped(runs.len(), cases.len());
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

/// A word of a command line, as a shell takes it for one.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "-_./:,=+@%".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The command as it was given, with the program's own name.
pub(super) fn command() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        let name = Path::new(program.as_str()).file_name();
        *program = name.map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    }
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

pub(super) fn write(file: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(file, text).map_err(|error| cannot(file, &error))
}

/// How a command of many runs ends. Writes `body` after the head where a file is asked for.
pub(super) fn finish(
    file: Option<&Path>,
    head: Head<'_>,
    body: impl Serialize,
) -> Result<Ending, Error> {
    let complete = head.complete;
    if let Some(file) = file {
        write_json(file, &Document { head, body })?;
    }
    Ok(Ending::of_sweep(complete))
}

pub(super) fn write_json(file: &Path, document: &impl Serialize) -> Result<(), Error> {
    let text = serde_json::to_string(document)
        .map_err(|error| Error::Refused(format!("cannot write JSON: {error}")))?;
    write(file, &(text + "\n"))
}

fn cannot(path: &Path, error: &std::io::Error) -> Error {
    Error::Refused(format!("cannot write {}: {error}", path.display()))
}

/// Is set by the first Ctrl-C.
pub(super) fn until_ctrl_c() -> Result<Arc<AtomicBool>, Error> {
    interrupt::until_ctrl_c()
        .map_err(|error| Error::Refused(format!("cannot listen for Ctrl-C: {error}")))
}

/// Says so if a sweep was ended early.
pub(super) fn tell_stopped(made: usize, all: usize) {
    if made < all {
        eprintln!("stopped: {made} of {all} runs were made");
    }
}

/// A bar up to `all` of something on stderr, if that is a terminal.
pub(super) fn bar(all: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(all), ProgressDrawTarget::stderr());
    bar.set_message(what);
    if let Ok(style) = ProgressStyle::with_template(BAR) {
        bar.set_style(style.progress_chars("━╸─"));
    }
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}
