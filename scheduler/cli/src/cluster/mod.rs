//! A quorum of server processes on this machine, for `dev` and the benches.
//!
//! Every server is a process of its own, with its own data directory, ports, log file and real fsyncs.
//!
//! **Invariant:** no server outlives this process: each ends when its stdin does, and that pipe is ours.

mod layout;
pub mod machine;

pub use layout::Layout;

use crate::answer::quorum::Quorum;
use crate::client::{Client, Settings};
use crate::command::gather;
use crate::exit::Failure;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// Tenant that local clusters have from the start.
pub const TENANT: &str = "dev";
/// Pause between two looks at a server that is coming up.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// A server that does not end by itself in this time is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Lines of a log that a failure shows.
const LOG_LINES_SHOWN: usize = 8;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the cluster.
    pub cluster_id: &'static str,
    /// Servers.
    pub servers: u32,
    /// Where to keep everything; otherwise in a directory removed at the end.
    pub data_dir: Option<PathBuf>,
    /// Lease of the agents, where the default does not fit.
    pub lease_ms: Option<u64>,
}

/// The processes.
#[derive(Debug)]
pub struct Cluster {
    layout: Layout,
    home: Home,
    processes: Vec<Option<Process>>,
    resumed: bool,
}

#[derive(Debug)]
enum Home {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// A child whose stdin is our word to it: closing it asks the child to end.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts this program with other arguments; stderr goes to a file.
    pub fn spawn(arguments: &[&str], log: PathBuf) -> Result<Self, Failure> {
        let program = std::env::current_exe()
            .map_err(|error| Failure::refused(format!("cannot find this program: {error}")))?;
        let file =
            OpenOptions::new().create(true).append(true).open(&log).map_err(|error| {
                Failure::refused(format!("cannot open {}: {error}", log.display()))
            })?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(file)
            // Ctrl-C in the terminal is for us; we end the children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::refused(format!("cannot start a process: {error}")))?;
        Ok(Self { child, log })
    }

    /// Number of the process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its end, if it has ended.
    pub fn ended(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(status.to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    /// kill -9, and waits until it is gone.
    pub async fn kill(mut self) {
        // Both only fail when it is gone already.
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
    }

    /// Asks it to end, and kills it when it does not.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            self.kill().await;
        }
    }

    /// A failure that shows the end of its log.
    pub fn failure(&self, what: &str) -> Failure {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        let mut failure = Failure::refused(what);
        for line in &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..] {
            failure = failure.detail(*line);
        }
        failure.detail(format!("log: {}", self.log.display()))
    }
}

impl Cluster {
    /// Starts all servers; does not wait for them.
    pub fn start(options: &Options) -> Result<Self, Failure> {
        let home = match &options.data_dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).map_err(|error| {
                    Failure::refused(format!("cannot make {}: {error}", dir.display()))
                })?;
                // Children have the same working directory, but messages should be of use anywhere.
                Home::Kept(dir.canonicalize()?)
            }
            None => Home::Temporary(
                tempfile::Builder::new()
                    .prefix(&format!("muster-{}-", options.cluster_id))
                    .tempdir()
                    .map_err(|error| {
                        Failure::refused(format!("cannot make a temporary directory: {error}"))
                    })?,
            ),
        };
        let (layout, resumed) =
            Layout::open_or_create(home.path(), options, &layout::Ports::LOOPBACK)?;
        let processes = layout.seats.iter().map(|_| None).collect();
        let mut cluster = Self { layout, home, processes, resumed };
        for index in 0..cluster.layout.seats.len() {
            cluster.start_server(index)?;
        }
        Ok(cluster)
    }

    /// Starts one server that does not run.
    pub fn start_server(&mut self, index: usize) -> Result<(), Failure> {
        let dir = self.server_dir(index);
        let config = dir.join("server.toml");
        let config = config
            .to_str()
            .ok_or_else(|| Failure::refused("the data directory's path is not UTF-8"))?;
        let arguments = ["server", "--config", config, "--stop-with-stdin"];
        self.processes[index] = Some(Process::spawn(&arguments, self.log_path(index))?);
        Ok(())
    }

    /// kill -9 of one server.
    pub async fn kill_server(&mut self, index: usize) {
        if let Some(process) = self.processes[index].take() {
            process.kill().await;
        }
    }

    /// The first server that has ended by itself, and how. It counts as not running from then on.
    pub fn take_ended(&mut self) -> Option<(usize, String, Failure)> {
        for (index, slot) in self.processes.iter_mut().enumerate() {
            let Some(process) = slot else { continue };
            if let Some(end) = process.ended() {
                let id = self.layout.seats[index].id;
                let failure = process.failure(&format!("server {id} ended: {end}"));
                *slot = None;
                return Some((index, end, failure));
            }
        }
        None
    }

    /// Whether it runs on data of an earlier start.
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// Ids and addresses.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where everything is kept.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The log of one server.
    pub fn log_path(&self, index: usize) -> PathBuf {
        self.server_dir(index).join("server.log")
    }

    /// The process of one server, while it runs.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.processes[index].as_ref().and_then(Process::pid)
    }

    /// Addresses for clients.
    pub fn urls(&self) -> Vec<String> {
        self.layout.seats.iter().map(|seat| format!("http://{}", seat.api)).collect()
    }

    /// A client of all servers.
    pub fn client(&self, timeout: Duration) -> Result<Client, Failure> {
        Client::new(&Settings { servers: self.urls(), token: None, timeout })
    }

    /// Waits until all servers answer and one leads.
    pub async fn wait_up(
        &mut self,
        timeout: Duration,
        seen: impl Fn(usize),
    ) -> Result<Quorum, Failure> {
        let deadline = Instant::now() + timeout;
        let client = self.client(Duration::from_millis(500))?;
        loop {
            if let Some((_, _, failure)) = self.take_ended() {
                return Err(failure);
            }
            let quorum = gather(&client, false).await;
            if let Ok(quorum) = quorum {
                let up = quorum.servers.iter().filter(|s| s.applied_index.is_some()).count();
                seen(up);
                let known = |id| {
                    quorum.servers.iter().any(|s| s.server_id == id && s.applied_index.is_some())
                };
                if up == self.processes.len() && quorum.leader_id != 0 && known(quorum.leader_id) {
                    return Ok(quorum);
                }
            }
            if Instant::now() > deadline {
                let seconds = timeout.as_secs();
                return Err(Failure::refused(format!(
                    "the servers did not form a quorum in {seconds} s"
                ))
                .detail(format!("logs: {}/server-*/server.log", self.home().display())));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    /// Index of the server with this id.
    pub fn index_of(&self, id: u64) -> Option<usize> {
        self.layout.seats.iter().position(|seat| seat.id == id)
    }

    /// Ends all servers in order.
    pub async fn stop(mut self) {
        let processes = self.processes.iter_mut().filter_map(Option::take);
        futures::future::join_all(processes.map(Process::stop)).await;
    }

    fn server_dir(&self, index: usize) -> PathBuf {
        self.home.path().join(format!("server-{}", self.layout.seats[index].id))
    }
}
