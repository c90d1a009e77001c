//! `submit` and `plan`.

use super::{Context, is_lost, job, missing};
use crate::answer::job::{Job, Submitted};
use crate::answer::plan::Plan;
use crate::args::{PlanArgs, SubmitArgs, WatchArgs};
use crate::exit::{Ending, Exit, Failure};
use crate::job_file;
use crate::output::{self, Format};
use proto::v1::{
    JobPhase, JobSpec, PlanJobRequest, PlanJobResponse, SubmitJobRequest, TranslateManifestRequest,
};

/// Pages of a plan asked for before giving up: three times what the largest job needs.
const PAGES_MAX: u32 = 16;

/// Has a server read a manifest, with GPU models by the names that its fleet has for them.
pub(super) async fn load(context: &Context, file: &str) -> Result<JobSpec, Failure> {
    let request = TranslateManifestRequest { text: job_file::text(file)? };
    let answer = context.client.call(|attempt| {
        let request = attempt.request(request.clone());
        async move { attempt.jobs().translate_manifest(request).await }
    });
    job_file::told(file, answer.await?, &context.output)
}

pub(super) async fn submit(context: &Context, args: SubmitArgs) -> Ending {
    let spec = load(context, &args.file).await?;
    let request_id = args.request_id.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let request = SubmitJobRequest {
        request_id,
        spec: Some(spec),
        tenant: context.tenant.clone(),
        check_index: args.check_index.unwrap_or(0),
        plan_digest: args.plan_digest.unwrap_or_default(),
    };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().submit_job(request).await }
        })
        .await
        .map_err(|error| {
            let lost = is_lost(&error);
            let changed = error.code() == tonic::Code::Aborted;
            let failure = Failure::from(error);
            match lost {
                false if changed => failure.next(format!("muster plan -f {}", args.file)),
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
            .suggest(&format!("muster explain {id} says what would help; muster watch {id}")),
        _ => context.output.suggest(&format!("muster watch {id}")),
    }
    Ok(Exit::Done)
}

pub(super) async fn plan(context: &Context, args: PlanArgs) -> Ending {
    if context.output.format == Format::Native {
        // What the manifest was understood as needs no server.
        let spec = job_file::read(&args.file, &context.output)?;
        output::print(&job_file::native(&spec)?)?;
        return Ok(Exit::Done);
    }
    let spec = load(context, &args.file).await?;
    let answer = planned(context, &spec).await?;
    let plan = Plan::new(&spec, answer);
    context.output.show(&plan)?;
    if plan.placeable {
        let (file, index) = (&args.file, plan.index);
        context.output.suggest(&format!("muster submit -f {file} --check-index {index}"));
        return Ok(Exit::Done);
    }
    context.output.suggest("muster gpus shows what is free");
    Ok(Exit::NotPlaceable)
}

/// All pages of one plan: a page of another one starts it again.
async fn planned(context: &Context, spec: &JobSpec) -> Result<PlanJobResponse, Failure> {
    let mut request = PlanJobRequest {
        spec: Some(spec.clone()),
        tenant: context.tenant.clone(),
        ..PlanJobRequest::default()
    };
    let mut whole: Option<PlanJobResponse> = None;
    for _ in 0..PAGES_MAX {
        let mut page = context
            .client
            .call(|attempt| {
                let request = attempt.request(request.clone());
                async move { attempt.jobs().plan_job(request).await }
            })
            .await?;
        let next = page.replicas_next;
        if let Some(mut before) = whole.take() {
            if before.plan_digest != page.plan_digest {
                request.replicas_from = 0;
                continue;
            }
            before.replicas.append(&mut page.replicas);
            page.replicas = before.replicas;
            // The first page's index is the one that the plan was made at.
            page.index = before.index;
        }
        if next <= request.replicas_from {
            return Ok(page);
        }
        request.replicas_from = next;
        whole = Some(page);
    }
    Err(Failure::refused("the fleet changes faster than a plan this long can be read")
        .next("repeat the command"))
}
