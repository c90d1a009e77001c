//! States: open nodes of one kind of GPUs with the same capacity free are interchangeable, so
//! planning looks at states and not at nodes.
//!
//! A fleet of 69,000 nodes has some hundreds of them, and at worst as many as nodes. Within a state
//! the nodes are split by class, since classes decide where a job's filters let it go.
//! **Invariant:** holds exactly the open nodes of the view, each under its present free capacity;
//! every order in which nodes are met follows from content alone, never from the history of
//! changes (numbers of states and classes do depend on it, so nothing is ordered by them).

use super::Slot;
use super::changes::Changes;
use super::class::{ClassId, KindId};
use super::free::Free;
use super::node_set::NodeSet;
use super::pages::Pages;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Number of a state, reused when its last node has left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct StateId(pub(crate) u32);

/// What the nodes of a state have in common. The order is that in which a single replica wants to
/// see the nodes of one kind: few idle GPUs first, then little besides.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    kind: KindId,
    idle: u8,
    headroom: u8,
    free: Free,
}

/// Open nodes of one kind with the same capacity free.
#[derive(Clone, Debug)]
pub(crate) struct NodeState {
    key: Key,
    /// Whether all GPUs of the kind are.
    alike: bool,
    nodes: u32,
    pools: BTreeMap<ClassId, NodeSet>,
    /// The least node of each pool, so that the next node to use is found at once.
    firsts: BTreeSet<(u32, ClassId)>,
}

impl NodeState {
    /// What is free on each of the nodes. Where all GPUs of the kind are alike, their indexes here
    /// stand for any: the idle ones come first, then the shared ones from the fullest up.
    pub(crate) fn free(&self) -> &Free {
        &self.key.free
    }

    /// The same where the nodes differ in nothing but the indexes of their idle GPUs, which are in
    /// their briefs.
    pub(crate) fn free_but_idle(&self) -> Option<&Free> {
        (self.alike && self.key.free.partial().is_empty()).then_some(&self.key.free)
    }

    /// How many nodes.
    pub(crate) fn len(&self) -> u32 {
        self.nodes
    }

    pub(crate) fn kind(&self) -> KindId {
        self.key.kind
    }

    /// Nodes of a class.
    pub(crate) fn pool(&self, class: ClassId) -> Option<&NodeSet> {
        self.pools.get(&class)
    }

    /// Idle GPUs of each of the nodes.
    pub(crate) fn idle(&self) -> u32 {
        u32::from(self.key.idle)
    }

    /// The nodes by class. The order of the classes means nothing.
    pub(crate) fn pools(&self) -> impl Iterator<Item = (ClassId, &NodeSet)> {
        self.pools.iter().map(|(&class, nodes)| (class, nodes))
    }

    /// The least node of all.
    pub(crate) fn first(&self) -> Option<u32> {
        self.firsts.first().map(|&(node, _)| node)
    }

    /// The least node of each class, rising.
    pub(crate) fn firsts(&self) -> impl Iterator<Item = (u32, ClassId)> {
        self.firsts.iter().copied()
    }
}

/// A shared GPU of an open node that has something left.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Hole {
    left_milli: u16,
    node: u32,
    gpu: u8,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct States {
    list: Pages<Option<Arc<NodeState>>>,
    unused: Vec<StateId>,
    by_key: BTreeMap<Key, StateId>,
    holes: BTreeSet<Hole>,
    /// Open nodes per kind and number of idle GPUs.
    counts: Vec<Vec<u32>>,
    changes: Changes,
}

impl States {
    pub(crate) fn get(&self, StateId(id): StateId) -> Option<&NodeState> {
        self.list.get(id as usize)?.as_deref()
    }

    /// One past the largest number in use.
    pub(crate) fn end(&self) -> usize {
        self.list.len()
    }

    /// All states, in an order that follows from content.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &NodeState> {
        self.by_key.values().filter_map(|&id| self.get(id))
    }

    /// Numbers that came into use or out of it.
    pub(crate) fn changes(&self) -> &Changes {
        &self.changes
    }

    /// States of the kind with at least so many idle GPUs, fewest first.
    pub(crate) fn of_kind(
        &self,
        kind: KindId,
        idle_min: u8,
    ) -> impl Iterator<Item = (StateId, &NodeState)> {
        self.range(kind, idle_min, 0)
    }

    /// States of the kind with exactly so many idle GPUs and at least this headroom, the fullest
    /// first.
    pub(crate) fn level(
        &self,
        kind: KindId,
        idle: u8,
        headroom_min: u8,
    ) -> impl Iterator<Item = (StateId, &NodeState)> {
        self.range(kind, idle, headroom_min).take_while(move |(_, state)| state.key.idle == idle)
    }

    /// Whether the kind has open nodes with exactly so many idle GPUs.
    pub(crate) fn has(&self, KindId(kind): KindId, idle: u8) -> bool {
        let levels = self.counts.get(kind as usize);
        levels.and_then(|levels| levels.get(usize::from(idle))).is_some_and(|&count| count > 0)
    }

    /// The largest number of idle GPUs that any open node may have.
    pub(crate) fn idle_max(&self) -> u8 {
        let most = self.counts.iter().map(Vec::len).max().unwrap_or(0);
        u8::try_from(most.saturating_sub(1)).unwrap_or(u8::MAX)
    }

    /// Shared GPUs with at least this much left, the least first: (node, GPU).
    pub(crate) fn holes_from(&self, milli: u16) -> impl Iterator<Item = (u32, u8)> {
        let first = Hole { left_milli: milli, node: 0, gpu: 0 };
        self.holes.range(first..).map(|hole| (hole.node, hole.gpu))
    }

    /// Takes in an open node; `alike`: whether all GPUs of its kind are. Returns its state.
    pub(super) fn insert(&mut self, slot: &Slot, alike: bool, node: u32) -> StateId {
        let key = key(slot, alike);
        self.count(key.kind, key.idle, 1);
        self.holes.extend(holes(slot, node));
        let id = match self.by_key.get(&key) {
            Some(&id) => id,
            None => self.begin(key, alike),
        };
        if let Some(Some(state)) = self.list.get_mut(id.0 as usize) {
            let state = Arc::make_mut(state);
            let pool = state.pools.entry(slot.class).or_default();
            let before = pool.first();
            if pool.insert(node) {
                state.nodes += 1;
            }
            move_first(&mut state.firsts, slot.class, before, pool.first());
        }
        id
    }

    /// Takes a node out of its state.
    pub(super) fn remove(&mut self, id: StateId, slot: &Slot, node: u32) {
        for hole in holes(slot, node) {
            self.holes.remove(&hole);
        }
        let Some(place) = self.list.get_mut(id.0 as usize) else { return };
        let Some(state) = place.as_mut().map(Arc::make_mut) else { return };
        let Some(pool) = state.pools.get_mut(&slot.class) else { return };
        let before = pool.first();
        if !pool.remove(node) {
            return;
        }
        move_first(&mut state.firsts, slot.class, before, pool.first());
        if pool.is_empty() {
            state.pools.remove(&slot.class);
        }
        state.nodes -= 1;
        let (kind, idle, empty) = (state.key.kind, state.key.idle, state.nodes == 0);
        if empty && let Some(state) = place.take() {
            self.by_key.remove(&state.key);
            self.unused.push(id);
            self.changes.note(id);
        }
        self.count(kind, idle, -1);
    }

    /// Memory held, in bytes: what is allocated, not what is used of it, trees by estimate.
    pub(super) fn bytes(&self) -> usize {
        let pools = |state: &NodeState| -> usize {
            let of = |nodes: &NodeSet| nodes.bytes() + TREE_SLACK * size_of::<(ClassId, NodeSet)>();
            let firsts = state.firsts.len() * TREE_SLACK * size_of::<(u32, ClassId)>();
            state.pools.values().map(of).sum::<usize>() + firsts + size_of::<NodeState>()
        };
        let states: usize = self.list.iter().flatten().map(|state| pools(state)).sum();
        let keys = self.by_key.len() * TREE_SLACK * size_of::<(Key, StateId)>();
        let holes = self.holes.len() * TREE_SLACK * size_of::<Hole>();
        states + keys + holes + self.list.bytes()
    }

    fn range(
        &self,
        kind: KindId,
        idle: u8,
        headroom: u8,
    ) -> impl Iterator<Item = (StateId, &NodeState)> {
        let first = Key { kind, idle, headroom, free: Free::default() };
        let rest = self.by_key.range(first..).take_while(move |(key, _)| key.kind == kind);
        rest.filter_map(|(_, &id)| Some((id, self.get(id)?)))
    }

    fn begin(&mut self, key: Key, alike: bool) -> StateId {
        let state = NodeState {
            key: key.clone(),
            alike,
            nodes: 0,
            pools: BTreeMap::new(),
            firsts: BTreeSet::new(),
        };
        let id = self
            .unused
            .pop()
            .unwrap_or_else(|| StateId(u32::try_from(self.list.push(None)).unwrap_or(u32::MAX)));
        if let Some(place) = self.list.get_mut(id.0 as usize) {
            *place = Some(Arc::new(state));
        }
        self.by_key.insert(key, id);
        self.changes.note(id);
        id
    }

    fn count(&mut self, KindId(kind): KindId, idle: u8, change: i8) {
        let at = kind as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, Vec::new());
        }
        let Some(levels) = self.counts.get_mut(at) else { return };
        if levels.len() <= usize::from(idle) {
            levels.resize(usize::from(idle) + 1, 0);
        }
        if let Some(count) = levels.get_mut(usize::from(idle)) {
            *count = count.saturating_add_signed(i32::from(change));
        }
    }
}

/// Content without the numbers of states and classes: per state what is free, and the nodes of each
/// class; by the least node. Views of equal content have equal ones.
#[cfg(test)]
impl States {
    pub(crate) fn content(&self) -> Vec<(u8, Free, Vec<NodeSet>)> {
        let mut content: Vec<_> = Vec::new();
        for state in self.by_key.values().filter_map(|&id| self.get(id)) {
            let sets = state.firsts().filter_map(|(_, class)| state.pools.get(&class)).cloned();
            let sets: Vec<NodeSet> = sets.collect();
            assert_eq!(state.nodes as usize, sets.iter().map(NodeSet::len).sum::<usize>());
            assert_eq!(state.pools.len(), sets.len());
            content.push((state.key.idle, state.key.free.clone(), sets));
        }
        content.sort_by_key(|(_, _, sets)| sets.first().and_then(NodeSet::first));
        content
    }

    pub(crate) fn holes(&self) -> Vec<(u32, u8)> {
        self.holes_from(0).collect()
    }
}

/// What a tree needs above its bare content, as its nodes are not full.
const TREE_SLACK: usize = 2;

fn move_first(
    firsts: &mut BTreeSet<(u32, ClassId)>,
    class: ClassId,
    before: Option<u32>,
    after: Option<u32>,
) {
    if before == after {
        return;
    }
    if let Some(node) = before {
        firsts.remove(&(node, class));
    }
    if let Some(node) = after {
        firsts.insert((node, class));
    }
}

fn key(slot: &Slot, alike: bool) -> Key {
    let idle = u8::try_from(slot.free.idle.len()).unwrap_or(u8::MAX);
    let free = if alike { slot.free.canonical() } else { slot.free.clone() };
    Key { kind: slot.kind, idle, headroom: slot.free.headroom(), free }
}

fn holes(slot: &Slot, node: u32) -> impl Iterator<Item = Hole> {
    slot.free.partial().iter().map(move |&(gpu, left_milli)| Hole { left_milli, node, gpu })
}
