//! Pack: puts the replicas of each group on nodes of a domain, by the job's strategy.
//!
//! `PACK` fills the fewest nodes, the last one as tightly as possible; `SPREAD` and
//! `STRICT_SPREAD` prefer the fullest nodes, so that whole machines stay whole.
//! **Invariant:** a score is an ordered struct that ends in the node id: same content, same plan.

use super::Steps;
use super::ask::{Ask, Fit, GpuFit, GroupAsk};
use super::bulk::Floor;
use super::draft::Draft;
use super::exact;
use super::field::{Domain, Field, Pool};
use super::touched::Touched;
use crate::id::Rank;
use crate::job::{GpuAsk, Strategy};
use std::cmp::Reverse;

/// What one look at a target costs in steps of the budget, its share of sorting them included.
pub(super) const SIGHT_STEPS: u64 = 16;

/// Nodes as targets for many replicas; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct PackScore {
    /// Nodes that the job is on already, then others, then those with GPUs a CPU replica would
    /// block, then those that ask to be used last.
    pub(super) tier: u8,
    /// Most replicas first: fewest nodes.
    pub(super) room: Reverse<u32>,
    /// Idle GPUs that would be left: fullest first.
    left: u32,
    /// The least of the nodes.
    node: u32,
}

impl PackScore {
    /// The same order as one number, which sorts in a third of the time.
    pub(super) fn order(self) -> u128 {
        let (room, left) = (u128::from(u32::MAX - self.room.0), u128::from(self.left));
        u128::from(self.tier) << 96 | room << 64 | left << 32 | u128::from(self.node)
    }
}

/// Nodes as targets for one replica each of a spread job; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct SpreadScore {
    members: u32,
    tier: u8,
    /// Fullest first: whole machines stay whole.
    idle: u32,
    /// The least of the nodes.
    node: u32,
}

/// Nodes of equal score.
#[derive(Clone, Copy, Debug)]
enum Spots<'f> {
    /// One that the draft has touched, or that had to be looked at by itself.
    Node(u32, GpuFit),
    /// The untouched ones of a pool.
    Pool(&'f Pool<'f>),
}

impl Spots<'_> {
    fn gpus(&self) -> GpuFit {
        match self {
            Self::Node(_, gpus) => *gpus,
            Self::Pool(pool) => pool.gpus,
        }
    }

    /// The next untouched node from this place on, and its place.
    fn next(&self, draft: &Draft, from: usize) -> Option<(usize, u32)> {
        match self {
            Self::Node(node, _) => (from == 0).then_some((0, *node)),
            Self::Pool(pool) => {
                let mut at = from;
                loop {
                    let node = pool.get(at)?;
                    if draft.is_untouched(node) {
                        return Some((at, node));
                    }
                    at += 1;
                }
            }
        }
    }
}

/// Places `targets` replicas per group inside the domain, or nothing at all. Tries the groups in
/// a few orders and, where the case is small, every way there is.
pub(super) fn place(
    draft: &mut Draft,
    ask: &Ask<'_>,
    field: &Field<'_>,
    domain: &Domain,
    shunned: bool,
    targets: &[u32],
    steps: &mut Steps,
) -> bool {
    let mark = draft.mark();
    let floor = Floor::new(ask, field, domain, shunned);
    for order in orders(ask, field, domain, shunned, targets) {
        if let Some(floor) = &floor {
            if let Some(bulk) = floor.pack(&order, targets, steps) {
                draft.fill(bulk);
                return true;
            }
            if steps.is_spent() {
                return false;
            }
            continue;
        }
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
    draft: &mut Draft,
    ask: &Ask<'_>,
    field: &Field<'_>,
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
        let place = |fit: Fit| draft.place(group, node, slot, fit.gpus, ranks);
        target == 0 || fit.map(place) == Some(target)
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
    field: &Field<'_>,
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
pub(super) struct Lot<'a> {
    pub(super) ask: &'a Ask<'a>,
    pub(super) field: &'a Field<'a>,
    pub(super) domain: &'a Domain,
    pub(super) shunned: bool,
    pub(super) at: usize,
    pub(super) group: &'a GroupAsk,
}

impl Lot<'_> {
    /// Places the ranks as far as they fit; returns how many.
    pub(super) fn place(&self, draft: &mut Draft, ranks: &[Rank], steps: &mut Steps) -> u32 {
        match self.ask.spec.strategy {
            Strategy::Pack | Strategy::StrictPack => self.pack(draft, ranks, steps),
            Strategy::Spread => self.spread(draft, ranks, false, steps),
            Strategy::StrictSpread => self.spread(draft, ranks, true, steps),
        }
    }

    /// All targets of the group in the domain. Touched nodes come one by one; the others as pools,
    /// unless only those of one rack are wanted.
    fn spots(&self, draft: &Draft) -> Vec<(Sight, Spots<'_>)> {
        let pools = self.field.pools(self.at, self.domain, self.shunned);
        let mut spots: Vec<(Sight, Spots<'_>)> = Vec::new();
        for pool in pools {
            let Pool { room, idle, shuns, gpus, first, .. } = *pool;
            let sight = Sight { node: first, room, idle, members: 0, shuns };
            if self.domain.rack.is_none() {
                spots.push((sight, Spots::Pool(pool)));
                continue;
            }
            let inside = |node: &u32| {
                let slot = self.ask.view.slot(*node);
                slot.is_some_and(|slot| self.domain.admits(slot) && draft.is_untouched(*node))
            };
            let each = pool.nodes().filter(inside);
            spots.extend(each.map(|node| (Sight { node, ..sight }, Spots::Node(node, gpus))));
        }
        spots.extend(draft.touched().filter_map(|touched| self.touched(draft, touched)));
        spots
    }

    /// A touched node as a target, if it still is one.
    fn touched(&self, draft: &Draft, touched: &Touched) -> Option<(Sight, Spots<'_>)> {
        let (node, members) = (touched.node, touched.members);
        let slot = self.ask.view.slot(node)?;
        if !self.domain.admits(slot) || !self.field.admits(slot) || self.ask.avoids(node) {
            return None;
        }
        let fit = self.field.fit(self.ask, self.at, slot)?;
        if fit.shuns && !self.shunned {
            return None;
        }
        let room = draft.room(self.group, node, slot, fit.gpus, self.group.wanted());
        let (idle, shuns) = (touched.free.idle.len(), fit.shuns);
        let sight = Sight { node, room, idle, members, shuns };
        (room > 0).then_some((sight, Spots::Node(node, fit.gpus)))
    }

    fn pack(&self, draft: &mut Draft, ranks: &[Rank], steps: &mut Steps) -> u32 {
        let spots = self.spots(draft).into_iter();
        let mut targets: Vec<_> = spots.map(|(sight, spots)| (self.score(&sight), spots)).collect();
        targets.sort_unstable_by_key(|(score, _)| score.order());
        let placed = self.fill(draft, &targets, ranks);
        steps.spend(sights(targets.len(), draft) + u64::from(placed));
        placed
    }

    pub(super) fn score(&self, sight: &Sight) -> PackScore {
        let taken = sight.room.saturating_mul(self.group.whole_gpus());
        let left = sight.idle.saturating_sub(taken);
        let tier = self.tier(sight.shuns, sight.members > 0, sight.idle);
        PackScore { tier, room: Reverse(sight.room), left, node: sight.node }
    }

    /// Walks the targets, tier by tier, the roomiest first; what then fits on one node goes to the
    /// tightest that holds it.
    fn fill(&self, draft: &mut Draft, targets: &[(PackScore, Spots<'_>)], ranks: &[Rank]) -> u32 {
        let mut rest = ranks;
        for tier in targets.chunk_by(|(a, _), (b, _)| a.tier == b.tier) {
            for (at, (score, spots)) in tier.iter().enumerate() {
                let mut from = 0;
                while let Some((place, node)) = spots.next(draft, from) {
                    let need = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                    if need == 0 {
                        return u32::try_from(ranks.len()).unwrap_or(u32::MAX);
                    }
                    let last = score.room.0 >= need;
                    let tightest = if last { tightest(tier, at, need, draft) } else { None };
                    let (node, spots) = tightest.unwrap_or((node, spots));
                    let placed = self.put(draft, node, spots, rest);
                    rest = rest.get(placed as usize..).unwrap_or(&[]);
                    from = place + 1;
                }
            }
        }
        u32::try_from(ranks.len() - rest.len()).unwrap_or(u32::MAX)
    }

    fn spread(&self, draft: &mut Draft, ranks: &[Rank], strict: bool, steps: &mut Steps) -> u32 {
        let mut rest = ranks;
        // Each round gives every node one replica at most; it ends when a round gives none.
        while !rest.is_empty() && !steps.is_spent() {
            let before = rest.len();
            let mut targets: Vec<(SpreadScore, Spots<'_>)> = Vec::new();
            for (sight, spots) in self.spots(draft) {
                let Sight { node, idle, members, shuns, .. } = sight;
                if strict && members > 0 {
                    continue;
                }
                let tier = self.tier(shuns, false, idle);
                targets.push((SpreadScore { members, tier, idle, node }, spots));
            }
            targets.sort_unstable_by_key(|(score, _)| *score);
            for (_, spots) in &targets {
                let mut from = 0;
                while let Some((place, node)) = spots.next(draft, from) {
                    let Some(first) = rest.get(..1) else { break };
                    let placed = self.put(draft, node, spots, first);
                    rest = rest.get(placed as usize..).unwrap_or(&[]);
                    from = place + 1;
                }
            }
            steps.spend(sights(targets.len(), draft) + (before - rest.len()) as u64);
            if strict || rest.len() == before {
                break;
            }
        }
        u32::try_from(ranks.len() - rest.len()).unwrap_or(u32::MAX)
    }

    fn put(&self, draft: &mut Draft, node: u32, spots: &Spots<'_>, ranks: &[Rank]) -> u32 {
        let view = self.ask.view;
        if let Spots::Pool(Pool { free: Some(free), gpus, .. }) = *spots {
            return draft.place_in_pool(self.group, (free, *gpus), node, view.brief(node), ranks);
        }
        let Some(slot) = view.slot(node) else { return 0 };
        draft.place(self.group, node, slot, spots.gpus(), ranks)
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

/// Steps for looking at so many targets, and at all that the draft has touched, and sorting them.
fn sights(targets: usize, draft: &Draft) -> u64 {
    (targets + draft.touched().count()) as u64 * SIGHT_STEPS
}

/// What a target looks like: one node, or each of several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    pub(super) node: u32,
    pub(super) room: u32,
    pub(super) idle: u32,
    pub(super) members: u32,
    pub(super) shuns: bool,
}

/// Of the targets from `from` on, which are sorted by falling room: a node of the least room that
/// still holds `need`.
fn tightest<'t, 'f>(
    targets: &'t [(PackScore, Spots<'f>)],
    from: usize,
    need: u32,
    draft: &Draft,
) -> Option<(u32, &'t Spots<'f>)> {
    let roomy = targets.partition_point(|(score, _)| score.room.0 >= need);
    let able = targets.get(from..roomy)?;
    // Of equal room the first; pools whose nodes are all taken are passed over.
    for equal in able.chunk_by(|(a, _), (b, _)| a.room == b.room).rev() {
        for (_, spots) in equal {
            if let Some((_, node)) = spots.next(draft, 0) {
                return Some((node, spots));
            }
        }
    }
    None
}
