//! Fleet: what befalls the nodes of a replay, joined from files of faults, spot nodes, prices and
//! round trips.
//!
//! A file whose nodes are those of the list is about them. Faults of other nodes are another
//! fleet's: its nodes' histories are dealt out to ours, over and over, each round from another time
//! of that fleet on, and begin again when they end; so rates, repairs, bad nodes and common causes
//! stay as they were, whatever the size of the fleet and the length of the replay. Spot nodes that
//! are not on the list come in addition to it. Times are not hastened by the load.
//! **Invariant:** what is dealt follows from the seed alone and is the same for all policies.

use super::Input;
use crate::generate::Draw;
use crate::scenario::{Happening, Target};
use crate::trace::faults::{self, NodeFault};
use crate::trace::prices::{Offer, usual};
use crate::trace::rtt::RttTable;
use crate::trace::specs::recorded_node;
use crate::trace::{Change, NodeChange, TraceNode, TracePlace};
use scheduler_core::id::{Name, NameError};
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::{BTreeMap, BTreeSet};

/// Class of nodes that a list of spot nodes names.
pub const SPOT_CLASS: &str = "spot";
/// Region, zone and rack of nodes that only have a site.
const ANY_PLACE: &str = "all";

/// Why a file does not go with the nodes of the list.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum JoinError {
    #[error("node {unknown:?} is not on the list of nodes, though {known:?} is")]
    Mixed { unknown: String, known: String },
    #[error("{named} nodes have faults, so they are not of a fleet of {of}")]
    FaultsOf { named: usize, of: usize },
    #[error("node {node:?} stands at site {site:?}, to which no round trip is told")]
    Site { node: String, site: String },
    #[error("node {node:?} tells no site, though {other:?} does")]
    NoSite { node: String, other: String },
    #[error("place {place:?} {source}")]
    Place { place: String, source: NameError },
    #[error("there are no nodes")]
    NoNodes,
}

/// When the nodes of a fleet were out of order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histories {
    /// Of every node, rising; those without a fault too.
    spans: Vec<Vec<(TimeMs, TimeMs)>>,
    /// From the beginning to the last end.
    length_ms: u64,
}

impl Histories {
    /// Of a fleet of `of` nodes; `None` = of those alone that have faults.
    pub fn new(faults: &[NodeFault], of: Option<usize>) -> Result<Self, JoinError> {
        let mut spans: Vec<_> = faults::spans(faults).into_values().collect();
        let named = spans.len();
        let of = of.unwrap_or(named);
        if of < named {
            return Err(JoinError::FaultsOf { named, of });
        }
        spans.resize(of, Vec::new());
        let length_ms = faults.iter().map(|fault| fault.end.0).max().unwrap_or(0);
        Ok(Self { spans, length_ms })
    }

    /// Position, beginning and length of every fault of so many nodes up to a time.
    fn deal(&self, nodes: usize, until: TimeMs, seed: u64) -> Vec<(usize, TimeMs, DurationMs)> {
        let mut draw = Draw::new(seed, "faults");
        let mut dealt = Vec::new();
        if self.spans.is_empty() || self.length_ms == 0 {
            return dealt;
        }
        let mut hand: Vec<usize> = Vec::new();
        let mut from_ms = 0;
        for node in 0..nodes {
            if hand.is_empty() {
                hand = (0..self.spans.len()).collect();
                from_ms = draw.below(self.length_ms);
            }
            let history = hand.swap_remove(draw.below(hand.len() as u64) as usize);
            for &(start, end) in self.spans.get(history).into_iter().flatten() {
                self.repeat(from_ms, (start, end), until, |at, length| {
                    dealt.push((node, at, length));
                });
            }
        }
        dealt
    }

    /// A fault as it is seen by who looks from `from_ms` on and begins again at the end.
    fn repeat(
        &self,
        from_ms: u64,
        (start, end): (TimeMs, TimeMs),
        until: TimeMs,
        mut tell: impl FnMut(TimeMs, DurationMs),
    ) {
        let first = (start.0 + self.length_ms - from_ms) % self.length_ms;
        let length = end.0.saturating_sub(start.0);
        // One that began in the round before may reach into this one.
        let under_way = (first + length).saturating_sub(self.length_ms);
        if under_way > 0 {
            tell(TimeMs::ZERO, DurationMs(under_way));
        }
        let mut at = first;
        while at <= until.0 {
            tell(TimeMs(at), DurationMs(length));
            at = at.saturating_add(self.length_ms);
        }
    }
}

impl Input {
    /// Takes in faults: of nodes of the list, or of another fleet of `of` nodes.
    pub fn join_faults(
        &mut self,
        faults: &[NodeFault],
        of: Option<usize>,
    ) -> Result<(), JoinError> {
        if self.are_listed(faults.iter().map(|fault| fault.node.as_str()))? {
            self.add_changes(faults::changes(faults));
        } else {
            self.faults = Some(Histories::new(faults, of)?);
        }
        Ok(())
    }

    /// Takes in spot nodes coming and going: some of the list, or further ones like its last.
    /// Nobody says a word when they go.
    pub fn join_spot(&mut self, mut changes: Vec<NodeChange>) -> Result<(), JoinError> {
        let names: BTreeSet<String> = changes.iter().map(|change| change.node.clone()).collect();
        if !self.are_listed(names.iter().map(String::as_str))? {
            let like = self.nodes.last().ok_or(JoinError::NoNodes)?.clone();
            self.nodes.extend(names.iter().map(|called| renamed(&like, called)));
        }
        for node in self.nodes.iter_mut().filter(|node| names.contains(&node.name)) {
            SPOT_CLASS.clone_into(&mut node.class);
        }
        for change in &mut changes {
            if change.change == Change::Removed {
                change.change = Change::Down;
            }
        }
        self.add_changes(changes);
        Ok(())
    }

    /// Gives nodes without a price that of their model, spot nodes that of spot offers; returns
    /// the models that nobody offers so, whose GPUs cost nothing.
    pub fn join_prices(&mut self, offers: &[Offer]) -> BTreeSet<String> {
        let mut unpriced = BTreeSet::new();
        let open = |node: &&mut TraceNode| {
            node.gpus > 0 && node.price_micro_usd == 0 && node.spec.is_none()
        };
        for node in self.nodes.iter_mut().filter(open) {
            match usual(offers, &node.model, node.class == SPOT_CLASS) {
                Some(price) => node.price_micro_usd = price.0,
                None => drop(unpriced.insert(node.model.clone())),
            }
        }
        unpriced
    }

    /// Takes in round trips between the sites of the nodes. Where no node tells a site, the places
    /// of the table become sites, and nodes stand there by turns.
    pub fn join_rtts(&mut self, table: &RttTable) -> Result<(), JoinError> {
        let told = self.nodes.iter().find(|node| node.place.is_some()).map(|n| n.name.clone());
        let numbered = |number: usize| format!("site-{number}");
        let Some(other) = told else {
            for (at, node) in self.nodes.iter_mut().enumerate() {
                let any = || ANY_PLACE.to_owned();
                let site = numbered(at % table.places.len().max(1));
                node.place = Some(TracePlace { region: any(), zone: any(), site, rack: any() });
            }
            self.rtts = table.told(|number| Name::parse(&numbered(number)).ok());
            return Ok(());
        };
        let places: BTreeSet<&str> = table.places.iter().map(String::as_str).collect();
        for node in &self.nodes {
            let named = || node.name.clone();
            match &node.place {
                None => return Err(JoinError::NoSite { node: named(), other }),
                Some(place) if !places.contains(place.site.as_str()) => {
                    return Err(JoinError::Site { node: named(), site: place.site.clone() });
                }
                Some(_) => {}
            }
        }
        for place in &table.places {
            Name::parse(place)
                .map_err(|source| JoinError::Place { place: place.clone(), source })?;
        }
        self.rtts = table.told(|number| Name::parse(table.places.get(number)?).ok());
        Ok(())
    }

    /// Whether these are nodes of the list: all of them or none.
    fn are_listed<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<bool, JoinError> {
        let listed: BTreeSet<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        let (known, unknown): (Vec<&str>, Vec<&str>) =
            names.partition(|name| listed.contains(name));
        match (known.first(), unknown.first()) {
            (Some(&known), Some(&unknown)) => {
                Err(JoinError::Mixed { unknown: unknown.to_owned(), known: known.to_owned() })
            }
            (known, _) => Ok(known.is_some()),
        }
    }

    fn add_changes(&mut self, more: Vec<NodeChange>) {
        self.changes.extend(more);
        self.changes.sort_by_key(|change| change.at);
    }

    /// All that befalls the nodes, which stand in this order, up to a time.
    pub(super) fn events(
        &self,
        positions: &BTreeMap<&str, usize>,
        until: TimeMs,
        seed: u64,
    ) -> Vec<(TimeMs, Happening)> {
        let mut events = Vec::new();
        let mut seen = BTreeSet::new();
        for NodeChange { at, node, change } in &self.changes {
            let Some(&position) = positions.get(node.as_str()) else { continue };
            let target = || Target::Node(position);
            let lose = || Happening::Lose { target: target(), repair: None };
            if seen.insert(node) && *change == Change::Joined && *at > TimeMs::ZERO {
                // It is not there before it joins.
                events.push((TimeMs::ZERO, lose()));
                events.push((TimeMs::ZERO, Happening::Remove { target: target() }));
            }
            if *at > until {
                continue;
            }
            match change {
                Change::Joined | Change::Up => {
                    events.push((*at, Happening::Restore { target: target() }));
                }
                Change::Down => events.push((*at, lose())),
                Change::Eligible => events.push((*at, Happening::Uncordon { target: target() })),
                Change::Cordoned => events.push((*at, Happening::Cordon { target: target() })),
                Change::Draining => events.push((*at, Happening::Drain { target: target() })),
                Change::Price(price) => {
                    events.push((*at, Happening::Price { target: target(), price: *price }));
                }
                Change::Removed => {
                    events.push((*at, lose()));
                    events.push((*at, Happening::Remove { target: target() }));
                }
            }
        }
        if let Some(faults) = &self.faults {
            for (node, at, length) in faults.deal(self.nodes.len(), until, seed) {
                let target = Target::Node(node);
                events.push((at, Happening::Lose { target, repair: Some(length) }));
            }
        }
        events
    }
}

/// A node like another one.
fn renamed(like: &TraceNode, called: &str) -> TraceNode {
    match &like.spec {
        Some(spec) => recorded_node(called, spec),
        None => TraceNode { name: called.to_owned(), ..like.clone() },
    }
}

#[cfg(test)]
mod tests;
