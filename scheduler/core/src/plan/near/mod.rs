//! Near: which sites a gang takes, so that its members lie close in measured RTT.
//!
//! `telling` leaves out what need not be looked at, `cut` finds a first choice and what cannot be better, `problem` lays the question out,
//! `diameter` keeps a bound and makes the largest RTT small (by `shed`, with what `halves` prove, and
//! by `dive`, exactly, and by `rough` and `swap` where that would take too long), `mean` makes the mean small, `head` does both for the way
//! between a head and its members only, `miss` says how far off a refused gang was.
//! **Invariant:** what is chosen covers the need on paper and no two of its sites are farther apart
//! than the bound; running out of steps may cost nearness or the answer, and is told apart from
//! "there is none". RTTs need not keep the triangle inequality.

mod cut;
mod diameter;
mod dive;
mod graph;
mod halves;
mod head;
#[cfg(test)]
mod made;
mod mean;
mod miss;
mod problem;
mod rough;
mod shed;
mod swap;
mod telling;
#[cfg(test)]
mod tests;

pub use head::{Head, around_head};
pub use miss::{bound_needed, largest};
pub(super) use miss::{bound_needed_within_steps, largest_within_steps};

use super::{Budget, Steps};
use crate::topology::{FAR, Net};
use cut::{Goal, Looks};
use diameter::Effort;
use dive::Found;
use graph::Graph;
use problem::{Cost, Problem};

/// A site that may take part.
#[derive(Clone, Debug)]
pub struct Vertex {
    pub site: u16,
    /// What it holds along every dimension of the need.
    pub have: Vec<u64>,
    /// It takes one member at most, so that its inner RTT does not count.
    pub lone: bool,
}

impl Vertex {
    pub fn new(site: u16, have: Vec<u64>) -> Self {
        Self { site, have, lone: false }
    }

    /// A site for one member, where dimensions count members.
    pub fn lone(site: u16, mut have: Vec<u64>) -> Self {
        have.iter_mut().for_each(|room| *room = (*room).min(1));
        Self { site, have, lone: true }
    }
}

/// What of the RTTs is to be small. All go by medians.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Objective {
    /// Near is welcome, but not worth a long search.
    #[default]
    Any,
    /// The largest RTT between two members.
    Diameter,
    /// The mean RTT over all pairs of members.
    Mean,
}

/// Which sites should these members take?
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    pub net: &'a Net,
    /// At most one per site.
    pub vertices: &'a [Vertex],
    /// What the sites together must hold, per dimension.
    pub need: &'a [u64],
    /// Sites of members that stay, with how much of the need each would be; no site chosen may be
    /// farther from any of them than the bound.
    pub fixed: &'a [(u16, u64)],
    /// No high RTT between two sites may exceed it, nor inside one. `None`: any that is known.
    pub bound_us: Option<u32>,
    pub objective: Objective,
}

/// Sites that together hold what is needed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// By rising id.
    pub sites: Vec<u16>,
    /// Largest RTT among them, inside them and to members that stay: usual and high.
    pub median_us: u32,
    pub high_us: u32,
    /// Mean RTT over pairs of members on paper; only where that was the objective.
    pub mean_us: Option<u32>,
    /// Proven least of what was to be small: the objective's value is at least this.
    pub floor_us: u32,
}

/// The answer to a [`Question`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Chosen(Choice),
    /// Proven: no sites do.
    Infeasible,
    /// The steps ran out before that was certain.
    Aborted,
}

/// Chooses the sites.
pub fn choose(question: &Question<'_>, budget: Budget) -> Answer {
    within_steps(question, &mut Steps::new(budget.steps_max))
}

/// Only whether some sites do within the bound, and which; quicker than the best.
pub fn any(question: &Question<'_>, budget: Budget) -> Answer {
    any_within_steps(question, &mut Steps::new(budget.steps_max))
}

pub(super) fn within_steps(question: &Question<'_>, steps: &mut Steps) -> Answer {
    let effort = match question.objective {
        Objective::Any => Effort::QUICK,
        Objective::Diameter => Effort::THOROUGH,
        Objective::Mean => return mean::choose(question, steps),
    };
    let (problem, first) = lay_out(question, Cost::Median, steps);
    match diameter::least(&problem, first, &effort, steps) {
        Ok(best) => Answer::Chosen(describe(question, &problem, &best.vertices, best.floor)),
        Err(found) => unfound(&found),
    }
}

pub(super) fn any_within_steps(question: &Question<'_>, steps: &mut Steps) -> Answer {
    let before = steps.used;
    // Any will do: the first that is found.
    if let Some(first) = find_first(question, Cost::High, Goal::Any, steps) {
        let (median_us, high_us) = widest(question, &first.sites);
        let sites = first.sites;
        return Answer::Chosen(Choice { sites, median_us, high_us, mean_us: None, floor_us: 0 });
    }
    let problem = Problem::new(question, Cost::High, FAR);
    let graph = Graph::open(&problem);
    spend_layout(&problem, steps);
    match diameter::any(&problem, &graph, steps.used - before, steps) {
        Found::Clique(vertices) => {
            let vertices = problem.lean(vertices);
            Answer::Chosen(describe(question, &problem, &vertices, 0))
        }
        found => unfound(&found),
    }
}

fn unfound(found: &Found) -> Answer {
    match found {
        Found::Aborted => Answer::Aborted,
        Found::None | Found::Clique(_) => Answer::Infeasible,
    }
}

/// The problem without what cannot be better than a first choice, and that choice's vertices.
fn lay_out<'a>(
    question: &'a Question<'a>,
    cost: Cost,
    steps: &mut Steps,
) -> (Problem<'a>, Option<Vec<usize>>) {
    let first = find_first(question, cost, Goal::Near, steps);
    let cost_max = first.as_ref().map_or(FAR, |first| first.cost);
    let problem = Problem::new(question, cost, cost_max);
    spend_layout(&problem, steps);
    let vertices = first.map(|first| problem.vertices_of(&first.sites));
    (problem, vertices)
}

fn find_first(
    question: &Question<'_>,
    cost: Cost,
    goal: Goal,
    steps: &mut Steps,
) -> Option<cut::First> {
    let mut looks = Looks::new(goal);
    let first = cut::first(question, cost, goal, &mut looks);
    // A look at a pair takes about as long as a step.
    steps.spend(question.vertices.len() as u64 + looks.taken);
    first
}

fn spend_layout(problem: &Problem<'_>, steps: &mut Steps) {
    // Copying a pair takes about a nanosecond.
    steps.spend(problem.len() as u64 * problem.len() as u64 / 5);
}

fn describe(
    question: &Question<'_>,
    problem: &Problem<'_>,
    vertices: &[usize],
    floor_us: u32,
) -> Choice {
    let sites = problem.sites_of(vertices);
    let (median_us, high_us) = widest(question, &sites);
    Choice { sites, median_us, high_us, mean_us: None, floor_us }
}

/// Largest RTT among the sites, inside them and to members that stay: usual and high.
fn widest(question: &Question<'_>, sites: &[u16]) -> (u32, u32) {
    let mut lone = vec![false; question.net.len()];
    for vertex in question.vertices {
        lone.get_mut(usize::from(vertex.site)).into_iter().for_each(|cell| *cell = vertex.lone);
    }
    let (mut median, mut high) = (0, 0);
    for (at, &a) in sites.iter().enumerate() {
        let fixed = question.fixed.iter().map(|(site, _)| site);
        // Lone members have nobody beside them.
        let alone = lone.get(usize::from(a)).is_some_and(|lone| *lone);
        let others = &sites[at + usize::from(alone)..];
        let (usual_row, high_row) = (question.net.median_row(a), question.net.high_row(a));
        for &b in others.iter().chain(fixed) {
            let b = usize::from(b);
            median = median.max(usual_row.get(b).copied().unwrap_or(FAR));
            high = high.max(high_row.get(b).copied().unwrap_or(FAR));
        }
    }
    (median, high)
}
