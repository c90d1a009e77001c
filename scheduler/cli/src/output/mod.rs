//! Where answers go: data to stdout in the format asked for, chatter to stderr.
//!
//! **Invariant:** nothing but data is ever written to stdout.

pub mod table;
pub mod text;

use crate::exit::Failure;
use clap::ValueEnum;
use serde::Serialize;
use std::io::{self, ErrorKind, IsTerminal, Write};
use table::Table;

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// What a manifest was understood as, as a native job file; only for `plan`, which then asks no server.
    Native,
}

/// An answer that can be shown.
pub trait Answer: Serialize {
    /// Tables for people; `wide` asks for more columns.
    fn tables(&self, wide: bool) -> Vec<Table>;
}

/// Writes answers and chatter.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// How answers are written.
    pub format: Format,
    /// Whether stderr may carry colour and moving bars.
    pub lively: bool,
}

impl Output {
    /// Bars and colour only on a terminal, and not with `--no-color` or NO_COLOR.
    pub fn new(format: Format, no_color: bool) -> Self {
        let wanted = !no_color && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { format, lively: wanted && io::stderr().is_terminal() }
    }

    /// Writes an answer to stdout.
    pub fn show(&self, answer: &impl Answer) -> Result<(), Failure> {
        print(&render(self.format, answer)?)
    }

    /// Writes one answer of several in a row: one line of JSON, one YAML document, or a table line.
    pub fn show_next(&self, answer: &impl Answer, line: &str) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => print(&format!("{}\n", text::printable_line(line))),
            Format::Json => print(&format!("{}\n", json(answer, false)?)),
            Format::Yaml | Format::Native => print(&format!("---\n{}", yaml(answer)?)),
        }
    }

    /// Says something to the person on stderr.
    pub fn say(&self, line: &str) {
        eprintln!("{}", text::printable_line(line));
    }

    /// Suggests the next command, only where people read.
    pub fn suggest(&self, command: &str) {
        if matches!(self.format, Format::Table | Format::Wide) {
            self.say(&format!("next: {command}"));
        }
    }
}

/// The answer as text.
pub fn render(format: Format, answer: &impl Answer) -> Result<String, Failure> {
    match format {
        Format::Table | Format::Wide => {
            let tables = answer.tables(format == Format::Wide);
            Ok(tables.iter().map(Table::render).collect::<Vec<_>>().join("\n"))
        }
        Format::Json => Ok(json(answer, true)? + "\n"),
        Format::Yaml | Format::Native => yaml(answer),
    }
}

fn json(answer: &impl Serialize, pretty: bool) -> Result<String, Failure> {
    let text =
        if pretty { serde_json::to_string_pretty(answer) } else { serde_json::to_string(answer) };
    text.map_err(|error| Failure::refused(format!("cannot write JSON: {error}")))
}

fn yaml(answer: &impl Serialize) -> Result<String, Failure> {
    serde_saphyr::to_string(answer)
        .map_err(|error| Failure::refused(format!("cannot write YAML: {error}")))
}

/// Writes to stdout; a reader that went away (`| head`) is no fault.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
