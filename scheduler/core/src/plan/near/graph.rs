//! The graph of vertices that may stand together at some cost, without those that cannot gather
//! the need from their neighbours.
//!
//! **Invariant:** every covering clique at that cost lies whole within what is alive.

use super::problem::Problem;
use crate::bits;
use crate::topology::FAR;

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
    /// Edges are pairs that may stand together at all.
    pub(super) fn open(problem: &Problem<'_>) -> Self {
        let mut costs = vec![FAR; problem.len()];
        Self::of_rows(problem, FAR - 1, |vertex, row| {
            problem.price(vertex, &mut costs);
            bits::set_up_to(row, &costs, FAR - 1);
        })
    }

    /// Edges are pairs of at most this cost. Costs a look at every pair.
    pub(super) fn new(problem: &Problem<'_>, cost_max: u32) -> Self {
        Self::of_rows(problem, cost_max, |vertex, row| {
            bits::set_up_to(row, problem.costs(vertex), cost_max);
        })
    }

    fn of_rows(
        problem: &Problem<'_>,
        reach_max: u32,
        mut near: impl FnMut(usize, &mut [u64]),
    ) -> Self {
        let (count, words) = (problem.len(), problem.words);
        let mut graph = Self {
            rows: vec![0; count * words],
            words,
            alive: vec![0; words],
            sum: problem.nothing(),
            gathers: vec![0; count * problem.need.len()],
        };
        for vertex in (0..count).filter(|&vertex| problem.reach[vertex] <= reach_max) {
            bits::set(&mut graph.alive, vertex);
        }
        for vertex in bits::iter(&graph.alive) {
            let row = &mut graph.rows[vertex * words..(vertex + 1) * words];
            near(vertex, row);
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

    /// Those alive with which the vertex, itself alive, may not stand.
    pub(super) fn foes(&self, vertex: usize) -> Vec<u64> {
        let mut foes = self.alive.clone();
        bits::remove(&mut foes, self.row(vertex));
        bits::clear(&mut foes, vertex);
        foes
    }

    /// Pairs of those alive that may not stand together, both ways.
    pub(super) fn foes_count(&self) -> usize {
        let near = bits::iter(&self.alive).map(|vertex| {
            let row = self.row(vertex).iter().zip(&self.alive);
            row.map(|(near, alive)| (near & alive).count_ones() as usize).sum::<usize>()
        });
        let alive = bits::count(&self.alive);
        alive * alive.saturating_sub(1) - near.sum::<usize>()
    }

    /// What those alive have together, per dimension.
    pub(super) fn sum(&self) -> &[u64] {
        &self.sum
    }

    /// What those alive have with which the vertex, itself alive, may not stand, per dimension.
    pub(super) fn against(
        &self,
        problem: &Problem<'_>,
        vertex: usize,
    ) -> impl Iterator<Item = u64> {
        let near = self.gathers(vertex).iter().zip(problem.have(vertex));
        self.sum.iter().zip(near).map(|(sum, (near, own))| sum - near - own)
    }

    fn gathers(&self, vertex: usize) -> &[u64] {
        let dims = self.sum.len();
        &self.gathers[vertex * dims..(vertex + 1) * dims]
    }

    /// Sums up what is alive, in all and around each: over neighbours or over all others, whichever
    /// are fewer.
    fn gather(&mut self, problem: &Problem<'_>) {
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
    fn prune(&mut self, problem: &Problem<'_>) {
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

    /// Whether they are a clique that covers the need.
    #[cfg(test)]
    pub(super) fn is_covered_by(&self, problem: &Problem<'_>, vertices: &[usize]) -> bool {
        let near = |&a: &usize| vertices.iter().all(|&b| a == b || bits::has(self.row(a), b));
        let mut sum = problem.nothing();
        vertices.iter().for_each(|&vertex| problem.add(&mut sum, vertex));
        vertices.iter().all(near) && problem.covers(&sum)
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::Made;
    use super::super::problem::Cost;
    use super::*;

    #[test]
    fn rows_from_the_net_are_those_from_costs_laid_out() {
        let mut pairs = 0;
        for seed in 0..100 {
            let made = Made::of_seed(seed);
            let question = made.question();
            for cost in [Cost::High, Cost::Median] {
                let problem = Problem::new(&question, cost, FAR);
                let (open, laid) = (Graph::open(&problem), Graph::new(&problem, FAR - 1));
                assert_eq!((&open.rows, &open.alive), (&laid.rows, &laid.alive), "seed {seed}");
                let alive = bits::iter(&open.alive);
                let foes: usize = alive.map(|vertex| bits::count(&open.foes(vertex))).sum();
                assert_eq!(open.foes_count(), foes, "seed {seed}");
                pairs += foes;
            }
        }
        assert!(pairs > 1_000, "{pairs} pairs of foes");
    }
}
