//! The deployment that `dev` shows: one Ray-style gang over most of the fleet.

use super::figures::Figures;
use super::ms;
use super::progress::Progress;
use crate::answer::plan::Plan;
use crate::args::DevArgs;
use crate::client::Client;
use crate::command::{follow, is_over};
use crate::exit::{Exit, Failure};
use crate::output::{Answer, table::Table};
use futures::StreamExt;
use proto::v1;
use scheduler_agent::fleet::Fleet;
use scheduler_agent::profile::Profile;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Name of the job: how a later start on the same data knows it again.
const JOB_NAME: &str = "dev-cluster";
/// Nodes removed at a time when an earlier fleet is cleared away.
const REMOVALS_AT_ONCE: usize = 64;
/// Page size of lists.
const PAGE: u32 = 1_000;

/// A gang of equal workers, and one worker with the rest.
pub(crate) fn spec(gpus: u32, gpus_per_worker: u32, rtt_us_max: u32) -> v1::JobSpec {
    let group = |name: &str, replicas: u32, gpu_count: u32| v1::Group {
        name: name.to_owned(),
        role: v1::Role::Worker.into(),
        replicas,
        shape: Some(v1::Shape {
            gpus: Some(v1::shape::Gpus::GpuCount(gpu_count)),
            cpu_milli: u64::from(gpu_count) * 1_000,
            memory_mib: u64::from(gpu_count) * 4_096,
            ..v1::Shape::default()
        }),
        ..v1::Group::default()
    };
    let (whole, rest) = (gpus / gpus_per_worker, gpus % gpus_per_worker);
    let mut groups = Vec::new();
    if whole > 0 {
        groups.push(group("workers", whole, gpus_per_worker));
    }
    if rest > 0 {
        groups.push(group("rest", 1, rest));
    }
    v1::JobSpec {
        name: JOB_NAME.to_owned(),
        kind: v1::JobKind::Ray.into(),
        groups,
        strategy: v1::Strategy::Pack.into(),
        rtt_us_max,
        ..v1::JobSpec::default()
    }
}

/// Submits the gang, follows it until it is ready, and fills in the figures.
pub(super) async fn deploy(
    progress: &Progress,
    client: &Client,
    args: &DevArgs,
    profile: &Profile,
    fleet: &Fleet,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let spec = spec(args.gpus, args.gpus_per_worker, args.max_rtt);
    let replicas: u64 = spec.groups.iter().map(|group| u64::from(group.replicas)).sum();
    let before = fleet.progress();
    let request = v1::SubmitJobRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        spec: Some(spec.clone()),
        tenant: crate::cluster::TENANT.to_owned(),
        ..v1::SubmitJobRequest::default()
    };
    let decide = progress.phase("decide", 1);
    let sent = Instant::now();
    let answer = client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().submit_job(request).await }
        })
        .await?;
    figures.submit_ms = ms(sent.elapsed());
    figures.decide_ms = answer.decide_us as f64 / 1_000.0;
    figures.commit_ms = answer.commit_us as f64 / 1_000.0;
    let job = answer.job.ok_or_else(|| Failure::refused("the server's answer has no job"))?;
    figures.job = job.id;
    if job.phase() == v1::JobPhase::Pending {
        return Err(unplaced(client, &spec, args).await);
    }
    decide.done(figures.decide_ms);
    progress.phase("commit", 1).done(figures.commit_ms);

    let dispatch = progress.phase("dispatch", replicas);
    let ready = progress.phase("ready", replicas);
    let (dispatched_at, ready_at) = (Cell::new(None), Cell::new(None));
    let arrived = |p: scheduler_agent::fleet::Progress| {
        let ended = p.failures - before.failures;
        p.replicas_starting + p.replicas_ready + ended
            - before.replicas_starting
            - before.replicas_ready
    };
    let dispatching = async {
        fleet
            .wait(|p| {
                dispatch.at(arrived(p));
                arrived(p) >= replicas
            })
            .await;
        dispatched_at.set(Some(ms(sent.elapsed())));
    };
    let watching = follow(client, job.id, 0, |job| {
        ready.at(u64::from(job.counts.unwrap_or_default().ready));
        if job.phase() == v1::JobPhase::Ready {
            ready_at.set(Some(ms(sent.elapsed())));
        }
        Ok(job.phase() == v1::JobPhase::Ready || is_over(job.phase()))
    });
    let both = async { tokio::join!(dispatching, watching).1 };
    let phase = tokio::select! {
        phase = both => phase?,
        () = tokio::time::sleep_until((sent + args.deadline).into()) => {
            return Err(late(client, job.id, args.deadline, fleet).await);
        }
    };
    let (Some(dispatch_ms), Some(ready_ms)) = (dispatched_at.get(), ready_at.get()) else {
        return Err(Failure::refused(format!(
            "job {} ended as {} before it was ready",
            job.id,
            phase.as_str_name()
        )));
    };
    (figures.dispatch_ms, figures.ready_ms, figures.ready) = (dispatch_ms, ready_ms, true);
    dispatch.done(dispatch_ms);
    ready.done(ready_ms);
    look(client, args, profile, figures).await
}

/// Where the members are.
async fn look(
    client: &Client,
    args: &DevArgs,
    profile: &Profile,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let nodes = profile.nodes(args.nodes as usize);
    let by_name: BTreeMap<&str, &v1::NodeSpec> =
        nodes.iter().map(|n| (n.name.as_str(), n)).collect();
    let (mut sites, mut models) = (BTreeSet::new(), BTreeSet::new());
    let mut request = v1::GetJobRequest { job_id: figures.job, ..v1::GetJobRequest::default() };
    loop {
        let answer = client
            .call(|attempt| {
                let request = attempt.request(request);
                async move { attempt.jobs().get_job(request).await }
            })
            .await?;
        for node in answer.replicas.iter().filter_map(|r| by_name.get(r.node_name.as_str())) {
            sites.extend(node.place.as_ref().map(|place| place.site.as_str()));
            models.extend(node.gpus.first().map(|gpu| gpu.model.clone()));
        }
        let job = answer.job.unwrap_or_default();
        figures.nodes_used = job.nodes;
        figures.regions = job.regions;
        figures.rtt_widest_ms = f64::from(job.rtt_us_widest) / 1_000.0;
        if answer.replicas_next <= request.replicas_from {
            break;
        }
        request.replicas_from = answer.replicas_next;
    }
    figures.sites = sites.len();
    figures.models = models.into_iter().collect();
    Ok(())
}

/// Why the gang waits, in the planner's words.
async fn unplaced(client: &Client, spec: &v1::JobSpec, args: &DevArgs) -> Failure {
    let request = v1::PlanJobRequest {
        spec: Some(spec.clone()),
        tenant: crate::cluster::TENANT.to_owned(),
        ..v1::PlanJobRequest::default()
    };
    let plan = client
        .call(|attempt| {
            let request = attempt.request(request.clone());
            async move { attempt.jobs().plan_job(request).await }
        })
        .await;
    let mut failure =
        Failure::new(Exit::Refused, format!("{} GPUs do not fit on this fleet now", args.gpus));
    match plan {
        Ok(answer) => {
            let tables = Plan::new(spec, answer).tables(false);
            let text = tables.iter().map(Table::render).collect::<String>();
            failure.details.extend(text.lines().map(str::to_owned));
        }
        Err(error) => failure.details.push(format!("the planner gave no explanation: {error}")),
    }
    failure.next("ask for fewer --gpus, more --nodes, or a wider --max-rtt")
}

/// What is known about a gang that did not become ready in time.
async fn late(client: &Client, id: u64, deadline: Duration, fleet: &Fleet) -> Failure {
    let mut failure =
        Failure::refused(format!("job {id} is not ready after {} s", deadline.as_secs()));
    let answer = client
        .call(|attempt| {
            let request = v1::GetJobRequest {
                job_id: id,
                omit_replicas: true,
                ..v1::GetJobRequest::default()
            };
            let request = attempt.request(request);
            async move { attempt.jobs().get_job(request).await }
        })
        .await;
    if let Some(job) = answer.ok().and_then(|answer| answer.job) {
        failure = failure.detail(crate::answer::job::Job::from(job).line());
    }
    let p = fleet.progress();
    failure = failure.detail(format!(
        "agents: {} in session, {} replicas starting, {} ready, {} failed",
        p.sessions, p.replicas_starting, p.replicas_ready, p.failures
    ));
    failure.details.extend(fleet.trouble());
    failure
}

/// Takes away what an earlier start left: its gang and its simulated machines, which are gone with it.
pub(super) async fn clear_earlier(client: &Client, progress: &Progress) -> Result<(), Failure> {
    for job in live_jobs(client).await?.iter().filter(|job| job.name == JOB_NAME) {
        progress.say(&format!("job {} of the earlier start is cancelled", job.id));
        client
            .call(|attempt| {
                let request = attempt.request(v1::CancelJobRequest { job_id: job.id });
                async move { attempt.jobs().cancel_job(request).await }
            })
            .await?;
    }
    let nodes = node_ids(client).await?;
    if nodes.is_empty() {
        return Ok(());
    }
    let phase = progress.phase("old nodes away", nodes.len() as u64);
    let remove = |node_id: u32| {
        client.call_alone(move |attempt| {
            let request = attempt.request(v1::RemoveNodeRequest { node_id, force: true });
            async move { attempt.nodes().remove_node(request).await }
        })
    };
    let mut removals =
        futures::stream::iter(nodes.into_iter().map(remove)).buffer_unordered(REMOVALS_AT_ONCE);
    let mut count = 0;
    while let Some(result) = removals.next().await {
        result?;
        count += 1;
        phase.at(count);
    }
    phase.done_now();
    Ok(())
}

async fn live_jobs(client: &Client) -> Result<Vec<v1::Job>, Failure> {
    let request = v1::ListJobsRequest { live_only: true, ..v1::ListJobsRequest::default() };
    Ok(client.all_jobs(v1::ListJobsRequest { page_size: PAGE, ..request }).await?)
}

async fn node_ids(client: &Client) -> Result<Vec<u32>, Failure> {
    let request = v1::ListNodesRequest { page_size: PAGE, ..v1::ListNodesRequest::default() };
    let nodes = client.all_nodes(request).await?;
    Ok(nodes.into_iter().map(|node| node.id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gang_has_exactly_the_gpus_asked_for() {
        for (gpus, per_worker) in
            [(1, 8), (7, 8), (8, 8), (9, 8), (10_000, 8), (10_001, 8), (10_000, 1)]
        {
            let spec = spec(gpus, per_worker, 0);
            let sizes: Vec<(u32, u32)> = spec
                .groups
                .iter()
                .map(|group| match group.shape.as_ref().and_then(|s| s.gpus) {
                    Some(v1::shape::Gpus::GpuCount(count)) => (group.replicas, count),
                    _ => (group.replicas, 0),
                })
                .collect();
            assert_eq!(sizes.iter().map(|(replicas, count)| replicas * count).sum::<u32>(), gpus);
            assert!(sizes.iter().all(|(_, count)| *count <= per_worker));
        }
        assert_eq!(spec(10_000, 8, 0).groups[0].replicas, 1_250);
    }
}
