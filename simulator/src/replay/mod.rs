//! Replay: a trace's jobs on a list of nodes, through the world, for every policy, seed and load.
//!
//! Jobs come at their times in the trace and run as long as they ran there, from the moment in which
//! they are ready for the first time, whatever befalls them then; those that never ran there are left
//! out. `fleet` has what befalls nodes. The seed orders the nodes, which decides ties, and deals out
//! faults; all policies see the same. A run ends with its last job.
//! **Invariant:** a run follows from its case and input alone; threads and the clock change
//! nothing but [`Run::wall`].

pub mod fleet;
pub mod output;

use crate::metrics::{Figures, Metrics, WallFigures};
use crate::observe::{Observer, Seen};
use crate::parallel;
use crate::scenario::{Arrival, Scenario};
use crate::trace::specs::{self, SpecError, Specs};
use crate::trace::{NodeChange, TraceJob, TraceNode};
use crate::world::{self, Violation};
use fleet::Histories;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use scheduler_core::command::SiteRtt;
use scheduler_core::duty::office::Reserve;
use scheduler_core::node::NodeSpec;
use scheduler_core::plan::Policy;
use scheduler_core::state::State;
use scheduler_core::unit::{DurationMs, PriceMicroUsd, RttUs, TimeMs};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The whole state is recounted after so many events; what an event touched, after each.
pub const CHECK_EVERY: u64 = 100_000;

/// What is replayed.
#[derive(Clone, Debug, Default)]
pub struct Input {
    pub nodes: Vec<TraceNode>,
    /// By rising time of submission.
    pub jobs: Vec<TraceJob>,
    pub rtts: Vec<SiteRtt>,
    /// What befalls nodes of the list, by rising time.
    pub changes: Vec<NodeChange>,
    /// Faults of another fleet, to be dealt out.
    pub faults: Option<Histories>,
    /// Largest RTT between members of a job of several replicas that does not say itself.
    pub rtt_max: Option<RttUs>,
    /// Who gets a reservation.
    pub reserve: Option<Reserve>,
    /// Jobs declare as their duration how long they ran, times an even draw from 1 to this; those
    /// that declared one themselves keep it. `None` = nobody does.
    pub overestimate: Option<f64>,
    /// The command that replays it but for policy, seed and load, for messages.
    pub command: String,
}

/// One way to replay it.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Case {
    #[serde(serialize_with = "by_name")]
    pub policy: Policy,
    pub seed: u64,
    /// Arrivals per time, as a multiple of the trace's.
    pub load: f64,
}

fn by_name<S: Serializer>(policy: &Policy, serializer: S) -> Result<S::Ok, S::Error> {
    policy.name().serialize(serializer)
}

/// What came of a case.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Run {
    #[serde(flatten)]
    pub case: Case,
    /// Events of the world, and entries applied to the state.
    pub events: u64,
    pub entries: u64,
    /// Hash of the last state, in hexadecimal digits: equal runs have equal ones.
    pub state_hash: String,
    pub figures: Figures,
    pub wall: WallFigures,
}

/// Why a replay was not possible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Input(#[from] SpecError),
    #[error("policy {policy}, seed {seed}, load {load}: {violation}")]
    Violation { policy: Policy, seed: u64, load: f64, violation: Violation },
}

/// How a sweep is followed, and ended early, from outside.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Called for every arrival that has come, from any thread.
    pub arrived: &'a (dyn Fn() + Sync),
    /// Once it is set, runs end where they are and count as not made.
    pub stop: &'a AtomicBool,
}

/// Gathers metrics while it tells how far the run is.
struct Watched<'a> {
    metrics: Metrics,
    watch: Watch<'a>,
    /// Arrivals without an answer, and jobs that are not over.
    awaited: usize,
    live: usize,
}

impl Observer for Watched<'_> {
    fn saw(&mut self, at: TimeMs, seen: Seen<'_>, state: &State) {
        match seen {
            Seen::Submitted { .. } | Seen::Refused { .. } => {
                self.awaited = self.awaited.saturating_sub(1);
                (self.watch.arrived)();
            }
            Seen::Phase { from: None, .. } => self.live += 1,
            Seen::Phase { to, .. } if to.is_over() => self.live = self.live.saturating_sub(1),
            _ => {}
        }
        self.metrics.saw(at, seen, state);
    }

    fn stops(&self) -> bool {
        (self.awaited == 0 && self.live == 0) || self.watch.stop.load(Ordering::Relaxed)
    }

    fn is_timed(&self) -> bool {
        true
    }
}

/// The world of a case.
pub fn scenario(input: &Input, case: &Case) -> Result<Scenario, Error> {
    let mut rng = StdRng::seed_from_u64(case.seed);
    let nodes = input.nodes.iter().map(|node| {
        let mut spec = specs::node(node)?;
        if node.spec.is_none() {
            // What a list does not price costs nothing.
            spec.price = PriceMicroUsd(node.price_micro_usd);
        }
        Ok(spec)
    });
    let mut nodes: Vec<NodeSpec> = nodes.collect::<Result<_, SpecError>>()?;
    nodes.shuffle(&mut rng);
    let mut specs = Specs::within(input.rtt_max);
    // What never ran in the trace would run for ever here.
    let ran = |job: &&TraceJob| job.duration.is_some();
    let arrivals = input.jobs.iter().filter(ran).map(|job| {
        let mut arrival = specs.to_arrival(job)?;
        if let Some(most) = input.overestimate {
            declare(&mut arrival, rng.random_range(1.0..=most));
        }
        // The same jobs in less time.
        Ok(Arrival { at: TimeMs((arrival.at.0 as f64 / case.load) as u64), ..arrival })
    });
    let arrivals: Vec<Arrival> = arrivals.collect::<Result<_, SpecError>>()?;
    let last = arrivals.iter().map(|arrival| arrival.at).max().unwrap_or_default();
    let longest = arrivals.iter().filter_map(|arrival| arrival.life).max();
    let until = last.after(longest.unwrap_or(DurationMs::ZERO));
    let positions: BTreeMap<&str, usize> =
        nodes.iter().enumerate().map(|(at, node)| (node.name.as_str(), at)).collect();
    let events = input.events(&positions, until, case.seed);
    Ok(Scenario {
        seed: case.seed,
        nodes,
        rtts: input.rtts.clone(),
        arrivals,
        events,
        policy: case.policy,
        reserve: input.reserve.unwrap_or(Reserve::NOBODY),
        check_every: CHECK_EVERY,
        replay: again(input, case),
        ..Scenario::default()
    })
}

/// The command that replays this case alone.
fn again(input: &Input, case: &Case) -> String {
    let Case { policy, seed, load } = case;
    format!("{} --policy {} --seed {seed} --load {load}", input.command, policy.name())
}

/// Declares so many times the job's life as its duration.
fn declare(arrival: &mut Arrival, times: f64) {
    let Some(DurationMs(life)) = arrival.life else { return };
    let spec = Arc::make_mut(&mut arrival.spec);
    spec.duration.get_or_insert(DurationMs((life as f64 * times).ceil() as u64));
}

/// Runs a case; `None` if it was stopped.
pub fn run(input: &Input, case: &Case, watch: Watch<'_>) -> Result<Option<Run>, Error> {
    let scenario = scenario(input, case)?;
    let last = scenario.arrivals.iter().map(|arrival| arrival.at).max().unwrap_or_default();
    let awaited = scenario.arrivals.len();
    let mut watched = Watched { metrics: Metrics::until(last), watch, awaited, live: 0 };
    let began = Instant::now();
    let report = world::run(&scenario, &mut watched).map_err(|violation| {
        let Case { policy, seed, load } = *case;
        Error::Violation { policy, seed, load, violation }
    })?;
    let run_s = began.elapsed().as_secs_f64();
    if watch.stop.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let mut metrics = watched.metrics;
    metrics.finish(report.ended_at);
    let figures = metrics.figures();
    Ok(Some(Run {
        case: *case,
        events: report.events,
        entries: report.entries,
        state_hash: format!("{:032x}", report.state_hash),
        wall: metrics.wall().figures(run_s, figures.decisions),
        figures,
    }))
}

/// Every policy at every load with every seed, in this order.
pub fn cases(policies: &[Policy], seeds: &[u64], loads: &[f64]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &load in loads {
        for &policy in policies {
            cases.extend(seeds.iter().map(|&seed| Case { policy, seed, load }));
        }
    }
    cases
}

/// Runs all cases on so many threads; those that were not stopped, in the order of the cases.
pub fn sweep(
    input: &Input,
    cases: &[Case],
    threads: usize,
    watch: Watch<'_>,
) -> Result<Vec<Run>, Error> {
    parallel::run(cases, threads, watch.stop, |case| run(input, case, watch), |_| ())
}
