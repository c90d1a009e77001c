//! Net: the RTTs of all pairs of sites side by side, and for every site the others by rising RTT.
//!
//! What a choice of sites needs of the table and what does not hang on the request: made once for
//! each version of the table.
//! **Invariant:** follows from the table of sites alone.

use super::Sites;
use crate::id::SiteId;

/// Stands for "not known, so not near".
pub const FAR: u32 = u32::MAX;

/// RTTs of every pair. Ten bytes for each ordered pair: a megabyte for 300 sites.
#[derive(Clone, Debug, Default)]
pub struct Net {
    len: usize,
    /// Row by row, in microseconds: what bounds are held against; [`FAR`] where unknown. On the
    /// diagonal the RTT inside the site.
    high: Vec<u32>,
    /// As `high`, but the usual RTT, which objectives go by. Empty where that is the same.
    median: Vec<u32>,
    /// Row by row: all sites by rising median, the site itself among them, the unknown last.
    order: Vec<u16>,
}

impl Net {
    pub fn new(sites: &Sites) -> Self {
        let len = sites.len();
        let mut net = Self {
            len,
            high: vec![FAR; len * len],
            median: Vec::new(),
            order: Vec::with_capacity(len * len),
        };
        let mut median = vec![FAR; len * len];
        for (a, _) in sites.iter() {
            for b in (0..=a.0).map(SiteId) {
                let Some(rtt) = sites.spread(a, b) else { continue };
                for (x, y) in [(a, b), (b, a)] {
                    let at = usize::from(x.0) * len + usize::from(y.0);
                    if let (Some(high), Some(usual)) = (net.high.get_mut(at), median.get_mut(at)) {
                        *high = rtt.high.0.min(FAR - 1);
                        *usual = rtt.median.0.min(FAR - 1);
                    }
                }
            }
        }
        for row in median.chunks_exact(len.max(1)) {
            let mut near: Vec<(u32, u16)> = (0u16..).zip(row).map(|(to, &rtt)| (rtt, to)).collect();
            near.sort_unstable();
            net.order.extend(near.into_iter().map(|(_, to)| to));
        }
        if median != net.high {
            net.median = median;
        }
        net
    }

    /// Number of sites.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What a bound on the RTT of the pair is held against, in microseconds; [`FAR`] if unknown.
    pub fn high(&self, a: u16, b: u16) -> u32 {
        self.high_row(a).get(usize::from(b)).copied().unwrap_or(FAR)
    }

    /// The usual RTT of the pair in microseconds; [`FAR`] if unknown.
    pub fn median(&self, a: u16, b: u16) -> u32 {
        self.median_row(a).get(usize::from(b)).copied().unwrap_or(FAR)
    }

    /// High RTTs from this site to all, by site id.
    pub fn high_row(&self, site: u16) -> &[u32] {
        self.row(&self.high, site)
    }

    /// Median RTTs from this site to all, by site id.
    pub fn median_row(&self, site: u16) -> &[u32] {
        self.row(if self.median.is_empty() { &self.high } else { &self.median }, site)
    }

    /// All sites, this one among them, by rising median RTT; those of unknown RTT last.
    pub fn order(&self, site: u16) -> &[u16] {
        self.row(&self.order, site)
    }

    fn row<'a, T>(&self, table: &'a [T], site: u16) -> &'a [T] {
        let from = usize::from(site) * self.len;
        table.get(from..from + self.len).unwrap_or(&[])
    }
}
