//! Sites: where they lie, and the round-trip times between them.
//!
//! A pair's RTT is measured (or told by an operator), else estimated from the coordinates of both
//! sites, else unknown. Each has its usual value, the median, by which objectives go, and a high
//! one, against which bounds are held. `coordinate` estimates, `embed` finds coordinates that
//! suit what was measured, `net` lays all pairs out for the planner, `within`
//! holds lists of sites against a bound.
//! **Invariant:** a site lies in one zone of one region for ever; an RTT is the same both ways; a
//! pair neither measured nor estimated is never taken for near. All values are integers.

#[deny(clippy::float_arithmetic, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
mod coordinate;
pub mod embed;
mod net;
#[deny(clippy::float_arithmetic, clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]
mod within;

pub use coordinate::{Coordinate, DIMENSIONS};
pub use net::{FAR, Net};

use crate::id::{Name, SiteId};
use crate::node::Place;
use crate::unit::{RttUs, TimeMs};
use petgraph::algo::maximal_cliques;
use petgraph::graph::UnGraph;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most sites of one fleet: with every pair measured, the table then stays below 140 MB.
pub const SITES_MAX: usize = 4_096;
/// RTT between two nodes of one site until someone measures another: a switched LAN.
pub const RTT_INSIDE_SITE: RttUs = RttUs(200);

/// What was measured of a pair of sites, or told by an operator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Measured {
    pub median: RttUs,
    /// A high percentile, never below the median.
    pub high: RttUs,
    /// Round trips that went into it; 0 = told by an operator.
    pub samples: u32,
    /// When it was last changed.
    pub at: TimeMs,
}

/// Where an RTT comes from, the surest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Origin {
    /// An operator or the agents' probes.
    Measured,
    /// The coordinates of both sites.
    Estimated,
    /// Two nodes of one site about which nobody has told anything.
    Assumed,
}

/// How far two sites are apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Spread {
    /// The usual RTT; objectives go by it.
    pub median: RttUs,
    /// What the RTT rarely exceeds; bounds are held against it.
    pub high: RttUs,
    pub origin: Origin,
}

/// One site: a set of nodes on one LAN.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Site {
    pub region: Name,
    pub zone: Name,
    pub name: Name,
}

/// Why a place cannot be taken into the table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SiteError {
    #[error("is known in region {region}, zone {zone}; a site never moves")]
    Elsewhere { region: Name, zone: Name },
    #[error("would be site number {}, and at most {SITES_MAX} are allowed", SITES_MAX + 1)]
    TooMany,
}

/// All sites, numbered in order of first sight, and the RTTs between them.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Sites {
    sites: Vec<Site>,
    by_name: BTreeMap<Name, SiteId>,
    /// Row b holds what was measured to the sites 0..=b, cut after the last known one. Copies of
    /// the table share the rows that did not change since.
    rtts: Vec<Arc<Vec<Option<Measured>>>>,
    /// By site id, cut after the last known one.
    coordinates: Vec<Option<Coordinate>>,
}

impl Sites {
    /// Number of sites; their ids are 0 to this less one.
    pub fn len(&self) -> usize {
        self.sites.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sites.is_empty()
    }

    /// The site, if there is one with this id.
    pub fn site(&self, id: SiteId) -> Option<&Site> {
        self.sites.get(usize::from(id.0))
    }

    /// All sites by rising id.
    pub fn iter(&self) -> impl Iterator<Item = (SiteId, &Site)> {
        self.sites.iter().zip(0u16..).map(|(site, id)| (SiteId(id), site))
    }

    /// The site of this name.
    pub fn find(&self, name: &Name) -> Option<SiteId> {
        self.by_name.get(name).copied()
    }

    /// What [`Sites::join`] would do: the known site, `None` for a new one, or the refusal.
    pub fn check(&self, place: &Place) -> Result<Option<SiteId>, SiteError> {
        let Some(id) = self.find(&place.site) else {
            return if self.len() < SITES_MAX { Ok(None) } else { Err(SiteError::TooMany) };
        };
        match self.site(id) {
            Some(site) if site.region != place.region || site.zone != place.zone => {
                let (region, zone) = (site.region.clone(), site.zone.clone());
                Err(SiteError::Elsewhere { region, zone })
            }
            _ => Ok(Some(id)),
        }
    }

    /// The site of the place, taken into the table when it is new. A refusal changes nothing.
    pub fn join(&mut self, place: &Place) -> Result<SiteId, SiteError> {
        if let Some(known) = self.check(place)? {
            return Ok(known);
        }
        let id = SiteId(u16::try_from(self.len()).map_err(|_| SiteError::TooMany)?);
        self.sites.push(Site {
            region: place.region.clone(),
            zone: place.zone.clone(),
            name: place.site.clone(),
        });
        self.by_name.insert(place.site.clone(), id);
        self.rtts.push(Arc::default());
        Ok(id)
    }

    /// What a bound on the RTT between the sites is held against; `None` when nothing is known.
    pub fn rtt(&self, a: SiteId, b: SiteId) -> Option<RttUs> {
        self.spread(a, b).map(|spread| spread.high)
    }

    /// Whether in each of these lists every two members, one site each and repeats wanted, lie within
    /// the bound of each other.
    pub fn are_within(&self, lists: &[Vec<SiteId>], bound: RttUs) -> bool {
        within::are_within(self, lists, bound)
    }

    /// The RTT between the sites: measured, else estimated; inside one site [`RTT_INSIDE_SITE`]
    /// unless measured; `None` when nothing is known.
    pub fn spread(&self, a: SiteId, b: SiteId) -> Option<Spread> {
        if let Some(Measured { median, high, .. }) = self.measured(a, b) {
            return Some(Spread { median, high, origin: Origin::Measured });
        }
        if a == b {
            let rtt = RTT_INSIDE_SITE;
            let assumed = Spread { median: rtt, high: rtt, origin: Origin::Assumed };
            return (usize::from(a.0) < self.len()).then_some(assumed);
        }
        Some(self.coordinate(a)?.estimate(self.coordinate(b)?))
    }

    /// What was measured of the pair, or told.
    pub fn measured(&self, a: SiteId, b: SiteId) -> Option<Measured> {
        let (low, high) = (a.min(b), a.max(b));
        *self.rtts.get(usize::from(high.0))?.get(usize::from(low.0))?
    }

    /// The site's coordinates, if it has any.
    pub fn coordinate(&self, site: SiteId) -> Option<&Coordinate> {
        self.coordinates.get(usize::from(site.0))?.as_ref()
    }

    /// Sets what was measured of a pair, both ways. Returns whether it changes any answer; an
    /// unknown site changes nothing.
    pub fn set_rtt(&mut self, a: SiteId, b: SiteId, told: Measured) -> bool {
        let (low, high) = (usize::from(a.min(b).0), usize::from(a.max(b).0));
        let Some(row) = self.rtts.get_mut(high).map(Arc::make_mut) else { return false };
        if row.len() <= low {
            row.resize(low + 1, None);
        }
        let told = Measured { high: told.high.max(told.median), ..told };
        let Some(cell) = row.get_mut(low) else { return false };
        let same = |old: &Measured| (old.median, old.high) == (told.median, told.high);
        let changed = !cell.as_ref().is_some_and(same);
        *cell = Some(told);
        changed
    }

    /// Sets a site's coordinates, or takes them away. Returns whether something changed; an
    /// unknown site changes nothing.
    pub fn set_coordinate(&mut self, site: SiteId, coordinate: Option<Coordinate>) -> bool {
        let at = usize::from(site.0);
        if at >= self.len() || self.coordinate(site) == coordinate.as_ref() {
            return false;
        }
        if self.coordinates.len() <= at {
            self.coordinates.resize(at + 1, None);
        }
        if let Some(cell) = self.coordinates.get_mut(at) {
            *cell = coordinate;
        }
        while self.coordinates.last().is_some_and(Option::is_none) {
            self.coordinates.pop();
        }
        true
    }

    /// Pairs (a <= b) of which another RTT is told than in an older state of this table, and those
    /// that it did not have; maybe more than once, and maybe some that are as they were.
    pub fn changes_since(&self, old: &Self) -> Vec<(SiteId, SiteId)> {
        let mut pairs = Vec::new();
        for (b, row) in self.rtts.iter().enumerate() {
            let id = |site: usize| SiteId(u16::try_from(site).unwrap_or(u16::MAX));
            let Some(before) = old.rtts.get(b) else {
                pairs.extend((0..=b).map(|a| (id(a), id(b))));
                continue;
            };
            if !Arc::ptr_eq(row, before) {
                let cell = |row: &[Option<Measured>], a: usize| {
                    row.get(a).copied().flatten().map(|told| (told.median, told.high))
                };
                let news = |a: &usize| cell(row, *a) != cell(before, *a);
                pairs.extend((0..=b).filter(news).map(|a| (id(a), id(b))));
            }
        }
        let moved = |site: &SiteId| self.coordinate(*site) != old.coordinate(*site);
        for site in self.iter().map(|(site, _)| site).filter(moved) {
            pairs.extend(self.iter().map(|(other, _)| (site.min(other), site.max(other))));
        }
        pairs
    }

    /// The same sites, of which nothing was measured yet.
    pub fn without_rtts(&self) -> Self {
        let rtts = vec![Arc::default(); self.len()];
        Self { rtts, coordinates: Vec::new(), ..self.clone() }
    }

    /// What was measured of pairs (a <= b), by rising (b, a). Inner ones only where they were set.
    pub fn rtts(&self) -> impl Iterator<Item = (SiteId, SiteId, Measured)> {
        self.rtts_from((SiteId(0), SiteId(0)))
    }

    /// As [`Sites::rtts`], from the pair (a, b) on.
    pub fn rtts_from(
        &self,
        (a, b): (SiteId, SiteId),
    ) -> impl Iterator<Item = (SiteId, SiteId, Measured)> {
        let rows = self.rtts.iter().zip(0u16..).skip(b.0.into());
        rows.flat_map(move |(row, at)| {
            let first = if at == b.0 { a.0 } else { 0 };
            let cells = row.iter().zip(0u16..).skip(first.into());
            cells.filter_map(move |(cell, a)| Some((SiteId(a), SiteId(at), (*cell)?)))
        })
    }

    /// The given sites as a graph: an edge where the high RTT is within the bound.
    /// `members` without repeats; node i of the graph is `members[i]`.
    pub fn graph(&self, members: &[SiteId], bound: RttUs) -> UnGraph<SiteId, RttUs> {
        let mut graph = UnGraph::with_capacity(members.len(), members.len());
        let nodes: Vec<_> = members.iter().map(|&site| graph.add_node(site)).collect();
        for (at, (&a, &from)) in members.iter().zip(&nodes).enumerate() {
            for (&b, &to) in members.iter().zip(&nodes).skip(at + 1) {
                if let Some(rtt) = self.rtt(a, b).filter(|&rtt| rtt <= bound) {
                    graph.add_edge(from, to, rtt);
                }
            }
        }
        graph
    }

    /// All largest sets of these sites in which no two are farther apart than the bound, in rising
    /// order. Their number may double with each site.
    pub fn near_sets(&self, members: &[u16], bound: RttUs) -> Vec<Vec<u16>> {
        let members: Vec<SiteId> = members.iter().copied().map(SiteId).collect();
        let graph = self.graph(&members, bound);
        let cliques = maximal_cliques(&graph).into_iter().map(|clique| {
            let sites = clique.into_iter().filter_map(|at| Some(graph.node_weight(at)?.0));
            let mut sites: Vec<u16> = sites.collect();
            sites.sort_unstable();
            sites
        });
        // They come out of tables that are hashed otherwise in each call.
        let mut sets: Vec<Vec<u16>> = cliques.collect();
        sets.sort_unstable();
        sets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(site: &str, zone: &str) -> Place {
        let name = |text: &str| Name::parse(text).expect("a name");
        Place { region: name("r"), zone: name(zone), site: name(site), rack: name("k") }
    }

    #[test]
    fn a_site_keeps_its_number_and_never_moves() {
        let mut sites = Sites::default();
        let a = sites.join(&place("a", "z1")).expect("joins");
        let b = sites.join(&place("b", "z1")).expect("joins");
        assert_ne!(a, b);
        assert_eq!(sites.join(&place("a", "z1")), Ok(a));
        let before = sites.clone();
        assert!(matches!(sites.join(&place("a", "z2")), Err(SiteError::Elsewhere { .. })));
        assert_eq!(sites, before);
    }

    fn told(rtt: u32) -> Measured {
        Measured { median: RttUs(rtt), high: RttUs(rtt), samples: 0, at: TimeMs(1) }
    }

    #[test]
    fn rtts_are_symmetric_and_unknown_until_set() {
        let mut sites = Sites::default();
        let ids: Vec<SiteId> = ["a", "b", "c"]
            .iter()
            .map(|name| sites.join(&place(name, "z")).expect("joins"))
            .collect();
        let [a, b, c] = ids[..] else { panic!("three sites") };
        assert_eq!(sites.rtt(a, b), None);
        assert_eq!(sites.rtt(c, c), Some(RTT_INSIDE_SITE));
        assert!(sites.set_rtt(c, a, told(7)));
        assert!(!sites.set_rtt(a, c, told(7)));
        assert_eq!(sites.rtt(a, c), Some(RttUs(7)));
        assert_eq!(sites.rtt(c, a), Some(RttUs(7)));
        assert!(!sites.set_rtt(a, SiteId(9), told(7)));
        assert_eq!(sites.rtt(SiteId(9), SiteId(9)), None);
        assert_eq!(sites.rtts().collect::<Vec<_>>(), [(a, c, told(7))]);
        assert_eq!(sites.graph(&ids, RttUs(7)).edge_count(), 1);
        assert_eq!(sites.graph(&ids, RttUs(6)).edge_count(), 0);
    }

    /// Twelve sites in six pairs of strangers: one of each pair, in all ways.
    #[test]
    fn near_sets_come_in_the_same_order_always() {
        let mut sites = Sites::default();
        let all: Vec<u16> = (0..12)
            .map(|site| sites.join(&place(&format!("s{site}"), "z")).expect("joins").0)
            .collect();
        for (at, &a) in all.iter().enumerate() {
            for &b in all.iter().skip(at + 1).filter(|&&b| b != (a ^ 1)) {
                sites.set_rtt(SiteId(a), SiteId(b), told(7));
            }
        }
        let sets = sites.near_sets(&all, RttUs(7));
        assert_eq!(sets.len(), 64);
        assert!(sets.is_sorted() && sets.iter().all(|set| set.len() == 6 && set.is_sorted()));
        let few = sites.near_sets(&[5, 1, 4], RttUs(7));
        assert_eq!(few, [[1, 4], [1, 5]]);
        assert_eq!(sites.near_sets(&[1, 2], RttUs(6)), [[1], [2]]);
    }

    #[test]
    fn a_pair_that_nobody_measured_is_estimated_where_both_sites_have_coordinates() {
        let mut sites = Sites::default();
        let [a, b, c] = ["a", "b", "c"].map(|n| sites.join(&place(n, "z")).expect("joins"));
        let at = |x| Coordinate { axes: [x, 0, 0], height_us: 100, error_milli: 500 };
        assert!(sites.set_coordinate(a, Some(at(0))));
        assert!(!sites.set_coordinate(a, Some(at(0))));
        assert_eq!(sites.spread(a, b), None);
        assert!(sites.set_coordinate(b, Some(at(4_000))));
        let (median, high) = (RttUs(4_200), RttUs(6_300));
        let estimate = Spread { median, high, origin: Origin::Estimated };
        assert_eq!(sites.spread(a, b), Some(estimate));
        assert_eq!(sites.spread(b, a), Some(estimate));
        assert_eq!(sites.rtt(a, b), Some(high));
        assert_eq!(sites.spread(a, a).map(|spread| spread.origin), Some(Origin::Assumed));
        assert_eq!(sites.spread(a, c), None);
        assert!(sites.set_rtt(b, a, told(9)));
        assert_eq!(sites.spread(a, b).map(|spread| spread.origin), Some(Origin::Measured));
        let net = Net::new(&sites);
        assert_eq!((net.high(0, 1), net.high(0, 2), net.high(2, 2)), (9, FAR, 200));
        assert_eq!(net.order(1), [0, 1, 2]);
        assert!(!sites.set_coordinate(SiteId(9), Some(at(1))));
        let with = sites.clone();
        assert!(sites.set_coordinate(b, None) && sites.set_coordinate(a, None));
        assert_ne!(sites, with);
    }
}
