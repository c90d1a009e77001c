//! Founding, growing, shrinking, handing over; whose directory it is.

use raft_store::{Member, QuorumError, ServerId, StoreError};

use crate::cluster::{Cluster, member};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn founding_twice_changes_nothing_and_nonsense_is_refused() {
    let cluster = Cluster::of(1).await;
    let last = cluster.fill(0..5, 1).await;
    let server = cluster.server(1);
    server.bootstrap(vec![member(1, true)]).await.expect("nothing to do");
    let before = cluster.agree(&[1], last).await;
    assert_eq!(server.status().members, [member(1, true)]);
    for bad in [
        vec![],
        vec![member(2, true)],
        vec![member(1, true), member(1, true)],
        vec![member(1, true), member(2, false)],
        vec![member(1, true), Member { id: ServerId(2), ..member(1, true) }],
    ] {
        let refused = server.bootstrap(bad).await.expect_err("nonsense");
        assert!(matches!(refused, QuorumError::Membership(_)), "{refused}");
    }
    assert_eq!(cluster.agree(&[1], last).await, before);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_catches_up_gets_a_vote_and_can_lead() {
    let mut cluster = Cluster::of(1).await;
    let last = cluster.fill(0..100, 5).await;
    for id in [2, 3] {
        cluster.start(id).await.expect("opens");
        cluster.server(1).add_learner(member(id, false)).await.expect("added");
        cluster.server(1).add_learner(member(id, false)).await.expect("known already");
    }
    cluster.agree(&[1, 2, 3], last).await;
    let moved = Member { peer_address: "elsewhere:1".to_owned(), ..member(2, false) };
    let refused = cluster.server(1).add_learner(moved).await.expect_err("another address");
    assert!(matches!(refused, QuorumError::Membership(_)), "{refused}");
    let refused = cluster.server(1).promote(ServerId(9)).await.expect_err("unknown");
    assert!(matches!(refused, QuorumError::Membership(_)), "{refused}");
    for id in [2, 3] {
        cluster.server(1).promote(ServerId(id)).await.expect("promoted");
    }
    let voters = cluster.server(1).status().members.iter().filter(|it| it.voter).count();
    assert_eq!(voters, 3);

    cluster.server(1).transfer_leader(Some(ServerId(3))).await.expect("handed over");
    assert_eq!(cluster.leader().await, 3);
    cluster.server(3).remove(ServerId(1)).await.expect("removed");
    cluster.stop(1).await;
    let last = cluster.fill(100..110, 1).await;
    cluster.agree(&[2, 3], last).await;
    assert_eq!(cluster.server(3).status().members.len(), 2);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_on_request() {
    let cluster = Cluster::of(3).await;
    cluster.fill(0..10, 1).await;
    let old = cluster.leader().await;
    cluster.server(old).transfer_leader(None).await.expect("handed over");
    let new = cluster.leader().await;
    assert_ne!(old, new);
    let last = cluster.fill(10..20, 1).await;
    cluster.agree(&[1, 2, 3], last).await;
    let follower = cluster.ids().into_iter().find(|id| *id != new).expect("a follower");
    let refused = cluster.server(follower).transfer_leader(None).await.expect_err("no leader");
    assert!(matches!(refused, QuorumError::NotLeader { .. }), "{refused}");
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_one_servers_alone() {
    let mut cluster = Cluster::of(1).await;
    let refused = cluster.start(1).await.expect_err("in use");
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    cluster.stop(1).await;
    std::fs::rename(cluster.dir(1), cluster.dir(2)).expect("renames");
    let refused = cluster.start(2).await.expect_err("another server's");
    assert!(matches!(refused, StoreError::Foreign { field: "server", .. }), "{refused}");
}
