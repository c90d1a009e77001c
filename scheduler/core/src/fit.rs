//! Fit: whether one node could hold one replica, and whether a set of nodes may form one job.
//!
//! Shared by the planner and by `State::apply`, so that a plan and its validation cannot disagree.
//! **Invariant:** answers follow from facts only (the node's, the spec's); what is free right now
//! is the caller's business.

mod rules;

pub use rules::{
    Around, Breach, Domain, Fleet, NOBODY, Outside, breach, joins_within, milli_price_max,
};

use crate::id::ModelId;
use crate::job::{
    Condition, GpuAlternative, GpuAsk, GroupSpec, JobSpec, Level, Selector, Toleration,
};
use crate::node::{Custom, Gpu, Models, Node, Resources, Taint, TaintEffect, Vendor};
use crate::unit::{
    BandwidthMbps, ComputeCapability, GPU_MILLI_WHOLE, GpuSet, PriceMicroUsd, VramMib,
};
use std::fmt;
use std::sync::Arc;

/// Prefix of the labels that every node has without declaring them.
pub const LABEL_PREFIX: &str = "muster/";

/// Why a node, even an empty one, cannot hold a replica. The first that applies, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Misfit {
    /// It has no GPU of an allowed model.
    GpuModel,
    /// Its GPUs of an allowed model are not of the allowed vendor.
    Vendor,
    /// They are, and compute too little.
    ComputeCapability,
    /// They do, and have too little vRAM.
    Vram,
    /// It has too few suitable GPUs of any one model.
    GpuCount,
    Selector,
    /// It has a taint that the replica does not tolerate.
    Taint,
    Price,
    Cpu,
    Memory,
    Disk,
    /// Too little bandwidth up or down.
    Bandwidth,
    /// Too little of some countable resource.
    Custom,
}

/// One alternative with model names resolved to ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Alternative {
    /// Allowed models in rising order; `None` = any.
    models: Option<Vec<ModelId>>,
    vendor: Option<Vendor>,
    vram_min: VramMib,
    compute_capability_min: ComputeCapability,
}

impl Alternative {
    fn new(of: &GpuAlternative, models: &Models) -> Self {
        let resolved = (!of.models.is_empty()).then(|| {
            let mut ids: Vec<ModelId> =
                of.models.iter().filter_map(|name| models.find(name)).collect();
            ids.sort_unstable();
            ids.dedup();
            ids
        });
        Self {
            models: resolved,
            vendor: of.vendor,
            vram_min: of.vram_min,
            compute_capability_min: of.compute_capability_min,
        }
    }

    /// Nothing is allowed.
    fn never() -> Self {
        Self {
            models: Some(Vec::new()),
            vendor: None,
            vram_min: VramMib::ZERO,
            compute_capability_min: ComputeCapability::ZERO,
        }
    }

    fn misfit(&self, gpu: &Gpu) -> Option<Misfit> {
        let model = |models: &Vec<ModelId>| models.binary_search(&gpu.model).is_ok();
        if !self.models.as_ref().is_none_or(model) {
            Some(Misfit::GpuModel)
        } else if self.vendor.is_some_and(|vendor| gpu.vendor != Some(vendor)) {
            Some(Misfit::Vendor)
        } else if gpu.compute_capability < self.compute_capability_min {
            Some(Misfit::ComputeCapability)
        } else if gpu.vram < self.vram_min {
            Some(Misfit::Vram)
        } else {
            None
        }
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GpuModel => "GPU model",
            Self::Vendor => "GPU vendor",
            Self::ComputeCapability => "compute capability",
            Self::Vram => "vRAM",
            Self::GpuCount => "too few GPUs",
            Self::Selector => "selector",
            Self::Taint => "taint",
            Self::Price => "price",
            Self::Cpu => "CPU",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Bandwidth => "bandwidth",
            Self::Custom => "custom resource",
        })
    }
}

/// What one replica of a group needs, with model names resolved to ids.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Needs {
    gpus: GpuAsk,
    /// Any of these, the most wanted first; empty = any GPU.
    alternatives: Vec<Alternative>,
    resources: Resources,
    bandwidth_up_min: BandwidthMbps,
    bandwidth_down_min: BandwidthMbps,
    custom: Custom,
    /// Shared, like the tolerations, among all that is made from these needs.
    selectors: Arc<[Selector]>,
    tolerations: Arc<[Toleration]>,
    /// Bound on the price of each GPU-hour; does not bind a replica without GPUs.
    price_max: Option<PriceMicroUsd>,
}

impl Needs {
    /// Needs of `spec.groups[group]`. A group that does not exist, or whose models are all unknown,
    /// fits nowhere.
    pub fn new(spec: &JobSpec, group: usize, models: &Models) -> Self {
        match spec.groups.get(group) {
            Some(found) => Self::of_group(spec, found, models),
            None => Self {
                gpus: GpuAsk::Whole(1),
                alternatives: vec![Alternative::never()],
                resources: Resources::default(),
                bandwidth_up_min: BandwidthMbps::ZERO,
                bandwidth_down_min: BandwidthMbps::ZERO,
                custom: Custom::default(),
                selectors: Arc::default(),
                tolerations: Arc::default(),
                price_max: None,
            },
        }
    }

    fn of_group(spec: &JobSpec, group: &GroupSpec, models: &Models) -> Self {
        let shape = &group.shape;
        let alternatives = shape.alternatives.iter();
        Self {
            gpus: shape.gpus,
            alternatives: alternatives.map(|one| Alternative::new(one, models)).collect(),
            resources: shape.resources(),
            bandwidth_up_min: shape.bandwidth_up_min,
            bandwidth_down_min: shape.bandwidth_down_min,
            custom: shape.custom.clone(),
            selectors: shared(&group.selectors),
            tolerations: shared(&group.tolerations),
            price_max: spec.price_max,
        }
    }

    /// The same under another bound on the price.
    pub fn at_price(&self, price_max: Option<PriceMicroUsd>) -> Self {
        Self { price_max, ..self.clone() }
    }

    /// GPUs that one replica takes.
    pub fn gpus(&self) -> GpuAsk {
        self.gpus
    }

    /// CPU, memory and disk that one replica takes.
    pub fn resources(&self) -> Resources {
        self.resources
    }

    /// Countable resources that one replica takes.
    pub fn custom(&self) -> &Custom {
        &self.custom
    }

    /// All must hold.
    pub fn selectors(&self) -> &Arc<[Selector]> {
        &self.selectors
    }

    /// Least bandwidth up and down.
    pub fn bandwidth_min(&self) -> (BandwidthMbps, BandwidthMbps) {
        (self.bandwidth_up_min, self.bandwidth_down_min)
    }

    pub fn tolerations(&self) -> &[Toleration] {
        &self.tolerations
    }

    /// Number of alternatives; 0 = any GPU does.
    pub fn alternatives(&self) -> usize {
        self.alternatives.len()
    }

    /// Whether the alternative names models and the fleet has never shown any of them.
    pub fn is_unknown(&self, alternative: usize) -> bool {
        let models = self.alternatives.get(alternative).map(|one| one.models.as_deref());
        models == Some(Some(&[]))
    }

    /// The same with one alternative alone, counted from the most wanted. Whatever fits that also
    /// fits this.
    pub fn only(&self, alternative: usize) -> Self {
        let one = self.alternatives.get(alternative).cloned();
        Self { alternatives: vec![one.unwrap_or_else(Alternative::never)], ..self.clone() }
    }

    /// How many values, tolerations and models a node is held against at most.
    pub fn names(&self) -> usize {
        let values = self.selectors.iter().map(|one| 1 + one.condition.values().len());
        let models = |one: &Alternative| 1 + one.models.as_ref().map_or(0, Vec::len);
        values.sum::<usize>()
            + self.tolerations.len()
            + self.alternatives.iter().map(models).sum::<usize>()
    }

    /// Whether something is read that differs between otherwise equal nodes.
    pub fn reads_identity(&self) -> bool {
        self.bandwidth_up_min > BandwidthMbps::ZERO
            || self.bandwidth_down_min > BandwidthMbps::ZERO
            || self
                .selectors
                .iter()
                .any(|selector| matches!(selector.key.as_ref(), "muster/node" | "muster/rack"))
    }

    /// Whether neither selectors nor a bound on the price keep a replica from any node.
    pub fn is_unconditional(&self) -> bool {
        self.selectors.is_empty() && self.price_max.is_none()
    }

    /// Why `node`, if it were empty, could not hold one replica; `None` = it could.
    pub fn misfit(&self, node: &Node) -> Option<Misfit> {
        let selected = || self.selects(node);
        match self.serving(&node.gpus) {
            None => Some(self.gpu_fault(&node.gpus)),
            Some(_) => self.term_misfit(node, selected),
        }
    }

    /// Whether the node meets all selectors.
    pub fn selects(&self, node: &Node) -> bool {
        self.selectors.iter().all(|selector| selects(selector, node))
    }

    /// The same, GPUs left aside; `selected` is [`Needs::selects`], or knows it.
    pub fn term_misfit(&self, node: &Node, selected: impl FnOnce() -> bool) -> Option<Misfit> {
        self.rule_misfit(node, selected).or_else(|| {
            let fault = self.resource_misfit(node.resources);
            if fault.is_some() {
                fault
            } else if self.bandwidth_up_min > node.bandwidth_up
                || self.bandwidth_down_min > node.bandwidth_down
            {
                Some(Misfit::Bandwidth)
            } else if !self.is_stocked(&node.custom) {
                Some(Misfit::Custom)
            } else {
                None
            }
        })
    }

    /// Of what an empty node with so much CPU, memory and disk has too little.
    pub(crate) fn resource_misfit(&self, have: Resources) -> Option<Misfit> {
        let need = self.resources;
        if need.cpu > have.cpu {
            Some(Misfit::Cpu)
        } else if need.memory > have.memory {
            Some(Misfit::Memory)
        } else if need.disk > have.disk {
            Some(Misfit::Disk)
        } else {
            None
        }
    }

    /// Whether exactly these GPUs of the node, if free, would serve one replica: as many as asked
    /// (one for a share), all allowed, whole ones all of one model, all existing.
    pub fn accepts_gpus(&self, node: &Node, gpus: GpuSet, share_milli: u16) -> bool {
        let (count, share) = match self.gpus {
            GpuAsk::None => (0, 0),
            GpuAsk::Whole(count) => (u32::from(count), 0),
            GpuAsk::Share(milli) => (1, milli),
        };
        if gpus.len() != count || share_milli != share || share >= GPU_MILLI_WHOLE {
            return false;
        }
        let mut model = None;
        gpus.iter().all(|index| {
            node.gpus
                .get(usize::from(index))
                .is_some_and(|gpu| self.allows(gpu) && *model.get_or_insert(gpu.model) == gpu.model)
        })
    }

    /// Whether the node asks, by a taint that is not tolerated, to be used last.
    pub fn shuns(&self, node: &Node) -> bool {
        node.taints
            .iter()
            .any(|taint| taint.effect == TaintEffect::PreferNoSchedule && !self.tolerates(taint))
    }

    fn allows(&self, gpu: &Gpu) -> bool {
        self.alternatives.is_empty()
            || self.alternatives.iter().any(|one| one.misfit(gpu).is_none())
    }

    /// The GPUs allowed. Neighbours mostly differ in their link domain at most: each such run is
    /// held against the alternatives once.
    fn allowed(&self, gpus: &[Gpu]) -> GpuSet {
        let (mut mask, mut start) = (GpuSet::EMPTY, 0u8);
        for run in alike(gpus) {
            let end = start.saturating_add(u8::try_from(run.len()).unwrap_or(u8::MAX));
            if run.first().is_some_and(|gpu| self.allows(gpu)) {
                mask = (start..end).fold(mask, |mask, index| mask | GpuSet::single(index));
            }
            start = end;
        }
        mask
    }

    /// Of a node's GPUs those with an allowed model and enough vRAM; all others are no use to this
    /// replica. Empty when it asks for none; `None` if a node with these GPUs could never serve.
    pub fn serving(&self, gpus: &[Gpu]) -> Option<GpuSet> {
        let asked = match self.gpus {
            GpuAsk::None => return Some(GpuSet::EMPTY),
            GpuAsk::Whole(count) => usize::from(count),
            GpuAsk::Share(_) => 1,
        };
        let mask = self.allowed(gpus);
        let allowed = |model: Option<ModelId>| {
            let each = gpus.iter().zip(0u8..).filter(move |&(_, index)| mask.contains(index));
            each.map(|(gpu, _)| gpu.model).filter(move |&one| model.is_none_or(|m| m == one))
        };
        // Quadratic in at most 64 GPUs, and the first GPU's model nearly always decides.
        let serves = allowed(None).any(|model| allowed(Some(model)).count() >= asked);
        serves.then_some(mask)
    }

    /// What is wrong with these GPUs, which do not serve.
    pub fn gpu_fault(&self, gpus: &[Gpu]) -> Misfit {
        // The GPU and alternative that come nearest tell what is wrong.
        let one = |gpu: &Gpu| {
            let each = self.alternatives.iter().map(|one| one.misfit(gpu));
            each.map(|misfit| misfit.unwrap_or(Misfit::GpuCount)).max()
        };
        let named = self.alternatives.iter().any(|one| one.models.is_some());
        let without = if gpus.is_empty() && named { Misfit::GpuModel } else { Misfit::GpuCount };
        let kinds = alike(gpus).filter_map(|run| one(run.first()?));
        kinds.max().unwrap_or(without)
    }

    fn rule_misfit(&self, node: &Node, selected: impl FnOnce() -> bool) -> Option<Misfit> {
        if !selected() {
            Some(Misfit::Selector)
        } else if !self.bears(&node.taints) {
            Some(Misfit::Taint)
        } else {
            (!self.affords(node.price)).then_some(Misfit::Price)
        }
    }

    /// Whether a node with these taints lets a replica in.
    pub(crate) fn bears(&self, taints: &[Taint]) -> bool {
        let refused =
            |taint: &Taint| taint.effect == TaintEffect::NoSchedule && !self.tolerates(taint);
        !taints.iter().any(refused)
    }

    /// Whether the price of a GPU-hour is within the bound.
    pub(crate) fn affords(&self, price: PriceMicroUsd) -> bool {
        self.gpus == GpuAsk::None || self.price_max.is_none_or(|bound| price <= bound)
    }

    /// Whether an empty node with these countable resources has enough.
    pub(crate) fn is_stocked(&self, have: &Custom) -> bool {
        self.custom.is_empty() || have.holds(&Custom::default(), &self.custom)
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| {
            (toleration.key.is_empty() || toleration.key == taint.key)
                && toleration.value.as_ref().is_none_or(|value| *value == taint.value)
                && toleration.effect.is_none_or(|effect| effect == taint.effect)
        })
    }
}

/// A shared copy; none is made of nothing.
fn shared<T: Clone>(list: &[T]) -> Arc<[T]> {
    if list.is_empty() { Arc::default() } else { list.into() }
}

/// Names of the labels that every node has, under [`LABEL_PREFIX`].
const BUILT_IN: [&str; 6] = [
    "muster/region",
    "muster/zone",
    "muster/site",
    "muster/rack",
    "muster/supplier",
    "muster/node",
];

/// All labels of the node, each key once: the built-in ones and those it declares.
pub fn labels(node: &Node) -> impl Iterator<Item = (&str, &str)> {
    let built_in = BUILT_IN.into_iter().filter_map(|key| Some((key, label(node, key)?)));
    let declared = node.labels.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
    built_in.chain(declared.filter(|(key, _)| !BUILT_IN.contains(key)))
}

/// Runs of GPUs that differ in their link domain at most.
fn alike(gpus: &[Gpu]) -> impl Iterator<Item = &[Gpu]> {
    let what = |gpu: &Gpu| (gpu.model, gpu.vendor, gpu.vram, gpu.compute_capability);
    gpus.chunk_by(move |a, b| what(a) == what(b))
}

/// Value of a label of the node: the built-in ones first, which nobody can declare over.
pub fn label<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    if let Some(built_in) = key.strip_prefix(LABEL_PREFIX) {
        match built_in {
            "region" => return Some(node.place.region.as_str()),
            "zone" => return Some(node.place.zone.as_str()),
            "site" => return Some(node.place.site.as_str()),
            "rack" => return Some(node.place.rack.as_str()),
            "supplier" => return Some(node.supplier.0.as_str()),
            "node" => return Some(node.name.as_str()),
            _ => {}
        }
    }
    node.labels.get(key).map(|value| value.as_ref())
}

/// Whether the node meets the condition. As in Kubernetes, `NotIn` also holds without the label.
fn selects(selector: &Selector, node: &Node) -> bool {
    let value = label(node, &selector.key);
    let among = |values: &[std::sync::Arc<str>]| {
        value.is_some_and(|value| values.iter().any(|one| one.as_ref() == value))
    };
    match &selector.condition {
        Condition::In(values) => among(values),
        Condition::NotIn(values) => !among(values),
        Condition::Exists => value.is_some(),
        Condition::DoesNotExist => value.is_none(),
    }
}

/// Whether two nodes lie in one domain of the level. A zone counts inside its region, a rack
/// inside its site.
pub fn same_domain(level: Level, a: &Node, b: &Node) -> bool {
    match level {
        Level::Region => a.place.region == b.place.region,
        Level::Zone => a.place.region == b.place.region && a.place.zone == b.place.zone,
        Level::Site => a.site == b.site,
        Level::Rack => a.site == b.site && a.place.rack == b.place.rack,
        Level::Node => a.id == b.id,
    }
}
