//! Agents made by hand: they join, keep a session and report replicas ready at once, so that tests
//! see every message.

use super::client::{Client, is_passing, pause};
use super::{PATIENCE, specs};
use proto::v1::session_request::Message as Say;
use proto::v1::session_response::Message as Hear;
use proto::v1::{self, JoinResponse, NodeSpec, ObservedPhase, SessionRequest};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tonic::Status;

/// Supplier of all test nodes.
pub const SUPPLIER: &str = "dc1";

/// What replicas of a hand-made agent do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Behaviour {
    /// Ready at once.
    Obedient,
    /// Every start fails.
    Failing,
    /// Starts that never end.
    Slow,
}

/// An agent with a live session; the session ends when this is dropped.
pub struct TestAgent {
    pub node_id: u32,
    pub epoch: u32,
    pub key: Vec<u8>,
    /// Assignment by (job, rank), as the last desired state said.
    pub holds: Arc<Mutex<BTreeMap<(u64, u32), v1::Assignment>>>,
    task: JoinHandle<()>,
}

impl Drop for TestAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A key that follows from the node's name.
pub fn key_of(name: &str) -> Vec<u8> {
    let mut key = name.as_bytes().to_vec();
    key.resize(32, 7);
    key
}

pub async fn join_once(
    client: &Client,
    spec: &NodeSpec,
    key: &[u8],
    instance: &[u8],
) -> Result<JoinResponse, Status> {
    let message = v1::JoinRequest {
        spec: Some(spec.clone()),
        node_key: key.to_vec().into(),
        instance: instance.to_vec().into(),
    };
    Ok(client.nodes().join(client.supplier(SUPPLIER, message)).await?.into_inner())
}

/// Joins, waiting out elections.
pub async fn join(client: &Client, spec: &NodeSpec, key: &[u8], instance: &[u8]) -> JoinResponse {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match join_once(client, spec, key, instance).await {
            Ok(joined) => return joined,
            Err(status) if is_passing(&status) && Instant::now() < deadline => pause().await,
            Err(status) => panic!("join of {}: {status}", spec.name),
        }
    }
}

impl TestAgent {
    /// Joins a node with `gpus` GPUs and opens its session.
    pub async fn start(client: &Client, name: &str, gpus: usize, behaviour: Behaviour) -> Self {
        Self::start_as(client, specs::node(name, gpus), behaviour).await
    }

    pub async fn start_as(client: &Client, spec: NodeSpec, behaviour: Behaviour) -> Self {
        let key = key_of(&spec.name);
        let instance = key.iter().rev().take(16).copied().collect::<Vec<_>>();
        let joined = join(client, &spec, &key, &instance).await;
        let holds = Arc::new(Mutex::new(BTreeMap::new()));
        let mut hello = v1::SessionHello {
            node_id: joined.node_id,
            epoch: joined.epoch,
            node_key: key.clone().into(),
            instance: instance.into(),
        };
        let seen = Arc::clone(&holds);
        let beat = std::time::Duration::from_millis(joined.heartbeat_ms.max(50));
        let client = client.clone();
        let task = tokio::spawn(async move {
            let mut server = client;
            loop {
                let _ = session(&server, hello.clone(), beat, behaviour, &seen).await;
                pause().await;
                // Its server may be gone, or the node have been declared down: joins elsewhere.
                server = server.next();
                if let Ok(joined) =
                    join_once(&server, &spec, &hello.node_key, &hello.instance).await
                {
                    hello.epoch = joined.epoch;
                }
            }
        });
        let (node_id, epoch) = (joined.node_id, joined.epoch);
        Self { node_id, epoch, key, holds, task }
    }
}

async fn session(
    client: &Client,
    hello: v1::SessionHello,
    beat: std::time::Duration,
    behaviour: Behaviour,
    holds: &Mutex<BTreeMap<(u64, u32), v1::Assignment>>,
) -> Result<(), Status> {
    let (say, said) = mpsc::channel(64);
    let send = |message: Say| {
        let _ = say.try_send(SessionRequest { message: Some(message) });
    };
    send(Say::Hello(hello));
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(said);
    let mut request = client.supplier(SUPPLIER, outgoing);
    request.metadata_mut().remove("grpc-timeout");
    let mut heard = client.nodes().session(request).await?.into_inner();
    let mut beats = tokio::time::interval(beat);
    for sequence in 0.. {
        tokio::select! {
            _ = beats.tick() => send(Say::Heartbeat(v1::Heartbeat { sequence })),
            message = heard.message() => match message?.and_then(|response| response.message) {
                Some(Hear::Desired(desired)) => {
                    send(Say::Reports(answer(&desired, behaviour, holds)));
                }
                Some(Hear::HeartbeatAck(_) | Hear::Probes(_)) => {}
                Some(Hear::End(_)) | None => return Ok(()),
            }
        }
    }
    Ok(())
}

fn answer(
    desired: &v1::DesiredState,
    behaviour: Behaviour,
    holds: &Mutex<BTreeMap<(u64, u32), v1::Assignment>>,
) -> v1::ReplicaReports {
    let mut holds = holds.lock().expect("not poisoned");
    *holds = desired.assignments.iter().map(|a| ((a.job_id, a.rank), a.clone())).collect();
    let phase = match behaviour {
        Behaviour::Obedient => ObservedPhase::Ready,
        Behaviour::Failing => ObservedPhase::Failed,
        Behaviour::Slow => ObservedPhase::Starting,
    };
    let reports = desired
        .assignments
        .iter()
        .map(|assignment| v1::ReplicaReport {
            job_id: assignment.job_id,
            rank: assignment.rank,
            assignment: assignment.assignment,
            phase: phase.into(),
            exit_code: i32::from(behaviour == Behaviour::Failing),
        })
        .collect();
    v1::ReplicaReports { reports }
}
