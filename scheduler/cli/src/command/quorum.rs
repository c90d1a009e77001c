//! `quorum` and `version`.

use super::Context;
use crate::answer::Done;
use crate::answer::quorum::{Quorum, Server};
use crate::answer::version::{CLIENT, ServerVersion, Versions};
use crate::args::QuorumCommand;
use crate::client::{CallError, Client};
use crate::exit::{Ending, Exit, Failure};
use futures::future::join_all;
use proto::v1;

pub(super) async fn run(context: &Context, command: QuorumCommand) -> Ending {
    match command {
        QuorumCommand::Status { hash } => status(context, hash).await,
        QuorumCommand::Add { id, peer_address, api_address } => {
            let request = v1::AddLearnerRequest { server_id: id, peer_address, api_address };
            context
                .client
                .call_alone(|attempt| {
                    let request = attempt.request(request.clone());
                    async move { attempt.quorum().add_learner(request).await }
                })
                .await?;
            done(
                context,
                format!("server {id} follows the log"),
                &format!("muster quorum promote {id}"),
            )
        }
        QuorumCommand::Promote { id } => {
            context
                .client
                .call_alone(|attempt| {
                    let request = attempt.request(v1::PromoteServerRequest { server_id: id });
                    async move { attempt.quorum().promote_server(request).await }
                })
                .await?;
            done(context, format!("server {id} votes"), "muster quorum status")
        }
        QuorumCommand::Remove { id } => {
            // One that answers but has no address in the list of members is none any more.
            let quorum = gather(&context.client, false).await?;
            let member =
                |server: &Server| server.server_id == id && !server.peer_address.is_empty();
            if !quorum.servers.iter().any(member) {
                let what = format!("server {id} is no member; nothing was changed");
                return done(context, what, "muster quorum status");
            }
            context
                .client
                .call_alone(|attempt| {
                    let request = attempt.request(v1::RemoveServerRequest { server_id: id });
                    async move { attempt.quorum().remove_server(request).await }
                })
                .await?;
            done(
                context,
                format!("server {id} is out; its number is used up"),
                "muster quorum status",
            )
        }
        QuorumCommand::Transfer { id } => {
            let answer = context
                .client
                .call_alone(|attempt| {
                    let request = attempt.request(v1::TransferLeaderRequest { server_id: id });
                    async move { attempt.quorum().transfer_leader(request).await }
                })
                .await?;
            done(context, format!("server {} leads", answer.leader_id), "muster quorum status")
        }
        QuorumCommand::Snapshot => {
            let answer = context
                .client
                .call(|attempt| {
                    let request = attempt.request(v1::TakeSnapshotRequest {});
                    async move { attempt.quorum().take_snapshot(request).await }
                })
                .await?;
            done(
                context,
                format!("snapshot written up to index {}", answer.index),
                "muster quorum status",
            )
        }
    }
}

fn done(context: &Context, what: String, next: &str) -> Ending {
    context.output.show(&Done::new(what))?;
    context.output.suggest(next);
    Ok(Exit::Done)
}

async fn status(context: &Context, hash: bool) -> Ending {
    let quorum = gather(&context.client, hash).await?;
    let silent = quorum.servers.iter().any(|s| s.role == "SILENT");
    let leaderless = quorum.leader_id == 0;
    context.output.show(&quorum)?;
    if leaderless {
        return Err(Failure::new(Exit::Unavailable, "no leader is known")
            .next("repeat the command in a second"));
    }
    if silent {
        context
            .output
            .say("a server that is SILENT did not answer here; the others may still reach it");
    }
    Ok(Exit::Done)
}

/// Asks every server given, and then every member that was not.
pub(crate) async fn gather(client: &Client, hash: bool) -> Result<Quorum, Failure> {
    let mut asked = client.servers();
    let count = asked.len();
    let answers =
        join_all((0..count).filter_map(|index| client.only(index)).map(|one| ask(one, hash))).await;
    let (mut known, mut silent) = (Vec::new(), Vec::new());
    let mut last_error: Option<CallError> = None;
    for (address, answer) in asked.clone().into_iter().zip(answers) {
        match answer {
            Ok(answer) => known.push(answer),
            Err(error) => {
                silent.push((address, error.to_string()));
                last_error = Some(error);
            }
        }
    }
    match last_error {
        Some(error) if known.is_empty() => return Err(error.into()),
        _ => {}
    }
    let first = Quorum::merge(known.clone(), &silent);
    let unasked = first.unasked(&asked);
    let clients: Vec<_> =
        unasked.iter().map(|address| client.also(address)).collect::<Result<_, Failure>>()?;
    let answers = join_all(clients.into_iter().map(|one| ask(one, hash))).await;
    for (address, answer) in unasked.into_iter().zip(answers) {
        match answer {
            Ok(answer) => known.push(answer),
            Err(error) => silent.push((address.clone(), error.to_string())),
        }
        asked.push(address);
    }
    Ok(Quorum::merge(known, &silent))
}

async fn ask(one: Client, hash: bool) -> Result<v1::GetQuorumStatusResponse, CallError> {
    one.call(|attempt| {
        let request = attempt.request(v1::GetQuorumStatusRequest { with_state_hash: hash });
        async move { attempt.quorum().get_quorum_status(request).await }
    })
    .await
}

pub(super) async fn version(context: &Context) -> Ending {
    let addresses = context.client.servers();
    let clients = (0..addresses.len()).filter_map(|index| context.client.only(index));
    let answers = join_all(clients.map(|one| ask(one, false))).await;
    let mut exit = Exit::Done;
    let mut servers = Vec::new();
    for (address, answer) in addresses.into_iter().zip(answers) {
        servers.push(match answer {
            Ok(answer) => ServerVersion { address, version: Some(answer.version), error: None },
            Err(error) => {
                exit = Exit::Unavailable;
                ServerVersion { address, version: None, error: Some(error.to_string()) }
            }
        });
    }
    context.output.show(&Versions { client: CLIENT, servers })?;
    Ok(exit)
}
