//! Jobs ending by request and by the clock, and being forgotten.

use scheduler_core::command::{Actor, Command, Kind, Observed, Outcome, Rejection};
use scheduler_core::duty::{audit, expiry};
use scheduler_core::fixture::entry::{TENANT, World, group, job_spec, plan, submit, tenant};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{JobPhase, Reason, ReasonCode, ReplicaPhase};
use scheduler_core::state::RETENTION;
use scheduler_core::unit::{DurationMs, TimeMs};

fn cancel(job: JobId) -> Command {
    let reason = Reason { code: ReasonCode::Cancelled, message: "by its owner".into() };
    Command::Cancel { job, reason }
}

#[test]
fn cancelling_before_the_beginning_and_twice() {
    let mut world = World::with_nodes(1, 8);
    let missing = Rejection::NotFound { what: Kind::Job, id: "job-1".into() };
    assert_eq!(world.refused(cancel(JobId(1))), missing);
    let job = world.submit_placed("a", &[(0, 0xff)]);
    let stranger = world.apply(Actor::Tenant(tenant("beta")), cancel(job));
    assert_eq!(stranger, Err(missing));
    let owner = world.apply(Actor::Tenant(tenant(TENANT)), cancel(job));
    assert_eq!(owner, Ok(Outcome::Done { changed: true }));
    assert_eq!(world.done(cancel(job)), Outcome::Done { changed: false });
    let over = world.state.job(job).expect("remembered");
    assert_eq!((over.phase, over.reason.code), (JobPhase::Ended, ReasonCode::Cancelled));
    let released = world.state.replica(job, Rank(0)).expect("remembered");
    assert_eq!(released.phase, ReplicaPhase::Released);
    assert_eq!(released.allocation.map(|held| held.node), Some(NodeId(0)));
    assert_eq!(world.state.usage(NodeId(0)).map(|usage| usage.live), Some(0));
}

#[test]
fn a_duration_runs_from_ready_on() {
    let mut world = World::with_nodes(1, 8);
    let mut spec = job_spec(vec![group("w", 1, 8)]);
    spec.duration = Some(DurationMs(60_000));
    let job = world.submit(submit("a", spec, Some(plan(&[(0, 0xff)]))));
    let late = TimeMs(world.at.0 + 1_000_000);
    assert_eq!(world.state.due(late, 9), (vec![], vec![]), "not before it is ready");
    world.report_all(job, Observed::Ready);
    let ready = world.at.0;
    assert_eq!(expiry::next(&world.state, TimeMs(ready + 59_999)), None);
    let due = expiry::next(&world.state, TimeMs(ready + 60_000)).expect("due");
    // Too early by the entry's own clock: skipped.
    assert_eq!(world.done(due.clone()), Outcome::Done { changed: false });
    world.at = TimeMs(ready + 60_000);
    assert_eq!(world.done(due), Outcome::Done { changed: true });
    assert_eq!(world.state.job(job).map(|job| job.phase), Some(JobPhase::Expired));
    assert_eq!(world.state.usage(NodeId(0)).map(|usage| usage.live), Some(0));
}

#[test]
fn an_ended_job_is_remembered_for_a_while_and_its_request_with_it() {
    let mut world = World::with_nodes(1, 8);
    let (job, other) = (world.submit_placed("a", &[(0, 0xff)]), world.submit_waiting("b", 300, 1));
    world.done(cancel(job));
    world.done(cancel(other));
    let forget = Command::Expire { jobs: vec![], forget: vec![job, other] };
    assert_eq!(world.done(forget.clone()), Outcome::Done { changed: false });
    world.at = TimeMs(world.at.0 + RETENTION.0);
    assert_eq!(expiry::next(&world.state, world.at), Some(forget.clone()));
    assert_eq!(world.done(forget), Outcome::Done { changed: true });
    assert_eq!(world.state.jobs_len(), 0);
    assert_eq!(world.state.job_by_request(&tenant(TENANT), "a"), None);
    let again = world.submit_placed("a", &[(0, 0xff)]);
    assert_eq!(again, JobId(3));
}

#[test]
fn reasons_are_for_people_and_bounded() {
    let mut world = World::with_nodes(1, 8);
    let job = world.submit_waiting("a", 1, 8);
    let reason = |text: String| Reason { code: ReasonCode::Busy, message: text.into() };
    let set = |reason| Command::SetReason { job, reason };
    world.done(set(reason("8 of 8 GPUs busy".into())));
    assert_eq!(world.state.job(job).map(|job| job.reason.code), Some(ReasonCode::Busy));
    let again = world.done(set(reason("8 of 8 GPUs busy".into())));
    assert_eq!(again, Outcome::Done { changed: false });
    let refused = world.refused(set(reason("x".repeat(513))));
    assert_eq!(refused.to_string(), "reason.message is 513 bytes long; at most 512 are allowed");
    let refused = world.refused(set(reason("\u{1b}[2J".into())));
    assert!(refused.to_string().contains("control character"), "{refused}");
}

#[test]
fn time_never_runs_backwards() {
    let mut world = World::with_nodes(1, 8);
    let before = world.at;
    world.at = TimeMs(5);
    world.submit_waiting("a", 1, 8);
    assert_eq!(world.state.now(), before);
    let report = audit::audit(&world.state);
    assert_eq!((report.count, report.index), (0, world.state.index()));
    assert_eq!(report.hash, world.state.hash());
    assert_eq!(audit::audit_frozen(&world.state.freeze()), report);
}
