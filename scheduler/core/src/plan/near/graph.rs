//! The graph of vertices that may stand together at some cost, without those that cannot gather
//! the need from their neighbours.
//!
//! **Invariant:** every covering clique at that cost lies whole within what is alive.

use super::bits;
use super::problem::Problem;

const WORD_BITS: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct Graph {
    /// Per vertex, row by row: its neighbours, itself not among them.
    rows: Vec<u64>,
    words: usize,
    pub(super) alive: Vec<u64>,
}

impl Graph {
    /// Edges are pairs of at most this cost. Costs a look at every pair.
    pub(super) fn new(problem: &Problem, cost_max: u32) -> Self {
        let (count, words) = (problem.len(), problem.words);
        let mut graph = Self { rows: vec![0; count * words], words, alive: vec![0; words] };
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

    /// Drops vertices that cannot gather the need among those left, until none falls.
    fn prune(&mut self, problem: &Problem) {
        loop {
            let mut falling = Vec::new();
            for vertex in bits::iter(&self.alive) {
                let around = self.around(vertex);
                if !problem.covered_by(std::iter::once(vertex).chain(bits::iter(&around))) {
                    falling.push(vertex);
                }
            }
            if falling.is_empty() {
                return;
            }
            for vertex in falling {
                bits::clear(&mut self.alive, vertex);
            }
        }
    }
}
