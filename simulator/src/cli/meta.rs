//! `meta`: the same seed twice gives the same events, byte by byte.
//!
//! **Invariant:** compares whole logs, not sums of them.

use super::{Ending, Error, run};
use crate::observe::EventLog;
use crate::scenario::text::Script;
use crate::world;
use std::io::Write;
use std::path::PathBuf;

/// What is compared when no file is named: all kinds of trouble in one run.
const EVERYTHING: &str = include_str!("../../scenarios/everything-at-once.txt");

/// `meta`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Scenario files; without any, one with all kinds of trouble that is built in.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Seeds to run, each twice: 0 to N - 1.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    let mut scripts = Vec::new();
    for file in &args.files {
        scripts.push((file.display().to_string(), run::read(file)?));
    }
    if scripts.is_empty() {
        let parsed = Script::parse(EVERYTHING);
        let script = parsed.map_err(|fault| Error::Refused(format!("built in: {fault}")))?;
        scripts.push(("everything-at-once".to_owned(), script));
    }
    let mut ending = Ending::Done;
    for (name, script) in &scripts {
        for seed in 0..args.seeds {
            let (first, second) = (log(script, seed)?, log(script, seed)?);
            if first == second {
                let (lines, bytes) = (lines(&first).count(), first.len());
                writeln!(
                    out,
                    "{name}, seed {seed}: {lines} events, {bytes} bytes, twice the same"
                )?;
                continue;
            }
            ending = Ending::Failed;
            let same = lines(&first).zip(lines(&second)).take_while(|(a, b)| a == b).count();
            writeln!(out, "{name}, seed {seed}: the logs differ from line {} on", same + 1)?;
        }
    }
    Ok(ending)
}

fn lines(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    log.split_inclusive(|byte| *byte == b'\n')
}

fn log(script: &Script, seed: u64) -> Result<Vec<u8>, Error> {
    let mut log = EventLog::new(Vec::new());
    let scenario = script.scenario(seed, format!("muster sim meta --seeds {}", seed + 1));
    world::run(&scenario, &mut log).map_err(|violation| Error::Refused(violation.to_string()))?;
    Ok(log.finish()?)
}
