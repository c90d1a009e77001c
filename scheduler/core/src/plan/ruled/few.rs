//! Few: which domains a gang goes into where only so many are allowed.
//!
//! For one kind of replica the roomiest are right: if they do not hold it, none do. Groups that share
//! domains are weighed together: every way where there are few domains, else by greed and exchanges.
//! **Invariant:** proposes only: `tally` keeps the bound, whatever is proposed here.

use super::Search;
use super::lot::runs;
use super::map::Cand;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// Sets of domains tried under one bound.
const SETS_MAX: usize = 4;
/// Narrowed lists tried for one choice of sites, over bounds at several levels.
const NARROWED_MAX: usize = 8;
/// Domains up to which every set is looked at: 4,096 of them.
const EXHAUSTIVE_MAX: usize = 12;
/// Domains that are considered for an exchange: those chosen last, and the most useful others.
const EXCHANGED_MAX: usize = 64;
/// Exchanges made at most: each brings the gang nearer to fitting.
const EXCHANGES_MAX: usize = 64;
/// What it costs in steps to look at the most useful domain again.
const HEAP_STEPS: u64 = 8;

/// A domain that may be chosen.
#[derive(Clone, Debug, Default)]
struct Choice {
    domain: u32,
    /// What it holds of each thing needed.
    rooms: Vec<u64>,
    /// Mean price of its nodes by their room, where the total price is bound.
    price: u64,
}

/// What is looked for, in one sum.
struct Wanted<'a> {
    choices: &'a [Choice],
    /// What must be covered yet.
    need: Vec<u64>,
    /// At most so many domains.
    most: usize,
}

impl Search<'_, '_> {
    /// The candidates of these groups (by their places in the ask) narrowed to domains that are few
    /// enough for the bounds of the job, or of one group of the spec. The best first; where there is
    /// something to choose, the last are as they were.
    pub(super) fn few(
        &mut self,
        of: Option<usize>,
        groups: &[usize],
        needs: &[u64],
        lists: Vec<Vec<Cand>>,
    ) -> Vec<Vec<Vec<Cand>>> {
        let bounds = self.tally.held();
        let bounds: Vec<usize> = (0..bounds.len()).filter(|&at| bounds[at].group == of).collect();
        if bounds.is_empty() {
            return vec![lists];
        }
        let mut narrowed = vec![lists.clone()];
        for bound in bounds {
            let mut next = Vec::new();
            for lists in narrowed {
                for set in self.sets(bound, groups, needs, &lists) {
                    next.push(self.inside(bound, &set, &lists));
                }
                if self.steps.is_spent() {
                    break;
                }
            }
            next.truncate(NARROWED_MAX);
            narrowed = next;
        }
        narrowed.push(lists);
        narrowed
    }

    fn inside(&mut self, bound: usize, set: &[u32], lists: &[Vec<Cand>]) -> Vec<Vec<Cand>> {
        self.steps.spend(lists.iter().map(Vec::len).sum::<usize>() as u64);
        let depth = self.tally.held()[bound].depth;
        let inside = |cand: &&Cand| set.binary_search(&cand.path[depth]).is_ok();
        lists.iter().map(|list| list.iter().filter(inside).copied().collect()).collect()
    }

    /// Sets of domains that the bound allows and that hold the groups on paper, each by rising
    /// number.
    fn sets(
        &mut self,
        bound: usize,
        groups: &[usize],
        needs: &[u64],
        lists: &[Vec<Cand>],
    ) -> Vec<Vec<u32>> {
        let choices = self.rooms(bound, groups, needs, lists);
        let held = &self.tally.held()[bound];
        let (kept, free): (Vec<Choice>, Vec<Choice>) =
            choices.into_iter().partition(|one| held.holds(one.domain));
        let most = held.left();
        let mut need: Vec<u64> = self.needed(groups, needs);
        for one in &kept {
            need.iter_mut()
                .zip(&one.rooms)
                .for_each(|(need, room)| *need = need.saturating_sub(*room));
        }
        self.steps.spend((free.len() * need.len()) as u64 * 8);
        let wanted = Wanted { choices: &free, need, most };
        let (mut sets, work) = wanted.sets(self.cheap);
        self.steps.spend(work);
        for set in &mut sets {
            set.extend(kept.iter().map(|one| one.domain));
            set.sort_unstable();
        }
        sets
    }

    /// Replicas of each group that are needed, and GPUs of all where there are several groups.
    fn needed(&self, groups: &[usize], needs: &[u64]) -> Vec<u64> {
        let several = needs.iter().filter(|&&need| need > 0).count() > 1;
        let gpus = |(&at, &need): (&usize, &u64)| {
            let whole = self.ask.groups.get(at).map_or(0, |group| group.whole_gpus());
            need.saturating_mul(whole.into())
        };
        let gpus = several.then(|| groups.iter().zip(needs).map(gpus).fold(0, u64::saturating_add));
        needs.iter().copied().chain(gpus).collect()
    }

    /// What the candidates of each domain hold on paper.
    fn rooms(
        &mut self,
        bound: usize,
        groups: &[usize],
        needs: &[u64],
        lists: &[Vec<Cand>],
    ) -> Vec<Choice> {
        let depth = self.tally.held()[bound].depth;
        let width = self.needed(groups, needs).len();
        let mut found: BTreeMap<u32, Choice> = BTreeMap::new();
        for (index, ((&at, &need), list)) in groups.iter().zip(needs).zip(lists).enumerate() {
            if need == 0 {
                continue;
            }
            self.look(at, list.len());
            for run in runs(list, depth) {
                let room = self.paper(at, 0, run).max(self.loose(at, run)).min(need);
                let domain = run[0].path[depth];
                let fresh = || Choice { domain, rooms: vec![0; width], price: 0 };
                let choice = found.entry(domain).or_insert_with(fresh);
                choice.rooms[index] = room;
                if self.cheap {
                    choice.price = choice.price.max(mean_price(run));
                }
            }
        }
        if width > groups.len() {
            let mut nodes: Vec<(u32, u32, u32)> = lists
                .iter()
                .flatten()
                .map(|cand| (cand.path[depth], cand.node, cand.idle))
                .collect();
            nodes.sort_unstable();
            nodes.dedup();
            for (domain, _, idle) in nodes {
                let gpus = found.get_mut(&domain).and_then(|choice| choice.rooms.last_mut());
                gpus.into_iter().for_each(|gpus| *gpus += u64::from(idle));
            }
        }
        found.into_values().collect()
    }
}

fn mean_price(run: &[Cand]) -> u64 {
    let (sum, room) = run.iter().fold((0u128, 0u128), |(sum, room), cand| {
        let own = u128::from(cand.room);
        (sum.saturating_add(u128::from(cand.price) * own), room + own)
    });
    u64::try_from(sum.checked_div(room).unwrap_or(0)).unwrap_or(u64::MAX)
}

impl Wanted<'_> {
    /// Sets of domains that cover what is needed, and the work of finding them in steps.
    fn sets(&self, cheap: bool) -> (Vec<Vec<u32>>, u64) {
        let mut sets: Vec<Vec<usize>> = Vec::new();
        let mut work = 0;
        if cheap {
            let mut order: Vec<usize> = (0..self.choices.len()).collect();
            order.sort_by_key(|&at| (self.choices[at].price, at));
            order.truncate(self.most);
            sets.push(order);
        }
        if self.need.len() == 1 {
            sets.push(self.tightest());
            sets.push(self.roomiest());
        } else if self.choices.len() <= EXHAUSTIVE_MAX {
            work += 1 << self.choices.len();
            sets.extend(self.every());
        } else {
            let (chosen, tried) = self.greedy();
            work += tried;
            sets.push(self.filled(&chosen));
            sets.insert(sets.len() - 1, chosen);
        }
        let mut told: Vec<Vec<u32>> = Vec::new();
        for set in sets.into_iter().filter(|set| set.len() <= self.most && self.lack(set) == 0) {
            let mut domains: Vec<u32> = set.iter().map(|&at| self.choices[at].domain).collect();
            domains.sort_unstable();
            if !told.contains(&domains) && told.len() < SETS_MAX {
                told.push(domains);
            }
        }
        (told, work)
    }

    /// How much these do not cover: the sum of the parts of each need, in millionths.
    fn lack(&self, set: &[usize]) -> u64 {
        let missing = |(at, &need): (usize, &u64)| {
            let have: u64 = set.iter().map(|&one| self.choices[one].rooms[at]).sum();
            let missing = u128::from(need.saturating_sub(have)) * 1_000_000;
            let part = missing.div_ceil(u128::from(need.max(1)));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        self.need.iter().enumerate().map(missing).sum()
    }

    fn room(&self, at: usize) -> u64 {
        self.choices[at].rooms.iter().sum()
    }

    fn by_room(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.choices.len()).collect();
        order.sort_by_key(|&at| (Reverse(self.room(at)), at));
        order
    }

    fn roomiest(&self) -> Vec<usize> {
        let mut order = self.by_room();
        order.truncate(self.most);
        order
    }

    /// One kind alone: as few as can be, the last one as tight as can be.
    fn tightest(&self) -> Vec<usize> {
        let order = self.by_room();
        let mut left = self.need.first().copied().unwrap_or(0);
        let mut chosen = Vec::new();
        for (index, &at) in order.iter().enumerate() {
            if left == 0 || chosen.len() == self.most {
                break;
            }
            if self.room(at) >= left {
                let enough = order[index..].partition_point(|&one| self.room(one) >= left);
                chosen.push(order[index + enough - 1]);
                return chosen;
            }
            chosen.push(at);
            left -= self.room(at);
        }
        chosen
    }

    /// Of all sets that cover: the two with the least room and the two with the most.
    fn every(&self) -> Vec<Vec<usize>> {
        let mut found: Vec<(u64, usize, Vec<usize>)> = Vec::new();
        for mask in 0..1u32 << self.choices.len() {
            if mask.count_ones() as usize > self.most {
                continue;
            }
            let set: Vec<usize> =
                (0..self.choices.len()).filter(|&at| mask >> at & 1 == 1).collect();
            if self.lack(&set) == 0 {
                found.push((set.iter().map(|&at| self.room(at)).sum(), set.len(), set));
            }
        }
        found.sort_unstable();
        let last = found.len().saturating_sub(2);
        let most = found.split_off(last.max(found.len().min(2)));
        found.truncate(2);
        found.into_iter().chain(most.into_iter().rev()).map(|(_, _, set)| set).collect()
    }

    /// The most useful domain again and again; then exchanges for as long as they help. With the
    /// work in steps.
    fn greedy(&self) -> (Vec<usize>, u64) {
        let (mut chosen, mut rest, mut work) = self.most_useful();
        rest.sort_by_key(|&at| (Reverse(self.use_of(at, &self.need)), at));
        rest.truncate(EXCHANGED_MAX);
        let mut lack = self.lack(&chosen);
        for _ in 0..EXCHANGES_MAX {
            if lack == 0 {
                break;
            }
            let Some((out, new, less)) = self.exchange(&chosen, &rest, &mut work) else { break };
            if less >= lack {
                break;
            }
            lack = less;
            std::mem::swap(&mut chosen[out], &mut rest[new]);
        }
        (chosen, work)
    }

    /// The domains that are chosen one after the other, each the most useful then, and all others.
    ///
    /// No domain becomes more useful by what was chosen, so that one whose use is known anew and
    /// still the largest is the best: few have to be looked at again (Minoux 1978, "Accelerated
    /// greedy algorithms").
    fn most_useful(&self) -> (Vec<usize>, Vec<usize>, u64) {
        let mut left = self.need.clone();
        let all = (0..self.choices.len()).map(|at| (self.use_of(at, &left), Reverse(at)));
        let mut heap: BinaryHeap<(u64, Reverse<usize>)> = all.collect();
        let (mut chosen, mut work) = (Vec::new(), heap.len() as u64);
        while chosen.len() < self.most && left.iter().any(|&need| need > 0) {
            let Some((known, Reverse(at))) = heap.pop() else { break };
            work += HEAP_STEPS;
            let now = self.use_of(at, &left);
            if now < known {
                heap.push((now, Reverse(at)));
                continue;
            }
            for (left, room) in left.iter_mut().zip(&self.choices[at].rooms) {
                *left = left.saturating_sub(*room);
            }
            chosen.push(at);
        }
        (chosen, heap.into_iter().map(|(_, Reverse(at))| at).collect(), work)
    }

    /// The exchange of one of those chosen last after which least is missing.
    fn exchange(
        &self,
        chosen: &[usize],
        rest: &[usize],
        work: &mut u64,
    ) -> Option<(usize, usize, u64)> {
        let have = |at: usize| chosen.iter().map(|&one| self.choices[one].rooms[at]).sum::<u64>();
        let have: Vec<u64> = (0..self.need.len()).map(have).collect();
        let first = chosen.len().saturating_sub(EXCHANGED_MAX);
        let tried = (chosen.len() - first) * rest.len() + chosen.len();
        *work += (tried * self.need.len()) as u64;
        let mut best: Option<(u64, usize, usize)> = None;
        for (out, &old) in chosen.iter().enumerate().skip(first) {
            for (new, &one) in rest.iter().enumerate() {
                let missing = |(at, &need): (usize, &u64)| {
                    let (less, more) = (self.choices[old].rooms[at], self.choices[one].rooms[at]);
                    let have = have[at].saturating_sub(less).saturating_add(more);
                    let missing = u128::from(need.saturating_sub(have)) * 1_000_000;
                    u64::try_from(missing.div_ceil(u128::from(need.max(1)))).unwrap_or(u64::MAX)
                };
                let lack = self.need.iter().enumerate().map(missing).sum();
                if best.is_none_or(|(least, ..)| lack < least) {
                    best = Some((lack, out, new));
                }
            }
        }
        best.map(|(lack, out, new)| (out, new, lack))
    }

    /// How much of what is left to cover the domain holds, in millionths of each need.
    fn use_of(&self, at: usize, left: &[u64]) -> u64 {
        let part = |((&left, &room), &need): ((&u64, &u64), &u64)| {
            let part = u128::from(left.min(room)) * 1_000_000 / u128::from(need.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        };
        left.iter().zip(&self.choices[at].rooms).zip(&self.need).map(part).sum()
    }

    /// The set and the roomiest of the others, as many as are allowed.
    fn filled(&self, set: &[usize]) -> Vec<usize> {
        let taken: BTreeSet<usize> = set.iter().copied().collect();
        let more = self.by_room().into_iter().filter(|at| !taken.contains(at));
        let more: Vec<usize> = more.take(self.most.saturating_sub(set.len())).collect();
        set.iter().copied().chain(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    fn choices(rng: &mut StdRng, count: u32, kinds: usize) -> Vec<Choice> {
        let mut choice = |domain| {
            let rooms = (0..kinds).map(|_| rng.random_range(0..6)).collect();
            Choice { domain, rooms, price: rng.random_range(0..3) }
        };
        (0..count).map(&mut choice).collect()
    }

    /// Whether so few domains cover what is needed, by trying every set.
    fn is_covered(wanted: &Wanted<'_>) -> bool {
        (0..1u32 << wanted.choices.len()).any(|mask| {
            let set: Vec<usize> =
                (0..wanted.choices.len()).filter(|&at| mask >> at & 1 == 1).collect();
            set.len() <= wanted.most && covers(wanted, &set)
        })
    }

    fn covers(wanted: &Wanted<'_>, set: &[usize]) -> bool {
        wanted.need.iter().enumerate().all(|(kind, need)| {
            set.iter().map(|&at| wanted.choices[at].rooms[kind]).sum::<u64>() >= *need
        })
    }

    /// So many sets were told, and so many could have been, of many questions.
    fn ask(count: std::ops::Range<u32>, kinds: std::ops::Range<usize>) -> (u32, u32) {
        let (mut told, mut possible) = (0, 0);
        for seed in 0..2_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (count, kinds) = (rng.random_range(count.clone()), rng.random_range(kinds.clone()));
            let choices = choices(&mut rng, count, kinds);
            let need = (0..kinds).map(|_| rng.random_range(0..20)).collect();
            let most = rng.random_range(0..6);
            let wanted = Wanted { choices: &choices, need, most };
            let (sets, _) = wanted.sets(seed % 3 == 0);
            assert!(sets.len() <= SETS_MAX, "SEED={seed}: {sets:?}");
            for set in &sets {
                let set: Vec<usize> = set.iter().map(|&domain| domain as usize).collect();
                assert!(set.len() <= most && covers(&wanted, &set), "SEED={seed}: {set:?}");
                assert!(set.is_sorted_by(|a, b| a < b), "SEED={seed}: {set:?}");
            }
            let is_covered = is_covered(&wanted);
            assert!(is_covered || sets.is_empty(), "SEED={seed}");
            told += u32::from(!sets.is_empty());
            possible += u32::from(is_covered);
        }
        (told, possible)
    }

    #[test]
    fn sets_are_found_wherever_there_are_any() {
        let (told, possible) = ask(0..15, 1..2);
        assert!(told == possible && (500..1_500).contains(&told), "{told} of {possible}");
        let (told, possible) = ask(0..10, 2..4);
        assert!(told == possible && (200..1_500).contains(&told), "{told} of {possible}");
    }

    #[test]
    fn greed_misses_few() {
        let (told, possible) = ask(13..16, 2..4);
        assert!(possible > 500 && told * 100 > possible * 97, "{told} of {possible}");
    }

    #[test]
    fn looking_again_at_few_chooses_as_looking_at_all() {
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (count, kinds) = (rng.random_range(0..40), rng.random_range(1..4));
            let choices = choices(&mut rng, count, kinds);
            let need = (0..kinds).map(|_| rng.random_range(0..60)).collect();
            let wanted = Wanted { choices: &choices, need, most: rng.random_range(0..30) };
            let (chosen, mut rest, _) = wanted.most_useful();
            let (mut plain, mut left) = (Vec::new(), wanted.need.clone());
            let mut others: Vec<usize> = (0..choices.len()).collect();
            while plain.len() < wanted.most && left.iter().any(|&need| need > 0) {
                let best = others.iter().max_by_key(|&&at| (wanted.use_of(at, &left), Reverse(at)));
                let Some(&best) = best else { break };
                others.retain(|&at| at != best);
                let rooms = left.iter_mut().zip(&choices[best].rooms);
                rooms.for_each(|(left, room)| *left = left.saturating_sub(*room));
                plain.push(best);
            }
            rest.sort_unstable();
            assert_eq!((chosen, rest), (plain, others), "SEED={seed}");
        }
    }

    #[test]
    fn one_kind_takes_as_few_and_as_tight_as_can_be() {
        let choice = |(domain, room)| Choice { domain, rooms: vec![room], price: 0 };
        let choices: Vec<Choice> = [(0, 9), (1, 20), (2, 4), (3, 3), (4, 20)].map(choice).into();
        let tight = |need, most| {
            Wanted { choices: &choices, need: vec![need], most }.sets(false).0.first().cloned()
        };
        assert_eq!(tight(3, 5), Some(vec![3]));
        assert_eq!(tight(5, 5), Some(vec![0]));
        assert_eq!(tight(24, 5), Some(vec![1, 2]));
        assert_eq!(tight(45, 3), Some(vec![0, 1, 4]));
        assert_eq!((tight(50, 3), tight(41, 2)), (None, None));
    }
}
