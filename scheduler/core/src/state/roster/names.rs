//! Names: numbers for names that nodes bear, each in use for as long as some node bears it.
//!
//! **Invariant:** two nodes have one number exactly if they have one name.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// A name behind its hash: names of machines begin alike, and comparing hashes touches no text.
type Hashed = (u64, Arc<str>);

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug)]
struct Borne {
    number: u32,
    /// Nodes that bear the name.
    count: u32,
}

#[derive(Debug, Default)]
pub(super) struct Names {
    borne: BTreeMap<Hashed, Borne>,
    /// Numbers out of use.
    free: Vec<u32>,
}

impl Names {
    /// One more node bears the name; gives the name's number.
    pub(super) fn enter(&mut self, name: &str) -> u32 {
        let next = u32::try_from(self.borne.len() + self.free.len()).unwrap_or(u32::MAX);
        let free = &mut self.free;
        let fresh = || Borne { number: free.pop().unwrap_or(next), count: 0 };
        let borne = self.borne.entry((hash(name), name.into())).or_insert_with(fresh);
        borne.count += 1;
        borne.number
    }

    /// One node less bears the name.
    pub(super) fn leave(&mut self, name: &str) {
        let key = (hash(name), name.into());
        let Some(borne) = self.borne.get_mut(&key) else { return };
        borne.count -= 1;
        if borne.count == 0 {
            self.free.push(borne.number);
            self.borne.remove(&key);
        }
    }

    /// Numbers of those among the names that some node bears.
    pub(super) fn of<'a>(&'a self, names: &'a [Arc<str>]) -> impl Iterator<Item = u32> {
        names.iter().filter_map(|name| Some(self.borne.get(&(hash(name), name.clone()))?.number))
    }

    /// One past the largest number.
    pub(super) fn end(&self) -> usize {
        self.borne.len() + self.free.len()
    }
}

/// Equal if as many nodes bear the same names, whatever the numbers.
impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        let pairs = self.borne.iter().zip(&other.borne);
        self.borne.len() == other.borne.len()
            && pairs.into_iter().all(|((a, x), (b, y))| a == b && x.count == y.count)
    }
}
