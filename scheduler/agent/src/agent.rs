//! One agent: joins, keeps its session and its lease, carries out what is wanted, says how it is.
//! One task, one timer.
//!
//! **Invariant:** nothing is started without a current lease and a desired state of this session's
//! epoch whose mark is on disk. When the lease ends, everything is stopped before the agent joins
//! again.

use crate::board::Board;
use crate::identity::{Identity, IdentityError, Mark};
use crate::link::meter::Figure;
use crate::link::{self, Caller, Link, Registration, Shared, Verdict};
use crate::probe::Prober;
use crate::replica::{self, Assignment, BadAssignment};
use crate::runtime::{self, Haste, Runtime, RuntimeError, Start, Stop};
use agent_core::backoff::Jitter;
use agent_core::lease::Lease;
use agent_core::reconcile::{Action, Wants, reconcile};
use agent_core::replica::{AssignmentId, Binding, EXIT_NOT_STARTED, Exit, GpuSet, Held, Phase};
use futures::FutureExt as _;
use proto::v1;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

/// How long replicas of an earlier agent process may run until this one has joined: nobody knows
/// how much of their lease is left, and the default lease is this long.
const ADOPTED_LEASE: Duration = Duration::from_secs(10);
/// Grid on which heartbeats are sent; see [`Shared::on_grid`].
const GRID: Duration = Duration::from_millis(50);
/// When nothing is due the timer is set this far ahead.
const IDLE: Duration = Duration::from_secs(3600);

/// What the owner of an agent wants of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Order {
    #[default]
    Run,
    /// Fall silent as if the machine had lost its power: the session stays open and says nothing.
    Mute,
    /// End at once; what runs is left running for the next agent process.
    Exit,
    /// Stop everything, tell the server that the node goes away, and end.
    Leave,
}

/// Why an agent ended in good order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// It was told to.
    Ordered,
    /// The node was removed from the cluster; everything was stopped.
    Removed,
}

/// Why an agent had to give up.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the server refuses this node: {0}")]
    Refused(String),
}

/// See the module.
pub struct Agent<R> {
    caller: Caller,
    identity: Identity,
    runtime: R,
    link: Link,
    stage: Stage,
    registration: Option<Registration>,
    lease: Lease<Instant>,
    /// Time between heartbeats.
    heartbeat: Duration,
    /// Whether trouble was logged since the last answer: the rest of it is told more quietly.
    troubled: bool,
    /// What should run; `None` = not known since the start or the last fence.
    desired: Option<Wants<Arc<Assignment>>>,
    board: Board,
    prober: Prober,
}

/// What the agent is at.
enum Stage {
    /// Not registered; joins at this time.
    Out {
        join_at: Instant,
    },
    Joining,
    /// Registered, but without a session; opens one at this time.
    Away {
        open_at: Instant,
    },
    Opening,
    Up {
        heartbeat_at: Instant,
    },
    /// The right to run is over: waits until everything has stopped.
    Fencing,
    /// Waits until everything has stopped, to end like this.
    Ending(Result<Ended, AgentError>),
}

impl<R: Runtime> Agent<R> {
    /// An agent for a node; `number` spreads the agents of one process over servers.
    pub fn new(
        shared: Arc<Shared>,
        caller: Caller,
        identity: Identity,
        number: usize,
        runtime: R,
    ) -> Agent<R> {
        let seed = caller.instance.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Agent {
            board: Board::new(Arc::clone(&shared)),
            link: Link::new(shared, number, seed),
            caller,
            identity,
            runtime,
            stage: Stage::Out { join_at: Instant::now() },
            registration: None,
            lease: Lease::default(),
            heartbeat: ADOPTED_LEASE,
            troubled: false,
            desired: None,
            prober: Prober::none(),
        }
    }

    /// Lets the agent measure round trips when it is asked to.
    pub fn with_prober(self, prober: Prober) -> Agent<R> {
        Agent { prober, ..self }
    }

    /// Lives until ordered to end, removed, or refused.
    pub async fn run(mut self, mut orders: watch::Receiver<Order>) -> Result<Ended, AgentError> {
        self.adopt().await?;
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.deadline()));
        loop {
            if let Stage::Ending(_) = self.stage
                && !self.board.held().is_busy()
            {
                return self.end().await;
            }
            let deadline = self.deadline();
            if timer.deadline() != deadline {
                timer.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                () = &mut timer => self.on_time(Instant::now()).await?,
                order = next_order(&mut orders) => match order {
                    Order::Run => {}
                    Order::Exit => return Ok(Ended::Ordered),
                    Order::Leave => self.begin_end(Ok(Ended::Ordered)),
                    Order::Mute => return Ok(self.mute(orders).await),
                },
                event = self.link.next() => self.on_link(event).await?,
                event = self.runtime.event() => self.on_replica(event),
                reports = self.prober.next() => {
                    if let Some(outbox) = self.link.outbox() {
                        outbox.probes(reports);
                    }
                }
            }
        }
    }

    async fn adopt(&mut self) -> Result<(), AgentError> {
        for adopted in self.runtime.adopt().await? {
            let phase = adopted.exit.map_or(Phase::Ready, Phase::Ended);
            self.board.set(adopted.binding, phase);
        }
        if self.board.held().is_busy() {
            tracing::info!(node = %self.name(), replicas = self.board.held().len(), "took up");
            self.lease.grant(ADOPTED_LEASE, Instant::now());
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.caller.spec.name
    }

    /// When the timer must ring.
    fn deadline(&self) -> Instant {
        let stage = match self.stage {
            Stage::Out { join_at } => Some(join_at),
            Stage::Away { open_at } => Some(open_at),
            Stage::Up { heartbeat_at } => Some(heartbeat_at),
            Stage::Joining | Stage::Opening | Stage::Fencing | Stage::Ending(_) => None,
        };
        let earliest = stage.into_iter().chain(self.lease.until()).chain(self.silent_at()).min();
        earliest.unwrap_or_else(|| Instant::now() + IDLE)
    }

    /// When a server that is connected but does not prolong the lease is left for another.
    fn silent_at(&self) -> Option<Instant> {
        let connected = matches!(self.stage, Stage::Opening | Stage::Up { .. });
        if connected { self.lease.silent_at() } else { None }
    }

    async fn on_time(&mut self, now: Instant) -> Result<(), AgentError> {
        if self.lease.until().is_some_and(|until| until <= now) {
            self.fence("the lease ended");
            return Ok(());
        }
        if self.silent_at().is_some_and(|at| at <= now) {
            // Perhaps it was this process that was held up and the answer is here, unread.
            if let Some(event) = self.link.next().now_or_never() {
                return self.on_link(event).await;
            }
            self.link.turn();
            self.lost(&Status::unavailable("the server has fallen silent"));
            return Ok(());
        }
        match self.stage {
            Stage::Out { join_at } if join_at <= now => {
                self.link.join(&self.caller);
                self.stage = Stage::Joining;
            }
            Stage::Away { open_at } if open_at <= now => self.open(now),
            Stage::Up { heartbeat_at } if heartbeat_at <= now => self.beat(now),
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, now: Instant) {
        let Some(registration) = self.registration else {
            self.stage = Stage::Out { join_at: now };
            return;
        };
        let reports = self.board.held().iter().filter_map(replica::report);
        self.link.open(&self.caller, registration, reports);
        self.lease.forget_unanswered();
        if let Some(outbox) = self.link.outbox() {
            outbox.heartbeat(self.lease.heartbeat(now));
        }
        self.stage = Stage::Opening;
    }

    fn beat(&mut self, now: Instant) {
        if let Some(outbox) = self.link.outbox().filter(|outbox| !outbox.has_heartbeat()) {
            outbox.heartbeat(self.lease.heartbeat(now));
        }
        self.stage = Stage::Up { heartbeat_at: self.next_beat(now + self.heartbeat) };
    }

    fn next_beat(&self, at: Instant) -> Instant {
        self.link.shared().on_grid(at, GRID.min(self.heartbeat / 8))
    }

    async fn on_link(&mut self, event: link::Event) -> Result<(), AgentError> {
        match event {
            link::Event::Joined { registration, lease, heartbeat, sent_at } => {
                self.on_joined(registration, lease, heartbeat, sent_at).await;
            }
            link::Event::Opened => {
                let now = Instant::now();
                // Anywhere within the second half of the interval, so that agents that came
                // together do not beat together.
                let spread = self.link.backoff().jitter().up_to(self.heartbeat / 2);
                let at = now + self.heartbeat / 2 + spread;
                self.stage = Stage::Up { heartbeat_at: self.next_beat(at) };
            }
            link::Event::HeartbeatAck(sequence) => {
                if self.lease.acknowledged(sequence) {
                    self.troubled = false;
                    self.link.backoff().reset();
                }
            }
            link::Event::Desired(desired) => self.on_desired(desired).await,
            link::Event::End(end) => self.on_end(&end),
            link::Event::Probes(targets) => self.prober.begin(targets).await,
            link::Event::Broken(status) => self.lost(&status),
        }
        Ok(())
    }

    async fn on_joined(
        &mut self,
        registration: Registration,
        lease: Duration,
        heartbeat: Duration,
        sent_at: Instant,
    ) {
        let epoch = registration.epoch;
        let seen = self.identity.seen();
        if epoch < seen.epoch {
            self.link.shared().meter.add(Figure::Stale);
            self.link.turn();
            let offered = format!("epoch {epoch} is older than epoch {} seen", seen.epoch);
            return self.retry_join(&Status::failed_precondition(format!(
                "{offered}: another cluster, or one restored from old data?"
            )));
        }
        if lease.is_zero() || heartbeat.is_zero() {
            return self.retry_join(&Status::internal("lease or heartbeat of 0 ms"));
        }
        if epoch > seen.epoch
            && let Err(error) = self.identity.advance(Mark { epoch, index: 0 }).await
        {
            return self.retry_join(&Status::internal(error.to_string()));
        }
        tracing::debug!(node = %self.name(), id = registration.node_id, epoch, "joined");
        self.board.set_joined();
        self.registration = Some(registration);
        self.lease.grant(lease, sent_at);
        self.heartbeat = heartbeat.min(lease / 3).max(Duration::from_millis(1));
        self.link.backoff().set_first(self.heartbeat);
        self.open(Instant::now());
    }

    async fn on_desired(&mut self, desired: v1::DesiredState) {
        let Some(registration) = self.registration else { return };
        let mark = Mark { epoch: desired.epoch, index: desired.index };
        if mark.epoch > registration.epoch {
            self.link.turn();
            self.registration = None;
            return self.retry_join(&Status::aborted(format!("{mark} is of a later session")));
        }
        if let Err(stale) = self.identity.check(mark) {
            self.link.shared().meter.add(Figure::Stale);
            tracing::warn!(node = %self.name(), %stale, "refused a desired state");
            return;
        }
        if let Err(error) = self.identity.advance(mark).await {
            self.link.turn();
            return self.lost(&Status::internal(error.to_string()));
        }
        let gpus = u32::try_from(self.caller.spec.gpus.len()).unwrap_or(u32::MAX);
        let (mut wanted, mut bad) = (Vec::with_capacity(desired.assignments.len()), Vec::new());
        for wire in desired.assignments {
            match Assignment::decode(wire, gpus, &self.link.shared().programs) {
                Ok(assignment) => wanted.push(Arc::new(assignment)),
                Err(error) => bad.push(error),
            }
        }
        self.desired = Some(Wants::new(wanted));
        self.act();
        for BadAssignment { id, job, rank, message } in bad {
            // What runs under that number already is left to run.
            if self.board.phase(id).is_none() {
                let binding = Binding { id, job, rank, gpus: GpuSet::default(), gpu_milli: 0 };
                self.failed_to_start(binding, &message);
            }
        }
        self.board.set_session(true);
    }

    fn on_end(&mut self, end: &v1::SessionEnd) {
        let message = &end.message;
        match end.reason() {
            v1::SessionEndReason::Unspecified | v1::SessionEndReason::Shutdown => {
                self.link.turn();
                self.lost(&Status::unavailable(format!("the server ended the session: {message}")));
            }
            v1::SessionEndReason::Superseded => {
                self.fence("another session of this node took over");
            }
            v1::SessionEndReason::LeaseLost => self.fence("the server declared the node down"),
            v1::SessionEndReason::Removed => {
                tracing::warn!(node = %self.name(), message, "the node was removed");
                self.registration = None;
                self.begin_end(Ok(Ended::Removed));
            }
        }
    }

    /// A join, an opening or a session has come to nothing.
    fn lost(&mut self, status: &Status) {
        self.board.set_session(false);
        let joining = matches!(self.stage, Stage::Joining);
        match Verdict::of(status) {
            Verdict::Refused if joining => {
                let message = status.message().to_owned();
                self.begin_end(Err(AgentError::Refused(message)));
            }
            Verdict::Retry if !joining => {
                self.trouble("session lost", status);
                self.stage = Stage::Away { open_at: self.next_try(link::retry_after(status)) };
            }
            Verdict::Refused | Verdict::Rejoin | Verdict::Retry => {
                self.registration = None;
                self.retry_join(status);
            }
        }
    }

    fn retry_join(&mut self, status: &Status) {
        self.board.set_session(false);
        self.trouble("cannot join yet", status);
        self.stage = Stage::Out { join_at: self.next_try(link::retry_after(status)) };
    }

    /// When to try a server again: in time for the lease that there is, and not with all others.
    fn next_try(&mut self, wish: Option<Duration>) -> Instant {
        let now = Instant::now();
        now + self.link.backoff().wait(wish, self.lease.left(now))
    }

    fn trouble(&mut self, what: &str, status: &Status) {
        let (code, message) = (status.code(), status.message());
        let (node, next) = (self.name(), self.link.endpoint());
        if self.troubled {
            tracing::debug!(node, next, %code, message, "{what}");
        } else {
            tracing::info!(node, next, %code, message, "{what}; trying again");
        }
        self.troubled = true;
        let text = format!("{}: {what}: {message}", self.name());
        self.link.shared().meter.set_trouble(text);
    }

    /// Carries out what `reconcile` says, until it says nothing more. After a lease's end it does
    /// nothing: a process that was stopped for a while may read old words before its timer rings.
    fn act(&mut self) {
        while self.lease.until().is_some_and(|until| Instant::now() < until) {
            let Some(desired) = &self.desired else { return };
            let actions = reconcile(desired, self.board.held());
            if actions.is_empty() {
                return;
            }
            for action in actions {
                match action {
                    Action::Stop(id) => self.stop(id, Haste::Graceful, false),
                    Action::Forget(id) => self.forget(id),
                    Action::Start(assignment) => self.start(&assignment),
                }
            }
        }
    }

    fn start(&mut self, assignment: &Arc<Assignment>) {
        let binding = assignment.binding;
        match self.runtime.start(assignment) {
            Start::Underway => self.note(binding, Phase::Starting),
            Start::Ready => self.note(binding, Phase::Ready),
            Start::Refused(message) => self.failed_to_start(binding, &message),
        }
    }

    fn failed_to_start(&mut self, binding: Binding, message: &str) {
        self.log_exit(&binding, Exit::Failed(EXIT_NOT_STARTED), Some(message));
        self.note(binding, Phase::Ended(Exit::Failed(EXIT_NOT_STARTED)));
    }

    fn stop(&mut self, id: AssignmentId, haste: Haste, fenced: bool) {
        let Some(held) = self.board.held().get(id).copied() else { return };
        let Some(stopping) = held.phase.stopping(fenced) else { return };
        let held = self.board.set(held.binding, stopping);
        if self.runtime.stop(id, haste) == Stop::Done {
            self.ended(held, Exit::Succeeded);
        }
    }

    /// A replica is gone and its GPUs are free.
    fn ended(&mut self, held: Held, exit: Exit) {
        match held.phase.ended(exit) {
            None => self.forget(held.binding.id),
            Some(after) if after == held.phase => {}
            Some(after) => self.note(held.binding, after),
        }
    }

    fn forget(&mut self, id: AssignmentId) {
        self.board.remove(id);
        self.runtime.forget(id);
    }

    /// Notes how a replica is, and says so.
    fn note(&mut self, binding: Binding, phase: Phase) {
        let held = self.board.set(binding, phase);
        if let (Some(outbox), Some(report)) = (self.link.outbox(), replica::report(&held)) {
            outbox.report(report);
        }
    }

    fn on_replica(&mut self, event: runtime::Event) {
        match event {
            runtime::Event::Ready(id) => {
                let held = self.board.held().get(id).copied();
                if let Some((held, ready)) = held.and_then(|held| Some((held, held.phase.ready()?)))
                {
                    self.note(held.binding, ready);
                }
            }
            runtime::Event::Ended { id, exit, message } => {
                let Some(held) = self.board.held().get(id).copied() else { return };
                if held.phase.is_wanted() {
                    self.log_exit(&held.binding, exit, message.as_deref());
                }
                self.ended(held, exit);
                self.act();
                self.after_stop();
            }
        }
    }

    fn log_exit(&self, binding: &Binding, exit: Exit, message: Option<&str>) {
        self.board.count_exit(exit);
        let (node, job, rank) = (self.name(), binding.job.0, binding.rank.0);
        match exit {
            Exit::Succeeded => tracing::info!(node, job, rank, "replica succeeded"),
            Exit::Failed(code) => {
                tracing::warn!(node, job, rank, code, message, "replica failed");
            }
        }
        if let Some(message) = message {
            let text = format!("{node}: job {job} rank {rank}: {message}");
            self.link.shared().meter.set_trouble(text);
        }
    }

    /// The right to run is over: stops everything at once; joins again when that is done.
    fn fence(&mut self, why: &str) {
        let replicas = self.board.held().len();
        tracing::warn!(node = %self.name(), replicas, why, "fencing: everything stops");
        self.link.shared().meter.add(Figure::Fences);
        self.link.turn();
        self.board.set_session(false);
        self.registration = None;
        self.lease.clear();
        self.desired = None;
        self.stop_all(Haste::Now, true);
        if !matches!(self.stage, Stage::Ending(_)) {
            self.stage = Stage::Fencing;
            self.after_stop();
        }
    }

    fn stop_all(&mut self, haste: Haste, fenced: bool) {
        let all: Vec<AssignmentId> = self.board.held().iter().map(|held| held.binding.id).collect();
        for id in all {
            self.stop(id, haste, fenced);
        }
    }

    /// After a fence: once nothing runs any more, joins again.
    fn after_stop(&mut self) {
        if matches!(self.stage, Stage::Fencing) && !self.board.held().is_busy() {
            self.stage = Stage::Out { join_at: self.next_try(None) };
        }
    }

    fn begin_end(&mut self, end: Result<Ended, AgentError>) {
        if matches!(self.stage, Stage::Ending(_)) {
            return;
        }
        self.link.close();
        self.board.set_session(false);
        self.desired = None;
        self.stage = Stage::Ending(end);
        self.stop_all(Haste::Graceful, false);
    }

    async fn end(mut self) -> Result<Ended, AgentError> {
        let Stage::Ending(end) = self.stage else { return Ok(Ended::Ordered) };
        if let (Ok(Ended::Ordered), Some(registration)) = (&end, self.registration)
            && let Err(status) = self.link.leave(&self.caller, registration).await
        {
            tracing::info!(node = %self.caller.spec.name, message = status.message(), "left unheard");
        }
        end
    }

    /// Keeps the session open and says nothing, until ordered otherwise.
    async fn mute(self, mut orders: watch::Receiver<Order>) -> Ended {
        let Agent { link, board, .. } = self;
        // The machine is dark: nothing runs there and nobody is in session.
        drop(board);
        while next_order(&mut orders).await == Order::Mute {}
        drop(link);
        Ended::Ordered
    }
}

/// The next order; when nobody can give any more, none comes.
async fn next_order(orders: &mut watch::Receiver<Order>) -> Order {
    match orders.changed().await {
        Ok(()) => *orders.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

/// Random number of an agent process.
pub fn instance() -> Result<[u8; 16], IdentityError> {
    crate::identity::random_bytes().map_err(|source| IdentityError::Io {
        doing: "read",
        path: "the system's random numbers".into(),
        source,
    })
}

/// A jitter from the system's random numbers, for owners of agents.
pub(crate) fn jitter() -> Result<Jitter, IdentityError> {
    let bytes = instance()?;
    Ok(Jitter::new(bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))))
}
