//! Tables of a report: for the terminal and for the page.
//!
//! **Invariant:** columns line up by letters; cells are escaped where they could be taken for
//! markup or for commands of the terminal.

use super::chart::escape;
use std::fmt::Write;

/// Rows under a header.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    pub title: String,
    /// A name that starts with `>` is set to the right.
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
    /// What the columns mean.
    pub note: String,
}

impl Table {
    pub fn new(title: &str, columns: &[&str], note: &str) -> Self {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        Self { title: title.to_owned(), columns, rows: Vec::new(), note: note.to_owned() }
    }

    /// As text, with a line break at the end of every line.
    pub fn text(&self) -> String {
        let cells = |row: &Vec<String>| -> Vec<String> {
            row.iter().map(|cell| cell.replace(char::is_control, " ")).collect()
        };
        let head: Vec<String> =
            self.columns.iter().map(|name| name.trim_start_matches('>').to_uppercase()).collect();
        let rows: Vec<Vec<String>> =
            std::iter::once(head).chain(self.rows.iter().map(cells)).collect();
        let width = |at: usize| {
            rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max()
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(|at| width(at).unwrap_or(0)).collect();
        let mut text = format!("{}\n", self.title);
        for row in &rows {
            let mut line = String::new();
            for ((cell, &width), column) in row.iter().zip(&widths).zip(&self.columns) {
                let _ = if column.starts_with('>') {
                    write!(line, "{cell:>width$}  ")
                } else {
                    write!(line, "{cell:<width$}  ")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        if !self.note.is_empty() {
            let _ = writeln!(text, "{}", self.note);
        }
        text
    }

    pub(super) fn html(&self) -> String {
        let class = |column: &str| if column.starts_with('>') { " class=\"n\"" } else { "" };
        let mut html = format!("<h2>{}</h2>\n<table><thead><tr>", escape(&self.title));
        for column in &self.columns {
            let name = escape(column.trim_start_matches('>'));
            let _ = write!(html, "<th{}>{name}</th>", class(column));
        }
        html.push_str("</tr></thead><tbody>\n");
        for row in &self.rows {
            html.push_str("<tr>");
            for (cell, column) in row.iter().zip(&self.columns) {
                let _ = write!(html, "<td{}>{}</td>", class(column), escape(cell));
            }
            html.push_str("</tr>\n");
        }
        let _ = writeln!(html, "</tbody></table>\n<p class=\"q\">{}</p>", escape(&self.note));
        html
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_are_escaped() {
        let mut table = Table::new("Runs", &["policy", ">wait s"], "a note");
        table.rows.push(vec!["best-fit".to_owned(), "7".to_owned()]);
        table.rows.push(vec!["<b>\u{1b}".to_owned(), "1,200".to_owned()]);
        assert_eq!(
            table.text(),
            "Runs\nPOLICY    WAIT S\nbest-fit       7\n<b>        1,200\na note\n"
        );
        let html = table.html();
        assert!(html.contains("<td>&lt;b&gt;\u{fffd}</td><td class=\"n\">1,200</td>"), "{html}");
    }
}
