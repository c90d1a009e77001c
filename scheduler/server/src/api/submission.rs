//! Jobs of a call, in our own words.
//!
//! **Invariant:** every job is read as if it came alone; what neighbours have in common is only
//! read once.

use crate::auth::Caller;
use crate::convert;
use crate::status;
use proto::v1;
use scheduler_core::duty::office::Submission;
use std::fmt;
use std::sync::Arc;
use tonic::Status;

/// Largest single job.
const JOB_BYTES_MAX: usize = 1024 * 1024;

/// Where a job stands in its call: what comes before the names of its fields.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Alone,
    Item(usize),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Alone => Ok(()),
            Self::Item(at) => write!(f, "requests[{at}]."),
        }
    }
}

/// One job. `twin`: one that was read before from an equal spec.
pub(super) fn one(
    caller: &Caller,
    at: At,
    request: v1::SubmitJobRequest,
    twin: Option<&Submission>,
) -> Result<Submission, Status> {
    let bytes = prost::Message::encoded_len(&request);
    if bytes > JOB_BYTES_MAX {
        let problem = format!("is {bytes} bytes; at most {JOB_BYTES_MAX} are allowed");
        return Err(status::bad_field(&format!("{at}spec"), &problem));
    }
    let refuse = |rejection| status::rejected(&rejection);
    let field = format_args!("{at}request_id");
    let request_id = convert::job::request_id(field, &request.request_id).map_err(refuse)?;
    let tenant = caller.tenant(&request.tenant, format_args!("{at}tenant"))?;
    let (spec, body_digest) = match twin {
        Some(twin) => (Arc::clone(&twin.spec), twin.body_digest),
        None => {
            let spec =
                convert::job::spec(format_args!("{at}spec"), request.spec).map_err(refuse)?;
            let digest = convert::job::digest(&spec);
            (Arc::new(spec), digest)
        }
    };
    let check = convert::explain::check(at, request.check_index, &request.plan_digest)?;
    Ok(Submission { tenant, by: caller.actor.clone(), request_id, body_digest, spec, check })
}

/// All jobs of a call: those that can be read, and the places of the others with what is wrong.
pub(super) fn all(
    caller: &Caller,
    requests: Vec<v1::SubmitJobRequest>,
) -> (Vec<Submission>, Vec<(usize, Status)>) {
    let repeats: Vec<bool> = requests.windows(2).map(|two| two[0].spec == two[1].spec).collect();
    let mut calls: Vec<Submission> = Vec::with_capacity(requests.len());
    let mut refused = Vec::new();
    let mut last_read = false;
    for (at, request) in requests.into_iter().enumerate() {
        let repeats = at.checked_sub(1).and_then(|before| repeats.get(before)) == Some(&true);
        let twin = calls.last().filter(|_| last_read && repeats);
        match one(caller, At::Item(at), request, twin) {
            Ok(call) => {
                calls.push(call);
                last_read = true;
            }
            Err(status) => {
                refused.push((at, status));
                last_read = false;
            }
        }
    }
    (calls, refused)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use scheduler_core::command::Actor;

    pub(in crate::api) fn request() -> v1::SubmitJobRequest {
        v1::SubmitJobRequest {
            request_id: "r1".to_owned(),
            spec: Some(crate::convert::job::tests::good()),
            ..v1::SubmitJobRequest::default()
        }
    }

    #[test]
    fn a_job_may_not_be_larger_than_its_limit() {
        let caller = Caller::new(Actor::Operator, true);
        let mut large = request();
        large.spec.as_mut().expect("has one").name = "x".repeat(JOB_BYTES_MAX);
        let refused = one(&caller, At::Alone, large, None).expect_err("is too large");
        assert!(refused.message().starts_with("spec is "), "{}", refused.message());
        assert!(one(&caller, At::Alone, request(), None).is_ok());
    }

    #[test]
    fn equal_bodies_have_equal_digests() {
        let caller = Caller::new(Actor::Operator, true);
        let digest = |request| one(&caller, At::Alone, request, None).expect("is good").body_digest;
        let mut other = request();
        other.spec.as_mut().expect("has one").kind = v1::JobKind::Plain.into();
        assert_eq!(digest(request()), digest(request()));
        assert_ne!(digest(request()), digest(other));
    }

    #[test]
    fn neighbours_are_read_as_if_each_came_alone() {
        let caller = Caller::new(Actor::Operator, true);
        let mut other = request();
        other.spec.as_mut().expect("has one").kind = v1::JobKind::Plain.into();
        let mut bad = other.clone();
        bad.spec.as_mut().expect("has one").groups[0].replicas = 0;
        let nameless = v1::SubmitJobRequest { request_id: String::new(), ..other.clone() };
        let none = v1::SubmitJobRequest { spec: None, ..request() };
        let meant = v1::SubmitJobRequest { check_index: 7, ..request() };
        let requests = vec![
            request(),
            meant,
            other.clone(),
            nameless,
            other.clone(),
            bad.clone(),
            bad,
            none.clone(),
            none,
            request(),
        ];
        let (calls, refused) = all(&caller, requests.clone());
        let (mut alone, mut alone_refused) = (Vec::new(), Vec::new());
        for (at, request) in requests.into_iter().enumerate() {
            match one(&caller, At::Item(at), request, None) {
                Ok(call) => alone.push(call),
                Err(status) => alone_refused.push((at, status.message().to_owned())),
            }
        }
        let refused: Vec<_> =
            refused.into_iter().map(|(at, status)| (at, status.message().to_owned())).collect();
        assert_eq!((calls.len(), refused.len()), (5, 5));
        assert_eq!((&calls, refused), (&alone, alone_refused));
        assert!(Arc::ptr_eq(&calls[0].spec, &calls[1].spec));
        assert!(!Arc::ptr_eq(&calls[1].spec, &calls[2].spec));
    }
}
