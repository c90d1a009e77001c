//! One sled directory with a copy of the state.
//!
//! sled panics on some damage. In builds that unwind the panic is caught here; where a panic ends
//! the process, a marker beside the directory tells the next start that sled did not survive it.
//!
//! **Invariant:** the mark (position, members, count and sum of rows) is written with the rows it
//! describes or after all of them; without a mark there is no copy.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use scheduler_core::state::{Frozen, Row, RowKey, State};
use serde::{Deserialize, Serialize};

use super::guard::caught;
use super::pieces::{self, Joiner, MARK_KEY, ROW_PREFIX};
use super::writer::{Changes, View};
use crate::codec::record::StoredMembershipBytes;
use crate::codec::{self, CodecError};
use crate::error::StoreError;
use crate::log::LogPosition;

/// Rows in one batch. More are written in several, with the mark away meanwhile.
const BATCH_ROWS: usize = 1024;
/// sled lets go of its lock some time after it was closed.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// Damaged copies kept for people to look at.
const BAD_KEPT: usize = 2;

/// What a copy is a copy of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Fingerprint of the cluster's name.
    pub(crate) cluster: u64,
    pub(crate) applied: Option<LogPosition>,
    pub(crate) membership: StoredMembershipBytes,
    pub(crate) rows: u64,
    /// Wrapping sum of all rows' digests.
    pub(crate) sum: u64,
}

/// A copy that proved right.
pub(crate) struct Loaded {
    pub(crate) mark: Mark,
    pub(crate) state: State,
}

/// Why a copy cannot be used, as text: it is rebuilt in any case.
type Fault = String;

#[derive(Clone, Copy)]
struct Held {
    parts: u16,
    digest: u64,
}

/// An open sled directory.
pub(crate) struct Store {
    dir: PathBuf,
    cluster: u64,
    /// `None` after a panic inside sled: it is never touched again.
    db: Option<sled::Db>,
    /// The file to sync, since sled does not.
    file: fs::File,
    held: BTreeMap<RowKey, Held>,
    sum: u64,
    /// Whether the marker of a start that has not proved itself is still there.
    unproved: bool,
}

/// Opens the copy in `dir`. A copy that is damaged or belongs to another cluster is moved aside
/// and an empty one opened.
pub(crate) fn open(
    dir: &Path,
    cluster: u64,
    cache_bytes: u64,
) -> Result<(Store, Option<Loaded>), StoreError> {
    let io = |action, error| StoreError::io(action, dir, error);
    let marker = marker(dir);
    let died = marker.exists();
    if died {
        set_aside(dir, "the last start did not survive opening it")
            .map_err(|error| io("move aside", error))?;
    }
    fs::write(&marker, b"").map_err(|error| io("mark", error))?;
    if dir.exists() {
        match attempt(|| load(dir, cluster, cache_bytes)) {
            Ok((store, loaded)) => return Ok((store, loaded)),
            Err(fault) => {
                set_aside(dir, &fault).map_err(|error| io("move aside", error))?;
            }
        }
    }
    let store = attempt(|| Store::create(dir, cluster, cache_bytes))
        .map_err(|fault| io("create", io::Error::other(fault)))?;
    Ok((store, None))
}

/// Reads a copy without changing it (sled may still recover its own files). `Ok(None)`: none.
pub(crate) fn verify(dir: &Path, cluster: u64, cache_bytes: u64) -> Result<Option<Loaded>, Fault> {
    if !dir.exists() {
        return Ok(None);
    }
    let (_, loaded) = attempt(|| load(dir, cluster, cache_bytes))?;
    Ok(loaded)
}

fn load(dir: &Path, cluster: u64, cache_bytes: u64) -> Result<(Store, Option<Loaded>), Fault> {
    let mut store = Store::create(dir, cluster, cache_bytes)?;
    let db = store.db.as_ref().ok_or("closed")?;
    let Some(mark) = db.get(MARK_KEY).map_err(text)? else {
        return match db.is_empty() {
            true => Ok((store, None)),
            false => Err("it was not written to its end".to_owned()),
        };
    };
    let mark = read_mark(&mark)?;
    if mark.cluster != cluster {
        return Err("it belongs to another cluster".to_owned());
    }
    let mut rows: Vec<Row> = Vec::new();
    let mut joiner = Joiner::default();
    for item in db.range([ROW_PREFIX]..[ROW_PREFIX + 1]) {
        let (key, value) = item.map_err(text)?;
        let Some(joined) = joiner.push(&key, &value)? else { continue };
        store.sum = store.sum.wrapping_add(joined.digest);
        store.held.insert(joined.key, Held { parts: joined.parts, digest: joined.digest });
        rows.push(joined.row);
    }
    joiner.finish()?;
    if (mark.rows, mark.sum) != (rows.len() as u64, store.sum) {
        let (wanted, found) = (mark.rows, rows.len());
        return Err(format!("{found} rows where {wanted} were written, or older ones"));
    }
    let state = State::from_rows(rows.into_iter()).map_err(text)?;
    Ok((store, Some(Loaded { mark, state })))
}

impl Store {
    fn create(dir: &Path, cluster: u64, cache_bytes: u64) -> Result<Self, Fault> {
        let began = Instant::now();
        let db = loop {
            let config = sled::Config::new()
                .path(dir)
                .cache_capacity(cache_bytes)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(None);
            match config.open() {
                Ok(db) => break db,
                Err(error) if is_locked(&error) && began.elapsed() < LOCK_WAIT => {
                    thread::sleep(LOCK_RETRY);
                }
                Err(error) => return Err(text(error)),
            }
        };
        let file = fs::File::open(dir.join("db")).map_err(text)?;
        let (held, sum) = (BTreeMap::new(), 0);
        let dir = dir.to_path_buf();
        Ok(Self { dir, cluster, db: Some(db), file, held, sum, unproved: true })
    }

    /// Writes a view's changes and its mark.
    pub(crate) fn write(&mut self, view: &View) -> Result<usize, Fault> {
        let written = self.guarded(|store| store.write_view(view))?;
        Ok(written)
    }

    /// Makes what was written durable.
    pub(crate) fn flush(&mut self) -> Result<(), Fault> {
        self.guarded(|store| {
            store.db.as_ref().ok_or("closed")?.flush().map_err(text)?;
            store.file.sync_data().map_err(text)
        })?;
        if std::mem::take(&mut self.unproved) {
            // It opens, writes and syncs: the marker has done its work.
            fs::remove_file(marker(&self.dir)).map_err(text)?;
        }
        Ok(())
    }

    /// Bytes of sled's files.
    pub(crate) fn bytes_on_disk(&self) -> u64 {
        self.file.metadata().map_or(0, |meta| meta.len())
    }

    pub(crate) fn rows(&self) -> usize {
        self.held.len()
    }

    /// Closes the directory, moves it aside and opens an empty one.
    pub(crate) fn start_over(self, why: &str, cache_bytes: u64) -> Result<Self, StoreError> {
        let (dir, cluster) = (self.dir.clone(), self.cluster);
        drop(self);
        let io = |action, error| StoreError::io(action, &dir, error);
        set_aside(&dir, why).map_err(|error| io("move aside", error))?;
        attempt(|| Self::create(&dir, cluster, cache_bytes))
            .map_err(|fault| io("create", io::Error::other(fault)))
    }

    fn write_view(&mut self, view: &View) -> Result<usize, Fault> {
        let written = match &view.changes {
            Changes::Rows(keys) if keys.len() <= BATCH_ROWS => {
                let mut batch = sled::Batch::default();
                self.stage(&mut batch, &view.frozen, keys)?;
                self.stage_mark(&mut batch, view)?;
                self.apply(batch)?;
                return Ok(keys.len());
            }
            Changes::Rows(keys) => {
                self.unmark()?;
                self.write_rows(&view.frozen, keys)?
            }
            Changes::All => {
                self.unmark()?;
                let now: Vec<RowKey> = view.frozen.rows().map(|row| row.key()).collect();
                let gone = self.held.keys().filter(|key| view.frozen.row(key).is_none());
                // A row that is no more is deleted by the same rule as others are written.
                let gone: Vec<RowKey> = gone.cloned().collect();
                self.write_rows(&view.frozen, &gone)? + self.write_rows(&view.frozen, &now)?
            }
        };
        let mut batch = sled::Batch::default();
        self.stage_mark(&mut batch, view)?;
        self.apply(batch)?;
        Ok(written)
    }

    fn unmark(&mut self) -> Result<(), Fault> {
        let mut batch = sled::Batch::default();
        batch.remove(MARK_KEY);
        self.apply(batch)
    }

    fn write_rows(&mut self, frozen: &Frozen, keys: &[RowKey]) -> Result<usize, Fault> {
        for some in keys.chunks(BATCH_ROWS) {
            let mut batch = sled::Batch::default();
            self.stage(&mut batch, frozen, some)?;
            self.apply(batch)?;
        }
        Ok(keys.len())
    }

    fn stage(
        &mut self,
        batch: &mut sled::Batch,
        frozen: &Frozen,
        keys: &[RowKey],
    ) -> Result<(), Fault> {
        for key in keys {
            let old = self.held.remove(key);
            let (name, values, digest) = match frozen.row(key) {
                Some(row) => {
                    let cut = pieces::cut(key, &row).map_err(text)?;
                    (cut.key, cut.values, Some(cut.digest))
                }
                None => (pieces::row_key(key).map_err(text)?, Vec::new(), None),
            };
            let parts = u16::try_from(values.len()).map_err(text)?;
            for (part, value) in (0u16..).zip(values) {
                batch.insert(pieces::part_key(&name, part), value);
            }
            if let Some(old) = old {
                self.sum = self.sum.wrapping_sub(old.digest);
                for part in parts..old.parts {
                    batch.remove(pieces::part_key(&name, part));
                }
            }
            if let Some(digest) = digest {
                self.sum = self.sum.wrapping_add(digest);
                self.held.insert(key.clone(), Held { parts, digest });
            }
        }
        Ok(())
    }

    fn stage_mark(&self, batch: &mut sled::Batch, view: &View) -> Result<(), Fault> {
        let mark = Mark {
            cluster: self.cluster,
            applied: view.applied,
            membership: view.membership.clone(),
            rows: self.held.len() as u64,
            sum: self.sum,
        };
        batch.insert(MARK_KEY, write_mark(&mark).map_err(text)?);
        Ok(())
    }

    fn apply(&self, batch: sled::Batch) -> Result<(), Fault> {
        self.db.as_ref().ok_or("closed")?.apply_batch(batch).map_err(text)
    }

    /// Runs something that may panic inside sled; afterwards sled is not touched again.
    fn guarded<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        match caught(|| work(self)) {
            Ok(result) => result,
            Err(panic) => {
                // Its destructor would run the same code again.
                std::mem::forget(self.db.take());
                Err(panic)
            }
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(db) = self.db.take() {
            // Nothing more can be done about a panic while closing.
            let _ = caught(|| drop(db));
        }
    }
}

fn write_mark(mark: &Mark) -> Result<Vec<u8>, CodecError> {
    let body = codec::encode("mark", mark)?;
    let mut bytes = pieces::checksum(MARK_KEY, &body).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn read_mark(bytes: &[u8]) -> Result<Mark, Fault> {
    match bytes.split_first_chunk::<4>() {
        Some((crc, body)) if u32::from_le_bytes(*crc) == pieces::checksum(MARK_KEY, body) => {
            codec::decode("mark", body).map_err(text)
        }
        _ => Err("the checksum of the mark is wrong".to_owned()),
    }
}

fn attempt<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    caught(work).unwrap_or_else(Err)
}

/// Moves a copy aside under the first free name and forgets the oldest ones.
fn set_aside(dir: &Path, why: &str) -> io::Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let numbers = bad_numbers(dir)?;
    let next = numbers.last().map_or(1, |last| last + 1);
    let aside = bad_name(dir, next);
    tracing::error!(
        copy = %dir.display(), moved_to = %aside.display(), why,
        "the state's copy is unusable and will be rebuilt"
    );
    fs::rename(dir, &aside)?;
    for old in numbers.iter().rev().skip(BAD_KEPT - 1) {
        fs::remove_dir_all(bad_name(dir, *old))?;
    }
    Ok(())
}

fn bad_name(dir: &Path, number: u64) -> PathBuf {
    let mut name = dir.as_os_str().to_os_string();
    name.push(format!(".bad-{number}"));
    PathBuf::from(name)
}

fn bad_numbers(dir: &Path) -> io::Result<Vec<u64>> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{}.bad-", name.to_string_lossy());
    let mut numbers = Vec::new();
    for entry in fs::read_dir(parent)? {
        let found = entry?.file_name();
        let found = found.to_string_lossy().into_owned();
        numbers.extend(found.strip_prefix(&prefix).and_then(|digits| digits.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn marker(dir: &Path) -> PathBuf {
    let mut name = dir.as_os_str().to_os_string();
    name.push(".opening");
    PathBuf::from(name)
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(io) if io.to_string().contains("could not acquire lock"))
}

fn text(error: impl ToString) -> Fault {
    error.to_string()
}
