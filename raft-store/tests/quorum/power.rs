//! Power cuts and failing disks under load: what was acknowledged stays, and a server whose disk
//! failed stops.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use raft_store::Role;
use raft_store::files::fault::{FaultFiles, Loss, Op};

use crate::cluster::{Cluster, entry};

/// One simulated disk per server.
fn disks(count: u64) -> BTreeMap<u64, FaultFiles> {
    (1..=count).map(|id| (id, FaultFiles::new())).collect()
}

async fn on(disks: &BTreeMap<u64, FaultFiles>) -> Cluster {
    let disks = disks.clone();
    let count = disks.len() as u64;
    Cluster::tuned(count, move |id, settings| settings.files = Arc::new(disks[&id].clone())).await
}

/// Proposes tenants until the power goes; notes those acknowledged.
async fn load(cluster: &Cluster, first: u64, acked: &Mutex<Vec<u64>>, dark: &AtomicBool) {
    let mut number = first;
    while !dark.load(Ordering::Acquire) {
        let leader = cluster.ids().into_iter().find(|id| cluster.server(*id).status().is_leader());
        let Some(leader) = leader else {
            tokio::task::yield_now().await;
            continue;
        };
        // An answer may never come from a server without power.
        let answer = cluster.server(leader).propose(vec![entry(number)]);
        if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), answer).await {
            acked.lock().expect("lock").push(number);
            number += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_all_servers_lose_power_at_once() {
    for seed in 0..6 {
        let disks = disks(3);
        let mut cluster = on(&disks).await;
        let acked = Mutex::new(Vec::new());
        let dark = AtomicBool::new(false);
        let enough = 20 + seed as usize * 37;
        let cut = async {
            while acked.lock().expect("lock").len() < enough {
                tokio::task::yield_now().await;
            }
            for disk in disks.values() {
                disk.crash(Loss::Torn { seed });
            }
            dark.store(true, Ordering::Release);
        };
        let loads = [0, 100_000, 200_000].map(|first| load(&cluster, first, &acked, &dark));
        futures::future::join(cut, futures::future::join_all(loads)).await;
        let acked = acked.into_inner().expect("lock");
        for id in 1..=3 {
            // It may report that its disk failed; it has to let go all the same.
            cluster.stop(id).await;
            // The copy lies on a disk that kept its power: it must not cover up a loss.
            let state = cluster.dir(id).join("state");
            std::fs::remove_dir_all(state).expect("deletes");
        }
        for id in 1..=3 {
            cluster.start(id).await.expect("opens after the cut");
        }
        let last = cluster.propose(Vec::new()).await.index;
        cluster.agree(&[1, 2, 3], last).await;
        let names: Vec<String> = cluster
            .server(1)
            .read(|state| state.tenants().map(|tenant| tenant.id.0.to_string()).collect());
        for number in acked {
            assert!(names.contains(&format!("tenant-{number}")), "seed {seed}: lost {number}");
        }
        cluster.stop_all().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_disk_fails_stops_and_the_others_go_on() {
    let disks = disks(3);
    let mut cluster = on(&disks).await;
    cluster.fill(0..10, 1).await;
    let broken = cluster.leader().await;
    disks[&broken].fail(Op::Sync, 0, io::ErrorKind::Other);
    // Accepted when the other two hold it; the broken disk is not one of the two then.
    let _ = cluster.server(broken).propose(vec![entry(10)]).await;
    cluster.until(broken, "stops", |status| status.role == Role::Stopped).await;
    let mut standing = cluster.server(broken).watch();
    standing.wait_for(|status| status.role == Role::Stopped).await.expect("announced");
    cluster.stop(broken).await;
    let last = cluster.fill(11..20, 1).await;
    let others = cluster.ids();
    cluster.agree(&others, last).await;
    cluster.stop_all().await;
}
