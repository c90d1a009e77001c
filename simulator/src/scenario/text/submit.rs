//! `submit …` and `every … submit …`: jobs, when they come and how long they stay.
//!
//! **Invariant:** the spec is made once per line; only times are drawn per seed.

use super::line::{Fault, Pairs, Words};
use crate::scenario::{Arrival, Latency, Nature, Work};
use rand::rngs::StdRng;
use scheduler_core::fixture::entry::{group, job_spec, models};
use scheduler_core::id::{Name, TenantId};
use scheduler_core::job::{
    Disruption, GpuAsk, GroupSpec, JobKind, JobSpec, Level, PreemptionPolicy, Strategy,
};
use scheduler_core::unit::{CpuMilli, DurationMs, GPUS_PER_NODE_MAX, MemoryMib, TimeMs};
use std::sync::Arc;

const KINDS: [&str; 3] = ["ray", "kubernetes", "plain"];
const STRATEGIES: [&str; 4] = ["pack", "spread", "strict_pack", "strict_spread"];
const POLICIES: [&str; 2] = ["never", "lower_priority"];
const DISRUPTIONS: [&str; 3] = ["none", "single", "all"];
const LEVELS: [&str; 4] = ["region", "zone", "site", "rack"];
const KEYS: [&str; 22] = [
    "name",
    "gpus",
    "per",
    "share",
    "replicas",
    "min",
    "model",
    "max_rtt",
    "max_price",
    "strategy",
    "within",
    "life",
    "duration",
    "count",
    "cpu",
    "max",
    "tenant",
    "work",
    "crashing",
    "priority",
    "preempts",
    "disruption",
];
/// GPUs of one replica when nothing else is said: those of a usual machine.
const PER_REPLICA: u64 = 8;
/// Most GPUs of one job, and most jobs of one line: beyond any fleet and day that we build for.
pub(super) const GPUS_MAX: u64 = 2_000_000;
const COUNT_MAX: u64 = 2_000_000;
/// Memory of a replica for each of its GPUs.
const MEMORY_PER_GPU: u64 = 4_096;

/// When the jobs of a line come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Times {
    Once(TimeMs),
    /// From a time up to and without another one, with such gaps.
    Every {
        gap: Latency,
        from: TimeMs,
        until: TimeMs,
    },
}

/// Jobs of one line.
#[derive(Clone, Debug)]
pub(super) struct Jobs {
    pub(super) name: Name,
    times: Times,
    spec: Arc<JobSpec>,
    life: Option<Latency>,
    nature: Option<Arc<Nature>>,
    pub(super) count: u64,
}

impl Jobs {
    /// Reads what follows `submit`.
    pub(super) fn parse(times: Times, words: &mut Words<'_>) -> Result<Self, Fault> {
        let kind = match words.one_of(&KINDS)?.0 {
            0 => JobKind::Ray,
            1 => JobKind::Kubernetes,
            _ => JobKind::Plain,
        };
        let pairs = words.pairs(&KEYS)?;
        let name = match pairs.get("name") {
            Some(word) => word.name()?,
            None => super::default_name(),
        };
        let mut spec = job_spec(vec![workers(&pairs)?]);
        (spec.name, spec.kind) = (name.clone(), kind);
        spec.rtt_max = pairs.read("max_rtt", |word| word.rtt())?;
        spec.price_max = pairs.read("max_price", |word| word.price())?;
        spec.duration = pairs.read("duration", |word| word.duration())?;
        spec.priority = pairs.read("priority", |word| word.priority())?.unwrap_or_default();
        if let Some(word) = pairs.get("preempts") {
            spec.preemption.policy = match word.choice(&POLICIES)? {
                0 => PreemptionPolicy::Never,
                _ => PreemptionPolicy::LowerPriority,
            };
        }
        if let Some(word) = pairs.get("disruption") {
            spec.preemption.disruption = match word.choice(&DISRUPTIONS)? {
                0 => Disruption::None,
                1 => Disruption::Single,
                _ => Disruption::All,
            };
        }
        if let Some(word) = pairs.get("strategy") {
            spec.strategy = match word.choice(&STRATEGIES)? {
                0 => Strategy::Pack,
                1 => Strategy::Spread,
                2 => Strategy::StrictPack,
                _ => Strategy::StrictSpread,
            };
        }
        if let Some(word) = pairs.get("within") {
            spec.topology_required = Some(match word.choice(&LEVELS)? {
                0 => Level::Region,
                1 => Level::Zone,
                2 => Level::Site,
                _ => Level::Rack,
            });
        }
        let life = pairs.read("life", |word| word.latency())?;
        let count = pairs.number("count", 1, COUNT_MAX)?.unwrap_or(1);
        let nature = nature(&pairs)?;
        Ok(Self { name, times, spec: Arc::new(spec), life, nature, count })
    }

    /// The only group of these jobs, and how many replicas it may have.
    pub(super) fn group(&self) -> Option<(Name, u32, u32)> {
        let group = self.spec.groups.first()?;
        Some((group.name.clone(), group.replicas_min, group.ranks()))
    }

    /// When the jobs come and how long they stay, by a seed's dice.
    pub(super) fn arrivals(&self, rng: &mut StdRng) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        let mut arrive = |at, rng: &mut StdRng| {
            for _ in 0..self.count {
                let life = self.life.map(|life| life.draw(rng));
                let nature = self.nature.clone();
                arrivals.push(Arrival { at, spec: Arc::clone(&self.spec), life, nature });
            }
        };
        match self.times {
            Times::Once(at) => arrive(at, rng),
            Times::Every { gap, from, until } => {
                let mut at = from;
                while at < until {
                    arrive(at, rng);
                    let step = gap.draw(rng).max(DurationMs(1));
                    at = TimeMs(at.0.saturating_add(step.0));
                }
            }
        }
        arrivals
    }
}

/// The group of the jobs' replicas.
fn workers(pairs: &Pairs<'_>) -> Result<GroupSpec, Fault> {
    let (replicas, gpus) = replicas(pairs)?;
    let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
    let mut workers: GroupSpec = group("workers", replicas, 0);
    let each = match gpus {
        GpuAsk::Whole(gpus) => u64::from(gpus),
        GpuAsk::None | GpuAsk::Share(_) => 1,
    };
    workers.shape.gpus = gpus;
    let cores = pairs.number("cpu", 0, 4_096)?.unwrap_or(each);
    workers.shape.cpu = CpuMilli(cores * 1_000);
    workers.shape.memory = MemoryMib(each * MEMORY_PER_GPU);
    if let Some(min) = pairs.number("min", 1, u64::from(replicas))? {
        workers.replicas_min = u32::try_from(min).unwrap_or(replicas);
    }
    if let Some(max) = pairs.number("max", u64::from(replicas), GPUS_MAX)? {
        workers.replicas_max = u32::try_from(max).unwrap_or(u32::MAX);
    }
    if let Some(model) = pairs.get("model") {
        model.name()?;
        workers.shape.alternatives = models(&[model.text]);
    }
    Ok(workers)
}

/// How many replicas a job has, and what each asks for.
fn replicas(pairs: &Pairs<'_>) -> Result<(u64, GpuAsk), Fault> {
    let per = pairs.number("per", 1, GPUS_PER_NODE_MAX as u64)?;
    let gpus = pairs.number("gpus", 0, GPUS_MAX)?;
    let share = pairs.read("share", |word| word.share())?;
    let replicas = pairs.number("replicas", 1, GPUS_MAX)?;
    match (gpus, share, replicas) {
        (None, None, None) => Err(pairs.missing("gpus=")),
        (Some(_), Some(_), _) => {
            let word = pairs.get("share").or(pairs.get("gpus"));
            let what = "share= is of one GPU and does not go with gpus=";
            Err(word.map_or(pairs.missing(what), |word| word.fault(what)))
        }
        (None, Some(ppm), replicas) => {
            let milli = u16::try_from(ppm / 1_000).unwrap_or(0).clamp(1, 999);
            Ok((replicas.unwrap_or(1), GpuAsk::Share(milli)))
        }
        (None, None, Some(replicas)) => Ok((replicas, whole(per.unwrap_or(0)))),
        (Some(0), None, replicas) => Ok((replicas.unwrap_or(1), GpuAsk::None)),
        (Some(gpus), None, replicas) => {
            let per = match (replicas, per) {
                (Some(replicas), _) => gpus / replicas,
                (None, Some(per)) => per,
                (None, None) => PER_REPLICA.min(gpus),
            };
            let is_even = per > 0 && gpus % per == 0 && replicas.is_none_or(|r| r * per == gpus);
            if is_even && per <= GPUS_PER_NODE_MAX as u64 {
                return Ok((gpus / per, whole(per)));
            }
            let what =
                format!("{gpus} GPUs cannot be dealt out evenly over the replicas (per={per})");
            Err(pairs.get("gpus").map_or(pairs.missing("gpus="), |word| word.fault(what)))
        }
    }
}

/// What sets the jobs apart, if anything does.
fn nature(pairs: &Pairs<'_>) -> Result<Option<Arc<Nature>>, Fault> {
    let tenant = pairs.read("tenant", |word| word.name())?.map(TenantId);
    let length = pairs.read("work", |word| word.latency())?;
    let crashing = pairs.read("crashing", |word| word.share())?;
    if crashing.is_some() && length.is_none() {
        return Err(pairs.missing("work=, without which nothing crashes,"));
    }
    let crashing_ppm = crashing.unwrap_or(0);
    let nature = Nature { tenant, work: length.map(|length| Work { length, crashing_ppm }) };
    Ok((nature != Nature::default()).then(|| Arc::new(nature)))
}

fn whole(gpus: u64) -> GpuAsk {
    match u8::try_from(gpus) {
        Ok(0) | Err(_) => GpuAsk::None,
        Ok(gpus) => GpuAsk::Whole(gpus),
    }
}
