//! Report of replayed runs: which figures are shown (`tables`), and which charts.
//!
//! Tables give medians over seeds; charts show the first seed of every policy and load.
//! **Invariant:** shows what the runs say, in the order of the cases.

mod tables;

use super::Page;
use super::axis::{Kind, number_text};
use super::chart::{Bar, Body, Chart, Line, Scale};
use crate::compare::ranks::quantile;
use crate::metrics::{BringUp, Figures, PHASES};
use crate::replay::Run;
use scheduler_core::plan::Policy;

/// What a cluster should be ready within, in seconds.
pub const READY_GOAL_S: f64 = 90.0;

/// Waits up to here are shown though none is as long, in seconds.
const WAIT_SHOWN_S: f64 = 10.0;

/// Runs of one policy at one load, by seed.
struct Group<'a> {
    policy: Policy,
    load: f64,
    runs: Vec<&'a Run>,
}

/// The report of a sweep.
pub fn page(title: &str, facts: Vec<(String, String)>, runs: &[Run]) -> Page {
    let groups = groups(runs);
    let mut charts = vec![
        over_time(&groups, "GPUs allocated over time", "GPUs", |figures| {
            &figures.curves.allocated_gpus
        }),
        over_time(&groups, "GPUs of ready jobs over time", "GPUs", |figures| {
            &figures.curves.utilised_gpus
        }),
        over_time(&groups, "Jobs waiting over time", "jobs", |figures| &figures.curves.queue_jobs),
        over_time(&groups, "GPUs asked for by waiting jobs over time", "GPUs", |figures| {
            &figures.curves.queue_gpus
        }),
        over_time(
            &groups,
            "Free GPUs that the mean job cannot use",
            "part of the free GPUs",
            |figures| &figures.curves.fragmented_percent,
        ),
    ];
    if runs.iter().any(|run| run.figures.nodes_lost > 0) {
        charts.push(over_time(&groups, "GPUs of nodes that are down", "GPUs", |figures| {
            &figures.curves.down_gpus
        }));
    }
    charts.extend(groups.iter().filter_map(waits));
    charts.extend(groups.iter().filter_map(|group| {
        let run = group.runs.first()?;
        Some(waterfall(
            &format!("Largest bring-ups by GPUs, {}", group.name(&groups)),
            &run.figures.bring_ups,
        ))
    }));
    Page { title: title.to_owned(), facts, tables: tables::all(&groups), charts }
}

fn groups(runs: &[Run]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        let (policy, load) = (run.case.policy, run.case.load);
        match groups.iter_mut().find(|group| group.policy == policy && group.load == load) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { policy, load, runs: vec![run] }),
        }
    }
    groups
}

impl Group<'_> {
    /// The policy, and the load if there are several.
    fn name(&self, all: &[Group<'_>]) -> String {
        if all.iter().any(|other| other.load != self.load) {
            format!("{} at load {}", self.policy.name(), self.load)
        } else {
            self.policy.name().to_owned()
        }
    }

    fn median(&self, of: impl Fn(&Figures) -> f64) -> f64 {
        let values: Vec<f64> = self.runs.iter().map(|run| of(&run.figures)).collect();
        quantile(&values, 0.5)
    }

    fn head(&self) -> Vec<String> {
        vec![self.load.to_string(), self.policy.name().to_owned()]
    }
}

fn over_time(
    groups: &[Group<'_>],
    title: &str,
    unit: &str,
    of: impl Fn(&Figures) -> &Vec<(f64, f64)>,
) -> Chart {
    let mut lines: Vec<Line> = groups
        .iter()
        .filter_map(|group| {
            let run = group.runs.first()?;
            Some(Line { name: group.name(groups), points: of(&run.figures).clone(), steps: true })
        })
        .collect();
    // The fleet itself is shown where GPUs of it are.
    let fleet = groups.first().and_then(|group| group.runs.first());
    if let Some(run) = fleet.filter(|_| title.starts_with("GPUs allocated")) {
        let points = run.figures.curves.fleet_gpus.clone();
        lines.push(Line { name: "fleet".to_owned(), points, steps: true });
    }
    let kind = if unit.starts_with("part") { Kind::Percent } else { Kind::Number };
    Chart {
        title: title.to_owned(),
        x: Scale::new("time", Kind::Time),
        body: Body::Lines { y: Scale::new(unit, kind), lines },
        limit: None,
    }
}

fn waits(group: &Group<'_>) -> Option<Chart> {
    let run = group.runs.first()?;
    let classes = &run.figures.classes;
    let longest = classes.iter().map(|class| class.wait_s.max).fold(WAIT_SHOWN_S, f64::max);
    let lines = classes.iter().map(|class| {
        let told = class.waits.iter().map(|&(wait, share)| (wait, share * 100.0));
        Line {
            name: format!("{} GPU{}", class.gpus, if class.gpus == "1" { "" } else { "s" }),
            // Whoever has been placed stays so.
            points: told.chain([(longest, 100.0)]).collect(),
            steps: true,
        }
    });
    Some(Chart {
        title: format!("Waiting by size of job, {} at load {}", group.policy.name(), group.load),
        x: Scale::new("waited until placed, logarithmic", Kind::LogTime),
        body: Body::Lines { y: Scale::new("jobs", Kind::Percent), lines: lines.collect() },
        limit: None,
    })
}

/// Bring-ups as bars, against the goal.
pub fn waterfall(title: &str, ups: &[BringUp]) -> Chart {
    let bar = |up: &BringUp| Bar { name: number_text(up.gpus, 0), parts: up.phases_s.to_vec() };
    Chart {
        title: title.to_owned(),
        x: Scale::new("since submission", Kind::Time),
        body: Body::Bars {
            parts: PHASES.map(str::to_owned).to_vec(),
            bars: ups.iter().map(bar).collect(),
        },
        limit: Some((READY_GOAL_S, format!("{READY_GOAL_S} s"))),
    }
}
