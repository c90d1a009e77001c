//! Calls to the servers: which one, for how long, again or not.
//!
//! A call goes to the server that answered last, or to the leader where one is known. Only UNAVAILABLE is
//! tried again, with growing pauses and at the next server, until the deadline. A server that is silent for
//! a while is not given up, but the next one is asked as well, and the first answer counts.
//!
//! **Invariant:** a server's hint at the leader is followed only to servers that the caller named; a token
//! never appears in a message.

mod error;
mod pages;

pub use error::CallError;

use crate::exit::Failure;
use futures::future::FusedFuture as _;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use proto::v1::job_service_client::JobServiceClient;
use proto::v1::node_admin_service_client::NodeAdminServiceClient;
use proto::v1::node_service_client::NodeServiceClient;
use proto::v1::quorum_service_client::QuorumServiceClient;
use proto::v1::tenant_service_client::TenantServiceClient;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Response, Status};

/// Metadata key under which servers name the leader's address.
pub const LEADER_HINT: &str = "x-muster-leader";
/// A server that does not take the connection in this time is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// First pause between two rounds over all servers.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between two rounds: elections take about a second.
const PAUSE_MAX: Duration = Duration::from_millis(800);
/// Rounds in which no server even took the connection before we stop waiting for one.
const DEAD_ROUNDS_MAX: u32 = 4;
/// The next server is asked after this part of the time that each would have if all were asked in turn: a
/// server that hangs costs a sixth of the time for a call where there are three.
const PATIENCE_SHARE: u32 = 2;
/// A plan of 100,000 replicas is the largest answer, about 10 MiB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What a client needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers, `http://host:port` or `host:port`.
    pub servers: Vec<String>,
    /// Token shown to the servers.
    pub token: Option<String>,
    /// Time for a whole call, repeats included.
    pub timeout: Duration,
}

/// A client of several servers.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    servers: Vec<Server>,
    preferred: AtomicUsize,
    bearer: Option<MetadataValue<Ascii>>,
    timeout: Duration,
}

#[derive(Clone, Debug)]
struct Server {
    url: String,
    authority: String,
    channel: Channel,
}

/// One try of a call at one server.
#[derive(Clone, Debug)]
pub struct Attempt {
    channel: Channel,
    bearer: Option<MetadataValue<Ascii>>,
    deadline: Option<Instant>,
}

impl Attempt {
    /// The message with credentials and what is left of the deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        if let Some(deadline) = self.deadline {
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
        }
        request
    }

    /// Jobs.
    pub fn jobs(&self) -> JobServiceClient<Channel> {
        JobServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Nodes.
    pub fn nodes(&self) -> NodeAdminServiceClient<Channel> {
        NodeAdminServiceClient::new(self.channel.clone())
            .max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The agents' side of nodes.
    pub fn agents(&self) -> NodeServiceClient<Channel> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Tenants.
    pub fn tenants(&self) -> TenantServiceClient<Channel> {
        TenantServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// The quorum.
    pub fn quorum(&self) -> QuorumServiceClient<Channel> {
        QuorumServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

impl Client {
    /// A client; connects when first used. Must be called inside a runtime.
    pub fn new(settings: &Settings) -> Result<Self, Failure> {
        if settings.servers.is_empty() {
            return Err(Failure::usage("no server given")
                .next("pass --server http://HOST:PORT or set MUSTER_SERVER"));
        }
        let servers =
            settings.servers.iter().map(|text| Server::new(text)).collect::<Result<_, _>>()?;
        let bearer = match settings.token.as_deref() {
            None | Some("") => None,
            Some(token) => {
                let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
                    .parse()
                    .map_err(|_| Failure::usage("the token holds characters that no token has"))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let shared =
            Shared { servers, preferred: AtomicUsize::new(0), bearer, timeout: settings.timeout };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Addresses of the servers as given.
    pub fn servers(&self) -> Vec<String> {
        self.shared.servers.iter().map(|s| s.url.clone()).collect()
    }

    /// A client of one of the servers alone.
    pub fn only(&self, index: usize) -> Option<Self> {
        let server = self.shared.servers.get(index)?.clone();
        let shared = Shared {
            servers: vec![server],
            preferred: AtomicUsize::new(0),
            bearer: self.shared.bearer.clone(),
            timeout: self.shared.timeout,
        };
        Some(Self { shared: Arc::new(shared) })
    }

    /// A client, with the same credentials, of a member that a trusted server named.
    pub fn also(&self, address: &str) -> Result<Self, Failure> {
        let shared = Shared {
            servers: vec![Server::new(address)?],
            preferred: AtomicUsize::new(0),
            bearer: self.shared.bearer.clone(),
            timeout: self.shared.timeout,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Makes a call that may be made twice; tries again where that is safe.
    pub async fn call<T, F>(&self, operation: impl Fn(Attempt) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.shared.timeout;
        let at_once = self.shared.servers.len();
        self.until(deadline, Some(deadline), at_once, operation).await.map(Response::into_inner)
    }

    /// As [`Client::call`], but never at two servers at once: for calls of which the second would find
    /// nothing left to do and say so.
    pub async fn call_alone<T, F>(&self, operation: impl Fn(Attempt) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.shared.timeout;
        self.until(deadline, Some(deadline), 1, operation).await.map(Response::into_inner)
    }

    /// Opens a stream that lives as long as it likes; only opening it is bound in time.
    pub async fn open<T, F>(&self, operation: impl Fn(Attempt) -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + self.shared.timeout;
        let at_once = self.shared.servers.len();
        self.until(deadline, None, at_once, operation).await.map(Response::into_inner)
    }

    async fn until<T, F>(
        &self,
        deadline: Instant,
        sent_deadline: Option<Instant>,
        at_once: usize,
        operation: impl Fn(Attempt) -> F,
    ) -> Result<Response<T>, CallError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let shared = &self.shared;
        let mut pause = PAUSE_MIN;
        let (mut tries, mut dead) = (0_u32, 0_u32);
        let count = u32::try_from(shared.servers.len()).unwrap_or(u32::MAX);
        let begin = |index: usize| {
            let server = &shared.servers[index];
            operation(Attempt {
                channel: server.channel.clone(),
                bearer: shared.bearer.clone(),
                deadline: sent_deadline,
            })
        };
        loop {
            let first = shared.preferred.load(Ordering::Relaxed) % shared.servers.len();
            let (index, answer) = self.first_answer(first, at_once, deadline, &begin).await;
            let server = &shared.servers[index];
            tries += 1;
            let status = match answer {
                Ok(response) => {
                    if index != first {
                        shared.preferred.store(index, Ordering::Relaxed);
                    }
                    self.follow(response.metadata());
                    return Ok(response);
                }
                Err(status) => status,
            };
            dead = if error::never_arrived(&status) { dead + 1 } else { 0 };
            let give_up =
                status.code() != Code::Unavailable || dead >= DEAD_ROUNDS_MAX.saturating_mul(count);
            let round_over = tries.is_multiple_of(count);
            let wait = if round_over {
                error::retry_delay(&status).unwrap_or(spread(pause))
            } else {
                Duration::ZERO
            };
            if give_up || Instant::now() + wait >= deadline {
                return Err(CallError::new(status, server.url.clone(), self.servers(), tries));
            }
            if !self.follow(status.metadata()) || round_over {
                shared.preferred.store((index + 1) % shared.servers.len(), Ordering::Relaxed);
            }
            if round_over {
                tokio::time::sleep(wait).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    /// The first answer of the servers from `first` on that settles the call, or the last one; each server
    /// is asked when those before it have been silent for a while. With it, whose it is.
    async fn first_answer<T, F>(
        &self,
        first: usize,
        at_once: usize,
        deadline: Instant,
        begin: impl Fn(usize) -> F,
    ) -> (usize, Result<Response<T>, Status>)
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let Shared { servers, timeout, .. } = &*self.shared;
        let patience = *timeout / PATIENCE_SHARE / u32::try_from(at_once).unwrap_or(u32::MAX);
        let ask = |asked: usize| {
            let index = (first + asked) % servers.len();
            let answer = begin(index);
            async move { (index, answer.await) }
        };
        // Nearly always the first one answers: it is not moved to where several are waited for.
        let mut first_asked = pin!(ask(0).fuse());
        let mut asked = 1;
        let mut others = FuturesUnordered::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = if asked < at_once { patience.min(left) } else { left };
            let next = async {
                match others.is_empty() {
                    true => (&mut first_asked).await,
                    false => futures::select! {
                        answer = first_asked => answer,
                        answer = others.select_next_some() => answer,
                    },
                }
            };
            match tokio::time::timeout(wait, next).await {
                Ok((index, answer)) => {
                    let code = answer.as_ref().err().map(Status::code);
                    let alone = others.is_empty() && first_asked.is_terminated();
                    if code != Some(Code::Unavailable) || alone {
                        return (index, answer);
                    }
                    if asked < at_once {
                        others.push(ask(asked));
                        asked += 1;
                    }
                }
                Err(_) if asked < at_once && wait < left => {
                    others.push(ask(asked));
                    asked += 1;
                }
                Err(_) => {
                    let why = format!("no answer within {} ms", timeout.as_millis());
                    return (first, Err(Status::deadline_exceeded(why)));
                }
            }
        }
    }

    /// Prefers the leader that a server names, if it is one of ours and not the one in use.
    fn follow(&self, metadata: &MetadataMap) -> bool {
        let Some(hint) = metadata.get(LEADER_HINT).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let hint =
            hint.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
        let Some(index) = self.shared.servers.iter().position(|s| s.authority == hint) else {
            return false;
        };
        self.shared.preferred.swap(index, Ordering::Relaxed) != index
    }
}

impl Server {
    fn new(text: &str) -> Result<Self, Failure> {
        let text = text.trim().trim_end_matches('/');
        let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let wrong = |why: &str| {
            Failure::usage(format!("--server `{text}`: {why}"))
                .next("use http://HOST:PORT, for example http://127.0.0.1:7700")
        };
        let uri: Uri = url.parse().map_err(|_| wrong("not an address"))?;
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("only http:// is spoken so far"));
        }
        if authority.port_u16().is_none() {
            return Err(wrong("has no port"));
        }
        let endpoint = Endpoint::from_shared(url.clone())
            .map_err(|error| wrong(&error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .tcp_nodelay(true);
        Ok(Self { authority: authority.to_string(), url, channel: endpoint.connect_lazy() })
    }
}

/// The pause give or take a quarter, so that many clients do not come back together.
fn spread(pause: Duration) -> Duration {
    // A random id is all the randomness this needs.
    let random = uuid::Uuid::new_v4().as_bytes()[0];
    pause.mul_f64(0.75 + f64::from(random) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(servers: &[&str]) -> Client {
        let servers = servers.iter().map(|s| (*s).to_owned()).collect();
        Client::new(&Settings { servers, token: None, timeout: Duration::from_secs(1) })
            .expect("valid addresses")
    }

    fn hint(text: &str) -> MetadataMap {
        let mut map = MetadataMap::new();
        map.insert(LEADER_HINT, text.parse().expect("ascii"));
        map
    }

    #[tokio::test]
    async fn a_hint_is_followed_only_to_a_server_of_ours() {
        let client = client(&["http://127.0.0.1:7700", "127.0.0.1:7701/"]);
        assert!(!client.follow(&hint("10.6.6.6:7700")));
        assert_eq!(client.shared.preferred.load(Ordering::Relaxed), 0);
        assert!(client.follow(&hint("127.0.0.1:7701")));
        assert_eq!(client.shared.preferred.load(Ordering::Relaxed), 1);
        assert!(!client.follow(&hint("http://127.0.0.1:7701")), "already there");
    }

    #[tokio::test]
    async fn addresses_are_checked() {
        for bad in ["", "http://", "127.0.0.1", "ftp://h:1", "https://h:1", "http://h h:1"] {
            let settings = Settings {
                servers: vec![bad.to_owned()],
                token: None,
                timeout: Duration::from_secs(1),
            };
            let failure = Client::new(&settings).expect_err(bad);
            assert_eq!(failure.exit, crate::exit::Exit::Usage, "{bad}");
        }
    }

    #[tokio::test]
    async fn only_unavailable_is_tried_again() {
        let client = client(&["127.0.0.1:1", "127.0.0.1:2"]);
        let tries = AtomicUsize::new(0);
        let error = client
            .call(|_| {
                tries.fetch_add(1, Ordering::Relaxed);
                async { Err::<Response<()>, _>(Status::aborted("no")) }
            })
            .await
            .expect_err("aborted");
        assert_eq!((error.code(), tries.load(Ordering::Relaxed)), (Code::Aborted, 1));
        let answer = client
            .call(|_| {
                let try_number = tries.fetch_add(1, Ordering::Relaxed);
                async move {
                    if try_number < 3 {
                        Err(Status::unavailable("electing"))
                    } else {
                        Ok(Response::new(try_number))
                    }
                }
            })
            .await;
        assert_eq!(answer.ok(), Some(3));
    }

    /// Addresses that take connections and never answer.
    async fn hanging(count: usize) -> (Vec<tokio::net::TcpListener>, Client) {
        let mut listeners = Vec::new();
        for _ in 0..count {
            listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port"));
        }
        let addresses = listeners.iter().map(|one| one.local_addr().expect("bound").to_string());
        let addresses: Vec<String> = addresses.collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let client = client(&addresses);
        (listeners, client)
    }

    #[tokio::test]
    async fn a_server_that_hangs_does_not_keep_the_next_one_from_answering() {
        let (_listeners, client) = hanging(3).await;
        let tries = AtomicUsize::new(0);
        let began = Instant::now();
        let answer = client.call(|attempt| {
            let number = tries.fetch_add(1, Ordering::Relaxed);
            async move {
                if number == 0 {
                    let request = attempt.request(proto::v1::GetQuorumStatusRequest::default());
                    attempt.quorum().get_quorum_status(request).await?;
                }
                Ok(Response::new(number))
            }
        });
        assert_eq!(answer.await.ok(), Some(1));
        assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
        assert_eq!(
            client.shared.preferred.load(Ordering::Relaxed),
            1,
            "it is asked first next time"
        );
    }

    #[tokio::test]
    async fn the_first_server_may_still_answer_after_the_next_was_asked() {
        let client = client(&["127.0.0.1:1", "127.0.0.1:2"]);
        let second_asked = tokio::sync::Notify::new();
        let tries = AtomicUsize::new(0);
        let answer = client.call(|_| {
            let (number, second_asked) = (tries.fetch_add(1, Ordering::Relaxed), &second_asked);
            async move {
                if number == 0 {
                    second_asked.notified().await;
                    return Ok(Response::new(number));
                }
                second_asked.notify_one();
                std::future::pending().await
            }
        });
        assert_eq!(answer.await.ok(), Some(0));
        assert_eq!(client.shared.preferred.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_must_not_be_done_twice_is_asked_of_one_server() {
        let (_listeners, client) = hanging(2).await;
        let tries = AtomicUsize::new(0);
        let error = client
            .call_alone(|attempt| {
                tries.fetch_add(1, Ordering::Relaxed);
                let request = attempt.request(proto::v1::GetQuorumStatusRequest::default());
                async move { attempt.quorum().get_quorum_status(request).await }
            })
            .await
            .expect_err("hangs");
        assert_eq!(tries.load(Ordering::Relaxed), 1);
        assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    }

    #[tokio::test]
    async fn tokens_are_hidden_and_sent() {
        let settings = Settings {
            servers: vec!["127.0.0.1:1".into()],
            token: Some("s3cret".into()),
            timeout: Duration::from_secs(1),
        };
        let client = Client::new(&settings).expect("client");
        assert!(!format!("{client:?}").contains("s3cret"));
        let seen = client
            .call(|attempt| async move {
                let request = attempt.request(());
                Ok(Response::new(
                    request.metadata().get("authorization").map(|v| v.to_str().map(str::to_owned)),
                ))
            })
            .await
            .expect("call");
        assert_eq!(seen.and_then(Result::ok).as_deref(), Some("Bearer s3cret"));
    }
}
