//! Kubernetes' `Workload` and `PodGroup`: which pods start together, and where.
//!
//! **Invariant:** a minimum is kept for the group it was said of; over several groups at once it is kept only
//! where it means all of them. A topology key is always a must: Kubernetes has no wish there.

use super::members::{Members, only_so_many, priority, together, with_some};
use super::pod::{Object, PodClaim};
use super::preemption;
use crate::decode::{Rest, Verdict};
use crate::finding::{At, Findings, quote};
use crate::topology;
use serde::Deserialize;
use serde_json::Value;

/// What becomes of fields that the structs below do not name.
pub(super) const REST: Rest = &[
    (
        "PodGroupSpec",
        &["parentCompositePodGroupName"],
        Verdict::Refused("groups of groups; a muster job starts all of its groups together"),
    ),
    (
        "Composite",
        &["preemptionPolicy", "disruptionMode"],
        Verdict::Ignored("what the pod groups themselves say of it counts"),
    ),
];

/// What a `Job`, a `PodGroup` and a template of one say alike.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Scheduling {
    pub(super) scheduling_policy: Option<Policy>,
    pub(super) scheduling_constraints: Option<Constraints>,
    pub(super) resource_claims: Vec<PodClaim>,
    pub(super) disruption_mode: Option<Value>,
    #[serde(skip)]
    pub(super) preemption_policy: Option<String>,
    /// What the policy is called where it stands; empty = `schedulingPolicy`.
    #[serde(skip)]
    pub(super) policy_field: &'static str,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Policy {
    basic: Option<Basic>,
    gang: Option<Gang>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Basic {}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Gang {
    min_count: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Constraints {
    topology: Vec<TopologyConstraint>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TopologyConstraint {
    key: String,
}

pub(super) type WorkloadDocument = Object<WorkloadSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WorkloadSpec {
    pub(super) controller_ref: Option<Reference>,
    pub(super) pod_group_templates: Vec<PodGroupTemplate>,
    /// As v1alpha1 calls them.
    pub(super) pod_groups: Vec<PodGroupTemplate>,
    pub(super) composite_pod_group_templates: Vec<Composite>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Reference {
    #[serde(rename = "apiGroup")]
    pub(super) _api_group: Option<String>,
    pub(super) kind: String,
    pub(super) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodGroupTemplate {
    pub(super) name: String,
    scheduling_policy: Option<Policy>,
    /// As v1alpha1 calls it.
    policy: Option<Policy>,
    scheduling_constraints: Option<Constraints>,
    resource_claims: Vec<PodClaim>,
    disruption_mode: Option<Value>,
    preemption_policy: Option<String>,
    priority_class_name: Option<String>,
    priority: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Composite {
    #[serde(rename = "name")]
    _name: String,
    scheduling_policy: Option<CompositePolicy>,
    scheduling_constraints: Option<Constraints>,
    priority_class_name: Option<String>,
    priority: Option<i32>,
    pod_group_templates: Vec<PodGroupTemplate>,
    composite_pod_group_templates: Vec<Composite>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct CompositePolicy {
    #[serde(rename = "basic")]
    _basic: Option<Basic>,
    gang: Option<CompositeGang>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct CompositeGang {
    min_group_count: Option<u32>,
}

pub(super) type PodGroupDocument = Object<PodGroupSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodGroupSpec {
    workload_ref: Option<WorkloadRef>,
    /// As v1alpha2 calls it.
    pod_group_template_ref: Option<TemplateRef>,
    scheduling_policy: Option<Policy>,
    scheduling_constraints: Option<Constraints>,
    resource_claims: Vec<PodClaim>,
    disruption_mode: Option<Value>,
    preemption_policy: Option<String>,
    priority_class_name: Option<String>,
    priority: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WorkloadRef {
    pub(super) workload_name: String,
    #[serde(alias = "podGroupTemplateName")]
    pub(super) template_name: String,
}

/// The template of a workload that a pod group was made of, in v1alpha2.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TemplateRef {
    workload: Option<WorkloadRef>,
    #[serde(rename = "workloadName")]
    workload_name: String,
    #[serde(rename = "podGroupTemplateName")]
    template_name: String,
}

impl PodGroupSpec {
    /// The template that it was made of, and the field that says so.
    pub(super) fn template(&self) -> Option<(&'static str, WorkloadRef)> {
        if let Some(of) = &self.workload_ref {
            return Some(("workloadRef", of.clone()));
        }
        let of = self.pod_group_template_ref.as_ref()?;
        let flat = || WorkloadRef {
            workload_name: of.workload_name.clone(),
            template_name: of.template_name.clone(),
        };
        Some(("podGroupTemplateRef", of.workload.clone().unwrap_or_else(flat)))
    }
}

/// What is said of the pods of one pod group, and where.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) at: At,
    pub(super) name: String,
    pub(super) scheduling: Scheduling,
}

impl PodGroupTemplate {
    fn rule(&self, at: &At, findings: &mut Findings) -> Rule {
        priority(at, self.priority, self.priority_class_name.as_deref(), findings);
        if self.policy.is_some() && self.scheduling_policy.is_some() {
            findings.fault(&at.field("policy"), "must not come with schedulingPolicy");
        }
        let scheduling = Scheduling {
            policy_field: if self.policy.is_some() { "policy" } else { "" },
            scheduling_policy: self.policy.clone().or_else(|| self.scheduling_policy.clone()),
            scheduling_constraints: self.scheduling_constraints.clone(),
            resource_claims: self.resource_claims.clone(),
            disruption_mode: self.disruption_mode.clone(),
            preemption_policy: self.preemption_policy.clone(),
        };
        Rule { at: at.clone(), name: self.name.clone(), scheduling }
    }
}

impl PodGroupDocument {
    /// What the group says itself; a policy left out comes from its template.
    pub(super) fn rule(&self, at: &At, workloads: &[Workload], findings: &mut Findings) -> Rule {
        let at_spec = at.field("spec");
        let spec = &self.spec;
        priority(&at_spec, spec.priority, spec.priority_class_name.as_deref(), findings);
        let own = Scheduling {
            scheduling_policy: spec.scheduling_policy.clone(),
            scheduling_constraints: spec.scheduling_constraints.clone(),
            resource_claims: spec.resource_claims.clone(),
            disruption_mode: spec.disruption_mode.clone(),
            preemption_policy: spec.preemption_policy.clone(),
            policy_field: "",
        };
        let name = self.metadata.name.clone().unwrap_or_default();
        if own.scheduling_policy.is_none()
            && let Some((field, of)) = spec.template()
        {
            let template = workloads
                .iter()
                .filter(|workload| workload.name == of.workload_name)
                .flat_map(|workload| &workload.rules)
                .find(|rule| rule.name == of.template_name);
            if let Some(rule) = template {
                return Rule { name, ..rule.clone() };
            }
            let problem = format!(
                "no Workload {} with a template {} stands in this text",
                quote(&of.workload_name),
                quote(&of.template_name)
            );
            findings.fault(&at_spec.field(field), problem);
        }
        Rule { at: at_spec, name, scheduling: own }
    }
}

/// A `Workload` with its templates, those inside composites too.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) at: At,
    pub(super) name: String,
    pub(super) controller: Option<Reference>,
    pub(super) rules: Vec<Rule>,
}

impl WorkloadDocument {
    pub(super) fn workload(&self, at: &At, findings: &mut Findings) -> Workload {
        let at_spec = at.field("spec");
        let mut rules = Vec::new();
        let named = [
            ("podGroupTemplates", &self.spec.pod_group_templates),
            ("podGroups", &self.spec.pod_groups),
        ];
        for (field, all) in named {
            templates(&at_spec.field(field), all, &mut rules, findings);
        }
        composites(&at_spec, &self.spec.composite_pod_group_templates, &mut rules, findings);
        if rules.is_empty() {
            findings.fault(&at_spec.field("podGroupTemplates"), "needs at least one template");
        }
        Workload {
            at: at.clone(),
            name: self.metadata.name.clone().unwrap_or_default(),
            controller: self.spec.controller_ref.clone(),
            rules,
        }
    }
}

impl Workload {
    /// Whether pods say by themselves which of its groups they are of, as in v1alpha1.
    pub(super) fn is_named_by_pods(&self, members: &[Members]) -> bool {
        members.iter().any(|one| one.workload.as_ref().is_some_and(|of| of.name == self.name))
    }

    /// Holds members to the groups that they name.
    pub(super) fn pin_by_pods(&self, members: &mut [Members], findings: &mut Findings) {
        for rule in &self.rules {
            let is_meant = |one: &Members| {
                let of = one.workload.as_ref();
                of.is_some_and(|of| of.name == self.name && of.pod_group == rule.name)
            };
            let mut keys = members.iter().filter(|one| is_meant(one)).map(|one| {
                (&one.at, one.workload.as_ref().map(|of| of.pod_group_replica_key.clone()))
            });
            let first = keys.next().map(|(_, key)| key);
            if let Some((at, _)) = keys.find(|(_, key)| first.as_ref() != Some(key)) {
                let at = at.down(&["spec", "workloadRef", "podGroupReplicaKey"]);
                let why =
                    "is not supported: gangs of one group that start apart; submit them apart";
                findings.fault(&at, why);
            }
            if !pin_rule(rule, members, is_meant, findings) {
                let problem = format!("no pod in this text names the group {}", quote(&rule.name));
                findings.fault(&rule.at.field("name"), problem);
            }
        }
    }
}

/// Faults of members that name a workload, or a group of one, that is not there.
pub(super) fn loose_references(
    workloads: &[Workload],
    members: &[Members],
    findings: &mut Findings,
) {
    for one in members {
        let Some(of) = &one.workload else { continue };
        let at = one.at.down(&["spec", "workloadRef"]);
        match workloads.iter().find(|workload| workload.name == of.name) {
            None => {
                let problem = format!("no Workload {} stands in this text", quote(&of.name));
                findings.fault(&at.field("name"), problem);
            }
            Some(workload) if workload.rules.iter().all(|rule| rule.name != of.pod_group) => {
                let (name, group) = (quote(&of.name), quote(&of.pod_group));
                findings.fault(&at.field("podGroup"), format!("{name} has no group {group}"));
            }
            Some(_) => {}
        }
    }
}

/// Holds the members that a rule is about to it; says whether there are any.
pub(super) fn pin_rule(
    rule: &Rule,
    members: &mut [Members],
    is_meant: impl Fn(&Members) -> bool,
    findings: &mut Findings,
) -> bool {
    with_some(members, is_meant, |meant| {
        pin_scheduling(&rule.at, &rule.scheduling, meant, findings);
    })
}

fn templates(at: &At, all: &[PodGroupTemplate], rules: &mut Vec<Rule>, findings: &mut Findings) {
    for (index, template) in all.iter().enumerate() {
        rules.push(template.rule(&at.index(index), findings));
    }
}

fn composites(at: &At, all: &[Composite], rules: &mut Vec<Rule>, findings: &mut Findings) {
    let at = at.field("compositePodGroupTemplates");
    for (index, one) in all.iter().enumerate() {
        let at = at.index(index);
        let children = one.pod_group_templates.len() + one.composite_pod_group_templates.len();
        let gang = one.scheduling_policy.as_ref().and_then(|policy| policy.gang.as_ref());
        let least = gang.and_then(|gang| gang.min_group_count);
        match least {
            Some(least) if usize::try_from(least).is_ok_and(|least| least < children) => {
                findings.fault(
                    &at.down(&["schedulingPolicy", "gang", "minGroupCount"]),
                    format!(
                        "is not supported: {least} of {children}; every group of a job is needed"
                    ),
                );
            }
            Some(_) => {}
            None => findings.fault(
                &at.field("schedulingPolicy"),
                "is not supported: groups of groups that start apart; use gang",
            ),
        }
        if one.scheduling_constraints.is_some() {
            findings.fault(
                &at.field("schedulingConstraints"),
                "is not supported on groups of groups: put it on the pod groups",
            );
        }
        priority(&at, one.priority, one.priority_class_name.as_deref(), findings);
        templates(&at.field("podGroupTemplates"), &one.pod_group_templates, rules, findings);
        composites(&at, &one.composite_pod_group_templates, rules, findings);
    }
}

/// Holds members to what is said of their pod group.
pub(super) fn pin_scheduling(
    at: &At,
    scheduling: &Scheduling,
    members: &mut [Members],
    findings: &mut Findings,
) {
    let policy = match scheduling.policy_field {
        "" => "schedulingPolicy",
        field => field,
    };
    pin_policy(&at.field(policy), scheduling, members, findings);
    let topology = scheduling.scheduling_constraints.as_ref().map(|all| all.topology.as_slice());
    let at_topology = at.down(&["schedulingConstraints", "topology"]);
    match topology.unwrap_or_default() {
        [] => {}
        [one] => {
            let at = at_topology.index(0).field("key");
            if let Some(level) = topology::level_at(&at, &one.key, findings) {
                together(&at, members, level, false);
            }
        }
        many => {
            let problem = format!("has {} keys; at most 1 is allowed", many.len());
            findings.fault(&at_topology, problem);
        }
    }
    let mode = scheduling.disruption_mode.as_ref();
    let mode = preemption::mode(&at.field("disruptionMode"), mode, findings);
    let policy = preemption::policy(at, scheduling.preemption_policy.as_deref(), findings);
    for one in members.iter_mut() {
        one.pinned.disruption = mode.or(one.pinned.disruption);
        one.pinned.policy = policy.or(one.pinned.policy);
    }
    for (index, claim) in scheduling.resource_claims.iter().enumerate() {
        // A claim of the group is one set of devices that all its pods share.
        let at = at.field("resourceClaims").index(index);
        let why = "is not supported: devices shared by several replicas; claim them in the pods";
        findings.fault(&at, format!("{why} ({})", quote(&claim.name)));
    }
}

fn pin_policy(at: &At, scheduling: &Scheduling, members: &mut [Members], findings: &mut Findings) {
    let Some(policy) = &scheduling.scheduling_policy else { return };
    let total = members.iter().fold(0_u32, |sum, one| sum.saturating_add(one.group.replicas));
    match (&policy.gang, &policy.basic) {
        (Some(_), Some(_)) | (None, None) => {
            findings.fault(at, "needs either `gang` or `basic`");
        }
        (None, Some(_)) => {
            findings
                .note(&at.field("basic"), "read as: the job may start with one pod of each group");
            for one in members.iter_mut() {
                one.group.replicas_min = 1;
            }
        }
        (Some(gang), None) => {
            let at = at.down(&["gang", "minCount"]);
            let Some(least) = gang.min_count else { return findings.fault(&at, "missing") };
            match members {
                [only] => only.at_least(&at, least, findings),
                _ if least == total => {}
                _ if least > total => findings.fault(&at, only_so_many(least, total)),
                _ => findings.fault(
                    &at,
                    format!(
                        "is {least} over groups of different pods with {total} pods in all: which of \
                         them may be missing? Give each group its own minimum"
                    ),
                ),
            }
        }
    }
}
