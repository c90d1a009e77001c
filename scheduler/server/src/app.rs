//! Puts one server together, starts it and stops it.
//!
//! Several servers may live in one process: nothing is global, and ports may be 0, as listeners
//! are bound before anybody is told an address.
//! **Invariant:** the only place where parts are wired; a panic in one of its tasks ends the
//! process, since a server with a part missing would look alive and not be.

use crate::api;
use crate::applied::Fanout;
use crate::auth::{Gate, Tokens};
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::forward::Router;
use crate::leader::Leader;
use crate::raft::{Acquaintances, Passport, PeerApi, Peers};
use crate::session::Hub;
use crate::watch::WatchHub;
use futures::FutureExt as _;
use raft_store::{Member, Quorum, QuorumError, Role, ServerId, Settings, Status, StoreError};
use scheduler_core::duty::timing::Timing;
use scheduler_core::unit::DurationMs;
use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

/// Streams on one connection: a fleet's agents share few connections.
const STREAMS_PER_CONNECTION: u32 = 8_192;
/// Idle connections are probed this often; a vanished client must not be kept for hours.
const PROBE: Duration = Duration::from_secs(20);
/// Window of one stream and of one connection between servers: a full pipeline at 100 ms.
const PEER_STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const PEER_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Largest header list: a token of 8 KiB and some.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// How often a server looks whether it is healthy: a new leader is, once a majority has answered it.
const LOOKS_PER_ELECTION: u32 = 4;
/// Leases of a small fleet that a client may leave a watch unread: it is slower than a node that
/// counts as lost three times over.
const LEASES_PER_WATCH_STALL: u32 = 3;
/// How long a stopping server waits for another one to take over the leadership.
const TRANSFER_TIME: Duration = Duration::from_secs(3);
/// How long a stopping server waits for calls that are under way.
const DRAIN_TIME: Duration = Duration::from_secs(3);

/// What the parts of one server share. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub config: Arc<Config>,
    pub quorum: Quorum,
    pub router: Router,
    pub sessions: Hub,
    pub watches: WatchHub,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
    standing: tokio::sync::watch::Receiver<raft_store::Status>,
}

impl Context {
    /// Public address of the leader, where one is known.
    pub fn leader_address(&self) -> Option<String> {
        self.standing.borrow().leader.as_ref().map(|member| member.api_address.clone())
    }
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {address} for {what}: {source}")]
    Listen { what: &'static str, address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Quorum(#[from] QuorumError),
    #[error("server {server} does not accept this one: {why}")]
    Unwelcome { server: ServerId, why: String },
    #[error("cannot describe the services: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A running server. Dropping it stops its tasks at once, without any farewell.
pub struct Server {
    context: Context,
    member: Member,
    api_address: SocketAddr,
    peer_address: SocketAddr,
    tasks: JoinSet<()>,
}

impl Server {
    /// Starts a server; it serves when this returns, but may not know a leader yet.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        config.check()?;
        let (api_listener, api_address) = listen("clients", config.server.api_listen).await?;
        let (peer_listener, peer_address) = listen("servers", config.server.peer_listen).await?;
        let member = Member {
            id: ServerId(config.server.id),
            peer_address: advertised(config.server.peer_address.as_ref(), peer_address),
            api_address: advertised(config.server.api_address.as_ref(), api_address),
            voter: true,
        };
        let met = Arc::new(Acquaintances::open(&config.server.data_dir)?);
        let passport = Passport::new(&config.cluster, config.server.id, Arc::clone(&met));
        let Some(passport) = passport else {
            let path = "cluster_secret".to_owned();
            let problem = "cannot be sent as a header".to_owned();
            return Err(ConfigError(vec![crate::config::Fault { path, problem }]).into());
        };
        let fanout = Arc::new(Fanout::default());
        let peers = Arc::new(Peers::new(passport.clone()));
        let quorum =
            Quorum::open(settings(&config, &member), peers.clone(), fanout.clone()).await?;
        let timing = Timing::new(DurationMs(config.cluster.timing.lease_ms));
        let watches = WatchHub::new(clock::duration(timing.lease(0)) * LEASES_PER_WATCH_STALL);
        let leader = Leader::new(quorum.clone(), &config.cluster);
        let router = Router::new(member.id, quorum.clone(), leader.clone(), peers.clone());
        let sessions = Hub::new(
            member.id,
            quorum.clone(),
            router.clone(),
            fanout.clone(),
            timing,
            config.cluster.probing,
        );
        let context = Context {
            config: Arc::new(config),
            standing: quorum.watch(),
            quorum,
            router,
            sessions,
            watches,
            stop: CancellationToken::new(),
        };
        let mut server = Self { context, member, api_address, peer_address, tasks: JoinSet::new() };
        server.spawn_parts(&leader, &fanout);
        server.spawn_peer_port(peer_listener, leader, passport);
        server.spawn_public_port(api_listener)?;
        server.found(met.is_new().then_some(&peers)).await?;
        let member = &server.member;
        tracing::info!(server = %member.id, api = %member.api_address, peers = %member.peer_address,
            "the server has started");
        Ok(server)
    }

    /// Founds the cluster when the configuration lists its first members; on servers that have
    /// data already this changes nothing. A server without data (`ask` is given) first asks the
    /// others whether it once had some: then it must not found anything.
    async fn found(&self, ask: Option<&Arc<Peers>>) -> Result<(), StartError> {
        let first = &self.context.config.cluster.servers;
        if first.is_empty() {
            return Ok(());
        }
        let member = |one: &crate::config::FirstMember| Member {
            id: ServerId(one.id),
            peer_address: one.peer_address.clone(),
            api_address: one.api_address.clone(),
            voter: true,
        };
        let members: Vec<Member> = first.iter().map(member).collect();
        if let Some(peers) = ask {
            let others = members.iter().filter(|other| other.id != self.member.id);
            let answers = others.map(|other| async {
                let objection = peers.ask_welcome(other).await.err();
                objection.map(|why| StartError::Unwelcome { server: other.id, why })
            });
            let answers = futures::future::join_all(answers).await;
            if let Some(objection) = answers.into_iter().flatten().next() {
                return Err(objection);
            }
        }
        Ok(self.bootstrap(members).await?)
    }

    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                tracing::error!(task = name, "a task has panicked; the process ends");
                std::process::abort();
            }
        });
    }

    fn spawn_parts(&mut self, leader: &Leader, fanout: &Arc<Fanout>) {
        let Context { config, sessions, watches, stop, .. } = self.context.clone();
        let (cluster, fanout) = (config.cluster.clone(), Arc::clone(fanout));
        let watching = watches.run(Arc::clone(&fanout));
        let watching_stop = stop.clone();
        self.spawn("watches", async move {
            tokio::select! { () = watching => {}, () = watching_stop.cancelled() => {} }
        });
        let session_stop = stop.clone();
        self.spawn("sessions", async move {
            tokio::select! { () = sessions.run() => {}, () = session_stop.cancelled() => {} }
        });
        self.spawn("leader", leader.clone().run(cluster, fanout, stop));
    }

    fn spawn_peer_port(&mut self, listener: TcpListener, leader: Leader, passport: Passport) {
        let context = self.context.clone();
        let stop = context.stop.clone();
        let service = PeerApi::service(context, leader, passport);
        let serving = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(PROBE))
            .http2_keepalive_timeout(Some(PROBE))
            .initial_stream_window_size(PEER_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(PEER_CONNECTION_WINDOW_BYTES)
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .add_service(service)
            .serve_with_incoming_shutdown(incoming(listener), async move {
                stop.cancelled().await;
            });
        self.spawn("peer port", async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the peer port has failed");
            }
        });
    }

    fn spawn_public_port(&mut self, listener: TcpListener) -> Result<(), StartError> {
        let context = self.context.clone();
        let stop = context.stop.clone();
        let (reporter, health) = tonic_health::server::health_reporter();
        let gate = Gate::new(Tokens::new(&context.config.cluster), context.clone());
        let serving = tonic::transport::Server::builder()
            .max_concurrent_streams(STREAMS_PER_CONNECTION)
            .http2_keepalive_interval(Some(PROBE))
            .http2_keepalive_timeout(Some(PROBE))
            .http2_max_header_list_size(HEADERS_BYTES_MAX)
            .layer(gate)
            .add_service(health)
            .add_service(reflection()?.build_v1()?)
            .add_service(reflection()?.build_v1alpha()?)
            .add_service(api::node::NodeApi::service(context.sessions.clone()))
            .add_service(api::node_admin::NodeAdminApi::service(context.clone()))
            .add_service(api::job::JobApi::service(context.clone()))
            .add_service(api::tenant::TenantApi::service(context.clone()))
            .add_service(api::quorum::QuorumApi::service(context.clone()))
            .serve_with_incoming_shutdown(incoming(listener), async move {
                stop.cancelled().await;
            });
        self.spawn("public port", async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the public port has failed");
            }
        });
        self.spawn("health", report_health(context, reporter));
        Ok(())
    }

    /// Founds a cluster of these members. Every one of them may be told, with the same list;
    /// a server that has data already is not changed.
    pub async fn bootstrap(&self, members: Vec<Member>) -> Result<(), QuorumError> {
        self.context.quorum.bootstrap(members).await
    }

    /// This server as the others are to know it.
    pub fn member(&self) -> Member {
        self.member.clone()
    }

    /// Where clients and agents are served.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// Where the other servers are served.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// The server's part in the quorum.
    pub fn quorum(&self) -> &Quorum {
        &self.context.quorum
    }

    /// The way to the leader.
    pub fn router(&self) -> &Router {
        &self.context.router
    }

    /// The sessions of agents that end here.
    pub fn sessions(&self) -> &Hub {
        &self.context.sessions
    }

    /// The watches that are open here.
    pub fn watches(&self) -> &WatchHub {
        &self.context.watches
    }

    /// Waits until this server knows a leader.
    pub async fn wait_for_leader(&self) {
        let mut standing = self.context.quorum.watch();
        // An error means that the quorum has stopped: there will be no leader to wait for.
        let _ = standing.wait_for(|status| status.leader.is_some()).await;
    }

    /// Waits until this server can go on no more (its disk failed, its data is not to be trusted)
    /// and says why: whoever runs it must end the process, as nothing is acknowledged any more.
    pub async fn failed(&self) -> String {
        let mut standing = self.context.quorum.watch();
        match standing.wait_for(|status| status.fault.is_some()).await {
            Ok(status) => status.fault.clone().unwrap_or_default(),
            Err(_closed) => "the quorum's task has ended".to_owned(),
        }
    }

    /// Stops in good order: agents are sent elsewhere, the leadership is handed over, calls under
    /// way are finished, everything is written.
    pub async fn shutdown(mut self) -> Result<(), QuorumError> {
        let Context { quorum, sessions, watches, stop, .. } = self.context.clone();
        sessions.shut_down();
        watches.shut_down();
        let standing = quorum.status();
        let others = standing.members.iter().any(|one| one.voter && one.id != self.member.id);
        if standing.is_leader() && others {
            match tokio::time::timeout(TRANSFER_TIME, quorum.transfer_leader(None)).await {
                Ok(Ok(())) => tracing::info!("the leadership was handed over"),
                Ok(Err(error)) => tracing::warn!(%error, "the leadership was not handed over"),
                Err(_late) => tracing::warn!("nobody took over the leadership in time"),
            }
        }
        stop.cancel();
        let drained = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(DRAIN_TIME, drained).await.is_err() {
            tracing::debug!("some connections were cut");
        }
        self.tasks.abort_all();
        quorum.shutdown().await
    }

    /// Stops at once: connections are cut, nobody is told. The data directory is free afterwards.
    pub async fn kill(mut self) -> Result<(), QuorumError> {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        self.context.stop.cancel();
        self.context.quorum.shutdown().await
    }
}

fn advertised(configured: Option<&String>, bound: SocketAddr) -> String {
    configured.cloned().unwrap_or_else(|| bound.to_string())
}

async fn listen(
    what: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

fn settings(config: &Config, member: &Member) -> Settings {
    let (cluster, server) = (&config.cluster, &config.server);
    let mut settings = Settings::new(
        cluster.id.as_str(),
        member.id,
        &server.data_dir,
        &member.peer_address,
        &member.api_address,
    );
    settings.heartbeat_ms = cluster.timing.heartbeat_ms;
    settings.election_ms_min = cluster.timing.election_ms_min;
    settings.election_ms_max = cluster.timing.election_ms_max;
    if let Some(bytes) = server.store.segment_bytes {
        settings.log.segment_bytes = bytes;
    }
    if let Some(entries) = server.store.snapshot_every_entries {
        settings.snapshot_every_entries = entries;
    }
    settings
}

fn reflection() -> Result<tonic_reflection::server::Builder<'static>, StartError> {
    let public =
        ["JobService", "NodeService", "NodeAdminService", "QuorumService", "TenantService"];
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .with_service_name("grpc.health.v1.Health");
    for service in public {
        builder = builder.with_service_name(format!("muster.v1.{service}"));
    }
    Ok(builder)
}

/// Tells the health service how the server stands.
async fn report_health(context: Context, reporter: tonic_health::server::HealthReporter) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let mut standing = context.quorum.watch();
    let election = Duration::from_millis(context.config.cluster.timing.election_ms_max);
    let mut look = tokio::time::interval(election / LOOKS_PER_ELECTION);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let serves = serves(&context.quorum.status(), election);
        reporter.set_service_status("", if serves { Serving } else { NotServing }).await;
        tokio::select! {
            changed = standing.changed() => if changed.is_err() { break },
            // That the others fall silent changes no leader's standing: it has to look.
            _ = look.tick() => {}
            () = context.stop.cancelled() => break,
        }
    }
    reporter.set_service_status("", NotServing).await;
}

/// Whether calls are answered: a leader is known, and if it is this server, most of the others have
/// answered it within two elections' time.
fn serves(status: &Status, election: Duration) -> bool {
    let alone = status.members.iter().filter(|member| member.voter).count() <= 1;
    let ack_age = status.quorum_ack_age_ms.map(Duration::from_millis);
    let heard = alone || ack_age.is_some_and(|age| age <= 2 * election);
    status.leader.is_some() && (status.role != Role::Leader || heard)
}
