//! How the facts are cut into rows for a store or a snapshot, and put together again.
//!
//! A row in the store costs tens of microseconds whatever its size, so neighbours share one: jobs
//! with few replicas carry them inline, big jobs have them in pages of their own.
//! **Invariant:** the rows of a state, in order of key, determine all its facts; nothing derived
//! is in them. The shapes of [`Row`] are a contract with what is on disk.

use super::brought::Brought;
use super::check::Finding;
use super::facts::{Facts, JobSlot, Meta};
use super::index::Index;
use super::replicas::Replicas;
use super::shared::Shared;
use super::{Dirty, State};
use crate::command::Quota;
use crate::id::{JobId, SupplierId, TenantId};
use crate::job::{Job, Replica, Scaling};
use crate::node::{Models, Node};
use crate::table::Table;
use crate::topology::Sites;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Consecutive node ids in one row: about 4 KiB of usual nodes.
pub const NODES_PER_ROW: u32 = 8;
/// Consecutive job ids in one row: about 4 KiB of usual small jobs.
pub const JOBS_PER_ROW: u64 = 16;
/// Jobs with at most this many replicas carry them in their own row.
pub const REPLICAS_INLINE_MAX: usize = 8;
/// Consecutive ranks in one row of a bigger job's replicas: about 4 KiB.
pub const REPLICAS_PER_ROW: usize = 256;

/// Names one row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum RowKey {
    Meta,
    Models,
    Sites,
    Tenant(TenantId),
    /// Nodes with ids from n x [`NODES_PER_ROW`].
    Nodes(u32),
    /// Jobs with ids from n x [`JOBS_PER_ROW`].
    Jobs(u64),
    /// Replicas of a job with ranks from n x [`REPLICAS_PER_ROW`].
    Replicas(JobId, u32),
    /// The latest scalings of a job that was ever scaled.
    Scalings(JobId),
    /// What a supplier brought that nobody had before.
    Supplier(SupplierId),
}

/// The facts of one row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Row {
    Meta(Meta),
    Models(Arc<Models>),
    Sites(Arc<Sites>),
    Tenant(TenantId, Quota),
    Nodes(u32, Vec<Arc<Node>>),
    Jobs(u64, Vec<JobRow>),
    Replicas(JobId, u32, Arc<[Replica]>),
    Scalings(JobId, Arc<Vec<Scaling>>),
    Supplier(SupplierId, Brought),
}

/// One job in its row.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct JobRow {
    pub job: Arc<Job>,
    /// All replicas, if they are at most [`REPLICAS_INLINE_MAX`]; else empty.
    pub replicas: Vec<Replica>,
}

/// Why rows do not make a state.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("there is no row of counters")]
    NoMeta,
    #[error("a row comes twice or belongs elsewhere: {key:?}")]
    Misplaced { key: RowKey },
    #[error("{job} has replicas for {found} ranks in its rows and {wanted} ranks in its spec")]
    Replicas { job: JobId, found: usize, wanted: u32 },
    #[error("the facts contradict each other in {count} places, first: {first}")]
    Inconsistent { count: usize, first: Finding },
}

impl Row {
    /// The key under which the row belongs.
    pub fn key(&self) -> RowKey {
        match self {
            Self::Meta(_) => RowKey::Meta,
            Self::Models(_) => RowKey::Models,
            Self::Sites(_) => RowKey::Sites,
            Self::Tenant(id, _) => RowKey::Tenant(id.clone()),
            Self::Nodes(page, _) => RowKey::Nodes(*page),
            Self::Jobs(page, _) => RowKey::Jobs(*page),
            Self::Replicas(job, page, _) => RowKey::Replicas(*job, *page),
            Self::Scalings(job, _) => RowKey::Scalings(*job),
            Self::Supplier(id, _) => RowKey::Supplier(id.clone()),
        }
    }
}

/// A view of the facts at one log index that later entries do not change.
#[derive(Clone, Debug)]
pub struct Frozen(Facts);

impl Frozen {
    /// Log index of the last entry in it.
    pub fn index(&self) -> u64 {
        self.0.meta.index
    }

    /// As [`State::hash`].
    pub fn hash(&self) -> u128 {
        self.0.hash()
    }

    /// As [`State::check`], but for the derived index, which a view has not. To be run beside a
    /// busy server.
    pub fn check(&self) -> Vec<Finding> {
        self.0.recount().1
    }

    /// As [`State::row`].
    pub fn row(&self, key: &RowKey) -> Option<Row> {
        self.0.row(key)
    }

    /// All rows by rising key.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.0.rows()
    }
}

/// Storing.
impl State {
    /// Rows changed or removed since the last call, by rising key. Whoever never calls this only
    /// pays for a key for each row there ever was.
    pub fn take_dirty(&mut self) -> Vec<RowKey> {
        self.dirty.take()
    }

    /// The row as it is now; `None` = there is none (any more).
    pub fn row(&self, key: &RowKey) -> Option<Row> {
        self.facts.row(key)
    }

    /// A view of the facts for a snapshot: costs one pointer per page of 128 nodes or jobs.
    pub fn freeze(&self) -> Frozen {
        Frozen(self.facts.clone())
    }

    /// The state of which these are all rows, in any order.
    pub fn from_rows(rows: impl Iterator<Item = Row>) -> Result<Self, RestoreError> {
        let mut shared = Shared::default();
        let facts = Facts::from_rows(rows, &mut shared)?;
        let (index, findings) = Index::build(&facts);
        if let Some(first) = findings.first() {
            return Err(RestoreError::Inconsistent { count: findings.len(), first: first.clone() });
        }
        Ok(Self { facts, index, dirty: Dirty::default(), shared })
    }
}

fn job_row(slot: &JobSlot) -> JobRow {
    let inline = slot.replicas.len() <= REPLICAS_INLINE_MAX;
    let replicas = if inline { slot.replicas.iter().copied().collect() } else { Vec::new() };
    JobRow { job: slot.job.clone(), replicas }
}

/// Key of the row that holds a replica.
pub(super) fn replica_row(job: JobId, replicas: usize, rank: crate::id::Rank) -> RowKey {
    if replicas <= REPLICAS_INLINE_MAX {
        return RowKey::Jobs(job.0 / JOBS_PER_ROW);
    }
    let page = usize::try_from(rank.0).unwrap_or(usize::MAX) / REPLICAS_PER_ROW;
    RowKey::Replicas(job, u32::try_from(page).unwrap_or(u32::MAX))
}

/// Keys of all rows of a job's replicas beside its own row.
pub(super) fn replica_rows(job: JobId, replicas: usize) -> impl Iterator<Item = RowKey> {
    let pages =
        if replicas <= REPLICAS_INLINE_MAX { 0 } else { replicas.div_ceil(REPLICAS_PER_ROW) };
    (0..u32::try_from(pages).unwrap_or(u32::MAX)).map(move |page| RowKey::Replicas(job, page))
}

impl Facts {
    fn row(&self, key: &RowKey) -> Option<Row> {
        match key {
            RowKey::Meta => Some(Row::Meta(self.meta)),
            RowKey::Models => Some(Row::Models(self.models.clone())),
            RowKey::Sites => Some(Row::Sites(self.sites.clone())),
            RowKey::Tenant(id) => Some(Row::Tenant(id.clone(), *self.tenants.get(id)?)),
            RowKey::Nodes(page) => {
                let first = u64::from(*page) * u64::from(NODES_PER_ROW);
                let ids = first..first + u64::from(NODES_PER_ROW);
                let nodes: Vec<_> = ids.filter_map(|id| self.nodes.get(id).cloned()).collect();
                (!nodes.is_empty()).then_some(Row::Nodes(*page, nodes))
            }
            RowKey::Jobs(page) => {
                let first = page.saturating_mul(JOBS_PER_ROW);
                let ids = first..first.saturating_add(JOBS_PER_ROW);
                let jobs: Vec<_> = ids.filter_map(|id| self.jobs.get(id).map(job_row)).collect();
                (!jobs.is_empty()).then_some(Row::Jobs(*page, jobs))
            }
            RowKey::Replicas(job, page) => {
                let replicas = &self.jobs.get(job.0)?.replicas;
                if replicas.len() <= REPLICAS_INLINE_MAX {
                    return None;
                }
                let found = replicas.page(usize::try_from(*page).ok()?)?;
                Some(Row::Replicas(*job, *page, found.clone()))
            }
            RowKey::Scalings(job) => {
                Some(Row::Scalings(*job, self.jobs.get(job.0)?.scalings.clone()?))
            }
            RowKey::Supplier(id) => Some(Row::Supplier(id.clone(), self.brought.get(id)?.clone())),
        }
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let whole = [RowKey::Meta, RowKey::Models, RowKey::Sites].into_iter();
        let tenants = self.tenants.keys().cloned().map(RowKey::Tenant);
        let nodes = pages(self.nodes.iter().map(|(id, _)| id), u64::from(NODES_PER_ROW))
            .map(|page| RowKey::Nodes(u32::try_from(page).unwrap_or(u32::MAX)));
        let jobs = pages(self.jobs.iter().map(|(id, _)| id), JOBS_PER_ROW).map(RowKey::Jobs);
        let replicas =
            self.jobs.iter().flat_map(|(id, slot)| replica_rows(JobId(id), slot.replicas.len()));
        let scaled = self.jobs.iter().filter(|(_, slot)| slot.scalings.is_some());
        let scalings = scaled.map(|(id, _)| RowKey::Scalings(JobId(id)));
        let suppliers = self.brought.keys().cloned().map(RowKey::Supplier);
        let keys = whole.chain(tenants).chain(nodes).chain(jobs).chain(replicas).chain(scalings);
        let keys = keys.chain(suppliers);
        keys.filter_map(|key| self.row(&key))
    }

    fn from_rows(
        rows: impl Iterator<Item = Row>,
        shared: &mut Shared,
    ) -> Result<Self, RestoreError> {
        let mut facts = Self::default();
        let mut meta = None;
        let mut tenants = BTreeMap::new();
        let mut brought = BTreeMap::new();
        let mut pages: BTreeMap<(JobId, u32), Arc<[Replica]>> = BTreeMap::new();
        let mut scalings = BTreeMap::new();
        let mut jobs: Vec<JobRow> = Vec::new();
        for row in rows {
            let key = row.key();
            let fresh = match row {
                Row::Meta(found) => meta.replace(found).is_none(),
                Row::Models(models) => {
                    facts.models = models;
                    true
                }
                Row::Sites(sites) => {
                    facts.sites = sites;
                    true
                }
                Row::Tenant(id, quota) => tenants.insert(id, quota).is_none(),
                Row::Nodes(page, nodes) => nodes.into_iter().all(|mut node| {
                    shared.share_in_node(Arc::make_mut(&mut node));
                    let id = u64::from(node.id.0);
                    id / u64::from(NODES_PER_ROW) == u64::from(page)
                        && facts.nodes.insert(id, node).is_none()
                }),
                Row::Jobs(page, found) => {
                    let fits = found.iter().all(|row| row.job.id.0 / JOBS_PER_ROW == page);
                    jobs.extend(found);
                    fits
                }
                Row::Replicas(job, page, found) => pages.insert((job, page), found).is_none(),
                Row::Scalings(job, found) => scalings.insert(job, found).is_none(),
                Row::Supplier(id, found) => brought.insert(id, found).is_none(),
            };
            if !fresh {
                return Err(RestoreError::Misplaced { key });
            }
        }
        facts.meta = meta.ok_or(RestoreError::NoMeta)?;
        for row in &mut jobs {
            let job = Arc::make_mut(&mut row.job);
            job.spec = shared.spec(&job.spec);
            if let Some((tenant, _)) = tenants.get_key_value(&job.tenant) {
                job.tenant = tenant.clone();
            }
        }
        facts.tenants = Arc::new(tenants);
        facts.brought = Arc::new(brought);
        facts.jobs = join_jobs(jobs, pages)?;
        for (job, found) in scalings {
            let misplaced = RestoreError::Misplaced { key: RowKey::Scalings(job) };
            facts.jobs.get_mut(job.0).ok_or(misplaced)?.scalings = Some(found);
        }
        Ok(facts)
    }
}

/// Numbers of the pages in which the rising ids lie, each once.
fn pages(ids: impl Iterator<Item = u64>, size: u64) -> impl Iterator<Item = u64> {
    let mut last = None;
    ids.filter_map(move |id| {
        let page = id / size;
        (last != Some(page)).then(|| {
            last = Some(page);
            page
        })
    })
}

fn join_jobs(
    mut jobs: Vec<JobRow>,
    mut pages: BTreeMap<(JobId, u32), Arc<[Replica]>>,
) -> Result<Table<JobSlot>, RestoreError> {
    jobs.sort_by_key(|row| row.job.id);
    let mut table = Table::default();
    for row in jobs {
        let id = row.job.id;
        let wanted = row.job.spec.rank_end();
        let count = usize::try_from(wanted).unwrap_or(usize::MAX);
        let replicas = if count <= REPLICAS_INLINE_MAX {
            Replicas::from_pages(vec![row.replicas.into()])
        } else {
            let numbers = 0..u32::try_from(count.div_ceil(REPLICAS_PER_ROW)).unwrap_or(u32::MAX);
            let found: Vec<_> = numbers.map_while(|page| pages.remove(&(id, page))).collect();
            let full = found.iter().rev().skip(1).all(|page| page.len() == REPLICAS_PER_ROW);
            let alone = row.replicas.is_empty();
            Replicas::from_pages(if full && alone { found } else { Vec::new() })
        };
        let found = replicas.len();
        if found != count {
            return Err(RestoreError::Replicas { job: id, found, wanted });
        }
        if table.insert(id.0, JobSlot { job: row.job, replicas, scalings: None }).is_some() {
            return Err(RestoreError::Misplaced { key: RowKey::Jobs(id.0 / JOBS_PER_ROW) });
        }
    }
    match pages.pop_first() {
        Some(((job, page), _)) => Err(RestoreError::Misplaced { key: RowKey::Replicas(job, page) }),
        None => Ok(table),
    }
}
