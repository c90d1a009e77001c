//! Shed: exact search for a covering clique by leaving out what stands in the way of others.
//!
//! Where most sites may stand together, cliques are large and differ in little, and it is quicker
//! to ask which sites leave: every two foes lose at least one, so what must be lost is a weighted
//! vertex cover of the foes. Sites leave that cannot stay within what may be lost, or that a foe
//! outweighs; a dual of the cover, by cliques of foes, bounds what is lost at least (the local ratio
//! of Bar-Yehuda and Even), and its slack decides further sites (reduced costs). Where foes are far
//! regions of the world more than cliques, sites that leave by half bound it better and mostly
//! settle it (`halves`). Then the site with the heaviest foes leaves, or they do.
//! **Invariant:** what is found is a clique that covers; "none" is a proof, "aborted" is not.

use super::dive::Found;
use super::graph::Graph;
use super::halves::{Ending, Halves};
use super::problem::Problem;
use crate::bits;

/// Halves are asked for where at least one part in so many is needed: of less they say next to
/// nothing, since at most half of everything is lost by them.
const HALVES_PART: u64 = 3;
/// A bound is close to what may be lost where less than one part in so many lies between.
const CLOSE_PART: u64 = 7;
/// Where all leave by half and what may be lost beyond that is at least one part in so many, they
/// are not asked for again.
const HALVES_FAR: u64 = 8;

/// Searches with at most `work` steps of the planner's budget, and takes off what was used. Where
/// the first bounds leave the question open, a guess may answer it.
pub(super) fn clique(
    problem: &Problem<'_>,
    graph: &Graph,
    work: &mut u64,
    guess: impl FnOnce() -> Option<Vec<usize>>,
) -> Found {
    let mut shed = Shed::new(problem, graph, *work);
    let mut stand = shed.start(graph);
    let (look, mut guessed) = (shed.bounds(&mut stand), None);
    let found = match look {
        Look::Dead => None,
        Look::Done => Some(stand.open),
        Look::Fewer | Look::Open => {
            // Near the end of what may be lost few are found and most is proven by halves.
            guessed = if shed.is_close && stand.halves.is_some() { None } else { guess() };
            if guessed.is_some() { None } else { shed.step(stand) }
        }
    };
    *work = shed.left;
    match (guessed, found, shed.is_out) {
        (Some(vertices), ..) => Found::Clique(vertices),
        (_, Some(open), _) => Found::Clique(bits::iter(&open).collect()),
        (_, None, true) => Found::Aborted,
        (_, None, false) => Found::None,
    }
}

struct Shed<'a> {
    problem: &'a Problem<'a>,
    /// Per vertex, row by row: those with which it may not stand.
    foes: Vec<u64>,
    /// The dimension in which halves are asked for.
    halves_at: usize,
    /// The last bound left little that may be lost.
    is_close: bool,
    left: u64,
    is_out: bool,
}

/// What a branch has not left out.
#[derive(Clone)]
struct Stand {
    open: Vec<u64>,
    /// What the open ones have together.
    sum: Vec<u64>,
    /// Per vertex and dimension: what its open foes have.
    against: Vec<u64>,
    /// Where they may say something.
    halves: Option<Halves>,
}

/// What a look at all open vertices came to.
enum Look {
    /// There is no covering clique among them.
    Dead,
    /// They are one.
    Done,
    /// Some had to leave.
    Fewer,
    /// Nothing follows for any of them.
    Open,
}

impl<'a> Shed<'a> {
    fn new(problem: &'a Problem<'a>, graph: &Graph, work: u64) -> Self {
        let (count, words) = (problem.len(), problem.words);
        let mut foes = vec![0; count * words];
        for vertex in bits::iter(&graph.alive) {
            let row = &mut foes[vertex * words..(vertex + 1) * words];
            row.copy_from_slice(&graph.alive);
            bits::remove(row, graph.row(vertex));
            bits::clear(row, vertex);
        }
        let halves_at = match problem.telling[..] {
            [telling] => telling,
            _ => problem.lead,
        };
        Self { problem, foes, halves_at, is_close: false, left: work, is_out: false }
    }

    fn start(&mut self, graph: &Graph) -> Stand {
        let dims = self.problem.need.len();
        let open = graph.alive.clone();
        let mut against = vec![0; self.problem.len() * dims];
        for vertex in bits::iter(&open) {
            let own = &mut against[vertex * dims..(vertex + 1) * dims];
            own.iter_mut()
                .zip(graph.against(self.problem, vertex))
                .for_each(|(to, foes)| *to = foes);
        }
        self.spend(self.problem.len() as u64 * 8);
        let mut stand = Stand { open, sum: graph.sum().to_vec(), against, halves: None };
        let at = self.halves_at;
        // Where nothing is needed, there is nothing to lose by halves.
        let need = self.problem.need.get(at);
        if need.is_some_and(|need| need * HALVES_PART >= stand.sum[at]) {
            let have = (0..self.problem.len()).map(|vertex| self.problem.have(vertex)[at]);
            stand.halves = Some(Halves::new(&stand.open, have.collect()));
        }
        stand
    }

    fn foes(&self, vertex: usize) -> &[u64] {
        &self.foes[vertex * self.problem.words..(vertex + 1) * self.problem.words]
    }

    fn spend(&mut self, steps: u64) {
        self.is_out |= self.left < steps;
        self.left = self.left.saturating_sub(steps);
    }

    /// A covering clique among what is open.
    fn step(&mut self, mut stand: Stand) -> Option<Vec<u64>> {
        loop {
            let mut look = self.bounds(&mut stand);
            if let Look::Open = look {
                look = self.halve(&mut stand);
            }
            match look {
                _ if self.is_out => return None,
                Look::Dead => return None,
                Look::Done => return Some(stand.open),
                Look::Fewer => {}
                Look::Open => break,
            }
        }
        let at = self.tightest(&stand);
        let worst = self.heaviest(&stand, at)?;
        let mut without = stand.clone();
        self.leave(&mut without, worst);
        let found = self.step(without);
        if found.is_some() || self.is_out {
            return found;
        }
        self.foes_leave(&mut stand, worst);
        self.step(stand)
    }

    /// Looks at all open vertices until nothing more follows, or steps run out.
    fn bounds(&mut self, stand: &mut Stand) -> Look {
        loop {
            let at = self.tightest(stand);
            let look = match self.weigh(stand) {
                Look::Open => self.bound(stand, at),
                look => look,
            };
            match look {
                Look::Fewer if !self.is_out => {}
                look => return look,
            }
        }
    }

    /// The dimension of which the least may be lost.
    fn tightest(&self, stand: &Stand) -> usize {
        let spare = |&at: &usize| {
            let need = self.problem.need[at];
            u128::from(stand.sum[at].saturating_sub(need)) * 1_000_000 / u128::from(need.max(1))
        };
        (0..self.problem.need.len()).min_by_key(spare).unwrap_or(0)
    }

    /// Every vertex against its foes: it leaves where the need is not covered without them; they
    /// leave where it has as much as all of them.
    fn weigh(&mut self, stand: &mut Stand) -> Look {
        let dims = self.problem.need.len();
        if !self.problem.covers(&stand.sum) {
            return Look::Dead;
        }
        self.spend(4 + bits::count(&stand.open) as u64);
        let (mut is_clique, mut fewer) = (true, false);
        for vertex in bits::iter(&stand.open.clone()) {
            if !bits::has(&stand.open, vertex) {
                continue;
            }
            let against = &stand.against[vertex * dims..(vertex + 1) * dims];
            if against.iter().all(|&foes| foes == 0) {
                continue;
            }
            is_clique = false;
            let mut each = stand.sum.iter().zip(against).zip(&self.problem.need);
            if each.any(|((sum, foes), need)| sum - foes < *need) {
                self.leave(stand, vertex);
                if !self.problem.covers(&stand.sum) {
                    return Look::Dead;
                }
                fewer = true;
            } else if self.problem.have(vertex).iter().zip(against).all(|(own, foes)| own >= foes) {
                self.foes_leave(stand, vertex);
                fewer = true;
            }
        }
        match (is_clique, fewer) {
            (true, _) => Look::Done,
            (false, true) => Look::Fewer,
            (false, false) => Look::Open,
        }
    }

    /// What is lost at least in this dimension, and which vertices that decides.
    fn bound(&mut self, stand: &mut Stand, at: usize) -> Look {
        let problem = self.problem;
        // What of each vertex no clique of foes has charged yet.
        let mut rest = vec![0u64; problem.len()];
        let mut open = stand.open.clone();
        for vertex in bits::iter(&stand.open) {
            rest[vertex] = problem.have(vertex)[at];
            if rest[vertex] == 0 {
                bits::clear(&mut open, vertex);
            }
        }
        let spare = stand.sum[at] - problem.need[at];
        let mut lost = 0u64;
        let mut uncharged = vec![0u64; problem.words];
        let (mut members, mut others) = (Vec::new(), vec![0u64; problem.words]);
        let (mut steps, mut from) = (0, 0);
        while from < problem.words {
            let Some(bit) = bits::iter_word(open[from]).next() else {
                from += 1;
                continue;
            };
            let first = bits::number(from, bit);
            members.clear();
            members.push(first);
            // Nothing is open before the word of the first.
            others[from..].copy_from_slice(&open[from..]);
            bits::keep(&mut others[from..], &self.foes(first)[from..]);
            let mut least = rest[first];
            for word in from..problem.words {
                while let Some(bit) = bits::iter_word(others[word]).next() {
                    let next = bits::number(word, bit);
                    members.push(next);
                    least = least.min(rest[next]);
                    bits::keep(&mut others[word..], &self.foes(next)[word..]);
                }
            }
            steps += 2 + members.len() as u64 * (1 + problem.words as u64 / 4);
            if members.len() == 1 {
                bits::set(&mut uncharged, first);
                bits::clear(&mut open, first);
                continue;
            }
            lost += least * (members.len() as u64 - 1);
            for &member in &members {
                rest[member] -= least;
                if rest[member] == 0 {
                    bits::clear(&mut open, member);
                }
            }
            if lost > spare {
                break;
            }
        }
        self.spend(steps);
        if lost > spare {
            return Look::Dead;
        }
        self.is_close = (spare - lost) * CLOSE_PART < spare;
        self.decide_by(stand, &rest, &uncharged, spare - lost)
    }

    /// What is lost at least where vertices may leave by half, and which of them that decides.
    fn halve(&mut self, stand: &mut Stand) -> Look {
        let Some(mut halves) = stand.halves.take() else { return Look::Open };
        let before = bits::count(&stand.open);
        let spare = (stand.sum[self.halves_at] - self.problem.need[self.halves_at]) * 2;
        halves.narrow(&self.foes, &stand.open);
        let endings = halves.fill(&self.foes, spare, &mut self.left);
        if halves.lost() > spare {
            return Look::Dead;
        }
        // Ways were too long, or steps ran out: then the other bounds have to do.
        let Some(endings) = endings else { return Look::Open };
        // By what leaves another dimension might be lost.
        if self.problem.telling.len() == 1 {
            for vertex in bits::iter(&stand.open.clone()) {
                if endings[vertex] == Ending::Leaves {
                    self.leave(stand, vertex);
                }
            }
        }
        if bits::count(&stand.open) < before {
            stand.halves = Some(halves);
            return Look::Fewer;
        }
        let rest: Vec<u64> = (0..self.problem.len()).map(|vertex| halves.rest(vertex)).collect();
        let mut uncharged = stand.open.clone();
        bits::iter(&stand.open)
            .filter(|&vertex| rest[vertex] == 0)
            .for_each(|vertex| bits::clear(&mut uncharged, vertex));
        let slack = spare - halves.lost();
        let look = self.decide_by(stand, &rest, &uncharged, slack);
        // Where everything leaves by half, it will hardly say more later.
        if bits::count(&uncharged) > 0 || slack * HALVES_FAR < spare {
            stand.halves = Some(halves);
        }
        look
    }

    /// A vertex that leaves costs what was not charged to it, one that stays what was not charged
    /// to its foes.
    fn decide_by(
        &mut self,
        stand: &mut Stand,
        rest: &[u64],
        uncharged: &[u64],
        slack: u64,
    ) -> Look {
        // What was not charged from each word on: mostly too little, so that no foe is looked at.
        let mut from = vec![0; uncharged.len() + 1];
        for (word, &set) in uncharged.iter().enumerate().rev() {
            let here = bits::iter_word(set).map(|bit| rest[bits::number(word, bit)]);
            from[word] = from[word + 1] + here.sum::<u64>();
        }
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for vertex in bits::iter(&stand.open) {
            if rest[vertex] > slack {
                stay.push(vertex);
                continue;
            }
            let mut sum = 0;
            for (word, (foes, set)) in self.foes(vertex).iter().zip(uncharged).enumerate() {
                if sum + from[word] <= slack || sum > slack {
                    break;
                }
                let foes = bits::iter_word(foes & set).map(|bit| rest[bits::number(word, bit)]);
                sum += foes.sum::<u64>();
            }
            if sum > slack {
                go.push(vertex);
            }
        }
        let before = bits::count(&stand.open);
        self.spend(before as u64);
        for vertex in go {
            self.leave(stand, vertex);
        }
        for vertex in stay {
            self.foes_leave(stand, vertex);
        }
        if bits::count(&stand.open) < before { Look::Fewer } else { Look::Open }
    }

    /// Of those that have foes the one by which most is lost either way: with what it has, or with
    /// what its foes have.
    fn heaviest(&self, stand: &Stand, at: usize) -> Option<usize> {
        let dims = self.problem.need.len();
        let against = |vertex: usize| &stand.against[vertex * dims..(vertex + 1) * dims];
        let lost = |&vertex: &usize| {
            let foes = against(vertex)[at];
            (u128::from(self.problem.have(vertex)[at]) * u128::from(foes), foes)
        };
        bits::iter(&stand.open)
            .filter(|&vertex| against(vertex).iter().any(|&foes| foes > 0))
            .max_by_key(|vertex| (lost(vertex), std::cmp::Reverse(*vertex)))
    }

    fn leave(&mut self, stand: &mut Stand, vertex: usize) {
        let (problem, dims) = (self.problem, self.problem.need.len());
        bits::clear(&mut stand.open, vertex);
        problem.take(&mut stand.sum, vertex);
        let mut seen = 0;
        for word in 0..problem.words {
            let foes = self.foes(vertex)[word] & stand.open[word];
            seen += u64::from(foes.count_ones());
            for bit in bits::iter_word(foes) {
                let foe = bits::number(word, bit);
                problem.take(&mut stand.against[foe * dims..(foe + 1) * dims], vertex);
            }
        }
        self.spend(1 + seen / 2);
    }

    fn foes_leave(&mut self, stand: &mut Stand, vertex: usize) {
        for foe in bits::iter(&bits::and(self.foes(vertex), &stand.open)) {
            self.leave(stand, foe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dive;
    use super::super::made::Made;
    use super::super::problem::Cost;
    use super::*;
    use crate::topology::FAR;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn it_finds_what_the_other_search_finds_and_proves_what_it_proves() {
        let (mut found, mut none) = (0, 0);
        for seed in 0..600 {
            let made = Made::of_seed(seed);
            let question = made.question();
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::new(&problem, FAR - 1, None);
            let mut work = 10_000_000;
            let other = dive::clique(&problem, &graph, &mut work);
            let mut work = u64::MAX;
            match clique(&problem, &graph, &mut work, || None) {
                Found::Clique(vertices) => {
                    found += 1;
                    assert!(graph.is_covered_by(&problem, &vertices), "seed {seed}");
                    assert_ne!(other, Found::None, "seed {seed}");
                }
                Found::None => {
                    // Where nothing is left alive, there was nothing to search.
                    none += u32::from(bits::count(&graph.alive) > 0);
                    assert!(!matches!(other, Found::Clique(_)), "seed {seed}");
                }
                Found::Aborted => panic!("seed {seed}: cut short without a limit"),
            }
        }
        assert!(found > 100 && none > 30, "{found} found, {none} proven that there are none");
    }

    #[test]
    fn halves_find_and_prove_no_other_thing_where_much_of_all_is_needed() {
        let (mut found, mut none) = (0, 0);
        for seed in 0..1_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let near_percent = rng.random_range(50..98);
            let made = Made::new(&mut rng, near_percent);
            let mut question = made.question();
            let all: u64 = question.vertices.iter().map(|vertex| vertex.have[0]).sum();
            let need = [all * rng.random_range(350..900) / 1_000, 0];
            question.need = &need;
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::open(&problem);
            if problem.covers(&problem.nothing()) || bits::count(&graph.alive) == 0 {
                continue;
            }
            let other = dive::clique(&problem, &graph, &mut (u64::MAX - 1));
            match clique(&problem, &graph, &mut (u64::MAX - 1), || None) {
                Found::Clique(vertices) => {
                    found += 1;
                    assert!(graph.is_covered_by(&problem, &vertices), "seed {seed}");
                    assert!(matches!(other, Found::Clique(_)), "seed {seed}");
                }
                Found::None => {
                    none += 1;
                    assert_eq!(other, Found::None, "seed {seed}");
                }
                Found::Aborted => panic!("seed {seed}: cut short without a limit"),
            }
        }
        assert!(found > 100 && none > 20, "{found} found, {none} proven that there are none");
    }

    #[test]
    fn a_search_cut_short_proves_nothing() {
        let mut cut = 0;
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let made = Made::new(&mut rng, 60);
            let question = made.question();
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::new(&problem, FAR - 1, None);
            let whole = clique(&problem, &graph, &mut (u64::MAX - 1), || None);
            let mut work = rng.random_range(0..600);
            let short = clique(&problem, &graph, &mut work, || None);
            assert!(short == whole || short == Found::Aborted, "seed {seed}");
            cut += u32::from(short == Found::Aborted);
        }
        assert!(cut > 20, "{cut} cut short");
    }

    #[test]
    fn sums_around_are_those_of_a_recount_after_pruning() {
        for seed in 0..200 {
            let made = Made::of_seed(seed);
            let question = made.question();
            let problem = Problem::new(&question, Cost::High, FAR);
            let graph = Graph::new(&problem, FAR - 1, None);
            let add = |mut sum: Vec<u64>, vertex| {
                problem.add(&mut sum, vertex);
                sum
            };
            let sum = bits::iter(&graph.alive).fold(problem.nothing(), add);
            assert_eq!(graph.sum(), sum, "seed {seed}");
            for vertex in bits::iter(&graph.alive) {
                let foes = bits::iter(&graph.alive)
                    .filter(|&foe| foe != vertex && !bits::has(graph.row(vertex), foe));
                let against: Vec<u64> = graph.against(&problem, vertex).collect();
                assert_eq!(against, foes.fold(problem.nothing(), add), "seed {seed}");
                let around = graph.around(vertex);
                let near = std::iter::once(vertex).chain(bits::iter(&around));
                assert!(problem.covers(&near.fold(problem.nothing(), add)), "seed {seed}");
            }
        }
    }
}
