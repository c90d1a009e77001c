//! The data directory of one server: its lock, its identity, its layout.
//!
//! ```text
//! LOCK            held while a process uses the directory
//! identity.json   whose directory it is
//! log/            consensus log and votes (source of truth)
//! snapshots/      whole states (source of truth with the log)
//! state/          copy of the state in sled (rebuilt when in doubt)
//! ```
//!
//! **Invariant:** a directory is used by one process, and only by the server it was made for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Repair, StoreError};
use crate::files::Files;
use crate::quorum::ServerId;

const LOCK: &str = "LOCK";
const IDENTITY: &str = "identity.json";
/// Layout version; raised when an older build must not touch the directory.
const FORMAT: u32 = 1;
/// The identity is three short fields.
const IDENTITY_BYTES_MAX: usize = 16 * 1024;

/// Whose directory it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) format: u32,
    pub(crate) cluster_id: String,
    pub(crate) server_id: u64,
}

/// A locked data directory. The lock ends with this value (and with the process in any case).
#[derive(Debug)]
pub(crate) struct DataDir {
    pub(crate) root: PathBuf,
    pub(crate) identity: Identity,
    // Released by closing.
    _lock: fs::File,
}

impl DataDir {
    /// Locks the directory and proves or, in a new one, records whose it is.
    pub(crate) fn claim(
        root: &Path,
        cluster_id: &str,
        server_id: ServerId,
        files: &Arc<dyn Files>,
    ) -> Result<Self, StoreError> {
        let lock = lock(root)?;
        let path = root.join(IDENTITY);
        files.create_dir_all(root).map_err(|error| StoreError::io("create", root, error))?;
        let identity = match read(&path, files)? {
            Some(identity) => {
                expect(&path, "cluster", cluster_id, &identity.cluster_id)?;
                let (own, found) = (server_id.to_string(), identity.server_id.to_string());
                expect(&path, "server", &own, &found)?;
                identity
            }
            None => {
                let cluster_id = cluster_id.to_owned();
                let identity = Identity { format: FORMAT, cluster_id, server_id: server_id.0 };
                refuse_orphans(root, files)?;
                write(&path, &identity, files)?;
                identity
            }
        };
        Ok(Self { root: root.to_path_buf(), identity, _lock: lock })
    }

    /// Locks a directory that a server has used before; for offline tools.
    pub(crate) fn inspect(root: &Path, files: &Arc<dyn Files>) -> Result<Self, StoreError> {
        let path = root.join(IDENTITY);
        let Some(identity) = read(&path, files)? else {
            let missing = io::Error::new(io::ErrorKind::NotFound, "not a server's data directory");
            return Err(StoreError::io("open", &path, missing));
        };
        Ok(Self { root: root.to_path_buf(), identity, _lock: lock(root)? })
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }
}

/// The lock is a real file even where the other files are simulated: it is about processes.
fn lock(root: &Path) -> Result<fs::File, StoreError> {
    fs::create_dir_all(root).map_err(|error| StoreError::io("create", root, error))?;
    let path = root.join(LOCK);
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.open(&path).map_err(|error| StoreError::io("open", &path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked { path }),
        Err(fs::TryLockError::Error(error)) => Err(StoreError::io("lock", &path, error)),
    }
}

fn read(path: &Path, files: &Arc<dyn Files>) -> Result<Option<Identity>, StoreError> {
    let bytes = match files.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path, error)),
    };
    let unreadable = |why: String| StoreError::corrupt(path, 0, why, Repair::Rejoin);
    if bytes.len() > IDENTITY_BYTES_MAX {
        return Err(unreadable(format!("{} bytes cannot be an identity", bytes.len())));
    }
    let identity: Identity =
        serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
    if identity.format != FORMAT {
        let (found, path) = (identity.format, path.to_path_buf());
        return Err(StoreError::Format { path, found, supported: FORMAT });
    }
    Ok(Some(identity))
}

fn write(path: &Path, identity: &Identity, files: &Arc<dyn Files>) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("write", path, error);
    let bytes = serde_json::to_vec_pretty(identity).map_err(io::Error::from).map_err(failed)?;
    files.replace(path, &bytes).map_err(failed)
}

/// Data without an identity is somebody's: to claim it could bring two servers with one history.
fn refuse_orphans(root: &Path, files: &Arc<dyn Files>) -> Result<(), StoreError> {
    for name in ["log", "snapshots"] {
        let dir = root.join(name);
        let listed = match files.list(&dir) {
            Ok(listed) => listed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(StoreError::io("list", &dir, error)),
        };
        if !listed.is_empty() {
            let what = format!("data without {IDENTITY} beside it");
            return Err(StoreError::corrupt(&dir, 0, what, Repair::Rejoin));
        }
    }
    Ok(())
}

fn expect(path: &Path, field: &'static str, own: &str, found: &str) -> Result<(), StoreError> {
    if own == found {
        return Ok(());
    }
    Err(StoreError::Foreign {
        path: path.to_path_buf(),
        field,
        expected: own.to_owned(),
        found: found.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Disk;

    fn claim(root: &Path, cluster: &str, server: u64) -> Result<DataDir, StoreError> {
        let files: Arc<dyn Files> = Arc::new(Disk);
        DataDir::claim(root, cluster, ServerId(server), &files)
    }

    #[test]
    fn a_directory_belongs_to_one_server_of_one_cluster() {
        let root = tempfile::tempdir().expect("tempdir");
        drop(claim(root.path(), "prod", 1).expect("first claim"));
        drop(claim(root.path(), "prod", 1).expect("second claim"));
        let foreign = claim(root.path(), "test", 1).expect_err("another cluster");
        assert!(matches!(foreign, StoreError::Foreign { field: "cluster", .. }), "{foreign}");
        let foreign = claim(root.path(), "prod", 2).expect_err("another server");
        assert!(matches!(foreign, StoreError::Foreign { field: "server", .. }), "{foreign}");
    }

    #[test]
    fn a_directory_is_used_once_at_a_time() {
        let root = tempfile::tempdir().expect("tempdir");
        let held = claim(root.path(), "prod", 1).expect("first claim");
        let refused = claim(root.path(), "prod", 1).expect_err("held");
        assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
        drop(held);
        claim(root.path(), "prod", 1).expect("free again");
    }

    #[test]
    fn a_damaged_identity_and_orphaned_data_are_refused() {
        let root = tempfile::tempdir().expect("tempdir");
        fs::write(root.path().join(IDENTITY), b"{\"format\": 1}").expect("write");
        let refused = claim(root.path(), "prod", 1).expect_err("damaged");
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");

        let root = tempfile::tempdir().expect("tempdir");
        fs::create_dir(root.path().join("log")).expect("mkdir");
        fs::write(root.path().join("log/x"), b"x").expect("write");
        let refused = claim(root.path(), "prod", 1).expect_err("orphaned");
        assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    }
}
