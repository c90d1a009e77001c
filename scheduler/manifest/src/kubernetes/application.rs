//! From the objects of one application to one job.
//!
//! A text holds the objects that own pods (Jobs, Pods, Kueue's Workload, RayCluster, RayJob) and those that
//! say how the pods start (Workload, PodGroup, ResourceClaimTemplate). Several owners make one job only
//! where something in the text says that they belong together.
//! **Invariant:** the order of objects in the text has no influence but on the order of groups.

use super::claim::Known;
use super::gang::{PodGroupDocument, Rule, Workload, WorkloadDocument, pin_rule};
use super::job::{self, Owner};
use super::kai::KaiPodGroup;
use super::members::{Members, merge_alike, shorter};
use super::pinned::{NO_QUEUES, Named, Pinned};
use super::{
    gang, jobset, kai, kubeflow, kueue, lws, pod, preemption, relation, volcano, yunikorn,
};
use crate::decode::decode;
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use crate::ray;
use proto::v1;
use serde_json::Value;

/// Kinds that may stand beside a job and do not concern where it goes: their group of the API, and why.
const ASIDE: [(&str, &[&str], &str); 9] = [
    (
        "",
        &[
            "ConfigMap",
            "Secret",
            "Service",
            "ServiceAccount",
            "Namespace",
            "PersistentVolume",
            "PersistentVolumeClaim",
        ],
        NO_SAY,
    ),
    (
        "rbac.authorization.k8s.io",
        &["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"],
        NO_SAY,
    ),
    ("networking.k8s.io", &["NetworkPolicy", "Ingress"], NO_SAY),
    ("storage.k8s.io", &["StorageClass"], NO_SAY),
    ("policy", &["PodDisruptionBudget"], NO_SAY),
    (
        "scheduling.k8s.io",
        &["PriorityClass"],
        "which priority a job has here, its annotation muster/priority says",
    ),
    ("kueue.x-k8s.io", &["LocalQueue"], NO_QUEUES),
    ("scheduling.run.ai", &["Queue"], NO_QUEUES),
    ("scheduling.volcano.sh", &["Queue"], NO_QUEUES),
];
const NO_SAY: &str = "it has no say in where the job goes";

/// All objects of a text, sorted by what they are for.
#[derive(Default)]
struct Objects {
    owners: Vec<Owner>,
    workloads: Vec<Workload>,
    pod_groups: Vec<(At, PodGroupDocument)>,
    kai_groups: Vec<(At, KaiPodGroup)>,
    ray_jobs: Vec<ray::job::Parsed>,
    /// Some object is of a kind that is not read.
    has_unread: bool,
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
            ("batch.volcano.sh", "Job") => {
                self.owners.push(volcano::job(document, known, findings));
            }
            ("jobset.x-k8s.io", "JobSet") => {
                self.owners.push(jobset::jobset(document, known, findings));
            }
            ("leaderworkerset.x-k8s.io", "LeaderWorkerSet") => {
                self.owners.push(lws::set(document, known, findings));
            }
            ("kubeflow.org", kind) if kubeflow::is_kind(kind) => {
                self.owners.extend(kubeflow::job(document, kind, known, findings));
            }
            ("trainer.kubeflow.org" | "kubeflow.org", "TrainJob") => {
                self.owners.push(kubeflow::train(document, findings));
            }
            ("", "Pod") => self.owners.push(job::pod(document, known, findings)),
            ("ray.io", "RayCluster") => {
                self.owners.push(ray::cluster::read(document, known, findings));
            }
            ("ray.io", "RayService") => {
                self.owners.push(ray::service::read(document, known, findings));
            }
            ("ray.io", "RayJob") => {
                self.ray_jobs.push(ray::job::read(document, known, findings));
            }
            ("kueue.x-k8s.io", "Workload") => {
                self.owners.push(kueue::workload(document, known, findings));
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
            (group, kind) => self.other(at, group, kind, findings),
        }
    }

    /// A kind that is told as ignored, or refused.
    fn other(&mut self, at: &At, group: &str, kind: &str, findings: &mut Findings) {
        let at = at.field("kind");
        let aside = ASIDE.iter().find(|(of, kinds, _)| *of == group && kinds.contains(&kind));
        if let Some((_, _, why)) = aside {
            return findings.note(&at, format!("ignored: {why} ({kind})"));
        }
        self.has_unread = true;
        findings.fault(
            &at,
            format!(
                "{} of {} is not read here; read are Job, Pod, JobSet, LeaderWorkerSet, Workload, PodGroup, \
                 ResourceClaimTemplate, RayCluster, RayJob, RayService, Kubeflow's jobs and native jobs",
                quote(kind),
                if group.is_empty() { "the core API".to_owned() } else { quote(group) }
            ),
        );
    }

    fn into_job(mut self, findings: &mut Findings) -> v1::JobSpec {
        for ray_job in std::mem::take(&mut self.ray_jobs) {
            ray::job::join(ray_job, &mut self.owners, findings);
        }
        if self.owners.is_empty() {
            if !self.has_unread {
                findings.fault(
                    &At::root(),
                    "says nothing of what the pods need: give the Job, the Pods, the RayCluster \
                     or the RayJob in the same text",
                );
            }
            return v1::JobSpec::default();
        }
        let belong = self.belong_together(findings);
        let mut members = self.members();
        merge_alike(&mut members);
        self.pin_kubernetes(&mut members, findings);
        self.pin_kai(&mut members, findings);
        kueue::pin_podset_groups(&mut members);
        yunikorn::task_groups(&mut members, findings);
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
                ("Workload", members.and_then(|one| Some(one.workload.as_ref()?.name.clone()))),
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
        let (_, group) = self
            .pod_groups
            .iter()
            .find(|(_, one)| one.metadata.name.as_deref() == Some(pod_group))?;
        Some(group.spec.template()?.1.workload_name)
    }

    /// Name of a job of several owners: that of what ties them.
    fn common_name(&self, members: &[Members]) -> Option<String> {
        let first = members.first()?;
        if let Some(workload) = &first.workload {
            return Some(workload.name.clone());
        }
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
        for (at, owner) in self.owners.iter_mut().enumerate() {
            owner.members.iter_mut().for_each(|one| one.owner = at);
            all.append(&mut owner.members);
        }
        all
    }

    /// Holds members to Kubernetes' pod groups.
    fn pin_kubernetes(&self, members: &mut [Members], findings: &mut Findings) {
        let mut used = Vec::new();
        let groups: Vec<(At, Rule)> = self
            .pod_groups
            .iter()
            .map(|(at, group)| (at.clone(), group.rule(at, &self.workloads, findings)))
            .collect();
        for (at, rule) in &groups {
            let named =
                |one: &Members| one.pod_group.as_ref().is_some_and(|of| of.name == rule.name);
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
                group.spec.template().is_some_and(|(_, of)| of.workload_name == workload.name)
            });
            if !by_group {
                self.pin_workload(workload, members, findings);
            }
        }
        gang::loose_references(&self.workloads, members, findings);
    }

    /// Holds members to a workload that no pod group stands for.
    fn pin_workload(&self, workload: &Workload, members: &mut [Members], findings: &mut Findings) {
        if let Some(controller) = &workload.controller {
            let is_here = self
                .owners
                .iter()
                .any(|owner| owner.kind == controller.kind && owner.name == controller.name);
            if !is_here {
                let at = workload.at.down(&["spec", "controllerRef"]);
                let (kind, name) = (quote(&controller.kind), quote(&controller.name));
                return findings.fault(&at, format!("no {kind} {name} stands in this text"));
            }
        }
        if workload.is_named_by_pods(members) {
            return workload.pin_by_pods(members, findings);
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
    fn pin_kai(&self, members: &mut [Members], findings: &mut Findings) {
        for (at, group) in &self.kai_groups {
            kai::pin(at, group, members, findings);
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

    fn job(mut self, mut members: Vec<Members>, findings: &mut Findings) -> v1::JobSpec {
        relation::unique_names(&mut self.owners, &mut members);
        let Some(first) = self.owners.first() else { return v1::JobSpec::default() };
        let pinned = |read: fn(&Pinned) -> bool| {
            self.owners.iter().map(|owner| &owner.pinned).find(|pinned| read(pinned))
        };
        let default_kind = match first.kind {
            "RayCluster" | "RayJob" | "RayService" => v1::JobKind::Ray,
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
            priority: pinned(|one| one.priority != 0).map_or(0, |one| one.priority),
            duration_s: self
                .owners
                .iter()
                .fold(None, |least, owner| shorter(least, owner.duration_s))
                .unwrap_or_default(),
            labels: relation::labels(&self.owners, &members, findings),
            ..v1::JobSpec::default()
        };
        let owners = self.owners.iter().map(|owner| &owner.pinned);
        spec.preemption = preemption::of_job(&first.at, owners, &members, findings);
        kueue::total_count(&self.owners, &members, findings);
        relation::bonds(&mut spec, &mut members);
        relation::terms(&mut spec, &mut members, findings);
        spec.affinities.extend(self.owners.iter().flat_map(|owner| owner.affinities.clone()));
        spec.groups = members.into_iter().map(|one| finish_group(one.group)).collect();
        relation::hoist(&mut spec);
        spec
    }
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
