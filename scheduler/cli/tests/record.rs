//! `muster record` beside a whole small cluster: a server, agents, jobs that come and go. What it
//! writes is read back as a trace that can be replayed.

use proto::v1::job_service_client::JobServiceClient;
use proto::v1::node_admin_service_client::NodeAdminServiceClient;
use proto::v1::{self, Job, JobKind, JobPhase, JobSpec};
use scheduler_agent::fleet::{Fleet, JOINS_MAX, Options};
use scheduler_agent::link::Credential;
use scheduler_agent::runtime::simulated::{self, StartTime};
use scheduler_core::unit::{DurationMs, TimeMs};
use scheduler_server::{Config, Server};
use simulator::trace::specs::{self, Specs};
use simulator::trace::{BadRows, Change, Format, Source, Trace};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;
use tonic::transport::Channel;

/// Longest wait for anything: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(60);
const NODES: usize = 4;

/// A machine with 8 GPUs; all stand on one site.
fn node(number: usize) -> v1::NodeSpec {
    let gpu = v1::Gpu { model: "H100-SXM".to_owned(), vram_mib: 81_920, ..v1::Gpu::default() };
    let place = v1::Place {
        region: "eu".to_owned(),
        zone: "eu-1".to_owned(),
        site: "eu-1a".to_owned(),
        rack: "r1".to_owned(),
    };
    v1::NodeSpec {
        name: format!("host-{number}"),
        gpus: vec![gpu; 8],
        cpu_milli: 96_000,
        memory_mib: 786_432,
        disk_mib: 4_194_304,
        place: Some(place),
        bandwidth_up_mbps: 10_000,
        bandwidth_down_mbps: 10_000,
        price_micro_usd: 2_500_000,
        ..v1::NodeSpec::default()
    }
}

struct Cluster {
    server: Server,
    fleet: Fleet,
    jobs: JobServiceClient<Channel>,
    admin: NodeAdminServiceClient<Channel>,
}

impl Cluster {
    async fn start(dir: &Path) -> Self {
        let server = Server::start(Config::dev(1, dir)).await.expect("the server starts");
        server.bootstrap(vec![server.member()]).await.expect("founded");
        server.wait_for_leader().await;
        let url = format!("http://{}", server.api_address());
        let start = StartTime::Fixed { ms: 1 };
        let fleet = Fleet::start_known(
            Options {
                servers: vec![url.clone()],
                credential: Credential::new(None, None).expect("no token"),
                nodes: (0..NODES).map(node).collect(),
                runtime: simulated::Options { start, failure_rate: 0.0, seed: 1 },
                joins_max: JOINS_MAX,
            },
            1,
        );
        let fleet = fleet.expect("the agents start");
        let there = fleet.wait(|progress| progress.sessions == NODES as u64);
        timeout(PATIENCE, there).await.expect("the nodes join");
        let channel = Channel::from_shared(url).expect("an address").connect_lazy();
        Self {
            server,
            fleet,
            jobs: JobServiceClient::new(channel.clone()),
            admin: NodeAdminServiceClient::new(channel),
        }
    }

    /// A gang of replicas with a GPU each; its number.
    async fn submit(&mut self, name: &str, replicas: u32) -> u64 {
        let shape = v1::Shape {
            gpus: Some(v1::shape::Gpus::GpuCount(1)),
            cpu_milli: 500,
            memory_mib: 64,
            ..v1::Shape::default()
        };
        let group = v1::Group {
            name: "workers".to_owned(),
            replicas,
            shape: Some(shape),
            ..v1::Group::default()
        };
        let spec = JobSpec {
            name: name.to_owned(),
            kind: JobKind::Plain.into(),
            groups: vec![group],
            rtt_us_max: 300_000,
            ..JobSpec::default()
        };
        let request_id = name.to_owned();
        let request = v1::SubmitJobRequest { request_id, spec: Some(spec), ..Default::default() };
        let answer = self.jobs.submit_job(request).await.expect("accepted").into_inner();
        answer.job.expect("a job").id
    }

    async fn until(&mut self, job_id: u64, phase: JobPhase) -> Job {
        let request = v1::WatchJobRequest { job_id, after_index: 0 };
        let mut stream = self.jobs.watch_job(request).await.expect("a watch").into_inner();
        let seen = async {
            while let Some(answer) = stream.message().await.expect("the watch goes on") {
                let job = answer.job.expect("a job");
                if job.phase() == phase {
                    return job;
                }
            }
            panic!("job {job_id} is over and never was {phase:?}");
        };
        timeout(PATIENCE, seen).await.expect("the phase comes")
    }

    async fn cancel(&mut self, job_id: u64) -> Job {
        let answer = self.jobs.cancel_job(v1::CancelJobRequest { job_id }).await;
        answer.expect("cancelled").into_inner().job.expect("a job")
    }
}

struct Recording {
    child: Child,
    says: Lines<BufReader<ChildStderr>>,
}

impl Recording {
    /// Starts the program and waits until it has looked once.
    async fn start(cluster: &Cluster, file: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["record", "--every", "100ms", "--nodes-every", "100ms", "--server"])
            .arg(format!("http://{}", cluster.server.api_address()))
            .arg(file)
            .env_remove("MUSTER_TOKEN")
            .env_remove("MUSTER_TENANT")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let stderr = child.stderr.take().expect("its messages");
        let mut recording = Self { child, says: BufReader::new(stderr).lines() };
        let said = recording.said().await;
        assert!(said.contains("recording into"), "{said}");
        recording
    }

    async fn said(&mut self) -> String {
        let line = timeout(PATIENCE, self.says.next_line()).await.expect("it says something");
        line.expect("readable").unwrap_or_default()
    }

    /// Ctrl-C; its last words.
    async fn stop(mut self) -> String {
        let id = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill").args(["-INT", &id]).status();
        assert!(sent.expect("kill runs").success());
        let said = self.said().await;
        let end = timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("a status");
        assert!(end.success(), "{end}: {said}");
        said
    }
}

fn read(file: &Path) -> Trace {
    let source = Source { format: Format::Jsonl, file: file.to_owned() };
    source.read(&mut BadRows::refuse()).expect("a trace")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_run_is_read_back_as_a_trace() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut cluster = Cluster::start(&dir.path().join("server")).await;
    let old = cluster.submit("old", 2).await;
    cluster.until(old, JobPhase::Ready).await;
    let over = cluster.submit("over", 1).await;
    cluster.cancel(over).await;
    let file = dir.path().join("run.jsonl");
    let rtt = |rtt_us| v1::SiteRtt {
        site_a: "eu-1a".to_owned(),
        site_b: "eu-1a".to_owned(),
        rtt_us,
        ..v1::SiteRtt::default()
    };
    let first = v1::SetSiteRttsRequest { rtts: vec![rtt(150)] };
    cluster.admin.set_site_rtts(first).await.expect("set");
    let recording = Recording::start(&cluster, &file).await;

    let short = cluster.submit("short", 3).await;
    cluster.until(short, JobPhase::Ready).await;
    let short_end = cluster.cancel(short).await;
    let huge = cluster.submit("huge", 100).await;
    cluster.cancel(huge).await;
    let stays = cluster.submit("stays", 1).await;
    cluster.until(stays, JobPhase::Ready).await;
    cluster.cancel(old).await;
    let nodes = v1::ListNodesRequest::default();
    let nodes = cluster.admin.list_nodes(nodes).await.expect("nodes").into_inner().nodes;
    let cordoned = nodes.first().expect("a node");
    let cordon = v1::CordonNodeRequest { node_id: cordoned.id };
    cluster.admin.cordon_node(cordon).await.expect("cordoned");
    let later = v1::SetSiteRttsRequest { rtts: vec![rtt(250)] };
    cluster.admin.set_site_rtts(later).await.expect("set");
    let said = recording.stop().await;
    assert!(said.contains("recorded 4 jobs, 4 nodes"), "{said}");

    let trace = read(&file);
    let names: Vec<u64> = trace.jobs.iter().map(|job| job.name.parse().expect("an id")).collect();
    assert_eq!(names, [old, short, huge, stays], "by submission; not what was over before");
    let [was_old, was_short, was_huge, was_stays] = trace.jobs.as_slice() else {
        panic!("four jobs");
    };
    assert_eq!(was_old.submit, Some(TimeMs::ZERO), "it ran before");
    assert!(was_old.duration.is_some() && was_huge.duration.is_none());
    assert!(was_stays.duration.is_some(), "it still ran, for as long as the trace tells at least");
    let ran = DurationMs((short_end.ended_time_ms - short_end.ready_time_ms).max(1));
    assert_eq!(was_short.duration, Some(ran), "to the millisecond, however rarely it looked");
    assert_eq!((was_short.replicas, was_short.total_milli()), (3, 3_000));
    let mut made = Specs::default();
    for job in &trace.jobs {
        let arrival = made.to_arrival(job).expect("an arrival");
        assert_eq!(arrival.spec.rtt_max.map(|rtt| rtt.0), Some(300_000), "all that was asked for");
        assert_eq!(arrival.life, job.duration);
    }
    assert_eq!(trace.nodes.len(), NODES);
    for (node, is) in trace.nodes.iter().zip(&nodes) {
        let spec = specs::node(node).expect("a declaration");
        let declared = is.spec.as_ref().expect("a spec");
        assert_eq!((spec.name.as_str(), spec.gpus.len()), (&*declared.name, declared.gpus.len()));
    }
    let rtts: Vec<u32> = trace.rtts.iter().map(|told| told.rtt.0).collect();
    assert_eq!(rtts, [150, 250], "as it was, and as it became");
    let befell: Vec<_> = trace.changes.iter().map(|c| (c.node.as_str(), c.change)).collect();
    let name = cordoned.spec.as_ref().map_or("", |spec| spec.name.as_str());
    assert_eq!(befell, [(name, Change::Cordoned)]);

    // A file that is there is never touched.
    let before = std::fs::read(&file).expect("the file");
    let again = Command::new(env!("CARGO_BIN_EXE_muster")).arg("record").arg(&file).output().await;
    assert_eq!(again.expect("it runs").status.code(), Some(2));
    assert_eq!(std::fs::read(&file).expect("the file"), before);
    cluster.fleet.stop().await;
    cluster.server.shutdown().await.expect("the server stops");
}
