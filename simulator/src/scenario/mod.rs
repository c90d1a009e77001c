//! What a run is made of: a fleet, arrivals, and what happens to them, each with its virtual time.
//!
//! **Invariant:** values only; two runs of one scenario are alike, bit for bit.

mod model;
pub mod text;

pub use model::{Latency, NetworkModel, PPM, PlannerModel, ServerModel, SiteNetwork, StartModel};
pub(crate) use model::{happens, sample};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::command::{Quota, SiteRtt};
use scheduler_core::duty::office::Reserve;
use scheduler_core::id::{Name, TenantId};
use scheduler_core::job::JobSpec;
use scheduler_core::node::NodeSpec;
use scheduler_core::plan::{Budget, Policy};
use scheduler_core::unit::{DurationMs, PriceMicroUsd, RttUs, TimeMs};
use std::sync::Arc;

/// A commit of a quorum whose members are near to each other.
const COMMIT: Latency = Latency::Fixed(DurationMs(3));

/// Everything a run depends on.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Of all draws made during the run.
    pub seed: u64,
    pub nodes: Vec<NodeSpec>,
    pub rtts: Vec<SiteRtt>,
    /// Tenants with a quota; others have none.
    pub tenants: Vec<(TenantId, Quota)>,
    /// In any order; those of one time come in the order given.
    pub arrivals: Vec<Arrival>,
    /// In any order; those of one time come in the order given, before arrivals of that time.
    pub events: Vec<(TimeMs, Happening)>,
    pub policy: Policy,
    /// Who gets a reservation.
    pub reserve: Reserve,
    pub budget: Budget,
    pub planner: PlannerModel,
    pub start: StartModel,
    /// From a leader's proposal to its being applied.
    pub commit: Latency,
    pub network: NetworkModel,
    pub servers: ServerModel,
    /// The run ends here at the latest; `None` = when nothing happens any more.
    pub until: Option<TimeMs>,
    /// The whole state is recounted after every this many events; 0 counts as 1. What an event
    /// touched is recounted after every event whatever this says.
    pub check_every: u64,
    /// The command that runs this scenario again, for messages.
    pub replay: String,
}

impl Default for Scenario {
    /// Nothing happens, quickly.
    fn default() -> Self {
        Self {
            seed: 0,
            nodes: Vec::new(),
            rtts: Vec::new(),
            tenants: Vec::new(),
            arrivals: Vec::new(),
            events: Vec::new(),
            policy: Policy::default(),
            reserve: Reserve::NOBODY,
            budget: Budget::default(),
            planner: PlannerModel::default(),
            start: StartModel::default(),
            commit: COMMIT,
            network: NetworkModel::default(),
            servers: ServerModel::default(),
            until: None,
            check_every: 1,
            replay: String::new(),
        }
    }
}

/// One job coming in.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: TimeMs,
    pub spec: Arc<JobSpec>,
    /// From ready to the tenant's ending it; `None` = runs on (or ends by its own duration).
    pub life: Option<DurationMs>,
    /// `None` = a job like most.
    pub nature: Option<Arc<Nature>>,
}

impl Arrival {
    /// A job like most.
    pub fn new(at: TimeMs, spec: Arc<JobSpec>, life: Option<DurationMs>) -> Self {
        Self { at, spec, life, nature: None }
    }
}

/// What sets a job apart.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Nature {
    /// Whose it is; `None` = everybody's.
    pub tenant: Option<TenantId>,
    /// `None` = its replicas run on.
    pub work: Option<Work>,
}

/// Replicas that end by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Work {
    /// From being ready to the end.
    pub length: Latency,
    /// How many of a million ends are crashes, with an exit code other than 0.
    pub crashing_ppm: u32,
}

/// Nodes that something happens to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Position in [`Scenario::nodes`].
    Node(usize),
    Site(Name),
    Zone(Name),
    Region(Name),
    /// This many of the whole fleet, drawn from the scenario's seed.
    Some(u32),
    /// All nodes with GPUs of this model.
    Model(Name),
    All,
}

/// Something that happens to the fleet, the network or the servers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// The machines stop, without a word; they come back after `repair`, if ever.
    Lose {
        target: Target,
        repair: Option<DurationMs>,
    },
    /// Machines that had stopped come back.
    Restore {
        target: Target,
    },
    /// Agents and servers do not hear each other any more; what runs goes on until its lease ends.
    Cut {
        target: Target,
    },
    /// The network is whole again.
    Heal {
        target: Target,
    },
    /// Connections between agents and servers break, and both ends notice; agents connect again.
    Reset {
        target: Target,
    },
    /// Other machines with the same identities are switched on, as from copied images, and off again
    /// after `length`.
    Clone {
        target: Target,
        length: DurationMs,
    },
    Drain {
        target: Target,
    },
    Cordon {
        target: Target,
    },
    /// Ends drain and cordon.
    Uncordon {
        target: Target,
    },
    /// The operator forgets the nodes, whatever runs there.
    Remove {
        target: Target,
    },
    /// Suppliers ask another price per GPU-hour: the agents register again.
    Price {
        target: Target,
        price: PriceMicroUsd,
    },
    /// Suppliers declare so many GPUs per node more than the machines have: the agents register
    /// again, and replicas on GPUs that do not exist fail to start.
    Lie {
        target: Target,
        gpus_more: u8,
    },
    /// Two sites are this far apart from now on.
    Rtt {
        a: Name,
        b: Name,
        rtt: RttUs,
    },
    /// The leading server's process is killed.
    KillLeader,
    /// The leading server and the others do not hear each other any more; agents and callers reach
    /// all of them.
    CutLeader,
    /// All servers hear each other again.
    HealServers,
    /// The clock of a server (0 = the first that leads) shows another time than the world's from
    /// now on: so much more, or less.
    Clock {
        server: u32,
        ahead_ms: i64,
    },
    /// The tenant ends the job of an arrival (its position in [`Scenario::arrivals`]).
    Cancel {
        arrival: usize,
    },
    /// The tenant asks for another number of replicas of a group.
    Scale {
        arrival: usize,
        group: Name,
        replicas: u32,
    },
}

impl Scenario {
    /// Gives every arrival of `specs` a random time within `span` and a random life up to
    /// `life_max`, and `faults` random nodes a failure; all from `seed`.
    pub fn random(
        seed: u64,
        nodes: Vec<NodeSpec>,
        specs: Vec<Arc<JobSpec>>,
        faults: usize,
        span: DurationMs,
        life_max: DurationMs,
    ) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut time = |max: DurationMs| rng.random_range(0..=max.0);
        let arrivals = specs
            .into_iter()
            .map(|spec| {
                let at = TimeMs(time(span));
                Arrival::new(at, spec, Some(DurationMs(time(life_max))))
            })
            .collect();
        let last = nodes.len().saturating_sub(1) as u64;
        let faults = (0..if nodes.is_empty() { 0 } else { faults }).map(|_| {
            let at = TimeMs(time(span));
            let node = usize::try_from(time(DurationMs(last))).unwrap_or(0);
            let repair = Some(DurationMs(time(life_max)));
            (at, Happening::Lose { target: Target::Node(node), repair })
        });
        let events = faults.collect();
        Self { seed, nodes, arrivals, events, check_every: 1, ..Self::default() }
    }
}
