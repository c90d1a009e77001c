//! Lines of a file, packed with gzip or not, in bounded memory.
//!
//! **Invariant:** no more than [`LINE_BYTES_MAX`] bytes of the file are held at a time, whatever it
//! holds and however little of it packs how much.

use super::error::TraceError;
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};

/// Longest line in bytes: a square of round trips between 4,096 sites has lines of 40 KiB, a recorded
/// job with all lists full some hundreds.
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Most rows of one file: five times the largest replay that the simulator is built for, about a
/// gigabyte of jobs.
pub const ROWS_MAX: u64 = 5_000_000;
/// Most bytes of one file, unpacked: sixteen times five million jobs in the fewest words.
pub const FILE_BYTES_MAX: u64 = 8 << 30;
/// How gzip files begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// How some programs begin texts.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Opens a file; one that begins as gzip files do is unpacked.
fn open(file: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut plain = BufReader::new(File::open(file)?);
    if plain.fill_buf()?.starts_with(&GZIP) {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(plain))))
    } else {
        Ok(Box::new(plain))
    }
}

/// Lines of one file, in order.
pub(super) struct Lines {
    pub(super) file: PathBuf,
    read: Box<dyn BufRead>,
    bytes: Vec<u8>,
    line: u64,
    bytes_read: u64,
    done: bool,
}

impl Lines {
    pub(super) fn open(file: &Path) -> Result<Self, TraceError> {
        let read =
            open(file).map_err(|source| TraceError::File { file: file.to_owned(), source })?;
        Ok(Self {
            file: file.to_owned(),
            read,
            bytes: Vec::new(),
            line: 0,
            bytes_read: 0,
            done: false,
        })
    }

    /// Number of the line last given; the first is 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next line that is not empty, without its end, and its number; `None` after the last. After an error about
    /// a row the next line follows.
    pub(super) fn next(&mut self) -> Result<Option<(u64, &str)>, TraceError> {
        loop {
            let fits = match self.fill() {
                Ok(fits) => fits,
                Err(source) => {
                    self.done = true;
                    return Err(TraceError::File { file: self.file.clone(), source });
                }
            };
            if self.done && self.bytes.is_empty() && fits {
                return Ok(None);
            }
            self.line += 1;
            if self.line > ROWS_MAX || self.bytes_read > FILE_BYTES_MAX {
                self.done = true;
                let what = format!("has over {ROWS_MAX} lines or {FILE_BYTES_MAX} bytes unpacked");
                return Err(TraceError::Form { file: self.file.clone(), what });
            }
            if !fits {
                return Err(self.bad(format!("is longer than {LINE_BYTES_MAX} bytes")));
            }
            if self.bytes.last() == Some(&b'\r') {
                self.bytes.pop();
            }
            if !self.bytes.is_empty() {
                break;
            }
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(text) if self.line == 1 => {
                Ok(Some((self.line, text.trim_start_matches(BYTE_ORDER_MARK))))
            }
            Ok(text) => Ok(Some((self.line, text))),
            Err(error) => {
                let what = format!("is not UTF-8 from byte {} on", error.valid_up_to() + 1);
                Err(self.bad(what))
            }
        }
    }

    #[cfg(test)]
    pub(super) fn bytes_held(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) fn bad(&self, what: String) -> TraceError {
        TraceError::Row { file: self.file.clone(), line: self.line, what }
    }

    /// Reads up to the end of a line. False = it was too long; its bytes are gone.
    fn fill(&mut self) -> std::io::Result<bool> {
        self.bytes.clear();
        let mut fits = true;
        while !self.done {
            let found = match self.read.fill_buf() {
                Ok(found) => found,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let end = found.iter().position(|&byte| byte == b'\n');
            let part = found.get(..end.unwrap_or(found.len())).unwrap_or_default();
            fits &= self.bytes.len() + part.len() <= LINE_BYTES_MAX;
            if fits {
                self.bytes.extend_from_slice(part);
            } else {
                self.bytes.clear();
            }
            self.done = found.is_empty();
            let used = end.map_or(part.len(), |end| end + 1);
            self.bytes_read = self.bytes_read.saturating_add(used as u64);
            self.read.consume(used);
            if end.is_some() {
                break;
            }
        }
        Ok(fits)
    }
}
