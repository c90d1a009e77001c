//! YuniKorn's gang annotations: `task-groups` and `task-group-name`.
//!
//! **Invariant:** every task group becomes a group with its own minimum.

use super::members::{Members, terms, with_some};
use super::pinned::{Entry, NO_QUEUES, Pinned};
use super::pod::{self, Affinity, SpreadConstraint, Toleration};
use super::{placement, preemption, resources};
use crate::decode::{Rest, Scalar, Verdict, decode};
use crate::finding::{At, Findings, quote};
use crate::label::Conditions;
use crate::quantity::Quantity;
use crate::shape;
use proto::v1;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// What becomes of fields that the struct below does not name; pods' own are looked up there.
const REST: Rest = &[(
    "TaskGroup",
    &["labels", "annotations"],
    Verdict::Ignored("for placeholder pods, of which muster needs none"),
)];

/// One group of an application.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TaskGroup {
    pub(crate) name: String,
    pub(crate) min_member: u32,
    pub(crate) min_resource: BTreeMap<String, Scalar>,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) topology_spread_constraints: Vec<SpreadConstraint>,
}

impl PartialEq for TaskGroup {
    /// Two of one application are the same when they have the same name.
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// An annotation (or label) below `yunikorn.apache.org/`.
pub(super) fn annotation(
    pinned: &mut Pinned,
    word: &str,
    entry: &Entry<'_>,
    findings: &mut Findings,
) {
    let at = &entry.at;
    match word {
        "task-groups" => match serde_json::from_str::<Value>(entry.value) {
            Ok(value) => {
                let groups: Vec<TaskGroup> = decode(at, &value, &[REST, pod::REST], findings);
                pinned.task_groups = Some((at.clone(), groups));
            }
            Err(error) => {
                let error = crate::text::printable_line(&error.to_string());
                findings.fault(at, format!("is no JSON: {error}"));
            }
        },
        "task-group-name" => pinned.task_group = entry.named(),
        "app-id" => pinned.application = entry.named(),
        "schedulingPolicyParameters" => parameters(entry, findings),
        "queue" => entry.ignored(NO_QUEUES, findings),
        "user.info" => entry.ignored("who submits follows from the token", findings),
        "allow-preemption" => {
            pinned.disruption = preemption::allowed(at, entry.value, findings);
        }
        _ => entry.unknown("YuniKorn", findings),
    }
}

/// Parameters such as `placeholderTimeoutInSeconds=30 gangSchedulingStyle=Hard`.
fn parameters(entry: &Entry<'_>, findings: &mut Findings) {
    for part in entry.value.split_whitespace() {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match (key, value) {
            ("placeholderTimeoutInSeconds", _) => {
                entry.ignored("muster needs no placeholders: a gang is placed in one piece", findings);
            }
            ("gangSchedulingStyle", "Hard") => {}
            ("gangSchedulingStyle", "Soft") => {
                entry.ignored("a gang here never starts in pieces (Hard)", findings);
            }
            _ => findings.fault(
                &entry.at,
                "has a parameter other than placeholderTimeoutInSeconds and gangSchedulingStyle=Hard|Soft",
            ),
        }
    }
}

/// YuniKorn: every task group is a group; those that have pods in the text take their number from there.
pub(super) fn task_groups(members: &mut Vec<Members>, findings: &mut Findings) {
    let said = members.iter().find_map(|one| one.pinned.task_groups.clone());
    let Some((at, groups)) = said else {
        for one in members.iter() {
            if let Some(named) = &one.pinned.task_group {
                findings.fault(&named.at, "needs yunikorn.apache.org/task-groups beside it");
            }
        }
        return;
    };
    for (other, theirs) in members.iter().filter_map(|one| one.pinned.task_groups.as_ref()) {
        if format!("{theirs:?}") != format!("{groups:?}") {
            findings.fault(other, "differs from the task groups of other pods in this text");
        }
    }
    for one in members.iter() {
        let Some(named) = &one.pinned.task_group else { continue };
        if !groups.iter().any(|group| group.name == named.name) {
            let problem = format!("no task group is called {}", quote(&named.name));
            findings.fault(&named.at, problem);
        }
    }
    for (index, group) in groups.iter().enumerate() {
        let at = at.index(index);
        let meant =
            |one: &Members| one.pinned.task_group.as_ref().is_some_and(|of| of.name == group.name);
        if group.name.is_empty() {
            findings.fault(&at.field("name"), "missing");
        }
        let has_pods =
            with_some(members, meant, |meant| task_group_with_pods(&at, group, meant, findings));
        if !has_pods {
            members.push(task_group_alone(&at, group, findings));
        }
    }
}

/// Pods of a task group that stand in the text: its minimum is theirs, the rest must agree.
fn task_group_with_pods(
    at: &At,
    group: &TaskGroup,
    members: &mut [Members],
    findings: &mut Findings,
) {
    let least = at.field("minMember");
    match members {
        [only] => {
            only.group.name.clone_from(&group.name);
            only.at_least(&least, group.min_member, findings);
            let said = task_group_alone(at, group, findings);
            let wanted = said.group.shape.clone().unwrap_or_default();
            let has = only.group.shape.clone().unwrap_or_default();
            let differs = "differs from what the pods of the group ask for";
            if !group.min_resource.is_empty() && !agrees(&wanted, &has) {
                findings.fault(&at.field("minResource"), differs);
            }
            for field in unlike(&said, only) {
                findings.fault(&at.field(field), differs);
            }
        }
        _ => findings.fault(&least, "is not supported over pods of different templates"),
    }
}

/// Whether a task group's resources are those of its pods.
fn agrees(wanted: &v1::Shape, has: &v1::Shape) -> bool {
    (wanted.gpus, wanted.cpu_milli, wanted.memory_mib, &wanted.custom)
        == (has.gpus, has.cpu_milli, has.memory_mib, &has.custom)
}

/// Fields of a task group that ask for more, or for something else, than its pods do.
fn unlike(said: &Members, pods: &Members) -> Vec<&'static str> {
    let (group, own) = (&said.group, &pods.group);
    let terms = |members: &Members| -> Vec<_> {
        let terms = members.terms.iter();
        terms.map(|one| (one.anti, one.preferred, one.level, one.labels.clone())).collect()
    };
    let (wanted, has) = (terms(said), terms(pods));
    // Labels of GPUs are no selectors here, but a part of the shape.
    let gpus = |members: &v1::Group| members.shape.as_ref().map(gpus_of).unwrap_or_default();
    let (wanted_gpus, has_gpus) = (gpus(group), gpus(own));
    let fields = [
        (
            "nodeSelector",
            group.selectors.iter().all(|one| own.selectors.contains(one))
                && (wanted_gpus.is_empty() || wanted_gpus == has_gpus),
        ),
        ("tolerations", group.tolerations.iter().all(|one| own.tolerations.contains(one))),
        ("affinity", wanted.iter().all(|one| has.contains(one))),
        ("topologySpreadConstraints", group.spread.iter().all(|one| own.spread.contains(one))),
    ];
    fields.into_iter().filter(|(_, agrees)| !agrees).map(|(field, _)| field).collect()
}

/// What a shape's GPUs must be, beside whose they are.
fn gpus_of(shape: &v1::Shape) -> Vec<(Vec<String>, u32, u32)> {
    let short = (shape.gpu_models.clone(), shape.vram_mib_min, 0);
    let others = shape.gpu_alternatives.iter();
    let others =
        others.map(|one| (one.models.clone(), one.vram_mib_min, one.compute_capability_min));
    others.chain([short]).filter(|one| *one != <(Vec<String>, u32, u32)>::default()).collect()
}

/// A task group whose pods come later: it is known by what it says itself.
fn task_group_alone(at: &At, group: &TaskGroup, findings: &mut Findings) -> Members {
    let spec = pod::PodSpec {
        node_selector: group.node_selector.clone(),
        tolerations: group.tolerations.clone(),
        affinity: group.affinity.clone(),
        topology_spread_constraints: group.topology_spread_constraints.clone(),
        ..pod::PodSpec::default()
    };
    let mut conditions = Conditions::default();
    placement::add_conditions(at, &spec, &mut conditions, findings);
    let at_amounts = at.field("minResource");
    let amounts = resources::amounts(&at_amounts, &group.min_resource, findings)
        .into_iter()
        // YuniKorn calls CPU by its own name as well.
        .map(|(name, amount)| (if name == "vcore" { "cpu".to_owned() } else { name }, amount))
        .collect::<BTreeMap<String, (Quantity, At)>>();
    let shape = shape::shape(&at_amounts, &amounts, &conditions, None, findings);
    if group.min_member == 0 {
        findings.fault(&at.field("minMember"), "must be at least 1");
    }
    let tolerations = placement::tolerations(&at.field("tolerations"), &spec.tolerations, findings);
    let labels = BTreeMap::new();
    let spread_at = at.field("topologySpreadConstraints");
    let spread =
        placement::spread(&spread_at, &spec.topology_spread_constraints, &labels, findings);
    Members {
        at: at.clone(),
        group: v1::Group {
            name: group.name.clone(),
            replicas: group.min_member,
            shape: Some(shape),
            selectors: conditions.selectors,
            tolerations,
            spread,
            ..v1::Group::default()
        },
        terms: terms(at, &spec, findings),
        ..Members::default()
    }
}
