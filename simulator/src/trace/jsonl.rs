//! Our own format: lines of JSON, one event each, in any order that has a job before what becomes
//! of it and a node before what befalls it.
//!
//! `at_ms` counts milliseconds from the trace's beginning. Amounts of 0 and what is not known are
//! left out.
//!
//! | event | fields |
//! |---|---|
//! | `trace` | first line: `version` (1), `source` (who wrote it), `start_ms` (beginning, milliseconds since 1970; 0 = none) |
//! | `node` | `at_ms` (0 = there from the beginning), `node`, `gpus`, `model`, `cpu_milli`, `memory_mib`, `disk_mib`, `vram_mib`, `region`, `zone`, `site`, `rack`, `price_micro_usd`, `bandwidth_mbps`, `class`, `spec` (all of the declaration, where it says more) |
//! | `node_up`, `node_down`, `node_eligible`, `node_cordoned`, `node_draining`, `node_removed` | `at_ms`, `node` |
//! | `node_price` | `at_ms`, `node`, `price_micro_usd` |
//! | `rtt` | `a`, `b` (sites), `rtt_us`, `rtt_us_high`, `samples`; of a pair told twice the later counts |
//! | `job` | `at_ms` (submission; left out = not known), `job`, `tenant`, `replicas` (1), `gpus`, `gpu_milli` (1000), `cpu_milli`, `memory_mib` (of each replica), `models`, `duration_ms` (from ready to its end), `spec` (all that was asked for, where it is more) |
//! | `job_ready` | `at_ms`, `job`: all replicas run; after a repair it is not said again |
//! | `job_ended` | `at_ms`, `job`, `why` |
//!
//! A job's duration is the time from `job_ready` to `job_ended`, or to the last time that the trace
//! tells where it is not said to have ended: it ran that long at least.
//! **Invariant:** version 1 keeps its meaning for ever; a field unknown to it is an error, so that
//! nothing is passed over in silence.

mod line;
mod write;

pub use write::{Writer, write};

use super::lines::Lines;
use super::source::by_time;
use super::table::SECONDS_MAX;
use super::{BadRows, Change, NodeChange, Trace, TraceError};
use line::{Fault, JobLine, Line, NodeLine};
use scheduler_core::unit::{DurationMs, PriceMicroUsd, TimeMs};
use scheduler_core::validate::PRICE_MICRO_USD_MAX;
use std::collections::BTreeMap;
use std::path::Path;

/// The one version there is.
pub(super) const VERSION: u32 = 1;

/// All that the file tells.
pub fn read(file: &Path, bad: &mut BadRows) -> Result<Trace, TraceError> {
    let mut lines = Lines::open(file)?;
    let mut reading = Reading::default();
    loop {
        let taken = match lines.next() {
            Ok(None) => break,
            Ok(Some((_, text))) => match take(&mut reading, text) {
                Ok(()) => Ok(()),
                Err(Fault { field: None, what, .. }) => Err(lines.bad(what)),
                Err(Fault { field: Some(field), value, what }) => {
                    Err(TraceError::value(file, lines.line(), field, &value, what))
                }
            },
            Err(error) => Err(error),
        };
        let line = lines.line();
        bad.take(taken)?;
        if line == 1 && !reading.begun {
            let what = "does not begin with a line of the event \"trace\"".to_owned();
            return Err(TraceError::Form { file: file.to_owned(), what });
        }
    }
    if !reading.begun || reading.is_empty() {
        return Err(bad.nothing(file));
    }
    Ok(reading.finish())
}

fn take(reading: &mut Reading, text: &str) -> Result<(), Fault> {
    let line: Line = serde_json::from_str(text).map_err(|error| {
        let told = error.to_string().replace(" at line 1 column ", " at byte ");
        Fault { field: None, value: String::new(), what: format!("is no event: {told}") }
    })?;
    reading.take(line)
}

/// What has been read.
#[derive(Default)]
struct Reading {
    begun: bool,
    trace: Trace,
    nodes: BTreeMap<String, usize>,
    jobs: BTreeMap<String, Known>,
    /// The last time that was told.
    last: TimeMs,
}

/// A job that was told.
struct Known {
    at: usize,
    ready: Option<TimeMs>,
}

impl Reading {
    fn is_empty(&self) -> bool {
        self.trace.jobs.is_empty() && self.trace.nodes.is_empty() && self.trace.rtts.is_empty()
    }

    fn take(&mut self, line: Line) -> Result<(), Fault> {
        match line {
            Line::Trace(head) if head.version != VERSION => {
                Err(Fault::of("version", head.version, format!("is not {VERSION}")))
            }
            Line::Trace(_) if self.begun => {
                Err(Fault::of("event", "trace", "is there already".to_owned()))
            }
            Line::Trace(_) => {
                self.begun = true;
                Ok(())
            }
            Line::Node(line) => self.node(*line),
            Line::NodeUp(said) => self.change(said.at_ms, said.node, Change::Up),
            Line::NodeDown(said) => self.change(said.at_ms, said.node, Change::Down),
            Line::NodeEligible(said) => self.change(said.at_ms, said.node, Change::Eligible),
            Line::NodeCordoned(said) => self.change(said.at_ms, said.node, Change::Cordoned),
            Line::NodeDraining(said) => self.change(said.at_ms, said.node, Change::Draining),
            Line::NodeRemoved(said) => self.change(said.at_ms, said.node, Change::Removed),
            Line::NodePrice(said) => {
                let price = said.price_micro_usd;
                if price > PRICE_MICRO_USD_MAX {
                    let what = format!("is over {PRICE_MICRO_USD_MAX}");
                    return Err(Fault::of("price_micro_usd", price, what));
                }
                self.change(said.at_ms, said.node, Change::Price(PriceMicroUsd(price)))
            }
            Line::Rtt(line) => {
                self.trace.rtts.push(line.to_rtt()?);
                Ok(())
            }
            Line::Job(line) => self.job(*line),
            Line::JobReady(said) => {
                let at = self.time(said.at_ms)?;
                let known = self.known(&said.job)?;
                known.ready.get_or_insert(at);
                Ok(())
            }
            Line::JobEnded(said) => {
                let at = self.time(said.at_ms)?;
                self.ended(at, &said.job)
            }
        }
    }

    fn time(&mut self, at_ms: u64) -> Result<TimeMs, Fault> {
        let at = time(at_ms)?;
        self.last = self.last.max(at);
        Ok(at)
    }

    fn node(&mut self, line: NodeLine) -> Result<(), Fault> {
        let at = self.time(line.at_ms)?;
        let node = line.into_node()?;
        let change = NodeChange { at, node: node.name.clone(), change: Change::Joined };
        match self.nodes.get(&node.name).and_then(|&at| self.trace.nodes.get_mut(at)) {
            Some(known) => *known = node,
            None => {
                self.nodes.insert(node.name.clone(), self.trace.nodes.len());
                self.trace.nodes.push(node);
                if at == TimeMs::ZERO {
                    return Ok(());
                }
            }
        }
        self.trace.changes.push(change);
        Ok(())
    }

    fn change(&mut self, at_ms: u64, node: String, change: Change) -> Result<(), Fault> {
        let at = self.time(at_ms)?;
        if !self.nodes.contains_key(&node) {
            return Err(Fault::of("node", node, "is no node told of before".to_owned()));
        }
        self.trace.changes.push(NodeChange { at, node, change });
        Ok(())
    }

    fn job(&mut self, line: JobLine) -> Result<(), Fault> {
        let job = line.into_job()?;
        if self.jobs.contains_key(&job.name) {
            return Err(Fault::of("job", job.name, "is there already".to_owned()));
        }
        self.jobs.insert(job.name.clone(), Known { at: self.trace.jobs.len(), ready: None });
        self.last = self.last.max(job.submit.unwrap_or_default());
        self.trace.jobs.push(job);
        Ok(())
    }

    fn known(&mut self, job: &str) -> Result<&mut Known, Fault> {
        self.jobs
            .get_mut(job)
            .ok_or_else(|| Fault::of("job", job, "is no job told of before".to_owned()))
    }

    fn ended(&mut self, at: TimeMs, job: &str) -> Result<(), Fault> {
        let known = self.known(job)?;
        let (index, Some(ready)) = (known.at, known.ready) else { return Ok(()) };
        if at < ready {
            let what = format!("is before the job was ready, at {} ms", ready.0);
            return Err(Fault::of("at_ms", at.0, what));
        }
        if let Some(job) = self.trace.jobs.get_mut(index) {
            job.duration = Some(DurationMs((at.0 - ready.0).max(1)));
        }
        Ok(())
    }

    fn finish(mut self) -> Trace {
        for known in self.jobs.values() {
            if let (Some(ready), Some(job)) = (known.ready, self.trace.jobs.get_mut(known.at)) {
                job.duration.get_or_insert(DurationMs(self.last.since(ready).0.max(1)));
            }
        }
        self.trace.jobs = by_time(std::mem::take(&mut self.trace.jobs));
        self.trace.changes.sort_by_key(|change| change.at);
        self.trace
    }
}

/// A time that leaves room for sums.
fn time(at_ms: u64) -> Result<TimeMs, Fault> {
    if at_ms > SECONDS_MAX * 1_000 {
        return Err(Fault::of("at_ms", at_ms, format!("is over {}", SECONDS_MAX * 1_000)));
    }
    Ok(TimeMs(at_ms))
}

#[cfg(test)]
mod tests;
