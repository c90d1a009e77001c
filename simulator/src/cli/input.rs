//! What `replay` and `compare` read: jobs, nodes, and what befalls them.
//!
//! **Invariant:** every file is named by the error about it.

use super::Error;
use super::sweep::quoted;
use crate::replay::Input;
use crate::replay::output::Replayed;
use crate::trace::rtt::RttTable;
use crate::trace::{BadRows, Source, TraceJob, TraceNode, faults, jsonl, nodes, prices, spot};
use scheduler_core::duty::office::Reserve;
use scheduler_core::unit::{DurationMs, RttUs};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// CPU, memory and disk per GPU of nodes that are told by number: more than any trace's jobs ask
/// for, so that GPUs decide.
const CPU_MILLI_PER_GPU: u64 = 32_000;
const MEMORY_MIB_PER_GPU: u64 = 256 * 1_024;
/// Nodes told by number at most: what the state takes.
const NODES_MAX: u32 = 262_144;
/// Nobody waits for a reservation for longer than a year.
const RESERVE_AFTER_S_MAX: u64 = 31_536_000;
/// Before the name of a file of our own format.
const JSONL: &str = "jsonl:";

/// What is replayed.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct InputArgs {
    /// Jobs: FORMAT:FILE with one of the formats openb, philly, kalos, swf, jsonl; may be packed.
    #[arg(long, value_name = "FORMAT:FILE")]
    trace: Source,
    /// Nodes: a CSV list (openb's or PAI's columns, or what `gen fleet` writes), jsonl:FILE, or
    /// numbers: 1250x8 are 1,250 nodes of 8 GPUs, 231x8,321x2 are of two kinds. Left out: the nodes
    /// that a jsonl trace tells of, with all that befell them.
    #[arg(long, value_name = "FILE|NxG")]
    nodes: Option<String>,
    /// Node faults: CSV `node,start_day,end_day` (or `start_s,end_s`). Faults of nodes that are not
    /// on the list are dealt out to those that are.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// The fleet that such faults are from had so many nodes; by default only those with faults.
    #[arg(long, value_name = "N", requires = "faults", value_parser = clap::value_parser!(u32).range(1..=NODES_MAX as i64))]
    faults_of: Option<u32>,
    /// Spot nodes coming and going: lines `milliseconds,add|remove,node`, or `YYYY-MM-DD, hh:mm:ss,
    /// N` where N of them were there. Nodes that are not on the list come in addition to it and are
    /// like its last.
    #[arg(long, value_name = "FILE")]
    spot: Option<PathBuf>,
    /// Offers: CSV `provider,gpu_model,is_spot,usd_per_gpu_hour`. A node without a price costs the
    /// median of its model.
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Round trips between sites: pairs (src, dst, avg_ms, …) or a square; may be packed. Nodes
    /// that tell no site stand at the places of the file by turns.
    #[arg(long, value_name = "FILE")]
    rtt: Option<PathBuf>,
    /// Largest RTT between two members of a job of several replicas, in milliseconds.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    max_rtt_ms: Option<u32>,
    /// Jobs that have waited for so many seconds get a reservation: others may not be in the way of it
    /// unless they end before. Jobs then declare how long they run. 0 = nobody gets one.
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=RESERVE_AFTER_S_MAX))]
    reserve_after: u64,
    /// Reservations at a time.
    #[arg(long, value_name = "N", default_value_t = Reserve::MOST_USUAL, value_parser = clap::value_parser!(u32).range(1..=Reserve::MOST as i64))]
    reservations: u32,
    /// Jobs declare up to so many times as long as they run, by an even draw from 1 on.
    #[arg(long, value_name = "X", value_parser = overestimate)]
    overestimate: Option<f64>,
    /// Leave out rows that cannot be read, and say how many.
    #[arg(long)]
    skip_bad: bool,
}

fn overestimate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(times) if (1.0..=100.0).contains(&times) => Ok(times),
        _ => Err("is not a number from 1 to 100".to_owned()),
    }
}

fn usage(error: impl Display) -> Error {
    Error::Usage(error.to_string())
}

impl InputArgs {
    pub(super) fn read(&self) -> Result<Input, Error> {
        let mut bad = if self.skip_bad { BadRows::skip() } else { BadRows::refuse() };
        let trace = bad.apart(|bad| self.trace.read(bad)).map_err(usage)?;
        let mut input = match &self.nodes {
            Some(told) => Input { jobs: trace.jobs, ..bad.apart(|bad| nodes(told, bad))? },
            None => Input {
                jobs: trace.jobs,
                nodes: trace.nodes,
                changes: trace.changes,
                rtts: trace.rtts,
                ..Input::default()
            },
        };
        if input.nodes.is_empty() {
            return Err(usage(match &self.nodes {
                Some(told) => format!("--nodes {told}: no nodes"),
                None => format!("{} tells of no nodes: --nodes is missing", self.trace),
            }));
        }
        input.command = self.command();
        self.join(&mut input, &mut bad)?;
        if bad.skipped > 0 {
            eprintln!("{} rows could not be read and are left out; the first:", bad.skipped);
            bad.first.iter().for_each(|row| eprintln!("  {row}"));
        }
        tell_unknown_rtts(&input);
        let ran = input.jobs.iter().filter(|job| job.duration.is_some()).count();
        if ran < input.jobs.len() {
            eprintln!("{} jobs never ran in the trace and are left out", input.jobs.len() - ran);
        }
        Ok(input)
    }

    fn join(&self, input: &mut Input, bad: &mut BadRows) -> Result<(), Error> {
        let about =
            |file: &Path, error: &dyn Display| usage(format!("{}: {error}", file.display()));
        if let Some(file) = &self.faults {
            let faults = bad.apart(|bad| faults::read(file, bad)).map_err(usage)?;
            let of = self.faults_of.map(|of| of as usize);
            input.join_faults(&faults, of).map_err(|error| about(file, &error))?;
        }
        if let Some(file) = &self.spot {
            let changes = bad.apart(|bad| spot::read(file, bad)).map_err(usage)?;
            input.join_spot(changes).map_err(|error| about(file, &error))?;
        }
        if let Some(file) = &self.prices {
            let unpriced =
                input.join_prices(&bad.apart(|bad| prices::read(file, bad)).map_err(usage)?);
            if !unpriced.is_empty() {
                let models: Vec<String> = unpriced.into_iter().collect();
                let (file, models) = (file.display(), models.join(", "));
                eprintln!("{file} offers no {models}: those cost nothing");
            }
        }
        if let Some(file) = &self.rtt {
            let table = bad.apart(|bad| RttTable::read(file, bad)).map_err(usage)?;
            input.join_rtts(&table).map_err(|error| about(file, &error))?;
        }
        let after = DurationMs(self.reserve_after * 1_000);
        let reserve = Reserve { after, most: self.reservations };
        input.reserve = Some(reserve).filter(|reserve| reserve.is_on());
        input.overestimate = self.overestimate.or(input.reserve.map(|_| 1.0));
        input.rtt_max = self.max_rtt_ms.map(|ms| RttUs(ms.saturating_mul(1_000)));
        Ok(())
    }

    /// The command that replays it but for policy, seed and load.
    fn command(&self) -> String {
        let told = self.told();
        let number = |number: Option<u32>| number.map(|number| number.to_string());
        let reserve = told.reserve_after_s.map(|after| after.to_string());
        let reservations = told.reserve_after_s.and(number(Some(self.reservations)));
        let words = [
            ("--trace", Some(told.trace)),
            ("--nodes", self.nodes.clone()),
            ("--faults", told.faults),
            ("--faults-of", number(self.faults_of)),
            ("--spot", told.spot),
            ("--prices", told.prices),
            ("--rtt", told.rtt),
            ("--max-rtt-ms", number(self.max_rtt_ms)),
            ("--reserve-after", reserve),
            ("--reservations", reservations),
            ("--overestimate", self.overestimate.map(|times| times.to_string())),
        ];
        let mut command = "muster sim replay".to_owned();
        for (name, value) in words.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            command.extend([" ", name, " ", &quoted(&value)]);
        }
        command + if self.skip_bad { " --skip-bad" } else { "" }
    }

    /// As the command line told it.
    pub(super) fn told(&self) -> Replayed {
        let named = |file: &Option<PathBuf>| file.as_ref().map(|file| file.display().to_string());
        let trace = self.trace.to_string();
        Replayed {
            nodes: self.nodes.clone().unwrap_or_else(|| trace.clone()),
            trace,
            faults: named(&self.faults),
            spot: named(&self.spot),
            prices: named(&self.prices),
            rtt: named(&self.rtt),
            reserve_after_s: Some(self.reserve_after).filter(|&after| after > 0),
            overestimate: self.overestimate,
        }
    }
}

/// Recorded jobs may bound round trips that no recording tells.
fn tell_unknown_rtts(input: &Input) {
    let is_bound = |job: &&TraceJob| job.spec.as_ref().is_some_and(|spec| spec.rtt_max.is_some());
    let bound = input.jobs.iter().filter(is_bound).count();
    if bound > 0 && input.rtts.is_empty() {
        eprintln!(
            "{bound} jobs bound the RTT of their members, and none between sites is known: they \
             fit within one site only; --rtt FILE tells RTTs"
        );
    }
}

/// Nodes, and what else a file of our own tells of them.
fn nodes(told: &str, bad: &mut BadRows) -> Result<Input, Error> {
    if let Some(file) = told.strip_prefix(JSONL) {
        let trace = jsonl::read(Path::new(file), bad).map_err(usage)?;
        let (nodes, changes, rtts) = (trace.nodes, trace.changes, trace.rtts);
        return Ok(Input { nodes, changes, rtts, ..Input::default() });
    }
    let nodes = match by_number(told) {
        Some(nodes) => nodes,
        None => nodes::read(Path::new(told), bad).map_err(usage)?,
    };
    Ok(Input { nodes, ..Input::default() })
}

/// `1250x8,10x2` as nodes; `None` if it is something else.
fn by_number(text: &str) -> Option<Vec<TraceNode>> {
    let mut nodes = Vec::new();
    for (kind, part) in text.split(',').enumerate() {
        let (count, gpus) = part.split_once('x')?;
        let (count, gpus) = (count.parse::<u32>().ok()?, gpus.parse::<u8>().ok()?);
        if count > NODES_MAX || gpus > 64 {
            return None;
        }
        nodes.extend((0..count).map(|number| TraceNode {
            name: format!("node-{kind}-{number}"),
            cpu_milli: CPU_MILLI_PER_GPU * u64::from(gpus.max(1)),
            memory_mib: MEMORY_MIB_PER_GPU * u64::from(gpus.max(1)),
            gpus: u32::from(gpus),
            model: "gpu".to_owned(),
            ..TraceNode::default()
        }));
    }
    Some(nodes)
}
