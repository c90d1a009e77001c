//! Worker machines: what they have, where they stand, what they cost, how they are.
//!
//! **Invariant:** a [`Node`] holds facts only; what is used of it is derived by `state::index`.

mod custom;

pub use custom::{CUSTOM_MAX, Custom};

use crate::id::{Epoch, ModelId, Name, NodeId, SiteId, SupplierId};
use crate::unit::{
    BandwidthMbps, ComputeCapability, CpuMilli, DiskMib, MemoryMib, PriceMicroUsd, TimeMs, VramMib,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Most labels on a node.
pub const LABELS_MAX: usize = 64;
/// Longest label key or value in bytes, as in Kubernetes (prefix/name up to 253 + 1 + 63).
pub const LABEL_BYTES_MAX: usize = 317;
/// Most taints on a node.
pub const TAINTS_MAX: usize = 32;

/// Most GPU models in one cluster's life: far above what is on sale, low enough to copy the list.
pub const MODELS_MAX: usize = 1024;

/// Free-form facts for selectors; keys and values are printable ASCII, bounded.
pub type Labels = BTreeMap<Arc<str>, Arc<str>>;

/// One GPU as the state holds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Gpu {
    pub model: ModelId,
    pub vram: VramMib,
    /// NVLink/NVSwitch island inside the node; GPUs with equal numbers share one.
    pub link_domain: u8,
    /// `None` = not told.
    pub vendor: Option<Vendor>,
    /// 0 = not told.
    pub compute_capability: ComputeCapability,
}

/// Who makes a GPU or accelerator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Vendor {
    Nvidia,
    Amd,
    Intel,
    Google,
    Aws,
    Huawei,
    Tenstorrent,
}

/// All GPU models the fleet has ever shown, numbered in order of first sight.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Named")]
pub struct Models {
    names: Vec<Name>,
    /// Numbers by rising name: a job may name tens of thousands.
    #[serde(skip)]
    by_name: Vec<u16>,
}

/// Models as they are stored.
#[derive(Deserialize)]
struct Named {
    names: Vec<Name>,
}

impl From<Named> for Models {
    fn from(Named { names }: Named) -> Self {
        let mut by_name: Vec<u16> = (0u16..).zip(&names).map(|(number, _)| number).collect();
        by_name.sort_by_key(|&number| names.get(usize::from(number)));
        Self { names, by_name }
    }
}

/// What is derived from the names does not count.
impl Hash for Models {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.names.hash(hasher);
    }
}

impl Models {
    /// The model's name, or `None` for a number never given.
    pub fn name(&self, id: ModelId) -> Option<&Name> {
        self.names.get(usize::from(id.0))
    }

    /// The number of a name, exactly as spelled.
    pub fn find(&self, name: &Name) -> Option<ModelId> {
        let at = self.place(name).ok()?;
        self.by_name.get(at).copied().map(ModelId)
    }

    /// All models by rising number.
    pub fn iter(&self) -> impl Iterator<Item = (ModelId, &Name)> {
        (0u16..).map(ModelId).zip(&self.names)
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The number of `name`, given now if it is new; `None` once [`MODELS_MAX`] names are known.
    pub fn find_or_add(&mut self, name: &Name) -> Option<ModelId> {
        let place = match self.place(name) {
            Ok(at) => return self.by_name.get(at).copied().map(ModelId),
            Err(place) => place,
        };
        let next = u16::try_from(self.names.len()).ok()?;
        if self.names.len() >= MODELS_MAX {
            return None;
        }
        self.names.push(name.clone());
        self.by_name.insert(place, next);
        Some(ModelId(next))
    }

    /// Place of the name among all by rising name, or where it would be.
    fn place(&self, name: &Name) -> Result<usize, usize> {
        self.by_name
            .binary_search_by(|&number| self.names.get(usize::from(number)).cmp(&Some(name)))
    }
}

/// What a taint does to a replica that does not tolerate it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum TaintEffect {
    /// Never placed here.
    NoSchedule,
    /// Placed here only when nothing else is left.
    PreferNoSchedule,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Taint {
    pub key: Arc<str>,
    pub value: Arc<str>,
    pub effect: TaintEffect,
}

/// Where a node stands. A site is a set of nodes on one LAN; it lies in one zone of one region.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Place {
    pub region: Name,
    pub zone: Name,
    pub site: Name,
    pub rack: Name,
}

/// Amounts of everything but GPUs.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Resources {
    pub cpu: CpuMilli,
    pub memory: MemoryMib,
    pub disk: DiskMib,
}

/// Whether the node answers. Only the leader's liveness duty changes it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum NodeStatus {
    Up,
    /// Its lease ended; what ran on it counts as lost.
    Down,
}

/// Whether new work may go there. Only people change it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Eligibility {
    Eligible,
    /// Keeps what it has, gets nothing new.
    Cordoned,
    /// Gets nothing new, and what it has is moved away.
    Draining,
}

/// What an agent declares of its machine when it joins; the log adds id, epoch and status.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Host name, unique per supplier.
    pub name: Name,
    pub labels: Labels,
    pub taints: Vec<Taint>,
    pub gpus: Vec<GpuSpec>,
    pub resources: Resources,
    /// Countable resources of the supplier's own naming.
    pub custom: Custom,
    pub place: Place,
    pub bandwidth_up: BandwidthMbps,
    pub bandwidth_down: BandwidthMbps,
    /// Per GPU and hour.
    pub price: PriceMicroUsd,
    /// `host:port` or host at which other members of a cluster reach this node; may be empty.
    pub address: Arc<str>,
}

/// One GPU as an agent declares it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct GpuSpec {
    pub model: Name,
    pub vram: VramMib,
    pub link_domain: u8,
    pub vendor: Option<Vendor>,
    pub compute_capability: ComputeCapability,
}

/// A worker machine as the state holds it.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    pub supplier: SupplierId,
    pub name: Name,
    /// Shared by the node's copies: a session that ends changes none of them.
    pub labels: Arc<Labels>,
    pub taints: Vec<Taint>,
    /// Index in this list = bit in a `GpuSet`. At most 64.
    pub gpus: Vec<Gpu>,
    pub resources: Resources,
    /// Countable resources of the supplier's own naming.
    pub custom: Custom,
    pub place: Place,
    pub site: SiteId,
    pub bandwidth_up: BandwidthMbps,
    pub bandwidth_down: BandwidthMbps,
    pub price: PriceMicroUsd,
    pub address: Arc<str>,
    pub status: NodeStatus,
    pub eligibility: Eligibility,
    pub epoch: Epoch,
    /// Digest of the secret that the agent made at its first start; a re-join must know the secret.
    pub key_digest: [u8; 32],
    pub registered_at: TimeMs,
    /// When status or eligibility last changed.
    pub changed_at: TimeMs,
}

impl Node {
    /// Whether new replicas may be placed here.
    pub fn is_schedulable(&self) -> bool {
        self.status == NodeStatus::Up && self.eligibility == Eligibility::Eligible
    }

    /// Whether the machine, of which this is the node by its name, still is what it was when it
    /// declares `spec`, with the site and the GPUs that the state calls so.
    pub fn is_declared_by(&self, spec: &NodeSpec, site: SiteId, gpus: &[Gpu]) -> bool {
        // Taken apart, so that whoever adds a field is asked about it here.
        let NodeSpec {
            name,
            labels,
            taints,
            gpus: _,
            resources,
            custom,
            place,
            bandwidth_up,
            bandwidth_down,
            price,
            address,
        } = spec;
        self.site == site
            && self.gpus == gpus
            && self.resources == *resources
            && (self.bandwidth_up, self.bandwidth_down) == (*bandwidth_up, *bandwidth_down)
            && self.price == *price
            && self.name == *name
            && self.place == *place
            && self.address == *address
            && self.custom == *custom
            && self.taints == *taints
            && *self.labels == *labels
    }
}
