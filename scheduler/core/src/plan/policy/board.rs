//! Boards: the scores of all states of nodes for the shapes in use.
//!
//! A board is made when a shape first comes, by a look at every state; after that only states that
//! began or ended since are looked at. States lie in blocks with the best score of each, so the
//! best of the fleet is found by a look at one number in sixteen.
//! **Invariant:** a memo: with or without it, and whatever was asked before, a plan is the same;
//! of states with equal scores the one that holds the least node comes first.

use super::look::{Look, Spare, Work};
use super::standing::Standing;
use super::{Policy, Scorer};
use crate::id::NodeId;
use crate::job::GpuAsk;
use crate::plan::Steps;
use crate::plan::ask::{Ask, GpuFit, GroupAsk};
use crate::plan::room::room;
use crate::unit::GpuSet;
use crate::view::{ClassId, KindId, NodeState, Slot, StateId};
use std::cmp::Reverse;

/// States of a block.
const BLOCK: usize = 16;
/// Score of a state in which the replica does not fit.
const NONE: i32 = i32::MIN;

/// What is known of a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Known {
    Nothing,
    Refuses,
    LetsIn,
    /// Lets in, but asks to be used last.
    Shuns,
}

/// Scores of all states for one shape by one policy.
#[derive(Clone, Debug, Default)]
pub(super) struct Board {
    /// By state.
    scores: Vec<i32>,
    /// Best score of each block.
    tops: Vec<i32>,
    /// Cost at the second look by state, where there was one.
    costs: Vec<Option<i64>>,
    /// How GPUs of each kind serve.
    kinds: Vec<Option<GpuFit>>,
    /// By class, as of this version of the classes.
    classes: Vec<Known>,
    classes_version: u64,
    /// Changes of states taken in.
    seen: u64,
    /// Which scorer the scores come from.
    version: u64,
    /// When it was last used; 0 = never.
    pub(super) used: u64,
}

/// What a choice is made with.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    pub(super) ask: &'a Ask<'a>,
    pub(super) group: &'a GroupAsk,
    pub(super) scorer: &'a dyn Scorer,
    /// Differs between any two scorers that score or cost differently.
    pub(super) version: u64,
}

impl Board {
    /// Takes in what changed since the last time.
    pub(super) fn update(&mut self, choice: &Choice<'_>, steps: &mut Steps) {
        let view = choice.ask.view;
        if self.classes_version != view.classes().version() {
            self.classes_version = view.classes().version();
            self.classes.clear();
        }
        self.classes.resize(view.classes().end(), Known::Nothing);
        let first = self.kinds.len();
        let new = view.classes().gpu_lists().skip(first);
        self.kinds.extend(new.map(|gpus| choice.group.gpu_fit(gpus)));
        let states = view.states();
        let changed = states.changes().since(self.seen);
        self.seen = states.changes().end();
        let same = self.version == choice.version && self.used > 0;
        self.version = choice.version;
        let end = states.end();
        match changed {
            Some(changed) if same => {
                self.resize(end);
                for state in changed {
                    steps.spend(1);
                    self.renew(choice, state);
                }
            }
            _ => {
                steps.spend(end as u64);
                self.scores.clear();
                self.tops.clear();
                self.costs.clear();
                self.resize(end);
                for id in 0..u32::try_from(end).unwrap_or(u32::MAX) {
                    self.renew(choice, StateId(id));
                }
            }
        }
    }

    fn resize(&mut self, states: usize) {
        self.scores.resize(states, NONE);
        self.costs.resize(states, None);
        self.tops.resize(states.div_ceil(BLOCK), NONE);
    }

    fn renew(&mut self, choice: &Choice<'_>, id: StateId) {
        let at = id.0 as usize;
        let state = choice.ask.view.states().get(id);
        let score = state.map_or(NONE, |state| self.score(choice, state));
        if let Some(cost) = self.costs.get_mut(at) {
            *cost = None;
        }
        let Some(place) = self.scores.get_mut(at) else { return };
        let before = std::mem::replace(place, score);
        let Some(top) = self.tops.get_mut(at / BLOCK) else { return };
        if score >= *top {
            *top = score;
        } else if before == *top {
            let block = self.scores.chunks(BLOCK).nth(at / BLOCK).unwrap_or(&[]);
            *top = block.iter().copied().max().unwrap_or(NONE);
        }
    }

    fn score(&self, choice: &Choice<'_>, state: &NodeState) -> i32 {
        let KindId(kind) = state.kind();
        let Some(Some(fit)) = self.kinds.get(kind as usize) else { return NONE };
        let gpus = choice.ask.view.classes().kind(state.kind()).map_or(&[][..], |kind| &kind.gpus);
        if room(choice.group, gpus, state.free(), *fit, 1) == 0 {
            return NONE;
        }
        choice.scorer.score(&look_at(choice, state, *fit, gpus.len()))
    }

    /// The node that the policy wants; `None` is certain.
    pub(super) fn best(
        &mut self,
        choice: &Choice<'_>,
        standing: &mut Standing,
    ) -> Option<(NodeId, Option<GpuSet>)> {
        let found = self.best_of(choice, standing, Known::LetsIn);
        // Nodes to be used last are used only if there are no others.
        let node = match found {
            Some(node) => node,
            None if self.classes.contains(&Known::Shuns) => {
                self.best_of(choice, standing, Known::Shuns)?
            }
            None => return None,
        };
        let slot = choice.ask.view.slot(node)?;
        let fit = (*self.kinds.get(slot.kind.0 as usize)?)?;
        let look = look(choice.group, slot, fit, Work::default());
        Some((NodeId(node), choice.scorer.device(&look).map(GpuSet::single)))
    }

    fn best_of(
        &mut self,
        choice: &Choice<'_>,
        standing: &mut Standing,
        wanted: Known,
    ) -> Option<u32> {
        let most = choice.scorer.second_looks();
        if most == 1
            && let Some(node) = self.at_the_top(choice, wanted)
        {
            return Some(node);
        }
        let candidates = self.candidates(choice, wanted, most);
        if candidates.len() < 2 {
            return candidates.first().map(|candidate| candidate.node);
        }
        let ranks = candidates.iter().map(|candidate| {
            let cost = self.cost(choice, standing, candidate.state);
            (cost, Reverse(candidate.score), candidate.node)
        });
        ranks.min().map(|(_, _, node)| node)
    }

    /// The least node of those with the best score of all, without a list of the states.
    fn at_the_top(&mut self, choice: &Choice<'_>, wanted: Known) -> Option<u32> {
        let top = self.tops.iter().copied().max().filter(|&top| top > NONE)?;
        let mut least: Option<u32> = None;
        for block in 0..self.tops.len() {
            if self.tops.get(block) != Some(&top) {
                continue;
            }
            for at in block * BLOCK..(block + 1) * BLOCK {
                if self.scores.get(at) != Some(&top) {
                    continue;
                }
                let id = StateId(u32::try_from(at).unwrap_or(u32::MAX));
                let first = choice.ask.view.states().get(id).and_then(NodeState::first);
                if least.is_none_or(|least| first.is_some_and(|first| first < least)) {
                    let node = self.first_node(choice, id, wanted);
                    least = [least, node].into_iter().flatten().min();
                }
            }
        }
        least
    }

    /// Up to `most` states with the best scores that have a node for the replica, best first.
    fn candidates(&mut self, choice: &Choice<'_>, wanted: Known, most: usize) -> Vec<Candidate> {
        let mut blocks = most;
        loop {
            let (list, complete) = self.listed(blocks);
            let mut found: Vec<Candidate> = Vec::new();
            for equal in list.chunk_by(|(a, _), (b, _)| a == b) {
                let from = found.len();
                for &(score, state) in equal {
                    if let Some(node) = self.first_node(choice, state, wanted) {
                        found.push(Candidate { score, state, node });
                    }
                }
                if let Some(equal) = found.get_mut(from..) {
                    equal.sort_unstable_by_key(|candidate| candidate.node);
                }
                if found.len() >= most {
                    found.truncate(most);
                    return found;
                }
            }
            if complete {
                return found;
            }
            blocks *= 8;
        }
    }

    /// States whose scores reach that of the block at this place of the blocks' order, best first,
    /// and whether these are all in which the replica fits.
    fn listed(&self, blocks: usize) -> (Vec<(i32, StateId)>, bool) {
        let mut tops: Vec<i32> = self.tops.iter().copied().filter(|&top| top > NONE).collect();
        let complete = tops.len() <= blocks;
        let least = if complete {
            NONE + 1
        } else {
            *tops.select_nth_unstable_by_key(blocks - 1, |&top| Reverse(top)).1
        };
        let mut list: Vec<(i32, StateId)> = Vec::new();
        for (block, _) in self.tops.iter().enumerate().filter(|(_, top)| **top >= least) {
            let first = block * BLOCK;
            let scores = self.scores.iter().enumerate().skip(first).take(BLOCK);
            let good = scores.filter(|(_, score)| **score >= least);
            list.extend(good.map(|(at, &score)| (score, StateId(u32::try_from(at).unwrap_or(0)))));
        }
        list.sort_unstable_by_key(|&(score, state)| (Reverse(score), state));
        (list, complete)
    }

    /// The least node of the state that lets the replica in as wanted.
    fn first_node(&mut self, choice: &Choice<'_>, id: StateId, wanted: Known) -> Option<u32> {
        let (view, group) = (choice.ask.view, choice.group);
        let state = view.states().get(id)?;
        let each = group.reads_identity() || !choice.ask.avoid.is_empty();
        let mut least: Option<u32> = None;
        for (first, class) in state.firsts() {
            if least.is_some_and(|least| least < first) {
                break;
            }
            if self.known(choice, class) != wanted {
                continue;
            }
            if !each {
                return Some(first);
            }
            let usable = |node: &u32| {
                !choice.ask.avoids(*node)
                    && view.slot(*node).is_some_and(|slot| group.admits(&slot.node))
            };
            let node = state.pool(class).and_then(|nodes| nodes.iter().find(usable));
            least = [least, node].into_iter().flatten().min();
        }
        least
    }

    fn known(&mut self, choice: &Choice<'_>, id: ClassId) -> Known {
        let Some(place) = self.classes.get_mut(id.0 as usize) else { return Known::Refuses };
        if *place == Known::Nothing {
            let class = choice.ask.view.classes().get(id);
            *place = match class.and_then(|class| choice.group.admission(class)) {
                None => Known::Refuses,
                Some(false) => Known::LetsIn,
                Some(true) => Known::Shuns,
            };
        }
        *place
    }

    fn cost(&mut self, choice: &Choice<'_>, standing: &mut Standing, id: StateId) -> i64 {
        let Some(place) = self.costs.get_mut(id.0 as usize) else { return i64::MAX };
        if let Some(cost) = *place {
            return cost;
        }
        let Some(state) = choice.ask.view.states().get(id) else { return i64::MAX };
        let Some(Some(fit)) = self.kinds.get(state.kind().0 as usize) else { return i64::MAX };
        // The number of GPUs in all matters to no policy with second looks.
        let look = look_at(choice, state, *fit, 0);
        let standing = standing.of(id, || choice.scorer.standing(&look));
        let cost = choice.scorer.cost(&look, standing);
        *place = Some(cost);
        cost
    }
}

/// A state that may be chosen, and its first node.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: i32,
    state: StateId,
    node: u32,
}

fn look_at<'a>(
    choice: &Choice<'_>,
    state: &'a NodeState,
    fit: GpuFit,
    gpus_all: usize,
) -> Look<'a> {
    Look {
        gpus: choice.group.needs.gpus(),
        needs: choice.group.needs.resources(),
        free: state.free(),
        spare: Spare::of(state.free()),
        mask: fit.mask,
        gpus_all: u32::try_from(gpus_all).unwrap_or(u32::MAX),
        kind: state.kind(),
        work: Work::default(),
    }
}

/// One node and the replica.
fn look<'a>(group: &GroupAsk, slot: &'a Slot, fit: GpuFit, work: Work) -> Look<'a> {
    Look {
        gpus: group.needs.gpus(),
        needs: group.needs.resources(),
        free: &slot.free,
        spare: Spare::of(&slot.free),
        mask: fit.mask,
        gpus_all: u32::try_from(slot.node.gpus.len()).unwrap_or(u32::MAX),
        kind: slot.kind,
        work,
    }
}

/// Policies whose scores are not those of states look at every node each time.
pub(super) fn by_node(
    choice: &Choice<'_>,
    policy: Policy,
    steps: &mut Steps,
) -> Option<(NodeId, Option<GpuSet>)> {
    let (view, group) = (choice.ask.view, choice.group);
    steps.spend(view.node_end() as u64);
    let gpus = group.needs.gpus();
    let fits = view.classes().gpu_lists().map(|gpus| group.gpu_fit(gpus)).collect::<Vec<_>>();
    let mut best: Vec<(bool, i32, u32)> = Vec::new();
    for (node, slot) in view.slots() {
        let Some(Some(fit)) = fits.get(slot.kind.0 as usize) else { continue };
        if !slot.open || choice.ask.avoids(node) || !group.admits(&slot.node) {
            continue;
        }
        let class = view.classes().get(slot.class);
        let Some(shuns) = class.and_then(|class| group.admission(class)) else { continue };
        if room(group, &slot.node.gpus, &slot.free, *fit, 1) == 0 {
            continue;
        }
        let (same, others) = match gpus {
            GpuAsk::None => (false, false),
            GpuAsk::Whole(count) => view.work(node, count),
            GpuAsk::Share(_) => view.work(node, 0),
        };
        let score = choice.scorer.score(&look(group, slot, *fit, Work { same, others }));
        let rank = (!shuns, score);
        if best.first().is_some_and(|&(open, top, _)| rank > (open, top)) {
            best.clear();
        }
        if best.first().is_none_or(|&(open, top, _)| rank == (open, top)) {
            best.push((!shuns, score, node));
        }
    }
    let mut draw = super::draw::Draw::new(view.arrivals());
    let at = if policy == Policy::Random { draw.below(best.len()) } else { 0 };
    let &(_, _, node) = best.get(at)?;
    let slot = view.slot(node)?;
    let fit = (*fits.get(slot.kind.0 as usize)?)?;
    let GpuAsk::Share(milli) = gpus else { return Some((NodeId(node), None)) };
    let look = look(group, slot, fit, Work::default());
    if policy != Policy::Random {
        return Some((NodeId(node), look.tightest(milli).map(|open| GpuSet::single(open.gpu))));
    }
    let shared = look.openings(milli).filter(|open| open.at.is_some()).map(|open| open.gpu);
    let open: Vec<u8> = shared.chain((look.free.idle & look.mask).iter()).collect();
    Some((NodeId(node), open.get(draw.below(open.len())).copied().map(GpuSet::single)))
}
