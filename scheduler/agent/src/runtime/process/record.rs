//! What is kept on disk of each replica.
//!
//! **Invariant:** a record is on disk before its program runs, and stays until the scheduler wants
//! the replica no more. A damaged record is an error, never a guess.

use super::Found;
use super::group::Group;
use crate::identity;
use crate::runtime::{Adopted, RuntimeError};
use agent_core::replica::{AssignmentId, Binding, EXIT_KILLED, Exit, GpuSet, JobId, Rank};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Format of the record file.
const FORMAT: u32 = 1;
/// Changes with every start of the machine; after one, none of the recorded processes lives.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The folders of all replicas of this node.
#[derive(Debug)]
pub(super) struct Store {
    replicas: PathBuf,
    logs: PathBuf,
    logs_kept: usize,
    boot: String,
}

/// The file `record`.
#[derive(Serialize, Deserialize, Debug)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    boot: String,
    pid: i32,
    start_ticks: u64,
    assignment: u64,
    job: u64,
    rank: u32,
    gpus: Vec<u32>,
    gpu_milli: u32,
}

/// Files of one replica.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    home: PathBuf,
}

impl Folder {
    /// Working directory.
    pub(super) fn work(&self) -> PathBuf {
        self.home.join("work")
    }

    /// Where the shim writes the exit code.
    pub(super) fn exit(&self) -> PathBuf {
        self.home.join("exit")
    }

    fn record(&self) -> PathBuf {
        self.home.join("record")
    }

    /// The exit code on disk; `None` if there is none, or half of one.
    pub(super) fn exit_code(&self) -> Option<i32> {
        fs::read_to_string(self.exit()).ok()?.strip_suffix('\n')?.parse().ok()
    }
}

impl Store {
    pub(super) fn open(data_dir: &Path, logs_kept: usize) -> Result<Store, RuntimeError> {
        let (replicas, logs) = (data_dir.join("replicas"), data_dir.join("logs"));
        for folder in [&replicas, &logs] {
            create(folder).map_err(|e| RuntimeError::io("create", folder.display(), e))?;
        }
        let boot = fs::read_to_string(BOOT_ID).map_err(|e| RuntimeError::io("read", BOOT_ID, e))?;
        Ok(Store { replicas, logs, logs_kept, boot: boot.trim().to_owned() })
    }

    pub(super) fn folder(&self, id: AssignmentId) -> Folder {
        Folder { home: self.replicas.join(id.to_string()) }
    }

    /// An empty folder for a replica that is about to start.
    pub(super) fn prepare(&self, id: AssignmentId) -> io::Result<Folder> {
        let folder = self.folder(id);
        remove(&folder.home)?;
        create(&folder.work())?;
        Ok(folder)
    }

    /// Files for what the replica prints: output and errors.
    pub(super) fn logs(&self, binding: &Binding) -> io::Result<(File, File)> {
        self.prune_logs()?;
        let open = |ending| {
            let (job, rank, id) = (binding.job.0, binding.rank.0, binding.id);
            let path = self.logs.join(format!("{job}-{rank}-{id}.{ending}"));
            OpenOptions::new().create(true).append(true).mode(0o600).open(path)
        };
        Ok((open("out")?, open("err")?))
    }

    /// Notes who runs; when this returns, it is on disk.
    pub(super) fn note(&self, folder: &Folder, binding: &Binding, group: Group) -> io::Result<()> {
        let record = Record {
            format: FORMAT,
            boot: self.boot.clone(),
            pid: group.pid,
            start_ticks: group.start_ticks,
            assignment: binding.id.0,
            job: binding.job.0,
            rank: binding.rank.0,
            gpus: binding.gpus.iter().collect(),
            gpu_milli: binding.gpu_milli,
        };
        let bytes = serde_json::to_vec(&record).map_err(io::Error::other)?;
        identity::replace(&folder.record(), &bytes).map_err(io::Error::other)
    }

    /// Deletes a replica's folder; its logs stay.
    pub(super) fn forget(&self, id: AssignmentId) {
        let home = self.folder(id).home;
        if let Err(error) = remove(&home) {
            tracing::warn!(path = %home.display(), %error, "cannot delete a replica's folder");
        }
    }

    /// All replicas on disk; those that still run come with their group.
    pub(super) fn adopt(&self) -> Result<Vec<Found>, RuntimeError> {
        let failed = |e| RuntimeError::io("read", self.replicas.display(), e);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.replicas).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
                tracing::warn!(?name, "not a replica's folder: left alone");
                continue;
            };
            let id = AssignmentId(id);
            match self.read(id)? {
                Some(record) => found.push(self.take_up(id, record)?),
                // The agent went away before anything ran.
                None => self.forget(id),
            }
        }
        found.sort_by_key(|(adopted, _)| adopted.binding.id);
        Ok(found)
    }

    fn read(&self, id: AssignmentId) -> Result<Option<Record>, RuntimeError> {
        let path = self.folder(id).record();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(RuntimeError::io("read", path.display(), error)),
        };
        let damaged =
            |what: String| RuntimeError::Damaged { path: path.display().to_string(), what };
        let record: Record = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if record.format != FORMAT {
            return Err(damaged(format!("format {}, not {FORMAT}", record.format)));
        }
        if record.assignment != id.0 {
            return Err(damaged(format!("it is of assignment {}", record.assignment)));
        }
        Ok(Some(record))
    }

    fn take_up(&self, id: AssignmentId, record: Record) -> Result<Found, RuntimeError> {
        let folder = self.folder(id);
        let gpus = record.gpus.iter().try_fold(GpuSet::default(), |set, gpu| set.with(*gpu));
        let gpus = gpus.ok_or_else(|| RuntimeError::Damaged {
            path: folder.record().display().to_string(),
            what: "its GPUs are impossible".to_owned(),
        })?;
        let binding = Binding {
            id,
            job: JobId(record.job),
            rank: Rank(record.rank),
            gpus,
            gpu_milli: record.gpu_milli,
        };
        let group = Group { pid: record.pid, start_ticks: record.start_ticks };
        let failed = |e| RuntimeError::io("look after", format!("process {}", group.pid), e);
        let gone = || Some(Exit::from_code(folder.exit_code().unwrap_or(EXIT_KILLED)));
        if record.boot != self.boot {
            return Ok((Adopted { binding, exit: gone() }, None));
        }
        // A leader that is gone may have left others of its group behind; then the replica still
        // has its GPUs, and its supervisor ends the rest.
        if !group.leader_lives().map_err(failed)? {
            group.signal(Signal::KILL).map_err(failed)?;
            if !group.lives().map_err(failed)? {
                return Ok((Adopted { binding, exit: gone() }, None));
            }
        }
        Ok((Adopted { binding, exit: None }, Some(group)))
    }

    /// Deletes the oldest logs of replicas that are gone, once there are twice as many as are kept.
    fn prune_logs(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in fs::read_dir(&self.logs)? {
            let entry = entry?;
            files.push((entry.metadata()?.modified()?, entry.path()));
        }
        // Two files each.
        let kept = self.logs_kept.saturating_mul(2);
        if files.len() <= kept.saturating_mul(2) {
            return Ok(());
        }
        files.retain(|(_, path)| !self.is_live(path));
        files.sort();
        let excess = files.len().saturating_sub(kept);
        files.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
    }

    fn is_live(&self, log: &Path) -> bool {
        let stem = log.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let id = stem.rsplit('-').next().and_then(|id| id.parse().ok()).map(AssignmentId);
        id.is_some_and(|id| self.folder(id).home.exists())
    }
}

fn create(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(directory: &tempfile::TempDir) -> Store {
        Store::open(directory.path(), 1).unwrap()
    }

    fn binding(id: u64) -> Binding {
        let gpus = GpuSet::default().with(2).unwrap();
        Binding { id: AssignmentId(id), job: JobId(4), rank: Rank(1), gpus, gpu_milli: 500 }
    }

    /// A replica on record whose leader has long been gone.
    fn note(store: &Store, id: u64) -> Folder {
        let folder = store.prepare(AssignmentId(id)).unwrap();
        let gone = Group { pid: i32::MAX, start_ticks: 1 };
        store.note(&folder, &binding(id), gone).unwrap();
        folder
    }

    #[test]
    fn what_ended_meanwhile_is_found_with_its_code() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        fs::write(note(&store, 1).exit(), "0\n").unwrap();
        fs::write(note(&store, 2).exit(), "3\n").unwrap();
        note(&store, 3);
        fs::write(note(&store, 4).exit(), "1").unwrap();
        store.prepare(AssignmentId(5)).unwrap();
        let exits: Vec<_> = store
            .adopt()
            .unwrap()
            .into_iter()
            .map(|(adopted, group)| {
                assert!(group.is_none());
                assert_eq!(adopted.binding, binding(adopted.binding.id.0));
                adopted.exit.unwrap()
            })
            .collect();
        let killed = Exit::Failed(EXIT_KILLED);
        assert_eq!(exits, [Exit::Succeeded, Exit::Failed(3), killed, killed]);
        assert!(!store.folder(AssignmentId(5)).home.exists(), "nothing ran there");
    }

    #[test]
    fn a_damaged_record_stops_the_agent() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        let path = note(&store, 1).record();
        let good = fs::read_to_string(&path).unwrap();
        for (bad, what) in [
            (good[..good.len() - 1].to_owned(), "EOF"),
            (good.replace("\"format\":1", "\"format\":2"), "format 2, not 1"),
            (good.replace("\"assignment\":1", "\"assignment\":9"), "of assignment 9"),
            (good.replace("[2]", "[64]"), "impossible"),
        ] {
            fs::write(&path, bad).unwrap();
            let error = store.adopt().unwrap_err().to_string();
            assert!(error.contains("is damaged") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn old_logs_go_and_live_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(&directory);
        store.prepare(AssignmentId(1)).unwrap();
        for id in 1..=9 {
            store.logs(&binding(id)).unwrap();
        }
        let count = fs::read_dir(&store.logs).unwrap().count();
        assert!(count <= 6, "{count} files");
        assert!(store.logs.join("4-1-1.out").exists());
        assert!(store.logs.join("4-1-9.err").exists());
    }
}
