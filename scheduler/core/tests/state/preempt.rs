//! Who may take from whom, and what becomes of those who lose something.

use scheduler_core::command::{
    Actor, Command, Commit, Entry, Observed, Plan, Preempt, PutTenant, Rejection, Spared, Stale,
    Submit, Victim,
};
use scheduler_core::event::Event;
use scheduler_core::fixture::entry::{
    TENANT, World, group, job_spec, placement, plan, quota, submit, tenant,
};
use scheduler_core::id::{JobId, NodeId, Rank};
use scheduler_core::job::{
    Affinity, Disruption, JobKind, JobPhase, JobSpec, Level, Preemption, PreemptionPolicy,
    Priority, ReasonCode, ReplicaPhase, Target,
};
use scheduler_core::unit::{DurationMs, TimeMs};

/// A job of so many replicas with eight GPUs each that others may disrupt.
fn low(replicas: u32, min: u32, disruption: Disruption) -> JobSpec {
    let mut one = group("w", replicas, 8);
    one.replicas_min = min;
    let mut spec = job_spec(vec![one]);
    spec.priority = Priority(-10);
    spec.preemption.disruption = disruption;
    spec
}

/// One that takes what it may.
fn high(replicas: u32) -> JobSpec {
    let mut spec = job_spec(vec![group("w", replicas, 8)]);
    spec.priority = Priority(500);
    spec.preemption.policy = PreemptionPolicy::LowerPriority;
    spec
}

fn whole(jobs: &[JobId]) -> Vec<Victim> {
    jobs.iter().map(|&job| Victim { job, ranks: Vec::new() }).collect()
}

fn preempt(job: JobId, places: &[(u32, u64)], victims: Vec<Victim>) -> Command {
    Command::Preempt(Preempt { job, plan: plan(places), victims })
}

/// Two nodes, one job of two replicas ready on both, and a waiting one for one node.
fn taken(low: JobSpec, high: JobSpec) -> (World, JobId, JobId) {
    let mut world = World::with_nodes(2, 8);
    let places = [(0, 0xff), (1, 0xff)];
    let low = world.submit(submit("low", low, Some(plan(&places))));
    world.report_all(low, Observed::Ready);
    let high = world.submit(submit("high", high, None));
    (world, low, high)
}

fn phase(world: &World, job: JobId) -> JobPhase {
    world.state.job(job).expect("there").phase
}

fn phases(world: &World, job: JobId) -> Vec<ReplicaPhase> {
    world.state.replicas(job).map(|(_, replica)| replica.phase).collect()
}

fn why(rejection: Rejection) -> Spared {
    match rejection {
        Rejection::StalePlan { why: Stale::NoVictim { why, .. } } => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_whole_job_gives_way_and_begins_anew() {
    let mut spec = low(2, 2, Disruption::All);
    spec.duration = Some(DurationMs(1_000));
    let (mut world, low, high) = taken(spec, high(1));
    let ready_at = world.state.job(low).and_then(|job| job.ready_at).expect("was ready");
    assert_eq!(world.state.disruptible(Priority(500)).collect::<Vec<_>>(), [(Priority(-10), low)]);
    assert_eq!(world.state.disruptible(Priority(-10)).count(), 0, "not below its own");
    let late = world.report_of(low, 1, Observed::Failed { exit_code: 15 });
    world.done(preempt(high, &[(0, 0xff)], whole(&[low])));

    assert_eq!((phase(&world, high), phase(&world, low)), (JobPhase::Placed, JobPhase::Pending));
    assert_eq!(phases(&world, low), [ReplicaPhase::Waiting; 2]);
    let job = world.state.job(low).expect("there").clone();
    assert_eq!((job.placed_at, job.ready_at, job.preemptions), (None, None, 1));
    assert_eq!(job.reason.code, ReasonCode::Preempted);
    assert_eq!(&*job.reason.message, "preempted by a job of priority 500");
    let kept = world.state.replica(low, Rank(1)).and_then(|one| one.allocation).expect("kept");
    assert_eq!(kept.node, NodeId(1), "to be looked at");
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [low]);
    assert_eq!(world.state.disruptible(Priority(500)).count(), 0);
    assert_eq!(world.state.tenant(&tenant(TENANT)).map(|one| one.pending_jobs), Some(1));

    // What its agents still say of it is of no account, nor is the time at which it would be over.
    world.done(Command::Report(vec![late]));
    assert_eq!(phases(&world, low), [ReplicaPhase::Waiting; 2]);
    let later = TimeMs(ready_at.0 + 1_000);
    assert_eq!(world.state.due(later, 9).0, []);

    world.done(Command::Cancel { job: high, reason: Default::default() });
    let places = plan(&[(0, 0xff), (1, 0xff)]);
    world.done(Command::Commit(Commit { job: low, plan: places }));
    world.report_all(low, Observed::Ready);
    let job = world.state.job(low).expect("there");
    assert_eq!((job.phase, job.ready_at), (JobPhase::Ready, Some(world.at)));
    assert_eq!((job.reason.code, job.preemptions), (ReasonCode::None, 1));
}

#[test]
fn what_a_bag_of_tasks_has_done_stays_done_and_a_cluster_begins_anew() {
    for (kind, first) in
        [(JobKind::Plain, ReplicaPhase::Succeeded), (JobKind::Ray, ReplicaPhase::Waiting)]
    {
        // With so small a minimum that what is done would be enough of it.
        let (mut world, low, high) = taken(JobSpec { kind, ..low(2, 1, Disruption::All) }, high(1));
        world.report(low, 0, Observed::Succeeded);
        world.done(preempt(high, &[(1, 0xff)], whole(&[low])));
        assert_eq!(phase(&world, low), JobPhase::Pending);
        assert_eq!(phases(&world, low), [first, ReplicaPhase::Waiting]);
        let ranks = if kind == JobKind::Plain { 1..2 } else { 0..1 };
        let placements = ranks.map(|rank| placement(rank, 0, 0xff)).collect();
        world.done(Command::Commit(Commit { job: low, plan: Plan { placements } }));
        assert_ne!(phase(&world, low), JobPhase::Pending);
        world.report_all(low, Observed::Succeeded);
        assert_eq!(phase(&world, low).is_over(), kind == JobKind::Plain);
    }
}

#[test]
fn spare_replicas_are_taken_alone_and_the_job_stays_ready() {
    let (mut world, low, high) = taken(low(2, 1, Disruption::Single), high(1));
    let ready_at = world.state.job(low).and_then(|job| job.ready_at);
    let job = world.state.job(low).expect("there").clone();
    assert_eq!(world.state.spare_ranks(&job), [Rank(1)]);
    let of = |ranks: &[u32]| {
        vec![Victim { job: low, ranks: ranks.iter().map(|&rank| Rank(rank)).collect() }]
    };
    for ranks in [&[0][..], &[0, 1], &[1, 1], &[7], &[u32::MAX]] {
        let refused = world.refused(preempt(high, &[(1, 0xff)], of(ranks)));
        assert_eq!(why(refused), Spared::Needed, "{ranks:?}");
    }
    world.done(preempt(high, &[(1, 0xff)], of(&[1])));
    let job = world.state.job(low).expect("there").clone();
    assert_eq!((job.phase, job.ready_at, job.preemptions), (JobPhase::Ready, ready_at, 1));
    assert_eq!(&*job.reason.message, "1 spare replica(s) preempted by a job of priority 500");
    assert_eq!(phases(&world, low), [ReplicaPhase::Ready, ReplicaPhase::Waiting]);
    assert_eq!(world.state.waiting().collect::<Vec<_>>(), [low]);
    assert_eq!(world.state.spare_ranks(&job), []);
    world.done(Command::Cancel { job: high, reason: Default::default() });
    let back = Plan { placements: vec![placement(1, 1, 0xff)] };
    world.done(Command::Commit(Commit { job: low, plan: back }));
    assert_eq!(world.state.job(low).map(|job| job.reason.code), Some(ReasonCode::None));
}

/// Whether ranks of the job may be taken alone by one of a higher priority that fits on node 4.
fn spares(world: &mut World, low: JobId, ranks: &[u32]) -> bool {
    let high = world.submit(submit(&format!("high at {}", world.at.0), high(1), None));
    let ranks = ranks.iter().map(|&rank| Rank(rank)).collect();
    let asked = preempt(high, &[(4, 0xff)], vec![Victim { job: low, ranks }]);
    match world.system(asked) {
        Ok(_) => {
            world.done(Command::Cancel { job: high, reason: Default::default() });
            true
        }
        Err(refused) => {
            assert_eq!(why(refused), Spared::Needed);
            false
        }
    }
}

#[test]
fn a_replica_is_spared_once_and_only_while_its_job_is_as_far_without_it() {
    let placed = |replicas: u32, min: u32| {
        let mut world = World::with_nodes(5, 8);
        let places: Vec<(u32, u64)> = (0..replicas).map(|node| (node, 0xff)).collect();
        let spec = low(replicas, min, Disruption::Single);
        let low = world.submit(submit("low", spec, Some(plan(&places))));
        (world, low)
    };
    // Before it is ready, too, it keeps its minimum.
    let (mut world, low) = placed(2, 2);
    assert!(!spares(&mut world, low, &[1]));
    // Of three that are bound the two that are ready make it ready.
    let (mut world, low) = placed(3, 2);
    world.report(low, 0, Observed::Ready);
    world.report(low, 1, Observed::Ready);
    assert!(!spares(&mut world, low, &[1]));
    assert!(spares(&mut world, low, &[2]));
    let (mut world, low) = placed(4, 1);
    world.report_all(low, Observed::Ready);
    assert!(!spares(&mut world, low, &[2, 2]) && !spares(&mut world, low, &[3, 2]));
    assert!(spares(&mut world, low, &[2]));
    assert!(!spares(&mut world, low, &[2]) && !spares(&mut world, low, &[2, 3]), "it waits");
    assert!(spares(&mut world, low, &[3]));
}

#[test]
fn what_has_ended_before_gives_nothing_back() {
    let (mut world, low, high) = taken(low(2, 1, Disruption::All), high(1));
    world.report(low, 1, Observed::Succeeded);
    let other = world.submit(submit("other", job_spec(vec![group("w", 1, 8)]), None));
    world.done(Command::Commit(Commit { job: other, plan: plan(&[(1, 0xff)]) }));
    let refused = world.refused(preempt(high, &[(1, 0xff)], whole(&[low])));
    assert!(matches!(refused, Rejection::StalePlan { why: Stale::GpuTaken { .. } }), "{refused}");
    world.done(preempt(high, &[(0, 0xff)], whole(&[low])));
    assert_eq!(phase(&world, other), JobPhase::Placed);
}

#[test]
fn failures_of_one_who_goes_back_are_not_forgotten_and_who_watches_it_is_told() {
    let (mut world, low, high) = taken(low(2, 2, Disruption::All), high(1));
    world.report(low, 1, Observed::Failed { exit_code: 1 });
    let failed = world.state.replica(low, Rank(1)).expect("there");
    assert_eq!((phase(&world, low), failed.failures), (JobPhase::Repairing, 1));
    let command = preempt(high, &[(0, 0xff)], whole(&[low]));
    let entry = Entry { at: world.at, by: Actor::System, command };
    let index = world.state.index() + 1;
    let events = world.state.apply(index, &entry).events;
    assert!(events.contains(&Event::JobChanged(low)), "{events:?}");
    assert_eq!(world.state.job(low).map(|job| job.modified_index), Some(index));
    let back = world.state.replica(low, Rank(1)).expect("there");
    assert_eq!((back.phase, back.failures), (ReplicaPhase::Waiting, 1));
}

#[test]
fn one_that_lost_all_it_had_is_no_victim() {
    let (mut world, low, high) = taken(low(2, 2, Disruption::All), high(1));
    world.report_all(low, Observed::Failed { exit_code: 1 });
    assert_eq!(phase(&world, low), JobPhase::Repairing);
    let refused = world.refused(preempt(high, &[(0, 0xff)], whole(&[low])));
    assert_eq!(why(refused), Spared::HoldsNothing);
}

#[test]
fn those_who_are_ready_are_spared_for_longest() {
    let mut world = World::with_nodes(4, 8);
    let places = [(0, 0xff), (1, 0xff), (2, 0xff), (3, 0xff)];
    let low = world.submit(submit("low", low(4, 2, Disruption::Single), Some(plan(&places))));
    let spare = |world: &World| world.state.spare_ranks(world.state.job(low).expect("there"));
    assert_eq!(spare(&world), [Rank(2), Rank(3)]);
    world.report(low, 3, Observed::Ready);
    assert_eq!(spare(&world), [Rank(1), Rank(2)]);
    world.report(low, 2, Observed::Ready);
    assert_eq!(
        (phase(&world, low), spare(&world)),
        (JobPhase::Ready, vec![Rank(1)]),
        "not the head"
    );
    world.report(low, 0, Observed::Ready);
    world.report(low, 1, Observed::Ready);
    assert_eq!(spare(&world), [Rank(2), Rank(3)]);
    world.report(low, 1, Observed::Succeeded);
    assert_eq!(spare(&world), [Rank(2), Rank(3)], "what is done counts");
}

#[test]
fn a_new_job_takes_in_the_entry_that_accepts_it_or_is_not_accepted() {
    let (mut world, low, high) = taken(low(2, 2, Disruption::All), high(1));
    let place = Some(plan(&[(0, 0xff)]));
    let spec = self::high(1);
    let takes = |id: &str, spec: JobSpec, plan, jobs: &[JobId]| {
        Command::Submit(Submit { victims: whole(jobs), ..submit(id, spec, plan) })
    };
    for (victims, wanted) in [
        (vec![], "taken or does not exist"),
        (vec![high], "holds nothing"),
        (vec![low, low], "in rising order"),
    ] {
        let refused = world.refused(takes("new", spec.clone(), place.clone(), &victims));
        assert!(refused.to_string().contains(wanted), "{refused}");
    }
    let refused = world.refused(takes("new", spec.clone(), None, &[low]));
    assert!(matches!(refused, Rejection::StalePlan { why: Stale::Malformed }), "{refused}");
    let mild = JobSpec { preemption: Default::default(), ..spec.clone() };
    let refused = world.refused(takes("new", mild, place.clone(), &[low]));
    assert!(matches!(refused, Rejection::Precondition { .. }), "{refused}");

    world.done(takes("new", spec.clone(), place.clone(), &[low]));
    let new = world.state.job_by_request(&tenant(TENANT), "new").expect("accepted");
    assert_eq!((phase(&world, new), phase(&world, low)), (JobPhase::Placed, JobPhase::Pending));
    assert_eq!(phases(&world, low), [ReplicaPhase::Waiting; 2]);
    assert_eq!(world.state.job(low).map(|job| job.preemptions), Some(1));
    // A repeat of the call takes nothing more.
    world.done(Command::Commit(Commit { job: high, plan: plan(&[(1, 0xff)]) }));
    let times = world.state.jobs_after(None).map(|job| job.preemptions).sum::<u32>();
    world.done(takes("new", spec, place, &[low]));
    assert_eq!(world.state.jobs_after(None).map(|job| job.preemptions).sum::<u32>(), times);
}

#[test]
fn nobody_loses_what_it_did_not_let_go() {
    let refuse = |change: &dyn Fn(&mut JobSpec, &mut JobSpec)| {
        let (mut one, mut other) = (low(2, 2, Disruption::All), high(1));
        change(&mut one, &mut other);
        let (mut world, low, high) = taken(one, other);
        world.refused(preempt(high, &[(0, 0xff)], whole(&[low])))
    };
    let disruption = |low: &mut JobSpec, _: &mut JobSpec| {
        low.preemption =
            Preemption { policy: PreemptionPolicy::LowerPriority, ..Default::default() };
    };
    assert_eq!(why(refuse(&disruption)), Spared::Disruption);
    let equal = |low: &mut JobSpec, high: &mut JobSpec| low.priority = high.priority;
    assert_eq!(why(refuse(&equal)), Spared::Priority);
    let related = |_: &mut JobSpec, high: &mut JobSpec| {
        let target = Target::Jobs { group: None, labels: [("a".into(), "b".into())].into() };
        let (anti, preferred, level) = (true, false, Level::Node);
        high.affinities = vec![Affinity { anti, preferred, level, target }];
    };
    assert_eq!(why(refuse(&related)), Spared::Related);
    let never = |_: &mut JobSpec, high: &mut JobSpec| {
        high.preemption = Preemption { disruption: Disruption::All, ..Default::default() };
    };
    assert!(matches!(refuse(&never), Rejection::Precondition { .. }));
    let early = |_: &mut JobSpec, high: &mut JobSpec| high.begin = Some(TimeMs(1 << 40));
    let stale = refuse(&early);
    assert!(matches!(stale, Rejection::StalePlan { why: Stale::TooEarly { .. } }), "{stale}");
}

#[test]
fn a_stale_preemption_leaves_its_victims_alone() {
    let (mut world, low, high) = taken(low(2, 2, Disruption::All), high(1));
    let idle = world.submit(submit("idle", self::low(1, 1, Disruption::All), None));
    let mut refused =
        |places: &[(u32, u64)], victims| world.refused(preempt(high, places, victims));
    let malformed = |rejection: Rejection| {
        assert!(matches!(rejection, Rejection::StalePlan { why: Stale::Malformed }), "{rejection}");
    };
    malformed(refused(&[(0, 0xff)], Vec::new()));
    malformed(refused(&[(0, 0xff)], whole(&[low, low])));
    malformed(refused(&[(0, 0xff)], whole(&[idle, low])));
    malformed(refused(&[], whole(&[low])));
    assert_eq!(why(refused(&[(0, 0xff)], whole(&[low, idle]))), Spared::HoldsNothing);
    assert_eq!(why(refused(&[(0, 0xff)], whole(&[low, high]))), Spared::HoldsNothing);
    assert_eq!(why(refused(&[(0, 0xff)], whole(&[low, JobId(99)]))), Spared::Gone);
    let part = vec![Victim { job: low, ranks: vec![Rank(0)] }];
    assert_eq!(why(refused(&[(0, 0xff)], part)), Spared::Disruption);
    let missing = refused(&[(2, 0xff)], whole(&[low]));
    assert!(matches!(missing, Rejection::StalePlan { why: Stale::NodeGone { .. } }), "{missing}");
    let by = Actor::Tenant(tenant(TENANT));
    let theirs = world.apply(by, preempt(high, &[(0, 0xff)], whole(&[low])));
    assert!(matches!(theirs, Err(Rejection::Forbidden { .. })));
    assert_eq!((phase(&world, low), phase(&world, high)), (JobPhase::Ready, JobPhase::Pending));
    world.done(preempt(high, &[(0, 0xff)], whole(&[low])));
    let again = world.refused(preempt(high, &[(1, 0xff)], whole(&[low])));
    assert!(matches!(again, Rejection::Precondition { .. }), "{again}");
}

#[test]
fn only_what_victims_give_back_is_free_and_counts_for_the_quota() {
    let mut world = World::with_nodes(3, 8);
    let mut place = |id: &str, node: u32, of: &str, disruption| {
        let mut asked = submit(id, low(1, 1, disruption), Some(plan(&[(node, 0xff)])));
        asked.tenant = tenant(of);
        world.submit(asked)
    };
    let own = place("own", 0, TENANT, Disruption::All);
    let kept = place("kept", 1, TENANT, Disruption::None);
    world.done(Command::PutTenant(PutTenant { tenant: tenant("beta"), quota: quota(9_000, 9) }));
    let mut asked = submit("theirs", low(1, 1, Disruption::All), Some(plan(&[(2, 0xff)])));
    asked.tenant = tenant("beta");
    let theirs = world.submit(asked);
    let high = world.submit(submit("high", high(1), None));
    let taken = world.refused(preempt(high, &[(1, 0xff)], whole(&[own])));
    assert!(matches!(taken, Rejection::StalePlan { why: Stale::GpuTaken { .. } }), "{taken}");
    // Sixteen are held, and no more allowed: another tenant's do not help, its own do.
    world.done(Command::PutTenant(PutTenant { tenant: tenant(TENANT), quota: quota(16_000, 9) }));
    let over = world.refused(preempt(high, &[(2, 0xff)], whole(&[theirs])));
    assert!(matches!(over, Rejection::QuotaExceeded { .. }), "{over}");
    world.done(preempt(high, &[(0, 0xff)], whole(&[own])));
    assert_eq!(phase(&world, kept), JobPhase::Placed);
    let held = world.state.tenant(&tenant(TENANT)).map(|one| one.gpu_milli_used);
    assert_eq!(held, Some(16_000));
}
