//! Mean: sites with a small mean RTT over all pairs of members.
//!
//! Around each site the nearest ones are filled up (star); the best of these fills are then
//! improved by moving members from one site to another as long as that pays. Members here are
//! units of the scarcest dimension. Where inner RTTs are small, moving is concave: it pays most to
//! move all that can be moved.
//! **Invariant:** the sites used are a covering clique of the graph under the bound.

use super::super::Steps;
use super::graph::Graph;
use super::problem::Cost;
use super::problem::Problem;
use super::{Answer, Choice, Found, Question, Vertex, describe, diameter, spend_layout, unfound};
use crate::bits;
use crate::topology::FAR;
use std::collections::BTreeSet;

/// Fills that are improved by moves; with few sites, all are.
const IMPROVED_MAX: usize = 8;
/// Sites up to which all fills are improved.
const FEW_SITES: usize = 64;
/// Sites near a promising centre, as a multiple of those that its fill takes.
const SPARE_SITES: usize = 4;
/// Rounds of moves for one fill; a round makes the best move there is.
const MOVES_MAX: usize = 400;
/// Members up to which fills are improved: the sum of their RTTs to one place, some times over,
/// does not overflow 64 bits. A hundred times the GPUs of the largest fleet.
const MEMBERS_MAX: u64 = 1 << 27;

pub(super) fn choose(question: &Question<'_>, steps: &mut Steps) -> Answer {
    let near = promising(question, steps);
    let smaller = Question { vertices: &near, ..*question };
    let problem = &Problem::new(&smaller, Cost::Median, FAR);
    spend_layout(problem, steps);
    if problem.covers(&problem.nothing()) {
        return Answer::Chosen(describe(question, problem, &[], 0));
    }
    match around(question, &smaller, problem, steps) {
        // Among the others there may be room.
        Answer::Infeasible | Answer::Aborted if near.len() < question.vertices.len() => {
            let problem = &Problem::new(question, Cost::Median, FAR);
            spend_layout(problem, steps);
            around(question, question, problem, steps)
        }
        answer => answer,
    }
}

/// The best fill among the vertices of the problem, held against the floor of the `whole` question.
fn around(
    whole: &Question<'_>,
    question: &Question<'_>,
    problem: &Problem<'_>,
    steps: &mut Steps,
) -> Answer {
    let graph = Graph::new(problem, FAR - 1, None);
    let sums = Sums::new(question, problem);
    let improved = if problem.len() <= FEW_SITES { usize::MAX } else { IMPROVED_MAX };
    let mut fills = stars(question, problem, &graph, &sums, improved, steps);
    if fills.is_empty() {
        // Greedy found nothing within the bound; the exact search may.
        match diameter::any(problem, &graph, 0, steps) {
            Found::Clique(vertices) => {
                fills.extend(sums.fill(problem, &problem.lean(vertices), i128::MAX));
            }
            found => return unfound(&found),
        }
    }
    let mut best: Option<Fill> = None;
    let mut seen = BTreeSet::new();
    for mut fill in fills {
        if sums.units.saturating_add(sums.staying) <= MEMBERS_MAX && !steps.is_spent() {
            sums.improve(problem, &graph, &mut fill, &mut seen, steps);
        }
        if best.as_ref().is_none_or(|best| fill.twice < best.twice) {
            best = Some(fill);
        }
    }
    let Some(best) = best else { return Answer::Aborted };
    let vertices: Vec<usize> = best.used().collect();
    let floor = sums.mean(floor(whole, problem.dimension, steps));
    let choice = describe(question, problem, &vertices, floor);
    Answer::Chosen(Choice { mean_us: Some(sums.mean(best.twice)), ..choice })
}

/// All vertices where they are few; else those around the centres to which the needed amounts are
/// nearest, each with several times as many sites as a fill takes.
fn promising(question: &Question<'_>, steps: &mut Steps) -> Vec<Vertex> {
    if question.vertices.len() <= FEW_SITES {
        return question.vertices.to_vec();
    }
    let wanted: Vec<usize> = (0..question.need.len()).filter(|&at| question.need[at] > 0).collect();
    let mut at_site: Vec<Option<&Vertex>> = vec![None; question.net.len()];
    for vertex in question.vertices {
        if let Some(cell) = at_site.get_mut(usize::from(vertex.site)) {
            *cell = Some(vertex);
        }
    }
    // Of every centre: members times RTT of the nearest that hold the need, by the dimension that
    // is needed most, and how many sites that takes.
    let lead = wanted.iter().copied().max_by_key(|&at| question.need[at]).unwrap_or(0);
    let bound = question.bound_us.unwrap_or(FAR - 1);
    let mut centres: Vec<(u128, usize, u16)> = Vec::new();
    for centre in question.vertices {
        let high = question.net.high_row(centre.site);
        let usual = question.net.median_row(centre.site);
        let (mut left, mut sum, mut taken) = (question.need[lead], 0u128, 0usize);
        for &site in question.net.order(centre.site) {
            let place = usize::from(site);
            let Some(vertex) = at_site.get(place).copied().flatten() else { continue };
            if high.get(place).is_none_or(|&high| high > bound) {
                continue;
            }
            let some = vertex.have.get(lead).copied().unwrap_or(0).min(left);
            sum += u128::from(some) * u128::from(usual.get(place).copied().unwrap_or(FAR));
            left -= some;
            taken += 1;
            if left == 0 {
                centres.push((sum, taken, centre.site));
                break;
            }
        }
        steps.spend(taken as u64);
    }
    centres.sort_unstable();
    let mut chosen = vec![false; question.net.len()];
    for &(_, taken, centre) in centres.iter().take(IMPROVED_MAX) {
        let order = question.net.order(centre).iter().map(|&site| usize::from(site));
        let usable = order.filter(|&place| at_site.get(place).copied().flatten().is_some());
        for place in usable.take(taken * SPARE_SITES + SPARE_SITES) {
            chosen[place] = true;
        }
    }
    let vertices = question.vertices.iter();
    vertices.filter(|vertex| chosen[usize::from(vertex.site)]).cloned().collect()
}

/// What no choice can go below, as twice a sum over pairs: every member pays at least for the
/// nearest others there could be, and members take the cheapest vertices (the bound of Gilmore and
/// Lawler for quadratic assignment). Over all vertices of the question, by one of its dimensions.
fn floor(question: &Question<'_>, dimension: usize, steps: &mut Steps) -> i128 {
    let need = question.need.get(dimension).copied().unwrap_or(0);
    let bound = question.bound_us.unwrap_or(FAR - 1);
    let mut rooms = vec![0u64; question.net.len()];
    for vertex in question.vertices {
        if let Some(cell) = rooms.get_mut(usize::from(vertex.site)) {
            *cell = vertex.have.get(dimension).copied().unwrap_or(0).min(need);
        }
    }
    let mut prices: Vec<(i128, u64)> = Vec::with_capacity(question.vertices.len());
    for vertex in question.vertices {
        let place = usize::from(vertex.site);
        let high = question.net.high_row(vertex.site);
        let usual = question.net.median_row(vertex.site);
        let fixed = question.fixed.iter().map(|&(site, units)| {
            i128::from(question.net.median(vertex.site, site)) * i128::from(units)
        });
        let (mut left, mut price) = (need.saturating_sub(1), 2 * fixed.sum::<i128>());
        let mut looked = 0;
        for other in question.net.order(vertex.site).iter().map(|&site| usize::from(site)) {
            if left == 0 {
                break;
            }
            looked += 1;
            let known = rooms.get(other).zip(high.get(other)).zip(usual.get(other));
            let Some(((&room, &high), &usual)) = known else { continue };
            if high <= bound {
                let some = room.saturating_sub(u64::from(other == place)).min(left);
                price += i128::from(some) * i128::from(usual);
                left -= some;
            }
        }
        steps.spend(looked);
        if left == 0 {
            prices.push((price, rooms.get(place).copied().unwrap_or(0)));
        }
    }
    prices.sort_unstable();
    let (mut left, mut twice) = (need, 0);
    for (price, room) in prices {
        let some = room.min(left);
        twice += price * i128::from(some);
        left -= some;
    }
    twice
}

/// Members per vertex, and twice the sum of RTTs over all their pairs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Fill {
    twice: i128,
    units: Vec<u64>,
}

impl Fill {
    fn used(&self) -> impl Iterator<Item = usize> {
        self.units.iter().enumerate().filter(|(_, units)| **units > 0).map(|(vertex, _)| vertex)
    }
}

/// What sums over pairs of members need beside the problem.
struct Sums {
    /// Members to be placed, and those that stay.
    units: u64,
    staying: u64,
    /// Per vertex: sum of the RTTs to members that stay.
    to_fixed: Vec<i128>,
    /// Vertex of each site.
    vertex_at: Vec<Option<u32>>,
}

impl Sums {
    fn new(question: &Question<'_>, problem: &Problem<'_>) -> Self {
        let to_fixed = |&site: &u16| {
            let far = question.fixed.iter().map(|&(fixed, units)| {
                i128::from(question.net.median(site, fixed)) * i128::from(units)
            });
            far.sum()
        };
        let mut vertex_at = vec![None; question.net.len()];
        for (vertex, &site) in (0u32..).zip(&problem.sites) {
            if let Some(cell) = vertex_at.get_mut(usize::from(site)) {
                *cell = Some(vertex);
            }
        }
        Self {
            units: problem.need[problem.lead],
            staying: question.fixed.iter().map(|(_, units)| units).sum(),
            to_fixed: problem.sites.iter().map(to_fixed).collect(),
            vertex_at,
        }
    }

    /// Mean in microseconds of twice a sum over pairs; pairs of members that stay are left out.
    fn mean(&self, twice: i128) -> u32 {
        let (new, old) = (i128::from(self.units), i128::from(self.staying));
        let pairs = new * (new - 1) + 2 * new * old;
        u32::try_from(if pairs > 0 { (twice + pairs / 2) / pairs } else { 0 }).unwrap_or(FAR)
    }

    /// As many members as each can hold, the first vertices first. `None` if they hold too few, or
    /// twice the sum is more than this.
    fn fill(&self, problem: &Problem<'_>, vertices: &[usize], twice_max: i128) -> Option<Fill> {
        let mut left = self.units;
        let mut used = Vec::with_capacity(vertices.len());
        for &vertex in vertices {
            let some = problem.have(vertex)[problem.lead].min(left);
            used.extend((some > 0).then_some((vertex, some)));
            left -= some;
        }
        let twice = self.twice(problem, &used, twice_max).filter(|_| left == 0)?;
        let mut units = vec![0; problem.len()];
        used.into_iter().for_each(|(vertex, some)| units[vertex] = some);
        Some(Fill { twice, units })
    }

    /// Twice the sum over the pairs of so many members at these; `None` if it is more than this.
    fn twice(&self, problem: &Problem<'_>, used: &[(usize, u64)], twice_max: i128) -> Option<i128> {
        let mut twice = 0;
        for (at, &(vertex, units)) in used.iter().enumerate() {
            let costs = problem.costs(vertex);
            let others = used[..at].iter();
            // Costs are the same both ways: each pair of sites is looked at once.
            let far = if self.units <= MEMBERS_MAX {
                i128::from(others.map(|&(other, n)| n * u64::from(costs[other])).sum::<u64>())
            } else {
                others.map(|&(other, n)| i128::from(n) * i128::from(costs[other])).sum()
            };
            let (units, itself) = (i128::from(units), i128::from(costs[vertex]));
            twice += units * (2 * far + (units - 1) * itself + 2 * self.to_fixed[vertex]);
            if twice > twice_max {
                return None;
            }
        }
        Some(twice)
    }

    /// Vertices by rising usual RTT from the site, its own among them.
    fn by_distance<'a>(
        &'a self,
        question: &'a Question<'_>,
        site: u16,
    ) -> impl Iterator<Item = usize> + 'a {
        let order = question.net.order(site).iter();
        order.filter_map(|&to| Some(self.vertex_at.get(usize::from(to)).copied()?? as usize))
    }

    /// Makes the best move again and again, until there is none or another fill has been where this
    /// one is: from there on they are one.
    fn improve(
        &self,
        problem: &Problem<'_>,
        graph: &Graph,
        fill: &mut Fill,
        seen: &mut BTreeSet<Vec<u64>>,
        steps: &mut Steps,
    ) {
        let count = problem.len();
        // Per vertex: sum of the RTTs to all members; used vertices it may not stand with.
        let narrow = |sum: &i128| i64::try_from(*sum).unwrap_or(i64::MAX / 8);
        let mut sums: Vec<i64> = self.to_fixed.iter().map(narrow).collect();
        let mut foes = vec![0u32; count];
        let mut held = problem.nothing();
        for vertex in fill.used().collect::<Vec<_>>() {
            shift(problem, &mut sums, vertex, signed(fill.units[vertex]));
            mark_foes(problem, graph, &mut foes, vertex, true);
            problem.add(&mut held, vertex);
        }
        for _ in 0..MOVES_MAX {
            let used = fill.used().count();
            if steps.is_spent() || !seen.insert(fill.units.clone()) {
                return;
            }
            steps.spend((used * count) as u64 / 2);
            let stand = Stand { problem, graph, fill, sums: &sums, foes: &foes, held: &held };
            let Some((gain, from, to, units)) = stand.best_move() else { return };
            let empties = fill.units[from] == units;
            if fill.units[to] == 0 {
                mark_foes(problem, graph, &mut foes, to, true);
                problem.add(&mut held, to);
            }
            fill.units[from] -= units;
            fill.units[to] += units;
            if empties {
                mark_foes(problem, graph, &mut foes, from, false);
                for (total, gone) in held.iter_mut().zip(problem.have(from)) {
                    *total = total.saturating_sub(*gone);
                }
            }
            shift(problem, &mut sums, from, -signed(units));
            shift(problem, &mut sums, to, signed(units));
            fill.twice += gain;
        }
    }
}

/// Members as a factor, of which there are at most [`MEMBERS_MAX`] where this is asked.
fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}

/// Takes so many members more at the vertex into the sums of RTTs to all members.
fn shift(problem: &Problem<'_>, sums: &mut [i64], vertex: usize, units: i64) {
    for (sum, &cost) in sums.iter_mut().zip(problem.costs(vertex)) {
        if cost != FAR {
            *sum += units * i64::from(cost);
        }
    }
}

/// Counts the vertex in or out among the foes of those that may not stand with it.
fn mark_foes(problem: &Problem<'_>, graph: &Graph, foes: &mut [u32], vertex: usize, enters: bool) {
    let row = graph.row(vertex);
    for (other, count) in foes.iter_mut().enumerate().take(problem.len()) {
        if other != vertex && !bits::has(row, other) {
            *count = if enters { *count + 1 } else { count.saturating_sub(1) };
        }
    }
}

/// Where a fill stands between two moves.
struct Stand<'a> {
    problem: &'a Problem<'a>,
    graph: &'a Graph,
    fill: &'a Fill,
    /// Per vertex: sum of the RTTs to all members. Pairs barred by the bound count nothing.
    sums: &'a [i64],
    /// Per vertex: used ones with which it may not stand.
    foes: &'a [u32],
    /// What the used ones have together.
    held: &'a [u64],
}

impl Stand<'_> {
    /// Change of twice the sum, from, to, how many; only if it is less than nothing.
    fn best_move(&self) -> Option<(i128, usize, usize, u64)> {
        let (problem, fill) = (self.problem, self.fill);
        let lead = problem.lead;
        let mut best: Option<(i128, usize, usize, u64)> = None;
        let inner = |vertex: usize| match problem.cost(vertex, vertex) {
            FAR => 0,
            cost => i64::from(cost),
        };
        // Per vertex that may be moved to: the room left, and its inner RTT.
        let targets: Vec<(usize, u64, i64)> = bits::iter(&self.graph.alive)
            .map(|to| (to, problem.have(to)[lead] - fill.units[to], inner(to)))
            .filter(|(_, room, _)| *room > 0)
            .collect();
        for from in fill.used() {
            let (row, costs) = (self.graph.row(from), problem.costs(from));
            let (there, own, own_sum) = (fill.units[from], inner(from), self.sums[from]);
            for &(to, room, other) in &targets {
                let units = there.min(room);
                let empties = units == there;
                // It may stand in the way of the vertex that leaves for it.
                let foes_max = u32::from(empties && !bits::has(row, to));
                if to == from || self.foes[to] > foes_max {
                    continue;
                }
                let between = match costs[to] {
                    FAR => 0,
                    cost => i64::from(cost),
                };
                let moved = signed(units);
                // Of each that moves; all of them together may take more than 64 bits.
                let each = 2 * (self.sums[to] - own_sum) + moved * (own + other - 2 * between)
                    - (other - own);
                if each >= 0 {
                    continue;
                }
                let gain = i128::from(each) * i128::from(moved);
                if gain < best.map_or(0, |(gain, ..)| gain) && self.keeps(from, to, empties) {
                    best = Some((gain, from, to, units));
                }
            }
        }
        best
    }

    /// Whether all dimensions stay covered after a move.
    fn keeps(&self, from: usize, to: usize, empties: bool) -> bool {
        if !empties {
            return true;
        }
        let adds = self.fill.units[to] == 0;
        let each = self.held.iter().zip(self.problem.have(from)).zip(self.problem.have(to));
        each.zip(&self.problem.need).all(|(((held, gone), more), need)| {
            held - gone.min(held) + if adds { *more } else { 0 } >= *need
        })
    }
}

/// Around each vertex the nearest that may stand together, until the need is covered: so many
/// different ones with the smallest sums, by rising sum.
fn stars(
    question: &Question<'_>,
    problem: &Problem<'_>,
    graph: &Graph,
    sums: &Sums,
    most: usize,
    steps: &mut Steps,
) -> Vec<Fill> {
    let mut fills = BTreeSet::new();
    for centre in bits::iter(&graph.alive) {
        if steps.is_spent() {
            break;
        }
        let mut open = graph.around(centre);
        bits::set(&mut open, centre);
        let mut chosen = Vec::new();
        let mut held = problem.nothing();
        let mut looked = 0;
        for vertex in sums.by_distance(question, problem.sites[centre]) {
            looked += 1;
            if bits::has(&open, vertex) {
                problem.add(&mut held, vertex);
                chosen.push(vertex);
                if problem.covers(&held) {
                    break;
                }
                bits::keep(&mut open, graph.row(vertex));
            }
        }
        steps.spend(looked + (chosen.len() * chosen.len()) as u64 / 4 + problem.len() as u64 / 2);
        if problem.covers(&held) {
            let last = fills.last().filter(|_| fills.len() >= most);
            let twice_max = last.map_or(i128::MAX, |last: &Fill| last.twice);
            fills.extend(sums.fill(problem, &chosen, twice_max));
            if fills.len() > most {
                fills.pop_last();
            }
        }
    }
    fills.into_iter().collect()
}
