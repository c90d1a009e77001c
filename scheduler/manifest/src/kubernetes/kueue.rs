//! Kueue's topology-aware scheduling: annotations on pod templates, and the `Workload` object.
//!
//! **Invariant:** slices become segments of the same size; several layers go from wide to narrow.

use super::claim::Known;
use super::job::{Owner, name_of};
use super::members::{Members, NO_PRIORITIES, deadline, priority, shorter, together, with_some};
use super::pinned::{Entry, NO_QUEUES, Named, On, Pinned};
use super::pod::{self, Object, PodTemplate};
use super::preemption;
use crate::decode::{Rest, Verdict, decode};
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use crate::topology;
use proto::v1;
use serde::Deserialize;
use serde_json::Value;

/// Most layers of slices: Kueue's own limit.
const LAYERS_MAX: usize = 3;

/// Slices as they are gathered from several annotations or fields.
#[derive(Clone, Debug, Default)]
pub(super) struct Slice {
    level: Option<(At, v1::TopologyLevel)>,
    size: Option<(At, u32)>,
    layers: Vec<v1::Segment>,
}

impl Slice {
    /// The segments that come of them.
    pub(super) fn segments(self, at: &At, findings: &mut Findings) -> Vec<v1::Segment> {
        match (self.level, self.size) {
            (Some((_, level)), Some((_, size))) if self.layers.is_empty() => {
                vec![v1::Segment { level: level.into(), size, exclusive: false }]
            }
            (None, None) => self.layers,
            (Some((at, _)), None) => {
                findings.fault(&at, "needs podset-slice-size beside it");
                Vec::new()
            }
            (None, Some((at, _))) => {
                findings.fault(&at, "needs podset-slice-required-topology beside it");
                Vec::new()
            }
            _ => {
                findings.fault(at, "slices are given in two ways: choose one");
                Vec::new()
            }
        }
    }
}

/// An annotation below `kueue.x-k8s.io/`.
pub(super) fn annotation(
    pinned: &mut Pinned,
    word: &str,
    entry: &Entry<'_>,
    slice: &mut Slice,
    findings: &mut Findings,
) {
    let at = &entry.at;
    let mut level = || topology::level_at(at, entry.value, findings).unwrap_or_default();
    match word {
        "podset-required-topology" => pinned.topology_required = level(),
        "podset-preferred-topology" => pinned.topology_preferred = level(),
        "podset-unconstrained-topology" => {
            entry.ignored("no domain is asked for, and that is so anyway", findings);
        }
        "podset-slice-required-topology" => slice.level = Some((at.clone(), level())),
        "podset-slice-size" => {
            slice.size = entry.number(findings).map(|size| (at.clone(), size));
        }
        "podset-slice-required-topology-constraints" => {
            slice.layers = layers(at, entry.value, findings);
        }
        "podset-group-name" => pinned.podset_group = entry.named(),
        "job-min-parallelism" => {
            pinned.replicas_min = entry.number(findings).map(|least| (at.clone(), least));
        }
        "pod-group-total-count" => {
            pinned.pods_total = entry.number(findings).map(|total| (at.clone(), total));
        }
        "pod-index-offset"
        | "pod-group-pod-index"
        | "pod-group-pod-index-label"
        | "workload"
        | "workload-slice-name"
        | "retriable-in-group"
        | "pod-group-fast-admission"
        | "role-hash" => entry.ignored("Kueue's own bookkeeping", findings),
        "elastic-job" => {
            entry.ignored("any job here may be scaled up to the maximum of its groups", findings);
        }
        _ => entry.unknown("Kueue", findings),
    }
}

/// An annotation below `provreq.kueue.x-k8s.io/`: Kueue hands these on to whoever is to provide the nodes.
pub(super) fn provisioning(
    pinned: &mut Pinned,
    word: &str,
    entry: &Entry<'_>,
    findings: &mut Findings,
) {
    if word != "maxRunDurationSeconds" {
        return entry.ignored("a parameter for what adds nodes, and none are added here", findings);
    }
    match entry.number(findings) {
        Some(0) => findings.fault(&entry.at, "must be at least 1"),
        Some(seconds) => {
            pinned.duration_s = shorter(pinned.duration_s, Some(seconds.into()));
            let text = "read as the duration, counted from when the members are ready";
            findings.note(&entry.at, text);
        }
        None => {}
    }
}

/// A label below `kueue.x-k8s.io/`.
pub(super) fn label(pinned: &mut Pinned, word: &str, entry: &Entry<'_>, findings: &mut Findings) {
    match word {
        "queue-name" => {
            pinned.queued = true;
            entry.ignored(NO_QUEUES, findings);
        }
        "priority-class" => {
            findings.fault(&entry.at, NO_PRIORITIES);
        }
        "max-exec-time-seconds" => {
            let seconds = entry.number(findings).map(u64::from);
            pinned.duration_s = shorter(pinned.duration_s, seconds);
            if seconds == Some(0) {
                findings.fault(&entry.at, "must be at least 1");
            }
        }
        "pod-group-name" => pinned.pods_group = entry.named(),
        "managed" | "podset" | "tas" => entry.ignored("Kueue's own bookkeeping", findings),
        _ => entry.unknown("Kueue", findings),
    }
}

/// Layers written as JSON: `[{"topology": KEY, "size": N}]`.
fn layers(at: &At, text: &str, findings: &mut Findings) -> Vec<v1::Segment> {
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            findings.fault(
                at,
                format!("is no JSON: {}", crate::text::printable_line(&error.to_string())),
            );
            return Vec::new();
        }
    };
    let layers: Vec<Layer> = decode(at, &value, &[REST], findings);
    segments(at, &layers, findings)
}

fn segments(at: &At, layers: &[Layer], findings: &mut Findings) -> Vec<v1::Segment> {
    if layers.len() > LAYERS_MAX {
        findings
            .fault(at, format!("has {} layers; at most {LAYERS_MAX} are allowed", layers.len()));
    }
    let mut segments = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let at = at.index(index);
        let level = topology::level_at(&at.field("topology"), &layer.topology, findings);
        let size = layer.size.0.parse::<u32>().ok().filter(|size| *size > 0);
        if size.is_none() {
            let problem = format!("must be a whole number from 1, is {}", quote(&layer.size.0));
            findings.fault(&at.field("size"), problem);
        }
        if let (Some(level), Some(size)) = (level, size) {
            segments.push(v1::Segment { level: level.into(), size, exclusive: false });
        }
    }
    segments
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Layer {
    topology: String,
    size: crate::decode::Scalar,
}

/// What becomes of fields that the structs below do not name.
pub(super) const REST: Rest = &[
    (
        "Layer",
        &["sizes"],
        Verdict::Refused("slices of different sizes: give one size for each layer"),
    ),
    ("KueueSpec", &["queueName"], Verdict::Ignored(NO_QUEUES)),
    (
        "KueueSpec",
        &["priorityClassRef", "priorityClassName", "priorityClassSource"],
        Verdict::Refused("say a number in the annotation muster/priority, or leave it out"),
    ),
    ("KueueSpec", &["preemptionGates"], Verdict::Ignored(preemption::BY_JOBS)),
    (
        "TopologyRequest",
        &["podIndexLabel", "subGroupIndexLabel", "subGroupCount"],
        Verdict::Ignored("Kueue's own bookkeeping"),
    ),
];

/// Kueue's `Workload`.
pub(super) type KueueWorkload = Object<KueueSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct KueueSpec {
    pub(super) pod_sets: Vec<PodSet>,
    pub(super) active: Option<bool>,
    pub(super) priority: Option<i32>,
    pub(super) maximum_execution_time_seconds: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSet {
    pub(super) name: Option<String>,
    pub(super) template: PodTemplate,
    pub(super) count: Option<u32>,
    pub(super) min_count: Option<u32>,
    pub(super) topology_request: Option<TopologyRequest>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct TopologyRequest {
    required: Option<String>,
    preferred: Option<String>,
    unconstrained: Option<bool>,
    pod_set_group_name: Option<String>,
    pod_set_slice_required_topology: Option<String>,
    pod_set_slice_size: Option<u32>,
    #[serde(alias = "podSetSliceRequiredTopologyConstraints")]
    podset_slice_required_topology_constraints: Vec<Layer>,
}

impl TopologyRequest {
    /// Adds what the request says to what annotations of the same pod set say.
    pub(super) fn pin(&self, at: &At, pinned: &mut Pinned, findings: &mut Findings) {
        let level = |field: &str, key: &Option<String>, findings: &mut Findings| {
            let key = key.as_deref()?;
            topology::level_at(&at.field(field), key, findings)
        };
        if let Some(required) = level("required", &self.required, findings) {
            pinned.topology_required = required;
        }
        if let Some(preferred) = level("preferred", &self.preferred, findings) {
            pinned.topology_preferred = preferred;
        }
        if self.unconstrained == Some(true) {
            let text = "ignored: no domain is asked for, and that is so anyway";
            findings.note(&at.field("unconstrained"), text);
        }
        if let Some(name) = &self.pod_set_group_name {
            let at = at.field("podSetGroupName");
            pinned.podset_group = Some(super::pinned::Named { at, name: name.clone() });
        }
        let field = "podSetSliceRequiredTopology";
        let narrow = level(field, &self.pod_set_slice_required_topology, findings);
        let layers_at = at.field("podsetSliceRequiredTopologyConstraints");
        let slice = Slice {
            level: narrow.map(|level| (at.field(field), level)),
            size: self.pod_set_slice_size.map(|size| (at.field("podSetSliceSize"), size)),
            layers: segments(
                &layers_at,
                &self.podset_slice_required_topology_constraints,
                findings,
            ),
        };
        let segments = slice.segments(at, findings);
        if !segments.is_empty() {
            pinned.segments = segments;
        }
    }
}

/// Reads Kueue's `Workload`.
pub(super) fn workload(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let rest = [REST, pod::REST];
    let read: KueueWorkload = decode(at, &document.value, &rest, findings);
    let name = name_of(at, &read.metadata, findings);
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    let at_spec = at.field("spec");
    if read.spec.active == Some(false) {
        findings.fault(&at_spec.field("active"), "is false: a job is submitted when it is to run");
    }
    priority(&at_spec, read.spec.priority, None, findings);
    let mut members = Vec::new();
    for (index, set) in read.spec.pod_sets.iter().enumerate() {
        let at = at_spec.field("podSets").index(index);
        let template = at.field("template");
        let mut one = Members::read(
            &template,
            &set.template.metadata,
            &set.template.spec,
            On::Template,
            known,
            findings,
        );
        if let Some(request) = &set.topology_request {
            request.pin(&at.field("topologyRequest"), &mut one.pinned, findings);
            one.group.segments.clone_from(&one.pinned.segments);
            one.require(one.pinned.topology_required);
            one.prefer(one.pinned.topology_preferred);
        }
        one.group.name = set.name.clone().unwrap_or_else(|| "main".to_owned());
        one.group.replicas = set.count.unwrap_or_default();
        if one.group.replicas == 0 {
            findings.fault(&at.field("count"), "must be at least 1");
        }
        if let Some(least) = set.min_count {
            one.at_least(&at.field("minCount"), least, findings);
        }
        members.push(one);
    }
    if members.is_empty() {
        findings.fault(&at_spec.field("podSets"), "needs at least one pod set");
    }
    pinned.keep_together(&at.field("metadata"), &mut members);
    let seconds = read.spec.maximum_execution_time_seconds;
    let seconds = deadline(&at_spec, "maximumExecutionTimeSeconds", seconds, findings);
    let of_pods = members.iter().fold(None, |least, one| shorter(least, one.duration_s));
    Owner {
        at: at.clone(),
        kind: "Workload",
        name,
        duration_s: shorter(shorter(seconds, pinned.duration_s), of_pods),
        pinned,
        members,
        ..Owner::default()
    }
}

/// Pod sets of one group share a domain of the level that they ask for.
pub(super) fn pin_podset_groups(members: &mut [Members]) {
    let mut names: Vec<String> = members
        .iter()
        .filter_map(|one| Some(one.pinned.podset_group.as_ref()?.name.clone()))
        .collect();
    names.dedup();
    for name in names {
        let meant =
            |one: &Members| one.pinned.podset_group.as_ref().is_some_and(|of| of.name == name);
        with_some(members, meant, |meant| {
            let at = meant.first().and_then(|one| one.pinned.podset_group.clone());
            let Some(Named { at, .. }) = at else { return };
            let level = |read: fn(&Pinned) -> v1::TopologyLevel| {
                meant
                    .iter()
                    .map(|one| read(&one.pinned))
                    .find(|l| *l != v1::TopologyLevel::Unspecified)
            };
            let required = level(|pinned| pinned.topology_required);
            let preferred = level(|pinned| pinned.topology_preferred);
            together(&at, meant, required.unwrap_or_default(), false);
            together(&at, meant, preferred.unwrap_or_default(), true);
        });
    }
}

/// Kueue's plain pods: all of a group must be there.
pub(super) fn total_count(owners: &[Owner], members: &[Members], findings: &mut Findings) {
    let total = members.iter().fold(0_u32, |sum, one| sum.saturating_add(one.group.replicas));
    for owner in owners {
        if let Some((at, wanted)) = &owner.pinned.pods_total
            && *wanted != total
        {
            findings.fault(at, format!("is {wanted}, but {total} pods stand in this text"));
            return;
        }
    }
}
