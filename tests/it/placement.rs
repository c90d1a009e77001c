//! Gangs, races and repair on real servers: whole or not at all, and never a GPU twice.

use crate::harness::Cluster;
use crate::harness::client::Client;
use crate::harness::nodes::{Behaviour, TestAgent, join};
use crate::harness::specs::{job, job_with, node};
use proto::v1::{self, JobPhase, ReasonCode};
use std::collections::BTreeSet;

async fn agents(client: &Client, count: usize, gpus: usize) -> Vec<TestAgent> {
    let start = |at| {
        let client = client.clone();
        async move { TestAgent::start(&client, &format!("n{at}"), gpus, Behaviour::Obedient).await }
    };
    futures::future::join_all((0..count).map(start)).await
}

fn id_of(answer: v1::SubmitJobResponse) -> u64 {
    answer.job.expect("a job").id
}

#[tokio::test]
async fn a_gang_comes_up_and_goes() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let agents = agents(&client, 4, 8).await;
    let id = id_of(client.submit("gang", job(4, 8)).await.expect("accepted"));
    let ready = client.until_phase(id, JobPhase::Ready).await;
    assert_eq!((ready.nodes, ready.gpu_milli), (4, 32_000));
    let answer = client.job(id).await.expect("the job");
    let mut seen = BTreeSet::new();
    for replica in &answer.replicas {
        assert!(replica.gpus.iter().all(|&gpu| seen.insert((replica.node_id, gpu))), "GPU twice");
    }
    assert_eq!(seen.len(), 32);
    client.cancel(id).await.expect("cancelled");
    client.until_phase(id, JobPhase::Ended).await;
    assert_eq!(client.gpu_milli_used().await, 0);
    // The agents are told to let go.
    for agent in &agents {
        let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
        while !agent.holds.lock().expect("not poisoned").is_empty() {
            cluster.assert_time_left(deadline, "an agent still holds replicas");
            crate::harness::client::pause().await;
        }
    }
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn a_gang_one_gpu_too_large_reserves_nothing_and_starts_when_it_fits() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agents = agents(&client, 2, 8).await;
    let answer = client.submit("big", job(17, 1)).await.expect("accepted as pending");
    let big = answer.job.expect("a job");
    assert_eq!(big.phase(), JobPhase::Pending);
    let reason = big.reason.expect("a reason");
    assert_ne!(reason.code(), ReasonCode::Unspecified);
    assert!(reason.message.contains("16"), "the reason has the numbers: {}", reason.message);
    assert_eq!(client.gpu_milli_used().await, 0);
    // What is left over is not held back for it.
    let small = id_of(client.submit("small", job(16, 1)).await.expect("accepted"));
    client.until_phase(small, JobPhase::Ready).await;
    // A third node is not enough while the small one runs; when it goes, the gang starts.
    let _third = TestAgent::start(&client, "n3", 1, Behaviour::Obedient).await;
    client.cancel(small).await.expect("cancelled");
    client.until_phase(big.id, JobPhase::Ready).await;
    assert_eq!(client.gpu_milli_used().await, 17_000);
    cluster.stop_and_check();
}

#[tokio::test]
async fn of_two_gangs_racing_for_the_last_gpus_exactly_one_wins() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let _agents = agents(&client, 2, 8).await;
    for round in 0..5 {
        let submit = |who: usize| {
            let client = cluster.client_of(who);
            let spec = job(12, 1);
            async move { client.submit(&format!("r{round}-{who}"), spec).await.expect("accepted") }
        };
        let (a, b) = tokio::join!(submit(0), submit(1));
        let phases = [a, b].map(|answer| answer.job.expect("a job"));
        let pending = phases.iter().filter(|job| job.phase() == JobPhase::Pending).count();
        assert_eq!(pending, 1, "round {round}: {phases:?}");
        assert_eq!(client.gpu_milli_used().await, 12_000);
        for job in phases {
            client.cancel(job.id).await.expect("cancelled");
        }
    }
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn two_hundred_callers_share_the_last_eight_gpus() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let _agents = agents(&client, 1, 8).await;
    let calls = (0..200).map(|n| {
        let client = cluster.client_of(n % 3);
        async move { client.submit_surely(&format!("c{n}"), job(1, 1)).await }
    });
    let answers = futures::future::join_all(calls).await;
    let placed = answers
        .iter()
        .filter(|answer| answer.job.as_ref().expect("a job").phase() != JobPhase::Pending)
        .count();
    assert_eq!(placed, 8);
    assert_eq!(client.gpu_milli_used().await, 8_000);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn shares_of_one_gpu_add_up_to_one() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agents = agents(&client, 1, 1).await;
    let share = |milli: u32| {
        job_with(|spec| {
            let shape = spec.groups[0].shape.as_mut().expect("a shape");
            shape.gpus = Some(v1::shape::Gpus::GpuMilli(milli));
        })
    };
    let first = id_of(client.submit("a", share(600)).await.expect("accepted"));
    let second = id_of(client.submit("b", share(400)).await.expect("accepted"));
    client.until_phase(first, JobPhase::Ready).await;
    client.until_phase(second, JobPhase::Ready).await;
    let third = client.submit("c", share(1)).await.expect("accepted as pending");
    assert_eq!(third.job.expect("a job").phase(), JobPhase::Pending);
    cluster.stop_and_check();
}

#[tokio::test]
async fn a_drained_nodes_members_move_and_a_dead_ones_are_replaced() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let mut agents = agents(&client, 4, 8).await;
    let id = id_of(client.submit("gang", job(2, 8)).await.expect("accepted"));
    client.until_phase(id, JobPhase::Ready).await;
    let members = |answer: v1::GetJobResponse| {
        answer.replicas.iter().map(|replica| replica.node_id).collect::<BTreeSet<_>>()
    };
    let before = members(client.job(id).await.expect("the job"));
    let drained = *before.first().expect("a member");
    let message = v1::DrainNodeRequest { node_id: drained };
    client.admin().drain_node(client.operator(message)).await.expect("drained");
    let seen = |job: &v1::Job| {
        job.phase() == JobPhase::Ready && job.counts.as_ref().is_some_and(|c| c.ready == 2)
    };
    client.until(id, "both members ready again", seen).await;
    let after = members(client.job(id).await.expect("the job"));
    assert!(!after.contains(&drained) && after.len() == 2, "{before:?} -> {after:?}");
    // One of the two leaves for good.
    let gone = agents.iter().position(|agent| after.contains(&agent.node_id)).expect("a member");
    let agent = agents.remove(gone);
    let message = v1::LeaveRequest {
        node_id: agent.node_id,
        epoch: agent.epoch,
        node_key: agent.key.clone().into(),
    };
    let request = client.supplier(crate::harness::nodes::SUPPLIER, message);
    client.nodes().leave(request).await.expect("left");
    let left = agent.node_id;
    drop(agent);
    let deadline = tokio::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        client.until(id, "both members ready again", seen).await;
        if !members(client.job(id).await.expect("the job")).contains(&left) {
            break;
        }
        cluster.assert_time_left(deadline, "the member on the node that left was not replaced");
        crate::harness::client::pause().await;
    }
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn replicas_that_cannot_start_fail_their_job_in_the_end() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let _agent = TestAgent::start(&client, "n1", 1, Behaviour::Failing).await;
    let id = id_of(client.submit("x", job(1, 1)).await.expect("accepted"));
    let failed = client.until_phase(id, JobPhase::Failed).await;
    assert_eq!(failed.reason.expect("a reason").code(), ReasonCode::ReplicaFailed);
    assert_eq!(client.gpu_milli_used().await, 0);
    cluster.stop_and_check();
}

#[tokio::test]
async fn a_plan_says_where_and_why_not_and_changes_nothing() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let instance = [3; 16];
    join(&client, &node("n1", 8), &[9; 32], &instance).await;
    let before = cluster.equal_hashes().await;
    let plan = |spec| {
        let message = v1::PlanJobRequest { spec: Some(spec), ..Default::default() };
        let (client, mut jobs) = (client.clone(), client.jobs());
        async move { jobs.plan_job(client.request(message)).await.expect("an answer").into_inner() }
    };
    let fits = plan(job(2, 4)).await;
    assert!(fits.placeable);
    assert_eq!((fits.replicas.len(), fits.nodes), (2, 1));
    assert_eq!(fits.price_micro_usd_per_hour, 8 * 2_500_000);
    let not = plan(job(3, 4)).await;
    assert!(!not.placeable);
    assert_eq!(not.causes.iter().map(|cause| cause.nodes).sum::<u32>(), not.nodes_total);
    assert_eq!(not.replicas_placeable, 2);
    assert_eq!(cluster.equal_hashes().await, before, "a plan changed the state");
    cluster.stop_and_check();
}
