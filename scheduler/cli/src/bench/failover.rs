//! kill -9 of the leader under load: how long until a write is accepted again, and is anything lost.

use super::report::{Report, Target, quantile};
use super::{Stand, load};
use crate::args::FailoverArgs;
use crate::client::Client;
use crate::command::gather;
use crate::exit::Failure;
use proto::v1;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Registered nodes of 8 GPUs.
const NODES: u32 = 4_000;
/// A probe that is not answered in this time is given up.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause of a caller between two jobs, so that the load does not fill the fleet.
const CALLER_PAUSE: Duration = Duration::from_millis(20);
/// Load before a kill, so that the leader is busy.
const LOAD_TIME: Duration = Duration::from_millis(700);
/// Pause between two looks at the quorum.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// A killed server that is not back by then never will be.
const BACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Acknowledged jobs: request id → number.
type Acknowledged = Arc<Mutex<BTreeMap<String, u64>>>;

pub(super) async fn measure(
    stand: &mut Stand,
    args: &FailoverArgs,
    report: &mut Report,
) -> Result<(), Failure> {
    let clients = stand.clients(4)?;
    load::register(&clients, load::nodes((0..NODES).map(|_| 8))).await?;
    let acknowledged = Acknowledged::default();
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..args.callers)
        .map(|caller| {
            let client = clients[caller as usize % clients.len()].clone();
            tokio::spawn(call(client, caller, Arc::clone(&acknowledged), Arc::clone(&stop)))
        })
        .collect();
    let mut gaps = Vec::new();
    let mut end = Ok(());
    for round in 0..args.rounds {
        tokio::time::sleep(LOAD_TIME).await;
        match kill_leader(stand, round, &acknowledged).await {
            Ok(gap) => gaps.push(gap),
            Err(failure) => {
                end = Err(failure);
                break;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.map_err(|error| Failure::refused(format!("a caller died: {error}")))?;
    }
    end?;
    let acknowledged = acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (lost, doubled) = compare(&clients[0], &acknowledged).await?;
    report.figure("kill to next accepted write, p50", quantile(&gaps, 0.5), "ms", Target::None);
    report.figure(
        "kill to next accepted write, p99",
        quantile(&gaps, 0.99),
        "ms",
        Target::AtMost(1_300.0),
    );
    report.figure("kill to next accepted write, max", quantile(&gaps, 1.0), "ms", Target::None);
    report.figure("acknowledged jobs", acknowledged.len() as f64, "jobs", Target::None);
    report.figure("acknowledged jobs lost", lost as f64, "jobs", Target::AtMost(0.0));
    report.figure("request ids with two jobs", doubled as f64, "ids", Target::AtMost(0.0));
    report.note(format!("{} rounds, {} callers", args.rounds, args.callers));
    report.samples("kill to next accepted write", gaps);
    Ok(())
}

/// One round: kills the leader, measures, starts it again and waits until it has caught up.
async fn kill_leader(
    stand: &mut Stand,
    round: u32,
    acknowledged: &Acknowledged,
) -> Result<f64, Failure> {
    let client = stand.client()?;
    let leader = gather(&client, false).await?.leader_id;
    let index =
        stand.cluster.index_of(leader).ok_or_else(|| Failure::refused("no server leads"))?;
    let mut others = stand.cluster.urls();
    others.remove(index);
    let settings = crate::client::Settings { servers: others, token: None, timeout: PROBE_TIMEOUT };
    // Its connections are made before the kill, as those of any client that is at work.
    let prober = Client::new(&settings)?;
    gather(&prober, false).await?;
    let killed = Instant::now();
    stand.cluster.kill_server(index).await;
    // Sent after the kill: what was under way before does not count.
    let request_id = format!("probe-{round}");
    let answer = load::submit(&prober, load::job(request_id.clone(), 1)).await?;
    let gap = killed.elapsed().as_secs_f64() * 1_000.0;
    let job = answer.job.unwrap_or_default();
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id, job.id);
    stand.output.say(&format!(
        "round {round}: server {leader} killed, next write accepted after {gap:.0} ms"
    ));
    stand.cluster.start_server(index)?;
    let deadline = Instant::now() + BACK_TIMEOUT;
    loop {
        if let Ok(quorum) = gather(&client, false).await {
            let applied = quorum.servers.iter().filter_map(|s| s.applied_index);
            let least = applied.clone().min().unwrap_or(0);
            let most = applied.clone().max().unwrap_or(0);
            // Under load nobody is ever level; a few hundred entries are a moment.
            if applied.count() == quorum.servers.len()
                && quorum.leader_id != 0
                && least + 500 >= most
            {
                return Ok(gap);
            }
        }
        if let Some((_, _, failure)) = stand.cluster.take_ended() {
            return Err(failure);
        }
        if Instant::now() > deadline {
            return Err(Failure::refused(format!("server {leader} did not come back"))
                .detail(format!("log: {}", stand.cluster.log_path(index).display())));
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

/// Submits jobs until told to stop; remembers those that were acknowledged.
async fn call(client: Client, caller: u32, acknowledged: Acknowledged, stop: Arc<AtomicBool>) {
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let request_id = format!("load-{caller}-{number}");
        // A failed call promises nothing, so there is nothing to remember.
        if let Ok(answer) = load::submit(&client, load::job(request_id.clone(), 1)).await {
            let id = answer.job.unwrap_or_default().id;
            acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(request_id, id);
        }
        tokio::time::sleep(CALLER_PAUSE).await;
    }
}

/// Acknowledged jobs that the quorum does not know under their number, and request ids with two jobs.
async fn compare(
    client: &Client,
    acknowledged: &BTreeMap<String, u64>,
) -> Result<(usize, usize), Failure> {
    let mut known: BTreeMap<String, u64> = BTreeMap::new();
    let mut doubled = 0;
    let request = v1::ListJobsRequest { page_size: 1_000, ..v1::ListJobsRequest::default() };
    for job in client.all_jobs(request).await? {
        doubled += usize::from(known.insert(job.request_id, job.id).is_some());
    }
    let lost =
        acknowledged.iter().filter(|(request_id, id)| known.get(*request_id) != Some(id)).count();
    Ok((lost, doubled))
}
