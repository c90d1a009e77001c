//! Groups that grow and shrink while their job lives.

use scheduler_core::command::{
    Actor, Command, Commit, Observed, Outcome, Plan, PutTenant, Rejection, Scale, Stale,
};
use scheduler_core::fixture::entry::{
    TENANT, World, group, job_spec, name, placement, plan, quota, submit, supplier, tenant,
};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{JobPhase, JobSpec, Reason, Replica, ReplicaPhase};
use scheduler_core::state::{Row, RowKey, SCALINGS_REMEMBERED, State};

/// Group a of 2 (1 to 4) with the ranks 0 to 3, group b of 1 (1 to 2) with the ranks 4 and 5; one
/// GPU each.
fn elastic() -> JobSpec {
    let mut spec = job_spec(vec![group("a", 2, 1), group("b", 1, 1)]);
    (spec.groups[0].replicas_min, spec.groups[0].replicas_max) = (1, 4);
    spec.groups[1].replicas_max = 2;
    spec
}

fn plan_of(placed: &[(u32, u32, u64)]) -> Plan {
    Plan {
        placements: placed.iter().map(|&(rank, node, gpu)| placement(rank, node, gpu)).collect(),
    }
}

/// The job of [`elastic`], all ready: rank 0 on node 0, 1 and 4 on node 1.
fn running() -> (World, JobId) {
    let mut world = World::with_nodes(3, 4);
    let placed = plan_of(&[(0, 0, 1), (1, 1, 1), (4, 1, 2)]);
    let job = world.submit(submit("r", elastic(), Some(placed)));
    world.report_all(job, Observed::Ready);
    (world, job)
}

fn scale(job: JobId, of: &str, replicas: u32, request: &str) -> Scale {
    Scale { job, group: name(of), replicas, expected: None, request_id: request.into() }
}

fn scaled(world: &mut World, job: JobId, of: &str, replicas: u32) -> u32 {
    let request = format!("s{}", world.at.0);
    match world.done(Command::Scale(scale(job, of, replicas, &request))) {
        Outcome::Scaled { before, known: false } => before,
        other => panic!("{other:?}"),
    }
}

fn ranks(state: &State, job: JobId) -> Vec<u32> {
    state.replicas(job).map(|(rank, _)| rank.0).collect()
}

fn at(world: &World, job: JobId, rank: u32) -> Replica {
    world.state.replica(job, Rank(rank)).expect("a rank of the job")
}

fn phase(world: &World, job: JobId) -> JobPhase {
    world.state.job(job).expect("remembered").phase
}

#[test]
fn a_group_grows_beside_what_runs() {
    let (mut world, job) = running();
    assert_eq!(ranks(&world.state, job), [0, 1, 4]);
    let before = [0, 1, 4].map(|rank| at(&world, job, rank));
    assert_eq!(scaled(&mut world, job, "a", 4), 2);
    assert_eq!(ranks(&world.state, job), [0, 1, 2, 3, 4]);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [job]);
    assert_eq!(world.state.job(job).expect("there").spec.replicas(), 5);
    // Half of them is enough: the gang has its minimum already.
    world.done(Command::Commit(Commit { job, plan: plan_of(&[(3, 2, 1)]) }));
    world.done(Command::Commit(Commit { job, plan: plan_of(&[(2, 0, 2)]) }));
    assert_eq!(world.state.waiting().count(), 0);
    assert_eq!([0, 1, 4].map(|rank| at(&world, job, rank)), before);
    assert_eq!(scaled(&mut world, job, "b", 2), 1);
    assert_eq!(ranks(&world.state, job), [0, 1, 2, 3, 4, 5]);
    let refused = world.refused(Command::Commit(Commit { job, plan: plan_of(&[(6, 2, 2)]) }));
    assert_eq!(refused, Rejection::StalePlan { why: Stale::Malformed });
}

#[test]
fn the_newest_go_and_give_back_what_they_held() {
    let (mut world, job) = running();
    scaled(&mut world, job, "a", 4);
    world.done(Command::Commit(Commit { job, plan: plan_of(&[(2, 0, 2), (3, 2, 1)]) }));
    world.report_all(job, Observed::Ready);
    let kept = [0, 4].map(|rank| at(&world, job, rank));
    assert_eq!(scaled(&mut world, job, "a", 1), 4);
    assert_eq!(ranks(&world.state, job), [0, 4]);
    assert_eq!([0, 4].map(|rank| at(&world, job, rank)), kept);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    let work = |node| world.state.node_work(NodeId(node)).map(|(_, rank)| rank.0).collect();
    let held: [Vec<u32>; 3] = [work(0), work(1), work(2)];
    assert_eq!(held, [vec![0], vec![4], vec![]]);
    assert_eq!(world.state.tenant(&tenant(TENANT)).map(|t| t.gpu_milli_used), Some(2_000));
    // What their agents still say of them is old.
    let late = at(&world, job, 3).allocation.expect("the last one stays to be seen");
    let observed = Observed::Failed { exit_code: 9 };
    let report = scheduler_core::command::ReplicaReport {
        job,
        rank: Rank(3),
        assignment: late.assignment,
        node: late.node,
        observed,
    };
    let outcome = world.done(Command::Report(vec![report]));
    assert_eq!(outcome, Outcome::Reported { changed: 0, stale: 1 });
    // They come back as new ones.
    scaled(&mut world, job, "a", 3);
    assert_eq!(ranks(&world.state, job), [0, 1, 2, 4]);
    assert_eq!(at(&world, job, 1).phase, ReplicaPhase::Waiting);
    assert_eq!(at(&world, job, 1).allocation, None);
}

#[test]
fn those_that_wait_go_first_and_the_head_never() {
    let (mut world, job) = running();
    scaled(&mut world, job, "a", 3);
    world.done(Command::Commit(Commit { job, plan: plan_of(&[(2, 2, 1)]) }));
    world.report(job, 1, Observed::Failed { exit_code: 1 });
    world.report(job, 0, Observed::Failed { exit_code: 1 });
    // Ranks 0 and 1 wait, 2 runs; 0 is the head.
    scaled(&mut world, job, "a", 2);
    assert_eq!(ranks(&world.state, job), [0, 2, 4]);
    scaled(&mut world, job, "a", 1);
    assert_eq!(ranks(&world.state, job), [0, 4]);
    assert_eq!(at(&world, job, 0).failures, 1);
    // The lowest ranks come first, and their past is forgotten.
    scaled(&mut world, job, "a", 2);
    assert_eq!((ranks(&world.state, job), at(&world, job, 1).failures), (vec![0, 1, 4], 0));
}

#[test]
fn what_succeeded_goes_last_and_counts_when_all_else_is_gone() {
    let (mut world, job) = running();
    scaled(&mut world, job, "a", 3);
    world.done(Command::Commit(Commit { job, plan: plan_of(&[(2, 2, 1)]) }));
    for rank in [1, 2, 4] {
        world.report(job, rank, Observed::Succeeded);
    }
    world.report(job, 0, Observed::Succeeded);
    assert_eq!(phase(&world, job), JobPhase::Ended);

    let (mut world, job) = running();
    scaled(&mut world, job, "a", 3);
    for rank in [0, 1, 4] {
        world.report(job, rank, Observed::Succeeded);
    }
    assert_ne!(phase(&world, job), JobPhase::Ended, "rank 2 waits");
    scaled(&mut world, job, "a", 2);
    assert_eq!(phase(&world, job), JobPhase::Ended);
}

#[test]
fn a_gang_that_waits_is_placed_whole_at_its_new_size() {
    let mut world = World::with_nodes(3, 4);
    let mut spec = job_spec(vec![group("w", 2, 4)]);
    spec.groups[0].replicas_max = 3;
    // A new job has no spare ranks to place.
    let all = plan(&[(0, 0xf), (1, 0xf), (2, 0xf)]);
    let early = world.refused(Command::Submit(submit("r", spec.clone(), Some(all.clone()))));
    assert_eq!(early, Rejection::StalePlan { why: Stale::RankNotWaiting { rank: Rank(2) } });
    let job = world.submit(submit("r", spec, None));
    scaled(&mut world, job, "w", 3);
    assert_eq!(phase(&world, job), JobPhase::Pending);
    let half = world.refused(Command::Commit(Commit { job, plan: plan(&[(0, 0xf)]) }));
    let below = Stale::BelowMinimum { group: 0, placed: 1, min: 2 };
    assert_eq!(half, Rejection::StalePlan { why: below });
    world.done(Command::Commit(Commit { job, plan: all }));
    assert_eq!(phase(&world, job), JobPhase::Placed);
}

#[test]
fn refusals_name_field_limit_and_value() {
    let (mut world, job) = running();
    let refused =
        |world: &mut World, asked: Scale| world.refused(Command::Scale(asked)).to_string();
    let bounds = |found: u32| {
        format!(
            "replicas is {found}; group a of job-1 may have 1 to 4 (replicas_min to replicas_max)"
        )
    };
    assert_eq!(refused(&mut world, scale(job, "a", 5, "s")), bounds(5));
    assert_eq!(refused(&mut world, scale(job, "a", 0, "s")), bounds(0));
    assert_eq!(
        refused(&mut world, scale(job, "c", 1, "s")),
        "group is c; job-1 has the groups a, b"
    );
    let guess = Scale { expected: Some(3), ..scale(job, "a", 4, "s") };
    assert_eq!(refused(&mut world, guess), "group a of job-1 has 2 replicas, not 3");
    assert!(refused(&mut world, scale(job, "a", 3, "")).starts_with("request_id is 0 bytes long"));
    assert_eq!(refused(&mut world, scale(JobId(9), "a", 3, "s")), "job job-9 does not exist");
    let beta = Actor::Tenant(tenant("beta"));
    let theirs = world.apply(beta, Command::Scale(scale(job, "a", 3, "s")));
    assert!(matches!(theirs, Err(Rejection::NotFound { .. })), "{theirs:?}");
    let metal = Actor::Supplier(supplier("metal"));
    let outside = world.apply(metal, Command::Scale(scale(job, "a", 3, "s")));
    assert!(matches!(outside, Err(Rejection::Forbidden { .. })), "{outside:?}");
    let own = Actor::Tenant(tenant(TENANT));
    assert!(world.apply(own, Command::Scale(scale(job, "a", 3, "s"))).is_ok());
    world.done(Command::Cancel { job, reason: Reason::default() });
    assert_eq!(refused(&mut world, scale(job, "a", 2, "late")), "job-1 is over");
}

#[test]
fn growth_beyond_the_quota_is_refused() {
    let (mut world, job) = running();
    world.done(Command::PutTenant(PutTenant { tenant: tenant(TENANT), quota: quota(4_000, 9) }));
    let refused = world.refused(Command::Scale(scale(job, "a", 4, "s")));
    assert_eq!(
        refused.to_string(),
        "quota of tenant acme: the job would ask for 5 GPUs, 4 allowed"
    );
    scaled(&mut world, job, "a", 3);
    // A quota that has become smaller keeps nobody from going down.
    world.done(Command::PutTenant(PutTenant { tenant: tenant(TENANT), quota: quota(1, 9) }));
    scaled(&mut world, job, "a", 2);
}

#[test]
fn a_request_is_followed_once() {
    let (mut world, job) = running();
    let first = scale(job, "a", 4, "first");
    world.done(Command::Scale(first.clone()));
    world.done(Command::Scale(scale(job, "a", 3, "second")));
    let again = world.done(Command::Scale(first.clone()));
    assert_eq!(again, Outcome::Scaled { before: 2, known: true });
    assert_eq!(world.state.job(job).expect("there").spec.groups[0].replicas, 3);
    let other = world.refused(Command::Scale(scale(job, "b", 2, "first")));
    assert!(matches!(other, Rejection::RequestIdReused { .. }), "{other}");

    // A restart forgets nothing.
    let rows: Vec<Row> = world.state.freeze().rows().collect();
    let mut restored = State::from_rows(rows.into_iter()).expect("restores");
    assert_eq!((restored.hash(), restored.check()), (world.state.hash(), vec![]));
    let by = Actor::System;
    let entry = scheduler_core::command::Entry { at: world.at, by, command: Command::Scale(first) };
    let known = restored.apply(restored.index() + 1, &entry).result;
    assert_eq!(known, Ok(Outcome::Scaled { before: 2, known: true }));

    for number in 0..SCALINGS_REMEMBERED {
        scaled(&mut world, job, "a", 1 + u32::try_from(number % 4).expect("small"));
    }
    assert_eq!(world.state.scalings(job).len(), SCALINGS_REMEMBERED);
    let forgotten = world.done(Command::Scale(scale(job, "a", 4, "first")));
    assert!(matches!(forgotten, Outcome::Scaled { known: false, .. }));
}

#[test]
fn the_rows_of_a_scaling_are_its_job_and_its_requests() {
    let (mut world, job) = running();
    world.state.take_dirty();
    scaled(&mut world, job, "a", 3);
    let wanted = [RowKey::Meta, RowKey::Jobs(0), RowKey::Scalings(job)];
    assert_eq!(world.state.take_dirty(), wanted);
    world.done(Command::Cancel { job, reason: Reason::default() });
    world.at.0 += scheduler_core::state::RETENTION.0;
    world.done(Command::Expire { jobs: vec![], forget: vec![job] });
    assert_eq!(world.state.row(&RowKey::Scalings(job)), None);
    assert_eq!(world.state.take_dirty(), wanted);
}

#[test]
fn room_to_grow_costs_no_replicas() {
    let mut world = World::with_nodes(1, 4);
    let mut spec = job_spec(vec![group("w", 1, 1)]);
    spec.groups[0].replicas_max = 100_000;
    let job = world.submit(submit("r", spec, Some(plan(&[(0, 1)]))));
    assert_eq!(world.state.counts(job).map(|counts| counts.total.all()), Some(1));
    scaled(&mut world, job, "w", 600);
    assert_eq!(world.state.replicas(job).count(), 600);
    scaled(&mut world, job, "w", 1);
    assert_eq!(ranks(&world.state, job), [0]);
}
