//! Tables of replayed runs.
//!
//! **Invariant:** a figure is the median over the seeds of its group; the note says what it means.

use super::Group;
use crate::compare::ranks::quantile;
use crate::metrics::{Figures, PHASES};
use crate::replay::Run;
use crate::report::{Table, number_text};

/// All of them; damage only where there was some.
pub(super) fn all(groups: &[Group<'_>]) -> Vec<Table> {
    let mut tables = vec![fleet(groups), times(groups), phases(groups), classes(groups)];
    let harmed = |figures: &Figures| {
        figures.nodes_lost + figures.starts_failed + figures.damage.interruptions > 0
    };
    if groups.iter().flat_map(|group| &group.runs).any(|run| harmed(&run.figures)) {
        tables.push(damage(groups));
    }
    tables.extend([reasons(groups), wall(groups)]);
    tables
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

fn phases(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(
        "Bring-up by phase",
        &["load", "policy", "phase", ">jobs", ">mean s", ">p50", ">p95", ">p99", ">max"],
        "Medians over seeds, of jobs that became ready. WAITING: until a plan was committed; \
         DISPATCHING: until an agent answered; STARTING: until ready, or a member was lost; \
         REPLACING: from there until ready.",
    );
    for group in groups {
        for phase in PHASES {
            let cell = |of: fn(&crate::metrics::times::Quantiles) -> f64, digits| {
                let value = group.median(|f| f.phases_s.get(phase).map_or(0.0, of));
                number_text(value, digits)
            };
            let mut row = group.head();
            row.extend([
                phase.to_owned(),
                cell(|q| q.count as f64, 0),
                cell(|q| q.mean, 2),
                cell(|q| q.p50, 2),
                cell(|q| q.p95, 1),
                cell(|q| q.p99, 1),
                cell(|q| q.max, 0),
            ]);
            table.rows.push(row);
        }
    }
    table
}

fn damage(groups: &[Group<'_>]) -> Table {
    let mut table = Table::new(
        "What was lost",
        &[
            "load",
            "policy",
            ">nodes down",
            ">GPU-h down",
            ">jobs hit",
            ">hits",
            ">failed starts",
            ">repair p50 s",
            ">p95",
            ">p99",
            ">never mended",
            ">GPU-h in repair",
        ],
        "Medians over seeds. NODES DOWN: times that a node was declared down, with the GPU time it \
         was missing until the last arrival; HITS: a ready job lost a member; REPAIR: from the \
         servers' noticing, a lease later, to ready again; NEVER MENDED: the job or the run ended before; IN REPAIR: GPU time \
         of whole jobs meanwhile. Work that a job has to do again does not count.",
    );
    for group in groups {
        let cell = |of: &dyn Fn(&Figures) -> f64, digits| number_text(group.median(of), digits);
        let mut row = group.head();
        row.extend([
            cell(&|f| f.nodes_lost as f64, 0),
            cell(&|f| f.damage.down_gpu_hours, 1),
            cell(&|f| f.damage.jobs_interrupted as f64, 0),
            cell(&|f| f.damage.interruptions as f64, 0),
            cell(&|f| f.starts_failed as f64, 0),
            cell(&|f| f.repair_s.p50, 1),
            cell(&|f| f.repair_s.p95, 1),
            cell(&|f| f.repair_s.p99, 1),
            cell(&|f| f.repairs_open as f64, 0),
            cell(&|f| f.damage.under_repair_gpu_hours, 1),
        ]);
        table.rows.push(row);
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
