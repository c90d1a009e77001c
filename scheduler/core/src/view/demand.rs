//! Demand: which kinds of replicas arrive, learned from the arrivals that the view was told of.
//!
//! A policy reads the [`Mix`], a snapshot that changes only now and then, so that what is worked
//! out from it can be kept for a while.
//! **Invariant:** integers and ordered maps only: the same arrivals give the same mix; with nothing
//! learned yet the mix is a fixed prior.

use crate::id::Name;
use crate::job::{GpuAsk, JobSpec, Shape};
use crate::unit::{CpuMilli, MemoryMib, VramMib};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Arrivals are counted in this many parts, so that halving keeps small numbers apart.
const PARTS: u64 = 64;
/// Arrivals remembered at full weight: past that all counts are halved, so a mix that changes is
/// followed within some tens of thousands of arrivals.
const WINDOW: u64 = 65_536 * PARTS;
/// Kinds remembered; the rarest go first. Real traces have some hundreds.
const KINDS_MAX: usize = 2_048;
/// Fewest arrivals between two snapshots, once the mix is settled.
const REFRESH_MIN: u64 = 256;
/// A snapshot makes scores of all nodes out of date, so larger fleets wait longer: one arrival for
/// this many nodes.
const REFRESH_NODES: u64 = 4;
/// Replicas that ended over arrivals, below which nothing seems to leave.
const FILLS_BELOW: f64 = 0.05;
/// Arrivals before anything is said about that.
const FILLS_AFTER: u64 = 64;

/// Replicas of one group that count: a gang asks for its shape so often at once, but one of ten
/// thousand must not drown what everybody else asks for.
const REPLICAS_COUNTED_MAX: u32 = 128;

/// What a policy tells replicas apart by.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Kind {
    pub(crate) gpus: GpuAsk,
    pub(crate) cpu: CpuMilli,
    pub(crate) memory: MemoryMib,
    /// Allowed models by name, rising; empty = any.
    pub(crate) models: Vec<Name>,
    pub(crate) vram_min: VramMib,
}

impl Kind {
    fn of(shape: &Shape) -> Self {
        let alternatives = &shape.alternatives;
        let any = alternatives.iter().any(|one| one.models.is_empty());
        let named = alternatives.iter().filter(|_| !any).flat_map(|one| &one.models);
        let mut models: Vec<Name> = named.cloned().collect();
        models.sort_unstable();
        models.dedup();
        let (gpus, cpu, memory) = (shape.gpus, shape.cpu, shape.memory);
        let vram_min = alternatives.iter().map(|one| one.vram_min).min().unwrap_or_default();
        Self { gpus, cpu, memory, models, vram_min }
    }

    /// Whether it is bound to no model and no least vRAM.
    pub(crate) fn takes_any_gpu(&self) -> bool {
        self.models.is_empty() && self.vram_min == VramMib::ZERO
    }
}

/// Kinds of replicas with how often they come, by rising kind.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    /// Differs between any two mixes of one view.
    pub(crate) version: u64,
    pub(crate) kinds: Vec<(Kind, u64)>,
}

/// What the view remembers of arrivals.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    counts: BTreeMap<Kind, u64>,
    total: u64,
    arrivals: u64,
    /// Arrivals at which the next snapshot is due.
    due: u64,
    told: bool,
    mix: Arc<Mix>,
    /// Replicas that ended since the last snapshot, and arrivals then.
    ended: u64,
    arrivals_then: u64,
    /// Replicas that ended for each arrival, lately.
    churn: f64,
    fills: bool,
    /// Live replicas on each node as the state last had them.
    live: Vec<u32>,
}

impl Default for Demand {
    fn default() -> Self {
        let mix = Arc::new(Mix { version: 0, kinds: prior() });
        Self {
            counts: BTreeMap::new(),
            total: 0,
            arrivals: 0,
            due: 1,
            told: false,
            mix,
            ended: 0,
            arrivals_then: 0,
            churn: 0.0,
            fills: false,
            live: Vec::new(),
        }
    }
}

impl Demand {
    pub(super) fn mix(&self) -> &Arc<Mix> {
        &self.mix
    }

    /// Arrivals noted so far.
    pub(super) fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Whether the fleet seems to fill up: jobs come and none leaves.
    pub(super) fn fills(&self) -> bool {
        self.fills
    }

    /// Learns that replicas ended.
    pub(super) fn note_ended(&mut self, replicas: u32) {
        self.ended += u64::from(replicas);
    }

    /// Learns how many replicas live on a node by the state.
    pub(super) fn note_live(&mut self, node: usize, live: u32) {
        if self.live.len() <= node {
            self.live.resize(node + 1, 0);
        }
        if let Some(before) = self.live.get_mut(node) {
            let ended = before.saturating_sub(live);
            *before = live;
            self.note_ended(ended);
        }
    }

    /// Learns from an arrival; whether it is time for a new outlook.
    pub(super) fn note(&mut self, spec: &JobSpec, nodes: usize) -> bool {
        self.arrivals += 1;
        for group in &spec.groups {
            let weight = PARTS * u64::from(group.replicas.clamp(1, REPLICAS_COUNTED_MAX));
            self.add(Kind::of(&group.shape), weight);
        }
        let due = self.arrivals >= self.due;
        if due {
            let every = REFRESH_MIN.max(nodes as u64 / REFRESH_NODES);
            // A young mix changes fast: it is looked at again when it has doubled.
            self.due = self.arrivals + self.arrivals.min(every);
            self.note_churn();
        }
        if due && !self.told {
            let kinds = self.counts.iter().map(|(kind, &count)| (kind.clone(), count)).collect();
            self.mix = Arc::new(Mix { version: self.mix.version + 1, kinds });
        }
        due
    }

    fn note_churn(&mut self) {
        let arrivals = (self.arrivals - self.arrivals_then).max(1);
        self.churn += 0.5 * (self.ended as f64 / arrivals as f64 - self.churn);
        self.fills = self.arrivals >= FILLS_AFTER && self.churn < FILLS_BELOW;
        (self.ended, self.arrivals_then) = (0, self.arrivals);
    }

    /// Takes this mix for given, from now on, whatever arrives.
    pub(super) fn tell(&mut self, shapes: &[(Shape, u64)]) {
        let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
        for (shape, count) in shapes {
            *counts.entry(Kind::of(shape)).or_insert(0) += count;
        }
        self.told = true;
        let kinds = counts.into_iter().collect();
        self.mix = Arc::new(Mix { version: self.mix.version + 1, kinds });
    }

    fn add(&mut self, kind: Kind, weight: u64) {
        if self.counts.len() >= KINDS_MAX && !self.counts.contains_key(&kind) {
            self.drop_rarest();
        }
        *self.counts.entry(kind).or_insert(0) += weight;
        self.total += weight;
        if self.total > WINDOW {
            self.halve();
        }
    }

    /// Makes room for a quarter of the kinds.
    fn drop_rarest(&mut self) {
        let mut by_count: Vec<(u64, &Kind)> =
            self.counts.iter().map(|(kind, &count)| (count, kind)).collect();
        by_count.sort_unstable();
        let rarest: Vec<Kind> =
            by_count.iter().take(KINDS_MAX / 4).map(|&(_, kind)| kind.clone()).collect();
        for kind in rarest {
            self.total -= self.counts.remove(&kind).unwrap_or(0);
        }
    }

    fn halve(&mut self) {
        self.counts.retain(|_, count| {
            *count /= 2;
            *count > 0
        });
        self.total = self.counts.values().sum();
    }
}

/// What is taken for likely before anything has arrived: whole GPUs in powers of two, single ones
/// most, with a few halves, as the public traces have it. The first arrivals replace it.
fn prior() -> Vec<(Kind, u64)> {
    let kind = |gpus, cores: u64| Kind {
        gpus,
        cpu: CpuMilli(cores * 1_000),
        memory: MemoryMib(cores * 4_096),
        models: Vec::new(),
        vram_min: VramMib::ZERO,
    };
    vec![
        (kind(GpuAsk::Whole(1), 8), 50),
        (kind(GpuAsk::Whole(2), 16), 8),
        (kind(GpuAsk::Whole(4), 32), 8),
        (kind(GpuAsk::Whole(8), 64), 24),
        (kind(GpuAsk::Share(500), 4), 10),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::entry::{group, job_spec};

    fn spec(gpus: u8, replicas: u32) -> JobSpec {
        job_spec(vec![group("workers", replicas, gpus)])
    }

    #[test]
    fn a_mix_is_what_arrived_and_is_new_when_it_has_doubled() {
        let mut demand = Demand::default();
        let fresh: Vec<bool> = (0..8).map(|_| demand.note(&spec(2, 1), 10)).collect();
        assert_eq!(fresh, [true, true, false, true, false, false, false, true]);
        demand.note(&spec(4, 10_000), 10);
        let gpus = |at: usize| demand.mix().kinds.get(at).map(|(kind, _)| kind.gpus);
        assert_eq!((gpus(0), gpus(1)), (Some(GpuAsk::Whole(2)), None));
        assert_eq!(demand.counts.values().copied().collect::<Vec<_>>(), [8 * PARTS, 128 * PARTS]);
    }

    #[test]
    fn kinds_are_bounded_and_old_ones_fade() {
        let mut demand = Demand::default();
        for cores in 0..10_000u64 {
            let mut spec = spec(1, 1);
            spec.groups[0].shape.cpu = CpuMilli(cores);
            demand.note(&spec, 10);
        }
        assert!(demand.counts.len() <= KINDS_MAX);
        for _ in 0..400_000 {
            demand.note(&spec(8, 1), 10);
        }
        assert!(demand.total <= WINDOW);
        assert_eq!(demand.total, demand.counts.values().sum::<u64>());
        assert_eq!(demand.counts.len(), 1, "what no longer comes is forgotten");
    }

    #[test]
    fn a_fleet_fills_until_work_leaves() {
        let mut demand = Demand::default();
        (0..2_000).for_each(|_| {
            demand.note(&spec(1, 1), 10);
        });
        assert!(demand.fills());
        demand.note_live(3, 500);
        demand.note_live(3, 100);
        (0..REFRESH_MIN).for_each(|_| {
            demand.note(&spec(1, 1), 10);
        });
        assert!(!demand.fills(), "400 replicas ended");
        (0..3_000).for_each(|_| {
            demand.note(&spec(1, 1), 10);
        });
        assert!(demand.fills(), "long ago");
    }

    #[test]
    fn a_told_mix_stays() {
        let mut demand = Demand::default();
        demand.tell(&[(spec(1, 1).groups[0].shape.clone(), 5)]);
        let version = demand.mix().version;
        demand.note(&spec(8, 1), 10);
        assert_eq!((demand.mix().version, demand.mix().kinds.len()), (version, 1));
    }
}
