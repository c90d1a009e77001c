//! The planner: which replica goes on which exact GPUs of which node.
//!
//! `ask` resolves the request (`terms` where it has many conditions), `alternatives` picks among
//! kinds of GPUs, `single` is the short way for what fits on one node; for gangs
//! `field` looks at every node once, `solve` chooses domain and sites (`near`), `pack` fills the
//! nodes of a `draft` (`bulk` whole pools at once, `exact` where small cases are tricky), `shrink` finds the largest gang when
//! not all fits, `explain` says why nothing does, `ahead` when something will, `quote` what a plan
//! amounts to, `preempt` who would have to give way, `quota` how many replicas a quota leaves. `home` replaces lost replicas near by; `ruled` takes the
//! gangs with rules among their members that the others do not know.
//! **Invariant:** a pure function of view, request, policy and budget; a plan proposes and changes
//! nothing; `State::apply` on the state that the view shows accepts it.

mod ahead;
mod alternatives;
mod ask;
mod bulk;
mod draft;
mod exact;
pub mod explain;
mod field;
mod home;
pub mod near;
mod pack;
pub(crate) mod policy;
pub mod preempt;
mod quota;
pub mod quote;
mod room;
mod ruled;
mod shrink;
mod single;
mod solve;
mod terms;
#[cfg(test)]
mod tests;
mod touched;

pub use explain::{Cause, Explanation, Nearest, Outlook, Unplaceable, Verdict, explain};
pub use policy::{Policy, PolicyError};

pub(crate) use ahead::Lookahead;

use crate::command::{Placement, Plan};
use crate::fit::{Around, NOBODY};
use crate::id::{NodeId, Rank};
use crate::job::JobSpec;
use crate::view::View;
use ask::Ask;
use draft::Base;
use field::Field;
use solve::Solver;

/// Which replicas want a node.
#[derive(Clone, Copy, Debug)]
pub enum Ranks<'a> {
    All,
    /// Repair or growth: these.
    Some(&'a [Rank]),
}

/// What is to be planned.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub spec: &'a JobSpec,
    pub ranks: Ranks<'a>,
    /// Live members that stay where they are; none of them may be in `ranks`.
    pub fixed: &'a [(Rank, NodeId)],
    /// Nodes not to use.
    pub avoid: &'a [NodeId],
    /// Nodes on which those of the ranks stood that were lost, where they are to be replaced near by.
    pub lost: &'a [(Rank, NodeId)],
    /// Where the tenant's other jobs stand, as `State::around` tells; [`NOBODY`] for a job without
    /// labels and affinities.
    pub around: &'a Around,
    /// Thousandths of GPUs that all placed for it may hold; replicas above the minima are left out
    /// for it, the last of each group first. Less than [`Request::least_gpu_milli`] is a case for
    /// [`explain()`] alone.
    pub gpu_milli_max: u64,
}

impl<'a> Request<'a> {
    /// All replicas of a job that has none yet.
    pub fn whole(spec: &'a JobSpec) -> Self {
        Self {
            spec,
            ranks: Ranks::All,
            fixed: &[],
            avoid: &[],
            lost: &[],
            around: &NOBODY,
            gpu_milli_max: u64::MAX,
        }
    }
}

/// How much work one plan may cost. A step is about one look at one node: some 5 ns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    pub steps_max: u64,
}

impl Default for Budget {
    /// Well over what the hardest gang over 150,000 nodes took in our measurements, and still
    /// under a second.
    fn default() -> Self {
        Self { steps_max: 50_000_000 }
    }
}

impl Budget {
    /// Steps that any plan is worth, and more for each node of the fleet: a small fleet answers the
    /// hardest request in little time, a large one uses the whole budget.
    const STEPS_BASE: u64 = 2_500_000;
    const STEPS_OF_NODE: u64 = 750;

    fn steps(self, view: &View) -> Steps {
        let nodes = u64::try_from(view.nodes_len()).unwrap_or(u64::MAX);
        let worth = nodes.saturating_mul(Self::STEPS_OF_NODE).saturating_add(Self::STEPS_BASE);
        Steps::new(self.steps_max.min(worth))
    }
}

/// What is left of a budget.
#[derive(Clone, Copy, Debug)]
struct Steps {
    limit: u64,
    /// May exceed the limit: work is counted when it is done.
    used: u64,
    /// Some search ended for want of steps.
    cut: bool,
}

impl Steps {
    fn new(limit: u64) -> Self {
        Self { limit, used: 0, cut: limit == 0 }
    }

    fn spend(&mut self, steps: u64) {
        self.used = self.used.saturating_add(steps);
        self.cut |= self.is_spent();
    }

    fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    fn is_spent(&self) -> bool {
        self.used >= self.limit
    }

    /// Lets `work` spend at most so much of what is left; all that it used is taken off.
    fn part<R>(&mut self, limit: u64, work: impl FnOnce(&mut Self) -> R) -> R {
        let mut part = Self::new(limit.min(self.left()));
        let result = work(&mut part);
        self.spend(part.used);
        self.cut |= part.cut;
        result
    }

    /// Lets `work` spend at most half of what is left, so that something remains for asking less.
    fn half<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        self.part(self.left().div_ceil(2), work)
    }
}

/// A plan, and whether it is all that could be found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    pub plan: Plan,
    /// The budget ran out: the plan keeps every rule and reaches every group's minimum, but with
    /// more steps there may be a larger one, or one with its members nearer to each other.
    pub exhausted: bool,
}

/// Plans the request against the view: all of its ranks if possible, else as many as reach every
/// group's minimum, else a refusal with numbers.
pub fn plan(
    view: &View,
    request: &Request<'_>,
    policy: &Policy,
    budget: Budget,
) -> Result<Plan, Unplaceable> {
    answer(view, request, policy, budget).map(|answer| answer.plan)
}

/// As [`plan`], and says when the budget ran out on the way.
pub fn answer(
    view: &View,
    request: &Request<'_>,
    policy: &Policy,
    budget: Budget,
) -> Result<Answer, Unplaceable> {
    let mut steps = budget.steps(view);
    let ask = Ask::new(view, request);
    match place(&ask, Some(*policy), &mut steps) {
        Placed::All(placements) => Ok(Answer { plan: Plan { placements }, exhausted: steps.cut }),
        Placed::Nowhere => Err(explain::alone(&ask, &mut steps)),
        Placed::NotAll(field) => Err(explain::unplaceable(&ask, &field, &mut steps)),
    }
}

/// What became of an ask.
enum Placed<'a> {
    /// Enough of it to start.
    All(Vec<Placement>),
    /// A single replica, and certainly no node for it.
    Nowhere,
    /// Too little; with what the fleet looked like.
    NotAll(Box<Field<'a>>),
}

/// Places what is asked; of lost replicas that are to be replaced near by, as many as can.
///
/// Without a policy a single replica goes where a node is found soonest.
fn place<'a>(ask: &Ask<'a>, policy: Option<Policy>, steps: &mut Steps) -> Placed<'a> {
    if ask.homes.is_empty() {
        place_chosen(ask, policy, steps)
    } else {
        home::place(ask, policy, steps)
    }
}

/// Places what is asked with the most wanted alternatives of GPUs that hold all of it: each group
/// with a single one if possible, the earlier groups first; else with any mixed.
fn place_chosen<'a>(ask: &Ask<'a>, policy: Option<Policy>, steps: &mut Steps) -> Placed<'a> {
    match alternatives::place(ask, policy, steps) {
        Some(found) => Placed::All(found),
        None => place_any(ask, policy, steps),
    }
}

fn place_any<'a>(ask: &Ask<'a>, policy: Option<Policy>, steps: &mut Steps) -> Placed<'a> {
    if ruled::applies(ask) {
        let single = policy.and_then(|policy| ruled::place_single(ask, policy, steps));
        return match single.or_else(|| ruled::place(ask, Base::Now, steps)) {
            Some(placements) if !placements.is_empty() => Placed::All(placements),
            _ => Placed::NotAll(Box::new(Field::new(ask, Base::Now, steps))),
        };
    }
    match single::place(ask, policy, steps) {
        single::Answer::Found(placements) => return Placed::All(placements),
        single::Answer::Nowhere => return Placed::Nowhere,
        single::Answer::Unknown => {}
    }
    let field = Field::new(ask, Base::Now, steps);
    let solver = Solver { ask, field: &field, base: Base::Now };
    let wanted: usize = ask.groups.iter().map(|group| group.ranks.len()).sum();
    let mut found = shrink::largest(&solver, steps).unwrap_or_default();
    if found.len() < wanted && solver.has_lone_sites() {
        // Sites that may take a single member of a gang are known to the careful way alone.
        let more = ruled::place(ask, Base::Now, steps).unwrap_or_default();
        if more.len() > found.len() {
            found = more;
        }
    }
    if found.is_empty() { Placed::NotAll(Box::new(field)) } else { Placed::All(found) }
}

/// As [`plan`], without reasons and by no policy.
fn attempt(view: &View, request: &Request<'_>, steps: &mut Steps) -> Option<Vec<Placement>> {
    match place(&Ask::new(view, request), None, steps) {
        Placed::All(placements) => Some(placements),
        Placed::Nowhere | Placed::NotAll(_) => None,
    }
}

/// Whether [`plan`] would find something: places the least that is needed and no more.
fn probe(view: &View, request: &Request<'_>, steps: &mut Steps) -> Option<Vec<Placement>> {
    let mut ask = Ask::new(view, request);
    ask.keep_minimum();
    match place(&ask, None, steps) {
        Placed::All(placements) => Some(placements),
        Placed::Nowhere | Placed::NotAll(_) => None,
    }
}

/// As [`plan`], for callers that need no reasons: a refusal costs no more than finding it out.
pub fn find(view: &View, request: &Request<'_>, policy: &Policy, budget: Budget) -> Option<Plan> {
    let mut steps = budget.steps(view);
    match place(&Ask::new(view, request), Some(*policy), &mut steps) {
        Placed::All(placements) => Some(Plan { placements }),
        Placed::Nowhere | Placed::NotAll(_) => None,
    }
}
