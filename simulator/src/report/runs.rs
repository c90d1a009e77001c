//! Report of replayed runs: which figures are shown, and which charts.
//!
//! Tables give medians over seeds; charts show the first seed of every policy and load.
//! **Invariant:** shows what the runs say, in the order of the cases.

use super::axis::{Kind, number_text};
use super::chart::{Bar, Body, Chart, Line, Scale};
use super::{Page, Table};
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
    charts.extend(groups.iter().filter_map(waits));
    charts.extend(groups.iter().filter_map(|group| {
        let run = group.runs.first()?;
        Some(waterfall(
            &format!("Largest bring-ups by GPUs, {}", group.name(&groups)),
            &run.figures.bring_ups,
        ))
    }));
    let tables =
        vec![fleet(&groups), times(&groups), classes(&groups), reasons(&groups), wall(&groups)];
    Page { title: title.to_owned(), facts, tables, charts }
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

fn fleet(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(
        "Fleet",
        &[
            "load",
            "policy",
            ">seeds",
            ">jobs",
            ">unplaced",
            ">alloc %",
            ">util %",
            ">frag %",
            ">queue",
            ">gangs %",
            ">cost usd",
        ],
        "Medians over seeds. ALLOC, UTIL: GPU time held by jobs, and by jobs that were ready, in per \
         cent of the fleet's until the last arrival; FRAG: free GPUs that the mean job cannot use; \
         QUEUE: jobs waiting on average; UNPLACED: jobs not placed when the run ended; GANGS: jobs \
         of several replicas that were placed.",
    );
    for group in groups {
        let cell = |of: &dyn Fn(&Figures) -> f64, digits| number_text(group.median(of), digits);
        let mut row = group.head();
        row.extend([
            group.runs.len().to_string(),
            cell(&|f| f.jobs.submitted as f64, 0),
            cell(&|f| f.jobs.waiting as f64, 0),
            cell(&|f| f.allocated_percent, 2),
            cell(&|f| f.utilised_percent, 2),
            cell(&|f| f.fragmented_percent, 2),
            cell(&|f| f.queue_jobs_mean, 1),
            cell(&|f| f.gangs.accepted_percent, 1),
            cell(&|f| f.cost_usd, 0),
        ]);
        table.rows.push(row);
    }
    table
}

fn times(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(
        "Times",
        &[
            "load",
            "policy",
            ">wait p50 s",
            ">p95",
            ">p99",
            ">slowdown p50",
            ">p95",
            ">p99",
            ">ready p50 s",
            ">p95",
            ">repair p50 s",
            ">rtt p50 ms",
        ],
        "Medians over seeds. SLOWDOWN: (waiting + running) / running, the latter at least 10 s; \
         READY: from submission; REPAIR: from a member's loss to ready again; RTT: the widest \
         between two members.",
    );
    for group in groups {
        let cell = |of: &dyn Fn(&Figures) -> f64, digits| number_text(group.median(of), digits);
        let mut row = group.head();
        row.extend([
            cell(&|f| f.wait_s.p50, 1),
            cell(&|f| f.wait_s.p95, 0),
            cell(&|f| f.wait_s.p99, 0),
            cell(&|f| f.slowdown.p50, 2),
            cell(&|f| f.slowdown.p95, 2),
            cell(&|f| f.slowdown.p99, 1),
            cell(&|f| f.ready_s.p50, 1),
            cell(&|f| f.ready_s.p95, 0),
            cell(&|f| f.repair_s.p50, 1),
            cell(&|f| f.rtt_ms.p50, 1),
        ]);
        table.rows.push(row);
    }
    table
}

fn classes(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(
        "By size of job",
        &[
            "load",
            "policy",
            ">gpus",
            ">jobs",
            ">placed %",
            ">wait p50 s",
            ">p95",
            ">p99",
            ">max",
            ">slowdown p50",
            ">p95",
            ">p99",
        ],
        "Medians over seeds; jobs still waiting at the end count with what they have waited.",
    );
    for group in groups {
        let Some(first) = group.runs.first() else { continue };
        for class in &first.figures.classes {
            let cell = |of: fn(&crate::metrics::figures::Class) -> f64, digits| {
                let value = group.median(|figures| {
                    figures.classes.iter().find(|one| one.gpus == class.gpus).map_or(0.0, of)
                });
                number_text(value, digits)
            };
            let mut row = group.head();
            row.extend([
                class.gpus.to_owned(),
                cell(|c| c.jobs as f64, 0),
                cell(|c| c.placed as f64 * 100.0 / c.jobs.max(1) as f64, 1),
                cell(|c| c.wait_s.p50, 1),
                cell(|c| c.wait_s.p95, 0),
                cell(|c| c.wait_s.p99, 0),
                cell(|c| c.wait_s.max, 0),
                cell(|c| c.slowdown.p50, 2),
                cell(|c| c.slowdown.p95, 2),
                cell(|c| c.slowdown.p99, 1),
            ]);
            table.rows.push(row);
        }
    }
    table
}

fn reasons(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(
        "Why jobs waited",
        &["load", "policy", "reason", ">jobs", ">job-hours"],
        "Medians over the seeds in which it happened.",
    );
    for group in groups {
        let mut names: Vec<&String> =
            group.runs.iter().flat_map(|run| run.figures.reasons.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let told: Vec<_> =
                group.runs.iter().filter_map(|run| run.figures.reasons.get(name)).collect();
            let jobs: Vec<f64> = told.iter().map(|waited| waited.jobs as f64).collect();
            let hours: Vec<f64> = told.iter().map(|waited| waited.job_hours).collect();
            let mut row = group.head();
            let numbers = [(jobs, 0), (hours, 1)];
            row.push(name.clone());
            row.extend(numbers.map(|(list, digits)| number_text(quantile(&list, 0.5), digits)));
            table.rows.push(row);
        }
    }
    table
}

fn wall(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(
        "By the clock of this machine",
        &[
            "load",
            "policy",
            ">run s",
            ">planner s",
            ">decisions",
            ">decisions/s",
            ">plan p50 us",
            ">p99",
            ">max",
        ],
        "Medians over seeds; these alone differ from one machine, or run, to the next.",
    );
    for group in groups {
        let cell = |of: fn(&Run) -> f64, digits| {
            let values: Vec<f64> = group.runs.iter().map(|run| of(run)).collect();
            number_text(quantile(&values, 0.5), digits)
        };
        let mut row = group.head();
        row.extend([
            cell(|run| run.wall.run_s, 2),
            cell(|run| run.wall.planner_s, 2),
            cell(|run| run.figures.decisions as f64, 0),
            cell(|run| run.wall.decisions_per_s, 0),
            cell(|run| run.wall.plan_us_p50, 1),
            cell(|run| run.wall.plan_us_p99, 1),
            cell(|run| run.wall.plan_us_max, 0),
        ]);
        table.rows.push(row);
    }
    table
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
