//! `dev`: a whole cluster on this machine, from nothing to a deployed gang, with what each step took.
//!
//! **Invariant:** however it ends, no server process and no temporary directory stays behind; the exit code
//! of `--exit` is 0 only when the cluster became ready.

mod deploy;
mod figures;
mod progress;

use crate::args::{DevArgs, Global};
use crate::client::Client;
use crate::cluster::{Cluster, Options};
use crate::command::{gather, profile, set_rtts, start_fleet, terminated};
use crate::exit::{Ending, Exit, Failure};
use crate::output::Output;
pub(crate) use deploy::spec as gang;

use figures::Figures;
use progress::Progress;
use scheduler_agent::fleet::Fleet;
use scheduler_agent::profile::Profile;
use std::time::{Duration, Instant};

/// Servers that do not form a quorum in this time never will.
const QUORUM_TIMEOUT: Duration = Duration::from_secs(30);
/// Agents have this long, and a millisecond more for each of them, to join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// The simulated machines keep nothing that a secret would protect.
const FLEET_SEED: u64 = 0;
/// Time of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a server's end is looked for while serving.
const GUARD_PAUSE: Duration = Duration::from_millis(200);
/// A server that was killed is started again after this time: long enough to see the others go on.
const RESTART_PAUSE: Duration = Duration::from_secs(10);
/// An election takes about a second.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// How often bars are moved.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

pub(crate) async fn run(global: &Global, args: DevArgs) -> Ending {
    let output = Output::new(global.output, global.no_color);
    let profile = profile(&args.profile)?;
    let options = Options {
        cluster_id: "dev",
        servers: args.servers,
        data_dir: args.data_dir.clone(),
        lease_ms: None,
    };
    let began = Instant::now();
    let mut cluster = Cluster::start(&options)?;
    let mut fleet = None;
    let end = tokio::select! {
        end = play(&output, &args, &profile, began, &mut cluster, &mut fleet) => end,
        () = terminated() => Ok(Exit::Interrupted),
    };
    let logs = match &end {
        Err(_) => keep_logs(&cluster),
        Ok(_) => None,
    };
    if let Some(fleet) = fleet {
        fleet.stop().await;
    }
    let kept = args.data_dir.is_some().then(|| cluster.home().display().to_string());
    cluster.stop().await;
    if let Some(home) = kept {
        output.say(&format!("the servers' data stays in {home}; the same command goes on with it"));
    }
    match (end, logs) {
        (Err(failure), Some(place)) => Err(failure.detail(format!("logs: {place}"))),
        (end, _) => end,
    }
}

/// Everything up to the end that the person or `--exit` asks for.
async fn play(
    output: &Output,
    args: &DevArgs,
    profile: &Profile,
    began: Instant,
    cluster: &mut Cluster,
    fleet: &mut Option<Fleet>,
) -> Ending {
    let progress = Progress::new(output.lively);
    let mut figures = Figures {
        gpus: args.gpus,
        nodes: args.nodes,
        servers: args.servers,
        rtt_max_ms: f64::from(args.max_rtt) / 1_000.0,
        ..Figures::default()
    };
    let phase = progress.phase("servers", args.servers.into());
    cluster.wait_up(QUORUM_TIMEOUT, |up| phase.at(up as u64)).await?;
    figures.quorum_up_ms = ms(began.elapsed());
    phase.done(figures.quorum_up_ms);

    let client = cluster.client(CALL_TIMEOUT)?;
    if cluster.resumed() {
        deploy::clear_earlier(&client, &progress).await?;
    }
    let joined = join(&progress, args, profile, cluster, &mut figures).await?;
    let fleet = fleet.insert(joined);
    // Sites come with their nodes, so this must wait for them.
    set_rtts(&client, profile, args.nodes).await?;
    deploy::deploy(&progress, &client, args, profile, fleet, &mut figures).await?;
    figures.set_quorum(&gather(&client, false).await?);
    output.show(&figures)?;
    if let Some(path) = &args.json {
        write_json(path, &figures)?;
    }
    if args.exit {
        return Ok(Exit::Done);
    }
    invite(output, cluster, &figures);
    serve(output, cluster, &client).await
}

/// Starts all agents and waits until each has a session.
async fn join(
    progress: &Progress,
    args: &DevArgs,
    profile: &Profile,
    cluster: &mut Cluster,
    figures: &mut Figures,
) -> Result<Fleet, Failure> {
    let nodes = profile.nodes(args.nodes as usize);
    figures.gpus_fleet = nodes.iter().map(|node| node.gpus.len() as u64).sum();
    let wanted = u64::from(args.nodes);
    let phase = progress.phase("agents joined", wanted);
    let began = Instant::now();
    let fleet = start_fleet(&cluster.urls(), None, nodes, &args.simulated, FLEET_SEED)?;
    let deadline = began + JOIN_TIMEOUT + Duration::from_millis(wanted);
    loop {
        let now = fleet.progress();
        phase.at(now.sessions);
        if now.sessions >= wanted {
            figures.agents_joined_ms = phase.done_now();
            return Ok(fleet);
        }
        if let Some((_, _, failure)) = cluster.take_ended() {
            return Err(failure);
        }
        if Instant::now() > deadline || now.agents < wanted {
            let mut failure = Failure::refused(format!(
                "only {} of {wanted} agents have a session",
                now.sessions
            ));
            failure.details.extend(fleet.trouble());
            return Err(failure);
        }
        tokio::select! {
            () = fleet.wait(|p| p.sessions >= wanted) => {}
            () = tokio::time::sleep(LOOK_PAUSE) => {}
        }
    }
}

fn write_json(path: &std::path::Path, figures: &Figures) -> Result<(), Failure> {
    let text = serde_json::to_vec_pretty(figures)
        .map_err(|error| Failure::refused(format!("cannot write JSON: {error}")))?;
    std::fs::write(path, text)
        .map_err(|error| Failure::refused(format!("cannot write {}: {error}", path.display())))
}

/// What a newcomer would try next.
fn invite(output: &Output, cluster: &Cluster, figures: &Figures) {
    let program = std::env::args().next().unwrap_or_else(|| "muster".to_owned());
    let servers = cluster.urls().join(",");
    output.say("");
    output.say("It keeps serving until Ctrl-C. In another terminal:");
    output.say(&format!("  export MUSTER_SERVER={servers}"));
    output.say(&format!(
        "  {program} job {:<20} # the cluster and where its members are",
        figures.job
    ));
    output.say(&format!("  {program} gpus {:<19} # what is left of the fleet", ""));
    output
        .say(&format!("  {program} quorum status {:<10} # who leads, how far each server is", ""));
    if let Some(pid) = cluster.index_of(figures.leader).and_then(|index| cluster.pid(index)) {
        output.say(&format!(
            "or `kill -9 {pid}`: that server leads; another one takes over, and dev starts it again"
        ));
    }
}

/// Serves until the person ends it; starts servers again that were killed.
async fn serve(output: &Output, cluster: &mut Cluster, client: &Client) -> Ending {
    let mut down: Vec<(usize, Instant)> = Vec::new();
    let guard = async {
        loop {
            tokio::time::sleep(GUARD_PAUSE).await;
            if let Some((index, end, _)) = cluster.take_ended() {
                let id = cluster.layout().seats[index].id;
                output.say(&format!(
                    "server {id} ended ({end}); log: {}",
                    cluster.log_path(index).display()
                ));
                output.say(&new_leader(client, id).await);
                down.push((index, Instant::now()));
            }
            let due = down.iter().position(|(_, since)| since.elapsed() >= RESTART_PAUSE);
            if let Some((index, _)) = due.map(|at| down.remove(at)) {
                let id = cluster.layout().seats[index].id;
                match cluster.start_server(index) {
                    Ok(()) => output.say(&format!("server {id} was started again")),
                    Err(failure) => output.say(&failure.to_string()),
                }
            }
        }
    };
    tokio::select! {
        () = guard => {}
        () = terminated() => output.say("ending"),
    }
    Ok(Exit::Done)
}

/// Who leads without that server, once somebody does.
async fn new_leader(client: &Client, ended: u64) -> String {
    let began = Instant::now();
    while began.elapsed() < ELECTION_TIMEOUT {
        if let Ok(quorum) = gather(client, false).await
            && quorum.leader_id != 0
            && quorum.leader_id != ended
        {
            return format!("server {} leads in term {}", quorum.leader_id, quorum.term);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    "no server leads; writes must wait until a majority runs again".to_owned()
}

/// Saves the logs of a temporary cluster that failed; gives their place.
fn keep_logs(cluster: &Cluster) -> Option<String> {
    let place = tempfile::Builder::new().prefix("muster-dev-logs-").tempdir().ok()?.keep();
    for (index, seat) in cluster.layout().seats.iter().enumerate() {
        // A log that cannot be copied is lost with the rest; the failure itself has its last lines.
        let _ =
            std::fs::copy(cluster.log_path(index), place.join(format!("server-{}.log", seat.id)));
    }
    Some(place.display().to_string())
}
