//! Boards: the scores of all nodes for the shapes in use.
//!
//! A board is made when a shape first comes, by a look at every node; after that only nodes that
//! changed are looked at again. Nodes lie in blocks of 64 with the best score of each, so the best
//! node of the fleet is found by a look at one number in 64.
//! **Invariant:** a memo: with or without it, and whatever was asked before, a plan is the same.

use super::draw::Draw;
use super::fgd::Fgd;
use super::foresight::Foresight;
use super::look::{Look, Spare, Work};
use super::published::{BestFit, DotProduct, GpuClustering, GpuPacking, Largest, Random};
use super::{Policy, Scorer};
use crate::fit::Needs;
use crate::id::NodeId;
use crate::job::GpuAsk;
use crate::plan::Steps;
use crate::plan::ask::{Ask, Fit, GroupAsk};
use crate::plan::room::pick;
use crate::unit::{GPU_MILLI_WHOLE, GpuSet};
use crate::view::{ClassId, View};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Nodes of a block.
const BLOCK: usize = 64;
/// Score of a node on which the replica does not fit.
const NONE: i32 = i32::MIN;
/// Taken off the score of a node that asks to be used last: more than scores can differ by.
const SHUNNED: i32 = 1_100_000_000;
/// Memory of all boards together: 60 boards for 69,000 nodes.
const BYTES_MAX: usize = 16 << 20;
/// Most boards, however small the fleet.
const BOARDS_MAX: usize = 1_024;

/// What scores follow from besides the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Basis {
    mix: u64,
    outlook: u64,
    kinds: usize,
    largest: Largest,
}

type SharedScorer = Arc<dyn Scorer + Send + Sync>;

/// Scores of all nodes for one shape by one policy.
#[derive(Clone)]
struct Board {
    scores: Vec<i32>,
    /// Best score of each block.
    tops: Vec<i32>,
    /// Changes of nodes taken in.
    seen: u64,
    basis: Basis,
    /// By class, as of this count of classes ever made or gone.
    fits: BTreeMap<ClassId, Fit>,
    classes_version: u64,
    /// When it was last used.
    used: u64,
}

/// All boards of a view.
#[derive(Clone, Default)]
pub(crate) struct Boards {
    boards: BTreeMap<Policy, BTreeMap<Needs, Board>>,
    scorers: BTreeMap<Policy, (Basis, SharedScorer)>,
    largest: Option<(u64, Largest)>,
    uses: u64,
    count: usize,
}

impl fmt::Debug for Boards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boards").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Boards {
    pub(in crate::plan) fn choose(
        &mut self,
        ask: &Ask<'_>,
        group: &GroupAsk,
        policy: Policy,
        steps: &mut Steps,
    ) -> Option<(NodeId, Option<GpuSet>)> {
        let view = ask.view;
        let basis = self.basis(policy, view);
        let scorer = self.scorer(policy, basis, view);
        self.uses += 1;
        self.make_room(policy, &group.needs, view.node_end());
        let board = self.boards.get_mut(&policy)?.get_mut(&group.needs)?;
        board.used = self.uses;
        board.update(view, group, scorer.as_ref(), basis, steps);
        match policy {
            Policy::Random => board.draw(ask, group),
            _ => board.best(ask, group, scorer.as_ref()),
        }
    }

    /// Sees to it that the board exists, and that there are not too many.
    fn make_room(&mut self, policy: Policy, needs: &Needs, nodes: usize) {
        let of_policy = self.boards.entry(policy).or_default();
        if of_policy.contains_key(needs) {
            return;
        }
        of_policy.insert(needs.clone(), Board::empty());
        self.count += 1;
        let bytes = nodes.max(1) * size_of::<i32>();
        let most = (BYTES_MAX / bytes).clamp(1, BOARDS_MAX);
        while self.count > most {
            let all = self.boards.iter().flat_map(|(&policy, boards)| {
                boards.iter().map(move |(needs, board)| (board.used, policy, needs))
            });
            // The new board has not been used yet and must stay.
            let oldest = all.filter(|&(used, _, _)| used > 0).min();
            let Some((_, policy, needs)) = oldest.map(|(u, p, n)| (u, p, n.clone())) else {
                return;
            };
            if let Some(boards) = self.boards.get_mut(&policy) {
                boards.remove(&needs);
            }
            self.count -= 1;
        }
    }

    fn basis(&mut self, policy: Policy, view: &View) -> Basis {
        let classes = view.classes();
        let largest = match self.largest {
            Some((version, largest)) if version == classes.version() => largest,
            _ => {
                let samples = || classes.iter().map(|(_, class)| &class.sample);
                let cpu = samples().map(|node| node.resources.cpu.0).max().unwrap_or(0);
                let gpus = samples().map(|node| node.gpus.len() as u64).max().unwrap_or(0);
                let largest = Largest { cpu, gpu_milli: gpus * u64::from(GPU_MILLI_WHOLE) };
                self.largest = Some((classes.version(), largest));
                largest
            }
        };
        let learns = matches!(policy, Policy::Fgd | Policy::Foresight);
        let mix = if learns { view.mix().version } else { 0 };
        let outlook = if policy == Policy::Foresight { view.outlook().0 } else { 0 };
        let kinds = if learns { classes.gpu_lists().count() } else { 0 };
        Basis { mix, outlook, kinds, largest }
    }

    fn scorer(&mut self, policy: Policy, basis: Basis, view: &View) -> SharedScorer {
        if let Some((known, scorer)) = self.scorers.get(&policy)
            && *known == basis
        {
            return Arc::clone(scorer);
        }
        let (mix, classes, models) = (view.mix(), view.classes(), view.models());
        let scorer: SharedScorer = match policy {
            Policy::Random => Arc::new(Random),
            Policy::BestFit => Arc::new(BestFit(basis.largest)),
            Policy::DotProduct => Arc::new(DotProduct(basis.largest)),
            Policy::GpuPacking => Arc::new(GpuPacking),
            Policy::GpuClustering => Arc::new(GpuClustering(basis.largest)),
            Policy::Fgd => Arc::new(Fgd::new(mix, classes, models)),
            Policy::Foresight => {
                Arc::new(Foresight::new(mix, classes, models, Arc::clone(view.outlook().1)))
            }
        };
        self.scorers.insert(policy, (basis, Arc::clone(&scorer)));
        scorer
    }
}

impl Board {
    fn empty() -> Self {
        let largest = Largest { cpu: 0, gpu_milli: 0 };
        let basis = Basis { mix: 0, outlook: 0, kinds: 0, largest };
        Self {
            scores: Vec::new(),
            tops: Vec::new(),
            seen: 0,
            basis,
            fits: BTreeMap::new(),
            classes_version: 0,
            used: 0,
        }
    }

    /// Takes in what changed since the last time.
    fn update(
        &mut self,
        view: &View,
        group: &GroupAsk,
        scorer: &dyn Scorer,
        basis: Basis,
        steps: &mut Steps,
    ) {
        if self.classes_version != view.classes().version() {
            self.classes_version = view.classes().version();
            self.fits.clear();
        }
        // A new outlook changes second looks only.
        let same = Basis { outlook: basis.outlook, ..self.basis } == basis;
        self.basis = basis;
        let end = view.changes().end();
        let changed = match view.changes().since(self.seen) {
            Some(changed) if same && self.used > 0 && !self.scores.is_empty() => Some(changed),
            _ => None,
        };
        self.seen = end;
        let Some(changed) = changed else { return self.rebuild(view, group, scorer, steps) };
        let mut nodes: Vec<u32> = changed.collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.len() * 2 > view.node_end() {
            return self.rebuild(view, group, scorer, steps);
        }
        self.scores.resize(view.node_end(), NONE);
        steps.spend(nodes.len() as u64);
        let mut blocks = Vec::with_capacity(nodes.len());
        for node in nodes {
            let score = self.score(view, group, scorer, node);
            if let Some(place) = self.scores.get_mut(node as usize)
                && *place != score
            {
                *place = score;
                blocks.push(node as usize / BLOCK);
            }
        }
        blocks.dedup();
        self.tops.resize(self.scores.len().div_ceil(BLOCK), NONE);
        for block in blocks {
            self.top_up(block);
        }
    }

    fn rebuild(&mut self, view: &View, group: &GroupAsk, scorer: &dyn Scorer, steps: &mut Steps) {
        steps.spend(view.node_end() as u64);
        self.scores.clear();
        self.scores.resize(view.node_end(), NONE);
        for node in 0..u32::try_from(view.node_end()).unwrap_or(u32::MAX) {
            let score = self.score(view, group, scorer, node);
            if let Some(place) = self.scores.get_mut(node as usize) {
                *place = score;
            }
        }
        self.tops.clear();
        self.tops.resize(self.scores.len().div_ceil(BLOCK), NONE);
        for block in 0..self.tops.len() {
            self.top_up(block);
        }
    }

    fn top_up(&mut self, block: usize) {
        let nodes = self.scores.chunks(BLOCK).nth(block).unwrap_or(&[]);
        if let Some(top) = self.tops.get_mut(block) {
            *top = nodes.iter().copied().max().unwrap_or(NONE);
        }
    }

    fn score(&mut self, view: &View, group: &GroupAsk, scorer: &dyn Scorer, node: u32) -> i32 {
        let Some(slot) = view.slot(node).filter(|slot| slot.open) else { return NONE };
        let Some(fit) = self.fit(view, group, node) else { return NONE };
        if fit.misfit.is_some() || pick(group, &slot.node.gpus, &slot.free, fit.gpus).is_none() {
            return NONE;
        }
        let score = look(view, group, node, fit).map_or(0, |look| scorer.score(&look));
        if fit.shuns { score - SHUNNED } else { score }
    }

    fn fit(&mut self, view: &View, group: &GroupAsk, node: u32) -> Option<Fit> {
        let slot = view.slot(node)?;
        let known = match self.fits.get(&slot.class) {
            Some(fit) => *fit,
            None => {
                let fit = group.class_fit(&view.classes().get(slot.class)?.sample);
                self.fits.insert(slot.class, fit);
                fit
            }
        };
        Some(group.fit(slot, known))
    }

    /// The best nodes, best first, the lower id of equals; at most `most`, none to be avoided.
    fn top(&self, ask: &Ask<'_>, most: usize) -> Vec<(i32, u32)> {
        // The best `n` nodes lie in the best `n` blocks.
        let wanted = most + ask.avoid.len();
        let mut blocks: Vec<(i32, std::cmp::Reverse<usize>)> = Vec::new();
        if wanted == 1 {
            let best = self.tops.iter().copied().max().unwrap_or(NONE);
            let at = self.tops.iter().position(|&top| top == best && top > NONE);
            blocks.extend(at.map(|at| (best, std::cmp::Reverse(at))));
        } else {
            let all = self.tops.iter().enumerate().filter(|(_, top)| **top > NONE);
            blocks.extend(all.map(|(at, &top)| (top, std::cmp::Reverse(at))));
            if blocks.len() > wanted {
                blocks.select_nth_unstable_by(wanted - 1, |a, b| b.cmp(a));
                blocks.truncate(wanted);
            }
        }
        let mut nodes: Vec<(i32, std::cmp::Reverse<u32>)> = Vec::new();
        for (_, std::cmp::Reverse(block)) in blocks {
            let first = block * BLOCK;
            for (at, &score) in self.scores.iter().enumerate().skip(first).take(BLOCK) {
                let node = u32::try_from(at).unwrap_or(u32::MAX);
                if score > NONE && !ask.avoids(node) {
                    nodes.push((score, std::cmp::Reverse(node)));
                }
            }
        }
        nodes.sort_unstable_by(|a, b| b.cmp(a));
        nodes.truncate(most);
        nodes.into_iter().map(|(score, std::cmp::Reverse(node))| (score, node)).collect()
    }

    fn best(
        &mut self,
        ask: &Ask<'_>,
        group: &GroupAsk,
        scorer: &dyn Scorer,
    ) -> Option<(NodeId, Option<GpuSet>)> {
        let view = ask.view;
        let mut top = self.top(ask, scorer.second_looks());
        let &(best, first) = top.first()?;
        // Nodes to be used last are used only if there are no others.
        top.retain(|&(score, _)| (score < -SHUNNED / 2) == (best < -SHUNNED / 2));
        let mut chosen = first;
        if top.len() > 1 {
            let mut least = None;
            for &(score, node) in &top {
                let Some(fit) = self.fit(view, group, node) else { continue };
                let Some(look) = look(view, group, node, fit) else { continue };
                let rank = (scorer.cost(&look), -score, node);
                if least.is_none_or(|least| rank < least) {
                    least = Some(rank);
                    chosen = node;
                }
            }
        }
        let fit = self.fit(view, group, chosen)?;
        let look = look(view, group, chosen, fit)?;
        Some((NodeId(chosen), scorer.device(&look).map(GpuSet::single)))
    }

    /// Any node that fits, and any of its GPUs for a share, by the number of arrivals so far.
    fn draw(&mut self, ask: &Ask<'_>, group: &GroupAsk) -> Option<(NodeId, Option<GpuSet>)> {
        let best = self.tops.iter().copied().max().filter(|&top| top > NONE)?;
        let usable = (0u32..)
            .zip(&self.scores)
            .filter(|&(node, &score)| score == best && !ask.avoids(node))
            .map(|(node, _)| node);
        let mut draw = Draw::new(ask.view.arrivals());
        let nodes: Vec<u32> = usable.collect();
        let node = *nodes.get(draw.below(nodes.len()))?;
        let fit = self.fit(ask.view, group, node)?;
        let look = look(ask.view, group, node, fit)?;
        let GpuAsk::Share(milli) = look.gpus else { return Some((NodeId(node), None)) };
        let shared = look.openings(milli).filter(|open| open.at.is_some()).map(|open| open.gpu);
        let idle = (look.free.idle & look.mask).iter();
        let gpus: Vec<u8> = shared.chain(idle).collect();
        let gpu = gpus.get(draw.below(gpus.len())).copied();
        Some((NodeId(node), gpu.map(GpuSet::single)))
    }
}

fn look<'a>(view: &'a View, group: &GroupAsk, node: u32, fit: Fit) -> Option<Look<'a>> {
    let slot = view.slot(node)?;
    let gpus = group.needs.gpus();
    let (same, others) = match gpus {
        GpuAsk::None => (false, false),
        GpuAsk::Whole(count) => view.work(node, count),
        GpuAsk::Share(_) => view.work(node, 0),
    };
    Some(Look {
        gpus,
        needs: group.needs.resources(),
        free: &slot.free,
        spare: Spare::of(&slot.free),
        mask: fit.gpus.mask,
        gpus_all: u32::try_from(slot.node.gpus.len()).unwrap_or(u32::MAX),
        kind: slot.kind,
        work: Work { same, others },
    })
}
