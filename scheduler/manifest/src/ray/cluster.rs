//! KubeRay's `RayCluster`: a head and groups of workers.
//!
//! **Invariant:** `minReplicas` and `maxReplicas` stay with their group, times `numOfHosts`; a replica of several
//! hosts becomes a segment of as many members.

use crate::decode::{Rest, Scalar, Verdict, decode};
use crate::document::Document;
use crate::finding::{At, Findings};
use crate::kubernetes::pod::{self, Object, PodTemplate};
use crate::kubernetes::{Known, Members, On, Owner, Pinned, name_of, shorter};
use crate::label::{Conditions, Operator};
use crate::shape;
use proto::v1;
use serde::Deserialize;
use std::collections::BTreeMap;

const SERVICES: Verdict =
    Verdict::Ignored("muster makes no services, it has no say in where members go");
const NO_AUTOSCALING: Verdict = Verdict::Ignored("for the autoscaler, which is off");
const SECURITY: Verdict =
    Verdict::Refused("muster does not set it up, and leaving it out would weaken the cluster");

/// What becomes of fields that the structs below do not name.
pub(crate) const REST: Rest = &[
    (
        "ClusterSpec",
        &["rayVersion"],
        Verdict::Ignored("agents report what they run; the version steers no placement"),
    ),
    ("ClusterSpec", &["autoscalerOptions"], NO_AUTOSCALING),
    ("ClusterSpec", &["headServiceAnnotations", "historyServerOptions"], SERVICES),
    (
        "ClusterSpec",
        &["gcsFaultToleranceOptions"],
        Verdict::Ignored("for the head's own storage, it has no say in where members go"),
    ),
    (
        "ClusterSpec",
        &["upgradeStrategy", "managedBy"],
        Verdict::Ignored("muster manages what it is given"),
    ),
    ("ClusterSpec", &["authOptions", "tlsOptions", "networkPolicy"], SECURITY),
    ("HeadGroup", &["headService", "enableIngress", "ingressOptions", "serviceType"], SERVICES),
    ("HeadGroup", &["rayStartParams"], START),
    ("WorkerGroup", &["rayStartParams"], START),
    ("WorkerGroup", &["idleTimeoutSeconds", "scaleStrategy"], NO_AUTOSCALING),
];

const START: Verdict =
    Verdict::Ignored("Ray is started with what the pod's resources say; the pod template counts");

type ClusterDocument = Object<ClusterSpec>;

/// `RayClusterSpec`, in a `RayCluster` and in a `RayJob`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ClusterSpec {
    head_group_spec: Option<HeadGroup>,
    worker_group_specs: Vec<WorkerGroup>,
    enable_in_tree_autoscaling: Option<bool>,
    suspend: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct HeadGroup {
    template: PodTemplate,
    resources: BTreeMap<String, Scalar>,
    labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WorkerGroup {
    group_name: Option<String>,
    replicas: Option<u32>,
    min_replicas: Option<u32>,
    max_replicas: Option<u32>,
    num_of_hosts: Option<u32>,
    suspend: Option<bool>,
    priority: Option<i32>,
    template: PodTemplate,
    resources: BTreeMap<String, Scalar>,
    labels: BTreeMap<String, String>,
}

/// What KubeRay itself puts where no `maxReplicas` is given.
const NO_MAXIMUM: u32 = i32::MAX as u32;

/// Name of the head's group.
const HEAD: &str = "head";

/// Reads a `RayCluster`.
pub(crate) fn read(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let read: ClusterDocument = decode(at, &document.value, &[REST, pod::REST], findings);
    let name = name_of(at, &read.metadata, findings);
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    let of = read.metadata.name.as_deref();
    let mut members = members(&at.field("spec"), of, &read.spec, &pinned, known, findings);
    pinned.keep_together(&at.field("metadata"), &mut members);
    Owner {
        at: at.clone(),
        kind: "RayCluster",
        name,
        duration_s: duration(&pinned, &members),
        pinned,
        members,
        ..Owner::default()
    }
}

/// Time that a cluster may run: the shortest that anything of it says.
pub(super) fn duration(pinned: &Pinned, members: &[Members]) -> Option<u64> {
    members.iter().fold(pinned.duration_s, |least, one| shorter(least, one.duration_s))
}

/// The members of a cluster, whose name may not be known yet: the head first.
pub(super) fn members(
    at: &At,
    cluster: Option<&str>,
    spec: &ClusterSpec,
    pinned: &Pinned,
    known: &Known,
    findings: &mut Findings,
) -> Vec<Members> {
    pinned.suspended(at, spec.suspend, findings);
    if spec.enable_in_tree_autoscaling == Some(true) {
        findings.fault(
            &at.field("enableInTreeAutoscaling"),
            "is not supported: groups keep their `replicas` until `muster scale` changes them; \
             if that will do, leave it out",
        );
    }
    let mut members = Vec::new();
    match &spec.head_group_spec {
        None => findings.fault(&at.field("headGroupSpec"), "missing"),
        Some(head) => {
            let at = at.field("headGroupSpec");
            let made = made(cluster, "head", Some("headgroup"));
            let mut one = of_template(&at, &head.template, &made, &head.labels, known, findings);
            own_resources(&at.field("resources"), &head.resources, findings);
            one.group.name = HEAD.to_owned();
            one.group.role = v1::Role::Head.into();
            one.group.replicas = 1;
            members.push(one);
        }
    }
    for (index, worker) in spec.worker_group_specs.iter().enumerate() {
        let at = at.field("workerGroupSpecs").index(index);
        members.extend(workers(&at, cluster, worker, known, findings));
    }
    members
}

/// A label that an object gives its pods, and its value where that is known.
type Made<'a> = (&'static str, Option<&'a str>);

/// Labels that KubeRay gives the pods of a group.
fn made<'a>(cluster: Option<&'a str>, kind: &'a str, group: Option<&'a str>) -> [Made<'a>; 4] {
    [
        ("ray.io/cluster", cluster),
        ("ray.io/is-ray-node", Some("yes")),
        ("ray.io/node-type", Some(kind)),
        ("ray.io/group", group),
    ]
}

fn of_template(
    at: &At,
    template: &PodTemplate,
    made: &[Made<'_>],
    labels: &BTreeMap<String, String>,
    known: &Known,
    findings: &mut Findings,
) -> Members {
    let at_template = at.field("template");
    let mut one = Members::read(
        &at_template,
        &template.metadata.with_made(made),
        &template.spec,
        On::Template,
        known,
        findings,
    );
    let mut conditions = Conditions::default();
    for (key, value) in labels {
        let at = at.field("labels").field(key);
        // What a group's Ray nodes will be is what their machines must be.
        if key == "ray.io/accelerator-type" || crate::topology::own_label(key).is_some() {
            conditions.add(&at, key, Operator::In, vec![value.clone()], findings);
        } else {
            findings.note(&at, "ignored: a label that Ray nodes get, not one of machines");
        }
    }
    one.group.selectors.extend(conditions.selectors);
    if let (Some(gpu_at), Some(shape)) = (conditions.gpu_at, one.group.shape.as_mut()) {
        shape::restrict_all(&gpu_at, shape, &conditions.gpu, findings);
    }
    one
}

/// Resources of a group stand in place of what Ray would find out; they do not change the pods' own.
fn own_resources(at: &At, resources: &BTreeMap<String, Scalar>, findings: &mut Findings) {
    for name in resources.keys() {
        let text = "ignored: what Ray offers on the node; the pod's own resources count";
        findings.note(&at.field(name), text);
    }
}

fn workers(
    at: &At,
    cluster: Option<&str>,
    worker: &WorkerGroup,
    known: &Known,
    findings: &mut Findings,
) -> Option<Members> {
    if worker.suspend == Some(true) {
        let problem = "is true: leave the group out until it is to run";
        findings.fault(&at.field("suspend"), problem);
    }
    if worker.priority.is_some_and(|priority| priority != 0) {
        let problem =
            "is not supported: the groups of a job are placed together, none before another";
        findings.fault(&at.field("priority"), problem);
    }
    let made = made(cluster, "worker", worker.group_name.as_deref());
    let mut one = of_template(at, &worker.template, &made, &worker.labels, known, findings);
    own_resources(&at.field("resources"), &worker.resources, findings);
    match &worker.group_name {
        Some(name) => one.group.name.clone_from(name),
        None => findings.fault(&at.field("groupName"), "missing"),
    }
    let hosts = worker.num_of_hosts.unwrap_or(1);
    if hosts == 0 {
        findings.fault(&at.field("numOfHosts"), "must be at least 1");
    }
    let replicas = replicas(at, worker, findings);
    if replicas == 0 {
        findings.note(&at.field("replicas"), "is 0: the group is left out");
        return None;
    }
    one.group.replicas = times(&at.field("replicas"), replicas, hosts, findings);
    minimum(at, worker, replicas, hosts, &mut one, findings);
    maximum(at, worker, replicas, hosts, &mut one, findings);
    if hosts > 1 {
        let at = at.field("numOfHosts");
        segments(&at, hosts, &mut one, findings);
    }
    Some(one)
}

fn times(at: &At, replicas: u32, hosts: u32, findings: &mut Findings) -> u32 {
    replicas.checked_mul(hosts).unwrap_or_else(|| {
        findings.fault(at, "times numOfHosts is too large");
        0
    })
}

/// Replicas wanted; the autoscaler's bounds hold them, as in KubeRay.
fn replicas(at: &At, worker: &WorkerGroup, findings: &mut Findings) -> u32 {
    let least = worker.min_replicas.unwrap_or(0);
    let most = worker.max_replicas.unwrap_or(u32::MAX);
    if least > most {
        let problem = format!("is {least}, more than the maxReplicas of {most}");
        findings.fault(&at.field("minReplicas"), problem);
        return least;
    }
    let wanted = worker.replicas.unwrap_or(least);
    let held = wanted.clamp(least, most);
    if held != wanted {
        let text = format!("read as {held}: from minReplicas to maxReplicas");
        findings.note(&at.field("replicas"), text);
    }
    held
}

fn minimum(
    at: &At,
    worker: &WorkerGroup,
    replicas: u32,
    hosts: u32,
    one: &mut Members,
    findings: &mut Findings,
) {
    let at = at.field("minReplicas");
    match worker.min_replicas {
        Some(0) => findings.note(
            &at,
            "read as: all replicas are needed; say 1 or more to start with fewer, or to scale down to them",
        ),
        Some(least) if least < replicas => {
            one.group.replicas_min = times(&at, least, hosts, findings);
        }
        _ => {}
    }
}

/// How far the group may be scaled up.
fn maximum(
    at: &At,
    worker: &WorkerGroup,
    replicas: u32,
    hosts: u32,
    one: &mut Members,
    findings: &mut Findings,
) {
    let at = at.field("maxReplicas");
    match worker.max_replicas {
        Some(NO_MAXIMUM) => findings.note(
            &at,
            "read as: `replicas`, as this number stands for no bound; say how many there may be to scale up to them",
        ),
        Some(most) if most > replicas => {
            one.group.replicas_max = times(&at, most, hosts, findings);
        }
        _ => {}
    }
}

/// The hosts of one replica stay on one LAN, or inside what the template's annotations say.
fn segments(at: &At, hosts: u32, one: &mut Members, findings: &mut Findings) {
    match one.group.segments.first() {
        None => {
            findings.note(at, format!("read as: every {hosts} members on one site"));
            let level = v1::TopologyLevel::Site.into();
            one.group.segments.push(v1::Segment { level, size: hosts, exclusive: false });
        }
        Some(first) if first.size.is_multiple_of(hosts) => {}
        Some(first) => findings.fault(
            at,
            format!("is {hosts}, but the slices of the template's annotations have {}", first.size),
        ),
    }
}
