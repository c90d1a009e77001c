//! One choice of sites, laid out for the search: the sites that may take part, the roomiest first,
//! what each pair of them costs, and what is needed.
//!
//! **Invariant:** a pair that breaks the hard bound, or of which nothing is known, costs [`FAR`]
//! and is never chosen together; nothing here assumes that costs keep the triangle inequality.
//! Sums of what vertices have do not overflow.

use super::{Question, Vertex, cut, telling};
use crate::bits;
use crate::topology::FAR;
use std::cell::OnceCell;

/// Most that can be needed: more than all sites that there can be hold, and few enough that what
/// they have never overflows a sum.
const NEED_MAX: u64 = 1 << 47;

/// Which RTT is looked for to be small, among pairs within the bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cost {
    /// The usual one.
    Median,
    /// The one against which bounds are held.
    High,
}

#[derive(Clone, Debug)]
pub(super) struct Problem<'a> {
    question: &'a Question<'a>,
    by: Cost,
    cost_max: u32,
    /// Site of each vertex.
    pub(super) sites: Vec<u16>,
    /// Per vertex: largest cost towards members that stay, and inside the site.
    pub(super) reach: Vec<u32>,
    /// Per vertex: it takes one member at most.
    lone: Vec<bool>,
    /// Per pair of vertices, row by row; laid out when it is first asked for, since a million pairs
    /// take longer than most answers.
    costs: OnceCell<Vec<u32>>,
    /// Per vertex and dimension that is needed at all; never more than is needed.
    have: Vec<u64>,
    pub(super) need: Vec<u64>,
    /// Dimensions that say whether all are covered.
    pub(super) telling: Vec<usize>,
    /// The scarcest dimension, by which vertices are ordered.
    pub(super) lead: usize,
    /// The same dimension in the question's own numbering.
    pub(super) dimension: usize,
    pub(super) words: usize,
}

impl<'a> Problem<'a> {
    /// What can be part of a choice of at most this cost.
    pub(super) fn new(question: &'a Question<'a>, cost: Cost, cost_max: u32) -> Self {
        let wanted: Vec<usize> =
            (0..question.need.len()).filter(|&at| question.need[at] > 0).collect();
        let need: Vec<u64> = wanted.iter().map(|&at| question.need[at]).collect();
        let telling = telling::dimensions(question);
        let telling = (0..wanted.len()).filter(|&at| telling.contains(&wanted[at])).collect();
        let amount = |vertex: &Vertex, at: usize| vertex.have.get(at).copied().unwrap_or(0);
        let lead = scarcest(&wanted, &need, |at| {
            let vertices = question.vertices.iter();
            vertices.fold(0, |sum, vertex| amount(vertex, at).saturating_add(sum))
        });
        let lead_at = wanted.get(lead).copied().unwrap_or(0);
        let mut members: Vec<(&Vertex, u32)> = cut::able(question, cost, cost_max, lead_at)
            .into_iter()
            .filter(|vertex| wanted.iter().any(|&at| amount(vertex, at) > 0))
            .filter(|_| need.iter().all(|&need| need <= NEED_MAX))
            .filter_map(|vertex| Some((vertex, cut::reach(question, vertex, cost)?)))
            .filter(|&(_, reach)| reach <= cost_max)
            .collect();
        members
            .sort_by_key(|(vertex, _)| (std::cmp::Reverse(amount(vertex, lead_at)), vertex.site));
        let sites: Vec<u16> = members.iter().map(|(vertex, _)| vertex.site).collect();
        let have = members.iter().flat_map(|(vertex, _)| {
            wanted.iter().zip(&need).map(|(&at, &need)| amount(vertex, at).min(need))
        });
        let have = have.collect();
        Self {
            question,
            by: cost,
            cost_max,
            have,
            reach: members.iter().map(|&(_, reach)| reach).collect(),
            lone: members.iter().map(|(vertex, _)| vertex.lone).collect(),
            costs: OnceCell::new(),
            words: bits::words(sites.len()),
            sites,
            need,
            telling,
            lead,
            dimension: lead_at,
        }
    }

    /// Number of vertices.
    pub(super) fn len(&self) -> usize {
        self.sites.len()
    }

    pub(super) fn cost(&self, a: usize, b: usize) -> u32 {
        self.laid_out()[a * self.len() + b]
    }

    pub(super) fn costs(&self, vertex: usize) -> &[u32] {
        &self.laid_out()[vertex * self.len()..(vertex + 1) * self.len()]
    }

    fn laid_out(&self) -> &[u32] {
        self.costs.get_or_init(|| {
            let count = self.len();
            let (mut costs, mut by_site) = (vec![FAR; count * count], Vec::new());
            for vertex in 0..count {
                let row = &mut costs[vertex * count..(vertex + 1) * count];
                self.price(vertex, row, &mut by_site);
            }
            costs
        })
    }

    /// Writes what the vertex costs with each; for itself what its site costs inside. What
    /// `by_site` holds does not matter.
    fn price(&self, vertex: usize, costs: &mut [u32], by_site: &mut Vec<u32>) {
        // First all sites as they lie, many at a time; then those of the vertices are picked.
        let (rtts, most) = self.by_site(vertex, by_site);
        for (cost, &site) in costs.iter_mut().zip(&self.sites) {
            let rtt = rtts.get(usize::from(site)).copied().unwrap_or(FAR);
            *cost = if rtt <= most { rtt } else { FAR };
        }
        // A lone member is no distance from itself.
        if self.lone[vertex] {
            costs[vertex] = 0;
        }
    }

    /// What the vertex's site costs with each site, as sites are numbered, and up to where it
    /// counts: more is [`FAR`]. What `by_site` holds does not matter.
    pub(super) fn by_site<'b>(
        &'b self,
        vertex: usize,
        by_site: &'b mut Vec<u32>,
    ) -> (&'b [u32], u32) {
        let Question { net, bound_us, .. } = self.question;
        let bound = bound_us.unwrap_or(FAR - 1).min(FAR - 1);
        let most = self.cost_max.min(FAR - 1);
        let high = net.high_row(self.sites[vertex]);
        match self.by {
            Cost::High => (high, most.min(bound)),
            Cost::Median => {
                let usual = net.median_row(self.sites[vertex]);
                let price = |(&high, &usual): (&u32, &u32)| if high <= bound { usual } else { FAR };
                by_site.clear();
                by_site.extend(high.iter().zip(usual).map(price));
                (by_site, most)
            }
        }
    }

    /// One more than the largest number of a site.
    pub(super) fn sites_end(&self) -> usize {
        self.sites.iter().map(|&site| usize::from(site) + 1).max().unwrap_or(0)
    }

    /// What the vertices of the set have, each dimension side by side; `None` where sums of it need
    /// more than 32 bits.
    pub(super) fn rooms(&self, set: &[u64]) -> Option<Vec<u32>> {
        let (count, dims) = (self.len(), self.need.len());
        let mut rooms = vec![0u32; count * dims];
        for dimension in 0..dims {
            let mut all = 0u32;
            for vertex in bits::iter(set) {
                let room = u32::try_from(self.have(vertex)[dimension]).ok()?;
                all = all.checked_add(room)?;
                rooms[dimension * count + vertex] = room;
            }
        }
        Some(rooms)
    }

    pub(super) fn have(&self, vertex: usize) -> &[u64] {
        let dims = self.need.len();
        &self.have[vertex * dims..(vertex + 1) * dims]
    }

    /// Adds what the vertex has.
    pub(super) fn add(&self, sum: &mut [u64], vertex: usize) {
        for (total, more) in sum.iter_mut().zip(self.have(vertex)) {
            *total += more;
        }
    }

    /// Takes off what the vertex has.
    pub(super) fn take(&self, sum: &mut [u64], vertex: usize) {
        for (total, gone) in sum.iter_mut().zip(self.have(vertex)) {
            *total -= gone;
        }
    }

    pub(super) fn nothing(&self) -> Vec<u64> {
        vec![0; self.need.len()]
    }

    pub(super) fn covers(&self, sum: &[u64]) -> bool {
        sum.iter().zip(&self.need).all(|(have, need)| have >= need)
    }

    /// The dimension furthest from being covered.
    pub(super) fn scarcest(&self, sum: &[u64]) -> usize {
        let missing = |&at: &usize| {
            let need = self.need[at];
            u128::from(need.saturating_sub(sum[at])) * 1_000_000 / u128::from(need.max(1))
        };
        (0..self.need.len()).max_by_key(missing).unwrap_or(0)
    }

    /// Largest cost among the vertices and towards members that stay.
    pub(super) fn diameter(&self, vertices: &[usize]) -> u32 {
        let mut widest = vertices.iter().map(|&vertex| self.reach[vertex]).max().unwrap_or(0);
        for (at, &a) in vertices.iter().enumerate() {
            let costs = self.costs(a);
            let far = vertices[at + 1..].iter().map(|&b| costs[b]).max().unwrap_or(0);
            widest = widest.max(far);
        }
        widest
    }

    /// Without what is not needed, the least first: fewer sites are never farther apart.
    pub(super) fn lean(&self, mut vertices: Vec<usize>) -> Vec<usize> {
        vertices.sort_unstable();
        let mut sum = self.nothing();
        vertices.iter().for_each(|&vertex| self.add(&mut sum, vertex));
        let mut at = vertices.len();
        while at > 0 && vertices.len() > 1 {
            at -= 1;
            let without = sum.iter().zip(self.have(vertices[at])).map(|(sum, have)| sum - have);
            if without.zip(&self.need).all(|(have, need)| have >= *need) {
                self.take(&mut sum, vertices.remove(at));
            }
        }
        vertices
    }

    /// The vertices of these sites.
    pub(super) fn vertices_of(&self, sites: &[u16]) -> Vec<usize> {
        let at = |site: &u16| self.sites.iter().position(|other| other == site);
        sites.iter().filter_map(at).collect()
    }

    /// Sites of the vertices by rising id.
    pub(super) fn sites_of(&self, vertices: &[usize]) -> Vec<u16> {
        let mut sites: Vec<u16> = vertices.iter().map(|&vertex| self.sites[vertex]).collect();
        sites.sort_unstable();
        sites
    }
}

/// Index into `need` of the dimension of which the fleet has least beyond the need.
fn scarcest(wanted: &[usize], need: &[u64], sum: impl Fn(usize) -> u64) -> usize {
    let slack = |&at: &usize| u128::from(sum(wanted[at])) * 1_000 / u128::from(need[at].max(1));
    (0..wanted.len()).min_by_key(slack).unwrap_or(0)
}

/// What the pair costs; [`FAR`] over the bound.
pub(super) fn pair(question: &Question<'_>, a: u16, b: u16, cost: Cost) -> u32 {
    let high = question.net.high(a, b);
    if high > question.bound_us.unwrap_or(FAR - 1) {
        return FAR;
    }
    match cost {
        Cost::High => high,
        Cost::Median => question.net.median(a, b),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::Made;
    use super::*;

    #[test]
    fn pairs_are_priced_alike_side_by_side_and_one_by_one() {
        let (mut bound, mut far) = (0, 0);
        for seed in 0..100 {
            let made = Made::of_seed(seed);
            let question = made.question();
            for cost in [Cost::High, Cost::Median] {
                for cost_max in [FAR, question.bound_us.unwrap_or(FAR) / 2] {
                    let problem = Problem::new(&question, cost, cost_max);
                    let all = (0..problem.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
                    for (a, b) in all {
                        let (one, other) = (problem.sites[a], problem.sites[b]);
                        let alone = pair(&question, one, other, cost);
                        let alone = if alone <= cost_max { alone } else { FAR };
                        assert_eq!(problem.cost(a, b), alone, "seed {seed}");
                        far += u32::from(alone == FAR);
                        bound +=
                            u32::from(Some(question.net.high(one, other)) == question.bound_us);
                    }
                }
            }
        }
        assert!(bound > 100 && far > 1_000, "{bound} just within the bound, {far} too far");
    }
}
