//! How a server stands, from the consensus library's metrics.
//!
//! **Invariant:** read only.

use std::sync::Arc;

use openraft::async_runtime::WatchReceiver;
use openraft::{Instant as _, RaftMetrics, ServerState};
use tokio::sync::watch;

use super::member::{PeerLag, Role, ServerId, Status};
use super::transport::Observer;
use crate::raft::types::{LogId, Raft, StoredMembership, Types, members};

/// The present standing.
pub(super) fn of(raft: &Raft) -> Status {
    let metrics = raft.metrics().borrow_watched().clone();
    status(&metrics)
}

fn status(metrics: &RaftMetrics<Types>) -> Status {
    let index = |id: &Option<LogId>| id.as_ref().map_or(0, |id| id.index);
    let members = members(metrics.membership_config.membership());
    let leader = metrics.current_leader.map(ServerId);
    let leader = leader.and_then(|id| members.iter().find(|member| member.id == id)).cloned();
    let last_log_index = metrics.last_log_index.unwrap_or(0);
    Status {
        server: ServerId(metrics.id),
        role: role(metrics),
        term: metrics.current_term,
        leader,
        last_log_index,
        committed_index: index(&metrics.local_committed),
        applied_index: index(&metrics.last_applied),
        snapshot_index: index(&metrics.snapshot),
        purged_index: index(&metrics.purged),
        members,
        peers: peers(metrics, last_log_index),
        quorum_ack_age_ms: metrics.last_quorum_acked.map(|at| millis(at.elapsed())),
        fault: metrics.running_state.as_ref().err().map(ToString::to_string),
    }
}

fn role(metrics: &RaftMetrics<Types>) -> Role {
    if metrics.running_state.is_err() {
        return Role::Stopped;
    }
    match metrics.state {
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

fn peers(metrics: &RaftMetrics<Types>, last_log_index: u64) -> Vec<PeerLag> {
    let Some(replication) = &metrics.replication else { return Vec::new() };
    let others = replication.iter().filter(|(id, _)| **id != metrics.id);
    let lag = |(id, matched): (&u64, &Option<LogId>)| {
        let matched_index = matched.as_ref().map_or(0, |matched| matched.index);
        let ack = metrics.heartbeat.as_ref().and_then(|acks| *acks.get(id)?);
        PeerLag {
            id: ServerId(*id),
            matched_index,
            lag: last_log_index.saturating_sub(matched_index),
            last_ack_ms: ack.map(|ack| millis(ack.elapsed())),
        }
    };
    others.map(lag).collect()
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What makes a standing: role, term, leader, members.
type Seen = (Role, u64, Option<u64>, Arc<StoredMembership>);

/// Publishes each change of standing until the library stops.
pub(super) async fn watch(
    raft: Raft,
    standing: watch::Sender<Status>,
    observer: Arc<dyn Observer>,
) {
    let mut metrics = raft.metrics();
    let mut seen = None;
    loop {
        let now = metrics.borrow_watched().clone();
        let term = now.current_term;
        let quick = (role(&now), term, now.current_leader, now.membership_config.clone());
        let same = seen.as_ref().is_some_and(|seen: &Seen| {
            (seen.0, seen.1, seen.2) == (quick.0, quick.1, quick.2)
                && Arc::ptr_eq(&seen.3, &quick.3)
        });
        if !same {
            seen = Some(quick);
            let status = status(&now);
            let (role, leader) = (status.role, status.leader.as_ref().map(|leader| leader.id));
            tracing::info!(?role, term, ?leader, "standing changed");
            observer.leadership(&status);
            standing.send_replace(status);
        }
        if metrics.changed().await.is_err() {
            break;
        }
    }
    // The library's task is gone, by request or by a panic.
    standing.send_modify(|status| {
        status.role = Role::Stopped;
        status.leader = None;
        status.fault.get_or_insert_with(|| "stopped".to_owned());
    });
    let status = standing.borrow().clone();
    observer.leadership(&status);
}
