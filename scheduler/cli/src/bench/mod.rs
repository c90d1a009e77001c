//! `bench`: measurements against real server processes on this machine.
//!
//! **Invariant:** every figure comes with the machine, the command and its samples; a missed target is shown
//! as missed.

mod e2e;
mod failover;
mod grouping;
mod jobs;
mod load;
mod packing;
mod report;
mod scale;

pub use grouping::GroupingArgs;
pub use packing::PackingArgs;

use crate::args::{BenchArgs, BenchCommand, Global};
use crate::client::Client;
use crate::cluster::{Cluster, Options};
use crate::command::terminated;
use crate::exit::{Ending, Exit, Failure};
use crate::output::Output;
use report::Report;
use serde::Serialize;
use simulator::interrupt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// Servers that do not form a quorum in this time never will.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(60);
/// Time of one call; long, since benches overload on purpose.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Nodes without sessions must not be declared down while a bench runs.
const LEASE_MS: u64 = 600_000;

pub(crate) async fn run(global: &Global, command: BenchCommand) -> Ending {
    let output = Output::new(global.output, global.no_color);
    let (name, args, sessions) = match &command {
        BenchCommand::E2e(args) => ("e2e", args.bench.clone(), true),
        BenchCommand::Jobs(args) => ("jobs", args.bench.clone(), false),
        BenchCommand::Failover(args) => ("failover", args.bench.clone(), false),
        BenchCommand::Scale(args) => ("scale", args.bench.clone(), false),
        BenchCommand::Packing(args) => return packing::run(output, args),
        BenchCommand::Grouping(args) => return grouping::run(output, args),
    };
    can_write(args.json.as_deref())?;
    let mut stand = Stand::start(output, &args, sessions)?;
    let mut report = Report::new(name, &args, stand.cluster.home());
    let measured = tokio::select! {
        measured = measure(&command, &mut stand, &mut report) => measured.map(|()| Exit::Done),
        () = terminated() => Ok(Exit::Interrupted),
    };
    stand.cluster.stop().await;
    let exit = measured?;
    if exit == Exit::Done {
        output.show(&report)?;
        if let Some(path) = &args.json {
            write_json(path, &report)?;
        }
    }
    Ok(exit)
}

/// Told before hours of measuring, not after: whether the figures can be written to this file.
fn can_write(path: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    let is_new = !path.exists();
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    let tried = opened.and_then(|_| if is_new { std::fs::remove_file(path) } else { Ok(()) });
    tried.map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))
}

/// The command as it was given, with the program's own name.
fn command_line() -> String {
    let mut words: Vec<String> = std::env::args().collect();
    if let Some(program) = words.first_mut() {
        *program = "muster".to_owned();
    }
    words.join(" ")
}

fn write_json(path: &Path, report: &impl Serialize) -> Result<(), Failure> {
    let cannot = |why: String| Failure::refused(format!("cannot write {}: {why}", path.display()));
    let text = serde_json::to_vec_pretty(report).map_err(|error| cannot(error.to_string()))?;
    std::fs::write(path, text).map_err(|error| cannot(error.to_string()))
}

/// Is set by the first Ctrl-C, for benches that need no servers and tell what they have by then.
fn until_ctrl_c() -> Result<Arc<AtomicBool>, Failure> {
    interrupt::until_ctrl_c()
        .map_err(|error| Failure::refused(format!("cannot listen for Ctrl-C: {error}")))
}

async fn measure(
    command: &BenchCommand,
    stand: &mut Stand,
    report: &mut Report,
) -> Result<(), Failure> {
    stand.output.say(&format!(
        "{} servers in {}",
        stand.cluster.layout().seats.len(),
        stand.cluster.home().display()
    ));
    stand.cluster.wait_up(QUORUM_TIMEOUT, |_| ()).await?;
    match command {
        BenchCommand::E2e(args) => e2e::measure(stand, args, report).await,
        BenchCommand::Jobs(args) => jobs::measure(stand, args, report).await,
        BenchCommand::Failover(args) => failover::measure(stand, args, report).await,
        BenchCommand::Scale(args) => scale::measure(stand, args, report).await,
        // Need no servers, and were run before there were any.
        BenchCommand::Packing(_) | BenchCommand::Grouping(_) => Ok(()),
    }
}

/// Where a bench runs.
struct Stand {
    cluster: Cluster,
    output: Output,
}

impl Stand {
    fn start(output: Output, args: &BenchArgs, sessions: bool) -> Result<Self, Failure> {
        let options = Options {
            cluster_id: "bench",
            servers: args.servers,
            data_dir: args.data_dir.clone(),
            lease_ms: (!sessions).then_some(LEASE_MS),
        };
        let cluster = Cluster::start(&options)?;
        if cluster.resumed() {
            return Err(Failure::usage(
                "--data-dir holds data of an earlier run; a bench starts from nothing",
            ));
        }
        Ok(Self { cluster, output })
    }

    fn client(&self) -> Result<Client, Failure> {
        self.cluster.client(CALL_TIMEOUT)
    }

    /// Several clients, each with connections of its own.
    fn clients(&self, count: usize) -> Result<Vec<Client>, Failure> {
        (0..count).map(|_| self.client()).collect()
    }
}
