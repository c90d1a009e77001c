//! `bench packing`: how much of a fleet's GPUs each policy gets to use, on the jobs of a trace.
//!
//! **Invariant:** the planner's own code is measured, in this process; no server is started; rows
//! depend on files, flags and seeds, never on threads.

mod table;

use crate::cluster::machine::Machine;
use crate::exit::{Ending, Exit, Failure};
use crate::output::table::Table;
use crate::output::{Answer, Output};
use clap::{Args, ValueEnum};
use scheduler_core::plan::Policy;
use serde::Serialize;
use simulator::packing::{BedError, Durations, Pattern, fill, gangs, steady};
use simulator::parallel;
use simulator::trace::openb::Published;
use simulator::trace::{BadRows, TraceError, TraceJob, TraceNode, kalos, openb};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// `bench packing`.
#[derive(Clone, Debug, Args)]
pub struct PackingArgs {
    /// Folder with openb_node_list_gpu_node.csv and openb_pod_list_NAME.csv, packed (.gz) or not.
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Workloads to run, by NAME of their file; by default all in the folder.
    #[arg(long, value_name = "NAME")]
    pub workload: Vec<String>,
    /// Policies to compare; by default all.
    #[arg(long, value_name = "NAME", value_parser = |text: &str| text.parse::<Policy>())]
    pub policy: Vec<Policy>,
    /// Runs of each, with one seed more each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 42)]
    pub first_seed: u64,
    /// What the jobs do: fill the fleet up, come and go, or come and go among large gangs.
    #[arg(long, value_enum, default_value_t = Regime::Fill)]
    pub regime: Regime,
    /// Offered loads of `steady`, and of single jobs in `gangs`, in per cent of the fleet.
    #[arg(long, value_delimiter = ',', default_values_t = [80, 95, 110], value_parser = clap::value_parser!(u32).range(1..=500), value_name = "N,N")]
    pub load: Vec<u32>,
    /// Jobs that arrive in each run of `steady`.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    pub arrivals: u32,
    /// Gangs of `gangs`: a file with the columns job, submit_s, duration_s, tasks, gpus_per_task,
    /// cpu_per_gpu.
    #[arg(long, value_name = "FILE", required_if_eq("regime", "gangs"))]
    pub gangs: Option<PathBuf>,
    /// Offered load of gangs in `gangs`, in per cent of the fleet.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub gangs_load: u32,
    /// Gangs that arrive in each run of `gangs`.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub gangs_count: u32,
    /// Threads; by default one for each core.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    pub threads: Option<u32>,
    /// Write all rows to a file as well.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What the jobs do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Regime {
    /// Jobs arrive until they ask for 130 % of the fleet; none leaves.
    Fill,
    /// Jobs arrive and leave.
    Steady,
    /// Jobs arrive and leave, large gangs among them.
    Gangs,
}

#[derive(Serialize)]
struct Report {
    bench: &'static str,
    command: String,
    /// Whether all runs were made; Ctrl-C leaves some out.
    complete: bool,
    machine: Machine,
    data: PathBuf,
    rows: Rows,
    #[serde(skip)]
    published: Vec<Published>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Rows {
    Fill(Vec<fill::Row>),
    Steady(Vec<steady::Row>),
    Gangs(Vec<gangs::Row>),
}

/// Nodes and the jobs of every workload.
struct Data {
    nodes: Vec<TraceNode>,
    workloads: Vec<(String, Vec<TraceJob>)>,
}

impl Data {
    fn read(args: &PackingArgs) -> Result<Self, TraceError> {
        let nodes = openb::nodes(&args.data)?;
        let mut names = args.workload.clone();
        if names.is_empty() {
            names = openb::workloads(&args.data)?;
        }
        let workloads = names
            .into_iter()
            .map(|name| openb::jobs(&args.data, &name).map(|jobs| (name, jobs)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { nodes, workloads })
    }
}

fn bad(error: impl std::fmt::Display) -> Failure {
    Failure::usage(error.to_string())
}

pub(super) fn run(output: Output, args: &PackingArgs) -> Ending {
    super::can_write(args.json.as_deref())?;
    if args.first_seed.checked_add(args.seeds - 1).is_none() {
        let most = u64::MAX - (args.seeds - 1);
        return Err(bad(format!("--first-seed: at most {most} with {} seeds", args.seeds)));
    }
    let data = Data::read(args).map_err(bad)?;
    let published = openb::published(&args.data).map_err(bad)?;
    let stop = super::until_ctrl_c()?;
    let runs = Runs { output, args, data: &data, stop: &stop };
    let rows = match args.regime {
        Regime::Fill => Rows::Fill(runs.fills()?),
        Regime::Steady => Rows::Steady(runs.steadies()?),
        Regime::Gangs => Rows::Gangs(runs.ganged()?),
    };
    let complete = !stop.load(Ordering::Relaxed);
    let report = Report {
        bench: "packing",
        command: super::command_line(),
        complete,
        machine: Machine::look(&std::env::temp_dir()),
        data: args.data.clone(),
        rows,
        published,
    };
    output.show(&report)?;
    if let Some(path) = &args.json {
        super::write_json(path, &report)?;
    }
    Ok(if complete { Exit::Done } else { Exit::Interrupted })
}

/// What is run, and what ends it early.
struct Runs<'a> {
    output: Output,
    args: &'a PackingArgs,
    data: &'a Data,
    stop: &'a AtomicBool,
}

impl<'a> Runs<'a> {
    /// Every workload with every policy and seed, in this order.
    fn cases(&self) -> Vec<(&'a str, &'a [TraceJob], Policy, u64)> {
        let policies = match self.args.policy.as_slice() {
            [] => Policy::ALL.as_slice(),
            asked => asked,
        };
        let mut cases = Vec::new();
        for (name, jobs) in &self.data.workloads {
            for &policy in policies {
                for more in 0..self.args.seeds {
                    let seed = self.args.first_seed.saturating_add(more);
                    cases.push((name.as_str(), jobs.as_slice(), policy, seed));
                }
            }
        }
        cases
    }

    /// Runs the cases on the wanted threads, and tells of progress every tenth.
    fn spread<C: Sync, R: Send>(
        &self,
        cases: &[C],
        work: impl Fn(&C) -> Result<R, BedError> + Sync,
    ) -> Result<Vec<R>, Failure> {
        let threads = self.args.threads.map_or_else(parallel::cores, |threads| threads as usize);
        let tenth = cases.len().div_ceil(10).max(1);
        let told = |done: usize| {
            if done.is_multiple_of(tenth) && !self.stop.load(Ordering::Relaxed) {
                self.output.say(&format!("{done} of {} runs", cases.len()));
            }
        };
        let made = parallel::run(cases, threads, self.stop, |case| work(case).map(Some), told);
        let made = made.map_err(bad)?;
        if made.len() < cases.len() {
            self.output.say(&format!("stopped: {} of {} runs were made", made.len(), cases.len()));
        }
        Ok(made)
    }

    fn fills(&self) -> Result<Vec<fill::Row>, Failure> {
        self.spread(&self.cases(), |&(name, jobs, policy, seed)| {
            fill::run(name, &self.data.nodes, jobs, policy, seed)
        })
    }

    fn steadies(&self) -> Result<Vec<steady::Row>, Failure> {
        let mut all = Vec::new();
        for (name, jobs, policy, seed) in self.cases() {
            for &load in &self.args.load {
                for pattern in Pattern::ALL {
                    for durations in Durations::ALL {
                        for service in steady::Service::ALL {
                            let case = steady::Case {
                                policy,
                                seed,
                                load: f64::from(load) / 100.0,
                                pattern,
                                durations,
                                service,
                                arrivals: self.args.arrivals as usize,
                            };
                            all.push((name, jobs, case));
                        }
                    }
                }
            }
        }
        let rows = self
            .spread(&all, |(name, jobs, case)| steady::run(name, &self.data.nodes, jobs, case))?;
        Ok(rows.into_iter().flatten().collect())
    }

    fn ganged(&self) -> Result<Vec<gangs::Row>, Failure> {
        let Some(file) = &self.args.gangs else {
            return Err(Failure::usage("--regime gangs needs --gangs FILE"));
        };
        let gang_jobs = kalos::jobs(file, &mut BadRows::refuse()).map_err(bad)?;
        let mut all = Vec::new();
        for (name, jobs, policy, seed) in self.cases() {
            for &load in &self.args.load {
                let case = gangs::Case {
                    policy,
                    seed,
                    singles_load: f64::from(load) / 100.0,
                    gangs_load: f64::from(self.args.gangs_load) / 100.0,
                    gangs: self.args.gangs_count as usize,
                };
                all.push((name, jobs, case));
            }
        }
        let rows = self.spread(&all, |(name, jobs, case)| {
            gangs::run(name, &self.data.nodes, jobs, &gang_jobs, case)
        })?;
        let (made, rows) = (rows.len(), rows.into_iter().flatten().collect::<Vec<_>>());
        if made > 0 && rows.is_empty() {
            let file = file.display();
            return Err(Failure::usage(format!("{file} has no gangs of 64 to 1,024 GPUs")));
        }
        Ok(rows)
    }
}

impl Answer for Report {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        let table = match &self.rows {
            Rows::Fill(rows) => table::fill_table(rows, &self.published),
            Rows::Steady(rows) => table::steady_table(rows),
            Rows::Gangs(rows) => table::gangs_table(rows),
        };
        let mut about = Table::fields();
        about.field("Command", &self.command);
        about.field("Machine", self.machine.line());
        vec![table, about]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn args(dir: &Path) -> PackingArgs {
        PackingArgs {
            data: dir.to_owned(),
            workload: Vec::new(),
            policy: vec![Policy::BestFit, Policy::Foresight],
            seeds: 2,
            first_seed: 1,
            regime: Regime::Fill,
            load: vec![80],
            arrivals: 300,
            gangs: None,
            gangs_load: 25,
            gangs_count: 10,
            threads: Some(2),
            json: None,
        }
    }

    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        let mut nodes = "sn,cpu_milli,memory_mib,gpu,model\n".to_owned();
        for node in 0..6 {
            nodes += &format!("n{node},96000,393216,8,A\n");
        }
        let mut pods = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n".to_owned();
        for pod in 0..60 {
            let (gpus, milli) = [(1, 500), (1, 1_000), (2, 1_000), (1, 300)][pod % 4];
            pods += &format!("p{pod:02},4000,8192,{gpus},{milli}\n");
        }
        std::fs::write(dir.path().join("openb_node_list_gpu_node.csv"), nodes).expect("written");
        std::fs::write(dir.path().join("openb_pod_list_mine.csv"), pods).expect("written");
        dir
    }

    fn runs<'a>(args: &'a PackingArgs, data: &'a Data, stop: &'a AtomicBool) -> Runs<'a> {
        Runs { output: Output::new(crate::output::Format::Table, true), args, data, stop }
    }

    #[test]
    fn what_is_stopped_tells_what_it_has() {
        let dir = folder();
        let args = args(dir.path());
        let data = Data::read(&args).expect("readable");
        let stopped = AtomicBool::new(true);
        assert_eq!(runs(&args, &data, &stopped).fills().expect("an end"), []);
    }

    #[test]
    fn one_row_for_each_workload_policy_and_seed() {
        let dir = folder();
        let args = args(dir.path());
        let data = Data::read(&args).expect("readable");
        let rows = runs(&args, &data, &AtomicBool::new(false)).fills().expect("runs");
        assert_eq!(rows.len(), 4);
        assert!(rows.iter().all(|row| row.workload == "mine"));
        // One job asks for up to 4 per cent of the GPUs, so a single per cent may be leapt over.
        assert!(rows.iter().all(|row| (97..=103).any(|percent| row.at(percent).is_some())));
        let table = table::fill_table(&rows, &[]).render();
        assert!(table.contains("mine") && table.contains("foresight"), "{table}");
    }

    #[test]
    fn a_workload_without_times_has_no_rows_with_durations_of_the_trace() {
        let dir = folder();
        let args = PackingArgs { seeds: 1, policy: vec![Policy::Fgd], ..args(dir.path()) };
        let data = Data::read(&args).expect("readable");
        let rows = runs(&args, &data, &AtomicBool::new(false)).steadies().expect("runs");
        assert_eq!(rows.len(), 4, "two patterns, rejected and queued");
        assert!(rows.iter().all(|row| row.durations == Durations::Exponential));
    }

    #[test]
    fn what_is_missing_is_named() {
        let dir = folder();
        let wrong = PackingArgs { workload: vec!["yours".to_owned()], ..args(dir.path()) };
        let error = Data::read(&wrong).err().expect("there is none").to_string();
        assert!(error.contains("openb_pod_list_yours.csv") && error.contains("mine"), "{error}");
        std::fs::remove_file(dir.path().join("openb_pod_list_mine.csv")).expect("removed");
        let error = Data::read(&args(dir.path())).err().expect("no jobs").to_string();
        assert!(error.contains("openb_pod_list_NAME.csv"), "{error}");
    }

    #[test]
    fn what_cannot_be_done_is_told_before_it_is_measured() {
        let dir = folder();
        let output = Output::new(crate::output::Format::Table, true);
        let message = |args: &PackingArgs| run(output, args).expect_err("refused").to_string();
        let no_folder =
            PackingArgs { json: Some(dir.path().join("no/x.json")), ..args(dir.path()) };
        assert!(message(&no_folder).contains("cannot write"));
        let seeds = PackingArgs { first_seed: u64::MAX, ..args(dir.path()) };
        assert!(message(&seeds).contains("--first-seed"));
        let file = dir.path().join("new.json");
        super::super::can_write(Some(&file)).expect("can be written");
        assert!(!file.exists(), "nothing is left behind");
    }
}
