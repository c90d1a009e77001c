//! `server`: one server of a quorum, until it is told to end.

use super::{logging, stdin_ended, terminated};
use crate::args::ServerArgs;
use crate::exit::{Ending, Exit, Failure};
use crate::output;
use scheduler_server::{Config, Server};
use std::path::Path;
use std::time::Duration;

/// A server that cannot hand over in this time ends without.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(6);

/// A configuration for one machine of three, with everything that there is to say.
const EXAMPLE: &str = include_str!("server.example.toml");

pub(super) async fn run(args: ServerArgs) -> Ending {
    if args.example_config {
        output::print(EXAMPLE)?;
        return Ok(Exit::Done);
    }
    let Some(path) = &args.config else {
        return Err(
            Failure::usage("--config FILE is missing").next("muster server --example-config")
        );
    };
    let config = load(path, args.insecure_dev)?;
    if args.check_config {
        eprintln!("{} has no fault", path.display());
        return Ok(Exit::Done);
    }
    logging::start(&args.log)?;
    abort_on_panic();
    let server = Server::start(config).await.map_err(|error| {
        tracing::error!(%error, "the server does not start");
        Failure::refused(format!("the server does not start: {error}"))
    })?;
    let fault = tokio::select! {
        fault = server.failed() => Some(fault),
        () = serving(&args) => None,
    };
    if let Some(fault) = fault {
        // Nothing that this server would still say can be relied on: no farewell.
        tracing::error!(fault, "the server can go on no more");
        return Err(Failure::refused(format!("the server can go on no more: {fault}"))
            .next("muster store check DIR says what is wrong with its data"));
    }
    match tokio::time::timeout(SHUTDOWN_TIMEOUT, server.shutdown()).await {
        Ok(Ok(())) => Ok(Exit::Done),
        Ok(Err(error)) => Err(Failure::refused(format!("the server ended badly: {error}"))),
        Err(_) => {
            Err(Failure::refused("the server did not end in time; its data is safe all the same"))
        }
    }
}

/// Until somebody wants the server to end.
async fn serving(args: &ServerArgs) {
    tokio::select! {
        () = terminated() => tracing::info!("told to end"),
        () = stdin_ended(), if args.stop_with_stdin => tracing::info!("the parent process is gone or wants an end"),
    }
}

/// A part that panicked would leave a server that looks alive and is not: the process ends, except
/// where the store catches the panic and rebuilds what it broke.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        if !raft_store::panic_is_caught() {
            std::process::abort();
        }
    }));
}

fn load(path: &Path, insecure_dev: bool) -> Result<Config, Failure> {
    let shown = path.display();
    let mut text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    if insecure_dev {
        text = with_insecure_dev(&text)
            .map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    }
    Config::from_toml(&text).map_err(|error| {
        let mut failure = Failure::usage(format!("{shown}: {} fault(s)", error.0.len()))
            .next("`muster server --example-config` prints a file with everything in it");
        for fault in &error.0 {
            failure = fault.to_string().lines().fold(failure, |failure, line| failure.detail(line));
        }
        failure
    })
}

/// The text with `insecure_dev = true`, whatever it said before.
fn with_insecure_dev(text: &str) -> Result<String, String> {
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    table.insert("insecure_dev".to_owned(), toml::Value::Boolean(true));
    toml::to_string(&table).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_good_configuration() {
        let config = Config::from_toml(EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.cluster.servers.len(), 3);
        assert!(!config.cluster.insecure_dev);
    }

    #[test]
    fn the_flag_wins_over_the_file() {
        let open = with_insecure_dev(EXAMPLE).expect("toml");
        assert!(Config::from_toml(&open).is_ok_and(|config| config.cluster.insecure_dev));
    }

    #[test]
    fn all_faults_are_listed() {
        let dir = tempfile::tempdir().expect("dir");
        let path = dir.path().join("s.toml");
        let bad = EXAMPLE.replace("127.0.0.1:7700", "0.0.0.0:7700").replace("id = 1", "id = 0");
        std::fs::write(&path, bad).expect("write");
        let failure = load(&path, false).expect_err("faults");
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.details.len() >= 2, "{failure}");
    }
}
