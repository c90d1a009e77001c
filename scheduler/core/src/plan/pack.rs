//! Pack: puts the replicas of each group on nodes of a domain, by the job's strategy.
//!
//! `PACK` fills the fewest nodes, the last one as tightly as possible; `SPREAD` and
//! `STRICT_SPREAD` prefer the fullest nodes, so that whole machines stay whole.
//! **Invariant:** a score is an ordered struct that ends in the node id: same content, same plan.

use super::Steps;
use super::ask::{Ask, GroupAsk};
use super::draft::Draft;
use super::exact;
use super::field::{Domain, Field};
use crate::id::Rank;
use crate::job::{GpuAsk, Strategy};
use std::cmp::Reverse;

/// A node as a target for many replicas; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct PackScore {
    /// Nodes that the job is on already, then others, then those with GPUs a CPU replica would
    /// block, then those that ask to be used last.
    tier: u8,
    /// Most replicas first: fewest nodes.
    room: Reverse<u32>,
    /// Idle GPUs that would be left: fullest first.
    left: u32,
    node: u32,
}

/// A node as a target for one replica of a spread job; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct SpreadScore {
    members: u32,
    tier: u8,
    /// Fullest first: whole machines stay whole.
    idle: u32,
    node: u32,
}

/// Places `targets` replicas per group inside the domain, or nothing at all. Tries the groups in
/// a few orders and, where the case is small, every way there is.
pub(super) fn place(
    draft: &mut Draft<'_>,
    ask: &Ask<'_>,
    field: &Field,
    domain: &Domain,
    shunned: bool,
    targets: &[u32],
    steps: &mut Steps,
) -> bool {
    let mark = draft.mark();
    for order in orders(ask, field, domain, shunned, targets) {
        let whole = order.iter().all(|&at| {
            let Some((group, &target)) = ask.groups.get(at).zip(targets.get(at)) else {
                return false;
            };
            let ranks = group.ranks.get(..target as usize).unwrap_or(&[]);
            let lot = Lot { ask, field, domain, shunned, at, group };
            lot.place(draft, ranks, steps) == target
        });
        if whole {
            return true;
        }
        draft.rollback(mark);
        if steps.is_spent() {
            return false;
        }
    }
    let nodes = exact::nodes(ask, field, domain, shunned);
    exact::place(draft, ask, field, &nodes, targets, steps)
}

/// Places `targets` replicas per group on this one node, or nothing at all.
pub(super) fn place_on(
    draft: &mut Draft<'_>,
    ask: &Ask<'_>,
    field: &Field,
    node: u32,
    targets: &[u32],
    steps: &mut Steps,
) -> bool {
    let Some(slot) = ask.view.slot(node) else { return false };
    let mark = draft.mark();
    let mut order: Vec<usize> = (0..ask.groups.len()).collect();
    order.sort_by_key(|&at| Reverse(ask.groups.get(at).map_or(0, GroupAsk::whole_gpus)));
    steps.spend(order.len() as u64);
    let whole = order.iter().all(|&at| {
        let Some((group, &target)) = ask.groups.get(at).zip(targets.get(at)) else { return false };
        let ranks = group.ranks.get(..target as usize).unwrap_or(&[]);
        let fit = field.fit(ask, at, slot);
        target == 0 || fit.is_some_and(|fit| draft.place(group, node, slot, fit, ranks) == target)
    });
    if !whole {
        draft.rollback(mark);
        return exact::place(draft, ask, field, &[node], targets, steps);
    }
    true
}

/// Orders in which to place the groups: the largest bundles first, then the scarcest first. One
/// group alone needs one order.
fn orders(
    ask: &Ask<'_>,
    field: &Field,
    domain: &Domain,
    shunned: bool,
    targets: &[u32],
) -> Vec<Vec<usize>> {
    let sums = field.sum(&domain.sites, shunned);
    let size = |at: usize| {
        ask.groups.get(at).map_or((0, 0, 0), |group| {
            let share = u64::from(matches!(group.needs.gpus(), GpuAsk::Share(_)));
            (group.whole_gpus(), share, group.needs.resources().cpu.0)
        })
    };
    // How often over the group's demand would fit, in thousandths: small = scarce.
    let slack = |at: usize| {
        let have = sums.get(at).copied().unwrap_or(0);
        have.saturating_mul(1000) / u64::from(targets.get(at).copied().unwrap_or(1)).max(1)
    };
    let mut by_size: Vec<usize> = (0..ask.groups.len()).collect();
    by_size.sort_by_key(|&at| (Reverse(size(at)), slack(at), at));
    let mut by_slack = by_size.clone();
    by_slack.sort_by_key(|&at| (slack(at), Reverse(size(at)), at));
    let mut orders = vec![by_size];
    if !orders.contains(&by_slack) {
        orders.push(by_slack);
    }
    orders
}

/// One group on its way into one domain.
struct Lot<'a> {
    ask: &'a Ask<'a>,
    field: &'a Field,
    domain: &'a Domain,
    shunned: bool,
    at: usize,
    group: &'a GroupAsk,
}

impl Lot<'_> {
    /// Places the ranks as far as they fit; returns how many.
    fn place(&self, draft: &mut Draft<'_>, ranks: &[Rank], steps: &mut Steps) -> u32 {
        match self.ask.spec.strategy {
            Strategy::Pack | Strategy::StrictPack => self.pack(draft, ranks, steps),
            Strategy::Spread => self.spread(draft, ranks, false, steps),
            Strategy::StrictSpread => self.spread(draft, ranks, true, steps),
        }
    }

    fn pack(&self, draft: &mut Draft<'_>, ranks: &[Rank], steps: &mut Steps) -> u32 {
        let mut scores = Vec::new();
        for (cand, slot) in self.field.cands(self.ask, self.at, self.domain, self.shunned) {
            let Some(fit) = self.field.fit(self.ask, self.at, slot) else { continue };
            let members = draft.members(cand.node);
            let room = match members {
                0 => cand.room,
                _ => draft.room(self.group, cand.node, slot, fit, self.group.wanted()),
            };
            if room == 0 {
                continue;
            }
            let idle = draft.with_free(cand.node, slot, |free| free.idle.len());
            let left = idle.saturating_sub(room.saturating_mul(self.group.whole_gpus()));
            let tier = self.tier(cand.shuns, members > 0, idle);
            scores.push(PackScore { tier, room: Reverse(room), left, node: cand.node });
        }
        steps.spend(scores.len() as u64);
        scores.sort_unstable();
        self.fill(draft, &scores, ranks)
    }

    /// Walks the nodes, tier by tier, the roomiest first; what then fits on one node goes to the
    /// tightest that holds it.
    fn fill(&self, draft: &mut Draft<'_>, scores: &[PackScore], ranks: &[Rank]) -> u32 {
        let mut rest = ranks;
        for tier in scores.chunk_by(|a, b| a.tier == b.tier) {
            for (at, score) in tier.iter().enumerate() {
                let need = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                if need == 0 {
                    break;
                }
                let target = if score.room.0 >= need { tightest(tier, at, need) } else { score };
                let placed = self.put(draft, target.node, rest);
                rest = rest.get(placed as usize..).unwrap_or(&[]);
            }
        }
        u32::try_from(ranks.len() - rest.len()).unwrap_or(u32::MAX)
    }

    fn spread(
        &self,
        draft: &mut Draft<'_>,
        ranks: &[Rank],
        strict: bool,
        steps: &mut Steps,
    ) -> u32 {
        let mut rest = ranks;
        // Each round gives every node one replica at most; it ends when a round gives none.
        while !rest.is_empty() && !steps.is_spent() {
            let mut scores = Vec::new();
            for (cand, slot) in self.field.cands(self.ask, self.at, self.domain, self.shunned) {
                let members = draft.members(cand.node);
                if strict && members > 0 {
                    continue;
                }
                let idle = draft.with_free(cand.node, slot, |free| free.idle.len());
                let tier = self.tier(cand.shuns, false, idle);
                scores.push(SpreadScore { members, tier, idle, node: cand.node });
            }
            steps.spend(scores.len() as u64);
            scores.sort_unstable();
            let before = rest.len();
            for score in scores {
                let Some(first) = rest.get(..1) else { break };
                let placed = self.put(draft, score.node, first);
                rest = rest.get(placed as usize..).unwrap_or(&[]);
            }
            if strict || rest.len() == before {
                break;
            }
        }
        u32::try_from(ranks.len() - rest.len()).unwrap_or(u32::MAX)
    }

    fn put(&self, draft: &mut Draft<'_>, node: u32, ranks: &[Rank]) -> u32 {
        let Some(slot) = self.ask.view.slot(node) else { return 0 };
        let Some(fit) = self.field.fit(self.ask, self.at, slot) else { return 0 };
        draft.place(self.group, node, slot, fit, ranks)
    }

    fn tier(&self, shuns: bool, occupied: bool, idle: u32) -> u8 {
        let blocks = self.group.needs.gpus() == GpuAsk::None && idle > 0;
        match (shuns, occupied, blocks) {
            (true, _, _) => 3,
            (false, true, _) => 0,
            (false, false, false) => 1,
            (false, false, true) => 2,
        }
    }
}

/// Of the scores from `from` on, which are sorted by falling room: the one with the least room
/// that still holds `need`.
fn tightest(scores: &[PackScore], from: usize, need: u32) -> &PackScore {
    let roomy = scores.partition_point(|score| score.room.0 >= need);
    let last = &scores[roomy.saturating_sub(1).max(from)];
    let first = scores.partition_point(|score| score.room.0 > last.room.0);
    &scores[first.max(from).min(scores.len() - 1)]
}
