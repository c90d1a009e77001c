//! `jobs`, `job`, `watch`, `scale`, `cancel`.

use super::{Context, consistency, interrupted, is_lost, missing};
use crate::answer::List;
use crate::answer::job::{Job, Scaled};
use crate::args::{JobArgs, JobsArgs, ScaleJobArgs, WatchArgs};
use crate::client::Client;
use crate::exit::{Ending, Exit, Failure};
use proto::v1::{
    CancelJobRequest, GetJobRequest, JobPhase, ListJobsRequest, ScaleJobRequest, WatchJobRequest,
};
use std::time::{Duration, Instant};

/// Largest page that servers give.
const PAGE_MAX: u32 = 1_000;
/// Pause before a broken watch is opened again.
const WATCH_PAUSE: Duration = Duration::from_millis(200);
/// Breaks without anything new in between before we give up.
const WATCH_BREAKS_MAX: u32 = 20;

pub(super) async fn list(context: &Context, args: JobsArgs) -> Ending {
    let limit = args.limit as usize;
    let mut items: Vec<Job> = Vec::new();
    let mut page_token = String::new();
    let more = loop {
        let request = ListJobsRequest {
            page_size: args.limit.min(PAGE_MAX),
            page_token: page_token.clone(),
            live_only: !args.all,
            tenant: context.tenant.clone(),
            consistency: consistency(args.read),
        };
        let page = context.client.page_of_jobs(&request).await?;
        items.extend(page.jobs.into_iter().map(Job::from));
        page_token = page.next_page_token;
        if page_token.is_empty() || items.len() >= limit {
            break !page_token.is_empty() || items.len() > limit;
        }
    };
    items.truncate(limit);
    let none =
        if args.all { "no jobs yet" } else { "no live jobs; --all shows those that are over" };
    context.show_list(&List { items, more }, none, "there are more; --limit shows them")
}

pub(super) async fn show(context: &Context, args: JobArgs) -> Ending {
    let mut request = GetJobRequest {
        job_id: args.id,
        consistency: consistency(args.read),
        ..GetJobRequest::default()
    };
    let mut replicas = Vec::new();
    let job = loop {
        let answer = context
            .client
            .call(|attempt| {
                let request = attempt.request(request);
                async move { attempt.jobs().get_job(request).await }
            })
            .await?;
        replicas.extend(answer.replicas);
        if answer.replicas_next <= request.replicas_from {
            break answer.job.ok_or_else(|| missing("job"))?;
        }
        request.replicas_from = answer.replicas_next;
    };
    let waits = job.phase() == JobPhase::Pending;
    context.output.show(&Job::from(job).with_replicas(replicas))?;
    if waits {
        context.output.suggest(&format!("muster watch {}", args.id));
    }
    Ok(Exit::Done)
}

pub(super) async fn scale(context: &Context, args: ScaleJobArgs) -> Ending {
    let request = ScaleJobRequest {
        job_id: args.id,
        group: args.to.group,
        replicas: args.to.replicas,
        replicas_expected: args.from,
        request_id: args.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
    };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().scale_job(request).await }
        })
        .await
        .map_err(|error| match is_lost(&error) {
            // It may be followed all the same: only the same id makes a repeat safe.
            true => Failure::from(error)
                .next(format!("repeat with --request-id {}", request.request_id)),
            false => Failure::from(error),
        })?;
    let job = answer.job.ok_or_else(|| missing("job"))?;
    let waits = job.counts.is_some_and(|counts| counts.waiting > 0);
    context.output.show(&Scaled {
        job: Job::from(job),
        group: request.group,
        replicas: request.replicas,
        replicas_before: answer.replicas_before,
        known: answer.known,
    })?;
    if waits {
        let id = args.id;
        context.output.suggest(&format!("muster watch {id}; muster explain {id} says what waits"));
    }
    Ok(Exit::Done)
}

pub(super) async fn cancel(context: &Context, id: u64) -> Ending {
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(CancelJobRequest { job_id: id });
            async move { attempt.jobs().cancel_job(request).await }
        })
        .await?;
    let job = Job::from(answer.job.ok_or_else(|| missing("job"))?);
    context.output.show(&job)?;
    if !answer.changed {
        context.output.say(&format!("job {id} was over already; nothing changed"));
    }
    Ok(Exit::Done)
}

/// Whether a job in this phase never changes again.
pub(crate) fn is_over(phase: JobPhase) -> bool {
    matches!(phase, JobPhase::Ended | JobPhase::Failed | JobPhase::Expired)
}

pub(super) async fn watch(context: &Context, args: WatchArgs) -> Ending {
    let mut after = args.after;
    let follow = follow(&context.client, args.id, after, |job| {
        after = job.modified_index;
        let phase = job.phase();
        let job = Job::from(job);
        context.output.show_next(&job, &job.line())?;
        Ok(is_over(phase) || (args.until_ready && phase == JobPhase::Ready))
    });
    let end = tokio::select! {
        end = follow => Some(end),
        () = interrupted() => None,
    };
    match end {
        Some(Ok(JobPhase::Failed)) => Ok(Exit::Refused),
        Some(Ok(_)) => Ok(Exit::Done),
        Some(Err(failure)) => {
            Err(failure.next(format!("muster watch {} --after {after}", args.id)))
        }
        None => {
            context.output.say(&format!("stopped following; job {} goes on", args.id));
            context.output.suggest(&format!("muster watch {} --after {after}", args.id));
            Ok(Exit::Interrupted)
        }
    }
}

/// Follows a job across broken streams, until `seen` says that it is enough; gives the last phase.
pub(crate) async fn follow(
    client: &Client,
    id: u64,
    mut after: u64,
    mut seen: impl FnMut(proto::v1::Job) -> Result<bool, Failure>,
) -> Result<JobPhase, Failure> {
    let mut breaks = 0;
    let mut last = JobPhase::Unspecified;
    loop {
        let request = WatchJobRequest { job_id: id, after_index: after };
        let mut stream = client
            .open(|attempt| {
                let request = attempt.request(request);
                async move { attempt.jobs().watch_job(request).await }
            })
            .await?;
        let opened = Instant::now();
        loop {
            match stream.message().await {
                Ok(Some(answer)) => {
                    let job = answer.job.ok_or_else(|| missing("job"))?;
                    (after, last, breaks) = (job.modified_index, job.phase(), 0);
                    if seen(job)? {
                        return Ok(last);
                    }
                }
                Ok(None) if is_over(last) => return Ok(last),
                Ok(None) => break,
                Err(status) if is_break(&status) => break,
                Err(status) => {
                    return Err(Failure::refused(format!("the watch ended: {}", status.message())));
                }
            }
        }
        breaks += 1;
        if breaks > WATCH_BREAKS_MAX {
            return Err(Failure::new(Exit::Unavailable, "the watch breaks again and again"));
        }
        if opened.elapsed() < WATCH_PAUSE {
            tokio::time::sleep(WATCH_PAUSE).await;
        }
    }
}

/// Whether the stream broke for a cause that a new one does not share.
fn is_break(status: &tonic::Status) -> bool {
    use tonic::Code::{Cancelled, Internal, ResourceExhausted, Unavailable, Unknown};
    // A dying connection shows as any of these.
    matches!(status.code(), Unavailable | Unknown | Internal | Cancelled | ResourceExhausted)
}
