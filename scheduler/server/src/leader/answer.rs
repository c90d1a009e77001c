//! Answers to submitted jobs: many jobs of one call are settled in any order, by several batches.
//!
//! **Invariant:** every job of a call gets exactly one result; one that is dropped without says
//! that this server no longer leads, so that the caller asks again.

use crate::applied::lock;
use crate::call::{Accepted, CallError};
use scheduler_core::duty::office::Answer;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// Result of one job.
pub(super) type Settled = Result<Accepted, CallError>;

struct Sheet {
    results: Vec<Option<Settled>>,
    open: usize,
    send: Option<oneshot::Sender<Vec<Settled>>>,
}

/// The place for one job's result.
pub(super) struct Slot {
    sheet: Arc<Mutex<Sheet>>,
    at: usize,
    settled: bool,
}

/// Places for the results of `count` jobs (at least one), and where they all arrive together.
pub(super) fn sheet(count: usize) -> (Vec<Slot>, oneshot::Receiver<Vec<Settled>>) {
    let (send, receive) = oneshot::channel();
    let results = vec![None; count];
    let sheet = Arc::new(Mutex::new(Sheet { results, open: count, send: Some(send) }));
    let slot = |at| Slot { sheet: Arc::clone(&sheet), at, settled: false };
    ((0..count).map(slot).collect(), receive)
}

impl Slot {
    /// Whether nobody waits for the result any more.
    pub(super) fn is_abandoned(&self) -> bool {
        lock(&self.sheet).send.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Puts the result in.
    pub(super) fn settle(mut self, result: Settled) {
        self.put(result);
    }

    /// Puts in what the office says; `commit_us` is the time from proposal to applied.
    pub(super) fn answer(self, answer: Answer, commit_us: u64) {
        self.settle(match answer {
            Answer::Accepted(decided) => {
                let commit_us = if decided.known { 0 } else { commit_us };
                Ok(Accepted { decided, commit_us })
            }
            Answer::Rejected(rejection) => Err(rejection.into()),
            Answer::PlanChanged { why, index } => Err(CallError::PlanChanged { why, index }),
            Answer::Odd { why } => Err(CallError::Internal { why: why.to_owned() }),
        });
    }

    fn put(&mut self, result: Settled) {
        self.settled = true;
        let mut sheet = lock(&self.sheet);
        if let Some(place) = sheet.results.get_mut(self.at) {
            *place = Some(result);
        }
        sheet.open = sheet.open.saturating_sub(1);
        if sheet.open > 0 {
            return;
        }
        let results = std::mem::take(&mut sheet.results).into_iter().flatten().collect();
        let send = sheet.send.take();
        drop(sheet);
        // A caller that has gone away needs no answer.
        let _ = send.map(|send| send.send(results));
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.settled {
            self.put(Err(CallError::NotLeader { leader: None }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::duty::office;
    use scheduler_core::id::JobId;

    fn accepted(job: u64) -> Settled {
        let job = JobId(job);
        let decided = office::Accepted { job, known: false, placed: true, index: 1, decide_us: 0 };
        Ok(Accepted { decided, commit_us: 0 })
    }

    #[test]
    fn results_arrive_together_and_in_order() {
        let (slots, mut receive) = sheet(3);
        let mut slots = slots.into_iter().rev();
        slots.next().expect("third").settle(accepted(3));
        drop(slots.next().expect("second"));
        assert!(receive.try_recv().is_err());
        slots.next().expect("first").settle(accepted(1));
        let results = receive.try_recv().expect("all are there");
        let lost = Err(CallError::NotLeader { leader: None });
        assert_eq!(results, [accepted(1), lost, accepted(3)]);
    }

    #[test]
    fn only_a_new_job_took_time() {
        for known in [false, true] {
            let (mut slots, mut receive) = sheet(1);
            let (job, decide_us) = (JobId(1), if known { 0 } else { 7 });
            let said = office::Accepted { job, known, placed: true, index: 9, decide_us };
            slots.remove(0).answer(Answer::Accepted(said), 11);
            let [Ok(accepted)] = receive.try_recv().expect("is there")[..] else { panic!() };
            let times = (accepted.decided.decide_us, accepted.commit_us);
            assert_eq!((accepted.decided.index, times), (9, if known { (0, 0) } else { (7, 11) }));
        }
    }

    #[test]
    fn a_caller_that_left_is_noticed() {
        let (slots, receive) = sheet(1);
        assert!(!slots[0].is_abandoned());
        drop(receive);
        assert!(slots[0].is_abandoned());
    }
}
