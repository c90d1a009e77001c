//! Swap: covering cliques found by local search, without proof.
//!
//! The search starts with what remains when those leave first that stand against most for what they
//! are worth. Then whichever vertex outside wins most by coming in does so, and those that may not
//! stand with it leave and stay out for a while (tabu search, with the moves of one vertex against
//! all its foes of Nogueira, Pinheiro and Subramanian's search for heavy independent sets).
//! **Invariant:** what is found is a clique that covers; finding none proves nothing. No chance is
//! in it: same graph, same answer.

use super::graph::Graph;
use super::problem::Problem;
use crate::bits;
use std::collections::BinaryHeap;

/// Moves for which what left stays out: as many as published searches take at least.
const OUT_MOVES: u64 = 7;
/// So many different such times in turn, lest moves go round in a circle.
const OUT_VARIES: u64 = 10;
/// The start takes as long as so many moves: every pair of foes is looked at.
const START_MOVES: u64 = 64;
/// Makes the gain of a vertex that is in, stays out, or is not alive less than that of any other.
const NEVER: i64 = i64::MIN / 4;
/// Parts of a need in which rooms of several dimensions are told, to be added up.
const PARTS: u128 = 1 << 20;

/// A search that can be gone on with.
pub(super) struct Swap<'a> {
    problem: &'a Problem<'a>,
    graph: &'a Graph,
    /// Per vertex: what it counts.
    worth: Vec<i64>,
    /// Per vertex: what the clique wins by it, less what those count that leave for it.
    gain: Vec<i64>,
    /// Those that stay out, each with the move from which on it may come in.
    out: Vec<(u64, usize)>,
    chosen: Vec<u64>,
    /// What those chosen have together.
    sum: Vec<u64>,
    moves: u64,
    has_begun: bool,
}

impl<'a> Swap<'a> {
    pub(super) fn new(problem: &'a Problem<'a>, graph: &'a Graph) -> Self {
        let worth: Vec<i64> = (0..problem.len()).map(|vertex| worth(problem, vertex)).collect();
        let mut gain = vec![NEVER; problem.len()];
        bits::iter(&graph.alive).for_each(|vertex| gain[vertex] = worth[vertex]);
        Self {
            problem,
            graph,
            worth,
            gain,
            out: Vec::new(),
            chosen: vec![0; problem.words],
            sum: problem.nothing(),
            moves: 0,
            has_begun: false,
        }
    }

    /// Searches with at most `work` steps of the planner's budget; takes off what was used.
    pub(super) fn clique(&mut self, work: &mut u64) -> Option<Vec<usize>> {
        if !self.has_begun {
            *work = work.checked_sub(self.cost() * START_MOVES)?;
            self.has_begun = true;
            for vertex in bits::iter(&self.start()) {
                self.enter(vertex);
            }
        }
        while !self.problem.covers(&self.sum) {
            *work = work.checked_sub(self.cost())?;
            self.let_back();
            let next = self.best()?;
            self.enter(next);
            self.moves += 1;
        }
        Some(bits::iter(&self.chosen).collect())
    }

    /// Steps for the start and so many moves.
    pub(super) fn steps(&self, moves: u64) -> u64 {
        self.cost() * (START_MOVES + moves)
    }

    /// Steps for a move, which looks at every vertex and at the foes of the few that come and go.
    fn cost(&self) -> u64 {
        4 + self.problem.len() as u64 / 4
    }

    /// What remains when those leave first that stand against most for what they are worth.
    fn start(&self) -> Vec<u64> {
        let ratio = |against: i64, vertex: usize| {
            i128::from(against) * 1_024 / i128::from(self.worth[vertex].max(1))
        };
        let mut open = self.graph.alive.clone();
        let mut against = vec![0i64; self.problem.len()];
        let mut worst = BinaryHeap::new();
        for vertex in bits::iter(&open) {
            against[vertex] = self.against(vertex);
            worst.push((ratio(against[vertex], vertex), vertex));
        }
        while let Some((was, vertex)) = worst.pop() {
            let now = ratio(against[vertex], vertex);
            if now < was {
                worst.push((now, vertex));
            } else if now > 0 {
                bits::clear(&mut open, vertex);
                for (word, open) in open.iter().enumerate() {
                    let foes = bits::iter_word(self.graph.foes_word(vertex, word) & open);
                    foes.for_each(|bit| against[bits::number(word, bit)] -= self.worth[vertex]);
                }
            }
        }
        open
    }

    /// What its foes are worth.
    fn against(&self, vertex: usize) -> i64 {
        if let [_] = self.problem.need[..] {
            let mut foes = self.graph.against(self.problem, vertex);
            return foes.next().and_then(|foes| i64::try_from(foes).ok()).unwrap_or(0);
        }
        bits::iter(&self.graph.foes(vertex)).map(|foe| self.worth[foe]).sum()
    }

    /// Ends the time out of those whose move has come.
    fn let_back(&mut self) {
        let Self { out, gain, moves, .. } = self;
        out.retain(|&(until, vertex)| {
            let stays = until > *moves;
            if !stays {
                gain[vertex] -= NEVER;
            }
            stays
        });
    }

    /// The vertex that wins most, or loses least; of equals the first.
    fn best(&self) -> Option<usize> {
        let (mut best, mut most) = (None, NEVER / 2);
        for (vertex, &gain) in self.gain.iter().enumerate() {
            if gain > most {
                (best, most) = (Some(vertex), gain);
            }
        }
        best
    }

    /// Its foes leave for it.
    fn enter(&mut self, vertex: usize) {
        let graph = self.graph;
        for word in 0..self.chosen.len() {
            let leaving = graph.foes_word(vertex, word) & self.chosen[word];
            bits::iter_word(leaving).for_each(|bit| self.leave(bits::number(word, bit)));
        }
        bits::set(&mut self.chosen, vertex);
        self.problem.add(&mut self.sum, vertex);
        self.gain[vertex] += NEVER;
        self.tell_foes(vertex, -self.worth[vertex]);
    }

    fn leave(&mut self, vertex: usize) {
        bits::clear(&mut self.chosen, vertex);
        self.problem.take(&mut self.sum, vertex);
        // From now on it is kept back by its time out, no longer by being in.
        self.out.push((self.moves + OUT_MOVES + self.moves % OUT_VARIES, vertex));
        self.tell_foes(vertex, self.worth[vertex]);
    }

    /// Adds to the gains of all foes.
    fn tell_foes(&mut self, vertex: usize, more: i64) {
        for word in 0..self.chosen.len() {
            let foes = bits::iter_word(self.graph.foes_word(vertex, word));
            foes.for_each(|bit| self.gain[bits::number(word, bit)] += more);
        }
    }
}

/// What it has of the one dimension, or of all of them in parts of what is needed.
fn worth(problem: &Problem<'_>, vertex: usize) -> i64 {
    let worth = match problem.have(vertex) {
        &[have] => have,
        have => have
            .iter()
            .zip(&problem.need)
            .map(|(&have, &need)| (u128::from(have) * PARTS / u128::from(need.max(1))) as u64)
            .sum(),
    };
    // Needs are far below: no sum over vertices overflows.
    i64::try_from(worth).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::made::Made;
    use super::super::problem::Cost;
    use super::super::{dive::Found, shed};
    use super::*;
    use crate::topology::FAR;

    #[test]
    fn what_it_finds_is_a_covering_clique_and_it_finds_most_that_there_are() {
        let (mut found, mut missed) = (0, 0);
        for seed in 0..600 {
            let made = Made::of_seed(seed);
            let question = made.question();
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::open(&problem);
            let there_is =
                shed::clique(&problem, &graph, &mut (u64::MAX - 1), || None) != Found::None;
            let again = || Swap::new(&problem, &graph).clique(&mut 20_000);
            match again() {
                Some(vertices) => {
                    assert!(graph.is_covered_by(&problem, &vertices), "seed {seed}");
                    assert_eq!(again(), Some(vertices), "seed {seed}");
                    found += 1;
                }
                None => missed += u32::from(there_is),
            }
        }
        assert!(found > 100 && missed * 10 < found, "{found} found, {missed} missed");
    }

    #[test]
    fn it_ends_when_its_work_is_done() {
        let mut ended = 0;
        for seed in 0..100 {
            let made = Made::of_seed(seed);
            let question = made.question();
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::open(&problem);
            if shed::clique(&problem, &graph, &mut (u64::MAX - 1), || None) == Found::None {
                assert_eq!(Swap::new(&problem, &graph).clique(&mut 5_000), None, "seed {seed}");
                ended += 1;
            }
            assert_eq!(Swap::new(&problem, &graph).clique(&mut 0), None, "seed {seed}");
        }
        assert!(ended > 10, "{ended} without any");
    }
}
