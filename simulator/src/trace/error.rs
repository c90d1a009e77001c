//! Why a file of a trace cannot be used, and what becomes of its bad rows.
//!
//! **Invariant:** an error about a row names file and line, and column and value where there is
//! one; only such errors can be passed over, never one about the file as a whole.

use std::path::{Path, PathBuf};

/// Bad rows that are kept word for word when bad rows are passed over; the others are counted.
const SAMPLES_MAX: usize = 10;
/// Characters of a bad value that are shown.
const VALUE_SHOWN_MAX: usize = 80;

/// Why a trace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{dir} cannot be read: {source}", dir = dir.display())]
    Folder { dir: PathBuf, source: std::io::Error },
    #[error("{dir} holds no file {wanted}; {found}", dir = dir.display())]
    Missing { dir: PathBuf, wanted: String, found: String },
    #[error("{file} cannot be read: {source}", file = file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("{file}, line {line}: {what}", file = file.display())]
    Row { file: PathBuf, line: u64, what: String },
    #[error("{file} has no column {column:?}", file = file.display())]
    Column { file: PathBuf, column: String },
    #[error("{file}, line {line}, column {column:?}: {value:?} {what}", file = file.display())]
    Value { file: PathBuf, line: u64, column: String, value: String, what: String },
    #[error("{file} has no rows", file = file.display())]
    Empty { file: PathBuf },
    #[error("{file} has no good row; the first of {bad} bad ones: {first}", file = file.display())]
    NoGoodRow { file: PathBuf, bad: u64, first: String },
    #[error("{file} {what}", file = file.display())]
    Form { file: PathBuf, what: String },
}

impl TraceError {
    pub(super) fn value(file: &Path, line: u64, column: &str, value: &str, what: String) -> Self {
        let mut shown: String = value.chars().take(VALUE_SHOWN_MAX).collect();
        if shown.len() < value.len() {
            shown.push('…');
        }
        let (file, column) = (file.to_owned(), column.to_owned());
        Self::Value { file, line, column, value: shown, what }
    }

    fn is_of_one_row(&self) -> bool {
        matches!(self, Self::Row { .. } | Self::Value { .. })
    }
}

/// What becomes of bad rows, and those met so far.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BadRows {
    skip: bool,
    /// Rows passed over.
    pub skipped: u64,
    /// What was wrong with the first of them; at most ten.
    pub first: Vec<String>,
}

impl BadRows {
    /// The first bad row ends the reading.
    pub fn refuse() -> Self {
        Self::default()
    }

    /// Bad rows are counted and passed over.
    pub fn skip() -> Self {
        Self { skip: true, ..Self::default() }
    }

    /// Reads one of several files: what is bad in the others is not held against it.
    pub fn apart<T, E>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let mut own = Self { skip: self.skip, ..Self::default() };
        let result = read(&mut own);
        self.skipped += own.skipped;
        let room = SAMPLES_MAX.saturating_sub(self.first.len());
        self.first.extend(own.first.into_iter().take(room));
        result
    }

    /// `None` = a bad row, counted.
    pub(super) fn take<T>(&mut self, row: Result<T, TraceError>) -> Result<Option<T>, TraceError> {
        match row {
            Ok(row) => Ok(Some(row)),
            Err(error) if self.skip && error.is_of_one_row() => {
                self.skipped += 1;
                if self.first.len() < SAMPLES_MAX {
                    self.first.push(error.to_string());
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What to say of a file without a good row.
    pub(super) fn nothing(&self, file: &Path) -> TraceError {
        let file = file.to_owned();
        match self.first.first() {
            Some(first) => TraceError::NoGoodRow { file, bad: self.skipped, first: first.clone() },
            None => TraceError::Empty { file },
        }
    }
}
