//! Tells the leader, again and again, whom this server has heard.
//!
//! **Invariant:** a heartbeat is acknowledged only after the leader has counted it.

use super::table::{Table, end};
use crate::clock;
use crate::forward::{CallError, LeaderCall, LeaderReply, Router};
use proto::v1::SessionEndReason;
use raft_store::{Quorum, ServerId};
use scheduler_core::duty::leases::{Refused, RefusedWhy};
use scheduler_core::duty::timing::Timing;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::MissedTickBehavior;

/// How long one digest may be on its way before a newer one is made: about one election.
const ANSWER_WAIT: Duration = Duration::from_secs(1);
/// Pause before a digest out of turn: gathers the agents that come together after a fault.
const HURRY_PAUSE: Duration = Duration::from_millis(100);

/// Sends digests for as long as it is polled.
pub async fn run(own: ServerId, quorum: Quorum, router: Router, table: Arc<Table>, timing: Timing) {
    let mut tick = tokio::time::interval(clock::duration(timing.digest()));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut counted_at = clock::instant();
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = table.hurried() => tokio::time::sleep(HURRY_PAUSE).await,
        }
        let fleet = quorum.read(|state| state.node_id_end());
        close_silent(&table, clock::duration(timing.lease(fleet)));
        let sweep = table.sweep(own);
        // When cut off, an empty digest finds out whether that is over.
        let idle = sweep.digest.heard.is_empty() && sweep.digest.closed.is_empty();
        if idle && !table.is_cut_off() {
            counted_at = clock::instant();
            continue;
        }
        let call = LeaderCall::Digest(sweep.digest.clone());
        match router.call(call, clock::deadline(ANSWER_WAIT)).await {
            Ok(LeaderReply::Heard(reply)) => {
                counted_at = clock::instant();
                table.cut_off(false);
                let ends = reply.refused.iter().map(|r| ((r.node, r.epoch), farewell(r)));
                table.settle(sweep, &ends.collect());
            }
            answer => {
                log_failure(answer.err(), sweep.digest.heard.len());
                table.keep(sweep);
                if counted_at.elapsed() > clock::duration(timing.cut_off(fleet)) {
                    table.cut_off(true);
                }
            }
        }
    }
}

fn log_failure(error: Option<CallError>, nodes: usize) {
    let error = error.map_or_else(|| "its answer is odd".to_owned(), |error| error.to_string());
    tracing::warn!(error, nodes, "the leader could not be told who was heard");
}

fn farewell(refused: &Refused) -> proto::v1::SessionEnd {
    match refused.why {
        RefusedWhy::Superseded => {
            end(SessionEndReason::Superseded, "another session of this node is in force")
        }
        RefusedWhy::LeaseLost => end(SessionEndReason::LeaseLost, "the lease of this node is over"),
    }
}

/// Gives up sessions whose agents say nothing any more; their streams may hang for long.
fn close_silent(table: &Table, lease: Duration) {
    for slot in table.all() {
        if slot.silence() > lease {
            tracing::debug!(node = %slot.node, "a silent session is closed");
            slot.outbox.end(end(SessionEndReason::Unspecified, "nothing was heard for a lease"));
            table.close(&slot);
        }
    }
}
