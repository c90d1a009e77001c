//! The bytes of one snapshot file.
//!
//! ```text
//! "MUSTSNAP" | version u32 | head length u32 | crc32c(head) u32 | head
//! block*: length u32 | crc32c(number u64, body) u32 | body = (row length u32 | row)*
//! foot:   0xffffffff | length u32 | crc32c(number u64, body) u32 | body
//! ```
//! Numbers are little-endian. A block's checksum covers its place, so that blocks can neither be
//! swapped nor doubled; the foot counts rows and blocks and carries the state's hash.
//!
//! **Invariant:** nothing read from a file is believed before its checksum was; lengths are
//! bounded before memory is taken.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use scheduler_core::state::{Frozen, Row, State};

use crate::codec::snapshot::{Foot, Head};
use crate::codec::{CodecError, row, snapshot};
use crate::error::{Repair, StoreError};
use crate::files::{File, read_exact_at};

const MAGIC: &[u8; 8] = b"MUSTSNAP";
const VERSION: u32 = 1;
const FIXED_BYTES: usize = 20;
/// Length that marks the foot.
const FOOT_MARK: u32 = u32::MAX;
/// A head holds addresses of a few servers.
const HEAD_BYTES_MAX: u32 = 1024 * 1024;
/// Blocks are closed at this size: one write and one checksum each.
const BLOCK_BYTES: usize = 256 * 1024;
/// A block may exceed its usual size by one large row, but not by more than this.
const BLOCK_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// A complete snapshot file, open for reading: it stays readable after a newer one took its
/// place in the directory.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) bytes: u64,
    pub(crate) head: Head,
    pub(crate) foot: Foot,
    /// Removes the file when it never got its final name.
    pub(super) temporary: Option<Arc<super::store::Temporary>>,
    /// The state of the rows, when it has been made already.
    pub(crate) loaded: Arc<Mutex<Option<State>>>,
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.bytes)
    }
}

/// Writes a snapshot file front to back.
pub(crate) struct Writer {
    file: Arc<dyn File>,
    at: u64,
    block: Vec<u8>,
    foot: Foot,
}

impl Writer {
    pub(crate) fn begin(file: Arc<dyn File>, head: &Head) -> io::Result<Self> {
        let body = snapshot::encode_head(head).map_err(unencodable)?;
        let mut bytes = Vec::with_capacity(FIXED_BYTES + body.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&length(body.len(), HEAD_BYTES_MAX)?.to_le_bytes());
        bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        file.write_all_at(&bytes, 0)?;
        let block = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4);
        Ok(Self { file, at: bytes.len() as u64, block, foot: Foot::default() })
    }

    pub(crate) fn rows(&mut self, frozen: &Frozen) -> io::Result<()> {
        for row in frozen.rows() {
            let bytes = row::encode_row(&row).map_err(unencodable)?;
            self.block.extend_from_slice(&length(bytes.len(), BLOCK_BYTES_MAX)?.to_le_bytes());
            self.block.extend_from_slice(&bytes);
            self.foot.rows += 1;
            if self.block.len() >= BLOCK_BYTES {
                self.close_block()?;
            }
        }
        Ok(())
    }

    /// Closes and syncs the file; its size and foot.
    pub(crate) fn finish(mut self, state_hash: u128) -> io::Result<(u64, Foot)> {
        if !self.block.is_empty() {
            self.close_block()?;
        }
        self.foot.state_hash = state_hash;
        let body = snapshot::encode_foot(&self.foot).map_err(unencodable)?;
        let mut bytes = FOOT_MARK.to_le_bytes().to_vec();
        bytes.extend_from_slice(&length(body.len(), BLOCK_BYTES_MAX)?.to_le_bytes());
        bytes.extend_from_slice(&checksum(self.foot.blocks, &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        self.put(&bytes)?;
        self.file.sync_data()?;
        Ok((self.at, self.foot))
    }

    fn close_block(&mut self) -> io::Result<()> {
        let body = std::mem::take(&mut self.block);
        let mut bytes = Vec::with_capacity(body.len() + 8);
        bytes.extend_from_slice(&length(body.len(), BLOCK_BYTES_MAX)?.to_le_bytes());
        bytes.extend_from_slice(&checksum(self.foot.blocks, &body).to_le_bytes());
        bytes.extend_from_slice(&body);
        self.put(&bytes)?;
        self.foot.blocks += 1;
        self.block = body;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        Ok(())
    }
}

impl SnapshotFile {
    /// Opens a file and verifies every byte of it.
    pub(crate) fn open(path: &Path, file: Arc<dyn File>) -> Result<Self, StoreError> {
        let bytes = file.bytes().map_err(|error| StoreError::io("measure", path, error))?;
        let mut reader = Reader { path, file: &*file, at: 0, end: bytes, blocks: 0 };
        let head = reader.head()?;
        let mut rows = 0;
        let foot = loop {
            match reader.next()? {
                Part::Block(body) => {
                    rows += row_slices(&body, |_| Ok(())).map_err(|why| reader.fault(why))?
                }
                Part::Foot(foot) => break foot,
            }
        };
        if (foot.rows, foot.blocks) != (rows, reader.blocks) {
            let (blocks, found) = (reader.blocks, foot);
            let why = format!(
                "{rows} rows in {blocks} blocks where the foot says {} in {}",
                found.rows, found.blocks
            );
            return Err(reader.fault(why));
        }
        if reader.at != bytes {
            return Err(reader.fault(format!("{} bytes behind the foot", bytes - reader.at)));
        }
        Ok(Self {
            path: path.to_path_buf(),
            file,
            bytes,
            head,
            foot,
            temporary: None,
            loaded: Arc::default(),
        })
    }

    /// Calls `visit` with each row's bytes, in order.
    pub(crate) fn visit_rows(
        &self,
        mut visit: impl FnMut(&[u8]) -> Result<(), CodecError>,
    ) -> Result<(), StoreError> {
        let mut reader =
            Reader { path: &self.path, file: &*self.file, at: 0, end: self.bytes, blocks: 0 };
        reader.head()?;
        while let Part::Block(body) = reader.next()? {
            row_slices(&body, &mut visit).map_err(|why| reader.fault(why))?;
        }
        Ok(())
    }

    /// Makes the state of the rows and proves that it is the one the snapshot was taken of.
    pub(crate) fn load(&self) -> Result<State, StoreError> {
        let mut rows: Vec<Row> = Vec::with_capacity(usize::try_from(self.foot.rows).unwrap_or(0));
        self.visit_rows(|bytes| {
            rows.push(row::row(bytes)?);
            Ok(())
        })?;
        let state = State::from_rows(rows.into_iter()).map_err(|error| self.fault(error))?;
        let hash = state.hash();
        if hash != self.foot.state_hash {
            let wanted = self.foot.state_hash;
            return Err(self.fault(format!("state hash {hash:032x}, the foot says {wanted:032x}")));
        }
        Ok(state)
    }

    /// The state made before, or now.
    pub(crate) fn take_state(&self) -> Result<State, StoreError> {
        match self.loaded.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(state) => Ok(state),
            None => self.load(),
        }
    }

    fn fault(&self, what: impl ToString) -> StoreError {
        StoreError::corrupt(&self.path, 0, what.to_string(), Repair::Rebuild)
    }
}

enum Part {
    Block(Vec<u8>),
    Foot(Foot),
}

struct Reader<'a> {
    path: &'a Path,
    file: &'a dyn File,
    at: u64,
    end: u64,
    blocks: u64,
}

impl Reader<'_> {
    fn head(&mut self) -> Result<Head, StoreError> {
        let fixed: [u8; FIXED_BYTES] = self.array("head")?;
        if &fixed[..8] != MAGIC {
            return Err(self.fault("not a snapshot file"));
        }
        let found = number(&fixed, 8);
        if found != VERSION {
            let path = self.path.to_path_buf();
            return Err(StoreError::Format { path, found, supported: VERSION });
        }
        let body = self.body("head", number(&fixed, 12), HEAD_BYTES_MAX)?;
        if crc32c::crc32c(&body) != number(&fixed, 16) {
            return Err(self.fault("the head's checksum is wrong"));
        }
        snapshot::head(&body).map_err(|error| self.fault(error))
    }

    fn next(&mut self) -> Result<Part, StoreError> {
        let fixed: [u8; 8] = self.array("block")?;
        if number(&fixed, 0) != FOOT_MARK {
            let body = self.body("block", number(&fixed, 0), BLOCK_BYTES_MAX)?;
            if checksum(self.blocks, &body) != number(&fixed, 4) {
                return Err(self.fault(format!("the checksum of block {} is wrong", self.blocks)));
            }
            self.blocks += 1;
            return Ok(Part::Block(body));
        }
        let crc: [u8; 4] = self.array("foot")?;
        let body = self.body("foot", number(&fixed, 4), HEAD_BYTES_MAX)?;
        if checksum(self.blocks, &body) != u32::from_le_bytes(crc) {
            return Err(self.fault("the foot's checksum is wrong"));
        }
        snapshot::foot(&body).map(Part::Foot).map_err(|error| self.fault(error))
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], StoreError> {
        let mut bytes = [0; N];
        self.fill(what, &mut bytes)?;
        Ok(bytes)
    }

    fn body(&mut self, what: &str, length: u32, length_max: u32) -> Result<Vec<u8>, StoreError> {
        if length > length_max || u64::from(length) > self.end - self.at {
            return Err(self.fault(format!("a {what} of {length} bytes cannot be")));
        }
        let mut bytes = vec![0; length as usize];
        self.fill(what, &mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, what: &str, bytes: &mut [u8]) -> Result<(), StoreError> {
        if bytes.len() as u64 > self.end - self.at {
            return Err(self.fault(format!("the file ends inside a {what}")));
        }
        read_exact_at(self.file, bytes, self.at)
            .map_err(|error| StoreError::io("read", self.path, error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn fault(&self, what: impl ToString) -> StoreError {
        StoreError::corrupt(self.path, self.at, what.to_string(), Repair::Rebuild)
    }
}

/// Cuts a block into its rows and counts them.
fn row_slices(
    mut body: &[u8],
    mut visit: impl FnMut(&[u8]) -> Result<(), CodecError>,
) -> Result<u64, String> {
    let mut rows = 0;
    while let Some((length, rest)) = body.split_first_chunk::<4>() {
        let Some((row, rest)) = rest.split_at_checked(u32::from_le_bytes(*length) as usize) else {
            return Err("a row is cut short".to_owned());
        };
        visit(row).map_err(|error| error.to_string())?;
        rows += 1;
        body = rest;
    }
    match body.len() {
        0 => Ok(rows),
        left => Err(format!("{left} bytes behind the last row of a block")),
    }
}

fn checksum(number: u64, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), body)
}

fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |four| u32::from_le_bytes(*four))
}

fn length(length: usize, length_max: u32) -> io::Result<u32> {
    match u32::try_from(length) {
        Ok(length) if length <= length_max => Ok(length),
        _ => {
            let text = format!("{length} bytes in one piece, the limit is {length_max}");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
    }
}

fn unencodable(error: CodecError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}
