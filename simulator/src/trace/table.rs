//! Tables with named columns, packed or not.
//!
//! **Invariant:** a value that cannot be read is an error, never a default.

use super::error::{BadRows, TraceError};
use super::lines::Lines;
use csv_core::ReadRecordResult;
use scheduler_core::topology::SITES_MAX;
use scheduler_core::unit::{DurationMs, TimeMs};
use std::collections::BTreeMap;
use std::path::Path;

/// Most columns of a table: a square of all sites' round trips and their names.
const COLUMNS_MAX: usize = SITES_MAX + 1;
/// Latest second of a trace and longest duration: over a century, so that milliseconds and their
/// sums stay far inside a machine word.
pub(super) const SECONDS_MAX: u64 = 4_000_000_000;

/// Rows of one file.
pub(super) struct Table {
    lines: Lines,
    cells: Cells,
    header: Vec<String>,
    columns: BTreeMap<String, usize>,
}

/// Splits a line into cells (RFC 4180). A quoted cell ends on its line.
struct Cells {
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

/// One row.
pub(super) struct Row<'a> {
    file: &'a Path,
    columns: &'a BTreeMap<String, usize>,
    header: &'a [String],
    text: &'a [u8],
    ends: &'a [usize],
    line: u64,
}

impl Table {
    /// Opens a file and reads its header.
    pub(super) fn open(file: &Path) -> Result<Self, TraceError> {
        let mut lines = Lines::open(file)?;
        let mut cells =
            Cells { reader: csv_core::Reader::new(), text: Vec::new(), ends: vec![0; COLUMNS_MAX] };
        let mut header = Vec::new();
        if let Some((_, line)) = lines.next()? {
            let count = cells.split(line).map_err(|what| TraceError::Row {
                file: file.to_owned(),
                line: 1,
                what,
            })?;
            let ends = cells.ends.get(..count).unwrap_or_default();
            header = (0..count).map(|at| cell(&cells.text, ends, at).to_owned()).collect();
        }
        let columns = header.iter().enumerate().map(|(at, name)| (name.clone(), at)).collect();
        Ok(Self { lines, cells, header, columns })
    }

    /// Names of the columns.
    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.get(name).copied()
    }

    /// Makes something of every row, in order; at least of one.
    pub(super) fn rows<T>(
        mut self,
        bad: &mut BadRows,
        mut make: impl FnMut(&Row<'_>) -> Result<T, TraceError>,
    ) -> Result<Vec<T>, TraceError> {
        let mut made = Vec::new();
        loop {
            let row = match self.next() {
                Ok(None) => break,
                Ok(Some(row)) => make(&row),
                Err(error) => Err(error),
            };
            made.extend(bad.take(row)?);
        }
        if made.is_empty() { Err(bad.nothing(&self.lines.file)) } else { Ok(made) }
    }

    fn next(&mut self) -> Result<Option<Row<'_>>, TraceError> {
        let Some((line, text)) = self.lines.next()? else { return Ok(None) };
        let wanted = self.header.len();
        let count = match self.cells.split(text) {
            Ok(count) if count == wanted => count,
            Ok(count) => {
                return Err(self.lines.bad(format!("has {count} cells; the header has {wanted}")));
            }
            Err(what) => return Err(self.lines.bad(what)),
        };
        Ok(Some(Row {
            file: &self.lines.file,
            columns: &self.columns,
            header: &self.header,
            text: &self.cells.text,
            ends: self.cells.ends.get(..count).unwrap_or_default(),
            line,
        }))
    }
}

impl Cells {
    /// Number of cells of the line.
    fn split(&mut self, line: &str) -> Result<usize, String> {
        self.reader.reset();
        self.text.clear();
        self.text.resize(line.len() + 1, 0);
        let (mut texts, mut ends) = (0, 0);
        for part in [line.as_bytes(), b"\n"] {
            let text = self.text.get_mut(texts..).unwrap_or_default();
            let room = self.ends.get_mut(ends..).unwrap_or_default();
            let (result, read, wrote, ended) = self.reader.read_record(part, text, room);
            texts += wrote;
            ends += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record if part == b"\n" => return Ok(ends),
                ReadRecordResult::Record => {
                    return Err(format!("ends within itself, after byte {read}"));
                }
                _ => return Err(format!("has more than {COLUMNS_MAX} cells")),
            }
        }
        Err("has a quote that is not closed".to_owned())
    }
}

/// A cell without the blanks around it. Texts were UTF-8 before they were cut at commas.
fn cell<'a>(text: &'a [u8], ends: &[usize], at: usize) -> &'a str {
    let start = at.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0);
    let end = ends.get(at).copied().unwrap_or(start);
    let bytes = text.get(start..end).unwrap_or_default();
    std::str::from_utf8(bytes).unwrap_or_default().trim()
}

impl<'a> Row<'a> {
    /// The text of the cell with this number; empty past the last.
    pub(super) fn cell(&self, at: usize) -> &'a str {
        cell(self.text, self.ends, at)
    }

    /// The text of a column, or `None` if the file has no such column.
    pub(super) fn maybe(&self, column: &str) -> Option<&'a str> {
        self.columns.get(column).map(|&at| self.cell(at))
    }

    pub(super) fn text(&self, column: &str) -> Result<&'a str, TraceError> {
        self.maybe(column).ok_or_else(|| TraceError::Column {
            file: self.file.to_owned(),
            column: column.to_owned(),
        })
    }

    /// A text of 1 to 63 bytes without control characters: a name of something.
    pub(super) fn name(&self, column: &str) -> Result<&'a str, TraceError> {
        let text = self.text(column)?;
        match super::name_fault(text) {
            None => Ok(text),
            Some(what) => Err(self.bad(column, text, what)),
        }
    }

    /// A whole number up to `max`.
    pub(super) fn number(&self, column: &str, max: u64) -> Result<u64, TraceError> {
        let text = self.text(column)?;
        match text.parse::<u64>() {
            Ok(number) if number <= max => Ok(number),
            Ok(_) => Err(self.bad(column, text, format!("is over {max}"))),
            Err(_) => Err(self.bad(column, text, "is not a whole number".to_owned())),
        }
    }

    /// A whole number up to `max`, which must fit.
    pub(super) fn small(&self, column: &str, max: u32) -> Result<u32, TraceError> {
        self.number(column, u64::from(max)).map(|number| u32::try_from(number).unwrap_or(max))
    }

    /// A number that may have a fraction of zero, as spreadsheets write them.
    pub(super) fn whole(&self, column: &str, max: u64) -> Result<u64, TraceError> {
        let text = self.text(column)?;
        match text.parse::<f64>() {
            Ok(number) if number.fract() == 0.0 && number >= 0.0 && number <= max as f64 => {
                Ok(number as u64)
            }
            _ => Err(self.bad(column, text, format!("is not a whole number up to {max}"))),
        }
    }

    /// Thousandths of a number up to `max`, rounded down.
    pub(super) fn thousandths(&self, column: &str, max: u64) -> Result<u64, TraceError> {
        self.scaled(column, max, 1_000.0).map(|scaled| scaled as u64)
    }

    /// So many times a number up to `max`.
    pub(super) fn scaled(&self, column: &str, max: u64, by: f64) -> Result<f64, TraceError> {
        let text = self.text(column)?;
        match text.parse::<f64>() {
            Ok(number) if number >= 0.0 && number <= max as f64 => Ok(number * by),
            _ => Err(self.bad(column, text, format!("is not a number up to {max}"))),
        }
    }

    /// Whether the file has the column and the row something in it.
    pub(super) fn has(&self, column: &str) -> bool {
        self.maybe(column).is_some_and(|text| !text.is_empty())
    }

    /// Milliseconds of a cell in seconds, or `None` where the column is missing or empty.
    pub(super) fn maybe_ms(&self, column: &str) -> Result<Option<u64>, TraceError> {
        if !self.has(column) {
            return Ok(None);
        }
        self.scaled(column, SECONDS_MAX, 1_000.0).map(|ms| Some(ms.round() as u64))
    }

    /// A time in seconds from the trace's beginning, where it is told.
    pub(super) fn maybe_time(&self, column: &str) -> Result<Option<TimeMs>, TraceError> {
        Ok(self.maybe_ms(column)?.map(TimeMs))
    }

    /// A duration in seconds, where it is told; what took no time took a millisecond.
    pub(super) fn maybe_duration(&self, column: &str) -> Result<Option<DurationMs>, TraceError> {
        Ok(self.maybe_ms(column)?.map(|ms| DurationMs(ms.max(1))))
    }

    pub(super) fn bad(&self, column: &str, value: &str, what: String) -> TraceError {
        TraceError::value(self.file, self.line, column, value, what)
    }

    /// What is wrong with the cell of this number.
    pub(super) fn bad_cell(&self, at: usize, what: String) -> TraceError {
        let column = self.header.get(at).map_or("", String::as_str);
        TraceError::value(self.file, self.line, column, self.cell(at), what)
    }
}
