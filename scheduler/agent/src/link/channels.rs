//! Connections to the servers, shared by all agents of a process.
//!
//! **Invariant:** their number is fixed at the start; they connect when first used and again when
//! they broke.

use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// A connection attempt that takes longer has failed.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an idle connection is tried with an HTTP/2 ping: finds peers that vanished silently.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A ping without an answer for so long ends the connection.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Agents that share a connection: half of what one HTTP/2 connection bears without queueing.
const AGENTS_PER_CHANNEL: usize = 500;
/// Most connections to one server; more only cost memory there.
const CHANNELS_PER_SERVER_MAX: usize = 32;

/// An endpoint that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("servers: at least one is needed")]
    None,
    #[error("servers[{at}]: {text:?} is not http://HOST:PORT")]
    Bad { at: usize, text: String },
    #[error("servers[{at}]: {text:?} asks for TLS, which is not built in yet")]
    Tls { at: usize, text: String },
}

/// See the module.
#[derive(Debug)]
pub struct Channels {
    servers: Vec<Server>,
}

#[derive(Debug)]
struct Server {
    endpoint: String,
    channels: Vec<Channel>,
}

impl Channels {
    /// Connections for `agents` agents to every one of `servers` (`http://HOST:PORT` or
    /// `HOST:PORT`). Must be called inside a tokio runtime.
    pub fn new(servers: &[String], agents: usize) -> Result<Channels, EndpointError> {
        if servers.is_empty() {
            return Err(EndpointError::None);
        }
        let count = agents.div_ceil(AGENTS_PER_CHANNEL).clamp(1, CHANNELS_PER_SERVER_MAX);
        let server = |(at, text): (usize, &String)| {
            let endpoint = endpoint(at, text)?;
            let channels = (0..count).map(|_| endpoint.connect_lazy()).collect();
            Ok(Server { endpoint: endpoint.uri().to_string(), channels })
        };
        let servers = servers.iter().enumerate().map(server).collect::<Result<_, _>>()?;
        Ok(Channels { servers })
    }

    /// How many servers there are; at least one.
    pub fn servers(&self) -> usize {
        self.servers.len()
    }

    /// A server's address, for logs.
    pub fn endpoint(&self, server: usize) -> &str {
        &self.servers[server % self.servers.len()].endpoint
    }

    /// A connection to a server; equal slots give equal connections.
    pub fn get(&self, server: usize, slot: usize) -> Channel {
        let channels = &self.servers[server % self.servers.len()].channels;
        channels[slot % channels.len()].clone()
    }
}

/// Checks and completes one entry of a server list.
pub fn endpoint(at: usize, text: &str) -> Result<Endpoint, EndpointError> {
    if text.starts_with("https://") {
        return Err(EndpointError::Tls { at, text: text.to_owned() });
    }
    let bad = || EndpointError::Bad { at, text: text.to_owned() };
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let endpoint = Endpoint::from_shared(full).map_err(|_| bad())?;
    let uri = endpoint.uri();
    let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
    if !plain || uri.port_u16().is_none() || uri.query().is_some() {
        return Err(bad());
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_bounded_and_fixed() {
        let servers = ["127.0.0.1:1".to_owned(), "http://127.0.0.1:2".to_owned()];
        let count = |agents| Channels::new(&servers, agents).unwrap().servers[0].channels.len();
        assert_eq!((count(1), count(501), count(10_000), count(1_000_000)), (1, 2, 20, 32));
        assert_eq!(Channels::new(&servers, 1).unwrap().endpoint(0), "http://127.0.0.1:1/");
    }

    #[test]
    fn bad_endpoints_are_named() {
        for bad in ["", "host", "ftp://a:1", "http://a", "http://a:1/path", "http://a:99999"] {
            let error = endpoint(3, bad).unwrap_err().to_string();
            assert!(error.starts_with("servers[3]:"), "{error}");
        }
        assert!(endpoint(0, "https://a:1").unwrap_err().to_string().contains("TLS"));
    }
}
