//! `store`: a look into the data of a stopped server.

use crate::answer::store::Checked;
use crate::args::{DumpPart, StoreCommand};
use crate::exit::{Ending, Exit, Failure};
use crate::output::Output;
use raft_store::StoreError;
use raft_store::inspect::{self, Part};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::Path;

pub(super) fn run(output: Output, command: StoreCommand) -> Ending {
    match command {
        StoreCommand::Check { dir } => {
            let report = inspect::check(&dir).map_err(|error| cannot(&dir, &error))?;
            let checked = Checked::from(report);
            output.show(&checked)?;
            Ok(if checked.clean { Exit::Done } else { Exit::Refused })
        }
        StoreCommand::Dump { dir, part } => {
            let part = match part {
                DumpPart::State => Part::Copy,
                DumpPart::Snapshot => Part::Snapshot,
                DumpPart::Log => Part::Log,
            };
            let mut out = Stdout { inner: BufWriter::new(std::io::stdout().lock()), gone: false };
            let dumped = inspect::dump(&dir, part, &mut out);
            if out.gone {
                // `| head` has seen enough.
                return Ok(Exit::Done);
            }
            dumped.map_err(|error| cannot(&dir, &error))?;
            out.flush()?;
            Ok(Exit::Done)
        }
    }
}

/// Stdout that remembers whether its reader went away.
struct Stdout<W: Write> {
    inner: W,
    gone: bool,
}

impl<W: Write> Write for Stdout<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let result = self.inner.write(bytes);
        self.gone |= result.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        result
    }

    fn flush(&mut self) -> std::io::Result<()> {
        let result = self.inner.flush();
        self.gone |= result.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe);
        if self.gone { Ok(()) } else { result }
    }
}

fn cannot(dir: &Path, error: &StoreError) -> Failure {
    Failure::refused(format!("{}: {error}", dir.display()))
        .next("give the data_dir of a server that is stopped, as in its configuration")
}
