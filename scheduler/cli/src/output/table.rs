//! Tables without borders, in the look of `kubectl`.
//!
//! **Invariant:** every cell is escaped; the layout depends on the contents alone, never on the terminal.

use super::text::printable_line;
use comfy_table::{CellAlignment, ContentArrangement, TableStyle};

/// Rows under a header; the last lines may be notes.
#[derive(Clone, Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
    title: Option<String>,
    note: Option<String>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    name: &'static str,
    right: bool,
}

impl Table {
    /// A table with columns; a name that starts with `>` is set to the right.
    pub fn new(columns: &[&'static str]) -> Self {
        let columns = columns
            .iter()
            .map(|name| match name.strip_prefix('>') {
                Some(name) => Column { name, right: true },
                None => Column { name, right: false },
            })
            .collect();
        Self { columns, ..Self::default() }
    }

    /// A table of names and values without a header.
    pub fn fields() -> Self {
        Self::default()
    }

    /// A line above the table.
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// A line below the table.
    pub fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds a name and its value.
    pub fn field(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push(vec![name.to_owned(), value.into()]);
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, with a line break at the end of every line.
    pub fn render(&self) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_style(TableStyle::new())
            .set_content_arrangement(ContentArrangement::Disabled)
            .force_no_tty();
        if !self.columns.is_empty() {
            table.set_header(self.columns.iter().map(|c| c.name).collect::<Vec<_>>());
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| printable_line(cell)).collect::<Vec<_>>());
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            if self.columns.get(index).is_some_and(|c| c.right) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        if let Some(title) = &self.title {
            text.push_str(&printable_line(title));
            text.push('\n');
        }
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if let Some(note) = &self.note {
            text.push_str(&printable_line(note));
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_are_escaped() {
        let mut table = Table::new(&["NAME", ">GPUS"]);
        table.row(vec!["a-long-name".into(), "8".into()]);
        table.row(vec!["x\n".into(), "12,000".into()]);
        assert_eq!(
            table.render(),
            "NAME           GPUS\na-long-name       8\nx\\n          12,000\n"
        );
    }

    #[test]
    fn fields_have_no_header() {
        let mut table = Table::fields().titled("Job 7");
        table.field("Phase", "READY");
        table.field("GPUs", "8");
        assert_eq!(table.render(), "Job 7\nPhase  READY\nGPUs   8\n");
    }
}
