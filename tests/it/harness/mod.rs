//! Whole clusters for tests: real server processes on loopback, real data directories, and a
//! client that talks gRPC to them.
//!
//! A server process is this test binary started again (see [`child`]), so the tests can kill, stop
//! and restart it as an operating system would.
//! **Invariant:** no fixed ports and no sleeps: ports are asked from the system, and every wait is
//! for something seen, with a deadline.

pub mod child;
pub mod client;
pub mod nodes;
pub mod specs;

use child::Child;
use client::Client;
use proto::v1;
use proto::v1::tenant_service_client::TenantServiceClient;
use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::Instant;

/// Longest wait for anything: far beyond what it takes, so that a busy machine fails no test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where a server listens; chosen before it starts, because its peers must know.
#[derive(Clone, Debug)]
pub struct Address {
    pub id: u64,
    pub api: String,
    pub peer: String,
}

/// Servers of one quorum, each a process of its own.
pub struct Cluster {
    pub addresses: Vec<Address>,
    pub children: Vec<Option<Child>>,
    dir: TempDir,
    cluster_id: String,
}

impl Cluster {
    /// Starts `servers` processes and waits until they have a leader.
    pub async fn start(servers: usize) -> Self {
        let mut cluster = Self::prepare("test", servers);
        for at in 0..servers {
            cluster.start_server(at);
        }
        cluster.leader().await;
        cluster.first_tenants().await;
        cluster
    }

    /// Waits until the tenants of the configuration are there: the leader makes them first of all.
    async fn first_tenants(&self) {
        let deadline = Instant::now() + PATIENCE;
        let client = self.client();
        let mut tenants = TenantServiceClient::new(client.channel());
        loop {
            let list = tenants.list_tenants(client.operator(v1::ListTenantsRequest::default()));
            if list.await.is_ok_and(|list| !list.into_inner().tenants.is_empty()) {
                return;
            }
            self.assert_time_left(deadline, "no tenants");
            client::pause().await;
        }
    }

    /// Chooses addresses and writes configuration files, but starts nothing.
    pub fn prepare(cluster_id: &str, servers: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temp dir");
        let addresses = (1..=servers as u64).map(free_address).collect::<Vec<_>>();
        let cluster = Self {
            children: (0..servers).map(|_| None).collect(),
            addresses,
            dir,
            cluster_id: cluster_id.to_owned(),
        };
        for at in 0..servers {
            cluster.write_config(at, &cluster.addresses[at], true);
        }
        cluster
    }

    pub fn data_dir(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("server-{}", at + 1))
    }

    pub fn config_path(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("server-{}.toml", at + 1))
    }

    pub fn log_path(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("server-{}.log", at + 1))
    }

    /// Writes the configuration of one server; `first` = it belongs to the first membership.
    pub fn write_config(&self, at: usize, own: &Address, first: bool) {
        let mut text = format!(
            "cluster_id = \"{}\"\ninsecure_dev = true\n\n[server]\nid = {}\ndata_dir = {:?}\n\
             api_listen = \"{}\"\npeer_listen = \"{}\"\n\n[server.store]\nsegment_bytes = 4194304\n\n",
            self.cluster_id,
            own.id,
            self.data_dir(at),
            own.api,
            own.peer
        );
        text.push_str("[[tenants]]\nname = \"acme\"\n\n[[tenants]]\nname = \"globex\"\n\n");
        if first {
            for address in &self.addresses {
                text.push_str(&format!(
                    "[[servers]]\nid = {}\npeer_address = \"{}\"\napi_address = \"{}\"\n\n",
                    address.id, address.peer, address.api
                ));
            }
        }
        std::fs::write(self.config_path(at), text).expect("the config is written");
    }

    /// Starts one server; it must not be running.
    pub fn start_server(&mut self, at: usize) {
        assert!(self.children[at].is_none(), "server {} runs already", at + 1);
        self.children[at] = Some(Child::start(&self.config_path(at), &self.log_path(at), None));
    }

    /// Starts one server whose files may not grow beyond `file_kib`: a disk that is full.
    pub fn start_server_on_small_disk(&mut self, at: usize, file_kib: u64) {
        let (config, log) = (self.config_path(at), self.log_path(at));
        self.children[at] = Some(Child::start(&config, &log, Some(file_kib)));
    }

    /// Adds a server to the harness (not to the quorum) and gives its position.
    pub fn add_address(&mut self, id: u64) -> usize {
        let at = self.addresses.len();
        let address = free_address(id);
        self.write_config(at, &address, false);
        self.addresses.push(address);
        self.children.push(None);
        at
    }

    /// kill -9.
    pub fn kill(&mut self, at: usize) {
        if let Some(child) = self.children[at].take() {
            child.kill();
        }
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.children.len()).filter(|&at| self.children[at].is_some()).collect()
    }

    /// A client of the running servers.
    pub fn client(&self) -> Client {
        Client::new(self.running().iter().map(|&at| self.addresses[at].api.as_str()))
    }

    /// A client of one server.
    pub fn client_of(&self, at: usize) -> Client {
        Client::new([self.addresses[at].api.as_str()])
    }

    /// Waits until the running servers agree on a running leader; its position.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut known = Vec::new();
            for at in self.running() {
                if let Ok(status) = self.client_of(at).quorum_status(false).await {
                    known.push((status.term, status.leader_id));
                }
            }
            let newest = known.iter().max().copied().unwrap_or_default();
            let leader = self.addresses.iter().position(|address| address.id == newest.1);
            if let Some(leader) = leader
                && self.children[leader].is_some()
                && known.len() == self.running().len()
                && known.iter().all(|&k| k == newest)
            {
                return leader;
            }
            self.assert_time_left(deadline, "no leader");
            client::pause().await;
        }
    }

    /// Waits until all running servers have applied the same index; checks that their state
    /// hashes are equal, and gives the hash.
    pub async fn equal_hashes(&self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut seen = Vec::new();
            for at in self.running() {
                if let Ok(status) = self.client_of(at).quorum_status(true).await {
                    seen.push((status.state_hash_index, status.state_hash));
                }
            }
            if seen.len() == self.running().len() && seen.windows(2).all(|w| w[0].0 == w[1].0) {
                assert!(seen.windows(2).all(|w| w[0].1 == w[1].1), "state hashes differ: {seen:?}");
                return seen.pop().expect("a server runs").1;
            }
            self.assert_time_left(deadline, "the servers do not come to one index");
            client::pause().await;
        }
    }

    /// Stops every server and verifies its data offline: log, snapshots, state and its self-check.
    pub fn stop_and_check(mut self) {
        let stopped = self.running();
        for &at in &stopped {
            if let Some(child) = self.children[at].take() {
                child.terminate();
            }
        }
        for at in 0..self.addresses.len() {
            if self.data_dir(at).exists() {
                check_data(&self.data_dir(at), stopped.contains(&at));
            }
        }
    }

    pub fn assert_time_left(&self, deadline: Instant, what: &str) {
        assert!(Instant::now() < deadline, "{what}; logs:\n{}", self.logs());
    }

    /// The last lines of every server's log.
    pub fn logs(&self) -> String {
        let tail = |at: usize| {
            let text = std::fs::read_to_string(self.log_path(at)).unwrap_or_default();
            let lines = text.lines().collect::<Vec<_>>();
            let last = lines[lines.len().saturating_sub(25)..].join("\n");
            format!("--- server {}\n{last}\n", at + 1)
        };
        (0..self.addresses.len()).map(tail).collect()
    }
}

/// Verifies a stopped server's data directory. A killed one may need what the next start mends by
/// itself.
pub fn check_data(dir: &Path, in_good_order: bool) {
    let report = raft_store::inspect::check(dir).expect("the data can be inspected");
    let sound = if in_good_order { report.is_clean() } else { report.is_usable() };
    assert!(sound, "{}: {report:?}", dir.display());
    let findings = report.replay.map(|replay| replay.findings).unwrap_or_default();
    assert!(findings.is_empty(), "{}: {findings:?}", dir.display());
}

/// Two ports that are free now, and that nobody else of this process was given: the system offers one
/// again as soon as it is let go.
pub fn free_address(id: u64) -> Address {
    static GIVEN: Mutex<BTreeSet<SocketAddr>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("nobody panics with it");
    let mut port = || {
        loop {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("an address");
            if given.insert(address) {
                return address.to_string();
            }
        }
    };
    Address { id, api: port(), peer: port() }
}
