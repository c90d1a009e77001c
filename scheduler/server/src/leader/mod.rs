//! The leader's work: accepting and planning jobs, proposing for others, leases, duties.
//!
//! Every server has a [`Leader`]; it works only while the quorum says that this server leads.
//! `answer` and `inbox` take jobs in, `planner` plans them on a thread of its own, `batch` brings
//! plans through the log, `explainer` says why jobs do not fit,
//! `duty` does what is due by the clock, `probing` makes site RTTs of what agents measure.
//! **Invariant:** nothing here decides anything: a deposed leader's proposals fail in the log, and
//! its plans are checked again by `State::apply`.

mod answer;
mod batch;
mod duty;
mod explainer;
mod inbox;
mod planner;
mod probing;
mod read;

use crate::applied::{Fanout, lock};
use crate::call::{CallError, ExplainCall, LeaderCall, LeaderReply, MembershipCall, PlanCall};
use crate::clock;
use crate::config::Cluster;
use crate::session::{Digest, DigestReply, JoinCall, Joined};
use crate::status::quorum_to_call;
use inbox::{DryRun, Inbox};
use raft_store::{Quorum, ServerId, Status};
use read::ReadPoints;
use scheduler_core::command::{Command, Entry, Outcome, Rejection};
use scheduler_core::duty::leases::Leases;
use scheduler_core::duty::office::Submission;
use scheduler_core::duty::probes::Probes;
use scheduler_core::duty::timing::Timing;
use scheduler_core::unit::DurationMs;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long a new leader waits for its first proof of leadership before it asks again.
const CONFIRM_TIME: Duration = Duration::from_secs(1);

/// A leader that no majority has answered for this many election times takes no calls: well over
/// the hiccup of a busy machine, well under a client's patience.
const SILENT_ELECTIONS: u64 = 4;

/// What this server does, or would do, as the leader. Cheap to clone.
#[derive(Clone)]
pub struct Leader(Arc<Parts>);

struct Parts {
    quorum: Quorum,
    leases: Mutex<Leases<ServerId>>,
    probes: Mutex<Probes>,
    reads: ReadPoints,
    /// Longest silence of the majority before calls are refused.
    silence_ms_max: u64,
    /// Where jobs go in the current term; `None` while this server does not lead.
    term: Mutex<Option<Arc<Inbox>>>,
}

impl Leader {
    /// A leader that does nothing yet; [`Leader::run`] makes it work.
    pub(crate) fn new(quorum: Quorum, cluster: &Cluster) -> Self {
        let timing = Timing::new(DurationMs(cluster.timing.lease_ms));
        let leases = Mutex::new(Leases::new(timing, clock::monotonic()));
        let silence_ms_max = cluster.timing.election_ms_max.saturating_mul(SILENT_ELECTIONS);
        let (reads, term) = (ReadPoints::default(), Mutex::default());
        let probes = Mutex::default();
        Self(Arc::new(Parts { quorum, leases, probes, reads, silence_ms_max, term }))
    }

    /// Does `call` if this server leads.
    ///
    /// # Errors
    /// [`CallError::NotLeader`] if it does not; else what came of the call.
    pub async fn call(
        &self,
        call: LeaderCall,
        deadline: Instant,
    ) -> Result<LeaderReply, CallError> {
        self.has_quorum()?;
        let done = self.perform(call, deadline).await;
        match done {
            // Nobody answers us any more: the caller had better ask again than wait.
            Err(CallError::Timeout) => Err(self
                .has_quorum()
                .err()
                .map_or(CallError::Timeout, |error| CallError::Unknown { why: error.to_string() })),
            done => done,
        }
    }

    async fn perform(&self, call: LeaderCall, deadline: Instant) -> Result<LeaderReply, CallError> {
        match call {
            LeaderCall::Propose(entries) => self.propose(entries, deadline).await,
            LeaderCall::Submit(calls) => self.submit(calls, deadline).await,
            LeaderCall::Plan(call) => self.plan(call, deadline).await,
            LeaderCall::Explain(call) => self.explain(call, deadline).await,
            LeaderCall::ReadIndex => {
                let index = within(deadline, self.0.reads.ask(&self.0.quorum)).await?;
                Ok(LeaderReply::Index(index?))
            }
            LeaderCall::Join(call) => self.join(*call, deadline).await,
            LeaderCall::Digest(digest) => {
                // The answer grants leases, so leadership is confirmed first.
                within(deadline, self.0.reads.ask(&self.0.quorum)).await??;
                Ok(LeaderReply::Heard(self.heard(&digest)))
            }
            LeaderCall::Membership(call) => within(deadline, self.change_members(call)).await?,
            LeaderCall::Probed(probes) => {
                self.note_probes(&probes);
                Ok(LeaderReply::Noted)
            }
        }
    }

    /// Refuses at once while this server leads but no majority has answered it for long: what is
    /// proposed now would hang.
    fn has_quorum(&self) -> Result<(), CallError> {
        let status = self.0.quorum.status();
        if !status.is_leader() {
            return Err(CallError::NotLeader { leader: status.leader });
        }
        let silence = status.quorum_ack_age_ms.unwrap_or(0);
        let alone = status.members.iter().filter(|member| member.voter).count() <= 1;
        if alone || silence <= self.0.silence_ms_max {
            return Ok(());
        }
        let why = format!("no majority of the servers has answered for {silence} ms");
        Err(CallError::Unavailable { why })
    }

    async fn propose(
        &self,
        mut entries: Vec<Entry>,
        deadline: Instant,
    ) -> Result<LeaderReply, CallError> {
        let now = clock::now();
        entries.iter_mut().for_each(|entry| entry.at = now);
        let proposed = within(deadline, self.0.quorum.propose(entries)).await?;
        let proposed = proposed.map_err(quorum_to_call)?;
        Ok(LeaderReply::Proposed { index: proposed.index, results: proposed.results })
    }

    fn inbox(&self) -> Result<Arc<Inbox>, CallError> {
        let term = lock(&self.0.term).clone();
        term.ok_or_else(|| CallError::NotLeader { leader: self.0.quorum.status().leader })
    }

    async fn submit(
        &self,
        calls: Arc<Vec<Submission>>,
        deadline: Instant,
    ) -> Result<LeaderReply, CallError> {
        let inbox = self.inbox()?;
        if calls.is_empty() {
            return Ok(LeaderReply::Submitted(Vec::new()));
        }
        let (slots, results) = answer::sheet(calls.len());
        let calls = Arc::unwrap_or_clone(calls);
        inbox.submit(calls.into_iter().zip(slots).collect())?;
        let results = within(deadline, results).await?;
        let gone = |_| CallError::NotLeader { leader: None };
        Ok(LeaderReply::Submitted(results.map_err(gone)?))
    }

    async fn plan(&self, call: PlanCall, deadline: Instant) -> Result<LeaderReply, CallError> {
        let (answer, planned) = oneshot::channel();
        self.inbox()?.dry_run(DryRun::Plan { call, answer })?;
        let planned = within(deadline, planned).await?;
        let gone = |_| CallError::NotLeader { leader: None };
        Ok(LeaderReply::Planned(Box::new(planned.map_err(gone)??)))
    }

    async fn explain(
        &self,
        call: ExplainCall,
        deadline: Instant,
    ) -> Result<LeaderReply, CallError> {
        let (answer, explained) = oneshot::channel();
        self.inbox()?.dry_run(DryRun::Explain { call, answer })?;
        let explained = within(deadline, explained).await?;
        let gone = |_| CallError::NotLeader { leader: None };
        Ok(LeaderReply::Explained(Box::new(explained.map_err(gone)??)))
    }

    fn heard(&self, digest: &Digest) -> DigestReply {
        let Digest { server, heard, closed } = digest;
        let refused = lock(&self.0.leases).heard(*server, heard, closed, clock::monotonic());
        DigestReply { refused }
    }

    async fn join(&self, call: JoinCall, deadline: Instant) -> Result<LeaderReply, CallError> {
        let JoinCall { by, register, instance } = call;
        let known =
            self.0.quorum.read(|state| state.node_by_name(&register.supplier, &register.spec.name));
        if let Some(node) = known {
            let free = lock(&self.0.leases).may_join(node, instance, clock::monotonic());
            free.map_err(|held| CallError::Held {
                why: format!("another agent with the identity of {} is alive", held.node),
                retry_ms: held.retry_after.0,
            })?;
        }
        let command = Command::RegisterNode(register);
        let entry = Entry { at: clock::now(), by, command };
        let proposed = within(deadline, self.0.quorum.propose(vec![entry])).await?;
        let proposed = proposed.map_err(quorum_to_call)?;
        let index = proposed.index;
        match single(proposed.results)? {
            Outcome::Registered { node, epoch } => {
                lock(&self.0.leases).joined(node, epoch, instance, clock::monotonic());
                Ok(LeaderReply::Joined(Joined { node, epoch, index }))
            }
            other => {
                let why = format!("the log answered a registration with {other:?}");
                Err(CallError::Internal { why })
            }
        }
    }

    async fn change_members(&self, call: MembershipCall) -> Result<LeaderReply, CallError> {
        let quorum = &self.0.quorum;
        if !quorum.status().is_leader() {
            return Err(CallError::NotLeader { leader: quorum.status().leader });
        }
        let changed = match call {
            MembershipCall::AddLearner(member) => quorum.add_learner(member).await,
            MembershipCall::Promote(id) => quorum.promote(id).await,
            MembershipCall::Remove(id) => quorum.remove(id).await,
            MembershipCall::Transfer(to) => quorum.transfer_leader(to).await,
        };
        changed.map_err(quorum_to_call)?;
        let leader = quorum.status().leader.map(|member| member.id);
        Ok(LeaderReply::Changed { leader })
    }

    /// Works for as long as it is polled: one term after another.
    pub(crate) async fn run(self, cluster: Cluster, fanout: Arc<Fanout>, stop: CancellationToken) {
        let mut standing = self.0.quorum.watch();
        loop {
            let leading = standing.wait_for(Status::is_leader);
            let term = tokio::select! {
                status = leading => match status {
                    Ok(status) => status.term,
                    Err(_closed) => return,
                },
                () = stop.cancelled() => return,
            };
            let deposed = deposed(self.0.quorum.watch(), term);
            tokio::select! {
                () = self.lead(term, &cluster, &fanout) => {}
                () = deposed => tracing::info!(term, "leads no more"),
                () = stop.cancelled() => return,
            }
        }
    }

    /// Leads for one term; cancelled when it is over.
    async fn lead(&self, term: u64, cluster: &Cluster, fanout: &Arc<Fanout>) {
        let inbox = Arc::new(Inbox::default());
        let mut holdings =
            Holdings { leader: self, fanout, inbox: Arc::clone(&inbox), planner: None };
        lock(&self.0.leases).reset_for_new_term(clock::monotonic());
        *lock(&self.0.term) = Some(Arc::clone(&inbox));
        self.confirm(term).await;
        // Jobs wait in the inbox until there are tenants whom they could belong to.
        let has_tenants = duty::first_tenants(self, cluster).await;
        // Told of changes before it reads the state, so that it misses none.
        let follower: Arc<dyn crate::applied::Follow> = Arc::clone(&inbox) as _;
        fanout.follow(Some(follower));
        let runtime = tokio::runtime::Handle::current();
        let reserve = cluster.reservations.rules();
        match planner::spawn(self.0.quorum.clone(), inbox, runtime, reserve) {
            Ok(thread) => holdings.planner = Some(thread),
            Err(error) => {
                tracing::error!(%error, "no thread for the planner; leadership is given away");
                let _ = self.0.quorum.transfer_leader(None).await;
            }
        }
        let probing = probing::run(self, cluster.probing);
        futures::join!(duty::run(self, cluster, has_tenants), probing);
    }

    /// Returns once a quorum has confirmed the leadership and the state shows all of the terms
    /// before it.
    async fn confirm(&self, term: u64) {
        let quorum = &self.0.quorum;
        let mut pause = tokio::time::interval(CONFIRM_TIME / 20);
        loop {
            pause.tick().await;
            let deadline = clock::deadline(CONFIRM_TIME);
            let Ok(Ok(index)) = timeout_at(deadline, quorum.read_index()).await else { continue };
            if quorum.wait_applied(index, deadline.into_std()).await.is_ok() {
                tracing::info!(term, index, "leads");
                return;
            }
        }
    }
}

/// What a term holds; given back when it ends, however it ends.
struct Holdings<'a> {
    leader: &'a Leader,
    fanout: &'a Arc<Fanout>,
    inbox: Arc<Inbox>,
    planner: Option<JoinHandle<()>>,
}

impl Drop for Holdings<'_> {
    fn drop(&mut self) {
        *lock(&self.leader.0.term) = None;
        self.fanout.follow(None);
        self.inbox.close();
        // The thread ends by itself after its round; it holds nothing that a next term needs.
        drop(self.planner.take());
    }
}

/// Returns when this server does not lead in `term` any more.
async fn deposed(mut standing: watch::Receiver<Status>, term: u64) {
    // An error means that the quorum has stopped, which ends the term as well.
    let _ = standing.wait_for(|status| !status.is_leader() || status.term != term).await;
}

async fn within<T>(
    deadline: Instant,
    future: impl std::future::Future<Output = T>,
) -> Result<T, CallError> {
    timeout_at(deadline, future).await.map_err(|_| CallError::Timeout)
}

/// The result of the one entry of a proposal.
pub(crate) fn single(results: Vec<Result<Outcome, Rejection>>) -> Result<Outcome, CallError> {
    let why = || CallError::Internal { why: "the log gave no result for an entry".to_owned() };
    Ok(results.into_iter().next().ok_or_else(why)??)
}
