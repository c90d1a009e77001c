//! Which trace is meant, as a command line says it, and how to read it.
//!
//! **Invariant:** whatever the format, jobs come out by rising time of submission.

use super::{BadRows, Trace, TraceError, TraceJob, jsonl, kalos, openb, philly, swf};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// How a file of jobs is written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Format {
    Openb,
    Philly,
    Kalos,
    Swf,
    Jsonl,
}

impl Format {
    pub const ALL: [Self; 5] = [Self::Openb, Self::Philly, Self::Kalos, Self::Swf, Self::Jsonl];

    /// As command lines have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Openb => "openb",
            Self::Philly => "philly",
            Self::Kalos => "kalos",
            Self::Swf => "swf",
            Self::Jsonl => "jsonl",
        }
    }
}

/// A text is not `FORMAT:FILE`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not FORMAT:FILE with one of the formats {}", Format::ALL.map(Format::name).join(", "))]
pub struct SourceError {
    text: String,
}

/// A file of jobs in a format: `FORMAT:FILE`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    pub format: Format,
    pub file: PathBuf,
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let named = text.split_once(':').and_then(|(name, file)| {
            let format = Format::ALL.into_iter().find(|format| format.name() == name)?;
            (!file.is_empty()).then(|| Self { format, file: PathBuf::from(file) })
        });
        named.ok_or_else(|| SourceError { text: text.to_owned() })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.format.name(), self.file.display())
    }
}

impl Source {
    /// All that the file tells. Formats other than our own tell of jobs only.
    pub fn read(&self, bad: &mut BadRows) -> Result<Trace, TraceError> {
        let file: &Path = &self.file;
        let jobs = match self.format {
            Format::Openb => openb::pods(file, bad)?,
            Format::Philly => philly::jobs(file, bad)?,
            Format::Kalos => kalos::jobs(file, bad)?,
            Format::Swf => swf::jobs(file, bad)?,
            Format::Jsonl => return jsonl::read(file, bad),
        };
        Ok(Trace { jobs: by_time(jobs), ..Trace::default() })
    }
}

/// By rising time of submission; alike in their order.
pub(crate) fn by_time(mut jobs: Vec<TraceJob>) -> Vec<TraceJob> {
    jobs.sort_by_key(|job| job.submit);
    jobs
}
