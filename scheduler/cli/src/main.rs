//! `muster`: the one binary. Parses the command line, runs the command, ends with its exit code.
//!
//! **Invariant:** data goes to stdout, everything else to stderr; exit codes are those of the help.

#![allow(unreachable_pub, reason = "a binary has no outside")]

mod answer;
mod args;
mod bench;
mod client;
mod cluster;
mod command;
mod dev;
mod exit;
mod job_file;
mod output;

use args::Cli;
use clap::Parser;
use std::process::ExitCode;

/// A server allocates small values on many threads and frees them on others, which glibc's
/// allocator serialises.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start the runtime: {error}");
            return exit::Exit::Refused.into();
        }
    };
    let ending = runtime.block_on(command::run(cli));
    // Threads that wait for stdin or a slow disk must not hold up the end.
    runtime.shutdown_background();
    match ending {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit.into()
        }
    }
}
