//! Made-up questions for the tests of the searches.
//!
//! **Invariant:** same seed, same question.

use super::{Objective, Question, Vertex};
use crate::fixture::cities::{cities, no_geometry};
use crate::id::SiteId;
use crate::topology::{FAR, Measured, Net};
use crate::unit::{RttUs, TimeMs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a question of one or two dimensions is about.
pub(super) struct Made {
    net: Net,
    vertices: Vec<Vertex>,
    need: [u64; 2],
    bound_us: u32,
}

impl Made {
    /// Under a bound that about so many pairs keep.
    pub(super) fn new(rng: &mut StdRng, near_percent: usize) -> Self {
        let len = rng.random_range(8..40u16);
        Self::with_sites(rng, len, near_percent)
    }

    pub(super) fn with_sites(rng: &mut StdRng, len: u16, near_percent: usize) -> Self {
        let mut sites = match rng.random_range(0..2) {
            0 => cities(len.into(), rng.random()),
            _ => no_geometry(len.into(), rng.random()),
        };
        let net = Net::new(&sites);
        let mut rtts: Vec<u32> = (0..len).flat_map(|site| net.high_row(site).to_vec()).collect();
        rtts.sort_unstable();
        let bound_us = rtts[rtts.len() * near_percent / 100].min(FAR - 1);
        let mut vertices: Vec<Vertex> = (0..len)
            .map(|site| Vertex::new(site, vec![rng.random_range(0..50), rng.random_range(0..9)]))
            .collect();
        // Inside some it takes as long as the bound lets it, inside others, which are for one
        // member, longer.
        for vertex in &mut vertices {
            let inside = match rng.random_range(0..12) {
                0 => bound_us,
                1 => {
                    *vertex = Vertex::lone(vertex.site, vertex.have.clone());
                    bound_us.saturating_add(1)
                }
                _ => continue,
            };
            let (site, rtt) = (SiteId(vertex.site), RttUs(inside));
            let told = Measured { median: rtt, high: rtt, samples: 9, at: TimeMs(1) };
            sites.set_rtt(site, site, told);
        }
        let net = Net::new(&sites);
        let part = |at: usize, milli: u64| {
            vertices.iter().map(|vertex| vertex.have[at]).sum::<u64>() * milli / 1_000
        };
        let need = [part(0, rng.random_range(1..900)), part(1, rng.random_range(0..600))];
        Self { net, vertices, need, bound_us }
    }

    /// Under a bound that some part of the pairs keeps.
    pub(super) fn of_seed(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let near_percent = rng.random_range(20..100);
        Self::new(&mut rng, near_percent)
    }

    pub(super) fn question(&self) -> Question<'_> {
        Question {
            net: &self.net,
            vertices: &self.vertices,
            need: &self.need,
            fixed: &[],
            bound_us: Some(self.bound_us),
            objective: Objective::Any,
        }
    }
}
