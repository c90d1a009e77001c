//! `fleet`: many simulated agents in one process.

use super::{Context, logging, stdin_ended, terminated};
use crate::args::{FleetArgs, Global, SimulatedArgs};
use crate::client::{CallError, Client};
use crate::exit::{Ending, Exit, Failure};
use proto::v1;
use scheduler_agent::fleet::{Fleet, JOINS_MAX, Options};
use scheduler_agent::link::Credential;
use scheduler_agent::profile::Profile;
use scheduler_agent::runtime::simulated::{self, StartTime};
use std::time::Duration;

/// Pairs that one call takes.
const RTTS_PER_CALL: usize = 16_384;

pub(super) async fn run(global: &Global, args: FleetArgs) -> Ending {
    logging::start(&args.log)?;
    let profile = profile(&args.profile)?;
    let context = Context::new(global)?;
    let wanted = u64::from(args.nodes);
    let nodes = profile.nodes(args.nodes as usize);
    let token = global.token.as_deref();
    let fleet = start(&context.client.servers(), token, nodes, &args.simulated, args.seed)?;
    let running = async {
        fleet.wait(|p| p.sessions == wanted).await;
        if args.set_rtts
            && let Err(error) = set_rtts(&context.client, &profile, args.nodes).await
        {
            return Failure::from(error);
        }
        context.output.say(&format!("{wanted} nodes have joined"));
        context.output.suggest("muster gpus");
        let mut said = String::new();
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let p = fleet.progress();
            let line = format!(
                "nodes {}, sessions {}, replicas starting {}, ready {}, failed {}",
                p.agents, p.sessions, p.replicas_starting, p.replicas_ready, p.failures
            );
            if line != said {
                tracing::info!("{line}");
                said = line;
            }
            if p.agents == 0 {
                let mut failure = Failure::refused("no agent is left");
                failure.details.extend(fleet.trouble());
                return failure;
            }
        }
    };
    let end = tokio::select! {
        failure = running => Err(failure),
        () = terminated() => Ok(Exit::Interrupted),
        () = stdin_ended(), if args.stop_with_stdin => Ok(Exit::Done),
    };
    fleet.stop().await;
    end
}

/// A shipped profile or one from a file.
pub(crate) fn profile(name: &str) -> Result<Profile, Failure> {
    Profile::load(name).map_err(|error| Failure::usage(format!("--profile {name}: {error}")))
}

/// Starts agents for nodes.
pub(crate) fn start(
    servers: &[String],
    token: Option<&str>,
    nodes: Vec<v1::NodeSpec>,
    simulated: &SimulatedArgs,
    seed: u64,
) -> Result<Fleet, Failure> {
    let credential =
        Credential::new(token, None).map_err(|error| Failure::usage(error.to_string()))?;
    let (ms_min, ms_max) = simulated.start_ms;
    let start = match ms_min == ms_max {
        true => StartTime::Fixed { ms: ms_min },
        false => StartTime::Uniform { ms_min, ms_max },
    };
    let runtime =
        simulated::Options { start, failure_rate: f64::from(simulated.fail) / 1_000.0, seed: 0 };
    let options =
        Options { servers: servers.to_vec(), credential, nodes, runtime, joins_max: JOINS_MAX };
    Fleet::start_known(options, seed)
        .map_err(|error| Failure::refused(format!("the fleet does not start: {error}")))
}

/// Tells the servers how far the sites of this many nodes are from each other; the nodes must have joined.
pub(crate) async fn set_rtts(
    client: &Client,
    profile: &Profile,
    nodes: u32,
) -> Result<(), CallError> {
    let rtts: Vec<_> = profile
        .site_rtts_of(&profile.nodes(nodes as usize))
        .into_iter()
        .map(|rtt| v1::SiteRtt {
            site_a: rtt.a,
            site_b: rtt.b,
            rtt_us: rtt.rtt_us,
            ..v1::SiteRtt::default()
        })
        .collect();
    for rtts in rtts.chunks(RTTS_PER_CALL) {
        let request = v1::SetSiteRttsRequest { rtts: rtts.to_vec() };
        client
            .call(|attempt| {
                let request = attempt.request(request.clone());
                async move { attempt.nodes().set_site_rtts(request).await }
            })
            .await?;
    }
    Ok(())
}
