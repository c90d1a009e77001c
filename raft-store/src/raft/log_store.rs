//! The consensus library's view of the log.
//!
//! Reads of old records touch the disk on the calling task: at most [`READ_BYTES_MAX`] at once
//! from files the operating system has usually cached. A full write queue makes the caller wait,
//! which is the wanted back pressure on proposals.
//!
//! **Invariant:** order is the log's: votes, entries and cuts go through its one queue, and no
//! completion is reported before the log reports it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::Stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use tokio::sync::oneshot;

use super::types::{Entry, LogId, Types, Vote, to_log_id, to_position};
use crate::codec;
use crate::log::{Done, Log, Record};

/// Bytes of records read at once for another server or for applying: a frame stays around one
/// mebibyte however large single records are.
pub(crate) const READ_BYTES_MAX: usize = 1024 * 1024;

/// How far the local log has reached the disk. The library lets the state run ahead of that, when
/// other servers hold a record already; what is kept of the state must not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Durable(Arc<AtomicU64>);

impl Durable {
    pub(crate) fn new(index: u64) -> Self {
        Self(Arc::new(AtomicU64::new(index)))
    }

    pub(crate) fn index(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn reach(&self, index: u64) {
        self.0.fetch_max(index, Ordering::AcqRel);
    }

    fn fall_back(&self, index: u64) {
        self.0.fetch_min(index, Ordering::AcqRel);
    }
}

/// The log with the consensus library's types on top; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    log: Log,
    durable: Durable,
    /// Held by everything that must be gone before the data directory is free again.
    _alive: tokio::sync::mpsc::Sender<()>,
}

impl LogStore {
    pub(crate) fn new(log: Log, durable: Durable, alive: tokio::sync::mpsc::Sender<()>) -> Self {
        Self { log, durable, _alive: alive }
    }

    fn read(&self, from: u64, to: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        let records = self.log.read(from, to, max_bytes)?;
        records.into_iter().map(to_entry).collect()
    }

    fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index.saturating_add(1),
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        (from, to)
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = Self::bounds(&range);
        let store = self.clone();
        // Piece by piece, so that applying a long tail does not hold all of it in memory.
        futures::stream::unfold((store, from, Vec::new().into_iter()), move |state| async move {
            let (store, mut next, mut ready): (Self, u64, std::vec::IntoIter<Entry>) = state;
            loop {
                if let Some(entry) = ready.next() {
                    return Some((Ok(entry), (store, next, ready)));
                }
                if next >= to {
                    return None;
                }
                match store.read(next, to, READ_BYTES_MAX) {
                    Ok(entries) => {
                        // Nothing more: the caller finds out by what is missing.
                        let last = entries.last()?;
                        next = last.log_id.index + 1;
                        ready = entries.into_iter();
                    }
                    Err(error) => return Some((Err(error), (store, u64::MAX, ready))),
                }
            }
        })
    }

    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (from, to) = Self::bounds(&range);
        self.read(from, to, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.log.vote().map(|bytes| codec::record::vote(&bytes)).transpose().map_err(invalid)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        Ok(LogState {
            last_purged_log_id: self.log.last_purged().map(to_log_id),
            last_log_id: self.log.last().map(to_log_id),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let (done, wait) = completion();
        self.log.save_vote(codec::record::encode_vote(vote), done)?;
        wait.await.map_err(|_| stopped())?
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.log.save_committed(committed.as_ref().map(to_position))
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.committed().map(to_log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let records: Result<Vec<Record>, _> = entries.into_iter().map(to_record).collect();
        let records = records.map_err(invalid)?;
        let last = records.last().map(|record| record.at.index);
        let durable = self.durable.clone();
        let done: Done = Box::new(move |result| {
            if let (Ok(()), Some(last)) = (&result, last) {
                durable.reach(last);
            }
            callback.io_completed(result);
        });
        self.log.append(records, done)
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let (done, wait) = completion();
        let kept = last.map(|id| id.index);
        self.log.truncate_after(kept, done)?;
        wait.await.map_err(|_| stopped())??;
        self.durable.fall_back(kept.unwrap_or(0));
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let (done, wait) = completion();
        self.log.purge(to_position(&upto), done)?;
        wait.await.map_err(|_| stopped())??;
        self.durable.reach(upto.index);
        Ok(())
    }
}

fn to_record(entry: Entry) -> Result<Record, codec::CodecError> {
    let at = to_position(&entry.log_id);
    let (kind, payload): (u8, Bytes) = codec::record::encode_payload(&entry.payload)?;
    Ok(Record { at, kind, payload })
}

fn to_entry(record: Record) -> io::Result<Entry> {
    let payload = codec::record::payload(record.kind, &record.payload).map_err(invalid)?;
    Ok(Entry { log_id: to_log_id(record.at), payload })
}

fn completion() -> (Done, oneshot::Receiver<io::Result<()>>) {
    let (sender, receiver) = oneshot::channel();
    // A caller that went away while waiting needs no answer.
    (Box::new(move |result| drop(sender.send(result))), receiver)
}

fn invalid(error: codec::CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn stopped() -> io::Error {
    io::Error::other("the log has stopped")
}
