//! Telling: the dimensions of a need that must be looked at.
//!
//! Groups of one gang mostly want GPUs of the same nodes, and of their replicas and GPUs some run
//! short long before others: where every site holds at least the same part of the need in one
//! dimension as in another, what covers the other covers the one as well.
//! **Invariant:** sites that cover what is kept cover the whole need.

use super::{Question, Vertex};
use std::cmp::Ordering;

/// Pairs of dimensions held against each other; those after them are kept unseen.
const PAIRS_MAX: usize = 64;

/// Dimensions of which something is needed, without those that follow from others; rising.
pub(super) fn dimensions(question: &Question<'_>) -> Vec<usize> {
    let needed = (0..question.need.len()).filter(|&at| question.need[at] > 0);
    let (mut kept, mut pairs): (Vec<usize>, usize) = (Vec::new(), 0);
    for at in needed {
        let mut follows = false;
        kept.retain(|&other| {
            if follows || pairs >= PAIRS_MAX {
                return true;
            }
            pairs += 1;
            match compare(question, other, at) {
                // Of two alike the first.
                Some(Ordering::Less | Ordering::Equal) => {
                    follows = true;
                    true
                }
                Some(Ordering::Greater) => false,
                None => true,
            }
        });
        if !follows {
            kept.push(at);
        }
    }
    kept
}

/// The parts of the need that each vertex has in these two dimensions: less or the same at all of
/// them, more or the same, or neither.
fn compare(question: &Question<'_>, a: usize, b: usize) -> Option<Ordering> {
    let (need_a, need_b) = (question.need[a], question.need[b]);
    let have =
        |vertex: &Vertex, at: usize, need: u64| vertex.have.get(at).copied().unwrap_or(0).min(need);
    let mut all = Ordering::Equal;
    for vertex in question.vertices {
        let part_a = u128::from(have(vertex, a, need_a)) * u128::from(need_b);
        let part_b = u128::from(have(vertex, b, need_b)) * u128::from(need_a);
        let one = part_a.cmp(&part_b);
        if all == Ordering::Equal {
            all = one;
        } else if one != Ordering::Equal && one != all {
            return None;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::super::Objective;
    use super::*;
    use crate::topology::Net;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn covered(vertices: &[&Vertex], need: &[u64], dimensions: &[usize]) -> bool {
        let sum = |at: usize| vertices.iter().map(|vertex| vertex.have[at]).sum::<u64>();
        dimensions.iter().all(|&at| sum(at) >= need[at])
    }

    #[test]
    fn what_covers_the_dimensions_kept_covers_all_and_no_other_is_kept() {
        let (net, mut left_out, mut kept_all) = (Net::default(), 0, 0);
        for seed in 0..2_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let dims = rng.random_range(1..5usize);
            // Some dimensions go with the first, as GPUs go with replicas.
            let follows: Vec<bool> = (0..dims).map(|_| rng.random_range(0..3) == 0).collect();
            let vertex = |site: u16, rng: &mut StdRng| {
                let first = rng.random_range(0..7);
                let have = |at: usize, rng: &mut StdRng| match (at, follows[at]) {
                    (0, _) => first,
                    (_, true) => first * 2 + rng.random_range(0..2),
                    (_, false) => rng.random_range(0..7),
                };
                Vertex::new(site, (0..dims).map(|at| have(at, rng)).collect())
            };
            let vertices: Vec<Vertex> =
                (0..rng.random_range(1..8)).map(|site| vertex(site, &mut rng)).collect();
            let need: Vec<u64> = (0..dims).map(|_| rng.random_range(0..12)).collect();
            let (fixed, bound_us, objective) = (&[][..], None, Objective::Any);
            let question = Question {
                net: &net,
                vertices: &vertices,
                need: &need,
                fixed,
                bound_us,
                objective,
            };
            let kept = dimensions(&question);
            let all: Vec<usize> = (0..dims).collect();
            let needed = need.iter().filter(|&&need| need > 0).count();
            left_out += needed - kept.len();
            kept_all += usize::from(needed == kept.len());
            for subset in 0..1u32 << vertices.len() {
                let some: Vec<&Vertex> =
                    vertices.iter().filter(|vertex| subset & 1 << vertex.site != 0).collect();
                let is_covered = covered(&some, &need, &all);
                assert_eq!(covered(&some, &need, &kept), is_covered, "seed {seed}: {kept:?}");
            }
        }
        assert!(left_out > 500 && kept_all > 500, "{left_out} left out, {kept_all} kept all");
    }

    #[test]
    fn of_dimensions_that_are_alike_the_first_is_kept_and_unneeded_ones_never() {
        let vertices = [Vertex::new(0, vec![3, 9, 1, 6]), Vertex::new(1, vec![1, 9, 0, 2])];
        let need = &[4, 0, 4, 8][..];
        let (net, fixed, objective) = (&Net::default(), &[][..], Objective::Any);
        let question =
            Question { net, vertices: &vertices, need, fixed, bound_us: None, objective };
        assert_eq!(dimensions(&question), [2]);
        let need = &[4, 0, 0, 8][..];
        assert_eq!(dimensions(&Question { need, ..question }), [0]);
    }
}
