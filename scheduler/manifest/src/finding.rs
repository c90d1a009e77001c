//! What a reader has to say about a manifest: faults, notes, and the paths they are about.
//!
//! **Invariant:** nothing from the file reaches a message with control characters in it, and neither the
//! number of messages nor their length follows from the size of the file.

use crate::text::printable_line;
use std::collections::BTreeSet;
use std::fmt;

/// Most faults told of one manifest: who has more starts with these.
const FAULTS_MAX: usize = 200;
/// Most notes told of one manifest.
const NOTES_MAX: usize = 500;
/// Longest path shown, in bytes: keys come from the file.
const PATH_BYTES_MAX: usize = 400;
/// Longest key shown in a path, in bytes: a path is made for every finding, those left off too.
const KEY_BYTES_MAX: usize = 160;
/// Longest piece of the file that a message repeats.
const QUOTE_CHARS_MAX: usize = 60;

/// Something in a manifest that cannot be taken as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, thiserror::Error)]
pub struct Fault {
    /// Where, for example `spec.workerGroupSpecs[0].replicas`; empty = the text as a whole.
    pub path: String,
    /// What is wrong, with limit and value.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.path, &self.problem)
    }
}

/// A field that was read but steers nothing, or was read in a way worth knowing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Note {
    /// Where.
    pub path: String,
    /// What was made of it, and why.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.path, &self.text)
    }
}

fn show(f: &mut fmt::Formatter<'_>, path: &str, text: &str) -> fmt::Result {
    if path.is_empty() { f.write_str(text) } else { write!(f, "{path}: {text}") }
}

/// A place in a manifest.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct At(String);

impl At {
    /// The text as a whole.
    pub(crate) fn root() -> Self {
        Self::default()
    }

    /// A path as it is written.
    pub(crate) fn of(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// A field of this place; keys that are no plain words are put in brackets and quotes.
    pub(crate) fn field(&self, key: &str) -> Self {
        let plain = !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if !plain || key.len() > KEY_BYTES_MAX {
            let key = printable_line(&shorten(key, KEY_BYTES_MAX));
            return Self(format!("{}[\"{key}\"]", self.0));
        }
        if self.0.is_empty() { Self(key.to_owned()) } else { Self(format!("{}.{key}", self.0)) }
    }

    /// Several fields down.
    pub(crate) fn down(&self, keys: &[&str]) -> Self {
        keys.iter().fold(self.clone(), |at, key| at.field(key))
    }

    /// An element of this list.
    pub(crate) fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Whether this place is `other` or lies inside it.
    fn is_within(&self, other: &str) -> bool {
        self.0
            .strip_prefix(other)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }

    /// The place in words, not too long.
    pub(crate) fn shown(&self) -> String {
        shorten(&self.0, PATH_BYTES_MAX)
    }
}

fn shorten(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// A piece of the file, safe to show and not too long.
pub(crate) fn quote(text: &str) -> String {
    let text = printable_line(text);
    if text.chars().count() <= QUOTE_CHARS_MAX {
        return format!("`{text}`");
    }
    format!("`{}...`", text.chars().take(QUOTE_CHARS_MAX).collect::<String>())
}

/// Faults and notes found so far.
#[derive(Default, Debug)]
pub(crate) struct Findings {
    faults: Vec<Fault>,
    faults_left_off: usize,
    notes: Vec<Note>,
    notes_left_off: usize,
    /// Places whose value could not be read: what follows from them is no fault of its own.
    unread: BTreeSet<String>,
}

impl Findings {
    /// Adds a fault, unless it only follows from a value that could not be read.
    pub(crate) fn fault(&mut self, at: &At, problem: impl Into<String>) {
        if self.unread.iter().any(|other| at.is_within(other)) {
            return;
        }
        if self.faults.len() >= FAULTS_MAX {
            self.faults_left_off += 1;
            return;
        }
        self.faults.push(Fault { path: at.shown(), problem: problem.into() });
    }

    /// Adds the fault of a value that could not be read at all.
    pub(crate) fn unread(&mut self, at: &At, problem: impl Into<String>) {
        self.fault(at, problem);
        if self.unread.len() < FAULTS_MAX {
            self.unread.insert(at.0.clone());
        }
    }

    /// Adds a note.
    pub(crate) fn note(&mut self, at: &At, text: impl Into<String>) {
        if self.notes.len() >= NOTES_MAX {
            self.notes_left_off += 1;
            return;
        }
        self.notes.push(Note { path: at.shown(), text: text.into() });
    }

    /// The value with its notes, or the faults.
    pub(crate) fn finish<T>(mut self, value: T) -> Result<(T, Vec<Note>), Vec<Fault>> {
        if self.faults.is_empty() {
            if self.notes_left_off > 0 {
                let text = format!("{} more notes left off", self.notes_left_off);
                self.notes.push(Note { path: String::new(), text });
            }
            return Ok((value, self.notes));
        }
        if self.faults_left_off > 0 {
            let problem = format!("{} more faults left off", self.faults_left_off);
            self.faults.push(Fault { path: String::new(), problem });
        }
        Err(self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let spec = At::root().field("spec");
        assert_eq!(spec.field("workers").index(2).field("a-b").0, "spec.workers[2].a-b");
        assert_eq!(spec.field("x.io/y").0, "spec[\"x.io/y\"]");
        assert_eq!(spec.field("a\nb").0, "spec[\"a\\nb\"]");
        assert!(spec.field("a").is_within("spec") && spec.is_within("spec"));
        assert!(!At::root().field("specs").is_within("spec"));
    }

    #[test]
    fn messages_are_bounded_and_what_follows_from_a_fault_is_left_out() {
        let mut findings = Findings::default();
        let at = At::root().field("a");
        findings.unread(&at, "must be a list");
        findings.fault(&at.field("b"), "missing");
        for _ in 0..10_000 {
            findings.fault(&At::root().field(&"k".repeat(5_000)), "unknown");
            findings.note(&at, "n");
        }
        assert!(findings.notes.len() <= NOTES_MAX);
        let faults = findings.finish(()).expect_err("faults");
        assert_eq!(faults.len(), FAULTS_MAX + 1);
        assert_eq!(faults[0].to_string(), "a: must be a list");
        assert!(faults[1].path.len() <= PATH_BYTES_MAX + 3);
        assert!(faults[FAULTS_MAX].problem.contains("more faults"));
    }
}
