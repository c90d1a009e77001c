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
    eligible: Vec<[Vec<u32>; 5]>,
}

impl<'a> Map<'a> {
    pub(super) fn new(ask: &'a Ask<'_>, base: Base, steps: &mut Steps) -> Self {
        let field = Field::bare(ask, base, steps);
        let paths = Paths::of(ask);
        steps.spend(ask.unpaid());
        let mut map = Self { paths, cands: Vec::new(), eligible: Vec::new() };
        for (at, group) in ask.groups.iter().enumerate() {
            let pools = field.roomy(at, 1, true);
            let mut cands: Vec<Cand> = pools.flat_map(|pool| map.cands_of(ask, pool)).collect();
            cands.sort_unstable_by_key(|cand| cand.path);
            steps.spend(cands.len() as u64 * CAND_STEPS);
            map.cands.push(cands);
            map.eligible.push(map.find_eligible(ask, group, base, steps));
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

    /// Domains over which the spreads of the group are even.
    fn find_eligible(
        &self,
        ask: &Ask<'_>,
        group: &GroupAsk,
        base: Base,
        steps: &mut Steps,
    ) -> [Vec<u32>; 5] {
        let mut eligible: [Vec<u32>; 5] = Default::default();
        let rules = ask.spec.groups.get(group.group).map(|group| &group.rules);
        let spreads = rules.map_or(&[][..], |rules| rules.spread.as_slice());
        let depths: Vec<usize> = spreads.iter().map(|spread| depth(spread.level)).collect();
        let Some(&deepest) = depths.iter().max() else { return eligible };
        // Nodes of one class stand at one site.
        let most = if deepest > depth(Level::Site) { usize::MAX } else { 1 };
        steps.spend(ask.view.classes().end() as u64);
        for class in group.serving(ask.view) {
            let nodes = group.serving_nodes(ask.view, class, base == Base::EmptyAll);
            for (node, _) in nodes.take(most) {
                steps.spend(NODE_STEPS);
                let path = self.path(node);
                depths.iter().for_each(|&depth| eligible[depth].push(path[depth]));
            }
        }
        for list in &mut eligible {
            list.sort_unstable();
            list.dedup();
        }
        eligible
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
}
