//! Logs of the long-running commands.

use crate::args::{LogArgs, LogFormat};
use crate::exit::Failure;
use std::fs::{File, OpenOptions};
use std::sync::Arc;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// Starts logging to stderr or a file. Once per process.
pub(super) fn start(args: &LogArgs) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| Failure::usage(format!("--log `{}`: {error}", args.log)))?;
    let writer = match &args.log_file {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(path) => {
            let file: File =
                OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                    Failure::usage(format!("--log-file {}: {error}", path.display()))
                })?;
            BoxMakeWriter::new(Arc::new(file))
        }
    };
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    let started = match args.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    started.map_err(|error| Failure::refused(format!("cannot start logging: {error}")))
}
