//! What tools ask of a server before they know it: its health, and its contract by reflection.

use crate::harness::Cluster;
use crate::harness::client::{Client, pause};
use std::collections::{BTreeMap, BTreeSet};
use tokio::time::Instant;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

async fn health(client: &Client, service: &str) -> Result<ServingStatus, tonic::Status> {
    let message = HealthCheckRequest { service: service.to_owned() };
    let answer = HealthClient::new(client.channel()).check(client.request(message)).await?;
    Ok(answer.into_inner().status())
}

async fn until(cluster: &Cluster, client: &Client, wanted: ServingStatus) {
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while health(client, "").await.expect("known") != wanted {
        cluster.assert_time_left(deadline, wanted.as_str_name());
        pause().await;
    }
}

/// Asks all in one stream, as tools do.
async fn reflect(client: &Client, questions: Vec<MessageRequest>) -> Vec<MessageResponse> {
    let asked = questions.len();
    let messages = questions.into_iter().map(|question| ServerReflectionRequest {
        message_request: Some(question),
        ..ServerReflectionRequest::default()
    });
    let messages = client.request(tokio_stream::iter(messages.collect::<Vec<_>>()));
    let mut reflection = ServerReflectionClient::new(client.channel());
    let mut stream = reflection.server_reflection_info(messages).await.expect("open").into_inner();
    let mut answers = Vec::new();
    while let Some(answer) = stream.message().await.expect("an answer") {
        answers.push(answer.message_response.expect("filled in"));
    }
    assert_eq!(answers.len(), asked);
    answers
}

#[tokio::test]
async fn healthy_only_while_there_is_a_leader() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let client = cluster.client_of(leader);
    until(&cluster, &client, ServingStatus::Serving).await;
    let unknown = health(&client, "muster.v1.Nothing").await.expect_err("no such service");
    assert_eq!(unknown.code(), Code::NotFound);
    for other in (0..3).filter(|at| *at != leader) {
        cluster.kill(other);
    }
    until(&cluster, &client, ServingStatus::NotServing).await;
}

#[tokio::test]
async fn every_service_can_be_called_from_what_reflection_tells() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let listed = reflect(&client, vec![MessageRequest::ListServices(String::new())]).await;
    let [MessageResponse::ListServicesResponse(listed)] = &listed[..] else {
        panic!("{listed:?}");
    };
    let services: BTreeSet<&str> = listed.service.iter().map(|one| one.name.as_str()).collect();
    let expected = ["Job", "Node", "NodeAdmin", "Quorum", "Tenant"];
    let expected = expected.map(|name| format!("muster.v1.{name}Service"));
    assert!(expected.iter().all(|name| services.contains(name.as_str())), "{services:?}");
    assert!(services.contains("grpc.health.v1.Health"), "{services:?}");
    assert!(!services.iter().any(|name| name.contains("Peer")), "not for the public: {services:?}");

    // From each service on, every file that another one imports can be had.
    let symbol = |name: &&str| MessageRequest::FileContainingSymbol((*name).to_owned());
    let mut questions: Vec<MessageRequest> = services.iter().map(symbol).collect();
    let mut files = BTreeMap::new();
    while !questions.is_empty() {
        for answer in reflect(&client, std::mem::take(&mut questions)).await {
            let MessageResponse::FileDescriptorResponse(found) = answer else {
                panic!("{answer:?}");
            };
            for bytes in found.file_descriptor_proto {
                let file: prost_types::FileDescriptorProto =
                    prost::Message::decode(&bytes[..]).expect("a file descriptor");
                files.insert(file.name().to_owned(), file);
            }
        }
        let wanted: BTreeSet<&String> = files.values().flat_map(|file| &file.dependency).collect();
        let missing = wanted.into_iter().filter(|name| !files.contains_key(*name));
        questions = missing.map(|name| MessageRequest::FileByFilename(name.clone())).collect();
    }
    let served = |name: &str| {
        files.values().any(|file| {
            let full = |one: &prost_types::ServiceDescriptorProto| {
                format!("{}.{}", file.package(), one.name()) == name
            };
            file.service.iter().any(|one| full(one) && !one.method.is_empty())
        })
    };
    assert!(services.iter().all(|name| served(name)), "{:?}", files.keys());
    cluster.stop_and_check();
}
