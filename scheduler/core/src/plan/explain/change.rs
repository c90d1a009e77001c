//! Change: one thing that could be changed so that a job fits.
//!
//! **Invariant:** names one thing only; what it does to a spec is done here and nowhere else, so
//! that what is tried is what is told.

use super::Rule;
use crate::id::{JobId, Name};
use crate::job::{
    Condition, DomainsMax, GroupSpec, JobSpec, Level, Selector, Strategy, Toleration,
};
use crate::node::{Taint, TaintEffect};
use crate::unit::{
    CostMicroUsd, CpuMilli, DiskMib, MemoryMib, PriceMicroUsd, RttUs, TimeMs, VramMib,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Own jobs told at most that would give way: a line for people.
pub const OWN_TOLD_MAX: usize = 64;

/// One thing that could be changed. Changes of groups name their indexes in the spec.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Change {
    /// The tenant may hold this many thousandths of GPUs more.
    Quota {
        gpu_milli_more: u64,
    },
    /// This many replicas of each group, all of them needed.
    Replicas(Vec<u32>),
    /// This RTT bound; `None` = none, as some RTTs are not known.
    RttMax(Option<RttUs>),
    /// This level is required; `None` = none.
    Topology(Option<Level>),
    Strategy(Strategy),
    /// This bound on the price of a GPU-hour.
    PriceMax(PriceMicroUsd),
    /// This bound on the price of all GPUs for an hour.
    HourlyMax(CostMicroUsd),
    /// This bound on the domains of its level; no groups = the job's.
    DomainsMax {
        groups: Vec<usize>,
        bound: DomainsMax,
    },
    /// One more GPU model is allowed; `None` = any.
    Model {
        groups: Vec<usize>,
        model: Option<Name>,
    },
    /// So little vRAM is enough.
    VramMin {
        groups: Vec<usize>,
        vram: VramMib,
    },
    /// The selector goes.
    NoSelector {
        groups: Vec<usize>,
        selector: Selector,
    },
    /// An `In` selector takes one more value.
    SelectorValue {
        groups: Vec<usize>,
        selector: Selector,
        value: Arc<str>,
    },
    /// A taint is tolerated.
    Tolerate {
        groups: Vec<usize>,
        taint: Taint,
    },
    /// So little of it for each replica is enough.
    Cpu {
        groups: Vec<usize>,
        cpu: CpuMilli,
    },
    Memory {
        groups: Vec<usize>,
        memory: MemoryMib,
    },
    Disk {
        groups: Vec<usize>,
        disk: DiskMib,
    },
    /// A condition goes as a whole.
    NoRule {
        groups: Vec<usize>,
        rule: Rule,
    },
    /// This many nodes that are down, cordoned or draining come back.
    Open {
        nodes: u32,
    },
    /// It may take what jobs of lower priorities let go.
    Preempt(Taken),
    /// At this time enough of what runs has ended, this job last, if nothing else comes before.
    Wait {
        until: TimeMs,
        job: JobId,
        own: bool,
    },
}

/// What jobs of lower priorities would lose.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// Jobs that would go back whole.
    pub whole: u32,
    /// Jobs that would lose spare replicas alone.
    pub part: u32,
    pub gpu_milli: u64,
    /// Those of the tenant who asks, at most [`OWN_TOLD_MAX`].
    pub own: Vec<JobId>,
}

impl Change {
    /// The spec with this change; `None` where the change is not one of the spec.
    pub fn apply(&self, spec: &JobSpec) -> Option<JobSpec> {
        let mut new = spec.clone();
        let mut each = |groups: &[usize], change: &dyn Fn(&mut GroupSpec)| {
            groups.iter().for_each(|&at| new.groups.get_mut(at).into_iter().for_each(change));
        };
        match self {
            Self::Quota { .. } | Self::Open { .. } | Self::Wait { .. } | Self::Preempt(_) => {
                return None;
            }
            Self::NoRule { rule, .. } => return Some(rule.without(spec)),
            Self::Replicas(counts) => {
                for (group, &count) in new.groups.iter_mut().zip(counts) {
                    (group.replicas, group.replicas_min) = (count, count);
                    group.replicas_max = count;
                }
            }
            Self::RttMax(bound) => new.rtt_max = *bound,
            Self::Topology(level) => new.topology_required = *level,
            Self::Strategy(strategy) => new.strategy = *strategy,
            Self::PriceMax(price) => new.price_max = Some(*price),
            Self::HourlyMax(price) => new.hourly_max = Some(*price),
            Self::DomainsMax { groups, bound } if groups.is_empty() => {
                widen(&mut new.domains_max, *bound);
            }
            Self::DomainsMax { groups, bound } => {
                each(groups, &|group| widen(&mut group.rules.domains_max, *bound));
            }
            Self::Model { groups, model } => each(groups, &|group| {
                for one in &mut group.shape.alternatives {
                    match model {
                        Some(model) if !one.models.is_empty() => one.models.push(model.clone()),
                        Some(_) => {}
                        None => one.models.clear(),
                    }
                }
            }),
            Self::VramMin { groups, vram } => each(groups, &|group| {
                for one in &mut group.shape.alternatives {
                    one.vram_min = one.vram_min.min(*vram);
                }
            }),
            Self::NoSelector { groups, selector } => {
                each(groups, &|group| group.selectors.retain(|one| one != selector));
            }
            Self::SelectorValue { groups, selector, value } => each(groups, &|group| {
                for one in group.selectors.iter_mut().filter(|one| *one == selector) {
                    *one = widened(selector, value);
                }
            }),
            Self::Tolerate { groups, taint } => each(groups, &|group| {
                group.tolerations.push(Toleration {
                    key: taint.key.clone(),
                    value: Some(taint.value.clone()),
                    effect: Some(TaintEffect::NoSchedule),
                });
            }),
            Self::Cpu { groups, cpu } => each(groups, &|group| group.shape.cpu = *cpu),
            Self::Memory { groups, memory } => each(groups, &|group| group.shape.memory = *memory),
            Self::Disk { groups, disk } => each(groups, &|group| group.shape.disk = *disk),
        }
        Some(new)
    }

    /// Indexes of the groups that it is about; empty = the job as a whole, the fleet or the tenant.
    pub fn groups(&self) -> &[usize] {
        match self {
            Self::DomainsMax { groups, .. }
            | Self::Model { groups, .. }
            | Self::VramMin { groups, .. }
            | Self::NoSelector { groups, .. }
            | Self::SelectorValue { groups, .. }
            | Self::Tolerate { groups, .. }
            | Self::Cpu { groups, .. }
            | Self::Memory { groups, .. }
            | Self::Disk { groups, .. }
            | Self::NoRule { groups, .. } => groups,
            _ => &[],
        }
    }
}

/// The bound in place of the one of its level.
fn widen(bounds: &mut [DomainsMax], bound: DomainsMax) {
    let same = bounds.iter_mut().filter(|one| one.level == bound.level);
    same.for_each(|one| *one = bound);
}

/// An `In` selector with one more value; any other as it is.
pub fn widened(selector: &Selector, value: &Arc<str>) -> Selector {
    let mut wide = selector.clone();
    if let Condition::In(values) = &mut wide.condition {
        values.push(value.clone());
    }
    wide
}
