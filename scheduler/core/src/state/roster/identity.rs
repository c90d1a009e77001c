//! Identity: what a group asks of a node's own name, rack and bandwidth, in which nodes of one class
//! differ.
//!
//! **Invariant:** says of a node what [`Needs::misfit`] says, as far as it goes by these.

use super::Spot;
use super::names::{Names, Racks};
use super::tags::{NODE_KEY, RACK_KEY};
use crate::bits;
use crate::fit::Needs;
use crate::id::NodeId;
use crate::job::{Condition, Selector};
use crate::unit::BandwidthMbps;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Identity {
    up_min: BandwidthMbps,
    down_min: BandwidthMbps,
    nodes: Named,
    /// Numbers of the racks' names, as bits; `None` = all.
    racks: Option<Vec<u64>>,
}

/// Nodes by their names, by rising number.
#[derive(Debug)]
enum Named {
    All,
    AllBut(Vec<NodeId>),
    Only(Vec<NodeId>),
}

impl Named {
    fn new(needs: &Needs, names: &Names) -> Self {
        let found = |values: &[Arc<str>]| -> Vec<NodeId> {
            values.iter().flat_map(|value| names.all(value)).collect()
        };
        let (mut gone, mut only): (Vec<NodeId>, Option<Vec<NodeId>>) = (Vec::new(), None);
        for condition in conditions(needs, NODE_KEY) {
            match condition {
                // Every node has a name.
                Condition::Exists => {}
                Condition::DoesNotExist => return Self::Only(Vec::new()),
                Condition::NotIn(values) => gone.extend(found(values)),
                Condition::In(values) => {
                    let mut found = sorted(found(values));
                    if let Some(before) = &only {
                        found.retain(|node| before.binary_search(node).is_ok());
                    }
                    only = Some(found);
                }
            }
        }
        let gone = sorted(gone);
        match only {
            Some(mut only) => {
                only.retain(|node| gone.binary_search(node).is_err());
                Self::Only(only)
            }
            None if gone.is_empty() => Self::All,
            None => Self::AllBut(gone),
        }
    }

    fn has(&self, node: NodeId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(gone) => gone.binary_search(&node).is_err(),
            Self::Only(nodes) => nodes.binary_search(&node).is_ok(),
        }
    }
}

impl Identity {
    pub(super) fn new(needs: &Needs, names: &Names, racks: &Racks) -> Self {
        let (up_min, down_min) = needs.bandwidth_min();
        let nodes = Named::new(needs, names);
        Self { up_min, down_min, nodes, racks: allowed(needs, racks) }
    }

    /// Whether it lets every node in.
    pub(super) fn is_nothing(&self) -> bool {
        let none = BandwidthMbps::ZERO;
        (self.up_min, self.down_min) == (none, none)
            && matches!((&self.nodes, &self.racks), (Named::All, None))
    }

    /// The only nodes that it may let in, if it names them.
    pub(super) fn only(&self) -> Option<&[NodeId]> {
        match &self.nodes {
            Named::Only(nodes) => Some(nodes),
            Named::All | Named::AllBut(_) => None,
        }
    }

    pub(super) fn admits(&self, node: NodeId, spot: &Spot) -> bool {
        self.racks.as_ref().is_none_or(|racks| bits::has(racks, spot.rack as usize))
            && spot.up >= self.up_min
            && spot.down >= self.down_min
            && self.nodes.has(node)
    }
}

fn conditions<'a>(needs: &'a Needs, key: &str) -> impl Iterator<Item = &'a Condition> {
    let about = move |selector: &&Selector| selector.key.as_ref() == key;
    needs.selectors().iter().filter(about).map(|selector| &selector.condition)
}

fn sorted(mut nodes: Vec<NodeId>) -> Vec<NodeId> {
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Racks that meet all conditions, as bits by the numbers of their names; `None` = all.
fn allowed(needs: &Needs, racks: &Racks) -> Option<Vec<u64>> {
    let mut allowed: Option<Vec<u64>> = None;
    let words = bits::words(racks.end());
    for condition in conditions(needs, RACK_KEY) {
        let numbers = || condition.values().iter().filter_map(|value| racks.number(value));
        match condition {
            // Every node has a rack.
            Condition::Exists => {}
            Condition::DoesNotExist => return Some(vec![0; words]),
            Condition::NotIn(_) => {
                let allowed = allowed.get_or_insert_with(|| vec![u64::MAX; words]);
                numbers().for_each(|number| bits::clear(allowed, number as usize));
            }
            Condition::In(_) => {
                let mut some = vec![0; words];
                numbers().for_each(|number| bits::set(&mut some, number as usize));
                if let Some(before) = &allowed {
                    bits::keep(&mut some, before);
                }
                allowed = Some(some);
            }
        }
    }
    allowed
}
