//! The primary facts: all that is stored, hashed and carried by snapshots.
//!
//! **Invariant:** nothing here can be computed from anything else here. A clone is a frozen view:
//! it shares every page and costs one pointer for each.

use super::brought::Brought;
use super::replicas::Replicas;
use crate::command::Quota;
use crate::hash::Hasher;
use crate::id::{SupplierId, TenantId};
use crate::job::{Job, Scaling};
use crate::node::{Models, Node};
use crate::table::Table;
use crate::topology::Sites;
use crate::unit::TimeMs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher as _};
use std::sync::Arc;

/// Counters of the state as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Meta {
    /// Log index of the last entry applied. The only part that the state's hash leaves out, as a
    /// rejected entry moves it too.
    pub index: u64,
    /// Latest time of an accepted entry.
    pub now: TimeMs,
    pub next_node: u32,
    pub next_job: u64,
    pub next_assignment: u64,
}

impl Default for Meta {
    fn default() -> Self {
        Self { index: 0, now: TimeMs::ZERO, next_node: 0, next_job: 1, next_assignment: 1 }
    }
}

/// A job with its replicas.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct JobSlot {
    pub(super) job: Arc<Job>,
    pub(super) replicas: Replicas,
    /// Its latest scalings, the oldest first; `None` = none yet, as for nearly all jobs.
    pub(super) scalings: Option<Arc<Vec<Scaling>>>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Facts {
    pub(super) meta: Meta,
    pub(super) models: Arc<Models>,
    pub(super) sites: Arc<Sites>,
    pub(super) tenants: Arc<BTreeMap<TenantId, Quota>>,
    pub(super) brought: Arc<BTreeMap<SupplierId, Brought>>,
    pub(super) nodes: Table<Arc<Node>>,
    pub(super) jobs: Table<JobSlot>,
}

impl Facts {
    pub(super) fn hash(&self) -> u128 {
        let mut hasher = Hasher::new();
        Meta { index: 0, ..self.meta }.hash(&mut hasher);
        self.models.hash(&mut hasher);
        self.sites.hash(&mut hasher);
        self.tenants.hash(&mut hasher);
        // A fleet to which no supplier brought anything hashes as if there were no such thing.
        if !self.brought.is_empty() {
            self.brought.hash(&mut hasher);
        }
        hasher.write_usize(self.nodes.len());
        for (_, node) in self.nodes.iter() {
            node.hash(&mut hasher);
        }
        hasher.write_usize(self.jobs.len());
        for (_, slot) in self.jobs.iter() {
            slot.job.hash(&mut hasher);
            hasher.write_usize(slot.replicas.len());
            for replica in slot.replicas.iter() {
                replica.hash(&mut hasher);
            }
            // A job that was never scaled hashes as if there were no such thing.
            if let Some(scalings) = &slot.scalings {
                scalings.hash(&mut hasher);
            }
        }
        hasher.finish128()
    }
}
