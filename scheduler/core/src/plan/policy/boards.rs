//! All boards of a view, and the scorers behind them.
//!
//! **Invariant:** a memo of bounded size; what has not been used longest goes first.

use super::board::{Board, Choice, by_node};
use super::fgd::Fgd;
use super::foresight::Foresight;
use super::published::{BestFit, DotProduct, GpuClustering, GpuPacking, Largest, Random};
use super::standing::Standing;
use super::{Policy, Scorer};
use crate::fit::Needs;
use crate::id::NodeId;
use crate::plan::Steps;
use crate::plan::ask::{Ask, GroupAsk};
use crate::unit::{GPU_MILLI_WHOLE, GpuSet};
use crate::view::View;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Memory of all boards together. A state takes 20 bytes on each: with the 3,000 states of a fleet
/// of 69,000 nodes that leaves room for 280 shapes.
const BYTES_MAX: usize = 16 << 20;
/// Bytes of one state on one board.
const STATE_BYTES: usize = size_of::<i32>() + size_of::<Option<i64>>();
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

/// A scorer with what it was made from.
#[derive(Clone)]
struct Made {
    basis: Basis,
    /// Differs whenever the basis does.
    version: u64,
    scorer: Arc<dyn Scorer + Send + Sync>,
}

/// All boards of a view.
#[derive(Clone, Default)]
pub(crate) struct Boards {
    boards: BTreeMap<Policy, BTreeMap<Needs, Board>>,
    scorers: BTreeMap<Policy, Made>,
    standing: Standing,
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
        let Made { version, scorer, .. } = self.scorer(policy, view);
        let choice = Choice { ask, group, scorer: scorer.as_ref(), version };
        if matches!(policy, Policy::Random | Policy::GpuClustering) {
            return by_node(&choice, policy, steps);
        }
        self.uses += 1;
        self.make_room(policy, &group.needs, view.states().end());
        let board = self.boards.get_mut(&policy)?.get_mut(&group.needs)?;
        board.update(&choice, steps);
        board.used = self.uses;
        if choice.scorer.second_looks() > 1 {
            self.standing.update(policy, &choice);
        }
        board.best(&choice, &mut self.standing)
    }

    /// Sees to it that the board exists, and that there are not too many.
    fn make_room(&mut self, policy: Policy, needs: &Needs, states: usize) {
        let of_policy = self.boards.entry(policy).or_default();
        if of_policy.contains_key(needs) {
            return;
        }
        of_policy.insert(needs.clone(), Board::default());
        self.count += 1;
        let most = (BYTES_MAX / (states.max(1) * STATE_BYTES)).clamp(1, BOARDS_MAX);
        while self.count > most {
            let all = self.boards.iter().flat_map(|(&policy, boards)| {
                boards.iter().map(move |(needs, board)| (board.used, policy, needs))
            });
            // The new board has not been used yet and must stay.
            let oldest = all.filter(|&(used, _, _)| used > 0).min();
            let Some((policy, needs)) = oldest.map(|(_, policy, needs)| (policy, needs.clone()))
            else {
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
        // A larger node somewhere is no reason to score everything anew by these.
        let largest = if learns { Largest { cpu: 0, gpu_milli: 0 } } else { largest };
        Basis { mix, outlook, kinds, largest }
    }

    fn scorer(&mut self, policy: Policy, view: &View) -> Made {
        let basis = self.basis(policy, view);
        let known = self.scorers.get(&policy);
        if let Some(made) = known
            && made.basis == basis
        {
            return made.clone();
        }
        let version = known.map_or(0, |made| made.version + 1);
        let (mix, classes, models) = (view.mix(), view.classes(), view.models());
        let scorer: Arc<dyn Scorer + Send + Sync> = match policy {
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
        let made = Made { basis, version, scorer };
        self.scorers.insert(policy, made.clone());
        made
    }
}
