//! Every way to place a tiny gang, tried one by one: the measure for the planner's answers.

use crate::fit::{self, Needs};
use crate::id::{NodeId, Rank};
use crate::job::{GpuAsk, JobSpec};
use crate::node::Node;
use crate::state::{State, Usage};
use crate::unit::GpuSet;
use std::sync::Arc;

struct Search<'a> {
    state: &'a State,
    spec: &'a JobSpec,
    nodes: Vec<Arc<Node>>,
    usage: Vec<Usage>,
    /// Group of each replica to place.
    items: Vec<usize>,
    needs: Vec<Needs>,
    members: Vec<(Rank, NodeId)>,
}

/// Whether `targets` replicas per group can be placed in the state, beside members that stay.
pub(super) fn fits(state: &State, spec: &JobSpec, targets: &[u32], fixed: &[NodeId]) -> bool {
    let nodes: Vec<Arc<Node>> =
        state.nodes().filter(|node| node.is_schedulable()).cloned().collect();
    let usage = nodes.iter().map(|node| state.usage(node.id).cloned().unwrap_or_default());
    let mut search = Search {
        state,
        spec,
        usage: usage.collect(),
        nodes,
        items: targets
            .iter()
            .enumerate()
            .flat_map(|(group, &count)| std::iter::repeat_n(group, count as usize))
            .collect(),
        needs: (0..spec.groups.len())
            .map(|group| Needs::new(spec, group, state.models()))
            .collect(),
        members: fixed.iter().map(|&node| (Rank(0), node)).collect(),
    };
    search.step(0, (0, 0))
}

impl Search<'_> {
    /// Places the items from `at` on; an equal one never before `from` = (node, GPUs).
    fn step(&mut self, at: usize, from: (usize, u64)) -> bool {
        // Without rules inside groups any rank of the job will do.
        let node = |&(rank, id): &(Rank, NodeId)| Some((rank, self.state.node(id)?.as_ref()));
        let members = self.members.iter().filter_map(node);
        if fit::breach(self.spec, self.state, &fit::NOBODY, members).is_some() {
            return false;
        }
        let Some(&group) = self.items.get(at) else { return true };
        let equal = at > 0 && self.items[at - 1] == group;
        let shape = &self.spec.groups[group].shape;
        let share = if let GpuAsk::Share(milli) = shape.gpus { milli } else { 0 };
        for place in 0..self.nodes.len() {
            let node = Arc::clone(&self.nodes[place]);
            if self.needs[group].misfit(&node).is_some() {
                continue;
            }
            for mask in 0..1u64 << node.gpus.len() {
                let gpus = GpuSet(mask);
                let skip = equal && (place, mask) < from;
                if skip
                    || !self.needs[group].accepts_gpus(&node, gpus, share)
                    || self.usage[place].lack(&node, shape, gpus, share).is_some()
                {
                    continue;
                }
                let before = self.usage[place].clone();
                self.usage[place].take(shape, gpus, share);
                self.members.push((Rank(0), node.id));
                if self.step(at + 1, (place, mask)) {
                    return true;
                }
                self.members.pop();
                self.usage[place] = before;
            }
        }
        false
    }
}
