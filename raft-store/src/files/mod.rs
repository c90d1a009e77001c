//! The few file operations the store needs, behind a trait so that tests can break each of them.
//!
//! **Invariant:** every byte the log, the snapshots and the identity file read or write goes
//! through here; nothing in this module retries a failed operation or hides its error.

mod disk;
pub mod fault;

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;

pub use disk::Disk;

/// Name and size of one file in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// File name without its directory; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// A directory tree with explicit durability: nothing survives a power cut before a sync.
pub trait Files: Send + Sync + Debug {
    /// Creates a directory and its parents; an existing one is fine.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Creates a new empty file for reading and writing; `AlreadyExists` when there is one.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens an existing file for reading only.
    fn open_read(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Renames a file inside one directory, replacing an existing target.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Plain files of a directory, sorted by name.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
    /// Makes creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Whole content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        read_all(&*self.open_read(path)?)
    }

    /// Replaces a file so that a crash leaves the old or the new content, never a mixture:
    /// written beside as `<name>.tmp`, synced, renamed, directory synced.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            let text = format!("{} is not a file in a directory", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        let mut beside = name.to_os_string();
        beside.push(".tmp");
        let beside = dir.join(beside);
        match self.remove(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = self.create(&beside)?;
        file.write_all_at(bytes, 0)?;
        file.sync_data()?;
        self.rename(&beside, path)?;
        self.sync_dir(dir)
    }
}

/// An open file, addressed by offset so that one handle serves readers and the writer.
pub trait File: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at or behind the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at `offset`, growing the file when needed. On an error any part of them
    /// may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes everything written so far durable, including the length, not the file's name.
    fn sync_data(&self) -> io::Result<()>;
    /// Length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeroes) to a length.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;
    /// Says that these bytes, written and synced, will hardly be read again, so that the system
    /// need not keep them in memory. Changes nothing that can be read or lost.
    fn release(&self, from: u64, to: u64) -> io::Result<()>;
}

/// Fills the whole buffer from `offset` on; `UnexpectedEof` when the file ends before.
pub fn read_exact_at(file: &dyn File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads a file from its first to its last byte.
pub fn read_all(file: &dyn File) -> io::Result<Vec<u8>> {
    let bytes = usize::try_from(file.bytes()?)
        .map_err(|_| io::Error::new(io::ErrorKind::FileTooLarge, "file does not fit in memory"))?;
    let mut content = Vec::new();
    content.try_reserve_exact(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    content.resize(bytes, 0);
    read_exact_at(file, &mut content, 0)?;
    Ok(content)
}
