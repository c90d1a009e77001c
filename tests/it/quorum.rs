//! Servers killed, stopped, wiped, mixed up and out of disk: nothing acknowledged is lost or done
//! twice, and what is wrong is refused in words.

use crate::harness::client::{Client, is_passing, pause};
use crate::harness::nodes::{Behaviour, TestAgent};
use crate::harness::specs::job;
use crate::harness::{Cluster, PATIENCE};
use proto::v1::{self, JobPhase};
use tokio::time::Instant;
use tonic::Code;

/// Submits jobs of one GPU under `prefix` until told to stop; ids of what was acknowledged.
async fn load(client: Client, prefix: &str, jobs: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    for n in 0..jobs {
        let answer = client.submit_surely(&format!("{prefix}-{n}"), job(1, 1)).await;
        ids.push(answer.job.expect("a job").id);
    }
    ids
}

async fn assert_all_there(client: &Client, ids: &[u64]) {
    for &id in ids {
        let found = client.job(id).await;
        assert!(found.is_ok(), "acknowledged job {id} is lost: {found:?}");
    }
    let mut unique = ids.to_vec();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "two requests got one job");
}

#[tokio::test]
async fn a_killed_leader_loses_nothing_and_comes_back() {
    let mut cluster = Cluster::start(3).await;
    let _agent = TestAgent::start(&cluster.client(), "n1", 64, Behaviour::Obedient).await;
    let loader = tokio::spawn(load(cluster.client(), "k", 40));
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.kill(leader);
        cluster.leader().await;
        cluster.start_server(leader);
    }
    let ids = loader.await.expect("the load ran");
    cluster.leader().await;
    assert_all_there(&cluster.client(), &ids).await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn all_servers_killed_at_once_remember_everything() {
    let mut cluster = Cluster::start(3).await;
    let _agent = TestAgent::start(&cluster.client(), "n1", 64, Behaviour::Obedient).await;
    let ids = load(cluster.client(), "a", 30).await;
    for at in 0..3 {
        cluster.kill(at);
    }
    for at in 0..3 {
        cluster.start_server(at);
    }
    cluster.leader().await;
    assert_all_there(&cluster.client(), &ids).await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn an_acknowledgement_lost_is_asked_for_again_elsewhere() {
    let mut cluster = Cluster::start(3).await;
    let _agent = TestAgent::start(&cluster.client(), "n1", 8, Behaviour::Obedient).await;
    let leader = cluster.leader().await;
    // The answer is thrown away: the call is dropped as soon as it has been sent.
    let call = cluster.client_of(leader);
    let lost =
        tokio::time::timeout(std::time::Duration::from_millis(4), call.submit("once", job(8, 1)));
    let _ = lost.await;
    cluster.kill(leader);
    let first = cluster.client().submit_surely("once", job(8, 1)).await.job.expect("a job").id;
    cluster.start_server(leader);
    cluster.leader().await;
    for at in 0..3 {
        let again = cluster.client_of(at).submit_surely("once", job(8, 1)).await;
        assert!(again.known);
        assert_eq!(again.job.expect("a job").id, first);
    }
    cluster.client().until_phase(first, JobPhase::Ready).await;
    assert_eq!(cluster.client().gpu_milli_used().await, 8_000);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn a_stopped_leader_wakes_up_deposed() {
    let cluster = Cluster::start(3).await;
    let _agent = TestAgent::start(&cluster.client(), "n1", 64, Behaviour::Obedient).await;
    let leader = cluster.leader().await;
    let old_term = cluster.client_of(leader).quorum_status(false).await.expect("status").term;
    let child = cluster.children[leader].as_ref().expect("it runs");
    child.signal("STOP");
    // The others elect and go on.
    let others = (0..3).filter(|&at| at != leader).collect::<Vec<_>>();
    let rest = Client::new(others.iter().map(|&at| cluster.addresses[at].api.as_str()));
    let ids = load(rest.clone(), "s", 5).await;
    child.signal("CONT");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = cluster.client_of(leader).quorum_status(false).await;
        if status.is_ok_and(|status| status.term > old_term && status.leader_id != 0) {
            break;
        }
        cluster.assert_time_left(deadline, "the old leader does not follow");
        pause().await;
    }
    // A linearizable read on it shows what was written while it slept.
    assert_all_there(&cluster.client_of(leader), &ids).await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn a_minority_lost_serves_on_and_a_majority_lost_refuses_and_recovers() {
    let mut cluster = Cluster::start(3).await;
    let _agent = TestAgent::start(&cluster.client(), "n1", 8, Behaviour::Obedient).await;
    let leader = cluster.leader().await;
    let (a, b) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.kill(a);
    let first = cluster.client_of(leader).submit_surely("one-down", job(1, 1)).await;
    cluster.kill(b);
    let alone = cluster.client_of(leader);
    let deadline = Instant::now() + PATIENCE;
    loop {
        // The first try may still hang on a lease that has not run out: only its code counts.
        match alone.submit("two-down", job(1, 1)).await {
            Err(status) if status.code() == Code::Unavailable => break,
            Err(status) => assert!(is_passing(&status), "{status}"),
            Ok(_) => panic!("a write was acknowledged without a majority"),
        }
        cluster.assert_time_left(deadline, "no refusal");
    }
    cluster.start_server(a);
    cluster.start_server(b);
    cluster.leader().await;
    assert_all_there(&cluster.client(), &[first.job.expect("a job").id]).await;
    let client = cluster.client();
    let later = client.submit_surely("two-down", job(1, 1)).await.job.expect("a job").id;
    client.until_phase(later, JobPhase::Ready).await;
    assert_eq!(client.gpu_milli_used().await, 2_000);
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

/// Starts a server that has to refuse, and gives what it said.
fn refusal(cluster: &mut Cluster, at: usize) -> String {
    let before = std::fs::read_to_string(cluster.log_path(at)).unwrap_or_default().len();
    cluster.start_server(at);
    let child = cluster.children[at].take().expect("it was started");
    let status = child.wait();
    assert_eq!(status.code(), Some(3), "it did not refuse: {}", cluster.logs());
    let log = std::fs::read_to_string(cluster.log_path(at)).expect("it has a log");
    log[before..].lines().find(|line| line.contains("refused:")).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_wiped_server_is_refused_under_its_old_id_and_welcome_under_a_new_one() {
    let mut cluster = Cluster::start(3).await;
    let _agent = TestAgent::start(&cluster.client(), "n1", 8, Behaviour::Obedient).await;
    load(cluster.client(), "w", 3).await;
    let leader = cluster.leader().await;
    let wiped = (leader + 1) % 3;
    cluster.kill(wiped);
    std::fs::remove_dir_all(cluster.data_dir(wiped)).expect("wiped");
    let said = refusal(&mut cluster, wiped);
    assert!(said.contains("new id") || said.contains("new server id"), "{said}");
    // Under a new id it joins as a learner and is promoted.
    let old_id = cluster.addresses[wiped].id;
    let at = cluster.add_address(4);
    cluster.start_server(at);
    let (client, new) = (cluster.client_of(leader), cluster.addresses[at].clone());
    let message = v1::AddLearnerRequest {
        server_id: new.id,
        peer_address: new.peer.clone(),
        api_address: new.api.clone(),
    };
    client.quorum().add_learner(client.operator(message)).await.expect("a learner");
    let message = v1::PromoteServerRequest { server_id: new.id };
    client.quorum().promote_server(client.operator(message)).await.expect("a voter");
    let message = v1::RemoveServerRequest { server_id: old_id };
    client.quorum().remove_server(client.operator(message)).await.expect("removed");
    let status = client.quorum_status(false).await.expect("status");
    let voters = status.servers.iter().filter(|s| s.voter).map(|s| s.server_id).collect::<Vec<_>>();
    assert!(voters.contains(&4) && !voters.contains(&old_id), "{voters:?}");
    cluster.equal_hashes().await;
    // With the old one gone the new one counts: the leader may be lost.
    cluster.kill(leader);
    cluster.leader().await;
    cluster.client().submit_surely("after", job(1, 1)).await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn foreign_data_and_doubled_directories_are_refused() {
    let cluster = Cluster::start(1).await;
    // Two processes on one directory.
    let mut second = Cluster::prepare("test", 1);
    let config = std::fs::read_to_string(second.config_path(0)).expect("config");
    let (own, theirs) = (second.data_dir(0), cluster.data_dir(0));
    let config = config.replace(&format!("{own:?}"), &format!("{theirs:?}"));
    std::fs::write(second.config_path(0), config).expect("config");
    let said = refusal(&mut second, 0);
    assert!(said.contains("lock") || said.contains("use"), "{said}");
    cluster.stop_and_check();

    // Another cluster's data, and another server's.
    let mut first = Cluster::start(1).await;
    first.kill(0);
    let mut foreign = Cluster::prepare("other", 1);
    std::fs::rename(first.data_dir(0), foreign.data_dir(0)).expect("moved");
    let said = refusal(&mut foreign, 0);
    assert!(said.contains("other") && said.contains("test"), "{said}");
    crate::harness::check_data(&foreign.data_dir(0), false);
}

#[tokio::test]
async fn a_server_without_disk_space_stops_and_the_others_go_on() {
    let mut cluster = Cluster::prepare("test", 3);
    cluster.start_server(0);
    cluster.start_server(1);
    cluster.leader().await;
    // The third may not write a log segment to its end.
    cluster.start_server_on_small_disk(2, 256);
    let client = Client::new(cluster.addresses[..2].iter().map(|address| address.api.as_str()));
    let _agent = TestAgent::start(&client, "n1", 64, Behaviour::Obedient).await;
    let ids = load(client.clone(), "d", 20).await;
    let deadline = Instant::now() + PATIENCE;
    while !cluster.children[2].as_mut().expect("started").has_ended() {
        cluster.assert_time_left(deadline, "a server that cannot write still runs");
        pause().await;
    }
    assert_all_there(&client, &ids).await;
    // With space again it starts, catches up, and agrees.
    cluster.kill(2);
    cluster.start_server(2);
    cluster.leader().await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}

#[tokio::test]
async fn leadership_moves_on_request_and_on_shutdown() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let to = cluster.addresses[(leader + 1) % 3].id;
    let client = cluster.client_of((leader + 2) % 3);
    let message = v1::TransferLeaderRequest { server_id: to };
    client.quorum().transfer_leader(client.operator(message)).await.expect("transferred");
    let deadline = Instant::now() + PATIENCE;
    while cluster.addresses[cluster.leader().await].id != to {
        cluster.assert_time_left(deadline, "leadership did not move");
    }
    let leader = cluster.leader().await;
    let child = cluster.children[leader].take().expect("it runs");
    assert_eq!(child.terminate().code(), Some(0), "{}", cluster.logs());
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.start_server(leader);
    cluster.leader().await;
    cluster.equal_hashes().await;
    cluster.stop_and_check();
}
