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

/// Bits for what all count together: gains, which are looked at on every move, take half the time
/// of wider numbers.
const WORTH_BITS: u32 = 28;
/// Foes in one word of bits from which on it is quicker to look at all of the word.
const MANY_FOES: u32 = 12;

/// Moves for which what left stays out: as many as published searches take at least.
const OUT_MOVES: u64 = 7;
/// So many different such times in turn, lest moves go round in a circle.
const OUT_VARIES: u64 = 10;
/// The start takes as long as so many moves: every pair of foes is looked at.
const START_MOVES: u64 = 384;
/// Makes the gain of a vertex that is in, stays out, or is not alive less than that of any other.
const NEVER: i32 = i32::MIN / 2;
/// Parts of a need in which rooms of several dimensions are told, to be added up.
const PARTS: u128 = 1 << 20;
/// Vertices of one word of bits.
const WORD: usize = u64::BITS as usize;

/// A search that can be gone on with.
pub(super) struct Swap<'a> {
    problem: &'a Problem<'a>,
    graph: &'a Graph,
    /// Per vertex: what it counts.
    worth: Vec<i32>,
    /// That is what it has, of one dimension.
    is_exact: bool,
    /// Per vertex: what the clique wins by it, less what those count that leave for it.
    gain: Vec<i32>,
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
        let worth = worths(problem);
        let is_same = |(vertex, &worth): (usize, &i32)| matches!(problem.have(vertex), &[have] if i64::try_from(have) == Ok(worth.into()));
        let is_exact = worth.iter().enumerate().all(is_same);
        // Whole words of them.
        let mut gain = vec![NEVER; problem.words * WORD];
        bits::iter(&graph.alive).for_each(|vertex| gain[vertex] = worth[vertex]);
        Self {
            problem,
            graph,
            worth,
            is_exact,
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
        4 + self.problem.len() as u64 / 8
    }

    /// What remains when those leave first that stand against most for what they are worth.
    fn start(&self) -> Vec<u64> {
        let ratio =
            |against: i64, vertex: usize| against * 1_024 / i64::from(self.worth[vertex].max(1));
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
                let worth = i64::from(self.worth[vertex]);
                for (word, open) in open.iter().enumerate() {
                    let foes = bits::iter_word(self.graph.foes_word(vertex, word) & open);
                    foes.for_each(|bit| against[bits::number(word, bit)] -= worth);
                }
            }
        }
        open
    }

    /// What its foes are worth.
    fn against(&self, vertex: usize) -> i64 {
        if self.is_exact {
            let mut foes = self.graph.against(self.problem, vertex);
            return foes.next().and_then(|foes| i64::try_from(foes).ok()).unwrap_or(0);
        }
        bits::iter(&self.graph.foes(vertex)).map(|foe| i64::from(self.worth[foe])).sum()
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
        // Whole words at a time take a quarter of the time of one by one.
        let (words, _) = self.gain.as_chunks::<WORD>();
        let (mut most, mut first) = (NEVER / 2, None);
        for (word, gains) in words.iter().enumerate() {
            let here = gains.iter().fold(NEVER, |most, &gain| most.max(gain));
            if here > most {
                (most, first) = (here, Some((word, gains)));
            }
        }
        let (word, gains) = first?;
        let bit = gains.iter().position(|&gain| gain == most)?;
        Some(word * WORD + bit)
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
    fn tell_foes(&mut self, vertex: usize, more: i32) {
        let (gains, _) = self.gain.as_chunks_mut::<WORD>();
        for (word, gains) in gains.iter_mut().enumerate() {
            let foes = self.graph.foes_word(vertex, word);
            if foes.count_ones() < MANY_FOES {
                bits::iter_word(foes).for_each(|bit| gains[bit as usize] += more);
            } else {
                bits::add_to(gains, foes, more);
            }
        }
    }
}

/// What each has of the one dimension, or of all of them in parts of what is needed; in parts of
/// which few bits hold the sum.
fn worths(problem: &Problem<'_>) -> Vec<i32> {
    let worths: Vec<u64> = (0..problem.len()).map(|vertex| worth(problem, vertex)).collect();
    // Needs are far below: no sum over vertices overflows.
    let bits = u64::BITS - worths.iter().sum::<u64>().leading_zeros();
    let narrow = |worth: u64| i32::try_from(worth >> bits.saturating_sub(WORTH_BITS)).unwrap_or(0);
    worths.into_iter().map(narrow).collect()
}

fn worth(problem: &Problem<'_>, vertex: usize) -> u64 {
    match problem.have(vertex) {
        &[have] => have,
        have => have
            .iter()
            .zip(&problem.need)
            .map(|(&have, &need)| (u128::from(have) * PARTS / u128::from(need.max(1))) as u64)
            .sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made::Made;
    use super::super::problem::Cost;
    use super::super::{Question, Vertex};
    use super::super::{dive::Found, shed};
    use super::*;
    use crate::topology::FAR;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

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
    fn who_comes_in_wins_most_and_its_foes_stay_out_for_their_time() {
        let (mut moves, mut left) = (0, 0);
        for seed in 0..150 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (len, near_percent) = (rng.random_range(8..150), rng.random_range(60..95));
            let made = Made::with_sites(&mut rng, len, near_percent);
            let mut question = made.question();
            let all: u64 = question.vertices.iter().map(|vertex| vertex.have[0]).sum();
            let need = [all * rng.random_range(200..700) / 1_000, 0];
            question.need = &need;
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::open(&problem);
            let mut swap = Swap::new(&problem, &graph);
            swap.clique(&mut swap.steps(0));
            // For each the move from which on it may come in.
            let mut until = vec![0; problem.len()];
            for at in 0..40 {
                let before = swap.chosen.clone();
                let gain = |vertex: usize| {
                    let foes = bits::and(&graph.foes(vertex), &before);
                    let lost = bits::iter(&foes).map(|foe| problem.have(foe)[0].cast_signed());
                    problem.have(vertex)[0].cast_signed() - lost.sum::<i64>()
                };
                let next = bits::iter(&graph.alive)
                    .filter(|&vertex| !bits::has(&before, vertex) && until[vertex] <= at)
                    .max_by_key(|&vertex| (gain(vertex), std::cmp::Reverse(vertex)));
                let Some(next) = next.filter(|_| !problem.covers(&swap.sum)) else { break };
                swap.clique(&mut swap.cost());
                for foe in bits::iter(&bits::and(&graph.foes(next), &before)) {
                    until[foe] = at + OUT_MOVES + at % OUT_VARIES;
                    left += 1;
                }
                let mut after = before.clone();
                bits::remove(&mut after, &graph.foes(next));
                bits::set(&mut after, next);
                assert_eq!(swap.chosen, after, "seed {seed}, move {at}");
                moves += 1;
            }
        }
        assert!(moves > 1_000 && left > 1_000, "{moves} moves for which {left} left");
    }

    #[test]
    fn amounts_that_few_bits_do_not_hold_are_searched_alike() {
        let mut found = 0;
        for seed in 0..200 {
            let made = Made::of_seed(seed);
            let mut question = made.question();
            // The first is needed alone, so that parts of a need are not what is told.
            let (need, large) = ([question.need[0], 0], [question.need[0] << 33, 0]);
            let larger: Vec<Vertex> = question
                .vertices
                .iter()
                .map(|vertex| Vertex { have: vec![vertex.have[0] << 33, 0], ..vertex.clone() })
                .collect();
            question.need = &need;
            let again = Question { vertices: &larger, need: &large, ..question };
            let [one, other] = [&question, &again].map(|question| {
                let problem = Problem::new(question, Cost::High, FAR);
                Swap::new(&problem, &Graph::open(&problem)).clique(&mut 20_000)
            });
            assert_eq!(one, other, "seed {seed}");
            found += u32::from(one.is_some());
        }
        assert!(found > 30, "{found} found");
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
