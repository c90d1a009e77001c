//! `meta`: the same seed twice gives the same events, byte by byte.
//!
//! **Invariant:** compares whole logs, not sums of them.

use super::{Ending, Error};
use crate::observe::EventLog;
use crate::scenario::Scenario;
use crate::world;
use scheduler_core::fixture::entry::{group, job_spec};
use scheduler_core::fixture::fleet::Fleet;
use scheduler_core::unit::DurationMs;
use std::io::Write;
use std::sync::Arc;

/// `meta`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Seeds to run, each twice: 0 to N - 1.
    #[arg(long, default_value_t = 4, value_name = "N")]
    seeds: u64,
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    let mut ending = Ending::Done;
    for seed in 0..args.seeds {
        let scenario = mixed(seed);
        let (first, second) = (log(&scenario)?, log(&scenario)?);
        if first == second {
            writeln!(out, "seed {seed}: {} bytes of events, twice the same", first.len())?;
            continue;
        }
        ending = Ending::Failed;
        let lines = first.split(|b| *b == b'\n').zip(second.split(|b| *b == b'\n'));
        let at = lines.take_while(|(a, b)| a == b).count() + 1;
        writeln!(out, "seed {seed}: the logs differ from line {at} on")?;
    }
    Ok(ending)
}

fn log(scenario: &Scenario) -> Result<Vec<u8>, Error> {
    let mut log = EventLog::new(Vec::new());
    world::run(scenario, &mut log).map_err(|violation| Error::Refused(violation.to_string()))?;
    Ok(log.finish()?)
}

/// Some of everything on a small fleet.
fn mixed(seed: u64) -> Scenario {
    let fleet = Fleet::new(60, 6, seed);
    let gang = |n: u32| {
        let gpus = u8::try_from(1 + n % 4).unwrap_or(1);
        Arc::new(job_spec(vec![group("workers", 1 + n % 7, gpus)]))
    };
    let specs = (0..120).map(gang).collect();
    let (span, life) = (DurationMs(20_000), DurationMs(8_000));
    let mut scenario = Scenario::random(seed, fleet.nodes, specs, 12, span, life);
    scenario.rtts = fleet.rtts;
    scenario
}
