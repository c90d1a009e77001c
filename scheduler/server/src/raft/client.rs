//! Calls to other servers over gRPC: the quorum's transport, and forwarded calls.
//!
//! **Invariant:** one lazily opened set of connections per server and address; log traffic,
//! snapshots and forwarded calls never wait for each other on one connection.

use super::{MESSAGE_BYTES_MAX, Passport};
use crate::applied::lock;
use crate::call::CallError;
use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, TryFutureExt as _};
use proto::v1::peer_service_client::PeerServiceClient;
use proto::v1::{AppendRequest, CallRequest, ForwardRequest, InstallSnapshotRequest};
use raft_store::{BoxFuture, BoxStream, Member, ServerId, Transport, TransportError};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// Longest wait for a connection; a peer that is there answers a SYN in one round trip.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is probed this often, and given up after as long again: a vanished peer
/// must not keep the log waiting behind a dead connection.
const PROBE: Duration = Duration::from_secs(2);
/// Window of one stream and of one connection: enough for a full pipeline at 100 ms round trip.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// How long a new server waits for each other one's word on it.
const WELCOME_TIME: Duration = Duration::from_secs(2);

type Client = PeerServiceClient<Channel>;

/// Connections to one server.
#[derive(Clone)]
struct Link {
    address: String,
    log: Client,
    bulk: Client,
    calls: Client,
}

/// Connections to all other servers.
pub(crate) struct Peers {
    passport: Passport,
    links: Mutex<BTreeMap<ServerId, Link>>,
}

impl Peers {
    pub(crate) fn new(passport: Passport) -> Self {
        Self { passport, links: Mutex::default() }
    }

    fn link(&self, target: &Member) -> Result<Link, TransportError> {
        let mut links = lock(&self.links);
        if let Some(link) = links.get(&target.id)
            && link.address == target.peer_address
        {
            return Ok(link.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", target.peer_address))
            .map_err(|error| TransportError::Unreachable(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PROBE)
            .keep_alive_timeout(PROBE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let client = || {
            Client::new(endpoint.connect_lazy())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        };
        let address = target.peer_address.clone();
        let link = Link { address, log: client(), bulk: client(), calls: client() };
        links.insert(target.id, link.clone());
        Ok(link)
    }

    fn request<T>(&self, message: T, ttl: Option<Duration>) -> Request<T> {
        let mut request = Request::new(message);
        self.passport.show(request.metadata_mut());
        if let Some(ttl) = ttl {
            request.set_timeout(ttl);
        }
        request
    }

    /// Hands a call on to the leader; the answer is the leader's, still encoded.
    pub(crate) async fn forward(
        &self,
        leader: &Member,
        body: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let link = self.link(leader).map_err(|error| unreachable_leader(&error))?;
        let ttl = deadline.saturating_duration_since(crate::clock::instant());
        let message = ForwardRequest { target: leader.id.0, body };
        let mut client = link.calls;
        let answer = client.forward(self.request(message, Some(ttl)));
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer.into_inner().body),
            Ok(Err(status)) => Err(lost(&status)),
            Err(_) => Err(CallError::Timeout),
        }
    }
}

impl Peers {
    /// Asks another server whether it takes this one for who it says it is. A server that is not
    /// there has no objection.
    pub(crate) async fn ask_welcome(&self, other: &Member) -> Result<(), String> {
        let Ok(link) = self.link(other) else { return Ok(()) };
        let message = ForwardRequest { target: other.id.0, body: Bytes::new() };
        let mut client = link.calls;
        let answer = client.forward(self.request(message, Some(WELCOME_TIME)));
        match tokio::time::timeout(WELCOME_TIME, answer).await {
            Ok(Err(status)) if status.code() == Code::PermissionDenied => {
                Err(status.message().to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn unreachable_leader(error: &TransportError) -> CallError {
    CallError::Unavailable { why: format!("the leader cannot be reached: {error}") }
}

/// What a failed forward means: only a refused connection proves that nothing happened.
fn lost(status: &Status) -> CallError {
    let why = format!("the leader did not answer: {}", status.message());
    match status.code() {
        Code::FailedPrecondition => CallError::NotLeader { leader: None },
        Code::DeadlineExceeded | Code::Cancelled => CallError::Timeout,
        Code::PermissionDenied | Code::Unauthenticated | Code::OutOfRange | Code::Internal => {
            CallError::Internal { why }
        }
        _ if is_connect_error(status) => CallError::Unavailable { why },
        _ => CallError::Unknown { why },
    }
}

/// Whether the connection was never made, so that the request surely was not read.
fn is_connect_error(status: &Status) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        cause = error.source();
    }
    false
}

/// Checks who answered; a stranger's answer counts for nothing.
fn signed<T>(passport: &Passport, expected: u64, answer: Response<T>) -> Result<T, TransportError> {
    match passport.check_answer(answer.metadata(), expected) {
        Ok(()) => Ok(answer.into_inner()),
        Err(why) => {
            tracing::warn!(server = expected, why, "an answer was not counted");
            Err(TransportError::Refused(why))
        }
    }
}

fn failed(status: &Status) -> TransportError {
    match status.code() {
        Code::DeadlineExceeded | Code::Cancelled => TransportError::Timeout,
        Code::FailedPrecondition | Code::PermissionDenied | Code::InvalidArgument => {
            TransportError::Refused(status.message().to_owned())
        }
        _ => TransportError::Unreachable(status.message().to_owned()),
    }
}

/// A boxed stream under a name of its own: the compiler cannot prove that a future which holds the
/// bare box may move between threads.
struct Frames<T>(BoxStream<T>);

impl<T> Stream for Frames<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(cx)
    }
}

/// The transport needs futures that own everything they use.
impl Transport for Peers {
    fn call(
        &self,
        target: &Member,
        body: Bytes,
        ttl: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let id = target.id.0;
        let request = self.request(CallRequest { target: id, body }, Some(ttl));
        let (link, passport) = (self.link(target), self.passport.clone());
        async move {
            let mut client = link?.log;
            let answer = tokio::time::timeout(ttl, client.call(request));
            let answer = answer.await.map_err(|_| TransportError::Timeout)?;
            Ok(signed(&passport, id, answer.map_err(|status| failed(&status))?)?.body)
        }
        .boxed()
    }

    fn append_stream(
        &self,
        target: &Member,
        frames: BoxStream<Bytes>,
    ) -> BoxFuture<Result<BoxStream<Result<Bytes, TransportError>>, TransportError>> {
        let id = target.id.0;
        let frames = Frames(frames.map(move |body| AppendRequest { target: id, body }).boxed());
        let request = self.request(frames, None);
        let (link, passport) = (self.link(target), self.passport.clone());
        async move {
            let mut client = link?.log;
            let answers = client.append(request).await.map_err(|status| failed(&status))?;
            let answers = signed(&passport, id, answers)?;
            let bodies = answers.map(|one| one.map(|one| one.body).map_err(|s| failed(&s)));
            Ok(bodies.boxed())
        }
        .boxed()
    }

    fn snapshot(
        &self,
        target: &Member,
        frames: BoxStream<Bytes>,
        ttl: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let id = target.id.0;
        let frames =
            Frames(frames.map(move |body| InstallSnapshotRequest { target: id, body }).boxed());
        let request = self.request(frames, Some(ttl));
        let (link, passport) = (self.link(target), self.passport.clone());
        async move {
            let mut client = link?.bulk;
            let answer = client.install_snapshot(request).map_err(|status| failed(&status));
            let answer = tokio::time::timeout(ttl, answer);
            let answer = answer.await.map_err(|_| TransportError::Timeout)??;
            Ok(signed(&passport, id, answer)?.body)
        }
        .boxed()
    }
}
