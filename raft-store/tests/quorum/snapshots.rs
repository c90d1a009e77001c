//! Snapshots, purging, and servers that need a snapshot to catch up.

use raft_store::Settings;

use crate::cluster::{Cluster, member, names};

/// Snapshots often enough for a test.
fn often(_id: u64, settings: &mut Settings) {
    settings.snapshot_every_entries = 1200;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_is_purged_behind_two_snapshots_and_a_newcomer_gets_one() {
    let mut cluster = Cluster::tuned(1, often).await;
    let numbers: Vec<u64> = (0..4000).collect();
    let server = cluster.server(1);
    for some in numbers.chunks(500) {
        let proposals =
            some.iter().map(|number| server.propose(vec![crate::cluster::entry(*number)]));
        for result in futures::future::join_all(proposals).await {
            result.expect("accepted");
        }
    }
    cluster.until(1, "purges", |status| status.purged_index >= 1000).await;
    let status = cluster.server(1).status();
    assert!(status.purged_index <= status.snapshot_index);
    assert_eq!(names(&cluster.dir(1).join("snapshots")).len(), 2);

    cluster.wires.break_snapshots_after(Some(1));
    cluster.start(2).await.expect("opens");
    cluster.server(1).add_learner(member(2, false)).await.expect("added");
    let last = cluster.fill(4000..4010, 1).await;
    cluster.wires.break_snapshots_after(None);
    cluster.agree(&[1, 2], last).await;
    let replaced = cluster.ears[&2].replaced.lock().expect("lock").clone();
    assert_eq!(replaced.len(), 1, "one snapshot came through");
    let left: Vec<String> = names(&cluster.dir(2).join("snapshots"));
    assert!(left.iter().all(|name| !name.ends_with(".tmp")), "{left:?}");

    // Both come back from what is on disk.
    let hash = cluster.agree(&[1, 2], last).await;
    for id in [1, 2] {
        cluster.stop(id).await;
        cluster.start(id).await.expect("opens again");
    }
    cluster.leader().await;
    assert_eq!(cluster.agree(&[1, 2], last).await, hash);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_on_demand_covers_what_was_applied() {
    let cluster = Cluster::of(1).await;
    let last = cluster.fill(0..50, 5).await;
    cluster.server(1).snapshot_now().await.expect("taken");
    let stats = cluster.server(1).store_stats();
    assert!(stats.snapshot_index >= last);
    assert!(stats.snapshot_bytes > 0);
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_bytes_make_a_snapshot_too() {
    let cluster = Cluster::tuned(1, |_, settings| settings.snapshot_every_bytes = 64 * 1024).await;
    cluster.fill(0..4000, 100).await;
    cluster.until(1, "snapshots", |status| status.snapshot_index > 0).await;
    cluster.stop_all().await;
}
