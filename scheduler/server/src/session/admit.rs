//! Who may open a session: the hello is held against the applied state.
//!
//! **Invariant:** a slot is opened only for the node's own supplier, key and newest epoch, and only
//! while the node is not declared down.

use super::Hub;
use super::dispatch::{look, tell};
use super::table::{OpenError, Slot, end};
use crate::clock;
use crate::convert::session::{Desires, NODE_KEY_BYTES, fixed};
use crate::forward::{CallError, LeaderCall, LeaderReply};
use crate::status;
use proto::v1::{SessionEnd, SessionEndReason, SessionHello};
use scheduler_core::command::Kind;
use scheduler_core::duty::leases::Instance;
use scheduler_core::id::{Epoch, NodeId, SupplierId};
use scheduler_core::node::NodeStatus;
use scheduler_core::state::State;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tonic::Status;

/// How long a server that is behind waits to catch up with what a hello names.
const CATCH_UP_WAIT: Duration = Duration::from_secs(3);
/// When to come back to a full server, or to one where an equal identity is connected.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Digest of an agent's secret, as the state holds it.
pub fn key_digest(key: &[u8; NODE_KEY_BYTES]) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// What became of a hello that was not refused outright.
#[derive(Debug)]
pub enum Admitted {
    /// The session is open, and its first desired state is on its way.
    Open(Arc<Slot>),
    /// The agent is who it says, but must first do what the farewell says.
    Farewell(SessionEnd),
}

/// A hello in our own words.
pub struct Hello {
    pub node: NodeId,
    pub epoch: Epoch,
    pub instance: Instance,
    key_digest: [u8; 32],
}

impl Hello {
    /// Reads the message; the fields' lengths are checked here.
    pub fn read(hello: &SessionHello) -> Result<Self, Status> {
        Ok(Self {
            node: NodeId(hello.node_id),
            epoch: Epoch(hello.epoch),
            instance: Instance(fixed("hello.instance", &hello.instance)?),
            key_digest: key_digest(&fixed("hello.node_key", &hello.node_key)?),
        })
    }
}

/// What one look at the state says of an identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    Genuine,
    /// The state here may be older than what the caller knows.
    Behind,
    /// Not the caller's node, or none at all.
    NotFound,
    WrongKey,
    Farewell(SessionEnd),
}

/// Holds an identity against the state.
pub fn judge(
    state: &State,
    supplier: &SupplierId,
    node: NodeId,
    epoch: Epoch,
    key_digest: &[u8; 32],
) -> Verdict {
    let over = |reason, message: &str| Verdict::Farewell(end(reason, message));
    let Some(known) = state.node(node) else {
        return if node.0 >= state.node_id_end() {
            Verdict::Behind
        } else {
            over(SessionEndReason::Removed, "the node was removed")
        };
    };
    if known.supplier != *supplier {
        return Verdict::NotFound;
    }
    if !bool::from(known.key_digest.ct_eq(key_digest)) {
        return Verdict::WrongKey;
    }
    if known.epoch < epoch {
        return Verdict::Behind;
    }
    if known.epoch > epoch {
        let message = format!(
            "epoch {epoch} is over, the node has registered again with epoch {}",
            known.epoch
        );
        return over(SessionEndReason::Superseded, &message);
    }
    if known.status == NodeStatus::Down {
        return over(SessionEndReason::LeaseLost, "the node was declared down");
    }
    Verdict::Genuine
}

impl Hub {
    /// Decides on an identity, after catching up with the quorum where the state here is behind.
    ///
    /// # Errors
    /// NOT_FOUND for a node that is not the caller's, PERMISSION_DENIED for a wrong key.
    pub async fn judge(
        &self,
        supplier: &SupplierId,
        node: NodeId,
        epoch: Epoch,
        key_digest: &[u8; 32],
    ) -> Result<Option<SessionEnd>, Status> {
        let now = || self.quorum().read(|state| judge(state, supplier, node, epoch, key_digest));
        let mut verdict = now();
        if verdict == Verdict::Behind {
            self.catch_up().await.map_err(|error| status::from_call(&error))?;
            verdict = now();
        }
        match verdict {
            Verdict::Genuine => Ok(None),
            Verdict::Farewell(end) => Ok(Some(end)),
            Verdict::NotFound | Verdict::Behind => Err(status::not_found(Kind::Node, node)),
            Verdict::WrongKey => Err(status::forbidden("the node key is not the node's own")),
        }
    }

    async fn catch_up(&self) -> Result<(), CallError> {
        let deadline = clock::deadline(CATCH_UP_WAIT);
        let index = match self.router().call(LeaderCall::ReadIndex, deadline).await? {
            LeaderReply::Index(index) => index,
            other => return Err(CallError::Internal { why: format!("unexpected: {other:?}") }),
        };
        self.quorum().wait_applied(index, deadline.into_std()).await.map_err(status::quorum_to_call)
    }

    /// Opens the session that a hello asks for.
    pub async fn admit(&self, supplier: &SupplierId, hello: &Hello) -> Result<Admitted, Status> {
        let Hello { node, epoch, instance, .. } = *hello;
        if let Some(end) = self.judge(supplier, node, epoch, &hello.key_digest).await? {
            return Ok(Admitted::Farewell(end));
        }
        let slot = match self.table().open(node, epoch, instance) {
            Ok(slot) => slot,
            Err(OpenError::Stale) => {
                let message = OpenError::Stale.to_string();
                return Ok(Admitted::Farewell(end(SessionEndReason::Superseded, &message)));
            }
            Err(OpenError::ShuttingDown) => return Err(status::stopping()),
            Err(error @ OpenError::CutOff) => {
                let why = error.to_string();
                return Err(status::from_call(&CallError::Unavailable { why }));
            }
            Err(error @ OpenError::Full) => {
                return Err(status::busy(&error.to_string(), RETRY_AFTER));
            }
            Err(error @ OpenError::Held) => {
                let retry_ms = clock::millis(RETRY_AFTER).0;
                let held = CallError::Held { why: error.to_string(), retry_ms };
                return Err(status::from_call(&held));
            }
        };
        // After the slot is in the table: a change from here on reaches it through the dispatcher.
        let told = self.quorum().read(|state| look(state, &mut Desires::new(state), &slot));
        tell(&slot, told);
        Ok(Admitted::Open(slot))
    }
}
