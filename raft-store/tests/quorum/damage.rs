//! What is on disk is lost or damaged between two runs; the state must be the same, or the
//! server must refuse to start and say why.

use std::fs;
use std::path::Path;

use raft_store::StoreError;

use crate::cluster::{Cluster, names};

async fn stopped_with_a_snapshot() -> (Cluster, u64, u128) {
    let mut cluster = Cluster::of(1).await;
    cluster.fill(0..300, 20).await;
    cluster.server(1).snapshot_now().await.expect("taken");
    let last = cluster.fill(300..400, 20).await;
    let hash = cluster.agree(&[1], last).await;
    cluster.stop(1).await;
    (cluster, last, hash)
}

async fn comes_back(cluster: &mut Cluster, last: u64, hash: u128) {
    cluster.start(1).await.expect("opens");
    cluster.leader().await;
    assert_eq!(cluster.agree(&[1], last).await, hash);
}

fn flip(file: &Path, place: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(file).expect("reads");
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let at = place(written);
    bytes[at] ^= 0x10;
    fs::write(file, bytes).expect("writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_copy_in_sled_can_be_deleted_cut_or_flipped() {
    let (mut cluster, last, hash) = stopped_with_a_snapshot().await;
    let dir = cluster.dir(1);
    let state = dir.join("state");

    comes_back(&mut cluster, last, hash).await;
    assert_eq!(cluster.server(1).store_stats().mirror.rows_written, 0, "used as it was");
    cluster.stop(1).await;
    assert!(!names(&dir).iter().any(|name| name.contains(".bad-")), "used as it was");

    fs::remove_dir_all(&state).expect("deletes");
    comes_back(&mut cluster, last, hash).await;
    cluster.stop(1).await;

    let db = state.join("db");
    let bytes = fs::read(&db).expect("reads");
    fs::write(&db, &bytes[..bytes.len() / 3]).expect("cuts");
    comes_back(&mut cluster, last, hash).await;
    cluster.stop(1).await;

    for step in 1..6 {
        flip(&db, |written| written * step / 6);
        comes_back(&mut cluster, last, hash).await;
        cluster.stop(1).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_made_good_by_the_log() {
    let (mut cluster, last, hash) = stopped_with_a_snapshot().await;
    let dir = cluster.dir(1);
    fs::remove_dir_all(dir.join("state")).expect("deletes");
    let snapshots = dir.join("snapshots");
    let newest = names(&snapshots).pop().expect("a snapshot");
    flip(&snapshots.join(&newest), |written| written / 2);
    comes_back(&mut cluster, last, hash).await;
    assert!(names(&snapshots).contains(&format!("{newest}.bad")));
    cluster.stop_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_with_the_repair_that_is_allowed() {
    let (mut cluster, ..) = stopped_with_a_snapshot().await;
    let log = cluster.dir(1).join("log");
    let first = names(&log).into_iter().next().expect("a segment");
    flip(&log.join(first), |written| written / 2);
    let refused = cluster.start(1).await.expect_err("damaged");
    assert!(matches!(refused, StoreError::Corrupt { .. }), "{refused}");
    assert!(refused.to_string().contains("re-add it as a new learner"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_log_is_refused_although_the_state_is_there() {
    let (mut cluster, ..) = stopped_with_a_snapshot().await;
    fs::remove_dir_all(cluster.dir(1).join("log")).expect("deletes");
    let refused = cluster.start(1).await.expect_err("it forgot its vote");
    assert!(refused.to_string().contains("no vote"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_neither_snapshot_nor_log_reaches_is_refused() {
    let mut cluster = Cluster::tuned(1, |_, settings| settings.snapshot_every_entries = 1000).await;
    let server = cluster.server(1);
    for some in (0..3500u64).collect::<Vec<_>>().chunks(500) {
        let proposals =
            some.iter().map(|number| server.propose(vec![crate::cluster::entry(*number)]));
        for result in futures::future::join_all(proposals).await {
            result.expect("accepted");
        }
    }
    cluster.until(1, "purges", |status| status.purged_index > 0).await;
    cluster.stop(1).await;
    for lost in ["snapshots", "state"] {
        fs::remove_dir_all(cluster.dir(1).join(lost)).expect("deletes");
    }
    let refused = cluster.start(1).await.expect_err("a gap");
    assert!(refused.to_string().contains("the log begins behind"), "{refused}");
}
