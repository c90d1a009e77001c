//! `explain`.

use super::{Context, submit};
use crate::answer::explain::Explained;
use crate::args::ExplainArgs;
use crate::exit::{Ending, Exit};
use proto::v1::{ExplainJobRequest, explain_job_request::Target};

pub(super) async fn explain(context: &Context, args: ExplainArgs) -> Ending {
    let (target, tenant) = match (args.id, &args.file) {
        (Some(id), _) => (Some(Target::JobId(id)), String::new()),
        (None, Some(file)) => {
            (Some(Target::Spec(submit::load(context, file).await?)), context.tenant.clone())
        }
        (None, None) => (None, String::new()),
    };
    let request = ExplainJobRequest { target, tenant };
    let answer = context
        .client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().explain_job(request).await }
        })
        .await?;
    context.output.show(&Explained::new(args.id, answer))?;
    Ok(Exit::Done)
}
