//! What callers and the writer thread share: the log as readers see it, and the requests that
//! still have to be written, in one order under one lock.
//!
//! **Invariant:** a request takes effect for readers in the moment it enters the queue, so the
//! queue's order is the order of effects; after a failure nothing enters any more.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::format::Item;
use super::index::Index;
use super::marks::Marks;
use super::tail::{Batch, Tail};
use super::{Done, LogPosition, Stats};

/// Bytes that may wait in the queue: eight full writes, about 0.1 s of a fast disk.
const QUEUED_BYTES_MAX: usize = 64 << 20;

pub(super) struct Queue {
    state: Mutex<State>,
    /// Something to write, or closing.
    work: Condvar,
    /// Room in the queue, or failure.
    room: Condvar,
    len_max: usize,
}

pub(super) struct State {
    /// As readers see it, requests still in the queue included.
    pub(super) marks: Marks,
    pub(super) tail: Tail,
    /// Written entries, as of the last finished write.
    pub(super) index: Index,
    pub(super) stats: Stats,
    requests: VecDeque<Request>,
    queued_bytes: usize,
    /// Requests that wait for their `done`; a committed position alone wakes nobody.
    urgent: usize,
    /// Callers that found the queue full.
    waiting_for_room: usize,
    ticket: u64,
    failure: Option<Failure>,
    closing: bool,
}

/// One thing to write.
pub(super) struct Request {
    pub(super) work: Work,
    pub(super) done: Option<Done>,
    pub(super) ticket: u64,
    bytes: usize,
}

pub(super) enum Work {
    Append(Batch),
    Mark(Item),
    /// Nothing to write, only to be told when everything before is durable.
    Barrier,
}

/// Why the log has stopped; kept apart from `io::Error`, which cannot be copied.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    kind: io::ErrorKind,
    text: String,
}

impl Failure {
    pub(super) fn new(error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            text: format!("the log has stopped for good after a failed write: {error}"),
        }
    }

    pub(super) fn error(&self) -> io::Error {
        io::Error::new(self.kind, self.text.clone())
    }
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(batch) => batch.bytes(),
            Self::Mark(item) => item.bytes_on_disk(),
            Self::Barrier => 0,
        }
    }
}

impl Queue {
    pub(super) fn new(state: State, len_max: usize) -> Self {
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new(), len_max }
    }

    /// The shared state. Short holds only: nothing under it touches the disk.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state once the queue has room. Fails when the log has stopped.
    pub(super) fn lock_with_room(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        loop {
            if let Some(failure) = &state.failure {
                return Err(failure.error());
            }
            if state.requests.len() < self.len_max && state.queued_bytes < QUEUED_BYTES_MAX {
                return Ok(state);
            }
            state.waiting_for_room += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting_for_room -= 1;
        }
    }

    /// Hands a request to the writer; the caller has already let it take effect on `state`.
    pub(super) fn push(&self, mut state: MutexGuard<'_, State>, work: Work, done: Done) {
        let was_idle = state.urgent == 0;
        state.urgent += 1;
        state.enqueue(work, Some(done));
        drop(state);
        if was_idle {
            self.work.notify_one();
        }
    }

    /// Everything that waits, up to `bytes_max` (but at least one request); blocks until there is
    /// something urgent. `None` when the log closes and the queue is empty.
    pub(super) fn take(&self, bytes_max: usize) -> Option<Vec<Request>> {
        let mut state = self.lock();
        while state.urgent == 0 && !state.closing {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let mut taken = Vec::with_capacity(state.requests.len());
        let mut bytes = 0;
        while let Some(request) = state.requests.pop_front() {
            bytes += request.bytes;
            state.urgent -= usize::from(request.done.is_some());
            taken.push(request);
            if bytes >= bytes_max {
                break;
            }
        }
        state.queued_bytes -= bytes;
        let someone_waits = state.waiting_for_room > 0;
        drop(state);
        // Waking nobody would still be a call of the system.
        if someone_waits {
            self.room.notify_all();
        }
        (!taken.is_empty()).then_some(taken)
    }

    /// Stops the log: nothing enters any more. Returns what was still waiting.
    pub(super) fn stop(&self, failure: &Failure) -> VecDeque<Request> {
        let mut state = self.lock();
        state.failure.get_or_insert_with(|| failure.clone());
        let waiting = std::mem::take(&mut state.requests);
        state.queued_bytes = 0;
        state.urgent = 0;
        drop(state);
        self.room.notify_all();
        waiting
    }

    /// Asks the writer to finish what waits and end.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.work.notify_one();
    }
}

impl State {
    pub(super) fn new(marks: Marks, index: Index, tail: Tail, stats: Stats) -> Self {
        Self {
            marks,
            tail,
            index,
            stats,
            requests: VecDeque::new(),
            queued_bytes: 0,
            urgent: 0,
            waiting_for_room: 0,
            ticket: 0,
            failure: None,
            closing: false,
        }
    }

    /// Number that the next request will get.
    pub(super) fn next_ticket(&self) -> u64 {
        self.ticket + 1
    }

    /// Queues a committed position without waking the writer; a newer one replaces it.
    pub(super) fn enqueue_committed(&mut self, at: Option<LogPosition>) {
        let item = Item::Committed(at);
        match self.requests.back_mut() {
            Some(Request { work: Work::Mark(queued @ Item::Committed(_)), .. }) => *queued = item,
            _ => self.enqueue(Work::Mark(item), None),
        }
    }

    /// Position of an entry, or of the last purged one.
    pub(super) fn position(&self, index: u64) -> Option<LogPosition> {
        let purged = self.marks.purged.filter(|purged| purged.index == index);
        let within = index >= self.marks.first_index()
            && self.marks.last.is_some_and(|last| index <= last.index);
        let held = || self.tail.position(index).or_else(|| self.index.position(index));
        purged.or_else(|| if within { held() } else { None })
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    pub(super) fn queued(&self) -> usize {
        self.requests.len()
    }

    fn enqueue(&mut self, work: Work, done: Option<Done>) {
        self.ticket += 1;
        let (bytes, ticket) = (work.bytes(), self.ticket);
        self.queued_bytes += bytes;
        self.requests.push_back(Request { work, done, ticket, bytes });
    }
}
