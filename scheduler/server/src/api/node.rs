//! What agents call: join, keep a session, leave.
//!
//! **Invariant:** decides nothing: converts, asks `session` or the leader, converts back.

use super::{WRITE_TIME, odd_answer, time_left};
use crate::auth::Caller;
use crate::clock;
use crate::convert;
use crate::forward::{LeaderCall, LeaderReply};
use crate::session::admit::{Admitted, Hello, key_digest};
use crate::session::{Hub, JoinCall, SessionStream};
use crate::status;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use proto::v1;
use proto::v1::node_service_server::{NodeService, NodeServiceServer};
use proto::v1::session_request::Message;
use proto::v1::session_response;
use scheduler_core::command::{Actor, Command, Entry, NodeTransition, RegisterNode};
use scheduler_core::duty::leases::Instance;
use scheduler_core::id::{Epoch, NodeId};
use scheduler_core::node::NodeStatus;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// Largest request: a node with all labels and taints that are allowed, or 4,096 reports.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// How long an answer to Join waits until this server can take the session that follows.
const APPLY_WAIT: Duration = Duration::from_secs(2);
/// How long a new stream may stay silent: a hello is one small message.
const HELLO_WAIT: Duration = Duration::from_secs(10);

/// The service for agents.
pub struct NodeApi {
    hub: Hub,
}

impl NodeApi {
    /// The service for the sessions of this server, ready to be added to the public port.
    pub fn service(hub: Hub) -> NodeServiceServer<Self> {
        NodeServiceServer::new(Self { hub }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }
}

type Answers = BoxStream<'static, Result<v1::SessionResponse, Status>>;

#[tonic::async_trait]
impl NodeService for NodeApi {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinResponse>, Status> {
        let caller = Caller::of(&request)?;
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let asked = request.into_inner();
        let spec = asked.spec.as_ref().ok_or_else(|| status::bad_field("spec", "is missing"))?;
        let register = RegisterNode {
            supplier: caller.supplier()?,
            spec: convert::node::spec(spec)?,
            key_digest: key_digest(&convert::session::fixed("node_key", &asked.node_key)?),
        };
        let instance = Instance(convert::session::fixed("instance", &asked.instance)?);
        let call = LeaderCall::Join(Box::new(JoinCall { by: caller.actor, register, instance }));
        let joined = match self.hub.router().call(call, deadline).await {
            Ok(LeaderReply::Joined(joined)) => joined,
            Ok(other) => return Err(odd_answer(&other)),
            Err(error) => return Err(status::from_call(&error)),
        };
        // So that the hello which follows finds its registration here. A server too far behind
        // lets the agent try anyway: the hello waits once more.
        let quorum = self.hub.quorum();
        let _ = quorum.wait_applied(joined.index, clock::deadline(APPLY_WAIT).into_std()).await;
        let fleet = quorum.read(|state| state.node_id_end());
        let timing = self.hub.timing();
        Ok(Response::new(v1::JoinResponse {
            node_id: joined.node.0,
            epoch: joined.epoch.0,
            lease_ms: timing.lease(fleet).0,
            heartbeat_ms: timing.heartbeat(fleet).0,
        }))
    }

    type SessionStream = Answers;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let supplier = Caller::of(&request)?.supplier()?;
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(HELLO_WAIT, inbound.message()).await;
        let first = first.map_err(|_| status::bad_field("hello", "did not come in time"))??;
        let Some(Message::Hello(hello)) = first.and_then(|first| first.message) else {
            return Err(status::bad_field("hello", "is missing; it must be the first message"));
        };
        let hello = Hello::read(&hello)?;
        let answers = match self.hub.admit(&supplier, &hello).await? {
            Admitted::Open(slot) => {
                tracing::debug!(node = %slot.node, epoch = slot.epoch.0, "a session has opened");
                SessionStream::new(self.hub.clone(), slot, inbound).boxed()
            }
            Admitted::Farewell(end) => {
                let message = Some(session_response::Message::End(end));
                stream::once(async { Ok(v1::SessionResponse { message }) }).boxed()
            }
        };
        Ok(Response::new(answers))
    }

    async fn leave(
        &self,
        request: Request<v1::LeaveRequest>,
    ) -> Result<Response<v1::LeaveResponse>, Status> {
        let supplier = Caller::of(&request)?.supplier()?;
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let asked = request.into_inner();
        let (node, epoch) = (NodeId(asked.node_id), Epoch(asked.epoch));
        let digest = key_digest(&convert::session::fixed("node_key", &asked.node_key)?);
        if self.hub.judge(&supplier, node, epoch, &digest).await?.is_some() {
            // Removed, down, or at work again under a newer epoch: this one has left already.
            return Ok(Response::new(v1::LeaveResponse {}));
        }
        let transition = NodeTransition { node, epoch, status: NodeStatus::Down };
        let command = Command::NodeStatuses(vec![transition]);
        // The agent proved its identity; transitions are the scheduler's own commands.
        let entry = Entry { at: clock::now(), by: Actor::System, command };
        let call = LeaderCall::Propose(vec![entry]);
        let done = self.hub.router().call(call, deadline).await;
        done.map_err(|error| status::from_call(&error))?;
        tracing::info!(%node, "a node has left");
        Ok(Response::new(v1::LeaveResponse {}))
    }
}
