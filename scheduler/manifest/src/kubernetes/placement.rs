//! Where a pod may go: node selectors, node affinity, tolerations, spread constraints.
//!
//! **Invariant:** a hard condition is kept exactly or refused; a wish that is not kept is told.

use super::pod::{NodeAffinity, NodeExpression, NodeTerm, PodSpec, SpreadConstraint, Toleration};
use crate::decode::word;
use crate::finding::{At, Findings, quote};
use crate::label::{Conditions, Operator};
use crate::topology;
use proto::v1;
use std::collections::BTreeMap;

/// What the pod's selectors and its node affinity ask of nodes.
pub(super) fn conditions(at: &At, spec: &PodSpec, findings: &mut Findings) -> Conditions {
    let mut conditions = Conditions::default();
    add_conditions(at, spec, &mut conditions, findings);
    conditions
}

/// Adds what they ask to conditions that are there already.
pub(super) fn add_conditions(
    at: &At,
    spec: &PodSpec,
    conditions: &mut Conditions,
    findings: &mut Findings,
) {
    node_selector(&at.field("nodeSelector"), &spec.node_selector, conditions, findings);
    if let Some(name) = &spec.node_name {
        let at = at.field("nodeName");
        let values = vec![name.clone()];
        conditions.add(&at, "muster/node", Operator::In, values, findings);
    }
    if let Some(affinity) = spec.affinity.as_ref().and_then(|all| all.node_affinity.as_ref()) {
        let at = at.down(&["affinity", "nodeAffinity"]);
        node_affinity(&at, affinity, conditions, findings);
    }
}

/// Labels that must have these values.
fn node_selector(
    at: &At,
    labels: &BTreeMap<String, String>,
    conditions: &mut Conditions,
    findings: &mut Findings,
) {
    for (key, value) in labels {
        conditions.add(&at.field(key), key, Operator::In, vec![value.clone()], findings);
    }
}

fn node_affinity(
    at: &At,
    affinity: &NodeAffinity,
    conditions: &mut Conditions,
    findings: &mut Findings,
) {
    let Some(required) = &affinity.required else { return };
    let at = at.down(&["requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"]);
    match required.node_selector_terms.as_slice() {
        [] => findings.fault(&at, "needs at least one term: none matches no node"),
        [term] => node_term(&at.index(0), term, conditions, findings),
        terms => match one_of(terms) {
            Some((key, values)) => {
                findings.note(&at, format!("read as one term: {} in any of the values", quote(&key)));
                conditions.add(&at, &key, Operator::In, values, findings);
            }
            None => findings.fault(
                &at,
                "is not supported: either-or between terms, unless each is one `In` on the same key",
            ),
        },
    }
}

/// Terms of which any one must hold, as one condition, where they all name the same key.
fn one_of(terms: &[NodeTerm]) -> Option<(String, Vec<String>)> {
    let mut values = Vec::new();
    let mut key = None;
    for term in terms {
        let ([only], []) = (term.match_expressions.as_slice(), term.match_fields.as_slice()) else {
            return None;
        };
        if only.operator != "In" || key.is_some_and(|key| key != &only.key) {
            return None;
        }
        key = Some(&only.key);
        values.extend(only.values.iter().cloned());
    }
    key.map(|key| (key.clone(), values))
}

fn node_term(at: &At, term: &NodeTerm, conditions: &mut Conditions, findings: &mut Findings) {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        findings.fault(at, "is empty: such a term matches no node; leave it out");
    }
    let mut each = |at: &At, expression: &NodeExpression, key: &str, findings: &mut Findings| {
        let operator = at.field("operator");
        if let Some(operator) = word(&operator, &expression.operator, &Operator::WORDS, findings) {
            conditions.add(at, key, operator, expression.values.clone(), findings);
        }
    };
    for (index, expression) in term.match_expressions.iter().enumerate() {
        let at = at.field("matchExpressions").index(index);
        each(&at, expression, &expression.key, findings);
    }
    for (index, expression) in term.match_fields.iter().enumerate() {
        let at = at.field("matchFields").index(index);
        if expression.key == "metadata.name" {
            each(&at, expression, "muster/node", findings);
        } else {
            findings.fault(&at.field("key"), "must be metadata.name");
        }
    }
}

/// Taints that the pod puts up with.
pub(super) fn tolerations(
    at: &At,
    tolerations: &[Toleration],
    findings: &mut Findings,
) -> Vec<v1::Toleration> {
    let all = tolerations.iter().enumerate();
    all.filter_map(|(index, one)| toleration(&at.index(index), one, findings)).collect()
}

fn toleration(at: &At, one: &Toleration, findings: &mut Findings) -> Option<v1::Toleration> {
    const EFFECTS: [(&str, Option<v1::TaintEffect>); 3] = [
        ("NoSchedule", Some(v1::TaintEffect::NoSchedule)),
        ("PreferNoSchedule", Some(v1::TaintEffect::PreferNoSchedule)),
        ("NoExecute", None),
    ];
    let key = one.key.clone().unwrap_or_default();
    let value = match one.operator.as_deref().unwrap_or("Equal") {
        "Exists" if one.value.as_deref().is_some_and(|value| !value.is_empty()) => {
            findings.fault(&at.field("value"), "must be left out with the operator Exists");
            None
        }
        "Exists" => None,
        "Equal" if key.is_empty() => {
            findings.fault(&at.field("operator"), "must be Exists where the key is empty");
            None
        }
        "Equal" => Some(one.value.clone().unwrap_or_default()),
        other => {
            let problem = format!("{} is not supported: Equal and Exists are", quote(other));
            findings.fault(&at.field("operator"), problem);
            None
        }
    };
    let effect = match one.effect.as_deref().unwrap_or_default() {
        "" => v1::TaintEffect::Unspecified,
        text => match word(&at.field("effect"), text, &EFFECTS, findings)? {
            Some(effect) => effect,
            None => {
                let text = "ignored: nodes here have no taints that drive running members away";
                findings.note(at, text);
                return None;
            }
        },
    };
    Some(v1::Toleration { key, value, effect: effect.into() })
}

/// Evenness over domains, for the group that these pods become.
pub(super) fn spread(
    at: &At,
    constraints: &[SpreadConstraint],
    labels: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Vec<v1::Spread> {
    let all = constraints.iter().enumerate();
    all.filter_map(|(index, one)| spread_over(&at.index(index), one, labels, findings)).collect()
}

fn spread_over(
    at: &At,
    one: &SpreadConstraint,
    labels: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Option<v1::Spread> {
    const WORDS: [(&str, bool); 2] = [("DoNotSchedule", false), ("ScheduleAnyway", true)];
    let level = topology::level_at(&at.field("topologyKey"), &one.topology_key, findings);
    let when = one.when_unsatisfiable.as_deref().unwrap_or("DoNotSchedule");
    let preferred = word(&at.field("whenUnsatisfiable"), when, &WORDS, findings);
    let skew_max = one.max_skew.unwrap_or_default();
    if skew_max == 0 {
        findings.fault(&at.field("maxSkew"), "must be at least 1");
    }
    if let Some(selector) = &one.label_selector {
        let at = at.field("labelSelector");
        let wanted = super::members::labels(&at, selector, findings);
        let own = wanted.iter().all(|(key, value)| labels.get(key) == Some(value));
        if !own {
            findings.fault(&at, "is not supported: must match the labels of this very pod");
        } else if !wanted.is_empty() {
            findings.note(&at, "read as: the replicas of this group");
        }
    }
    if one.node_affinity_policy.as_deref().is_some_and(|policy| policy != "Honor") {
        let why = "is not supported: only domains with a fitting node count here (Honor)";
        findings.fault(&at.field("nodeAffinityPolicy"), why);
    }
    if one.node_taints_policy.as_deref().is_some_and(|policy| policy != "Honor") {
        let why = "is not supported: only domains with a fitting node count here (Honor)";
        findings.fault(&at.field("nodeTaintsPolicy"), why);
    }
    Some(v1::Spread { level: level?.into(), skew_max, preferred: preferred? })
}
