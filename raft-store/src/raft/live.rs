//! The local copy of the state: what readers see, what the snapshots freeze, what the mirror
//! copies.
//!
//! **Invariant:** the state moves only in whole records and only in [`Live::apply`] and
//! [`Live::replace`]; its position and members change under the same lock, so any view of the
//! three belongs together.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use scheduler_core::command::{Entry, Outcome, Rejection};
use scheduler_core::event::Event;
use scheduler_core::state::{Frozen, RowKey, State};
use tokio::sync::watch;

use super::log_store::Durable;
use super::types::{Membership, StoredMembership, to_log_id};
use crate::codec::record::StoredMembershipBytes;
use crate::log::LogPosition;
use crate::mirror::{Changes, Source, Taken, View};
use crate::quorum::Observer;

/// One committed record, decoded.
pub(crate) struct Committed {
    pub(crate) at: LogPosition,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Blank,
    Entries(Vec<Entry>),
    Members(Membership),
}

/// What became of a record's entries.
pub(crate) type Results = Vec<Result<Outcome, Rejection>>;

/// The state with the place it has reached.
pub(crate) struct Point {
    pub(crate) state: State,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: StoredMembership,
}

/// Shared by the applying task, readers, the mirror and the snapshot builder.
pub(crate) struct Live {
    point: RwLock<Point>,
    /// Locked after `point`, never before.
    feed: Mutex<Feed>,
    applied: watch::Sender<u64>,
    observer: Arc<dyn Observer>,
    durable: Durable,
}

/// What the mirror has not seen yet.
struct Feed {
    rows: BTreeSet<RowKey>,
    all: bool,
    members: bool,
}

impl Live {
    /// `mirrored`: the mirror holds exactly this point.
    pub(crate) fn new(
        point: Point,
        mirrored: bool,
        durable: Durable,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let (applied, _) = watch::channel(index(point.applied));
        let feed = Feed { rows: BTreeSet::new(), all: !mirrored, members: false };
        Self { point: RwLock::new(point), feed: Mutex::new(feed), applied, observer, durable }
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Point> {
        self.point.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Index that readers can rely on; changes wake its receivers.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The state and its place, frozen together.
    pub(crate) fn freeze(&self) -> (Frozen, Option<LogPosition>, StoredMembership) {
        let point = self.read();
        (point.state.freeze(), point.applied, point.membership.clone())
    }

    /// Applies records in order and tells the observer. One result list per record.
    pub(crate) fn apply(&self, records: Vec<Committed>) -> Vec<Results> {
        let mut events: Vec<Event> = Vec::new();
        let mut all_results = Vec::with_capacity(records.len());
        let applied = {
            let mut point = self.point.write().unwrap_or_else(PoisonError::into_inner);
            let mut members = false;
            for record in records {
                let mut results = Vec::new();
                match record.body {
                    Body::Blank => {}
                    Body::Entries(entries) => {
                        results.reserve(entries.len());
                        for entry in &entries {
                            let applied = point.state.apply(record.at.index, entry);
                            results.push(applied.result);
                            events.extend(applied.events);
                        }
                    }
                    Body::Members(membership) => {
                        let at = Some(to_log_id(record.at));
                        point.membership = StoredMembership::new(at, membership);
                        members = true;
                    }
                }
                point.applied = Some(record.at);
                all_results.push(results);
            }
            let dirty = point.state.take_dirty();
            let mut feed = self.feed();
            feed.members |= members;
            if !feed.all {
                feed.rows.extend(dirty);
            }
            index(point.applied)
        };
        self.observer.applied(applied, &events);
        self.applied.send_replace(applied);
        all_results
    }

    /// Swaps in a whole state from a snapshot.
    pub(crate) fn replace(&self, point: Point) {
        let applied = index(point.applied);
        let old = {
            let mut now = self.point.write().unwrap_or_else(PoisonError::into_inner);
            let mut feed = self.feed();
            feed.all = true;
            feed.rows.clear();
            std::mem::replace(&mut *now, point)
        };
        self.observer.replaced(applied);
        self.applied.send_replace(applied);
        // A large state takes its time to go; nobody should wait for it under the lock.
        drop(old);
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Source for Live {
    fn take(&self) -> Taken {
        let point = self.read();
        let mut feed = self.feed();
        if !feed.all && !feed.members && feed.rows.is_empty() {
            return Taken::Nothing;
        }
        // A copy ahead of the log could not be told from a log that lost its end.
        if index(point.applied) > self.durable.index() {
            return Taken::Later;
        }
        let rows = std::mem::take(&mut feed.rows);
        let changes = match std::mem::take(&mut feed.all) {
            true => Changes::All,
            false => Changes::Rows(rows.into_iter().collect()),
        };
        feed.members = false;
        Taken::View(Box::new(View {
            frozen: point.state.freeze(),
            changes,
            applied: point.applied,
            membership: StoredMembershipBytes::of(&point.membership),
        }))
    }

    fn want_all(&self) {
        let mut feed = self.feed();
        feed.all = true;
        feed.rows.clear();
    }
}

pub(crate) fn index(at: Option<LogPosition>) -> u64 {
    at.map_or(0, |at| at.index)
}
