//! Round trips: real agents on loopback measure each other, and the cluster comes to know how far
//! their sites are apart.

use crate::harness::PATIENCE;
use scheduler_agent::agent::Order;
use scheduler_agent::config::Config as AgentConfig;
use scheduler_agent::serve::serve;
use scheduler_core::id::Name;
use scheduler_core::topology::Origin;
use scheduler_server::{Config, Server};
use std::net::UdpSocket;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// One agent per loopback address: on one machine only so can all answer on one port.
const ADDRESSES: [&str; 3] = ["127.0.0.21", "127.0.0.22", "127.0.0.23"];

fn agent(server: &str, dir: &std::path::Path, at: usize) -> AgentConfig {
    let (data_dir, address) = (dir.join(format!("agent-{at}")), ADDRESSES[at]);
    // The first two share a site.
    let site = at.max(1);
    let text = format!(
        "servers = ['{server}']\nsupplier = 'dc{site}'\ndata_dir = {data_dir:?}\n\
         [node]\nname = 'n{at}'\nregion = 'r'\nzone = 'z'\nsite = 's{site}'\n\
         address = '{address}'\ngpus = [{{ model = 'T4', vram_mib = 15360 }}]\n\
         [runtime]\nkind = 'simulated'\noptions = {{ start = {{ kind = 'fixed', ms = 0 }} }}\n",
    );
    AgentConfig::parse(&text).expect("a sound configuration")
}

#[tokio::test(flavor = "multi_thread")]
async fn sites_of_agents_that_measure_each_other_have_an_rtt() {
    let dir = tempfile::tempdir().expect("a temp dir");
    let port = UdpSocket::bind((ADDRESSES[0], 0)).expect("a port").local_addr().expect("bound");
    let mut config = Config::dev(1, dir.path().join("server"));
    config.cluster.probing.udp_port = port.port();
    config.cluster.probing.round_ms = 400;
    let server = Server::start(config).await.expect("the server starts");
    server.bootstrap(vec![server.member()]).await.expect("founded");
    server.wait_for_leader().await;
    let endpoint = format!("http://{}", server.api_address());
    let (orders, order) = watch::channel(Order::Run);
    for at in 0..ADDRESSES.len() {
        let (config, order) = (agent(&endpoint, dir.path(), at), order.clone());
        tokio::spawn(async move { serve(&config, order).await });
    }
    let site = |text: &str| Name::parse(text).expect("a name");
    let end = Instant::now() + PATIENCE;
    let mut index = 0;
    let measured = loop {
        let (found, now) = server.quorum().read(|state| {
            let sites = state.sites();
            let pair = sites.find(&site("s1")).zip(sites.find(&site("s2")));
            (pair.and_then(|(a, b)| sites.measured(a, b)), state.index())
        });
        if let Some(found) = found {
            break found;
        }
        assert!(Instant::now() < end, "the pair was never measured");
        index = index.max(now);
        let look = (Instant::now() + Duration::from_millis(100)).min(end);
        let _ = server.quorum().wait_applied(index + 1, look.into_std()).await;
    };
    assert!(measured.samples >= 3 && measured.median <= measured.high, "{measured:?}");
    // Loopback, however busy the machine.
    assert!((1..1_000_000).contains(&measured.median.0), "{measured:?}");
    let origin = server.quorum().read(|state| {
        let sites = state.sites();
        let (a, b) = sites.find(&site("s1")).zip(sites.find(&site("s2")))?;
        Some(sites.spread(a, b)?.origin)
    });
    assert_eq!(origin, Some(Origin::Measured));
    drop(orders);
}
