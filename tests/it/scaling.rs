//! Jobs that grow and shrink on real servers, with agents that see what they are told.

use crate::harness::client::{Client, fields, is_passing, pause};
use crate::harness::nodes::{Behaviour, TestAgent};
use crate::harness::specs::job;
use crate::harness::{Cluster, PATIENCE};
use proto::v1::{self, JobPhase, JobSpec};
use std::collections::BTreeMap;
use tokio::time::Instant;
use tonic::{Code, Status};

/// Workers: 2 (1 to 6) of two GPUs each, with the ranks 0 to 5; beside them one of two GPUs, rank 6.
fn elastic() -> JobSpec {
    let mut spec = job(2, 2);
    (spec.groups[0].replicas_min, spec.groups[0].replicas_max) = (1, 6);
    let mut beside = job(1, 2).groups.remove(0);
    beside.name = "beside".to_owned();
    spec.groups.push(beside);
    spec
}

fn workers(job_id: u64, replicas: u32, request: &str) -> v1::ScaleJobRequest {
    let (group, request_id) = ("workers".to_owned(), request.to_owned());
    v1::ScaleJobRequest { job_id, group, replicas, replicas_expected: None, request_id }
}

async fn scale(client: &Client, to: v1::ScaleJobRequest) -> Result<v1::ScaleJobResponse, Status> {
    Ok(client.jobs().scale_job(client.request(to)).await?.into_inner())
}

async fn agents(client: &Client, nodes: usize) -> Vec<TestAgent> {
    let start = |at| {
        let client = client.clone();
        async move { TestAgent::start(&client, &format!("n{at}"), 4, Behaviour::Obedient).await }
    };
    futures::future::join_all((0..nodes).map(start)).await
}

/// What the agents were told to run: by rank, the assignment and how many members it knows of.
fn told(agents: &[TestAgent]) -> BTreeMap<u32, (u64, u32)> {
    let mut all = BTreeMap::new();
    for agent in agents {
        for ((_, rank), one) in agent.holds.lock().expect("not poisoned").iter() {
            let twice = all.insert(*rank, (one.assignment, one.world_size));
            assert_eq!(twice, None, "rank {rank} on two nodes");
        }
    }
    all
}

/// Waits until the agents were told to run exactly these ranks.
async fn until_told(cluster: &Cluster, agents: &[TestAgent], ranks: &[u32]) {
    let deadline = Instant::now() + PATIENCE;
    while !told(agents).keys().eq(ranks) {
        cluster.assert_time_left(deadline, &format!("agents hold {:?}", told(agents)));
        pause().await;
    }
}

async fn all_ready(client: &Client, id: u64, count: u32) -> v1::Job {
    let ready = |job: &v1::Job| {
        let counts = job.counts.as_ref().expect("counts");
        job.phase() == JobPhase::Ready && counts.ready == count && counts.waiting == 0
    };
    client.until(id, &format!("{count} ready"), ready).await
}

#[tokio::test]
async fn a_job_grows_and_shrinks_and_what_stays_is_not_touched() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let agents = agents(&client, 4).await;
    let id = client.submit("r", elastic()).await.expect("accepted").job.expect("a job").id;
    all_ready(&client, id, 3).await;
    until_told(&cluster, &agents, &[0, 1, 6]).await;
    let before = told(&agents);

    let up = scale(&cluster.client_of(1), workers(id, 5, "up")).await.expect("scaled");
    assert_eq!((up.replicas_before, up.known), (2, false));
    let spec = up.job.expect("a job").spec.expect("its spec");
    assert_eq!((spec.groups[0].replicas, spec.groups[0].replicas_max), (5, 6));
    all_ready(&client, id, 6).await;
    until_told(&cluster, &agents, &[0, 1, 2, 3, 4, 6]).await;
    let grown = told(&agents);
    for (rank, (assignment, _)) in &before {
        assert_eq!(grown[rank].0, *assignment, "rank {rank} was bound anew");
    }
    assert!([2, 3, 4].iter().all(|rank| grown[rank].1 == 6), "{grown:?}");
    let listed = client.job(id).await.expect("the job").replicas;
    assert_eq!(listed.iter().map(|one| one.rank).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 6]);

    // The same request again, at another server, is no second one.
    let again = scale(&cluster.client_of(2), workers(id, 5, "up")).await.expect("known");
    assert_eq!((again.replicas_before, again.known), (2, true));

    let down = v1::ScaleJobRequest { replicas_expected: Some(5), ..workers(id, 1, "down") };
    scale(&client, down).await.expect("scaled");
    until_told(&cluster, &agents, &[0, 6]).await;
    let left = told(&agents);
    assert!(left.iter().all(|(rank, one)| before[rank].0 == one.0), "{before:?} {left:?}");
    assert_eq!(client.gpu_milli_used().await, 4_000);
    assert_eq!(all_ready(&client, id, 2).await.counts.expect("counts").released, 0);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn what_may_not_be_is_refused_by_field_limit_and_value() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agents = agents(&client, 2).await;
    let id = client.submit("r", elastic()).await.expect("accepted").job.expect("a job").id;
    let ready = all_ready(&client, id, 3).await;
    let refused = async |to| scale(&client, to).await.expect_err("refused");

    let status = refused(workers(id, 7, "s")).await;
    assert_eq!((status.code(), fields(&status)), (Code::InvalidArgument, vec!["replicas".into()]));
    assert!(status.message().contains("is 7") && status.message().contains("1 to 6"), "{status}");
    assert_eq!(fields(&refused(workers(id, 0, "s")).await), ["replicas"]);
    assert_eq!(fields(&refused(workers(id, 3, "")).await), ["request_id"]);
    let other = |group: &str| v1::ScaleJobRequest { group: group.into(), ..workers(id, 1, "s") };
    let status = refused(other("nobody")).await;
    assert_eq!(fields(&status), ["group"]);
    assert!(status.message().contains("workers, beside"), "{status}");
    for bad in ["", "a b", "\u{1b}[2J", &"x".repeat(64)] {
        assert_eq!(fields(&refused(other(bad)).await), ["group"], "{bad:?}");
    }
    let guess = v1::ScaleJobRequest { replicas_expected: Some(4), ..workers(id, 3, "s") };
    let status = refused(guess).await;
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    assert!(status.message().contains("has 2 replicas, not 4"), "{status}");
    assert_eq!(refused(workers(id + 1, 3, "s")).await.code(), Code::NotFound);
    let unchanged = client.job(id).await.expect("the job").job.expect("a job");
    assert_eq!(unchanged, ready, "nothing changed");

    scale(&client, workers(id, 3, "s")).await.expect("scaled");
    assert_eq!(refused(workers(id, 2, "s")).await.code(), Code::AlreadyExists);
    client.cancel(id).await.expect("cancelled");
    assert_eq!(refused(workers(id, 2, "t")).await.code(), Code::FailedPrecondition);
    assert!(scale(&client, workers(id, 3, "s")).await.expect("known").known);
    cluster.stop_and_check();
}

#[tokio::test]
async fn growth_waits_for_room_and_outlives_its_leader() {
    let mut cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut nodes = agents(&client, 2).await;
    let id = client.submit("r", elastic()).await.expect("accepted").job.expect("a job").id;
    all_ready(&client, id, 3).await;
    // One of the two fits: the job stays ready meanwhile.
    scale(&client, workers(id, 4, "up")).await.expect("scaled");
    let half = |job: &v1::Job| {
        let counts = job.counts.as_ref().expect("counts");
        (counts.ready, counts.waiting) == (4, 1)
    };
    let waits = client.until(id, "one of two placed", half).await;
    assert_eq!(waits.phase(), JobPhase::Ready);
    let target = Some(v1::explain_job_request::Target::JobId(id));
    let explain = v1::ExplainJobRequest { target, ..Default::default() };
    let why = client.jobs().explain_job(client.request(explain)).await.expect("explained");
    assert_eq!(why.get_ref().replicas_waiting, 1);

    let leader = cluster.leader().await;
    cluster.kill(leader);
    cluster.leader().await;
    let survivors = cluster.client();
    // The leader's answer might have been lost: the request is repeated at the others.
    let deadline = Instant::now() + PATIENCE;
    let again = loop {
        match scale(&survivors, workers(id, 4, "up")).await {
            Err(status) if is_passing(&status) && Instant::now() < deadline => pause().await,
            answer => break answer.expect("known"),
        }
    };
    assert_eq!((again.replicas_before, again.known), (2, true));
    nodes.push(TestAgent::start(&survivors, "late", 4, Behaviour::Obedient).await);
    let grown = all_ready(&survivors, id, 5).await.spec.expect("its spec");
    assert_eq!(grown.groups[0].replicas, 4);
    cluster.start_server(leader);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}
