//! Events: what changed when an entry was applied, for those who act on it.
//!
//! **Invariant:** events are hints to look again, level-triggered; no consumer may need every one.

use crate::id::{JobId, NodeId};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Event {
    /// The node's own facts changed: registered, eligibility, status, removed.
    NodeChanged(NodeId),
    /// What the node should run, or what is free on it, changed.
    NodeWorkChanged(NodeId),
    /// The job's phase, reason or a replica changed.
    JobChanged(JobId),
    /// The job has replicas that wait for a plan (pending or to be repaired).
    JobWaiting(JobId),
    /// Capacity came back or appeared: waiting jobs are worth another try.
    CapacityGrew,
    SitesChanged,
    TenantsChanged,
}
