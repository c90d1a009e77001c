//! Map: the nodes that could take a group, each with its domain at every level as a number.
//!
//! **Invariant:** equal content gives equal candidates in equal order.

use super::paths::{Path, Paths, depth};
use crate::job::Level;
use crate::plan::Steps;
use crate::plan::ask::{Ask, GpuFit, GroupAsk};
use crate::plan::draft::Base;
use crate::plan::field::{Field, Pool};

/// Candidates of all groups up to which a search is small.
const CANDS_FEW: usize = 128;
/// What one candidate costs in steps of the budget, its share of sorting them included.
const CAND_STEPS: u64 = 16;
/// What it costs to note the domains of a node that could serve a group.
const NODE_STEPS: u64 = 4;

/// A node with room for at least one replica of a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cand {
    pub(super) path: Path,
    pub(super) node: u32,
    pub(super) site: u16,
    /// Replicas that fit while the draft has not touched the node.
    pub(super) room: u32,
    pub(super) idle: u32,
    pub(super) shuns: bool,
    pub(super) gpus: GpuFit,
    pub(super) price: u64,
}

#[derive(Debug)]
pub(super) struct Map<'a> {
    paths: &'a Paths,
    /// Per group of the ask: nodes with room, by rising path.
    pub(super) cands: Vec<Vec<Cand>>,
    /// Per group of the ask and depth: domains with an open node that could hold a replica if it
    /// were empty; only where the group has a spread at that depth.
    eligible: Vec<Eligible>,
    base: Base,
}

/// Domains at each depth, by rising number.
pub(super) type Eligible = [Vec<u32>; 5];

/// Domains with an open node, or with any if `all`, that could hold a replica of the group if it
/// were empty, at each depth at which the group has a spread; and what it costs in steps.
pub(super) fn eligible(ask: &Ask<'_>, group: &GroupAsk, all: bool) -> (Eligible, u64) {
    let mut eligible = Eligible::default();
    let rules = ask.spec.groups.get(group.group).map(|group| &group.rules);
    let spreads = rules.map_or(&[][..], |rules| rules.spread.as_slice());
    let depths: Vec<usize> = spreads.iter().map(|spread| depth(spread.level)).collect();
    let Some(&deepest) = depths.iter().max() else { return (eligible, 0) };
    // Nodes of one class stand at one site.
    let most = if deepest > depth(Level::Site) { usize::MAX } else { 1 };
    let mut cost = ask.view.classes().end() as u64;
    let paths = Paths::of(ask);
    for class in group.serving(ask.view) {
        for (node, _) in group.serving_nodes(ask.view, class, all).take(most) {
            cost += NODE_STEPS;
            let path = paths.of_node(node);
            depths.iter().for_each(|&depth| eligible[depth].push(path[depth]));
        }
    }
    for list in &mut eligible {
        list.sort_unstable();
        list.dedup();
    }
    (eligible, cost)
}

impl<'a> Map<'a> {
    pub(super) fn new(ask: &'a Ask<'_>, base: Base, steps: &mut Steps) -> Self {
        let field = Field::bare(ask, base, steps);
        let paths = Paths::of(ask);
        steps.spend(ask.unpaid());
        let mut map = Self { paths, cands: Vec::new(), eligible: Vec::new(), base };
        for (at, group) in ask.groups.iter().enumerate() {
            let pools = field.roomy(at, 1, true);
            let mut cands: Vec<Cand> = pools.flat_map(|pool| map.cands_of(ask, pool)).collect();
            cands.sort_unstable_by_key(|cand| cand.path);
            steps.spend(cands.len() as u64 * CAND_STEPS);
            map.cands.push(cands);
            let (found, cost) = eligible(ask, group, base == Base::EmptyAll);
            steps.spend(cost);
            map.eligible.push(found);
        }
        map
    }

    fn cands_of<'f>(
        &'f self,
        ask: &'f Ask<'_>,
        pool: &'f Pool<'_>,
    ) -> impl Iterator<Item = Cand> + use<'f, 'a> {
        let Pool { room, idle, shuns, gpus, .. } = *pool;
        pool.nodes().filter_map(move |node| {
            let slot = ask.view.slot(node)?;
            let (path, site, price) = (self.path(node), slot.site.0, slot.node.price.0);
            Some(Cand { path, node, site, room, idle, shuns, gpus, price })
        })
    }

    /// Whether so few nodes serve that an attempt to place all takes microseconds.
    pub(super) fn is_small(&self) -> bool {
        self.cands.iter().map(Vec::len).sum::<usize>() <= CANDS_FEW
    }

    /// Domains of the node.
    pub(super) fn path(&self, node: u32) -> Path {
        self.paths.of_node(node)
    }

    /// One past the largest number of a domain at the depth.
    pub(super) fn end(&self, depth: usize) -> usize {
        self.paths.end(depth)
    }

    /// Domains over which a spread of the group (by its place in the ask) is even.
    pub(super) fn eligible(&self, at: usize, depth: usize) -> &[u32] {
        self.eligible.get(at).map_or(&[], |lists| lists[depth].as_slice())
    }

    /// The same at all depths.
    pub(super) fn all_eligible(&self, at: usize) -> Option<&Eligible> {
        self.eligible.get(at)
    }

    /// Whether nodes count that are closed.
    pub(super) fn counts_closed(&self) -> bool {
        self.base == Base::EmptyAll
    }
}
