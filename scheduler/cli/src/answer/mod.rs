//! What the commands print: one serde type per answer, with names that stay.
//!
//! **Invariant:** field names and enum words are part of the interface; they change only by addition.

pub mod capacity;
pub mod explain;
pub mod job;
pub mod node;
pub mod plan;
pub mod quorum;
pub mod store;
pub mod tenant;
pub mod version;

use crate::output::Answer;
use crate::output::table::Table;
use serde::Serialize;

/// The word of an enum value: `JOB_PHASE_READY` without its type's name.
fn word(full: &str, prefix: &str) -> String {
    full.strip_prefix(prefix).unwrap_or(full).to_owned()
}

/// Several answers of one kind; `next_page_token` is there when the list was cut.
#[derive(Clone, Debug, Serialize)]
pub struct List<T> {
    /// The answers.
    pub items: Vec<T>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// Something that can stand in a row of a list.
pub trait Listed: Serialize {
    /// Columns; see `Table::new`.
    fn columns(wide: bool) -> &'static [&'static str];
    /// The cells of its row.
    fn cells(&self, wide: bool) -> Vec<String>;
}

impl<T: Listed> Answer for List<T> {
    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut table = Table::new(T::columns(wide));
        for item in &self.items {
            table.row(item.cells(wide));
        }
        vec![table]
    }
}

/// An answer that is one sentence for people and a few fields for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// What was done.
    pub done: String,
}

impl Done {
    /// The sentence.
    pub fn new(done: impl Into<String>) -> Self {
        Self { done: done.into() }
    }
}

impl Answer for Done {
    fn tables(&self, _wide: bool) -> Vec<Table> {
        vec![Table::fields().titled(&self.done)]
    }
}

/// `-` for nothing.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}
