//! Racks: a number for each rack that has nodes.
//!
//! **Invariant:** two nodes have one number exactly if they are in one rack of one site; a number is
//! given again only when the rack has no node left.

use super::pages::Pages;
use crate::id::{Name, SiteId};
use crate::node::Node;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Numbers of racks. Copies share the names until a rack comes or goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Racks {
    numbers: Arc<BTreeMap<(SiteId, Name), u32>>,
    /// Nodes by number of their rack.
    nodes: Pages<u32>,
    unused: Vec<u32>,
}

impl Racks {
    /// One more node is there; gives the number of its rack.
    pub(super) fn enter(&mut self, node: &Node) -> u32 {
        let key = (node.site, node.place.rack.clone());
        let number = self.numbers.get(&key).copied().unwrap_or_else(|| {
            let new = |pages: &mut Pages<u32>| u32::try_from(pages.push(0)).unwrap_or(u32::MAX);
            let number = self.unused.pop().unwrap_or_else(|| new(&mut self.nodes));
            Arc::make_mut(&mut self.numbers).insert(key, number);
            number
        });
        if let Some(nodes) = self.nodes.get_mut(number as usize) {
            *nodes += 1;
        }
        number
    }

    /// A node, whose rack has this number, is gone.
    pub(super) fn leave(&mut self, node: &Node, number: u32) {
        let Some(nodes) = self.nodes.get_mut(number as usize) else { return };
        *nodes -= 1;
        if *nodes == 0 {
            Arc::make_mut(&mut self.numbers).remove(&(node.site, node.place.rack.clone()));
            self.unused.push(number);
        }
    }

    /// One past the largest number.
    pub(super) fn end(&self) -> usize {
        self.nodes.len()
    }

    /// Memory held, in bytes, the tree by estimate.
    pub(super) fn bytes(&self) -> usize {
        self.numbers.len() * size_of::<((SiteId, Name), u32)>() + self.nodes.bytes()
    }
}
