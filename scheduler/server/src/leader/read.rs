//! Points for linearizable reads: many callers share one question to the quorum.
//!
//! **Invariant:** a caller never gets an answer to a question that was asked before it came.

use crate::applied::lock;
use crate::call::CallError;
use crate::status::quorum_to_call;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use raft_store::Quorum;
use std::sync::{Arc, Mutex};

type Question = Shared<BoxFuture<'static, Result<u64, CallError>>>;

/// Asks the quorum for read points, one question at a time.
#[derive(Default)]
pub(super) struct ReadPoints {
    /// The question that has not been asked yet; whoever comes now joins it.
    next: Arc<Mutex<Option<Question>>>,
    /// Held while one is being asked.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl ReadPoints {
    /// A log index that everything acknowledged before this call lies at or below.
    pub(super) async fn ask(&self, quorum: &Quorum) -> Result<u64, CallError> {
        self.join(|| {
            let quorum = quorum.clone();
            async move { quorum.read_index().await.map_err(quorum_to_call) }.boxed()
        })
        .await
    }

    fn join(&self, ask: impl FnOnce() -> BoxFuture<'static, Result<u64, CallError>>) -> Question {
        let mut next = lock(&self.next);
        if let Some(question) = next.as_ref() {
            return question.clone();
        }
        let (turn, waiting, asked) = (self.turn.clone(), self.next.clone(), ask());
        let question = async move {
            let _turn = turn.lock().await;
            // From here on newcomers need a question of their own.
            lock(&waiting).take();
            asked.await
        };
        next.insert(question.boxed().shared()).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn callers_share_a_question_that_is_not_asked_yet() {
        let points = ReadPoints::default();
        let asked = Arc::new(AtomicU64::new(0));
        let (open, gate) = oneshot::channel::<()>();
        let count = || {
            let asked = Arc::clone(&asked);
            async move { Ok(asked.fetch_add(1, SeqCst) + 1) }.boxed()
        };
        let first_asked = Arc::clone(&asked);
        let first = points.join(move || {
            async move {
                let number = first_asked.fetch_add(1, SeqCst) + 1;
                let _ = gate.await;
                Ok(number)
            }
            .boxed()
        });
        let first = tokio::spawn(first);
        while asked.load(SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        // The first one is under way: these two come too late for it and share the next.
        let (second, third) = (points.join(count), points.join(count));
        open.send(()).expect("is waited for");
        assert_eq!(first.await.expect("ran"), Ok(1));
        assert_eq!(second.await, Ok(2));
        assert_eq!(third.await, Ok(2));
        assert_eq!(points.join(count).await, Ok(3));
    }
}
