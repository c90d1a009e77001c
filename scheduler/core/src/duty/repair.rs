//! Which waiting jobs to plan next, and when to try again those that found no room.
//!
//! Jobs that already run and lack members come before jobs that have not begun; then the older
//! before the newer. A job that found no room is left alone for a while that doubles with every
//! try, unless capacity has grown since.
//! **Invariant:** knows nothing that the state does not, except how often it tried.

use crate::id::JobId;
use crate::job::JobPhase;
use crate::state::State;
use crate::unit::{DurationMs, TimeMs};
use std::collections::BTreeMap;

/// First pause after a failed try, and the shortest one whatever has become free: so that one busy
/// fleet cannot make the leader plan all waiting jobs again with every job that ends.
pub const PAUSE_MIN: DurationMs = DurationMs(100);
/// Longest pause: for what no event announces.
pub const PAUSE_MAX: DurationMs = DurationMs(30_000);

#[derive(Clone, Copy, Debug)]
struct Tried {
    times: u32,
    at: TimeMs,
    /// Value of `Backlog::growths` when it was planned.
    growths: u64,
}

/// The leader's memory of what it tried.
#[derive(Debug, Default)]
pub struct Backlog {
    tried: BTreeMap<JobId, Tried>,
    growths: u64,
}

impl Backlog {
    pub fn new() -> Self {
        Self::default()
    }

    /// Capacity came back or appeared.
    pub fn capacity_grew(&mut self) {
        self.growths = self.growths.saturating_add(1);
    }

    /// A plan for the job was looked for at `now` and not found, or went stale.
    pub fn failed(&mut self, job: JobId, now: TimeMs) {
        let growths = self.growths;
        let tried = self.tried.entry(job).or_insert(Tried { times: 0, at: now, growths });
        *tried = Tried { times: tried.times.saturating_add(1), at: now, growths };
    }

    /// The job found its place, or is over: what was tried no longer counts.
    pub fn settled(&mut self, job: JobId) {
        self.tried.remove(&job);
    }

    /// How often the job was tried in vain since it last had a place.
    pub fn tries(&self, job: JobId) -> u32 {
        self.tried.get(&job).map_or(0, |tried| tried.times)
    }

    /// Up to `limit` jobs worth a try at `now`, in the order in which to try them.
    pub fn due(&self, state: &State, now: TimeMs, limit: usize) -> Vec<JobId> {
        let (mut repairs, mut fresh) = (Vec::new(), Vec::new());
        for id in state.waiting().filter(|&id| self.is_due(id, now)) {
            let pending = state.job(id).is_none_or(|job| job.phase == JobPhase::Pending);
            let list = if pending { &mut fresh } else { &mut repairs };
            if list.len() < limit {
                list.push(id);
            }
            if repairs.len() >= limit {
                break;
            }
        }
        repairs.extend(fresh);
        repairs.truncate(limit);
        repairs
    }

    /// The earliest time at which a job that is not due now will be; `None` if none waits.
    pub fn next_due(&self, state: &State) -> Option<TimeMs> {
        state.waiting().map(|id| self.due_at(id)).min()
    }

    /// Forgets jobs that no longer wait. To be called now and then.
    pub fn prune(&mut self, state: &State) {
        self.tried
            .retain(|&id, _| state.counts(id).is_some_and(|counts| counts.total.to_place() > 0));
    }

    fn is_due(&self, id: JobId, now: TimeMs) -> bool {
        self.due_at(id) <= now
    }

    fn due_at(&self, id: JobId) -> TimeMs {
        let Some(tried) = self.tried.get(&id) else { return TimeMs::ZERO };
        let doublings = tried.times.saturating_sub(1).min(16);
        let pause = if tried.growths == self.growths {
            (PAUSE_MIN.0 << doublings).min(PAUSE_MAX.0)
        } else {
            PAUSE_MIN.0
        };
        TimeMs(tried.at.0.saturating_add(pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, NodeTransition};
    use crate::fixture::entry::World;
    use crate::id::{Epoch, NodeId};
    use crate::node::NodeStatus;

    #[test]
    fn repairs_come_before_new_jobs_and_old_before_new() {
        let mut world = World::with_nodes(2, 8);
        let first = world.submit_waiting("a", 1, 8);
        let running = world.submit_placed("b", &[(0, 0xff)]);
        let last = world.submit_waiting("c", 1, 8);
        let backlog = Backlog::new();
        assert_eq!(backlog.due(&world.state, TimeMs(0), 9), [first, last]);
        let down = NodeTransition { node: NodeId(0), epoch: Epoch(1), status: NodeStatus::Down };
        world.done(Command::NodeStatuses(vec![down]));
        assert_eq!(backlog.due(&world.state, TimeMs(0), 9), [running, first, last]);
        assert_eq!(backlog.due(&world.state, TimeMs(0), 2), [running, first]);
    }

    #[test]
    fn pauses_double_and_new_capacity_cuts_them_short() {
        let mut world = World::with_nodes(1, 8);
        let job = world.submit_waiting("a", 1, 8);
        let mut backlog = Backlog::new();
        let due = |backlog: &Backlog, at| !backlog.due(&world.state, TimeMs(at), 9).is_empty();
        backlog.failed(job, TimeMs(1_000));
        assert!(!due(&backlog, 1_099));
        assert!(due(&backlog, 1_100));
        backlog.failed(job, TimeMs(2_000));
        backlog.failed(job, TimeMs(3_000));
        assert!(!due(&backlog, 3_399));
        assert_eq!(backlog.next_due(&world.state), Some(TimeMs(3_400)));
        backlog.capacity_grew();
        assert!(!due(&backlog, 3_099));
        assert!(due(&backlog, 3_100));
        for _ in 0..100 {
            backlog.failed(job, TimeMs(5_000));
        }
        assert!(due(&backlog, 5_000 + PAUSE_MAX.0));
        backlog.settled(job);
        assert_eq!(backlog.tries(job), 0);
    }
}
