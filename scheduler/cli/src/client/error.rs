//! Refusals of the servers, made readable: which field, why, what to try next.

use crate::exit::{Exit, Failure};
use std::error::Error;
use std::time::Duration;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Longest pause that a server may ask of us between two tries.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// A call that failed for good.
#[derive(Clone, Debug)]
pub struct CallError {
    status: Box<Status>,
    server: String,
    servers: Vec<String>,
    tries: u32,
}

impl CallError {
    pub(super) fn new(status: Status, server: String, servers: Vec<String>, tries: u32) -> Self {
        Self { status: Box::new(status), server, servers, tries }
    }

    /// Canonical code.
    pub fn code(&self) -> Code {
        self.status.code()
    }
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.status.message(), code_name(self.status.code()))
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let CallError { status, server, servers, tries } = error;
        let status = *status;
        let details = status.get_error_details();
        let exit = match status.code() {
            Code::Unavailable | Code::DeadlineExceeded => Exit::Unavailable,
            _ => Exit::Refused,
        };
        if never_arrived(&status) {
            return Self::new(exit, format!("no server answers at {}", servers.join(", ")))
                .detail(format!("{} ({tries} tries)", root_cause(&status)))
                .next("start one with `muster dev`, or pass --server http://HOST:PORT or MUSTER_SERVER");
        }
        let violations =
            details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
        let mut failure = match violations.as_slice() {
            [only] => Self::new(exit, with_field(&only.field, &only.description)),
            _ if status.message().is_empty() => Self::new(exit, code_name(status.code())),
            _ => Self::new(exit, status.message()),
        };
        if violations.len() > 1 {
            for violation in &violations {
                failure = failure.detail(with_field(&violation.field, &violation.description));
            }
        }
        let mut origin = code_name(status.code()).to_owned();
        if let Some(info) = details.error_info() {
            if !info.reason.is_empty() && info.reason != origin {
                origin = format!("{origin} {}", info.reason);
            }
            let mut facts: Vec<_> = info.metadata.iter().collect();
            facts.sort();
            // Where fields are at fault they are named above already.
            facts.retain(|(key, _)| violations.is_empty() || *key != "field");
            for (key, value) in facts {
                failure = failure.detail(format!("{key}: {value}"));
            }
        }
        let again = if tries > 1 { format!(", {tries} tries") } else { String::new() };
        failure = failure.detail(format!("{origin} from {server}{again}"));
        match next_step(&status) {
            Some(step) => failure.next(step),
            None => failure,
        }
    }
}

/// The pause that a server asks for before the next try.
pub(super) fn retry_delay(status: &Status) -> Option<Duration> {
    let delay = status.get_details_retry_info()?.retry_delay?;
    Some(delay.min(RETRY_DELAY_MAX))
}

/// Whether the connection failed, so that no server has seen the call.
pub(super) fn never_arrived(status: &Status) -> bool {
    status.code() == Code::Unavailable && status.source().is_some()
}

/// Canonical name of a code.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A fault with its field; that of a job in the words and units of a job file, in which jobs are written here.
fn with_field(field: &str, description: &str) -> String {
    if let Some(own) = manifest::native::path(field) {
        let rest = description.strip_prefix(field).map(str::trim_start);
        let problem = manifest::native::problem(field, rest.unwrap_or(description));
        return format!("{own}: {problem}");
    }
    if field.is_empty() || description.starts_with(field) {
        return description.to_owned();
    }
    format!("{field}: {description}")
}

fn root_cause(status: &Status) -> String {
    let mut cause: &dyn Error = status;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

fn next_step(status: &Status) -> Option<String> {
    let step = match status.code() {
        Code::Unauthenticated => "pass --token or set MUSTER_TOKEN",
        Code::PermissionDenied => "use a token that may do this, for example an operator's",
        Code::Unavailable => "look at `muster quorum status`; repeat the command, it is safe to",
        Code::DeadlineExceeded => {
            "look at `muster quorum status`, or give more time with --timeout"
        }
        Code::ResourceExhausted => match retry_delay(status) {
            Some(delay) => return Some(format!("repeat the command in {} ms", delay.as_millis())),
            None if is_quota(status) => {
                "ask for less; an operator may raise the quota with `muster tenants put`"
            }
            None => "repeat the command in a moment",
        },
        Code::Unimplemented => "compare `muster version` of client and servers",
        Code::NotFound => "`muster jobs --all` and `muster nodes` list what is there",
        _ => return None,
    };
    Some(step.to_owned())
}

/// Whether a tenant's quota is in the way, which time does not change.
fn is_quota(status: &Status) -> bool {
    status.get_details_error_info().is_some_and(|info| info.reason == "QUOTA_EXCEEDED")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, FieldViolation};

    fn failure(status: Status) -> Failure {
        CallError::new(status, "http://s1:7700".into(), vec!["http://s1:7700".into()], 1).into()
    }

    #[test]
    fn a_bad_field_is_named() {
        let mut details = ErrorDetails::with_bad_request(vec![FieldViolation::new(
            "spec.groups[0].replicas",
            "must be 1 to 100,000, is 0",
        )]);
        details.set_error_info("FIELD_INVALID", "muster", std::collections::HashMap::new());
        let status = Status::with_error_details(Code::InvalidArgument, "invalid request", details);
        let failure = failure(status);
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(
            failure.to_string(),
            "error: groups[0].replicas: must be 1 to 100,000, is 0\n  INVALID_ARGUMENT FIELD_INVALID from http://s1:7700"
        );
    }

    #[test]
    fn a_field_is_named_once_and_first() {
        let named = |description| with_field("replicas", description);
        assert_eq!(named("is 9; replicas_min is 1"), "replicas: is 9; replicas_min is 1");
        assert_eq!(named("replicas is 9"), "replicas is 9");
        let of_job = |description| with_field("spec.groups[0].shape.cpu_milli", description);
        assert_eq!(of_job("is too large"), "groups[0].cpu: is too large");
        assert_eq!(of_job("spec.groups[0].shape.cpu_milli is 0"), "groups[0].cpu: is 0");
        assert_eq!(
            with_field(
                "spec.rtt_us_max",
                "spec.rtt_us_max is 60000000; at most 10000000 is allowed"
            ),
            "max_rtt: is 60000ms; at most 10000ms is allowed"
        );
    }

    #[test]
    fn several_bad_fields_are_all_listed() {
        let violations = vec![FieldViolation::new("a", "x"), FieldViolation::new("b", "y")];
        let details = ErrorDetails::with_bad_request(violations);
        let status = Status::with_error_details(Code::InvalidArgument, "2 faults", details);
        let failure = failure(status);
        assert_eq!(failure.message, "2 faults");
        assert_eq!(failure.details[..2], ["a: x", "b: y"]);
    }

    #[test]
    fn exits_follow_the_code() {
        assert_eq!(failure(Status::unavailable("electing")).exit, Exit::Unavailable);
        assert_eq!(failure(Status::deadline_exceeded("late")).exit, Exit::Unavailable);
        assert_eq!(failure(Status::not_found("no job 7")).exit, Exit::Refused);
        assert!(
            failure(Status::unauthenticated("who"))
                .next
                .is_some_and(|n| n.contains("MUSTER_TOKEN"))
        );
    }

    #[test]
    fn a_quota_is_not_waited_for() {
        let info = |reason: &str| {
            ErrorDetails::with_error_info(reason, "muster", [("tenant".into(), "a".into())])
        };
        let next = |reason: &str| {
            let details = info(reason);
            failure(Status::with_error_details(Code::ResourceExhausted, "quota", details)).next
        };
        assert!(next("QUOTA_EXCEEDED").is_some_and(|next| next.starts_with("ask for less")));
        assert!(next("BUSY").is_some_and(|next| next.starts_with("repeat")));
    }

    #[test]
    fn the_wait_a_server_asks_for_is_bounded() {
        let details = ErrorDetails::with_retry_info(Some(Duration::from_secs(86_400)));
        let status = Status::with_error_details(Code::ResourceExhausted, "queue full", details);
        assert_eq!(retry_delay(&status), Some(RETRY_DELAY_MAX));
    }
}
