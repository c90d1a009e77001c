//! What becomes of jobs whose batch came back.

use super::super::answer::sheet;
use super::*;
use crate::call::SubmitCall;
use scheduler_core::command::Stale;
use scheduler_core::id::{Name, TenantId};
use scheduler_core::job::{JobKind, Program, Strategy};
use tokio::sync::oneshot;

fn ask() -> (Ask, oneshot::Receiver<Vec<Result<Accepted, CallError>>>) {
    let name = Name::parse("x").expect("a name");
    let spec = JobSpec {
        name: name.clone(),
        kind: JobKind::Plain,
        groups: Vec::new(),
        strategy: Strategy::Pack,
        topology_required: None,
        topology_preferred: None,
        rtt_max: None,
        duration: None,
        price_max: None,
        program: Program::default(),
        labels: scheduler_core::node::Labels::new(),
        rtt_scope: scheduler_core::job::RttScope::default(),
        rtt_objective: scheduler_core::job::RttObjective::default(),
        cost_max: None,
        affinities: Vec::new(),
    };
    let call = SubmitCall {
        tenant: TenantId(name),
        by: Actor::Operator,
        request_id: "r".into(),
        body_digest: 0,
        spec: Arc::new(spec),
        check: None,
    };
    let (slots, receive) = sheet(1);
    let slot = slots.into_iter().next().expect("one");
    (Ask { call, slot, stale: 0, pending: None, since: clock::instant() }, receive)
}

fn item(ask: Ask, planned: bool) -> Item {
    Item::Submit { ask, planned, growth: Some(3), decide_us: 7 }
}

fn stale() -> Rejection {
    Rejection::StalePlan { why: Stale::Malformed }
}

#[test]
fn a_stale_plan_is_made_anew_and_in_the_end_the_job_waits() {
    let (mut ask, mut receive) = ask();
    for round in 1..=STALE_MAX {
        let mut returned = Returned::default();
        returned.settle(item(ask, true), Some(Err(stale())), 1, 1);
        ask = returned.again.pop().expect("comes back");
        assert_eq!(ask.stale, round);
        assert_eq!(ask.pending.is_some(), round == STALE_MAX);
    }
    assert_eq!(ask.pending.as_ref().map(|reason| reason.code), Some(ReasonCode::Contention));
    assert!(receive.try_recv().is_err(), "not settled yet");
}

#[test]
fn a_plan_over_quota_waits_but_a_full_queue_is_refused() {
    let (first, _receive) = ask();
    let tenant = first.call.tenant.clone();
    let over = Rejection::QuotaExceeded { tenant, why: "9 of 8 GPUs".to_owned() };
    let mut returned = Returned::default();
    returned.settle(item(first, true), Some(Err(over.clone())), 1, 1);
    let first = returned.again.pop().expect("comes back");
    assert_eq!(first.pending.as_ref().map(|reason| reason.code), Some(ReasonCode::Quota));

    let (second, mut receive) = ask();
    returned.settle(item(second, false), Some(Err(over.clone())), 1, 1);
    assert!(returned.again.is_empty());
    assert_eq!(receive.try_recv().expect("settled"), [Err(CallError::Rejected(over))]);
}

#[test]
fn accepted_jobs_are_answered_and_pending_ones_remembered() {
    let mut returned = Returned::default();
    let mut answer = |placed, known| {
        let (ask, mut receive) = ask();
        let outcome = Outcome::Submitted { job: JobId(5), known, placed };
        returned.settle(item(ask, placed), Some(Ok(outcome)), 9, 11);
        receive.try_recv().expect("settled").pop().expect("one").expect("accepted")
    };
    let placed = answer(true, false);
    assert_eq!((placed.index, placed.decide_us, placed.commit_us), (9, 7, 11));
    let known = answer(false, true);
    assert_eq!((known.decide_us, known.commit_us), (0, 0));
    let pending = answer(false, false);
    assert!(!pending.placed);
    assert_eq!(returned.waiting, [(JobId(5), Some(3))]);
}

#[test]
fn a_batch_that_got_lost_settles_everybody() {
    let (ask, mut receive) = ask();
    let error = CallError::Unknown { why: "lost".to_owned() };
    let mut returned = Returned::default();
    returned.fail(item(ask, true), &error);
    returned.fail(Item::Commit(JobId(2)), &error);
    assert_eq!(receive.try_recv().expect("settled"), [Err(error)]);
    assert_eq!(returned.commits, [(JobId(2), false)]);
}

#[test]
fn a_gang_and_a_large_program_fill_a_batch() {
    let mut batch = Batch::new(1);
    let (small, _r) = ask();
    batch.submit(small, None, Reason::default(), None, 0);
    assert!(!batch.is_full());
    let placement = scheduler_core::command::Placement {
        rank: scheduler_core::id::Rank(0),
        node: NodeId(1),
        node_epoch: scheduler_core::id::Epoch(1),
        gpus: scheduler_core::unit::GpuSet::single(0),
        share_milli: 0,
    };
    batch.commit(JobId(1), Plan { placements: vec![placement; BATCH_PLACEMENTS_MAX] });
    assert!(batch.is_full());
    let mut batch = Batch::new(2);
    for _ in 0..10 {
        let (mut large, _r) = ask();
        let mut spec = (*large.call.spec).clone();
        spec.program.argv = vec!["x".repeat(64 * 1024); 2];
        large.call.spec = Arc::new(spec);
        batch.submit(large, None, Reason::default(), None, 0);
    }
    assert!(batch.is_full());
}
