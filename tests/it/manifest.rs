//! Manifests through a whole cluster: read by a server, and planned as what they were read as.

use crate::harness::Cluster;
use crate::harness::client::Client;
use crate::harness::nodes::join;
use crate::harness::specs::node;
use proto::v1;
use tonic::Code;

async fn translate(
    client: &Client,
    text: String,
) -> Result<v1::TranslateManifestResponse, tonic::Status> {
    let request = client.request(v1::TranslateManifestRequest { text });
    client.jobs().translate_manifest(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_manifest_is_read_and_can_be_planned() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    join(&client, &node("n1", 8), &[9; 32], &[3; 16]).await;
    let text = "bundles: [{GPU: 4}, {GPU: 4}]\nstrategy: STRICT_PACK\nray_namespace: demo\n";
    let read = translate(&client, text.to_owned()).await.expect("an answer");
    assert!(read.faults.is_empty() && read.native.contains("strict-pack"));
    assert_eq!(read.notes[0].path, "ray_namespace");
    let again = translate(&client, read.native).await.expect("an answer");
    assert_eq!(again.spec, read.spec);
    let message = v1::PlanJobRequest { spec: read.spec, ..v1::PlanJobRequest::default() };
    let plan = client.jobs().plan_job(client.request(message)).await.expect("a plan").into_inner();
    assert!(plan.placeable);
    assert_eq!((plan.replicas.len(), plan.nodes), (2, 1));
    cluster.stop_and_check();
}

#[tokio::test]
async fn faults_come_with_their_paths_and_texts_are_bounded() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let read = translate(&client, "bundles: [{GPU: 1.5}]\ncolour: red\n".to_owned()).await;
    let read = read.expect("an answer");
    let paths: Vec<&str> = read.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["colour", "bundles[0].GPU"]);
    assert!(read.spec.is_none() && read.native.is_empty());
    let refused = translate(&client, "x".repeat((1 << 20) + 1)).await.expect_err("too long");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("text is 1048577 bytes"), "{}", refused.message());
    let deep = translate(&client, "[".repeat(1 << 20)).await.expect("an answer");
    assert!(!deep.faults.is_empty());
    cluster.stop_and_check();
}
