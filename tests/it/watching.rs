//! Clients that watch jobs and do not read: the server parts with them, and everybody else goes on.

use crate::harness::client::pause;
use crate::harness::{PATIENCE, specs};
use proto::v1::job_service_client::JobServiceClient;
use proto::v1::node_service_client::NodeServiceClient;
use proto::v1::{self, JobPhase};
use scheduler_server::{Config, Server};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt as _;

/// What the jobs of these tests carry: far more than the windows of the clients that do not read.
const PROGRAM_BYTES: usize = 60_000;
/// Room that such a client leaves per stream.
const WINDOW_BYTES: u32 = 4_096;
const SLOW: usize = 8;
/// Short: a watch may stay unread for three of it.
const LEASE_MS: u64 = 400;

struct Quorum {
    servers: Vec<Server>,
    _dir: TempDir,
}

impl Quorum {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let mut servers = Vec::new();
        for id in 1..=3 {
            let mut config = Config::dev(id, dir.path().join(id.to_string()));
            config.server.store.segment_bytes = Some(4 << 20);
            config.cluster.timing.lease_ms = LEASE_MS;
            servers.push(Server::start(config).await.expect("the server starts"));
        }
        let members: Vec<_> = servers.iter().map(Server::member).collect();
        for server in &servers {
            server.bootstrap(members.clone()).await.expect("is founded");
        }
        for server in &servers {
            server.wait_for_leader().await;
        }
        Self { servers, _dir: dir }
    }

    /// A node joins, and says nothing any more.
    async fn join(&self) {
        let address = format!("http://{}", self.servers[0].api_address());
        let channel = Endpoint::from_shared(address).expect("an address").connect_lazy();
        let message = v1::JoinRequest {
            spec: Some(specs::node("a", 1)),
            node_key: vec![7; 32].into(),
            instance: vec![9; 16].into(),
        };
        NodeServiceClient::new(channel).join(message).await.expect("joins");
    }

    fn client(&self, window: Option<u32>) -> JobServiceClient<Channel> {
        let address = format!("http://{}", self.servers[0].api_address());
        let endpoint = Endpoint::from_shared(address).expect("an address");
        JobServiceClient::new(endpoint.initial_stream_window_size(window).connect_lazy())
    }

    /// Waits until the watches of the first server are as wanted.
    async fn until(&self, what: &str, seen: impl Fn(usize, usize) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let watches = self.servers[0].watches();
        while !seen(watches.len(), watches.unread_bytes()) {
            let now = (watches.len(), watches.unread_bytes());
            assert!(Instant::now() < deadline, "{what}: watches and unread bytes are {now:?}");
            pause().await;
        }
    }
}

/// A job that waits, there being no nodes.
fn submit(id: &str) -> v1::SubmitJobRequest {
    let argv = vec!["x".repeat(PROGRAM_BYTES)];
    let program = Some(v1::Program { argv, ..Default::default() });
    let spec = specs::job_with(|spec| spec.program = program);
    v1::SubmitJobRequest { request_id: id.to_owned(), spec: Some(spec), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watchers_that_never_read_are_parted_with_and_the_others_go_on() {
    let quorum = Quorum::start().await;
    let (mut good, mut slow) = (quorum.client(None), quorum.client(Some(WINDOW_BYTES)));
    let job = good.submit_job(submit("one")).await.expect("accepted").into_inner().job;
    let job_id = job.expect("a job").id;
    let request = v1::WatchJobRequest { job_id, after_index: 0 };

    let mut unread = Vec::new();
    for _ in 0..SLOW {
        unread.push(slow.watch_job(request).await.expect("is watched").into_inner());
    }
    let mut read = good.watch_job(request).await.expect("is watched").into_inner();
    let first = read.message().await.expect("lives").expect("goes on").job.expect("a job");
    assert_eq!(first.phase(), JobPhase::Pending);
    let carried = first.spec.and_then(|spec| spec.program).map_or(0, |one| one.argv[0].len());
    assert_eq!(carried, PROGRAM_BYTES);
    let one = PROGRAM_BYTES + 4_096;
    let held = SLOW * PROGRAM_BYTES..=(SLOW + 1) * one;

    // The first message fills the connections; with the next changes one more waits for each, and
    // no more than one: a node comes, and is lost again as nobody keeps its session.
    quorum.join().await;
    loop {
        let seen = read.message().await.expect("lives").expect("goes on").job.expect("a job");
        if seen.phase() != JobPhase::Pending {
            break;
        }
    }
    quorum.until("a message waits for each slow one", |_, bytes| held.contains(&bytes)).await;

    // They are parted with, and nobody else notices.
    quorum.until("parted with the slow ones", |watches, _| watches == 1).await;
    assert!(held.contains(&quorum.servers[0].watches().unread_bytes()));
    good.submit_job(submit("two")).await.expect("the server goes on");
    good.cancel_job(v1::CancelJobRequest { job_id }).await.expect("cancelled");
    loop {
        let seen = read.message().await.expect("lives").expect("goes on").job.expect("a job");
        if seen.phase() == JobPhase::Ended {
            break;
        }
    }
    assert!(read.message().await.expect("ends well").is_none());
    assert!(held.contains(&quorum.servers[0].watches().unread_bytes()));

    // One that reads again after all: what was on its way, then why there is no more.
    let mut late = unread.pop().expect("a stream");
    let mut old = 0;
    let status = loop {
        match late.message().await {
            Ok(message) => assert!(message.is_some(), "ended without a word"),
            Err(status) => break status,
        }
        old += 1;
    };
    assert_eq!(old, 2, "what the connection held, and what waited for it");
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let info = status.get_details_error_info().expect("says why");
    assert_eq!(info.reason, "WATCH_NOT_READ");
    let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(retry.is_some_and(|delay| delay > Duration::ZERO));
    drop((unread, late, read));
    quorum.until("nothing is left of them", |watches, bytes| (watches, bytes) == (0, 0)).await;
    for server in quorum.servers {
        server.shutdown().await.expect("stops in good order");
    }
}

/// Who reads slowly, but reads, keeps the watch and sees the job as it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_with_little_room_that_reads_is_kept() {
    let quorum = Quorum::start().await;
    let mut client = quorum.client(Some(WINDOW_BYTES));
    let job = client.submit_job(submit("one")).await.expect("accepted").into_inner().job;
    let job_id = job.expect("a job").id;
    let request = v1::WatchJobRequest { job_id, after_index: 0 };
    let mut watch = client.watch_job(request).await.expect("is watched").into_inner();
    let first = watch.message().await.expect("lives").expect("goes on").job.expect("a job");
    assert_eq!(first.phase(), JobPhase::Pending);
    // It waits for a change for longer than a watch may stay unread.
    let silence = Duration::from_millis(LEASE_MS * 5);
    let quiet = tokio::time::timeout(silence, watch.message()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(quorum.servers[0].watches().len(), 1);
    client.cancel_job(v1::CancelJobRequest { job_id }).await.expect("cancelled");
    let last = watch.message().await.expect("lives").expect("goes on").job.expect("a job");
    assert_eq!(last.phase(), JobPhase::Ended);
    drop(watch);
    for server in quorum.servers {
        server.shutdown().await.expect("stops in good order");
    }
}
