//! How the program ends: exit codes, and failures with the next step.
//!
//! **Invariant:** the numbers are part of the interface (scripts rely on them) and are listed in the help.

use std::fmt;
use std::process::ExitCode;

/// Text of the exit codes for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0    done; `plan`: it would be placed now
  1    refused or failed
  2    wrong usage or a file that cannot be understood
  3    `plan`: it would not be placed now
  4    no server could answer in time
  130  ended by Ctrl-C";

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// The servers refused, or something failed.
    Refused,
    /// Wrong arguments, or a file that cannot be understood.
    Usage,
    /// `plan`: it would not be placed now.
    NotPlaceable,
    /// No server could answer in time.
    Unavailable,
    /// Ended by Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::NotPlaceable => 3,
            Self::Unavailable => 4,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command could not do what it was asked, and what to try next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How the program ends.
    pub exit: Exit,
    /// What went wrong, in one line.
    pub message: String,
    /// More about it, a line each.
    pub details: Vec<String>,
    /// What to try next.
    pub next: Option<String>,
}

impl Failure {
    /// Something failed.
    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    /// The arguments or a file are wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A failure with the given end.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), details: Vec::new(), next: None }
    }

    /// Adds a line of detail.
    pub fn detail(mut self, line: impl Into<String>) -> Self {
        self.details.push(line.into());
        self
    }

    /// Says what to try next.
    pub fn next(mut self, step: impl Into<String>) -> Self {
        self.next = Some(step.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::output::text::printable_line;
        write!(f, "error: {}", printable_line(&self.message))?;
        for detail in &self.details {
            write!(f, "\n  {}", printable_line(detail))?;
        }
        if let Some(next) = &self.next {
            write!(f, "\nnext: {}", printable_line(next))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::refused(error.to_string())
    }
}

/// What a command hands to `main`.
pub type Ending = Result<Exit, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_help() {
        for (exit, code) in [
            (Exit::Done, 0),
            (Exit::Refused, 1),
            (Exit::Usage, 2),
            (Exit::NotPlaceable, 3),
            (Exit::Unavailable, 4),
            (Exit::Interrupted, 130),
        ] {
            assert_eq!(exit.code(), code);
            assert!(EXIT_CODES.contains(&format!("\n  {code} ")), "{code} is not in the help");
        }
    }

    #[test]
    fn failures_print_details_and_the_next_step_without_control_characters() {
        let failure =
            Failure::refused("bad\u{1b}[31m name").detail("code X").next("try `muster jobs`");
        assert_eq!(
            failure.to_string(),
            "error: bad\\u{1b}[31m name\n  code X\nnext: try `muster jobs`"
        );
    }
}
