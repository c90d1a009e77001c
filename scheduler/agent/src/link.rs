//! The way to the servers: one call to join, one long stream afterwards, over connections that many
//! agents of a process may share.
//!
//! **Invariant:** a link carries words and gives them no meaning: whether a lease holds or a
//! desired state is too old is for `agent` to say. What waits to be sent is bounded.

pub mod channels;
mod codec;
pub mod meter;
pub mod outbox;

use crate::identity::NodeKey;
use crate::link::channels::{Channels, EndpointError};
use crate::link::meter::Meter;
use crate::link::outbox::Outbox;
use crate::program::Programs;
use agent_core::backoff::{Backoff, Jitter};
use agent_core::lease::CALL_TIMEOUT;
use futures::future::BoxFuture;
use proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status, Streaming};
use tonic_types::StatusExt;

/// Leaving is a courtesy; nobody waits longer for it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What all agents of one process share.
#[derive(Debug)]
pub struct Shared {
    pub channels: Channels,
    pub credential: Credential,
    /// Bounds how many join at once.
    pub joins: Semaphore,
    pub programs: Programs,
    pub meter: Meter,
    /// When the process began: common origin of the grid on which heartbeats are sent.
    pub started_at: Instant,
}

impl Shared {
    /// For `agents` agents that talk to `servers`, of which `joins_max` join at once. Must be
    /// called inside a tokio runtime.
    pub fn new(
        servers: &[String],
        credential: Credential,
        agents: usize,
        joins_max: usize,
    ) -> Result<Shared, EndpointError> {
        Ok(Shared {
            channels: Channels::new(servers, agents)?,
            credential,
            joins: Semaphore::new(joins_max.clamp(1, Semaphore::MAX_PERMITS)),
            programs: Programs::default(),
            meter: Meter::default(),
            started_at: Instant::now(),
        })
    }

    /// The first moment of the grid at or after `at`. Agents whose heartbeats are due at the same
    /// moment share wake-ups and packets.
    pub fn on_grid(&self, at: Instant, step: Duration) -> Instant {
        let step = step.as_micros().max(1);
        let since = at.saturating_duration_since(self.started_at).as_micros();
        let micros = u64::try_from(since.div_ceil(step) * step).unwrap_or(u64::MAX);
        self.started_at.checked_add(Duration::from_micros(micros)).unwrap_or(at)
    }
}

/// What shows a server whose nodes these are.
#[derive(Clone, Default)]
pub struct Credential {
    bearer: Option<MetadataValue<Ascii>>,
    supplier: Option<MetadataValue<Ascii>>,
}

/// Text that cannot go into a call's metadata.
#[derive(Debug, thiserror::Error)]
#[error("{field}: must be printable ASCII without spaces")]
pub struct CredentialError {
    pub field: &'static str,
}

impl Credential {
    /// `token` is the supplier's token; `supplier` a name that only an insecure development server
    /// takes.
    pub fn new(token: Option<&str>, supplier: Option<&str>) -> Result<Credential, CredentialError> {
        let value = |field, text: String| {
            let plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            let mut value: MetadataValue<Ascii> =
                text.parse().ok().filter(|_| plain).ok_or(CredentialError { field })?;
            value.set_sensitive(true);
            Ok(value)
        };
        let spaceless = |field, text: &str| match text.contains(' ') || text.is_empty() {
            true => Err(CredentialError { field }),
            false => Ok(()),
        };
        token.map_or(Ok(()), |token| spaceless("token", token))?;
        supplier.map_or(Ok(()), |supplier| spaceless("supplier", supplier))?;
        Ok(Credential {
            bearer: token.map(|token| value("token", format!("Bearer {token}"))).transpose()?,
            supplier: supplier.map(|name| value("supplier", name.to_owned())).transpose()?,
        })
    }

    fn sign<T>(&self, request: &mut Request<T>) {
        let metadata = request.metadata_mut();
        if let Some(bearer) = &self.bearer {
            metadata.insert("authorization", bearer.clone());
        }
        if let Some(supplier) = &self.supplier {
            metadata.insert("x-muster-supplier", supplier.clone());
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// Who an agent is to the servers.
#[derive(Clone, Debug)]
pub struct Caller {
    pub spec: Arc<v1::NodeSpec>,
    pub key: NodeKey,
    /// Random number of this agent process.
    pub instance: [u8; 16],
}

/// What a join gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registration {
    pub node_id: u32,
    pub epoch: u32,
}

/// What comes over a link.
#[derive(Debug)]
pub enum Event {
    Joined {
        registration: Registration,
        lease: Duration,
        heartbeat: Duration,
        /// When the join was sent: the lease counts from here.
        sent_at: Instant,
    },
    Opened,
    Desired(v1::DesiredState),
    HeartbeatAck(u64),
    End(v1::SessionEnd),
    /// Whom to measure.
    Probes(v1::ProbeTargets),
    /// The join, the opening or the session failed; the link is idle and turned to another server.
    Broken(Status),
}

/// What a failed call says about the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing against us: try again elsewhere.
    Retry,
    /// The session is not known (any more): join again.
    Rejoin,
    /// What this node declares is wrong and stays wrong.
    Refused,
}

impl Verdict {
    /// Of a failed call's status.
    pub fn of(status: &Status) -> Verdict {
        match status.code() {
            Code::InvalidArgument => Verdict::Refused,
            Code::NotFound
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated => Verdict::Rejoin,
            _ => Verdict::Retry,
        }
    }
}

/// One agent's link.
pub struct Link {
    shared: Arc<Shared>,
    state: State,
    backoff: Backoff,
    /// Picks among connections to one server; stays.
    slot: usize,
    /// Which server is next.
    server: usize,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly all links are open nearly always: boxing would only add an allocation"
)]
enum State {
    Idle,
    Joining(BoxFuture<'static, Result<Event, Status>>),
    Opening(BoxFuture<'static, Result<Streaming<v1::SessionResponse>, Status>>, Outbox),
    Open(Streaming<v1::SessionResponse>, Outbox),
}

impl Link {
    /// A link that is idle. `number` spreads agents over servers and connections.
    pub fn new(shared: Arc<Shared>, number: usize, seed: u64) -> Link {
        let servers = shared.channels.servers().max(1);
        let (server, slot) = (number % servers, number / servers);
        Link { shared, state: State::Idle, backoff: Backoff::new(Jitter::new(seed)), slot, server }
    }

    /// What this process's agents share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Random numbers and waiting times of this agent.
    pub fn backoff(&mut self) -> &mut Backoff {
        &mut self.backoff
    }

    /// Where messages to the server go, while there is or will be a session.
    pub fn outbox(&self) -> Option<&Outbox> {
        match &self.state {
            State::Opening(_, outbox) | State::Open(_, outbox) => Some(outbox),
            State::Idle | State::Joining(_) => None,
        }
    }

    /// Lets go of whatever there is.
    pub fn close(&mut self) {
        self.state = State::Idle;
    }

    /// Lets go and turns to the next server of the list.
    pub fn turn(&mut self) {
        self.close();
        self.server = (self.server + 1) % self.shared.channels.servers().max(1);
    }

    /// The endpoint in use, for logs.
    pub fn endpoint(&self) -> &str {
        self.shared.channels.endpoint(self.server)
    }

    /// Begins to join; `Joined` or `Broken` follows.
    pub fn join(&mut self, caller: &Caller) {
        let (shared, caller) = (Arc::clone(&self.shared), caller.clone());
        let channel = self.shared.channels.get(self.server, self.slot);
        self.state = State::Joining(Box::pin(async move {
            let closed = |_| Status::cancelled("the process is ending");
            let _turn = shared.joins.acquire().await.map_err(closed)?;
            let mut request = Request::new(v1::JoinRequest {
                spec: Some(v1::NodeSpec::clone(&caller.spec)),
                node_key: caller.key.to_bytes(),
                instance: caller.instance.to_vec().into(),
            });
            shared.credential.sign(&mut request);
            request.set_timeout(CALL_TIMEOUT);
            let sent_at = Instant::now();
            let call = codec::join(channel, request);
            let answer = tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(too_slow)??;
            Ok(Event::Joined {
                registration: Registration { node_id: answer.node_id, epoch: answer.epoch },
                lease: Duration::from_millis(answer.lease_ms),
                heartbeat: Duration::from_millis(answer.heartbeat_ms),
                sent_at,
            })
        }));
    }

    /// Begins a session that says `reports` first; `Opened` or `Broken` follows.
    pub fn open(
        &mut self,
        caller: &Caller,
        registration: Registration,
        reports: impl Iterator<Item = v1::ReplicaReport>,
    ) {
        let outbox = Outbox::new(v1::SessionHello {
            node_id: registration.node_id,
            epoch: registration.epoch,
            node_key: caller.key.to_bytes(),
            instance: caller.instance.to_vec().into(),
        });
        reports.for_each(|report| outbox.report(report));
        let mut request = Request::new(outbox.stream());
        self.shared.credential.sign(&mut request);
        let channel = self.shared.channels.get(self.server, self.slot);
        let call = Box::pin(async move {
            let call = codec::session(channel, request);
            tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(too_slow)?
        });
        self.state = State::Opening(call, outbox);
    }

    /// Says good-bye; best effort.
    pub async fn leave(
        &mut self,
        caller: &Caller,
        registration: Registration,
    ) -> Result<(), Status> {
        let mut request = Request::new(v1::LeaveRequest {
            node_id: registration.node_id,
            epoch: registration.epoch,
            node_key: caller.key.to_bytes(),
        });
        self.shared.credential.sign(&mut request);
        request.set_timeout(LEAVE_TIMEOUT);
        let channel = self.shared.channels.get(self.server, self.slot);
        let call = codec::leave(channel, request);
        tokio::time::timeout(LEAVE_TIMEOUT, call).await.map_err(too_slow)?
    }

    /// What happens next; never returns while idle. May be dropped and called again.
    pub async fn next(&mut self) -> Event {
        let outcome = match &mut self.state {
            State::Idle => std::future::pending().await,
            State::Joining(call) => call.await,
            State::Opening(call, _) => match call.await {
                Ok(stream) => Ok(self.opened(stream)),
                Err(status) => Err(status),
            },
            State::Open(stream, _) => read(stream).await,
        };
        match outcome {
            Ok(event) => {
                if matches!(event, Event::Joined { .. } | Event::End(_)) {
                    self.close();
                }
                event
            }
            Err(status) => {
                self.turn();
                Event::Broken(status)
            }
        }
    }

    fn opened(&mut self, stream: Streaming<v1::SessionResponse>) -> Event {
        if let State::Opening(_, outbox) = std::mem::replace(&mut self.state, State::Idle) {
            self.state = State::Open(stream, outbox);
        }
        Event::Opened
    }
}

async fn read(stream: &mut Streaming<v1::SessionResponse>) -> Result<Event, Status> {
    use v1::session_response::Message;
    loop {
        let response = stream.message().await?;
        let response = response.ok_or_else(|| Status::unavailable("the server hung up"))?;
        match response.message {
            Some(Message::Desired(desired)) => return Ok(Event::Desired(desired)),
            Some(Message::HeartbeatAck(ack)) => return Ok(Event::HeartbeatAck(ack.sequence)),
            Some(Message::End(end)) => return Ok(Event::End(end)),
            Some(Message::Probes(targets)) => return Ok(Event::Probes(targets)),
            // Something newer servers say; nothing that we could do about it.
            None => {}
        }
    }
}

fn too_slow(_: tokio::time::error::Elapsed) -> Status {
    Status::deadline_exceeded("no answer in time")
}

/// How long the server asks to wait before the next try.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}
