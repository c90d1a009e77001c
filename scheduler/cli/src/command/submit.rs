//! `submit` and `plan`.

use super::{Context, job, missing};
use crate::answer::job::{Job, Submitted};
use crate::answer::plan::Plan;
use crate::args::{PlanArgs, SubmitArgs, WatchArgs};
use crate::exit::{Ending, Exit, Failure};
use crate::job_file;
use crate::output::{self, Format};
use proto::v1::{JobPhase, PlanJobRequest, SubmitJobRequest};

pub(super) async fn submit(context: &Context, args: SubmitArgs) -> Ending {
    let spec = job_file::load(&args.file, &context.output)?;
    let request_id = args.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let request = SubmitJobRequest { request_id, spec: Some(spec), tenant: context.tenant.clone() };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().submit_job(request).await }
        })
        .await
        .map_err(|error| {
            let lost =
                matches!(error.code(), tonic::Code::Unavailable | tonic::Code::DeadlineExceeded);
            let failure = Failure::from(error);
            match lost {
                // The job may be accepted all the same: only the same id makes a repeat safe.
                true => failure.next(format!("repeat with --request-id {}", request.request_id)),
                false => failure,
            }
        })?;
    let job = answer.job.ok_or_else(|| missing("job"))?;
    let (id, phase, index) = (job.id, job.phase(), job.modified_index);
    let submitted = Submitted {
        job: Job::from(job),
        known: answer.known,
        decide_us: answer.decide_us,
        commit_us: answer.commit_us,
    };
    context.output.show(&submitted)?;
    if args.watch {
        return job::watch(context, WatchArgs { id, after: index, until_ready: false }).await;
    }
    match phase {
        JobPhase::Pending => context
            .output
            .suggest(&format!("muster plan -f {} says why it waits; muster watch {id}", args.file)),
        _ => context.output.suggest(&format!("muster watch {id}")),
    }
    Ok(Exit::Done)
}

pub(super) async fn plan(context: &Context, args: PlanArgs) -> Ending {
    let spec = job_file::load(&args.file, &context.output)?;
    if context.output.format == Format::Native {
        // What the manifest was understood as needs no server.
        output::print(&job_file::native(&spec)?)?;
        return Ok(Exit::Done);
    }
    let request = PlanJobRequest { spec: Some(spec.clone()), tenant: context.tenant.clone() };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().plan_job(request).await }
        })
        .await?;
    let plan = Plan::new(&spec, answer);
    context.output.show(&plan)?;
    if plan.placeable {
        context.output.suggest(&format!("muster submit -f {}", args.file));
        return Ok(Exit::Done);
    }
    context.output.suggest("muster gpus shows what is free");
    Ok(Exit::NotPlaceable)
}
