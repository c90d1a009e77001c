//! Manifests through a whole cluster: read by a server, and planned as what they were read as.

use crate::harness::Cluster;
use crate::harness::client::Client;
use crate::harness::nodes::{join, key_of};
use crate::harness::specs::node;
use proto::v1;
use std::fs;
use std::path::{Path, PathBuf};
use tonic::Code;

/// Nodes of the hall on which the examples are planned, and how many of them share a rack.
const HALL_NODES: usize = 96;
const RACK_NODES: usize = 16;

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

/// A model's family in another system's words stands for the fleet's own models, wherever a manifest is read.
#[tokio::test]
async fn models_are_read_by_the_names_that_the_fleet_has_for_them() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for (number, model) in ["H100-80GB-HBM3", "H100-PCIE", "A100-SXM4-40GB"].into_iter().enumerate()
    {
        let mut spec = node(&format!("n{number}"), 8);
        for gpu in &mut spec.gpus {
            gpu.model = model.to_owned();
        }
        join(&client, &spec, &key_of(&spec.name), &[3; 16]).await;
    }
    let asked = |model: &str| {
        format!(
            "bundles: [{{GPU: 8}}]\nbundle_label_selector: [{{ray.io/accelerator-type: {model}}}]\n"
        )
    };
    let read = translate(&client, asked("H100")).await.expect("an answer");
    let spec = read.spec.expect("understood");
    let shape = spec.groups[0].shape.as_ref().expect("a shape");
    assert_eq!(shape.gpu_models, ["H100-80GB-HBM3", "H100-PCIE"]);
    assert!(read.native.contains("H100-PCIE"), "{}", read.native);
    let told = read.notes.iter().find(|note| note.path == "groups[0].gpu_models[0]");
    let told = told.expect("a note").text.as_str();
    assert_eq!(told, "`H100` is read as H100-80GB-HBM3 or H100-PCIE");
    let message = v1::PlanJobRequest { spec: Some(spec), ..v1::PlanJobRequest::default() };
    let plan = client.jobs().plan_job(client.request(message)).await.expect("a plan").into_inner();
    assert!(plan.placeable);
    let exact = translate(&client, asked("H100-PCIE")).await.expect("an answer");
    assert!(exact.notes.iter().all(|note| !note.path.starts_with("groups")), "{:?}", exact.notes);
    let none =
        translate(&client, asked("H200")).await.expect("an answer").spec.expect("understood");
    assert_eq!(none.groups[0].shape.as_ref().expect("a shape").gpu_models, ["H200"]);
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

/// A node of a hall in which each of the examples finds what it asks for.
fn hall_node(number: usize) -> v1::NodeSpec {
    let model = ["H100-80GB-HBM3", "H100-80GB-HBM3", "H100", "H200", "A100"][number % 5];
    let gpu = v1::Gpu {
        model: model.to_owned(),
        vram_mib: 81_920,
        vendor: v1::GpuVendor::Nvidia.into(),
        compute_capability: 900,
        ..v1::Gpu::default()
    };
    let mut spec = node(&format!("n{number}"), 8);
    spec.gpus = vec![gpu; 8];
    spec.cpu_milli = 192_000;
    spec.memory_mib = 2 << 20;
    spec.labels.insert("pool".to_owned(), "gpu".to_owned());
    spec.custom.insert("rdma.ib".to_owned(), 8);
    if let Some(place) = &mut spec.place {
        place.rack = format!("r{}", number / RACK_NODES);
    }
    spec
}

/// Every example that the manifest crate reads is planned whole by a real server, on GPUs that it
/// may use.
#[tokio::test]
async fn every_example_is_planned_whole() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    for number in 0..HALL_NODES {
        let spec = hall_node(number);
        join(&client, &spec, &key_of(&spec.name), &[3; 16]).await;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scheduler/manifest/tests/data");
    let entries = fs::read_dir(folder).expect("the examples");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.retain(|path| !path.to_string_lossy().ends_with(".native.yaml"));
    paths.sort();
    assert!(paths.len() >= 11, "{paths:?}");
    for path in paths {
        let text = fs::read_to_string(&path).expect("readable");
        let spec = translate(&client, text).await.expect("an answer").spec.expect("understood");
        let wanted: u32 = spec.groups.iter().map(|group| group.replicas).sum();
        let message = v1::PlanJobRequest { spec: Some(spec), ..v1::PlanJobRequest::default() };
        let plan = client.jobs().plan_job(client.request(message)).await.expect("an answer");
        let plan = plan.into_inner();
        assert!(plan.placeable, "{}: {:?}", path.display(), plan.reason);
        assert_eq!(plan.replicas.len(), wanted as usize, "{}", path.display());
    }
    cluster.stop_and_check();
}
