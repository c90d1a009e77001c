//! `bench`: measurements against processes on this machine.

use crate::args::{BenchCommand, Global};
use crate::exit::{Ending, Failure};

pub(crate) async fn run(_global: &Global, command: BenchCommand) -> Ending {
    Err(Failure::refused(format!("not built yet: {command:?}")))
}
