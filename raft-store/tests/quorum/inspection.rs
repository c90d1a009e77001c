//! Looking into a stopped server's directory.

use std::fs;

use raft_store::StoreError;
use raft_store::inspect::{Part, check, dump};

use crate::cluster::{Cluster, names};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_servers_directory_is_clean_and_a_running_ones_is_refused() {
    let mut cluster = Cluster::of(1).await;
    cluster.fill(0..100, 10).await;
    cluster.server(1).snapshot_now().await.expect("taken");
    let last = cluster.fill(100..150, 10).await;
    let hash = cluster.agree(&[1], last).await;
    let dir = cluster.dir(1);
    let refused = check(&dir).expect_err("it runs");
    assert!(matches!(refused, StoreError::Locked { .. }), "{refused}");
    cluster.stop(1).await;

    let report = check(&dir).expect("reads");
    assert!(report.is_clean() && report.is_usable(), "{report:?}");
    let replay = report.replay.as_ref().expect("replayed");
    assert_eq!(replay.state_hash, format!("{hash:032x}"));
    assert_eq!((replay.copy_agrees, replay.to_index), (Some(true), last));
    assert!(replay.from_index > 0);
    serde_json::to_string(&report).expect("is JSON");

    for (part, least) in [(Part::Log, 15), (Part::Snapshot, 100), (Part::Copy, 150)] {
        let mut out = Vec::new();
        dump(&dir, part, &mut out).expect("prints");
        let text = String::from_utf8(out).expect("text");
        assert!(text.lines().count() >= least, "{part:?}: {} lines", text.lines().count());
        for line in text.lines() {
            let _: serde_json::Value = serde_json::from_str(line).expect("is JSON");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found_without_being_touched() {
    let mut cluster = Cluster::of(1).await;
    cluster.fill(0..100, 10).await;
    cluster.server(1).snapshot_now().await.expect("taken");
    cluster.stop(1).await;
    let dir = cluster.dir(1);
    let snapshots = dir.join("snapshots");
    let newest = names(&snapshots).pop().expect("a snapshot");
    let path = snapshots.join(newest);
    let mut bytes = fs::read(&path).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(&path, &bytes).expect("writes");
    let report = check(&dir).expect("reads");
    assert!(!report.is_clean(), "{report:?}");
    assert!(report.is_usable(), "the log holds everything: {report:?}");
    assert_eq!(report.faults.len(), 1);
    assert_eq!(fs::read(&path).expect("reads"), bytes);

    let refused = check(&dir.join("nowhere")).expect_err("nothing there");
    assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
}
