//! What the planner thread is told: jobs to accept, dry runs, changes, batches that came back.
//!
//! **Invariant:** bounded: jobs and dry runs by count (more are refused), changes by merging.
//! Whoever fills it never waits.

use super::answer::Slot;
use crate::applied::{Follow, lock};
use crate::call::{CallError, ExplainCall, Explained, PlanCall, Planned};
use crate::clock;
use scheduler_core::duty::office::{
    Ask, BATCH_JOBS_MAX, BATCHES_IN_FLIGHT_MAX, LINGER, Notes, Offer, Returned, Submission, is_ripe,
};
use scheduler_core::event::Event;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Most jobs queued: about a third of a second of planning, and 32 full batch calls.
const JOBS_QUEUED_MAX: usize = 16_384;
/// Most dry runs queued; each may cost as much as a gang.
pub(super) const DRY_RUNS_QUEUED_MAX: usize = 256;
/// What a caller is told to wait when a queue is full.
pub(super) const RETRY_MS: u64 = 50;
/// Changes are taken in at the latest after this time, so that a plan finds most of it done.
const NOTES_LINGER: Duration = Duration::from_millis(3);

/// How long the planner waits to be told of what the state already shows.
const TOLD_PATIENCE: Duration = Duration::from_millis(5);

/// A question whose answer changes nothing.
pub(super) enum DryRun {
    Plan { call: PlanCall, answer: oneshot::Sender<Result<Planned, CallError>> },
    Explain { call: ExplainCall, answer: oneshot::Sender<Result<Explained, CallError>> },
}

impl DryRun {
    /// Whether nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Self::Plan { answer, .. } => answer.is_closed(),
            Self::Explain { answer, .. } => answer.is_closed(),
        }
    }

    /// Answers that it cannot be answered.
    pub(super) fn refuse(self, error: CallError) {
        // A caller that has gone away needs no answer.
        match self {
            Self::Plan { answer, .. } => drop(answer.send(Err(error))),
            Self::Explain { answer, .. } => drop(answer.send(Err(error))),
        }
    }
}

/// Work for one round of the planner.
#[derive(Default)]
pub(super) struct Work {
    pub(super) asks: Vec<Ask<Slot>>,
    pub(super) dry_runs: Vec<DryRun>,
    pub(super) notes: Notes,
    pub(super) returned: Vec<Returned<Slot>>,
    /// Plans that the explainer tells of.
    pub(super) offers: Vec<Offer>,
    /// The explainer has answered all it was asked.
    pub(super) explained: bool,
    /// The term is over.
    pub(super) closed: bool,
}

#[derive(Default)]
struct Desk {
    /// With the time at which they came.
    asks: VecDeque<(Instant, Ask<Slot>)>,
    dry_runs: VecDeque<DryRun>,
    notes: Notes,
    /// When the oldest of the notes came.
    noted: Option<Instant>,
    returned: Vec<Returned<Slot>>,
    offers: Vec<Offer>,
    explained: bool,
    /// Log index up to which `notes` tells, or told, of changes.
    told: u64,
    /// Log index that the planner waits to be told of.
    awaited: Option<u64>,
    closed: bool,
}

/// The planner's inbox for one term.
#[derive(Default)]
pub(super) struct Inbox {
    desk: Mutex<Desk>,
    bell: Condvar,
}

impl Inbox {
    /// Queues jobs; all or none.
    pub(super) fn submit(&self, asks: Vec<(Submission, Slot)>) -> Result<(), CallError> {
        let since = clock::instant();
        let mut desk = lock(&self.desk);
        if desk.closed {
            // Dropping the asks answers them.
            return Ok(());
        }
        if desk.asks.len() + asks.len() > JOBS_QUEUED_MAX {
            drop(desk);
            return Err(CallError::Busy { retry_ms: RETRY_MS });
        }
        let asks = asks.into_iter().map(|(call, slot)| (since, Ask::new(call, slot)));
        desk.asks.extend(asks);
        drop(desk);
        self.bell.notify_one();
        Ok(())
    }

    /// Queues a dry run.
    pub(super) fn dry_run(&self, run: DryRun) -> Result<(), CallError> {
        let mut desk = lock(&self.desk);
        if desk.closed {
            return Err(CallError::NotLeader { leader: None });
        }
        if desk.dry_runs.len() >= DRY_RUNS_QUEUED_MAX {
            return Err(CallError::Busy { retry_ms: RETRY_MS });
        }
        desk.dry_runs.push_back(run);
        drop(desk);
        self.bell.notify_one();
        Ok(())
    }

    /// Tells that a batch came back.
    pub(super) fn returned(&self, batch: Returned<Slot>) {
        let mut desk = lock(&self.desk);
        if desk.closed {
            return;
        }
        desk.returned.push(batch);
        drop(desk);
        self.bell.notify_one();
    }

    /// Tells of a plan before its caller is: whoever means it asks later. There are no more of them
    /// than dry runs.
    pub(super) fn offered(&self, offer: Offer) {
        let mut desk = lock(&self.desk);
        if !desk.closed {
            desk.offers.push(offer);
        }
    }

    /// Tells that the explainer has answered all it was asked.
    pub(super) fn explained(&self) {
        lock(&self.desk).explained = true;
        self.bell.notify_one();
    }

    /// Ends the term: what is queued is answered with "not the leader".
    pub(super) fn close(&self) {
        let mut desk = lock(&self.desk);
        let left = std::mem::replace(&mut *desk, Desk { closed: true, ..Desk::default() });
        drop(desk);
        drop(left);
        self.bell.notify_one();
    }

    /// Waits until all changes up to `index` were told, at most [`TOLD_PATIENCE`], and takes them.
    /// The state shows an entry a moment before its changes are told.
    pub(super) fn catch_up(&self, index: u64) -> Notes {
        let until = clock::deadline(TOLD_PATIENCE);
        let mut desk = lock(&self.desk);
        desk.awaited = Some(index);
        while desk.told < index && !desk.closed {
            let left = until.saturating_duration_since(clock::instant());
            if left.is_zero() {
                break;
            }
            desk = self.bell.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        desk.awaited = None;
        desk.take_notes()
    }

    /// What the planner reads itself, up to `index`, need not be told any more.
    pub(super) fn knows(&self, index: u64) {
        let mut desk = lock(&self.desk);
        desk.told = desk.told.max(index);
    }

    /// Waits for something worth a round, at most until `until`.
    pub(super) fn wait(&self, in_flight: usize, until: Option<Instant>) -> Work {
        let mut desk = lock(&self.desk);
        loop {
            let now = clock::instant();
            let patience = match desk.patience(in_flight, now) {
                Some(patience) if patience.is_zero() => return desk.take(in_flight),
                patience => patience,
            };
            let until_timer = until.map(|until| until.saturating_duration_since(now));
            if until_timer.is_some_and(|left| left.is_zero()) {
                return desk.take(in_flight);
            }
            let wait = [patience, until_timer].into_iter().flatten().min();
            desk = match wait {
                Some(wait) => {
                    let woken = self.bell.wait_timeout(desk, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.bell.wait(desk).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

impl Desk {
    /// How long the planner may sleep on, given what is here; `None` = nothing is here.
    fn patience(&self, in_flight: usize, now: Instant) -> Option<Duration> {
        let news = self.explained || !self.returned.is_empty() || !self.dry_runs.is_empty();
        if self.closed || news {
            return Some(Duration::ZERO);
        }
        let left = |since: Instant, linger: Duration| {
            linger.saturating_sub(now.saturating_duration_since(since))
        };
        let asks = match self.asks.front() {
            Some((since, _)) if in_flight < BATCHES_IN_FLIGHT_MAX => {
                let ripe = is_ripe(self.asks.len(), in_flight);
                Some(if ripe { Duration::ZERO } else { left(*since, clock::duration(LINGER)) })
            }
            _ => None,
        };
        let notes = self.noted.map(|since| left(since, NOTES_LINGER));
        [asks, notes].into_iter().flatten().min()
    }

    fn take(&mut self, in_flight: usize) -> Work {
        let room = if in_flight < BATCHES_IN_FLIGHT_MAX { BATCH_JOBS_MAX } else { 0 };
        let count = self.asks.len().min(room);
        Work {
            asks: self.asks.drain(..count).map(|(_, ask)| ask).collect(),
            dry_runs: self.dry_runs.drain(..).collect(),
            notes: self.take_notes(),
            returned: std::mem::take(&mut self.returned),
            offers: std::mem::take(&mut self.offers),
            explained: std::mem::take(&mut self.explained),
            closed: self.closed,
        }
    }

    fn take_notes(&mut self) -> Notes {
        self.noted = None;
        std::mem::take(&mut self.notes)
    }
}

impl Follow for Inbox {
    fn applied(&self, index: u64, events: &[Event]) {
        let mut desk = lock(&self.desk);
        if desk.closed {
            return;
        }
        desk.told = desk.told.max(index);
        let mut news = false;
        for event in events {
            news |= desk.notes.take_in(*event);
        }
        let first = news && desk.noted.is_none();
        if first {
            desk.noted = Some(clock::instant());
        }
        let ring = first || desk.awaited.is_some_and(|awaited| awaited <= index);
        drop(desk);
        if ring {
            self.bell.notify_one();
        }
    }

    fn replaced(&self) {
        let mut desk = lock(&self.desk);
        desk.notes.replaced();
        desk.noted.get_or_insert_with(clock::instant);
        drop(desk);
        self.bell.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::sheet;
    use super::*;
    use scheduler_core::command::Actor;
    use scheduler_core::fixture::entry::{TENANT, job_spec, tenant};
    use scheduler_core::id::NodeId;
    use std::sync::Arc;

    fn asks(count: usize) -> Vec<(Submission, Slot)> {
        let call = Submission {
            tenant: tenant(TENANT),
            by: Actor::Operator,
            request_id: "r".into(),
            body_digest: 0,
            spec: Arc::new(job_spec(Vec::new())),
            check: None,
        };
        sheet(count).0.into_iter().map(|slot| (call.clone(), slot)).collect()
    }

    #[test]
    fn a_full_queue_refuses_whole_calls() {
        let inbox = Inbox::default();
        for _ in 0..JOBS_QUEUED_MAX / 512 {
            inbox.submit(asks(512)).expect("there is room");
        }
        assert_eq!(inbox.submit(asks(1)), Err(CallError::Busy { retry_ms: RETRY_MS }));
        let work = inbox.wait(0, None);
        assert_eq!(work.asks.len(), BATCH_JOBS_MAX);
        inbox.submit(asks(1)).expect("there is room again");
    }

    #[test]
    fn an_idle_planner_starts_at_once_and_a_busy_one_gathers() {
        let mut desk = Desk::default();
        let now = clock::instant();
        assert_eq!(desk.patience(0, now), None);
        let queue = |count| asks(count).into_iter().map(|(call, slot)| (now, Ask::new(call, slot)));
        desk.asks.extend(queue(1));
        assert_eq!(desk.patience(0, now), Some(Duration::ZERO));
        let wait = desk.patience(1, now).expect("has an ask");
        let linger = clock::duration(LINGER);
        assert!(!wait.is_zero() && wait <= linger);
        assert_eq!(desk.patience(1, now + 2 * linger), Some(Duration::ZERO));
        assert_eq!(desk.patience(BATCHES_IN_FLIGHT_MAX, now), None);
        desk.asks.extend(queue(BATCH_JOBS_MAX));
        assert_eq!(desk.patience(1, now), Some(Duration::ZERO));
        assert!(desk.take(BATCHES_IN_FLIGHT_MAX).asks.is_empty());
    }

    #[test]
    fn changes_are_taken_in_soon_and_a_new_state_as_well() {
        let inbox = Inbox::default();
        inbox.applied(1, &[Event::TenantsChanged]);
        assert!(lock(&inbox.desk).noted.is_none(), "nothing to plan by");
        inbox.applied(2, &[Event::NodeWorkChanged(NodeId(7)), Event::TenantsChanged]);
        assert!(!inbox.wait(4, None).notes.is_empty());
        inbox.replaced();
        assert!(!inbox.wait(4, None).notes.is_empty());
        assert!(lock(&inbox.desk).notes.is_empty());
    }

    #[test]
    fn the_planner_catches_up_with_what_the_state_shows() {
        let inbox = Arc::new(Inbox::default());
        let teller = Arc::clone(&inbox);
        let thread = std::thread::spawn(move || {
            teller.applied(6, &[Event::NodeChanged(NodeId(1))]);
            teller.applied(7, &[Event::NodeChanged(NodeId(2))]);
        });
        inbox.catch_up(0);
        thread.join().expect("told");
        inbox.catch_up(7);
        inbox.knows(9);
        assert!(inbox.catch_up(9).is_empty(), "returns without being told");
        inbox.catch_up(10);
    }

    #[test]
    fn closing_answers_what_is_queued() {
        let inbox = Inbox::default();
        let (slots, mut receive) = sheet(1);
        let mut queued = asks(1);
        queued[0].1 = slots.into_iter().next().expect("one");
        inbox.submit(queued).expect("there is room");
        inbox.close();
        let results = receive.try_recv().expect("is answered");
        assert_eq!(results, [Err(CallError::NotLeader { leader: None })]);
        assert!(inbox.wait(0, None).closed);
    }
}
