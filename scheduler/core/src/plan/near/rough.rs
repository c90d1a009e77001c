//! Rough: covering cliques found quickly, without proof — by taking the roomiest, by taking the
//! nearest (ball), and from what two far ends have in common (lens).
//!
//! **Invariant:** what is found is a clique that covers; finding none proves nothing.

use super::graph::Graph;
use super::problem::Problem;
use crate::bits;

/// From each of so many vertices in turn, always the roomiest that is near all so far.
pub(super) fn roomiest(problem: &Problem<'_>, graph: &Graph, starts: usize) -> Option<Vec<usize>> {
    bits::iter(&graph.alive).take(starts).find_map(|start| {
        let mut open = graph.around(start);
        let mut chosen = vec![start];
        let mut sum = problem.nothing();
        problem.add(&mut sum, start);
        while !problem.covers(&sum) {
            // Vertices are numbered by falling room.
            let next = bits::first(&open)?;
            problem.add(&mut sum, next);
            chosen.push(next);
            bits::keep(&mut open, graph.row(next));
        }
        Some(chosen)
    })
}

/// A covering clique among the vertices near both `a` and `b`, which are near each other: those
/// in the way of most others leave first.
pub(super) fn lens(problem: &Problem<'_>, graph: &Graph, a: usize, b: usize) -> Option<Vec<usize>> {
    let mut open = bits::and(graph.row(a), graph.row(b));
    bits::keep(&mut open, &graph.alive);
    bits::set(&mut open, a);
    bits::set(&mut open, b);
    let mut sum = problem.nothing();
    for vertex in bits::iter(&open) {
        problem.add(&mut sum, vertex);
    }
    let lead = problem.lead;
    // For each vertex what of the lens it stands against.
    let mut against: Vec<(usize, u64)> = Vec::new();
    for vertex in bits::iter(&open) {
        let mut foes = open.clone();
        bits::remove(&mut foes, graph.row(vertex));
        let room = bits::iter(&foes).filter(|&foe| foe != vertex);
        against.push((vertex, room.map(|foe| problem.have(foe)[lead].max(1)).sum()));
    }
    loop {
        if !problem.covers(&sum) {
            return None;
        }
        let worst = against
            .iter()
            .filter(|(_, foes)| *foes > 0)
            .max_by(|(v, x), (w, y)| {
                let own = |vertex: usize| u128::from(problem.have(vertex)[lead].max(1));
                (u128::from(*x) * own(*w)).cmp(&(u128::from(*y) * own(*v))).then(v.cmp(w))
            })
            .map(|&(vertex, _)| vertex);
        let Some(worst) = worst else { return Some(bits::iter(&open).collect()) };
        bits::clear(&mut open, worst);
        for (total, gone) in sum.iter_mut().zip(problem.have(worst)) {
            *total = total.saturating_sub(*gone);
        }
        let room = problem.have(worst)[lead].max(1);
        against.retain(|&(vertex, _)| vertex != worst);
        for (vertex, foes) in &mut against {
            if !bits::has(graph.row(worst), *vertex) {
                *foes -= room;
            }
        }
    }
}
