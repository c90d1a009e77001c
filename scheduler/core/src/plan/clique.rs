//! Clique: the tightest set of sites that holds a gang — every two within a bound on the RTT, and
//! capacity enough together.
//!
//! A binary search on the bound; for one bound, branch and bound over bit sets: sites that cannot
//! gather the demand from their neighbours fall away first, then the roomiest site is either in
//! or out, cut by the sum and by a greedy colouring of what is left.
//! **Invariant:** what is returned is a clique that covers the demand; running out of steps may
//! cost tightness or the answer, and is told apart from "there is none".

use super::Steps;
use super::field::{Amounts, covers};
use crate::view::Net;

/// Steps to decide whether the wanted bound can be kept at all: some 100 ms at worst.
const STEPS_TO_DECIDE: u64 = 30_000;
/// Steps to find a tighter set below a bound that is known to do: only quality hangs on them.
const STEPS_TO_TIGHTEN: u64 = 1_000;
/// A tighter set is looked for until it could be better by less than one part in so many.
const TIGHTER_BY: u32 = 32;
/// Bounds left undecided before the search for a tighter set ends: below lie the hard ones.
const UNDECIDED_MAX: u32 = 2;
/// What one step is worth in the planner's budget.
const STEP_COST: u64 = 100;
const WORD_BITS: usize = 64;

/// A site that may take part.
#[derive(Clone, Debug)]
pub(super) struct Vertex {
    pub(super) site: u16,
    /// RTT in microseconds to the farthest member that stays; 0 without such members.
    pub(super) reach: u32,
    pub(super) have: Amounts,
}

/// What a search found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Sites by rising id and the largest RTT among them (and to members that stay).
    Sites(Vec<u16>, u32),
    None,
    /// Steps ran out before either was certain.
    Unknown,
}

/// The set of sites with the smallest largest RTT, at most `bound_us`, that covers the demand.
pub(super) fn tightest(
    net: &Net,
    vertices: &[Vertex],
    demand: &[u64],
    bound_us: u32,
    steps: &mut Steps,
) -> Found {
    let search = Search::new(net, vertices, demand);
    let Some(mut low) = search.radii.iter().copied().min().filter(|&least| least <= bound_us)
    else {
        return Found::None;
    };
    let mut best = match search.within(bound_us, STEPS_TO_DECIDE, steps) {
        Found::Sites(sites, rtt) => (sites, rtt),
        other => return other,
    };
    let mut undecided = 0;
    while low + best.1 / TIGHTER_BY < best.1 && undecided < UNDECIDED_MAX && !steps.is_spent() {
        let middle = low + (best.1 - low) / 2;
        match search.within(middle, STEPS_TO_TIGHTEN, steps) {
            Found::Sites(sites, rtt) => best = (sites, rtt),
            Found::None => low = middle + 1,
            // Only makes the result less tight: it still covers the demand.
            Found::Unknown => {
                undecided += 1;
                low = middle + 1;
            }
        }
    }
    Found::Sites(best.0, best.1)
}

/// Any set of sites within the bound that covers the demand.
pub(super) fn within(
    net: &Net,
    vertices: &[Vertex],
    demand: &[u64],
    bound_us: u32,
    steps: &mut Steps,
) -> Found {
    Search::new(net, vertices, demand).within(bound_us, STEPS_TO_DECIDE, steps)
}

struct Search<'a> {
    net: &'a Net,
    vertices: &'a [Vertex],
    demand: &'a [u64],
    /// Vertex of each site.
    at: Vec<Option<usize>>,
    /// Per vertex: the smallest bound under which it and its neighbours cover the demand.
    radii: Vec<u32>,
}

impl<'a> Search<'a> {
    fn new(net: &'a Net, vertices: &'a [Vertex], demand: &'a [u64]) -> Self {
        let end = vertices.iter().map(|vertex| usize::from(vertex.site) + 1).max().unwrap_or(0);
        let mut at = vec![None; end];
        for (number, vertex) in vertices.iter().enumerate() {
            at[usize::from(vertex.site)] = Some(number);
        }
        let mut search = Self { net, vertices, demand, at, radii: Vec::new() };
        search.radii = (0..vertices.len()).map(|vertex| search.radius(vertex)).collect();
        search
    }

    fn neighbours(&self, vertex: usize) -> impl Iterator<Item = (u32, usize)> {
        let near = self.net.near(self.vertices[vertex].site).iter();
        near.filter_map(|&(rtt, site)| {
            let other = self.at.get(usize::from(site)).copied().flatten()?;
            Some((rtt.max(self.vertices[other].reach), other))
        })
    }

    fn radius(&self, vertex: usize) -> u32 {
        let centre = &self.vertices[vertex];
        let mut sum = centre.have.clone();
        let mut radius = centre.reach;
        if covers(&sum, self.demand) {
            return radius;
        }
        // Already by rising RTT, unless members that stay are far from some.
        let mut around: Vec<(u32, usize)> = Vec::new();
        let by_reach = self.vertices.iter().any(|vertex| vertex.reach > 0);
        if by_reach {
            around.extend(self.neighbours(vertex));
            around.sort_unstable();
        }
        let plain = (!by_reach).then(|| self.neighbours(vertex));
        for (rtt, other) in plain.into_iter().flatten().chain(around) {
            add(&mut sum, &self.vertices[other].have);
            radius = radius.max(rtt);
            if covers(&sum, self.demand) {
                return radius;
            }
        }
        u32::MAX
    }

    fn within(&self, bound: u32, steps_max: u64, steps: &mut Steps) -> Found {
        let count = self.vertices.len();
        let mut alive = Bits::new(count);
        for vertex in (0..count).filter(|&vertex| self.radii[vertex] <= bound) {
            alive.set(vertex);
        }
        let mut rows = vec![Bits::new(count); count];
        for vertex in alive.iter() {
            for (rtt, other) in self.neighbours(vertex) {
                if rtt <= bound && alive.has(other) {
                    rows[vertex].set(other);
                }
            }
        }
        steps.spend(count as u64 * STEP_COST);
        self.prune(&mut alive, &rows);
        let mut dive = Dive {
            search: self,
            rows: &rows,
            chosen: Vec::new(),
            left: steps_max.min(steps.left() / STEP_COST),
            out: false,
        };
        let before = dive.left;
        let found = dive.step(&alive, &vec![0; self.demand.len()]);
        let (chosen, out) = (std::mem::take(&mut dive.chosen), dive.out);
        steps.spend((before - dive.left) * STEP_COST);
        match (found, out) {
            (true, _) => self.report(&chosen),
            (false, true) => Found::Unknown,
            (false, false) => Found::None,
        }
    }

    /// Drops vertices that cannot gather the demand among those left, until none falls.
    fn prune(&self, alive: &mut Bits, rows: &[Bits]) {
        loop {
            let mut falling = Vec::new();
            for vertex in alive.iter() {
                let mut sum = self.vertices[vertex].have.clone();
                for other in rows[vertex].and(alive).iter() {
                    if covers(&sum, self.demand) {
                        break;
                    }
                    add(&mut sum, &self.vertices[other].have);
                }
                if !covers(&sum, self.demand) {
                    falling.push(vertex);
                }
            }
            if falling.is_empty() {
                return;
            }
            for vertex in falling {
                alive.clear(vertex);
            }
        }
    }

    fn report(&self, chosen: &[usize]) -> Found {
        let mut rtt = chosen.iter().map(|&vertex| self.vertices[vertex].reach).max().unwrap_or(0);
        for &vertex in chosen {
            for (between, other) in self.neighbours(vertex) {
                if between > rtt && chosen.contains(&other) {
                    rtt = between;
                }
            }
        }
        let mut sites: Vec<u16> = chosen.iter().map(|&vertex| self.vertices[vertex].site).collect();
        sites.sort_unstable();
        Found::Sites(sites, rtt)
    }
}

/// One branch and bound.
struct Dive<'a> {
    search: &'a Search<'a>,
    rows: &'a [Bits],
    chosen: Vec<usize>,
    left: u64,
    /// Steps ran out.
    out: bool,
}

impl Dive<'_> {
    /// Extends `chosen`, which has `sum`, by vertices of `open` until the demand is covered.
    fn step(&mut self, open: &Bits, sum: &[u64]) -> bool {
        let demand = self.search.demand;
        if covers(sum, demand) {
            return true;
        }
        let mut open = open.clone();
        loop {
            if self.left == 0 {
                self.out = true;
                return false;
            }
            self.left -= 1;
            if !self.may_reach(&open, sum) {
                return false;
            }
            let Some(vertex) = self.roomiest(&open, sum) else { return false };
            let mut with = sum.to_vec();
            add(&mut with, &self.search.vertices[vertex].have);
            self.chosen.push(vertex);
            if self.step(&open.and(&self.rows[vertex]), &with) {
                return true;
            }
            self.chosen.pop();
            if self.out {
                return false;
            }
            open.clear(vertex);
        }
    }

    /// The dimension furthest from being covered.
    fn scarcest(&self, sum: &[u64]) -> usize {
        let missing = |&at: &usize| {
            let need = self.search.demand[at];
            u128::from(need.saturating_sub(sum[at])) * 1_000_000 / u128::from(need.max(1))
        };
        (0..self.search.demand.len()).max_by_key(missing).unwrap_or(0)
    }

    fn roomiest(&self, open: &Bits, sum: &[u64]) -> Option<usize> {
        let at = self.scarcest(sum);
        let vertices = self.search.vertices;
        open.iter().max_by_key(|&vertex| (vertices[vertex].have[at], std::cmp::Reverse(vertex)))
    }

    /// Whether the open vertices could cover what is missing: by their plain sum, then by one
    /// vertex per colour class, since two vertices of a class are never both in a clique.
    fn may_reach(&self, open: &Bits, sum: &[u64]) -> bool {
        let vertices = self.search.vertices;
        let mut all = sum.to_vec();
        for vertex in open.iter() {
            add(&mut all, &vertices[vertex].have);
        }
        if !covers(&all, self.search.demand) {
            return false;
        }
        let at = self.scarcest(sum);
        let need = self.search.demand[at];
        let mut reach = sum[at];
        let mut rest = open.clone();
        while let Some(first) = rest.first() {
            if reach >= need {
                return true;
            }
            let mut class = rest.clone();
            let mut most = 0;
            let mut next = Some(first);
            while let Some(vertex) = next {
                most = most.max(vertices[vertex].have[at]);
                rest.clear(vertex);
                class.clear(vertex);
                class.remove(&self.rows[vertex]);
                next = class.first();
            }
            reach = reach.saturating_add(most);
        }
        reach >= need
    }
}

fn add(sum: &mut [u64], more: &[u64]) {
    for (total, more) in sum.iter_mut().zip(more) {
        *total = total.saturating_add(*more);
    }
}

/// A set of vertices.
#[derive(Clone, Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(WORD_BITS)])
    }

    fn set(&mut self, at: usize) {
        self.0[at / WORD_BITS] |= 1 << (at % WORD_BITS);
    }

    fn clear(&mut self, at: usize) {
        self.0[at / WORD_BITS] &= !(1 << (at % WORD_BITS));
    }

    fn has(&self, at: usize) -> bool {
        self.0[at / WORD_BITS] & (1 << (at % WORD_BITS)) != 0
    }

    fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    fn remove(&mut self, other: &Self) {
        for (word, gone) in self.0.iter_mut().zip(&other.0) {
            *word &= !gone;
        }
    }

    fn first(&self) -> Option<usize> {
        let (at, word) = self.0.iter().enumerate().find(|(_, word)| **word != 0)?;
        Some(at * WORD_BITS + word.trailing_zeros() as usize)
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().enumerate().flat_map(|(at, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    at * WORD_BITS + bit
                })
            })
        })
    }
}
