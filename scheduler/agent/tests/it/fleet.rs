//! Many agents in one process.

use crate::fake::{Fake, Manner, assignment, soon};
use proto::v1;
use scheduler_agent::fleet::{Fleet, FleetError, JOINS_MAX, Options};
use scheduler_agent::link::Credential;
use scheduler_agent::profile::Profile;
use scheduler_agent::runtime::simulated;

fn options(fake: &Fake, nodes: usize) -> Options {
    Options {
        servers: vec![fake.endpoint.clone()],
        credential: Credential::new(None, Some("demo")).unwrap(),
        nodes: Profile::global().unwrap().nodes(nodes),
        runtime: simulated::Options::default(),
        joins_max: JOINS_MAX,
    }
}

async fn sessions(fleet: &Fleet, count: u64) {
    soon("all sessions", fleet.wait(|now| now.sessions == count)).await;
}

fn one_each() -> Manner {
    let assignments = vec![assignment(1, 0, &[0])];
    let desired = v1::DesiredState { epoch: 0, index: 1, assignments };
    Manner { desired: Some(desired), heartbeat_ms: 200, ..Manner::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_comes_up_loses_nodes_and_gets_them_back() {
    let mut fake = Fake::start(one_each()).await;
    let mut fleet = Fleet::start(options(&fake, 300)).unwrap();
    sessions(&fleet, 300).await;
    let progress = fleet.progress();
    assert_eq!((progress.agents, progress.joined, progress.replicas_ready), (300, 300, 300));

    let killed = fleet.kill_some(20);
    assert_eq!(killed.len(), 20);
    soon("the killed to be gone", fleet.wait(|now| now.agents == 280)).await;
    assert_eq!((fleet.progress().sessions, fleet.progress().replicas_ready), (280, 280));

    let lost = fleet.lose_site("iad1");
    let rest = 280 - lost as u64;
    assert!(lost > 10);
    soon("the dark site", fleet.wait(|now| now.sessions == rest)).await;

    fake.drain();
    assert_eq!(fleet.restart_nodes(&killed).unwrap(), 20);
    let back = fleet.restore_site("iad1").unwrap();
    assert!(back >= lost);
    sessions(&fleet, 300).await;
    assert_eq!(fleet.progress().fences, 0);
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_site_keeps_its_sessions_open() {
    let mut fake = Fake::start(one_each()).await;
    let mut fleet = Fleet::start(options(&fake, 40)).unwrap();
    sessions(&fleet, 40).await;
    let lost = fleet.lose_site("iad1") as u64;
    soon("darkness", fleet.wait(|now| now.sessions == 40 - lost)).await;
    let closed = fake.drain().into_iter().filter(|h| matches!(h, crate::fake::Heard::Closed(_)));
    assert_eq!(closed.count(), 0, "a power cut says nothing");
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_keeps_its_key_and_takes_another_instance() {
    let mut fake = Fake::start(Manner::default()).await;
    let mut fleet = Fleet::start(options(&fake, 1)).unwrap();
    let first = fake.join().await;
    fake.hello().await;
    let names = fleet.alive();
    fleet.restart_nodes(&names).unwrap();
    let second = fake.join().await;
    assert_eq!(first.node_key, second.node_key);
    assert_ne!(first.instance, second.instance);
}

#[tokio::test]
async fn bad_options_are_refused() {
    let fake = Fake::start(Manner::default()).await;
    let mut bad = options(&fake, 1);
    bad.runtime.failure_rate = 2.0;
    assert!(matches!(Fleet::start(bad), Err(FleetError::Runtime(_))));
    let mut bad = options(&fake, 1);
    bad.servers.clear();
    assert!(matches!(Fleet::start(bad), Err(FleetError::Endpoint(_))));
}
