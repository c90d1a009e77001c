//! Net: for every site the others by rising RTT, so that what lies within a bound is a prefix.
//!
//! **Invariant:** follows from the table of sites alone; unknown RTTs are left out.

use crate::topology::Sites;

/// Neighbours of every site. Four bytes of RTT and two of number for each known pair and direction:
/// half a megabyte for 300 sites.
#[derive(Clone, Debug, Default)]
pub(crate) struct Net {
    near: Vec<Vec<(u32, u16)>>,
}

impl Net {
    pub(crate) fn new(sites: &Sites) -> Self {
        let mut near: Vec<Vec<(u32, u16)>> = vec![Vec::new(); sites.len()];
        for (a, b, rtt) in sites.rtts().filter(|(a, b, _)| a != b) {
            for (from, to) in [(a, b), (b, a)] {
                if let Some(list) = near.get_mut(usize::from(from.0)) {
                    list.push((rtt.0, to.0));
                }
            }
        }
        for list in &mut near {
            list.sort_unstable();
        }
        Self { near }
    }

    /// The other sites with a known RTT in microseconds to this one, nearest first.
    pub(crate) fn near(&self, site: u16) -> &[(u32, u16)] {
        self.near.get(usize::from(site)).map_or(&[], Vec::as_slice)
    }
}
