//! Agents' sessions against real servers on loopback, spoken by hand: epochs, identities, leases,
//! reports, and moving from one server to another.

use proto::v1::node_admin_service_client::NodeAdminServiceClient;
use proto::v1::node_service_client::NodeServiceClient;
use proto::v1::session_request::Message as Say;
use proto::v1::session_response::Message as Hear;
use proto::v1::{self, NodeStatus, ObservedPhase, SessionEndReason, SessionRequest};
use scheduler_core::command::{Actor, Command, Entry, Outcome, Submit};
use scheduler_core::id::{JobId, Rank};
use scheduler_core::job::{Job, JobPhase, ReplicaPhase};
use scheduler_core::state::State;
use scheduler_server::forward::{LeaderCall, LeaderReply};
use scheduler_server::{Config, Server};
use std::collections::BTreeMap;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt as _;

/// Longest wait for anything: far beyond what it takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lease of tests that let one end.
const SHORT_LEASE_MS: u64 = 4_000;
/// Lease of tests in which none may end, however slow the machine.
const LONG_LEASE_MS: u64 = 60_000;

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// Servers of one quorum in this process.
struct Quorum {
    servers: Vec<Server>,
    _dir: TempDir,
}

impl Quorum {
    async fn start(servers: usize, lease_ms: u64) -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let mut started = Vec::new();
        for id in 1..=servers as u64 {
            let mut config = Config::dev(id, dir.path().join(id.to_string()));
            config.cluster.timing.lease_ms = lease_ms;
            config.server.store.segment_bytes = Some(4 << 20);
            started.push(Server::start(config).await.expect("the server starts"));
        }
        let members: Vec<_> = started.iter().map(Server::member).collect();
        for server in &started {
            server.bootstrap(members.clone()).await.expect("founded");
        }
        for server in &started {
            server.wait_for_leader().await;
        }
        Self { servers: started, _dir: dir }
    }

    fn address(&self, at: usize) -> String {
        self.servers[at].api_address().to_string()
    }

    /// Waits until the state of one server is as expected.
    async fn until<T>(&self, at: usize, what: &str, seen: impl Fn(&State) -> Option<T>) -> T {
        let end = deadline();
        let quorum = self.servers[at].quorum();
        let mut index = 0;
        loop {
            let (found, now) = quorum.read(|state| (seen(state), state.index()));
            if let Some(found) = found {
                return found;
            }
            assert!(Instant::now() < end, "never came to: {what}");
            // The next change, whatever it is; a look now and then in case there is none.
            index = index.max(now);
            let look = (Instant::now() + Duration::from_millis(100)).min(end);
            let _ = quorum.wait_applied(index + 1, look.into_std()).await;
        }
    }

    /// Has the leader log a command.
    async fn propose(&self, command: Command) -> Outcome {
        let at = scheduler_core::unit::TimeMs(0);
        let entry = Entry { at, by: Actor::Operator, command };
        let call = LeaderCall::Propose(vec![entry]);
        match self.servers[0].router().call(call, deadline()).await.expect("proposed") {
            LeaderReply::Proposed { results, .. } => {
                results.into_iter().next().expect("one result").expect("accepted")
            }
            other => panic!("{other:?}"),
        }
    }

    /// A job with one replica on each of the nodes, of a GPU each, placed by hand.
    async fn place(&self, request_id: &str, nodes: &[(u32, u32)]) -> JobId {
        use scheduler_core::fixture::entry::{group, job_spec, placement};
        let placed = nodes.iter().zip(0u32..).map(|(&(node, epoch), rank)| {
            let node_epoch = scheduler_core::id::Epoch(epoch);
            scheduler_core::command::Placement { node_epoch, ..placement(rank, node, 1) }
        });
        let plan = scheduler_core::command::Plan { placements: placed.collect() };
        let replicas = u32::try_from(nodes.len()).expect("few");
        let spec = job_spec(vec![group("w", replicas, 1)]);
        let tenant = scheduler_core::fixture::entry::tenant("dev");
        let known = |state: &State| state.tenant(&tenant).map(|_| ());
        self.until(0, "the playground's tenant", known).await;
        let submit = Submit {
            tenant,
            ..scheduler_core::fixture::entry::submit(request_id, spec, Some(plan))
        };
        match self.propose(Command::Submit(submit)).await {
            Outcome::Submitted { job, placed: true, .. } => job,
            other => panic!("{other:?}"),
        }
    }

    async fn until_phase(&self, job: JobId, phase: JobPhase) {
        let there = |state: &State| {
            let is = |job: &std::sync::Arc<Job>| job.phase == phase;
            state.job(job).filter(|job| is(job)).map(|_| ())
        };
        self.until(0, &format!("{job} in phase {phase:?}"), there).await;
    }
}

/// An agent that says exactly what its test wants.
struct Agent {
    nodes: NodeServiceClient<Channel>,
    name: &'static str,
    key: [u8; 32],
    instance: [u8; 16],
}

impl Agent {
    fn new(quorum: &Quorum, at: usize, name: &'static str) -> Self {
        let (key, instance) = ([name.len() as u8; 32], [1; 16]);
        let mut agent = Self { nodes: nodes(&quorum.address(at)), name, key, instance };
        agent.key[..name.len()].copy_from_slice(name.as_bytes());
        agent
    }

    /// The same machine and key in another process.
    fn copy(&self, instance: u8) -> Self {
        Self { nodes: self.nodes.clone(), instance: [instance; 16], ..*self }
    }

    /// The same process, turned to another server.
    fn at(&self, quorum: &Quorum, at: usize) -> Self {
        Self { nodes: nodes(&quorum.address(at)), ..*self }
    }

    async fn try_join(&self) -> Result<v1::JoinResponse, Status> {
        let message = v1::JoinRequest {
            spec: Some(spec(self.name)),
            node_key: self.key.to_vec().into(),
            instance: self.instance.to_vec().into(),
        };
        Ok(self.nodes.clone().join(Request::new(message)).await?.into_inner())
    }

    async fn join(&self) -> v1::JoinResponse {
        self.try_join().await.expect("joins")
    }

    fn hello(&self, joined: &v1::JoinResponse) -> v1::SessionHello {
        v1::SessionHello {
            node_id: joined.node_id,
            epoch: joined.epoch,
            node_key: self.key.to_vec().into(),
            instance: self.instance.to_vec().into(),
        }
    }

    async fn try_open(&self, hello: v1::SessionHello) -> Result<Session, Status> {
        let (say, said) = mpsc::channel(64);
        say.try_send(SessionRequest { message: Some(Say::Hello(hello)) }).expect("has room");
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(said);
        let heard = self.nodes.clone().session(Request::new(outgoing)).await?.into_inner();
        Ok(Session { say, heard, sequence: 0 })
    }

    async fn open(&self, joined: &v1::JoinResponse) -> Session {
        self.try_open(self.hello(joined)).await.expect("opens")
    }

    /// Why a session that is answered with a farewell cannot go on.
    async fn farewell(&self, hello: v1::SessionHello) -> SessionEndReason {
        self.try_open(hello).await.expect("answered").end().await
    }
}

fn nodes(address: &str) -> NodeServiceClient<Channel> {
    NodeServiceClient::new(channel(address))
}

fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
}

fn spec(name: &str) -> v1::NodeSpec {
    let text = str::to_owned;
    v1::NodeSpec {
        name: text(name),
        gpus: vec![
            v1::Gpu {
                model: text("H100"),
                vram_mib: 81_920,
                link_domain: 0,
                ..v1::Gpu::default()
            };
            8
        ],
        cpu_milli: 64_000,
        memory_mib: 1 << 20,
        disk_mib: 1 << 20,
        place: Some(v1::Place {
            region: text("r1"),
            zone: text("z1"),
            site: text("s1"),
            rack: text("k1"),
        }),
        address: format!("{name}.example"),
        ..Default::default()
    }
}

/// One open stream.
struct Session {
    say: mpsc::Sender<SessionRequest>,
    heard: Streaming<v1::SessionResponse>,
    sequence: u64,
}

impl Session {
    async fn say(&self, message: Say) {
        self.say.send(SessionRequest { message: Some(message) }).await.expect("the stream is open");
    }

    async fn hear(&mut self) -> Hear {
        let message = timeout_at(deadline(), self.heard.message()).await.expect("in time");
        message.expect("no error").expect("not over").message.expect("says something")
    }

    async fn desired(&mut self) -> v1::DesiredState {
        loop {
            match self.hear().await {
                Hear::Desired(desired) => return desired,
                Hear::HeartbeatAck(_) | Hear::Probes(_) => {}
                Hear::End(end) => panic!("{end:?}"),
            }
        }
    }

    /// The next desired state with so many assignments.
    async fn assignments(&mut self, count: usize) -> Vec<v1::Assignment> {
        loop {
            let desired = self.desired().await;
            if desired.assignments.len() == count {
                return desired.assignments;
            }
        }
    }

    /// Sends a heartbeat and waits for its answer.
    async fn beat(&mut self) {
        self.sequence += 1;
        let sequence = self.sequence;
        self.say(Say::Heartbeat(v1::Heartbeat { sequence })).await;
        loop {
            match self.hear().await {
                Hear::HeartbeatAck(ack) if ack.sequence == sequence => return,
                Hear::HeartbeatAck(_) | Hear::Desired(_) | Hear::Probes(_) => {}
                Hear::End(end) => panic!("{end:?}"),
            }
        }
    }

    async fn end(&mut self) -> SessionEndReason {
        loop {
            if let Hear::End(end) = self.hear().await {
                let after = timeout_at(deadline(), self.heard.message()).await.expect("in time");
                assert_eq!(after.expect("no error"), None, "nothing follows the farewell");
                return end.reason();
            }
        }
    }

    async fn report(&self, assignment: &v1::Assignment, phase: ObservedPhase) {
        let report = v1::ReplicaReport {
            job_id: assignment.job_id,
            rank: assignment.rank,
            assignment: assignment.assignment,
            phase: phase.into(),
            exit_code: 0,
        };
        self.say(Say::Reports(v1::ReplicaReports { reports: vec![report] })).await;
    }

    /// The error that ends the stream.
    async fn fault(&mut self) -> Status {
        loop {
            match timeout_at(deadline(), self.heard.message()).await.expect("in time") {
                Ok(Some(_)) => {}
                Ok(None) => panic!("ended without an error"),
                Err(status) => return status,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_should_run_is_sent_and_what_runs_is_believed() {
    let quorum = Quorum::start(1, LONG_LEASE_MS).await;
    let (a, b) = (Agent::new(&quorum, 0, "a"), Agent::new(&quorum, 0, "b"));
    let (joined_a, joined_b) = (a.join().await, b.join().await);
    assert_eq!((joined_a.epoch, joined_b.epoch), (1, 1));
    assert!(joined_a.heartbeat_ms * 3 < joined_a.lease_ms);
    let (mut on_a, mut on_b) = (a.open(&joined_a).await, b.open(&joined_b).await);
    assert!(on_a.desired().await.assignments.is_empty());
    let job = quorum.place("one", &[(joined_a.node_id, 1), (joined_b.node_id, 1)]).await;
    let (mine, other) = (on_a.assignments(1).await, on_b.assignments(1).await);
    assert_eq!((mine[0].rank, mine[0].world_size, mine[0].gpus.as_slice()), (0, 2, &[0][..]));
    assert_eq!((mine[0].head_address.as_str(), mine[0].head_rank), ("a.example", 0));
    assert_eq!(mine[0].job_token, other[0].job_token);

    // A report for the other node's replica changes nothing, whatever it says.
    on_a.report(&other[0], ObservedPhase::Failed).await;
    on_a.report(&mine[0], ObservedPhase::Starting).await;
    quorum.until_phase(job, JobPhase::Starting).await;
    on_a.report(&mine[0], ObservedPhase::Ready).await;
    on_b.report(&other[0], ObservedPhase::Ready).await;
    quorum.until_phase(job, JobPhase::Ready).await;
    quorum.servers[0].quorum().read(|state| {
        let other = state.replica(job, Rank(1)).expect("a replica");
        assert_eq!((other.phase, other.failures), (ReplicaPhase::Ready, 0));
        assert!(state.check().is_empty());
    });
    for session in [&on_a, &on_b] {
        let assignment = if std::ptr::eq(session, &on_a) { &mine[0] } else { &other[0] };
        session.report(assignment, ObservedPhase::Succeeded).await;
    }
    quorum.until_phase(job, JobPhase::Ended).await;
    assert!(on_a.assignments(0).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn old_epochs_wrong_keys_and_strangers_are_refused() {
    let quorum = Quorum::start(1, LONG_LEASE_MS).await;
    let agent = Agent::new(&quorum, 0, "a");
    let first = agent.join().await;
    let mut old = agent.open(&first).await;
    old.desired().await;
    let second = agent.join().await;
    assert_eq!((second.node_id, second.epoch), (first.node_id, 2));
    // The open session of the old epoch is ended, and a new one of it does not open.
    assert_eq!(old.end().await, SessionEndReason::Superseded);
    assert_eq!(agent.farewell(agent.hello(&first)).await, SessionEndReason::Superseded);

    let mut hello = agent.hello(&second);
    hello.node_key = vec![9; 32].into();
    let refused = agent.try_open(hello).await.err().expect("a wrong key");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let unknown = v1::SessionHello { node_id: 77, ..agent.hello(&second) };
    let refused = agent.try_open(unknown).await.err().expect("an unknown node");
    assert_eq!(refused.code(), Code::NotFound);
    let future = v1::SessionHello { epoch: 99, ..agent.hello(&second) };
    let refused = agent.try_open(future).await.err().expect("an epoch never given");
    assert_eq!(refused.code(), Code::NotFound);
    let mut request = Request::new(tokio_stream::iter([SessionRequest {
        message: Some(Say::Hello(agent.hello(&second))),
    }]));
    request.metadata_mut().insert("x-muster-supplier", "other".parse().expect("ascii"));
    let refused = agent.nodes.clone().session(request).await.expect_err("another supplier");
    assert_eq!(refused.code(), Code::NotFound);
    // Another machine cannot take the name.
    let thief = Agent { key: [8; 32], ..agent.copy(1) };
    assert_eq!(thief.try_join().await.expect_err("another key").code(), Code::PermissionDenied);

    assert_eq!(agent.open(&second).await.desired().await.epoch, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_with_the_same_key_waits_until_the_first_is_gone() {
    let quorum = Quorum::start(1, LONG_LEASE_MS).await;
    let agent = Agent::new(&quorum, 0, "a");
    let joined = agent.join().await;
    let mut session = agent.open(&joined).await;
    // Once acknowledged, the leader knows who holds the session.
    session.beat().await;
    let copy = agent.copy(2);
    let refused = copy.try_join().await.expect_err("the first one lives");
    assert_eq!(refused.code(), Code::AlreadyExists);
    let wait = refused.get_details_retry_info().and_then(|info| info.retry_delay);
    assert!(wait.expect("says when to come back") > Duration::ZERO);
    // Not even with the epoch of the first.
    let refused = copy.try_open(copy.hello(&joined)).await.err().expect("held");
    assert_eq!(refused.code(), Code::AlreadyExists);
    assert!(refused.get_details_retry_info().is_some());
    session.beat().await;

    // The same process again takes over from itself.
    let mut again = agent.open(&joined).await;
    assert_eq!(session.end().await, SessionEndReason::Superseded);
    again.beat().await;
    drop(again);
    let end = deadline();
    let second = loop {
        match copy.try_join().await {
            Ok(joined) => break joined,
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists),
        }
        assert!(Instant::now() < end, "the closing of the first was never noticed");
    };
    assert_eq!(second.epoch, 2);
    copy.open(&second).await.beat().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_keep_the_lease_and_silence_loses_node_and_replicas() {
    let quorum = Quorum::start(1, SHORT_LEASE_MS).await;
    let (a, b) = (Agent::new(&quorum, 0, "a"), Agent::new(&quorum, 0, "b"));
    let (joined_a, joined_b) = (a.join().await, b.join().await);
    let (mut alive, mut silent) = (a.open(&joined_a).await, b.open(&joined_b).await);
    let places = [(joined_a.node_id, 1), (joined_b.node_id, 1)];
    let job = quorum.place("one", &places).await;
    for session in [&mut alive, &mut silent] {
        let assignment = session.assignments(1).await.remove(0);
        session.report(&assignment, ObservedPhase::Ready).await;
    }
    quorum.until_phase(job, JobPhase::Ready).await;
    // Keeps one of them alive while the other says nothing any more.
    let beating = tokio::spawn(async move {
        loop {
            alive.beat().await;
        }
    });
    let id = |joined: &v1::JoinResponse| scheduler_core::id::NodeId(joined.node_id);
    let (id_a, id_b) = (id(&joined_a), id(&joined_b));
    let is_down = |state: &State, node| {
        let down = scheduler_core::node::NodeStatus::Down;
        state.node(node).is_some_and(|node| node.status == down)
    };
    quorum.until(0, "the silent node down", |state| is_down(state, id_b).then_some(())).await;
    quorum.servers[0].quorum().read(|state| {
        assert!(!is_down(state, id_a));
        // Lost with its node; a lost node does not count as the replica's own failure.
        let lost = state.replica(job, Rank(1)).expect("a replica");
        assert!(lost.failures == 0, "{lost:?}");
        assert!(lost.allocation.is_none_or(|held| held.node != id_b) || !lost.phase.is_live());
        assert!(state.check().is_empty());
    });
    // The session is ended, with word of what to do; the same epoch does not come back.
    assert!(matches!(
        silent.end().await,
        SessionEndReason::LeaseLost | SessionEndReason::Unspecified
    ));
    assert_eq!(b.farewell(b.hello(&joined_b)).await, SessionEndReason::LeaseLost);
    // What it lost is replaced, here on the node that is left; then it may come again.
    quorum
        .until(0, "the replica replaced", |state| {
            let now = state.replica(job, Rank(1))?;
            (now.phase.is_live() && now.allocation?.node == id_a).then_some(())
        })
        .await;
    assert_eq!(b.join().await.epoch, 2);
    assert!(!beating.is_finished(), "the other one was cut off");
    beating.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_moves_to_another_server_and_nothing_is_lost() {
    let mut quorum = Quorum::start(3, LONG_LEASE_MS).await;
    let leader = quorum.servers[0].quorum().status().leader.expect("a leader").id;
    let at = (0..3).find(|&at| quorum.servers[at].member().id != leader).expect("a follower");
    let agent = Agent::new(&quorum, at, "a");
    let joined = agent.join().await;
    let mut session = agent.open(&joined).await;
    session.beat().await;
    let job = quorum.place("one", &[(joined.node_id, 1)]).await;
    let assignment = session.assignments(1).await.remove(0);
    session.report(&assignment, ObservedPhase::Starting).await;
    quorum.until_phase(job, JobPhase::Starting).await;

    // That server goes away in good order: the agent is told to go elsewhere.
    let gone = quorum.servers.remove(at);
    let (reason, stopped) = tokio::join!(session.end(), gone.shutdown());
    stopped.expect("stops");
    assert_eq!(reason, SessionEndReason::Shutdown);
    for at in 0..2 {
        let moved = agent.at(&quorum, at);
        let mut session = moved.open(&joined).await;
        let desired = session.desired().await;
        // Same epoch, same binding: the replica runs on.
        assert_eq!((desired.epoch, desired.assignments.len()), (1, 1));
        assert_eq!(desired.assignments[0].assignment, assignment.assignment);
        session.beat().await;
        if at == 1 {
            session.report(&assignment, ObservedPhase::Ready).await;
            quorum.until_phase(job, JobPhase::Ready).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_quorum_sends_its_agents_away() {
    let mut quorum = Quorum::start(3, SHORT_LEASE_MS).await;
    let agent = Agent::new(&quorum, 0, "a");
    let joined = agent.join().await;
    let mut session = agent.open(&joined).await;
    session.beat().await;
    for gone in quorum.servers.drain(1..) {
        gone.kill().await.expect("stops");
    }
    // Heartbeats go unanswered: nobody could count them.
    session.sequence += 1;
    let sequence = session.sequence;
    session.say(Say::Heartbeat(v1::Heartbeat { sequence })).await;
    assert_eq!(session.end().await, SessionEndReason::Unspecified);
    let refused = agent.try_open(agent.hello(&joined)).await.err().expect("no quorum");
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.get_details_retry_info().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_is_believed_at_once() {
    let quorum = Quorum::start(1, LONG_LEASE_MS).await;
    let agent = Agent::new(&quorum, 0, "a");
    let joined = agent.join().await;
    let mut session = agent.open(&joined).await;
    let leave = |epoch, key: [u8; 32]| v1::LeaveRequest {
        node_id: joined.node_id,
        epoch,
        node_key: key.to_vec().into(),
    };
    let mut nodes = agent.nodes.clone();
    let refused = nodes.leave(leave(1, [9; 32])).await.expect_err("a wrong key");
    assert_eq!(refused.code(), Code::PermissionDenied);
    session.beat().await;
    nodes.leave(leave(1, agent.key)).await.expect("leaves");
    assert_eq!(session.end().await, SessionEndReason::LeaseLost);
    // Again, and with an epoch that is over: nothing to do, no fault.
    nodes.leave(leave(1, agent.key)).await.expect("has left");
    let again = agent.join().await;
    nodes.leave(leave(1, agent.key)).await.expect("that epoch has left");
    agent.open(&again).await.beat().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_ends_the_stream_with_the_field_at_fault() {
    let quorum = Quorum::start(1, LONG_LEASE_MS).await;
    let agent = Agent::new(&quorum, 0, "a");
    let joined = agent.join().await;
    let bad_phase = v1::ReplicaReport { phase: 77, ..Default::default() };
    let cases = [
        (Some(Say::Hello(agent.hello(&joined))), "hello"),
        (None, "message"),
        (
            Some(Say::Reports(v1::ReplicaReports { reports: vec![bad_phase] })),
            "reports.reports[0].phase",
        ),
    ];
    for (message, field) in cases {
        let mut session = agent.open(&joined).await;
        session.say.send(SessionRequest { message }).await.expect("the stream is open");
        let fault = session.fault().await;
        assert_eq!(fault.code(), Code::InvalidArgument);
        assert!(fault.message().starts_with(field), "{fault}");
    }
    let mut session = agent.open(&joined).await;
    let each = v1::ReplicaReport { job_id: u64::MAX, rank: u32::MAX, ..Default::default() };
    let message = Some(Say::Reports(v1::ReplicaReports { reports: vec![each; 30_000] }));
    session.say.send(SessionRequest { message }).await.expect("the stream is open");
    let fault = session.fault().await;
    assert_eq!(fault.code(), Code::OutOfRange, "{fault}");
    let short = v1::SessionHello { instance: vec![1; 3].into(), ..agent.hello(&joined) };
    let refused = agent.try_open(short).await.err().expect("a short instance");
    assert!(refused.message().starts_with("hello.instance"), "{refused}");
    let silent = Request::new(tokio_stream::iter([SessionRequest {
        message: Some(Say::Heartbeat(v1::Heartbeat { sequence: 1 })),
    }]));
    let refused = agent.nodes.clone().session(silent).await.expect_err("no hello");
    assert!(refused.message().starts_with("hello"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_and_suppliers_look_at_and_change_nodes() {
    let quorum = Quorum::start(1, LONG_LEASE_MS).await;
    let mut sessions = BTreeMap::new();
    for name in ["a", "b", "c"] {
        let agent = Agent::new(&quorum, 0, name);
        let joined = agent.join().await;
        sessions.insert(joined.node_id, agent.open(&joined).await);
    }
    let mut admin = NodeAdminServiceClient::new(channel(&quorum.address(0)));
    let list = |page_size, page_token| v1::ListNodesRequest {
        page_size,
        page_token,
        ..Default::default()
    };
    let first = admin.list_nodes(list(2, String::new())).await.expect("lists").into_inner();
    assert_eq!(first.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [0, 1]);
    let rest = admin.list_nodes(list(2, first.next_page_token)).await.expect("lists").into_inner();
    assert_eq!(rest.nodes.iter().map(|node| node.id).collect::<Vec<_>>(), [2]);
    assert_eq!(rest.next_page_token, "");
    let elsewhere = v1::ListNodesRequest { region: "mars".to_owned(), ..Default::default() };
    assert!(admin.list_nodes(elsewhere).await.expect("lists").into_inner().nodes.is_empty());
    for bad in [list(1_001, String::new()), list(1, "x".to_owned())] {
        let refused = admin.list_nodes(bad).await.expect_err("bad");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }

    let job = quorum.place("one", &[(0, 1), (1, 1)]).await;
    let capacity = admin.get_capacity(v1::GetCapacityRequest::default()).await.expect("sums");
    let capacity = capacity.into_inner();
    assert_eq!((capacity.nodes, capacity.nodes_up, capacity.models.len()), (3, 3, 1));
    let model = &capacity.models[0];
    assert_eq!((model.gpus, model.gpus_free, model.gpu_milli_used), (24, 22, 2_000));
    assert_eq!((model.model.as_str(), model.nodes, model.gpus_unavailable), ("H100", 3, 0));

    let get = |node_id| v1::GetNodeRequest { node_id, ..Default::default() };
    let node = admin.get_node(get(0)).await.expect("is there").into_inner().node.expect("a node");
    assert_eq!(
        (node.status(), node.gpu_milli_used, node.replicas.len()),
        (NodeStatus::Up, 1_000, 1)
    );
    // Another supplier does not even learn that it exists.
    let mut foreign = Request::new(get(0));
    foreign.metadata_mut().insert("x-muster-supplier", "other".parse().expect("ascii"));
    assert_eq!(admin.get_node(foreign).await.expect_err("foreign").code(), Code::NotFound);
    let mut foreign = Request::new(v1::DrainNodeRequest { node_id: 0 });
    foreign.metadata_mut().insert("x-muster-supplier", "other".parse().expect("ascii"));
    assert!(admin.drain_node(foreign).await.is_err());

    let drained = admin.drain_node(v1::DrainNodeRequest { node_id: 0 }).await.expect("drains");
    let drained = drained.into_inner().node.expect("a node");
    assert_eq!((drained.eligibility(), drained.gpu_milli_used), (v1::Eligibility::Draining, 0));
    assert!(sessions.get_mut(&0).expect("a session").assignments(0).await.is_empty());
    // What ran there is moved.
    quorum
        .until(0, "the replica moved", |state| {
            let moved = state.replica(job, Rank(0))?;
            (moved.phase.is_live() && moved.allocation?.node.0 != 0).then_some(())
        })
        .await;
    let request = v1::UncordonNodeRequest { node_id: 0 };
    let node = admin.uncordon_node(request).await.expect("uncordons").into_inner().node;
    assert_eq!(node.expect("a node").eligibility(), v1::Eligibility::Eligible);

    let remove = |force| v1::RemoveNodeRequest { node_id: 1, force };
    let refused = admin.remove_node(remove(false)).await.expect_err("something runs there");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    admin.remove_node(remove(true)).await.expect("removes");
    let end = sessions.get_mut(&1).expect("a session").end().await;
    assert_eq!(end, SessionEndReason::Removed);
    assert_eq!(admin.get_node(get(1)).await.expect_err("gone").code(), Code::NotFound);

    let rtt = |site_b: &str| v1::SetSiteRttsRequest {
        rtts: vec![v1::SiteRtt {
            site_a: "s1".to_owned(),
            site_b: site_b.to_owned(),
            rtt_us: 150,
            ..v1::SiteRtt::default()
        }],
    };
    admin.set_site_rtts(rtt("s1")).await.expect("a known site");
    let known = admin.list_site_rtts(v1::ListSiteRttsRequest::default()).await.expect("lists");
    let known = known.into_inner();
    let told = v1::SiteRtt { rtt_us_high: 150, ..rtt("s1").rtts.remove(0) };
    assert_eq!((known.rtts, known.next_page_token), (vec![told], String::new()));
    let refused = admin.set_site_rtts(rtt("nowhere")).await.expect_err("an unknown site");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("rtts[0].site_b"), "{}", refused.message());
}
