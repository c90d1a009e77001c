//! Pods of one template on their way to a group.
//!
//! **Invariant:** a template becomes a group by this module alone, whichever object it stands in.

use super::claim::Known;
use super::pinned::{Named, On, Pinned};
use super::placement;
use super::pod::{LabelSelector, Metadata, PodAffinity, PodSpec, PodTerm, WorkloadRef};
use super::preemption;
use super::resources;
use crate::finding::{At, Findings, quote};
use crate::shape::{self, Devices};
use crate::topology;
use proto::v1;
use proto::v1::shape::Gpus;
use std::collections::BTreeMap;

/// A wish of pods to be near to, or apart from, pods with some labels.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Term {
    pub(crate) at: At,
    pub(crate) anti: bool,
    pub(crate) preferred: bool,
    pub(crate) level: v1::TopologyLevel,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Pods of one template.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Members {
    /// Place of the template.
    pub(crate) at: At,
    /// What they become.
    pub(crate) group: v1::Group,
    /// Labels of each pod, the schedulers' own and its controller's among them.
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) terms: Vec<Term>,
    pub(crate) pinned: Pinned,
    /// Kubernetes' PodGroup that they are of.
    pub(crate) pod_group: Option<Named>,
    /// Kubernetes' Workload that they are of, where they name it themselves.
    pub(crate) workload: Option<WorkloadRef>,
    /// Time they may run.
    pub(crate) duration_s: Option<u64>,
    /// Domains that they share with other members of the same bond.
    pub(crate) bonds: Vec<Bond>,
    /// Place of their owner in the text.
    pub(crate) owner: usize,
    /// A pod that nothing owns: others like it may be of the same group.
    pub(crate) is_lone: bool,
}

/// All members with an equal bond share one domain of its level.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Bond {
    /// Place that asks for it; tells one bond from another.
    pub(crate) at: At,
    pub(crate) level: v1::TopologyLevel,
    pub(crate) preferred: bool,
}

/// All of the members together inside one domain of the level.
pub(crate) fn together(
    at: &At,
    members: &mut [Members],
    level: v1::TopologyLevel,
    preferred: bool,
) {
    let several = members.len() > 1;
    for one in members {
        if preferred {
            one.prefer(level);
        } else {
            one.require(level);
        }
        if several && level != v1::TopologyLevel::Unspecified {
            one.bonds.push(Bond { at: at.clone(), level, preferred });
        }
    }
}

/// Why priorities are refused.
pub(super) const NO_PRIORITIES: &str = "is not supported: what it is worth among this fleet's jobs is not known here; say a number from -1000 to 1000 \
     in the annotation muster/priority, or leave it out";

impl Members {
    /// The members that a template stands for.
    pub(crate) fn read(
        at: &At,
        metadata: &Metadata,
        spec: &PodSpec,
        on: On,
        known: &Known,
        findings: &mut Findings,
    ) -> Self {
        let mut pinned = Pinned::read(&at.field("metadata"), metadata, on, findings);
        let mut labels = metadata.labels.clone();
        labels.extend(metadata.made.clone());
        let at_spec = at.field("spec");
        let policy = preemption::policy(&at_spec, spec.preemption_policy.as_deref(), findings);
        pinned.policy = policy.or(pinned.policy);
        let group = group(&at_spec, spec, &pinned, &labels, known, findings);
        let mut members = Self {
            at: at.clone(),
            group,
            labels,
            terms: terms(&at_spec, spec, findings),
            pod_group: pod_group(&at_spec, spec),
            workload: spec.workload_ref.clone(),
            duration_s: shorter(
                deadline(&at_spec, "activeDeadlineSeconds", spec.active_deadline_seconds, findings),
                pinned.duration_s,
            ),
            pinned,
            ..Self::default()
        };
        refuse_what_is_not_kept(&at_spec, spec, findings);
        members.keep_topology();
        members
    }

    /// Members of which only their shape is known, and what is pinned to them.
    pub(super) fn bare(at: &At, shape: v1::Shape, pinned: Pinned) -> Self {
        let group = v1::Group {
            shape: Some(shape),
            segments: pinned.segments.clone(),
            ..v1::Group::default()
        };
        let mut members = Self {
            at: at.clone(),
            group,
            labels: pinned.labels.clone(),
            duration_s: pinned.duration_s,
            pinned,
            ..Self::default()
        };
        members.keep_topology();
        members
    }

    /// Holds the group to the levels pinned to it. One node is no level but a strategy.
    fn keep_topology(&mut self) {
        let (required, preferred) = (self.pinned.topology_required, self.pinned.topology_preferred);
        self.require(required);
        self.prefer(preferred);
    }

    /// All of them inside one domain of the level.
    pub(crate) fn require(&mut self, level: v1::TopologyLevel) {
        match level {
            v1::TopologyLevel::Unspecified => {}
            v1::TopologyLevel::Node => self.group.strategy = v1::Strategy::StrictPack.into(),
            level => {
                let narrower = topology::narrower(self.group.topology_required(), level);
                self.group.topology_required = narrower.into();
            }
        }
    }

    /// All of them inside one domain of the level, if possible.
    pub(crate) fn prefer(&mut self, level: v1::TopologyLevel) {
        match level {
            // As few nodes as possible is what every group does unless it must do more: one node.
            v1::TopologyLevel::Unspecified | v1::TopologyLevel::Node => {}
            level => {
                let narrower = topology::narrower(self.group.topology_preferred(), level);
                self.group.topology_preferred = narrower.into();
            }
        }
    }

    /// At least so many of them, or none of the job.
    pub(crate) fn at_least(&mut self, at: &At, least: u32, findings: &mut Findings) {
        let replicas = self.group.replicas;
        if least == 0 {
            findings.fault(at, "must be at least 1");
        } else if replicas == 0 {
            // How many there are has been told to be at fault: what follows from it is none.
        } else if least > replicas {
            findings.fault(at, only_so_many(least, replicas));
        } else if least < replicas {
            self.group.replicas_min = least;
        }
    }

    /// Whether both become the same kind of replica, and so one group.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let plain = |members: &Self| {
            let mut group = members.group.clone();
            (group.name, group.replicas) = (String::new(), 0);
            let terms: Vec<_> = members
                .terms
                .iter()
                .map(|t| (t.anti, t.preferred, t.level, t.labels.clone()))
                .collect();
            let name = |named: &Option<Named>| named.as_ref().map(|named| named.name.clone());
            let task_group = name(&members.pinned.task_group);
            let kai_group = name(&members.pinned.kai_group);
            (group, terms, members.labels.clone(), task_group, kai_group, members.workload.clone())
        };
        plain(self) == plain(other)
    }
}

/// A time that a job may run; none at all would be no job.
pub(crate) fn deadline(
    at: &At,
    field: &str,
    seconds: Option<u64>,
    findings: &mut Findings,
) -> Option<u64> {
    if seconds == Some(0) {
        findings.fault(&at.field(field), "must be at least 1");
    }
    seconds
}

/// The shorter of two times.
pub(crate) fn shorter(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn group(
    at: &At,
    spec: &PodSpec,
    pinned: &Pinned,
    labels: &BTreeMap<String, String>,
    known: &Known,
    findings: &mut Findings,
) -> v1::Group {
    let conditions = placement::conditions(at, spec, findings);
    let amounts = resources::of_pod(at, spec, findings);
    let claimed = known.of_pod(&at.field("resourceClaims"), &spec.resource_claims, findings);
    let share = pinned
        .gpu_milli
        .as_ref()
        .map(|(_, milli)| Devices { gpus: Some(Gpus::GpuMilli(*milli)), alternatives: Vec::new() });
    if let (Some(_), Some((at, _))) = (&claimed, &pinned.gpu_milli) {
        findings.fault(at, "asks for GPUs beside resourceClaims: choose one");
    }
    let devices = claimed.or(share);
    let shape = shape::shape(at, &amounts, &conditions, devices.as_ref(), findings);
    let spread_at = at.field("topologySpreadConstraints");
    let mut group = v1::Group {
        shape: Some(shape),
        selectors: conditions.selectors,
        tolerations: placement::tolerations(&at.field("tolerations"), &spec.tolerations, findings),
        spread: placement::spread(&spread_at, &spec.topology_spread_constraints, labels, findings),
        segments: pinned.segments.clone(),
        ..v1::Group::default()
    };
    if let Some(port) = host_port(at, spec) {
        findings.note(&port, "read as: no two of these pods on one node");
        group.replicas_per_node_max = 1;
    }
    group
}

/// A port that two pods on one node would fight over.
fn host_port(at: &At, spec: &PodSpec) -> Option<At> {
    let host_network = spec.host_network == Some(true);
    for (index, container) in spec.containers.iter().enumerate() {
        let at = at.field("containers").index(index).field("ports");
        for (index, port) in container.ports.iter().enumerate() {
            if host_network || port.host_port.is_some_and(|port| port > 0) {
                return Some(at.index(index));
            }
        }
    }
    None
}

fn pod_group(at: &At, spec: &PodSpec) -> Option<Named> {
    let name = spec.scheduling_group.as_ref()?.pod_group_name.clone()?;
    Some(Named { at: at.down(&["schedulingGroup", "podGroupName"]), name })
}

fn refuse_what_is_not_kept(at: &At, spec: &PodSpec, findings: &mut Findings) {
    if spec.containers.is_empty() {
        findings.fault(&at.field("containers"), "needs at least one container");
    }
    priority(at, spec.priority, spec.priority_class_name.as_deref(), findings);
    for (index, gate) in spec.scheduling_gates.iter().enumerate() {
        let at = at.field("schedulingGates").index(index);
        if gate.name.starts_with("kueue.x-k8s.io/") {
            findings.note(&at, "ignored: Kueue's own bookkeeping");
        } else {
            let name = quote(&gate.name);
            findings
                .fault(&at, format!("is not supported: nothing here would open the gate {name}"));
        }
    }
    if let Some(name) =
        spec.os.as_ref().and_then(|os| os.name.as_deref()).filter(|os| *os != "linux")
    {
        findings.fault(
            &at.down(&["os", "name"]),
            format!("{} is not supported: linux is", quote(name)),
        );
    }
}

/// A priority other than none.
pub(super) fn priority(
    at: &At,
    priority: Option<i32>,
    class: Option<&str>,
    findings: &mut Findings,
) {
    if priority.is_some_and(|priority| priority != 0) {
        findings.fault(&at.field("priority"), NO_PRIORITIES);
    }
    if class.is_some_and(|class| !class.is_empty()) {
        findings.fault(&at.field("priorityClassName"), NO_PRIORITIES);
    }
}

/// Wishes of pods about other pods.
pub(super) fn terms(at: &At, spec: &PodSpec, findings: &mut Findings) -> Vec<Term> {
    let mut terms = Vec::new();
    let Some(affinity) = &spec.affinity else { return terms };
    let at = at.field("affinity");
    let both = [
        (at.field("podAffinity"), &affinity.pod_affinity, false),
        (at.field("podAntiAffinity"), &affinity.pod_anti_affinity, true),
    ];
    for (at, of, anti) in both {
        if let Some(of) = of {
            add_terms(&at, of, anti, &mut terms, findings);
        }
    }
    terms
}

fn add_terms(
    at: &At,
    of: &PodAffinity,
    anti: bool,
    terms: &mut Vec<Term>,
    findings: &mut Findings,
) {
    let required = at.field("requiredDuringSchedulingIgnoredDuringExecution");
    for (index, one) in of.required.iter().enumerate() {
        terms.extend(term(&required.index(index), one, anti, false, findings));
    }
    let preferred = at.field("preferredDuringSchedulingIgnoredDuringExecution");
    for (index, one) in of.preferred.iter().enumerate() {
        let at = preferred.index(index);
        if one.weight.is_some() {
            findings.note(&at.field("weight"), "ignored: wishes here weigh the same");
        }
        let at = at.field("podAffinityTerm");
        terms.extend(term(&at, &one.pod_affinity_term, anti, true, findings));
    }
}

fn term(
    at: &At,
    one: &PodTerm,
    anti: bool,
    preferred: bool,
    findings: &mut Findings,
) -> Option<Term> {
    let level = topology::level_at(&at.field("topologyKey"), &one.topology_key, findings);
    let at_labels = at.field("labelSelector");
    let selector = one.label_selector.as_ref();
    let labels = selector.map(|one| labels(&at_labels, one, findings)).unwrap_or_default();
    if labels.is_empty() && selector.is_none_or(|one| one.match_expressions.is_empty()) {
        findings.fault(&at_labels, "needs matchLabels: whom it is about");
    }
    Some(Term { at: at.clone(), anti, preferred, level: level?, labels })
}

/// Labels that pods must have to be meant: all that jobs here can be found by.
pub(super) fn labels(
    at: &At,
    selector: &LabelSelector,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut labels = selector.match_labels.clone();
    for (index, one) in selector.match_expressions.iter().enumerate() {
        let at = at.field("matchExpressions").index(index);
        match (one.operator.as_str(), one.values.as_slice()) {
            ("In", [value]) => {
                let other = labels.insert(one.key.clone(), value.clone());
                if other.is_some_and(|other| other != *value) {
                    findings.fault(&at, "contradicts another condition on the same label");
                }
            }
            _ => findings
                .fault(&at, "is not supported: jobs are found by equal labels only: In, one value"),
        }
    }
    labels
}

/// A minimum over members of several templates at once: kept only where it says which of them may be missing.
/// `is_said`: groups have minima of their own; `how`: how to give them some.
pub(super) fn least_of_all(
    at: &At,
    least: u32,
    is_said: bool,
    members: &mut [Members],
    how: &str,
    findings: &mut Findings,
) {
    let sum = |count: fn(&v1::Group) -> u32| {
        members.iter().fold(0_u32, |sum, one| sum.saturating_add(count(&one.group)))
    };
    let total = sum(|group| group.replicas);
    let needed =
        sum(|group| if group.replicas_min == 0 { group.replicas } else { group.replicas_min });
    match members {
        [only] if !is_said => only.at_least(at, least, findings),
        _ if least > total => findings.fault(at, only_so_many(least, total)),
        // Every group needs all of its pods anyway, or says how many.
        _ if least == total && !is_said => {}
        _ if is_said && least <= needed => {}
        _ => findings.fault(
            at,
            format!(
                "is {least} over groups of different pods with {total} pods in all: which of them may \
                 be missing? {how}"
            ),
        ),
    }
}

/// A minimum that nothing could meet.
pub(super) fn only_so_many(least: u32, pods: u32) -> String {
    format!("is {least}, but there are only {pods} pods")
}

/// Does something with some of the members, which keep their places; says whether there were any.
pub(super) fn with_some(
    members: &mut [Members],
    is_meant: impl Fn(&Members) -> bool,
    with: impl FnOnce(&mut [Members]),
) -> bool {
    let places: Vec<usize> = (0..members.len()).filter(|at| is_meant(&members[*at])).collect();
    let mut meant: Vec<Members> =
        places.iter().map(|at| std::mem::take(&mut members[*at])).collect();
    if !meant.is_empty() {
        with(&mut meant);
    }
    for (place, one) in places.iter().zip(meant) {
        members[*place] = one;
    }
    !places.is_empty()
}

/// Pods that are alike become one group.
pub(super) fn merge_alike(members: &mut Vec<Members>) {
    let mut merged: Vec<Members> = Vec::new();
    for one in members.drain(..) {
        let same = |other: &&mut Members| {
            other.is_like(&one)
                && other.pod_group.as_ref().map(|of| &of.name)
                    == one.pod_group.as_ref().map(|of| &of.name)
        };
        // Only lone pods: two Jobs that look alike are still two.
        match merged.iter_mut().filter(|other| other.is_lone && one.is_lone).find(same) {
            Some(other) => other.group.replicas = other.group.replicas.saturating_add(1),
            None => merged.push(one),
        }
    }
    *members = merged;
}
