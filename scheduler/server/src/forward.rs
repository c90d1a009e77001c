//! The way to the leader from anywhere: here when this server leads, else one hop over the peer
//! port; elections are waited out.
//!
//! **Invariant:** a call that was handed on is never handed on again, and a call that must not be
//! done twice is not sent again once its outcome is unknown.

pub use crate::call::{
    Accepted, CallError, ExplainCall, ExplainTarget, Explained, LeaderCall, LeaderReply,
    MembershipCall, NoPlan, Offer, PlanCall, Planned,
};

use crate::call;
use crate::clock;
use crate::leader::Leader;
use crate::raft::Peers;
use bytes::Bytes;
use raft_store::{Member, Quorum, ServerId, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

/// A call gives up after this long without a working leader, however far its deadline: several
/// elections, and short enough for a client to look elsewhere.
const PATIENCE: Duration = Duration::from_secs(6);
/// First pause before another try; a change of leader ends every pause early.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause: well below an election, so that a new leader is found soon.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Finds the leader for a call. Cheap to clone.
#[derive(Clone)]
pub struct Router {
    own: ServerId,
    quorum: Quorum,
    leader: Leader,
    peers: Arc<Peers>,
}

impl Router {
    pub(crate) fn new(own: ServerId, quorum: Quorum, leader: Leader, peers: Arc<Peers>) -> Self {
        Self { own, quorum, leader, peers }
    }

    /// Has the leader do `call`, waiting out elections until `deadline`.
    ///
    /// # Errors
    /// [`CallError::Unknown`] when the answer was lost and the call must not be done twice;
    /// [`CallError::Timeout`] or the last reason of unavailability at the deadline; anything else
    /// is the leader's own answer.
    pub async fn call(
        &self,
        call: LeaderCall,
        deadline: Instant,
    ) -> Result<LeaderReply, CallError> {
        let repeatable = call.is_repeatable();
        let mut standing = self.quorum.watch();
        let mut encoded: Option<Bytes> = None;
        let mut pause = PAUSE_MIN;
        let give_up = deadline.min(clock::deadline(PATIENCE));
        loop {
            let leader = standing.borrow_and_update().leader.clone();
            let tried = match leader {
                None => Err(CallError::Unavailable { why: "no leader is known".to_owned() }),
                Some(member) if member.id == self.own => {
                    self.leader.call(call.clone(), deadline).await
                }
                Some(member) => {
                    let handed = self.hand_on(&member, &call, &mut encoded, deadline);
                    tokio::select! {
                        handed = handed => handed,
                        () = wait_for_other(&mut standing, member.id), if repeatable => Err(overtaken()),
                    }
                }
            };
            let error = match tried {
                Err(error) if is_worth_another_try(&error, repeatable) => error,
                settled => return settled,
            };
            if clock::instant() + pause >= give_up {
                return Err(error);
            }
            tracing::debug!(%error, "trying the leader again");
            wait_for_leader(&mut standing, pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn hand_on(
        &self,
        leader: &Member,
        call: &LeaderCall,
        encoded: &mut Option<Bytes>,
        deadline: Instant,
    ) -> Result<LeaderReply, CallError> {
        let body = match encoded {
            Some(body) => body.clone(),
            None => encoded.insert(call::encode(call)?).clone(),
        };
        let answer = self.peers.forward(leader, body, deadline).await?;
        call::decode::<Result<LeaderReply, CallError>>(&answer)?
    }
}

fn is_worth_another_try(error: &CallError, repeatable: bool) -> bool {
    match error {
        CallError::NotLeader { .. } | CallError::Unavailable { .. } => true,
        CallError::Unknown { .. } => repeatable,
        _ => false,
    }
}

/// Waits until another server than `leader` leads: the answer of a leader that hangs need not be
/// waited for.
async fn wait_for_other(standing: &mut Receiver<Status>, leader: ServerId) {
    let other = |status: &Status| status.leader.as_ref().is_some_and(|it| it.id != leader);
    if standing.wait_for(other).await.is_err() {
        // The quorum has stopped: nobody will be heard of.
        std::future::pending().await
    }
}

fn overtaken() -> CallError {
    CallError::Unknown { why: "another server leads meanwhile".to_owned() }
}

/// Waits until who leads has changed, at most `pause`.
async fn wait_for_leader(standing: &mut Receiver<Status>, pause: Duration) {
    let before = standing.borrow().leader.as_ref().map(|member| member.id);
    let changed = standing.wait_for(|status| {
        let now = status.leader.as_ref().map(|member| member.id);
        now.is_some() && now != before
    });
    let changed = async { changed.await.is_ok() };
    if let Ok(false) = tokio::time::timeout(pause, changed).await {
        // The quorum has stopped; only the deadline is left to wait for.
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_answer_is_asked_for_again_only_where_that_is_safe() {
        let lost = CallError::Unknown { why: String::new() };
        assert!(is_worth_another_try(&lost, true));
        assert!(!is_worth_another_try(&lost, false));
        assert!(is_worth_another_try(&CallError::NotLeader { leader: None }, false));
        assert!(!is_worth_another_try(&CallError::Timeout, true));
        assert!(!is_worth_another_try(&CallError::Busy { retry_ms: 1 }, true));
    }
}
