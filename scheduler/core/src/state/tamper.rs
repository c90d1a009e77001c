//! A way around every rule, and to what else is private, for tests that must see a fault noticed.
//!
//! **Invariant:** built for tests only, and no program calls it.

use super::State;
use crate::id::{JobId, Rank, SupplierId};
use crate::job::{Job, Replica};

impl State {
    /// Whether the job may lose these replicas alone.
    pub fn check_spared(&self, job: &Job, ranks: &[Rank]) -> bool {
        self.can_spare(job, ranks)
    }

    /// Puts a replica as it is given, whatever that breaks; derived counters follow it.
    pub fn tamper(&mut self, job: JobId, rank: Rank, replica: Replica) {
        self.put_replica(job, rank, replica);
    }

    /// Makes believe that a supplier has so many nodes, so that a limit is met without as many.
    pub fn tamper_nodes_of(&mut self, supplier: SupplierId, count: usize) {
        self.index.set_nodes_of(supplier, count);
    }
}
