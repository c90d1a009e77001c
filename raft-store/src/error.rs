//! What can be wrong with a server's stored data, in a form that says what to do about it.
//!
//! **Invariant:** nothing in here repairs anything; an error names the file, the place, the fault
//! and the one repair that is allowed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Refusal of the store to open, read or write a server's data directory.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused an operation.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb: "open", "sync".
        action: &'static str,
        /// File or directory it was tried on.
        path: PathBuf,
        /// What the operating system answered.
        source: io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("{}", Damage { fault, more: *more })]
    Corrupt {
        /// The first fault met, in reading order.
        fault: Box<Fault>,
        /// How many further faults the same check met.
        more: usize,
    },
    /// The data was written by a build that this one does not understand.
    #[error(
        "{}: format version {found}, this build reads only version {supported}: {}",
        path.display(),
        Repair::OtherBuild
    )]
    Format {
        /// File that carries the version.
        path: PathBuf,
        /// Version found in it.
        found: u32,
        /// Version this build reads and writes.
        supported: u32,
    },
    /// The directory belongs to another cluster or server.
    #[error("{}: belongs to {field} {found}, but this server is {field} {expected}", path.display())]
    Foreign {
        /// File that carries the identity.
        path: PathBuf,
        /// Which identity differs: "cluster" or "server".
        field: &'static str,
        /// What this server was configured as.
        expected: String,
        /// What the file says.
        found: String,
    },
    /// Another process holds the directory.
    #[error("{}: in use by another process; two servers must never share a data directory", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// A setting is outside its limits.
    #[error("{field}: {value} is outside {min}..={max}")]
    Setting {
        /// Path of the setting, as in `log.segment_bytes`.
        field: &'static str,
        /// What was given.
        value: u64,
        /// Least accepted value.
        min: u64,
        /// Greatest accepted value.
        max: u64,
    },
}

impl StoreError {
    /// An operating system error with the action and the path it happened on.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_path_buf(), source }
    }

    /// A single fault.
    pub fn corrupt(path: &Path, offset: u64, what: impl Into<String>, repair: Repair) -> Self {
        Self::Corrupt {
            fault: Box::new(Fault { path: path.to_path_buf(), offset, what: what.into(), repair }),
            more: 0,
        }
    }
}

/// One place where stored bytes are wrong.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// File (or directory, when a file is missing from it).
    pub path: PathBuf,
    /// Byte in the file where the fault begins; 0 when it concerns the whole file.
    pub offset: u64,
    /// What is wrong, in one lowercase clause.
    pub what: String,
    /// The one repair that cannot lose or invent anything the quorum relies on.
    pub repair: Repair,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        write!(f, "{path}: byte {}: {}: {}", self.offset, self.what, self.repair)
    }
}

/// The repair a fault allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// An unfinished last write, never acknowledged: the next start cuts it off by itself.
    CutTail,
    /// A switch to a new segment that a crash interrupted: the next start finishes it by itself.
    FinishRoll,
    /// Acknowledged data may be gone: this server must not come back under its old identity.
    Rejoin,
    /// The file is a copy that can be rebuilt from the log and the snapshots.
    Rebuild,
    /// The data is fine, the program is the wrong one.
    OtherBuild,
}

impl Repair {
    /// Whether the next start mends it without anybody's help.
    pub fn is_automatic(self) -> bool {
        matches!(self, Self::CutTail | Self::FinishRoll | Self::Rebuild)
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CutTail => "the next start cuts it off, nothing acknowledged is lost",
            Self::FinishRoll => "the next start finishes it, nothing is lost",
            Self::Rejoin => "wipe this server's directory and re-add it as a new learner",
            Self::Rebuild => "the next start rebuilds it from the log and the snapshots",
            Self::OtherBuild => "start the build that wrote it",
        })
    }
}

/// A fault and how many more there were, as one line.
struct Damage<'a> {
    fault: &'a Fault,
    more: usize,
}

impl fmt::Display for Damage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault)?;
        match self.more {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}
