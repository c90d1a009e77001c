//! Lot: places the replicas of one group on given nodes — by blocks, evenly, or by its strategy.
//!
//! **Invariant:** all or nothing is the caller's business, by rolling back; nothing is placed that
//! a cap forbids.

use super::Search;
use super::map::Cand;
use super::paths::depth;
use super::tally::Blocks;
use super::wish::Wish;
use crate::id::Rank;
use crate::job::{GpuAsk, Level, Strategy};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// What one look at a node costs in steps of the budget.
pub(super) const LOOK_STEPS: u64 = 16;

/// A node as a target for many replicas; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct PackScore {
    /// Only where the total price is bound and the first tries cost too much.
    price: u64,
    /// Nodes that the job is on already, then others, then those with GPUs a CPU replica would
    /// block.
    tier: u8,
    /// Most replicas first: fewest nodes.
    room: Reverse<u32>,
    /// Idle GPUs that would be left: fullest first.
    left: u32,
    node: u32,
    at: usize,
}

/// A node as a target for one replica of a spread group; the least is the best.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct SpreadScore {
    price: u64,
    members: u32,
    tier: u8,
    idle: u32,
    node: u32,
    at: usize,
}

/// A domain at a depth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Home {
    depth: usize,
    domain: u32,
}

impl Home {
    pub(super) fn holds(self, cand: &Cand) -> bool {
        cand.path[self.depth] == self.domain
    }
}

/// Runs of candidates in one domain at the depth, which are sorted by path.
pub(super) fn runs(cands: &[Cand], at: usize) -> impl Iterator<Item = &[Cand]> {
    cands.chunk_by(move |a, b| a.path[at] == b.path[at])
}

impl Search<'_, '_> {
    /// Places the ranks of a group (by its place in the ask) on these candidates; whether all
    /// found a node.
    pub(super) fn lot(&mut self, at: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        if self.ask.homes.is_empty() {
            return self.free_lot(at, ranks, cands);
        }
        let mut by_home: BTreeMap<Option<Home>, Vec<Rank>> = BTreeMap::new();
        for &rank in ranks {
            by_home.entry(self.home(rank)).or_default().push(rank);
        }
        let free = by_home.remove(&None).unwrap_or_default();
        self.look(at, cands.len() * by_home.len());
        for (home, ranks) in by_home {
            let inside = |cand: &&Cand| home.is_none_or(|home| home.holds(cand));
            let here: Vec<Cand> = cands.iter().filter(inside).copied().collect();
            if !self.blocks(at, 0, &ranks, &here) {
                return false;
            }
        }
        free.is_empty() || self.free_lot(at, &free, cands)
    }

    /// The domain in which a lost replica must be replaced.
    pub(super) fn home(&self, rank: Rank) -> Option<Home> {
        let (depth, node) = self.ask.home(rank)?;
        Some(Home { depth, domain: self.map.path(node)[depth] })
    }

    /// On few enough domains, where the group has a bound on them.
    fn free_lot(&mut self, at: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        let group = self.group_of(at);
        if !self.tally.held().iter().any(|held| held.group == Some(group)) {
            return self.lot_anywhere(at, ranks, cands);
        }
        let needs = [ranks.len() as u64];
        for lists in self.few(Some(group), &[at], &needs, vec![cands.to_vec()]) {
            let mark = self.mark();
            if lists.first().is_some_and(|cands| self.lot_anywhere(at, ranks, cands)) {
                return true;
            }
            self.rollback(mark);
            if self.steps.is_spent() {
                return false;
            }
        }
        false
    }

    fn lot_anywhere(&mut self, at: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        let Some(spec) = self.group_spec(at) else { return false };
        let group = self.group_of(at);
        let even = spec.rules.spread.iter().enumerate().filter(|(nth, spread)| {
            !spread.preferred || self.wishes.keeps(Wish::Spread(group, *nth))
        });
        // The widest first: what is even inside a domain is left to the order of nodes.
        match even.map(|(_, spread)| *spread).min_by_key(|spread| spread.level) {
            Some(spread) if spec.rules.segments.is_empty() => {
                self.evenly(at, ranks, cands, depth(spread.level), spread.skew_max)
            }
            _ => self.blocks(at, 0, ranks, cands),
        }
    }

    /// Pays for a look at so many candidates of a group, which is held against all of its rules.
    pub(super) fn look(&mut self, at: usize, cands: usize) {
        let rules = self.tally.rules(self.group_of(at)).len() as u64;
        self.steps.spend(cands as u64 * (LOOK_STEPS + rules));
    }

    /// Replicas that still fit on the candidate, by room and rules.
    fn left(&self, at: usize, cand: &Cand, most: u32) -> u32 {
        let cap = self.tally.cap(self.group_of(at), cand.node, most);
        if cap == 0 || self.draft.is_untouched(cand.node) {
            return cand.room.min(cap);
        }
        let (Some(group), Some(slot)) = (self.ask.groups.get(at), self.ask.view.slot(cand.node))
        else {
            return 0;
        };
        self.draft.room(group, cand.node, slot, cand.gpus, cap)
    }

    /// Replicas that fit on the candidates on paper, whole blocks only from the segment on.
    pub(super) fn paper(&self, at: usize, segment: usize, cands: &[Cand]) -> u64 {
        match self.tally.segments(self.group_of(at)).get(segment) {
            None => cands.iter().map(|cand| u64::from(self.left(at, cand, u32::MAX))).sum(),
            Some(blocks) => {
                let whole = |run| self.units(at, segment, blocks, run);
                runs(cands, blocks.depth).map(whole).sum::<u64>() * u64::from(blocks.size)
            }
        }
    }

    /// Whole blocks that fit on the candidates of one domain on paper.
    fn units(&self, at: usize, segment: usize, blocks: &Blocks, run: &[Cand]) -> u64 {
        let fits = self.paper(at, segment + 1, run) / u64::from(blocks.size);
        let domain = run.first().map_or(u32::MAX, |cand| cand.path[blocks.depth]);
        match (blocks.exclusive, self.tally.is_free_for(self.group_of(at), blocks, domain)) {
            (false, _) => fits,
            (true, true) => fits.min(1),
            (true, false) => 0,
        }
    }

    fn blocks(&mut self, at: usize, segment: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        let group = self.group_of(at);
        let Some(&Blocks { depth, size, .. }) = self.tally.segments(group).get(segment) else {
            return self.fill(at, ranks, cands);
        };
        self.look(at, cands.len());
        let mut whole: Vec<&[Rank]> = Vec::new();
        let mut parts: Vec<&[Rank]> = Vec::new();
        let block = |rank: &Rank| self.tally.block(group, size, *rank);
        let chunks: Vec<(u32, &[Rank])> = ranks
            .chunk_by(|a, b| block(a) == block(b))
            .filter_map(|chunk| Some((block(chunk.first()?), chunk)))
            .collect();
        for (number, chunk) in chunks {
            match self.tally.block_home(group, segment, number) {
                Some(home) => {
                    let inside = runs(cands, depth).find(|run| run[0].path[depth] == home);
                    if !inside.is_some_and(|run| self.blocks(at, segment + 1, chunk, run)) {
                        return false;
                    }
                }
                None if chunk.len() == size as usize => whole.push(chunk),
                None => parts.push(chunk),
            }
        }
        self.whole_blocks(at, segment, &whole, cands)
            && parts.into_iter().all(|part| self.part_block(at, segment, part, cands))
    }

    /// Full blocks: the roomiest domains first, the last one as tight as can be.
    fn whole_blocks(
        &mut self,
        at: usize,
        segment: usize,
        blocks: &[&[Rank]],
        cands: &[Cand],
    ) -> bool {
        let Some(&kind) = self.tally.segments(self.group_of(at)).get(segment) else {
            return false;
        };
        let units = |run: &[Cand]| {
            usize::try_from(self.units(at, segment, &kind, run)).unwrap_or(usize::MAX)
        };
        let mut domains: Vec<(usize, &[Cand])> =
            runs(cands, kind.depth).map(|run| (units(run), run)).collect();
        domains.retain(|(units, _)| *units > 0);
        domains.sort_by_key(|(units, run)| (Reverse(*units), run[0].path));
        if kind.exclusive {
            return self.one_each(at, segment, blocks, domains);
        }
        let mut rest = blocks;
        while !rest.is_empty() && !domains.is_empty() && !self.steps.is_spent() {
            let tight = domains.partition_point(|(units, _)| *units >= rest.len());
            let (units, run) = domains.remove(tight.saturating_sub(1));
            let mut take = units.min(rest.len());
            // What fits on paper may not in fact: then half as much is tried.
            while take > 0 {
                let ranks: Vec<Rank> = rest[..take].concat();
                let mark = self.mark();
                if self.blocks(at, segment + 1, &ranks, run) {
                    break;
                }
                self.rollback(mark);
                take /= 2;
            }
            rest = &rest[take..];
        }
        rest.is_empty()
    }

    /// Full blocks, each in a domain of its own.
    fn one_each(
        &mut self,
        at: usize,
        segment: usize,
        blocks: &[&[Rank]],
        domains: Vec<(usize, &[Cand])>,
    ) -> bool {
        let mut rest = blocks.iter().peekable();
        for (_, run) in domains {
            let Some(ranks) = rest.peek().filter(|_| !self.steps.is_spent()) else { break };
            let mark = self.mark();
            if self.blocks(at, segment + 1, ranks, run) {
                rest.next();
            } else {
                self.rollback(mark);
            }
        }
        rest.peek().is_none()
    }

    /// A block that is not full, in the tightest domain that holds it.
    fn part_block(&mut self, at: usize, segment: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        let group = self.group_of(at);
        let Some(kind) = self.tally.segments(group).get(segment) else {
            return false;
        };
        let need = ranks.len() as u64;
        let mut domains: Vec<(u64, &[Cand])> = runs(cands, kind.depth)
            .filter(|run| self.tally.is_free_for(group, kind, run[0].path[kind.depth]))
            .map(|run| (self.parts_paper(at, segment + 1, run), run))
            .filter(|(room, _)| *room >= need)
            .collect();
        domains.sort_by_key(|(room, run)| (*room, run[0].path));
        self.look(at, cands.len());
        for (_, run) in domains {
            let mark = self.mark();
            if self.blocks(at, segment + 1, ranks, run) {
                return true;
            }
            self.rollback(mark);
            if self.steps.is_spent() {
                return false;
            }
        }
        false
    }

    /// As [`Search::paper`], where blocks need not be whole.
    fn parts_paper(&self, at: usize, _segment: usize, cands: &[Cand]) -> u64 {
        cands.iter().map(|cand| u64::from(self.left(at, cand, u32::MAX))).sum()
    }

    /// Spreads the ranks over all domains of the depth that could hold the group, so that the
    /// fullest holds at most `skew` more than the emptiest.
    fn evenly(
        &mut self,
        at: usize,
        ranks: &[Rank],
        cands: &[Cand],
        depth: usize,
        skew: u32,
    ) -> bool {
        let group = self.group_of(at);
        self.look(at, cands.len());
        let mut by_domain: BTreeMap<u32, &[Cand]> =
            runs(cands, depth).map(|run| (run[0].path[depth], run)).collect();
        let mut domains: Vec<Even<'_>> = Vec::new();
        for &domain in self.map.eligible(at, depth) {
            let run = by_domain.remove(&domain).unwrap_or(&[]);
            let held = self.tally.count(group, depth, domain);
            let room = u32::try_from(self.paper(at, 0, run)).unwrap_or(u32::MAX);
            domains.push(Even { held, room, run });
        }
        let Some(quotas) = quotas(&domains, ranks.len() as u64, skew) else { return false };
        let mut rest = ranks;
        for (domain, quota) in domains.iter().zip(quotas) {
            let Some((now, later)) = rest.split_at_checked(quota) else { return false };
            rest = later;
            if !now.is_empty() && !self.spread(at, now, domain.run) {
                return false;
            }
        }
        rest.is_empty()
    }

    fn fill(&mut self, at: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        let strategy = self.group_spec(at).and_then(|group| group.rules.strategy);
        match strategy.unwrap_or(self.ask.spec.strategy) {
            Strategy::Pack | Strategy::StrictPack => self.pack(at, ranks, cands),
            Strategy::Spread | Strategy::StrictSpread => self.spread(at, ranks, cands),
        }
    }

    fn pack(&mut self, at: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        let most = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
        let mut scores: Vec<PackScore> = Vec::with_capacity(cands.len());
        for (index, cand) in cands.iter().enumerate() {
            let room = self.left(at, cand, most);
            if room > 0 {
                let whole = self.ask.groups.get(at).map_or(0, |group| group.whole_gpus());
                let members = self.draft.members(cand.node);
                let left = cand.idle.saturating_sub(room.saturating_mul(whole));
                let (room, node) = (Reverse(room), cand.node);
                let tier = self.tier(at, cand, members > 0);
                let price = if self.cheap { cand.price } else { 0 };
                scores.push(PackScore { price, tier, room, left, node, at: index });
            }
        }
        self.look(at, cands.len());
        scores.sort_unstable();
        let mut rest = ranks;
        for tier in scores.chunk_by(|a, b| (a.price, a.tier) == (b.price, b.tier)) {
            for (index, score) in tier.iter().enumerate() {
                let need = u32::try_from(rest.len()).unwrap_or(u32::MAX);
                if need == 0 {
                    return true;
                }
                let target = if score.room.0 >= need { tightest(tier, index, need) } else { score };
                let placed = self.put(at, &cands[target.at], rest);
                rest = &rest[placed..];
            }
        }
        rest.is_empty()
    }

    fn spread(&mut self, at: usize, ranks: &[Rank], cands: &[Cand]) -> bool {
        let mut rest = ranks;
        // Each round gives every node one replica at most; it ends when a round gives none.
        while !rest.is_empty() && !self.steps.is_spent() {
            let mut scores: Vec<SpreadScore> = Vec::with_capacity(cands.len());
            for (index, cand) in cands.iter().enumerate() {
                if self.left(at, cand, 1) > 0 {
                    let members = self.draft.members(cand.node);
                    let (idle, node) = (cand.idle, cand.node);
                    let tier = self.tier(at, cand, false);
                    let price = if self.cheap { cand.price } else { 0 };
                    scores.push(SpreadScore { price, members, tier, idle, node, at: index });
                }
            }
            self.look(at, cands.len());
            scores.sort_unstable();
            let before = rest.len();
            for score in scores {
                let Some(one) = rest.get(..1) else { break };
                let placed = self.put(at, &cands[score.at], one);
                rest = &rest[placed..];
            }
            if rest.len() == before {
                return false;
            }
        }
        rest.is_empty()
    }

    /// Places as many of the ranks as the node takes; returns how many.
    pub(super) fn put(&mut self, at: usize, cand: &Cand, ranks: &[Rank]) -> usize {
        let Some((group, slot)) = self.ask.groups.get(at).zip(self.ask.view.slot(cand.node)) else {
            return 0;
        };
        let most = u32::try_from(ranks.len()).unwrap_or(u32::MAX);
        let cap = self.tally.cap(group.group, cand.node, most) as usize;
        let Some(ranks) = ranks.get(..cap).filter(|ranks| !ranks.is_empty()) else { return 0 };
        let placed = self.draft.place(group, cand.node, slot, cand.gpus, ranks) as usize;
        for &rank in &ranks[..placed] {
            self.tally.add(group.group, rank, cand.node);
        }
        placed
    }

    fn tier(&self, at: usize, cand: &Cand, occupied: bool) -> u8 {
        let gpus = self.ask.groups.get(at).map(|group| group.needs.gpus());
        let blocks = gpus == Some(GpuAsk::None) && cand.idle > 0;
        match (cand.shuns, occupied, blocks) {
            (true, _, _) => 3,
            (false, true, _) => 0,
            (false, false, false) => 1,
            (false, false, true) => 2,
        }
    }
}

/// A domain over which to be even.
struct Even<'c> {
    held: u32,
    room: u32,
    run: &'c [Cand],
}

/// How many of `need` more each domain gets, so that none holds more than `skew` above the one
/// that holds the least; `None` if there is no such way.
///
/// With every domain between m and m + skew, a larger m leaves more room above and asks for more
/// below: the largest that is not too much is the best.
fn quotas(domains: &[Even<'_>], need: u64, skew: u32) -> Option<Vec<usize>> {
    let floor_max = domains.iter().map(|one| one.held.saturating_add(one.room)).min()?;
    let least = |floor: u32| -> u64 {
        domains.iter().map(|one| u64::from(floor.saturating_sub(one.held))).sum()
    };
    let (mut floor, mut end) = (0u32, floor_max.saturating_add(1));
    while floor + 1 < end {
        let middle = floor + (end - floor) / 2;
        if least(middle) <= need { floor = middle } else { end = middle }
    }
    let top = floor.saturating_add(skew);
    if least(floor) > need || domains.iter().any(|one| one.held > top) {
        return None;
    }
    let mut quotas: Vec<u32> = domains.iter().map(|one| floor.saturating_sub(one.held)).collect();
    let mut left = need - least(floor);
    let mut order: Vec<usize> = (0..domains.len()).collect();
    order.sort_by_key(|&at| (Reverse(domains[at].room.min(skew)), at));
    for at in order {
        let one = &domains[at];
        let more = top.saturating_sub(one.held).min(one.room).saturating_sub(quotas[at]);
        let more = u64::from(more).min(left);
        quotas[at] += u32::try_from(more).unwrap_or(0);
        left -= more;
    }
    (left == 0).then(|| quotas.into_iter().map(|quota| quota as usize).collect())
}

/// Of the scores from `from` on, which are sorted by falling room: the one with the least room
/// that still holds `need`.
fn tightest(scores: &[PackScore], from: usize, need: u32) -> &PackScore {
    let roomy = scores.partition_point(|score| score.room.0 >= need);
    let last = &scores[roomy.saturating_sub(1).max(from)];
    let first = scores.partition_point(|score| score.room.0 > last.room.0);
    &scores[first.max(from).min(scores.len() - 1)]
}

/// Levels at which groups keep near or apart, from narrow to wide: a hint where to try.
pub(super) const HINT_LEVELS: [Level; 4] = [Level::Rack, Level::Site, Level::Zone, Level::Region];
