//! From the objects of one application to one job.
//!
//! A text holds the objects that own pods (Jobs, Pods, Kueue's Workload, RayCluster, RayJob) and those that
//! say how the pods start (Workload, PodGroup, ResourceClaimTemplate). Several owners make one job only
//! where something in the text says that they belong together.
//! **Invariant:** the order of objects in the text has no influence but on the order of groups.

use super::claim::Known;
use super::gang::{PodGroupDocument, Rule, Workload, WorkloadDocument, pin_scheduling};
use super::job::{self, Owner, name_of};
use super::kai::KaiPodGroup;
use super::kueue::KueueWorkload;
use super::members::{Members, Term, shorter, together};
use super::pinned::{Named, Pinned};
use super::{gang, kai, kueue, pod, yunikorn};
use crate::decode::decode;
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use crate::label::Conditions;
use crate::quantity::Quantity;
use crate::{ray, shape};
use proto::v1;
use serde_json::Value;
use std::collections::BTreeMap;

/// Most labels that a job carries.
const LABELS_MAX: usize = 16;

/// Kinds that may stand beside a job and do not concern where it goes.
const ASIDE: [&str; 14] = [
    "ConfigMap", "Secret", "Service", "ServiceAccount", "Namespace", "PersistentVolumeClaim",
    "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "NetworkPolicy", "Ingress",
    "PodDisruptionBudget", "LocalQueue",
];

/// All objects of a text, sorted by what they are for.
#[derive(Default)]
struct Objects {
    owners: Vec<Owner>,
    workloads: Vec<Workload>,
    pod_groups: Vec<(At, PodGroupDocument)>,
    kai_groups: Vec<(At, KaiPodGroup)>,
    ray_jobs: Vec<ray::job::Parsed>,
}

/// The job that the documents describe.
pub(crate) fn assemble(documents: &[Document], findings: &mut Findings) -> v1::JobSpec {
    let mut known = Known::default();
    for document in documents {
        match kind_of(document).1 {
            "ResourceClaimTemplate" => known.template(document, findings),
            "ResourceClaim" => known.claim(document, findings),
            _ => {}
        }
    }
    let mut objects = Objects::default();
    for document in documents {
        objects.read(document, &known, findings);
    }
    objects.into_job(findings)
}

/// Group of the API (without version) and kind of a document.
fn kind_of(document: &Document) -> (&str, &str) {
    let text = |key: &str| document.value.get(key).and_then(Value::as_str).unwrap_or_default();
    let version = text("apiVersion");
    (version.rsplit_once('/').map_or("", |(group, _)| group), text("kind"))
}

impl Objects {
    fn read(&mut self, document: &Document, known: &Known, findings: &mut Findings) {
        let at = &document.at;
        match kind_of(document) {
            ("batch", "Job") => self.owners.push(job::job(document, known, findings)),
            ("", "Pod") => self.owners.push(job::pod(document, known, findings)),
            ("ray.io", "RayCluster") => {
                self.owners.push(ray::cluster::read(document, known, findings));
            }
            ("ray.io", "RayJob") => {
                self.ray_jobs.push(ray::job::read(document, known, findings));
            }
            ("kueue.x-k8s.io", "Workload") => {
                self.owners.push(kueue_workload(document, known, findings));
            }
            ("scheduling.k8s.io", "Workload") => {
                let rest = [gang::REST, pod::REST];
                let read: WorkloadDocument = decode(at, &document.value, &rest, findings);
                self.workloads.push(read.workload(at, findings));
            }
            ("scheduling.k8s.io", "PodGroup") => {
                let rest = [gang::REST, pod::REST];
                let read: PodGroupDocument = decode(at, &document.value, &rest, findings);
                self.pod_groups.push((at.clone(), read));
            }
            ("scheduling.run.ai" | "kai.scheduler", "PodGroup") => {
                let rest = [kai::REST, pod::REST];
                let read: KaiPodGroup = decode(at, &document.value, &rest, findings);
                self.kai_groups.push((at.clone(), read));
            }
            ("resource.k8s.io", "ResourceClaimTemplate" | "ResourceClaim") => {}
            (_, kind) if ASIDE.contains(&kind) => {
                let text = format!("ignored: a {kind} has no say in where the job goes");
                findings.note(&at.field("kind"), text);
            }
            (group, kind) => findings.fault(
                &at.field("kind"),
                format!(
                    "{} of {} is not read here; read are Job, Pod, Workload, PodGroup, \
                     ResourceClaimTemplate, RayCluster, RayJob and native jobs",
                    quote(kind),
                    quote(if group.is_empty() { "the core API" } else { group })
                ),
            ),
        }
    }

    fn into_job(mut self, findings: &mut Findings) -> v1::JobSpec {
        for ray_job in std::mem::take(&mut self.ray_jobs) {
            ray::job::join(ray_job, &mut self.owners, findings);
        }
        if self.owners.is_empty() {
            findings.fault(
                &At::root(),
                "says nothing of what the pods need: give the Job, the Pods, the RayCluster or \
                 the RayJob in the same text",
            );
            return v1::JobSpec::default();
        }
        let belong = self.belong_together(findings);
        let mut members = self.members();
        merge_alike(&mut members);
        self.pin_kubernetes(&mut members, findings);
        self.pin_kai(&mut members, findings);
        pin_podset_groups(&mut members);
        task_groups(&mut members, findings);
        if !belong {
            return v1::JobSpec::default();
        }
        self.job(members, findings)
    }

    /// Whether several owners are one application; a fault if not.
    fn belong_together(&self, findings: &mut Findings) -> bool {
        let [first, others @ ..] = self.owners.as_slice() else { return true };
        if others.is_empty() {
            return true;
        }
        let ties = |owner: &Owner| -> Vec<(&'static str, String)> {
            let members = owner.members.first();
            let pinned = members.map(|one| &one.pinned);
            let name = |named: Option<&Named>| named.map(|named| named.name.clone());
            let pod_group = name(members.and_then(|one| one.pod_group.as_ref()));
            [
                ("PodGroup", pod_group.clone().filter(|group| self.workload_of(group).is_none())),
                ("Workload", pod_group.and_then(|group| self.workload_of(&group))),
                ("KAI PodGroup", name(pinned.and_then(|one| one.kai_group.as_ref()))),
                ("Kueue pod group", name(pinned.and_then(|one| one.pods_group.as_ref()))),
                ("Kueue pod set group", name(pinned.and_then(|one| one.podset_group.as_ref()))),
                ("YuniKorn application", name(pinned.and_then(|one| one.application.as_ref()))),
            ]
            .into_iter()
            .filter_map(|(kind, name)| Some((kind, name?)))
            .collect()
        };
        let wanted = ties(first);
        let apart = others.iter().find(|owner| !ties(owner).iter().any(|tie| wanted.contains(tie)));
        if let Some(apart) = apart {
            findings.fault(
                &apart.at.field("kind"),
                format!(
                    "{} {} and {} {} are not said to belong together (by one PodGroup, Workload, \
                     pod-group-name or application): submit them apart",
                    first.kind,
                    quote(&first.name),
                    apart.kind,
                    quote(&apart.name)
                ),
            );
        }
        apart.is_none()
    }

    /// The workload that a pod group is of: its pod groups belong together.
    fn workload_of(&self, pod_group: &str) -> Option<String> {
        let (_, group) =
            self.pod_groups.iter().find(|(_, one)| one.metadata.name.as_deref() == Some(pod_group))?;
        Some(group.spec.workload_ref.as_ref()?.workload_name.clone())
    }

    /// Name of a job of several owners: that of what ties them.
    fn common_name(&self, members: &[Members]) -> Option<String> {
        let first = members.first()?;
        let of_group = first.pod_group.as_ref().map(|group| group.name.clone());
        let by_pods = || {
            let pinned = &first.pinned;
            let ties = [&pinned.kai_group, &pinned.pods_group, &pinned.application];
            let tie = ties.into_iter().flatten().next().or(pinned.podset_group.as_ref())?;
            Some(tie.name.clone())
        };
        of_group.map(|group| self.workload_of(&group).unwrap_or(group)).or_else(by_pods)
    }

    /// All members, in the order of the text, with the topology that their owner asks for.
    fn members(&mut self) -> Vec<Members> {
        let mut all = Vec::new();
        for owner in &mut self.owners {
            all.append(&mut owner.members);
        }
        all
    }

    /// Holds members to Kubernetes' pod groups.
    fn pin_kubernetes(&self, members: &mut Vec<Members>, findings: &mut Findings) {
        let mut used = Vec::new();
        let groups: Vec<(At, Rule)> = self
            .pod_groups
            .iter()
            .map(|(at, group)| (at.clone(), group.rule(at, &self.workloads, findings)))
            .collect();
        for (at, rule) in &groups {
            let named = |one: &Members| one.pod_group.as_ref().is_some_and(|of| of.name == rule.name);
            if !pin_rule(rule, members, named, findings) {
                let problem = format!("no pod in this text names the group {}", quote(&rule.name));
                findings.fault(&at.down(&["metadata", "name"]), problem);
            }
            used.push(rule.name.clone());
        }
        for one in members.iter() {
            let Some(of) = &one.pod_group else { continue };
            if !used.contains(&of.name) {
                let problem = format!("no PodGroup {} stands in this text", quote(&of.name));
                findings.fault(&of.at, problem);
            }
        }
        for workload in &self.workloads {
            let by_group = self.pod_groups.iter().any(|(_, group)| {
                group.spec.workload_ref.as_ref().is_some_and(|of| of.workload_name == workload.name)
            });
            if !by_group {
                self.pin_workload(workload, members, findings);
            }
        }
    }

    /// Holds members to a workload that no pod group stands for.
    fn pin_workload(
        &self,
        workload: &Workload,
        members: &mut Vec<Members>,
        findings: &mut Findings,
    ) {
        if let Some(controller) = &workload.controller {
            let is_here = self.owners.iter().any(|owner| {
                owner.kind == controller.kind && owner.name == controller.name
            });
            if !is_here {
                let at = workload.at.down(&["spec", "controllerRef"]);
                let (kind, name) = (quote(&controller.kind), quote(&controller.name));
                return findings.fault(&at, format!("no {kind} {name} stands in this text"));
            }
        }
        if let [only] = workload.rules.as_slice() {
            pin_rule(only, members, |_| true, findings);
            return;
        }
        for rule in &workload.rules {
            if !pin_rule(rule, members, |one| one.group.name == rule.name, findings) {
                let problem = format!("no pods here are called {}", quote(&rule.name));
                findings.fault(&rule.at.field("name"), problem);
            }
        }
    }

    /// Holds members to KAI's pod groups.
    fn pin_kai(&self, members: &mut Vec<Members>, findings: &mut Findings) {
        for (at, group) in &self.kai_groups {
            kai_group(at, group, members, findings);
        }
        for one in members.iter() {
            let Some(of) = &one.pinned.kai_group else { continue };
            let is_here = |(_, group): &(At, KaiPodGroup)| {
                group.metadata.name.as_deref() == Some(of.name.as_str())
            };
            if !self.kai_groups.iter().any(is_here) {
                let problem = format!("no PodGroup {} stands in this text", quote(&of.name));
                findings.fault(&of.at, problem);
            }
        }
    }

    fn job(self, mut members: Vec<Members>, findings: &mut Findings) -> v1::JobSpec {
        let Some(first) = self.owners.first() else { return v1::JobSpec::default() };
        let pinned = |read: fn(&Pinned) -> bool| {
            self.owners.iter().map(|owner| &owner.pinned).find(|pinned| read(pinned))
        };
        let default_kind = match first.kind {
            "RayCluster" | "RayJob" => v1::JobKind::Ray,
            _ => v1::JobKind::Kubernetes,
        };
        let mut name = first.name.clone();
        if self.owners.len() > 1
            && let Some(of) = self.common_name(&members)
        {
            name = of;
        }
        let mut spec = v1::JobSpec {
            name,
            kind: pinned(|one| one.kind.is_some())
                .and_then(|one| one.kind)
                .unwrap_or(default_kind)
                .into(),
            strategy: v1::Strategy::Pack.into(),
            rtt_us_max: pinned(|one| one.rtt_us_max > 0).map_or(0, |one| one.rtt_us_max),
            price_micro_usd_max: pinned(|one| one.price_micro_usd_max > 0)
                .map_or(0, |one| one.price_micro_usd_max),
            duration_s: self
                .owners
                .iter()
                .fold(None, |least, owner| shorter(least, owner.duration_s))
                .unwrap_or_default(),
            labels: labels(&self.owners, &members, findings),
            ..v1::JobSpec::default()
        };
        total_count(&self.owners, &members, findings);
        unique_names(&mut members);
        bonds(&mut spec, &mut members);
        terms(&mut spec, &mut members, findings);
        spec.groups = members.into_iter().map(|one| finish_group(one.group)).collect();
        spec
    }
}

/// Holds the members that a rule is about to it; says whether there are any.
fn pin_rule(
    rule: &Rule,
    members: &mut Vec<Members>,
    is_meant: impl Fn(&Members) -> bool,
    findings: &mut Findings,
) -> bool {
    with_some(members, is_meant, |meant| {
        pin_scheduling(&rule.at, &rule.scheduling, meant, findings);
    })
}

/// Does something with some of the members, which keep their places; says whether there were any.
fn with_some(
    members: &mut Vec<Members>,
    is_meant: impl Fn(&Members) -> bool,
    with: impl FnOnce(&mut [Members]),
) -> bool {
    let places: Vec<usize> = (0..members.len()).filter(|at| is_meant(&members[*at])).collect();
    let mut meant: Vec<Members> = places.iter().map(|at| std::mem::take(&mut members[*at])).collect();
    if !meant.is_empty() {
        with(&mut meant);
    }
    for (place, one) in places.iter().zip(meant) {
        members[*place] = one;
    }
    !places.is_empty()
}

/// Pods that are alike become one group.
fn merge_alike(members: &mut Vec<Members>) {
    let mut merged: Vec<Members> = Vec::new();
    for one in members.drain(..) {
        let same = |other: &&mut Members| {
            other.is_like(&one)
                && other.pod_group.as_ref().map(|of| &of.name)
                    == one.pod_group.as_ref().map(|of| &of.name)
        };
        // Only lone pods: two Jobs that look alike are still two.
        let lone = one.group.replicas == 1;
        match merged.iter_mut().filter(|_| lone).find(same) {
            Some(other) => other.group.replicas = other.group.replicas.saturating_add(1),
            None => merged.push(one),
        }
    }
    *members = merged;
}

fn kueue_workload(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let rest = [kueue::REST, pod::REST];
    let read: KueueWorkload = decode(at, &document.value, &rest, findings);
    let name = name_of(at, &read.metadata, findings);
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, findings);
    let at_spec = at.field("spec");
    if read.spec.active == Some(false) {
        findings.fault(&at_spec.field("active"), "is false: a job is submitted when it is to run");
    }
    super::members::priority(&at_spec, read.spec.priority, None, findings);
    let mut members = Vec::new();
    for (index, set) in read.spec.pod_sets.iter().enumerate() {
        let at = at_spec.field("podSets").index(index);
        let template = at.field("template");
        let mut one =
            Members::read(&template, &set.template.metadata, &set.template.spec, known, findings);
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
    let of_pods = members.iter().fold(None, |least, one| shorter(least, one.duration_s));
    Owner {
        at: at.clone(),
        kind: "Workload",
        name,
        duration_s: shorter(
            shorter(read.spec.maximum_execution_time_seconds, pinned.duration_s),
            of_pods,
        ),
        pinned,
        members,
    }
}

/// Holds members to one of KAI's pod groups.
fn kai_group(at: &At, group: &KaiPodGroup, members: &mut Vec<Members>, findings: &mut Findings) {
    let name = group.metadata.name.as_deref().unwrap_or_default();
    let at_spec = at.field("spec");
    let of_group =
        |one: &Members| one.pinned.kai_group.as_ref().is_some_and(|of| of.name == name);
    let mut levels = (v1::TopologyLevel::Unspecified, v1::TopologyLevel::Unspecified);
    let constraint = at_spec.field("topologyConstraint");
    let any = with_some(members, of_group, |meant| {
        levels = group.spec.topology_constraint.levels(&constraint, findings);
        together(&constraint, meant, levels.0, false);
        together(&constraint, meant, levels.1, true);
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
    let top = group.spec.sub_groups.iter().filter(|sub| sub.parent.is_none()).count();
    needs_all(&at_spec, group.spec.min_sub_group, top, findings);
    for (index, sub) in group.spec.sub_groups.iter().enumerate() {
        let at = at_spec.field("subGroups").index(index);
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
            findings.fault(&at.field("name"), format!("no pod in this text is of the subgroup {name}"));
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
        _ => findings.fault(
            at,
            format!(
                "is {least} over groups of different pods with {total} pods in all: which of them \
                 may be missing? Use subGroups with a minMember each"
            ),
        ),
    }
}

/// Pod sets of one group share a domain of the level that they ask for.
fn pin_podset_groups(members: &mut Vec<Members>) {
    let mut names: Vec<String> =
        members.iter().filter_map(|one| Some(one.pinned.podset_group.as_ref()?.name.clone())).collect();
    names.dedup();
    for name in names {
        let meant =
            |one: &Members| one.pinned.podset_group.as_ref().is_some_and(|of| of.name == name);
        with_some(members, meant, |meant| {
            let at = meant.first().and_then(|one| one.pinned.podset_group.clone());
            let Some(Named { at, .. }) = at else { return };
            let level = |read: fn(&Pinned) -> v1::TopologyLevel| {
                meant.iter().map(|one| read(&one.pinned)).find(|l| *l != v1::TopologyLevel::Unspecified)
            };
            let required = level(|pinned| pinned.topology_required);
            let preferred = level(|pinned| pinned.topology_preferred);
            together(&at, meant, required.unwrap_or_default(), false);
            together(&at, meant, preferred.unwrap_or_default(), true);
        });
    }
}

/// YuniKorn: every task group is a group; those that have pods in the text take their number from there.
fn task_groups(members: &mut Vec<Members>, findings: &mut Findings) {
    let said = members.iter().find_map(|one| one.pinned.task_groups.clone());
    let Some((at, groups)) = said else {
        for one in members.iter() {
            if let Some(named) = &one.pinned.task_group {
                findings.fault(&named.at, "needs yunikorn.apache.org/task-groups beside it");
            }
        }
        return;
    };
    for one in members.iter() {
        let Some(named) = &one.pinned.task_group else { continue };
        if !groups.iter().any(|group| group.name == named.name) {
            let problem = format!("no task group is called {}", quote(&named.name));
            findings.fault(&named.at, problem);
        }
    }
    for (index, group) in groups.iter().enumerate() {
        let at = at.index(index);
        let meant = |one: &Members| {
            one.pinned.task_group.as_ref().is_some_and(|of| of.name == group.name)
        };
        if group.name.is_empty() {
            findings.fault(&at.field("name"), "missing");
        }
        let has_pods = with_some(members, meant, |meant| task_group_with_pods(&at, group, meant, findings));
        if !has_pods {
            members.push(task_group_alone(&at, group, findings));
        }
    }
}

/// Pods of a task group that stand in the text: its minimum is theirs, the rest must agree.
fn task_group_with_pods(
    at: &At,
    group: &yunikorn::TaskGroup,
    members: &mut [Members],
    findings: &mut Findings,
) {
    let least = at.field("minMember");
    match members {
        [only] => {
            only.group.name.clone_from(&group.name);
            only.at_least(&least, group.min_member, findings);
            let wanted = task_group_alone(at, group, findings).group.shape.unwrap_or_default();
            let has = only.group.shape.clone().unwrap_or_default();
            if !group.min_resource.is_empty() && !agrees(&wanted, &has) {
                findings.fault(
                    &at.field("minResource"),
                    "differs from what the pods of the group ask for",
                );
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

/// A task group whose pods come later: it is known by what it says itself.
fn task_group_alone(at: &At, group: &yunikorn::TaskGroup, findings: &mut Findings) -> Members {
    let spec = pod::PodSpec {
        node_selector: group.node_selector.clone(),
        tolerations: group.tolerations.clone(),
        affinity: group.affinity.clone(),
        topology_spread_constraints: group.topology_spread_constraints.clone(),
        ..pod::PodSpec::default()
    };
    let mut conditions = Conditions::default();
    super::placement::add_conditions(at, &spec, &mut conditions, findings);
    let at_amounts = at.field("minResource");
    let amounts = super::resources::amounts(&at_amounts, &group.min_resource, findings)
        .into_iter()
        // YuniKorn calls CPU by its own name as well.
        .map(|(name, amount)| (if name == "vcore" { "cpu".to_owned() } else { name }, amount))
        .collect::<BTreeMap<String, (Quantity, At)>>();
    let shape = shape::shape(&at_amounts, &amounts, &conditions, None, findings);
    if group.min_member == 0 {
        findings.fault(&at.field("minMember"), "must be at least 1");
    }
    let tolerations = super::placement::tolerations(&at.field("tolerations"), &spec.tolerations, findings);
    let labels = BTreeMap::new();
    let spread_at = at.field("topologySpreadConstraints");
    let spread = super::placement::spread(
        &spread_at,
        &spec.topology_spread_constraints,
        &labels,
        findings,
    );
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
        terms: super::members::terms(at, &spec, findings),
        ..Members::default()
    }
}

/// Kueue's plain pods: all of a group must be there.
fn total_count(owners: &[Owner], members: &[Members], findings: &mut Findings) {
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

/// Labels of the job: those that all its pods share, then those of the objects.
fn labels(
    owners: &[Owner],
    members: &[Members],
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let mut labels = members.first().map(|one| one.pinned.labels.clone()).unwrap_or_default();
    labels.retain(|key, value| {
        members.iter().all(|one| one.pinned.labels.get(key) == Some(value))
    });
    for owner in owners {
        for (key, value) in &owner.pinned.labels {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    if labels.len() > LABELS_MAX
        && let Some(owner) = owners.first()
    {
        let left_off: Vec<_> = labels.keys().skip(LABELS_MAX).map(|key| quote(key)).collect();
        let text = format!("left off, a job carries {LABELS_MAX} labels: {}", left_off.join(", "));
        findings.note(&owner.at.down(&["metadata", "labels"]), text);
        labels = labels.into_iter().take(LABELS_MAX).collect();
    }
    labels
}

/// Groups of one name are numbered.
fn unique_names(members: &mut [Members]) {
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for one in members {
        let times = seen.entry(one.group.name.clone()).or_default();
        *times += 1;
        if *times > 1 {
            one.group.name = format!("{}-{times}", one.group.name);
        }
    }
}

/// Members that share a domain: the whole job's, where all share it, else between groups.
fn bonds(spec: &mut v1::JobSpec, members: &mut [Members]) {
    let mut seen: Vec<super::members::Bond> = Vec::new();
    for bond in members.iter().flat_map(|one| one.bonds.clone()).collect::<Vec<_>>() {
        if seen.contains(&bond) {
            continue;
        }
        let names: Vec<String> = members
            .iter()
            .filter(|one| one.bonds.contains(&bond))
            .map(|one| one.group.name.clone())
            .collect();
        let is_all = names.len() == members.len();
        match (is_all, bond.level, bond.preferred) {
            (true, v1::TopologyLevel::Node, false) => {
                spec.strategy = v1::Strategy::StrictPack.into();
                drop_own(members, |group| group.strategy = v1::Strategy::Unspecified.into());
            }
            (true, v1::TopologyLevel::Node, true) => {}
            (true, level, false) => {
                spec.topology_required = level.into();
                drop_own(members, |group| {
                    if group.topology_required() == level {
                        group.topology_required = v1::TopologyLevel::Unspecified.into();
                    }
                });
            }
            (true, level, true) => {
                spec.topology_preferred = level.into();
                drop_own(members, |group| {
                    if group.topology_preferred() == level {
                        group.topology_preferred = v1::TopologyLevel::Unspecified.into();
                    }
                });
            }
            (false, level, preferred) => {
                for pair in names.windows(2) {
                    let [one, other] = pair else { continue };
                    spec.affinities.push(v1::Affinity {
                        level: level.into(),
                        preferred,
                        group: one.clone(),
                        with_group: other.clone(),
                        ..v1::Affinity::default()
                    });
                }
            }
        }
        seen.push(bond);
    }
}

fn drop_own(members: &mut [Members], forget: impl Fn(&mut v1::Group)) {
    for one in members {
        forget(&mut one.group);
    }
}

/// Affinities between pods, by whom their labels are about.
fn terms(spec: &mut v1::JobSpec, members: &mut [Members], findings: &mut Findings) {
    for place in 0..members.len() {
        for term in members[place].terms.clone() {
            let is_meant = |other: &Members| {
                term.labels.iter().all(|(key, value)| other.labels.get(key) == Some(value))
            };
            let meant: Vec<usize> = (0..members.len()).filter(|at| is_meant(&members[*at])).collect();
            let base = v1::Affinity {
                anti: term.anti,
                preferred: term.preferred,
                level: term.level.into(),
                group: members[place].group.name.clone(),
                ..v1::Affinity::default()
            };
            if meant.is_empty() {
                findings.note(&term.at, "read as about the tenant's other jobs with these labels");
                spec.affinities.push(v1::Affinity { with_job_labels: term.labels.clone(), ..base });
                continue;
            }
            findings.note(&term.at, "read as about the groups of this job with these labels");
            for other in meant {
                if other == place && own_term(&term, &mut members[place]) {
                    continue;
                }
                let with_group = members[other].group.name.clone();
                spec.affinities.push(v1::Affinity { with_group, ..base.clone() });
            }
        }
    }
}

/// A term about the pods of the same group, where a group has words of its own for it.
fn own_term(term: &Term, one: &mut Members) -> bool {
    match (term.anti, term.preferred, term.level) {
        (true, false, v1::TopologyLevel::Node) => one.group.replicas_per_node_max = 1,
        (true, ..) => return false,
        (false, false, level) => one.require(level),
        (false, true, level) => one.prefer(level),
    }
    true
}

/// A group as it goes into the job.
pub(crate) fn finish_group(mut group: v1::Group) -> v1::Group {
    if group.role() == v1::Role::Unspecified {
        group.role = v1::Role::Worker.into();
    }
    if group.replicas_min == group.replicas {
        group.replicas_min = 0;
    }
    group
}
