//! The disk behind [`super::FaultFiles`]: files, names, and what of them is durable.
//!
//! **Invariant:** `durable` differs from `written` exactly by the changes still in `unsynced`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::super::Listed;
use super::{Counts, Loss, Op};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) life: u64,
    pub(super) dirs: BTreeSet<PathBuf>,
    pub(super) room: Option<u64>,
    pub(super) counts: Counts,
    pub(super) hold_syncs: bool,
    pub(super) held_syncs: usize,
    /// Held syncs that may go on all the same.
    pub(super) passes: usize,
    /// End of the names that failures, held syncs and counts concern; empty for all.
    pub(super) focus: &'static str,
    inodes: BTreeMap<u64, Inode>,
    inode_next: u64,
    names: BTreeMap<PathBuf, u64>,
    names_durable: BTreeMap<PathBuf, u64>,
    names_unsynced: Vec<NameChange>,
    rules: Vec<Rule>,
    stop_at: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    written: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetBytes(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Debug)]
struct Rule {
    op: Op,
    after: u64,
    error: io::ErrorKind,
}

impl Machine {
    pub(super) fn fail(&mut self, op: Op, after: u64, error: io::ErrorKind) {
        self.rules.push(Rule { op, after, error });
    }

    pub(super) fn stop_after(&mut self, changes: u64) {
        self.stop_at = Some(self.counts.changes + changes);
    }

    pub(super) fn check_life(&self, life: u64) -> io::Result<()> {
        match life == self.life {
            true => Ok(()),
            false => Err(io::Error::other("the machine this handle belonged to has crashed")),
        }
    }

    pub(super) fn create(&mut self, path: &Path) -> io::Result<u64> {
        self.admit_change(Op::Create, self.is_name_in_focus(path))?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = self.inode_next;
        self.inode_next += 1;
        self.inodes.insert(inode, Inode::default());
        self.change_name(NameChange::Create(path.to_path_buf(), inode));
        Ok(inode)
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.admit_change(Op::Rename, self.is_name_in_focus(to))?;
        self.lookup(from)?;
        self.change_name(NameChange::Rename(from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.admit_change(Op::Remove, self.is_name_in_focus(path))?;
        self.lookup(path)?;
        self.change_name(NameChange::Remove(path.to_path_buf()));
        self.counts.removes += 1;
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let inside = |path: &Path| path.parent() == Some(dir);
        if !self.dirs.contains(dir) && !self.names.keys().any(|path| inside(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut listed = Vec::new();
        for (path, inode) in self.names.iter().filter(|(path, _)| inside(path)) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = self.inode(*inode)?.written.len() as u64;
            listed.push(Listed { name, bytes });
        }
        Ok(listed)
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.admit_change(Op::SyncDir, true)?;
        let (synced, kept) = std::mem::take(&mut self.names_unsynced)
            .into_iter()
            .partition(|change| change.path().parent() == Some(dir));
        self.names_unsynced = kept;
        apply_names(&mut self.names_durable, synced);
        self.counts.dir_syncs += 1;
        Ok(())
    }

    pub(super) fn read(&mut self, inode: u64, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check_rules(Op::Read, self.is_in_focus(inode))?;
        let content = &self.inode(inode)?.written;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
        let count = buf.len().min(content.len() - from);
        buf[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    pub(super) fn write(&mut self, inode: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let focused = self.is_in_focus(inode);
        let admitted = self.admit_change(Op::Write, focused);
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = match &admitted {
            Ok(()) => bytes,
            // A write that fails may still have done part of its work.
            Err(_) if self.is_stopped() => return admitted,
            Err(_) => &bytes[..bytes.len() / 2],
        };
        let grown = (offset + bytes.len()).saturating_sub(self.inode(inode)?.written.len());
        let free = self.room.map(|room| room.saturating_sub(self.used_bytes()));
        if free.is_some_and(|free| grown as u64 > free) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if focused {
            self.counts.writes += 1;
            self.counts.bytes_written += bytes.len() as u64;
        }
        let bytes = bytes.to_vec();
        let change = Change::Write { offset, bytes };
        self.inode_mut(inode)?.change(change);
        admitted
    }

    pub(super) fn set_bytes(&mut self, inode: u64, bytes: u64) -> io::Result<()> {
        self.admit_change(Op::Write, self.is_in_focus(inode))?;
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        self.inode_mut(inode)?.change(Change::SetBytes(bytes));
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: u64) -> io::Result<()> {
        let focused = self.is_in_focus(inode);
        self.admit_change(Op::Sync, focused)?;
        let inode = self.inode_mut(inode)?;
        for change in std::mem::take(&mut inode.unsynced) {
            change.apply(&mut inode.durable);
        }
        self.counts.syncs += u64::from(focused);
        Ok(())
    }

    /// What is synced is read from the disk from now on; anything else in the range is lost, which
    /// a real system would not do, so that a test finds out who asks for it.
    pub(super) fn release(&mut self, inode: u64, from: u64, to: u64) -> io::Result<()> {
        let content = self.inode_mut(inode)?;
        let place = |at| usize::try_from(at).unwrap_or(usize::MAX).min(content.written.len());
        for at in place(from)..place(to) {
            content.written[at] = content.durable.get(at).copied().unwrap_or(0);
        }
        self.counts.bytes_released += to.saturating_sub(from);
        Ok(())
    }

    pub(super) fn bytes(&self, inode: u64) -> io::Result<u64> {
        Ok(self.inode(inode)?.written.len() as u64)
    }

    pub(super) fn flip_bit(&mut self, path: &Path, byte: u64, bit: u8) -> bool {
        let Ok(inode) = self.lookup(path) else { return false };
        let Ok(inode) = self.inode_mut(inode) else { return false };
        let at = usize::try_from(byte).unwrap_or(usize::MAX);
        let mask = 1 << (bit % 8);
        let mut found = false;
        for copy in [&mut inode.written, &mut inode.durable] {
            if let Some(byte) = copy.get_mut(at) {
                *byte ^= mask;
                found = true;
            }
        }
        found
    }

    pub(super) fn overwrite(&mut self, path: &Path, content: &[u8]) {
        let inode = self.inode_next;
        self.inode_next += 1;
        let content = content.to_vec();
        let fresh = Inode { durable: content.clone(), written: content, unsynced: Vec::new() };
        self.inodes.insert(inode, fresh);
        self.names.insert(path.to_path_buf(), inode);
        self.names_durable.insert(path.to_path_buf(), inode);
    }

    pub(super) fn delete(&mut self, path: &Path) {
        self.names.remove(path);
        self.names_durable.remove(path);
    }

    pub(super) fn fork(&self) -> Self {
        Self {
            dirs: self.dirs.clone(),
            inodes: self.inodes.clone(),
            inode_next: self.inode_next,
            names: self.names.clone(),
            names_durable: self.names_durable.clone(),
            names_unsynced: self.names_unsynced.clone(),
            ..Self::default()
        }
    }

    pub(super) fn crash(&mut self, loss: Loss) {
        self.life += 1;
        self.rules.clear();
        self.stop_at = None;
        self.hold_syncs = false;
        let mut dice = match loss {
            Loss::Process => return,
            Loss::Unsynced => None,
            Loss::Torn { seed } => Some(Dice(seed)),
        };
        let changes = std::mem::take(&mut self.names_unsynced);
        if let Some(dice) = &mut dice {
            let kept = dice.below(changes.len() + 1);
            let survives = |(place, change): &(usize, NameChange)| match change {
                NameChange::Remove(_) => dice.below(2) == 0,
                NameChange::Create(..) | NameChange::Rename(..) => *place < kept,
            };
            let changes = changes.into_iter().enumerate().filter(survives);
            apply_names(&mut self.names_durable, changes.map(|(_, change)| change).collect());
        }
        for inode in self.inodes.values_mut() {
            inode.lose_power(dice.as_mut());
        }
        self.names = self.names_durable.clone();
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, _| named.contains(inode));
    }

    fn is_stopped(&self) -> bool {
        self.stop_at.is_some_and(|stop| self.counts.changes > stop)
    }

    /// Whether an open file's present name ends as the focus says.
    pub(super) fn is_in_focus(&self, inode: u64) -> bool {
        let mut named = self.names.iter().filter(|(_, named)| **named == inode);
        self.focus.is_empty() || named.any(|(path, _)| self.is_name_in_focus(path))
    }

    fn is_name_in_focus(&self, path: &Path) -> bool {
        path.to_string_lossy().ends_with(self.focus)
    }

    fn admit_change(&mut self, op: Op, focused: bool) -> io::Result<()> {
        self.counts.changes += 1;
        match self.is_stopped() {
            true => Err(io::Error::other("the disk has stopped")),
            false => self.check_rules(op, focused),
        }
    }

    fn check_rules(&mut self, op: Op, focused: bool) -> io::Result<()> {
        let Some(place) = self.rules.iter().position(|rule| focused && rule.op == op) else {
            return Ok(());
        };
        let rule = &mut self.rules[place];
        if rule.after > 0 {
            rule.after -= 1;
            return Ok(());
        }
        Err(self.rules.remove(place).error.into())
    }

    fn change_name(&mut self, change: NameChange) {
        apply_names(&mut self.names, vec![change.clone()]);
        self.names_unsynced.push(change);
    }

    fn used_bytes(&self) -> u64 {
        let sizes = self.names.values().filter_map(|inode| self.inodes.get(inode));
        sizes.map(|inode| inode.written.len() as u64).sum()
    }

    fn inode(&self, inode: u64) -> io::Result<&Inode> {
        self.inodes.get(&inode).ok_or(io::ErrorKind::NotFound.into())
    }

    fn inode_mut(&mut self, inode: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&inode).ok_or(io::ErrorKind::NotFound.into())
    }
}

impl Inode {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.written);
        self.unsynced.push(change);
    }

    fn lose_power(&mut self, dice: Option<&mut Dice>) {
        let changes = std::mem::take(&mut self.unsynced);
        if let Some(dice) = dice {
            // Some cuts come early, some late: how much was written back varies per file.
            let kept_percent = [0, 20, 50, 80, 100][dice.below(5)];
            for change in changes {
                change.tear(&mut self.durable, kept_percent, dice);
            }
        }
        self.written = self.durable.clone();
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(content, *offset, bytes),
            Self::SetBytes(bytes) => content.resize(*bytes, 0),
        }
    }

    /// Applies a random part, in whole sectors of the disk.
    fn tear(&self, content: &mut Vec<u8>, kept_percent: usize, dice: &mut Dice) {
        match self {
            Self::SetBytes(_) if dice.below(100) < kept_percent => self.apply(content),
            Self::SetBytes(_) => {}
            Self::Write { offset, bytes } => {
                let mut from = 0;
                while from < bytes.len() {
                    let room = SECTOR_BYTES - (offset + from) % SECTOR_BYTES;
                    let to = bytes.len().min(from + room);
                    if dice.below(100) < kept_percent {
                        put(content, offset + from, &bytes[from..to]);
                    }
                    from = to;
                }
            }
        }
    }
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            Self::Create(path, _) | Self::Rename(path, _) | Self::Remove(path) => path,
        }
    }
}

fn apply_names(names: &mut BTreeMap<PathBuf, u64>, changes: Vec<NameChange>) {
    for change in changes {
        match change {
            NameChange::Create(path, inode) => {
                names.insert(path, inode);
            }
            NameChange::Rename(from, to) => {
                if let Some(inode) = names.remove(&from) {
                    names.insert(to, inode);
                }
            }
            NameChange::Remove(path) => {
                names.remove(&path);
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(bytes);
}

/// splitmix64: enough chance for a torn write, and the same on every machine.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % bound.max(1) as u64).unwrap_or(0)
    }
}
