//! Who this node is, and how far the scheduler's word has come: the node's secret and the highest
//! (epoch, index) that the agent has acted on.
//!
//! On disk the data directory holds `lock` (one agent at a time), `node_key` (32 random bytes, mode
//! 0600) and `fence` (text with a checksum). Files are replaced whole: written aside, synced,
//! renamed, and the directory synced.
//!
//! **Invariant:** a mark is on disk before anybody acts on it and never goes back. What cannot be
//! read is an error that names the file; nothing is guessed.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Length of the node's secret in bytes.
pub const NODE_KEY_BYTES: usize = 32;
/// First line of the fence file; the number counts formats.
const FENCE_HEAD: &str = "muster agent fence 1";
/// A fence file is far shorter; more than this is not read.
const FENCE_BYTES_MAX: u64 = 4096;

const LOCK_FILE: &str = "lock";
const KEY_FILE: &str = "node_key";
const FENCE_FILE: &str = "fence";

/// How far the scheduler's word has come: session epoch, then log index inside it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mark {
    pub epoch: u32,
    pub index: u64,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {} index {}", self.epoch, self.index)
    }
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("data directory {} is in use by another agent", path.display())]
    Locked { path: PathBuf },
    #[error("{} is damaged: {what}; restore it from a copy, or empty the directory to \
             join as a new node", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("{} can be read by others (mode {mode:04o}); it must be 0600", path.display())]
    Exposed { path: PathBuf, mode: u32 },
}

/// An older word than was seen before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{offered} is older than {seen}")]
pub struct Stale {
    pub offered: Mark,
    pub seen: Mark,
}

/// The node's secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeKey([u8; NODE_KEY_BYTES]);

impl NodeKey {
    /// A fresh one from the system's random numbers.
    pub fn random() -> io::Result<NodeKey> {
        random_bytes().map(NodeKey)
    }

    /// One from other random numbers, for machines that are simulated.
    pub(crate) fn from_bits(bits: [u64; NODE_KEY_BYTES / 8]) -> NodeKey {
        let mut key = [0; NODE_KEY_BYTES];
        for (bytes, bits) in key.chunks_exact_mut(8).zip(bits) {
            bytes.copy_from_slice(&bits.to_le_bytes());
        }
        NodeKey(key)
    }

    /// For the wire.
    pub fn to_bytes(&self) -> prost::bytes::Bytes {
        prost::bytes::Bytes::copy_from_slice(&self.0)
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(..)")
    }
}

/// `N` bytes from the system's random numbers.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let got =
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
        filled += got;
    }
    Ok(bytes)
}

/// See the module.
#[derive(Debug)]
pub struct Identity {
    key: NodeKey,
    seen: Mark,
    /// `None` = in memory only.
    home: Option<Home>,
}

#[derive(Debug)]
struct Home {
    directory: PathBuf,
    /// Held as long as the agent lives.
    _lock: File,
}

impl Identity {
    /// One that is forgotten with the process: for fleets of simulated agents.
    pub fn in_memory(key: NodeKey) -> Identity {
        Identity { key, seen: Mark::default(), home: None }
    }

    /// Opens the data directory, or makes a new identity in an empty or missing one.
    pub fn open(directory: &Path) -> Result<Identity, IdentityError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| io_error("create", directory, source))?;
        let lock = lock(&directory.join(LOCK_FILE))?;
        let seen = read_fence(&directory.join(FENCE_FILE))?;
        let key_path = directory.join(KEY_FILE);
        let key = match read_key(&key_path)? {
            Some(key) => key,
            None if seen.is_some() => {
                let what = "it is missing, but the node has joined before".to_owned();
                return Err(IdentityError::Damaged { path: key_path, what });
            }
            None => {
                let key =
                    NodeKey::random().map_err(|source| io_error("make", &key_path, source))?;
                replace(&key_path, &key.0)?;
                key
            }
        };
        let home = Home { directory: directory.to_path_buf(), _lock: lock };
        Ok(Identity { key, seen: seen.unwrap_or_default(), home: Some(home) })
    }

    /// The node's secret.
    pub fn key(&self) -> &NodeKey {
        &self.key
    }

    /// The highest mark ever admitted.
    pub fn seen(&self) -> Mark {
        self.seen
    }

    /// Whether `mark` may be acted on: it is not older than what was seen.
    pub fn check(&self, mark: Mark) -> Result<(), Stale> {
        if mark < self.seen { Err(Stale { offered: mark, seen: self.seen }) } else { Ok(()) }
    }

    /// Notes a mark that passed [`Identity::check`]; when this returns, it is on disk. An older one
    /// changes nothing.
    pub async fn advance(&mut self, mark: Mark) -> Result<(), IdentityError> {
        if mark <= self.seen {
            return Ok(());
        }
        if let Some(home) = &self.home {
            let path = home.directory.join(FENCE_FILE);
            let task_path = path.clone();
            let write = move || replace(&task_path, encode_fence(mark).as_bytes());
            tokio::task::spawn_blocking(write)
                .await
                .map_err(|lost| io_error("write", &path, io::Error::other(lost)))??;
        }
        self.seen = mark;
        Ok(())
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { doing, path: path.to_path_buf(), source }
}

fn lock(path: &Path) -> Result<File, IdentityError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|source| io_error("open", path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(IdentityError::Locked { path: path.parent().unwrap_or(path).to_path_buf() })
        }
        Err(TryLockError::Error(source)) => Err(io_error("lock", path, source)),
    }
}

/// At most `max` + 1 bytes of a file; `None` if it is not there.
fn read_bounded(path: &Path, max: u64) -> Result<Option<(Vec<u8>, fs::Metadata)>, IdentityError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("open", path, source)),
    };
    let metadata = file.metadata().map_err(|source| io_error("read", path, source))?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(|source| io_error("read", path, source))?;
    Ok(Some((bytes, metadata)))
}

fn read_key(path: &Path) -> Result<Option<NodeKey>, IdentityError> {
    let Some((bytes, metadata)) = read_bounded(path, NODE_KEY_BYTES as u64)? else {
        return Ok(None);
    };
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_path_buf(), mode });
    }
    let key = bytes.try_into().map_err(|bytes: Vec<u8>| IdentityError::Damaged {
        path: path.to_path_buf(),
        what: format!("{} bytes or more, not {NODE_KEY_BYTES}", bytes.len()),
    })?;
    Ok(Some(NodeKey(key)))
}

fn read_fence(path: &Path) -> Result<Option<Mark>, IdentityError> {
    let Some((bytes, _)) = read_bounded(path, FENCE_BYTES_MAX)? else { return Ok(None) };
    let damaged = |what| IdentityError::Damaged { path: path.to_path_buf(), what };
    decode_fence(&bytes).map(Some).map_err(damaged)
}

/// Four lines: head, epoch, index, and the CRC-32C of the lines before it.
fn encode_fence(mark: Mark) -> String {
    let body = format!("{FENCE_HEAD}\nepoch {}\nindex {}\n", mark.epoch, mark.index);
    let crc = crc32c::crc32c(body.as_bytes());
    format!("{body}crc32c {crc:08x}\n")
}

fn decode_fence(bytes: &[u8]) -> Result<Mark, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    if head != FENCE_HEAD {
        return Err(format!("it does not begin with {FENCE_HEAD:?}"));
    }
    let epoch = lines.next().and_then(|line| line.strip_prefix("epoch ")?.parse().ok());
    let index = lines.next().and_then(|line| line.strip_prefix("index ")?.parse().ok());
    let mark = match (epoch, index) {
        (Some(epoch), Some(index)) => Mark { epoch, index },
        _ => return Err("epoch or index cannot be read".to_owned()),
    };
    // Byte for byte, so that nothing may stand beside what was read.
    if encode_fence(mark) == text { Ok(mark) } else { Err("its checksum is wrong".to_owned()) }
}

/// Replaces a file whole and durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    let aside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| io_error("write", path, source))
}

#[cfg(test)]
mod tests;
