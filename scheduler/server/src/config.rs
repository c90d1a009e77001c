//! Configuration: read once, checked whole, passed down.
//!
//! [`Cluster`] must be the same on every server, [`PerServer`] is this server's own.
//! **Invariant:** a [`Config`] from [`Config::from_toml`] or [`Config::check`] has no fault; all
//! faults of a file are reported together, each with the path of its key. Nothing here is read
//! from the environment, and no secret is printed.

use scheduler_core::command::Quota;
use scheduler_core::duty::office::Reserve;
use scheduler_core::id::{Name, SupplierId, TenantId};
use scheduler_core::job::Priority;
use scheduler_core::unit::DurationMs;
use scheduler_core::validate;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Most servers of one quorum at the start: more voters only slow it down.
const SERVERS_MAX: usize = 9;
/// Most tokens: they are compared one by one, on every call.
const TOKENS_MAX: usize = 1_024;
/// Most tenants created from the file; others come by RPC.
const TENANTS_MAX: usize = 1_024;
/// Shortest and longest secret in bytes: 16 random bytes in hex upwards.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=512;
/// Longest timing in milliseconds; beyond a minute nobody means it.
const TIMING_MS_MAX: u64 = 60_000;
/// Longest lease in milliseconds: a lost node must not be believed in for longer.
const LEASE_MS_MAX: u64 = 600_000;
/// Shortest and longest round of probes in milliseconds: below, packets crowd each other; above a
/// day, nobody would notice that a route has changed.
const PROBING_MS_MIN: u64 = 100;
const PROBING_MS_MAX: u64 = 86_400_000;
/// Longest wait for a reservation in milliseconds: thirty days, after which nobody waits for one.
const RESERVE_AFTER_MS_MAX: u64 = 2_592_000_000;
/// Longest `host:port`.
const ADDRESS_BYTES_MAX: usize = 255;

/// Everything a server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    pub cluster: Cluster,
    pub server: PerServer,
}

/// What is the same on every server.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Name of the cluster; data and peers of another one are refused.
    pub id: Name,
    /// Every caller is the operator and peers need no secret. For one machine only.
    pub insecure_dev: bool,
    /// Shared by all servers of the cluster; peers must show it.
    pub secret: Option<Secret>,
    /// The first members; empty = somebody calls `bootstrap`, or adds this server to a quorum.
    pub servers: Vec<FirstMember>,
    pub tokens: Vec<Token>,
    /// Created when the cluster is new.
    pub tenants: Vec<FirstTenant>,
    pub timing: Timing,
    pub probing: Probing,
    pub reservations: Reservations,
}

/// What is this server's own.
#[derive(Clone, Debug)]
pub struct PerServer {
    /// Number of the server, never used before in this cluster; 1 or more.
    pub id: u64,
    pub data_dir: PathBuf,
    /// Where clients and agents are served; port 0 = any free one.
    pub api_listen: SocketAddr,
    /// Where the other servers are served; port 0 = any free one.
    pub peer_listen: SocketAddr,
    /// What others dial, where it differs from where we listen.
    pub api_address: Option<String>,
    pub peer_address: Option<String>,
    pub store: Store,
}

/// Bounds of the store that small machines and tests change.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Log segments of this many bytes; absent = the store's own default.
    pub segment_bytes: Option<u64>,
    /// A snapshot after this many log records; absent = the store's own default.
    pub snapshot_every_entries: Option<u64>,
}

/// A server of the first membership.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FirstMember {
    pub id: u64,
    pub peer_address: String,
    pub api_address: String,
}

/// A static credential.
#[derive(Clone, Debug)]
pub struct Token {
    pub kind: TokenKind,
    pub secret: Secret,
}

/// Whom a token stands for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenKind {
    Operator,
    Tenant(TenantId),
    Supplier(SupplierId),
}

/// A tenant created when the cluster is new.
#[derive(Clone, Debug)]
pub struct FirstTenant {
    pub tenant: TenantId,
    pub quota: Quota,
}

/// How fast servers and agents notice that one of them is gone.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_ms_min: u64,
    pub election_ms_max: u64,
    /// An agent that is not heard for this long counts as lost; longer for large fleets.
    pub lease_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 50, election_ms_min: 300, election_ms_max: 600, lease_ms: 10_000 }
    }
}

/// Whether and how often agents measure round trips to each other.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Probing {
    /// Port on which all agents answer; 0 = nobody measures, and RTTs come from operators alone.
    pub udp_port: u16,
    /// Each agent measures a few others once in this time.
    pub round_ms: u64,
}

impl Probing {
    /// Length of a round.
    pub fn round(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.round_ms.max(PROBING_MS_MIN))
    }
}

impl Default for Probing {
    fn default() -> Self {
        Self { udp_port: 0, round_ms: 300_000 }
    }
}

/// Which waiting jobs get a reservation, so that others do not take what they wait for.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reservations {
    /// Those that have waited so long; 0 = none.
    pub after_ms: u64,
    /// At most so many at a time.
    pub most: u32,
}

impl Reservations {
    /// The same in the planner's words.
    pub fn rules(&self) -> Reserve {
        Reserve { after: DurationMs(self.after_ms), most: self.most }
    }
}

impl Default for Reservations {
    fn default() -> Self {
        Self { after_ms: 0, most: Reserve::MOST_USUAL }
    }
}

/// A secret that never shows in logs.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes over a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself; for comparing and sending, never for showing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// One thing wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{path} {problem}")]
pub struct Fault {
    /// Path of the key, as in `tokens[2].name`.
    pub path: String,
    pub problem: String,
}

/// All that is wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError(pub Vec<Fault>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s):", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl std::error::Error for ConfigError {}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    cluster_id: String,
    #[serde(default)]
    insecure_dev: bool,
    cluster_secret: Option<Secret>,
    server: FileServer,
    #[serde(default)]
    servers: Vec<FirstMember>,
    #[serde(default)]
    tokens: Vec<FileToken>,
    #[serde(default)]
    tenants: Vec<FileTenant>,
    #[serde(default)]
    timing: Timing,
    #[serde(default)]
    probing: Probing,
    #[serde(default)]
    reservations: Reservations,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileServer {
    id: u64,
    data_dir: PathBuf,
    api_listen: String,
    peer_listen: String,
    api_address: Option<String>,
    peer_address: Option<String>,
    #[serde(default)]
    store: Store,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToken {
    kind: String,
    name: Option<String>,
    token: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTenant {
    name: String,
    gpu_milli_max: Option<u64>,
    pending_jobs_max: Option<u32>,
    priority_max: Option<i64>,
}

/// Collects faults, so that all of them can be told at once.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn add(&mut self, path: impl Into<String>, problem: impl fmt::Display) {
        self.0.push(Fault { path: path.into(), problem: problem.to_string() });
    }

    fn unless(&mut self, holds: bool, path: impl Into<String>, problem: impl fmt::Display) {
        if !holds {
            self.add(path, problem);
        }
    }

    /// The name, or a stand-in with a fault noted: the stand-in never leaves this file.
    fn name(&mut self, path: &str, text: &str) -> Option<Name> {
        Name::parse(text).map_err(|error| self.add(path, error)).ok()
    }

    fn listen(&mut self, path: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.add(path, "is not an IP address with a port, as in 127.0.0.1:7070");
            SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
        })
    }
}

impl Config {
    /// A single server on loopback with free ports, where every caller is the operator: for tests
    /// and for trying things out.
    pub fn dev(id: u64, data_dir: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let cluster_id = Name::parse("dev").unwrap_or_else(|_| unreachable!("a constant"));
        let cluster = Cluster {
            id: cluster_id,
            insecure_dev: true,
            secret: None,
            servers: Vec::new(),
            tokens: Vec::new(),
            tenants: Vec::new(),
            timing: Timing::default(),
            probing: Probing::default(),
            reservations: Reservations::default(),
        };
        let server = PerServer {
            id,
            data_dir: data_dir.into(),
            api_listen: any,
            peer_listen: any,
            api_address: None,
            peer_address: None,
            store: Store::default(),
        };
        Self { cluster, server }
    }

    /// Reads and checks the text of a configuration file.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let file: File = toml::from_str(text).map_err(|error| {
            let path = "the file".to_owned();
            ConfigError(vec![Fault { path, problem: format!("cannot be read: {error}") }])
        })?;
        let mut faults = Faults::default();
        let cluster_id = faults.name("cluster_id", &file.cluster_id);
        let tokens = file.tokens.into_iter().enumerate();
        let tokens = tokens.filter_map(|(at, token)| read_token(at, token, &mut faults)).collect();
        let tenants = file.tenants.into_iter().enumerate();
        let tenants =
            tenants.filter_map(|(at, tenant)| read_tenant(at, &tenant, &mut faults)).collect();
        let server = PerServer {
            id: file.server.id,
            data_dir: file.server.data_dir,
            api_listen: faults.listen("server.api_listen", &file.server.api_listen),
            peer_listen: faults.listen("server.peer_listen", &file.server.peer_listen),
            api_address: file.server.api_address,
            peer_address: file.server.peer_address,
            store: file.server.store,
        };
        let Some(id) = cluster_id else { return Err(ConfigError(faults.0)) };
        let cluster = Cluster {
            id,
            insecure_dev: file.insecure_dev,
            secret: file.cluster_secret,
            servers: file.servers,
            tokens,
            tenants,
            timing: file.timing,
            probing: file.probing,
            reservations: file.reservations,
        };
        let config = Self { cluster, server };
        config.find_faults(&mut faults);
        if faults.0.is_empty() { Ok(config) } else { Err(ConfigError(faults.0)) }
    }

    /// Checks a configuration put together in code.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut faults = Faults::default();
        self.find_faults(&mut faults);
        if faults.0.is_empty() { Ok(()) } else { Err(ConfigError(faults.0)) }
    }

    fn find_faults(&self, faults: &mut Faults) {
        let (cluster, server) = (&self.cluster, &self.server);
        faults.unless(server.id >= 1, "server.id", "is 0; numbers start at 1");
        let no_dir = server.data_dir.as_os_str().is_empty();
        faults.unless(!no_dir, "server.data_dir", "is empty");
        for (path, address) in [
            ("server.api_address", &server.api_address),
            ("server.peer_address", &server.peer_address),
        ] {
            if let Some(address) = address {
                check_address(path, address, faults);
            }
        }
        self.check_exposure(faults);
        check_members(&cluster.servers, server.id, faults);
        check_tokens(cluster, faults);
        check_timing(&cluster.timing, faults);
        let round = cluster.probing.round_ms;
        let allowed = PROBING_MS_MIN..=PROBING_MS_MAX;
        let problem = format!("is {round}; {PROBING_MS_MIN} to {PROBING_MS_MAX} are allowed");
        faults.unless(allowed.contains(&round), "probing.round_ms", problem);
        check_reservations(&cluster.reservations, faults);
        if cluster.tenants.len() > TENANTS_MAX {
            let count = cluster.tenants.len();
            faults.add("tenants", format!("has {count} items; at most {TENANTS_MAX} are allowed"));
        }
        let mut seen = BTreeSet::new();
        for (at, first) in cluster.tenants.iter().enumerate() {
            let new = seen.insert(&first.tenant);
            faults.unless(new, format!("tenants[{at}].name"), "is there twice");
        }
    }

    /// Without TLS nobody but this machine may reach us, unless the operator says it is a
    /// playground.
    fn check_exposure(&self, faults: &mut Faults) {
        let (cluster, server) = (&self.cluster, &self.server);
        let problem = "is not a loopback address: without TLS this server only listens beyond \
                       this machine when insecure_dev = true";
        for (path, listen) in
            [("server.api_listen", server.api_listen), ("server.peer_listen", server.peer_listen)]
        {
            faults.unless(cluster.insecure_dev || listen.ip().is_loopback(), path, problem);
        }
        for (path, listen, address) in [
            ("server.api_address", server.api_listen, &server.api_address),
            ("server.peer_address", server.peer_listen, &server.peer_address),
        ] {
            let dialable = !listen.ip().is_unspecified() || address.is_some();
            faults.unless(
                dialable,
                path,
                "is missing, and nobody can dial the address listened on",
            );
        }
        match &cluster.secret {
            Some(secret) => check_secret("cluster_secret", secret, faults),
            None => faults.unless(
                cluster.insecure_dev,
                "cluster_secret",
                "is missing: the servers of a cluster must share one",
            ),
        }
    }
}

fn read_token(at: usize, token: FileToken, faults: &mut Faults) -> Option<Token> {
    let path = format!("tokens[{at}].name");
    let named = |faults: &mut Faults| match &token.name {
        Some(text) => faults.name(&path, text),
        None => {
            faults.add(&path, "is missing");
            None
        }
    };
    let kind = match token.kind.as_str() {
        "operator" => TokenKind::Operator,
        "tenant" => TokenKind::Tenant(TenantId(named(faults)?)),
        "supplier" => TokenKind::Supplier(SupplierId(named(faults)?)),
        _ => {
            let path = format!("tokens[{at}].kind");
            faults.add(path, "is not one of operator, tenant, supplier");
            return None;
        }
    };
    Some(Token { kind, secret: token.token })
}

fn read_tenant(at: usize, tenant: &FileTenant, faults: &mut Faults) -> Option<FirstTenant> {
    let default = Quota::default();
    let priority_max = tenant.priority_max.unwrap_or(default.priority_max.0.into());
    let priority_max = validate::priority("priority_max", priority_max);
    if priority_max.is_err() {
        let (min, max) = (Priority::MIN, Priority::MAX);
        faults.add(format!("tenants[{at}].priority_max"), format!("is not from {min} to {max}"));
    }
    let quota = Quota {
        priority_max: priority_max.unwrap_or_default(),
        gpu_milli_max: tenant.gpu_milli_max.unwrap_or(default.gpu_milli_max),
        pending_jobs_max: tenant.pending_jobs_max.unwrap_or(default.pending_jobs_max),
    };
    let name = faults.name(&format!("tenants[{at}].name"), &tenant.name)?;
    Some(FirstTenant { tenant: TenantId(name), quota })
}

fn check_reservations(asked: &Reservations, faults: &mut Faults) {
    let Reservations { after_ms, most } = *asked;
    let problem = format!("is {after_ms}; 0 to {RESERVE_AFTER_MS_MAX} are allowed");
    faults.unless(after_ms <= RESERVE_AFTER_MS_MAX, "reservations.after_ms", problem);
    let problem = format!("is {most}; 1 to {} are allowed", Reserve::MOST);
    faults.unless((1..=Reserve::MOST).contains(&most), "reservations.most", problem);
}

fn check_secret(path: &str, secret: &Secret, faults: &mut Faults) {
    let (text, bytes) = (secret.reveal(), secret.reveal().len());
    if !SECRET_BYTES.contains(&bytes) {
        let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
        faults.add(path, format!("is {bytes} bytes long; {min} to {max} are allowed"));
    }
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    faults.unless(visible, path, "has characters that are not visible ASCII");
}

/// Whether `text` looks like `host:port`; names are resolved when they are dialled.
pub(crate) fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host_ok = match bracketed {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(plain),
    };
    text.len() <= ADDRESS_BYTES_MAX && host_ok && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn check_address(path: &str, address: &str, faults: &mut Faults) {
    faults.unless(is_address(address), path, "is not host:port, as in s1.example.org:7070");
}

fn check_members(members: &[FirstMember], own: u64, faults: &mut Faults) {
    if members.len() > SERVERS_MAX {
        let count = members.len();
        faults.add("servers", format!("has {count} items; at most {SERVERS_MAX} are allowed"));
    }
    let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for (at, member) in members.iter().enumerate() {
        let path = |key: &str| format!("servers[{at}].{key}");
        faults.unless(member.id >= 1, path("id"), "is 0; numbers start at 1");
        faults.unless(ids.insert(member.id), path("id"), "is there twice");
        for (key, address) in
            [("peer_address", &member.peer_address), ("api_address", &member.api_address)]
        {
            check_address(&path(key), address, faults);
            faults.unless(addresses.insert(address), path(key), "is there twice");
        }
    }
    let listed = members.is_empty() || ids.contains(&own);
    faults.unless(listed, "servers", format!("does not list this server, number {own}"));
}

fn check_tokens(cluster: &Cluster, faults: &mut Faults) {
    let tokens = &cluster.tokens;
    if tokens.len() > TOKENS_MAX {
        let count = tokens.len();
        faults.add("tokens", format!("has {count} items; at most {TOKENS_MAX} are allowed"));
    }
    let operator = tokens.iter().any(|token| token.kind == TokenKind::Operator);
    faults.unless(
        operator || cluster.insecure_dev,
        "tokens",
        "has none of kind operator: nobody could run the cluster",
    );
    let mut seen = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let path = format!("tokens[{at}].token");
        check_secret(&path, &token.secret, faults);
        faults.unless(seen.insert(token.secret.reveal()), path, "is there twice");
    }
}

fn check_timing(timing: &Timing, faults: &mut Faults) {
    let mut within = |key: &str, value: u64, min: u64, max: u64| {
        let path = format!("timing.{key}");
        let problem = format!("is {value}; {min} to {max} are allowed");
        faults.unless((min..=max).contains(&value), path, problem);
    };
    within("heartbeat_ms", timing.heartbeat_ms, 5, TIMING_MS_MAX);
    let least = timing.heartbeat_ms.saturating_add(1);
    within("election_ms_min", timing.election_ms_min, least, TIMING_MS_MAX);
    let least = timing.election_ms_min.saturating_add(1);
    within("election_ms_max", timing.election_ms_max, least, TIMING_MS_MAX);
    within("lease_ms", timing.lease_ms, 100, LEASE_MS_MAX);
}

#[cfg(test)]
mod tests;
