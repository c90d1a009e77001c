//! `replay`: a trace through the production planner, for every policy, seed and load.
//!
//! The document that `--json` writes is described in [`crate::replay::output`].
//! **Invariant:** the same arguments give the same document but for the parts named `wall`.

use super::input::InputArgs;
use super::sweep::{SweepArgs, command, facts, finish, write};
use super::{Ending, Error};
use crate::replay::cases;
use crate::replay::output::{Head, Runs, csv};
use crate::report::runs;
use scheduler_core::plan::Policy;
use std::io::Write;
use std::path::PathBuf;

/// `replay`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Policies that choose a node for single replicas; `all` runs every one.
    #[arg(long, value_delimiter = ',', default_value = "foresight", value_name = "P,P")]
    policy: Vec<String>,
    #[command(flatten)]
    sweep: SweepArgs,
    /// Write all runs with all their figures to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a row for every run and size class to a file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    let policies = policies(&args.policy)?;
    let input = args.input.read()?;
    let seeds = args.sweep.seeds(1);
    let cases = cases(&policies, &seeds, args.sweep.loads());
    let runs = args.sweep.run(&input, &cases)?;
    let command = command();
    let page = runs::page("Replay", facts(&command, &args.input, &seeds), &runs);
    write!(out, "{}", page.text())?;
    args.sweep.write_page(&page)?;
    if let Some(file) = &args.csv {
        write(file, &csv(&runs))?;
    }
    let head = Head::new(&command, runs.len() == cases.len(), Some(args.input.told()));
    finish(args.json.as_deref(), head, Runs { runs: &runs })
}

/// Policies by name; `all` stands for every one.
pub(super) fn policies(names: &[String]) -> Result<Vec<Policy>, Error> {
    let mut policies = Vec::new();
    for name in names {
        match name.as_str() {
            "all" => policies.extend(Policy::ALL),
            name => policies.push(
                name.parse().map_err(|error| Error::Usage(format!("--policy {name}: {error}")))?,
            ),
        }
    }
    Ok(policies)
}

#[cfg(test)]
mod tests;
