//! How long one entry holds up a server: jobs that pass validation and are made to cost as much as
//! they can when they are applied with their plan, on 69,000 nodes, beside plain ones.
//!
//! **Invariant:** every entry is accepted.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use scheduler_core::command::{Actor, Command, Entry, Outcome, Placement, Plan};
use scheduler_core::fixture::entry::{TENANT, group, job_spec, models, tenant};
use scheduler_core::fixture::fleet::{Fleet, submission};
use scheduler_core::id::{JobId, Rank};
use scheduler_core::job::{
    Affinity, Condition, GpuAlternative, JobSpec, Level, Reason, RttScope, Selector, Spread, Target,
};
use scheduler_core::node::Node;
use scheduler_core::state::{Applied, State};
use scheduler_core::unit::{CpuMilli, GpuSet, MemoryMib, RttUs, TimeMs};
use scheduler_core::validate::SELECTOR_VALUES_MAX;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;

const NODES: usize = 69_000;
/// As many as a job may have, a group may have, and a selector may name.
const MOST: usize = 64;
const LEVELS: [Level; 5] = [Level::Region, Level::Zone, Level::Site, Level::Rack, Level::Node];

type Case = (String, JobSpec, Plan);

/// A replica with one GPU: the group's rank, where, and which.
fn one(rank: u32, node: &Node, gpu: u8) -> Placement {
    let (node, node_epoch) = (node.id, node.epoch);
    Placement { rank: Rank(rank), node, node_epoch, gpus: GpuSet::single(gpu), share_milli: 0 }
}

fn not_in(key: &str, values: &[String]) -> Selector {
    let values = values.iter().map(|value| value.as_str().into()).collect();
    Selector { key: key.into(), condition: Condition::NotIn(values) }
}

/// So many groups with two replicas on one node each, at a site of its own, evenly spread: no other
/// node serves the group, and `conditions` says why.
fn lonely(
    state: &State,
    groups: usize,
    levels: &[Level],
    conditions: impl Fn(&Node, usize) -> Vec<Selector>,
) -> (JobSpec, Plan) {
    let mut sites = BTreeSet::new();
    let homes = state.nodes().filter(|node| node.gpus.len() == 8 && sites.insert(node.site));
    let homes: Vec<Arc<Node>> = homes.take(groups).cloned().collect();
    let mut spec = job_spec(Vec::new());
    let mut plan = Plan { placements: Vec::new() };
    for (at, home) in homes.iter().enumerate() {
        let mut group = group(&format!("g{at}"), 2, 1);
        let spread = |&level: &Level| Spread { level, skew_max: 1, preferred: false };
        group.rules.spread = levels.iter().map(spread).collect();
        group.selectors = conditions(home, at);
        spec.groups.push(group);
        let rank = 2 * at as u32;
        plan.placements.extend([one(rank, home, 0), one(rank + 1, home, 1)]);
    }
    (spec, plan)
}

/// Conditions that keep a group off all other sites, after as many as may be that keep it off none,
/// with at most so many values in all.
fn elsewhere(
    state: &State,
    home: &Node,
    values_max: usize,
    junk: impl Fn(usize) -> Vec<String>,
) -> Vec<Selector> {
    let others: Vec<String> = state
        .sites()
        .iter()
        .filter(|(id, _)| *id != home.site)
        .map(|(_, site)| site.name.to_string())
        .collect();
    let needed: Vec<Selector> =
        others.chunks(MOST).map(|some| not_in("muster/site", some)).collect();
    let idle = ((values_max - others.len()) / MOST).min(MOST - 1 - needed.len());
    let idle = (0..idle).map(|nth| not_in("muster/site", &junk(nth)));
    let mut all: Vec<Selector> = idle.collect();
    all.extend(needed);
    all
}

/// That the node is this one, as the last condition.
fn named(mut conditions: Vec<Selector>, home: &Node) -> Vec<Selector> {
    let values = vec![home.name.as_str().into()];
    conditions.push(Selector { key: "muster/node".into(), condition: Condition::In(values) });
    conditions
}

fn hostile(state: &State) -> Vec<Case> {
    let unknown = |at: usize| {
        move |nth: usize| -> Vec<String> {
            (0..MOST).map(|value| format!("none-{}", (at * MOST + nth) * MOST + value)).collect()
        }
    };
    let sites: Vec<String> = state.sites().iter().map(|(_, site)| site.name.to_string()).collect();
    // Names of sites, but for the one that the group stands at.
    let known = |home: &Node| {
        let home = home.place.site.to_string();
        let sites: Vec<String> = sites.iter().filter(|site| **site != home).cloned().collect();
        move |nth: usize| -> Vec<String> {
            (0..MOST).map(|value| sites[(nth * 7 + value) % sites.len()].clone()).collect()
        }
    };
    let away = |home: &Node| {
        let racks: BTreeSet<String> =
            state.nodes().map(|node| node.place.rack.to_string()).collect();
        let racks: Vec<String> =
            racks.into_iter().filter(|rack| *rack != home.place.rack.to_string()).collect();
        let alike = state.nodes().filter(|node| node.place.rack == home.place.rack);
        let names: Vec<String> =
            alike.filter(|node| node.id != home.id).map(|node| node.name.to_string()).collect();
        let mut all: Vec<Selector> =
            names.chunks(MOST).map(|some| not_in("muster/node", some)).collect();
        all.push(not_in("muster/rack", &racks));
        all
    };
    let mut cases = Vec::new();
    for groups in [1, MOST] {
        // One for the name of a node.
        let most = SELECTOR_VALUES_MAX / groups - 1;
        let mut case = |called: &str, (mut spec, plan): (JobSpec, Plan)| {
            for group in &mut spec.groups {
                // Any GPU serves, which takes a look at all alternatives.
                group.shape.alternatives = (0..15).flat_map(|_| models(&["T4"])).collect();
                group.shape.alternatives.push(GpuAlternative::default());
            }
            cases.push((format!("{groups} groups, {called}"), spec, plan));
        };
        let site = &[Level::Site][..];
        case(
            "even over sites, unknown names",
            lonely(state, groups, site, |home, at| elsewhere(state, home, most, unknown(at))),
        );
        case(
            "even over sites, names of sites",
            lonely(state, groups, site, |home, _| elsewhere(state, home, most, known(home))),
        );
        case(
            "even over all levels",
            lonely(state, groups, &LEVELS, |home, at| {
                named(elsewhere(state, home, most, unknown(at)), home)
            }),
        );
        let named = |(spec, _): &(JobSpec, Plan)| {
            let all = spec.groups.iter().flat_map(|group| &group.selectors);
            all.map(|one| one.condition.values().len()).sum::<usize>()
        };
        let nodes = |groups| lonely(state, groups, &[Level::Node], |home, _| away(home));
        // As many groups as may name all nodes but their own.
        let fewer = (1..=groups).rev().find(|&groups| named(&nodes(groups)) <= SELECTOR_VALUES_MAX);
        case("even over nodes, names of nodes", nodes(fewer.expect("one group may")));
    }
    cases
}

/// One replica of 64 groups of a thousand on every node, apart from and near to each other.
fn crowd(state: &State) -> Case {
    let mut spec = job_spec((0..MOST).map(|at| group(&format!("g{at}"), 1_000, 1)).collect());
    let nodes: Vec<&Arc<Node>> = state.nodes().filter(|node| !node.gpus.is_empty()).collect();
    let placements = (0u32..).zip(nodes).take(MOST * 1_000).map(|(rank, node)| one(rank, node, 0));
    let plan = Plan { placements: placements.collect() };
    spec.rtt_max = Some(RttUs(60_000_000));
    spec.rtt_scope = RttScope::WithinGroups;
    spec.affinities = (0..32)
        .map(|at| Affinity {
            anti: true,
            preferred: false,
            level: Level::Node,
            target: Target::Groups { group: at, with: at + 1 },
        })
        .collect();
    for group in &mut spec.groups {
        let spread = |level: Level| Spread { level, skew_max: 1_000, preferred: false };
        group.rules.spread = LEVELS.map(spread).to_vec();
        group.rules.replicas_per_node_max = 1;
        group.selectors = (0..SELECTOR_VALUES_MAX / MOST / MOST)
            .map(|nth| {
                let values: Vec<String> =
                    (0..MOST).map(|value| format!("none-{}", nth * MOST + value)).collect();
                not_in("muster/rack", &values)
            })
            .collect();
    }
    ("64 groups of 1,000, all rules".to_owned(), spec, plan)
}

/// Many jobs that keep each other's nodes to themselves, and one more of 10,000 replicas.
fn jealous(state: &mut State) -> Case {
    let labels = || [("app".into(), "x".into())].into_iter().collect();
    let alone = |replicas| {
        let mut spec = job_spec(vec![group("w", replicas, 1)]);
        spec.labels = labels();
        spec.affinities = vec![Affinity {
            anti: true,
            preferred: false,
            level: Level::Node,
            target: Target::Jobs { group: None, labels: labels() },
        }];
        spec
    };
    let nodes: Vec<Arc<Node>> =
        state.nodes().filter(|node| !node.gpus.is_empty()).cloned().collect();
    let (taken, free) = nodes.split_at(2_000);
    for (at, node) in taken.iter().enumerate() {
        let plan = Plan { placements: vec![one(0, node, 0)] };
        apply(state, submission(&format!("alone-{at}"), alone(1), Some(plan)));
    }
    let placements = (0u32..).zip(free).take(10_000).map(|(rank, node)| one(rank, node, 0));
    let plan = Plan { placements: placements.collect() };
    ("10,000 replicas beside 2,000 jobs that want to be alone".to_owned(), alone(10_000), plan)
}

/// Ten thousand small jobs, and two of one replica that must know where they all stand: one wants to be
/// in their region, the other is one that all of them want to be apart from.
fn neighbours(state: &mut State) -> [Case; 2] {
    const JOBS: usize = 10_000;
    let labels = |name: &str| [("app".into(), name.into())].into_iter().collect();
    let affinity = |name: &str, anti, level| {
        let target = Target::Jobs { group: None, labels: labels(name) };
        vec![Affinity { anti, preferred: false, level, target }]
    };
    let nodes: Vec<Arc<Node>> =
        state.nodes().filter(|node| !node.gpus.is_empty()).cloned().collect();
    let (taken, free) = nodes.split_at(JOBS);
    for (at, node) in taken.iter().enumerate() {
        let mut spec = job_spec(vec![group("w", 1, 1)]);
        spec.labels = labels("neighbour");
        spec.affinities = affinity("lonely", true, Level::Node);
        let plan = Plan { placements: vec![one(0, node, 0)] };
        apply(state, submission(&format!("neighbour-{at}"), spec, Some(plan)));
    }
    let mut near = job_spec(vec![group("w", 1, 1)]);
    near.affinities = affinity("neighbour", false, Level::Region);
    let mut apart = job_spec(vec![group("w", 1, 1)]);
    apart.labels = labels("lonely");
    let plan = || Plan { placements: vec![one(0, &free[0], 0)] };
    [
        ("1 replica near 10,000 jobs".to_owned(), near, plan()),
        ("1 replica apart from 10,000 jobs".to_owned(), apart, plan()),
    ]
}

/// As many replicas as a job may have, each next to nothing, on one node.
fn swarm(state: &State) -> Case {
    let mut spec = job_spec(vec![group("w", 100_000, 0)]);
    let shape = &mut spec.groups[0].shape;
    (shape.cpu, shape.memory) = (CpuMilli(1), MemoryMib(1));
    let home = state.nodes().find(|node| node.gpus.len() == 8).expect("most have eight");
    let on_home = |rank| Placement { gpus: GpuSet::EMPTY, ..one(rank, home, 0) };
    let plan = Plan { placements: (0..100_000).map(on_home).collect() };
    ("100,000 replicas on one node".to_owned(), spec, plan)
}

/// How long it takes to end a job.
fn ended(criterion: &mut Criterion, state: &mut State, (called, spec, plan): Case) {
    let mut number = 0;
    let cell = RefCell::new(state);
    let mut bench = criterion.benchmark_group("end");
    bench.sample_size(10);
    bench.bench_function(&called, |bencher| {
        bencher.iter_batched(
            || {
                number += 1;
                let job = format!("ended-{number}");
                let submit = submission(&job, spec.clone(), Some(plan.clone()));
                let applied = apply(&mut cell.borrow_mut(), submit);
                let Ok(Outcome::Submitted { job, .. }) = applied.result else {
                    panic!("{:?}", applied.result)
                };
                Command::Cancel { job, reason: Reason::default() }
            },
            |command| black_box(apply(&mut cell.borrow_mut(), command)),
            BatchSize::PerIteration,
        );
    });
    bench.finish();
}

fn plain(state: &State) -> Case {
    let nodes = state.nodes().filter(|node| node.gpus.len() == 8);
    let placements = (0u32..)
        .zip(nodes)
        .take(1_250)
        .map(|(rank, node)| Placement { gpus: GpuSet::first(8), ..one(rank, node, 0) });
    let plan = Plan { placements: placements.collect() };
    ("1,250 x 8 without rules".to_owned(), job_spec(vec![group("w", 1_250, 8)]), plan)
}

fn apply(state: &mut State, command: Command) -> Applied {
    let entry = Entry { at: TimeMs(1_000), by: Actor::System, command };
    let applied = state.apply(state.index() + 1, &entry);
    assert!(applied.result.is_ok(), "{:?}", applied.result);
    applied
}

fn measured(criterion: &mut Criterion, state: &mut State, cases: Vec<Case>) {
    let mut bench = criterion.benchmark_group("apply");
    bench.sample_size(10);
    let cell = RefCell::new(state);
    for (called, spec, plan) in cases {
        let mut number = 0;
        let last: Cell<Option<JobId>> = Cell::new(None);
        let cancel = |job: Option<JobId>| {
            if let Some(job) = job {
                let reason = Reason::default();
                apply(&mut cell.borrow_mut(), Command::Cancel { job, reason });
            }
        };
        bench.bench_function(&called, |bencher| {
            bencher.iter_batched(
                || {
                    cancel(last.take());
                    number += 1;
                    // Each entry comes out of the log with a spec of its own.
                    submission(&format!("{called}-{number}"), spec.clone(), Some(plan.clone()))
                },
                |command| {
                    let applied = apply(&mut cell.borrow_mut(), command);
                    if let Ok(Outcome::Submitted { job, .. }) = applied.result {
                        last.set(Some(job));
                    }
                    black_box(applied)
                },
                BatchSize::PerIteration,
            );
        });
        cancel(last.take());
    }
    bench.finish();
}

fn applied(criterion: &mut Criterion) {
    let mut state = Fleet::new(NODES, 300, 7).state();
    let mut cases = vec![plain(&state)];
    cases.extend(hostile(&state));
    cases.push(crowd(&state));
    cases.push(swarm(&state));
    measured(criterion, &mut state, cases);
    for case in [swarm(&state), crowd(&state)] {
        ended(criterion, &mut state, case);
    }
    let case = jealous(&mut state);
    measured(criterion, &mut state, vec![case]);
    assert!(state.tenant(&tenant(TENANT)).is_some_and(|tenant| tenant.live_jobs == 2_000));
    let mut state = Fleet::new(NODES, 300, 7).state();
    let cases = neighbours(&mut state);
    measured(criterion, &mut state, cases.into());
}

criterion_group!(benches, applied);
criterion_main!(benches);
