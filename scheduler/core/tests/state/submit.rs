//! Jobs coming in: once, within quota, and known again when repeated.

use scheduler_core::command::{Actor, Command, Kind, Outcome, PutTenant, Quota, Rejection};
use scheduler_core::event::Event;
use scheduler_core::fixture::entry::{
    MODEL, TENANT, World, group, job_spec, models, plan, quota, submit, supplier, tenant,
};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{GpuAsk, JobPhase, Priority, ReplicaPhase};
use scheduler_core::unit::{GpuSet, TimeMs};

#[test]
fn one_entry_submits_and_places() {
    let mut world = World::with_nodes(2, 8);
    let job = world.submit_placed("a", &[(0, 0x0f), (1, 0xf0)]);
    let found = world.state.job(job).expect("there");
    assert_eq!((found.id, found.phase), (JobId(1), JobPhase::Placed));
    assert_eq!(found.placed_at, Some(world.at));
    assert_eq!(found.modified_index, world.state.index());
    let held: Vec<_> =
        world.state.replicas(job).filter_map(|(_, replica)| replica.allocation).collect();
    assert_eq!(
        held.iter().map(|h| (h.node.0, h.gpus.0)).collect::<Vec<_>>(),
        [(0, 0x0f), (1, 0xf0)]
    );
    assert_ne!(held[0].assignment, held[1].assignment);
    let usage = world.state.usage(NodeId(1)).expect("there");
    assert_eq!((usage.gpus_busy, usage.live, usage.used.cpu.0), (GpuSet(0xf0), 1, 1_000));
    let holder = world.state.tenant(&tenant(TENANT)).expect("there");
    assert_eq!((holder.gpu_milli_used, holder.pending_jobs, holder.live_jobs), (8_000, 0, 1));
    assert_eq!(world.state.waiting().count(), 0);
}

#[test]
fn without_a_plan_it_waits_and_reserves_nothing() {
    let mut world = World::with_nodes(1, 8);
    let (first, second) = (world.submit_waiting("a", 300, 8), world.submit_waiting("b", 1, 8));
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [first, second]);
    assert_eq!(world.state.counts(first).map(|counts| counts.total.waiting), Some(300));
    assert_eq!(world.state.usage(NodeId(0)).map(|usage| usage.live), Some(0));
    assert_eq!(world.state.tenant(&tenant(TENANT)).map(|t| t.pending_jobs), Some(2));
    let jobs: Vec<JobId> = world.state.jobs_after(Some(first)).map(|job| job.id).collect();
    assert_eq!(jobs, [second]);
}

#[test]
fn a_repeat_finds_its_job_and_another_body_is_refused() {
    let mut world = World::with_nodes(1, 8);
    let spec = job_spec(vec![group("w", 1, 8)]);
    let asked = submit("r", spec, Some(plan(&[(0, 0xff)])));
    let job = world.submit(asked.clone());
    // The plan of the repeat would be stale by now; it does not matter.
    let again = world.done(Command::Submit(asked.clone()));
    assert_eq!(again, Outcome::Submitted { job, known: true, placed: true });
    let mut other = asked.clone();
    other.body_digest = 2;
    let refused = world.refused(Command::Submit(other));
    assert_eq!(refused, Rejection::RequestIdReused { request_id: "r".into(), job });
    // Another tenant's request ids are its own.
    let none = quota(u64::MAX, 9);
    world.done(Command::PutTenant(PutTenant { tenant: tenant("beta"), quota: none }));
    let mut theirs = asked;
    theirs.tenant = tenant("beta");
    theirs.plan = None;
    assert_ne!(world.submit(theirs), job);
    assert_eq!(world.state.job_by_request(&tenant(TENANT), "r"), Some(job));
    assert_eq!(world.state.job_by_request(&tenant(TENANT), "x"), None);
}

#[test]
fn tenants_submit_for_themselves() {
    let mut world = World::with_nodes(1, 8);
    let asked = Command::Submit(submit("r", job_spec(vec![group("w", 1, 8)]), None));
    let beta = world.apply(Actor::Tenant(tenant("beta")), asked.clone());
    assert!(matches!(beta, Err(Rejection::Forbidden { .. })), "{beta:?}");
    let metal = world.apply(Actor::Supplier(supplier("metal")), asked.clone());
    assert!(matches!(metal, Err(Rejection::Forbidden { .. })), "{metal:?}");
    assert!(world.apply(Actor::Tenant(tenant(TENANT)), asked).is_ok());
    let mut nobody = submit("r", job_spec(vec![group("w", 1, 8)]), None);
    nobody.tenant = tenant("nobody");
    let refused = world.refused(Command::Submit(nobody));
    assert_eq!(refused, Rejection::NotFound { what: Kind::Tenant, id: "nobody".into() });
}

#[test]
fn an_unknown_model_is_named_with_those_that_are_known() {
    let mut world = World::with_nodes(1, 8);
    let mut spec = job_spec(vec![group("w", 1, 8)]);
    spec.groups[0].shape.alternatives = models(&[MODEL, "H9000"]);
    let refused = world.refused(Command::Submit(submit("r", spec, None)));
    assert_eq!(
        refused.to_string(),
        "spec.groups[0].shape.gpu_models[1] H9000 is not a GPU model of this fleet; known: H100"
    );
}

#[test]
fn quotas_hold_to_the_last_thousandth() {
    let mut world = World::with_nodes(2, 8);
    world.done(Command::PutTenant(PutTenant { tenant: tenant(TENANT), quota: quota(12_000, 1) }));
    world.submit_placed("a", &[(0, 0xff)]);
    let spec = |gpus| job_spec(vec![group("w", 1, gpus)]);
    let five = submit("b", spec(5), Some(plan(&[(1, 0x1f)])));
    let refused = world.refused(Command::Submit(five));
    assert!(
        refused.to_string().contains("5 GPUs on top of the 8 in use would exceed 12"),
        "{refused}"
    );
    let job = world.submit(submit("b", spec(4), Some(plan(&[(1, 0x0f)]))));
    let share = |request: &str| {
        let mut spec = spec(1);
        spec.groups[0].shape.gpus = GpuAsk::Share(1);
        let mut places = plan(&[(1, 0x80)]);
        places.placements[0].share_milli = 1;
        submit(request, spec, Some(places))
    };
    let refused = world.refused(Command::Submit(share("c")));
    assert!(matches!(refused, Rejection::QuotaExceeded { .. }), "{refused}");
    world.submit_waiting("d", 1, 8);
    let second = submit("e", spec(1), None);
    let refused = world.refused(Command::Submit(second));
    assert!(refused.to_string().contains("1 jobs wait already"), "{refused}");
    let never = submit("f", spec(13), None);
    let refused = world.refused(Command::Submit(never));
    assert!(refused.to_string().contains("at least 13 GPUs are needed, 12 allowed"), "{refused}");
    let cancel = Command::Cancel { job, reason: Default::default() };
    world.done(cancel);
    world.submit(share("c"));
}

#[test]
fn two_hundred_callers_for_the_last_eight_gpus() {
    let mut world = World::with_nodes(1, 8);
    let mut placed = 0;
    for caller in 0..200u32 {
        let asked = submit(
            &format!("r{caller}"),
            job_spec(vec![group("w", 1, 1)]),
            Some(plan(&[(0, 1 << (caller % 8))])),
        );
        placed += u32::from(world.system(Command::Submit(asked)).is_ok());
    }
    assert_eq!(placed, 8);
}

#[test]
fn events_name_what_to_look_at() {
    let mut world = World::with_nodes(1, 8);
    let asked = submit("r", job_spec(vec![group("w", 2, 4)]), Some(plan(&[(0, 0xf0), (0, 0x0f)])));
    let entry = scheduler_core::command::Entry {
        at: TimeMs(2_000_000),
        by: Actor::System,
        command: Command::Submit(asked),
    };
    let applied = world.state.apply(world.state.index() + 1, &entry);
    let wanted = [Event::NodeWorkChanged(NodeId(0)), Event::JobChanged(JobId(1))];
    assert_eq!(applied.events, wanted);
    assert_eq!(world.state.now(), TimeMs(2_000_000));
    let phase = world.state.replica(JobId(1), Rank(1)).map(|replica| replica.phase);
    assert_eq!(phase, Some(ReplicaPhase::Assigned));
}

#[test]
fn tenants_come_and_go() {
    let mut world = World::with_nodes(1, 8);
    let put = |quota| Command::PutTenant(PutTenant { tenant: tenant("beta"), quota });
    assert_eq!(world.done(put(quota(1, 1))), Outcome::Done { changed: true });
    assert_eq!(world.done(put(quota(1, 1))), Outcome::Done { changed: false });
    let by_beta = world.apply(Actor::Tenant(tenant("beta")), put(quota(9, 9)));
    assert!(matches!(by_beta, Err(Rejection::Forbidden { .. })));
    world.submit_waiting("a", 1, 8);
    let refused = world.refused(Command::RemoveTenant { tenant: tenant(TENANT) });
    assert!(refused.to_string().contains("has 1 jobs that are not over"), "{refused}");
    world.done(Command::RemoveTenant { tenant: tenant("beta") });
    let refused = world.refused(Command::RemoveTenant { tenant: tenant("beta") });
    assert_eq!(refused, Rejection::NotFound { what: Kind::Tenant, id: "beta".into() });
    assert_eq!(world.state.tenants().count(), 1);
}

#[test]
fn a_tenant_goes_before_others_only_as_far_as_it_may() {
    let mut world = World::with_nodes(1, 8);
    let put = |priority_max| {
        let quota = Quota { priority_max: Priority(priority_max), ..Quota::default() };
        Command::PutTenant(PutTenant { tenant: tenant(TENANT), quota })
    };
    let asked = |id: &str, priority| {
        let mut spec = job_spec(vec![group("w", 1, 8)]);
        spec.priority = Priority(priority);
        submit(id, spec, None)
    };
    world.done(put(0));
    for refused in [1, 1_000] {
        let refusal = world.refused(Command::Submit(asked("a", refused))).to_string();
        let wanted = format!("spec.priority is {refused}; tenant acme may give its jobs 0 at most");
        assert_eq!(refusal, wanted);
    }
    let low = world.submit(asked("low", -1_000));
    world.done(put(7));
    let high = world.submit(asked("high", 7));
    world.refused(Command::Submit(asked("b", 8)));
    // What is there stays, and a repeat is answered, when the tenant may less.
    world.done(put(-3));
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [low, high]);
    let again = world.done(Command::Submit(asked("high", 7)));
    assert_eq!(again, Outcome::Submitted { job: high, known: true, placed: false });
    world.refused(Command::Submit(asked("c", 0)));
    for wild in [-1_001, 1_001] {
        let refusal = world.refused(put(wild)).to_string();
        assert_eq!(refusal, format!("tenant.priority_max is {wild}; -1000 to 1000 are allowed"));
    }
}
