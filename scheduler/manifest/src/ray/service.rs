//! KubeRay's `RayService`: a cluster and the applications that Ray Serve runs on it.
//!
//! **Invariant:** the cluster is what muster provides; what is served on it stays with who deploys it.

use super::cluster::{self, ClusterSpec};
use crate::decode::{Rest, Verdict, decode};
use crate::document::Document;
use crate::finding::Findings;
use crate::kubernetes::pod::{self, Object};
use crate::kubernetes::{Known, On, Owner, Pinned, name_of};
use serde::Deserialize;

const SERVING: Verdict =
    Verdict::Ignored("muster provides the cluster; deploy the applications to it when it is ready");

/// What becomes of fields that the struct below does not name.
const REST: Rest = &[
    (
        "ServiceSpec",
        &[
            "serveConfigV2",
            "serveService",
            "serviceUnhealthySecondThreshold",
            "deploymentUnhealthySecondThreshold",
            "excludeHeadPodFromServeSvc",
        ],
        SERVING,
    ),
    (
        "ServiceSpec",
        &["upgradeStrategy", "rayClusterDeletionDelaySeconds"],
        Verdict::Ignored("a new version is a job of its own: submit it, then cancel the old one"),
    ),
    ("ServiceSpec", &["managedBy"], Verdict::Ignored("muster manages what it is given")),
];

type ServiceDocument = Object<ServiceSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec {
    ray_cluster_config: Option<ClusterSpec>,
    suspend: Option<bool>,
}

/// Reads a `RayService`.
pub(crate) fn read(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let rest = [REST, cluster::REST, pod::REST];
    let read: ServiceDocument = decode(at, &document.value, &rest, findings);
    let name = name_of(at, &read.metadata, findings);
    let pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    let at_spec = at.field("spec");
    pinned.suspended(&at_spec, read.spec.suspend, findings);
    let at_cluster = at_spec.field("rayClusterConfig");
    let mut members = match &read.spec.ray_cluster_config {
        Some(cluster) => cluster::members(&at_cluster, None, cluster, &pinned, known, findings),
        None => {
            findings.fault(&at_cluster, "missing");
            Vec::new()
        }
    };
    pinned.keep_together(&at.field("metadata"), &mut members);
    Owner {
        at: at.clone(),
        kind: "RayService",
        name,
        duration_s: cluster::duration(&pinned, &members),
        pinned,
        members,
        ..Owner::default()
    }
}
