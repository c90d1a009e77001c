//! Single-GPU jobs per second, each durable on the quorum before it is acknowledged.

use super::Stand;
use super::load;
use super::report::{Latencies, Report, Target};
use crate::args::JobsBenchArgs;
use crate::client::Client;
use crate::cluster::machine::cpu_ms;
use crate::exit::Failure;
use futures::future::try_join_all;
use proto::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Connections to each server.
const CONNECTIONS: usize = 4;
/// GPUs of a registered node.
const GPUS_PER_NODE: u32 = 16;
/// A caller that was told that the queue is full comes back after this.
const FULL_PAUSE: Duration = Duration::from_millis(2);

pub(super) async fn measure(
    stand: &mut Stand,
    args: &JobsBenchArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let clients = stand.clients(CONNECTIONS)?;
    let nodes = load::nodes((0..args.gpus / GPUS_PER_NODE).map(|_| GPUS_PER_NODE));
    let count = nodes.len();
    let began = Instant::now();
    load::register(&clients, nodes).await?;
    let took = began.elapsed().as_secs_f64();
    stand.output.say(&format!("{count} nodes registered in {took:.1} s"));
    report.figure("nodes registered", count as f64 / took, "nodes/s", Target::None);

    let (mut rates, mut all) = (Vec::new(), Latencies::new()?);
    for round in 0..args.rounds {
        let (rate, latencies) = unary(&clients, args, round).await?;
        let (p50, p99) = (latencies.ms(0.5), latencies.ms(0.99));
        stand.output.say(&format!(
            "one by one, round {round}: {rate:.0} jobs/s, p50 {p50:.1} ms, p99 {p99:.1} ms"
        ));
        rates.push(rate);
        all.merge(&latencies)?;
    }
    report.median_rate("one by one", rates, Target::AtLeast(10_000.0));
    latency(report, "one by one", &all);

    let before = Spent::look(stand).await?;
    let (mut rates, mut all) = (Vec::new(), Latencies::new()?);
    for round in 0..args.rounds {
        let (rate, latencies) = batches(&clients, args, round).await?;
        let (p50, p99) = (latencies.ms(0.5), latencies.ms(0.99));
        stand.output.say(&format!(
            "in batches, round {round}: {rate:.0} jobs/s, p50 {p50:.1} ms, p99 {p99:.1} ms a batch"
        ));
        rates.push(rate);
        all.merge(&latencies)?;
    }
    report.median_rate("in batches", rates, Target::AtLeast(100_000.0));
    latency(report, "a batch", &all);
    let jobs =
        u64::from(args.rounds) * u64::from(args.batch_jobs.div_ceil(args.batch) * args.batch);
    before.report(&Spent::look(stand).await?, jobs, report);
    report.note(format!(
        "{count} nodes x {GPUS_PER_NODE} GPUs; {} rounds of {} jobs from {} callers, of {} jobs in batches of {} from {} callers",
        args.rounds, args.unary_jobs, args.callers, args.batch_jobs, args.batch, args.batch_callers
    ));
    Ok(())
}

/// CPU time that each kind of process has spent since its start, in milliseconds. On a machine with
/// other work it says more than the rates.
struct Spent {
    leader: f64,
    /// All of them together.
    followers: f64,
    client: f64,
}

impl Spent {
    async fn look(stand: &mut Stand) -> Result<Self, Failure> {
        let leader = stand.cluster.wait_up(super::QUORUM_TIMEOUT, |_| ()).await?.leader_id;
        let leader = stand.cluster.index_of(leader);
        let client = cpu_ms(std::process::id()).unwrap_or_default();
        let mut spent = Self { leader: 0.0, followers: 0.0, client };
        for index in 0..stand.cluster.layout().seats.len() {
            let ms = stand.cluster.pid(index).and_then(cpu_ms).unwrap_or_default();
            match Some(index) == leader {
                true => spent.leader += ms,
                false => spent.followers += ms,
            }
        }
        Ok(spent)
    }

    fn report(&self, after: &Self, jobs: u64, report: &mut Report) {
        for (who, before, after) in [
            ("leader", self.leader, after.leader),
            ("followers together", self.followers, after.followers),
            ("client", self.client, after.client),
        ] {
            let us = (after - before) * 1_000.0 / jobs as f64;
            report.figure(format!("CPU of a job in a batch, {who}"), us, "us", Target::None);
        }
    }
}

fn latency(report: &mut Report, name: &str, latencies: &Latencies) {
    for (word, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
        report.figure(format!("{name}, {word}"), latencies.ms(share), "ms", Target::None);
    }
    report.figure(format!("{name}, max"), latencies.max_ms(), "ms", Target::None);
}

/// Many callers, one job per call: jobs per second and the calls' latencies.
async fn unary(
    clients: &[Client],
    args: &JobsBenchArgs,
    round: u32,
) -> Result<(f64, Latencies), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let jobs = u64::from(args.unary_jobs);
    let began = Instant::now();
    let callers = (0..args.callers as usize).map(|caller| {
        let (client, next) = (clients[caller % clients.len()].clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut latencies = Latencies::new()?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= jobs {
                    return Ok::<_, Failure>(latencies);
                }
                let request = load::job(format!("u{round}-{number}"), 1);
                let sent = Instant::now();
                let answer = until_taken(|| load::submit(&client, request.clone())).await?;
                latencies.add(sent.elapsed());
                let placed = answer.job.is_some_and(|job| job.nodes > 0);
                if !placed {
                    return Err(Failure::refused(
                        "a job was not placed: the fleet is too small for the bench",
                    ));
                }
            }
        })
    });
    collect(callers, began, jobs).await
}

/// Few callers, many jobs per call.
async fn batches(
    clients: &[Client],
    args: &JobsBenchArgs,
    round: u32,
) -> Result<(f64, Latencies), Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let batch = u64::from(args.batch);
    let count = u64::from(args.batch_jobs).div_ceil(batch);
    let began = Instant::now();
    let callers = (0..args.batch_callers as usize).map(|caller| {
        let (client, next) = (clients[caller % clients.len()].clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut latencies = Latencies::new()?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok::<_, Failure>(latencies);
                }
                let job = |job| load::job(format!("b{round}-{number}-{job}"), 1);
                let request = v1::SubmitJobsRequest { requests: (0..batch).map(job).collect() };
                let sent = Instant::now();
                let end = until_taken(|| load::submit_batch(&client, &request)).await?;
                latencies.add(sent.elapsed());
                if end.placed < batch {
                    let why = end
                        .refusal
                        .unwrap_or_else(|| "the fleet is too small for the bench".to_owned());
                    return Err(Failure::refused(format!(
                        "{} of {batch} jobs of a batch were placed: {why}",
                        end.placed
                    )));
                }
            }
        })
    });
    collect(callers, began, count * batch).await
}

async fn collect(
    callers: impl Iterator<Item = tokio::task::JoinHandle<Result<Latencies, Failure>>>,
    began: Instant,
    jobs: u64,
) -> Result<(f64, Latencies), Failure> {
    let ends = try_join_all(callers)
        .await
        .map_err(|error| Failure::refused(format!("a caller died: {error}")))?;
    let took = began.elapsed().as_secs_f64();
    let mut all = Latencies::new()?;
    for end in ends {
        all.merge(&end?)?;
    }
    Ok((jobs as f64 / took, all))
}

/// Repeats a call for as long as the queue is full; the wait is part of its latency.
async fn until_taken<T, F>(call: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, crate::client::CallError>>,
{
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.code() == tonic::Code::ResourceExhausted => {
                tokio::time::sleep(FULL_PAUSE).await
            }
            Err(error) => return Err(error.into()),
        }
    }
}
