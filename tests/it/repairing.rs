//! Lost replicas replaced as their groups ask, on real servers: so many at once, and where they
//! stood.

use crate::harness::client::{Client, pause};
use crate::harness::nodes::{Behaviour, TestAgent};
use crate::harness::{Cluster, PATIENCE, specs};
use proto::v1::{self, JobPhase, TopologyLevel};
use tokio::time::Instant;

async fn agent(client: &Client, name: &str, rack: &str, behaviour: Behaviour) -> TestAgent {
    let mut node = specs::node(name, 8);
    node.place.as_mut().expect("a place").rack = rack.to_owned();
    TestAgent::start_as(client, node, behaviour).await
}

async fn submit(
    client: &Client,
    name: &str,
    replicas: u32,
    racks: [&str; 2],
    repair: v1::Repair,
) -> u64 {
    let mut spec = specs::job(replicas, 8);
    spec.groups[0].selectors = vec![v1::Selector {
        key: "muster/rack".to_owned(),
        operator: v1::SelectorOperator::In.into(),
        values: racks.map(str::to_owned).to_vec(),
    }];
    spec.groups[0].repair = Some(repair);
    let id = client.submit(name, spec).await.expect("accepted").job.expect("a job").id;
    client.until_phase(id, JobPhase::Ready).await;
    id
}

fn counts(job: &v1::Job) -> v1::ReplicaCounts {
    job.counts.expect("counts")
}

/// Of the replicas on these nodes, as the servers tell it.
async fn node_names(client: &Client, id: u64) -> Vec<String> {
    let shown = client.job(id).await.expect("the job");
    let mut names: Vec<String> = shown.replicas.into_iter().map(|one| one.node_name).collect();
    names.sort();
    names
}

#[tokio::test]
async fn one_after_the_other_and_in_their_rack() {
    let cluster = Cluster::start(3).await;
    let client = cluster.client();
    let (a, b) = (
        agent(&client, "a", "r1", Behaviour::Obedient).await,
        agent(&client, "b", "r1", Behaviour::Obedient).await,
    );
    let in_flight_max = 1;
    let near = v1::Repair { in_flight_max, level: TopologyLevel::Rack.into(), preferred: false };
    let job = submit(&client, "near", 2, ["r1", "r2"], near).await;
    let p = agent(&client, "p", "r3", Behaviour::Obedient).await;
    let preferred = v1::Repair { preferred: true, ..near };
    let wish = submit(&client, "wish", 1, ["r2", "r3"], preferred).await;
    // Room to come back to, where starts take for ever, and room elsewhere.
    let mut slow = Vec::new();
    for name in ["s1", "s2"] {
        slow.push((name, agent(&client, name, "r1", Behaviour::Slow).await));
    }
    let far = agent(&client, "far", "r2", Behaviour::Obedient).await;
    drop((a, b, p));

    // The wish is met elsewhere; of the others one comes back, and one waits for it.
    let deadline = Instant::now() + PATIENCE;
    while node_names(&client, wish).await != ["far"] {
        cluster.assert_time_left(deadline, "it is replaced elsewhere");
        pause().await;
    }
    client.until_phase(wish, JobPhase::Ready).await;
    let halfway = |job: &v1::Job| (counts(job).starting, counts(job).failed) == (1, 1);
    let shown = client.until(job, "one of two starts", halfway).await;
    assert_eq!(shown.phase(), JobPhase::Repairing);
    let target = Some(v1::explain_job_request::Target::JobId(job));
    let request = client.request(v1::ExplainJobRequest { target, ..Default::default() });
    let explained = client.jobs().explain_job(request).await.expect("explained").into_inner();
    let summary = explained.explanation.expect("one waits").summary;
    let wanted = "waits until replacements that start now run: 1 lost of workers, of which at most 1 may start at once";
    assert_eq!((explained.replicas_waiting, summary.as_str()), (1, wanted));

    // As soon as it runs, the other one follows.
    let mut quick = Vec::new();
    for _ in 0..slow.len() {
        let deadline = Instant::now() + PATIENCE;
        let holds = |agent: &TestAgent| !agent.holds.lock().expect("not poisoned").is_empty();
        let at = loop {
            if let Some(at) = slow.iter().position(|(_, agent)| holds(agent)) {
                break at;
            }
            cluster.assert_time_left(deadline, "a replica starts");
            pause().await;
        };
        let (name, agent_before) = slow.remove(at);
        drop(agent_before);
        quick.push(agent(&client, name, "r1", Behaviour::Obedient).await);
    }
    client.until_phase(job, JobPhase::Ready).await;
    assert_eq!(node_names(&client, job).await, ["s1", "s2"]);
    assert_eq!(far.holds.lock().expect("not poisoned").len(), 1);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}
