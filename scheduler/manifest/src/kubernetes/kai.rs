//! KAI's annotations and labels, and its `PodGroup`.
//!
//! **Invariant:** minima stay with the group they were said of; a minimum over several groups at once is
//! kept only where it means all of them.

use super::members::{Members, NO_PRIORITIES, only_so_many, together, with_some};
use super::pinned::{Entry, NO_QUEUES, Pinned};
use super::pod::Object;
use super::preemption;
use crate::decode::{Rest, Verdict};
use crate::finding::{At, Findings, quote};
use crate::native::unit;
use crate::topology;
use proto::v1;
use serde::Deserialize;

pub(super) fn is_annotation(key: &str) -> bool {
    key.starts_with("kai.scheduler/")
        || key.starts_with("gpu-fraction")
        || matches!(key, "gpu-memory" | "pod-group-name")
}

pub(super) fn is_label(key: &str) -> bool {
    key.starts_with("kai.scheduler/") || matches!(key, "runai/queue" | "priorityClassName")
}

pub(super) fn annotation(pinned: &mut Pinned, entry: &Entry<'_>, findings: &mut Findings) {
    let at = &entry.at;
    match entry.key {
        "gpu-fraction" => pinned.gpu_milli = fraction(at, entry.value, findings),
        "gpu-fraction-num-devices" if entry.value.trim() == "1" => {
            entry.ignored("a share is of one GPU anyway", findings);
        }
        "gpu-fraction-num-devices" => {
            findings.fault(at, "is not supported: shares of several GPUs for one replica");
        }
        "gpu-fraction-container-name" => {
            entry.ignored("muster does not start containers", findings);
        }
        "gpu-memory" => findings.fault(
            at,
            "is not supported: which share of a GPU this is depends on its model; use gpu-fraction",
        ),
        "pod-group-name" => pinned.kai_group = entry.named(),
        "kai.scheduler/topology-required-placement" => {
            pinned.topology_required =
                topology::level_at(at, entry.value, findings).unwrap_or_default();
        }
        "kai.scheduler/topology-preferred-placement" => {
            pinned.topology_preferred =
                topology::level_at(at, entry.value, findings).unwrap_or_default();
        }
        "kai.scheduler/topology" => {
            entry.ignored("there is one topology here, and levels have fixed names", findings);
        }
        "kai.scheduler/preemption-delay" => entry.ignored(NO_DELAY, findings),
        "kai.scheduler/staleness-grace-period" => {
            entry.ignored("muster replaces lost members instead of ending the job", findings);
        }
        "kai.scheduler/skip-podgrouper" => entry.ignored("KAI's own bookkeeping", findings),
        _ => entry.unknown("KAI", findings),
    }
}

pub(super) fn label(pinned: &mut Pinned, entry: &Entry<'_>, findings: &mut Findings) {
    match entry.key {
        "kai.scheduler/queue" | "runai/queue" => {
            entry.ignored(NO_QUEUES, findings);
        }
        "kai.scheduler/subgroup-name" => pinned.kai_subgroup = entry.named(),
        "kai.scheduler/preemptibility" => {
            pinned.disruption = preemption::preemptibility(&entry.at, entry.value, findings);
        }
        "priorityClassName" => findings.fault(&entry.at, NO_PRIORITIES),
        _ => entry.unknown("KAI", findings),
    }
}

/// Thousandths of a GPU.
fn fraction(at: &At, text: &str, findings: &mut Findings) -> Option<(At, u32)> {
    let milli = unit::decimal(text.trim(), 3);
    match milli.map(u32::try_from) {
        Ok(Ok(milli @ 1..=999)) => Some((at.clone(), milli)),
        Ok(_) => {
            findings.fault(at, "must be from 0.001 to 0.999");
            None
        }
        Err(why) => {
            findings.fault(at, why);
            None
        }
    }
}

/// Why a delay is left aside.
const NO_DELAY: &str = "a job that may preempt others does so as soon as nothing else helps";

const QUEUE: Verdict = Verdict::Ignored(NO_QUEUES);

/// What becomes of fields that the structs below do not name.
pub(super) const REST: Rest = &[
    ("KaiSpec", &["queue"], QUEUE),
    (
        "KaiSpec",
        &["priorityClassName"],
        Verdict::Refused("say a number in the annotation muster/priority, or leave it out"),
    ),
    ("KaiSpec", &["preemptionDelay"], Verdict::Ignored(NO_DELAY)),
    (
        "KaiSpec",
        &["stalenessGracePeriod"],
        Verdict::Ignored("muster replaces lost members instead of ending the job"),
    ),
    (
        "KaiSpec",
        &["markUnschedulable", "schedulingBackoff"],
        Verdict::Ignored("muster says by itself why a job waits, and tries again by itself"),
    ),
    (
        "KaiTopology",
        &["topology"],
        Verdict::Ignored("there is one topology here, and levels have fixed names"),
    ),
];

/// KAI's `PodGroup`.
pub(super) type KaiPodGroup = Object<KaiSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct KaiSpec {
    pub(super) min_member: Option<u32>,
    pub(super) min_sub_group: Option<u32>,
    preemptibility: Option<String>,
    pub(super) topology_constraint: KaiTopology,
    pub(super) sub_groups: Vec<SubGroup>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SubGroup {
    pub(super) name: String,
    pub(super) min_member: Option<u32>,
    pub(super) min_sub_group: Option<u32>,
    pub(super) parent: Option<String>,
    pub(super) topology_constraint: KaiTopology,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct KaiTopology {
    #[serde(rename = "requiredTopologyLevel", alias = "required")]
    required: Option<String>,
    #[serde(rename = "preferredTopologyLevel", alias = "preferred")]
    preferred: Option<String>,
}

impl KaiTopology {
    /// The levels asked for: required, preferred.
    pub(super) fn levels(
        &self,
        at: &At,
        findings: &mut Findings,
    ) -> (v1::TopologyLevel, v1::TopologyLevel) {
        let mut level = |field: &str, key: &Option<String>| {
            let key = key.as_deref().filter(|key| !key.is_empty());
            key.and_then(|key| topology::level_at(&at.field(field), key, findings))
                .unwrap_or_default()
        };
        (
            level("requiredTopologyLevel", &self.required),
            level("preferredTopologyLevel", &self.preferred),
        )
    }
}

/// Holds members to one of KAI's pod groups.
pub(super) fn pin(at: &At, group: &KaiPodGroup, members: &mut [Members], findings: &mut Findings) {
    let name = group.metadata.name.as_deref().unwrap_or_default();
    let at_spec = at.field("spec");
    let of_group = |one: &Members| one.pinned.kai_group.as_ref().is_some_and(|of| of.name == name);
    let mut levels = (v1::TopologyLevel::Unspecified, v1::TopologyLevel::Unspecified);
    let constraint = at_spec.field("topologyConstraint");
    let any = with_some(members, of_group, |meant| {
        levels = group.spec.topology_constraint.levels(&constraint, findings);
        together(&constraint, meant, levels.0, false);
        together(&constraint, meant, levels.1, true);
        let at_said = at_spec.field("preemptibility");
        let said = group.spec.preemptibility.as_deref().filter(|said| !said.is_empty());
        let said = said.and_then(|said| preemption::preemptibility(&at_said, said, findings));
        for one in meant.iter_mut() {
            one.pinned.disruption = said.or(one.pinned.disruption);
        }
        if let Some(least) = group.spec.min_member {
            kai_minimum(&at_spec.field("minMember"), least, meant, findings);
        }
    });
    if !any {
        let problem = format!(
            "no pod in this text names the group {} by its annotation pod-group-name",
            quote(name)
        );
        return findings.fault(&at.down(&["metadata", "name"]), problem);
    }
    let is_sub = |name: &str| group.spec.sub_groups.iter().any(|sub| sub.name == name);
    for one in members.iter().filter(|one| of_group(one)) {
        let Some(of) = one.pinned.kai_subgroup.as_ref().filter(|of| !is_sub(&of.name)) else {
            continue;
        };
        let problem = format!("the PodGroup {} has no subgroup {}", quote(name), quote(&of.name));
        findings.fault(&of.at, problem);
    }
    let top = group.spec.sub_groups.iter().filter(|sub| sub.parent.is_none()).count();
    needs_all(&at_spec, group.spec.min_sub_group, top, findings);
    for (index, sub) in group.spec.sub_groups.iter().enumerate() {
        let at = at_spec.field("subGroups").index(index);
        if let Some(parent) = sub.parent.as_deref().filter(|parent| !is_sub(parent)) {
            findings.fault(&at.field("parent"), format!("no subgroup is called {}", quote(parent)));
        }
        let below = group.spec.sub_groups.iter();
        let children = below.filter(|one| one.parent.as_deref() == Some(sub.name.as_str())).count();
        needs_all(&at, sub.min_sub_group, children, findings);
        let within = below_names(group, &sub.name);
        let meant = |one: &Members| {
            of_group(one)
                && one.pinned.kai_subgroup.as_ref().is_some_and(|of| within.contains(&of.name))
        };
        let any = with_some(members, meant, |meant| {
            let constraint = at.field("topologyConstraint");
            let (required, preferred) = sub.topology_constraint.levels(&constraint, findings);
            together(&constraint, meant, required, false);
            together(&constraint, meant, preferred, true);
            if let Some(least) = sub.min_member {
                kai_minimum(&at.field("minMember"), least, meant, findings);
            }
        });
        if !any {
            let name = quote(&sub.name);
            findings
                .fault(&at.field("name"), format!("no pod in this text is of the subgroup {name}"));
        }
    }
}

/// A subgroup and all those below it.
fn below_names(group: &KaiPodGroup, name: &str) -> Vec<String> {
    let mut names = vec![name.to_owned()];
    let mut next = 0;
    while let Some(parent) = names.get(next).cloned() {
        for sub in &group.spec.sub_groups {
            if sub.parent.as_deref() == Some(parent.as_str()) && !names.contains(&sub.name) {
                names.push(sub.name.clone());
            }
        }
        next += 1;
    }
    names
}

fn needs_all(at: &At, least: Option<u32>, children: usize, findings: &mut Findings) {
    if let Some(least) = least
        && usize::try_from(least).is_ok_and(|least| least != children)
    {
        let problem = format!(
            "is {least} of {children}, which is not supported: every group of a job is needed"
        );
        findings.fault(&at.field("minSubGroup"), problem);
    }
}

/// A minimum over some members at once.
fn kai_minimum(at: &At, least: u32, members: &mut [Members], findings: &mut Findings) {
    let total = members.iter().fold(0_u32, |sum, one| sum.saturating_add(one.group.replicas));
    match members {
        [only] => only.at_least(at, least, findings),
        _ if least == total => {}
        // Subgroups say by themselves how many of each are needed; their sum adds nothing.
        _ if members.iter().all(|one| one.pinned.kai_subgroup.is_some()) => {
            findings.note(at, "ignored: the subgroups' own minima count");
        }
        _ if least > total => findings.fault(at, only_so_many(least, total)),
        _ => findings.fault(
            at,
            format!(
                "is {least} over groups of different pods with {total} pods in all: which of them \
                 may be missing? Use subGroups with a minMember each"
            ),
        ),
    }
}
