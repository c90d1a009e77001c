//! The shortest way through everything: servers in this process, nodes that only join, jobs placed.

use proto::v1::job_service_client::JobServiceClient;
use proto::v1::node_service_client::NodeServiceClient;
use proto::v1::quorum_service_client::QuorumServiceClient;
use proto::v1::{self, JobPhase};
use scheduler_server::{Config, Server};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// A quorum of playground servers in this process.
struct Quorum {
    servers: Vec<Server>,
    _dir: TempDir,
}

impl Quorum {
    async fn start(servers: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let mut started = Vec::new();
        for id in 1..=servers {
            let mut config = Config::dev(id, dir.path().join(id.to_string()));
            config.server.store.segment_bytes = Some(4 << 20);
            // Nobody keeps a session here.
            config.cluster.timing.lease_ms = 600_000;
            started.push(Server::start(config).await.expect("the server starts"));
        }
        let members: Vec<_> = started.iter().map(Server::member).collect();
        for server in &started {
            server.bootstrap(members.clone()).await.expect("is founded");
        }
        for server in &started {
            server.wait_for_leader().await;
        }
        Self { servers: started, _dir: dir }
    }

    fn channel(&self, at: usize) -> Channel {
        let address = self.servers[at].api_address();
        Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
    }

    async fn stop(self) {
        for server in self.servers {
            server.shutdown().await.expect("stops in good order");
        }
    }
}

async fn join(channel: &Channel, name: &str, gpus: usize) {
    let message = v1::JoinRequest {
        spec: Some(crate::harness::specs::node(name, gpus)),
        node_key: vec![7; 32].into(),
        instance: vec![9; 16].into(),
    };
    NodeServiceClient::new(channel.clone()).join(message).await.expect("joins");
}

fn submit(id: &str, replicas: u32, gpus: u32) -> v1::SubmitJobRequest {
    let spec = Some(crate::harness::specs::job(replicas, gpus));
    v1::SubmitJobRequest { request_id: id.to_owned(), spec, ..Default::default() }
}

/// Joins two nodes through one server and places jobs through each.
async fn places_jobs(servers: u64) {
    let quorum = Quorum::start(servers).await;
    join(&quorum.channel(0), "a", 8).await;
    join(&quorum.channel(quorum.servers.len() - 1), "b", 8).await;
    for at in 0..quorum.servers.len() {
        let mut jobs = JobServiceClient::new(quorum.channel(at));
        let response = jobs.submit_job(submit(&format!("r{at}"), 2, 2)).await.expect("accepted");
        assert!(response.metadata().get("x-muster-leader").is_some());
        let answer = response.into_inner();
        let job = answer.job.expect("a job");
        assert_eq!(job.phase(), JobPhase::Placed, "{job:?}");
        assert!(answer.decide_us > 0 && answer.commit_us > 0 && !answer.known);
        let again = jobs.submit_job(submit(&format!("r{at}"), 2, 2)).await.expect("known");
        let again = again.into_inner();
        assert!(again.known);
        assert_eq!(again.job.expect("a job").id, job.id);
        let other = jobs.submit_job(submit(&format!("r{at}"), 1, 2)).await.expect_err("reused");
        assert_eq!(other.code(), tonic::Code::AlreadyExists);
    }
    let held = 4 * u32::try_from(servers).expect("few");
    let mut jobs = JobServiceClient::new(quorum.channel(0));
    // What is left fits exactly; one more waits, and starts when the first gang goes.
    let rest = jobs.submit_job(submit("rest", 16 - held, 1)).await.expect("accepted").into_inner();
    assert_eq!(rest.job.expect("a job").phase(), JobPhase::Placed);
    let late = jobs.submit_job(submit("late", 1, 1)).await.expect("accepted").into_inner();
    let late = late.job.expect("a job");
    assert_eq!(late.phase(), JobPhase::Pending, "{late:?}");
    jobs.cancel_job(v1::CancelJobRequest { job_id: 1 }).await.expect("cancelled");
    let watch = v1::WatchJobRequest { job_id: late.id, after_index: 0 };
    let mut watch = jobs.watch_job(watch).await.expect("is watched").into_inner();
    loop {
        let seen = watch.message().await.expect("lives").expect("goes on").job.expect("a job");
        if seen.phase() == JobPhase::Placed {
            break;
        }
    }
    drop(watch);
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_places_jobs() {
    places_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_place_jobs_whichever_is_asked() {
    places_jobs(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_of_a_batch_stands_for_itself() {
    let quorum = Quorum::start(1).await;
    join(&quorum.channel(0), "a", 8).await;
    let mut jobs = JobServiceClient::new(quorum.channel(0));
    let mut bad = submit("bad", 1, 1);
    bad.spec.as_mut().expect("a spec").kind = 0;
    let requests = vec![submit("one", 1, 4), bad, submit("one", 1, 4), submit("two", 1, 8)];
    let answer = jobs.submit_jobs(v1::SubmitJobsRequest { requests }).await.expect("an answer");
    let results = answer.into_inner().results;
    let id = |at: usize| match results[at].result.as_ref().expect("a result") {
        v1::submit_jobs_result::Result::JobId(id) => *id,
        v1::submit_jobs_result::Result::Refusal(refusal) => panic!("{at}: {refusal:?}"),
    };
    assert!(results[0].placed && !results[0].known);
    assert_eq!(id(0), id(2));
    assert!(results[2].known);
    assert!(!results[3].placed && id(3) != id(0));
    match results[1].result.as_ref().expect("a result") {
        v1::submit_jobs_result::Result::Refusal(refusal) => {
            assert_eq!(refusal.field, "requests[1].spec.kind");
        }
        v1::submit_jobs_result::Result::JobId(id) => panic!("accepted as {id}"),
    }
    quorum.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_leader_goes_on_with_the_jobs_that_wait() {
    let quorum = Quorum::start(3).await;
    join(&quorum.channel(0), "a", 8).await;
    let mut jobs = JobServiceClient::new(quorum.channel(0));
    let waiting = jobs.submit_job(submit("late", 2, 8)).await.expect("accepted").into_inner();
    let waiting = waiting.job.expect("a job");
    assert_eq!(waiting.phase(), JobPhase::Pending);
    let before = quorum.servers[0].quorum().status().leader.expect("a leader").id;
    let mut operator = QuorumServiceClient::new(quorum.channel(1));
    let message = v1::TransferLeaderRequest { server_id: 0 };
    let after = operator.transfer_leader(message).await.expect("moved").into_inner().leader_id;
    assert_ne!(after, before.0);
    join(&quorum.channel(2), "b", 8).await;
    let watch = v1::WatchJobRequest { job_id: waiting.id, after_index: waiting.modified_index };
    let mut watch = jobs.watch_job(watch).await.expect("is watched").into_inner();
    loop {
        let seen = watch.message().await.expect("lives").expect("goes on").job.expect("a job");
        if seen.phase() == JobPhase::Placed {
            assert_eq!(seen.nodes, 2);
            break;
        }
    }
    drop(watch);
    quorum.stop().await;
}
