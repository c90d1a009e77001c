//! What it costs a server that nodes come, go and change: 69,000 of them register, fall silent, come
//! back at once as after a change of leader, and are cordoned one by one; through the state and
//! through the planner's view.
//!
//! Times are of the processor alone, of each part by itself; memory is what the process has grown
//! by. **Invariant:** all commands are made before a clock runs, each with texts of its own, as they
//! come out of the log.

use criterion::{Criterion, criterion_group, criterion_main};
use scheduler_core::command::{Actor, Command, Entry, NodeTransition, RegisterNode};
use scheduler_core::duty::leases::TRANSITIONS_MAX;
use scheduler_core::event::Event;
use scheduler_core::fixture::entry::{SUPPLIER, key_digest, supplier};
use scheduler_core::fixture::fleet::{Fleet, occupy};
use scheduler_core::id::NodeId;
use scheduler_core::node::{Eligibility, NodeSpec, NodeStatus};
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;
use scheduler_core::view::View;
use std::fmt::Display;
use std::hint::black_box;

const NODES: usize = 69_000;
/// Nodes that the planner reads at a time, as the office does.
const SLICE: usize = 512;
/// Entries in a record of the log, where many ask at a time.
const RECORD: usize = 512;

fn reference() -> Fleet {
    Fleet::new(NODES, 300, 7)
}

/// Every node has a serial number, and a dozen labels as clouds give them.
fn unlike() -> Fleet {
    labelled(1, 12)
}

/// Every node has as many labels as it may, with values that no other has.
fn strange() -> Fleet {
    labelled(64, 0)
}

fn labelled(own: usize, common: usize) -> Fleet {
    let mut fleet = reference();
    for (number, node) in fleet.nodes.iter_mut().enumerate() {
        for key in 0..own {
            node.labels.insert(format!("own-{key}").into(), format!("s{key}-{number}").into());
        }
        for key in 0..common {
            node.labels.insert(format!("key-{key}").into(), format!("v{}", number % 7).into());
        }
    }
    fleet
}

/// Registrations, each decoded when it is asked for.
fn registrations(encoded: &[Vec<u8>]) -> impl Iterator<Item = Command> {
    encoded.iter().map(|spec| {
        let spec: NodeSpec = postcard::from_bytes(spec).expect("it was encoded here");
        let key_digest = key_digest(spec.name.as_str());
        Command::RegisterNode(RegisterNode { supplier: supplier(SUPPLIER), spec, key_digest })
    })
}

/// Nodes that the planner has to read again.
fn changed(events: Vec<Event>) -> Vec<NodeId> {
    let node = |event| match event {
        Event::NodeChanged(node) | Event::NodeWorkChanged(node) => Some(node),
        _ => None,
    };
    let mut nodes: Vec<NodeId> = events.into_iter().filter_map(node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Time that this process has spent on a core: others on the machine do not count.
fn busy_us() -> u64 {
    let told = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0) / 1_000
}

/// Memory that this process has, in KiB.
fn held_kib() -> u64 {
    let told = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    told.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4
}

/// A fleet's state and its planner's view, and what was told of them.
struct Scene<'a> {
    called: &'a str,
    state: State,
    view: View,
}

impl Scene<'_> {
    fn say(&self, what: &str, told: impl Display) {
        eprintln!("nodes/{}/{what}: {told}", self.called);
    }

    /// Applies the commands, so many in a record of the log, then has the view read what has
    /// changed, beside a copy that the explainer holds.
    fn step(&mut self, what: &str, record: usize, mut commands: impl Iterator<Item = Command>) {
        let (mut events, mut applied_us, mut longest) = (Vec::new(), 0, 0);
        loop {
            let entry = |command| Entry { at: TimeMs(1_000), by: Actor::System, command };
            let entries: Vec<Entry> = commands.by_ref().take(record).map(entry).collect();
            if entries.is_empty() {
                break;
            }
            let start = busy_us();
            for entry in &entries {
                let applied = self.state.apply(self.state.index() + 1, entry);
                assert!(applied.result.is_ok(), "{:?}", applied.result);
                events.extend(applied.events);
            }
            let took = busy_us() - start;
            applied_us += took;
            longest = longest.max(took);
        }
        let copy = self.view.clone();
        let nodes = changed(events);
        let start = busy_us();
        for slice in nodes.chunks(SLICE) {
            self.view.refresh(&self.state, slice);
        }
        let read_us = busy_us() - start;
        drop(black_box(copy));
        let per_node = |us: u64| us as f64 / NODES as f64;
        let (applied, read) = (per_node(applied_us), per_node(read_us));
        self.say(
            what,
            format!(
                "{applied:.2} us a node, the longest record {longest} us; the view {read:.2} us"
            ),
        );
    }

    /// Everybody comes again.
    fn join(&mut self, what: &str, fleet: &[Vec<u8>]) {
        self.step(what, RECORD, registrations(fleet));
    }

    fn set(&mut self, what: &str, eligibility: Eligibility) {
        let set = |node: NodeId| Command::SetEligibility { node, eligibility };
        let commands: Vec<Command> = self.state.nodes().map(|node| set(node.id)).collect();
        self.step(what, RECORD, commands.into_iter());
    }

    /// Everybody falls silent, as the leader writes it.
    fn lose(&mut self, what: &str) {
        let status = NodeStatus::Down;
        let lost = self.state.nodes();
        let lost = lost.map(|node| NodeTransition { node: node.id, epoch: node.epoch, status });
        let lost: Vec<NodeTransition> = lost.collect();
        let some = |some: &[NodeTransition]| Command::NodeStatuses(some.to_vec());
        self.step(what, 1, lost.chunks(TRANSITIONS_MAX).map(some));
    }
}

fn storm(called: &str, fleet: fn() -> Fleet, load_milli: u32) {
    if !std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).all(|arg| called == arg) {
        return;
    }
    let encode = |spec: &NodeSpec| postcard::to_allocvec(spec).expect("it is plain data");
    // Kept, or its memory would be used again and not be seen to grow.
    let made = fleet();
    let encoded: Vec<Vec<u8>> = made.nodes.iter().map(encode).collect();
    let before = held_kib();
    let state = State::new();
    let view = View::new(&state);
    let mut scene = Scene { called, state, view };
    let held = |scene: &Scene<'_>, when| {
        let mib = held_kib().saturating_sub(before) / 1_024;
        scene.say(&format!("memory {when}"), format!("{mib} MiB of the state and the view"));
    };
    scene.join("register", &encoded);
    held(&scene, "then");
    if load_milli > 0 {
        // The tenant, the RTTs and the jobs are the fixture's.
        scene.state = made.state();
        occupy(&mut scene.state, load_milli, 8);
        scene.view = View::new(&scene.state);
    }
    for round in ["", " again"] {
        scene.join(&format!("join while up{round}"), &encoded);
        scene.set(&format!("cordon{round}"), Eligibility::Cordoned);
        scene.set(&format!("allow{round}"), Eligibility::Eligible);
        scene.lose(&format!("fall silent{round}"));
        scene.join(&format!("join after that{round}"), &encoded);
    }
    held(&scene, "in the end");
    let start = busy_us();
    assert_eq!(scene.state.check(), []);
    scene.say("self-check", format!("{} ms", (busy_us() - start) / 1_000));
}

fn nodes(_: &mut Criterion) {
    storm("reference", reference, 0);
    storm("half-full", reference, 500);
    storm("unlike", unlike, 0);
    storm("strange", strange, 0);
}

criterion_group!(benches, nodes);
criterion_main!(benches);
