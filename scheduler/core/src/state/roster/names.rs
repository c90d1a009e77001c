//! Names: which nodes bear a name, and numbers for the names of racks.
//!
//! Names of machines begin alike, so both are found by the names' hashes, which touches no other
//! text. **Invariant:** the numbers of two racks are equal exactly if their names are.

use crate::id::{Name, NodeId, SupplierId};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Enough of a hash to keep apart the many suppliers who call a machine alike.
fn short_hash(supplier: &SupplierId) -> u32 {
    let [a, b, c, d, ..] = hash(supplier.0.as_str()).to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// Nodes by their names, of which every supplier has its own.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Names(BTreeMap<(u64, u32, NodeId), Name>);

impl Names {
    pub(super) fn enter(&mut self, supplier: &SupplierId, name: &Name, node: NodeId) {
        self.0.insert((hash(name.as_str()), short_hash(supplier), node), name.clone());
    }

    pub(super) fn leave(&mut self, supplier: &SupplierId, name: &Name, node: NodeId) {
        self.0.remove(&(hash(name.as_str()), short_hash(supplier), node));
    }

    /// Nodes that bear the name, of whatever supplier.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = NodeId> {
        self.range(name, 0, u32::MAX)
    }

    /// Nodes that bear the name, of this supplier and hardly ever of another.
    pub(super) fn of(&self, supplier: &SupplierId, name: &str) -> impl Iterator<Item = NodeId> {
        let supplier = short_hash(supplier);
        self.range(name, supplier, supplier)
    }

    fn range(&self, name: &str, first: u32, last: u32) -> impl Iterator<Item = NodeId> {
        let hash = hash(name);
        // Without an upper bound in the tree, which would be searched for as well.
        let rest = self.0.range((hash, first, NodeId(0))..);
        let alike = rest.take_while(move |((found, by, _), _)| *found == hash && *by <= last);
        alike.filter(move |(_, borne)| borne.as_str() == name).map(|((_, _, node), _)| *node)
    }
}

/// A name of racks.
#[derive(Debug)]
struct Borne {
    name: Name,
    /// Nodes in racks of the name.
    count: u32,
}

/// Names of racks, each with a number for as long as some node's rack bears it.
#[derive(Debug, Default)]
pub(super) struct Racks {
    /// By hash and number.
    borne: BTreeMap<(u64, u32), Borne>,
    /// Numbers out of use.
    free: Vec<u32>,
}

impl Racks {
    /// One more node is in a rack of the name; gives the name's number.
    pub(super) fn enter(&mut self, name: &Name) -> u32 {
        let number = self.number(name.as_str()).unwrap_or_else(|| {
            let next = u32::try_from(self.end()).unwrap_or(u32::MAX);
            self.free.pop().unwrap_or(next)
        });
        let fresh = || Borne { name: name.clone(), count: 0 };
        self.borne.entry((hash(name.as_str()), number)).or_insert_with(fresh).count += 1;
        number
    }

    /// One node less is in a rack of the name, which has this number.
    pub(super) fn leave(&mut self, name: &Name, number: u32) {
        let key = (hash(name.as_str()), number);
        let Some(borne) = self.borne.get_mut(&key) else { return };
        borne.count -= 1;
        if borne.count == 0 {
            self.free.push(number);
            self.borne.remove(&key);
        }
    }

    /// The number of the name, if some node's rack bears it.
    pub(super) fn number(&self, name: &str) -> Option<u32> {
        let hash = hash(name);
        let mut alike = self.borne.range((hash, 0)..).take_while(|((found, _), _)| *found == hash);
        alike.find(|(_, borne)| borne.name.as_str() == name).map(|((_, number), _)| *number)
    }

    /// One past the largest number.
    pub(super) fn end(&self) -> usize {
        self.borne.len() + self.free.len()
    }
    /// Names that racks bear.
    pub(super) fn len(&self) -> usize {
        self.borne.len()
    }

    /// By number of a name here, its number there if as many nodes are in racks of the name.
    pub(super) fn twins(&self, there: &Self) -> Vec<Option<u32>> {
        let mut twins = vec![None; self.end()];
        for (&(_, number), borne) in &self.borne {
            let twin = there.number(borne.name.as_str()).filter(|&twin| {
                let key = (hash(borne.name.as_str()), twin);
                there.borne.get(&key).is_some_and(|other| other.count == borne.count)
            });
            twins.get_mut(number as usize).into_iter().for_each(|place| *place = twin);
        }
        twins
    }
}
