//! What the scenarios share: a small log on a disk that can fail, and an independent model.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use raft_store::error::StoreError;
use raft_store::files::fault::FaultFiles;
use raft_store::log::{Done, Log, LogPosition, Options, Record};

pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/data/log")
}

/// The smallest segments there are, so that a few dozen entries fill several.
pub(crate) fn options() -> Options {
    Options {
        segment_bytes: 16 << 10,
        segment_bytes_first: 16 << 10,
        cache_bytes: 4 << 10,
        queue_len: 64,
        log_id: Some(7),
    }
}

pub(crate) fn open(files: &FaultFiles) -> Result<Log, StoreError> {
    Log::open(&dir(), Arc::new(files.clone()), options())
}

pub(crate) fn at(index: u64) -> LogPosition {
    LogPosition { term: 1 + index / 50, leader: 1, index }
}

/// An entry whose content follows from its index, its version and its size.
pub(crate) fn record(index: u64, version: u64, bytes: usize) -> Record {
    let seed = index.wrapping_mul(31).wrapping_add(version.wrapping_mul(17));
    let payload: Vec<u8> = (0..bytes as u64).map(|i| (seed + i * 7).to_le_bytes()[0]).collect();
    let kind = version.to_le_bytes()[0];
    Record { at: at(index), kind, payload: Bytes::from(payload) }
}

pub(crate) fn records(from: u64, count: u64, bytes: usize) -> Vec<Record> {
    (from..from + count).map(|index| record(index, 0, bytes)).collect()
}

/// A callback, and where its answer arrives.
pub(crate) fn acknowledgement() -> (Done, Receiver<io::Result<()>>) {
    let (sender, receiver) = channel();
    let done = move |result| {
        // A test that has stopped listening is no fault of the log.
        let _ = sender.send(result);
    };
    (Box::new(done), receiver)
}

/// Waits for an answer that must come.
pub(crate) fn answer(receiver: &Receiver<io::Result<()>>) -> io::Result<()> {
    receiver.recv().expect("a callback was dropped without being called")
}

pub(crate) fn append(log: &Log, records: Vec<Record>) -> io::Result<()> {
    let (done, receiver) = acknowledgement();
    log.append(records, done)?;
    answer(&receiver)
}

pub(crate) fn save_vote(log: &Log, vote: &'static [u8]) -> io::Result<()> {
    let (done, receiver) = acknowledgement();
    log.save_vote(Bytes::from_static(vote), done)?;
    answer(&receiver)
}

pub(crate) fn truncate(log: &Log, last_kept: Option<u64>) -> io::Result<()> {
    let (done, receiver) = acknowledgement();
    log.truncate_after(last_kept, done)?;
    answer(&receiver)
}

pub(crate) fn purge(log: &Log, upto: u64) -> io::Result<()> {
    let (done, receiver) = acknowledgement();
    log.purge(at(upto), done)?;
    answer(&receiver)
}

pub(crate) fn segments(files: &FaultFiles) -> Vec<PathBuf> {
    use raft_store::files::Files;
    let listed = files.list(&dir()).expect("list");
    let names = listed.into_iter().map(|file| file.name);
    names.filter(|name| name.ends_with(".seg")).map(|name| dir().join(name)).collect()
}

pub(crate) fn content(files: &FaultFiles, path: &Path) -> Vec<u8> {
    use raft_store::files::Files;
    files.read(path).expect("read a file")
}

/// What a log must hold, kept in the simplest way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) entries: BTreeMap<u64, Record>,
    pub(crate) purged: Option<LogPosition>,
    pub(crate) vote: Option<Bytes>,
    pub(crate) committed: Option<LogPosition>,
}

impl Model {
    pub(crate) fn last(&self) -> Option<LogPosition> {
        self.entries.values().next_back().map(|record| record.at).or(self.purged)
    }

    pub(crate) fn next_index(&self) -> u64 {
        self.last().map_or(0, |last| last.index + 1)
    }

    pub(crate) fn append(&mut self, record: Record) {
        self.entries.insert(record.at.index, record);
    }

    pub(crate) fn truncate(&mut self, last_kept: Option<u64>) {
        self.entries.retain(|index, _| Some(*index) <= last_kept);
    }

    pub(crate) fn purge(&mut self, upto: LogPosition) {
        if self.purged.is_none_or(|purged| purged.index < upto.index) {
            self.entries.retain(|index, _| *index > upto.index);
            self.purged = Some(upto);
        }
    }

    /// Everything a log says, read through its public face.
    pub(crate) fn of(log: &Log) -> io::Result<Self> {
        let entries = log.read(0, u64::MAX, usize::MAX)?;
        Ok(Self {
            entries: entries.into_iter().map(|record| (record.at.index, record)).collect(),
            purged: log.last_purged(),
            vote: log.vote(),
            committed: log.committed(),
        })
    }

    /// The log must say exactly this.
    pub(crate) fn assert_is(&self, log: &Log) {
        assert_eq!(&Self::of(log).expect("read the whole log"), self);
        assert_eq!(log.last(), self.last());
    }
}
