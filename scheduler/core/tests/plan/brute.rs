//! Every way to place a tiny gang, tried one after the other and judged by the checker.

use crate::checker::{Facts, Member, Stage, Used, first_rank, group_of};
use scheduler_core::id::NodeId;
use scheduler_core::job::{GpuAsk, JobSpec, RttScope};
use scheduler_core::node::Node;
use std::collections::{BTreeMap, BTreeSet};

/// Most ways tried for one question; such a question is then left open. A few are, none of the
/// kinds that matter: see [`Answer::Open`].
const TRIES_MAX: u32 = 300_000;

/// What trying came to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Answer {
    Never,
    /// Too many ways to try them all.
    Open,
    Fits,
}

struct Search<'a> {
    facts: &'a Facts,
    spec: &'a JobSpec,
    ranks: Vec<u32>,
    used: BTreeMap<NodeId, Used>,
    members: Vec<Member>,
    /// So many of the members were there before.
    staying: usize,
    tries: u32,
}

/// Whether some number of replicas per group, from `least` to `most`, can be placed: the first of
/// each group's ranks.
pub(crate) fn any_fits(facts: &Facts, spec: &JobSpec, least: &[u32], most: &[u32]) -> Answer {
    let mut counts = least.to_vec();
    let mut answer = Answer::Never;
    loop {
        match fits(facts, spec, &counts) {
            Answer::Fits => return Answer::Fits,
            other => answer = answer.max(other),
        }
        let Some(group) = (0..counts.len()).find(|&group| counts[group] < most[group]) else {
            return answer;
        };
        counts[group] += 1;
        counts[..group].copy_from_slice(&least[..group]);
    }
}

/// Whether the first so many replicas of each group can be placed.
pub(crate) fn fits(facts: &Facts, spec: &JobSpec, counts: &[u32]) -> Answer {
    let ranks = counts.iter().enumerate().flat_map(|(group, &count)| {
        let first = first_rank(spec, group);
        first..first + count
    });
    fits_beside(facts, spec, &[], ranks.collect())
}

/// Whether these ranks can be placed beside members that stay, of which the facts know nothing.
pub(crate) fn fits_beside(
    facts: &Facts,
    spec: &JobSpec,
    stay: &[Member],
    ranks: Vec<u32>,
) -> Answer {
    let mut used = facts.used();
    for member in stay {
        let of = used.entry(member.node).or_default();
        of.take(&spec.groups[member.group].shape, member);
    }
    let (members, staying) = (stay.to_vec(), stay.len());
    let mut search = Search { facts, spec, ranks, used, members, staying, tries: 0 };
    match search.step() {
        true => Answer::Fits,
        false if search.tries >= TRIES_MAX => Answer::Open,
        false => Answer::Never,
    }
}

impl Search<'_> {
    fn step(&mut self) -> bool {
        let at = self.members.len() - self.staying;
        let whole = at == self.ranks.len();
        let stage = if whole { Stage::Whole } else { Stage::Part };
        if !self.facts.among(self.spec, &self.members, stage).is_empty() {
            return false;
        }
        if whole {
            return true;
        }
        let rank = self.ranks[at];
        let group = group_of(self.spec, rank).expect("a rank of the job");
        let facts = self.facts;
        for node in facts.nodes.values() {
            // An equal one never lies before the one before it.
            let new = &self.members[self.staying..];
            let before = new.last().filter(|last| last.group == group);
            if before.is_some_and(|last| self.are_alike(group) && node.id < last.node) {
                continue;
            }
            for gpus in self.ways(group, node) {
                if self.tries >= TRIES_MAX {
                    return false;
                }
                self.tries += 1;
                let shape = &self.spec.groups[group].shape;
                let share = if let GpuAsk::Share(milli) = shape.gpus { milli } else { 0 };
                let member = Member { rank, group, node: node.id, gpus, share };
                if facts.alone(self.spec, &member).is_some() {
                    continue;
                }
                let before = self.used.get(&node.id).cloned();
                let used = self.used.entry(node.id).or_default();
                used.take(shape, &member);
                if used.over(node).is_none() {
                    self.members.push(member);
                    if self.step() {
                        return true;
                    }
                    self.members.pop();
                }
                match before {
                    Some(before) => self.used.insert(node.id, before),
                    None => self.used.remove(&node.id),
                };
            }
        }
        false
    }

    /// Whether the group's replicas may change places without a rule noticing.
    fn are_alike(&self, group: usize) -> bool {
        let head = self.spec.rtt_scope == RttScope::HeadToMembers && group == 0;
        self.spec.groups[group].rules.segments.is_empty() && !head
    }

    /// GPUs that a replica could take there, equal choices once.
    fn ways(&self, group: usize, node: &Node) -> Vec<Vec<u8>> {
        let used = self.used.get(&node.id);
        let milli = |gpu: u8| used.map_or(0, |used| used.gpu(gpu));
        let room = match self.spec.groups[group].shape.gpus {
            GpuAsk::None => return vec![Vec::new()],
            GpuAsk::Whole(count) => (usize::from(count), 1_000),
            GpuAsk::Share(milli) => (1, u32::from(milli)),
        };
        let last = u8::try_from(node.gpus.len()).expect("few GPUs");
        let open: Vec<u8> = (0..last).filter(|&gpu| milli(gpu) + room.1 <= 1_000).collect();
        let mut seen = BTreeSet::new();
        let mut ways = Vec::new();
        for mask in 0..1_u32 << open.len() {
            let bits = open.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1);
            let chosen: Vec<u8> = bits.map(|(_, &gpu)| gpu).collect();
            let looks = |gpu: &u8| {
                let one = node.gpus[usize::from(*gpu)];
                (one.model, one.vram, one.vendor, one.compute_capability, milli(*gpu))
            };
            let mut kind: Vec<_> = chosen.iter().map(looks).collect();
            kind.sort();
            if chosen.len() == room.0 && seen.insert(kind) {
                ways.push(chosen);
            }
        }
        ways
    }
}
