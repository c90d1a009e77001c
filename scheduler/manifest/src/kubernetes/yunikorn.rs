//! YuniKorn's gang annotations: `task-groups` and `task-group-name`.
//!
//! **Invariant:** every task group becomes a group with its own minimum.

use super::pinned::{Entry, Pinned};
use super::pod::{self, Affinity, SpreadConstraint, Toleration};
use crate::decode::{Rest, Scalar, Verdict, decode};
use crate::finding::Findings;
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
        "queue" => entry.ignored("the tenant that submits stands in place of a queue", findings),
        "user.info" => entry.ignored("who submits follows from the token", findings),
        "allow-preemption" => entry.ignored("muster preempts nobody", findings),
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
