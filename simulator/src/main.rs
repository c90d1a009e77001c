//! The simulator as a program of its own; does the same as `muster sim`.
//!
//! **Invariant:** nothing but the arguments and the exit code is decided here.

use clap::Parser;
use simulator::cli::{self, Ending, Error};
use simulator::interrupt::INTERRUPTED;
use std::process::ExitCode;

/// Replays load through the production planner under virtual time.
#[derive(Debug, Parser)]
#[command(name = "simulator", version)]
struct Args {
    #[command(subcommand)]
    verb: cli::Verb,
}

fn main() -> ExitCode {
    match cli::main(&Args::parse().verb, &mut std::io::stdout().lock()) {
        Ok(Ending::Done) => ExitCode::SUCCESS,
        Ok(Ending::Failed) => ExitCode::from(1),
        Ok(Ending::Interrupted) => ExitCode::from(INTERRUPTED),
        // `| head` has seen enough.
        Err(Error::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(if matches!(error, Error::Usage(_)) { 2 } else { 1 })
        }
    }
}
