//! Errors as clients see them: canonical codes, with details that programs can read.
//!
//! Every error carries an `ErrorInfo` with a reason in `UPPER_SNAKE` and the domain `muster`; bad
//! fields carry `BadRequest`, errors worth another try carry `RetryInfo`.
//! **Invariant:** the only file that makes a [`Status`]; nothing secret gets into one.

use crate::app::Context;
use crate::call::CallError;
use crate::watch::Part;
use raft_store::QuorumError;
use scheduler_core::command::{Kind, Rejection};
use std::collections::HashMap;
use std::time::Duration;
use tonic::codegen::http::{HeaderMap, HeaderValue};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Domain of every `ErrorInfo`.
pub const DOMAIN: &str = "muster";
/// Metadata with the leader's public address, on every answer once one is known.
pub const LEADER_KEY: &str = "x-muster-leader";
/// Metadata with the log index whose effects an answer shows at least.
pub const APPLIED_KEY: &str = "x-muster-applied-index";
/// How long a client should wait before it looks for a leader again: about one election.
const ELECTION_RETRY: Duration = Duration::from_millis(300);
/// How long a client whose watch was ended should wait before it watches again.
const PART_RETRY: Duration = Duration::from_secs(1);

fn details(reason: &str, facts: &[(&str, String)]) -> ErrorDetails {
    let facts: HashMap<String, String> =
        facts.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    ErrorDetails::with_error_info(reason, DOMAIN, facts)
}

fn status(code: Code, message: impl Into<String>, details: ErrorDetails) -> Status {
    Status::with_error_details(code, message, details)
}

/// A field that cannot be taken as it is.
pub fn bad_field(field: &str, problem: &str) -> Status {
    let mut info = details("INVALID_FIELD", &[("field", field.to_owned())]);
    info.add_bad_request_violation(field, problem);
    status(Code::InvalidArgument, format!("{field} {problem}"), info)
}

/// No valid credentials.
pub fn unauthenticated(why: &str) -> Status {
    status(Code::Unauthenticated, why, details("UNAUTHENTICATED", &[]))
}

/// Valid credentials of the wrong kind.
pub fn forbidden(why: &str) -> Status {
    status(Code::PermissionDenied, why, details("FORBIDDEN", &[]))
}

/// An object that does not exist, or that the caller must not know of.
pub fn not_found(what: Kind, id: impl std::fmt::Display) -> Status {
    rejected(&Rejection::NotFound { what, id: id.to_string() })
}

/// Something that cannot happen, happened.
pub fn internal(why: &str) -> Status {
    status(Code::Internal, why, details("INTERNAL", &[]))
}

/// This server is going away; another one will answer.
pub fn stopping() -> Status {
    let mut info = details("SHUTTING_DOWN", &[]);
    info.set_retry_info(Some(Duration::ZERO));
    status(Code::Unavailable, "this server is shutting down", info)
}

/// A watch that is ended because its messages are not read.
pub fn parted(why: Part) -> Status {
    let reason = match why {
        Part::Slow(_) => "WATCH_NOT_READ",
        Part::Full => "WATCHES_NOT_READ",
    };
    let mut info = details(reason, &[]);
    info.set_retry_info(Some(PART_RETRY));
    status(Code::ResourceExhausted, why.to_string(), info)
}

/// A queue or table is full.
pub fn busy(why: &str, retry: Duration) -> Status {
    let mut info = details("BUSY", &[]);
    info.set_retry_info(Some(retry));
    status(Code::ResourceExhausted, why, info)
}

/// Code and field of a refusal by the state.
pub fn code_of(rejection: &Rejection) -> (Code, &'static str) {
    match rejection {
        Rejection::Invalid { .. } => (Code::InvalidArgument, "INVALID_FIELD"),
        Rejection::NotFound { .. } => (Code::NotFound, "NOT_FOUND"),
        Rejection::Forbidden { .. } => (Code::PermissionDenied, "FORBIDDEN"),
        Rejection::RequestIdReused { .. } => (Code::AlreadyExists, "REQUEST_ID_REUSED"),
        Rejection::StalePlan { .. } => (Code::Aborted, "STALE_PLAN"),
        Rejection::QuotaExceeded { .. } => (Code::ResourceExhausted, "QUOTA_EXCEEDED"),
        Rejection::LimitReached { .. } => (Code::ResourceExhausted, "LIMIT_REACHED"),
        Rejection::Precondition { .. } => (Code::FailedPrecondition, "PRECONDITION"),
    }
}

/// A refusal by the state.
pub fn rejected(rejection: &Rejection) -> Status {
    let (code, reason) = code_of(rejection);
    let message = rejection.to_string();
    let info = match rejection {
        Rejection::Invalid { field, problem } => {
            return bad_field(&crate::convert::job::field_path(field), problem);
        }
        Rejection::NotFound { what, id } => {
            details(reason, &[("kind", what.to_string()), ("id", id.clone())])
        }
        Rejection::RequestIdReused { job, .. } => details(reason, &[("job_id", job.0.to_string())]),
        Rejection::QuotaExceeded { tenant, why } => {
            let mut info = details(reason, &[("tenant", tenant.to_string())]);
            info.add_quota_failure_violation(format!("tenant:{tenant}"), why);
            info
        }
        Rejection::LimitReached { what, limit } => {
            details(reason, &[("limit_of", what.clone()), ("limit", limit.to_string())])
        }
        Rejection::Precondition { what } => {
            let mut info = details(reason, &[]);
            info.add_precondition_failure_violation("STATE", "muster", what);
            info
        }
        Rejection::Forbidden { .. } | Rejection::StalePlan { .. } => details(reason, &[]),
    };
    status(code, message, info)
}

/// Code of a failed call; what [`from_call`] puts into its status.
pub fn code_of_call(error: &CallError) -> Code {
    match error {
        CallError::NotLeader { .. } | CallError::Unavailable { .. } | CallError::Unknown { .. } => {
            Code::Unavailable
        }
        CallError::Timeout => Code::DeadlineExceeded,
        CallError::Busy { .. } => Code::ResourceExhausted,
        CallError::Rejected(rejection) => code_of(rejection).0,
        CallError::Held { .. } => Code::AlreadyExists,
        CallError::Membership { .. } => Code::FailedPrecondition,
        CallError::TooLarge { .. } => Code::InvalidArgument,
        CallError::Internal { .. } => Code::Internal,
        CallError::PlanChanged { .. } => Code::Aborted,
    }
}

/// A call to the leader that failed.
pub fn from_call(error: &CallError) -> Status {
    let with_retry = |reason: &str, facts: &[(&str, String)], retry: Duration| {
        let mut info = details(reason, facts);
        info.set_retry_info(Some(retry));
        info
    };
    let info = match error {
        CallError::Rejected(rejection) => return rejected(rejection),
        CallError::NotLeader { leader } => {
            let endpoint = leader.as_ref().map(|member| member.api_address.clone());
            let facts = [("leader_endpoint", endpoint.unwrap_or_default())];
            with_retry("NOT_LEADER", &facts, ELECTION_RETRY)
        }
        CallError::Unavailable { .. } => with_retry("NO_QUORUM", &[], ELECTION_RETRY),
        CallError::Unknown { .. } => details("OUTCOME_UNKNOWN", &[]),
        CallError::Timeout => details("DEADLINE", &[]),
        CallError::Busy { retry_ms } => with_retry("BUSY", &[], Duration::from_millis(*retry_ms)),
        CallError::Held { retry_ms, .. } => {
            with_retry("IDENTITY_IN_USE", &[], Duration::from_millis(*retry_ms))
        }
        CallError::Membership { .. } => details("MEMBERSHIP", &[]),
        CallError::TooLarge { limit, value, .. } => {
            details("TOO_LARGE", &[("limit", limit.to_string()), ("value", value.to_string())])
        }
        CallError::Internal { .. } => details("INTERNAL", &[]),
        CallError::PlanChanged { index, .. } => {
            details("PLAN_CHANGED", &[("index", index.to_string())])
        }
    };
    status(code_of_call(error), error.to_string(), info)
}

/// What an error of the quorum means to a caller of the leader.
pub fn quorum_to_call(error: QuorumError) -> CallError {
    match error {
        QuorumError::NotLeader { leader } => CallError::NotLeader { leader },
        // Leadership may have been lost after the entry left: nobody can know.
        QuorumError::Unavailable(why) => CallError::Unknown { why },
        QuorumError::Timeout => CallError::Timeout,
        QuorumError::TooLarge { what, value, limit } => {
            CallError::TooLarge { what: what.to_owned(), value, limit }
        }
        QuorumError::Membership(why) => CallError::Membership { why },
        QuorumError::Fatal(why) | QuorumError::Encode(why) => CallError::Internal { why },
    }
}

/// Puts the leader's address into the headers of an answer.
pub(crate) fn add_leader(headers: &mut HeaderMap, context: &Context) {
    let leader = context.leader_address();
    if let Some(value) = leader.and_then(|address| HeaderValue::try_from(address).ok()) {
        headers.insert(LEADER_KEY, value);
    }
}

/// Labels an answer with the log index whose effects it shows at least.
pub fn label_applied(metadata: &mut MetadataMap, index: u64) {
    metadata.insert(APPLIED_KEY, index.into());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_field_is_named_for_people_and_programs() {
        let refusal = bad_field("spec.groups[0].replicas", "is 0; 1 to 100,000 are allowed");
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(refusal.message().contains("spec.groups[0].replicas is 0"));
        let info = refusal.get_error_details();
        let violation = &info.bad_request().expect("is there").field_violations[0];
        assert_eq!(violation.field, "spec.groups[0].replicas");
        assert_eq!(info.error_info().expect("is there").domain, DOMAIN);
    }

    #[test]
    fn errors_worth_another_try_say_when() {
        for error in [
            CallError::NotLeader { leader: None },
            CallError::Unavailable { why: String::new() },
            CallError::Busy { retry_ms: 7 },
        ] {
            let refusal = from_call(&error);
            assert!(refusal.get_error_details().retry_info().is_some(), "{error:?}");
        }
        let unknown = from_call(&CallError::Unknown { why: "the answer was lost".to_owned() });
        assert_eq!(unknown.code(), Code::Unavailable);
        assert!(unknown.get_error_details().retry_info().is_none());
    }

    #[test]
    fn refusals_keep_their_kinds_apart() {
        let quota = Rejection::LimitReached { what: "jobs".to_owned(), limit: 3 };
        assert_eq!(rejected(&quota).code(), Code::ResourceExhausted);
        let gone = Rejection::NotFound { what: Kind::Job, id: "job-1".to_owned() };
        let refusal = rejected(&gone);
        assert_eq!(refusal.code(), Code::NotFound);
        assert_eq!(refusal.get_error_details().error_info().expect("info").reason, "NOT_FOUND");
    }
}
