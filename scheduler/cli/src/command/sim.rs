//! `sim`: the simulator's commands.
//!
//! **Invariant:** nothing is decided here; the simulator's own program does the same.

use crate::exit::{Ending, Exit, Failure};
use simulator::cli::{self, Error, Verb};

pub(super) fn run(verb: &Verb) -> Ending {
    match cli::main(verb, &mut std::io::stdout().lock()) {
        Ok(cli::Ending::Done) => Ok(Exit::Done),
        Ok(cli::Ending::Failed) => Ok(Exit::Refused),
        Ok(cli::Ending::Interrupted) => Ok(Exit::Interrupted),
        // `| head` has seen enough.
        Err(Error::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(Exit::Done)
        }
        Err(Error::Usage(message)) => Err(Failure::usage(message)),
        Err(error) => Err(Failure::refused(error.to_string())),
    }
}
