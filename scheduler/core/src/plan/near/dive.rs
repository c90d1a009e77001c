//! Dive: exact search for a covering clique, by branch and bound under a limit of work.
//!
//! Vertices are coloured greedily so that no two of a colour are neighbours; a clique holds at
//! most one of each, so while the colours seen so far cannot bring what is missing, at least one
//! vertex of the others must be in (the bound of Tomita and Seki's and San Segundo's searches for
//! maximum cliques, with weights as in Kumlander's).
//! **Invariant:** what is found is a clique that covers; "none" is a proof, "aborted" is not.

use super::graph::Graph;
use super::problem::Problem;
use crate::bits;

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
    let mut dive = Dive { problem, graph, chosen: Vec::new(), left: *work, out: false };
    let mut open = graph.alive.clone();
    let found = dive.step(&mut open, &problem.nothing());
    *work = dive.left;
    match (found, dive.out) {
        (true, _) => Found::Clique(dive.chosen),
        (false, true) => Found::Aborted,
        (false, false) => Found::None,
    }
}

struct Dive<'a> {
    problem: &'a Problem<'a>,
    graph: &'a Graph,
    chosen: Vec<usize>,
    left: u64,
    out: bool,
}

impl Dive<'_> {
    /// Extends `chosen`, which has `sum`, by vertices of `open` until the need is covered.
    fn step(&mut self, open: &mut [u64], sum: &[u64]) -> bool {
        if self.problem.covers(sum) {
            return true;
        }
        let Some(branches) = self.branches(open, sum) else { return false };
        for vertex in bits::iter(&branches) {
            let mut with = sum.to_vec();
            self.problem.add(&mut with, vertex);
            self.chosen.push(vertex);
            let mut next = bits::and(open, self.graph.row(vertex));
            if self.step(&mut next, &with) {
                return true;
            }
            self.chosen.pop();
            if self.out {
                return false;
            }
            bits::clear(open, vertex);
        }
        false
    }

    /// Vertices of which every covering clique within `open` holds at least one, or `None` if
    /// there is no such clique.
    fn branches(&mut self, open: &[u64], sum: &[u64]) -> Option<Vec<u64>> {
        let vertices = bits::count(open) as u64;
        // Each vertex costs a pass over the words, of some four words a step.
        let cost = 4 + vertices * (2 + self.problem.words as u64 / 4);
        if self.left < cost {
            self.out = true;
            self.left = 0;
            return None;
        }
        self.left -= cost;
        let mut all = sum.to_vec();
        for vertex in bits::iter(open) {
            self.problem.add(&mut all, vertex);
        }
        if !self.problem.covers(&all) {
            return None;
        }
        let at = self.problem.scarcest(sum);
        let mut missing = self.problem.need[at] - sum[at].min(self.problem.need[at]);
        let mut rest = open.to_vec();
        let mut members = Vec::new();
        while let Some(first) = bits::first(&rest) {
            members.clear();
            let mut class = rest.clone();
            let (mut next, mut most) = (Some(first), 0);
            while let Some(vertex) = next {
                members.push(vertex);
                most = most.max(self.problem.have(vertex)[at]);
                bits::clear(&mut rest, vertex);
                bits::clear(&mut class, vertex);
                bits::remove(&mut class, self.graph.row(vertex));
                next = bits::first(&class);
            }
            if most < missing {
                missing -= most;
                continue;
            }
            // The small ones of this colour cannot bring it alone either.
            for &vertex in &members {
                if self.problem.have(vertex)[at] >= missing {
                    bits::set(&mut rest, vertex);
                }
            }
            return Some(rest);
        }
        None
    }
}
