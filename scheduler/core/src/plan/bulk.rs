//! Bulk: packs a gang by whole pools, not node by node.
//!
//! Nodes of one pool on which the same replicas come to lie stay alike, so they are kept together
//! as one stretch of the pool. What packing costs then goes by the variety of the fleet; a gang that
//! is only tried, to show that it would fit, never becomes placements at all.
//! **Invariant:** what is packed here is a placement node by node, with the same choices that
//! looking at single nodes would make, but for the order of targets that score alike.

use super::Steps;
use super::ask::{Ask, GpuFit, GroupAsk};
use super::draft::Members;
use super::field::{Domain, Field, Pool};
use super::pack::{Lot, PackScore, SIGHT_STEPS, Sight};
use super::room::{lowest, room, take};
use crate::command::Placement;
use crate::id::{Epoch, NodeId, Rank, SiteId};
use crate::job::{GpuAsk, Strategy};
use crate::node::Gpu;
use crate::unit::GpuSet;
use crate::view::Free;

/// Replicas of one group on each of some nodes in a row of a pool.
#[derive(Clone, Debug)]
struct Load {
    /// Place in the ask.
    group: usize,
    /// Place in the pool of the first of the nodes.
    from: u32,
    /// Place among the group's ranks of the first replica on that node.
    rank: usize,
    /// Replicas on each node.
    each: u32,
    /// What each node has left with them.
    left: Free,
    /// Place in the list of loads of what these nodes, and perhaps some more, had before.
    before: Option<u32>,
}

/// Nodes of one pool on each of which the same lies.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Number of the pool.
    pool: u32,
    site: u16,
    /// Places in the pool: from this one to before that.
    from: u32,
    to: u32,
    /// Place in the list of loads of the last that came; `None` = nothing lies there.
    last: Option<u32>,
}

impl Stretch {
    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// Cuts off the first so many nodes, of which there are more.
    fn cut(&mut self, nodes: u32) -> Self {
        let head = Self { to: self.from + nodes, ..*self };
        self.from = head.to;
        head
    }
}

/// The loads of a stretch, the last one first.
fn loads_of<'a>(loads: &'a [Load], stretch: &Stretch) -> impl Iterator<Item = &'a Load> {
    let at = |place: Option<u32>| loads.get(place? as usize);
    std::iter::successors(at(stretch.last), move |load| at(load.before))
}

/// What of a group lies on each node of a stretch.
struct Part<'a> {
    load: &'a Load,
    /// Place among all placements of the group's first.
    start: usize,
    group: &'a GroupAsk,
    fit: GpuFit,
}

impl Part<'_> {
    /// Whole GPUs of a replica, where any that are idle and allowed do.
    fn plain_gpus(&self) -> Option<u32> {
        match self.group.needs.gpus() {
            GpuAsk::None => Some(0),
            GpuAsk::Whole(count) => self.fit.plain.then_some(u32::from(count)),
            GpuAsk::Share(_) => None,
        }
    }
}

/// A node while its replicas get their GPUs.
enum Seat<'a> {
    /// Nothing but these matters.
    Idle(GpuSet),
    Free(Free, &'a [Gpu]),
}

impl Seat<'_> {
    /// Exact GPUs for one replica.
    fn take(&mut self, part: &Part<'_>) -> Option<(GpuSet, u16)> {
        match self {
            Self::Idle(idle) => {
                let count = part.plain_gpus()?;
                let gpus = lowest(*idle & part.fit.mask, count);
                *idle = GpuSet(idle.0 & !gpus.0);
                (gpus.len() == count).then_some((gpus, 0))
            }
            Self::Free(free, gpus) => take(part.group, gpus, free, part.fit),
        }
    }
}

/// A gang packed by pools.
#[derive(Clone, Debug)]
pub(super) struct Bulk {
    /// Those on which something lies.
    stretches: Vec<Stretch>,
    loads: Vec<Load>,
    /// Replicas of each group of the ask.
    targets: Vec<u32>,
}

impl Bulk {
    /// Members at each site.
    pub(super) fn members(&self) -> Members {
        let mut members = Members::new();
        for stretch in &self.stretches {
            let loads = loads_of(&self.loads, stretch);
            let each: u64 = loads.map(|load| u64::from(load.each)).sum();
            *members.entry(SiteId(stretch.site)).or_default() += each * stretch.len() as u64;
        }
        members
    }

    /// The placements by rising rank, in the field by which they were packed.
    pub(super) fn placements(&self, ask: &Ask<'_>, field: &Field<'_>) -> Option<Vec<Placement>> {
        let pools: Vec<_> = (0..ask.groups.len()).map(|at| by_number(field, at)).collect();
        let nowhere = Placement {
            rank: Rank(0),
            node: NodeId(0),
            node_epoch: Epoch(0),
            gpus: GpuSet::EMPTY,
            share_milli: 0,
        };
        let mut starts = Vec::with_capacity(self.targets.len());
        let mut placements = Vec::new();
        for &target in &self.targets {
            starts.push(placements.len());
            placements.resize(placements.len() + target as usize, nowhere);
        }
        let mut parts: Vec<Part<'_>> = Vec::new();
        for stretch in &self.stretches {
            parts.clear();
            for load in loads_of(&self.loads, stretch) {
                let fit = pool_of(&pools, load.group, stretch)?.gpus;
                let (group, start) = (ask.groups.get(load.group)?, *starts.get(load.group)?);
                parts.push(Part { load, start, group, fit });
            }
            // In the order in which they came.
            parts.reverse();
            let pool = pool_of(&pools, parts.first()?.load.group, stretch)?;
            // That there is room was seen when it was packed; which GPUs is all that is open.
            let plain = parts.iter().all(|part| part.plain_gpus().is_some());
            for at in stretch.from..stretch.to {
                let node = pool.get(at as usize)?;
                let brief = ask.view.brief(node);
                let (id, node_epoch) = (NodeId(node), brief.epoch);
                let mut seat = match pool.free {
                    Some(_) if plain => Seat::Idle(brief.idle),
                    Some(free) => Seat::Free(free.with_idle(brief.idle), &[]),
                    None => {
                        let slot = ask.view.slot(node)?;
                        Seat::Free(field.base.free(slot), &slot.node.gpus)
                    }
                };
                for part in &parts {
                    let each = part.load.each as usize;
                    let rank = part.load.rank + (at - part.load.from) as usize * each;
                    let own = part.start + rank;
                    let own = placements.get_mut(own..own + each)?;
                    for (cell, &rank) in own.iter_mut().zip(part.group.ranks.get(rank..)?) {
                        let (gpus, share_milli) = seat.take(part)?;
                        *cell = Placement { rank, node: id, node_epoch, gpus, share_milli };
                    }
                }
            }
        }
        Some(placements)
    }
}

/// Per group, by number: the pools on which it may go.
type Pools<'a, 'v> = Vec<Vec<Option<&'a Pool<'v>>>>;

fn pool_of<'a, 'v>(pools: &Pools<'a, 'v>, group: usize, stretch: &Stretch) -> Option<&'a Pool<'v>> {
    pools.get(group)?.get(stretch.pool as usize).copied().flatten()
}

/// The group's pools by their numbers.
fn by_number<'f, 'v>(field: &'f Field<'v>, group: usize) -> Vec<Option<&'f Pool<'v>>> {
    let mut pools = vec![None; field.numbers()];
    for (number, pool) in field.numbered(group) {
        if let Some(cell) = pools.get_mut(number) {
            *cell = Some(pool);
        }
    }
    pools
}

/// A part of the fleet on which nothing of the job lies yet.
pub(super) struct Floor<'a> {
    lots: Vec<Lot<'a>>,
    pools: Pools<'a, 'a>,
    stretches: Vec<Stretch>,
}

impl<'a> Floor<'a> {
    /// `None` where single nodes must be looked at: for a rack, beside members that stay, where
    /// nodes of one pool are not for every group, or where packing is not the way.
    pub(super) fn new(
        ask: &'a Ask<'a>,
        field: &'a Field<'a>,
        domain: &'a Domain,
        shunned: bool,
    ) -> Option<Self> {
        if ask.spec.strategy != Strategy::Pack || domain.rack.is_some() || !ask.fixed.is_empty() {
            return None;
        }
        let mut floor = Self { lots: Vec::new(), pools: Vec::new(), stretches: Vec::new() };
        let mut seen = vec![false; field.numbers()];
        for (at, group) in ask.groups.iter().enumerate() {
            let mut own = vec![None; field.numbers()];
            for pool in field.pools(at, domain, shunned) {
                let number = pool.number?;
                *own.get_mut(number as usize)? = Some(pool);
                if !std::mem::replace(seen.get_mut(number as usize)?, true) {
                    let (site, to) = (pool.site, u32::try_from(pool.len()).ok()?);
                    let stretch = Stretch { pool: number, site, from: 0, to, last: None };
                    floor.stretches.push(stretch);
                }
            }
            floor.pools.push(own);
            floor.lots.push(Lot { ask, field, domain, shunned, at, group });
        }
        Some(floor)
    }

    /// Packs so many replicas of each group, the groups in this order.
    pub(super) fn pack(&self, order: &[usize], targets: &[u32], steps: &mut Steps) -> Option<Bulk> {
        let stretches = self.stretches.clone();
        let mut packing = Packing { floor: self, stretches, loads: Vec::new() };
        let whole = order.iter().all(|&at| {
            let Some((lot, &target)) = self.lots.get(at).zip(targets.get(at)) else { return false };
            target == 0 || packing.group(lot, target, steps).is_some()
        });
        let Packing { mut stretches, loads, .. } = packing;
        stretches.retain(|stretch| stretch.last.is_some());
        whole.then(|| Bulk { stretches, loads, targets: targets.to_vec() })
    }
}

struct Packing<'f, 'a> {
    floor: &'f Floor<'a>,
    stretches: Vec<Stretch>,
    loads: Vec<Load>,
}

impl Packing<'_, '_> {
    /// Packs all replicas of one group: `None` if they do not fit.
    fn group(&mut self, lot: &Lot<'_>, target: u32, steps: &mut Steps) -> Option<()> {
        let sights = self.stretches.iter().enumerate();
        let sights = sights.filter_map(|(at, stretch)| Some((self.sight(lot, stretch)?, at)));
        let mut targets: Vec<(PackScore, usize)> =
            sights.map(|(sight, at)| (lot.score(&sight), at)).collect();
        steps.spend((self.stretches.len() + targets.len()) as u64 * SIGHT_STEPS / 2);
        targets.sort_unstable_by_key(|(score, _)| score.order());
        let mut need = target;
        for tier in targets.chunk_by(|(a, _), (b, _)| a.tier == b.tier) {
            for (place, &(score, at)) in tier.iter().enumerate() {
                let (nodes, room) = (self.stretches.get(at)?.len(), score.room.0);
                // Nodes that one after the other leave more than the next one holds.
                let full = (need.checked_sub(1)?.checked_div(room)? as usize).min(nodes);
                let placed = u32::try_from(full).unwrap_or(u32::MAX) * room;
                self.load(lot, at, full, (target - need, room))?;
                need -= placed;
                if full < nodes {
                    // What is left goes to one node, the tightest that holds it.
                    let able = tier.partition_point(|(score, _)| score.room.0 >= need);
                    let mut equal =
                        tier.get(place..able)?.chunk_by(|(a, _), (b, _)| a.room == b.room);
                    let &(_, tightest) = equal.next_back()?.first()?;
                    return self.load(lot, tightest, 1, (target - need, need));
                }
            }
        }
        None
    }

    /// The nodes of a stretch as targets for a group, if they are.
    fn sight(&self, lot: &Lot<'_>, stretch: &Stretch) -> Option<Sight> {
        let pool = self.pool(lot.at, stretch)?;
        let node = first_of(pool, stretch)?;
        let (room, idle) = match self.left(stretch) {
            None => (pool.room, pool.idle),
            Some(free) => {
                let (gpus, most) = (gpus_of(lot, pool, node)?, lot.group.wanted());
                (room(lot.group, gpus, free, pool.gpus, most), free.idle.len())
            }
        };
        let (members, shuns) = (u32::from(stretch.last.is_some()), pool.shuns);
        (room > 0).then_some(Sight { node, room, idle, members, shuns })
    }

    fn pool(&self, group: usize, stretch: &Stretch) -> Option<&Pool<'_>> {
        pool_of(&self.floor.pools, group, stretch)
    }

    /// What each node has left; `None` = as much as it had.
    fn left(&self, stretch: &Stretch) -> Option<&Free> {
        self.loads.get(stretch.last? as usize).map(|load| &load.left)
    }

    /// Puts replicas of a group on the first so many nodes of a stretch: from this place among its
    /// ranks on, so many on each.
    fn load(
        &mut self,
        lot: &Lot<'_>,
        at: usize,
        nodes: usize,
        (rank, each): (u32, u32),
    ) -> Option<()> {
        if nodes == 0 {
            return Some(());
        }
        let stretch = self.stretches.get(at)?;
        let pool = self.pool(lot.at, stretch)?;
        let (node, fit) = (first_of(pool, stretch)?, pool.gpus);
        let gpus = gpus_of(lot, pool, node)?;
        let mut left = match (self.left(stretch), pool.free) {
            (Some(free), _) | (None, Some(free)) => free.clone(),
            (None, None) => lot.field.base.free(lot.ask.view.slot(node)?),
        };
        for _ in 0..each {
            take(lot.group, gpus, &mut left, fit)?;
        }
        let (group, from, before) = (lot.at, stretch.from, stretch.last);
        let last = Some(u32::try_from(self.loads.len()).ok()?);
        self.loads.push(Load { group, from, rank: rank as usize, each, left, before });
        let stretch = self.stretches.get_mut(at)?;
        if nodes < stretch.len() {
            let head = stretch.cut(u32::try_from(nodes).ok()?);
            self.stretches.push(Stretch { last, ..head });
        } else {
            stretch.last = last;
        }
        Some(())
    }
}

/// The least node of a stretch of the pool.
fn first_of(pool: &Pool<'_>, stretch: &Stretch) -> Option<u32> {
    if stretch.from == 0 { Some(pool.first) } else { pool.get(stretch.from as usize) }
}

/// GPUs of a node of the pool; none where they are alike and so are not looked at.
fn gpus_of<'a>(lot: &Lot<'a>, pool: &Pool<'_>, node: u32) -> Option<&'a [Gpu]> {
    if pool.free.is_some() {
        return Some(&[]);
    }
    Some(&lot.ask.view.slot(node)?.node.gpus)
}
