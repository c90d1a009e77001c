//! Plans that must not become true, whatever the planner was thinking; each leaves no trace.

use scheduler_core::command::{
    Actor, Command, Commit, NodeTransition, Placement, Plan, Rejection, SiteRtt, Stale,
};
use scheduler_core::fixture::entry::{
    World, group, job_spec, models, name, node_spec, placement, plan, submit, tenant, vram,
};
use scheduler_core::id::{Epoch, JobId, NodeId, Rank};
use scheduler_core::job::{
    Condition, GpuAsk, JobPhase, JobSpec, Level, Selector, Strategy, Toleration,
};
use scheduler_core::node::{Eligibility, NodeStatus, Taint, TaintEffect};
use scheduler_core::unit::{CpuMilli, GpuSet, PriceMicroUsd, RttUs, VramMib};

fn spec(replicas: u32, gpus: u8) -> JobSpec {
    job_spec(vec![group("w", replicas, gpus)])
}

fn stale(world: &mut World, spec: &JobSpec, placements: Vec<Placement>) -> Stale {
    let asked = submit("stale", spec.clone(), Some(Plan { placements }));
    match world.refused(Command::Submit(asked)) {
        Rejection::StalePlan { why } => why,
        other => panic!("{other}"),
    }
}

/// Two nodes of eight GPUs, the first half taken.
fn busy() -> World {
    let mut world = World::with_nodes(2, 8);
    world.submit_placed("before", &[(0, 0x0f)]);
    world
}

#[test]
fn taken_missing_and_doubled_gpus() {
    let mut world = busy();
    let taken = Stale::GpuTaken { node: NodeId(0) };
    assert_eq!(stale(&mut world, &spec(1, 4), vec![placement(0, 0, 0x1e)]), taken);
    assert_eq!(stale(&mut world, &spec(1, 1), vec![placement(0, 0, 1 << 8)]), taken);
    let doubled = vec![placement(0, 0, 0x30), placement(1, 0, 0x60)];
    assert_eq!(stale(&mut world, &spec(2, 2), doubled), taken);
    let misfit = Stale::DoesNotFit { node: NodeId(0), rank: Rank(0) };
    assert_eq!(stale(&mut world, &spec(1, 2), vec![placement(0, 0, 0x70)]), misfit);
    assert_eq!(stale(&mut world, &spec(1, 2), vec![placement(0, 0, 0)]), misfit);
    assert_eq!(stale(&mut world, &spec(1, 0), vec![placement(0, 0, 0x10)]), misfit);
}

#[test]
fn shares_never_add_up_to_more_than_a_gpu() {
    let mut world = World::with_nodes(1, 2);
    let mut shared = spec(1, 1);
    shared.groups[0].shape.gpus = GpuAsk::Share(400);
    let on = |gpus, share_milli| vec![Placement { share_milli, ..placement(0, 0, gpus) }];
    let ask =
        |request: &str, placements| submit(request, shared.clone(), Some(Plan { placements }));
    world.submit(ask("a", on(1, 400)));
    world.submit(ask("b", on(1, 400)));
    let taken = Stale::GpuTaken { node: NodeId(0) };
    let misfit = Stale::DoesNotFit { node: NodeId(0), rank: Rank(0) };
    assert_eq!(stale(&mut world, &shared, on(1, 400)), taken);
    assert_eq!(stale(&mut world, &shared, on(2, 399)), misfit);
    assert_eq!(stale(&mut world, &shared, on(2, 1_001)), taken);
    assert_eq!(stale(&mut world, &shared, on(2, u16::MAX)), taken);
    assert_eq!(stale(&mut world, &shared, on(3, 400)), taken);
    assert_eq!(stale(&mut world, &shared, on(2, 0)), misfit);
    // A shared GPU is no whole one, and a whole one cannot be shared.
    assert_eq!(stale(&mut world, &spec(1, 1), vec![placement(0, 0, 1)]), taken);
    world.submit_placed("whole", &[(0, 2)]);
    assert_eq!(stale(&mut world, &shared, on(2, 400)), taken);
    let usage = world.state.usage(NodeId(0)).expect("there");
    assert_eq!((usage.gpus_busy, usage.share_milli(0), usage.share_milli(1)), (GpuSet(3), 800, 0));
}

#[test]
fn gone_changed_and_closed_nodes() {
    let mut world = World::with_nodes(4, 8);
    let gone = Stale::NodeGone { node: NodeId(9) };
    assert_eq!(stale(&mut world, &spec(1, 8), vec![placement(0, 9, 0xff)]), gone);
    world.rejoin(0);
    let older = Stale::NodeEpoch { node: NodeId(0) };
    assert_eq!(stale(&mut world, &spec(1, 8), vec![placement(0, 0, 0xff)]), older);
    let ahead = Placement { node_epoch: Epoch(3), ..placement(0, 0, 0xff) };
    assert_eq!(stale(&mut world, &spec(1, 8), vec![ahead]), older);
    // One of several placements on a node with another epoch.
    let mixed =
        vec![Placement { node_epoch: Epoch(2), ..placement(0, 0, 0x0f) }, placement(1, 0, 0xf0)];
    assert_eq!(stale(&mut world, &spec(2, 4), mixed), older);
    let closed = |eligibility| Command::SetEligibility { node: NodeId(1), eligibility };
    for eligibility in [Eligibility::Cordoned, Eligibility::Draining] {
        world.done(closed(eligibility));
        let why = stale(&mut world, &spec(1, 8), vec![placement(0, 1, 0xff)]);
        assert_eq!(why, Stale::NodeUnschedulable { node: NodeId(1) });
    }
    let down = NodeTransition { node: NodeId(2), epoch: Epoch(1), status: NodeStatus::Down };
    world.done(Command::NodeStatuses(vec![down]));
    let why = stale(&mut world, &spec(1, 8), vec![placement(0, 2, 0xff)]);
    assert_eq!(why, Stale::NodeUnschedulable { node: NodeId(2) });
}

#[test]
fn cpu_memory_and_disk_are_counted_over_the_plan() {
    let mut world = World::with_nodes(1, 8);
    let full = Stale::NodeFull { node: NodeId(0) };
    let mut hungry = spec(2, 1);
    hungry.groups[0].shape.cpu = CpuMilli(64_001);
    assert_eq!(stale(&mut world, &hungry, vec![placement(0, 0, 1), placement(1, 0, 2)]), full);
    hungry.groups[0].shape.cpu = CpuMilli(64_000);
    world.submit(submit("fits", hungry, Some(plan(&[(0, 1), (0, 2)]))));
    assert_eq!(stale(&mut world, &spec(1, 0), vec![placement(0, 0, 0)]), full);
}

#[test]
fn gangs_come_whole_or_not_at_all() {
    let mut world = World::with_nodes(2, 8);
    let whole = spec(3, 4);
    let half = vec![placement(0, 0, 0x0f), placement(1, 0, 0xf0)];
    let below = Stale::BelowMinimum { group: 0, placed: 2, min: 3 };
    assert_eq!(stale(&mut world, &whole, half.clone()), below);
    assert_eq!(stale(&mut world, &whole, vec![]), Stale::Malformed);
    let mut turned = half.clone();
    turned.reverse();
    assert_eq!(stale(&mut world, &whole, turned), Stale::Malformed);
    let twice = vec![placement(0, 0, 0x0f), placement(0, 1, 0x0f)];
    assert_eq!(stale(&mut world, &whole, twice), Stale::Malformed);
    let beyond = vec![placement(0, 0, 0x0f), placement(3, 1, 0x0f)];
    assert_eq!(stale(&mut world, &whole, beyond), Stale::Malformed);
    let far = vec![placement(u32::MAX, 1, 0x0f)];
    assert_eq!(stale(&mut world, &whole, far), Stale::Malformed);
    // Each group counts on its own.
    let two = job_spec(vec![group("a", 1, 4), group("b", 1, 4)]);
    let why = stale(&mut world, &two, vec![placement(0, 0, 0x0f)]);
    assert_eq!(why, Stale::BelowMinimum { group: 1, placed: 0, min: 1 });
    // With a smaller minimum the same half is a whole.
    let mut elastic = whole;
    elastic.groups[0].replicas_min = 2;
    let job = world.submit(submit("ok", elastic, Some(Plan { placements: half })));
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [job]);
    let grow = Plan { placements: vec![placement(2, 1, 0x0f)] };
    world.done(Command::Commit(Commit { job, plan: grow }));
    assert_eq!(world.state.waiting().count(), 0);
}

#[test]
fn a_commit_binds_waiting_ranks_of_a_living_job() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_waiting("a", 1, 8);
    let commit = |job, node| Command::Commit(Commit { job, plan: plan(&[(node, 0xff)]) });
    let foreign = world.apply(Actor::Tenant(tenant("acme")), commit(job, 0));
    assert!(matches!(foreign, Err(Rejection::Forbidden { .. })));
    world.done(commit(job, 0));
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Placed));
    let twice = world.refused(commit(job, 1));
    assert_eq!(twice, Rejection::StalePlan { why: Stale::RankNotWaiting { rank: Rank(0) } });
    world.done(Command::Cancel { job, reason: Default::default() });
    let over = world.refused(commit(job, 1));
    assert_eq!(over.to_string(), "job-1 is over");
    let missing = world.refused(commit(JobId(5), 1));
    assert_eq!(missing.to_string(), "job job-5 does not exist");
}

#[test]
fn nodes_that_do_not_fit() {
    let mut world = World::with_nodes(1, 8);
    let mut other = node_spec("n1", 8);
    other.labels.insert("pool".into(), "blue".into());
    let effect = TaintEffect::NoSchedule;
    other.taints.push(Taint { key: "risky".into(), value: "".into(), effect });
    other.gpus[7].model = name("T4");
    other.gpus[7].vram = VramMib(16_384);
    world.join(other);
    let misfit = |node| Stale::DoesNotFit { node: NodeId(node), rank: Rank(0) };
    let on = |node, gpus| vec![placement(0, node, gpus)];
    assert_eq!(stale(&mut world, &spec(1, 2), on(1, 3)), misfit(1), "taint");
    let mut tolerant = spec(1, 2);
    tolerant.groups[0].tolerations =
        vec![Toleration { key: "risky".into(), value: None, effect: None }];
    assert_eq!(stale(&mut world, &tolerant, on(1, 0xc0)), misfit(1), "two models");
    let mut roomy = tolerant.clone();
    roomy.groups[0].shape.gpus = GpuAsk::Whole(1);
    roomy.groups[0].shape.alternatives = vram(20_000);
    assert_eq!(stale(&mut world, &roomy, on(1, 0x80)), misfit(1), "vRAM");
    roomy.groups[0].shape.alternatives = models(&["H100"]);
    assert_eq!(stale(&mut world, &roomy, on(1, 0x80)), misfit(1), "model");
    let mut choosy = tolerant.clone();
    let condition = Condition::In(vec!["blue".into()]);
    choosy.groups[0].selectors = vec![Selector { key: "pool".into(), condition }];
    assert_eq!(stale(&mut world, &choosy, on(0, 3)), misfit(0), "selector");
    let mut cheap = tolerant.clone();
    cheap.price_max = Some(PriceMicroUsd(1_999_999));
    assert_eq!(stale(&mut world, &cheap, on(0, 3)), misfit(0), "price");
    world.submit(submit("ok", choosy, Some(plan(&[(1, 3)]))));
}

#[test]
fn rules_about_the_members_together() {
    let mut world = World::with_nodes(2, 8);
    let mut far = node_spec("n2", 8);
    far.place.site = name("s2");
    world.join(far);
    let breaks = Stale::BreaksConstraint;
    let mut together = spec(2, 4);
    together.strategy = Strategy::StrictPack;
    let apart = vec![placement(0, 0, 0x0f), placement(1, 1, 0x0f)];
    assert_eq!(stale(&mut world, &together, apart.clone()), breaks);
    let mut spread = spec(2, 4);
    spread.strategy = Strategy::StrictSpread;
    let on_one = vec![placement(0, 0, 0x0f), placement(1, 0, 0xf0)];
    assert_eq!(stale(&mut world, &spread, on_one), breaks);
    let mut one_site = spec(2, 4);
    one_site.topology_required = Some(Level::Site);
    let wide = vec![placement(0, 0, 0x0f), placement(1, 2, 0x0f)];
    assert_eq!(stale(&mut world, &one_site, wide.clone()), breaks);
    let mut near = spec(2, 4);
    near.rtt_max = Some(RttUs(5_000));
    assert_eq!(stale(&mut world, &near, wide.clone()), breaks, "unknown is not near");
    let told = |us| SiteRtt::told(name("s1"), name("s2"), RttUs(us));
    world.done(Command::SetSiteRtts(vec![told(5_001)]));
    assert_eq!(stale(&mut world, &near, wide.clone()), breaks);
    world.done(Command::SetSiteRtts(vec![told(5_000)]));
    let job = world.submit(submit("near", near, Some(Plan { placements: wide })));
    // Repairs are held to the members that stay.
    world.done(Command::SetEligibility { node: NodeId(2), eligibility: Eligibility::Draining });
    let mut other = node_spec("n3", 8);
    other.place.site = name("s3");
    let (id, _) = world.join(other);
    let repair = Plan { placements: vec![placement(1, id.0, 0x0f)] };
    let refused = world.refused(Command::Commit(Commit { job, plan: repair }));
    assert_eq!(refused, Rejection::StalePlan { why: breaks });
    let repair = Plan { placements: vec![placement(1, 1, 0x0f)] };
    world.done(Command::Commit(Commit { job, plan: repair }));
    world.submit(submit(
        "spread",
        spread,
        Some(Plan { placements: vec![placement(0, 0, 0xf0), placement(1, 1, 0xf0)] }),
    ));
}

#[test]
fn a_gang_whose_sites_drifted_apart_is_still_repaired() {
    let mut world = World::new();
    for (host, site) in [("n0", "s1"), ("n1", "s2"), ("n2", "s3"), ("n3", "s3"), ("n4", "s1")] {
        let mut at = node_spec(host, 8);
        at.place.site = name(site);
        world.join(at);
    }
    let told = |a: &str, b: &str, us| SiteRtt::told(name(a), name(b), RttUs(us));
    let near = [told("s1", "s2", 4_000), told("s1", "s3", 4_000), told("s2", "s3", 4_000)];
    world.done(Command::SetSiteRtts(near.to_vec()));
    let mut wanted = spec(3, 8);
    wanted.rtt_max = Some(RttUs(5_000));
    let job = world.submit(submit("near", wanted, Some(plan(&[(0, 0xff), (1, 0xff), (2, 0xff)]))));
    world.done(Command::SetSiteRtts(vec![told("s1", "s2", 9_000)]));
    world.done(Command::SetEligibility { node: NodeId(2), eligibility: Eligibility::Draining });
    // The one who joins is held to the bound, the two who stay are not.
    let far = Plan { placements: vec![placement(2, 4, 0xff)] };
    let refused = world.refused(Command::Commit(Commit { job, plan: far }));
    assert_eq!(refused, Rejection::StalePlan { why: Stale::BreaksConstraint });
    let repair = Plan { placements: vec![placement(2, 3, 0xff)] };
    world.done(Command::Commit(Commit { job, plan: repair }));
}

#[test]
fn two_gangs_racing_for_the_last_gpus() {
    let mut world = World::with_nodes(2, 8);
    let both = plan(&[(0, 0xff), (1, 0xff)]);
    let first = submit("first", spec(2, 8), Some(both.clone()));
    let second = submit("second", spec(2, 8), Some(both));
    world.submit(first);
    let refused = world.refused(Command::Submit(second));
    assert_eq!(refused, Rejection::StalePlan { why: Stale::GpuTaken { node: NodeId(0) } });
}
