//! Single: one replica under rules goes where the policy wants it, among the nodes that the rules
//! leave.
//!
//! **Invariant:** what is found keeps every rule; finding nothing proves nothing.

use super::apart::Apart;
use super::stage::Stage;
use super::wish::Wishes;
use crate::command::Placement;
use crate::fit;
use crate::plan::ask::Ask;
use crate::plan::single::{self, Answer};
use crate::plan::{Policy, Steps};

/// Places the only replica that is asked for; members that stay are for the long way.
pub(in crate::plan) fn place(
    ask: &Ask<'_>,
    policy: Policy,
    steps: &mut Steps,
) -> Option<Vec<Placement>> {
    let [group] = ask.groups.as_slice() else { return None };
    if group.ranks.len() != 1 || !ask.fixed.is_empty() || !ask.homes.is_empty() {
        return None;
    }
    Wishes::of(ask.spec).best(|wishes| {
        let apart = Apart::new(ask, 0, wishes);
        let mut narrow = ask.clone();
        if !apart.is_nothing() {
            steps.spend(ask.view.nodes_len() as u64);
            let closed = ask
                .view
                .slots()
                .filter(|(_, slot)| !apart.admits(&slot.node) || apart.is_too_dear(&slot.node));
            narrow.avoid.extend(closed.map(|(node, _)| node));
            narrow.avoid.sort_unstable();
        }
        match single::place(&narrow, Some(policy), steps) {
            Answer::Found(placements) => Some(placements).filter(|found| keeps(ask, found)),
            Answer::Nowhere | Answer::Unknown => None,
        }
    })
}

fn keeps(ask: &Ask<'_>, placements: &[Placement]) -> bool {
    let members = placements.iter();
    let members = members.filter_map(|one| Some((one.rank, ask.view.slot(one.node.0)?)));
    let members = members.map(|(rank, slot)| (rank, slot.node.as_ref()));
    fit::breach(ask.spec, &Stage::new(ask, None), ask.around, members).is_none()
}
