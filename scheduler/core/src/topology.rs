//! Sites: where they lie, and the round-trip times between them.
//!
//! **Invariant:** a site lies in one zone of one region for ever; an RTT is the same both ways; a
//! pair without an RTT is never taken for near.

use crate::id::{Name, SiteId};
use crate::node::Place;
use crate::unit::RttUs;
use petgraph::graph::UnGraph;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most sites of one fleet: the table of pairs then stays below 34 MB.
pub const SITES_MAX: usize = 4_096;
/// RTT between two nodes of one site until someone measures another: a switched LAN.
pub const RTT_INSIDE_SITE: RttUs = RttUs(200);
/// Stands for "nobody has told" in the table.
const UNKNOWN: u32 = u32::MAX;

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
    /// Row b holds the RTTs in microseconds to the sites 0..=b, cut after the last known one.
    rtts: Vec<Vec<u32>>,
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
        self.rtts.push(Vec::new());
        Ok(id)
    }

    /// RTT between the sites; inside one site [`RTT_INSIDE_SITE`] unless told otherwise; `None`
    /// when unknown.
    pub fn rtt(&self, a: SiteId, b: SiteId) -> Option<RttUs> {
        let (low, high) = (a.min(b), a.max(b));
        let known = self
            .rtts
            .get(usize::from(high.0))
            .and_then(|row| row.get(usize::from(low.0)))
            .copied()
            .filter(|&rtt| rtt != UNKNOWN)
            .map(RttUs);
        match known {
            None if a == b && usize::from(a.0) < self.len() => Some(RTT_INSIDE_SITE),
            known => known,
        }
    }

    /// Sets the RTT of a pair, both ways. Returns whether something changed; an unknown site
    /// changes nothing.
    pub fn set_rtt(&mut self, a: SiteId, b: SiteId, rtt: RttUs) -> bool {
        let (low, high) = (usize::from(a.min(b).0), usize::from(a.max(b).0));
        let Some(row) = self.rtts.get_mut(high) else { return false };
        if row.len() <= low {
            row.resize(low + 1, UNKNOWN);
        }
        let value = rtt.0.min(UNKNOWN - 1);
        match row.get_mut(low) {
            Some(cell) if *cell != value => {
                *cell = value;
                true
            }
            _ => false,
        }
    }

    /// The known RTTs of pairs (a <= b), by rising (b, a). Inner ones only where they were set.
    pub fn rtts(&self) -> impl Iterator<Item = (SiteId, SiteId, RttUs)> {
        self.rtts.iter().zip(0u16..).flat_map(|(row, b)| {
            row.iter()
                .zip(0u16..)
                .filter(|&(&rtt, _)| rtt != UNKNOWN)
                .map(move |(&rtt, a)| (SiteId(a), SiteId(b), RttUs(rtt)))
        })
    }

    /// The given sites as a graph: an edge where the RTT is known and within the bound.
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
        assert!(sites.set_rtt(c, a, RttUs(7)));
        assert!(!sites.set_rtt(a, c, RttUs(7)));
        assert_eq!(sites.rtt(a, c), Some(RttUs(7)));
        assert_eq!(sites.rtt(c, a), Some(RttUs(7)));
        assert!(!sites.set_rtt(a, SiteId(9), RttUs(7)));
        assert_eq!(sites.rtt(SiteId(9), SiteId(9)), None);
        assert_eq!(sites.rtts().collect::<Vec<_>>(), [(a, c, RttUs(7))]);
        assert_eq!(sites.graph(&ids, RttUs(7)).edge_count(), 1);
        assert_eq!(sites.graph(&ids, RttUs(6)).edge_count(), 0);
    }
}
