//! Dive: exact search for a covering clique, by branch and bound under a limit of work.
//!
//! Vertices are coloured greedily so that no two of a colour are neighbours; a clique holds at
//! most one of each, so while the colours seen so far cannot bring what is missing, at least one
//! vertex of the others must be in (the bound of Tomita and Seki's and San Segundo's searches for
//! maximum cliques, with weights as in Kumlander's). The colours of a set are colours of every part
//! of it, too: most branches end by those of the set they come from, before they are coloured anew.
//! **Invariant:** what is found is a clique that covers; "none" is a proof, "aborted" is not.

use super::graph::Graph;
use super::problem::Problem;
use crate::bits;
use crate::topology::SITES_MAX;

/// Words for a set of all sites that there can be.
const WORDS_MAX: usize = SITES_MAX.div_ceil(64);
/// Colours are numbered up to this one, which stands for all further ones: they are marked in one
/// word.
const COLOUR_LAST: u8 = 63;

/// What a search ended with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Clique(Vec<usize>),
    None,
    /// The work allowed was done before either was certain.
    Aborted,
}

/// Searches with at most `work` steps of the planner's budget; takes off what was used.
pub(super) fn clique(problem: &Problem<'_>, graph: &Graph, work: &mut u64) -> Found {
    // Passes over sets whose size is known when this is built take half the time.
    match problem.words {
        0..=4 => Dive::<4>::clique(problem, graph, work),
        5..=8 => Dive::<8>::clique(problem, graph, work),
        9..=16 => Dive::<16>::clique(problem, graph, work),
        _ => Dive::<WORDS_MAX>::clique(problem, graph, work),
    }
}

struct Dive<'a, const WORDS: usize> {
    problem: &'a Problem<'a>,
    /// Per vertex: those with which it may stand, itself among them.
    rows: Vec<[u64; WORDS]>,
    /// What vertices have, each dimension side by side.
    have: Vec<u64>,
    chosen: Vec<usize>,
    left: u64,
    is_out: bool,
    /// Branches that have ended, whose memory is used again.
    ended: Vec<Branch<WORDS>>,
}

/// A clique that is to be extended.
struct Branch<const WORDS: usize> {
    /// Those near all that are chosen.
    open: [u64; WORDS],
    /// What is chosen has together.
    sum: Vec<u64>,
    /// Of which at least one is in.
    some: [u64; WORDS],
    /// Per vertex that is open: its colour; all after some have the last.
    colours: Vec<u8>,
    /// The dimension in which colours were held against what is missing.
    at: usize,
}

impl<'a, const WORDS: usize> Dive<'a, WORDS> {
    fn clique(problem: &'a Problem<'a>, graph: &Graph, work: &mut u64) -> Found {
        let mut dive = Self::new(problem, graph, *work);
        let mut root = dive.spare();
        root.open[..problem.words].copy_from_slice(&graph.alive);
        let found = dive.step(root);
        *work = dive.left;
        match (found, dive.is_out) {
            (true, _) => Found::Clique(dive.chosen),
            (false, true) => Found::Aborted,
            (false, false) => Found::None,
        }
    }

    fn new(problem: &'a Problem<'a>, graph: &Graph, work: u64) -> Self {
        let count = problem.len();
        let row = |vertex: usize| {
            let mut row = [0; WORDS];
            row[..problem.words].copy_from_slice(graph.row(vertex));
            bits::set(&mut row, vertex);
            row
        };
        let side = |at: usize| (0..count).map(move |vertex| problem.have(vertex)[at]);
        Self {
            problem,
            rows: (0..count).map(row).collect(),
            have: (0..problem.need.len()).flat_map(side).collect(),
            chosen: Vec::new(),
            left: work,
            is_out: false,
            ended: Vec::new(),
        }
    }

    fn spare(&mut self) -> Branch<WORDS> {
        self.ended.pop().unwrap_or_else(|| Branch {
            open: [0; WORDS],
            sum: self.problem.nothing(),
            some: [0; WORDS],
            colours: vec![0; self.problem.len()],
            at: 0,
        })
    }

    fn spend(&mut self, steps: u64) {
        self.is_out |= self.left < steps;
        self.left = self.left.saturating_sub(steps);
    }

    /// Extends `chosen` until the need is covered.
    fn step(&mut self, mut branch: Branch<WORDS>) -> bool {
        if self.problem.covers(&branch.sum) {
            return true;
        }
        if !self.colour(&mut branch) {
            self.ended.push(branch);
            return false;
        }
        let mut next = self.spare();
        for vertex in bits::iter(&branch.some) {
            if self.can_cover(&branch, vertex, &mut next.open) {
                next.sum.copy_from_slice(&branch.sum);
                self.problem.add(&mut next.sum, vertex);
                self.chosen.push(vertex);
                if self.step(next) {
                    return true;
                }
                self.chosen.pop();
                next = self.spare();
            }
            if self.is_out {
                return false;
            }
            bits::clear(&mut branch.open, vertex);
        }
        self.ended.extend([branch, next]);
        false
    }

    /// What vertices have of what a branch goes by.
    fn have(&self, at: usize) -> &[u64] {
        let count = self.problem.len();
        &self.have[at * count..(at + 1) * count]
    }

    /// Whether those near the vertex, which are written down, might cover with it by their colours.
    fn can_cover(
        &mut self,
        branch: &Branch<WORDS>,
        vertex: usize,
        near: &mut [u64; WORDS],
    ) -> bool {
        *near = branch.open;
        bits::keep(near, &self.rows[vertex]);
        bits::clear(near, vertex);
        if branch.at != self.problem.lead {
            return true;
        }
        let have = self.have(branch.at);
        let missing = self.problem.need[branch.at].saturating_sub(branch.sum[branch.at]);
        let (mut brings, mut seen, mut colours) = (have[vertex], 0, 0u64);
        for other in bits::iter(near) {
            if brings >= missing {
                break;
            }
            seen += 1;
            // The first of a colour has most. A branch here would mostly be guessed wrongly.
            let colour = u32::from(branch.colours[other]);
            brings += have[other] * (!colours >> colour & 1);
            colours |= (1 << colour) & !(1 << COLOUR_LAST);
        }
        self.spend(2 + WORDS as u64 / 4 + seen / 2);
        brings >= missing
    }

    /// Colours what is open, and finds some of which every covering clique within it holds at least
    /// one; `false` if there is no such clique.
    fn colour(&mut self, branch: &mut Branch<WORDS>) -> bool {
        let problem = self.problem;
        let mut all = branch.sum.clone();
        for vertex in bits::iter(&branch.open) {
            problem.add(&mut all, vertex);
        }
        if !problem.covers(&all) {
            self.spend(2 + bits::count(&branch.open) as u64 / 4);
            return false;
        }
        branch.at = problem.scarcest(&branch.sum);
        branch.some = [0; WORDS];
        let have = self.have(branch.at);
        let mut missing = problem.need[branch.at].saturating_sub(branch.sum[branch.at]);
        let (mut is_enough, mut colour, mut seen) = (false, 0, 0);
        let mut uncoloured = branch.open;
        while let Some(first) = bits::first(&uncoloured) {
            let mut class = uncoloured;
            let (mut next, mut most) = (Some(first), 0);
            while let Some(vertex) = next {
                seen += 1;
                most = most.max(have[vertex]);
                branch.colours[vertex] = colour;
                bits::clear(&mut uncoloured, vertex);
                if is_enough || have[vertex] >= missing {
                    bits::set(&mut branch.some, vertex);
                }
                bits::remove(&mut class, &self.rows[vertex]);
                next = bits::first(&class);
            }
            // The small ones of the colour that could bring it cannot do so either.
            if most < missing {
                missing -= most;
            } else {
                is_enough = true;
            }
            colour = COLOUR_LAST.min(colour + 1);
        }
        // Each vertex costs a pass over the words.
        self.spend(4 + seen * (20 + WORDS as u64) / 10);
        is_enough && !self.is_out
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::Made;
    use super::super::problem::Cost;
    use super::super::{Objective, Question, Vertex};
    use super::*;
    use crate::fixture::entry::name;
    use crate::id::SiteId;
    use crate::node::Place;
    use crate::topology::{FAR, Measured, Net, Sites};
    use crate::unit::{RttUs, TimeMs};

    const ENOUGH: u64 = u64::MAX - 1;

    #[test]
    fn it_finds_the_same_in_sets_of_any_size() {
        let mut found = 0;
        for seed in 0..200 {
            let made = Made::of_seed(seed);
            let question = made.question();
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::open(&problem);
            let small = Dive::<4>::clique(&problem, &graph, &mut ENOUGH.clone());
            for other in [
                Dive::<8>::clique(&problem, &graph, &mut ENOUGH.clone()),
                Dive::<16>::clique(&problem, &graph, &mut ENOUGH.clone()),
                Dive::<WORDS_MAX>::clique(&problem, &graph, &mut ENOUGH.clone()),
            ] {
                assert_eq!(other, small, "seed {seed}");
            }
            found += u32::from(matches!(small, Found::Clique(_)));
        }
        assert!(found > 50, "{found} found");
    }

    /// Sites in pairs, of which each may stand with all but the other: one of each is in, the
    /// roomier one. There are more pairs than colours have numbers.
    #[test]
    fn more_colours_than_have_numbers_keep_nothing_out() {
        let (mut sites, mut rooms) = (Sites::default(), Vec::new());
        for number in 0..2 * (u16::from(COLOUR_LAST) + 20) {
            let site = name(&format!("s{number}"));
            let place = Place { region: name("r"), zone: name("z"), site, rack: name("k") };
            let id = sites.join(&place).expect("joins");
            for other in 0..number {
                let us = if other / 2 == number / 2 { 900 } else { 300 };
                let (median, high) = (RttUs(us), RttUs(us));
                let told = Measured { median, high, samples: 9, at: TimeMs(1) };
                sites.set_rtt(id, SiteId(other), told);
            }
            rooms.push(u64::from(1_000 + number));
        }
        let net = Net::new(&sites);
        let vertices: Vec<Vertex> =
            (0u16..).zip(&rooms).map(|(site, &room)| Vertex::new(site, vec![room])).collect();
        let most: u64 = rooms.chunks(2).map(|pair| pair[0].max(pair[1])).sum();
        let find = |need: u64| {
            let question = Question {
                net: &net,
                vertices: &vertices,
                need: &[need],
                fixed: &[],
                bound_us: Some(500),
                objective: Objective::Any,
            };
            let problem = Problem::new(&question, Cost::High, FAR);
            clique(&problem, &Graph::open(&problem), &mut ENOUGH.clone())
        };
        assert!(matches!(find(most), Found::Clique(_)));
        assert_eq!(find(most + 1), Found::None);
    }
}
