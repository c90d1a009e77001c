//! Agents' sessions: who is connected where, what each node should run, and what it says it runs.
//!
//! Every server ends streams of agents. It sends each node its whole desired state whenever that
//! changes, gathers the replicas' reports into few big entries, and tells the leader each second
//! whom it has heard; the leader alone decides whose lease is over. On the side agents measure
//! round trips to others (`probes`).
//!
//! **Invariant:** a heartbeat is acknowledged only after a leader confirmed by its quorum has
//! counted it; so an agent never believes in a lease that the leader does not know of. No node id
//! is taken from anything but the verified `hello`.

pub mod admit;
pub mod digests;
pub mod dispatch;
pub mod outbox;
pub mod probes;
pub mod reports;
pub mod stream;
pub mod table;

pub use stream::SessionStream;

use crate::applied::Fanout;
use crate::clock;
use crate::config::Probing;
use crate::forward::{CallError, LeaderCall, Router};
use futures::FutureExt as _;
use probes::Gathered;
use raft_store::{Quorum, ServerId};
use reports::{Reports, Undelivered};
use scheduler_core::command::{Actor, Command, Entry, RegisterNode, ReplicaReport};
use scheduler_core::duty::leases::{Closed, Heard, Instance, Refused};
use scheduler_core::duty::timing::Timing;
use scheduler_core::id::{Epoch, NodeId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use table::Table;

/// How long one batch of reports waits for a leader before it is put back among the others.
const REPORT_WAIT: Duration = Duration::from_secs(5);

/// The sessions of this server: the handle that everyone holds. Cheap to clone.
#[derive(Clone)]
pub struct Hub(Arc<Parts>);

struct Parts {
    own: ServerId,
    quorum: Quorum,
    router: Router,
    fanout: Arc<Fanout>,
    table: Arc<Table>,
    reports: Arc<Reports>,
    gathered: Arc<Gathered>,
    timing: Timing,
    probing: Probing,
}

impl Hub {
    /// No sessions yet; [`Hub::run`] makes it work.
    pub fn new(
        own: ServerId,
        quorum: Quorum,
        router: Router,
        fanout: Arc<Fanout>,
        timing: Timing,
        probing: Probing,
    ) -> Self {
        let (table, reports, gathered) = (Arc::default(), Arc::default(), Arc::default());
        Self(Arc::new(Parts {
            own,
            quorum,
            router,
            fanout,
            table,
            reports,
            gathered,
            timing,
            probing,
        }))
    }

    /// Dispatches, relays reports and tells the leader whom it heard, for as long as it is polled.
    pub async fn run(self) {
        let parts = &self.0;
        let _end = EndWithRun(&parts.table);
        let dispatch = dispatch::run(
            Arc::clone(&parts.fanout),
            parts.quorum.clone(),
            Arc::clone(&parts.table),
        );
        let digests = digests::run(
            parts.own,
            parts.quorum.clone(),
            parts.router.clone(),
            Arc::clone(&parts.table),
            parts.timing,
        );
        let router = parts.router.clone();
        let send: Arc<reports::Send> = Arc::new(move |batch| relay(router.clone(), batch).boxed());
        let reports = Arc::clone(&parts.reports).run(send);
        let probes = probes::run(
            parts.quorum.clone(),
            parts.router.clone(),
            Arc::clone(&parts.table),
            Arc::clone(&parts.gathered),
            parts.probing,
        );
        futures::join!(dispatch, digests, reports, probes);
    }

    /// Ends all sessions with a word to the agents to go elsewhere, and takes no new ones.
    pub fn shut_down(&self) {
        self.0.table.shut_down();
    }

    /// Sessions that end here now.
    pub fn sessions(&self) -> usize {
        self.0.table.len()
    }

    /// Lengths of leases and intervals.
    pub fn timing(&self) -> Timing {
        self.0.timing
    }

    pub(crate) fn quorum(&self) -> &Quorum {
        &self.0.quorum
    }

    pub(crate) fn router(&self) -> &Router {
        &self.0.router
    }

    pub(crate) fn table(&self) -> &Table {
        &self.0.table
    }

    pub(crate) fn reports(&self) -> &Reports {
        &self.0.reports
    }

    pub(crate) fn gathered(&self) -> &Gathered {
        &self.0.gathered
    }
}

/// Ends all sessions when nothing works for them any more, however that came.
struct EndWithRun<'a>(&'a Table);

impl Drop for EndWithRun<'_> {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// Has the leader log one batch of reports.
async fn relay(router: Router, batch: Vec<ReplicaReport>) -> Result<(), Undelivered> {
    let command = Command::Report(batch);
    let entry = Entry { at: clock::now(), by: Actor::System, command };
    match router.call(LeaderCall::Propose(vec![entry]), clock::deadline(REPORT_WAIT)).await {
        Ok(_) => Ok(()),
        Err(error @ (CallError::Rejected(_) | CallError::TooLarge { .. })) => {
            tracing::error!(%error, "reports were not taken");
            Err(Undelivered::Refused)
        }
        Err(error) => {
            tracing::warn!(%error, "reports could not be delivered yet");
            Err(Undelivered::Retry)
        }
    }
}

/// An agent's Join, handed to the leader. The leader asks its leases whether it may,
/// proposes `RegisterNode` on behalf of `by`, and tells them the outcome.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinCall {
    /// The authenticated caller.
    pub by: Actor,
    pub register: RegisterNode,
    pub instance: Instance,
}

/// What became of a Join.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Joined {
    pub node: NodeId,
    /// Fencing number of the session that may open now.
    pub epoch: Epoch,
    /// Log index of the registration: a server that has applied it can take the session.
    pub index: u64,
}

/// Whom one server has heard since its last digest, and which sessions it has seen closing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Digest {
    pub server: ServerId,
    pub heard: Vec<Heard>,
    pub closed: Vec<Closed>,
}

/// The leader's answer to a digest: every heard node that is not named has its lease extended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DigestReply {
    pub refused: Vec<Refused>,
}
