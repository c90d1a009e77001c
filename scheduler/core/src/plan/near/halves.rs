//! Halves: what is lost at least where vertices may also leave by half, and who then leaves whole.
//!
//! Every vertex stands twice, once as giver and once as taker, and gives what it has to takers of
//! which it is a foe, each of which takes no more than it has. All that can be given is twice the
//! least that is lost when vertices may leave by half (the linear program of the vertex cover), and
//! a least cut between givers and takers is such a cover: some least whole one has the vertices
//! that leave whole in it, too, and none of those that stay (Nemhauser and Trotter). The flow is
//! Dinic's; what later leaves takes its part of it along, so that branches go on from there (as in
//! Iwata, Oka and Yoshida's search for covers).
//! **Invariant:** the sum given is never more than twice what any cover of those open weighs.

use crate::bits;

/// Steps for one vertex of a path, which is looked for among its foes and those that give to them.
const PATH_STEPS: u64 = 5;
/// Takers on one path, at most: paths are followed by recursion. On graphs of a thousand sites they
/// are some tens at most.
const PATH_MAX: usize = 256;

/// How a vertex may end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    Stays,
    Leaves,
    /// By half: nothing is known.
    Either,
}

/// A flow between givers and takers.
#[derive(Clone, Debug)]
pub(super) struct Halves {
    /// Those among whom it flows; what stands here of others says nothing.
    open: Vec<u64>,
    /// Per vertex: what it can still give and take.
    gives: Vec<u64>,
    takes: Vec<u64>,
    /// Those that can still take.
    free: Vec<u64>,
    /// Per taker: who gives how much to it.
    given: Vec<Vec<(usize, u64)>>,
    sum: u64,
    /// Per vertex: how many takers a path passes before it comes to the vertex as giver.
    level: Vec<usize>,
    /// Takers after so many others, level by level.
    levels: Vec<u64>,
    steps: u64,
    /// Steps after which nothing more is sent.
    steps_max: u64,
}

/// What stands at the end of shortest ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// Takers that can still take.
    Open,
    /// No such taker.
    Closed,
    /// They are too long to tell.
    Long,
}

impl Halves {
    /// Nothing flows yet. `have`: what each vertex weighs.
    pub(super) fn new(open: &[u64], have: Vec<u64>) -> Self {
        let mut free = open.to_vec();
        bits::iter(open).filter(|&vertex| have[vertex] == 0).for_each(|vertex| {
            bits::clear(&mut free, vertex);
        });
        Self {
            open: open.to_vec(),
            takes: have.clone(),
            free,
            given: vec![Vec::new(); have.len()],
            sum: 0,
            level: vec![usize::MAX; have.len()],
            levels: Vec::new(),
            steps: 0,
            steps_max: 0,
            gives: have,
        }
    }

    /// Twice what is lost at least.
    pub(super) fn lost(&self) -> u64 {
        self.sum
    }

    /// Twice what of the vertex, itself open, is not charged to any pair of foes.
    pub(super) fn rest(&self, vertex: usize) -> u64 {
        self.gives[vertex] + self.takes[vertex]
    }

    /// Leaves out those that are no longer open, and what they gave and took.
    pub(super) fn narrow(&mut self, foes: &[u64], open: &[u64]) {
        let words = open.len();
        let mut gone = self.open.clone();
        bits::remove(&mut gone, open);
        for vertex in bits::iter(&gone) {
            for (giver, amount) in std::mem::take(&mut self.given[vertex]) {
                self.gives[giver] += amount;
                self.sum -= amount;
            }
            for taker in bits::iter(&foes[vertex * words..(vertex + 1) * words]) {
                let given = &mut self.given[taker];
                let Some(at) = given.iter().position(|(giver, _)| *giver == vertex) else {
                    continue;
                };
                let (_, amount) = given.swap_remove(at);
                self.takes[taker] += amount;
                bits::set(&mut self.free, taker);
                self.sum -= amount;
            }
            self.steps += PATH_STEPS;
        }
        self.open.copy_from_slice(open);
    }

    /// Lets flow what can, until it is more than `enough` or `work` steps are done; says how each
    /// vertex ends where neither came first. `foes`: row by row. Takes the steps off `work`.
    pub(super) fn fill(
        &mut self,
        foes: &[u64],
        enough: u64,
        work: &mut u64,
    ) -> Option<Vec<Ending>> {
        let mut endings = None;
        self.steps_max = *work;
        while self.sum <= enough && self.steps < *work {
            match self.lay_levels(foes) {
                Way::Open => {}
                Way::Closed => {
                    endings = Some(self.endings());
                    break;
                }
                Way::Long => break,
            }
            for giver in bits::iter(&self.open.clone()) {
                if self.level[giver] == 0 && self.gives[giver] > 0 {
                    let amount = self.send(foes, giver, 0, self.gives[giver]);
                    self.gives[giver] -= amount;
                    self.sum += amount;
                }
            }
        }
        *work = work.saturating_sub(self.steps);
        self.steps = 0;
        endings
    }

    /// Shortest ways from those that can give to those that can take.
    fn lay_levels(&mut self, foes: &[u64]) -> Way {
        let words = self.open.len();
        self.levels.clear();
        self.level.fill(usize::MAX);
        let mut unseen = self.open.clone();
        let mut givers: Vec<usize> =
            bits::iter(&self.open).filter(|&vertex| self.gives[vertex] > 0).collect();
        givers.iter().for_each(|&giver| self.level[giver] = 0);
        let mut next = Vec::new();
        for level in 1..=PATH_MAX {
            let from = self.levels.len();
            self.levels.resize(from + words, 0);
            let takers = &mut self.levels[from..];
            for &giver in &givers {
                let row = &foes[giver * words..(giver + 1) * words];
                let mut left = 0;
                for ((taker, unseen), foe) in takers.iter_mut().zip(&mut unseen).zip(row) {
                    *taker |= foe & *unseen;
                    *unseen &= !foe;
                    left |= *unseen;
                }
                self.steps += 1 + words as u64 / 16;
                if left == 0 {
                    break;
                }
            }
            if takers.iter().zip(&self.free).any(|(takers, free)| takers & free != 0) {
                // No way goes on from the others.
                bits::keep(takers, &self.free);
                return Way::Open;
            }
            for taker in bits::iter(takers) {
                for &(giver, _) in &self.given[taker] {
                    if self.level[giver] == usize::MAX {
                        self.level[giver] = level;
                        next.push(giver);
                    }
                }
            }
            if next.is_empty() {
                return Way::Closed;
            }
            std::mem::swap(&mut givers, &mut next);
            next.clear();
        }
        Way::Long
    }

    /// Sends up to `amount` from a giver of this level on to takers; how much it was.
    fn send(&mut self, foes: &[u64], giver: usize, level: usize, amount: u64) -> u64 {
        let words = self.open.len();
        self.steps += PATH_STEPS;
        if self.steps > self.steps_max {
            return 0;
        }
        let mut left = amount;
        for word in 0..words {
            loop {
                // Read anew each time: ways from here on may have used up takers of this level.
                let Some(takers) = self.levels.get(level * words + word) else { return 0 };
                let takers = takers & foes[giver * words + word];
                let Some(bit) = bits::iter_word(takers).next() else { break };
                let taker = bits::number(word, bit);
                let sent = self.take(foes, taker, level, left);
                if sent > 0 {
                    left -= sent;
                    let given = &mut self.given[taker];
                    match given.iter_mut().find(|(other, _)| *other == giver) {
                        Some((_, amount)) => *amount += sent,
                        None => given.push((giver, sent)),
                    }
                }
                if left == 0 {
                    return amount;
                }
                // It takes no more, nor does any way go on from it.
                self.levels[level * words + word] &= !bits::single(taker);
            }
        }
        amount - left
    }

    /// What the taker takes of `amount`: as much as it can, and more as those that give to it
    /// find others.
    fn take(&mut self, foes: &[u64], taker: usize, level: usize, amount: u64) -> u64 {
        let own = amount.min(self.takes[taker]);
        self.takes[taker] -= own;
        if self.takes[taker] == 0 {
            bits::clear(&mut self.free, taker);
        }
        let (mut left, mut at, mut some_gone) = (amount - own, 0, false);
        while left > 0
            && let Some(&(giver, given)) = self.given[taker].get(at)
        {
            if self.level[giver] == level + 1 {
                let sent = self.send(foes, giver, level + 1, left.min(given));
                self.given[taker][at].1 -= sent;
                some_gone |= sent == given;
                left -= sent;
            }
            at += 1;
        }
        if some_gone {
            self.given[taker].retain(|(_, amount)| *amount > 0);
        }
        amount - left
    }

    /// Where the last levels end there is a least cut.
    fn endings(&self) -> Vec<Ending> {
        let words = self.open.len();
        let mut reached = vec![0; words];
        for level in self.levels.chunks(words) {
            reached.iter_mut().zip(level).for_each(|(reached, level)| *reached |= level);
        }
        let ending = |(vertex, &level): (usize, &usize)| match (
            level < usize::MAX,
            bits::has(&reached, vertex),
        ) {
            (true, false) => Ending::Stays,
            (false, true) => Ending::Leaves,
            _ => Ending::Either,
        };
        self.level.iter().enumerate().map(ending).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const ENOUGH: u64 = u64::MAX;

    /// Foes in rows of one word, and weights.
    struct Made {
        foes: Vec<u64>,
        have: Vec<u64>,
    }

    impl Made {
        fn new(rng: &mut StdRng) -> Self {
            let len = rng.random_range(1..8usize);
            let (percent, most) = (rng.random_range(5..90), rng.random_range(1..20));
            let mut foes = vec![0; len];
            for (a, b) in (0..len).flat_map(|a| (0..a).map(move |b| (a, b))) {
                if rng.random_range(0..100) < percent {
                    foes[a] |= bits::single(b);
                    foes[b] |= bits::single(a);
                }
            }
            Self { foes, have: (0..len).map(|_| rng.random_range(0..most)).collect() }
        }

        fn all(&self) -> u64 {
            bits::single(self.have.len()) - 1
        }

        /// What twice weighs what loses so many halves of each of these; `None` where foes stay.
        fn twice(&self, open: u64, halves: impl Fn(usize) -> u64) -> Option<u64> {
            let is_cover = bits::iter(&[open]).all(|vertex| {
                let mut foes = bits::iter_word(self.foes[vertex] & open);
                foes.all(|foe| halves(vertex) + halves(foe as usize) >= 2)
            });
            let weigh = |vertex: usize| self.have[vertex] * halves(vertex);
            is_cover.then(|| bits::iter(&[open]).map(weigh).sum())
        }

        fn least_by_halves(&self, open: u64) -> u64 {
            let ways = 0..3u64.pow(self.have.len() as u32);
            let twice = |way: u64| self.twice(open, |vertex| way / 3u64.pow(vertex as u32) % 3);
            ways.filter_map(twice).min().unwrap_or(0)
        }

        /// Twice the least that is lost where these leave whole and those stay.
        fn least(&self, open: u64, leave: u64, stay: u64) -> u64 {
            let ways = (0..=open).filter(|way| way & !open == 0);
            let ways = ways.filter(|way| way & leave == leave && way & stay == 0);
            ways.filter_map(|way| self.twice(open, |vertex| (way >> vertex & 1) * 2)).min().unwrap()
        }
    }

    #[test]
    fn it_is_the_least_lost_by_halves_and_some_least_cover_ends_as_it_says() {
        let (mut below, mut settled) = (0, 0);
        for seed in 0..2_000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let made = Made::new(&mut rng);
            let mut halves = Halves::new(&[made.all()], made.have.clone());
            let mut open = made.all();
            // All of them, and then fewer and fewer.
            for _ in 0..3 {
                halves.narrow(&made.foes, &[open]);
                let endings = halves.fill(&made.foes, ENOUGH, &mut ENOUGH.clone()).unwrap();
                assert_eq!(halves.lost(), made.least_by_halves(open), "seed {seed}");
                let ending = |ending: Ending| {
                    let such = bits::iter_word(open).map(|bit| bit as usize);
                    let such = such.filter(|&vertex| endings[vertex] == ending);
                    such.fold(0, |such, vertex| such | bits::single(vertex))
                };
                let (leave, stay) = (ending(Ending::Leaves), ending(Ending::Stays));
                let least = made.least(open, 0, 0);
                assert_eq!(made.least(open, leave, stay), least, "seed {seed}");
                below += u32::from(halves.lost() < least);
                settled += u32::from(leave > 0);
                for vertex in bits::iter(&[open]) {
                    let more = halves.lost() + halves.rest(vertex);
                    let gone = bits::single(vertex);
                    assert!(made.least(open, gone, 0) >= more, "seed {seed}");
                }
                open &= rng.random::<u64>() | rng.random::<u64>();
            }
        }
        assert!(below > 100 && settled > 1_000, "{below} below, {settled} settled some");
    }

    #[test]
    fn it_ends_when_enough_flows_or_its_work_is_done_and_is_never_too_much() {
        let mut ended = 0;
        for seed in 0..500 {
            let mut rng = StdRng::seed_from_u64(seed);
            let made = Made::new(&mut rng);
            let least = made.least(made.all(), 0, 0);
            let mut halves = Halves::new(&[made.all()], made.have.clone());
            let (enough, mut work) = (rng.random_range(0..20), rng.random_range(0..60));
            if halves.fill(&made.foes, enough, &mut work).is_none() {
                assert!(halves.lost() > enough || work == 0, "seed {seed}");
                ended += 1;
            }
            assert!(halves.lost() <= least, "seed {seed}");
        }
        assert!(ended > 100, "{ended} ended before all flowed");
    }

    /// Sites in a row, each a foe of the next, and the last of them before the first: all pair off
    /// but these two and the one at the other end, which a way along the whole row brings together.
    #[test]
    fn ways_that_are_too_long_are_not_followed() {
        let row = |len: usize| {
            let words = bits::words(len);
            let (mut foes, mut open) = (vec![0; len * words], vec![0; words]);
            for at in 0..len {
                bits::set(&mut open, at);
                if at + 2 != len {
                    let next = (at + 1) % len;
                    bits::set(&mut foes[at * words..], next);
                    bits::set(&mut foes[next * words..], at);
                }
            }
            let mut halves = Halves::new(&open, vec![1; len]);
            let endings = halves.fill(&foes, ENOUGH, &mut ENOUGH.clone());
            (endings.is_some(), halves.lost())
        };
        let found = [10, 100, crate::topology::SITES_MAX].map(row);
        assert_eq!(found, [(true, 10), (true, 100), (false, 4_094)]);
    }
}
