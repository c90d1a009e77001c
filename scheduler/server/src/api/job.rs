//! `JobService`: submit, plan, look, watch, scale, cancel.
//!
//! **Invariant:** a caller learns of other tenants' jobs no more than that they are not there.

use super::submission;
use super::{READ_TIME, WRITE_TIME, caught_up, odd_answer, page_size, read_point, time_left};
use crate::app::Context;
use crate::auth::Caller;
use crate::clock;
use crate::convert;
use crate::forward::{
    Accepted, CallError, ExplainCall, ExplainTarget, LeaderCall, LeaderReply, PlanCall,
};
use crate::status;
use crate::watch::Watch;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use prost::Message as _;
use proto::v1;
use proto::v1::job_service_server::{JobService, JobServiceServer};
use scheduler_core::command::{Command, Kind, Outcome, Scale};
use scheduler_core::duty::office::{self, Submission};
use scheduler_core::id::{JobId, Name, TenantId};
use scheduler_core::job::{Reason, ReasonCode};
use scheduler_core::state::State;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

/// Largest message: a full batch.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most jobs of one batch.
const JOBS_MAX: usize = 512;
/// Replicas listed with one job: stays below the 4 MiB that clients take by default.
const REPLICAS_LISTED_MAX: u32 = 20_000;
/// Jobs looked at for one page; a page of a rare tenant may then be short, with a token to go on.
const SCAN_MAX: usize = 20_000;
/// Pause before jobs that a deposed leader left unsettled are asked for again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// What a client of a full watch table is told to wait.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// Serves jobs.
pub struct JobApi {
    context: Context,
}

impl JobApi {
    /// The service with its size limits set.
    pub fn service(context: Context) -> JobServiceServer<Self> {
        JobServiceServer::new(Self { context }).max_decoding_message_size(REQUEST_BYTES_MAX)
    }

    /// Has the leader accept jobs.
    async fn accept(
        &self,
        calls: Vec<Submission>,
        deadline: Instant,
    ) -> Result<Vec<Result<Accepted, CallError>>, CallError> {
        let (count, calls) = (calls.len(), Arc::new(calls));
        loop {
            let call = LeaderCall::Submit(Arc::clone(&calls));
            match self.context.router.call(call, deadline).await? {
                // A lost leadership settles jobs one by one: ask again, request ids make it safe.
                LeaderReply::Submitted(results)
                    if results.iter().any(is_transient) && clock::instant() < deadline =>
                {
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                LeaderReply::Submitted(results) if results.len() == count => return Ok(results),
                answer => {
                    let why = format!("the leader's answer is odd: {answer:?}");
                    return Err(CallError::Internal { why });
                }
            }
        }
    }
}

fn is_transient(result: &Result<Accepted, CallError>) -> bool {
    use CallError::{NotLeader, Unavailable, Unknown};
    matches!(result, Err(NotLeader { .. } | Unavailable { .. } | Unknown { .. }))
}

/// A scaling in our own words; whether the job may have it is for the state to say.
fn scale_command(request: v1::ScaleJobRequest) -> Result<Scale, Status> {
    let refuse = |rejection| status::rejected(&rejection);
    let request_id = convert::job::request_id("request_id", &request.request_id);
    let bad = |error: scheduler_core::id::NameError| status::bad_field("group", &error.to_string());
    Ok(Scale {
        job: JobId(request.job_id),
        group: Name::parse(&request.group).map_err(bad)?,
        replicas: request.replicas,
        expected: request.replicas_expected,
        request_id: request_id.map_err(refuse)?,
    })
}

/// Replicas that an answer may list.
fn listed_max(asked: u32) -> Result<u32, Status> {
    match asked {
        0 => Ok(REPLICAS_LISTED_MAX),
        1..=REPLICAS_LISTED_MAX => Ok(asked),
        _ => {
            let problem = format!("is {asked}; at most {REPLICAS_LISTED_MAX} is allowed");
            Err(status::bad_field("replicas_max", &problem))
        }
    }
}

fn refusal(refused: &Status) -> v1::SubmitJobsResult {
    let details = refused.get_error_details();
    let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
    let refusal = v1::Refusal {
        code: refused.code().into(),
        message: refused.message().to_owned(),
        field: violation.map_or_else(String::new, |violation| violation.field.clone()),
    };
    let result = Some(v1::submit_jobs_result::Result::Refusal(refusal));
    v1::SubmitJobsResult { result, placed: false, known: false }
}

fn submit_result(result: Result<Accepted, CallError>) -> v1::SubmitJobsResult {
    match result {
        Ok(Accepted { decided: office::Accepted { job, known, placed, .. }, .. }) => {
            let result = Some(v1::submit_jobs_result::Result::JobId(job.0));
            v1::SubmitJobsResult { result, placed, known }
        }
        Err(error) => refusal(&status::from_call(&error)),
    }
}

#[tonic::async_trait]
impl JobService for JobApi {
    async fn submit_job(
        &self,
        request: Request<v1::SubmitJobRequest>,
    ) -> Result<Response<v1::SubmitJobResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let caller = Caller::of(&request)?;
        let call = submission::one(&caller, submission::At::Alone, request.into_inner(), None)?;
        let accepted = self.accept(vec![call], deadline).await;
        let accepted = accepted.and_then(|mut results| {
            let why = || CallError::Internal { why: "the leader gave no result".to_owned() };
            results.pop().ok_or_else(why)?
        });
        let Accepted { decided, commit_us } =
            accepted.map_err(|error| status::from_call(&error))?;
        caught_up(&self.context, decided.index, deadline).await?;
        let job = self.context.quorum.read(|state| {
            let job = state.job(decided.job)?;
            let shown = convert::view::job_held(state, job);
            Some((shown, Arc::clone(&job.spec)))
        });
        let job = job.map(|(mut shown, spec)| {
            shown.spec = Some(convert::view::spec(&spec));
            shown
        });
        let mut response = Response::new(v1::SubmitJobResponse {
            job,
            known: decided.known,
            decide_us: decided.decide_us,
            commit_us,
        });
        status::label_applied(response.metadata_mut(), decided.index);
        Ok(response)
    }

    async fn submit_jobs(
        &self,
        request: Request<v1::SubmitJobsRequest>,
    ) -> Result<Response<v1::SubmitJobsResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let caller = Caller::of(&request)?;
        let requests = request.into_inner().requests;
        if requests.is_empty() || requests.len() > JOBS_MAX {
            let problem = format!("has {} items; 1 to {JOBS_MAX} are allowed", requests.len());
            return Err(status::bad_field("requests", &problem));
        }
        let (calls, refused) = submission::all(&caller, requests);
        let refused = refused.into_iter().map(|(at, status)| (at, refusal(&status)));
        let accepted = match calls.is_empty() {
            true => Vec::new(),
            false => {
                let accepted = self.accept(calls, deadline).await;
                accepted.map_err(|error| status::from_call(&error))?
            }
        };
        let index = accepted.iter().flatten().map(|accepted| accepted.decided.index).max();
        let mut results: Vec<v1::SubmitJobsResult> =
            accepted.into_iter().map(submit_result).collect();
        for (at, refusal) in refused {
            results.insert(at.min(results.len()), refusal);
        }
        let mut response = Response::new(v1::SubmitJobsResponse { results });
        if let Some(index) = index {
            status::label_applied(response.metadata_mut(), index);
        }
        Ok(response)
    }

    async fn plan_job(
        &self,
        request: Request<v1::PlanJobRequest>,
    ) -> Result<Response<v1::PlanJobResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, READ_TIME));
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let tenant = caller.tenant(&request.tenant, "tenant")?;
        let spec = convert::job::spec("spec", request.spec);
        let spec = Arc::new(spec.map_err(|rejection| status::rejected(&rejection))?);
        let limit = listed_max(request.replicas_max)?;
        let with_helps = !request.omit_counterfactuals;
        let plan = PlanCall { tenant: tenant.clone(), spec: Arc::clone(&spec), with_helps };
        let call = LeaderCall::Plan(plan);
        let answer = self.context.router.call(call, deadline).await;
        let planned = match answer.map_err(|error| status::from_call(&error))? {
            LeaderReply::Planned(planned) => planned,
            other => return Err(odd_answer(&other)),
        };
        // Names of nodes and sites are read here, so here must be what the leader saw.
        caught_up(&self.context, planned.index, deadline).await?;
        let limit = if request.omit_replicas { 0 } else { limit as usize };
        let shown = match planned.verdict {
            Ok(offer) => self.context.quorum.read(|state| {
                convert::view::plan(state, &spec, &offer, request.replicas_from, limit)
            }),
            Err(no_plan) => {
                let refusal = |state: &State| state.check_capacity(&tenant, &spec, false).err();
                let refusal = self.context.quorum.read(refusal);
                v1::PlanJobResponse {
                    refusal: refusal.map_or_else(String::new, |refusal| refusal.to_string()),
                    ..convert::explain::no_plan(&spec, &no_plan, caller.is_operator())
                }
            }
        };
        let next = if request.omit_replicas { 0 } else { shown.replicas_next };
        let shown = v1::PlanJobResponse {
            index: planned.index,
            decide_us: planned.decide_us,
            replicas_next: next,
            ..shown
        };
        let mut response = Response::new(shown);
        status::label_applied(response.metadata_mut(), planned.index);
        Ok(response)
    }

    async fn translate_manifest(
        &self,
        request: Request<v1::TranslateManifestRequest>,
    ) -> Result<Response<v1::TranslateManifestResponse>, Status> {
        super::manifest::translate(&self.context, request.into_inner()).await
    }

    async fn explain_job(
        &self,
        request: Request<v1::ExplainJobRequest>,
    ) -> Result<Response<v1::ExplainJobResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, READ_TIME));
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let (call, phase, spec) = match request.target {
            None => return Err(status::bad_field("target", "is missing")),
            Some(v1::explain_job_request::Target::Spec(spec)) => {
                let tenant = caller.tenant(&request.tenant, "tenant")?;
                let spec = convert::job::spec("spec", Some(spec));
                let spec = Arc::new(spec.map_err(|rejection| status::rejected(&rejection))?);
                let target = ExplainTarget::Spec(Arc::clone(&spec));
                (ExplainCall { tenant, target }, v1::JobPhase::Unspecified, spec)
            }
            Some(v1::explain_job_request::Target::JobId(id)) => {
                let id = JobId(id);
                read_point(&self.context, v1::Consistency::Linearizable.into(), deadline).await?;
                let found = self.context.quorum.read(|state| {
                    let job = convert::view::find(state, id, &caller)?;
                    let phase = convert::view::phase(job.phase);
                    Some((job.tenant.clone(), phase, Arc::clone(&job.spec)))
                });
                let (tenant, phase, spec) =
                    found.ok_or_else(|| status::not_found(Kind::Job, id))?;
                (ExplainCall { tenant, target: ExplainTarget::Job(id) }, phase, spec)
            }
        };
        let answer = self.context.router.call(LeaderCall::Explain(call), deadline).await;
        let explained = match answer.map_err(|error| status::from_call(&error))? {
            LeaderReply::Explained(explained) => explained,
            other => return Err(odd_answer(&other)),
        };
        let explain = |why| convert::explain::explanation(&spec, why, caller.is_operator());
        let mut response = Response::new(v1::ExplainJobResponse {
            phase: phase.into(),
            replicas_waiting: explained.waiting,
            explanation: explained.why.as_ref().map(explain),
            index: explained.index,
            decide_us: explained.decide_us,
        });
        status::label_applied(response.metadata_mut(), explained.index);
        Ok(response)
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, READ_TIME));
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let limit = listed_max(request.replicas_max)?;
        let index = read_point(&self.context, request.consistency, deadline).await?;
        let id = JobId(request.job_id);
        let found = self.context.quorum.read(|state| {
            let job = convert::view::find(state, id, &caller)?;
            let (replicas, next) = match request.omit_replicas {
                true => (Vec::new(), None),
                false => convert::view::replicas(state, job, request.replicas_from, limit as usize),
            };
            let job = Some(convert::view::job_whole(state, job));
            Some(v1::GetJobResponse { job, replicas, replicas_next: next.unwrap_or(0) })
        });
        let found = found.ok_or_else(|| status::not_found(Kind::Job, id))?;
        let mut response = Response::new(found);
        status::label_applied(response.metadata_mut(), index);
        Ok(response)
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, READ_TIME));
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let limit = page_size(request.page_size)?;
        let tenant = match request.tenant.as_str() {
            "" => None,
            named => Some(caller.tenant(named, "tenant")?),
        };
        let after = page_token(&request.page_token)?;
        let index = read_point(&self.context, request.consistency, deadline).await?;
        let wanted = |job: &scheduler_core::job::Job| {
            caller.sees_tenant(&job.tenant)
                && tenant.as_ref().is_none_or(|tenant| *tenant == job.tenant)
                && !(request.live_only && job.phase.is_over())
        };
        let page = self.context.quorum.read(|state| {
            let mut jobs = Vec::new();
            let mut last = after;
            for (looked, job) in state.jobs_after(after).enumerate() {
                if jobs.len() == limit || looked == SCAN_MAX {
                    let next_page_token = last.map_or_else(String::new, token_of);
                    return v1::ListJobsResponse { jobs, next_page_token };
                }
                last = Some(job.id);
                if wanted(job) {
                    jobs.push(convert::view::job_held(state, job));
                }
            }
            v1::ListJobsResponse { jobs, next_page_token: String::new() }
        });
        let mut response = Response::new(page);
        status::label_applied(response.metadata_mut(), index);
        Ok(response)
    }

    type WatchJobStream = BoxStream<'static, Result<v1::WatchJobResponse, Status>>;

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        // The caller's own timeout bounds the whole stream, not the look before it.
        let deadline = clock::deadline(READ_TIME);
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let id = JobId(request.job_id);
        let consistency = v1::Consistency::Linearizable.into();
        read_point(&self.context, consistency, deadline).await?;
        let visible = |state: &_| convert::view::find(state, id, &caller).is_some();
        if !self.context.quorum.read(visible) {
            return Err(status::not_found(Kind::Job, id));
        }
        let watch = self.context.watches.subscribe(id);
        let watch = watch.map_err(|full| status::busy(&full.to_string(), WATCH_RETRY))?;
        let follow = Follow {
            context: self.context.clone(),
            watch,
            id,
            after: request.after_index,
            over: false,
        };
        Ok(Response::new(futures::stream::unfold(follow, Follow::next).boxed()))
    }

    async fn scale_job(
        &self,
        request: Request<v1::ScaleJobRequest>,
    ) -> Result<Response<v1::ScaleJobResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let caller = Caller::of(&request)?;
        let scale = scale_command(request.into_inner())?;
        let (id, command) = (scale.job, Command::Scale(scale));
        let (outcome, index) =
            super::propose(&self.context, caller.actor, command, deadline).await?;
        let Outcome::Scaled { before, known } = outcome else {
            return Err(status::internal("the leader answered a scaling with something else"));
        };
        let job = self
            .context
            .quorum
            .read(|state| state.job(id).map(|job| convert::view::job_whole(state, job)));
        let answer = v1::ScaleJobResponse { job, replicas_before: before, known };
        let mut response = Response::new(answer);
        status::label_applied(response.metadata_mut(), index);
        Ok(response)
    }

    async fn cancel_job(
        &self,
        request: Request<v1::CancelJobRequest>,
    ) -> Result<Response<v1::CancelJobResponse>, Status> {
        let deadline = clock::deadline(time_left(&request, WRITE_TIME));
        let caller = Caller::of(&request)?;
        let job = JobId(request.into_inner().job_id);
        let message = match &caller.actor {
            scheduler_core::command::Actor::Tenant(_) => "cancelled by its tenant",
            _ => "cancelled by an operator",
        };
        let reason = Reason { code: ReasonCode::Cancelled, message: message.into() };
        let command = Command::Cancel { job, reason };
        let (outcome, index) =
            super::propose(&self.context, caller.actor, command, deadline).await?;
        let changed = outcome == Outcome::Done { changed: true };
        let shown = self
            .context
            .quorum
            .read(|state| state.job(job).map(|job| convert::view::job_whole(state, job)));
        let mut response = Response::new(v1::CancelJobResponse { job: shown, changed });
        status::label_applied(response.metadata_mut(), index);
        Ok(response)
    }
}

/// One watch as a stream: looks at the state whenever the job has changed. It is asked for the
/// next message once the connection has room, so a client that reads slowly misses only states
/// that were overtaken; one that does not read at all is parted with by the hub.
struct Follow {
    context: Context,
    watch: Watch,
    id: JobId,
    /// Send the job once it has changed after this index.
    after: u64,
    over: bool,
}

impl Follow {
    async fn next(mut self) -> Option<(Result<v1::WatchJobResponse, Status>, Self)> {
        // The encoder asks for the next message before it gives the last one to the connection;
        // after a pause only the connection asks, and only when it has room.
        tokio::task::yield_now().await;
        if let Err(part) = self.watch.taken() {
            return self.end(status::parted(part));
        }
        while !self.over {
            let (id, after) = (self.id, self.after);
            let look = self.context.quorum.read(|state| {
                let job = state.job(id)?;
                let news = (after == 0 || job.modified_index > after)
                    .then(|| convert::view::job_whole(state, job));
                Some((news, job.modified_index, job.phase.is_over()))
            });
            // Forgotten: it was over long ago.
            let (news, modified, over) = look?;
            self.over = over;
            if let Some(job) = news {
                self.after = modified.max(1);
                let message = v1::WatchJobResponse { job: Some(job) };
                return match self.watch.handed(message.encoded_len()) {
                    Ok(()) => Some((Ok(message), self)),
                    Err(part) => self.end(status::parted(part)),
                };
            }
            if !self.over && !self.watch.changed().await {
                return self.end(status::stopping());
            }
        }
        None
    }

    fn end(mut self, status: Status) -> Option<(Result<v1::WatchJobResponse, Status>, Self)> {
        if self.over {
            return None;
        }
        self.over = true;
        Some((Err(status), self))
    }
}

/// A token is opaque to clients; inside it is the last job's number.
fn token_of(last: JobId) -> String {
    format!("j{:x}", last.0)
}

fn page_token(text: &str) -> Result<Option<JobId>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let number = text.strip_prefix('j').filter(|hex| hex.len() <= 16);
    let number = number.and_then(|hex| u64::from_str_radix(hex, 16).ok());
    let bad = || status::bad_field("page_token", "is not one that this service gave");
    number.map(|number| Some(JobId(number))).ok_or_else(bad)
}

/// Parses a tenant's name; `field` is its path.
pub(crate) fn tenant_name(field: &str, text: &str) -> Result<TenantId, Status> {
    let name = Name::parse(text).map(TenantId);
    name.map_err(|error| status::bad_field(field, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::submission::tests::request;
    use scheduler_core::command::Actor;
    use tonic::Code;

    #[test]
    fn page_tokens_are_ours_only() {
        assert_eq!(page_token("").ok(), Some(None));
        assert_eq!(page_token(&token_of(JobId(77))).ok(), Some(Some(JobId(77))));
        for bad in ["77", "jx", "j", "j-1", "j11112222333344445", "j\u{e4}"] {
            assert!(page_token(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refusals_in_a_batch_name_the_field() {
        let caller = Caller::new(Actor::Operator, true);
        let mut bad = request();
        bad.spec.as_mut().expect("has one").groups[0].replicas = 0;
        let refused =
            submission::one(&caller, submission::At::Item(7), bad, None).expect_err("is bad");
        let shown = refusal(&refused);
        let Some(v1::submit_jobs_result::Result::Refusal(refusal)) = shown.result else {
            panic!("is a refusal")
        };
        assert_eq!(refusal.field, "requests[7].spec.groups[0].replicas");
        assert_eq!(refusal.code, i32::from(Code::InvalidArgument));
    }
}
