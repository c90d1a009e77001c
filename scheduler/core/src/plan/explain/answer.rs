//! Answer: the long form of an explanation — verdict, counts for every group, and what would help.
//!
//! **Invariant:** the view is the same afterwards; equal arguments give equal answers.

use super::cause::{Cause, Reach, count};
use super::outlook::Outlook;
use super::search::{Search, Standing};
use super::{Change, Verdict};
use crate::plan::ask::Ask;
use crate::plan::{Budget, Policy, Request, plan};
use crate::view::View;

/// Nodes per cause for one group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupCounts {
    /// Index of the group in the spec.
    pub group: usize,
    /// They sum to the fleet's nodes.
    pub counts: Vec<(Cause, u32)>,
    /// Replicas of it that could be placed now, by itself; at most as many as wait.
    pub placeable: u32,
    /// Replicas of it that wait.
    pub wanted: u32,
}

/// A change with which the planner placed the job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Help {
    pub change: Change,
    /// Whether one step less was seen not to do; else the budget ran out before that was known.
    pub is_least: bool,
}

/// All that can be said about a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    /// `None` = it would be placed now.
    pub verdict: Option<Verdict>,
    /// One line with numbers; empty when it would be placed.
    pub summary: String,
    /// Nodes of the fleet.
    pub nodes: u32,
    /// Index in the spec of the group that is hardest to place.
    pub hardest: usize,
    /// One item for each group with waiting replicas. [`Cause::TooFar`] is told for the hardest.
    pub groups: Vec<GroupCounts>,
    /// Each by itself would make it fit.
    pub helps: Vec<Help>,
    /// The budget ran out before every change was tried.
    pub is_cut_short: bool,
}

/// Explains why the request does not fit, and what would make it fit. The view is changed on the
/// way and put back. The budget is that of the search for what helps; without any, only the reasons
/// are told.
pub fn explain(
    view: &mut View,
    request: &Request<'_>,
    policy: &Policy,
    outlook: &Outlook,
    budget: Budget,
) -> Explanation {
    let least = request.least_gpu_milli();
    let left = request.gpu_milli_max;
    // The quota is told of as such; all else is told of all that is asked for.
    let request = &Request { gpu_milli_max: u64::MAX, ..*request };
    let refusal = plan(view, request, policy, Budget::default()).err();
    let ask = Ask::new(view, request);
    let hardest = refusal.as_ref().map_or(0, |refusal| refusal.group);
    let groups: Vec<GroupCounts> = (0..ask.groups.len())
        .filter_map(|at| {
            let asked = ask.groups.get(at)?;
            let (group, wanted) = (asked.group, asked.wanted());
            let told = refusal.as_ref().filter(|refusal| refusal.group == group);
            let counts = match told {
                Some(refusal) => refusal.counts.clone(),
                None => count(&ask, at, &Reach::new(&ask, at, None)).into_iter().collect(),
            };
            let placeable = refusal.as_ref().map_or(wanted, |refusal| {
                refusal.nearest.placeable.get(group).copied().unwrap_or(0)
            });
            Some(GroupCounts { group, counts, placeable, wanted })
        })
        .collect();
    let nodes = u32::try_from(view.nodes_len()).unwrap_or(u32::MAX);
    let mut verdict = match &refusal {
        _ if least > left => Some(Verdict::Quota),
        Some(refusal) => Some(refusal.verdict),
        None => None,
    };
    let summary = refusal.as_ref().map_or_else(String::new, ToString::to_string);
    let mut search = Search::new(view, *request, budget);
    if let Some(verdict) = &mut verdict {
        let fits = refusal.is_none();
        let standing = Standing { verdict: *verdict, fits, least, left, outlook };
        search.run(&standing, &groups);
        if let Verdict::BusyUntil(until) = verdict {
            *until = search.helps.iter().find_map(|help| match help.change {
                Change::Wait { until, .. } => Some(until),
                _ => None,
            });
        }
    }
    let Search { helps, is_cut, .. } = search;
    Explanation { verdict, summary, nodes, hardest, groups, helps, is_cut_short: is_cut }
}
