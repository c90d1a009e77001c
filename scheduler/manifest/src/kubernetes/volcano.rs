//! Volcano's `Job`: tasks of several kinds that start together.
//!
//! **Invariant:** every task becomes a group with its own minimum; a minimum of the whole job is kept only where
//! it says which pods may be missing.

use super::claim::Known;
use super::job::{Owner, name_of};
use super::members::{Members, least_of_all, priority, shorter, together};
use super::pinned::{NO_QUEUES, On, Pinned};
use super::pod::{self, Object, PodTemplate};
use crate::decode::{Rest, Verdict, decode, word};
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use crate::topology;
use proto::v1;
use serde::Deserialize;

const LIFECYCLE: Verdict =
    Verdict::Ignored("lost members are replaced, and failed ones as often as muster allows");
const PLUGINS: Verdict =
    Verdict::Ignored("muster does not start pods, it has no say in where they go");

/// What becomes of fields that the structs below do not name.
const REST: Rest = &[
    ("VolcanoSpec", &["schedulerName"], Verdict::Ignored("muster is the scheduler here")),
    ("VolcanoSpec", &["queue"], Verdict::Ignored(NO_QUEUES)),
    ("VolcanoSpec", &["maxRetry", "policies"], LIFECYCLE),
    ("VolcanoSpec", &["plugins", "volumes"], PLUGINS),
    (
        "VolcanoSpec",
        &["ttlSecondsAfterFinished"],
        Verdict::Ignored("jobs that are over hold nothing"),
    ),
    (
        "VolcanoSpec",
        &["runningEstimate"],
        Verdict::Ignored("a guess, which nothing ends; say muster/duration where it is a bound"),
    ),
    ("VolcanoSpec", &["minSuccess"], Verdict::Refused("a job is done when all its members are")),
    ("Task", &["maxRetry", "policies"], LIFECYCLE),
    (
        "Task",
        &["topologyPolicy"],
        Verdict::Ignored("about CPUs inside a node, which muster does not deal out"),
    ),
];

const OWN_MINIMA: &str = "Give each task its own minAvailable";

type VolcanoJob = Object<VolcanoSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VolcanoSpec {
    min_available: Option<u32>,
    tasks: Vec<Task>,
    priority_class_name: Option<String>,
    network_topology: Option<NetworkTopology>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Task {
    name: Option<String>,
    replicas: Option<u32>,
    min_available: Option<u32>,
    template: PodTemplate,
    partition_policy: Option<PartitionPolicy>,
    depends_on: Option<DependsOn>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct DependsOn {
    name: Vec<String>,
    iteration: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartitionPolicy {
    total_partitions: u32,
    partition_size: u32,
    min_partitions: Option<u32>,
    network_topology: Option<NetworkTopology>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NetworkTopology {
    mode: Option<String>,
    highest_tier_allowed: Option<u32>,
    highest_tier_name: Option<String>,
}

impl NetworkTopology {
    /// The level inside which pods stay, and whether that is only a wish.
    fn level(&self, at: &At, findings: &mut Findings) -> Option<(v1::TopologyLevel, bool)> {
        let mode = self.mode.as_deref().unwrap_or("hard");
        let is_wish = word(&at.field("mode"), mode, &[("hard", false), ("soft", true)], findings)?;
        if self.highest_tier_allowed.is_some() {
            let why = "is not supported: tiers are numbered by the HyperNodes of a cluster; \
                       name the level in highestTierName";
            findings.fault(&at.field("highestTierAllowed"), why);
            return None;
        }
        let Some(name) = &self.highest_tier_name else {
            findings.fault(&at.field("highestTierName"), "missing");
            return None;
        };
        let level = topology::level_at(&at.field("highestTierName"), name, findings)?;
        Some((level, is_wish))
    }
}

/// Reads Volcano's `Job`.
pub(super) fn job(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let read: VolcanoJob = decode(at, &document.value, &[REST, pod::REST], findings);
    let name = name_of(at, &read.metadata, findings);
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    let at_spec = at.field("spec");
    let spec = &read.spec;
    priority(&at_spec, None, spec.priority_class_name.as_deref(), findings);
    let at_tasks = at_spec.field("tasks");
    let mut members: Vec<Members> = Vec::new();
    for (index, one) in spec.tasks.iter().enumerate() {
        let of = read.metadata.name.as_deref();
        members.extend(task(&at_tasks.index(index), index, one, of, known, findings));
    }
    if spec.tasks.is_empty() {
        findings.fault(&at_tasks, "needs at least one task");
    }
    for (index, one) in spec.tasks.iter().enumerate() {
        if let Some(depends) = &one.depends_on {
            let at = at_tasks.index(index).field("dependsOn");
            order(&at, &task_name(one, index), depends, spec, &mut members, findings);
        }
    }
    if let Some(least) = spec.min_available {
        let is_said = spec.tasks.iter().any(|task| task.min_available.is_some());
        let at = at_spec.field("minAvailable");
        least_of_all(&at, least, is_said, &mut members, OWN_MINIMA, findings);
    }
    pinned.keep_together(&at.field("metadata"), &mut members);
    let at_network = at_spec.field("networkTopology");
    let network = spec.network_topology.as_ref();
    if let Some((level, is_wish)) = network.and_then(|one| one.level(&at_network, findings)) {
        together(&at_network, &mut members, level, is_wish);
    }
    let of_pods = members.iter().fold(None, |least, one| shorter(least, one.duration_s));
    let duration_s = shorter(pinned.duration_s, of_pods);
    let at = at.clone();
    Owner { at, kind: "Volcano Job", name, duration_s, pinned, members, ..Owner::default() }
}

fn task(
    at: &At,
    index: usize,
    task: &Task,
    job_name: Option<&str>,
    known: &Known,
    findings: &mut Findings,
) -> Option<Members> {
    let template = &task.template;
    let name = task_name(task, index);
    let made = [("volcano.sh/job-name", job_name), ("volcano.sh/task-spec", Some(name.as_str()))];
    let mut one = Members::read(
        &at.field("template"),
        &template.metadata.with_made(&made),
        &template.spec,
        On::Template,
        known,
        findings,
    );
    one.group.name = name;
    one.group.replicas = task.replicas.unwrap_or(1);
    if one.group.replicas == 0 {
        findings.note(&at.field("replicas"), "is 0: the task is left out");
        return None;
    }
    if let Some(policy) = &task.partition_policy {
        partitions(&at.field("partitionPolicy"), policy, &mut one, findings);
    }
    if let Some(least) = task.min_available {
        one.at_least(&at.field("minAvailable"), least, findings);
    }
    Some(one)
}

fn task_name(task: &Task, index: usize) -> String {
    task.name.clone().unwrap_or_else(|| format!("default{index}"))
}

/// A task that starts once others run.
fn order(
    at: &At,
    name: &str,
    depends: &DependsOn,
    spec: &VolcanoSpec,
    members: &mut [Members],
    findings: &mut Findings,
) {
    let words = [("any", true), ("all", false)];
    let iteration = depends.iteration.as_deref().unwrap_or("all");
    let any = word(&at.field("iteration"), iteration, &words, findings);
    if any == Some(true) && depends.name.len() > 1 {
        let problem = "is any of several tasks, which is not supported: name one, or say all";
        findings.fault(&at.field("iteration"), problem);
    }
    for (index, other) in depends.name.iter().enumerate() {
        let at = at.field("name").index(index);
        let mut tasks = spec.tasks.iter().enumerate();
        if !tasks.any(|(index, task)| task_name(task, index) == *other) {
            findings.fault(&at, format!("no task is called {}", quote(other)));
        } else if !members.iter().any(|one| one.group.name == *other) {
            findings.note(&at, "ignored: that task is left out");
        } else if let Some(own) = members.iter_mut().find(|one| one.group.name == name) {
            own.group.depends_on.push(other.clone());
        }
    }
}

/// Partitions are segments, where they have a level to stay in.
fn partitions(at: &At, policy: &PartitionPolicy, one: &mut Members, findings: &mut Findings) {
    let (total, size) = (policy.total_partitions, policy.partition_size);
    if total == 0 || total.checked_mul(size) != Some(one.group.replicas) {
        let replicas = one.group.replicas;
        let problem = format!("are {total} of {size}, but there are {replicas} replicas");
        return findings.fault(&at.field("totalPartitions"), problem);
    }
    if let Some(least) = policy.min_partitions {
        let replicas = least.saturating_mul(size);
        one.at_least(&at.field("minPartitions"), replicas, findings);
    }
    let at = at.field("networkTopology");
    let Some(network) = &policy.network_topology else {
        return findings.note(&at, "left out: partitions stay nowhere together, and start as one");
    };
    match network.level(&at, findings) {
        Some((level, false)) => {
            one.group.segments = vec![v1::Segment { level: level.into(), size, exclusive: false }];
        }
        Some((_, true)) => {
            findings.note(&at.field("mode"), "ignored: partitions are kept together or not at all");
        }
        None => {}
    }
}
