//! Who goes first, and when, on real servers.

use crate::harness::Cluster;
use crate::harness::client::{Client, fields};
use crate::harness::nodes::{Behaviour, TestAgent};
use crate::harness::specs::job;
use proto::v1::tenant_service_client::TenantServiceClient;
use proto::v1::{self, JobPhase, JobSpec};
use tonic::{Code, Status};

/// A job that wants the whole node of eight.
fn whole(priority: i32) -> JobSpec {
    JobSpec { priority, ..job(1, 8) }
}

async fn submit(client: &Client, id: &str, spec: JobSpec) -> u64 {
    client.submit_surely(id, spec).await.job.expect("a job").id
}

async fn put_tenant(client: &Client, priority_max: i32) -> Result<v1::Tenant, Status> {
    let tenant = v1::Tenant {
        name: "acme".to_owned(),
        priority_max: Some(priority_max),
        ..v1::Tenant::default()
    };
    let message = v1::PutTenantRequest { tenant: Some(tenant) };
    let mut tenants = TenantServiceClient::new(client.channel());
    let answer = tenants.put_tenant(client.operator(message)).await?;
    Ok(answer.into_inner().tenant.expect("a tenant"))
}

/// Who tries things out is held up by no bound; tenants of the file have theirs.
#[tokio::test]
async fn the_tenant_of_a_playground_has_no_bounds() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let mut tenants = TenantServiceClient::new(client.channel());
    let list = tenants.list_tenants(client.operator(v1::ListTenantsRequest::default()));
    let list = list.await.expect("told").into_inner().tenants;
    let bounds = |name: &str| {
        let found = list.iter().find(|tenant| tenant.name == name).expect(name);
        (found.priority_max, found.pending_jobs_max)
    };
    assert_eq!(bounds("dev"), (Some(1_000), Some(u32::MAX)));
    assert_eq!(bounds("acme"), (Some(0), Some(10_000)));
    cluster.stop_and_check();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_goes_first_whatever_leader_there_is() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await;
    let runs = submit(&client, "runs", whole(0)).await;
    client.until_phase(runs, JobPhase::Ready).await;

    // Nobody goes before others of its own accord; a dry run says so too.
    let refused = client.submit("before", whole(1)).await.expect_err("is above the bound");
    assert_eq!(
        (refused.code(), fields(&refused)),
        (Code::InvalidArgument, vec!["spec.priority".into()])
    );
    assert!(
        refused.message().contains("is 1; tenant acme may give its jobs 0 at most"),
        "{refused}"
    );
    let dry = v1::PlanJobRequest { spec: Some(whole(1)), ..v1::PlanJobRequest::default() };
    let dry = client.jobs().plan_job(client.request(dry)).await.expect_err("is above the bound");
    assert_eq!(fields(&dry), ["spec.priority"]);
    let wild = put_tenant(&client, 1_001).await.expect_err("is no priority");
    assert_eq!(fields(&wild), ["tenant.priority_max"]);
    let put = put_tenant(&client, 10).await.expect("an operator may");
    assert_eq!(put.priority_max, Some(10));

    let last = submit(&client, "last", whole(-5)).await;
    let second = submit(&client, "second", whole(0)).await;
    let third = submit(&client, "third", whole(0)).await;
    let first = submit(&client, "first", whole(10)).await;
    let list = client.request(v1::ListJobsRequest::default());
    let list = client.jobs().list_jobs(list).await.expect("a list").into_inner().jobs;
    let shown: Vec<(u64, i32)> = list.iter().map(|job| (job.id, job.priority)).collect();
    assert_eq!(shown, [(runs, 0), (last, -5), (second, 0), (third, 0), (first, 10)]);

    // The next leader knows the order from the log.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.leader().await;
    let client = cluster.client();
    let mut running = runs;
    let mut waits = vec![first, second, third, last];
    while !waits.is_empty() {
        client.cancel(running).await.expect("cancelled");
        running = waits.remove(0);
        client.until_phase(running, JobPhase::Ready).await;
        for &id in &waits {
            let waits = client.job(id).await.expect("known").job.expect("a job");
            assert_eq!(waits.phase(), JobPhase::Pending, "{waits:?}");
        }
    }
    cluster.start_server(leader);
    cluster.leader().await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.expect("after 1970").as_millis()).expect("fits")
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_when_they_may_and_no_longer_than_until_their_deadline() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await;
    let past = JobSpec { deadline_time_ms: 1_000, ..whole(0) };
    let refused = client.submit("past", past).await.expect_err("is over");
    assert_eq!(fields(&refused), ["spec.deadline_time_ms"]);

    let begin = now_ms() + 3_000;
    let deadline = begin + 10_000;
    let spec = JobSpec { begin_time_ms: begin, deadline_time_ms: deadline, ..whole(0) };
    let timed = client.submit_surely("timed", spec).await.job.expect("a job");
    assert_eq!(
        (timed.phase(), timed.reason.map(|why| why.code())),
        (JobPhase::Pending, Some(v1::ReasonCode::Begin))
    );
    let target = Some(v1::explain_job_request::Target::JobId(timed.id));
    let asked = client.request(v1::ExplainJobRequest { target, ..Default::default() });
    let told = client.jobs().explain_job(asked).await.expect("told").into_inner().explanation;
    let told = told.expect("it waits");
    assert_eq!(told.verdict(), v1::Verdict::Unspecified);
    assert!(told.summary.starts_with("begins at "), "{told:?}");
    // A job without a place until then, which needs more time than is left.
    let runs = submit(&client, "runs", whole(0)).await;
    client.until_phase(runs, JobPhase::Ready).await;
    let spec = JobSpec {
        deadline_time_ms: now_ms() + 5_000,
        duration_s: 5,
        duration_s_min: 3,
        ..whole(0)
    };
    let missed = submit(&client, "missed", spec).await;
    let failed = client.until_phase(missed, JobPhase::Failed).await;
    assert_eq!(failed.reason.expect("has one").code(), v1::ReasonCode::Deadline);

    // A leader that was not there when they came knows their times.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.leader().await;
    let client = cluster.client();
    client.cancel(runs).await.expect("cancelled");
    let ready = client.until_phase(timed.id, JobPhase::Ready).await;
    assert!((begin..deadline).contains(&ready.placed_time_ms), "{ready:?}");
    let over = client.until_phase(timed.id, JobPhase::Expired).await;
    assert!(over.ended_time_ms >= deadline, "{over:?}");
    assert_eq!(over.reason.expect("has one").code(), v1::ReasonCode::Deadline);
    let spec = over.spec.expect("is shown");
    assert_eq!((spec.begin_time_ms, spec.deadline_time_ms), (begin, deadline));
    cluster.start_server(leader);
    cluster.leader().await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

/// A job that takes what others let go, or lets go itself.
fn preempting(priority: i32, policy: v1::PreemptionPolicy, disruption: v1::Disruption) -> JobSpec {
    let (policy, disruption) = (policy.into(), disruption.into());
    let preemption = Some(v1::Preemption { policy, disruption });
    JobSpec { priority, preemption, ..job(1, 8) }
}

/// Who would give way, as an explanation tells it.
fn gives_way(told: Option<v1::Explanation>) -> Option<v1::Preempted> {
    let changes = told?.counterfactuals.into_iter().filter_map(|one| one.change);
    changes
        .filter_map(|change| match change {
            v1::counterfactual::Change::Preempted(gives) => Some(gives),
            _ => None,
        })
        .next()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lets_go_gives_way_to_a_higher_priority_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    put_tenant(&client, 500).await.expect("an operator may");
    let mut agents = Vec::new();
    for at in 1..=3 {
        agents.push(TestAgent::start(&client, &format!("n{at}"), 8, Behaviour::Obedient).await);
    }
    let bob = v1::Tenant { name: "bob".to_owned(), ..v1::Tenant::default() };
    let message = v1::PutTenantRequest { tenant: Some(bob) };
    let mut tenants = TenantServiceClient::new(client.channel());
    tenants.put_tenant(client.operator(message)).await.expect("an operator may");
    let bob = cluster.client().tenant("bob");
    let (never, takes) = (v1::PreemptionPolicy::Never, v1::PreemptionPolicy::LowerPriority);
    let (keeps, gives) = (v1::Disruption::Unspecified, v1::Disruption::All);
    // One lets nobody disrupt it, and is of the lowest priority of all.
    let kept = submit(&bob, "kept", preempting(-900, never, keeps)).await;
    bob.until_phase(kept, JobPhase::Ready).await;
    let theirs = submit(&bob, "theirs", preempting(-10, never, gives)).await;
    bob.until_phase(theirs, JobPhase::Ready).await;
    let own = submit(&client, "own", preempting(-20, never, gives)).await;
    client.until_phase(own, JobPhase::Ready).await;

    // A job that does not ask for it is told what that would do; one that does is told the plan.
    let waits = submit(&client, "waits", preempting(300, never, keeps)).await;
    let target = Some(v1::explain_job_request::Target::JobId(waits));
    let asked = client.request(v1::ExplainJobRequest { target, ..Default::default() });
    let told = client.jobs().explain_job(asked).await.expect("told").into_inner().explanation;
    let would =
        v1::Preempted { jobs_whole: 1, jobs_part: 0, gpu_milli: 8_000, job_ids_own: vec![own] };
    assert_eq!(gives_way(told), Some(would.clone()));
    client.cancel(waits).await.expect("cancelled");
    let spec = preempting(500, takes, keeps);
    let dry = v1::PlanJobRequest { spec: Some(spec.clone()), ..v1::PlanJobRequest::default() };
    let dry = client.jobs().plan_job(client.request(dry)).await.expect("a plan").into_inner();
    assert_eq!((dry.placeable, dry.preempted), (true, Some(would)));
    let whole = dry.fragmentation.expect("is told");
    assert_eq!((whole.nodes_whole_before, whole.nodes_whole_after), (0, 0));
    let first = v1::SubmitJobRequest {
        request_id: "first".to_owned(),
        spec: Some(spec),
        check_index: dry.index,
        plan_digest: dry.plan_digest,
        ..v1::SubmitJobRequest::default()
    };
    let first = client.jobs().submit_job(client.request(first)).await.expect("as planned");
    let first = first.into_inner().job.expect("a job");
    assert_eq!(first.phase(), JobPhase::Placed, "by the entry that accepts it");
    let first = first.id;
    client.until_phase(first, JobPhase::Ready).await;
    let held = client.job(first).await.expect("known").replicas;
    let place = |replica: &v1::Replica| (replica.node_id, replica.gpus.clone());
    assert_eq!(
        held.iter().map(place).collect::<Vec<_>>(),
        dry.replicas.iter().map(place).collect::<Vec<_>>()
    );
    let lost = client.until_phase(own, JobPhase::Pending).await;
    let why = lost.reason.clone().expect("has one");
    assert_eq!((why.code(), lost.preemptions), (v1::ReasonCode::Preempted, 1), "{lost:?}");
    assert!(why.message.starts_with("preempted by a job of priority 500"), "{}", why.message);
    assert_eq!((lost.placed_time_ms, lost.ready_time_ms), (0, 0));
    let still = bob.job(theirs).await.expect("known").job.expect("a job");
    assert_eq!((still.phase(), still.preemptions), (JobPhase::Ready, 0), "one was enough");

    // A leader that was not there then takes from the next one, another tenant's.
    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.leader().await;
    let client = cluster.client();
    let bob = cluster.client().tenant("bob");
    let second = submit(&client, "second", preempting(400, takes, keeps)).await;
    client.until_phase(second, JobPhase::Ready).await;
    let lost = bob.until_phase(theirs, JobPhase::Pending).await;
    assert_eq!(
        (lost.reason.expect("has one").code(), lost.preemptions),
        (v1::ReasonCode::Preempted, 1)
    );
    let still = bob.job(kept).await.expect("known").job.expect("a job");
    assert_eq!((still.phase(), still.preemptions), (JobPhase::Ready, 0));
    // Nobody is left who would let go, for however high a job.
    let third = submit(&client, "third", preempting(500, takes, keeps)).await;

    client.cancel(first).await.expect("cancelled");
    client.until_phase(third, JobPhase::Ready).await;
    client.cancel(second).await.expect("cancelled");
    bob.until_phase(theirs, JobPhase::Ready).await;
    client.cancel(third).await.expect("cancelled");
    let back = client.until_phase(own, JobPhase::Ready).await;
    assert_eq!((back.preemptions, back.reason.map_or(0, |why| why.code)), (1, 0));
    let still = bob.job(kept).await.expect("known").job.expect("a job");
    assert_eq!((still.phase(), still.preemptions), (JobPhase::Ready, 0));
    cluster.start_server(leader);
    cluster.leader().await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}
