//! A node service on loopback that says what the test wants and tells what it hears.

use proto::v1;
use proto::v1::node_service_server::{NodeService, NodeServiceServer};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::{Request, Response, Status, Streaming};

/// Whatever a test waits for comes long before this.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server heard; numbers are of sessions.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Heard {
    Join(Box<v1::JoinRequest>),
    Hello(usize, v1::SessionHello),
    Heartbeat(usize, u64),
    Reports(usize, Vec<v1::ReplicaReport>),
    Closed(usize),
    Leave(v1::LeaveRequest),
}

/// How the server behaves.
pub(crate) struct Manner {
    pub(crate) lease_ms: u64,
    pub(crate) heartbeat_ms: u64,
    /// Epoch of the next join; counts up.
    pub(crate) epoch: u32,
    /// Whether heartbeats are answered.
    pub(crate) answers: bool,
    /// Whether sessions are answered at all; if not, the call hangs.
    pub(crate) opens: bool,
    /// Answers to the next joins, before they succeed again.
    pub(crate) join_refusals: Vec<Status>,
    /// Answers to the next sessions, before they succeed again.
    pub(crate) session_refusals: Vec<Status>,
    /// Sent to every session right after its hello.
    pub(crate) desired: Option<v1::DesiredState>,
    /// Whether heartbeats are told to the test.
    pub(crate) tells_heartbeats: bool,
    /// Whether it is gone: connections that are left get no answer but UNAVAILABLE.
    pub(crate) down: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Manner {
            lease_ms: 30_000,
            heartbeat_ms: 20,
            epoch: 1,
            answers: true,
            opens: true,
            join_refusals: Vec::new(),
            session_refusals: Vec::new(),
            desired: None,
            tells_heartbeats: false,
            down: false,
        }
    }
}

type Words = mpsc::UnboundedSender<Result<v1::SessionResponse, Status>>;

#[derive(Clone)]
struct Service {
    manner: Arc<Mutex<Manner>>,
    sessions: Arc<Mutex<BTreeMap<usize, Words>>>,
    heard: mpsc::UnboundedSender<Heard>,
}

/// A running fake.
pub(crate) struct Fake {
    pub(crate) endpoint: String,
    service: Service,
    heard: mpsc::UnboundedReceiver<Heard>,
    server: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What `future` gives, unless the test is stuck.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: never happened"),
    }
}

impl Fake {
    pub(crate) async fn start(manner: Manner) -> Fake {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (sender, heard) = mpsc::unbounded_channel();
        let service = Service {
            manner: Arc::new(Mutex::new(manner)),
            sessions: Arc::default(),
            heard: sender,
        };
        let routes = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(NodeServiceServer::new(service.clone()));
        let server = tokio::spawn(async move {
            routes.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        Fake { endpoint, service, heard, server }
    }

    /// Changes how it behaves.
    pub(crate) fn manner(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.service.manner.lock().unwrap());
    }

    /// The next thing heard that `pick` takes; others are dropped.
    pub(crate) async fn next<T>(&mut self, what: &str, pick: impl Fn(&Heard) -> Option<T>) -> T {
        let next = async {
            loop {
                let heard = self.heard.recv().await.unwrap();
                if let Some(picked) = pick(&heard) {
                    return picked;
                }
            }
        };
        soon(what, next).await
    }

    pub(crate) async fn join(&mut self) -> v1::JoinRequest {
        let pick = |heard: &Heard| match heard {
            Heard::Join(request) => Some(v1::JoinRequest::clone(request)),
            _ => None,
        };
        self.next("a join", pick).await
    }

    pub(crate) async fn hello(&mut self) -> (usize, v1::SessionHello) {
        let pick = |heard: &Heard| match heard {
            Heard::Hello(session, hello) => Some((*session, hello.clone())),
            _ => None,
        };
        self.next("a hello", pick).await
    }

    /// The next report about `assignment`: phase and exit code.
    pub(crate) async fn report(&mut self, assignment: u64) -> (v1::ObservedPhase, i32) {
        let pick = |heard: &Heard| match heard {
            Heard::Reports(_, reports) => {
                let about = reports.iter().find(|report| report.assignment == assignment)?;
                Some((about.phase(), about.exit_code))
            }
            _ => None,
        };
        self.next("a report", pick).await
    }

    /// Everything heard so far and not yet taken.
    pub(crate) fn drain(&mut self) -> Vec<Heard> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }

    /// Says something on a session.
    pub(crate) fn say(&self, session: usize, message: v1::session_response::Message) {
        let sessions = self.service.sessions.lock().unwrap();
        sessions[&session].send(Ok(v1::SessionResponse { message: Some(message) })).unwrap();
    }

    pub(crate) fn desire(
        &self,
        session: usize,
        epoch: u32,
        index: u64,
        assignments: Vec<v1::Assignment>,
    ) {
        let desired = v1::DesiredState { epoch, index, assignments };
        self.say(session, v1::session_response::Message::Desired(desired));
    }

    /// Says again what should run; nothing where the agent has gone.
    pub(crate) fn repeat(&self, session: usize, desired: v1::DesiredState) {
        let message = Some(v1::session_response::Message::Desired(desired));
        if let Some(words) = self.service.sessions.lock().unwrap().get(&session) {
            let _ = words.send(Ok(v1::SessionResponse { message }));
        }
    }

    pub(crate) fn end(&self, session: usize, reason: v1::SessionEndReason) {
        let end = v1::SessionEnd { reason: reason.into(), message: "as the test wants".to_owned() };
        self.say(session, v1::session_response::Message::End(end));
    }

    /// Says that a session is over, without a word or with a status.
    pub(crate) fn hang_up(&self, session: usize, status: Option<Status>) {
        let words = self.service.sessions.lock().unwrap().remove(&session);
        if let (Some(words), Some(status)) = (words, status) {
            words.send(Err(status)).unwrap();
        }
    }

    /// Goes away with all its connections.
    pub(crate) async fn stop(mut self) {
        self.manner(|manner| manner.down = true);
        self.server.abort();
        let _ = (&mut self.server).await;
        self.service.sessions.lock().unwrap().clear();
    }
}

/// An assignment of job 1 to these GPUs.
pub(crate) fn assignment(number: u64, rank: u32, gpus: &[u32]) -> v1::Assignment {
    v1::Assignment {
        job_id: 1,
        rank,
        assignment: number,
        gpus: gpus.to_vec(),
        group: "workers".to_owned(),
        world_size: 2,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl NodeService for Service {
    type SessionStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<v1::SessionResponse, Status>> + Send>>;

    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let mut manner = self.manner.lock().unwrap();
        self.heard.send(Heard::Join(Box::new(request.into_inner()))).unwrap();
        if manner.down {
            return Err(Status::unavailable("down"));
        }
        if !manner.join_refusals.is_empty() {
            return Err(manner.join_refusals.remove(0));
        }
        let epoch = manner.epoch;
        manner.epoch += 1;
        let (lease_ms, heartbeat_ms) = (manner.lease_ms, manner.heartbeat_ms);
        Ok(Response::new(v1::JoinResponse { node_id: 7, epoch, lease_ms, heartbeat_ms }))
    }

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        {
            let mut manner = self.manner.lock().unwrap();
            if manner.down {
                return Err(Status::unavailable("down"));
            }
            if !manner.session_refusals.is_empty() {
                return Err(manner.session_refusals.remove(0));
            }
        }
        if !self.manner.lock().unwrap().opens {
            std::future::pending::<()>().await;
        }
        let (words, stream) = mpsc::unbounded_channel();
        let session = {
            let mut sessions = self.sessions.lock().unwrap();
            let session = sessions.keys().next_back().map_or(0, |last| last + 1);
            // The only strong hold on the stream: when the test lets go, it ends.
            sessions.insert(session, words.clone());
            session
        };
        let service = self.clone();
        tokio::spawn(service.listen(session, request.into_inner(), words.downgrade()));
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(stream))))
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        self.heard.send(Heard::Leave(request.into_inner())).unwrap();
        Ok(Response::new(v1::LeaveResponse {}))
    }
}

impl Service {
    async fn listen(
        self,
        session: usize,
        mut requests: Streaming<v1::SessionRequest>,
        words: mpsc::WeakUnboundedSender<Result<v1::SessionResponse, Status>>,
    ) {
        use v1::session_request::Message;
        use v1::session_response::Message as Answer;
        let say = |message| {
            let words = words.upgrade()?;
            words.send(Ok(v1::SessionResponse { message: Some(message) })).ok()
        };
        let tell = |heard| self.heard.send(heard);
        while let Some(Ok(request)) = requests.next().await {
            // Nobody listens any more: the test is over.
            let told = match request.message.unwrap() {
                Message::Hello(hello) => {
                    let epoch = hello.epoch;
                    let desired = self.manner.lock().unwrap().desired.clone();
                    if let Some(desired) = desired {
                        let _ = say(Answer::Desired(v1::DesiredState { epoch, ..desired }));
                    }
                    tell(Heard::Hello(session, hello))
                }
                Message::Heartbeat(v1::Heartbeat { sequence }) => {
                    let (answers, tells) = {
                        let manner = self.manner.lock().unwrap();
                        (manner.answers, manner.tells_heartbeats)
                    };
                    // Told before it is answered, so that a test can measure from here.
                    let told = match tells {
                        true => tell(Heard::Heartbeat(session, sequence)),
                        false => Ok(()),
                    };
                    if answers {
                        let _ = say(Answer::HeartbeatAck(v1::HeartbeatAck { sequence }));
                    }
                    told
                }
                Message::Reports(reports) => tell(Heard::Reports(session, reports.reports)),
                // None was asked for.
                Message::Probes(_) => Ok(()),
            };
            if told.is_err() {
                return;
            }
        }
        let _ = tell(Heard::Closed(session));
    }
}
