//! Which round trips agents measure, and what the cluster makes of what they say.
//!
//! Nodes are told a few others to measure; what they report is one vote each. Per side of a pair
//! of sites, a supplier's word is the median of its newest votes, weighs as much as it has nodes
//! there, and the side's word is the weighted median of the suppliers'; of the two sides the
//! longer one counts, so nobody makes a pair nearer than the other end sees it.
//!
//! A supplier without nodes at either site has no vote on a pair, and one with the fewer nodes at
//! a site cannot move what the others there say. Not defended against: a supplier that holds most
//! nodes of a site may make that site's pairs longer (to its own loss), and a pair both of whose
//! sides it holds, or whose other side is silent, whatever it likes; nodes are counted as they are
//! registered, so whoever may register many machines at a foreign site weighs as much.
//!
//! **Invariant:** memory is bounded per pair; a pair that an operator has set is never proposed;
//! lost bookkeeping costs time, never correctness.

use crate::command::SiteRtt;
use crate::id::{NodeId, SiteId, SupplierId};
use crate::node::NodeStatus;
use crate::state::State;
use crate::topology::Sites;
use crate::unit::{DurationMs, RttUs, TimeMs};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Others that a node measures in one round.
pub const TARGETS_PER_NODE: usize = 4;
/// Votes of one supplier that are kept for one side of a pair.
const VOTES_MAX: usize = 5;
/// Suppliers whose votes are kept for one side of a pair; later ones are not heard.
const SUPPLIERS_MAX: usize = 8;
/// A vote counts for so long: many rounds, so that a pair keeps its median.
const AGE_MAX: DurationMs = DurationMs(6 * 3_600_000);
/// Round trips answered before a pair is proposed at all.
const ANSWERED_MIN: u32 = 3;
/// With fewer votes than this the high value is widened by once more its distance to the median.
const VOTES_SURE: usize = 4;
/// A pair is proposed again when its median moves by one part in so many, and by at least
/// [`MOVED_MIN_US`]; or its high value by one part in half as many.
const MOVED_ONE_IN: u32 = 10;
/// Jitter below half a millisecond is of no interest to anyone who places by RTT.
const MOVED_MIN_US: u32 = 500;
/// Pairs in one entry: some 200 KB.
const PAIRS_MAX: usize = 4_096;
/// Longest RTT believed: as in the state.
const RTT_US_MAX: u32 = 10_000_000;

/// What a node measured of another: several round trips in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    pub from: NodeId,
    pub to: NodeId,
    pub median: RttUs,
    /// The longest, or a high percentile.
    pub high: RttUs,
    /// Round trips that were answered.
    pub answered: u32,
}

/// Nodes that can be measured, by site.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// By site id, for sites with nodes.
    sites: Vec<(SiteId, Vec<NodeId>)>,
}

impl Roster {
    /// Nodes that are up and have an address.
    pub fn new(state: &State) -> Self {
        let mut by_site: Vec<Vec<NodeId>> = vec![Vec::new(); state.sites().len()];
        for node in state.nodes() {
            let open = node.status == NodeStatus::Up && !node.address.is_empty();
            if let Some(list) = by_site.get_mut(usize::from(node.site.0)).filter(|_| open) {
                list.push(node.id);
            }
        }
        let sites = (0u16..).map(SiteId).zip(by_site).filter(|(_, nodes)| !nodes.is_empty());
        Self { sites: sites.collect() }
    }

    /// Whom a node measures in a round. Over as many rounds as there are sites each node comes to
    /// all of them, its own too; and all nodes of a site together much sooner.
    pub fn targets(&self, node: NodeId, round: u64) -> Vec<NodeId> {
        let count = self.sites.len() as u64;
        let mut targets = Vec::with_capacity(TARGETS_PER_NODE);
        for number in 0..(TARGETS_PER_NODE as u64).min(count) {
            let start = mix(u64::from(node.0));
            let at = start.wrapping_add(round.wrapping_mul(TARGETS_PER_NODE as u64)) + number;
            let Some((_, nodes)) = self.sites.get((at % count) as usize) else { continue };
            let pick = mix(u64::from(node.0) ^ round.rotate_left(32) ^ number.rotate_left(16));
            let target = nodes.get((pick % nodes.len() as u64) as usize).copied();
            targets.extend(target.filter(|&target| target != node));
        }
        targets
    }
}

/// A number with its bits well spread (the finaliser of Vigna's splitmix64).
fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (word ^ (word >> 31)) >> 1
}

#[derive(Clone, Copy, Debug)]
struct Vote {
    from: NodeId,
    median: u32,
    high: u32,
    answered: u32,
    at: TimeMs,
}

/// Votes on a pair as seen from one site.
type Side = BTreeMap<SupplierId, VecDeque<Vote>>;

/// What was reported, as far as this leader knows.
#[derive(Debug, Default)]
pub struct Probes {
    /// By site of the node that measured, and of the one that answered.
    sides: BTreeMap<(SiteId, SiteId), Side>,
    /// Pairs that have new votes.
    touched: std::collections::BTreeSet<(SiteId, SiteId)>,
}

/// One side's word: median, high, and what it rests on.
#[derive(Clone, Copy, Debug)]
struct Word {
    median: u32,
    high: u32,
    votes: usize,
    answered: u32,
}

impl Probes {
    /// Takes in a report. Of unknown nodes, of nodes that measured themselves, and of round trips
    /// that cannot be, nothing is kept.
    pub fn note(&mut self, state: &State, probe: &Probe, now: TimeMs) {
        let Some((from, to)) = state.node(probe.from).zip(state.node(probe.to)) else { return };
        let range = 1..=RTT_US_MAX;
        let sane = probe.from != probe.to
            && probe.answered > 0
            && probe.median <= probe.high
            && range.contains(&probe.median.0)
            && range.contains(&probe.high.0);
        if !sane {
            return;
        }
        let side = self.sides.entry((from.site, to.site)).or_default();
        if side.len() >= SUPPLIERS_MAX && !side.contains_key(&from.supplier) {
            return;
        }
        let votes = side.entry(from.supplier.clone()).or_default();
        // A node has one vote on a pair of sites, its newest.
        votes.retain(|vote| vote.from != probe.from);
        if votes.len() >= VOTES_MAX {
            votes.pop_front();
        }
        let (median, high, answered) = (probe.median.0, probe.high.0, probe.answered);
        votes.push_back(Vote { from: probe.from, median, high, answered, at: now });
        self.touched.insert((from.site.min(to.site), from.site.max(to.site)));
    }

    /// Pairs with news: measured for the first time, or no longer near what the state holds.
    pub fn due(&mut self, state: &State, now: TimeMs) -> Vec<SiteRtt> {
        if self.touched.is_empty() {
            return Vec::new();
        }
        let residents = Residents::new(state);
        let oldest = TimeMs(now.0.saturating_sub(AGE_MAX.0));
        let mut news = Vec::new();
        while news.len() < PAIRS_MAX
            && let Some((a, b)) = self.touched.pop_first()
        {
            let words = [(a, b), (b, a)].map(|(from, to)| self.word(&residents, from, to, oldest));
            let Some(word) = both(words) else { continue };
            let names = state.sites().site(a).zip(state.sites().site(b));
            let Some((a_site, b_site)) = names else { continue };
            if word.answered < ANSWERED_MIN || !is_news(state.sites(), a, b, &word) {
                continue;
            }
            news.push(SiteRtt {
                a: a_site.name.clone(),
                b: b_site.name.clone(),
                rtt: RttUs(word.median),
                rtt_high: RttUs(word.high),
                samples: word.answered,
            });
        }
        news
    }

    /// What the suppliers at one site say together.
    fn word(
        &mut self,
        residents: &Residents,
        from: SiteId,
        to: SiteId,
        oldest: TimeMs,
    ) -> Option<Word> {
        let side = self.sides.get_mut(&(from, to))?;
        side.retain(|_, votes| {
            votes.retain(|vote| vote.at >= oldest);
            !votes.is_empty()
        });
        let each = |read: fn(&Vote) -> u32| {
            let words = side.iter().map(|(supplier, votes)| {
                let mut values: Vec<(u32, u64)> =
                    votes.iter().map(|vote| (read(vote), 1)).collect();
                (middle(&mut values).unwrap_or(0), residents.weight(from, supplier))
            });
            words.collect::<Vec<_>>()
        };
        let median = middle(&mut each(|vote| vote.median))?;
        let high = middle(&mut each(|vote| vote.high))?.max(median);
        let votes = side.values().map(VecDeque::len).sum();
        let answered =
            side.values().flatten().fold(0u32, |n, vote| n.saturating_add(vote.answered));
        Some(Word { median, high, votes, answered })
    }
}

/// The longer of two sides' words, widened while little is known.
fn both(words: [Option<Word>; 2]) -> Option<Word> {
    let mut both = words.into_iter().flatten().reduce(|x, y| Word {
        median: x.median.max(y.median),
        high: x.high.max(y.high),
        votes: x.votes + y.votes,
        answered: x.answered.saturating_add(y.answered),
    })?;
    if both.votes < VOTES_SURE {
        let wider = both.high.saturating_add(both.high - both.median);
        both.high = wider.min(RTT_US_MAX);
    }
    Some(both)
}

fn is_news(sites: &Sites, a: SiteId, b: SiteId, word: &Word) -> bool {
    let Some(known) = sites.measured(a, b) else { return true };
    if known.samples == 0 {
        // An operator's word stands.
        return false;
    }
    let moved =
        |old: u32, new: u32, one_in: u32| old.abs_diff(new) > (old / one_in).max(MOVED_MIN_US);
    moved(known.median.0, word.median, MOVED_ONE_IN)
        || moved(known.high.0, word.high, MOVED_ONE_IN / 2)
}

/// The value with half of the weight below or at it; of two middles the larger.
fn middle(values: &mut [(u32, u64)]) -> Option<u32> {
    values.sort_unstable();
    let total: u64 = values.iter().map(|(_, weight)| weight).sum();
    let mut below = 0;
    for &(value, weight) in values.iter() {
        below += weight;
        if below * 2 > total {
            return Some(value);
        }
    }
    values.last().map(|&(value, _)| value)
}

/// How many nodes each supplier has at each site.
struct Residents(Vec<Vec<(SupplierId, u64)>>);

impl Residents {
    fn new(state: &State) -> Self {
        let mut sites: Vec<Vec<(SupplierId, u64)>> = vec![Vec::new(); state.sites().len()];
        for node in state.nodes() {
            let Some(list) = sites.get_mut(usize::from(node.site.0)) else { continue };
            match list.iter_mut().find(|(supplier, _)| *supplier == node.supplier) {
                Some((_, count)) => *count += 1,
                None => list.push((node.supplier.clone(), 1)),
            }
        }
        Self(sites)
    }

    fn weight(&self, site: SiteId, supplier: &SupplierId) -> u64 {
        let list = self.0.get(usize::from(site.0));
        let found = list.and_then(|list| list.iter().find(|(other, _)| other == supplier));
        found.map_or(0, |(_, count)| *count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Command, RegisterNode};
    use crate::fixture::entry::{World, key_digest, name, node_spec, supplier};

    /// Nodes 0-2 of `east` at e, 3-5 of `west` at w, 6 of `liar` at e too, 7 of `liar` at x.
    fn world() -> World {
        let mut world = World::new();
        let places = ["e", "e", "e", "w", "w", "w", "e", "x"];
        let owners = ["east", "east", "east", "west", "west", "west", "liar", "liar"];
        for (number, (place, owner)) in places.iter().zip(owners).enumerate() {
            let mut spec = node_spec(&format!("n{number}"), 1);
            spec.place.site = name(place);
            let key_digest = key_digest(spec.name.as_str());
            let supplier = supplier(owner);
            world.done(Command::RegisterNode(RegisterNode { supplier, spec, key_digest }));
        }
        world
    }

    fn probe(from: u32, to: u32, us: u32) -> Probe {
        let (from, to) = (NodeId(from), NodeId(to));
        Probe { from, to, median: RttUs(us), high: RttUs(us + us / 10), answered: 3 }
    }

    /// What would be proposed of each pair: names and median.
    fn due(probes: &mut Probes, world: &World) -> Vec<(String, u32)> {
        let news = probes.due(&world.state, TimeMs(10_000));
        news.iter().map(|told| (format!("{}-{}", told.a, told.b), told.rtt.0)).collect()
    }

    fn noted(world: &World, list: &[(u32, u32, u32)]) -> Probes {
        let mut probes = Probes::default();
        for &(from, to, us) in list {
            probes.note(&world.state, &probe(from, to, us), TimeMs(5_000));
        }
        probes
    }

    #[test]
    fn a_pair_is_told_once_and_again_when_it_moves() {
        let mut world = world();
        let honest = [(0, 3, 20_000), (1, 4, 20_400), (3, 0, 20_200), (4, 1, 19_900)];
        let mut probes = noted(&world, &honest);
        let news = probes.due(&world.state, TimeMs(10_000));
        assert_eq!((news[0].rtt.0, news[0].samples), (20_400, 12));
        world.done(Command::SetSiteRtts(news));
        for us in [20_900, 60_000] {
            for (from, to) in [(0, 3), (1, 4), (3, 0), (4, 1)] {
                probes.note(&world.state, &probe(from, to, us), TimeMs(6_000));
            }
            let told: &[(String, u32)] = if us > 30_000 { &[("e-w".to_owned(), us)] } else { &[] };
            assert_eq!(due(&mut probes, &world), told);
        }
        // Votes that are too old say nothing.
        let much_later = TimeMs(6_000 + AGE_MAX.0 + 1);
        probes.touched.insert((SiteId(0), SiteId(1)));
        assert_eq!(probes.due(&world.state, much_later), []);
    }

    #[test]
    fn nobody_makes_a_pair_nearer_than_the_other_end_sees_it() {
        let world = world();
        let lies = [(0, 3, 100), (1, 4, 100), (2, 5, 100), (3, 0, 20_000), (4, 1, 20_000)];
        assert_eq!(due(&mut noted(&world, &lies), &world), [("e-w".to_owned(), 20_000)]);
    }

    #[test]
    fn a_supplier_with_the_fewer_nodes_moves_nothing_between_others() {
        let world = world();
        let honest = [(0, 3, 20_000), (1, 4, 20_000), (3, 0, 20_000), (4, 1, 20_000)];
        for lie in [1, 9_000_000] {
            let mut list = honest.to_vec();
            list.extend([(6, 3, lie), (6, 4, lie), (6, 5, lie)]);
            assert_eq!(due(&mut noted(&world, &list), &world), [("e-w".to_owned(), 20_000)]);
        }
        // Nor by one node that lies among its own supplier's.
        let list = [(0, 3, 20_000), (1, 4, 20_000), (2, 5, 9_000_000), (3, 0, 20_000)];
        assert_eq!(due(&mut noted(&world, &list), &world), [("e-w".to_owned(), 20_000)]);
    }

    #[test]
    fn what_an_operator_told_stands_and_nonsense_is_not_kept() {
        let mut world = world();
        let told = SiteRtt::told(name("e"), name("w"), RttUs(5_000));
        world.done(Command::SetSiteRtts(vec![told]));
        let list = [(0, 3, 20_000), (3, 0, 20_000), (0, 0, 5), (0, 99, 5), (99, 0, 5), (0, 3, 0)];
        assert_eq!(due(&mut noted(&world, &list), &world), []);
        let mut probes = Probes::default();
        probes.note(&world.state, &probe(0, 0, 5), TimeMs(1));
        probes.note(&world.state, &Probe { answered: 0, ..probe(0, 7, 9) }, TimeMs(1));
        probes.note(&world.state, &Probe { high: RttUs(1), ..probe(0, 7, 9) }, TimeMs(1));
        assert!(probes.sides.is_empty());
    }

    #[test]
    fn votes_are_bounded() {
        let world = world();
        let mut probes = Probes::default();
        for round in 0..100 {
            for from in 0..3 {
                probes.note(&world.state, &probe(from, 3 + round % 3, 9_000), TimeMs(1));
            }
        }
        let votes: usize = probes.sides.values().flat_map(Side::values).map(VecDeque::len).sum();
        assert_eq!(votes, 3);
    }

    #[test]
    fn all_pairs_of_sites_get_their_turn() {
        let world = world();
        let roster = Roster::new(&world.state);
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..3 {
            for node in world.state.nodes() {
                let targets = roster.targets(node.id, round);
                assert!(targets.len() <= TARGETS_PER_NODE && !targets.contains(&node.id));
                seen.extend(
                    targets.iter().filter_map(|&to| Some((node.site, world.state.node(to)?.site))),
                );
            }
        }
        // Every two of the three sites, both ways, and inside those with several nodes.
        assert!(seen.len() >= 6 + 2, "{seen:?}");
        assert!(Roster::default().targets(NodeId(1), 1).is_empty());
    }
}
