//! A cluster for tests: servers by number, a network that can be cut, entries to propose.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use raft_store::{
    BoxFuture, BoxStream, Member, Observer, Proposed, Quorum, QuorumError, ServerId, Settings,
    Status, StoreError, Transport, TransportError, log,
};
use scheduler_core::command::{Actor, Command, Entry, PutTenant, Quota};
use scheduler_core::event::Event;
use scheduler_core::id::{Name, TenantId};
use scheduler_core::unit::TimeMs;
use tempfile::TempDir;
use tokio::sync::watch;

/// Everything in these tests happens within seconds, or never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Who can talk to whom.
#[derive(Clone, Default)]
pub(crate) struct Wires {
    servers: Arc<Mutex<BTreeMap<u64, Quorum>>>,
    cut: Arc<Mutex<BTreeSet<u64>>>,
    /// Wakes everything that hangs on a wire when one is cut.
    changes: Arc<watch::Sender<u64>>,
    /// Snapshot frames let through before the wire breaks; for broken transfers.
    snapshot_frames_max: Arc<Mutex<Option<usize>>>,
}

impl Wires {
    fn between(&self, from: u64, to: u64) -> Result<Quorum, TransportError> {
        let gone = |text: &str| Err(TransportError::Unreachable(text.to_owned()));
        let cut = self.cut.lock().expect("lock");
        if cut.contains(&from) || cut.contains(&to) {
            return gone("cut off");
        }
        self.servers.lock().expect("lock").get(&to).cloned().map_or_else(|| gone("down"), Ok)
    }

    /// Resolves once the two cannot talk any more.
    async fn broken(self, from: u64, to: u64) {
        let mut changes = self.changes.subscribe();
        while self.between(from, to).is_ok() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(crate) fn cut(&self, server: u64) {
        self.cut.lock().expect("lock").insert(server);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn mend(&self, server: u64) {
        self.cut.lock().expect("lock").remove(&server);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(crate) fn break_snapshots_after(&self, frames: Option<usize>) {
        *self.snapshot_frames_max.lock().expect("lock") = frames;
    }

    fn put(&self, server: u64, quorum: Option<Quorum>) {
        let mut servers = self.servers.lock().expect("lock");
        match quorum {
            Some(quorum) => servers.insert(server, quorum),
            None => servers.remove(&server),
        };
        drop(servers);
        self.changes.send_modify(|count| *count += 1);
    }
}

/// One server's end of the wires.
struct Wire {
    from: u64,
    wires: Wires,
}

impl Transport for Wire {
    fn call(
        &self,
        target: &Member,
        body: Bytes,
        _ttl: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let (from, to, wires) = (self.from, target.id.0, self.wires.clone());
        async move {
            let other = wires.between(from, to)?;
            tokio::select! {
                answer = other.handle_call(body) => answer,
                () = wires.broken(from, to) => Err(TransportError::Unreachable("cut".to_owned())),
            }
        }
        .boxed()
    }

    fn append_stream(
        &self,
        target: &Member,
        frames: BoxStream<Bytes>,
    ) -> BoxFuture<Result<BoxStream<Result<Bytes, TransportError>>, TransportError>> {
        let (from, to, wires) = (self.from, target.id.0, self.wires.clone());
        async move {
            let other = wires.between(from, to)?;
            let frames = frames.take_until(wires.clone().broken(from, to).boxed()).boxed();
            let answers = other.handle_append_stream(frames);
            let broken = wires.broken(from, to);
            let gone = futures::stream::once(async move {
                broken.await;
                Err(TransportError::Unreachable("cut".to_owned()))
            });
            // The answers end by themselves, or with an error when the wire is cut.
            let answers = answers.map(Some).chain(futures::stream::once(async { None }));
            let both = futures::stream::select(answers, gone.map(Some));
            Ok(both
                .take_while(|answer| futures::future::ready(answer.is_some()))
                .filter_map(futures::future::ready)
                .boxed())
        }
        .boxed()
    }

    fn snapshot(
        &self,
        target: &Member,
        frames: BoxStream<Bytes>,
        _ttl: Duration,
    ) -> BoxFuture<Result<Bytes, TransportError>> {
        let (from, to, wires) = (self.from, target.id.0, self.wires.clone());
        async move {
            let other = wires.between(from, to)?;
            let max = *wires.snapshot_frames_max.lock().expect("lock");
            let frames = frames.take(max.unwrap_or(usize::MAX));
            let frames = frames.take_until(wires.clone().broken(from, to).boxed()).boxed();
            other.handle_snapshot(frames).await
        }
        .boxed()
    }
}

/// Remembers what it was told.
#[derive(Default)]
pub(crate) struct Ear {
    pub(crate) applied: Mutex<Vec<u64>>,
    pub(crate) events: Mutex<Vec<Event>>,
    pub(crate) replaced: Mutex<Vec<u64>>,
}

impl Observer for Ear {
    fn applied(&self, index: u64, events: &[Event]) {
        self.applied.lock().expect("lock").push(index);
        self.events.lock().expect("lock").extend_from_slice(events);
    }

    fn replaced(&self, index: u64) {
        self.replaced.lock().expect("lock").push(index);
    }
}

/// Servers, their disks and the wires between them.
pub(crate) struct Cluster {
    root: TempDir,
    pub(crate) wires: Wires,
    servers: BTreeMap<u64, Quorum>,
    pub(crate) ears: BTreeMap<u64, Arc<Ear>>,
    tune: Tune,
}

/// Changes a server's settings before it starts.
pub(crate) type Tune = Box<dyn Fn(u64, &mut Settings) + Send + Sync>;

pub(crate) fn member(id: u64, voter: bool) -> Member {
    let peer_address = format!("server-{id}:1");
    Member { id: ServerId(id), peer_address, api_address: format!("server-{id}:2"), voter }
}

/// An entry that makes a tenant.
pub(crate) fn entry(number: u64) -> Entry {
    let tenant = TenantId(Name::parse(&format!("tenant-{number}")).expect("a name"));
    let command = Command::PutTenant(PutTenant { tenant, quota: Quota::default() });
    Entry { at: TimeMs(number), by: Actor::Operator, command }
}

impl Cluster {
    /// Servers `1..=count`, founded, with a leader.
    pub(crate) async fn of(count: u64) -> Self {
        Self::tuned(count, |_, _| ()).await
    }

    pub(crate) async fn tuned(
        count: u64,
        tune: impl Fn(u64, &mut Settings) + Send + Sync + 'static,
    ) -> Self {
        let tune: Tune = Box::new(tune);
        let root = tempfile::tempdir().expect("tempdir");
        let mut cluster = Self {
            root,
            wires: Wires::default(),
            servers: BTreeMap::new(),
            ears: BTreeMap::new(),
            tune,
        };
        let founders: Vec<Member> = (1..=count).map(|id| member(id, true)).collect();
        for id in 1..=count {
            cluster.start(id).await.expect("opens");
        }
        for id in 1..=count {
            cluster.server(id).bootstrap(founders.clone()).await.expect("founded");
        }
        cluster.leader().await;
        cluster
    }

    pub(crate) fn dir(&self, id: u64) -> PathBuf {
        self.root.path().join(format!("server-{id}"))
    }

    pub(crate) fn settings(&self, id: u64) -> Settings {
        let me = member(id, true);
        let dir = self.dir(id);
        let mut settings = Settings::new("test", me.id, dir, me.peer_address, me.api_address);
        settings.heartbeat_ms = 50;
        settings.election_ms_min = 250;
        settings.election_ms_max = 500;
        settings.mirror_interval_ms = 10;
        settings.mirror_cache_bytes = 4 * 1024 * 1024;
        settings.log = log::Options {
            segment_bytes: 256 * 1024,
            segment_bytes_first: 64 * 1024,
            ..log::Options::default()
        };
        (self.tune)(id, &mut settings);
        settings
    }

    pub(crate) async fn start(&mut self, id: u64) -> Result<(), StoreError> {
        let wire = Wire { from: id, wires: self.wires.clone() };
        let ear = Arc::new(Ear::default());
        let quorum = Quorum::open(self.settings(id), Arc::new(wire), ear.clone()).await?;
        self.wires.put(id, Some(quorum.clone()));
        self.servers.insert(id, quorum);
        self.ears.insert(id, ear);
        Ok(())
    }

    pub(crate) async fn stop(&mut self, id: u64) {
        self.wires.put(id, None);
        let server = self.servers.remove(&id).expect("runs");
        server.shutdown().await.expect("stops");
    }

    pub(crate) fn server(&self, id: u64) -> &Quorum {
        self.servers.get(&id).expect("runs")
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.servers.keys().copied().collect()
    }

    /// Waits until one of the servers that are not cut off leads and answers; its id.
    pub(crate) async fn leader(&self) -> u64 {
        let searching = async {
            loop {
                for (id, server) in &self.servers {
                    let cut = self.wires.cut.lock().expect("lock").contains(id);
                    if !cut && server.status().is_leader() && server.read_index().await.is_ok() {
                        return *id;
                    }
                }
                let watches = self.servers.values().map(|server| {
                    let mut standing = server.watch();
                    async move { standing.changed().await }.boxed()
                });
                // Whichever changes first, and a look now and then for what announces nothing.
                let changed = futures::future::select_all(watches);
                let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
            }
        };
        tokio::time::timeout(PATIENCE, searching).await.expect("a leader is elected")
    }

    /// Proposes to whoever leads until it is accepted.
    pub(crate) async fn propose(&self, entries: Vec<Entry>) -> Proposed {
        loop {
            let leader = self.leader().await;
            match self.server(leader).propose(entries.clone()).await {
                Ok(proposed) => return proposed,
                Err(QuorumError::NotLeader { .. } | QuorumError::Unavailable(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Proposes the tenants of a range, some per record; the last index.
    pub(crate) async fn fill(&self, numbers: std::ops::Range<u64>, per_record: usize) -> u64 {
        let numbers: Vec<u64> = numbers.collect();
        let mut last = 0;
        for some in numbers.chunks(per_record) {
            last = self.propose(some.iter().map(|number| entry(*number)).collect()).await.index;
        }
        last
    }

    /// Waits until the servers have applied an index, then demands equal states.
    pub(crate) async fn agree(&self, ids: &[u64], index: u64) -> u128 {
        let mut hashes = BTreeMap::new();
        for id in ids {
            let deadline = Instant::now() + PATIENCE;
            self.server(*id).wait_applied(index, deadline).await.expect("applies");
            self.server(*id).read(|state| assert_eq!(state.check(), Vec::new()));
            hashes.insert(*id, self.server(*id).state_hash().1);
        }
        let hash = *hashes.values().next().expect("somebody");
        assert!(hashes.values().all(|other| *other == hash), "{hashes:x?}");
        hash
    }

    /// Waits for a condition on a server's status.
    pub(crate) async fn until(&self, id: u64, what: &str, done: impl Fn(&Status) -> bool) {
        let waiting = async {
            let mut standing = self.server(id).watch();
            while !done(&self.server(id).status()) {
                // Indexes announce nothing, so it looks now and then too.
                let _ = tokio::time::timeout(Duration::from_millis(10), standing.changed()).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.server(id).status());
    }

    pub(crate) async fn stop_all(mut self) {
        for id in self.ids() {
            self.stop(id).await;
        }
    }
}

/// Names of the entries of a directory.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("lists");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
