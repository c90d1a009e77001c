//! Classes: nodes that differ in nothing a job's filters look at, so that filters run once per
//! class and not once per node.
//!
//! **Invariant:** two nodes share a class only if they are equal in GPUs, totals, place down to the
//! site, supplier, labels, taints and price; name, rack and bandwidth may differ.

use super::node_set::NodeSet;
use super::pages::Pages;
use crate::id::SiteId;
use crate::node::{Gpu, Node, Vendor};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Number of a class, reused when the class has died out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct ClassId(pub(crate) u32);

/// Number of a list of GPUs (models, vRAM, link domains in order).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct KindId(pub(crate) u32);

#[derive(Clone, Debug)]
pub(crate) struct Class {
    /// Any one of its nodes: stands for all where name and rack do not matter.
    pub(crate) sample: Arc<Node>,
    pub(crate) kind: KindId,
    pub(crate) site: SiteId,
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
}

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
    kinds: Vec<NodeKind>,
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

    /// All kinds ever seen, in an order that follows from their content.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (KindId, &NodeKind)> {
        self.by_gpus.values().filter_map(|&id| Some((id, self.kind(id)?)))
    }

    /// GPUs of every kind ever seen, by rising number.
    pub(crate) fn gpu_lists(&self) -> impl Iterator<Item = &[Gpu]> {
        self.kinds.iter().map(|kind| kind.gpus.as_slice())
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
            let digest = class.digest;
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
            kind: self.find_kind(&node.gpus),
            site: node.site,
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

    /// Kinds are never given back: there are as many as kinds of machines ever seen.
    fn find_kind(&mut self, gpus: &[Gpu]) -> KindId {
        let each = gpus.iter().map(|gpu| {
            let (vendor, able) = (gpu.vendor, gpu.compute_capability.0);
            (gpu.model.0, gpu.vram.0, gpu.link_domain, vendor, able)
        });
        let key: Vec<GpuKey> = each.collect();
        let alike = key.iter().zip(key.iter().skip(1)).all(|(a, b)| a == b);
        let next = KindId(u32::try_from(self.kinds.len()).unwrap_or(u32::MAX));
        let kind = *self.by_gpus.entry(key).or_insert(next);
        if kind == next {
            self.kinds.push(NodeKind { gpus: gpus.to_vec(), alike });
        }
        kind
    }
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
