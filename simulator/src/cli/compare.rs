//! `compare`: policies on the same trace with the same seeds, figure by figure.
//!
//! The first policy is what the others are held against; see [`crate::compare`] for the test.
//! **Invariant:** a difference is told with the odds of its coming about by chance.

use super::input::InputArgs;
use super::replay::policies;
use super::sweep::{SweepArgs, command, facts, finish};
use super::{Ending, Error};
use crate::compare::{Comparison, compare};
use crate::replay::cases;
use crate::replay::output::Head;
use crate::report::{Table, number_text, runs};
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;

/// Seeds, where their number is not given.
const SEEDS: u64 = 10;

/// `compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Policies; the first is what the others are compared with.
    #[arg(required = true, num_args = 2.., value_name = "POLICY")]
    policy: Vec<String>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    sweep: SweepArgs,
    /// Write the comparison to a file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What its document has after the head.
#[derive(Serialize)]
struct Body<'a> {
    test: &'static str,
    comparisons: &'a [Comparison],
}

pub(super) fn main(args: &Args, out: &mut dyn Write) -> Result<Ending, Error> {
    let policies = policies(&args.policy)?;
    let input = args.input.read()?;
    let seeds = args.sweep.seeds(SEEDS);
    let cases = cases(&policies, &seeds, args.sweep.loads());
    let made = args.sweep.run(&input, &cases)?;
    let comparisons = compare(&made, &policies);
    let table = table(&comparisons);
    write!(out, "{}", table.text())?;
    let command = command();
    let mut page = runs::page("Comparison", facts(&command, &args.input, &seeds), &made);
    page.tables.insert(0, table);
    args.sweep.write_page(&page)?;
    let head = Head::new(&command, made.len() == cases.len(), Some(args.input.told()));
    let test = "Wilcoxon signed-rank, two-sided";
    finish(args.json.as_deref(), head, Body { test, comparisons: &comparisons })
}

fn table(comparisons: &[Comparison]) -> Table {
    let mut table = Table::new(
        "Comparison",
        &["load", "figure", "policy", ">median", ">p25", ">p75", ">difference", ">pairs", ">p"],
        "Medians and quartiles over seeds; DIFFERENCE: median of what the policy has more than the \
         first one, seed by seed; P: the odds of a difference as lopsided by chance alone (signed \
         ranks of Wilcoxon, two-sided) over the PAIRS that differ.",
    );
    for one in comparisons {
        for told in &one.policies {
            let test = told.test.map_or_else(
                || [String::new(), String::new(), String::new()],
                |test| {
                    let p = format!("{:.2e}", test.p);
                    [number_text(test.median_difference, 3), test.pairs.to_string(), p]
                },
            );
            let mut row = vec![one.load.to_string(), one.figure.to_owned(), told.policy.to_owned()];
            row.extend([told.median, told.p25, told.p75].map(|value| number_text(value, 3)));
            row.extend(test);
            table.rows.push(row);
        }
    }
    table
}
