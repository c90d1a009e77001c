//! The quick rules against the slow ones, over worlds whose nodes come, change and go.

use super::super::Needs;
use super::{Around, Breach, Fleet, Outside, breach, slow};
use crate::command::{Actor, Command, NodeTransition};
use crate::fixture::entry::{World, group, job_spec, name, node_spec, register};
use crate::id::{NodeId, Rank};
use crate::job::{
    Affinity, Condition, DomainsMax, JobSpec, Level, RttScope, Segment, Selector, Spread, Strategy,
    Target, Toleration,
};
use crate::node::{Eligibility, Node, NodeSpec, NodeStatus, Taint, TaintEffect};
use crate::state::State;
use crate::unit::{BandwidthMbps, CostMicroUsd, DurationMs, PriceMicroUsd, RttUs};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const LEVELS: [Level; 5] = [Level::Region, Level::Zone, Level::Site, Level::Rack, Level::Node];
const KEYS: [&str; 9] = [
    "a",
    "b",
    "muster/region",
    "muster/zone",
    "muster/site",
    "muster/rack",
    "muster/node",
    "muster/supplier",
    "muster/none",
];
const VALUES: [&str; 14] =
    ["", "x", "y", "r0", "r1", "z0", "z1", "s0", "s1", "s2", "k0", "k1", "n1", "metal"];

fn one<T: Copy>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())]
}

fn node(rng: &mut StdRng, host: u32) -> NodeSpec {
    let mut spec = node_spec(&format!("n{host}"), rng.random_range(0..3));
    let site = rng.random_range(0..5);
    // A site lies in one zone of one region; zones of both regions share their names.
    spec.place.region = name(&format!("r{}", site % 2));
    spec.place.zone = name(&format!("z{}", site / 2 % 2));
    spec.place.site = name(&format!("s{site}"));
    spec.place.rack = name(one(rng, &["k0", "k1"]));
    for key in ["a", "b"] {
        if rng.random_range(0..3) == 0 {
            spec.labels.insert(key.into(), one(rng, &["", "x", "y"]).into());
        }
    }
    if rng.random_range(0..4) == 0 {
        let effect = one(rng, &[TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule]);
        spec.taints.push(Taint { key: "t".into(), value: "v".into(), effect });
    }
    spec.price = PriceMicroUsd(rng.random_range(1..4));
    spec.bandwidth_up = BandwidthMbps(rng.random_range(1..3));
    spec
}

/// Nodes join, change, are cordoned, go down and are removed.
fn world(rng: &mut StdRng) -> World {
    let mut world = World::new();
    for _ in 0..rng.random_range(8..24) {
        match rng.random_range(0..8) {
            0 => {
                let node = NodeId(rng.random_range(0..12));
                let eligibility = one(rng, &[Eligibility::Eligible, Eligibility::Cordoned]);
                let _ = world.apply(Actor::System, Command::SetEligibility { node, eligibility });
            }
            1 => {
                let node = NodeId(rng.random_range(0..12));
                let _ = world.apply(Actor::System, Command::RemoveNode { node, force: true });
            }
            2 => {
                let nodes: Vec<Arc<Node>> = world.state.nodes().cloned().collect();
                let status = one(rng, &[NodeStatus::Up, NodeStatus::Down]);
                let transitions = nodes.iter().filter(|_| rng.random_range(0..6) == 0);
                let of =
                    |node: &Arc<Node>| NodeTransition { node: node.id, epoch: node.epoch, status };
                world.done(Command::NodeStatuses(transitions.map(of).collect()));
            }
            _ => {
                let host = rng.random_range(0..14);
                world.done(register(node(rng, host)));
            }
        }
    }
    world
}

fn selector(rng: &mut StdRng) -> Selector {
    let count = rng.random_range(1..5);
    let values = (0..count).map(|_| one(rng, &VALUES).into()).collect();
    let condition = match rng.random_range(0..8) {
        0..3 => Condition::In(values),
        3..6 => Condition::NotIn(values),
        6 => Condition::Exists,
        _ => Condition::DoesNotExist,
    };
    Selector { key: one(rng, &KEYS).into(), condition }
}

fn spec(rng: &mut StdRng) -> JobSpec {
    let groups = rng.random_range(1..4u16);
    let each = (0..groups).map(|at| {
        let mut group = group(&format!("g{at}"), rng.random_range(1..6), rng.random_range(0..3));
        group.selectors = (0..rng.random_range(0..3)).map(|_| selector(rng)).collect();
        if rng.random_range(0..2) == 0 {
            group.tolerations.push(Toleration { key: "t".into(), value: None, effect: None });
        }
        group.shape.bandwidth_up_min = BandwidthMbps(rng.random_range(0..3));
        for level in LEVELS {
            if rng.random_range(0..4) == 0 {
                let (skew_max, preferred) = (rng.random_range(1..3), rng.random_range(0..4) == 0);
                group.rules.spread.push(Spread { level, skew_max, preferred });
            }
        }
        if rng.random_range(0..4) == 0 {
            group.rules.segments = vec![Segment {
                level: one(rng, &LEVELS),
                size: 2,
                exclusive: rng.random_range(0..2) == 0,
            }];
        }
        if rng.random_range(0..6) == 0 {
            group.rules.replicas_per_node_max = rng.random_range(1..3);
        }
        if rng.random_range(0..8) == 0 {
            group.rules.topology_required = Some(one(rng, &LEVELS[..4]));
        }
        if rng.random_range(0..6) == 0 {
            group.rules.domains_max = domains_max(rng);
        }
        if rng.random_range(0..8) == 0 {
            group.rules.strategy =
                Some(one(rng, &[Strategy::Pack, Strategy::StrictPack, Strategy::StrictSpread]));
        }
        group
    });
    let mut spec = job_spec(each.collect());
    for _ in 0..rng.random_range(0..3) {
        let (group, with) = (rng.random_range(0..groups), rng.random_range(0..groups));
        let target = match rng.random_range(0..3) {
            0 => Target::Jobs { group: Some(group), labels: Default::default() },
            1 => Target::Jobs { group: None, labels: Default::default() },
            _ => Target::Groups { group, with },
        };
        let (anti, preferred) = (rng.random_range(0..2) == 0, rng.random_range(0..5) == 0);
        spec.affinities.push(Affinity { anti, preferred, level: one(rng, &LEVELS), target });
    }
    if rng.random_range(0..4) == 0 {
        spec.rtt_max = Some(RttUs(rng.random_range(100..400)));
        spec.rtt_scope =
            one(rng, &[RttScope::AllPairs, RttScope::WithinGroups, RttScope::HeadToMembers]);
    }
    if rng.random_range(0..4) == 0 {
        spec.price_max = Some(PriceMicroUsd(2));
        spec.duration = Some(DurationMs(3_600_000));
        spec.cost_max = Some(CostMicroUsd(rng.random_range(1..12)));
    }
    if rng.random_range(0..6) == 0 {
        spec.domains_max = domains_max(rng);
    }
    if rng.random_range(0..6) == 0 {
        spec.hourly_max = Some(CostMicroUsd(rng.random_range(1..12)));
    }
    spec
}

fn domains_max(rng: &mut StdRng) -> Vec<DomainsMax> {
    let max = rng.random_range(1..4);
    vec![DomainsMax { level: one(rng, &LEVELS), max }]
}

fn some_nodes(rng: &mut StdRng, state: &State) -> Vec<NodeId> {
    state.nodes().filter(|_| rng.random_range(0..4) == 0).map(|node| node.id).collect()
}

#[test]
fn the_quick_rules_say_what_the_slow_ones_say() {
    let mut endings: BTreeMap<Option<Breach>, u32> = BTreeMap::new();
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let world = world(&mut rng);
        let nodes: Vec<&Node> = world.state.nodes().map(AsRef::as_ref).collect();
        for _ in 0..40 {
            let spec = spec(&mut rng);
            // Few nodes, so that members crowd.
            let few = rng.random_range(0..nodes.len().max(1)) + 1;
            let mut members: Vec<(Rank, &Node)> = Vec::new();
            for rank in (0..spec.rank_end()).map(Rank) {
                if !nodes.is_empty() && rng.random_range(0..6) > 0 {
                    members.push((rank, nodes[rng.random_range(0..few.min(nodes.len()))]));
                }
            }
            let around = Around {
                targets: spec
                    .affinities
                    .iter()
                    .map(|_| some_nodes(&mut rng, &world.state))
                    .collect(),
                closed: match rng.random_range(0..6) {
                    0 => vec![(one(&mut rng, &LEVELS), some_nodes(&mut rng, &world.state))],
                    _ => Vec::new(),
                },
            };
            let quick = breach(&spec, &world.state, &around, members.iter().copied());
            let truth = slow::breach(&spec, &world.state, &around, members.iter().copied());
            assert_eq!(quick, truth, "seed {seed}: {spec:?} {members:?} {around:?}");
            *endings.entry(truth).or_default() += 1;
        }
    }
    assert_eq!(endings.len(), 10, "{endings:?}");
    assert!(endings.values().all(|&count| count > 50), "{endings:?}");
}

/// The question of evenness alone, which the others seldom leave open.
#[test]
fn nodes_beside_what_is_held_are_found_if_there_are_any() {
    let (mut some, mut none) = (0, 0);
    for seed in 0..300 {
        let mut rng = StdRng::seed_from_u64(seed);
        let state = world(&mut rng).state;
        for _ in 0..60 {
            let spec = spec(&mut rng);
            let needs = Needs::new(&spec, 0, state.models());
            let mut lists: Vec<(Level, Vec<u64>)> = Vec::new();
            for level in LEVELS {
                if rng.random_range(0..3) == 0 {
                    let held = state.nodes().filter(|_| rng.random_range(0..4) > 0);
                    let held: BTreeSet<u64> = held.map(|node| state.domain(level, node)).collect();
                    lists.push((level, held.into_iter().collect()));
                }
            }
            let held: Vec<(Level, &[u64])> =
                lists.iter().map(|(level, held)| (*level, held.as_slice())).collect();
            let truth = state.nodes().any(|node| {
                node.is_schedulable()
                    && needs.misfit(node).is_none()
                    && held.iter().any(|(level, held)| !held.contains(&state.domain(*level, node)))
            });
            let found = state.has_beside(&spec, 0, &Outside(held));
            assert_eq!(found, truth, "seed {seed}: {spec:?} {lists:?}");
            if truth { some += 1 } else { none += 1 }
        }
    }
    assert!(some > 1_000 && none > 1_000, "{some} {none}");
}
