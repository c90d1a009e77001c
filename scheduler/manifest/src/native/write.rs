//! From `JobSpec` back to the form of a job file.

use super::read::{
    DISRUPTIONS, EFFECTS, KINDS, LEVELS, OBJECTIVES, OPERATORS, POLICIES, ROLES, SCOPES,
    STRATEGIES, VENDORS,
};
use crate::text::{decimal, dollars, mebibytes, milli, rtt, seconds, time};
use proto::v1::{
    Affinity, DomainsMax, GpuAlternative, Group, JobSpec, Program, Segment, Selector, Spread,
    Toleration, shape::Gpus,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A job in the form of a job file; `parse` reads it back to the same job.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest {
    kind: &'static str,
    name: String,
    strategy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topology_required: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topology_preferred: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_rtt: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_price: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    minimise: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_total_price: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_hourly_price: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    priority: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    preemption: Option<PreemptionEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    begin: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_duration: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    max_domains: Vec<DomainsEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    affinity: Vec<AffinityEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<RegionsEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suppliers_denied: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compliance: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<ProgramEntry>,
    groups: Vec<GroupEntry>,
}

#[derive(Clone, Debug, Serialize)]
struct PreemptionEntry {
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disruption: Option<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
struct RegionsEntry {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    allowed: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    denied: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct AffinityEntry {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    anti: bool,
    level: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    preferred: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    group: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    with_group: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    with_jobs: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
struct AlternativeEntry {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vendor: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_vram: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_compute_capability: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct SegmentEntry {
    level: &'static str,
    size: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    exclusive: bool,
}

#[derive(Clone, Debug, Serialize)]
struct RepairEntry {
    #[serde(skip_serializing_if = "is_zero")]
    max_in_flight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<&'static str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    preferred: bool,
}

#[derive(Clone, Debug, Serialize)]
struct SpreadEntry {
    level: &'static str,
    max_skew: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    preferred: bool,
}

#[derive(Clone, Debug, Serialize)]
struct DomainsEntry {
    level: &'static str,
    max: u32,
}

#[derive(Clone, Debug, Serialize)]
struct ProgramEntry {
    argv: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Serialize)]
struct GroupEntry {
    name: String,
    role: &'static str,
    replicas: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_replicas: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gpus: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpu: Vec<AlternativeEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpu_models: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_vram: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_bandwidth_up: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_bandwidth_down: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    custom: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "is_zero")]
    max_per_node: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topology_required: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topology_preferred: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    segments: Vec<SegmentEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    spread: Vec<SpreadEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    max_domains: Vec<DomainsEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    selectors: Vec<SelectorEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tolerations: Vec<TolerationEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<RepairEntry>,
}

#[derive(Clone, Debug, Serialize)]
struct SelectorEntry {
    key: String,
    operator: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<String>,
}

#[derive(Clone, Debug, Serialize)]
struct TolerationEntry {
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effect: Option<&'static str>,
}

impl From<&JobSpec> for Manifest {
    fn from(spec: &JobSpec) -> Self {
        Self {
            kind: word(&KINDS, spec.kind()).unwrap_or("unknown"),
            name: spec.name.clone(),
            strategy: word(&STRATEGIES, spec.strategy()).unwrap_or("pack"),
            topology_required: word(&LEVELS, spec.topology_required()),
            topology_preferred: word(&LEVELS, spec.topology_preferred()),
            max_rtt: (spec.rtt_us_max > 0).then(|| rtt(spec.rtt_us_max)),
            duration: (spec.duration_s > 0).then(|| seconds(spec.duration_s)),
            max_price: (spec.price_micro_usd_max > 0).then(|| dollars(spec.price_micro_usd_max)),
            labels: spec.labels.clone(),
            rtt_scope: word(&SCOPES, spec.rtt_scope()),
            minimise: word(&OBJECTIVES, spec.rtt_objective()),
            max_total_price: (spec.price_total_micro_usd_max > 0)
                .then(|| dollars(spec.price_total_micro_usd_max)),
            max_hourly_price: (spec.price_hour_micro_usd_max > 0)
                .then(|| dollars(spec.price_hour_micro_usd_max)),
            priority: spec.priority,
            preemption: spec.preemption.as_ref().map(|asked| PreemptionEntry {
                policy: word(&POLICIES, asked.policy()),
                disruption: word(&DISRUPTIONS, asked.disruption()),
            }),
            begin: time(spec.begin_time_ms),
            deadline: time(spec.deadline_time_ms),
            min_duration: (spec.duration_s_min > 0).then(|| seconds(spec.duration_s_min)),
            max_domains: spec.domains_max.iter().map(domains_max).collect(),
            affinity: spec.affinities.iter().map(affinity).collect(),
            regions: (!spec.regions_allowed.is_empty() || !spec.regions_denied.is_empty()).then(
                || RegionsEntry {
                    allowed: spec.regions_allowed.clone(),
                    denied: spec.regions_denied.clone(),
                },
            ),
            suppliers_denied: spec.suppliers_denied.clone(),
            compliance: spec.compliance.clone(),
            program: spec.program.as_ref().map(program),
            groups: spec.groups.iter().map(group).collect(),
        }
    }
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], meaning: T) -> Option<&'static str> {
    words.iter().find(|(_, m)| *m == meaning).map(|(word, _)| *word)
}

fn program(program: &Program) -> ProgramEntry {
    ProgramEntry { argv: program.argv.clone(), env: program.env.clone() }
}

fn group(group: &Group) -> GroupEntry {
    let shape = group.shape.clone().unwrap_or_default();
    GroupEntry {
        name: group.name.clone(),
        role: word(&ROLES, group.role()).unwrap_or("worker"),
        replicas: group.replicas,
        min_replicas: (group.replicas_min > 0).then_some(group.replicas_min),
        max_replicas: (group.replicas_max > 0).then_some(group.replicas_max),
        gpu: shape.gpu_alternatives.iter().map(alternative).collect(),
        gpus: shape.gpus.map(|gpus| match gpus {
            Gpus::GpuCount(count) => count.to_string(),
            Gpus::GpuMilli(share) => milli(u64::from(share)),
        }),
        gpu_models: shape.gpu_models,
        min_vram: (shape.vram_mib_min > 0).then(|| mebibytes(u64::from(shape.vram_mib_min))),
        cpu: (shape.cpu_milli > 0).then(|| milli(shape.cpu_milli)),
        memory: (shape.memory_mib > 0).then(|| mebibytes(shape.memory_mib)),
        disk: (shape.disk_mib > 0).then(|| mebibytes(shape.disk_mib)),
        min_bandwidth_up: bandwidth(shape.bandwidth_up_mbps_min),
        min_bandwidth_down: bandwidth(shape.bandwidth_down_mbps_min),
        custom: shape.custom,
        max_per_node: group.replicas_per_node_max,
        strategy: word(&STRATEGIES, group.strategy()),
        topology_required: word(&LEVELS, group.topology_required()),
        topology_preferred: word(&LEVELS, group.topology_preferred()),
        segments: group.segments.iter().map(segment).collect(),
        spread: group.spread.iter().map(spread).collect(),
        max_domains: group.domains_max.iter().map(domains_max).collect(),
        selectors: group.selectors.iter().map(selector).collect(),
        tolerations: group.tolerations.iter().map(toleration).collect(),
        depends_on: group.depends_on.clone(),
        repair: group.repair.map(|repair| RepairEntry {
            max_in_flight: repair.in_flight_max,
            level: word(&LEVELS, repair.level()),
            preferred: repair.preferred,
        }),
    }
}

fn is_zero<T: PartialEq + Default>(number: &T) -> bool {
    *number == T::default()
}

fn bandwidth(mbps: u32) -> Option<String> {
    let text = match mbps {
        0 => return None,
        1..1_000 => format!("{mbps}Mbps"),
        _ => format!("{}Gbps", decimal(mbps.into(), 3)),
    };
    Some(text)
}

fn alternative(one: &GpuAlternative) -> AlternativeEntry {
    let able = one.compute_capability_min;
    AlternativeEntry {
        models: one.models.clone(),
        vendor: word(&VENDORS, one.vendor()),
        min_vram: (one.vram_mib_min > 0).then(|| mebibytes(u64::from(one.vram_mib_min))),
        min_compute_capability: (able > 0).then(|| format!("{}.{}", able / 100, able % 100)),
    }
}

fn segment(segment: &Segment) -> SegmentEntry {
    let level = word(&LEVELS, segment.level()).unwrap_or("unknown");
    SegmentEntry { level, size: segment.size, exclusive: segment.exclusive }
}

fn spread(spread: &Spread) -> SpreadEntry {
    SpreadEntry {
        level: word(&LEVELS, spread.level()).unwrap_or("unknown"),
        max_skew: spread.skew_max,
        preferred: spread.preferred,
    }
}

fn domains_max(bound: &DomainsMax) -> DomainsEntry {
    DomainsEntry { level: word(&LEVELS, bound.level()).unwrap_or("unknown"), max: bound.max }
}

fn affinity(affinity: &Affinity) -> AffinityEntry {
    AffinityEntry {
        anti: affinity.anti,
        level: word(&LEVELS, affinity.level()).unwrap_or("unknown"),
        preferred: affinity.preferred,
        group: affinity.group.clone(),
        with_group: affinity.with_group.clone(),
        with_jobs: affinity.with_job_labels.clone(),
    }
}

fn selector(selector: &Selector) -> SelectorEntry {
    SelectorEntry {
        key: selector.key.clone(),
        operator: word(&OPERATORS, selector.operator()).unwrap_or("unknown"),
        values: selector.values.clone(),
    }
}

fn toleration(toleration: &Toleration) -> TolerationEntry {
    TolerationEntry {
        key: toleration.key.clone(),
        value: toleration.value.clone(),
        effect: word(&EFFECTS, toleration.effect()),
    }
}
