//! Round trips that agents measure: tells each session whom to measure, gathers what they say,
//! and hands it to the leader, who makes site RTTs of it.
//!
//! **Invariant:** only what this server asked a session for is taken from it, once; what waits
//! for the leader is bounded, and losing it costs a round.

use super::table::{Slot, Table};
use crate::applied::lock;
use crate::clock;
use crate::config::Probing;
use crate::forward::{LeaderCall, Router};
use crate::status::bad_field;
use proto::v1;
use raft_store::Quorum;
use scheduler_core::duty::probes::{Probe, Roster, TARGETS_PER_NODE};
use scheduler_core::id::NodeId;
use scheduler_core::unit::RttUs;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::MissedTickBehavior;
use tonic::Status;

/// Reports that wait for the leader; more are dropped. A round of the largest fleet on one server.
const WAITING_MAX: usize = 524_288;
/// Reports in one call to the leader: about 100 KB.
const BATCH_MAX: usize = 4_096;
/// How long one call may take before its reports are given up.
const CALL_WAIT: Duration = Duration::from_secs(5);
/// Gathered reports go to the leader so many times in a round.
const CALLS_PER_ROUND: u32 = 8;
/// Sessions told between two pauses for others.
const SESSIONS_IN_A_ROW: usize = 1_024;

/// Reports on their way to the leader.
#[derive(Debug, Default)]
pub struct Gathered(Mutex<Vec<Probe>>);

impl Gathered {
    /// Takes in what a session found.
    pub fn push(&self, probes: Vec<Probe>) {
        let mut waiting = lock(&self.0);
        let room = WAITING_MAX.saturating_sub(waiting.len());
        waiting.extend(probes.into_iter().take(room));
    }

    fn take(&self) -> Vec<Probe> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// What a session was asked to measure and has not told yet.
#[derive(Debug, Default)]
pub struct Asked(Mutex<Vec<NodeId>>);

impl Asked {
    /// Replaces what was asked before.
    pub fn ask(&self, targets: &[NodeId]) {
        *lock(&self.0) = targets.to_vec();
    }

    /// The reports that were asked for, each once. `node` is the session's own.
    ///
    /// # Errors
    /// More reports than are ever asked for.
    pub fn answered(&self, node: NodeId, told: &v1::ProbeReports) -> Result<Vec<Probe>, Status> {
        let count = told.reports.len();
        if count > TARGETS_PER_NODE {
            let problem = format!("has {count} entries; at most {TARGETS_PER_NODE} are asked for");
            return Err(bad_field("probes.reports", &problem));
        }
        let mut asked = lock(&self.0);
        let mut probes = Vec::with_capacity(count);
        for report in &told.reports {
            let to = NodeId(report.node_id);
            let Some(at) = asked.iter().position(|&target| target == to) else { continue };
            asked.swap_remove(at);
            let (median, high) = (RttUs(report.rtt_us), RttUs(report.rtt_us_high));
            probes.push(Probe { from: node, to, median, high, answered: report.answered });
        }
        Ok(probes)
    }
}

/// Asks and relays for as long as it is polled; does nothing where probing is off.
pub async fn run(
    quorum: Quorum,
    router: Router,
    table: Arc<Table>,
    gathered: Arc<Gathered>,
    probing: Probing,
) {
    if probing.udp_port == 0 {
        return std::future::pending().await;
    }
    let mut tick = tokio::time::interval(probing.round() / CALLS_PER_ROUND);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Servers need not count alike; a node's sessions are at one of them at a time.
    for number in 0u64.. {
        tick.tick().await;
        relay(&router, gathered.take()).await;
        if number.is_multiple_of(CALLS_PER_ROUND.into()) {
            ask_all(&quorum, &table, probing, number / u64::from(CALLS_PER_ROUND)).await;
        }
    }
}

async fn relay(router: &Router, probes: Vec<Probe>) {
    for batch in probes.chunks(BATCH_MAX) {
        let call = LeaderCall::Probed(batch.to_vec());
        if let Err(error) = router.call(call, clock::deadline(CALL_WAIT)).await {
            tracing::debug!(%error, "measured round trips were lost");
            return;
        }
    }
}

async fn ask_all(quorum: &Quorum, table: &Table, probing: Probing, round: u64) {
    let roster = quorum.read(Roster::new);
    for slots in table.all().chunks(SESSIONS_IN_A_ROW) {
        for slot in slots {
            ask(quorum, &roster, slot, probing, round);
        }
        tokio::task::yield_now().await;
    }
}

fn ask(quorum: &Quorum, roster: &Roster, slot: &Slot, probing: Probing, round: u64) {
    let targets = roster.targets(slot.node, round);
    slot.asked.ask(&targets);
    let targets = quorum.read(|state| {
        let target = |&id: &NodeId| {
            let address = state.node(id)?.address.to_string();
            Some(v1::ProbeTarget { node_id: id.0, address })
        };
        targets.iter().filter_map(target).collect()
    });
    slot.outbox.probe(v1::ProbeTargets {
        udp_port: probing.udp_port.into(),
        round_ms: probing.round_ms,
        targets,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(node_id: u32) -> v1::ProbeReport {
        v1::ProbeReport { node_id, rtt_us: 7, rtt_us_high: 9, answered: 5 }
    }

    #[test]
    fn only_what_was_asked_is_taken_and_only_once() {
        let asked = Asked::default();
        asked.ask(&[NodeId(1), NodeId(2)]);
        let told = v1::ProbeReports { reports: vec![report(1), report(1), report(9)] };
        let probes = asked.answered(NodeId(5), &told).expect("few");
        assert_eq!(probes.iter().map(|p| (p.from.0, p.to.0)).collect::<Vec<_>>(), [(5, 1)]);
        assert!(asked.answered(NodeId(5), &told).expect("few").is_empty());
        let many = v1::ProbeReports { reports: vec![report(2); TARGETS_PER_NODE + 1] };
        assert!(asked.answered(NodeId(5), &many).is_err());
    }

    #[test]
    fn what_waits_is_bounded() {
        let gathered = Gathered::default();
        let asked = Asked::default();
        asked.ask(&[NodeId(1)]);
        let told = v1::ProbeReports { reports: vec![report(1)] };
        let one = asked.answered(NodeId(5), &told).expect("few");
        gathered.push(one.repeat(WAITING_MAX + 5));
        assert_eq!(gathered.take().len(), WAITING_MAX);
        assert!(gathered.take().is_empty());
    }
}
