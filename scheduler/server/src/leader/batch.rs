//! The way of a batch through the log, and back to its callers and to the planner.
//!
//! **Invariant:** every caller is answered or handed back for another try, whatever happened to
//! the batch.

use super::answer::Slot;
use super::inbox::Inbox;
use crate::clock;
use crate::status;
use raft_store::Quorum;
use scheduler_core::duty::office::Batch;
use std::sync::Arc;

/// Proposes the batch, answers its callers, and tells the planner what is left to do.
pub(super) async fn carry(batch: Batch<Slot>, quorum: Quorum, inbox: Arc<Inbox>) {
    let start = clock::instant();
    let (entries, sent) = batch.into_parts();
    let proposed = quorum.propose(entries).await;
    let commit_us = clock::micros_since(start);
    let returned = match proposed {
        Ok(proposed) => {
            for rejection in proposed.results.iter().filter_map(|result| result.as_ref().err()) {
                tracing::debug!(%rejection, "an entry of a batch was refused");
            }
            let (results, index) = (proposed.results, proposed.index);
            sent.applied(results, index, |slot, answer| slot.answer(answer, commit_us))
        }
        Err(error) => {
            tracing::debug!(%error, "a batch was not accepted");
            let error = status::quorum_to_call(error);
            sent.lost(|slot| slot.settle(Err(error.clone())))
        }
    };
    inbox.returned(returned);
}
