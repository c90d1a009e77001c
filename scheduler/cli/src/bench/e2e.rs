//! From the request for a gang to all members ready: servers and fleet in processes of their own.

use super::Stand;
use super::report::{Report, Target};
use crate::args::{E2eArgs, FleetShape};
use crate::client::Client;
use crate::cluster::{Process, TENANT};
use crate::command::{follow, gather, is_over, profile, set_rtts};
use crate::dev::gang;
use crate::exit::Failure;
use proto::v1;
use std::time::{Duration, Instant};

/// The fleet has this long to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(300);
/// A gang that is not ready by then never will be.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at the fleet.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn measure(
    stand: &mut Stand,
    args: &E2eArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    // A gang of all single-GPU nodes spans all sites, so its bound is wider than any pair of them.
    let (name, nodes, per_worker, rtt_us_max, ready_target) = match args.shape {
        FleetShape::Eight => ("global", 1_500, 8, 300_000, 1_500.0),
        FleetShape::Single => ("single", 10_000, 1, 400_000, 6_000.0),
    };
    let servers = stand.cluster.urls().join(",");
    let log = stand.cluster.home().join("fleet.log");
    let count = nodes.to_string();
    let arguments =
        ["fleet", "--nodes", &count, "--profile", name, "--server", &servers, "--stop-with-stdin"];
    let began = Instant::now();
    let mut fleet = Process::spawn(&arguments, log)?;
    let client = stand.client()?;
    loop {
        let sessions: u32 =
            gather(&client, false).await?.servers.iter().filter_map(|s| s.sessions).sum();
        if sessions >= nodes {
            break;
        }
        if let Some(end) = fleet.ended() {
            return Err(fleet.failure(&format!("the fleet ended: {end}")));
        }
        if began.elapsed() > JOIN_TIMEOUT {
            return Err(fleet.failure(&format!("only {sessions} of {nodes} agents have a session")));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    report.figure("agents joined", began.elapsed().as_secs_f64() * 1_000.0, "ms", Target::None);
    set_rtts(&client, &profile(name)?, nodes).await?;

    let mut samples = [const { Vec::new() }; 4];
    // The first round warms connections and caches; it is not counted.
    for round in 0..=args.rounds {
        let spec = gang(args.gpus, per_worker, rtt_us_max);
        let took = tokio::time::timeout(READY_TIMEOUT, deploy(&client, spec)).await;
        let took = took.map_err(|_| fleet.failure("the gang did not become ready in time"))??;
        let [decide, commit, committed, ready] = took;
        stand.output.say(&format!(
            "round {round}: decide {decide:.1} ms, commit {commit:.1} ms, request to committed {committed:.1} ms, to ready {ready:.1} ms"
        ));
        if round > 0 {
            samples.iter_mut().zip(took).for_each(|(all, one)| all.push(one));
        }
    }
    fleet.stop().await;
    let [decide, commit, committed, ready] = samples;
    let commit_target =
        if args.shape == FleetShape::Eight { Target::AtMost(20.0) } else { Target::None };
    report.median("decide", decide, "ms", Target::None);
    report.median("commit", commit, "ms", Target::None);
    report.median("request to committed", committed, "ms", commit_target);
    report.median("request to ready", ready, "ms", Target::AtMost(ready_target));
    report.note(format!(
        "{} GPUs, {nodes} nodes of profile {name}, {} rounds after one to warm up",
        args.gpus, args.rounds
    ));
    Ok(())
}

/// Decide, commit, request to committed, request to ready: all in milliseconds.
async fn deploy(client: &Client, spec: v1::JobSpec) -> Result<[f64; 4], Failure> {
    let request = v1::SubmitJobRequest {
        request_id: uuid::Uuid::new_v4().to_string(),
        spec: Some(spec),
        tenant: TENANT.to_owned(),
        ..v1::SubmitJobRequest::default()
    };
    let sent = Instant::now();
    let answer = super::load::submit(client, request).await?;
    let committed = sent.elapsed();
    let job = answer.job.unwrap_or_default();
    if job.phase() == v1::JobPhase::Pending {
        let reason = job.reason.unwrap_or_default();
        return Err(Failure::refused(format!("the gang does not fit: {}", reason.message)));
    }
    let phase = follow(client, job.id, 0, |job| {
        Ok(job.phase() == v1::JobPhase::Ready || is_over(job.phase()))
    })
    .await?;
    let ready = sent.elapsed();
    if phase != v1::JobPhase::Ready {
        return Err(Failure::refused(format!("the gang ended as {}", phase.as_str_name())));
    }
    release(client, job.id).await?;
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    Ok([
        answer.decide_us as f64 / 1_000.0,
        answer.commit_us as f64 / 1_000.0,
        ms(committed),
        ms(ready),
    ])
}

/// Cancels a job and waits until the fleet is free again.
async fn release(client: &Client, id: u64) -> Result<(), Failure> {
    client
        .call(|attempt| {
            let request = attempt.request(v1::CancelJobRequest { job_id: id });
            async move { attempt.jobs().cancel_job(request).await }
        })
        .await?;
    loop {
        let capacity = client
            .call(|attempt| {
                let request = attempt.request(v1::GetCapacityRequest::default());
                async move { attempt.nodes().get_capacity(request).await }
            })
            .await?;
        if capacity.models.iter().all(|model| model.gpu_milli_used == 0) {
            // Let the agents see it, too.
            tokio::time::sleep(LOOK_PAUSE * 10).await;
            return Ok(());
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}
