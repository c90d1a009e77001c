//! Classes: nodes that differ in nothing a job's filters look at, so that filters run once per
//! class and not once per node.
//!
//! **Invariant:** two nodes share a class only if they are equal in GPUs, totals, place down to the
//! site, supplier, labels, taints and price; name, rack and bandwidth may differ.

use super::node_set::NodeSet;
use super::pages::Pages;
use crate::id::SiteId;
use crate::node::{Gpu, Node, Resources, Vendor};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Number of a class, reused when the class has died out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ClassId(pub(crate) u32);

/// Number of a list of GPUs (models, vRAM, link domains in order). Those out of use are given to other
/// lists only if the owner of the classes says so, who may remember something by them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct KindId(pub(crate) u32);

#[derive(Clone, Debug)]
pub(crate) struct Class {
    /// Any one of its nodes: stands for all where name and rack do not matter.
    pub(crate) sample: Arc<Node>,
    pub(crate) kind: KindId,
    pub(crate) site: SiteId,
    /// Of each of its nodes.
    pub(crate) resources: Resources,
    /// Its nodes have taints.
    pub(crate) tainted: bool,
    /// All of its nodes, open or not.
    pub(crate) nodes: NodeSet,
    /// How many of them are open.
    pub(crate) open: u32,
    digest: u64,
}

/// A list of GPUs that some nodes have.
#[derive(Clone, Debug)]
pub(crate) struct NodeKind {
    pub(crate) gpus: Vec<Gpu>,
    /// All of one model, vRAM, link domain and so on: any of them does.
    pub(crate) alike: bool,
    /// Classes of this kind.
    classes: u32,
}

/// Numbers of kinds out of use up to which it is better to leave them so than to begin anew, which
/// must be rare even if machines change at every join.
const KINDS_RETIRED_MAX: usize = 1_024;

/// Model, vRAM, link domain, vendor, compute capability.
type GpuKey = (u16, u32, u8, Option<Vendor>, u16);

/// All classes that have nodes, and the kinds of GPU lists among them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Classes {
    list: Pages<Option<Arc<Class>>>,
    free: Vec<u32>,
    by_digest: BTreeSet<(u64, u32)>,
    /// By content, which is the order in which kinds are met.
    by_gpus: BTreeMap<Vec<GpuKey>, KindId>,
    /// By number; those out of use have no GPUs.
    kinds: Vec<NodeKind>,
    /// Numbers out of use that may be given again, and that may not.
    unused_kinds: Vec<KindId>,
    retired_kinds: Vec<KindId>,
    version: u64,
}

impl Class {
    /// Whether a node is like those of the class.
    pub(crate) fn is_like(&self, node: &Node) -> bool {
        is_alike(&self.sample, node)
    }
}

impl Classes {
    pub(crate) fn get(&self, id: ClassId) -> Option<&Class> {
        self.list.get(id.0 as usize)?.as_deref()
    }

    pub(crate) fn kind(&self, KindId(kind): KindId) -> Option<&NodeKind> {
        self.kinds.get(kind as usize)
    }

    /// Whether all GPUs of the kind are alike.
    pub(super) fn are_alike(&self, kind: KindId) -> bool {
        self.kind(kind).is_some_and(|kind| kind.alike)
    }

    /// All kinds of nodes that are there, in an order that follows from their content.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (KindId, &NodeKind)> {
        self.by_gpus.values().filter_map(|&id| Some((id, self.kind(id)?)))
    }

    /// GPUs of every kind by rising number; of one that is out of use, none.
    pub(crate) fn gpu_lists(&self) -> impl Iterator<Item = &[Gpu]> {
        self.kinds.iter().map(|kind| kind.gpus.as_slice())
    }

    /// Whether so many numbers of kinds are out of use that everything should be made anew.
    pub(super) fn are_littered(&self) -> bool {
        self.retired_kinds.len() >= KINDS_RETIRED_MAX
    }

    /// Nobody remembers anything by the numbers of kinds that are out of use.
    pub(crate) fn give_back_kinds(&mut self) {
        self.unused_kinds.append(&mut self.retired_kinds);
    }

    /// Grows whenever a number comes into use.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// One past the largest number in use.
    pub(crate) fn end(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ClassId, &Class)> {
        let classes = (0u32..).map(ClassId).zip(self.list.iter());
        classes.filter_map(|(id, class)| Some((id, class.as_deref()?)))
    }

    /// Takes the node into its class, which is made if there is none.
    pub(crate) fn enter(&mut self, node: &Arc<Node>) -> ClassId {
        let digest = digest(node);
        let mut alike = self.by_digest.range((digest, 0)..=(digest, u32::MAX)).map(|&(_, id)| id);
        let known =
            alike.find(|&id| self.get(ClassId(id)).is_some_and(|class| class.is_like(node)));
        let id = known.unwrap_or_else(|| self.begin(node, digest));
        if let Some(class) = self.class_mut(id) {
            class.nodes.insert(node.id.0);
            class.open += u32::from(node.is_schedulable());
        }
        ClassId(id)
    }

    /// Takes one node out of its class, as it was when it entered; the last one takes the class
    /// with it.
    pub(crate) fn leave(&mut self, id: ClassId, node: u32, open: bool) {
        let Some(class) = self.class_mut(id.0) else { return };
        class.nodes.remove(node);
        class.open = class.open.saturating_sub(u32::from(open));
        if class.nodes.is_empty() {
            let (digest, kind) = (class.digest, class.kind);
            self.leave_kind(kind);
            self.by_digest.remove(&(digest, id.0));
            if let Some(place) = self.list.get_mut(id.0 as usize) {
                *place = None;
            }
            self.free.push(id.0);
        }
    }

    /// A node has changed: whether it is still of its class, which then knows it as it is now.
    pub(crate) fn exchange(&mut self, id: ClassId, old: &Arc<Node>, new: &Arc<Node>) -> bool {
        if !is_alike(old, new) {
            return false;
        }
        let change = i32::from(new.is_schedulable()) - i32::from(old.is_schedulable());
        let stands = self.get(id).is_some_and(|class| Arc::ptr_eq(&class.sample, old));
        if change != 0 || stands {
            let Some(class) = self.class_mut(id.0) else { return false };
            class.open = class.open.saturating_add_signed(change);
            if stands {
                class.sample = Arc::clone(new);
            }
        }
        true
    }

    /// One node of the class is open from now on, or not any more.
    pub(super) fn set_open(&mut self, id: ClassId, open: bool) {
        if let Some(class) = self.class_mut(id.0) {
            let change = if open { 1 } else { -1 };
            class.open = class.open.saturating_add_signed(change);
        }
    }

    /// Memory held, in bytes, without the nodes that stand for the classes.
    pub(super) fn bytes(&self) -> usize {
        let nodes: usize = self.list.iter().flatten().map(|class| class.nodes.bytes()).sum();
        nodes + self.list.iter().flatten().count() * size_of::<Class>() + self.list.bytes()
    }

    fn class_mut(&mut self, id: u32) -> Option<&mut Class> {
        self.list.get_mut(id as usize)?.as_mut().map(Arc::make_mut)
    }

    fn begin(&mut self, node: &Arc<Node>, digest: u64) -> u32 {
        self.version += 1;
        let class = Class {
            sample: Arc::clone(node),
            kind: self.enter_kind(&node.gpus),
            site: node.site,
            resources: node.resources,
            tainted: !node.taints.is_empty(),
            nodes: NodeSet::default(),
            open: 0,
            digest,
        };
        let id = self
            .free
            .pop()
            .unwrap_or_else(|| u32::try_from(self.list.push(None)).unwrap_or(u32::MAX));
        if let Some(place) = self.list.get_mut(id as usize) {
            *place = Some(Arc::new(class));
        }
        self.by_digest.insert((digest, id));
        id
    }

    /// One more class is of the kind with these GPUs.
    fn enter_kind(&mut self, gpus: &[Gpu]) -> KindId {
        let key = gpu_keys(gpus);
        let id = self.by_gpus.get(&key).copied().unwrap_or_else(|| self.new_kind(gpus));
        self.by_gpus.insert(key, id);
        if let Some(kind) = self.kinds.get_mut(id.0 as usize) {
            kind.classes += 1;
        }
        id
    }

    fn new_kind(&mut self, gpus: &[Gpu]) -> KindId {
        let kind = NodeKind {
            gpus: gpus.to_vec(),
            alike: gpu_keys(gpus).windows(2).all(|pair| pair.first() == pair.last()),
            classes: 0,
        };
        let Some(id) = self.unused_kinds.pop() else {
            self.kinds.push(kind);
            return KindId(u32::try_from(self.kinds.len() - 1).unwrap_or(u32::MAX));
        };
        if let Some(place) = self.kinds.get_mut(id.0 as usize) {
            *place = kind;
        }
        id
    }

    /// One class less is of the kind.
    fn leave_kind(&mut self, id: KindId) {
        let Some(kind) = self.kinds.get_mut(id.0 as usize) else { return };
        kind.classes -= 1;
        if kind.classes == 0 {
            self.by_gpus.remove(&gpu_keys(&std::mem::take(&mut kind.gpus)));
            self.retired_kinds.push(id);
        }
    }
}

fn gpu_keys(gpus: &[Gpu]) -> Vec<GpuKey> {
    let each = gpus.iter().map(|gpu| {
        let (vendor, able) = (gpu.vendor, gpu.compute_capability.0);
        (gpu.model.0, gpu.vram.0, gpu.link_domain, vendor, able)
    });
    each.collect()
}

/// A site lies in one zone of one region, so these need no look of their own.
fn is_alike(a: &Node, b: &Node) -> bool {
    a.site == b.site
        && a.price == b.price
        && a.resources == b.resources
        && a.custom == b.custom
        && a.gpus == b.gpus
        && a.supplier == b.supplier
        && a.taints == b.taints
        && a.labels == b.labels
}

fn digest(node: &Node) -> u64 {
    let mut mixer = Mixer(0);
    (node.site, node.price, node.resources, &node.custom).hash(&mut mixer);
    (&node.gpus, &node.supplier, &node.taints, &node.labels).hash(&mut mixer);
    mixer.finish()
}

/// A quick mixing hash: only sorts nodes into heaps; equality is always checked.
struct Mixer(u64);

impl Mixer {
    fn add(&mut self, word: u64) {
        // An odd constant with well spread bits (the golden ratio's), as in Fibonacci hashing.
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0u8; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            self.add(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.add(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.add(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}
