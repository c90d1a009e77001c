//! One agent and one or two servers.

use crate::fake::{Fake, Heard, Manner, assignment, soon};
use crate::puppet::{Strings, Told, puppet};
use agent_core::replica::{AssignmentId, Binding, Exit, GpuSet, JobId, Rank};
use proto::v1;
use proto::v1::{ObservedPhase, SessionEndReason};
use scheduler_agent::agent::{self, Agent, AgentError, Ended, Order};
use scheduler_agent::identity::{Identity, NodeKey};
use scheduler_agent::link::meter::Figure;
use scheduler_agent::link::{Caller, Credential, Shared};
use scheduler_agent::runtime::{Adopted, Haste};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// A running agent with two GPUs.
struct Live {
    shared: Arc<Shared>,
    strings: Strings,
    orders: watch::Sender<Order>,
    task: JoinHandle<Result<Ended, AgentError>>,
}

impl Live {
    fn start(servers: &[&Fake]) -> Live {
        let identity = Identity::in_memory(NodeKey::random().unwrap());
        Live::start_with(servers, identity, Vec::new())
    }

    fn start_in(servers: &[&Fake], directory: &Path) -> Live {
        Live::start_with(servers, Identity::open(directory).unwrap(), Vec::new())
    }

    fn start_with(servers: &[&Fake], identity: Identity, adopted: Vec<Adopted>) -> Live {
        let servers: Vec<String> = servers.iter().map(|fake| fake.endpoint.clone()).collect();
        let credential = Credential::new(Some("token"), None).unwrap();
        let shared = Arc::new(Shared::new(&servers, credential, 1, 1).unwrap());
        let spec = v1::NodeSpec {
            name: "node-1".to_owned(),
            gpus: vec![v1::Gpu::default(); 2],
            ..Default::default()
        };
        let caller = Caller {
            spec: Arc::new(spec),
            key: identity.key().clone(),
            instance: agent::instance().unwrap(),
        };
        let (puppet, strings) = puppet(adopted);
        let agent = Agent::new(Arc::clone(&shared), caller, identity, 0, puppet);
        let (orders, receiver) = watch::channel(Order::Run);
        let task = tokio::spawn(agent.run(receiver));
        Live { shared, strings, orders, task }
    }

    async fn ended(self) -> Result<Ended, AgentError> {
        soon("the agent's end", self.task).await.unwrap()
    }

    async fn exit(self) {
        self.orders.send(Order::Exit).unwrap();
        assert_eq!(self.ended().await.unwrap(), Ended::Ordered);
    }

    /// Waits until this many words were refused as too old.
    async fn stale(&self, count: u64) {
        let wait = self.shared.meter.wait(|meter| meter.get(Figure::Stale) >= count);
        soon("a refusal", wait).await;
        assert_eq!(self.shared.meter.get(Figure::Stale), count);
    }
}

/// Agent and server in session, with replica 1 running on GPU 0.
async fn running(manner: Manner) -> (Fake, Live, usize) {
    let mut fake = Fake::start(manner).await;
    let mut live = Live::start(&[&fake]);
    let (session, hello) = fake.hello().await;
    fake.desire(session, hello.epoch, 10, vec![assignment(1, 0, &[0])]);
    assert_eq!(live.strings.told().await, Told::Start(1));
    live.strings.ready(1);
    while fake.report(1).await.0 != ObservedPhase::Ready {}
    (fake, live, session)
}

#[tokio::test]
async fn what_is_wanted_is_started_and_reported() {
    let mut fake = Fake::start(Manner::default()).await;
    let mut live = Live::start(&[&fake]);
    let join = fake.join().await;
    assert_eq!(join.spec.unwrap().name, "node-1");
    assert_eq!((join.node_key.len(), join.instance.len()), (32, 16));
    let (session, hello) = fake.hello().await;
    assert_eq!((hello.node_id, hello.epoch), (7, 1));
    assert_eq!((hello.node_key, hello.instance), (join.node_key, join.instance));

    let two = vec![assignment(1, 0, &[0]), assignment(2, 1, &[1])];
    fake.desire(session, 1, 10, two);
    assert_eq!(live.strings.told().await, Told::Start(1));
    assert_eq!(live.strings.told().await, Told::Start(2));
    assert_eq!(fake.report(1).await, (ObservedPhase::Starting, 0));
    live.strings.ready(1);
    assert_eq!(fake.report(1).await, (ObservedPhase::Ready, 0));
    live.strings.ended(2, 3);
    assert_eq!(fake.report(2).await, (ObservedPhase::Failed, 3));
    live.strings.ended(1, 0);
    assert_eq!(fake.report(1).await, (ObservedPhase::Succeeded, 0));

    fake.desire(session, 1, 11, Vec::new());
    assert_eq!(live.strings.told().await, Told::Forget(1));
    assert_eq!(live.strings.told().await, Told::Forget(2));
    live.exit().await;
}

#[tokio::test]
async fn a_start_waits_for_the_gpu_of_the_one_before() {
    let (fake, mut live, session) = running(Manner::default()).await;
    fake.desire(session, 1, 11, vec![assignment(2, 0, &[0])]);
    assert_eq!(live.strings.told().await, Told::Stop(1, Haste::Graceful));
    fake.desire(session, 1, 12, vec![assignment(3, 0, &[0])]);
    fake.desire(session, 1, 1, Vec::new());
    live.stale(1).await;
    assert_eq!(live.strings.drain(), [], "the stop is not confirmed");
    live.strings.ended(1, 143);
    assert_eq!(live.strings.told().await, Told::Forget(1));
    assert_eq!(live.strings.told().await, Told::Start(3));
    live.exit().await;
}

#[tokio::test]
async fn an_older_word_is_refused() {
    let (fake, mut live, session) = running(Manner::default()).await;
    fake.desire(session, 1, 9, Vec::new());
    live.stale(1).await;
    fake.desire(session, 0, 99, Vec::new());
    live.stale(2).await;
    assert_eq!(live.strings.drain(), []);
    fake.desire(session, 1, 10, Vec::new());
    assert_eq!(live.strings.told().await, Told::Stop(1, Haste::Graceful));
    live.exit().await;
}

#[tokio::test]
async fn a_word_of_a_later_session_makes_the_agent_join_again() {
    let (mut fake, mut live, session) = running(Manner::default()).await;
    fake.drain();
    fake.desire(session, 2, 99, Vec::new());
    fake.join().await;
    assert_eq!(fake.hello().await.1.epoch, 2);
    assert_eq!(live.strings.drain(), []);
    live.exit().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_reported_as_failed() {
    let (mut fake, mut live, session) = running(Manner::default()).await;
    let both = vec![assignment(1, 0, &[0]), assignment(5, 1, &[2])];
    fake.desire(session, 1, 11, both.clone());
    assert_eq!(fake.report(5).await, (ObservedPhase::Failed, -1));
    let trouble = live.shared.meter.trouble().unwrap();
    assert!(trouble.contains("gpus[0]: 2, but the node has 2 GPUs"), "{trouble}");
    fake.desire(session, 1, 12, both);
    assert_eq!(fake.report(5).await, (ObservedPhase::Failed, -1));
    assert!(live.strings.drain().iter().all(|told| *told == Told::Forget(5)));
    live.exit().await;
}

#[tokio::test]
async fn when_the_lease_ends_everything_stops_before_the_next_join() {
    let manner =
        Manner { lease_ms: 600, heartbeat_ms: 50, tells_heartbeats: true, ..Manner::default() };
    let (mut fake, mut live, _) = running(manner).await;
    fake.manner(|manner| manner.answers = false);
    let before = Instant::now();
    fake.drain();
    assert_eq!(live.strings.told().await, Told::Stop(1, Haste::Now));
    // No heartbeat was answered after `before`, so the lease counts from earlier; the rest is for a
    // busy machine.
    assert!(before.elapsed() < Duration::from_millis(600 * 2), "{:?}", before.elapsed());
    let joined = fake.drain().into_iter().any(|heard| matches!(heard, Heard::Join(_)));
    assert!(!joined, "joined while a replica ran");

    fake.manner(|manner| manner.answers = true);
    live.strings.ended(1, 137);
    fake.join().await;
    let (session, hello) = fake.hello().await;
    assert_eq!(hello.epoch, 2);
    // Still wanted: it is not started again under the same number, it has failed.
    fake.desire(session, 2, 20, vec![assignment(1, 0, &[0]), assignment(2, 1, &[0])]);
    assert_eq!(live.strings.told().await, Told::Start(2));
    assert_eq!(live.shared.meter.get(Figure::Fences), 1);
    live.exit().await;
}

#[tokio::test]
async fn what_was_fenced_and_is_still_wanted_is_reported_as_failed() {
    let manner = Manner { lease_ms: 300, heartbeat_ms: 50, ..Manner::default() };
    let (mut fake, mut live, _) = running(manner).await;
    fake.manner(|manner| manner.answers = false);
    assert_eq!(live.strings.told().await, Told::Stop(1, Haste::Now));
    fake.manner(|manner| manner.answers = true);
    fake.drain();
    live.strings.ended(1, 0);
    assert_eq!(fake.report(1).await, (ObservedPhase::Failed, 137));
    live.exit().await;
}

#[tokio::test]
async fn answered_heartbeats_keep_the_lease() {
    let manner =
        Manner { lease_ms: 400, heartbeat_ms: 40, tells_heartbeats: true, ..Manner::default() };
    let (mut fake, mut live, session) = running(manner).await;
    let begun = Instant::now();
    let mut last = 0;
    while begun.elapsed() < Duration::from_millis(1200) {
        let pick = |heard: &Heard| match heard {
            Heard::Heartbeat(of, sequence) if *of == session => Some(*sequence),
            _ => None,
        };
        let sequence = fake.next("a heartbeat", pick).await;
        assert!(sequence > last, "{sequence} after {last}");
        last = sequence;
    }
    assert_eq!(live.strings.drain(), []);
    assert_eq!(live.shared.meter.get(Figure::Fences), 0);
    live.exit().await;
}

#[tokio::test]
async fn epochs_are_remembered_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut fake = Fake::start(Manner { epoch: 5, ..Manner::default() }).await;
    let mut live = Live::start_in(&[&fake], directory.path());
    let key = fake.join().await.node_key;
    let (session, _) = fake.hello().await;
    fake.desire(session, 5, 10, vec![assignment(1, 0, &[])]);
    assert_eq!(live.strings.told().await, Told::Start(1));
    live.exit().await;

    fake.manner(|manner| manner.epoch = 4);
    fake.drain();
    let mut live = Live::start_in(&[&fake], directory.path());
    assert_eq!(fake.join().await.node_key, key);
    // The server counts on: the next join gives 5, at which index 10 has been seen.
    let (session, hello) = fake.hello().await;
    assert_eq!(hello.epoch, 5);
    live.stale(1).await;
    let trouble = live.shared.meter.trouble().unwrap();
    assert!(trouble.contains("epoch 4 is older than epoch 5 seen"), "{trouble}");
    fake.desire(session, 5, 9, vec![assignment(1, 0, &[])]);
    live.stale(2).await;
    assert_eq!(live.strings.drain(), []);
    live.exit().await;
}

#[tokio::test]
async fn the_agent_turns_to_another_server_and_keeps_its_session() {
    let mut first = Fake::start(Manner::default()).await;
    let mut second = Fake::start(Manner::default()).await;
    let mut live = Live::start(&[&first, &second]);
    let (session, hello) = first.hello().await;
    first.desire(session, 1, 10, vec![assignment(1, 0, &[0])]);
    assert_eq!(live.strings.told().await, Told::Start(1));
    live.strings.ready(1);
    while first.report(1).await.0 != ObservedPhase::Ready {}
    first.stop().await;

    let again = second.hello().await;
    assert_eq!(again.1, hello, "the same session goes on, without another join");
    assert_eq!(second.report(1).await, (ObservedPhase::Ready, 0));
    second.desire(again.0, 1, 10, vec![assignment(1, 0, &[0])]);
    second.desire(again.0, 1, 9, Vec::new());
    live.stale(1).await;
    assert_eq!(live.strings.drain(), [], "nothing was disturbed");
    live.exit().await;
}

#[tokio::test]
async fn a_server_that_shuts_down_sends_its_agents_away() {
    let mut first = Fake::start(Manner::default()).await;
    let mut second = Fake::start(Manner::default()).await;
    let live = Live::start(&[&first, &second]);
    let (session, hello) = first.hello().await;
    first.end(session, SessionEndReason::Shutdown);
    assert_eq!(second.hello().await.1, hello);
    live.exit().await;
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let quiet = Manner { lease_ms: 3000, heartbeat_ms: 40, answers: false, ..Manner::default() };
    let mut first = Fake::start(quiet).await;
    let mut second = Fake::start(Manner::default()).await;
    let live = Live::start(&[&first, &second]);
    let (_, hello) = first.hello().await;
    assert_eq!(second.hello().await.1, hello);
    assert_eq!(live.shared.meter.get(Figure::Fences), 0);
    live.exit().await;
}

/// A server that talks but does not prolong the lease is as good as silent.
#[tokio::test]
async fn a_server_that_acknowledges_nothing_is_left_before_the_lease_ends() {
    let manner = Manner { lease_ms: 3000, heartbeat_ms: 1000, answers: false, ..Manner::default() };
    let mut first = Fake::start(manner).await;
    let mut second = Fake::start(Manner::default()).await;
    let mut live = Live::start(&[&first, &second]);
    let (session, hello) = first.hello().await;
    let mut talk = tokio::time::interval(Duration::from_millis(50));
    let mut desired =
        v1::DesiredState { epoch: 1, index: 10, assignments: vec![assignment(1, 0, &[0])] };
    let (_, again) = loop {
        tokio::select! {
            moved = second.hello() => break moved,
            _ = talk.tick() => first.repeat(session, desired.clone()),
        }
        desired.index += 1;
    };
    assert_eq!(again, hello, "the same session goes on, without another join");
    assert_eq!(live.strings.drain(), [Told::Start(1)], "what runs was not disturbed");
    assert_eq!(live.shared.meter.get(Figure::Fences), 0);
    live.exit().await;
}

/// A server that hangs while the session is opened costs less than the lease too.
#[tokio::test]
async fn a_server_that_opens_nothing_is_left_before_the_lease_ends() {
    let manner = Manner { lease_ms: 3000, opens: false, ..Manner::default() };
    let mut first = Fake::start(manner).await;
    let mut second = Fake::start(Manner::default()).await;
    let live = Live::start(&[&first, &second]);
    first.join().await;
    assert_eq!(second.hello().await.1.epoch, 1);
    assert_eq!(live.shared.meter.get(Figure::Fences), 0);
    live.exit().await;
}

#[tokio::test]
async fn a_removed_node_stops_everything_and_ends() {
    let (fake, mut live, session) = running(Manner::default()).await;
    fake.end(session, SessionEndReason::Removed);
    assert_eq!(live.strings.told().await, Told::Stop(1, Haste::Graceful));
    assert!(!live.task.is_finished());
    live.strings.ended(1, 143);
    assert_eq!(live.ended().await.unwrap(), Ended::Removed);
}

#[tokio::test]
async fn a_superseded_or_lost_session_stops_everything_and_joins_again() {
    for reason in [SessionEndReason::Superseded, SessionEndReason::LeaseLost] {
        let (mut fake, mut live, session) = running(Manner::default()).await;
        fake.drain();
        fake.end(session, reason);
        assert_eq!(live.strings.told().await, Told::Stop(1, Haste::Now));
        live.strings.ended(1, 137);
        fake.join().await;
        assert_eq!(fake.hello().await.1.epoch, 2);
        live.exit().await;
    }
}

#[tokio::test]
async fn a_node_that_leaves_stops_everything_first() {
    let (mut fake, mut live, _) = running(Manner::default()).await;
    live.orders.send(Order::Leave).unwrap();
    assert_eq!(live.strings.told().await, Told::Stop(1, Haste::Graceful));
    live.strings.ended(1, 0);
    let pick = |heard: &Heard| match heard {
        Heard::Leave(leave) => Some(leave.clone()),
        _ => None,
    };
    let leave = fake.next("a good-bye", pick).await;
    assert_eq!((leave.node_id, leave.epoch, leave.node_key.len()), (7, 1, 32));
    assert_eq!(live.ended().await.unwrap(), Ended::Ordered);
}

#[tokio::test]
async fn a_session_that_is_not_known_is_joined_for() {
    let (mut fake, mut live, session) = running(Manner::default()).await;
    fake.drain();
    fake.manner(|manner| manner.session_refusals.push(Status::not_found("no such node")));
    fake.hang_up(session, Some(Status::unavailable("restarting")));
    fake.join().await;
    assert_eq!(fake.hello().await.1.epoch, 2);
    assert_eq!(fake.report(1).await, (ObservedPhase::Ready, 0));
    assert_eq!(live.strings.drain(), [], "the lease holds, so all goes on");
    live.exit().await;
}

/// Servers that are away for a part of the lease, all at once, cost nobody the lease: waits shrink
/// with what is left of it.
#[tokio::test]
async fn an_agent_that_is_refused_tries_often_enough_to_keep_its_lease() {
    let manner = Manner { lease_ms: 3000, heartbeat_ms: 750, ..Manner::default() };
    let (mut fake, mut live, session) = running(manner).await;
    fake.drain();
    let refusals = vec![Status::unavailable("no leader"); 8];
    fake.manner(|manner| manner.session_refusals = refusals);
    fake.hang_up(session, Some(Status::unavailable("restarting")));
    assert_eq!(fake.hello().await.1.epoch, 1, "the same session goes on");
    assert_eq!(live.shared.meter.get(Figure::Fences), 0);
    assert_eq!(live.strings.drain(), [], "nothing was disturbed");
    live.exit().await;
}

#[tokio::test]
async fn a_node_that_the_server_finds_wrong_gives_up() {
    let refusal = Status::invalid_argument("spec.gpus[0].model: must not be empty");
    let fake = Fake::start(Manner { join_refusals: vec![refusal], ..Manner::default() }).await;
    let error = Live::start(&[&fake]).ended().await.unwrap_err().to_string();
    assert_eq!(error, "the server refuses this node: spec.gpus[0].model: must not be empty");
}

#[tokio::test]
async fn the_servers_wish_to_wait_is_obeyed() {
    let wish = Duration::from_millis(400);
    let details = ErrorDetails::with_retry_info(Some(wish));
    let refusal = Status::with_error_details(Code::ResourceExhausted, "too many", details);
    let mut fake = Fake::start(Manner { join_refusals: vec![refusal], ..Manner::default() }).await;
    let live = Live::start(&[&fake]);
    fake.join().await;
    let refused_at = Instant::now();
    fake.join().await;
    assert!(refused_at.elapsed() >= wish, "{:?}", refused_at.elapsed());
    live.exit().await;
}

#[tokio::test]
async fn replicas_of_an_earlier_agent_go_on_if_they_are_wanted() {
    let gpus = |gpu| GpuSet::default().with(gpu).unwrap();
    let binding = |id, rank, gpu| Binding {
        id: AssignmentId(id),
        job: JobId(1),
        rank: Rank(rank),
        gpus: gpus(gpu),
        gpu_milli: 0,
    };
    let adopted = vec![
        Adopted { binding: binding(1, 0, 0), exit: None },
        Adopted { binding: binding(2, 1, 1), exit: None },
        Adopted { binding: binding(3, 2, 1), exit: Some(Exit::Failed(4)) },
    ];
    let mut fake = Fake::start(Manner::default()).await;
    let identity = Identity::in_memory(NodeKey::random().unwrap());
    let mut live = Live::start_with(&[&fake], identity, adopted);
    let (session, _) = fake.hello().await;
    assert_eq!(fake.report(3).await, (ObservedPhase::Failed, 4));
    fake.desire(session, 1, 5, vec![assignment(1, 0, &[0]), assignment(3, 2, &[1])]);
    assert_eq!(live.strings.told().await, Told::Stop(2, Haste::Graceful));
    live.strings.ended(2, 0);
    assert_eq!(live.strings.told().await, Told::Forget(2));
    live.exit().await;
}
