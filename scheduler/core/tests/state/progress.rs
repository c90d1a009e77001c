//! What agents report, and what becomes of jobs by it.

use scheduler_core::command::{Actor, Command, Commit, Observed, Outcome, Plan, Rejection};
use scheduler_core::fixture::entry::{
    TENANT, World, group, job_spec, placement, plan, submit, tenant,
};
use scheduler_core::id::{AssignmentId, JobId, NodeId, Rank};
use scheduler_core::job::{JobPhase, ReasonCode, ReplicaPhase};
use scheduler_core::node::Eligibility;
use scheduler_core::state::FAILURES_MAX;

fn phase(world: &World, job: JobId) -> JobPhase {
    world.state.job(job).expect("there").phase
}

fn reported(changed: u32, stale: u32) -> Outcome {
    Outcome::Reported { changed, stale }
}

#[test]
fn a_job_is_ready_when_all_its_members_are() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_placed("a", &[(0, 0xff), (1, 0xff)]);
    assert_eq!(phase(&world, job), JobPhase::Placed);
    world.report(job, 0, Observed::Starting);
    assert_eq!(phase(&world, job), JobPhase::Starting);
    world.report(job, 1, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Starting);
    world.report(job, 0, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    assert_eq!(world.state.job(job).and_then(|job| job.ready_at), Some(world.at));
    // Backwards or again is stale.
    assert_eq!(world.report(job, 0, Observed::Starting), reported(0, 1));
    assert_eq!(world.report(job, 0, Observed::Ready), reported(0, 1));
    let counts = world.state.counts(job).expect("there");
    assert_eq!((counts.total.ready, counts.total.live(), counts.groups.len()), (2, 2, 1));
}

#[test]
fn only_the_holder_of_the_assignment_is_heard() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_placed("a", &[(0, 0xff)]);
    let good = world.report_of(job, 0, Observed::Ready);
    let mut elsewhere = good;
    elsewhere.node = NodeId(1);
    let mut older = good;
    older.assignment = AssignmentId(good.assignment.0 - 1);
    let (mut no_job, mut no_rank) = (good, good);
    no_job.job = JobId(99);
    no_rank.rank = Rank(99);
    let outcome = world.done(Command::Report(vec![elsewhere, older, no_job, no_rank, good]));
    assert_eq!(outcome, reported(1, 4));
    let by_tenant = world.apply(Actor::Tenant(tenant(TENANT)), Command::Report(vec![good]));
    assert!(matches!(by_tenant, Err(Rejection::Forbidden { .. })));
}

#[test]
fn a_job_whose_replicas_all_succeed_is_finished() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_placed("a", &[(0, 0xff), (1, 0xff)]);
    world.report_all(job, Observed::Ready);
    world.report(job, 0, Observed::Succeeded);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    assert_eq!(world.state.usage(NodeId(0)).map(|usage| usage.live), Some(0));
    world.report(job, 1, Observed::Succeeded);
    let over = world.state.job(job).expect("remembered");
    assert_eq!((over.phase, over.reason.code), (JobPhase::Ended, ReasonCode::Finished));
    assert_eq!(over.ended_at, Some(world.at));
    assert_eq!(world.state.tenant(&tenant(TENANT)).map(|t| t.live_jobs), Some(0));
    let phases: Vec<_> = world.state.replicas(job).map(|(_, r)| r.phase).collect();
    assert_eq!(phases, [ReplicaPhase::Succeeded; 2]);
}

#[test]
fn a_failed_member_is_replaced_and_the_job_is_ready_again() {
    let mut world = World::with_nodes(3, 8);
    let job = world.submit_placed("a", &[(0, 0xff), (1, 0xff)]);
    world.report_all(job, Observed::Ready);
    let ready_at = world.state.job(job).and_then(|job| job.ready_at);
    world.report(job, 1, Observed::Failed { exit_code: 9 });
    assert_eq!(phase(&world, job), JobPhase::Repairing);
    let failed = world.state.replica(job, Rank(1)).expect("there");
    assert_eq!((failed.phase, failed.failures), (ReplicaPhase::Failed, 1));
    assert!(failed.allocation.is_some(), "kept to be looked at");
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [job]);
    let repair = Plan { placements: vec![placement(1, 2, 0xff)] };
    world.done(Command::Commit(Commit { job, plan: repair }));
    assert_eq!(phase(&world, job), JobPhase::Repairing);
    world.report(job, 1, Observed::Starting);
    assert_eq!(phase(&world, job), JobPhase::Repairing);
    world.report(job, 1, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    assert_eq!(world.state.job(job).and_then(|job| job.ready_at), ready_at);
    assert_eq!(world.state.replica(job, Rank(1)).map(|r| r.failures), Some(1));
}

#[test]
fn a_replica_that_keeps_failing_fails_its_job() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_placed("a", &[(0, 0xff), (1, 0xff)]);
    for round in 1..=FAILURES_MAX {
        assert!(!phase(&world, job).is_over());
        world.report(job, 0, Observed::Failed { exit_code: 3 });
        if round < FAILURES_MAX {
            let again = plan(&[(0, 0xff)]);
            world.done(Command::Commit(Commit { job, plan: again }));
        }
    }
    let over = world.state.job(job).expect("remembered");
    assert_eq!((over.phase, over.reason.code), (JobPhase::Failed, ReasonCode::ReplicaFailed));
    assert_eq!(
        &*over.reason.message,
        "rank 0 failed 5 times, the last time with exit code 3 on node-0"
    );
    let phases: Vec<_> = world.state.replicas(job).map(|(_, r)| r.phase).collect();
    assert_eq!(phases, [ReplicaPhase::Failed, ReplicaPhase::Released]);
    assert_eq!(world.state.usage(NodeId(1)).map(|usage| usage.live), Some(0));
    // Later entries of the same batch find the job over.
    let late = world.report_of(job, 1, Observed::Ready);
    assert_eq!(world.done(Command::Report(vec![late])), reported(0, 1));
}

#[test]
fn lost_nodes_are_not_held_against_a_replica() {
    let mut world = World::with_nodes(1, 8);
    let job = world.submit_placed("a", &[(0, 0xff)]);
    let set = |eligibility| Command::SetEligibility { node: NodeId(0), eligibility };
    for _ in 0..=FAILURES_MAX {
        world.done(set(Eligibility::Draining));
        world.done(set(Eligibility::Eligible));
        world.done(Command::Commit(Commit { job, plan: plan(&[(0, 0xff)]) }));
    }
    assert_eq!(world.state.replica(job, Rank(0)).map(|r| r.failures), Some(0));
    world.report(job, 0, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Ready);
}

#[test]
fn a_job_above_its_minimum_stays_ready_while_it_is_repaired() {
    let mut world = World::with_nodes(3, 8);
    let mut spec = job_spec(vec![group("w", 3, 8)]);
    spec.groups[0].replicas_min = 2;
    let job = world.submit(submit("a", spec, Some(plan(&[(0, 0xff), (1, 0xff)]))));
    world.report_all(job, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [job]);
    let grow = Plan { placements: vec![placement(2, 2, 0xff)] };
    world.done(Command::Commit(Commit { job, plan: grow }));
    assert_eq!(phase(&world, job), JobPhase::Ready);
    world.report(job, 2, Observed::Failed { exit_code: 1 });
    assert_eq!(phase(&world, job), JobPhase::Ready);
    world.report(job, 1, Observed::Failed { exit_code: 1 });
    assert_eq!(phase(&world, job), JobPhase::Repairing);
}

#[test]
fn a_job_is_ready_with_its_minimum_however_slow_its_spares_are() {
    let mut world = World::with_nodes(4, 8);
    let mut spec = job_spec(vec![group("w", 4, 8)]);
    spec.groups[0].replicas_min = 2;
    let places = plan(&[(0, 0xff), (1, 0xff), (2, 0xff), (3, 0xff)]);
    let job = world.submit(submit("a", spec, Some(places)));
    world.report(job, 0, Observed::Starting);
    world.report(job, 1, Observed::Failed { exit_code: 1 });
    world.report(job, 2, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Repairing, "one of the two it needs");
    world.report(job, 3, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    assert_eq!(world.state.job(job).and_then(|job| job.ready_at), Some(world.at));
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [job], "the failed one is replaced");
}

#[test]
fn ten_thousand_members_in_pages() {
    let mut world = World::with_nodes(160, 64);
    let places: Vec<(u32, u64)> = (0..10_000).map(|rank| (rank / 64, 1 << (rank % 64))).collect();
    let job = world.submit_placed("big", &places);
    assert_eq!(world.state.counts(job).map(|counts| counts.total.assigned), Some(10_000));
    world.report_all(job, Observed::Ready);
    assert_eq!(phase(&world, job), JobPhase::Ready);
    world.done(Command::RemoveNode { node: NodeId(7), force: true });
    assert_eq!(world.state.counts(job).map(|counts| counts.total.failed), Some(64));
    world.done(Command::Cancel { job, reason: Default::default() });
    let counts = world.state.counts(job).expect("remembered").total;
    assert_eq!((counts.released, counts.failed, counts.live()), (9_936, 64, 0));
    assert!(world.state.nodes().all(|n| world.state.usage(n.id).is_some_and(|u| u.live == 0)));
}
