//! A way around every rule, for tests that must see a fault noticed.
//!
//! **Invariant:** built for tests only, and no program calls it.

use super::State;
use crate::id::{JobId, Rank};
use crate::job::Replica;

impl State {
    /// Puts a replica as it is given, whatever that breaks; derived counters follow it.
    pub fn tamper(&mut self, job: JobId, rank: Rank, replica: Replica) {
        self.put_replica(job, rank, replica);
    }
}
