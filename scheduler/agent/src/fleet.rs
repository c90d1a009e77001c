//! Thousands of agents in one process, over few connections: for demos, tests and benches. Every
//! one joins and keeps a real session; only the machines below are simulated.
//!
//! **Invariant:** agents share connections, programs and figures and nothing else; each node keeps
//! its secret over a restart, as a machine would.

use crate::agent::{self, Agent, AgentError, Ended, Order};
use crate::identity::{Identity, IdentityError, NodeKey};
use crate::link::channels::EndpointError;
use crate::link::meter::{Figure, Meter};
use crate::link::{Caller, Credential, Shared};
use crate::runtime::simulated::{self, Simulated};
use agent_core::backoff::Jitter;
use proto::v1;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How many agents of a fleet join at once when nothing else is said.
pub const JOINS_MAX: usize = 256;

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// `http://HOST:PORT` of every server; agents spread over them.
    pub servers: Vec<String>,
    pub credential: Credential,
    /// One per agent; for example from [`crate::profile::Profile::nodes`].
    pub nodes: Vec<v1::NodeSpec>,
    pub runtime: simulated::Options,
    /// Joins under way at once.
    pub joins_max: usize,
}

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("runtime: {}", .0.join("; "))]
    Runtime(Vec<String>),
}

/// Figures of a fleet at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Agents that run.
    pub agents: u64,
    /// Of these, how many have joined.
    pub joined: u64,
    /// Sessions that have got their desired state.
    pub sessions: u64,
    pub replicas_starting: u64,
    pub replicas_ready: u64,
    /// Leases that ended, since the fleet's start.
    pub fences: u64,
    /// Replicas that failed, since the fleet's start.
    pub failures: u64,
}

impl Progress {
    fn of(meter: &Meter) -> Progress {
        Progress {
            agents: meter.get(Figure::Agents),
            joined: meter.get(Figure::Joined),
            sessions: meter.get(Figure::Sessions),
            replicas_starting: meter.get(Figure::Starting),
            replicas_ready: meter.get(Figure::Ready),
            fences: meter.get(Figure::Fences),
            failures: meter.get(Figure::Failures),
        }
    }
}

/// See the module. Dropping it ends all agents without a word, as a power cut would.
pub struct Fleet {
    shared: Arc<Shared>,
    runtime: Arc<simulated::Options>,
    slots: Vec<Slot>,
}

/// One machine.
struct Slot {
    spec: Arc<v1::NodeSpec>,
    key: NodeKey,
    running: Option<Running>,
}

/// Its agent.
struct Running {
    orders: watch::Sender<Order>,
    task: JoinHandle<Result<Ended, AgentError>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fleet {
    /// Starts all agents and returns at once; see [`Fleet::wait`]. Must be called inside a tokio
    /// runtime.
    pub fn start(options: Options) -> Result<Fleet, FleetError> {
        let jitter = agent::jitter()?;
        Fleet::start_with(options, jitter)
    }

    /// Like [`Fleet::start`], with secrets made from a seed: a fleet started again with the same
    /// seed is the same machines to the servers. Anybody who knows the seed knows the secrets.
    pub fn start_known(options: Options, seed: u64) -> Result<Fleet, FleetError> {
        Fleet::start_with(options, Jitter::new(seed))
    }

    fn start_with(options: Options, mut jitter: Jitter) -> Result<Fleet, FleetError> {
        let faults = options.runtime.faults();
        if !faults.is_empty() {
            return Err(FleetError::Runtime(faults));
        }
        let (servers, agents) = (&options.servers, options.nodes.len());
        let shared = Shared::new(servers, options.credential, agents, options.joins_max)?;
        let mut slots = Vec::with_capacity(agents);
        for spec in options.nodes {
            let key = NodeKey::from_bits(std::array::from_fn(|_| jitter.bits()));
            slots.push(Slot { spec: Arc::new(spec), key, running: None });
        }
        let runtime = Arc::new(options.runtime);
        let mut fleet = Fleet { shared: Arc::new(shared), runtime, slots };
        let all: Vec<usize> = (0..fleet.slots.len()).collect();
        fleet.start_slots(&all)?;
        Ok(fleet)
    }

    /// Figures now.
    pub fn progress(&self) -> Progress {
        Progress::of(&self.shared.meter)
    }

    /// Waits until `done` holds; asked again after every change.
    pub async fn wait(&self, done: impl Fn(Progress) -> bool) {
        self.shared.meter.wait(|meter| done(Progress::of(meter))).await;
    }

    /// The newest trouble that any agent had, for people.
    pub fn trouble(&self) -> Option<String> {
        self.shared.meter.trouble()
    }

    /// How many machines there are, alive or not.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Names of the machines whose agent runs, in the order in which they were given.
    pub fn alive(&self) -> Vec<String> {
        let alive = self.slots.iter().filter(|slot| slot.running.is_some());
        alive.map(|slot| slot.spec.name.clone()).collect()
    }

    /// Kills the agents of these machines as SIGKILL would: their connections break and what they
    /// ran is gone. Gives how many were alive.
    pub fn kill_nodes(&mut self, names: &[String]) -> usize {
        let names: BTreeSet<&String> = names.iter().collect();
        let chosen = self.slots.iter_mut().filter(|slot| names.contains(&slot.spec.name));
        chosen.filter_map(|slot| slot.running.take()).count()
    }

    /// Kills the first `count` agents that are alive; gives their names.
    pub fn kill_some(&mut self, count: usize) -> Vec<String> {
        let names: Vec<String> = self.alive().into_iter().take(count).collect();
        self.kill_nodes(&names);
        names
    }

    /// Takes the power from all machines of a site: they fall silent without a word. Gives how
    /// many were alive.
    pub fn lose_site(&mut self, site: &str) -> usize {
        let here = |slot: &&mut Slot| slot.spec.place.as_ref().is_some_and(|at| at.site == site);
        let mut lost = 0;
        for running in self.slots.iter_mut().filter(here).filter_map(|slot| slot.running.as_ref()) {
            lost += 1;
            running.orders.send_replace(Order::Mute);
        }
        lost
    }

    /// Starts the agents of these machines (again); one that runs, silent or not, is ended first.
    pub fn restart_nodes(&mut self, names: &[String]) -> Result<usize, FleetError> {
        self.kill_nodes(names);
        let names: BTreeSet<&String> = names.iter().collect();
        let named = |at: &usize| names.contains(&self.slots[*at].spec.name);
        let chosen: Vec<usize> = (0..self.slots.len()).filter(named).collect();
        self.start_slots(&chosen)?;
        Ok(chosen.len())
    }

    /// Gives the power back to all machines of a site; they start anew.
    pub fn restore_site(&mut self, site: &str) -> Result<usize, FleetError> {
        let here = |slot: &&Slot| slot.spec.place.as_ref().is_some_and(|at| at.site == site);
        let names: Vec<String> =
            self.slots.iter().filter(here).map(|slot| slot.spec.name.clone()).collect();
        self.restart_nodes(&names)
    }

    /// Ends all agents without a word to the servers, and waits until they have ended.
    pub async fn stop(mut self) {
        let ending: Vec<Running> =
            self.slots.iter_mut().filter_map(|slot| slot.running.take()).collect();
        for running in &ending {
            running.task.abort();
        }
        for mut running in ending {
            // Aborted or ended before: both are what is wanted.
            let _ = (&mut running.task).await;
        }
    }

    fn start_slots(&mut self, chosen: &[usize]) -> Result<(), FleetError> {
        for at in chosen {
            let Some(slot) = self.slots.get_mut(*at) else { continue };
            let caller = Caller {
                spec: Arc::clone(&slot.spec),
                key: slot.key.clone(),
                instance: agent::instance()?,
            };
            let identity = Identity::in_memory(slot.key.clone());
            let runtime = Simulated::new(Arc::clone(&self.runtime), &slot.spec.name);
            let agent = Agent::new(Arc::clone(&self.shared), caller, identity, *at, runtime);
            let (orders, receiver) = watch::channel(Order::Run);
            let task = tokio::spawn(agent.run(receiver));
            slot.running = Some(Running { orders, task });
        }
        Ok(())
    }
}
