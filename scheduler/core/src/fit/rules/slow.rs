//! The rules as they are told, member by member and node by node: the measure for the quick ones.

use super::super::Needs;
use super::{Around, Breach, Domain};
use crate::id::{NodeId, Rank, SiteId};
use crate::job::{GpuAsk, JobSpec, Level, RttScope, Spread, Strategy, Target};
use crate::node::Node;
use crate::state::State;
use crate::topology::Sites;
use crate::unit::RttUs;
use std::collections::{BTreeMap, BTreeSet};

/// One live member.
#[derive(Clone, Copy, Debug)]
struct Member<'a> {
    group: usize,
    rank: Rank,
    node: &'a Node,
}

/// The first rule that the live members of the job break together; `None` = all hold.
///
/// `members` holds one item per live replica (so a node may come several times), in any order. A
/// single member keeps every rule that is about members of its own job only. Members at one site,
/// even on one node, count with the site's own inner RTT.
pub(super) fn breach<'a>(
    spec: &JobSpec,
    fleet: &'a State,
    around: &Around,
    members: impl Iterator<Item = (Rank, &'a Node)>,
) -> Option<Breach> {
    let member =
        |(rank, node): (Rank, &'a Node)| Some(Member { group: spec.group_of(rank)?, rank, node });
    let members: Vec<Member<'a>> = members.filter_map(member).collect();
    let check = Check { spec, fleet, around, members: &members };
    let rules: [(Breach, bool); 9] = [
        (Breach::Strategy, check.strategies()),
        (Breach::Topology, check.topologies()),
        (Breach::Domains, check.domains_max()),
        (Breach::PerNode, check.per_node()),
        (Breach::Segment, check.segments()),
        (Breach::Affinity, check.affinities() && check.closed()),
        (Breach::Spread, check.spreads()),
        (Breach::Cost, check.cost()),
        // The last: a gang that has drifted apart may still be repaired.
        (Breach::Rtt, check.rtts()),
    ];
    rules.into_iter().find(|(_, holds)| !holds).map(|(breach, _)| breach)
}

struct Check<'a, 'm> {
    spec: &'m JobSpec,
    fleet: &'a State,
    around: &'m Around,
    members: &'m [Member<'a>],
}

impl<'a, 'm> Check<'a, 'm> {
    fn of_group(&self, group: usize) -> impl Iterator<Item = &'m Member<'a>> + use<'a, 'm> {
        self.members.iter().filter(move |member| member.group == group)
    }

    fn own_strategy(&self, group: usize) -> Option<Strategy> {
        self.spec.groups.get(group).and_then(|group| group.rules.strategy)
    }

    fn strategies(&self) -> bool {
        let common = self.members.iter().filter(|one| self.own_strategy(one.group).is_none());
        keeps(self.spec.strategy, common)
            && self.spec.groups.iter().enumerate().all(|(at, group)| {
                group.rules.strategy.is_none_or(|own| keeps(own, self.of_group(at)))
            })
    }

    fn topologies(&self) -> bool {
        let job = self.spec.topology_required;
        job.is_none_or(|level| together(level, self.members.iter()))
            && self.spec.groups.iter().enumerate().all(|(at, group)| {
                let own = group.rules.topology_required;
                own.is_none_or(|level| together(level, self.of_group(at)))
            })
    }

    fn domains_max(&self) -> bool {
        let of_job = self.spec.domains_max.iter().map(|bound| (None, bound));
        let groups = self.spec.groups.iter().enumerate();
        let of_groups = groups
            .flat_map(|(at, group)| group.rules.domains_max.iter().map(move |one| (Some(at), one)));
        of_job.chain(of_groups).all(|(group, bound)| {
            let own = self.members.iter().filter(|one| group.is_none_or(|at| at == one.group));
            let domains: BTreeSet<Domain<'_>> =
                own.map(|one| Domain::of(bound.level, one.node)).collect();
            domains.len() as u64 <= u64::from(bound.max)
        })
    }

    fn per_node(&self) -> bool {
        self.spec.groups.iter().enumerate().all(|(at, group)| {
            let most = group.rules.replicas_per_node_max;
            most == 0 || counts(Level::Node, self.of_group(at)).values().all(|&n| n <= most)
        })
    }

    fn segments(&self) -> bool {
        let starts = self.spec.group_starts();
        self.spec.groups.iter().zip(starts).enumerate().all(|(at, (group, start))| {
            group.rules.segments.iter().all(|segment| {
                let mut blocks: BTreeMap<u32, Domain<'_>> = BTreeMap::new();
                self.of_group(at).all(|member| {
                    let block = member.rank.0.saturating_sub(start) / segment.size.max(1);
                    let domain = Domain::of(segment.level, member.node);
                    *blocks.entry(block).or_insert(domain) == domain
                }) && (!segment.exclusive || {
                    let homes: BTreeSet<Domain<'_>> = blocks.values().copied().collect();
                    homes.len() == blocks.len()
                })
            })
        })
    }

    fn affinities(&self) -> bool {
        let required = self.spec.affinities.iter().enumerate().filter(|(_, one)| !one.preferred);
        required.into_iter().all(|(at, one)| match &one.target {
            Target::Groups { group, with } if group == with => {
                let mut members = self.of_group(usize::from(*group));
                if one.anti {
                    counts(one.level, members).values().all(|&count| count <= 1)
                } else {
                    let first = members.next();
                    first.is_none_or(|first| {
                        let home = Domain::of(one.level, first.node);
                        members.all(|other| Domain::of(one.level, other.node) == home)
                    })
                }
            }
            Target::Groups { group, with } => {
                let others = counts(one.level, self.of_group(usize::from(*with)));
                self.of_group(usize::from(*group)).all(|member| {
                    others.contains_key(&Domain::of(one.level, member.node)) != one.anti
                })
            }
            Target::Jobs { group, .. } => {
                let nodes = self.around.targets.get(at).map_or(&[][..], Vec::as_slice);
                let domains = self.domains(one.level, nodes);
                let concerned = |member: &&Member<'_>| {
                    group.is_none_or(|group| usize::from(group) == member.group)
                };
                self.members
                    .iter()
                    .filter(concerned)
                    .all(|member| domains.contains(&Domain::of(one.level, member.node)) != one.anti)
            }
        })
    }

    fn closed(&self) -> bool {
        self.around.closed.iter().all(|(level, nodes)| {
            let domains = self.domains(*level, nodes);
            !self.members.iter().any(|one| domains.contains(&Domain::of(*level, one.node)))
        })
    }

    fn domains(&self, level: Level, nodes: &[NodeId]) -> BTreeSet<Domain<'a>> {
        let fleet = self.fleet;
        nodes
            .iter()
            .filter_map(|&id| fleet.node(id))
            .map(|n| Domain::of(level, n.as_ref()))
            .collect()
    }

    fn spreads(&self) -> bool {
        self.spec.groups.iter().enumerate().all(|(at, group)| {
            let mut required = group.rules.spread.iter().filter(|one| !one.preferred);
            required.all(|spread| self.even(at, spread))
        })
    }

    fn even(&self, group: usize, spread: &Spread) -> bool {
        let held = counts(spread.level, self.of_group(group));
        let Some(&most) = held.values().max() else { return true };
        if most <= spread.skew_max {
            return true;
        }
        // Too full for an empty domain beside it: is there one?
        let needs = Needs::new(self.spec, group, self.fleet.models());
        let empty = self.fleet.nodes().find(|node| {
            node.is_schedulable()
                && !held.contains_key(&Domain::of(spread.level, node.as_ref()))
                && needs.misfit(node).is_none()
        });
        let least = held.values().min().copied().unwrap_or(0);
        empty.is_none() && most - least <= spread.skew_max
    }

    fn rtts(&self) -> bool {
        let Some(bound) = self.spec.rtt_max else { return true };
        let within = |members: &mut dyn Iterator<Item = &Member<'_>>| {
            let sites: Vec<SiteId> = members.map(|member| member.node.site).collect();
            sites.len() < 2 || sites_within(self.fleet.sites(), sites, bound)
        };
        match self.spec.rtt_scope {
            RttScope::AllPairs => within(&mut self.members.iter()),
            RttScope::WithinGroups => {
                (0..self.spec.groups.len()).all(|at| within(&mut self.of_group(at)))
            }
            RttScope::HeadToMembers => {
                let head = self.spec.head_rank();
                let Some(home) = self.members.iter().find(|one| one.rank == head) else {
                    return true;
                };
                let others = self.members.iter().filter(|one| one.rank != head);
                let sites: BTreeSet<SiteId> = others.map(|one| one.node.site).collect();
                sites.into_iter().all(|site| {
                    let rtt = self.fleet.sites().rtt(home.node.site, site);
                    rtt.is_some_and(|rtt| rtt <= bound)
                })
            }
        }
    }

    fn cost(&self) -> bool {
        let sum = self.members.iter().fold(0u128, |sum, member| {
            let shape = self.spec.groups.get(member.group).map(|group| &group.shape);
            let asked = shape.filter(|shape| shape.gpus != GpuAsk::None);
            let milli = asked.map_or(0, |shape| shape.gpu_milli());
            sum.saturating_add(u128::from(milli) * u128::from(member.node.price.0))
        });
        // Thousandths of GPUs; thousandths of seconds where it is for a time.
        let spec = self.spec;
        let hourly = spec.hourly_max.is_none_or(|most| sum <= u128::from(most.0) * 1_000);
        let total = spec.cost_max.zip(spec.duration).is_none_or(|(most, duration)| {
            sum * u128::from(duration.0) <= u128::from(most.0) * 1_000 * 3_600_000
        });
        hourly && total
    }
}

fn keeps<'a: 'm, 'm>(
    strategy: Strategy,
    mut members: impl Iterator<Item = &'m Member<'a>>,
) -> bool {
    match strategy {
        Strategy::Pack | Strategy::Spread => true,
        Strategy::StrictPack => together(Level::Node, members),
        Strategy::StrictSpread => {
            let mut nodes: BTreeSet<NodeId> = BTreeSet::new();
            members.all(|member| nodes.insert(member.node.id))
        }
    }
}

fn together<'a: 'm, 'm>(level: Level, mut members: impl Iterator<Item = &'m Member<'a>>) -> bool {
    let Some(first) = members.next() else { return true };
    members.all(|member| crate::fit::same_domain(level, first.node, member.node))
}

fn counts<'a: 'm, 'm>(
    level: Level,
    members: impl Iterator<Item = &'m Member<'a>>,
) -> BTreeMap<Domain<'a>, u32> {
    let mut counts = BTreeMap::new();
    for member in members {
        let count: &mut u32 = counts.entry(Domain::of(level, member.node)).or_default();
        *count = count.saturating_add(1);
    }
    counts
}

/// Whether every two of the members (one site each, repeats wanted) lie within the bound.
fn sites_within(sites: &Sites, mut members: Vec<SiteId>, bound: RttUs) -> bool {
    let near = |a: SiteId, b: SiteId| sites.rtt(a, b).is_some_and(|rtt| rtt <= bound);
    members.sort_unstable();
    let neighbours = members.iter().zip(members.iter().skip(1));
    if neighbours.into_iter().any(|(&a, &b)| a == b && !near(a, b)) {
        return false;
    }
    members.dedup();
    let rest = |at: usize| members.iter().skip(at + 1);
    members.iter().enumerate().all(|(at, &a)| rest(at).all(|&b| near(a, b)))
}
