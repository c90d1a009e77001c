//! Manifests as they stand in other projects' documentation: every version of an API that was released,
//! and what people put beside a job.

use crate::{faults, group, indented, job, kubernetes_job, notes, ray_cluster};
use proto::v1::{Disruption, JobKind, JobSpec, Strategy, TopologyLevel};

/// Pods of one template, as a Job of four.
fn workers(pod: &str) -> String {
    kubernetes_job("", "completionMode: Indexed\ncompletions: 8\nbackoffLimit: 0", "", pod)
}

/// Kubernetes 1.35: groups inside the Workload, which pods name themselves.
#[test]
fn a_workload_of_v1alpha1() {
    let workload = "apiVersion: scheduling.k8s.io/v1alpha1
kind: Workload
metadata: {name: training, namespace: some-ns}
spec:
  controllerRef: {apiGroup: batch, kind: Job, name: train}
  podGroups:
  - name: workers
    policy: {gang: {minCount: 6}}
---
";
    let text = workload.to_owned() + &workers("workloadRef: {name: training, podGroup: workers}");
    let spec = job(&text);
    assert_eq!((group(&spec, "train").replicas, group(&spec, "train").replicas_min), (8, 6));
    let basic = text.replace("gang: {minCount: 6}", "basic: {}");
    assert_eq!(group(&job(&basic), "train").replicas_min, 1);
    for (from, to, wanted) in [
        (
            "minCount: 6",
            "minCount: 9",
            "documents[0].spec.podGroups[0].policy.gang.minCount: is 9, but",
        ),
        (
            "name: training, podGroup",
            "name: other, podGroup",
            "spec.template.spec.workloadRef.name: no Workload `other`",
        ),
        (
            "podGroup: workers",
            "podGroup: drivers",
            "workloadRef.podGroup: `training` has no group `drivers`",
        ),
        (
            "podGroup: workers",
            "podGroup: drivers",
            "documents[0].spec.podGroups[0].name: no pod in this text names the group `workers`",
        ),
        (
            "policy: {",
            "schedulingPolicy: {gang: {minCount: 1}}\n    policy: {",
            "podGroups[0].policy: must not come with schedulingPolicy",
        ),
    ] {
        let faults = faults(&text.replace(from, to));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}

#[test]
fn gangs_of_one_group_that_start_apart_are_submitted_apart() {
    let pod = |name: &str, key: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{workloadRef: {{name: w, podGroup: g, \
             podGroupReplicaKey: \"{key}\"}}, containers: [{{resources: {{limits: {{nvidia.com/gpu: 1}}}}}}]}}\n"
        )
    };
    let workload = "{apiVersion: scheduling.k8s.io/v1alpha1, kind: Workload, metadata: {name: w}, spec: {podGroups: [{name: g, policy: {gang: {minCount: 2}}}]}}\n";
    let spec = job(&(workload.to_owned() + &pod("a", "0") + &pod("b", "0")));
    assert_eq!((spec.name.as_str(), spec.groups.len(), spec.groups[0].replicas), ("w", 1, 2));
    let apart = faults(&(workload.to_owned() + &pod("a", "0") + &pod("b", "1")));
    assert!(apart.contains("documents[2].spec.workloadRef.podGroupReplicaKey: is not"), "{apart}");
}

/// Kubernetes 1.36: PodGroups of their own that name the template they were made of.
#[test]
fn a_pod_group_of_v1alpha2() {
    let objects = |reference: &str, policy: &str| {
        format!(
            "apiVersion: scheduling.k8s.io/v1alpha2
kind: Workload
metadata: {{name: policy}}
spec:
  podGroupTemplates:
  - name: workers
    schedulingPolicy: {{gang: {{minCount: 5}}}}
    schedulingConstraints: {{topology: [{{key: topology.kubernetes.io/zone}}]}}
    disruptionMode: PodGroup
---
apiVersion: scheduling.k8s.io/v1alpha2
kind: PodGroup
metadata: {{name: group-0}}
spec:
  podGroupTemplateRef: {reference}
{}status: {{conditions: [{{type: PodGroupScheduled, status: \"True\"}}]}}
---
{}",
            indented(2, policy),
            workers("schedulingGroup: {podGroupName: group-0}")
        )
    };
    for reference in [
        "{workload: {workloadName: policy, podGroupTemplateName: workers}}",
        "{workloadName: policy, podGroupTemplateName: workers}",
    ] {
        // What the group says itself counts, and else its template.
        let own = job(&objects(
            reference,
            "schedulingPolicy: {gang: {minCount: 7}}\ndisruptionMode: Pod",
        ));
        assert_eq!(group(&own, "train").replicas_min, 7);
        assert_eq!(own.topology_required(), TopologyLevel::Unspecified);
        let copied = objects(reference, "");
        assert_eq!(group(&job(&copied), "train").replicas_min, 5);
        assert_eq!(job(&copied).topology_required(), TopologyLevel::Zone);
        let disruption = |spec: &JobSpec| spec.preemption.as_ref().map(|said| said.disruption());
        assert_eq!(disruption(&own), Some(Disruption::Single));
        assert_eq!(disruption(&job(&copied)), Some(Disruption::All));
    }
    let loose =
        faults(&objects("{workload: {workloadName: none, podGroupTemplateName: workers}}", ""));
    assert!(
        loose.contains("spec.podGroupTemplateRef: no Workload `none` with a template"),
        "{loose}"
    );
}

/// Whoever uses Kueue hands over what is suspended; Kueue starts it.
#[test]
fn what_waits_in_a_queue_of_kueue_is_suspended_for_it_alone() {
    let queue = "labels: {kueue.x-k8s.io/queue-name: q}";
    let text = kubernetes_job(queue, "suspend: true", "", "");
    assert!(notes(&text).contains("spec.suspend: ignored: Kueue would start it in its turn"));
    let cluster = ray_cluster("suspend: true", "", "", "");
    assert!(faults(&cluster).contains("spec.suspend: is true"));
    job(&cluster.replace("  name: demo\n", &format!("  name: demo\n  {queue}\n")));
    let elastic = "annotations: {kueue.x-k8s.io/elastic-job: \"true\"}";
    assert!(
        notes(&kubernetes_job(elastic, "", "", "")).contains("elastic-job\"]: ignored: any job")
    );
}

#[test]
fn pods_are_found_by_expressions_that_mean_one_value() {
    let apart = |selector: &str| {
        kubernetes_job(
            "",
            "",
            "",
            &format!(
                "affinity: {{podAntiAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: kubernetes.io/hostname, labelSelector: {selector}}}]}}}}"
            ),
        )
    };
    let one = "{matchExpressions: [{key: app, operator: In, values: [train]}]}";
    assert_eq!(job(&apart(one)).strategy(), Strategy::StrictSpread);
    let at = "labelSelector.matchExpressions[0]: ";
    for (selector, wanted) in [
        (
            "{matchExpressions: [{key: app, operator: In, values: [a, b]}]}",
            "is not supported: jobs",
        ),
        ("{matchExpressions: [{key: app, operator: Exists}]}", "is not supported: jobs"),
        (
            "{matchLabels: {app: x}, matchExpressions: [{key: app, operator: In, values: [y]}]}",
            "contradicts",
        ),
    ] {
        let faults = faults(&apart(selector));
        assert!(faults.contains(&format!("{at}{wanted}")), "{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
    let even = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, labelSelector: {matchExpressions: [{key: app, operator: In, values: [train]}]}}]";
    assert_eq!(group(&job(&kubernetes_job("", "", "", even)), "train").spread.len(), 1);
}

/// Kinds are told apart by the group of their API too: a Service of Knative runs containers.
#[test]
fn what_stands_beside_a_job_is_told_or_refused_by_its_own_api() {
    let beside = |version: &str, kind: &str| {
        format!("{{apiVersion: {version}, kind: {kind}, metadata: {{name: x}}}}\n---\n")
            + &kubernetes_job("", "", "", "")
    };
    for (version, kind) in [
        ("v1", "Service"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("kueue.x-k8s.io/v1beta1", "LocalQueue"),
        ("scheduling.run.ai/v2", "Queue"),
        ("scheduling.volcano.sh/v1beta1", "Queue"),
    ] {
        assert!(notes(&beside(version, kind)).contains("documents[0].kind: ignored: "), "{kind}");
    }
    for (version, kind) in [("serving.knative.dev/v1", "Service"), ("apps/v1", "Deployment")] {
        let faults = faults(&beside(version, kind));
        assert!(faults.starts_with(&format!("documents[0].kind: `{kind}` of `")), "{faults}");
    }
    // Nothing else is said of a text that cannot be read anyway.
    let alone = faults("{apiVersion: kubeflow.org/v1, kind: PyTorchJob, metadata: {name: x}}");
    assert_eq!(alone.lines().count(), 1, "{alone}");
}

#[test]
fn slips_of_the_hand_are_told_with_what_was_meant() {
    for (text, wanted) in [
        (
            ray_cluster("", "minReplica: 2", "", ""),
            "minReplica: unknown field; is `minReplicas` meant?",
        ),
        (
            ray_cluster("", "min_replicas: 2", "", ""),
            "min_replicas: unknown field; is `minReplicas` meant?",
        ),
        (
            kubernetes_job("", "", "", "tolerationss: []"),
            "tolerationss: unknown field; is `tolerations` meant?",
        ),
        (
            kubernetes_job("", "", "", "imagePullSecret: []"),
            "imagePullSecret: unknown field; is `imagePullSecrets` meant?",
        ),
        (
            "{bundles: [{CPU: 1}], stratgy: PACK}".to_owned(),
            "stratgy: unknown field; is `strategy` meant?",
        ),
        (
            "{kind: plain, name: n, groups: [{name: g, replicas: 1, gpu_model: [a]}]}".to_owned(),
            "groups[0].gpu_model: unknown field; is `gpu_models` meant?",
        ),
        (
            "{kind: plain, name: n, colour: red, groups: []}".to_owned(),
            "colour: unknown field; known are kind, name",
        ),
    ] {
        let faults = faults(&text);
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}

#[test]
fn a_ray_service_is_its_cluster() {
    let cluster = ray_cluster("", "minReplicas: 2", "", "");
    let (_, spec) = cluster.split_once("spec:\n").expect("a spec");
    let text = format!(
        "apiVersion: ray.io/v1\nkind: RayService\nmetadata: {{name: serve}}\nspec:\n  serveConfigV2: |\n    \
         applications: []\n  serviceUnhealthySecondThreshold: 900\n  rayClusterConfig:\n{}",
        indented(2, spec)
    );
    let spec = job(&text);
    assert_eq!((spec.name.as_str(), spec.kind(), spec.duration_s), ("serve", JobKind::Ray, 0));
    assert_eq!((group(&spec, "gpu").replicas, group(&spec, "gpu").replicas_min), (4, 2));
    assert!(notes(&text).contains("spec.serveConfigV2: ignored: muster provides the cluster"));
    let missing =
        faults("{apiVersion: ray.io/v1, kind: RayService, metadata: {name: s}, spec: {}}");
    assert!(missing.contains("spec.rayClusterConfig: missing"), "{missing}");
}

/// A job of Volcano with a master and four workers of two GPUs; more fields for the job and the workers.
fn volcano(spec: &str, worker: &str) -> String {
    let pod = |gpus: u32| {
        format!(
            "{{spec: {{restartPolicy: Never, containers: [{{resources: {{requests: {{cpu: 1}}, limits: {{nvidia.com/gpu: {gpus}}}}}}}]}}}}"
        )
    };
    format!(
        "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nmetadata: {{name: mpi}}\nspec:\n  schedulerName: \
         volcano\n  queue: q\n  plugins: {{ssh: [], svc: []}}\n{}  tasks:\n  - {{name: master, replicas: 1, \
         policies: [{{event: TaskCompleted, action: CompleteJob}}], template: {}}}\n  - name: worker\n    \
         replicas: 4\n{}    template: {}\n",
        indented(2, spec),
        pod(1),
        indented(4, worker),
        pod(2)
    )
}

#[test]
fn a_job_of_volcano() {
    let minima = |spec: &str, worker: &str| -> Vec<(u32, u32)> {
        let spec = job(&volcano(spec, worker));
        spec.groups.iter().map(|group| (group.replicas, group.replicas_min)).collect()
    };
    assert_eq!(minima("", ""), [(1, 0), (4, 0)]);
    assert_eq!(minima("minAvailable: 5", ""), [(1, 0), (4, 0)]);
    assert_eq!(minima("minAvailable: 3", "minAvailable: 2"), [(1, 0), (4, 2)]);
    let spec = job(&volcano("networkTopology: {mode: hard, highestTierName: rack}", ""));
    assert_eq!(spec.topology_required(), TopologyLevel::Rack);
    let spec =
        job(&volcano("networkTopology: {mode: soft, highestTierName: example.com/zone}", ""));
    assert_eq!(spec.topology_preferred(), TopologyLevel::Zone);
    let parts = "partitionPolicy: {totalPartitions: 2, partitionSize: 2, minPartitions: 1, networkTopology: {highestTierName: rack}}";
    let spec = job(&volcano("", parts));
    let worker = group(&spec, "worker");
    assert_eq!(
        (worker.replicas_min, worker.segments[0].level(), worker.segments[0].size),
        (2, TopologyLevel::Rack, 2)
    );
    let spec = job(&volcano("", "dependsOn: {name: [master], iteration: any}"));
    assert_eq!(group(&spec, "worker").depends_on, ["master"]);
    let named =
        volcano("", "").replace("{name: mpi}", "{name: mpi, labels: {volcano.sh/job-type: MPI}}");
    assert!(notes(&named).contains("labels[\"volcano.sh/job-type\"]: ignored: a name"), "{named}");
    let told = notes(&volcano("", ""));
    for wanted in [
        "spec.queue: ignored: the tenant",
        "spec.plugins: ignored",
        "spec.tasks[0].policies: ignored",
    ] {
        assert!(told.contains(wanted), "{wanted} not in:\n{told}");
    }
    for (spec, worker, wanted) in [
        (
            "minAvailable: 3",
            "",
            "spec.minAvailable: is 3 over groups of different pods with 5 pods in all",
        ),
        ("minAvailable: 4", "minAvailable: 2", "spec.minAvailable: is 4 over groups"),
        ("minAvailable: 6", "", "spec.minAvailable: is 6, but there are only 5 pods"),
        ("minAvailable: 6", "minAvailable: 2", "spec.minAvailable: is 6, but there are only 5"),
        ("", "minAvailable: 5", "spec.tasks[1].minAvailable: is 5, but there are only 4"),
        (
            "networkTopology: {mode: hard, highestTierAllowed: 1}",
            "",
            "spec.networkTopology.highestTierAllowed: is not supported: tiers",
        ),
        ("priorityClassName: high", "", "spec.priorityClassName: is not supported"),
        (
            "",
            "dependsOn: {name: [mistress]}",
            "spec.tasks[1].dependsOn.name[0]: no task is called `mistress`",
        ),
        (
            "",
            "dependsOn: {name: [master, worker], iteration: any}",
            "spec.tasks[1].dependsOn.iteration: is any of several tasks, which is not supported",
        ),
        (
            "",
            "partitionPolicy: {totalPartitions: 3, partitionSize: 2}",
            "totalPartitions: are 3 of 2, but there are 4",
        ),
    ] {
        let faults = faults(&volcano(spec, worker));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}

/// What cannot be kept is refused by name, whatever else would do.
#[test]
fn what_is_not_kept_is_refused_with_its_path() {
    let pod = |lines: &str| kubernetes_job("", "", "", lines);
    let term = |lines: &str| {
        pod(&format!(
            "affinity: {{podAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: rack, labelSelector: {{matchLabels: {{a: b}}}}, {lines}}}]}}}}"
        ))
    };
    let even = |lines: &str| {
        pod(&format!("topologySpreadConstraints: [{{maxSkew: 1, topologyKey: rack, {lines}}}]"))
    };
    let ray_job = |lines: &str| {
        format!(
            "apiVersion: ray.io/v1\nkind: RayJob\nmetadata: {{name: j}}\nspec:\n  {lines}\n  rayClusterSpec:\n    headGroupSpec: {{template: {{spec: {{containers: [{{resources: {{requests: {{cpu: 1}}}}}}]}}}}}}\n"
        )
    };
    for (text, wanted) in [
        ("{bundles: [{GPU: 1}], fallback_strategy: [{label_selector: {a: b}}]}".to_owned(), "fallback_strategy: is not supported: give alternatives in one selector"),
        ("{bundles: [{GPU: 1}], strategy: SPREAD, _soft_target_node_id: ab}".to_owned(), "_soft_target_node_id: is only allowed with STRICT_PACK"),
        ("{bundles: [{GPU: 1}], strategy: PACK, topology_strategy: {ray.io/gpu-domain: STRICT_PACK}}".to_owned(), "topology_strategy: must not come with strategy"),
        ("{bundles: [{GPU: 1}], topology_strategy: {a/rack: STRICT_PACK, b/zone: STRICT_PACK}}".to_owned(), "topology_strategy: has 2 labels beside ray.io/node-id"),
        ("{bundles: [{GPU: 1}], topology_strategy: {a/rack: SPREAD}}".to_owned(), "topology_strategy[\"a/rack\"]: must be STRICT_PACK"),
        (ray_job("preRunningDeadlineSeconds: 60"), "spec.preRunningDeadlineSeconds: is not supported: a job waits"),
        (ray_job("schedule: \"0 * * * *\""), "spec.schedule: is not supported: jobs are submitted"),
        (even("minDomains: 2"), "topologySpreadConstraints[0].minDomains: is not supported"),
        (even("nodeTaintsPolicy: Ignore"), "topologySpreadConstraints[0].nodeTaintsPolicy: is not supported"),
        (term("namespaces: [x]"), "[0].namespaces: is not supported: jobs here are seen by"),
        (term("matchLabelKeys: [x]"), "[0].matchLabelKeys: is not supported: write the labels out"),
        (kubernetes_job("", "successPolicy: {rules: [{succeededCount: 1}]}", "", ""), "spec.successPolicy: is not supported"),
        ("{apiVersion: scheduling.k8s.io/v1beta1, kind: PodGroup, metadata: {name: g}, spec: {parentCompositePodGroupName: p, schedulingPolicy: {gang: {minCount: 8}}}}\n---\n".to_owned() + &pod("schedulingGroup: {podGroupName: g}"), "documents[0].spec.parentCompositePodGroupName: is not supported: groups of groups"),
    ] {
        let faults = faults(&text);
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}
