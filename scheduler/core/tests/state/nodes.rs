//! Nodes joining, coming back, being drained, lost and removed.

use scheduler_core::command::{
    Actor, Command, Entry, Kind, NodeTransition, Observed, Outcome, RegisterNode, Rejection,
    SiteRtt,
};
use scheduler_core::fixture::entry::{
    SUPPLIER, World, key_digest, name, node_spec, register, supplier, tenant,
};
use scheduler_core::id::{Epoch, NodeId, Rank};
use scheduler_core::job::{JobPhase, ReplicaPhase};
use scheduler_core::node::{Eligibility, NodeSpec, NodeStatus};
use scheduler_core::state::{MODELS_BROUGHT_MAX, NODES_OF_SUPPLIER_MAX, SITES_BROUGHT_MAX, State};
use scheduler_core::unit::{CpuMilli, GpuSet, RttUs};

fn registration(host: &str, gpus: usize) -> RegisterNode {
    let spec = node_spec(host, gpus);
    RegisterNode { supplier: supplier(SUPPLIER), key_digest: key_digest(host), spec }
}

#[test]
fn a_node_that_comes_back_keeps_its_id_and_its_work() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_placed("a", &[(0, 0xff)]);
    let (id, epoch) = world.join(node_spec("n0", 8));
    assert_eq!((id, epoch), (NodeId(0), Epoch(2)));
    assert_eq!(world.state.nodes_len(), 2);
    assert_eq!(world.state.node_work(id).collect::<Vec<_>>(), [(job, Rank(0))]);
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Placed));
    assert_eq!(world.state.node_by_name(&supplier(SUPPLIER), &name("n1")), Some(NodeId(1)));
}

#[test]
fn nobody_takes_over_a_name_without_the_key() {
    let mut world = World::with_nodes(1, 8);
    let mut thief = registration("n0", 8);
    thief.key_digest = key_digest("other");
    let refused = world.refused(Command::RegisterNode(thief));
    assert!(matches!(refused, Rejection::Forbidden { .. }), "{refused}");
    // The same name of another supplier is another node.
    let mut other = registration("n0", 8);
    other.supplier = supplier("ore");
    world.done(Command::RegisterNode(other));
    assert_eq!(world.state.nodes_len(), 2);
}

#[test]
fn suppliers_touch_their_own_nodes_only() {
    let mut world = World::with_nodes(1, 8);
    let ore = || Actor::Supplier(supplier("ore"));
    let own = || Actor::Supplier(supplier(SUPPLIER));
    let cordon = Command::SetEligibility { node: NodeId(0), eligibility: Eligibility::Cordoned };
    let missing = Rejection::NotFound { what: Kind::Node, id: "node-0".into() };
    assert_eq!(world.apply(ore(), cordon.clone()), Err(missing.clone()));
    let remove = Command::RemoveNode { node: NodeId(0), force: true };
    assert_eq!(world.apply(ore(), remove.clone()), Err(missing));
    let tenants = world.apply(Actor::Tenant(tenant("acme")), remove.clone());
    assert!(matches!(tenants, Err(Rejection::Forbidden { .. })));
    let foreign = world.apply(ore(), register(node_spec("n9", 8)));
    assert!(matches!(foreign, Err(Rejection::Forbidden { .. })));
    assert_eq!(world.apply(own(), cordon.clone()), Ok(Outcome::Done { changed: true }));
    assert_eq!(world.apply(own(), cordon), Ok(Outcome::Done { changed: false }));
    assert_eq!(world.apply(own(), remove), Ok(Outcome::Done { changed: true }));
    assert_eq!(world.state.nodes_len(), 0);
}

/// One supplier cannot use up the names of sites and GPU models for all others.
#[test]
fn a_supplier_may_register_so_many_nodes() {
    let mut world = World::new();
    let by = |name: &str| Actor::Supplier(supplier(name));
    let asked = |of: &str, host: &str| {
        let mut asked = registration(host, 1);
        asked.supplier = supplier(of);
        Command::RegisterNode(asked)
    };
    world.apply(by("metal"), asked("metal", "first")).expect("joins");
    // As if it had all but one: so many registrations would take seconds.
    world.state.tamper_nodes_of(supplier("metal"), NODES_OF_SUPPLIER_MAX - 1);
    let mut join = |by: Actor, command: Command| {
        let (entry, before) = (Entry { at: world.at, by, command }, world.state.hash());
        let result = world.state.apply(world.state.index() + 1, &entry).result;
        assert!(result.is_ok() || world.state.hash() == before, "{entry:?}");
        result
    };
    join(by("metal"), asked("metal", "last")).expect("joins");
    let more = asked("metal", "more");
    let limit = NODES_OF_SUPPLIER_MAX as u64;
    let wanted = Rejection::LimitReached { what: "nodes of one supplier".into(), limit };
    assert_eq!(join(by("metal"), more.clone()), Err(wanted));
    // Those that are there may come back, others may join, and operators register for anybody.
    join(by("metal"), asked("metal", "first")).expect("comes back");
    join(by("ore"), asked("ore", "other")).expect("joins");
    join(Actor::Operator, asked("metal", "told")).expect("joins");
    join(by("metal"), more.clone()).expect_err("is full");
    // With the operator's it has one more than it may.
    for node in [NodeId(0), NodeId(1)] {
        join(by("metal"), Command::RemoveNode { node, force: true }).expect("goes");
    }
    join(by("metal"), more).expect("has room again");
}

#[test]
fn what_a_supplier_may_bring_is_bounded() {
    let mut world = World::new();
    let by = |name: &str| Actor::Supplier(supplier(name));
    let asked = |of: &str, host: String, site: String, model: String| {
        let mut asked = registration(&host, 8);
        asked.supplier = supplier(of);
        asked.spec.place.site = name(&site);
        asked.spec.gpus[7].model = name(&model);
        Command::RegisterNode(asked)
    };
    let refused = |world: &mut World, command: &Command, field: &str| {
        let before = world.state.hash();
        match world.apply(by("metal"), command.clone()) {
            Err(Rejection::Invalid { field: found, problem }) => {
                assert_eq!(found, field, "{problem}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(world.state.hash(), before);
    };
    // Thousands of entries: all is counted at the end.
    let join = |world: &mut World, command: Command| {
        let entry = Entry { at: world.at, by: by("metal"), command };
        world.state.apply(world.state.index() + 1, &entry).result.expect("joins");
    };
    let count = |world: &World| {
        let brought = world.state.brought(&supplier("metal")).expect("some");
        (brought.sites.len(), brought.models.len())
    };
    // The model of the other GPUs is one of them.
    for number in 1..MODELS_BROUGHT_MAX {
        let (host, model) = (format!("m{number}"), format!("model-{number}"));
        join(&mut world, asked("metal", host, "one".into(), model));
    }
    assert_eq!(count(&world), (1, MODELS_BROUGHT_MAX));
    let more = asked("metal", "more".into(), "one".into(), "another".into());
    refused(&mut world, &more, "spec.gpus[7].model");
    // Nodes that go leave their names behind.
    world.apply(by("metal"), Command::RemoveNode { node: NodeId(0), force: true }).expect("goes");
    refused(&mut world, &more, "spec.gpus[7].model");
    for number in 1..SITES_BROUGHT_MAX {
        let (host, site) = (format!("s{number}"), format!("site-{number}"));
        join(&mut world, asked("metal", host, site, "model-1".into()));
    }
    assert_eq!(count(&world), (SITES_BROUGHT_MAX, MODELS_BROUGHT_MAX));
    let far = asked("metal", "far".into(), "far".into(), "model-1".into());
    refused(&mut world, &far, "spec.place.site");
    // Others may; what they bring is everybody's, and what an operator declares is nobody's.
    let ores = asked("ore", "o".into(), "far".into(), "another".into());
    world.apply(by("ore"), ores).expect("joins");
    world.apply(by("metal"), far).expect("is known now");
    world.apply(by("metal"), more).expect("is known now");
    let declared = asked("metal", "told".into(), "told".into(), "told".into());
    world.apply(Actor::Operator, declared).expect("joins");
    assert_eq!(count(&world), (SITES_BROUGHT_MAX, MODELS_BROUGHT_MAX));
    assert_eq!(world.state.check(), []);
    let again = State::from_rows(world.state.freeze().rows()).expect("the same");
    assert_eq!((again.hash(), again.check()), (world.state.hash(), vec![]));
}

#[test]
fn an_id_is_never_given_twice() {
    let mut world = World::with_nodes(2, 8);
    world.done(Command::RemoveNode { node: NodeId(1), force: false });
    let (id, epoch) = world.join(node_spec("n1", 8));
    assert_eq!((id, epoch), (NodeId(2), Epoch(1)));
    assert_eq!(world.state.node_id_end(), 3);
    assert!(world.state.node(NodeId(1)).is_none());
}

#[test]
fn shrunk_hardware_loses_what_it_can_no_longer_hold() {
    let mut world = World::with_nodes(1, 8);
    let low = world.submit_placed("low", &[(0, 0x0f)]);
    let high = world.submit_placed("high", &[(0, 0xf0)]);
    world.join(node_spec("n0", 4));
    let phase = |world: &World, job| world.state.replica(job, Rank(0)).map(|r| r.phase);
    assert_eq!(phase(&world, low), Some(ReplicaPhase::Assigned));
    assert_eq!(phase(&world, high), Some(ReplicaPhase::Failed));
    assert_eq!(world.state.replica(high, Rank(0)).map(|r| r.failures), Some(0));
    assert_eq!(world.state.usage(NodeId(0)).map(|u| u.gpus_busy), Some(GpuSet(0x0f)));
    let mut weak = node_spec("n0", 4);
    weak.resources.cpu = CpuMilli(999);
    world.join(weak);
    assert_eq!(phase(&world, low), Some(ReplicaPhase::Failed));
    let mut other_model = node_spec("n0", 4);
    other_model.gpus[0].model = name("A100");
    world.join(other_model);
    assert_eq!(world.state.models().len(), 2);
}

#[test]
fn a_node_that_is_down_loses_its_replicas_once() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_placed("a", &[(0, 0xff), (1, 0xff)]);
    world.report_all(job, Observed::Ready);
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Ready));
    let down = |epoch| NodeTransition { node: NodeId(0), epoch, status: NodeStatus::Down };
    let old = world.done(Command::NodeStatuses(vec![down(Epoch(0))]));
    assert_eq!(old, Outcome::Done { changed: false });
    let unknown = NodeTransition { node: NodeId(77), ..down(Epoch(1)) };
    let both = world.done(Command::NodeStatuses(vec![unknown, down(Epoch(1))]));
    assert_eq!(both, Outcome::Done { changed: true });
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Repairing));
    let lost = world.state.replica(job, Rank(0)).expect("there");
    assert_eq!((lost.phase, lost.failures), (ReplicaPhase::Failed, 0));
    assert_eq!(lost.allocation.map(|held| held.node), Some(NodeId(0)));
    assert_eq!(world.state.usage(NodeId(0)).map(|usage| usage.live), Some(0));
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [job]);
    // Back in the same session, it holds nothing.
    let up = NodeTransition { status: NodeStatus::Up, ..down(Epoch(1)) };
    world.done(Command::NodeStatuses(vec![up]));
    assert_eq!(world.state.node_work(NodeId(0)).count(), 0);
}

#[test]
fn draining_frees_the_node_and_coming_back_does_not_undo_it() {
    let mut world = World::with_nodes(1, 8);
    let job = world.submit_placed("a", &[(0, 0xff)]);
    let drain = Command::SetEligibility { node: NodeId(0), eligibility: Eligibility::Draining };
    world.done(drain);
    assert_eq!(world.state.usage(NodeId(0)).map(|usage| usage.live), Some(0));
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Repairing));
    world.rejoin(0);
    let node = world.state.node(NodeId(0)).expect("there");
    assert_eq!(node.eligibility, Eligibility::Draining);
    assert!(!node.is_schedulable());
}

#[test]
fn a_busy_node_is_removed_by_force_only() {
    let mut world = World::with_nodes(1, 8);
    let job = world.submit_placed("a", &[(0, 0xff)]);
    let refused = world.refused(Command::RemoveNode { node: NodeId(0), force: false });
    assert!(refused.to_string().contains("still runs 1 replicas"), "{refused}");
    world.done(Command::RemoveNode { node: NodeId(0), force: true });
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Repairing));
}

#[test]
fn a_site_lies_in_one_zone_and_knows_its_distances() {
    let mut world = World::with_nodes(1, 8);
    let mut moved = node_spec("n1", 8);
    moved.place.zone = name("z2");
    let refused = world.refused(register(moved.clone()));
    assert!(matches!(&refused, Rejection::Invalid { field, .. } if field == "spec.place.site"));
    moved.place.site = name("s2");
    world.join(moved);
    let rtt = |b: &str, us| SiteRtt::told(name("s1"), name(b), RttUs(us));
    let refused = world.refused(Command::SetSiteRtts(vec![rtt("s2", 5_000), rtt("s3", 1)]));
    assert!(refused.to_string().starts_with("rtts[1].site_b is s3, a site of which"), "{refused}");
    let refused = world.refused(Command::SetSiteRtts(vec![rtt("s2", 0)]));
    assert!(refused.to_string().starts_with("rtts[0].rtt_us is 0"), "{refused}");
    let (known, other) = (|w: &World, n: &str| w.state.sites().find(&name(n)).expect("site"), "s2");
    assert_eq!(world.state.sites().rtt(known(&world, "s1"), known(&world, other)), None);
    world.done(Command::SetSiteRtts(vec![rtt("s2", 5_000)]));
    let found = world.state.sites().rtt(known(&world, other), known(&world, "s1"));
    assert_eq!(found, Some(RttUs(5_000)));
    let again = world.done(Command::SetSiteRtts(vec![rtt("s2", 5_000)]));
    assert_eq!(again, Outcome::Done { changed: false });
}

#[test]
fn whatever_changes_of_a_machine_is_known_at_once() {
    let mut world = World::default();
    let node = |change: fn(&mut NodeSpec)| {
        let mut spec = node_spec("n0", 8);
        spec.labels.insert("tier".into(), "gold".into());
        change(&mut spec);
        spec
    };
    let changes: [fn(&mut NodeSpec); 8] = [
        |_| {},
        |spec| drop(spec.labels.insert("tier".into(), "iron".into())),
        |spec| spec.place.rack = name("k9"),
        |spec| spec.bandwidth_up.0 = 1,
        |spec| spec.address = "10.1.1.1".into(),
        |spec| spec.price.0 += 1,
        |spec| spec.gpus.truncate(4),
        |spec| spec.labels.clear(),
    ];
    let status = |epoch, status| {
        Command::NodeStatuses(vec![NodeTransition { node: NodeId(0), epoch, status }])
    };
    let mut epoch = Epoch(0);
    // Each change comes while the node is up, and while it is down; and so does its undoing.
    for down in [false, true] {
        for change in changes {
            for spec in [node(change), node(|_| {})] {
                if down {
                    world.done(status(epoch, NodeStatus::Down));
                    assert!(world.state.node(NodeId(0)).is_some_and(|node| !node.is_schedulable()));
                }
                epoch = world.join(spec.clone()).1;
                assert_eq!(world.state.check(), []);
                let node = world.state.node(NodeId(0)).expect("it joined");
                assert!(node.is_schedulable() && node.epoch == epoch);
                assert_eq!(*node.labels, spec.labels);
                assert!(node.is_declared_by(&spec, node.site, &node.gpus));
                assert_eq!(node.gpus.len(), spec.gpus.len());
            }
        }
    }
}
