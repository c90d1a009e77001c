//! The directory of snapshots.
//!
//! **Invariant:** only complete files bear a final name; what a crash or a broken transfer left
//! behind is removed at the next start or at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scheduler_core::state::Frozen;

use super::file::{SnapshotFile, Writer};
use crate::codec::snapshot::Head;
use crate::error::StoreError;
use crate::files::{File, Files};

/// Final names are this and twenty digits of the index, so that they sort by age.
pub(crate) const NAME_PREFIX: &str = "snap-";
const TEMPORARY_SUFFIX: &str = ".tmp";
const BAD_SUFFIX: &str = ".bad";
/// The newest, and one to fall back on.
const KEPT: usize = 2;
/// Copied between directories in pieces of this size.
const COPY_BYTES: usize = 1024 * 1024;

/// The snapshots of one server.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    files: Arc<dyn Files>,
    cluster: u64,
    /// Oldest first, all verified.
    kept: Mutex<Vec<SnapshotFile>>,
    serial: AtomicU64,
}

impl Store {
    /// Opens the directory, removes unfinished files and moves damaged ones aside.
    pub(crate) fn open(
        dir: &Path,
        files: Arc<dyn Files>,
        cluster: u64,
    ) -> Result<Self, StoreError> {
        files.create_dir_all(dir).map_err(|error| StoreError::io("create", dir, error))?;
        let store = Self {
            dir: dir.to_path_buf(),
            files,
            cluster,
            kept: Mutex::new(Vec::new()),
            serial: AtomicU64::new(0),
        };
        let listed = store.files.list(dir).map_err(|error| StoreError::io("list", dir, error))?;
        let mut kept = Vec::new();
        for file in listed {
            let path = dir.join(&file.name);
            if file.name.ends_with(TEMPORARY_SUFFIX) {
                store
                    .files
                    .remove(&path)
                    .map_err(|error| StoreError::io("remove", &path, error))?;
            } else if index_of(&file.name).is_some() {
                kept.extend(store.verified(&path)?);
            }
        }
        *store.kept() = kept;
        Ok(store)
    }

    /// Newest snapshot.
    pub(crate) fn current(&self) -> Option<SnapshotFile> {
        self.kept().last().cloned()
    }

    /// All kept snapshots, newest first.
    pub(crate) fn newest_first(&self) -> Vec<SnapshotFile> {
        self.kept().iter().rev().cloned().collect()
    }

    /// The log up to here is needed no more, even if the newest snapshot were lost.
    pub(crate) fn purgeable_index(&self) -> Option<u64> {
        let kept = self.kept();
        let oldest = kept.first()?;
        (kept.len() >= KEPT).then(|| oldest.head.last.map(|last| last.index))?
    }

    /// Writes a snapshot of a frozen state and makes it the newest.
    pub(crate) fn build(&self, frozen: &Frozen, mut head: Head) -> io::Result<SnapshotFile> {
        head.cluster = self.cluster;
        let (temporary, file) = self.temporary()?;
        let mut writer = Writer::begin(file.clone(), &head)?;
        writer.rows(frozen)?;
        let (bytes, foot) = writer.finish(frozen.hash())?;
        let path = temporary.path.clone();
        let temporary = Some(Arc::new(temporary));
        let loaded = Arc::default();
        let built = SnapshotFile { path, file, bytes, head, foot, temporary, loaded };
        self.adopt(built, KEPT)
    }

    /// Starts to receive a snapshot of `bytes` bytes.
    pub(crate) fn receive(self: &Arc<Self>, bytes: u64) -> io::Result<Receiver> {
        let (temporary, file) = self.temporary()?;
        Ok(Receiver { store: self.clone(), temporary, file, at: 0, bytes })
    }

    /// Makes a received snapshot, or another server's, the only one.
    pub(crate) fn install(&self, snapshot: SnapshotFile) -> io::Result<SnapshotFile> {
        let known = self.kept().iter().any(|kept| kept.path == snapshot.path);
        if known {
            return Ok(snapshot);
        }
        let inside = snapshot.path.parent() == Some(&*self.dir) && snapshot.temporary.is_some();
        let snapshot = if inside { snapshot } else { self.copy(&snapshot)? };
        self.adopt(snapshot, 1)
    }

    /// Moves a snapshot that proved unusable aside.
    pub(crate) fn discard(&self, snapshot: &SnapshotFile, why: &StoreError) {
        self.kept().retain(|kept| kept.path != snapshot.path);
        if let Err(error) = self.set_aside(&snapshot.path, why) {
            tracing::error!(path = %snapshot.path.display(), %error, "cannot move a snapshot aside");
        }
    }

    fn adopt(&self, mut snapshot: SnapshotFile, keep: usize) -> io::Result<SnapshotFile> {
        let index = snapshot.head.last.map_or(0, |last| last.index);
        let path = self.dir.join(format!("{NAME_PREFIX}{index:020}"));
        self.files.rename(&snapshot.path, &path)?;
        if let Some(temporary) = snapshot.temporary.take() {
            temporary.kept.store(true, Ordering::Relaxed);
        }
        self.files.sync_dir(&self.dir)?;
        snapshot.path = path;
        let surplus: Vec<SnapshotFile> = {
            let mut kept = self.kept();
            kept.retain(|kept| kept.path != snapshot.path);
            kept.push(snapshot.clone());
            let surplus = kept.len().saturating_sub(keep);
            kept.drain(..surplus).collect()
        };
        for old in surplus {
            // The new one is durable: an old one that stays costs space, nothing else.
            if let Err(error) = self.files.remove(&old.path) {
                tracing::warn!(path = %old.path.display(), %error, "cannot remove an old snapshot");
            }
        }
        Ok(snapshot)
    }

    fn copy(&self, snapshot: &SnapshotFile) -> io::Result<SnapshotFile> {
        let (temporary, file) = self.temporary()?;
        let mut at = 0;
        let mut buffer = vec![0; COPY_BYTES];
        while at < snapshot.bytes {
            let count = snapshot.file.read_at(&mut buffer, at)?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            file.write_all_at(piece, at)?;
            at += count as u64;
        }
        file.sync_data()?;
        let path = temporary.path.clone();
        let temporary = Some(Arc::new(temporary));
        Ok(SnapshotFile { path, file, temporary, ..snapshot.clone() })
    }

    fn verified(&self, path: &Path) -> Result<Option<SnapshotFile>, StoreError> {
        let file =
            self.files.open_read(path).map_err(|error| StoreError::io("open", path, error))?;
        match SnapshotFile::open(path, file) {
            Ok(snapshot) if snapshot.head.cluster == self.cluster => Ok(Some(snapshot)),
            Ok(snapshot) => Err(StoreError::Foreign {
                path: path.to_path_buf(),
                field: "cluster",
                expected: format!("{:016x}", self.cluster),
                found: format!("{:016x}", snapshot.head.cluster),
            }),
            Err(why @ StoreError::Corrupt { .. }) => {
                self.set_aside(path, &why)
                    .map_err(|error| StoreError::io("move aside", path, error))?;
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    fn set_aside(&self, path: &Path, why: &StoreError) -> io::Result<()> {
        let mut aside = path.as_os_str().to_os_string();
        aside.push(BAD_SUFFIX);
        tracing::error!(path = %path.display(), %why, "damaged snapshot moved aside");
        self.files.rename(path, Path::new(&aside))?;
        self.files.sync_dir(&self.dir)
    }

    fn temporary(&self) -> io::Result<(Temporary, Arc<dyn File>)> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{NAME_PREFIX}{serial}{TEMPORARY_SUFFIX}"));
        let file = self.files.create(&path)?;
        Ok((Temporary { path, files: self.files.clone(), kept: AtomicBool::new(false) }, file))
    }

    fn kept(&self) -> MutexGuard<'_, Vec<SnapshotFile>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file on its way in.
pub(crate) struct Receiver {
    store: Arc<Store>,
    temporary: Temporary,
    file: Arc<dyn File>,
    at: u64,
    bytes: u64,
}

impl Receiver {
    /// Appends a piece; more than was announced is an error.
    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if piece.len() as u64 > self.bytes - self.at {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "more bytes than announced"));
        }
        self.file.write_all_at(piece, self.at)?;
        self.at += piece.len() as u64;
        Ok(())
    }

    /// Verifies the whole file and makes it durable under its temporary name.
    pub(crate) fn finish(self) -> Result<SnapshotFile, StoreError> {
        let path = self.temporary.path.clone();
        if self.at != self.bytes {
            let text = format!("{} of {} bytes came", self.at, self.bytes);
            let error = io::Error::new(io::ErrorKind::UnexpectedEof, text);
            return Err(StoreError::io("receive", &path, error));
        }
        self.file.sync_data().map_err(|error| StoreError::io("sync", &path, error))?;
        let mut snapshot = SnapshotFile::open(&path, self.file)?;
        if snapshot.head.cluster != self.store.cluster {
            return Err(StoreError::Foreign {
                path,
                field: "cluster",
                expected: format!("{:016x}", self.store.cluster),
                found: format!("{:016x}", snapshot.head.cluster),
            });
        }
        snapshot.temporary = Some(Arc::new(self.temporary));
        Ok(snapshot)
    }
}

/// Removes its file when dropped before the file got its final name.
#[derive(Debug)]
pub(crate) struct Temporary {
    path: PathBuf,
    files: Arc<dyn Files>,
    kept: AtomicBool,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed)
            && let Err(error) = self.files.remove(&self.path)
        {
            // The next start removes it.
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// Index in a final name.
fn index_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(NAME_PREFIX)?;
    (digits.len() == 20).then(|| digits.parse().ok())?
}
