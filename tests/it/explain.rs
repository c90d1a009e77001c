//! Why a job waits and what would help, and plans that are applied exactly or not at all, on real
//! servers.

use crate::harness::Cluster;
use crate::harness::client::{Client, fields};
use crate::harness::nodes::{Behaviour, TestAgent};
use crate::harness::specs::{job, job_with};
use proto::v1::counterfactual::Change;
use proto::v1::explain_job_request::Target;
use proto::v1::{self, JobPhase, Verdict};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

async fn explain(client: &Client, target: Target) -> Result<v1::ExplainJobResponse, Status> {
    let message = v1::ExplainJobRequest { target: Some(target), tenant: String::new() };
    Ok(client.jobs().explain_job(client.request(message)).await?.into_inner())
}

async fn plan(client: &Client, spec: &v1::JobSpec) -> v1::PlanJobResponse {
    let message = v1::PlanJobRequest { spec: Some(spec.clone()), ..Default::default() };
    client.jobs().plan_job(client.request(message)).await.expect("an answer").into_inner()
}

/// Submits what was planned, or nothing.
async fn submit_checked(
    client: &Client,
    id: &str,
    spec: &v1::JobSpec,
    check_index: u64,
    plan_digest: &str,
) -> Result<v1::SubmitJobResponse, Status> {
    let message = v1::SubmitJobRequest {
        request_id: id.to_owned(),
        spec: Some(spec.clone()),
        check_index,
        plan_digest: plan_digest.to_owned(),
        ..Default::default()
    };
    Ok(client.jobs().submit_job(client.request(message)).await?.into_inner())
}

async fn put_tenant(client: &Client, name: &str) {
    let tenant = v1::Tenant { name: name.to_owned(), ..Default::default() };
    let message = v1::PutTenantRequest { tenant: Some(tenant) };
    let mut tenants = v1::tenant_service_client::TenantServiceClient::new(client.channel());
    tenants.put_tenant(client.operator(message)).await.expect("put");
}

/// What its tenant may never have is refused by a submission, and the plan says so with the same numbers; what only
/// has to wait for the tenant's other jobs would wait.
#[tokio::test]
async fn a_plan_tells_what_a_submission_would_refuse() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let tenant = v1::Tenant {
        name: "globex".to_owned(),
        gpu_milli_max: Some(8_000),
        pending_jobs_max: Some(1),
        ..Default::default()
    };
    let message = v1::PutTenantRequest { tenant: Some(tenant) };
    let mut tenants = v1::tenant_service_client::TenantServiceClient::new(client.channel());
    tenants.put_tenant(client.operator(message)).await.expect("put");
    let globex = cluster.client().tenant("globex");
    let _agents = [
        TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await,
        TestAgent::start(&client, "n2", 8, Behaviour::Obedient).await,
    ];
    let told = plan(&globex, &job(2, 8)).await;
    let why = told.explanation.expect("an explanation");
    assert_eq!((told.placeable, why.verdict()), (false, Verdict::Quota));
    let refused = globex.submit("over", job(2, 8)).await.expect_err("over the quota");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::ResourceExhausted, told.refusal.as_str())
    );
    assert!(told.refusal.contains("at least 16 GPUs are needed, 8 allowed"), "{}", told.refusal);

    let load = globex.submit("load", job(1, 6)).await.expect("accepted").job.expect("a job").id;
    globex.until_phase(load, JobPhase::Ready).await;
    let told = plan(&globex, &job(1, 4)).await;
    assert_eq!((told.placeable, told.refusal.as_str()), (false, ""));
    let waits = globex.submit("waits", job(1, 4)).await.expect("accepted").job.expect("a job");
    assert_eq!(waits.phase(), JobPhase::Pending);
    // One waits, and no more may.
    let told = plan(&globex, &job(1, 4)).await;
    let refused = globex.submit("too many", job(1, 4)).await.expect_err("too many wait");
    assert_eq!(refused.message(), told.refusal);
    let told = plan(&globex, &job(1, 1)).await;
    assert_eq!((told.placeable, told.refusal.as_str()), (true, ""));
    cluster.stop_and_check();
}

fn assert_adds_up(told: &v1::Explanation) {
    assert!(!told.groups.is_empty());
    for group in &told.groups {
        let sum: u32 = group.causes.iter().map(|cause| cause.nodes).sum();
        assert_eq!(sum, told.nodes_total, "{group:?}");
    }
}

fn ending(told: &v1::Explanation) -> v1::Ending {
    let ends = told.counterfactuals.iter().find_map(|help| match help.change {
        Some(Change::Ending(ending)) => Some(ending),
        _ => None,
    });
    ends.unwrap_or_else(|| panic!("tells of no end: {told:?}"))
}

#[tokio::test]
async fn a_waiting_job_is_told_why_and_until_when() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    put_tenant(&client, "globex").await;
    let globex = cluster.client().tenant("globex");
    let _agents = [
        TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await,
        TestAgent::start(&client, "n2", 8, Behaviour::Obedient).await,
    ];
    // Another tenant's job holds both nodes for an hour.
    let mut load = job(2, 8);
    load.duration_s = 3_600;
    let load = globex.submit("load", load).await.expect("accepted").job.expect("a job").id;
    let ready = globex.until_phase(load, JobPhase::Ready).await;
    let spec = job(2, 4);
    let waits = client.submit("waits", spec.clone()).await.expect("accepted").job.expect("a job");
    assert_eq!(waits.phase(), JobPhase::Pending);
    for who in 0..3 {
        let asked = cluster.client_of(who);
        let answer = explain(&asked, Target::JobId(waits.id)).await.expect("explained");
        assert_eq!((answer.phase(), answer.replicas_waiting), (JobPhase::Pending, 2));
        let told = answer.explanation.expect("an explanation");
        assert_eq!(told.verdict(), Verdict::BusyUntil);
        assert_eq!(told.until_time_ms, ready.ready_time_ms + 3_600_000);
        assert_adds_up(&told);
        // When, but not who.
        assert_eq!(ending(&told), v1::Ending { time_ms: told.until_time_ms, job_id: 0 });
        assert!(!told.cut_short);
    }
    // Who owns the job, and who runs the cluster, learn which one it is.
    let own = explain(&globex, Target::Spec(spec.clone())).await.expect("explained");
    assert_eq!(ending(&own.explanation.expect("an explanation")).job_id, load);
    // A dry run tells the same.
    let planned = plan(&client, &spec).await;
    assert!(!planned.placeable);
    assert_eq!(planned.explanation.expect("an explanation").verdict(), Verdict::BusyUntil);
    // What does not wait has nothing to explain; what is not there or foreign does not exist.
    let placed = explain(&globex, Target::JobId(load)).await.expect("explained");
    assert_eq!((placed.replicas_waiting, placed.explanation), (0, None));
    let foreign = explain(&client, Target::JobId(load)).await.expect_err("foreign");
    assert_eq!(foreign.code(), Code::NotFound);
    let nobody = explain(&client, Target::JobId(u64::MAX)).await.expect_err("unknown");
    assert_eq!(nobody.code(), Code::NotFound);
    let message = v1::ExplainJobRequest::default();
    let empty = client.jobs().explain_job(client.request(message)).await.expect_err("no target");
    assert_eq!(fields(&empty), ["target"]);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn an_explanation_names_what_would_help() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await;
    let too_large = explain(&client, Target::Spec(job(12, 1))).await.expect("explained");
    let told = too_large.explanation.expect("an explanation");
    assert_eq!(told.verdict(), Verdict::NeverFits);
    assert_adds_up(&told);
    let replicas = v1::ReplicasPerGroup { replicas: vec![8] };
    assert_eq!(told.counterfactuals[0].change, Some(Change::Replicas(replicas)));
    let dear = job_with(|spec| spec.price_micro_usd_max = 1_000_000);
    let told = explain(&client, Target::Spec(dear)).await.expect("explained");
    let told = told.explanation.expect("an explanation");
    assert_eq!(told.verdict(), Verdict::Budget);
    assert_eq!(told.counterfactuals[0].change, Some(Change::PriceMicroUsdMax(2_500_000)));
    let fits = explain(&client, Target::Spec(job(8, 1))).await.expect("explained");
    let told = fits.explanation.expect("an explanation");
    assert_eq!((told.verdict(), told.counterfactuals.len()), (Verdict::Unspecified, 0));
    cluster.stop_and_check();
}

#[tokio::test]
async fn a_plan_is_applied_exactly_or_not_at_all() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let _agents = [
        TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await,
        TestAgent::start(&client, "n2", 8, Behaviour::Obedient).await,
    ];
    let spec = job(3, 4);
    let planned = plan(&client, &spec).await;
    assert!(planned.placeable);
    assert_eq!((planned.groups.len(), planned.groups[0].replicas), (1, 3));
    let left = planned.fragmentation.expect("is told");
    assert_eq!((left.nodes_whole_before, left.nodes_whole_after), (2, 0));
    assert_eq!((left.gpus_apart_before, left.gpus_apart_after), (0, 4));
    // The index alone names it; a repeat of the call finds the same job.
    for known in [false, true] {
        let done = submit_checked(&client, "exact", &spec, planned.index, "").await;
        let done = done.expect("accepted");
        assert_eq!(done.known, known);
        let job = client.job(done.job.expect("a job").id).await.expect("the job");
        let place = |replica: &v1::Replica| (replica.rank, replica.node_id, replica.gpus.clone());
        let held: Vec<_> = job.replicas.iter().map(place).collect();
        assert_eq!(held, planned.replicas.iter().map(place).collect::<Vec<_>>());
    }
    // What has changed since is noticed, and nothing is done.
    let small = job(1, 2);
    let before = plan(&client, &small).await;
    client.submit("between", job(1, 1)).await.expect("accepted");
    let digest = before.plan_digest.as_str();
    for (id, digest) in [("by-index", ""), ("by-digest", digest)] {
        let changed = submit_checked(&client, id, &small, before.index, digest).await;
        let changed = changed.expect_err("the GPU is taken");
        assert_eq!(changed.code(), Code::Aborted, "{changed}");
        let details = changed.get_error_details();
        let info = details.error_info().expect("has a reason");
        assert_eq!(info.reason, "PLAN_CHANGED");
        let index: u64 = info.metadata["index"].parse().expect("a number");
        assert!(index > before.index);
    }
    let unknown =
        submit_checked(&client, "unknown", &small, 1, "").await.expect_err("no such plan");
    assert_eq!(unknown.code(), Code::Aborted, "{unknown}");
    let bad = submit_checked(&client, "bad", &small, 1, "zz").await.expect_err("no digest");
    assert_eq!(fields(&bad), ["plan_digest"]);
    let list = client.jobs().list_jobs(client.request(v1::ListJobsRequest::default())).await;
    assert_eq!(list.expect("a list").into_inner().jobs.len(), 2);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn of_many_who_mean_the_same_plan_one_gets_it() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 8, Behaviour::Obedient).await;
    let spec = job(1, 5);
    let planned = plan(&client, &spec).await;
    let calls = (0..24).map(|n| {
        let (one, spec, planned) = (cluster.client_of(n % 3), &spec, &planned);
        async move {
            let id = format!("c{n}");
            submit_checked(&one, &id, spec, planned.index, &planned.plan_digest).await
        }
    });
    let answers = futures::future::join_all(calls).await;
    let placed = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(placed, 1, "{answers:?}");
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
    }
    assert_eq!(client.gpu_milli_used().await, 5_000);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}
