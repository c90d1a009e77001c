//! Paths: every node's domain at every level as a number.
//!
//! **Invariant:** numbers of one level are unique over the fleet; equal content gives equal
//! numbers; racks are told apart only where a rule asks for them.

use crate::id::SiteId;
use crate::job::Level;
use crate::plan::ask::Ask;
use crate::view::View;
use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Domains of a node: region, zone, site, rack, node.
pub(in crate::plan) type Path = [u32; 5];

/// Stands for a node that does not exist.
const NOWHERE: Path = [u32::MAX; 5];
/// What the path of one node costs in steps of the budget, racks told apart or not.
const NODE_STEPS: [u64; 2] = [1, 2];

/// Place of a level in a [`Path`].
pub(in crate::plan) fn depth(level: Level) -> usize {
    match level {
        Level::Region => 0,
        Level::Zone => 1,
        Level::Site => 2,
        Level::Rack => 3,
        Level::Node => 4,
    }
}

/// Paths of the fleet, made when they are first asked for.
#[derive(Clone, Debug, Default)]
pub(in crate::plan) struct KnownPaths(Rc<Cells>);

#[derive(Debug, Default)]
struct Cells {
    /// Without racks and with them.
    paths: [OnceCell<Paths>; 2],
    unpaid: Cell<u64>,
}

impl KnownPaths {
    /// Steps of a budget that were worked since this was last asked.
    pub(in crate::plan) fn unpaid(&self) -> u64 {
        self.0.unpaid.take()
    }
}

#[derive(Debug)]
pub(in crate::plan) struct Paths {
    /// By node.
    paths: Vec<Path>,
    /// Domains at each depth.
    ends: [u32; 5],
}

impl Paths {
    /// Those that the rules of the ask need.
    pub(in crate::plan) fn of<'a>(ask: &'a Ask<'_>) -> &'a Self {
        let KnownPaths(cells) = &ask.paths;
        let at = usize::from(reads_racks(ask));
        cells.paths[at].get_or_init(|| {
            cells.unpaid.set(ask.view.nodes_len() as u64 * NODE_STEPS[at]);
            Self::new(ask.view, at > 0)
        })
    }

    fn new(view: &View, with_racks: bool) -> Self {
        let mut regions: BTreeMap<&str, u32> = BTreeMap::new();
        let mut zones: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let mut of_site: Vec<(u32, u32)> = Vec::new();
        for (_, site) in view.sites().iter() {
            let (region, zone) = (site.region.as_str(), site.zone.as_str());
            let next = count(regions.len());
            let region_number = *regions.entry(region).or_insert(next);
            let next = count(zones.len());
            of_site.push((region_number, *zones.entry((region, zone)).or_insert(next)));
        }
        // The view's numbers hang on its history: they are given anew in order of nodes.
        let mut racks: Vec<Option<u32>> = vec![None; if with_racks { view.racks_len() } else { 0 }];
        let mut racks_end = 0;
        let mut paths = vec![NOWHERE; view.node_end()];
        for (node, slot) in view.slots() {
            let SiteId(site) = slot.site;
            let (region, zone) = of_site.get(usize::from(site)).copied().unwrap_or_default();
            let mut rack = 0;
            if let Some(known) = racks.get_mut(slot.rack as usize) {
                rack = *known.get_or_insert_with(|| {
                    racks_end += 1;
                    racks_end - 1
                });
            }
            if let Some(path) = paths.get_mut(node as usize) {
                *path = [region, zone, u32::from(site), rack, node];
            }
        }
        let ends = [
            count(regions.len()),
            count(zones.len()),
            count(of_site.len()),
            racks_end.max(1),
            count(paths.len()),
        ];
        Self { paths, ends }
    }

    /// Domains of the node.
    pub(in crate::plan) fn of_node(&self, node: u32) -> Path {
        self.paths.get(node as usize).copied().unwrap_or(NOWHERE)
    }

    /// The domain of the level in which the node lies.
    pub(in crate::plan) fn domain(&self, level: Level, node: u32) -> u32 {
        self.of_node(node)[depth(level)]
    }

    /// Domains of the level.
    pub(in crate::plan) fn len(&self, level: Level) -> usize {
        self.end(depth(level))
    }

    /// One past the largest number of a domain at the depth.
    pub(super) fn end(&self, depth: usize) -> usize {
        self.ends[depth] as usize
    }
}

/// Whether any rule of the job is about racks.
fn reads_racks(ask: &Ask<'_>) -> bool {
    let rack = Some(Level::Rack);
    let spec = ask.spec;
    // A job that would be kept within a node is kept within a rack.
    spec.topology_required.max(spec.topology_preferred) >= rack
        || spec.affinities.iter().any(|one| one.level == Level::Rack)
        || ask.around.closed.iter().any(|(level, _)| *level == Level::Rack)
        || spec.groups.iter().any(|group| group.repair.level == rack)
        || spec.domains_max.iter().any(|one| one.level == Level::Rack)
        || spec.groups.iter().map(|group| &group.rules).any(|rules| {
            rules.topology_required == rack
                || rules.topology_preferred == rack
                || rules.segments.iter().any(|one| one.level == Level::Rack)
                || rules.spread.iter().any(|one| one.level == Level::Rack)
                || rules.domains_max.iter().any(|one| one.level == Level::Rack)
        })
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
