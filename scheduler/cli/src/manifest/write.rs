//! From `JobSpec` back to the form of a job file.

use super::read::{EFFECTS, KINDS, LEVELS, OPERATORS, ROLES, STRATEGIES};
use crate::output::text::{dollars, mebibytes, milli, seconds};
use proto::v1::{Group, JobSpec, Program, Selector, Toleration, shape::Gpus};
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
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<ProgramEntry>,
    groups: Vec<GroupEntry>,
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
    gpus: Option<String>,
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    selectors: Vec<SelectorEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tolerations: Vec<TolerationEntry>,
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
            max_rtt: (spec.rtt_us_max > 0).then(|| crate::output::text::rtt(spec.rtt_us_max)),
            duration: (spec.duration_s > 0).then(|| seconds(spec.duration_s)),
            max_price: (spec.price_micro_usd_max > 0).then(|| dollars(spec.price_micro_usd_max)),
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
        gpus: shape.gpus.map(|gpus| match gpus {
            Gpus::GpuCount(count) => count.to_string(),
            Gpus::GpuMilli(share) => milli(u64::from(share)),
        }),
        gpu_models: shape.gpu_models,
        min_vram: (shape.vram_mib_min > 0).then(|| mebibytes(u64::from(shape.vram_mib_min))),
        cpu: (shape.cpu_milli > 0).then(|| milli(shape.cpu_milli)),
        memory: (shape.memory_mib > 0).then(|| mebibytes(shape.memory_mib)),
        disk: (shape.disk_mib > 0).then(|| mebibytes(shape.disk_mib)),
        selectors: group.selectors.iter().map(selector).collect(),
        tolerations: group.tolerations.iter().map(toleration).collect(),
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
