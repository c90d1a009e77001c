//! The graph of vertices that may stand together at some cost, without those that cannot gather
//! the need from their neighbours.
//!
//! **Invariant:** every covering clique at that cost lies whole within what is alive.

use super::problem::Problem;
use crate::bits;
use crate::topology::FAR;

#[derive(Clone, Debug)]
pub(super) struct Graph {
    /// Per vertex that is alive, row by row: its neighbours, itself not among them.
    rows: Vec<u64>,
    words: usize,
    pub(super) alive: Vec<u64>,
    /// What those alive have together, per dimension.
    sum: Vec<u64>,
    /// Per vertex and dimension: what its neighbours alive have.
    gathers: Vec<u64>,
}

impl Graph {
    /// Edges are pairs that may stand together at all. Costs are the same both ways: rows are laid
    /// by site, where they lie side by side, and turned, which saves picking each pair.
    pub(super) fn open(problem: &Problem<'_>) -> Self {
        let mut graph = Self::bare(problem, FAR - 1);
        let (sites, dims) = (problem.sites_end(), graph.sum.len());
        let site_of = |vertex: usize| usize::from(problem.sites[vertex]);
        let rooms = problem.rooms(&graph.alive).map(|rooms| {
            let mut by_site = vec![0; sites * dims];
            for (at, &room) in rooms.iter().enumerate() {
                let (dimension, vertex) = (at / problem.len(), at % problem.len());
                by_site[dimension * sites + site_of(vertex)] = room;
            }
            by_site
        });
        let alive = graph.alive.clone();
        let (mut costs, mut row) = (Vec::new(), vec![0; bits::words(sites)]);
        // Of each word of sites one square: a row for each vertex of a word of vertices.
        let mut squares = vec![[0u64; u64::BITS as usize]; row.len()];
        for (word, &vertices) in alive.iter().enumerate() {
            squares.iter_mut().for_each(|square| square.fill(0));
            for bit in bits::iter_word(vertices) {
                let vertex = bits::number(word, bit);
                let (costs, most) = problem.by_site(vertex, &mut costs);
                bits::set_up_to(&mut row, costs, most);
                squares
                    .iter_mut()
                    .zip(&row)
                    .for_each(|(square, &near)| square[bit as usize] = near);
                let Some(rooms) = &rooms else { continue };
                let site = site_of(vertex);
                for (dimension, rooms) in rooms.chunks(sites).enumerate() {
                    let itself = if costs[site] <= most { rooms[site] } else { 0 };
                    graph.gathers[vertex * dims + dimension] =
                        u64::from(sum_up_to(costs, rooms, most) - itself);
                }
            }
            squares.iter_mut().for_each(bits::transpose);
            for vertex in bits::iter(&alive) {
                let near = squares.as_flattened()[site_of(vertex)];
                let itself = if bits::word_of(vertex) == word { bits::single(vertex) } else { 0 };
                graph.rows[vertex * graph.words + word] = near & !itself;
            }
        }
        graph.finish(problem, rooms.is_some())
    }

    /// Edges are pairs of at most this cost. Costs a look at every pair. `within`: the vertices
    /// that were alive at a higher cost; no others are alive at this one.
    pub(super) fn new(problem: &Problem<'_>, cost_max: u32, within: Option<&[u64]>) -> Self {
        let mut graph = Self::bare(problem, cost_max);
        within.into_iter().for_each(|within| bits::keep(&mut graph.alive, within));
        let mut rooms = problem.rooms(&graph.alive);
        rooms.iter_mut().for_each(|rooms| graph.sift(problem, cost_max, rooms));
        for vertex in bits::iter(&graph.alive.clone()) {
            graph.lay_row(problem, vertex, problem.costs(vertex), cost_max, rooms.as_deref());
        }
        graph.finish(problem, rooms.is_some())
    }

    /// No edges yet; alive are those that reach no farther than this by themselves.
    fn bare(problem: &Problem<'_>, reach_max: u32) -> Self {
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
        graph
    }

    /// Drops those that cannot gather the need, before rows are laid for them; their rooms with
    /// them.
    fn sift(&mut self, problem: &Problem<'_>, cost_max: u32, rooms: &mut [u32]) {
        let count = problem.len();
        for vertex in bits::iter(&self.alive.clone()) {
            let costs = problem.costs(vertex);
            let lacks = problem.telling.iter().any(|&dimension| {
                let rooms = &rooms[dimension * count..(dimension + 1) * count];
                let own = if costs[vertex] <= cost_max { 0 } else { rooms[vertex] };
                u64::from(sum_up_to(costs, rooms, cost_max)) + u64::from(own)
                    < problem.need[dimension]
            });
            if lacks {
                bits::clear(&mut self.alive, vertex);
                rooms.iter_mut().skip(vertex).step_by(count).for_each(|room| *room = 0);
            }
        }
    }

    /// The row of a vertex that is alive and, where rooms are told, what its neighbours have.
    fn lay_row(
        &mut self,
        problem: &Problem<'_>,
        vertex: usize,
        costs: &[u32],
        cost_max: u32,
        rooms: Option<&[u32]>,
    ) {
        let row = &mut self.rows[vertex * self.words..(vertex + 1) * self.words];
        bits::set_up_to(row, costs, cost_max);
        let is_near_itself = bits::has(row, vertex);
        bits::clear(row, vertex);
        bits::keep(row, &self.alive);
        let (Some(rooms), dims) = (rooms, self.sum.len()) else { return };
        let own = &mut self.gathers[vertex * dims..(vertex + 1) * dims];
        for (cell, rooms) in own.iter_mut().zip(rooms.chunks(problem.len())) {
            let itself = if is_near_itself { rooms[vertex] } else { 0 };
            *cell = u64::from(sum_up_to(costs, rooms, cost_max) - itself);
        }
    }

    /// Sums up and prunes.
    fn finish(mut self, problem: &Problem<'_>, has_gathered: bool) -> Self {
        for vertex in bits::iter(&self.alive) {
            problem.add(&mut self.sum, vertex);
        }
        if !has_gathered {
            self.gather(problem);
        }
        self.prune(problem);
        self
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

    /// One word of the same.
    pub(super) fn foes_word(&self, vertex: usize, word: usize) -> u64 {
        let foes = self.alive[word] & !self.rows[vertex * self.words + word];
        if bits::word_of(vertex) == word { foes & !bits::single(vertex) } else { foes }
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

    /// Sums up what is around each that is alive: over neighbours or over all others, whichever
    /// are fewer.
    fn gather(&mut self, problem: &Problem<'_>) {
        let dims = self.sum.len();
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

/// What those have together whose cost is at most this.
fn sum_up_to(costs: &[u32], rooms: &[u32], cost_max: u32) -> u32 {
    let near = |(&cost, &room): (&u32, &u32)| if cost <= cost_max { room } else { 0 };
    costs.iter().zip(rooms).map(near).fold(0, u32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::super::Vertex;
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
                let (open, laid) = (Graph::open(&problem), Graph::new(&problem, FAR - 1, None));
                assert_eq!(open.alive, laid.alive, "seed {seed}");
                for vertex in bits::iter(&open.alive) {
                    assert_eq!(open.around(vertex), laid.around(vertex), "seed {seed}");
                    assert_eq!(open.gathers(vertex), laid.gathers(vertex), "seed {seed}");
                }
                let alive = bits::iter(&open.alive);
                let foes: usize = alive.map(|vertex| bits::count(&open.foes(vertex))).sum();
                assert_eq!(open.foes_count(), foes, "seed {seed}");
                pairs += foes;
            }
        }
        assert!(pairs > 1_000, "{pairs} pairs of foes");
    }

    /// Alive by the definition: dropped one by one, each counted anew.
    fn pruned(problem: &Problem<'_>, cost_max: u32) -> Vec<usize> {
        let mut alive: Vec<usize> =
            (0..problem.len()).filter(|&vertex| problem.reach[vertex] <= cost_max).collect();
        let lacks = |alive: &[usize], vertex: usize| {
            let mut sum = problem.nothing();
            let near =
                |&&other: &&usize| other == vertex || problem.cost(vertex, other) <= cost_max;
            alive.iter().filter(near).for_each(|&other| problem.add(&mut sum, other));
            !problem.covers(&sum)
        };
        while let Some(at) = (0..alive.len()).find(|&at| lacks(&alive, alive[at])) {
            alive.remove(at);
        }
        alive
    }

    #[test]
    fn who_is_alive_hangs_neither_on_a_higher_cost_seen_before_nor_on_how_sums_are_made() {
        let (mut fewer, mut wide) = (0, 0);
        for seed in 0..300 {
            let made = Made::of_seed(seed);
            // Every third time with amounts of which 32 bits hold no sum.
            let shift = if seed % 3 == 0 { 33 } else { 0 };
            let large = |amounts: &[u64]| amounts.iter().map(|amount| amount << shift).collect();
            let mut question = made.question();
            let need: Vec<u64> = large(question.need);
            let vertices: Vec<Vertex> = question
                .vertices
                .iter()
                .map(|vertex| Vertex { have: large(&vertex.have), ..vertex.clone() })
                .collect();
            (question.need, question.vertices) = (&need, &vertices);
            let problem = Problem::new(&question, Cost::Median, FAR);
            let all = Graph::new(&problem, FAR - 1, None);
            wide += u32::from(problem.rooms(&all.alive).is_none());
            let mut costs: Vec<u32> = (0..problem.len())
                .flat_map(|a| (0..a).map(move |b| (a, b)))
                .map(|(a, b)| problem.cost(a, b))
                .filter(|&cost| cost < FAR)
                .collect();
            costs.sort_unstable();
            for at in [3, 2, 1] {
                let Some(&cost) = costs.get(costs.len() * at / 4) else { continue };
                let alone = Graph::new(&problem, cost, None);
                let after = Graph::new(&problem, cost, Some(&all.alive));
                let alive: Vec<usize> = bits::iter(&alone.alive).collect();
                assert_eq!(alive, pruned(&problem, cost), "seed {seed}");
                assert_eq!((&alone.alive, &alone.sum), (&after.alive, &after.sum), "seed {seed}");
                for &vertex in &alive {
                    assert_eq!(alone.around(vertex), after.around(vertex), "seed {seed}");
                    assert_eq!(alone.gathers(vertex), after.gathers(vertex), "seed {seed}");
                    let mut sum = problem.nothing();
                    bits::iter(&alone.around(vertex)).for_each(|near| problem.add(&mut sum, near));
                    assert_eq!(alone.gathers(vertex), sum, "seed {seed}");
                }
                fewer += u32::from(alive.len() < bits::count(&all.alive));
            }
        }
        assert!(fewer > 100 && wide > 20, "{fewer} with fewer, {wide} with large sums");
    }
}
