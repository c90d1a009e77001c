//! Labels that no manifest says: controllers give them to their pods, and people select pods by them.

use crate::{faults, group, job, kubernetes_job, notes, ray_cluster};
use proto::v1::{JobSpec, Strategy, TopologyLevel};

fn with_others(spec: &JobSpec) -> Vec<&str> {
    let labels = spec.affinities.iter().flat_map(|one| one.with_job_labels.keys());
    labels.map(String::as_str).collect()
}

fn near(kind: &str, key: &str, value: &str, topology: &str) -> String {
    format!(
        "affinity: {{{kind}: {{requiredDuringSchedulingIgnoredDuringExecution: [{{labelSelector: {{matchLabels: \
         {{{key}: {value}}}}}, topologyKey: {topology}}}]}}}}"
    )
}

/// One pod of a Job on a node, as it is written most often.
#[test]
fn the_pods_of_a_job_find_each_other_by_its_name() {
    for key in ["job-name", "batch.kubernetes.io/job-name"] {
        let pod = near("podAntiAffinity", key, "train", "kubernetes.io/hostname");
        let spec = job(&kubernetes_job("", "", "", &pod));
        assert_eq!((spec.strategy(), with_others(&spec).len()), (Strategy::StrictSpread, 0));
        let pod = pod.replace("train", "other");
        assert_eq!(with_others(&job(&kubernetes_job("", "", "", &pod))), [key]);
    }
    let spread = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule, \
                  labelSelector: {matchLabels: {job-name: train}}}]";
    let spec = job(&kubernetes_job("", "", "", spread));
    assert_eq!(group(&spec, "train").spread.len(), 1);
    let other = spread.replace("job-name: train", "job-name: other");
    assert!(faults(&kubernetes_job("", "", "", &other)).contains("must match the labels"));
    assert!(spec.labels.keys().all(|key| key == "app"), "{:?}", spec.labels);
}

/// To be near to jobs that never come would be to wait for ever.
#[test]
fn the_pods_of_a_ray_cluster_find_each_other() {
    for (key, value) in
        [("ray.io/group", "gpu"), ("ray.io/node-type", "worker"), ("ray.io/is-ray-node", "\"yes\"")]
    {
        let pod = near("podAffinity", key, value, "topology.kubernetes.io/zone");
        let spec = job(&ray_cluster("", "", "", &pod));
        assert_eq!(with_others(&spec), [""; 0], "{key}");
        assert_eq!(group(&spec, "gpu").topology_required(), TopologyLevel::Zone, "{key}");
    }
    let head = near("podAffinity", "ray.io/node-type", "head", "topology.kubernetes.io/zone");
    let spec = job(&ray_cluster("", "", "", &head));
    assert_eq!(spec.affinities[0].with_group, "head");
    let cluster = near("podAntiAffinity", "ray.io/cluster", "demo", "kubernetes.io/hostname");
    let spec = job(&ray_cluster("", "", "", &cluster));
    assert_eq!(group(&spec, "gpu").replicas_per_node_max, 1);
    assert_eq!(spec.affinities[0].with_group, "head");
}

#[test]
fn the_pods_of_other_controllers_find_each_other() {
    let pod = |key: &str, value: &str| {
        let affinity = near("podAntiAffinity", key, value, "kubernetes.io/hostname");
        format!("{{containers: [{{resources: {{limits: {{nvidia.com/gpu: 8}}}}}}], {affinity}}}")
    };
    let volcano = |key: &str, value: &str| {
        format!(
            "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nmetadata: {{name: n}}\nspec: {{tasks: [{{name: r, \
             replicas: 4, template: {{spec: {}}}}}]}}\n",
            pod(key, value)
        )
    };
    let kubeflow = |key: &str, value: &str| {
        format!(
            "apiVersion: kubeflow.org/v1\nkind: PyTorchJob\nmetadata: {{name: n}}\nspec: {{pytorchReplicaSpecs: \
             {{Worker: {{replicas: 4, template: {{spec: {}}}}}}}}}\n",
            pod(key, value)
        )
    };
    let jobset = |key: &str, value: &str| {
        format!(
            "apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nmetadata: {{name: n}}\nspec: {{replicatedJobs: \
             [{{name: r, template: {{spec: {{parallelism: 4, template: {{spec: {}}}}}}}}}]}}\n",
            pod(key, value)
        )
    };
    let leaders = |key: &str, value: &str| {
        format!(
            "apiVersion: leaderworkerset.x-k8s.io/v1\nkind: LeaderWorkerSet\nmetadata: {{name: n}}\nspec: {{replicas: \
             4, leaderWorkerTemplate: {{size: 1, workerTemplate: {{spec: {}}}}}}}\n",
            pod(key, value)
        )
    };
    for text in [
        volcano("volcano.sh/job-name", "n"),
        volcano("volcano.sh/task-spec", "r"),
        kubeflow("training.kubeflow.org/job-name", "n"),
        kubeflow("training.kubeflow.org/replica-type", "worker"),
        jobset("jobset.sigs.k8s.io/jobset-name", "n"),
        jobset("jobset.sigs.k8s.io/replicatedjob-name", "r"),
        leaders("leaderworkerset.sigs.k8s.io/name", "n"),
    ] {
        let spec = job(&text);
        assert_eq!(with_others(&spec), [""; 0], "{text}");
        assert_eq!(spec.strategy(), Strategy::StrictSpread, "{text}");
        assert!(notes(&text).contains("read as about the groups of this job"), "{text}");
    }
}
