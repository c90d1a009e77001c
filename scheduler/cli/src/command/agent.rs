//! `agent`: the process on a worker machine.

use super::{logging, servers, terminated};
use crate::args::{AgentArgs, DEFAULT_SERVER, Global};
use crate::exit::{Ending, Exit, Failure};
use crate::output;
use scheduler_agent::agent::{Ended, Order};
use scheduler_agent::config::{Config, Secret};
use scheduler_agent::serve;
use tokio::sync::watch;

/// A configuration with everything that there is to say.
const EXAMPLE: &str = include_str!("agent.example.toml");

pub(super) async fn run(global: &Global, args: AgentArgs) -> Ending {
    if args.example_config {
        output::print(EXAMPLE)?;
        return Ok(Exit::Done);
    }
    let Some(path) = &args.config else {
        return Err(
            Failure::usage("--config FILE is missing").next("muster agent --example-config")
        );
    };
    let shown = path.display().to_string();
    let mut config =
        Config::load(path).map_err(|error| Failure::usage(format!("{shown}: {error}")))?;
    // What is on the command line wins over the file.
    let servers = servers(global);
    if servers != [DEFAULT_SERVER] {
        config.servers = servers;
    }
    if let Some(token) = &global.token {
        (config.token, config.token_file) = (Some(Secret(token.clone())), None);
    }
    if let Some(dir) = args.data_dir {
        config.data_dir = dir;
    }
    if args.check_config {
        config.check().map_err(|error| Failure::usage(error.to_string()))?;
        eprintln!("{shown} has no fault");
        return Ok(Exit::Done);
    }
    logging::start(&args.log)?;
    let (orders, receiver) = watch::channel(Order::Run);
    let serving = serve::serve(&config, receiver);
    tokio::pin!(serving);
    let end = tokio::select! {
        end = &mut serving => end,
        () = terminated() => {
            // What runs here goes on: the agent takes it up again when it comes back.
            tracing::info!("told to end");
            orders.send_replace(if args.leave { Order::Leave } else { Order::Exit });
            serving.await
        }
    };
    match end {
        Ok(Ended::Ordered) => Ok(Exit::Done),
        Ok(Ended::Removed) => {
            Err(Failure::refused("the node was removed from the cluster; everything was stopped"))
        }
        Err(error) => {
            tracing::error!(%error, "the agent gives up");
            Err(Failure::refused(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_a_good_configuration() {
        let config = Config::parse(EXAMPLE).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.node_spec().map(|spec| spec.gpus.len()).ok(), Some(8));
    }
}
