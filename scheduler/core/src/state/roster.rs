//! Roster: the nodes by what they have in common. Tells which of them could hold a replica, and the
//! number of the domain in which each lies, without a look at every node.
//!
//! `tags` finds classes by their labels, `identity` knows in what nodes of one class differ, `names`
//! finds nodes and racks by their names.
//! **Invariant:** says of a node exactly what [`Needs::misfit`] says; costs what a job names and
//! what classes there are, not both multiplied. Numbers of classes and domains hang on history and
//! never leave the server.

mod identity;
mod names;
mod tags;

use crate::bits;
use crate::fit::{Needs, Outside};
use crate::id::{Name, NodeId, SiteId, SupplierId};
use crate::job::Level;
use crate::node::{Node, Resources, Taint};
use crate::table::Table;
use crate::unit::{BandwidthMbps, PriceMicroUsd};
use crate::view::{Class, ClassId, Classes};
use identity::Identity;
use names::{Names, Racks};
use std::collections::BTreeMap;
use std::sync::Arc;
use tags::{NODE_KEY, RACK_KEY, Tags};

/// A look at one node of many here and there costs as much as at this many in a row.
const LEAPS_COST: usize = 4;

/// What is known of one node beside its class.
#[derive(Clone, Debug)]
struct Spot {
    class: ClassId,
    site: SiteId,
    /// Number of its rack's name.
    rack: u32,
    up: BandwidthMbps,
    down: BandwidthMbps,
    open: bool,
}

/// What decides first about a class, side by side with that of others.
#[derive(Clone, Copy, Debug, Default)]
struct Brief {
    kind: u32,
    site: u16,
    resources: Resources,
    price: PriceMicroUsd,
    /// Its nodes have taints, or countable resources.
    is_special: bool,
    /// Its open nodes.
    open: u32,
}

/// Number of the region and of the zone of a site.
type Area = (u32, u32);

#[derive(Debug, Default)]
pub(super) struct Roster {
    classes: Classes,
    /// By class.
    briefs: Vec<Brief>,
    /// Classes in use.
    used: Vec<u64>,
    tags: Tags,
    spots: Table<Spot>,
    names: Names,
    racks: Racks,
    /// By site; of sites that had nodes.
    areas: Vec<Area>,
    regions: BTreeMap<Name, u32>,
    zones: BTreeMap<(Name, Name), u32>,
}

/// The classes whose nodes could hold a replica, and what each node has to be besides.
pub(super) struct Fitting {
    classes: Vec<u64>,
    identity: Identity,
}

/// Keeping up.
impl Roster {
    pub(super) fn enter(&mut self, node: &Arc<Node>) {
        let before = self.classes.version();
        let class = self.classes.enter(node);
        if self.classes.version() != before {
            self.begin(class, node);
        }
        self.count_open(class);
        self.names.enter(&node.supplier, &node.name, node.id);
        let rack = self.racks.enter(&node.place.rack);
        let (up, down, open) = (node.bandwidth_up, node.bandwidth_down, node.is_schedulable());
        let spot = Spot { class, site: node.site, rack, up, down, open };
        self.spots.insert(u64::from(node.id.0), spot);
        self.place(node);
    }

    /// The node goes, or is about to be another; as it was when it entered.
    pub(super) fn leave(&mut self, node: &Node) {
        let Some(spot) = self.spots.remove(u64::from(node.id.0)) else { return };
        let class = spot.class;
        self.classes.leave(class, node.id.0, spot.open);
        self.classes.give_back_kinds();
        self.count_open(class);
        if self.classes.get(class).is_none() {
            self.tags.leave(class.0, node);
            bits::clear(&mut self.used, class.0 as usize);
        }
        self.names.leave(&node.supplier, &node.name, node.id);
        self.racks.leave(&node.place.rack, spot.rack);
    }

    /// A node that entered has changed in something else than its id, supplier and name; mostly it
    /// is another session of the same machine, or one that ended.
    pub(super) fn change(&mut self, old: &Arc<Node>, new: &Arc<Node>) {
        let spot = self.spots.get_mut(u64::from(new.id.0));
        let Some(spot) = spot.filter(|_| old.place.rack == new.place.rack) else {
            return self.renew(old, new);
        };
        if !self.classes.exchange(spot.class, old, new) {
            return self.renew(old, new);
        }
        (spot.up, spot.down) = (new.bandwidth_up, new.bandwidth_down);
        if spot.open != new.is_schedulable() {
            spot.open = new.is_schedulable();
            let class = spot.class;
            self.count_open(class);
        }
    }

    fn renew(&mut self, old: &Node, new: &Arc<Node>) {
        self.leave(old);
        self.enter(new);
    }

    fn count_open(&mut self, class: ClassId) {
        let open = self.classes.get(class).map_or(0, |class| class.open);
        if let Some(brief) = self.briefs.get_mut(class.0 as usize) {
            brief.open = open;
        }
    }

    fn begin(&mut self, class: ClassId, node: &Node) {
        let at = class.0 as usize;
        if self.briefs.len() <= at {
            self.briefs.resize(at + 1, Brief::default());
            self.used.resize(bits::words(at + 1), 0);
        }
        let kind = self.classes.get(class).map_or(0, |class| class.kind.0);
        if let Some(brief) = self.briefs.get_mut(at) {
            let (site, resources, price) = (node.site.0, node.resources, node.price);
            let is_special = !node.taints.is_empty() || !node.custom.is_empty();
            *brief = Brief { kind, site, resources, price, is_special, open: 0 };
        }
        bits::set(&mut self.used, at);
        self.tags.enter(class.0, node);
    }

    /// Numbers the domains of a site when it is first seen; it never moves.
    fn place(&mut self, node: &Node) {
        let at = usize::from(node.site.0);
        if self.areas.len() <= at {
            self.areas.resize(at + 1, (u32::MAX, u32::MAX));
        }
        let Some(area) = self.areas.get_mut(at).filter(|area| area.0 == u32::MAX) else { return };
        let place = &node.place;
        let next = u32::try_from(self.regions.len()).unwrap_or(u32::MAX);
        let region = *self.regions.entry(place.region.clone()).or_insert(next);
        let next = u32::try_from(self.zones.len()).unwrap_or(u32::MAX);
        let zone = (place.region.clone(), place.zone.clone());
        *area = (region, *self.zones.entry(zone).or_insert(next));
    }
}

/// Reading.
impl Roster {
    /// The domain of the level in which the node lies, as a number.
    pub(super) fn domain(&self, level: Level, node: &Node) -> u64 {
        let id = u64::from(node.id.0);
        match level {
            Level::Node => id,
            Level::Rack => self.spots.get(id).map_or(u64::MAX, Spot::rack_domain),
            Level::Site | Level::Zone | Level::Region => self.wide_domain(level, node.site),
        }
    }

    fn wide_domain(&self, level: Level, site: SiteId) -> u64 {
        let area = self.areas.get(usize::from(site.0)).copied();
        let (region, zone) = area.unwrap_or((u32::MAX, u32::MAX));
        match level {
            Level::Region => region.into(),
            Level::Zone => zone.into(),
            Level::Site | Level::Rack | Level::Node => site.0.into(),
        }
    }

    /// What could hold a replica with these needs.
    pub(super) fn fitting(&self, needs: &Needs) -> Fitting {
        self.fitting_among(needs, self.used.clone())
    }

    /// Whether the node, which is known, is among them.
    pub(super) fn fits(&self, fitting: &Fitting, id: NodeId) -> bool {
        self.spots.get(u64::from(id.0)).is_some_and(|spot| {
            bits::has(&fitting.classes, spot.class.0 as usize) && fitting.identity.admits(id, spot)
        })
    }

    /// Nodes that bear the name, of this supplier and hardly ever of another.
    pub(super) fn named(&self, supplier: &SupplierId, name: &Name) -> impl Iterator<Item = NodeId> {
        self.names.of(supplier, name.as_str())
    }

    /// Whether an open node that could hold a replica lies outside of what is held.
    pub(super) fn any_outside(&self, needs: &Needs, held: &Outside<'_>) -> bool {
        let beside: Vec<bool> = (0u16..)
            .zip(&self.areas)
            .map(|(site, _)| {
                let domain = |level| self.wide_domain(level, SiteId(site));
                held.wide().any(|(level, held)| held.binary_search(&domain(level)).is_err())
            })
            .collect();
        let beside = |site: u16| beside.get(usize::from(site)).is_some_and(|&beside| beside);
        let narrow = held.narrow().next().is_some();
        let mut classes = self.used.clone();
        self.retain(&mut classes, |brief| brief.open > 0 && (narrow || beside(brief.site)));
        let Fitting { classes, identity } = self.fitting_among(needs, classes);
        let briefs = || bits::iter(&classes).filter_map(|at| self.briefs.get(at));
        if identity.is_nothing() && briefs().any(|brief| beside(brief.site)) {
            return true;
        }
        let serves = |node: NodeId, spot: &Spot| {
            let out = |(level, held): (Level, &[u64])| {
                let node = u64::from(node.0);
                let domain = if level == Level::Node { node } else { spot.rack_domain() };
                held.binary_search(&domain).is_err()
            };
            spot.open
                && bits::has(&classes, spot.class.0 as usize)
                && identity.admits(node, spot)
                && (beside(spot.site.0) || held.narrow().any(out))
        };
        let known = |node: NodeId| self.spots.get(u64::from(node.0)).map(|spot| (node, spot));
        if let Some(only) = identity.only() {
            return only
                .iter()
                .filter_map(|&node| known(node))
                .any(|(node, spot)| serves(node, spot));
        }
        let open = briefs().fold(0usize, |sum, brief| sum.saturating_add(brief.open as usize));
        if open < self.spots.len() / LEAPS_COST {
            let nodes = bits::iter(&classes).filter_map(|at| self.class(at));
            let mut nodes = nodes.flat_map(|class| class.nodes.iter().map(NodeId));
            return nodes.any(|node| known(node).is_some_and(|(node, spot)| serves(node, spot)));
        }
        let mut all = self.spots.iter();
        all.any(|(id, spot)| u32::try_from(id).is_ok_and(|id| serves(NodeId(id), spot)))
    }

    fn class(&self, at: usize) -> Option<&Class> {
        self.classes.get(ClassId(u32::try_from(at).ok()?))
    }

    fn retain(&self, classes: &mut [u64], keep: impl Fn(&Brief) -> bool) {
        for (word, briefs) in classes.iter_mut().zip(self.briefs.chunks(64)) {
            let mut rest = *word;
            while rest != 0 {
                let at = rest.trailing_zeros();
                rest &= rest - 1;
                if !briefs.get(at as usize).is_some_and(&keep) {
                    *word &= !(1 << at);
                }
            }
        }
    }

    /// Of these classes those that could hold a replica: numbers first, then labels, then what is
    /// the dearest to compare, for the few that are left.
    fn fitting_among(&self, needs: &Needs, mut classes: Vec<u64>) -> Fitting {
        let serves: Vec<bool> =
            self.classes.gpu_lists().map(|gpus| needs.serving(gpus).is_some()).collect();
        self.retain(&mut classes, |brief| {
            serves.get(brief.kind as usize).is_some_and(|&serves| serves)
                && needs.resource_misfit(brief.resources).is_none()
                && needs.affords(brief.price)
        });
        for selector in needs.selectors().iter() {
            if !matches!(selector.key.as_ref(), NODE_KEY | RACK_KEY) {
                self.tags.narrow(&mut classes, selector);
            }
            if classes.iter().all(|&word| word == 0) {
                break;
            }
        }
        let mut tolerated: BTreeMap<&[Taint], bool> = BTreeMap::new();
        let left: Vec<usize> = bits::iter(&classes).collect();
        for at in left {
            if self.briefs.get(at).is_none_or(|brief| !brief.is_special)
                && needs.custom().is_empty()
            {
                continue;
            }
            let Some(class) = self.class(at) else { continue };
            let taints = class.sample.taints.as_slice();
            let fits =
                !class.tainted || *tolerated.entry(taints).or_insert_with(|| needs.bears(taints));
            if !fits || !needs.is_stocked(&class.sample.custom) {
                bits::clear(&mut classes, at);
            }
        }
        let identity = Identity::new(needs, &self.names, &self.racks);
        Fitting { classes, identity }
    }
}

/// Two rosters are equal if they tell the same of every node, whatever the numbers.
impl PartialEq for Roster {
    fn eq(&self, other: &Self) -> bool {
        let first = |roster: &Self, class: u32| {
            roster.classes.get(ClassId(class)).and_then(|class| class.nodes.first())
        };
        // By our class theirs: what holds of all nodes of a class is compared once.
        let mut twins: Vec<Option<ClassId>> = vec![None; self.classes.end()];
        let racks = self.racks.twins(&other.racks);
        let same = |(id, spot): (u64, &Spot)| {
            let Some(there) = other.spots.get(id) else { return false };
            let Some(twin) = twins.get_mut(spot.class.0 as usize) else { return false };
            let is_known = *twin == Some(there.class);
            *twin = Some(there.class);
            let own = |spot: &Spot| (spot.site, spot.up, spot.down, spot.open);
            own(spot) == own(there)
                && racks.get(spot.rack as usize) == Some(&Some(there.rack))
                && (is_known || self.has_class(spot.class, other, there.class))
        };
        self.spots.len() == other.spots.len()
            && self.spots.iter().all(same)
            && self.names == other.names
            && self.racks.len() == other.racks.len()
            && self.tags.by(|class| first(self, class))
                == other.tags.by(|class| first(other, class))
    }
}

impl Roster {
    /// Whether the same is told of a class here and of one there.
    fn has_class(&self, id: ClassId, other: &Self, there: ClassId) -> bool {
        let Some((class, there)) = self.classes.get(id).zip(other.classes.get(there)) else {
            return false;
        };
        let place = &class.sample.place;
        let zone = (place.region.clone(), place.zone.clone());
        let area = self.regions.get(&place.region).zip(self.zones.get(&zone));
        self.areas.get(usize::from(class.site.0)) == area.map(|(&a, &b)| (a, b)).as_ref()
            && class.is_like(&there.sample)
            && (&class.nodes, class.open) == (&there.nodes, there.open)
            && self.briefs.get(id.0 as usize).is_some_and(|brief| brief.open == class.open)
    }
}

impl Spot {
    /// A rack counts inside its site.
    fn rack_domain(&self) -> u64 {
        u64::from(self.rack) << 16 | u64::from(self.site.0)
    }
}
