//! What a run is made of: a fleet, arrivals and faults, each with its virtual time.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use scheduler_core::command::SiteRtt;
use scheduler_core::job::JobSpec;
use scheduler_core::node::NodeSpec;
use scheduler_core::unit::{DurationMs, TimeMs};
use std::sync::Arc;

/// Everything a run depends on; two runs of one scenario are alike, bit for bit.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    pub nodes: Vec<NodeSpec>,
    pub rtts: Vec<SiteRtt>,
    pub arrivals: Vec<Arrival>,
    pub faults: Vec<Fault>,
    /// From the commit of a placement to its replicas being ready.
    pub start: DurationMs,
    /// The oracle looks after every this many events; 0 counts as 1.
    pub check_every: u64,
}

/// One job coming in.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: TimeMs,
    pub spec: Arc<JobSpec>,
    /// From ready to the tenant's cancelling it; `None` = runs on (or ends by its own duration).
    pub life: Option<DurationMs>,
}

/// One node failing and coming back.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub at: TimeMs,
    /// Position in [`Scenario::nodes`].
    pub node: usize,
    pub repair: DurationMs,
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
            .map(|spec| Arrival {
                at: TimeMs(time(span)),
                spec,
                life: Some(DurationMs(time(life_max))),
            })
            .collect();
        let last = nodes.len().saturating_sub(1) as u64;
        let faults = (0..if nodes.is_empty() { 0 } else { faults })
            .map(|_| Fault {
                at: TimeMs(time(span)),
                node: usize::try_from(time(DurationMs(last))).unwrap_or(0),
                repair: DurationMs(time(life_max)),
            })
            .collect();
        Self { nodes, arrivals, faults, check_every: 1, ..Self::default() }
    }
}
