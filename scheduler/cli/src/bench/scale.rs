//! A fleet of 69,000 nodes, half of it allocated: memory, restart, and writes during snapshots.

use super::report::{Latencies, Report, Target};
use super::{Stand, load};
use crate::args::ScaleArgs;
use crate::client::Client;
use crate::cluster::machine::{rss_mib, rss_peak_mib};
use crate::command::gather;
use crate::exit::Failure;
use futures::{StreamExt, TryStreamExt, stream};
use proto::v1;
use std::time::{Duration, Instant};

/// Jobs of one call.
const BATCH: usize = 512;
/// Calls under way at once.
const BATCHES_AT_ONCE: usize = 4;
/// GPUs of one job.
const GPUS_PER_JOB: u32 = 8;
/// A write is due this often.
const PROBE_EVERY: Duration = Duration::from_millis(5);
/// Writes without a snapshot, to compare with.
const QUIET_TIME: Duration = Duration::from_secs(5);
/// Writes that go on after a snapshot is reported written.
const TAIL_TIME: Duration = Duration::from_millis(500);
/// Memory is read after this rest.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// A server that is not back by then never will be.
const BACK_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause between two looks at a server that comes back.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

pub(super) async fn measure(
    stand: &mut Stand,
    args: &ScaleArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let clients = stand.clients(4)?;
    let began = Instant::now();
    load::register(&clients, load::nodes(load::sizes(args.nodes, args.gpus))).await?;
    let took = began.elapsed().as_secs_f64();
    stand
        .output
        .say(&format!("{} nodes with {} GPUs registered in {took:.1} s", args.nodes, args.gpus));
    report.figure("nodes registered", f64::from(args.nodes) / took, "nodes/s", Target::None);

    let began = Instant::now();
    let jobs = allocate(&clients, args.gpus / 2 / GPUS_PER_JOB).await?;
    let took = began.elapsed().as_secs_f64();
    stand.output.say(&format!("{jobs} jobs of {GPUS_PER_JOB} GPUs placed in {took:.1} s"));
    report.figure("jobs of 8 GPUs placed", jobs as f64 / took, "jobs/s", Target::None);

    tokio::time::sleep(SETTLE_TIME).await;
    memory(stand, report, "half allocated");
    stalls(stand, report).await?;
    memory(stand, report, "after snapshots");
    restarts(stand, report, args.restarts).await?;
    report.note(format!(
        "{} nodes, {} GPUs, {jobs} jobs of {GPUS_PER_JOB} GPUs",
        args.nodes, args.gpus
    ));
    Ok(())
}

/// Places jobs; gives how many.
async fn allocate(clients: &[Client], jobs: u32) -> Result<u64, Failure> {
    let ids: Vec<String> = (0..jobs).map(|number| format!("half-{number}")).collect();
    let calls = ids.chunks(BATCH).enumerate().map(|(number, ids)| {
        let requests = ids.iter().map(|id| load::job(id.clone(), GPUS_PER_JOB)).collect();
        let request = proto::v1::SubmitJobsRequest { requests };
        async move { load::submit_batch(&clients[number % clients.len()], &request).await }
    });
    let placed = stream::iter(calls)
        .buffer_unordered(BATCHES_AT_ONCE)
        .try_fold(0, |sum, end| async move { Ok(sum + end.placed) })
        .await?;
    if placed < u64::from(jobs) * 9 / 10 {
        return Err(Failure::refused(format!("only {placed} of {jobs} jobs were placed")));
    }
    Ok(placed)
}

fn memory(stand: &Stand, report: &mut Report, when: &str) {
    let pids = (0..stand.cluster.layout().seats.len()).filter_map(|index| stand.cluster.pid(index));
    let (now, peak): (Vec<_>, Vec<_>) = pids
        .map(|pid| (rss_mib(pid).unwrap_or(0) as f64, rss_peak_mib(pid).unwrap_or(0) as f64))
        .unzip();
    let most = |all: &[f64]| all.iter().copied().fold(0.0, f64::max);
    stand.output.say(&format!("resident memory {when}: {now:?} MiB, peaks {peak:?} MiB"));
    // The target is in megabytes of a million bytes.
    report.figure(
        format!("largest server, {when}"),
        most(&now) * 1.048_576,
        "MB",
        Target::AtMost(700.0),
    );
    report.figure(
        format!("largest server's peak, {when}"),
        most(&peak) * 1.048_576,
        "MB",
        Target::None,
    );
    report.samples(&format!("resident MiB {when}"), now);
}

/// The longest wait of a write that is due every 5 ms, without and with snapshots on every server.
async fn stalls(stand: &mut Stand, report: &mut Report) -> Result<(), Failure> {
    let client = stand.client()?;
    let quiet = probe(&client, async {
        tokio::time::sleep(QUIET_TIME).await;
        Ok(())
    })
    .await?;
    let mut worst = quiet.clone();
    let mut took = Vec::new();
    for index in 0..stand.cluster.layout().seats.len() {
        let one = client.only(index).ok_or_else(|| Failure::refused("a server is missing"))?;
        let began = Instant::now();
        let latencies = probe(&client, async {
            one.call(|attempt| {
                let request = attempt.request(v1::TakeSnapshotRequest {});
                async move { attempt.quorum().take_snapshot(request).await }
            })
            .await?;
            took.push(began.elapsed().as_secs_f64() * 1_000.0);
            tokio::time::sleep(TAIL_TIME).await;
            Ok(())
        })
        .await?;
        stand.output.say(&format!(
            "snapshot on server {}: {:.0} ms; writes p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            stand.cluster.layout().seats[index].id,
            took.last().copied().unwrap_or(0.0),
            latencies.ms(0.5),
            latencies.ms(0.99),
            latencies.max_ms()
        ));
        if index == 0 {
            worst = latencies;
        } else {
            worst.merge(&latencies)?;
        }
    }
    report.figure("write every 5 ms, p50", quiet.ms(0.5), "ms", Target::None);
    report.figure("write every 5 ms, max", quiet.max_ms(), "ms", Target::None);
    report.figure("write during a snapshot, p99", worst.ms(0.99), "ms", Target::None);
    report.figure("write during a snapshot, max", worst.max_ms(), "ms", Target::AtMost(100.0));
    report.median("snapshot", took, "ms", Target::None);
    Ok(())
}

/// Latencies of small writes, one due every 5 ms whether or not those before are answered, while something
/// else happens.
async fn probe(
    client: &Client,
    meanwhile: impl Future<Output = Result<(), Failure>>,
) -> Result<Latencies, Failure> {
    let mut latencies = Latencies::new()?;
    let mut due = tokio::time::interval(PROBE_EVERY);
    let mut number = 0_u32;
    let mut writes = tokio::task::JoinSet::new();
    tokio::pin!(meanwhile);
    let end = loop {
        tokio::select! {
            end = &mut meanwhile => break end,
            at = due.tick() => {
                number += 1;
                let client = client.clone();
                writes.spawn(async move {
                    let tenant = v1::Tenant { name: "probe".to_owned(), pending_jobs_max: Some(number), ..v1::Tenant::default() };
                    let request = v1::PutTenantRequest { tenant: Some(tenant) };
                    let answer = client.call(|attempt| {
                        let request = attempt.request(request.clone());
                        async move { attempt.tenants().put_tenant(request).await }
                    }).await;
                    answer.map(|_| at.elapsed())
                });
            }
            Some(write) = writes.join_next() => {
                latencies.add(write.map_err(|error| Failure::refused(format!("a write died: {error}")))??);
            }
        }
    };
    end?;
    while let Some(write) = writes.join_next().await {
        latencies.add(write.map_err(|error| Failure::refused(format!("a write died: {error}")))??);
    }
    Ok(latencies)
}

/// kill -9 and start of each server in turn: process started → it answers with everything applied.
async fn restarts(stand: &mut Stand, report: &mut Report, rounds: u32) -> Result<(), Failure> {
    let client = stand.client()?;
    let mut took = Vec::new();
    for round in 0..rounds as usize {
        let index = round % stand.cluster.layout().seats.len();
        let id = stand.cluster.layout().seats[index].id;
        let before = gather(&client, false).await?;
        let wanted = before.servers.iter().filter_map(|s| s.applied_index).max().unwrap_or(0);
        stand.cluster.kill_server(index).await;
        let began = Instant::now();
        stand.cluster.start_server(index)?;
        let one = client.only(index).ok_or_else(|| Failure::refused("a server is missing"))?;
        loop {
            let status = gather(&one, false).await.ok();
            let applied = status.and_then(|q| {
                q.servers.iter().find(|s| s.server_id == id).and_then(|s| s.applied_index)
            });
            if applied.is_some_and(|applied| applied >= wanted) {
                break;
            }
            if let Some((_, _, failure)) = stand.cluster.take_ended() {
                return Err(failure);
            }
            if began.elapsed() > BACK_TIMEOUT {
                return Err(Failure::refused(format!("server {id} did not come back"))
                    .detail(format!("log: {}", stand.cluster.log_path(index).display())));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        let ms = began.elapsed().as_secs_f64() * 1_000.0;
        stand.output.say(&format!("server {id} is back with everything after {ms:.0} ms"));
        took.push(ms);
    }
    report.median("restart", took, "ms", Target::AtMost(5_000.0));
    Ok(())
}
