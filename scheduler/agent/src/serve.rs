//! One agent as a process of its own, from a configuration: what `muster agent` runs.
//!
//! **Invariant:** puts parts together and decides nothing.

use crate::agent::{self, Agent, AgentError, Ended, Order};
use crate::config::{Config, ConfigError, Runtime};
use crate::identity::Identity;
use crate::link::channels::EndpointError;
use crate::link::{Caller, Shared};
use crate::probe::Prober;
use crate::runtime::process::Process;
use crate::runtime::simulated::Simulated;
use std::sync::Arc;
use tokio::sync::watch;

/// Why an agent did not start or gave up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// Runs the agent until it is ordered to end, removed or refused.
pub async fn serve(config: &Config, orders: watch::Receiver<Order>) -> Result<Ended, ServeError> {
    config.check()?;
    let spec = Arc::new(config.node_spec()?);
    let identity = Identity::open(&config.data_dir).map_err(AgentError::from)?;
    let shared = Arc::new(Shared::new(&config.servers, config.credential()?, 1, 1)?);
    let instance = agent::instance().map_err(AgentError::from)?;
    let number = usize::from(instance[0]);
    let name = spec.name.clone();
    tracing::info!(node = %name, gpus = spec.gpus.len(), servers = config.servers.len(), "agent");
    let caller = Caller { spec, key: identity.key().clone(), instance };
    let prober = Prober::at(&caller.spec.address);
    match &config.runtime {
        Runtime::Process(options) => {
            let runtime = Process::new(&config.data_dir, options).map_err(AgentError::from)?;
            Ok(Agent::new(shared, caller, identity, number, runtime)
                .with_prober(prober)
                .run(orders)
                .await?)
        }
        Runtime::Simulated(options) => {
            let runtime = Simulated::new(Arc::new(options.clone()), &name);
            Ok(Agent::new(shared, caller, identity, number, runtime)
                .with_prober(prober)
                .run(orders)
                .await?)
        }
    }
}
