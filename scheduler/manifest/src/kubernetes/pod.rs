//! Kubernetes' pod template: the fields that steer where pods go, and what becomes of all others.
//!
//! [`REST`] is the list of what is safe to leave aside: fields that only concern how containers run on the
//! node they got. What would change the choice of nodes, or weaken what was asked, is used or refused.
//! **Invariant:** the structs and [`REST`] together are the whole of the API that is known here.

use crate::decode::{Rest, Scalar, Verdict};
use serde::Deserialize;
use std::collections::BTreeMap;

/// muster places; the cluster it hands over runs containers.
const CONTAINER: Verdict =
    Verdict::Ignored("muster does not start containers, it has no say in where they go");
const POD: Verdict = Verdict::Ignored("muster does not start pods, it has no say in where they go");
const VOLUMES: Verdict = Verdict::Ignored(
    "muster does not mount volumes, and one that lies in one place steers nothing",
);
const SERVER: Verdict = Verdict::Ignored("set by the API server");
const STATUS: Verdict = Verdict::Ignored("the state of an object is not a wish");
const SCHEDULER: Verdict = Verdict::Ignored("muster is the scheduler here");

/// What becomes of fields that the structs below do not name.
pub(crate) const REST: Rest = &[
    (
        "Metadata",
        &[
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "ownerReferences",
            "finalizers",
            "managedFields",
            "selfLink",
        ],
        SERVER,
    ),
    (
        "Container",
        &[
            "image",
            "imagePullPolicy",
            "command",
            "args",
            "workingDir",
            "env",
            "envFrom",
            "livenessProbe",
            "readinessProbe",
            "startupProbe",
            "lifecycle",
            "terminationMessagePath",
            "terminationMessagePolicy",
            "securityContext",
            "stdin",
            "stdinOnce",
            "tty",
            "resizePolicy",
            "restartPolicyRules",
        ],
        CONTAINER,
    ),
    ("Container", &["volumeMounts", "volumeDevices"], VOLUMES),
    ("Port", &["containerPort", "protocol", "hostIP"], CONTAINER),
    ("ClaimOfContainer", &["request"], CONTAINER),
    (
        "PodSpec",
        &[
            "restartPolicy",
            "terminationGracePeriodSeconds",
            "dnsPolicy",
            "dnsConfig",
            "serviceAccountName",
            "serviceAccount",
            "automountServiceAccountToken",
            "hostPID",
            "hostIPC",
            "hostUsers",
            "hostname",
            "hostnameOverride",
            "subdomain",
            "setHostnameAsFQDN",
            "hostAliases",
            "shareProcessNamespace",
            "securityContext",
            "imagePullSecrets",
            "enableServiceLinks",
            "readinessGates",
            "ephemeralContainers",
            "runtimeClassName",
        ],
        POD,
    ),
    ("PodSpec", &["volumes"], VOLUMES),
    ("PodSpec", &["schedulerName"], SCHEDULER),
    ("PodTemplate", &["apiVersion", "kind"], POD),
    ("Object", &["status"], STATUS),
    (
        "Toleration",
        &["tolerationSeconds"],
        Verdict::Ignored("nodes here have no taints that drive running members away"),
    ),
    (
        "SpreadConstraint",
        &["matchLabelKeys"],
        Verdict::Ignored("the replicas of one group always share these labels"),
    ),
    (
        "SpreadConstraint",
        &["minDomains"],
        Verdict::Refused("the number of domains has no lower bound here"),
    ),
    (
        "PodTerm",
        &["namespaces", "namespaceSelector"],
        Verdict::Refused("jobs here are seen by their own tenant only"),
    ),
    (
        "PodTerm",
        &["matchLabelKeys", "mismatchLabelKeys"],
        Verdict::Refused("write the labels out in labelSelector.matchLabels"),
    ),
    (
        "NodeAffinity",
        &["preferredDuringSchedulingIgnoredDuringExecution"],
        Verdict::Ignored("a wish, and muster has no wishes about nodes' labels yet"),
    ),
];

/// What an object is called, and what is pinned to it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: Option<String>,
    pub(crate) generate_name: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) annotations: BTreeMap<String, String>,
    /// Labels that no text says: their controller gives them to the pods, which find each other by them.
    #[serde(skip)]
    pub(crate) made: BTreeMap<String, String>,
}

impl Metadata {
    /// The same, of pods to which their controller gives more labels; names that are not known make none.
    pub(crate) fn with_made(&self, labels: &[(&str, Option<&str>)]) -> Self {
        let mut all = self.clone();
        let known = labels.iter().filter_map(|(key, value)| Some((*key, (*value)?)));
        all.made.extend(known.map(|(key, value)| (key.to_owned(), value.to_owned())));
        all
    }
}

/// A whole object of the API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Object<S> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    pub(crate) metadata: Metadata,
    pub(crate) spec: S,
}

/// A pod to be copied.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodTemplate {
    pub(crate) metadata: Metadata,
    pub(crate) spec: PodSpec,
}

/// A pod on its own.
pub(crate) type PodDocument = Object<PodSpec>;

/// The part of a pod that steers where it goes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) node_name: Option<String>,
    pub(crate) affinity: Option<Affinity>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) topology_spread_constraints: Vec<SpreadConstraint>,
    pub(crate) priority_class_name: Option<String>,
    pub(crate) priority: Option<i32>,
    pub(crate) preemption_policy: Option<String>,
    pub(crate) scheduling_gates: Vec<Gate>,
    pub(crate) scheduling_group: Option<SchedulingGroup>,
    pub(crate) workload_ref: Option<WorkloadRef>,
    pub(crate) resource_claims: Vec<PodClaim>,
    pub(crate) resources: Option<Resources>,
    pub(crate) overhead: BTreeMap<String, Scalar>,
    pub(crate) containers: Vec<Container>,
    pub(crate) init_containers: Vec<Container>,
    pub(crate) host_network: Option<bool>,
    pub(crate) active_deadline_seconds: Option<u64>,
    pub(crate) os: Option<Os>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Os {
    pub(crate) name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gate {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SchedulingGroup {
    pub(crate) pod_group_name: Option<String>,
}

/// The group of a workload that a pod is of, as scheduling.k8s.io/v1alpha1 says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WorkloadRef {
    pub(crate) name: String,
    pub(crate) pod_group: String,
    pub(crate) pod_group_replica_key: String,
}

/// A claim of devices by a pod, a pod group or a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodClaim {
    pub(crate) name: String,
    pub(crate) resource_claim_name: Option<String>,
    pub(crate) resource_claim_template_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Container {
    #[serde(rename = "name")]
    pub(crate) _name: Option<String>,
    pub(crate) resources: Resources,
    pub(crate) ports: Vec<Port>,
    pub(crate) restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Port {
    #[serde(rename = "name")]
    pub(crate) _name: Option<String>,
    pub(crate) host_port: Option<u32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Resources {
    pub(crate) requests: BTreeMap<String, Scalar>,
    pub(crate) limits: BTreeMap<String, Scalar>,
    pub(crate) claims: Vec<ClaimOfContainer>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ClaimOfContainer {
    pub(crate) name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Toleration {
    pub(crate) key: Option<String>,
    pub(crate) operator: Option<String>,
    pub(crate) value: Option<String>,
    pub(crate) effect: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct SpreadConstraint {
    pub(crate) max_skew: Option<u32>,
    pub(crate) topology_key: String,
    pub(crate) when_unsatisfiable: Option<String>,
    pub(crate) label_selector: Option<LabelSelector>,
    pub(crate) node_affinity_policy: Option<String>,
    pub(crate) node_taints_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LabelSelector {
    pub(crate) match_labels: BTreeMap<String, String>,
    pub(crate) match_expressions: Vec<NodeExpression>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Affinity {
    pub(crate) node_affinity: Option<NodeAffinity>,
    pub(crate) pod_affinity: Option<PodAffinity>,
    pub(crate) pod_anti_affinity: Option<PodAffinity>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) required: Option<NodeTerms>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeTerms {
    pub(crate) node_selector_terms: Vec<NodeTerm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct NodeTerm {
    pub(crate) match_expressions: Vec<NodeExpression>,
    pub(crate) match_fields: Vec<NodeExpression>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeExpression {
    pub(crate) key: String,
    pub(crate) operator: String,
    pub(crate) values: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) required: Vec<PodTerm>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub(crate) preferred: Vec<WeightedPodTerm>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct WeightedPodTerm {
    pub(crate) weight: Option<u32>,
    pub(crate) pod_affinity_term: PodTerm,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodTerm {
    pub(crate) label_selector: Option<LabelSelector>,
    pub(crate) topology_key: String,
}
