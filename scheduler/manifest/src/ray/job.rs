//! KubeRay's `RayJob`: a cluster and what to run on it.
//!
//! **Invariant:** the cluster is what muster provides; the entrypoint stays with who submits it.

use super::cluster::{self, ClusterSpec};
use crate::decode::{Rest, Verdict, decode};
use crate::document::Document;
use crate::finding::{At, Findings};
use crate::kubernetes::pod::{self, Object};
use crate::kubernetes::{Known, On, Owner, Pinned, deadline, name_of, shorter};
use serde::Deserialize;
use std::collections::BTreeMap;

const SUBMISSION: Verdict =
    Verdict::Ignored("muster provides the cluster; submit the job to it when it is ready");
const ENDING: Verdict =
    Verdict::Ignored("cancel the job to release the cluster, or give a deadline");

/// What becomes of fields that the structs below do not name.
const REST: Rest = &[
    (
        "RayJobSpec",
        &[
            "entrypoint",
            "runtimeEnvYAML",
            "jobId",
            "submissionMode",
            "entrypointResources",
            "entrypointNumCpus",
            "entrypointNumGpus",
            "submitterPodTemplate",
            "submitterConfig",
            "metadata",
        ],
        SUBMISSION,
    ),
    (
        "RayJobSpec",
        &["ttlSecondsAfterFinished", "shutdownAfterJobFinishes", "deletionStrategy"],
        ENDING,
    ),
    (
        "RayJobSpec",
        &["backoffLimit"],
        Verdict::Ignored("lost members are replaced, and failed ones as often as muster allows"),
    ),
    (
        "RayJobSpec",
        &["preRunningDeadlineSeconds"],
        Verdict::Refused("a job waits until it fits or is cancelled"),
    ),
    ("RayJobSpec", &["schedule"], Verdict::Refused("jobs are submitted when they are to run")),
    ("RayJobSpec", &["managedBy"], Verdict::Ignored("muster manages what it is given")),
];

type RayJobDocument = Object<RayJobSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RayJobSpec {
    ray_cluster_spec: Option<ClusterSpec>,
    cluster_selector: BTreeMap<String, String>,
    active_deadline_seconds: Option<u64>,
    suspend: Option<bool>,
}

/// A `RayJob` whose cluster may stand elsewhere in the text.
pub(crate) struct Parsed {
    owner: Owner,
    has_cluster: bool,
    selector: BTreeMap<String, String>,
}

/// Label by which a RayJob names its cluster.
const CLUSTER_LABEL: &str = "ray.io/cluster";

/// Reads a `RayJob`.
pub(crate) fn read(document: &Document, known: &Known, findings: &mut Findings) -> Parsed {
    let at = &document.at;
    let rest = [REST, cluster::REST, pod::REST];
    let read: RayJobDocument = decode(at, &document.value, &rest, findings);
    let spec = read.spec;
    let at_spec = at.field("spec");
    if spec.active_deadline_seconds.is_some() {
        let text = "counted from when the cluster is ready";
        findings.note(&at_spec.field("activeDeadlineSeconds"), text);
    }
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    pinned.suspended(&at_spec, spec.suspend, findings);
    let cluster = spec.ray_cluster_spec.as_ref();
    let at_cluster = at_spec.field("rayClusterSpec");
    let members = cluster
        .map(|cluster| cluster::members(&at_cluster, None, cluster, &pinned, known, findings));
    let seconds = spec.active_deadline_seconds;
    let seconds = deadline(&at_spec, "activeDeadlineSeconds", seconds, findings);
    let mut members = members.unwrap_or_default();
    pinned.keep_together(&at.field("metadata"), &mut members);
    let owner = Owner {
        at: at.clone(),
        kind: "RayJob",
        name: name_of(at, &read.metadata, findings),
        duration_s: shorter(seconds, cluster::duration(&pinned, &members)),
        pinned,
        members,
        ..Owner::default()
    };
    let has_cluster = cluster.is_some();
    if has_cluster && !spec.cluster_selector.is_empty() {
        findings.fault(&at_spec.field("clusterSelector"), "must not come with rayClusterSpec");
    }
    if !has_cluster && spec.cluster_selector.is_empty() {
        findings.fault(&at_spec.field("rayClusterSpec"), "missing");
    }
    Parsed { owner, has_cluster, selector: spec.cluster_selector }
}

/// Puts a job beside the other owners, or joins it with the cluster that it names.
pub(crate) fn join(job: Parsed, owners: &mut Vec<Owner>, findings: &mut Findings) {
    if job.has_cluster || job.selector.is_empty() {
        owners.push(job.owner);
        return;
    }
    let is_meant = |owner: &Owner| {
        owner.kind == "RayCluster"
            && job.selector.iter().all(|(key, value)| {
                (key == CLUSTER_LABEL && *value == owner.name)
                    || owner.pinned.labels.get(key) == Some(value)
            })
    };
    let at: At = job.owner.at.down(&["spec", "clusterSelector"]);
    match owners.iter_mut().find(|owner| is_meant(owner)) {
        Some(cluster) => {
            findings.note(&at, "read as the RayCluster of this text");
            cluster.duration_s = shorter(cluster.duration_s, job.owner.duration_s);
            let at = job.owner.at.field("metadata");
            job.owner.pinned.keep_together(&at, &mut cluster.members);
            cluster.pinned.take_over(job.owner.pinned);
        }
        None => {
            findings.fault(
                &at,
                "selects a cluster that is not in this text: submit to it, there is nothing to place",
            );
            owners.push(job.owner);
        }
    }
}
