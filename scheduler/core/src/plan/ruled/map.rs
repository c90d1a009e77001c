//! Map: every node's domain at every level as a number, and the nodes that could take a group.
//!
//! **Invariant:** numbers of one level are unique over the fleet; equal content gives equal
//! numbers; racks are told apart only where a rule asks for them.

use super::super::ask::{Ask, Fit};
use super::super::draft::{Base, Draft};
use crate::id::SiteId;
use crate::job::Level;
use crate::view::Slot;
use std::collections::BTreeMap;

/// Domains of a node: region, zone, site, rack, node.
pub(super) type Path = [u32; 5];

/// Candidates of all groups up to which a search is small.
const CANDS_FEW: usize = 128;

/// Stands for a node that does not exist.
const NOWHERE: Path = [u32::MAX; 5];

/// Place of a level in a [`Path`].
pub(super) fn depth(level: Level) -> usize {
    match level {
        Level::Region => 0,
        Level::Zone => 1,
        Level::Site => 2,
        Level::Rack => 3,
        Level::Node => 4,
    }
}

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
    pub(super) fit: Fit,
    pub(super) price: u64,
}

#[derive(Debug)]
pub(super) struct Map {
    /// By node.
    paths: Vec<Path>,
    /// Domains at each depth.
    ends: [u32; 5],
    /// Per group of the ask: nodes with room, by rising path.
    pub(super) cands: Vec<Vec<Cand>>,
    /// Per group of the ask and depth: domains with an open node that could hold a replica if it
    /// were empty; only where the group has a spread at that depth.
    eligible: Vec<[Vec<u32>; 5]>,
}

impl Map {
    pub(super) fn new(ask: &Ask<'_>, draft: &Draft, base: Base) -> Self {
        let (paths, ends) = paths(ask);
        let mut map = Self { paths, ends, cands: Vec::new(), eligible: Vec::new() };
        for (at, group) in ask.groups.iter().enumerate() {
            let mut fits: Vec<Option<Fit>> = vec![None; ask.view.classes().end()];
            for (id, class) in ask.view.classes().iter() {
                if let Some(place) = fits.get_mut(id.0 as usize) {
                    *place = Some(group.class_fit(&class.sample));
                }
            }
            let rules = ask.spec.groups.get(group.group).map(|group| &group.rules);
            let depths: Vec<usize> =
                rules.into_iter().flat_map(|r| &r.spread).map(|s| depth(s.level)).collect();
            let mut eligible: [Vec<u32>; 5] = Default::default();
            let mut cands = Vec::new();
            for (node, slot) in ask.view.slots().filter(|(_, slot)| base.admits(slot)) {
                let known = fits.get(slot.class.0 as usize).copied().flatten();
                let fit = known.map(|known| group.fit(slot, known));
                let Some(fit) = fit.filter(|fit| fit.misfit.is_none()) else { continue };
                let path = map.path(node);
                for &depth in &depths {
                    eligible[depth].push(path[depth]);
                }
                if ask.avoids(node) {
                    continue;
                }
                cands.extend(cand(ask, draft, at, (node, slot), fit, path));
            }
            for list in &mut eligible {
                list.sort_unstable();
                list.dedup();
            }
            cands.sort_unstable_by_key(|cand| cand.path);
            map.cands.push(cands);
            map.eligible.push(eligible);
        }
        map
    }

    /// Whether so few nodes serve that an attempt to place all takes microseconds.
    pub(super) fn is_small(&self) -> bool {
        self.cands.iter().map(Vec::len).sum::<usize>() <= CANDS_FEW
    }

    /// Domains of the node.
    pub(super) fn path(&self, node: u32) -> Path {
        self.paths.get(node as usize).copied().unwrap_or(NOWHERE)
    }

    /// One past the largest number of a domain at the depth.
    pub(super) fn end(&self, depth: usize) -> usize {
        self.ends[depth] as usize
    }

    /// Domains over which a spread of the group (by its place in the ask) is even.
    pub(super) fn eligible(&self, at: usize, depth: usize) -> &[u32] {
        self.eligible.get(at).map_or(&[], |lists| lists[depth].as_slice())
    }
}

fn cand(
    ask: &Ask<'_>,
    draft: &Draft,
    at: usize,
    (node, slot): (u32, &Slot),
    fit: Fit,
    path: Path,
) -> Option<Cand> {
    let group = ask.groups.get(at)?;
    let room = draft.room(group, node, slot, fit.gpus, group.wanted());
    (room > 0).then(|| Cand {
        path,
        node,
        site: slot.site.0,
        room,
        idle: draft.with_free(node, slot, |free| free.idle.len()),
        shuns: fit.shuns,
        fit,
        price: slot.node.price.0,
    })
}

/// Whether any rule of the job is about racks.
fn reads_racks(ask: &Ask<'_>) -> bool {
    let rack = Some(Level::Rack);
    let spec = ask.spec;
    spec.topology_required == rack
        || spec.topology_preferred == rack
        || spec.affinities.iter().any(|one| one.level == Level::Rack)
        || ask.around.closed.iter().any(|(level, _)| *level == Level::Rack)
        || spec.groups.iter().map(|group| &group.rules).any(|rules| {
            rules.topology_required == rack
                || rules.topology_preferred == rack
                || rules.segments.iter().any(|one| one.level == Level::Rack)
                || rules.spread.iter().any(|one| one.level == Level::Rack)
        })
}

fn paths(ask: &Ask<'_>) -> (Vec<Path>, [u32; 5]) {
    let view = ask.view;
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
    let with_racks = reads_racks(ask);
    let mut racks: Vec<BTreeMap<&str, u32>> = vec![BTreeMap::new(); of_site.len()];
    let mut racks_end = 0;
    let mut paths = vec![NOWHERE; view.node_end()];
    for (node, slot) in view.slots() {
        let SiteId(site) = slot.site;
        let (region, zone) = of_site.get(usize::from(site)).copied().unwrap_or_default();
        let mut rack = 0;
        if with_racks && let Some(known) = racks.get_mut(usize::from(site)) {
            rack = *known.entry(slot.node.place.rack.as_str()).or_insert_with(|| {
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
    (paths, ends)
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
