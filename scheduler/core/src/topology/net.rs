//! Net: the RTTs of all pairs of sites side by side, and for every site the others by rising RTT.
//!
//! What a choice of sites needs of the table and what does not hang on the request. A change of the
//! table is taken in pair by pair, and rows that it leaves alone are shared with older nets.
//! **Invariant:** follows from the table of sites alone, whatever changes it came through.

use super::Sites;
use crate::id::SiteId;
use std::sync::{Arc, OnceLock};

/// Stands for "not known, so not near".
pub const FAR: u32 = u32::MAX;

/// Changed pairs of a row up to which its order is mended; more are cheaper to sort anew.
const MENDED_MAX: usize = 8;

/// RTTs of every pair. Ten bytes for each ordered pair: a megabyte for 300 sites.
#[derive(Clone, Debug, Default)]
pub struct Net {
    rows: Vec<Arc<Row>>,
}

/// RTTs from one site to all, by site id.
#[derive(Clone, Debug, Default)]
struct Row {
    /// In microseconds: what bounds are held against; [`FAR`] where unknown. For the site itself
    /// the RTT inside it.
    high: Vec<u32>,
    /// As `high`, but the usual RTT, which objectives go by.
    median: Vec<u32>,
    /// All sites by rising median, the site itself among them, the unknown last; made when it is
    /// first asked for.
    order: OnceLock<Vec<u16>>,
}

impl Row {
    fn grow(&mut self, len: usize) {
        let new = self.high.len()..len;
        self.high.resize(len, FAR);
        self.median.resize(len, FAR);
        // What is new is unknown and comes last.
        if let Some(order) = self.order.get_mut() {
            order.extend(new.filter_map(|site| u16::try_from(site).ok()));
        }
    }

    /// Sets high and median of one pair; mends the order if that is wanted, else drops it.
    fn set(&mut self, to: u16, (high, median): (u32, u32), mends: bool) {
        let at = usize::from(to);
        if let Some(cell) = self.high.get_mut(at) {
            *cell = high;
        }
        let Some(cell) = self.median.get_mut(at) else { return };
        if std::mem::replace(cell, median) == median {
            return;
        }
        let Some(mut order) = self.order.take().filter(|_| mends) else { return };
        order.retain(|&site| site != to);
        let key = |site: u16| (self.median.get(usize::from(site)), site);
        let place = order.partition_point(|&site| key(site) < key(to));
        order.insert(place, to);
        self.order = OnceLock::from(order);
    }

    fn order(&self) -> &[u16] {
        self.order.get_or_init(|| {
            let mut near: Vec<(u32, u16)> =
                self.median.iter().zip(0u16..).map(|(&rtt, to)| (rtt, to)).collect();
            near.sort_unstable();
            near.into_iter().map(|(_, to)| to).collect()
        })
    }
}

impl Net {
    pub fn new(sites: &Sites) -> Self {
        let mut net = Self::default();
        net.update(&Sites::default(), sites);
        net
    }

    /// Takes in what has changed of the table of which this is the net; sites never go.
    pub fn update(&mut self, old: &Sites, new: &Sites) {
        let len = new.len();
        self.rows.resize_with(len, Arc::default);
        if len > old.len() {
            self.rows.iter_mut().for_each(|row| Arc::make_mut(row).grow(len));
        }
        let mut changed: Vec<Vec<u16>> = vec![Vec::new(); len];
        for (a, b) in new.changes_since(old) {
            for (from, to) in [(a, b), (b, a)].into_iter().take(if a == b { 1 } else { 2 }) {
                changed.get_mut(usize::from(from.0)).into_iter().for_each(|list| list.push(to.0));
            }
        }
        for ((row, list), from) in self.rows.iter_mut().zip(changed).zip(0u16..) {
            if list.is_empty() {
                continue;
            }
            let (row, mends) = (Arc::make_mut(row), list.len() <= MENDED_MAX);
            for to in list {
                let spread = new.spread(SiteId(from), SiteId(to));
                let known = |rtt: u32| rtt.min(FAR - 1);
                let rtt = spread.map(|rtt| (known(rtt.high.0), known(rtt.median.0)));
                row.set(to, rtt.unwrap_or((FAR, FAR)), mends);
            }
        }
    }

    /// Number of sites.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
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
        self.rows.get(usize::from(site)).map_or(&[], |row| &row.high)
    }

    /// Median RTTs from this site to all, by site id.
    pub fn median_row(&self, site: u16) -> &[u32] {
        self.rows.get(usize::from(site)).map_or(&[], |row| &row.median)
    }

    /// All sites, this one among them, by rising median RTT; those of unknown RTT last.
    pub fn order(&self, site: u16) -> &[u16] {
        self.rows.get(usize::from(site)).map_or(&[], |row| row.order())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Name;
    use crate::node::Place;
    use crate::topology::{Coordinate, Measured};
    use crate::unit::{RttUs, TimeMs};
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn join(sites: &mut Sites) {
        let name = |text: &str| Name::parse(text).expect("a name");
        let site = name(&format!("s{}", sites.len()));
        let place = Place { region: name("r"), zone: name("z"), site, rack: name("k") };
        sites.join(&place).expect("joins");
    }

    /// One change of any kind.
    fn change(sites: &mut Sites, rng: &mut StdRng) {
        let len = u16::try_from(sites.len()).expect("few");
        match rng.random_range(0..6) {
            0 => join(sites),
            1 => {
                let axes = [rng.random_range(0..90_000), rng.random_range(0..90_000), 0];
                let coordinate = Coordinate { axes, height_us: 50, error_milli: 100 };
                let some = (rng.random_range(0..4) > 0).then_some(coordinate);
                sites.set_coordinate(SiteId(rng.random_range(0..len)), some);
            }
            _ => {
                let median = RttUs(rng.random_range(1..50));
                let high = RttUs(median.0 + rng.random_range(0..3));
                let told = Measured { median, high, samples: 0, at: TimeMs(1) };
                let [a, b] = [0; 2].map(|_: u16| SiteId(rng.random_range(0..len)));
                sites.set_rtt(a, b, told);
            }
        }
    }

    #[test]
    fn a_net_that_followed_changes_is_one_made_anew() {
        for seed in 0..60 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut sites = Sites::default();
            (0..rng.random_range(1..20)).for_each(|_| join(&mut sites));
            let mut net = Net::new(&sites);
            for _ in 0..30 {
                let before = sites.clone();
                (0..rng.random_range(1..25)).for_each(|_| change(&mut sites, &mut rng));
                // Some orders are there already, others are not.
                for site in 0..u16::try_from(before.len()).expect("few") {
                    if rng.random_range(0..3) > 0 {
                        assert_eq!(net.order(site).len(), before.len());
                    }
                }
                let older = net.clone();
                net.update(&before, &sites);
                let (anew, was) = (Net::new(&sites), Net::new(&before));
                assert_eq!((anew.len(), older.len()), (net.len(), before.len()));
                for site in 0..u16::try_from(sites.len()).expect("few") {
                    assert_eq!(net.high_row(site), anew.high_row(site), "seed {seed}");
                    assert_eq!(net.median_row(site), anew.median_row(site), "seed {seed}");
                    assert_eq!(net.order(site), anew.order(site), "seed {seed}");
                    // What was handed out before does not change.
                    assert_eq!(older.order(site), was.order(site), "seed {seed}");
                    assert_eq!(older.high_row(site), was.high_row(site), "seed {seed}");
                }
            }
        }
    }

    #[test]
    fn rows_that_a_change_leaves_alone_are_shared() {
        let mut sites = Sites::default();
        (0..5).for_each(|_| join(&mut sites));
        let net = Net::new(&sites);
        let before = sites.clone();
        let told = Measured { median: RttUs(7), high: RttUs(9), samples: 0, at: TimeMs(1) };
        sites.set_rtt(SiteId(1), SiteId(3), told);
        let mut new = net.clone();
        new.update(&before, &sites);
        let shared = |at: usize| Arc::ptr_eq(&net.rows[at], &new.rows[at]);
        assert_eq!([0, 1, 2, 3, 4].map(shared), [true, false, true, false, true]);
    }
}
