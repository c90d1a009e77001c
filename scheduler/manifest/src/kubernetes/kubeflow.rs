//! Kubeflow's training operator: `PyTorchJob`, `TFJob`, `MPIJob`, `XGBoostJob`, `PaddleJob`, `JAXJob`; and `TrainJob`.
//!
//! **Invariant:** each kind of replica becomes a group; a minimum over all of them is kept only where it says which may
//! be missing.

use super::claim::Known;
use super::job::{Owner, name_of};
use super::members::{Members, deadline, least_of_all, priority, shorter};
use super::pinned::{NO_QUEUES, On, Pinned};
use super::pod::{self, Metadata, Object, PodTemplate};
use super::resources;
use crate::decode::{Rest, Verdict, decode, word};
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use crate::label::Conditions;
use crate::shape;
use proto::v1;
use serde::Deserialize;
use std::collections::BTreeMap;

const LIFECYCLE: Verdict =
    Verdict::Ignored("lost members are replaced, and failed ones as often as muster allows");
const OVER: Verdict = Verdict::Ignored("jobs that are over hold nothing");
const STARTED: Verdict =
    Verdict::Ignored("about what runs inside a pod, it has no say in where members go");
const MANAGED: Verdict = Verdict::Ignored("muster manages what it is given");

/// What becomes of fields that the structs below do not name.
const REST: Rest = &[
    (
        "KubeflowSpec",
        &[
            "nprocPerNode",
            "slotsPerWorker",
            "mainContainer",
            "sshAuthMountPath",
            "mpiImplementation",
            "runLauncherAsWorker",
            "enableDynamicWorker",
        ],
        STARTED,
    ),
    (
        "KubeflowSpec",
        &["successPolicy"],
        Verdict::Refused("a job is done when all its members are"),
    ),
    ("KubeflowSpec", &["cleanPodPolicy", "ttlSecondsAfterFinished"], OVER),
    ("KubeflowSpec", &["backoffLimit"], LIFECYCLE),
    ("ReplicaSpec", &["restartPolicy"], LIFECYCLE),
    ("RunPolicy", &["cleanPodPolicy", "ttlSecondsAfterFinished"], OVER),
    ("RunPolicy", &["backoffLimit"], LIFECYCLE),
    ("RunPolicy", &["managedBy"], MANAGED),
    ("SchedulingPolicy", &["queue"], Verdict::Ignored(NO_QUEUES)),
    (
        "SchedulingPolicy",
        &["minResources"],
        Verdict::Ignored("what the members themselves need counts"),
    ),
    (
        "SchedulingPolicy",
        &["scheduleTimeoutSeconds"],
        Verdict::Ignored("a job waits until it fits or is cancelled; nothing is held meanwhile"),
    ),
    (
        "ElasticPolicy",
        &[
            "rdzvBackend",
            "rdzvPort",
            "rdzvHost",
            "rdzvId",
            "rdzvConf",
            "standalone",
            "nProcPerNode",
            "maxRestarts",
        ],
        STARTED,
    ),
    (
        "ElasticPolicy",
        &["metrics"],
        Verdict::Ignored("muster does not scale by itself; `muster scale` does, within the bounds"),
    ),
    ("Trainer", &["image", "command", "args", "env", "numProcPerNode"], STARTED),
    (
        "TrainSpec",
        &["initializer", "datasetConfig", "modelConfig"],
        Verdict::Ignored("what fetches data and models first is no member of the job"),
    ),
    ("TrainSpec", &["managedBy"], MANAGED),
    (
        "TrainSpec",
        &["podSpecOverrides", "podTemplateOverrides", "runtimePatches"],
        Verdict::Refused(
            "it changes a runtime, which is not read here; submit the JobSet that comes of it",
        ),
    ),
    ("RuntimeRef", &["apiGroup"], STARTED),
];

const OWN_MINIMA: &str =
    "Leave it out where all are needed; workers have a minimum in elasticPolicy.minReplicas";

type KubeflowDocument = Object<KubeflowSpec>;

/// A map from kinds of replicas to what they are.
type Replicas = BTreeMap<String, ReplicaSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct KubeflowSpec {
    run_policy: RunPolicy,
    /// Where it stood before there was a run policy.
    active_deadline_seconds: Option<u64>,
    elastic_policy: Option<ElasticPolicy>,
    launcher_creation_policy: Option<String>,
    pytorch_replica_specs: Replicas,
    tf_replica_specs: Replicas,
    mpi_replica_specs: Replicas,
    xgb_replica_specs: Replicas,
    paddle_replica_specs: Replicas,
    jax_replica_specs: Replicas,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ReplicaSpec {
    replicas: Option<u32>,
    template: PodTemplate,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RunPolicy {
    active_deadline_seconds: Option<u64>,
    scheduling_policy: Option<SchedulingPolicy>,
    suspend: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SchedulingPolicy {
    min_available: Option<u32>,
    priority_class: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ElasticPolicy {
    min_replicas: Option<u32>,
    max_replicas: Option<u32>,
}

/// One of the operator's kinds.
struct Kind {
    name: &'static str,
    field: &'static str,
    /// Its kinds of replicas: who leads first, so that rank 0 is the head.
    roles: &'static [&'static str],
    specs: fn(&KubeflowSpec) -> &Replicas,
}

/// The kinds of replicas of which a single one leads the others.
const LEADERS: [&str; 3] = ["Master", "Chief", "Launcher"];
const WORKER: &str = "Worker";

const KINDS: [Kind; 6] = [
    Kind {
        name: "PyTorchJob",
        field: "pytorchReplicaSpecs",
        roles: &["Master", WORKER],
        specs: |spec| &spec.pytorch_replica_specs,
    },
    Kind {
        name: "TFJob",
        field: "tfReplicaSpecs",
        roles: &["Chief", "Master", WORKER, "PS", "Evaluator", "Eval"],
        specs: |spec| &spec.tf_replica_specs,
    },
    Kind {
        name: "MPIJob",
        field: "mpiReplicaSpecs",
        roles: &["Launcher", WORKER],
        specs: |spec| &spec.mpi_replica_specs,
    },
    Kind {
        name: "XGBoostJob",
        field: "xgbReplicaSpecs",
        roles: &["Master", WORKER],
        specs: |spec| &spec.xgb_replica_specs,
    },
    Kind {
        name: "PaddleJob",
        field: "paddleReplicaSpecs",
        roles: &["Master", WORKER],
        specs: |spec| &spec.paddle_replica_specs,
    },
    Kind {
        name: "JAXJob",
        field: "jaxReplicaSpecs",
        roles: &[WORKER],
        specs: |spec| &spec.jax_replica_specs,
    },
];

/// Whether a kind of `kubeflow.org` is one of the operator's.
pub(super) fn is_kind(kind: &str) -> bool {
    KINDS.iter().any(|known| known.name == kind)
}

/// Reads one of the operator's kinds.
pub(super) fn job(
    document: &Document,
    kind: &str,
    known: &Known,
    findings: &mut Findings,
) -> Option<Owner> {
    let kind = KINDS.iter().find(|one| one.name == kind)?;
    let at = &document.at;
    let read: KubeflowDocument = decode(at, &document.value, &[REST, pod::REST], findings);
    let name = name_of(at, &read.metadata, findings);
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    let (at_spec, spec) = (at.field("spec"), &read.spec);
    let at_policy = at_spec.field("runPolicy");
    pinned.suspended(&at_policy, spec.run_policy.suspend, findings);
    for other in KINDS.iter().filter(|other| other.name != kind.name) {
        if !(other.specs)(spec).is_empty() {
            let problem = format!("unknown field; a {} has {}", kind.name, kind.field);
            findings.fault(&at_spec.field(other.field), problem);
        }
    }
    let at_roles = at_spec.field(kind.field);
    let of = read.metadata.name.as_deref();
    let mut members = groups(&at_roles, kind, (kind.specs)(spec), of, known, findings);
    if let Some(policy) = &spec.elastic_policy {
        elastic(&at_spec.field("elasticPolicy"), policy, &mut members, findings);
    }
    if let Some(policy) = &spec.launcher_creation_policy {
        launcher(&at_spec.field("launcherCreationPolicy"), policy, &mut members, findings);
    }
    if let Some(policy) = &spec.run_policy.scheduling_policy {
        let at = at_policy.field("schedulingPolicy");
        priority(&at, None, policy.priority_class.as_deref(), findings);
        let is_said = members.iter().any(|one| one.group.replicas_min > 0);
        if let Some(least) = policy.min_available {
            let at = at.field("minAvailable");
            least_of_all(&at, least, is_said, &mut members, OWN_MINIMA, findings);
        }
    }
    pinned.keep_together(&at.field("metadata"), &mut members);
    if members.len() > 1 {
        let text = "the job is over when all of its members are, or when it is cancelled: members that wait for \
                    work hold their machines till then";
        findings.note(&at_roles, text);
    }
    let field = "activeDeadlineSeconds";
    let seconds = deadline(&at_policy, field, spec.run_policy.active_deadline_seconds, findings);
    let seconds =
        shorter(seconds, deadline(&at_spec, field, spec.active_deadline_seconds, findings));
    let of_pods =
        members.iter().fold(pinned.duration_s, |least, one| shorter(least, one.duration_s));
    let duration_s = shorter(seconds, of_pods);
    Some(Owner {
        at: at.clone(),
        kind: kind.name,
        name,
        duration_s,
        pinned,
        members,
        ..Owner::default()
    })
}

/// Its groups, who leads first.
fn groups(
    at: &At,
    kind: &Kind,
    specs: &Replicas,
    job_name: Option<&str>,
    known: &Known,
    findings: &mut Findings,
) -> Vec<Members> {
    // The operator takes the names of roles in any case.
    let is_role = |name: &str, role: &str| name.eq_ignore_ascii_case(role);
    for name in specs.keys().filter(|name| !kind.roles.iter().any(|role| is_role(name, role))) {
        let problem = format!("is none of {}", kind.roles.join(", "));
        findings.fault(&at.field(name), problem);
    }
    if specs.is_empty() {
        findings.fault(at, format!("needs at least one of {}", kind.roles.join(", ")));
    }
    let mut members = Vec::new();
    for role in kind.roles {
        for (name, spec) in specs.iter().filter(|(name, _)| is_role(name, role)) {
            let at = at.field(name);
            let template = &spec.template;
            let role_name = role.to_ascii_lowercase();
            let job_role = match kind.name {
                "MPIJob" => Some(role_name.as_str()),
                _ => LEADERS.contains(role).then_some("master"),
            };
            let made = [
                ("training.kubeflow.org/job-name", job_name),
                ("training.kubeflow.org/replica-type", Some(role_name.as_str())),
                ("training.kubeflow.org/job-role", job_role),
            ];
            let mut one = Members::read(
                &at.field("template"),
                &template.metadata.with_made(&made),
                &template.spec,
                On::Template,
                known,
                findings,
            );
            one.group.name = role_name;
            one.group.replicas = spec.replicas.unwrap_or(1);
            if one.group.replicas == 0 {
                findings.note(&at.field("replicas"), "is 0: the group is left out");
                continue;
            }
            if LEADERS.contains(role) {
                lead(&at, &mut one, &members, findings);
            }
            members.push(one);
        }
    }
    members
}

fn lead(at: &At, one: &mut Members, before: &[Members], findings: &mut Findings) {
    if one.group.replicas > 1 || before.iter().any(|other| other.group.role() == v1::Role::Head) {
        findings.fault(&at.field("replicas"), "is not supported: a job has one head");
    }
    one.group.role = v1::Role::Head.into();
}

/// Workers may be fewer, and may be scaled to more.
fn elastic(at: &At, policy: &ElasticPolicy, members: &mut [Members], findings: &mut Findings) {
    let is_worker = |one: &&mut Members| one.group.name.eq_ignore_ascii_case(WORKER);
    let Some(workers) = members.iter_mut().find(is_worker) else {
        return findings.fault(at, "is about workers, but there are none");
    };
    if let Some(least) = policy.min_replicas {
        workers.at_least(&at.field("minReplicas"), least, findings);
    }
    match policy.max_replicas {
        Some(most) if most < workers.group.replicas => {
            let problem = format!("is {most}, but there are {} workers", workers.group.replicas);
            findings.fault(&at.field("maxReplicas"), problem);
        }
        Some(most) if most > workers.group.replicas => workers.group.replicas_max = most,
        _ => {}
    }
}

/// When MPI's launcher starts.
fn launcher(at: &At, policy: &str, members: &mut [Members], findings: &mut Findings) {
    let words = [("AtStartup", false), ("WaitForWorkersReady", true)];
    let waits = word(at, policy, &words, findings) == Some(true);
    let workers = members.iter().any(|one| one.group.name.eq_ignore_ascii_case(WORKER));
    if let Some(launcher) = members.iter_mut().find(|one| one.group.role() == v1::Role::Head)
        && waits
        && workers
    {
        launcher.group.depends_on = vec![WORKER.to_ascii_lowercase()];
    }
}

type TrainDocument = Object<TrainSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TrainSpec {
    runtime_ref: RuntimeRef,
    trainer: Trainer,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    suspend: Option<bool>,
    active_deadline_seconds: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeRef {
    name: String,
    kind: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Trainer {
    num_nodes: Option<u32>,
    resources_per_node: Option<pod::Resources>,
}

/// Reads a `TrainJob`, as far as it says by itself what it needs: its runtime stands on a cluster.
pub(super) fn train(document: &Document, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let read: TrainDocument = decode(at, &document.value, &[REST, pod::REST], findings);
    let name = name_of(at, &read.metadata, findings);
    let (at_spec, spec) = (at.field("spec"), &read.spec);
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    pinned.suspended(&at_spec, spec.suspend, findings);
    let at_runtime = at_spec.field("runtimeRef");
    let runtime = quote(&spec.runtime_ref.name);
    let at_trainer = at_spec.field("trainer");
    let of_runtime = |field: &str| {
        let problem = format!(
            "missing: the runtime {runtime} says it, which is not read here; say it, or submit the JobSet that \
             comes of it"
        );
        (at_trainer.field(field), problem)
    };
    let nodes = spec.trainer.num_nodes;
    if nodes.is_none_or(|nodes| nodes == 0) {
        let (at, problem) = of_runtime("numNodes");
        findings.fault(&at, problem);
    }
    if spec.trainer.resources_per_node.is_none() {
        let (at, problem) = of_runtime("resourcesPerNode");
        findings.fault(&at, problem);
    }
    let kind = spec.runtime_ref.kind.as_deref().unwrap_or("ClusterTrainingRuntime");
    let text = format!(
        "not read: what the {} {runtime} adds (selectors, tolerations, other members) is not known here",
        crate::text::printable_line(kind)
    );
    findings.note(&at_runtime, text);
    // Labels and annotations for all that comes of it.
    let metadata = Metadata {
        labels: spec.labels.clone(),
        annotations: spec.annotations.clone(),
        ..Metadata::default()
    };
    let of_pods = Pinned::read(&at_spec, &metadata, On::Template, findings);
    let asked = spec.trainer.resources_per_node.clone().unwrap_or_default();
    let at_asked = at_trainer.field("resourcesPerNode");
    let amounts = resources::of_resources(&at_asked, &asked, findings);
    let shape = shape::shape(&at_asked, &amounts, &Conditions::default(), None, findings);
    let mut members = Members::bare(&at_spec, shape, of_pods);
    members.group.name = "node".to_owned();
    members.group.replicas = nodes.unwrap_or_default();
    let mut members = vec![members];
    pinned.keep_together(&at.field("metadata"), &mut members);
    let seconds = spec.active_deadline_seconds;
    let seconds = deadline(&at_spec, "activeDeadlineSeconds", seconds, findings);
    let of_pods =
        members.iter().fold(pinned.duration_s, |least, one| shorter(least, one.duration_s));
    let duration_s = shorter(seconds, of_pods);
    Owner {
        at: at.clone(),
        kind: "TrainJob",
        name,
        duration_s,
        pinned,
        members,
        ..Owner::default()
    }
}
