//! Server processes: this binary started again.

use scheduler_server::{Config, Server};
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

/// Names the configuration file for a child.
const CONFIG_KEY: &str = "MUSTER_TEST_SERVER";

/// A running server process; killed when dropped.
pub struct Child {
    process: std::process::Child,
}

/// Not a test of its own: serves when this binary was started as a server, else passes at once.
#[test]
fn serve_when_started_as_a_server() {
    let Ok(path) = std::env::var(CONFIG_KEY) else { return };
    let text = std::fs::read_to_string(path).expect("the config is readable");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let end = runtime.block_on(async {
        let config = Config::from_toml(&text).map_err(|error| error.to_string())?;
        let server = Server::start(config).await.map_err(|error| error.to_string())?;
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        tokio::select! {
            _ = terminate.recv() => {}
            why = server.failed() => return Err(format!("the server ended: {why}")),
        }
        server.shutdown().await.map_err(|error| error.to_string())?;
        Ok::<(), String>(())
    });
    if let Err(why) = end {
        eprintln!("refused: {why}");
        std::process::exit(3);
    }
    std::process::exit(0);
}

impl Child {
    /// Starts a server; `file_kib` bounds how large its files may grow.
    pub fn start(config: &Path, log: &Path, file_kib: Option<u64>) -> Self {
        let binary = std::env::current_exe().expect("this binary has a path");
        let test = concat!(module_path!(), "::serve_when_started_as_a_server");
        let test = test.split_once("::").map_or(test, |(_, rest)| rest);
        let mut command = match file_kib {
            None => Command::new(&binary),
            Some(kib) => {
                // The signal is ignored, so that writing past the limit fails as on a full disk.
                let mut shell = Command::new("bash");
                let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
                shell.arg("-c").arg(script).arg(&binary);
                shell
            }
        };
        let output = File::options().create(true).append(true).open(log).expect("a log file");
        let process = command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(CONFIG_KEY, config)
            .stdin(Stdio::null())
            .stdout(Stdio::from(output.try_clone().expect("a second handle")))
            .stderr(Stdio::from(output))
            .spawn()
            .expect("the server process starts");
        Self { process }
    }

    /// kill -9, and waits for the end.
    pub fn kill(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.process.wait().expect("the process ends")
    }

    /// Waits for an end that is expected to come by itself.
    pub fn wait(mut self) -> ExitStatus {
        self.process.wait().expect("the process ends")
    }

    /// Whether the process has ended.
    pub fn has_ended(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(Some(_)))
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.process.id().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "signal {name} was not sent");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
