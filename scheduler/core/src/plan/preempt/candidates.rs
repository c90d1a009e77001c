//! Candidates: running jobs that let others disrupt them, and what each could give back.
//!
//! **Invariant:** bounded, however much runs; where there are more, those of the lowest priorities
//! are read.

use crate::id::{JobId, Rank, TenantId};
use crate::job::{Job, JobSpec, Priority};
use crate::plan::explain::outlook::HELD_MAX;
use crate::state::State;
use crate::unit::{DurationMs, TimeMs};
use crate::view::Held;
use std::collections::BTreeSet;

/// Most jobs looked at: whoever needs more than that to give way had better wait.
const JOBS_MAX: usize = 4_096;

/// A running job that may be disrupted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    pub job: JobId,
    pub priority: Priority,
    /// Whether it belongs to the tenant who asks.
    pub own: bool,
    /// For how long it has been placed.
    pub ran: DurationMs,
    /// Replicas that may be taken alone, by rising rank.
    pub spares: Vec<(Rank, Held)>,
    /// All others that hold something.
    pub rest: Vec<Held>,
    /// Thousandths of GPUs of the others.
    pub rest_gpu_milli: u64,
}

/// All candidates for one job, as they are read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Candidates {
    jobs: Vec<JobId>,
    next: usize,
    held: usize,
    pub found: Vec<Candidate>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub tenant: &'a TenantId,
    pub priority: Priority,
    /// It wishes something of the tenant's other jobs: they are not to give way.
    pub is_about_jobs: bool,
}

impl<'a> Asker<'a> {
    /// For a job of the tenant.
    pub fn of(tenant: &'a TenantId, spec: &JobSpec) -> Self {
        Self { tenant, priority: spec.priority, is_about_jobs: spec.is_about_jobs() }
    }
}

impl Candidates {
    /// The jobs alone: call [`Candidates::read_on`] until it says that it is done.
    pub fn begin(state: &State, below: Priority, but: &BTreeSet<JobId>) -> Self {
        let jobs = state.disruptible(below).map(|(_, job)| job).filter(|job| !but.contains(job));
        Self { jobs: jobs.take(JOBS_MAX).collect(), ..Self::default() }
    }

    /// As [`Candidates::begin`], of these jobs, whether or not they may give way.
    pub fn named(jobs: impl Iterator<Item = JobId>) -> Self {
        Self { jobs: jobs.take(JOBS_MAX).collect(), ..Self::default() }
    }

    /// All that there are.
    pub fn all(state: &State, asker: Asker<'_>, now: TimeMs) -> Vec<Candidate> {
        let mut all = Self::begin(state, asker.priority, &BTreeSet::new());
        while all.read_on(state, asker, now, HELD_MAX) {}
        all.found
    }

    /// Reads about `slice` replicas; whether there is more to read.
    pub fn read_on(&mut self, state: &State, asker: Asker<'_>, now: TimeMs, slice: usize) -> bool {
        let until = self.held.saturating_add(slice);
        while self.held < until {
            let Some(&id) = self.jobs.get(self.next).filter(|_| self.held < HELD_MAX) else {
                return false;
            };
            self.next += 1;
            let Some(job) = state.job(id) else { continue };
            let own = job.tenant == *asker.tenant;
            if own && asker.is_about_jobs {
                continue;
            }
            let one = read(state, job, own, now);
            self.held += one.spares.len() + one.rest.len() + 1;
            if one.spares.len() + one.rest.len() > 0 {
                self.found.push(one);
            }
        }
        true
    }
}

fn read(state: &State, job: &Job, own: bool, now: TimeMs) -> Candidate {
    let spare = state.spare_ranks(job);
    let ran = job.placed_at.map_or(DurationMs::ZERO, |placed| now.since(placed));
    let live = state.counts(job.id).map_or(0, |counts| counts.total.live()) as usize;
    let mut rest = Vec::with_capacity(live.saturating_sub(spare.len()));
    let (mut spares, mut rest_gpu_milli) = (Vec::with_capacity(spare.len()), 0u64);
    let starts = job.spec.group_starts();
    for (rank, replica) in state.replicas(job.id) {
        let Some(held) = Held::of(&job.spec, &starts, rank, &replica) else { continue };
        if spare.binary_search(&rank).is_ok() {
            spares.push((rank, held));
        } else {
            rest_gpu_milli = rest_gpu_milli.saturating_add(held.gpu_milli());
            rest.push(held);
        }
    }
    Candidate { job: job.id, priority: job.spec.priority, own, ran, spares, rest, rest_gpu_milli }
}
