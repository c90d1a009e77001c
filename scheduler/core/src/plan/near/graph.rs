//! The graph of vertices that may stand together at some cost, without those that cannot gather
//! the need from their neighbours.
//!
//! **Invariant:** every covering clique at that cost lies whole within what is alive.

use super::problem::Problem;
use crate::bits;

const WORD_BITS: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Graph {
    /// Per vertex, row by row: its neighbours, itself not among them.
    rows: Vec<u64>,
    words: usize,
    pub(super) alive: Vec<u64>,
    /// What those alive have together, per dimension.
    sum: Vec<u64>,
    /// Per vertex and dimension: what its neighbours alive have.
    gathers: Vec<u64>,
}

impl Graph {
    /// Edges are pairs of at most this cost. Costs a look at every pair.
    pub(super) fn new(problem: &Problem, cost_max: u32) -> Self {
        let (count, words) = (problem.len(), problem.words);
        let mut graph = Self {
            rows: vec![0; count * words],
            words,
            alive: vec![0; words],
            sum: problem.nothing(),
            gathers: vec![0; count * problem.need.len()],
        };
        for vertex in (0..count).filter(|&vertex| problem.reach[vertex] <= cost_max) {
            bits::set(&mut graph.alive, vertex);
        }
        for vertex in 0..count {
            if !bits::has(&graph.alive, vertex) {
                continue;
            }
            let row = &mut graph.rows[vertex * words..(vertex + 1) * words];
            for (word, costs) in row.iter_mut().zip(problem.costs(vertex).chunks(WORD_BITS)) {
                let near = costs.iter().enumerate();
                *word =
                    near.fold(0, |bits, (at, &cost)| bits | (u64::from(cost <= cost_max) << at));
            }
            bits::clear(row, vertex);
            bits::keep(row, &graph.alive);
        }
        graph.gather(problem);
        graph.prune(problem);
        graph
    }

    pub(super) fn row(&self, vertex: usize) -> &[u64] {
        &self.rows[vertex * self.words..(vertex + 1) * self.words]
    }

    /// Neighbours that are alive.
    pub(super) fn around(&self, vertex: usize) -> Vec<u64> {
        bits::and(self.row(vertex), &self.alive)
    }

    /// What those alive have together, per dimension.
    pub(super) fn sum(&self) -> &[u64] {
        &self.sum
    }

    /// What those alive have with which the vertex, itself alive, may not stand, per dimension.
    pub(super) fn against(&self, problem: &Problem, vertex: usize) -> impl Iterator<Item = u64> {
        let near = self.gathers(vertex).iter().zip(problem.have(vertex));
        self.sum.iter().zip(near).map(|(sum, (near, own))| sum - near - own)
    }

    fn gathers(&self, vertex: usize) -> &[u64] {
        let dims = self.sum.len();
        &self.gathers[vertex * dims..(vertex + 1) * dims]
    }

    /// Sums up what is alive, in all and around each: over neighbours or over all others, whichever
    /// are fewer.
    fn gather(&mut self, problem: &Problem) {
        let dims = self.sum.len();
        for vertex in bits::iter(&self.alive) {
            problem.add(&mut self.sum, vertex);
        }
        let all = bits::count(&self.alive);
        for vertex in bits::iter(&self.alive) {
            let own = &mut self.gathers[vertex * dims..(vertex + 1) * dims];
            let row = &self.rows[vertex * self.words..(vertex + 1) * self.words];
            if bits::count(row) * 2 <= all {
                bits::iter(row).for_each(|near| problem.add(own, near));
                continue;
            }
            own.copy_from_slice(&self.sum);
            let mut far = self.alive.clone();
            bits::remove(&mut far, row);
            bits::iter(&far).for_each(|far| problem.take(own, far));
        }
    }

    /// Drops vertices that cannot gather the need among those left, until none falls.
    fn prune(&mut self, problem: &Problem) {
        let dims = self.sum.len();
        let lacks = |graph: &Self, vertex: &usize| {
            let near = graph.gathers(*vertex).iter().zip(problem.have(*vertex));
            near.zip(&problem.need).any(|((near, own), need)| near + own < *need)
        };
        let mut falling: Vec<usize> =
            bits::iter(&self.alive).filter(|vertex| lacks(self, vertex)).collect();
        falling.iter().for_each(|&vertex| bits::clear(&mut self.alive, vertex));
        while let Some(vertex) = falling.pop() {
            problem.take(&mut self.sum, vertex);
            for near in bits::iter(&self.around(vertex)) {
                problem.take(&mut self.gathers[near * dims..(near + 1) * dims], vertex);
                if lacks(self, &near) {
                    bits::clear(&mut self.alive, near);
                    falling.push(near);
                }
            }
        }
    }
}
