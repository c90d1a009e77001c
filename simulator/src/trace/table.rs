//! Tables with named columns, packed or not, and the errors that name row and column.
//!
//! **Invariant:** a value that cannot be read is an error, never a default.

use flate2::read::MultiGzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Why a trace could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error("{dir} cannot be read: {source}", dir = dir.display())]
    Folder { dir: PathBuf, source: std::io::Error },
    #[error("{dir} holds no file {wanted}; {found}", dir = dir.display())]
    Missing { dir: PathBuf, wanted: String, found: String },
    #[error("{file} cannot be read: {source}", file = file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("{file}, line {line}: {source}", file = file.display())]
    Row { file: PathBuf, line: u64, source: csv::Error },
    #[error("{file} has no column {column:?}", file = file.display())]
    Column { file: PathBuf, column: &'static str },
    #[error("{file}, line {line}, column {column:?}: {value:?} {what}", file = file.display())]
    Value { file: PathBuf, line: u64, column: &'static str, value: String, what: String },
    #[error("{file} has no rows", file = file.display())]
    Empty { file: PathBuf },
}

/// Rows of one file.
pub(super) struct Table {
    file: PathBuf,
    columns: BTreeMap<String, usize>,
    reader: csv::Reader<Box<dyn Read>>,
}

/// One row.
pub(super) struct Row<'a> {
    table: &'a Path,
    columns: &'a BTreeMap<String, usize>,
    record: csv::StringRecord,
    line: u64,
}

impl Table {
    /// Opens a file; one that ends in `.gz` is unpacked.
    pub(super) fn open(file: &Path) -> Result<Self, TraceError> {
        let failed = |source| TraceError::File { file: file.to_owned(), source };
        let opened = BufReader::new(File::open(file).map_err(failed)?);
        let packed = file.extension().is_some_and(|ending| ending == "gz");
        let read: Box<dyn Read> =
            if packed { Box::new(MultiGzDecoder::new(opened)) } else { Box::new(opened) };
        let mut reader = csv::Reader::from_reader(read);
        let headers = reader.headers().map_err(|source| TraceError::Row {
            file: file.to_owned(),
            line: 1,
            source,
        })?;
        let columns = headers.iter().enumerate().map(|(at, name)| (name.to_owned(), at)).collect();
        Ok(Self { file: file.to_owned(), columns, reader })
    }

    /// Makes something of every row, in order.
    pub(super) fn rows<T>(
        mut self,
        make: impl Fn(&Row<'_>) -> Result<T, TraceError>,
    ) -> Result<Vec<T>, TraceError> {
        let mut made = Vec::new();
        let mut record = csv::StringRecord::new();
        loop {
            let line = self.reader.position().line();
            let more = self.reader.read_record(&mut record).map_err(|source| {
                let line = source.position().map_or(line, csv::Position::line);
                TraceError::Row { file: self.file.clone(), line, source }
            })?;
            if !more {
                break;
            }
            let line = record.position().map_or(line, csv::Position::line);
            let record = std::mem::take(&mut record);
            let row = Row { table: &self.file, columns: &self.columns, record, line };
            made.push(make(&row)?);
        }
        if made.is_empty() { Err(TraceError::Empty { file: self.file }) } else { Ok(made) }
    }
}

impl Row<'_> {
    /// The text of a column, or `None` if the file has no such column.
    pub(super) fn maybe(&self, column: &str) -> Option<&str> {
        self.columns.get(column).and_then(|&at| self.record.get(at)).map(str::trim)
    }

    pub(super) fn text(&self, column: &'static str) -> Result<&str, TraceError> {
        self.maybe(column).ok_or_else(|| TraceError::Column { file: self.table.to_owned(), column })
    }

    /// A whole number up to `max`.
    pub(super) fn number(&self, column: &'static str, max: u64) -> Result<u64, TraceError> {
        let text = self.text(column)?;
        match text.parse::<u64>() {
            Ok(number) if number <= max => Ok(number),
            Ok(_) => Err(self.bad(column, text, format!("is over {max}"))),
            Err(_) => Err(self.bad(column, text, "is not a whole number".to_owned())),
        }
    }

    /// A number that may have a fraction of zero, as spreadsheets write them.
    pub(super) fn whole(&self, column: &'static str, max: u64) -> Result<u64, TraceError> {
        let text = self.text(column)?;
        match text.parse::<f64>() {
            Ok(number) if number.fract() == 0.0 && number >= 0.0 && number <= max as f64 => {
                Ok(number as u64)
            }
            _ => Err(self.bad(column, text, format!("is not a whole number up to {max}"))),
        }
    }

    /// Thousandths of a number up to `max`, rounded down.
    pub(super) fn thousandths(&self, column: &'static str, max: u64) -> Result<u64, TraceError> {
        let text = self.text(column)?;
        match text.parse::<f64>() {
            Ok(number) if number >= 0.0 && number <= max as f64 => Ok((number * 1000.0) as u64),
            _ => Err(self.bad(column, text, format!("is not a number up to {max}"))),
        }
    }

    /// A whole number, or `None` where the column is missing or empty.
    pub(super) fn maybe_number(&self, column: &'static str) -> Result<Option<u64>, TraceError> {
        match self.maybe(column) {
            None | Some("") => Ok(None),
            Some(_) => self.number(column, u64::MAX).map(Some),
        }
    }

    pub(super) fn bad(&self, column: &'static str, value: &str, what: String) -> TraceError {
        let (file, value) = (self.table.to_owned(), value.to_owned());
        TraceError::Value { file, line: self.line, column, value, what }
    }
}
