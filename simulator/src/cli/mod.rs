//! The commands of the simulator, for `muster sim` and for the `simulator` program alike.
//!
//! **Invariant:** data goes to the writer given, everything else to stderr by the caller; a verb's
//! arguments and what it does live in one file.

mod bench;
mod compare;
mod generate;
mod headline;
mod input;
mod meta;
mod replay;
mod run;
mod sweep;

use clap::Subcommand;
use std::io::Write;

/// What to simulate.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Run scenarios from files and judge them by what they expect.
    #[command(after_long_help = crate::scenario::text::GRAMMAR)]
    Run(run::Args),
    /// Make jobs, fleets and faults from a seed, or change traces.
    Gen(generate::Args),
    /// Run scenarios twice and compare their event logs byte by byte.
    Meta(meta::Args),
    /// Run a trace through the planner, for every policy, seed and load.
    Replay(replay::Args),
    /// Run policies on the same trace with the same seeds and tell where they differ.
    Compare(compare::Args),
    /// 10,000 GPUs out of a fleet around the world, from request to ready, over many seeds.
    Headline(headline::Args),
    /// How many jobs of made load a process gets through in a second.
    Bench(bench::Args),
}

/// How a verb ended that did what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    Done,
    /// It ran, and what it was to show is not so.
    Failed,
    /// Ctrl-C ended it; what there was is written.
    Interrupted,
}

impl Ending {
    /// A sweep is cut short by Ctrl-C alone.
    fn of_sweep(complete: bool) -> Self {
        if complete { Self::Done } else { Self::Interrupted }
    }
}

/// Why a verb could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The arguments, or a file that they name.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Refused(String),
    #[error("cannot write the answer: {0}")]
    Write(#[from] std::io::Error),
}

/// Runs a verb; its answer goes to `out`.
pub fn main(verb: &Verb, out: &mut dyn Write) -> Result<Ending, Error> {
    match verb {
        Verb::Run(args) => run::main(args, out),
        Verb::Gen(args) => generate::main(args, out),
        Verb::Meta(args) => meta::main(args, out),
        Verb::Replay(args) => replay::main(args, out),
        Verb::Compare(args) => compare::main(args, out),
        Verb::Headline(args) => headline::main(args, out),
        Verb::Bench(args) => bench::main(args, out),
    }
}
