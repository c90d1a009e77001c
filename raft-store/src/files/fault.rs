//! A file layer in memory that can lose power, tear writes, fill up and fail: for tests and for
//! simulated runs, never for a real server.
//!
//! Each file has two copies: what was written (a crash of the process keeps it) and what is
//! durable (a power cut keeps it). Names in a directory are handled the same way.
//!
//! **Invariant:** a power cut never loses what a returned `sync_data` or `sync_dir` covered, and
//! never keeps a handle usable.

mod machine;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{File, Files, Listed};
use machine::Machine;

/// What a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Only the process dies: everything written stays (the page cache survives).
    Process,
    /// The power goes and everything that was not synced is gone.
    Unsynced,
    /// The power goes in the middle of writing back: a random subset of the unsynced 512-byte
    /// sectors, a random prefix of the unsynced new names and a random subset of the unsynced
    /// removals had reached the disk.
    Torn {
        /// Chooses the subset.
        seed: u64,
    },
}

/// A kind of operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Op {
    /// `write_all_at`.
    Write,
    /// `sync_data`.
    Sync,
    /// `read_at`.
    Read,
    /// `create`.
    Create,
    /// `rename`.
    Rename,
    /// `remove`.
    Remove,
    /// `sync_dir`.
    SyncDir,
}

/// How often each operation was carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls of `write_all_at`.
    pub writes: u64,
    /// Bytes given to `write_all_at`.
    pub bytes_written: u64,
    /// Calls of `sync_data` that returned success.
    pub syncs: u64,
    /// Calls of `sync_dir` that returned success.
    pub dir_syncs: u64,
    /// Bytes given to `release`.
    pub bytes_released: u64,
    /// Calls of `remove` that returned success.
    pub removes: u64,
    /// Operations that change the disk, of any kind, successful or not.
    pub changes: u64,
}

/// A disk in memory with faults; clones share it.
#[derive(Clone, Debug, Default)]
pub struct FaultFiles {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    machine: Mutex<Machine>,
    /// Signalled when a sync begins to wait, is let go, or power goes.
    gate: Condvar,
}

#[derive(Debug)]
struct FaultFile {
    shared: Arc<Shared>,
    inode: u64,
    /// Handles of an earlier life of the machine are dead.
    life: u64,
}

impl FaultFiles {
    /// An empty disk without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends this life of the machine: open handles die, and what `loss` says is gone.
    pub fn crash(&self, loss: Loss) {
        self.machine().crash(loss);
        self.shared.gate.notify_all();
    }

    /// From now on failures, held syncs and the counts of writes and syncs concern only files
    /// whose name ends so. Files that are written ahead of need no longer disturb a test.
    pub fn focus(&self, name_end: &'static str) {
        self.machine().focus = name_end;
    }

    /// Makes the operation after `after` more successful ones of its kind fail once with
    /// `error`. A failed write leaves the first half of its bytes written.
    pub fn fail(&self, op: Op, after: u64, error: io::ErrorKind) {
        self.machine().fail(op, after, error);
    }

    /// Stops the disk after `changes` more changing operations: those later fail until `crash`.
    pub fn stop_after(&self, changes: u64) {
        self.machine().stop_after(changes);
    }

    /// Limits the sum of all file lengths in bytes; `None` lifts the limit.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.machine().room = bytes;
    }

    /// Flips one bit at rest, in both copies. Returns whether the byte exists.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> bool {
        self.machine().flip_bit(path, byte, bit)
    }

    /// Replaces a file's content at rest, in both copies, creating it when needed.
    pub fn overwrite(&self, path: &Path, content: &[u8]) {
        self.machine().overwrite(path, content);
    }

    /// Takes a file away at rest, in both copies.
    pub fn delete(&self, path: &Path) {
        self.machine().delete(path);
    }

    /// What has happened since the disk was made.
    pub fn counts(&self) -> Counts {
        self.machine().counts
    }

    /// An independent copy of the whole disk in its present state, without its faults.
    pub fn fork(&self) -> Self {
        let machine = self.machine().fork();
        let shared = Shared { machine: Mutex::new(machine), gate: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    /// From now on `sync_data` waits (`true`) or goes on (`false`).
    pub fn hold_syncs(&self, hold: bool) {
        self.machine().hold_syncs = hold;
        self.shared.gate.notify_all();
    }

    /// Lets one held `sync_data` go on; the next one waits again.
    pub fn pass_one_sync(&self) {
        self.machine().passes += 1;
        self.shared.gate.notify_all();
    }

    /// Blocks until a held `sync_data` is waiting.
    pub fn wait_for_held_sync(&self) {
        let mut machine = self.machine();
        while machine.held_syncs == 0 {
            machine = wait(&self.shared.gate, machine);
        }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.shared.machine()
    }

    fn handle(&self, inode: u64, life: u64) -> Arc<dyn File> {
        Arc::new(FaultFile { shared: self.shared.clone(), inode, life })
    }
}

impl Shared {
    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait<'a>(gate: &Condvar, machine: MutexGuard<'a, Machine>) -> MutexGuard<'a, Machine> {
    gate.wait(machine).unwrap_or_else(PoisonError::into_inner)
}

impl Files for FaultFiles {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.machine().dirs.insert(PathBuf::from(dir));
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut machine = self.machine();
        let inode = machine.create(path)?;
        Ok(self.handle(inode, machine.life))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let machine = self.machine();
        let inode = machine.lookup(path)?;
        Ok(self.handle(inode, machine.life))
    }

    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.machine().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.machine().remove(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        self.machine().list(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.machine().sync_dir(dir)
    }
}

impl File for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut machine = self.shared.machine();
        machine.check_life(self.life)?;
        machine.read(self.inode, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut machine = self.shared.machine();
        machine.check_life(self.life)?;
        machine.write(self.inode, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.shared.machine();
        if machine.is_in_focus(self.inode) {
            machine.held_syncs += 1;
            self.shared.gate.notify_all();
            while machine.hold_syncs && machine.passes == 0 && machine.life == self.life {
                machine = wait(&self.shared.gate, machine);
            }
            machine.passes = machine.passes.saturating_sub(1);
            machine.held_syncs -= 1;
        }
        machine.check_life(self.life)?;
        machine.sync(self.inode)
    }

    fn bytes(&self) -> io::Result<u64> {
        let machine = self.shared.machine();
        machine.check_life(self.life)?;
        machine.bytes(self.inode)
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        let mut machine = self.shared.machine();
        machine.check_life(self.life)?;
        machine.set_bytes(self.inode, bytes)
    }

    fn release(&self, from: u64, to: u64) -> io::Result<()> {
        let mut machine = self.shared.machine();
        machine.check_life(self.life)?;
        machine.release(self.inode, from, to)
    }
}

#[cfg(test)]
mod tests;
