//! Both exact searches against every way to keep foes apart: asked for just what there is and for
//! one more, and cut short after any number of steps.

use super::dive::{self, Found};
use super::graph::Graph;
use super::made::Made;
use super::problem::{Cost, Problem};
use super::{Question, Vertex, shed};
use crate::bits;
use crate::topology::FAR;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const ENOUGH: u64 = u64::MAX - 1;

/// One question to both searches.
struct Case<'a> {
    problem: Problem<'a>,
    graph: Graph,
    /// Whether there is a covering clique.
    is_there: bool,
}

impl Case<'_> {
    fn dive(&self, mut work: u64) -> Found {
        dive::clique(&self.problem, &self.graph, &mut work)
    }

    fn shed(&self, mut work: u64) -> Found {
        shed::clique(&self.problem, &self.graph, &mut work, || None)
    }

    /// Whether what was found is so; cut short, it may be open.
    fn is_right(&self, found: &Found) -> bool {
        match found {
            Found::Clique(vertices) => self.graph.is_covered_by(&self.problem, vertices),
            Found::None => !self.is_there,
            Found::Aborted => true,
        }
    }
}

/// What cliques hold that no further site may join; what others hold, too.
fn held(question: &Question<'_>) -> Vec<[u64; 2]> {
    let bound = question.bound_us.unwrap_or(FAR - 1);
    let near = |a: &Vertex, b: &Vertex| question.net.high(a.site, b.site) <= bound;
    let able = question.vertices.iter().filter(|vertex| vertex.lone || near(vertex, vertex));
    let able: Vec<&Vertex> = able.collect();
    let foes_of = |at: usize| {
        let foes = (0..able.len()).filter(|&foe| foe != at && !near(able[at], able[foe]));
        foes.fold(0, |foes, foe| foes | bits::single(foe))
    };
    let foes: Vec<u64> = (0..able.len()).map(foes_of).collect();
    let (mut held, mut opens) = (Vec::new(), vec![bits::single(able.len()) - 1]);
    while let Some(open) = opens.pop() {
        match bits::iter(&[open]).find(|&at| foes[at] & open != 0) {
            // It leaves, or its foes do.
            Some(at) => opens.extend([open & !bits::single(at), open & !foes[at]]),
            None => held.push(
                [0, 1]
                    .map(|dimension| bits::iter(&[open]).map(|at| able[at].have[dimension]).sum()),
            ),
        }
    }
    held
}

/// Asks for the most of one dimension, for what some clique holds of both, and for one more each.
fn each_case(seeds: std::ops::Range<u64>, mut check: impl FnMut(&Case<'_>, &str)) {
    for seed in seeds {
        let mut rng = StdRng::seed_from_u64(seed);
        let (len, near_percent) = (rng.random_range(8..20), rng.random_range(40..98));
        let made = Made::with_sites(&mut rng, len, near_percent);
        let question = made.question();
        let held = held(&question);
        let most = held.iter().map(|held| held[0]).max().unwrap_or(0);
        let [first, second] = held[rng.random_range(0..held.len())];
        for need in [[most, 0], [most + 1, 0], [first, second], [first, second + 1]] {
            let question = Question { need: &need, ..question };
            let problem = Problem::new(&question, Cost::High, FAR);
            if problem.covers(&problem.nothing()) {
                continue;
            }
            let graph = Graph::open(&problem);
            let is_there = held.iter().any(|held| held[0] >= need[0] && held[1] >= need[1]);
            check(&Case { problem, graph, is_there }, &format!("seed {seed}, need {need:?}"));
        }
    }
}

#[test]
fn just_what_there_is_is_found_and_one_more_is_proven_not_to_be() {
    let (mut found, mut none) = (0, 0);
    each_case(0..1_500, |case, called| {
        for answer in [case.dive(ENOUGH), case.shed(ENOUGH)] {
            assert!(case.is_right(&answer), "{called}: {answer:?}");
            assert_ne!(answer, Found::Aborted, "{called}");
        }
        // Where nothing is left alive, there was nothing to search.
        let is_search = bits::count(&case.graph.alive) > 0;
        found += u32::from(case.is_there);
        none += u32::from(is_search && !case.is_there);
    });
    assert!(found > 1_000 && none > 300, "{found} found, {none} proven that there are none");
}

#[test]
fn cut_short_anywhere_they_say_nothing_that_is_not_so() {
    let mut open = 0;
    each_case(0..300, |case, called| {
        let works = (0..8).chain((3..12).map(|bits| 3 << bits));
        for work in works {
            for answer in [case.dive(work), case.shed(work)] {
                assert!(case.is_right(&answer), "{called}, {work} steps: {answer:?}");
                open += u32::from(answer == Found::Aborted);
            }
        }
        assert_eq!(case.dive(0), Found::Aborted, "{called}: searched without a step");
    });
    assert!(open > 1_000, "{open} cut short");
}
