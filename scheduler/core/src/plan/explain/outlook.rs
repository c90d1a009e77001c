//! Outlook: what an explanation needs to know beside what is free — when running work ends.
//!
//! **Invariant:** read from one state or from states shortly after each other; it is bounded,
//! however much runs.

use crate::id::{JobId, TenantId};
use crate::state::State;
use crate::unit::TimeMs;
use crate::view::Held;

/// Most ends looked at: a queue that needs more to end first is best told "later".
pub const ENDS_MAX: usize = 4_096;
/// Most replicas of all those jobs together: some 10 MB.
pub const HELD_MAX: usize = 200_000;

/// When one job's duration is over, and what that gives back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    pub at: TimeMs,
    pub job: JobId,
    /// Whether it belongs to the tenant who asks.
    pub own: bool,
    /// Thousandths of GPUs that it holds.
    pub gpu_milli: u64,
    pub held: Vec<Held>,
}

/// What is known of the time to come.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outlook {
    /// By rising time; jobs without a duration, or not yet ready, are not in it.
    pub ends: Vec<End>,
    /// Index of the state up to which it tells.
    pub index: u64,
}

impl Outlook {
    /// All of it, for a tenant who asks; see [`Outlook::begin`] for reading it in slices.
    pub fn new(state: &State, tenant: &TenantId) -> Self {
        let mut outlook = Self::begin(state, tenant);
        let mut next = 0;
        while outlook.read_on(state, &mut next, HELD_MAX) {}
        outlook
    }

    /// The times alone: call [`Outlook::read_on`] until it says that it is done.
    pub fn begin(state: &State, tenant: &TenantId) -> Self {
        let end = |(at, job)| {
            let own = state.job(job).is_some_and(|job| job.tenant == *tenant);
            End { at, job, own, gpu_milli: 0, held: Vec::new() }
        };
        Self { ends: state.endings().take(ENDS_MAX).map(end).collect(), index: state.index() }
    }

    /// Takes a job in that is not ready yet, and expected to end then.
    pub fn expect(&mut self, job: JobId, at: TimeMs) {
        let place = self.ends.partition_point(|end| (end.at, end.job) < (at, job));
        self.ends.insert(place, End { at, job, own: false, gpu_milli: 0, held: Vec::new() });
    }

    /// Reads what the jobs from number `next` on hold, about `slice` replicas in one go; whether
    /// there is more to read. A job that has changed since [`Outlook::begin`] counts as holding
    /// nothing.
    pub fn read_on(&mut self, state: &State, next: &mut usize, slice: usize) -> bool {
        let index = self.index;
        let before: usize = self.ends.iter().take(*next).map(|end| end.held.len()).sum();
        let mut read = 0usize;
        while let Some(end) = self.ends.get_mut(*next) {
            if before + read >= HELD_MAX {
                // What comes later is cut off, as if it never ended.
                self.ends.truncate(*next);
                return false;
            }
            if read >= slice {
                return true;
            }
            *next += 1;
            let Some(job) = state.job(end.job).filter(|job| job.modified_index <= index) else {
                continue;
            };
            let starts = job.spec.group_starts();
            for (rank, replica) in state.replicas(end.job) {
                if let Some(held) = Held::of(&job.spec, &starts, rank, &replica) {
                    end.gpu_milli = end.gpu_milli.saturating_add(held.gpu_milli());
                    end.held.push(held);
                }
            }
            read += end.held.len().max(1);
        }
        false
    }
}
