//! Looking into a stopped server's data directory: is it right, and what is in it.
//!
//! **Invariant:** the log, the snapshots and the identity are only read. The lock is held
//! meanwhile, so a running server's directory is refused. (sled may tidy up its own files when
//! the copy is opened; the copy may be rebuilt at any time anyway.)

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use scheduler_core::command::Entry;
use scheduler_core::state::{Row, State};
use serde::Serialize;

use crate::codec::peer::fingerprint;
use crate::codec::record::{MembershipBytes, VoteBytes};
use crate::codec::{self, CodecError, record};
use crate::dir::DataDir;
use crate::error::{Fault, Repair, StoreError};
use crate::files::{Disk, Files};
use crate::log::{self, CheckReport, Item, LogPosition, Record};
use crate::mirror;
use crate::raft::live::index;
use crate::snapshot::{NAME_PREFIX, SnapshotFile};

/// Cache for opening the copy; reading it once needs little.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What a data directory holds and what is wrong with it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub cluster_id: String,
    pub server_id: u64,
    pub log: CheckReport,
    /// Oldest first.
    pub snapshots: Vec<SnapshotReport>,
    pub copy: CopyReport,
    /// The newest intact snapshot with the committed log on top; absent when they do not make
    /// a state.
    pub replay: Option<ReplayReport>,
    /// What is wrong beside the faults of the log, in reading order.
    pub faults: Vec<Fault>,
}

/// One snapshot file.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotReport {
    pub name: String,
    pub bytes: u64,
    pub last: Option<LogPosition>,
    pub rows: u64,
    /// Hash of its state, in hexadecimal.
    pub state_hash: String,
}

/// The copy of the state in sled.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CopyReport {
    /// Whether there is one that proves right.
    pub usable: bool,
    pub applied: Option<LogPosition>,
    pub rows: u64,
    /// Hash of its state, in hexadecimal.
    pub state_hash: Option<String>,
}

/// What replaying the log gave.
#[derive(Clone, Debug, Serialize)]
pub struct ReplayReport {
    /// Index of the snapshot it began with; 0 for the empty state.
    pub from_index: u64,
    /// Last committed record applied.
    pub to_index: u64,
    pub state_hash: String,
    pub nodes: u64,
    pub jobs: u64,
    /// Whether the copy equals the replayed state at its position; absent when it lies outside.
    pub copy_agrees: Option<bool>,
    /// What the state's own check found; there must be nothing.
    pub findings: Vec<String>,
}

impl Report {
    /// Whether everything is as it should be; a fault that the next start mends by itself counts
    /// as one.
    pub fn is_clean(&self) -> bool {
        let replayed = self.replay.as_ref();
        self.log.faults.is_empty()
            && self.faults.is_empty()
            && replayed.is_some_and(|it| it.findings.is_empty() && it.copy_agrees != Some(false))
    }

    /// Whether the server may be started: the faults are none or mend by themselves.
    pub fn is_usable(&self) -> bool {
        self.log.is_usable()
            && self.faults.iter().all(|fault| fault.repair.is_automatic())
            && self.replay.is_some()
    }
}

/// Verifies a stopped server's directory: every checksum, the state of every snapshot, and that
/// replaying the log gives what the copy holds.
pub fn check(dir: &Path) -> Result<Report, StoreError> {
    let files: Arc<dyn Files> = Arc::new(Disk);
    let dir = DataDir::inspect(dir, &files)?;
    let mut faults = Vec::new();
    let log = log::check(&dir.log(), &*files)?;
    let snapshots = snapshots(&dir, &files, &mut faults)?;
    let (copy, copied) = copy(&dir, &mut faults);
    let base = match snapshots.last() {
        Some(snapshot) => snapshot.load()?,
        None => State::new(),
    };
    let last = snapshots.last().and_then(|snapshot| snapshot.head.last);
    let replay = match index(log.last_purged) > index(last) {
        true => {
            let what = format!("no intact snapshot reaches record {}", index(log.last_purged));
            faults.push(fault(&dir.snapshots(), what, Repair::Rejoin));
            None
        }
        false => replay(&dir, &files, &log, (base, last), copied, &mut faults)?,
    };
    let snapshots = snapshots.iter().map(SnapshotReport::of).collect();
    let (cluster_id, server_id) = (dir.identity.cluster_id.clone(), dir.identity.server_id);
    Ok(Report { cluster_id, server_id, log, snapshots, copy, replay, faults })
}

impl SnapshotReport {
    fn of(file: &SnapshotFile) -> Self {
        Self {
            name: name(&file.path),
            bytes: file.bytes,
            last: file.head.last,
            rows: file.foot.rows,
            state_hash: hex(file.foot.state_hash),
        }
    }
}

/// The intact snapshots, oldest first. Unlike at a start nothing is moved.
fn snapshots(
    dir: &DataDir,
    files: &Arc<dyn Files>,
    faults: &mut Vec<Fault>,
) -> Result<Vec<SnapshotFile>, StoreError> {
    let root = dir.snapshots();
    let listed = files.list(&root).map_err(|error| StoreError::io("list", &root, error))?;
    let mut found = Vec::new();
    for file in listed.iter().filter(|file| is_snapshot(&file.name)) {
        let path = root.join(&file.name);
        let open = files.open_read(&path).map_err(|error| StoreError::io("open", &path, error))?;
        // Loading proves more than the checksums: that the rows make the state of the foot.
        match SnapshotFile::open(&path, open).and_then(|file| file.load().map(|_| file)) {
            Ok(snapshot) => found.push(snapshot),
            Err(StoreError::Corrupt { fault, .. }) => faults.push(*fault),
            Err(other) => return Err(other),
        }
    }
    Ok(found)
}

fn is_snapshot(name: &str) -> bool {
    let digits = name.strip_prefix(NAME_PREFIX);
    digits.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn copy(dir: &DataDir, faults: &mut Vec<Fault>) -> (CopyReport, Option<(u64, u128)>) {
    let cluster = fingerprint(&dir.identity.cluster_id);
    let loaded = match mirror::verify(&dir.state(), cluster, CACHE_BYTES) {
        Ok(Some(loaded)) => loaded,
        Ok(None) => return Default::default(),
        Err(why) => {
            faults.push(fault(&dir.state(), why, Repair::Rebuild));
            return Default::default();
        }
    };
    let hash = loaded.state.hash();
    let report = CopyReport {
        usable: true,
        applied: loaded.mark.applied,
        rows: loaded.mark.rows,
        state_hash: Some(hex(hash)),
    };
    (report, Some((index(loaded.mark.applied), hash)))
}

fn replay(
    dir: &DataDir,
    files: &Arc<dyn Files>,
    log: &CheckReport,
    (mut state, last): (State, Option<LogPosition>),
    copied: Option<(u64, u128)>,
    faults: &mut Vec<Fault>,
) -> Result<Option<ReplayReport>, StoreError> {
    let from_index = index(last);
    // What the copy holds was committed, whether the mark says so yet or not.
    let committed = index(log.committed).max(copied.map_or(0, |(at, _)| at));
    let mut copy_agrees = None;
    let mut agree = |at: u64, state: &State| {
        if let Some((wanted, hash)) = copied
            && wanted == at
        {
            copy_agrees = Some(state.hash() == hash);
        }
    };
    agree(from_index, &state);
    let mut to_index = from_index;
    for record in tail(dir, files, last)?.into_values() {
        if record.at.index > committed {
            break;
        }
        if record.kind == record::NORMAL {
            let entries = match codec::entries(&record.payload) {
                Ok(entries) => entries,
                Err(error) => {
                    let what = format!("record {}: {error}", record.at.index);
                    faults.push(fault(&dir.log(), what, Repair::OtherBuild));
                    return Ok(None);
                }
            };
            for entry in &entries {
                // A rejection is as deterministic as an outcome, and as unimportant here.
                let _ = state.apply(record.at.index, entry);
            }
        }
        to_index = record.at.index;
        agree(to_index, &state);
    }
    if copy_agrees == Some(false) {
        let what = "differs from what the log gives".to_owned();
        faults.push(fault(&dir.state(), what, Repair::Rebuild));
    }
    Ok(Some(ReplayReport {
        from_index,
        to_index,
        state_hash: hex(state.hash()),
        nodes: state.nodes_len() as u64,
        jobs: state.jobs_len() as u64,
        copy_agrees,
        findings: state.check().iter().map(ToString::to_string).collect(),
    }))
}

/// The valid entries behind a position, as truncations left them.
fn tail(
    dir: &DataDir,
    files: &Arc<dyn Files>,
    behind: Option<LogPosition>,
) -> Result<BTreeMap<u64, Record>, StoreError> {
    let mut entries = BTreeMap::new();
    for raw in log::dump(&dir.log(), files.clone())? {
        // Damage has been reported by the log's own check.
        let Ok(raw) = raw else { continue };
        match raw.item {
            Item::Entry(entry) if Some(entry.at.index) > behind.map(|at| at.index) => {
                entries.insert(entry.at.index, entry);
            }
            Item::Truncated(kept) => {
                entries.retain(|at, _| Some(*at) <= kept.map(|kept| kept.index));
            }
            _ => {}
        }
    }
    Ok(entries)
}

/// Which part of a directory to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Every record of the log, of every kind.
    Log,
    /// Every row of the newest intact snapshot.
    Snapshot,
    /// Every row of the copy in sled.
    Copy,
}

#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line<'a> {
    Blank { at: LogPosition },
    Entries { at: LogPosition, entries: Vec<Entry> },
    Members { at: LogPosition, members: MembershipBytes },
    Unreadable { at: LogPosition, kind: u8, bytes: usize, why: String },
    Vote { vote: VoteBytes },
    Committed { at: Option<LogPosition> },
    Purged { upto: LogPosition },
    Truncated { behind: Option<LogPosition> },
    SegmentBegins { segment: &'a str },
    SegmentEnds { next: u64 },
    Closed,
    Fault { why: String },
}

/// Prints a part of a stopped server's directory, one JSON object per line.
pub fn dump(dir: &Path, part: Part, out: &mut dyn Write) -> Result<(), StoreError> {
    let files: Arc<dyn Files> = Arc::new(Disk);
    let dir = DataDir::inspect(dir, &files)?;
    match part {
        Part::Log => dump_log(&dir, files, out),
        Part::Snapshot => {
            let Some(snapshot) = snapshots(&dir, &files, &mut Vec::new())?.pop() else {
                return Ok(());
            };
            rows(&snapshot.load()?, out)
        }
        Part::Copy => {
            let cluster = fingerprint(&dir.identity.cluster_id);
            match mirror::verify(&dir.state(), cluster, CACHE_BYTES) {
                Ok(Some(loaded)) => rows(&loaded.state, out),
                Ok(None) => Ok(()),
                Err(why) => Err(StoreError::corrupt(&dir.state(), 0, why, Repair::Rebuild)),
            }
        }
    }
}

fn dump_log(dir: &DataDir, files: Arc<dyn Files>, out: &mut dyn Write) -> Result<(), StoreError> {
    for raw in log::dump(&dir.log(), files)? {
        let raw = match raw {
            Ok(raw) => raw,
            Err(error) => {
                print(out, &Line::Fault { why: error.to_string() })?;
                continue;
            }
        };
        let segment = name(&raw.path);
        let line = match raw.item {
            Item::Entry(entry) => entry_line(&entry),
            Item::Vote(bytes) => match record::vote(&bytes) {
                Ok(vote) => Line::Vote { vote: VoteBytes::of(&vote) },
                Err(error) => Line::Fault { why: error.to_string() },
            },
            Item::Committed(at) => Line::Committed { at },
            Item::Purged(upto) => Line::Purged { upto },
            Item::Truncated(behind) => Line::Truncated { behind },
            Item::Carry(_) => Line::SegmentBegins { segment: &segment },
            Item::Sealed(next) => Line::SegmentEnds { next },
            Item::Closed => Line::Closed,
        };
        print(out, &line)?;
    }
    Ok(())
}

fn entry_line(entry: &Record) -> Line<'static> {
    let at = entry.at;
    let read = || -> Result<Line<'static>, CodecError> {
        Ok(match entry.kind {
            record::BLANK => Line::Blank { at },
            record::NORMAL => Line::Entries { at, entries: codec::entries(&entry.payload)? },
            record::MEMBERSHIP => {
                Line::Members { at, members: codec::decode("membership", &entry.payload)? }
            }
            found => return Err(CodecError::Kind { what: "record", found }),
        })
    };
    read().unwrap_or_else(|error| Line::Unreadable {
        at,
        kind: entry.kind,
        bytes: entry.payload.len(),
        why: error.to_string(),
    })
}

fn rows(state: &State, out: &mut dyn Write) -> Result<(), StoreError> {
    for row in state.freeze().rows() {
        print::<Row>(out, &row)?;
    }
    Ok(())
}

fn print<T: Serialize>(out: &mut dyn Write, line: &T) -> Result<(), StoreError> {
    let failed = |error| StoreError::io("write", Path::new("the dump"), error);
    let text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
    writeln!(out, "{text}").map_err(failed)
}

fn fault(path: &Path, what: String, repair: Repair) -> Fault {
    Fault { path: path.to_path_buf(), offset: 0, what, repair }
}

fn name(path: &Path) -> String {
    let none = PathBuf::new();
    let name = path.file_name().unwrap_or(none.as_os_str());
    name.to_string_lossy().into_owned()
}

fn hex(hash: u128) -> String {
    format!("{hash:032x}")
}
