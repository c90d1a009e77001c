//! Watches a run for what scenarios expect: the fate of every job by name.
//!
//! **Invariant:** one record per arrival; says nothing about what it has not seen.

use crate::observe::{Observer, Seen};
use scheduler_core::id::{JobId, Name};
use scheduler_core::job::JobPhase;
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What became of one arrival.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    arrived: TimeMs,
    ready: Option<TimeMs>,
    repairing_since: Option<TimeMs>,
    pub(super) repair_longest: Option<DurationMs>,
    phase: Option<JobPhase>,
    pub(super) over: bool,
    /// Different nodes when it was ready first.
    pub(super) nodes: u64,
}

impl Fate {
    pub(super) fn ready_after(&self) -> Option<DurationMs> {
        Some(self.ready?.since(self.arrived))
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.phase == Some(JobPhase::Pending)
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: DurationMs| format!("{}.{:03} s", time.0 / 1_000, time.0 % 1_000);
        match self.phase {
            Some(phase) => write!(f, "is {phase:?}")?,
            None => write!(f, "was never heard of")?,
        }
        match self.ready_after() {
            Some(after) => write!(f, ", ready after {}", seconds(after))?,
            None => write!(f, ", never ready")?,
        }
        if let Some(took) = self.repair_longest {
            write!(f, ", repaired within {}", seconds(took))?;
        }
        if self.nodes > 0 {
            write!(f, ", on {} nodes", self.nodes)?;
        }
        Ok(())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    /// By arrival.
    fates: Vec<Fate>,
    /// First arrival past those of each name; names as in the scenario's lines.
    names: Vec<(Name, usize)>,
    jobs: BTreeMap<JobId, usize>,
    /// What was seen of jobs before their callers heard of them.
    early: BTreeMap<JobId, Fate>,
    pub(super) nodes_lost: u64,
}

impl Watch {
    /// `names`: as of [`Watch::names`]; `arrived`: when each job came.
    pub(super) fn new(names: Vec<(Name, usize)>, arrived: impl Iterator<Item = TimeMs>) -> Self {
        let fate = |arrived| Fate { arrived, ..Fate::default() };
        let fates = arrived.map(fate).collect();
        let (jobs, early) = (BTreeMap::new(), BTreeMap::new());
        Self { fates, names, jobs, early, nodes_lost: 0 }
    }

    /// The fates of all jobs of a name.
    pub(super) fn fates(&self, name: &Name) -> impl Iterator<Item = &Fate> {
        let mut first = 0;
        let parts = self.names.iter().map(move |(known, end)| {
            let range = first..*end;
            first = *end;
            (known, range)
        });
        let of_name = parts.filter(move |(known, _)| *known == name);
        of_name.flat_map(|(_, range)| self.fates.get(range).unwrap_or_default())
    }

    fn fate(&mut self, job: JobId) -> &mut Fate {
        match self.jobs.get(&job).and_then(|at| self.fates.get_mut(*at)) {
            Some(fate) => fate,
            None => self.early.entry(job).or_default(),
        }
    }
}

impl Observer for Watch {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        match seen {
            Seen::Submitted { job, arrival } => {
                if let Some(fate) = self.fates.get_mut(arrival) {
                    let early = self.early.remove(&job).unwrap_or_default();
                    *fate = Fate { arrived: fate.arrived, ..early };
                    self.jobs.insert(job, arrival);
                }
            }
            Seen::Phase { job, to, .. } => {
                let fate = self.fate(job);
                fate.phase = Some(to);
                if to == JobPhase::Repairing {
                    fate.repairing_since.get_or_insert(at);
                } else if let Some(since) = fate.repairing_since.take()
                    && fate.ready.is_some()
                {
                    let took = at.since(since);
                    fate.repair_longest = Some(fate.repair_longest.map_or(took, |t| t.max(took)));
                }
                if to == JobPhase::Ready && fate.ready.is_none() {
                    fate.ready = Some(at);
                    let bound = state.replicas(job).filter_map(|(_, replica)| replica.allocation);
                    let nodes: BTreeSet<_> = bound.map(|held| held.node).collect();
                    self.fate(job).nodes = nodes.len() as u64;
                }
                if to.is_over() {
                    self.fate(job).over = true;
                    self.jobs.remove(&job);
                }
            }
            Seen::NodeDown { .. } => self.nodes_lost += 1,
            _ => {}
        }
    }
}
