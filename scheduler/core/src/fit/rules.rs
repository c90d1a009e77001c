//! Rules among the live members of a job: shared by the planner, which looks for members that keep
//! them, and by `State::apply`, which takes no others.
//!
//! **Invariant:** exact, and from facts alone; wishes ("preferred") are nobody's business here.

#[cfg(test)]
mod slow;
#[cfg(test)]
mod tests;

use crate::id::{NodeId, Rank, SiteId};
use crate::job::{GpuAsk, JobSpec, Level, RttScope, Spread, Strategy, Target};
use crate::node::Node;
use crate::topology::Sites;
use crate::unit::RttUs;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// Which rule about the members as a whole is broken.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Breach {
    /// `STRICT_PACK` over more than one node, or `STRICT_SPREAD` with two replicas on one.
    Strategy,
    /// Not inside one domain of the required level.
    Topology,
    /// In more domains than allowed.
    Domains,
    /// The RTT between two members' sites is unknown or over the bound.
    Rtt,
    /// More replicas of a group on one node than allowed.
    PerNode,
    /// A block of replicas lies in more than one domain.
    Segment,
    /// Near what it should be apart from, or apart from what it should be near to.
    Affinity,
    /// The fullest domain holds too many more than the emptiest.
    Spread,
    /// All members together cost too much.
    Cost,
}

/// Where live replicas of the tenant's other jobs stand, as far as the rules of one job go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Around {
    /// For each affinity of the spec: the nodes with replicas of the jobs that it is about, by
    /// rising id; none for affinities between groups.
    pub targets: Vec<Vec<NodeId>>,
    /// Domains that other jobs keep this one out of: each level once, and nodes in them by rising
    /// id.
    pub closed: Vec<(Level, Vec<NodeId>)>,
}

/// A job without anybody around.
pub static NOBODY: Around = Around { targets: Vec::new(), closed: Vec::new() };

/// A fleet to hold members against.
pub trait Fleet {
    fn sites(&self) -> &Sites;
    fn node(&self, id: NodeId) -> Option<&Node>;
    /// The domain of the level in which a node of the fleet lies, as a number. A zone counts inside
    /// its region, a rack inside its site.
    fn domain(&self, level: Level, node: &Node) -> u64;
    /// Whether a schedulable node that could hold a replica of the group, if it were empty, lies in
    /// none of the domains of some level.
    fn has_beside(&self, spec: &JobSpec, group: usize, held: &Outside<'_>) -> bool;
}

/// For each of some levels the domains that are held, by rising number.
#[derive(Clone, Debug, Default)]
pub struct Outside<'a>(Vec<(Level, &'a [u64])>);

impl<'a> Outside<'a> {
    /// Levels of sites and wider.
    pub fn wide(&self) -> impl Iterator<Item = (Level, &'a [u64])> {
        self.0.iter().copied().filter(|(level, _)| *level <= Level::Site)
    }

    /// Levels inside a site.
    pub fn narrow(&self) -> impl Iterator<Item = (Level, &'a [u64])> {
        self.0.iter().copied().filter(|(level, _)| *level > Level::Site)
    }

    /// All levels.
    pub fn iter(&self) -> impl Iterator<Item = (Level, &'a [u64])> {
        self.0.iter().copied()
    }
}

/// A domain of some level, told by the names down to that level.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Domain<'a> {
    region: &'a str,
    zone: &'a str,
    site: Option<SiteId>,
    rack: &'a str,
    node: Option<NodeId>,
}

impl<'a> Domain<'a> {
    /// The domain of the level in which the node lies. A zone counts inside its region, a rack
    /// inside its site.
    pub fn of(level: Level, node: &'a Node) -> Self {
        let mut domain = Self { region: "", zone: "", site: None, rack: "", node: None };
        match level {
            Level::Region => domain.region = node.place.region.as_str(),
            Level::Zone => {
                domain.region = node.place.region.as_str();
                domain.zone = node.place.zone.as_str();
            }
            Level::Site => domain.site = Some(node.site),
            Level::Rack => {
                domain.site = Some(node.site);
                domain.rack = node.place.rack.as_str();
            }
            Level::Node => domain.node = Some(node.id),
        }
        domain
    }
}

/// One live member.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    rank: Rank,
    node: &'a Node,
}

/// Whether a rule holds.
type Rule = fn(&Check<'_, '_>) -> bool;

/// The first rule that the live members of the job break together; `None` = all hold.
///
/// `members` holds one item per live replica (so a node may come several times), in any order. A
/// single member keeps every rule that is about members of its own job only. Members at one site,
/// even on one node, count with the site's own inner RTT.
pub fn breach<'a>(
    spec: &JobSpec,
    fleet: &'a dyn Fleet,
    around: &Around,
    members: impl Iterator<Item = (Rank, &'a Node)>,
) -> Option<Breach> {
    let check = Check::new(spec, fleet, around, members);
    let rules: [(Breach, Rule); 9] = [
        (Breach::Strategy, |check| check.strategies()),
        (Breach::Topology, |check| check.topologies()),
        (Breach::Domains, |check| check.domains_max()),
        (Breach::PerNode, |check| check.per_node()),
        (Breach::Segment, |check| check.segments()),
        (Breach::Affinity, |check| check.affinities() && check.closed()),
        (Breach::Spread, |check| check.spreads()),
        (Breach::Cost, |check| check.cost()),
        // The last: a gang that has drifted apart may still be repaired.
        (Breach::Rtt, |check| check.rtts()),
    ];
    rules.into_iter().find(|(_, holds)| !holds(&check)).map(|(breach, _)| breach)
}

/// Most that thousandths of GPUs times their prices of an hour may sum up to; `None` = no bound.
pub fn milli_price_max(spec: &JobSpec) -> Option<u128> {
    let total = spec.cost_max.zip(spec.duration).map(|(bound, duration)| {
        u128::from(bound.0) * 1_000 * 3_600_000 / u128::from(duration.0.max(1))
    });
    let hourly = spec.hourly_max.map(|bound| u128::from(bound.0) * 1_000);
    total.into_iter().chain(hourly).min()
}

fn all_differ<T: Ord>(values: impl Iterator<Item = T>) -> bool {
    let mut all: Vec<T> = values.collect();
    all.sort_unstable();
    all.windows(2).all(|two| two[0] != two[1])
}

/// Domains with members, by rising number, and how many each holds.
#[derive(Debug, Default)]
struct Counts {
    domains: Vec<u64>,
    counts: Vec<u32>,
}

/// Number of a group, and a level as a place.
type CountsKey = (usize, Level);

struct Check<'a, 'm> {
    spec: &'m JobSpec,
    fleet: &'a dyn Fleet,
    around: &'m Around,
    /// By group, then rank.
    members: Vec<Member<'a>>,
    /// Where the members of each group begin, and one past the last.
    starts: Vec<usize>,
    /// What was counted so far.
    counts: RefCell<BTreeMap<CountsKey, Rc<Counts>>>,
}

impl<'a, 'm> Check<'a, 'm> {
    fn new(
        spec: &'m JobSpec,
        fleet: &'a dyn Fleet,
        around: &'m Around,
        members: impl Iterator<Item = (Rank, &'a Node)>,
    ) -> Self {
        let ranks = spec.group_starts();
        let end = ranks.last().copied().unwrap_or(0);
        let mut members: Vec<Member<'a>> = members
            .filter(|(rank, _)| rank.0 < end)
            .map(|(rank, node)| Member { rank, node })
            .collect();
        if !members.is_sorted_by_key(|member| member.rank) {
            members.sort_by_key(|member| member.rank);
        }
        let start = |first: u32| members.partition_point(|member| member.rank.0 < first);
        let starts = ranks.into_iter().map(start).collect();
        Self { spec, fleet, around, members, starts, counts: RefCell::default() }
    }

    fn of_group(&self, group: usize) -> &[Member<'a>] {
        let bounds = self.starts.get(group).zip(self.starts.get(group + 1));
        bounds.and_then(|(&from, &to)| self.members.get(from..to)).unwrap_or(&[])
    }

    /// Members of the group by their domains.
    fn counts(&self, group: usize, level: Level) -> Rc<Counts> {
        if let Some(known) = self.counts.borrow().get(&(group, level)) {
            return Rc::clone(known);
        }
        let members = self.of_group(group).iter();
        let mut all: Vec<u64> =
            members.map(|member| self.fleet.domain(level, member.node)).collect();
        all.sort_unstable();
        let mut counts = Counts::default();
        for run in all.chunk_by(|a, b| a == b) {
            counts.domains.extend(run.first());
            counts.counts.push(u32::try_from(run.len()).unwrap_or(u32::MAX));
        }
        let counts = Rc::new(counts);
        self.counts.borrow_mut().insert((group, level), Rc::clone(&counts));
        counts
    }

    fn strategies(&self) -> bool {
        let groups = self.spec.groups.iter().enumerate();
        let common = groups.clone().filter(|(_, group)| group.rules.strategy.is_none());
        keeps(self.spec.strategy, common.flat_map(|(at, _)| self.of_group(at)))
            && groups.into_iter().all(|(at, group)| {
                group.rules.strategy.is_none_or(|own| keeps(own, self.of_group(at)))
            })
    }

    fn topologies(&self) -> bool {
        let job = self.spec.topology_required;
        job.is_none_or(|level| together(level, &self.members))
            && self.spec.groups.iter().enumerate().all(|(at, group)| {
                let own = group.rules.topology_required;
                own.is_none_or(|level| together(level, self.of_group(at)))
            })
    }

    fn domains_max(&self) -> bool {
        self.spec.domains_max.iter().all(|bound| {
            let groups = 0..self.spec.groups.len();
            let held = groups.map(|at| self.counts(at, bound.level));
            let mut held: Vec<u64> = held.flat_map(|counts| counts.domains.clone()).collect();
            held.sort_unstable();
            held.dedup();
            is_at_most(held.len(), bound.max)
        }) && self.spec.groups.iter().enumerate().all(|(at, group)| {
            let mut own = group.rules.domains_max.iter();
            own.all(|bound| is_at_most(self.counts(at, bound.level).domains.len(), bound.max))
        })
    }

    fn per_node(&self) -> bool {
        self.spec.groups.iter().enumerate().all(|(at, group)| {
            let most = group.rules.replicas_per_node_max;
            most == 0 || self.counts(at, Level::Node).counts.iter().all(|&count| count <= most)
        })
    }

    fn segments(&self) -> bool {
        let starts = self.spec.group_starts();
        self.spec.groups.iter().zip(starts).enumerate().all(|(at, (group, start))| {
            group.rules.segments.iter().all(|segment| {
                let block =
                    |member: &Member<'_>| member.rank.0.saturating_sub(start) / segment.size.max(1);
                let blocks = || self.of_group(at).chunk_by(|a, b| block(a) == block(b));
                let home = |members: &[Member<'_>]| {
                    members.first().map(|one| self.fleet.domain(segment.level, one.node))
                };
                blocks().all(|members| together(segment.level, members))
                    && (!segment.exclusive || all_differ(blocks().map(home)))
            })
        })
    }

    fn affinities(&self) -> bool {
        let required = self.spec.affinities.iter().enumerate().filter(|(_, one)| !one.preferred);
        required.into_iter().all(|(at, one)| match &one.target {
            Target::Groups { group, with } if group == with => {
                let own = usize::from(*group);
                if one.anti {
                    self.of_group(own).len() < 2
                        || self.counts(own, one.level).counts.iter().all(|&count| count <= 1)
                } else {
                    together(one.level, self.of_group(own))
                }
            }
            Target::Groups { group, with } => {
                let [own, other] = [*group, *with].map(usize::from);
                if self.of_group(own).is_empty() || self.of_group(other).is_empty() {
                    return one.anti || self.of_group(own).is_empty();
                }
                let [own, other] = [own, other].map(|group| self.counts(group, one.level));
                common(&own.domains, &other.domains) == if one.anti { 0 } else { own.domains.len() }
            }
            Target::Jobs { group, .. } => {
                let nodes = self.around.targets.get(at).map_or(&[][..], Vec::as_slice);
                let domains = self.domains(one.level, nodes);
                let members = match group {
                    Some(group) => self.of_group(usize::from(*group)),
                    None => &self.members,
                };
                members.iter().all(|member| self.is_in(&domains, one.level, member) != one.anti)
            }
        })
    }

    fn closed(&self) -> bool {
        self.around.closed.iter().all(|(level, nodes)| {
            let domains = self.domains(*level, nodes);
            !self.members.iter().any(|member| self.is_in(&domains, *level, member))
        })
    }

    /// Domains in which the nodes lie, by rising number.
    fn domains(&self, level: Level, nodes: &[NodeId]) -> Vec<u64> {
        let nodes = nodes.iter().filter_map(|&id| self.fleet.node(id));
        let mut domains: Vec<u64> = nodes.map(|node| self.fleet.domain(level, node)).collect();
        domains.sort_unstable();
        domains.dedup();
        domains
    }

    fn is_in(&self, domains: &[u64], level: Level, member: &Member<'_>) -> bool {
        domains.binary_search(&self.fleet.domain(level, member.node)).is_ok()
    }

    fn spreads(&self) -> bool {
        self.spec.groups.iter().enumerate().all(|(at, group)| {
            let crowded = |spread: &&Spread| {
                let all = self.of_group(at).len();
                // No domain holds more than there are.
                !spread.preferred && all > usize::try_from(spread.skew_max).unwrap_or(usize::MAX)
            };
            let spreads = group.rules.spread.iter().filter(crowded);
            let held: Vec<(&Spread, Rc<Counts>)> =
                spreads.map(|spread| (spread, self.counts(at, spread.level))).collect();
            self.are_even(at, &held)
        })
    }

    fn are_even(&self, group: usize, held: &[(&Spread, Rc<Counts>)]) -> bool {
        let mut full: Vec<(Level, &[u64])> = Vec::new();
        for (spread, held) in held {
            let most = held.counts.iter().max().copied().unwrap_or(0);
            let least = held.counts.iter().min().copied().unwrap_or(0);
            if most - least > spread.skew_max {
                return false;
            }
            if most > spread.skew_max {
                full.push((spread.level, &held.domains));
            }
        }
        // Too full for an empty domain beside them: is there one?
        full.is_empty() || !self.fleet.has_beside(self.spec, group, &Outside(full))
    }

    fn rtts(&self) -> bool {
        let Some(bound) = self.spec.rtt_max else { return true };
        let sites = self.fleet.sites();
        let of = |members: &[Member<'_>]| members.iter().map(|one| one.node.site).collect();
        match self.spec.rtt_scope {
            RttScope::AllPairs => sites.are_within(&[of(&self.members)], bound),
            RttScope::WithinGroups => {
                let each = (0..self.spec.groups.len()).map(|at| of(self.of_group(at)));
                sites.are_within(&each.collect::<Vec<Vec<SiteId>>>(), bound)
            }
            RttScope::HeadToMembers => {
                let head = self.spec.head_rank();
                let Some(home) = self.members.iter().find(|one| one.rank == head) else {
                    return true;
                };
                let others = self.members.iter().filter(|one| one.rank != head);
                let others: BTreeSet<SiteId> = others.map(|one| one.node.site).collect();
                let near = |site| sites.rtt(home.node.site, site).is_some_and(|rtt| rtt <= bound);
                others.into_iter().all(near)
            }
        }
    }

    fn cost(&self) -> bool {
        let Some(most) = milli_price_max(self.spec) else { return true };
        let groups = self.spec.groups.iter().enumerate();
        let sum = groups.fold(0u128, |sum, (at, group)| {
            let asked = group.shape.gpus != GpuAsk::None;
            let milli = if asked { group.shape.gpu_milli() } else { 0 };
            self.of_group(at).iter().fold(sum, |sum, member| {
                sum.saturating_add(u128::from(milli) * u128::from(member.node.price.0))
            })
        });
        sum <= most
    }
}

fn keeps<'a: 'm, 'm>(
    strategy: Strategy,
    members: impl IntoIterator<Item = &'m Member<'a>>,
) -> bool {
    match strategy {
        Strategy::Pack | Strategy::Spread => true,
        Strategy::StrictPack => together(Level::Node, members),
        Strategy::StrictSpread => {
            let mut nodes: Vec<NodeId> = members.into_iter().map(|one| one.node.id).collect();
            nodes.sort_unstable();
            nodes.windows(2).all(|pair| pair.first() != pair.last())
        }
    }
}

fn is_at_most(count: usize, most: u32) -> bool {
    count <= usize::try_from(most).unwrap_or(usize::MAX)
}

fn together<'a: 'm, 'm>(level: Level, members: impl IntoIterator<Item = &'m Member<'a>>) -> bool {
    let mut members = members.into_iter();
    let Some(first) = members.next() else { return true };
    members.all(|member| super::same_domain(level, first.node, member.node))
}

/// How many numbers two rising lists have in common.
fn common(a: &[u64], b: &[u64]) -> usize {
    let mut rest = b.iter().peekable();
    let met = |one: &&u64| {
        while rest.next_if(|other| other < one).is_some() {}
        rest.peek() == Some(one)
    };
    a.iter().filter(met).count()
}

/// Whether those who join lie within the bound of each other and of those who stay, one site for
/// each. Pairs of members that stay are not looked at: RTTs change, and a gang that has drifted
/// apart must still be repaired.
pub fn joins_within(sites: &Sites, staying: &[SiteId], joining: &[SiteId], bound: RttUs) -> bool {
    let old: BTreeSet<SiteId> = staying.iter().copied().collect();
    let new: BTreeSet<SiteId> = joining.iter().copied().collect();
    let near = |a: SiteId, b: SiteId| sites.rtt(a, b).is_some_and(|rtt| rtt <= bound);
    sites.are_within(&[joining.to_vec()], bound)
        && new.iter().all(|&a| old.iter().all(|&b| near(a, b)))
}
