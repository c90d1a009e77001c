//! Ids, addresses and configuration files of the servers of a local quorum.
//!
//! **Invariant:** addresses stay with the data: the log of a quorum holds them.

use super::Options;
use crate::exit::Failure;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

/// Remembers the layout inside the data directory.
const FILE: &str = "cluster.json";
/// First port tried: the CLI's default server is there when nothing else is.
const PORT_FIRST: u16 = 7_700;
/// Last port tried: above it lie the ports that outgoing connections take by themselves.
const PORT_LAST: u16 = 9_999;

/// A local quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Name of the cluster.
    pub cluster_id: String,
    /// Lease of the agents in milliseconds, where the default does not fit.
    pub lease_ms: Option<u64>,
    /// Servers by number.
    pub seats: Vec<Seat>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seat {
    /// Number.
    pub id: u64,
    /// For clients and agents.
    pub api: SocketAddr,
    /// For other servers.
    pub peer: SocketAddr,
}

/// How ports are had, so that tests need none.
pub(super) struct Ports {
    /// This many addresses that nobody listens at.
    pub(super) find: fn(usize) -> Result<Vec<SocketAddr>, Failure>,
    /// Whether an address can be listened at now.
    pub(super) test: fn(SocketAddr) -> std::io::Result<()>,
}

impl Ports {
    /// Those of this machine.
    pub(super) const LOOPBACK: Self =
        Self { find: free_ports, test: |address| TcpListener::bind(address).map(drop) };
}

impl Layout {
    /// The layout that a directory holds, or a new one; says whether it was there.
    pub(super) fn open_or_create(
        home: &Path,
        options: &Options,
        ports: &Ports,
    ) -> Result<(Self, bool), Failure> {
        let file = home.join(FILE);
        if file.exists() {
            let layout = Self::open(&file)?;
            layout.check(home, options, ports)?;
            layout.write_configs(home)?;
            return Ok((layout, true));
        }
        if std::fs::read_dir(home)?.next().is_some() {
            return Err(Failure::usage(format!(
                "{} is not empty and holds no cluster of ours",
                home.display()
            ))
            .next("give an empty directory to --data-dir"));
        }
        let layout = Self::create(options, ports)?;
        layout.write_configs(home)?;
        let text = serde_json::to_vec_pretty(&layout)
            .map_err(|error| Failure::refused(format!("cannot write {FILE}: {error}")))?;
        std::fs::write(&file, text)?;
        Ok((layout, false))
    }

    fn open(file: &Path) -> Result<Self, Failure> {
        let wrong = |why: String| Failure::usage(format!("{}: {why}", file.display()));
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))
    }

    fn check(&self, home: &Path, options: &Options, ports: &Ports) -> Result<(), Failure> {
        let home = home.display();
        if self.seats.len() != options.servers as usize {
            let have = self.seats.len();
            return Err(Failure::usage(format!(
                "{home} holds a quorum of {have} servers, not {}",
                options.servers
            ))
            .next(format!("pass --servers {have}, or another --data-dir")));
        }
        for address in self.seats.iter().flat_map(|seat| [seat.api, seat.peer]) {
            if let Err(error) = (ports.test)(address) {
                return Err(Failure::refused(format!(
                    "the quorum in {home} listens at {address}, which cannot be had: {error}"
                ))
                .next("end what listens there; perhaps the same quorum runs already"));
            }
        }
        Ok(())
    }

    fn create(options: &Options, ports: &Ports) -> Result<Self, Failure> {
        let count = options.servers as usize;
        let mut free = (ports.find)(2 * count)?.into_iter();
        let api: Vec<_> = free.by_ref().take(count).collect();
        let seats = api
            .into_iter()
            .zip(free)
            .zip(1..)
            .map(|((api, peer), id)| Seat { id, api, peer })
            .collect();
        Ok(Self { cluster_id: options.cluster_id.to_owned(), lease_ms: options.lease_ms, seats })
    }

    fn write_configs(&self, home: &Path) -> Result<(), Failure> {
        for seat in &self.seats {
            let dir = home.join(format!("server-{}", seat.id));
            std::fs::create_dir_all(&dir)?;
            std::fs::write(dir.join("server.toml"), self.config(seat, &dir.join("data"))?)?;
        }
        Ok(())
    }

    /// Configuration of one server.
    fn config(&self, seat: &Seat, data_dir: &Path) -> Result<String, Failure> {
        #[derive(Serialize)]
        struct Config<'a> {
            cluster_id: &'a str,
            insecure_dev: bool,
            server: Server<'a>,
            servers: Vec<Member>,
            #[serde(skip_serializing_if = "Option::is_none")]
            timing: Option<Timing>,
        }
        #[derive(Serialize)]
        struct Server<'a> {
            id: u64,
            data_dir: &'a Path,
            api_listen: SocketAddr,
            peer_listen: SocketAddr,
        }
        #[derive(Serialize)]
        struct Member {
            id: u64,
            peer_address: String,
            api_address: String,
        }
        #[derive(Serialize)]
        struct Timing {
            lease_ms: u64,
        }
        let member = |s: &Seat| Member {
            id: s.id,
            peer_address: s.peer.to_string(),
            api_address: s.api.to_string(),
        };
        let config = Config {
            cluster_id: &self.cluster_id,
            // Loopback only; the point of `dev` is to need no tokens. The servers then make its tenant by themselves,
            // with the bounds of a playground.
            insecure_dev: true,
            server: Server { id: seat.id, data_dir, api_listen: seat.api, peer_listen: seat.peer },
            servers: self.seats.iter().map(member).collect(),
            timing: self.lease_ms.map(|lease_ms| Timing { lease_ms }),
        };
        toml::to_string(&config)
            .map_err(|error| Failure::refused(format!("cannot write a configuration: {error}")))
    }
}

/// Ports on loopback that nobody listens at. Somebody else may take one before a server does; then that server
/// says so and ends.
fn free_ports(count: usize) -> Result<Vec<SocketAddr>, Failure> {
    let mut held = Vec::new();
    for port in PORT_FIRST..=PORT_LAST {
        if held.len() == count {
            break;
        }
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((SocketAddr::from((Ipv4Addr::LOCALHOST, port)), listener));
        }
    }
    if held.len() < count {
        return Err(Failure::refused(format!(
            "no {count} free ports from {PORT_FIRST} to {PORT_LAST}"
        )));
    }
    Ok(held.into_iter().map(|(address, _)| address).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports {
        find: |count| Ok((1..).take(count).map(|port| ([127, 0, 0, 1], port).into()).collect()),
        test: |_| Ok(()),
    };

    fn options(servers: u32) -> Options {
        Options { cluster_id: "dev", servers, data_dir: None, lease_ms: Some(5_000) }
    }

    #[test]
    fn a_kept_directory_gives_the_same_layout_again() {
        let dir = tempfile::tempdir().expect("dir");
        let (layout, resumed) =
            Layout::open_or_create(dir.path(), &options(3), &PORTS).expect("new");
        assert!(!resumed);
        assert_eq!(layout.seats.iter().map(|s| s.id).collect::<Vec<_>>(), [1, 2, 3]);
        let (again, resumed) =
            Layout::open_or_create(dir.path(), &options(3), &PORTS).expect("there");
        assert!(resumed);
        assert_eq!(again, layout);
        let failure =
            Layout::open_or_create(dir.path(), &options(5), &PORTS).expect_err("other size");
        assert!(failure.to_string().contains("quorum of 3 servers, not 5"), "{failure}");
    }

    #[test]
    fn a_strange_directory_is_left_alone() {
        let dir = tempfile::tempdir().expect("dir");
        std::fs::write(dir.path().join("thesis.txt"), "x").expect("write");
        let failure = Layout::open_or_create(dir.path(), &options(1), &PORTS).expect_err("strange");
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 1);
    }

    #[test]
    fn configurations_pass_the_servers_own_checks() {
        let dir = tempfile::tempdir().expect("dir");
        let (layout, _) = Layout::open_or_create(dir.path(), &options(3), &PORTS).expect("new");
        for seat in &layout.seats {
            let text = layout.config(seat, &dir.path().join("data")).expect("text");
            let config = scheduler_server::config::Config::from_toml(&text)
                .unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert_eq!(config.server.id, seat.id);
            assert_eq!(config.cluster.servers.len(), 3);
            assert_eq!(config.cluster.timing.lease_ms, 5_000);
            // A tenant of the file would have an ordinary tenant's bounds.
            assert!(config.cluster.insecure_dev && config.cluster.tenants.is_empty());
        }
    }
}
