//! The public services: convert, ask the leader or read, convert back.
//!
//! **Invariant:** a method fits a screen and decides nothing that the state decides. Who may call
//! it was settled by [`crate::auth::Gate`] before.

pub mod job;
mod manifest;
pub mod node;
pub mod node_admin;
pub mod quorum;
mod submission;
pub mod tenant;

use crate::app::Context;
use crate::clock;
use crate::forward::{CallError, LeaderCall, LeaderReply};
use crate::status;
use proto::v1::Consistency;
use scheduler_core::command::{Actor, Command, Entry, Outcome};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Status};

/// Deadline of a write whose caller names none: several elections.
pub(crate) const WRITE_TIME: Duration = Duration::from_secs(10);
/// Deadline of a read whose caller names none.
pub(crate) const READ_TIME: Duration = Duration::from_secs(5);
/// Longest deadline obeyed: nobody should hold a place in our queues for longer.
const TIME_MAX: Duration = Duration::from_secs(300);
/// Items on a page unless the caller says otherwise, and at most.
const PAGE_DEFAULT: u32 = 100;
const PAGE_MAX: u32 = 1_000;

/// How long the caller waits, by its `grpc-timeout`; `default` when it names none.
pub(crate) fn time_left<T>(request: &Request<T>, default: Duration) -> Duration {
    let text = request.metadata().get("grpc-timeout").and_then(|value| value.to_str().ok());
    text.and_then(parse_timeout).unwrap_or(default).min(TIME_MAX)
}

/// Reads `grpc-timeout`: up to eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Waits until the local state is as fresh as asked for; the index up to which it is, at least.
pub(crate) async fn read_point(
    context: &Context,
    consistency: i32,
    deadline: Instant,
) -> Result<u64, Status> {
    match Consistency::try_from(consistency) {
        Ok(Consistency::Stale) => Ok(context.quorum.status().applied_index),
        Ok(Consistency::Unspecified | Consistency::Linearizable) => {
            let answer = context.router.call(LeaderCall::ReadIndex, deadline).await;
            let LeaderReply::Index(index) = answer.map_err(|error| status::from_call(&error))?
            else {
                return Err(status::internal("the leader answered a read with something else"));
            };
            caught_up(context, index, deadline).await?;
            Ok(index)
        }
        Err(_) => {
            let problem = format!("is {consistency}, which is no known value");
            Err(status::bad_field("consistency", &problem))
        }
    }
}

/// Waits until the local state shows the effects up to `index`.
pub(crate) async fn caught_up(
    context: &Context,
    index: u64,
    deadline: Instant,
) -> Result<(), Status> {
    let applied = context.quorum.wait_applied(index, deadline.into_std()).await;
    applied.map_err(|error| status::from_call(&status::quorum_to_call(error)))
}

/// Has one command logged; its outcome and the log index, once the local state shows it.
pub(crate) async fn propose(
    context: &Context,
    by: Actor,
    command: Command,
    deadline: Instant,
) -> Result<(Outcome, u64), Status> {
    let call = LeaderCall::Propose(vec![Entry { at: clock::now(), by, command }]);
    let answer = context.router.call(call, deadline).await;
    let answer = answer.map_err(|error| status::from_call(&error))?;
    let LeaderReply::Proposed { index, results } = answer else {
        return Err(status::internal("the leader answered a proposal with something else"));
    };
    let outcome = crate::leader::single(results).map_err(|error| status::from_call(&error))?;
    caught_up(context, index, deadline).await?;
    Ok((outcome, index))
}

/// Items that a page may have.
pub(crate) fn page_size(asked: u32) -> Result<usize, Status> {
    match asked {
        0 => Ok(PAGE_DEFAULT as usize),
        1..=PAGE_MAX => Ok(asked as usize),
        _ => {
            let problem = format!("is {asked}; at most {PAGE_MAX} is allowed");
            Err(status::bad_field("page_size", &problem))
        }
    }
}

/// An answer of the leader that does not belong to its call.
pub(crate) fn odd_answer(answer: &LeaderReply) -> Status {
    tracing::error!(?answer, "the leader's answer does not belong to its call");
    status::from_call(&CallError::Internal { why: "the leader's answer is odd".to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse_timeout("2S"), Some(Duration::from_secs(2)));
        assert_eq!(parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for bad in ["", "m", "-1m", "123456789m", "5x", "\u{e4}", "1\u{e4}"] {
            assert_eq!(parse_timeout(bad), None, "{bad}");
        }
        let mut request = Request::new(());
        assert_eq!(time_left(&request, READ_TIME), READ_TIME);
        request.set_timeout(Duration::from_secs(100_000));
        assert_eq!(time_left(&request, READ_TIME), TIME_MAX);
    }

    #[test]
    fn pages_are_bounded() {
        assert_eq!(page_size(0).ok(), Some(100));
        assert_eq!(page_size(1_000).ok(), Some(1_000));
        assert!(page_size(1_001).is_err());
    }
}
