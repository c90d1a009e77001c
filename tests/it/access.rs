//! Credentials on a real server: nothing without them, nothing beyond them, and foreign objects do
//! not exist.

use crate::harness::Cluster;
use crate::harness::client::{Client, pause};
use crate::harness::nodes::key_of;
use crate::harness::specs::{job, node};
use proto::v1;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

const OPERATOR: &str = "operator-0123456789";
const ACME: &str = "tenant-acme-0123456789";
const GLOBEX: &str = "tenant-globex-0123456789";
const DC1: &str = "supplier-dc1-0123456789";
const DC2: &str = "supplier-dc2-0123456789";

/// One server with tokens and without the insecure mode.
async fn guarded() -> (Cluster, Client) {
    let mut cluster = Cluster::prepare("test", 1);
    let path = cluster.config_path(0);
    let text = std::fs::read_to_string(&path).expect("the config");
    let mut text = text.replace("insecure_dev = true", "cluster_secret = \"0123456789abcdef0123\"");
    let mut token = |kind: &str, name: Option<&str>, secret: &str| {
        let name = name.map(|name| format!("name = \"{name}\"\n")).unwrap_or_default();
        text.push_str(&format!("[[tokens]]\nkind = \"{kind}\"\n{name}token = \"{secret}\"\n\n"));
    };
    token("operator", None, OPERATOR);
    token("tenant", Some("acme"), ACME);
    token("tenant", Some("globex"), GLOBEX);
    token("supplier", Some("dc1"), DC1);
    token("supplier", Some("dc2"), DC2);
    std::fs::write(&path, text).expect("the config");
    cluster.start_server(0);
    let client = cluster.client();
    let deadline = Instant::now() + crate::harness::PATIENCE;
    loop {
        let message = v1::GetQuorumStatusRequest::default();
        let status = client.quorum().get_quorum_status(bearing(OPERATOR, message)).await;
        if status.is_ok_and(|status| status.into_inner().leader_id != 0) {
            return (cluster, client);
        }
        cluster.assert_time_left(deadline, "no leader");
        pause().await;
    }
}

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().expect("ascii");
    request.metadata_mut().insert("authorization", value);
    request
}

/// Calls a method by name with an empty message.
async fn call_empty(client: &Client, method: &str, request: Request<()>) -> Status {
    let mut grpc = tonic::client::Grpc::new(client.channel());
    grpc.ready().await.expect("connected");
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path = PathAndQuery::try_from(method).expect("a path");
    match grpc.unary(request, path, codec).await {
        Ok(_) => Status::ok("answered"),
        Err(status) => status,
    }
}

#[tokio::test]
async fn nothing_is_answered_without_credentials_or_with_wrong_ones() {
    let (cluster, client) = guarded().await;
    let methods = scheduler_server::auth::PERMISSIONS;
    assert!(methods.len() > 20);
    for (method, _) in methods.iter().filter(|(method, _)| method.starts_with("/muster.")) {
        let status = call_empty(&client, method, Request::new(())).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{method}: {status}");
        let status = call_empty(&client, method, bearing("guessed-0123456789", ())).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{method}: {status}");
        // The header of the insecure mode opens nothing here.
        let mut request = Request::new(());
        request.metadata_mut().insert("x-muster-tenant", "acme".parse().expect("ascii"));
        let status = call_empty(&client, method, request).await;
        assert_eq!(status.code(), Code::Unauthenticated, "{method}: {status}");
    }
    for method in ["/muster.v1.PeerService/Call", "/muster.v1.JobService/submitjob", "/x/Y"] {
        let status = call_empty(&client, method, bearing(OPERATOR, ())).await;
        assert_eq!(status.code(), Code::Unimplemented, "{method}: {status}");
    }
    cluster.stop_and_check();
}

#[tokio::test]
async fn a_token_opens_only_what_it_is_for() {
    let (cluster, client) = guarded().await;
    for (token, method) in [
        (ACME, "/muster.v1.QuorumService/RemoveServer"),
        (ACME, "/muster.v1.TenantService/PutTenant"),
        (ACME, "/muster.v1.NodeService/Join"),
        (DC1, "/muster.v1.JobService/SubmitJob"),
        (DC1, "/muster.v1.QuorumService/TransferLeader"),
        (DC1, "/muster.v1.NodeAdminService/SetSiteRtts"),
        (DC1, "/muster.v1.NodeAdminService/ListSiteRtts"),
    ] {
        let status = call_empty(&client, method, bearing(token, ())).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{method}: {status}");
    }
    cluster.stop_and_check();
}

#[tokio::test]
async fn what_belongs_to_others_does_not_exist() {
    let (cluster, client) = guarded().await;
    let join = |token, key: &str| {
        let message = v1::JoinRequest {
            spec: Some(node("n1", 8)),
            node_key: key_of(key).into(),
            instance: vec![1; 16].into(),
        };
        let (mut nodes, request) = (client.nodes(), bearing(token, message));
        async move { nodes.join(request).await }
    };
    let node_id = join(DC1, "n1").await.expect("joined").into_inner().node_id;
    // The same host name at another supplier is another machine; with another key it is refused.
    let other = join(DC2, "n1").await.expect("joined").into_inner().node_id;
    assert_ne!(node_id, other);
    let stolen = join(DC1, "copy").await.expect_err("another key");
    assert_eq!(stolen.code(), Code::PermissionDenied, "{stolen}");

    let drain = bearing(DC2, v1::DrainNodeRequest { node_id });
    let status = client.admin().drain_node(drain).await.expect_err("foreign node");
    assert_eq!(status.code(), Code::NotFound, "{status}");

    let submit = v1::SubmitJobRequest {
        request_id: "r".to_owned(),
        spec: Some(job(1, 1)),
        ..Default::default()
    };
    let answer = client.jobs().submit_job(bearing(ACME, submit.clone())).await.expect("accepted");
    let job_id = answer.into_inner().job.expect("a job").id;
    let get = v1::GetJobRequest { job_id, ..Default::default() };
    let status = client.jobs().get_job(bearing(GLOBEX, get)).await.expect_err("foreign job");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let target = Some(v1::explain_job_request::Target::JobId(job_id));
    let explain = v1::ExplainJobRequest { target, ..Default::default() };
    let status = client.jobs().explain_job(bearing(GLOBEX, explain)).await.expect_err("foreign");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let (group, request_id) = ("workers".to_owned(), "s".to_owned());
    let scale =
        v1::ScaleJobRequest { job_id, group, replicas: 1, request_id, replicas_expected: None };
    let status = client.jobs().scale_job(bearing(GLOBEX, scale)).await.expect_err("foreign job");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let cancel = v1::CancelJobRequest { job_id };
    let status = client.jobs().cancel_job(bearing(GLOBEX, cancel)).await.expect_err("foreign job");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    let watch = v1::WatchJobRequest { job_id, after_index: 0 };
    let status = client.jobs().watch_job(bearing(GLOBEX, watch)).await.expect_err("foreign job");
    assert_eq!(status.code(), Code::NotFound, "{status}");
    // Naming another tenant is for operators.
    let for_others = v1::SubmitJobRequest { tenant: "acme".to_owned(), ..submit };
    let status = client.jobs().submit_job(bearing(GLOBEX, for_others)).await.expect_err("foreign");
    assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    assert_eq!(crate::harness::client::fields(&status), ["tenant"]);
    let list = client.jobs().list_jobs(bearing(GLOBEX, v1::ListJobsRequest::default())).await;
    assert!(list.expect("a list").into_inner().jobs.is_empty());
    cluster.stop_and_check();
}
