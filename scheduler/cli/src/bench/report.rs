//! What a bench found, as table and as file.

use crate::args::BenchArgs;
use crate::cluster::machine::Machine;
use crate::exit::Failure;
use crate::output::Answer;
use crate::output::table::Table;
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Longest latency told apart: ten minutes in microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Figures with what they rest on.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    bench: &'static str,
    command: String,
    machine: Machine,
    servers: u32,
    figures: Vec<Figure>,
    /// Samples behind the figures, in the order in which they were taken.
    samples: BTreeMap<String, Vec<f64>>,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
    #[serde(skip)]
    sign: &'static str,
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Target {
    None,
    AtMost(f64),
    AtLeast(f64),
}

impl Report {
    pub(super) fn new(bench: &'static str, args: &BenchArgs, data_dir: &Path) -> Self {
        Self {
            bench,
            command: super::command_line(),
            machine: Machine::look(data_dir),
            servers: args.servers,
            figures: Vec::new(),
            samples: BTreeMap::new(),
            notes: Vec::new(),
        }
    }

    pub(super) fn figure(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        let (wanted, met, sign) = match target {
            Target::None => (None, None, ""),
            Target::AtMost(most) => (Some(most), Some(value <= most), "<="),
            Target::AtLeast(least) => (Some(least), Some(value >= least), ">="),
        };
        self.figures.push(Figure { name: name.into(), value, unit, target: wanted, met, sign });
    }

    /// The median of samples as a figure, and their maximum; the samples are kept.
    pub(super) fn median(
        &mut self,
        name: &str,
        samples: Vec<f64>,
        unit: &'static str,
        target: Target,
    ) {
        self.figure(format!("{name}, median"), quantile(&samples, 0.5), unit, target);
        self.figure(format!("{name}, worst"), quantile(&samples, 1.0), unit, Target::None);
        self.samples.insert(name.to_owned(), samples);
    }

    /// The median of rates in jobs per second, and the slowest.
    pub(super) fn median_rate(&mut self, name: &str, samples: Vec<f64>, target: Target) {
        self.figure(format!("{name}, median"), quantile(&samples, 0.5), "jobs/s", target);
        self.figure(format!("{name}, slowest"), quantile(&samples, 0.0), "jobs/s", Target::None);
        self.samples.insert(format!("{name} jobs/s"), samples);
    }

    pub(super) fn samples(&mut self, name: &str, samples: Vec<f64>) {
        self.samples.insert(name.to_owned(), samples);
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

impl Answer for Report {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = Table::new(&["FIGURE", ">VALUE", "UNIT", "TARGET", "MET"]);
        for figure in &self.figures {
            table.row(vec![
                figure.name.clone(),
                number(figure.value),
                figure.unit.to_owned(),
                figure.target.map_or_else(String::new, |target| {
                    format!("{} {}", figure.sign, number(target))
                }),
                figure.met.map_or("", |met| if met { "yes" } else { "NO" }).to_owned(),
            ]);
        }
        let mut about = Table::fields();
        about.field("Command", &self.command);
        about.field("Machine", self.machine.line());
        for note in &self.notes {
            about.field("Note", note);
        }
        vec![table, about]
    }
}

fn number(value: f64) -> String {
    if value >= 1_000.0 {
        return crate::output::text::grouped(value.round() as u64);
    }
    format!("{value:.1}")
}

/// The smallest sample that at least this share of all samples does not exceed; 0 without samples.
pub(super) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Latencies of many calls.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(super) fn new() -> Result<Self, Failure> {
        Histogram::new_with_max(LATENCY_US_MAX, 3)
            .map(Self)
            .map_err(|error| Failure::refused(format!("cannot make a histogram: {error}")))
    }

    pub(super) fn add(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(super) fn merge(&mut self, other: &Self) -> Result<(), Failure> {
        self.0
            .add(&other.0)
            .map_err(|error| Failure::refused(format!("cannot merge histograms: {error}")))
    }

    /// Milliseconds at a share of all calls.
    pub(super) fn ms(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1_000.0
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 0.5), 2.0);
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), 2.0);
        assert_eq!(quantile(&[3.0, 1.0, 2.0], 1.0), 3.0);
        let twenty: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!(quantile(&twenty, 0.99), 20.0);
    }

    #[test]
    fn a_missed_target_is_shown() {
        let args = BenchArgs { servers: 3, json: None, data_dir: None };
        let mut report = Report::new("jobs", &args, Path::new("/"));
        report.figure("jobs", 4_000.0, "jobs/s", Target::AtLeast(5_000.0));
        report.median("ready", vec![1.0, 2.0, 9.0], "ms", Target::AtMost(3.0));
        let text = report.tables(false)[0].render();
        assert!(text.contains("jobs           4,000  jobs/s  >= 5,000  NO"), "{text}");
        assert!(text.contains("ready, median    2.0  ms      <= 3.0    yes"), "{text}");
    }
}
