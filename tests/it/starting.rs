//! Groups that start one after the other, on real servers.

use crate::harness::Cluster;
use crate::harness::PATIENCE;
use crate::harness::client::{Client, fields, pause};
use crate::harness::nodes::{Behaviour, TestAgent};
use crate::harness::specs::job;
use proto::v1::{self, JobPhase, JobSpec};
use tokio::time::Instant;
use tonic::Code;

/// A head and two workers that wait for it, each group on a node of its own.
fn ordered(head: &str, workers: &str) -> JobSpec {
    let mut spec = job(2, 1);
    spec.groups[0].depends_on = vec!["head".to_owned()];
    let mut first = job(1, 1).groups.remove(0);
    first.name = "head".to_owned();
    first.role = v1::Role::Head.into();
    spec.groups.push(first);
    for (group, node) in spec.groups.iter_mut().zip([workers, head]) {
        group.selectors = vec![v1::Selector {
            key: "muster/node".to_owned(),
            operator: v1::SelectorOperator::In.into(),
            values: vec![node.to_owned()],
        }];
    }
    spec
}

/// Ranks of the job that the agent was told of.
fn ranks(agent: &TestAgent, id: u64) -> Vec<u32> {
    let holds = agent.holds.lock().expect("not poisoned");
    holds.keys().filter(|(job, _)| *job == id).map(|(_, rank)| *rank).collect()
}

async fn submit(client: &Client, request: &str, spec: JobSpec) -> u64 {
    client.submit(request, spec).await.expect("accepted").job.expect("a job").id
}

#[tokio::test]
async fn workers_are_told_once_their_head_runs() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let quick = TestAgent::start(&client, "quick", 8, Behaviour::Obedient).await;
    let slow = TestAgent::start(&client, "slow", 8, Behaviour::Slow).await;
    let held = submit(&client, "held", ordered("slow", "quick")).await;
    let deadline = Instant::now() + PATIENCE;
    while ranks(&slow, held) != [2] {
        cluster.assert_time_left(deadline, "the head is told");
        pause().await;
    }
    // What the workers' agent is told after that still leaves them out, though they are placed.
    let other = submit(&client, "other", ordered("quick", "quick")).await;
    client.until_phase(other, JobPhase::Ready).await;
    assert_eq!((ranks(&quick, other), ranks(&quick, held)), (vec![0, 1, 2], vec![]));
    let shown = client.job(held).await.expect("the job");
    let shown = shown.job.expect("a job");
    let wait = v1::GroupWait { group: "workers".into(), waits_for: vec!["head".into()] };
    assert_eq!(shown.groups_waiting, [wait]);
    let counts = shown.counts.expect("counts");
    assert_eq!((counts.assigned, counts.starting), (2, 1));
    // Workers first, with a head that waits for them.
    let mut turned = ordered("quick", "quick");
    turned.groups[0].depends_on.clear();
    turned.groups[1].depends_on = vec!["workers".to_owned()];
    let turned = submit(&client, "turned", turned).await;
    client.until_phase(turned, JobPhase::Ready).await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn circles_are_refused_by_their_path() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client();
    let mut spec = ordered("a", "a");
    spec.groups[1].depends_on = vec!["workers".to_owned()];
    let refused = client.submit("circle", spec.clone()).await.expect_err("a circle");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields(&refused), ["spec.groups[0].depends_on"]);
    spec.groups[1].depends_on = vec!["nobody".to_owned()];
    let refused = client.submit("nobody", spec.clone()).await.expect_err("no such group");
    assert_eq!(fields(&refused), ["spec.groups[1].depends_on[0]"]);
    spec.groups[1].depends_on = vec!["workers".to_owned(), "workers".to_owned()];
    let refused = client.submit("twice", spec).await.expect_err("twice");
    assert_eq!(fields(&refused), ["spec.groups[1].depends_on"]);
    cluster.stop_and_check();
}
