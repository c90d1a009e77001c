//! Diameter: covering cliques under a bound, and the one with the least largest cost.
//!
//! Binary search on the cost; for each, quick ways first and then the exact search under a limit
//! of work. What that left undecided is searched through lenses: the two ends of the widest pair
//! and what lies near both, by rising cost.
//! **Invariant:** an abort is never taken for a proof.

use super::super::Steps;
use super::dive::{self, Found};
use super::graph::Graph;
use super::problem::Problem;
use super::rough;
use super::shed;
use super::swap::Swap;
use crate::bits;
use crate::topology::FAR;

/// Vertices from which the quick way starts before an exact search has its turn.
const STARTS: usize = 4;
/// One pair in so many may not stand together where it is quicker to ask which sites leave than
/// which come.
const FEW_FOES: usize = 3;
/// Elsewhere that question has so many steps for each vertex: enough for its first bounds.
const FIRST_BOUNDS: usize = 64;
/// But where one pair in so many may not stand together, which come is known sooner than those
/// bounds.
const MANY_FOES: usize = 2;
/// Steps for a local search where the exact one ran out of them: some 500 moves among a thousand
/// sites, of which most that find anything need fewer.
const SWAP_STEPS: u64 = 120_000;
/// And so many moves at most: of those with fewer sites, more hardly ever find anything.
const SWAP_MOVES: u64 = 1_000;
/// Of the steps of one answer all but so many are for the exact search, where nothing else is asked
/// for: so many take a local search some 200 microseconds.
const SWAP_PART: u64 = 60_000;
/// Moves of it before the exact search branches: of the cliques that there are, these find most.
const GUESS_MOVES: u64 = 200;

/// Steps for a yes or no: two milliseconds. Laying out a thousand sites takes half of them.
const ANY_STEPS: u64 = 400_000;

/// How hard to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Steps for the question whether the need can be covered at all.
    pub(super) decide: u64,
    /// Steps for each tighter cost that is tried.
    pub(super) tighten: u64,
    /// Tries that may stay undecided before tightening ends.
    pub(super) undecided_max: u32,
    /// Tightening ends when at most one part in so many could be won.
    pub(super) precision: u32,
    /// Steps for the lenses between what is proven and what was found.
    pub(super) lens: u64,
}

impl Effort {
    /// The question was only whether, and where: near is welcome, but not at any price.
    /// Deciding a bound takes a millisecond with a thousand sites, some three where it is hard;
    /// each tightening a fraction of that.
    pub(super) const QUICK: Self =
        Self { decide: 220_000, tighten: 60_000, undecided_max: 2, precision: 32, lens: 0 };
    /// The smallest diameter was asked for: below 6 ms over 242 measured cities, some 70 ms with a
    /// thousand sites of which half are needed.
    pub(super) const THOROUGH: Self = Self {
        decide: 400_000,
        tighten: 400_000,
        undecided_max: 4,
        precision: u32::MAX,
        lens: 400_000,
    };
}

/// The best clique found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Best {
    pub(super) vertices: Vec<usize>,
    pub(super) cost: u32,
    /// No clique of a lower cost covers: proven.
    pub(super) floor: u32,
}

/// A covering clique of the graph, for an answer that has taken so many steps already: what it has
/// left of those for one is for the search.
pub(super) fn any(problem: &Problem<'_>, graph: &Graph, spent: u64, steps: &mut Steps) -> Found {
    let left = ANY_STEPS.saturating_sub(SWAP_PART).saturating_sub(spent);
    settle(problem, graph, left.max(Effort::QUICK.decide), steps)
}

/// The covering clique with the least largest cost.
/// `first` is a covering clique, where one is known.
pub(super) fn least(
    problem: &Problem<'_>,
    first: Option<Vec<usize>>,
    effort: &Effort,
    steps: &mut Steps,
) -> Result<Best, Found> {
    let mut within = None;
    let found = match first {
        Some(first) => Found::Clique(first),
        None => decide(problem, FAR - 1, effort.decide, &mut within, steps),
    };
    let first = match found {
        Found::Clique(vertices) => problem.lean(vertices),
        other => return Err(other),
    };
    let mut best = Best { cost: problem.diameter(&first), vertices: first, floor: 0 };
    let (mut low, mut undecided) = (0u32, 0);
    while low < best.cost
        && best.cost - low > best.cost / effort.precision
        && undecided < effort.undecided_max
        && !steps.is_spent()
    {
        let middle = low + (best.cost - low) / 2;
        match decide(problem, middle, effort.tighten, &mut within, steps) {
            Found::Clique(vertices) => {
                best.vertices = problem.lean(vertices);
                best.cost = problem.diameter(&best.vertices);
            }
            Found::None => {
                low = middle + 1;
                best.floor = low;
            }
            // Above, something tighter than the best may still be found.
            Found::Aborted => {
                undecided += 1;
                low = middle + 1;
            }
        }
    }
    if undecided > 0 && effort.lens > 0 {
        through_lenses(problem, &mut best, effort.lens.min(steps.left()), steps);
    }
    Ok(best)
}

/// Whether a clique of at most this cost covers. `within`: vertices alive at a higher cost; those
/// at this one, once there is a clique: after that only lower costs are asked for.
fn decide(
    problem: &Problem<'_>,
    cost_max: u32,
    work_max: u64,
    within: &mut Option<Vec<u64>>,
    steps: &mut Steps,
) -> Found {
    let graph = Graph::new(problem, cost_max, within.as_deref());
    let (count, words) = (problem.len() as u64, problem.words as u64);
    // Laying out the graph looks at 64 pairs in some 30 ns; pruning and the quick way are alike.
    steps.spend(count * words * 8);
    let found = settle(problem, &graph, work_max, steps);
    if matches!(found, Found::Clique(_)) {
        *within = Some(graph.alive);
    }
    found
}

/// Whether a clique of the graph covers.
fn settle(problem: &Problem<'_>, graph: &Graph, work_max: u64, steps: &mut Steps) -> Found {
    if problem.covers(&problem.nothing()) {
        return Found::Clique(Vec::new());
    }
    if bits::count(&graph.alive) == 0 {
        return Found::None;
    }
    if let Some(vertices) = rough::roomiest(problem, graph, STARTS) {
        return Found::Clique(vertices);
    }
    let limit = work_max.min(steps.left());
    let alive = bits::count(&graph.alive);
    let foes = graph.foes_count();
    let is_sparse = foes * FEW_FOES <= alive * alive;
    // Its bound alone often says no, even where the other search is the quicker one.
    let part = match is_sparse {
        true => limit,
        false if foes * MANY_FOES > alive * alive => 0,
        false => limit.min((alive * FIRST_BOUNDS) as u64),
    };
    let mut work = part;
    let mut swap = Swap::new(problem, graph);
    let swaps_max = SWAP_STEPS.min(swap.steps(SWAP_MOVES)).min(steps.left());
    let mut swaps = swaps_max;
    let guess = || {
        if !is_sparse {
            return None;
        }
        let mut guess = swap.steps(GUESS_MOVES).min(swaps);
        swaps -= guess;
        let found = swap.clique(&mut guess);
        swaps += guess;
        found
    };
    let mut found = match part {
        0 => Found::Aborted,
        _ => shed::clique(problem, graph, &mut work, guess),
    };
    work += limit - part;
    if found == Found::Aborted && !is_sparse {
        found = dive::clique(problem, graph, &mut work);
    }
    if found == Found::Aborted {
        found = swap.clique(&mut swaps).map_or(found, Found::Clique);
    }
    steps.spend(limit - work + swaps_max - swaps);
    found
}

/// Pairs by rising cost from the floor up, as the widest of a clique that lies near both.
fn through_lenses(problem: &Problem<'_>, best: &mut Best, work_max: u64, steps: &mut Steps) {
    let mut pairs: Vec<(u32, u32, u32)> = Vec::new();
    for a in 0..problem.len() {
        let row = problem.costs(a).iter().enumerate().skip(a + 1);
        let between = row.filter(|&(_, &cost)| cost >= best.floor && cost < best.cost);
        pairs.extend(between.map(|(b, &cost)| (cost, a as u32, b as u32)));
    }
    pairs.sort_unstable();
    let (mut graph, mut laid) = (None::<Graph>, 0u32);
    let words = problem.words as u64;
    let mut work = work_max;
    for &(cost, a, b) in &pairs {
        if work == 0 {
            break;
        }
        // A graph that is a little too wide finds a little too wide a clique, and saves most of
        // the laying out.
        if graph.is_none() || cost > laid {
            laid = cost.saturating_add(cost / 64);
            graph = Some(Graph::new(problem, laid.min(FAR - 1), None));
            work = work.saturating_sub(problem.len() as u64 * words * 8);
        }
        let Some(graph) = &graph else { break };
        let (a, b) = (a as usize, b as usize);
        if !bits::has(&graph.alive, a) || !bits::has(&graph.alive, b) {
            continue;
        }
        let common = bits::count(&bits::and(graph.row(a), graph.row(b))) as u64 + 2;
        work = work.saturating_sub(common * (words + common) / 4 + 1);
        let Some(vertices) = rough::lens(problem, graph, a, b) else { continue };
        let vertices = problem.lean(vertices);
        let cost = problem.diameter(&vertices);
        if cost < best.cost {
            (best.vertices, best.cost) = (vertices, cost);
            break;
        }
    }
    steps.spend(work_max - work);
}

#[cfg(test)]
mod tests {
    use super::super::{Answer, Objective, Question, Vertex, any_within_steps};
    use super::*;
    use crate::fixture::cities::no_geometry;
    use crate::topology::Net;

    /// Sites without geometry under bounds near the least possible one, which no search decides in
    /// time every time.
    #[test]
    fn a_yes_or_no_takes_no_more_steps_than_one_may() {
        let (mut open, mut most) = (0, 0);
        for seed in 0..4 {
            let net = Net::new(&no_geometry(300, seed));
            let vertices: Vec<Vertex> =
                (0..300).map(|site| Vertex::new(site, vec![100 + u64::from(site) * 7])).collect();
            let all: u64 = vertices.iter().map(|vertex| vertex.have[0]).sum();
            for (part, bound_ms) in [(30, 150), (20, 200), (14, 225), (12, 250), (8, 300)] {
                let question = Question {
                    net: &net,
                    vertices: &vertices,
                    need: &[all / part],
                    fixed: &[],
                    bound_us: Some(bound_ms * 1_000),
                    objective: Objective::Any,
                };
                let mut steps = Steps::new(u64::MAX);
                let answer = any_within_steps(&question, &mut steps);
                open += u32::from(answer == Answer::Aborted);
                most = most.max(steps.used);
            }
        }
        assert!(most <= ANY_STEPS, "{most} steps");
        assert!(open > 0 && most * 2 > ANY_STEPS, "{open} open, {most} steps");
    }
}
