//! Round trips to other nodes: measures those that the server names, and answers their probes.
//!
//! One UDP socket does both. A probe carries a random number that only its answer can repeat, so
//! nobody answers before he was asked; an answer is as long as the probe, so nobody is flooded by
//! way of us.
//! **Invariant:** bounded whatever comes in: probes sent and answered per second, targets, and
//! what is remembered. What a peer says is never more than a time.

use crate::identity;
use proto::v1;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// First bytes of a probe and of its answer.
const ASK: [u8; 4] = *b"mst?";
const ANSWER: [u8; 4] = *b"mst!";
/// Kind and random number.
const PACKET_BYTES: usize = 20;
/// Probes to one target in a round: enough for a median that one late packet does not move.
const PROBES_PER_TARGET: usize = 5;
/// Longest pause between two probes; shorter where the round is.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// An answer that takes longer is lost: as long as the longest RTT that servers take.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// Targets taken from one message.
const TARGETS_MAX: usize = 16;
/// Probes of others answered in a second; the rest is dropped.
const ANSWERS_PER_SECOND_MAX: u32 = 500;

/// Where a prober listens, or that it does not exist.
#[derive(Debug)]
pub struct Prober {
    /// `None`: probes are not for this agent; simulated ones have no network of their own.
    own: Option<IpAddr>,
    port: u16,
    task: Option<Task>,
}

#[derive(Debug)]
struct Task {
    rounds: mpsc::Sender<v1::ProbeTargets>,
    reports: mpsc::Receiver<Vec<v1::ProbeReport>>,
    handle: JoinHandle<()>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl Prober {
    /// One that ignores all it is told.
    pub fn none() -> Self {
        Self { own: None, port: 0, task: None }
    }

    /// One that listens at the node's own address where that is an IP of this machine's, else on
    /// all.
    pub fn at(address: &str) -> Self {
        let own = host(address).parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Self { own: Some(own), port: 0, task: None }
    }

    /// Begins a round; it replaces one that is under way.
    pub async fn begin(&mut self, targets: v1::ProbeTargets) {
        let Some(own) = self.own else { return };
        let Some(port) = u16::try_from(targets.udp_port).ok().filter(|&port| port > 0) else {
            self.task = None;
            return;
        };
        if self.task.is_none() || self.port != port {
            self.task = match start(own, port).await {
                Ok(task) => Some(task),
                Err(error) => {
                    tracing::warn!(port, %error, "round trips cannot be measured");
                    None
                }
            };
            self.port = port;
        }
        if let Some(task) = &self.task {
            // A round that still waits is replaced by a later one soon enough.
            let _ = task.rounds.try_send(targets);
        }
    }

    /// What a round found; never without one.
    pub async fn next(&mut self) -> Vec<v1::ProbeReport> {
        let Some(task) = &mut self.task else { return std::future::pending().await };
        match task.reports.recv().await {
            Some(reports) => reports,
            None => {
                self.task = None;
                std::future::pending().await
            }
        }
    }
}

async fn start(own: IpAddr, port: u16) -> std::io::Result<Task> {
    let socket = match UdpSocket::bind((own, port)).await {
        Ok(socket) => socket,
        // The address that others dial may not be one of ours.
        Err(_) => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).await?,
    };
    let (rounds, asked) = mpsc::channel(1);
    let (found, reports) = mpsc::channel(1);
    let work = Work { socket: Arc::new(socket), found, answered: 0, second: Instant::now() };
    Ok(Task { rounds, reports, handle: tokio::spawn(work.run(asked)) })
}

/// One probe on its way.
#[derive(Debug)]
struct Sent {
    target: usize,
    at: Instant,
}

/// A round under way.
#[derive(Debug)]
struct Round {
    /// Node and where it answers.
    targets: Vec<(u32, SocketAddr)>,
    times: Vec<Vec<Duration>>,
    waiting: BTreeMap<[u8; 16], Sent>,
    /// Probes sent so far.
    sent: usize,
    pause: Duration,
    next_at: Instant,
}

impl Round {
    async fn new(asked: v1::ProbeTargets) -> Self {
        let port = u16::try_from(asked.udp_port).unwrap_or(0);
        let mut targets = Vec::new();
        for target in asked.targets.iter().take(TARGETS_MAX) {
            let found = tokio::net::lookup_host((host(&target.address), port)).await;
            if let Some(address) = found.ok().and_then(|mut all| all.next()) {
                targets.push((target.node_id, address));
            }
        }
        let probes = (targets.len() * PROBES_PER_TARGET).max(1);
        let length = Duration::from_millis(asked.round_ms);
        let pause = (length / 2 / u32::try_from(probes).unwrap_or(u32::MAX)).min(PAUSE_MAX);
        let times = vec![Vec::new(); targets.len()];
        Self { targets, times, waiting: BTreeMap::new(), sent: 0, pause, next_at: Instant::now() }
    }

    fn is_sent(&self) -> bool {
        self.sent >= self.targets.len() * PROBES_PER_TARGET
    }

    /// The next probe, each target in its turn.
    fn probe(&mut self, now: Instant) -> Option<(SocketAddr, [u8; PACKET_BYTES])> {
        let target = self.sent % self.targets.len().max(1);
        let (_, address) = *self.targets.get(target)?;
        let number = identity::random_bytes::<16>().ok()?;
        let mut packet = [0; PACKET_BYTES];
        packet[..4].copy_from_slice(&ASK);
        packet[4..].copy_from_slice(&number);
        self.waiting.insert(number, Sent { target, at: now });
        self.sent += 1;
        self.next_at =
            now + if self.is_sent() { ANSWER_WAIT.min(self.pause * 8) } else { self.pause };
        Some((address, packet))
    }

    fn answer(&mut self, from: SocketAddr, number: [u8; 16], now: Instant) {
        let right = |sent: &Sent| self.targets.get(sent.target).is_some_and(|(_, at)| *at == from);
        if !self.waiting.get(&number).is_some_and(right) {
            return;
        }
        if let Some(sent) = self.waiting.remove(&number)
            && let Some(times) = self.times.get_mut(sent.target)
        {
            times.push(now.duration_since(sent.at));
        }
    }

    fn reports(self) -> Vec<v1::ProbeReport> {
        let us = |time: &Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        let each =
            self.targets.into_iter().zip(self.times).filter_map(|((node_id, _), mut times)| {
                times.sort_unstable();
                Some(v1::ProbeReport {
                    node_id,
                    rtt_us: us(times.get(times.len() / 2)?),
                    rtt_us_high: us(times.last()?),
                    answered: u32::try_from(times.len()).unwrap_or(u32::MAX),
                })
            });
        each.collect()
    }
}

struct Work {
    socket: Arc<UdpSocket>,
    found: mpsc::Sender<Vec<v1::ProbeReport>>,
    /// Probes of others answered in the second that began then.
    answered: u32,
    second: Instant,
}

impl Work {
    async fn run(mut self, mut asked: mpsc::Receiver<v1::ProbeTargets>) {
        let mut round: Option<Round> = None;
        let mut packet = [0u8; PACKET_BYTES + 1];
        loop {
            let next_at = round.as_ref().map(|round| round.next_at);
            let socket = Arc::clone(&self.socket);
            tokio::select! {
                targets = asked.recv() => match targets {
                    Some(targets) => round = Some(Round::new(targets).await),
                    None => return,
                },
                () = until(next_at) => self.on_time(&mut round).await,
                received = socket.recv_from(&mut packet) => {
                    // An error here tells of a peer that is not there, which says nothing of us.
                    if let Ok((PACKET_BYTES, from)) = received {
                        self.on_packet(&packet, from, &mut round).await;
                    }
                }
            }
        }
    }

    async fn on_time(&mut self, round: &mut Option<Round>) {
        if round.as_ref().is_some_and(Round::is_sent) {
            if let Some(done) = round.take() {
                let _ = self.found.try_send(done.reports());
            }
            return;
        }
        let Some(underway) = round else { return };
        match underway.probe(Instant::now()) {
            Some((address, packet)) => {
                let _ = self.socket.send_to(&packet, address).await;
            }
            None => *round = None,
        }
    }

    async fn on_packet(&mut self, packet: &[u8], from: SocketAddr, round: &mut Option<Round>) {
        let now = Instant::now();
        let Some((kind, rest)) = packet.split_first_chunk::<4>() else { return };
        let Some(&number) = rest.first_chunk::<16>() else { return };
        if *kind == ANSWER {
            if let Some(round) = round {
                round.answer(from, number, now);
            }
            return;
        }
        if *kind != ASK {
            return;
        }
        if now.duration_since(self.second) >= Duration::from_secs(1) {
            (self.second, self.answered) = (now, 0);
        }
        if self.answered < ANSWERS_PER_SECOND_MAX {
            self.answered += 1;
            let mut answer = [0; PACKET_BYTES];
            answer[..4].copy_from_slice(&ANSWER);
            answer[4..].copy_from_slice(&number);
            let _ = self.socket.send_to(&answer, from).await;
        }
    }
}

/// An address without the port that it may name.
fn host(address: &str) -> &str {
    if address.parse::<IpAddr>().is_ok() {
        return address;
    }
    let named = address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    named.map_or(address, |(host, _)| host.trim_matches(['[', ']']))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A port that is free on two loopback addresses at once.
    async fn free_port() -> u16 {
        let any = UdpSocket::bind("127.0.0.11:0").await.expect("a port");
        any.local_addr().expect("bound").port()
    }

    fn asked(port: u16, addresses: &[&str]) -> v1::ProbeTargets {
        let target = |(node_id, address): (u32, &&str)| v1::ProbeTarget {
            node_id,
            address: (*address).to_owned(),
        };
        v1::ProbeTargets {
            udp_port: port.into(),
            round_ms: 200,
            targets: (0..).zip(addresses).map(target).collect(),
        }
    }

    #[tokio::test]
    async fn two_probers_measure_each_other_and_miss_who_is_not_there() {
        let port = free_port().await;
        let (mut one, mut other) = (Prober::at("127.0.0.11"), Prober::at("127.0.0.12"));
        other.begin(asked(port, &[])).await;
        one.begin(asked(port, &["127.0.0.12", "127.0.0.13"])).await;
        let reports = one.next().await;
        assert_eq!(reports.len(), 1, "{reports:?}");
        let found = &reports[0];
        assert_eq!((found.node_id, found.answered), (0, PROBES_PER_TARGET as u32));
        assert!(found.rtt_us >= 1 && found.rtt_us <= found.rtt_us_high);
    }

    #[tokio::test]
    async fn only_the_one_who_was_asked_can_answer_and_only_with_the_number() {
        let mut round = Round::new(asked(9, &["127.0.0.12"])).await;
        let now = Instant::now();
        let (address, packet) = round.probe(now).expect("a probe");
        let number = *packet[4..].first_chunk().expect("a number");
        let liar = SocketAddr::from(([127, 0, 0, 13], 9));
        round.answer(liar, number, now);
        round.answer(address, [0; 16], now);
        assert!(round.times[0].is_empty());
        round.answer(address, number, now + Duration::from_millis(3));
        round.answer(address, number, now + Duration::from_millis(9));
        assert_eq!(round.times[0], [Duration::from_millis(3)]);
        assert_eq!(round.reports()[0].rtt_us, 3_000);
    }

    #[test]
    fn addresses_may_name_a_port_that_probes_do_not_use() {
        for (address, expected) in [
            ("h", "h"),
            ("h:22", "h"),
            ("::1", "::1"),
            ("[::1]:22", "::1"),
            ("10.0.0.1:9", "10.0.0.1"),
        ] {
            assert_eq!(host(address), expected);
        }
    }

    #[tokio::test]
    async fn an_agent_without_a_prober_hears_nothing() {
        let mut none = Prober::none();
        none.begin(asked(1, &["127.0.0.12"])).await;
        assert!(none.task.is_none());
    }
}
