//! Jobs ending by request and by the clock, and being forgotten.

use scheduler_core::command::{Actor, Command, Commit, Kind, Observed, Outcome, Rejection, Stale};
use scheduler_core::duty::{audit, expiry};
use scheduler_core::fixture::entry::{TENANT, World, group, job_spec, plan, submit, tenant};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{JobPhase, JobSpec, Reason, ReasonCode, ReplicaPhase};
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

/// A job of one replica on the whole of the only node; times in ms after the world's.
fn timed(world: &World, begin: u64, deadline: u64, duration: u64, least: u64) -> JobSpec {
    let mut spec = job_spec(vec![group("w", 1, 8)]);
    let at = |ms: u64| (ms > 0).then_some(TimeMs(world.at.0 + ms));
    let long = |ms: u64| (ms > 0).then_some(DurationMs(ms));
    (spec.begin, spec.deadline) = (at(begin), at(deadline));
    (spec.duration, spec.duration_min) = (long(duration), long(least));
    spec
}

fn expire(world: &mut World) -> bool {
    let (jobs, forget) = world.state.due(world.at, 9);
    world.done(Command::Expire { jobs, forget }) == Outcome::Done { changed: true }
}

#[test]
fn a_job_is_not_started_before_it_may_begin_nor_too_late_for_its_deadline() {
    let mut world = World::with_nodes(1, 8);
    let whole = || plan(&[(0, 0xff)]);
    let spec = timed(&world, 5_000, 20_000, 10_000, 4_000);
    let (begin, start_by) = (spec.begin.expect("given"), TimeMs(world.at.0 + 16_000));
    let early = world.refused(Command::Submit(submit("a", spec.clone(), Some(whole()))));
    assert_eq!(early, Rejection::StalePlan { why: Stale::TooEarly { begin } });
    let job = world.submit(submit("a", spec, None));
    let commit = Command::Commit(Commit { job, plan: whole() });
    world.at = TimeMs(begin.0 - 2);
    let early = world.refused(commit.clone());
    assert_eq!(early, Rejection::StalePlan { why: Stale::TooEarly { begin } });
    world.at = start_by;
    let late = world.refused(commit.clone());
    assert_eq!(late, Rejection::StalePlan { why: Stale::TooLate { start_by } });
    assert!(expire(&mut world));
    let ended = world.state.job(job).expect("known");
    assert_eq!((ended.phase, ended.reason.code), (JobPhase::Failed, ReasonCode::Deadline));
    assert_eq!(&*ended.reason.message, "could not be started 4000 ms before its deadline");
    world.refused(commit);
}

#[test]
fn a_pending_job_is_given_up_no_sooner_than_it_must_be() {
    let mut world = World::with_nodes(1, 8);
    let spec = timed(&world, 0, 20_000, 10_000, 0);
    let start_by = TimeMs(world.at.0 + 10_000);
    let job = world.submit(submit("a", spec, None));
    world.at = TimeMs(start_by.0 - 1);
    assert!(world.state.due(start_by, 9).0.is_empty());
    let wrong = Command::Expire { jobs: vec![job], forget: Vec::new() };
    assert_eq!(world.done(wrong), Outcome::Done { changed: false });
    assert_eq!(world.at, start_by);
    world.at = TimeMs(start_by.0 - 1);
    world.done(Command::Commit(Commit { job, plan: plan(&[(0, 0xff)]) }));
    assert_eq!(world.state.job(job).expect("known").phase, JobPhase::Placed);
}

#[test]
fn a_job_that_runs_ends_by_its_deadline_or_its_duration_whichever_comes_first() {
    // Deadline, duration, ready after; when it is over, and why.
    for (deadline, duration, ready, over, code) in [
        (20_000, 10_000, 1_000, 11_000, ReasonCode::DurationOver),
        (20_000, 10_000, 15_000, 20_000, ReasonCode::Deadline),
        (20_000, 0, 15_000, 20_000, ReasonCode::Deadline),
        (20_000, 0, 0, 20_000, ReasonCode::Deadline),
    ] {
        let mut world = World::with_nodes(1, 8);
        let spec = timed(&world, 0, deadline, duration, 0);
        let start = world.at.0;
        let job = world.submit(submit("a", spec, Some(plan(&[(0, 0xff)]))));
        if ready > 0 {
            world.at = TimeMs(start + ready - 1);
            world.report_all(job, Observed::Ready);
        }
        world.at = TimeMs(start + over - 3);
        assert!(
            !expire(&mut world) && !expire_at(&mut world, job),
            "{deadline} {duration} {ready}"
        );
        assert!(expire_at(&mut world, job));
        let ended = world.state.job(job).expect("known");
        assert_eq!((ended.phase, ended.reason.code), (JobPhase::Expired, code));
        assert_eq!(ended.ended_at, Some(TimeMs(start + over)));
    }
}

fn expire_at(world: &mut World, job: JobId) -> bool {
    let asked = Command::Expire { jobs: vec![job], forget: Vec::new() };
    world.done(asked) == Outcome::Done { changed: true }
}
