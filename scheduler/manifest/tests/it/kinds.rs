//! Which kind a text is, how several documents make one job, and how faults and notes are told.

use crate::{faults, group, job, kubernetes_job, notes, ray_cluster, understood};
use proto::v1::{JobKind, TopologyLevel};

#[test]
fn a_text_is_known_by_its_kind_or_shape() {
    for (text, kind) in [
        ("{bundles: [{CPU: 1}]}".to_owned(), JobKind::Ray),
        (ray_cluster("", "", "", ""), JobKind::Ray),
        (kubernetes_job("", "", "", ""), JobKind::Kubernetes),
        (
            "{kind: plain, name: n, groups: [{name: g, replicas: 1, cpu: 1}]}".to_owned(),
            JobKind::Plain,
        ),
    ] {
        assert_eq!(job(&text).kind(), kind, "{text}");
    }
    let other = faults("{apiVersion: apps/v1, kind: Deployment}");
    assert!(other.starts_with("kind: `Deployment` of `apps` is not read here"), "{other}");
    assert!(!faults("[1, 2]").is_empty());
    assert!(!faults("just text").is_empty());
}

#[test]
fn unknown_fields_are_faults_with_their_whole_path() {
    let text = ray_cluster("bar: 1", "", "baz: [1]", "foo: {a: 1}")
        .replace("- resources:", "- nmae: x\n          resources:");
    let faults = faults(&text);
    for wanted in [
        "spec.workerGroupSpecs[0].template.spec.foo: unknown field",
        "spec.bar: unknown field",
        "spec.workerGroupSpecs[0].template.metadata.baz: unknown field",
        "spec.workerGroupSpecs[0].template.spec.containers[0].nmae: unknown field",
        "spec.headGroupSpec.template.spec.containers[0].nmae: unknown field",
    ] {
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
    assert_eq!(faults.lines().count(), 5, "{faults}");
}

#[test]
fn faults_of_every_sort_come_at_once() {
    let faults = faults(&kubernetes_job(
        "finalizers: []",
        "paralelism: 3\ncompletions: many\nsuccessPolicy: {rules: []}\nsuspend: true",
        "annotations: {kueue.x-k8s.io/podset-required-topology: colour, kueue.x-k8s.io/no-such-word: a, gpu-memory: \"5\"}",
        "priorityClassName: high\ntolerations: {}\nschedulingGates: [{name: wait}]\nnodeSelector: {a: 1}",
    ));
    for wanted in [
        "spec.paralelism: unknown field; is `parallelism` meant?",
        "spec.completions: must be a whole number from 0 to 4294967295, is `many`",
        "spec.successPolicy: is not supported: a job is done when all its members are",
        "spec.suspend: is true",
        "spec.template.metadata.annotations[\"kueue.x-k8s.io/podset-required-topology\"]: `colour` is no level",
        "spec.template.metadata.annotations[\"kueue.x-k8s.io/no-such-word\"]: is not known here as a word of Kueue",
        "spec.template.metadata.annotations.gpu-memory: is not supported",
        "spec.template.spec.priorityClassName: is not supported",
        "spec.template.spec.tolerations: must be a list, is a mapping",
        "spec.template.spec.schedulingGates[0]: is not supported",
        "spec.template.spec.nodeSelector.a: must be text (put it in quotes), is 1",
    ] {
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
    assert_eq!(faults.lines().count(), 11, "{faults}");
}

#[test]
fn what_is_left_aside_is_told_with_path_and_reason() {
    let text = kubernetes_job(
        "annotations: {team: blue}\ncreationTimestamp: null\nuid: abc",
        "backoffLimit: 4\nttlSecondsAfterFinished: 60",
        "",
        "restartPolicy: Never\nvolumes: [{name: v, emptyDir: {}}]\nschedulerName: default-scheduler\naffinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1}]}}",
    )
    .replace("- name: main\n", "- name: main\n        image: train:1\n        command: [python, train.py]\n        env: [{name: A, value: b}]\n");
    let notes = notes(&text);
    for wanted in [
        "metadata.annotations.team: ignored: free text",
        "metadata.uid: ignored: set by the API server",
        "spec.backoffLimit: ignored: lost members are replaced",
        "spec.ttlSecondsAfterFinished: ignored",
        "spec.template.spec.restartPolicy: ignored: muster does not start pods",
        "spec.template.spec.volumes: ignored: muster does not mount volumes",
        "spec.template.spec.schedulerName: ignored: muster is the scheduler here",
        "spec.template.spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution: ignored: a wish",
        "spec.template.spec.containers[0].image: ignored: muster does not start containers",
        "spec.template.spec.containers[0].command: ignored",
        "spec.template.spec.containers[0].env: ignored",
    ] {
        assert!(notes.contains(wanted), "{wanted} not in:\n{notes}");
    }
    assert!(!notes.contains("creationTimestamp"), "{notes}");
    assert!(job(&text).program.is_none(), "a command for an image is no program for a machine");
}

#[test]
fn security_is_not_left_aside() {
    for field in ["tlsOptions", "networkPolicy", "authOptions"] {
        let faults = faults(&ray_cluster(&format!("{field}: {{mode: strict}}"), "", "", ""));
        assert!(
            faults.contains(&format!("spec.{field}: is not supported: muster does not set it up")),
            "{faults}"
        );
    }
}

#[test]
fn a_ray_job_may_name_the_cluster_beside_it() {
    let ray_job = "---\napiVersion: ray.io/v1\nkind: RayJob\nmetadata: {name: j}\nspec:\n  entrypoint: python a.py\n  activeDeadlineSeconds: 60\n  clusterSelector: {ray.io/cluster: NAME}\n";
    let spec = job(&(ray_cluster("", "", "", "") + &ray_job.replace("NAME", "demo")));
    assert_eq!((spec.name.as_str(), spec.duration_s, spec.groups.len()), ("demo", 60, 2));
    let faults = faults(&(ray_cluster("", "", "", "") + &ray_job.replace("NAME", "other")));
    assert!(
        faults.contains(
            "documents[1].spec.clusterSelector: selects a cluster that is not in this text"
        ),
        "{faults}"
    );
}

#[test]
fn jobs_under_one_workload_are_one_gang() {
    let text = "apiVersion: scheduling.k8s.io/v1beta1
kind: Workload
metadata: {name: w}
spec:
  podGroupTemplates:
  - {name: leader, schedulingPolicy: {gang: {minCount: 1}}}
  - name: workers
    schedulingPolicy: {gang: {minCount: 3}}
    schedulingConstraints: {topology: [{key: example.com/rack}]}
---
{apiVersion: scheduling.k8s.io/v1beta1, kind: PodGroup, metadata: {name: l}, spec: {workloadRef: {workloadName: w, templateName: leader}}}
---
{apiVersion: scheduling.k8s.io/v1beta1, kind: PodGroup, metadata: {name: x}, spec: {workloadRef: {workloadName: w, templateName: workers}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: leader}, spec: {template: {spec: {schedulingGroup: {podGroupName: l}, containers: [{resources: {requests: {cpu: 1}}}]}}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: workers}, spec: {parallelism: 4, template: {spec: {schedulingGroup: {podGroupName: x}, containers: [{resources: {limits: {nvidia.com/gpu: 8}}}]}}}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: b}}
";
    let spec = job(text);
    assert_eq!((group(&spec, "leader").replicas, group(&spec, "leader").replicas_min), (1, 0));
    assert_eq!((group(&spec, "workers").replicas, group(&spec, "workers").replicas_min), (4, 3));
    assert_eq!(group(&spec, "workers").topology_required(), TopologyLevel::Rack);
    assert_eq!(group(&spec, "leader").topology_required(), TopologyLevel::Unspecified);
    assert!(
        notes(text).contains(
            "documents[5].kind: ignored: it has no say in where the job goes (ConfigMap)"
        )
    );
}

#[test]
fn jobs_with_nothing_in_common_are_submitted_apart() {
    let both = kubernetes_job("", "", "", "")
        + "---\n"
        + &kubernetes_job("", "", "", "").replace("name: train", "name: other");
    assert!(faults(&both).contains(
        "documents[1].kind: Job `train` and Job `other` are not said to belong together"
    ));
    let native = "{kind: plain, name: n, groups: [{name: g, replicas: 1}]}\n---\n".to_owned()
        + &kubernetes_job("", "", "", "");
    assert!(!faults(&native).is_empty());
}

#[test]
fn loose_ends_between_documents_are_faults() {
    let job = |pod: &str| kubernetes_job("", "", "", pod);
    for (text, wanted) in [
        (job("schedulingGroup: {podGroupName: none}"), "spec.template.spec.schedulingGroup.podGroupName: no PodGroup `none` stands in this text"),
        (job("resourceClaims: [{name: g}]"), "resourceClaims[0].resourceClaimTemplateName: missing"),
        (job("resourceClaims: [{name: g, resourceClaimTemplateName: none}]"), "resourceClaims[0].resourceClaimTemplateName: no ResourceClaimTemplate `none`"),
        ("{apiVersion: scheduling.k8s.io/v1beta1, kind: PodGroup, metadata: {name: g}, spec: {schedulingPolicy: {gang: {minCount: 1}}}}".to_owned(), "says nothing of what the pods need"),
        ("{apiVersion: scheduling.k8s.io/v1beta1, kind: PodGroup, metadata: {name: g}, spec: {schedulingPolicy: {gang: {minCount: 1}}}}\n---\n".to_owned() + &job(""), "documents[0].metadata.name: no pod in this text names the group `g`"),
        ("{apiVersion: scheduling.k8s.io/v1beta1, kind: Workload, metadata: {name: w}, spec: {controllerRef: {kind: Job, name: none}, podGroupTemplates: [{name: t, schedulingPolicy: {gang: {minCount: 1}}}]}}\n---\n".to_owned() + &job(""), "documents[0].spec.controllerRef: no `Job` `none` stands in this text"),
        (kubernetes_job("", "", "annotations: {pod-group-name: none}", ""), "annotations.pod-group-name: no PodGroup `none` stands in this text"),
        (kubernetes_job("", "", "annotations: {yunikorn.apache.org/task-group-name: none}", ""), "needs yunikorn.apache.org/task-groups beside it"),
    ] {
        let faults = faults(&text);
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}

#[test]
fn plain_pods_of_a_kueue_group_must_all_be_there() {
    let pods = |total: u32| {
        (0..3)
            .map(|index| format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}, labels: {{kueue.x-k8s.io/pod-group-name: g}}, annotations: {{kueue.x-k8s.io/pod-group-total-count: \"{total}\"}}}}\nspec: {{containers: [{{resources: {{limits: {{nvidia.com/gpu: 8}}}}}}]}}\n"))
            .collect::<String>()
    };
    let spec = job(&pods(3));
    assert_eq!((spec.name.as_str(), spec.groups.len(), spec.groups[0].replicas), ("g", 1, 3));
    assert!(faults(&pods(4)).contains("is 4, but 3 pods stand in this text"));
}

#[test]
fn a_list_of_objects_is_read_like_documents() {
    let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: s}}\n- {apiVersion: batch/v1, kind: Job, metadata: {name: j}, spec: {template: {spec: {nope: 1, containers: [{resources: {requests: {cpu: 1}}}]}}}}\n";
    assert!(faults(text).starts_with("items[1].spec.template.spec.nope: unknown field"));
    assert_eq!(job(&text.replace("nope: 1, ", "")).groups.len(), 1);
}

#[test]
fn containers_are_counted_as_kubernetes_counts_them() {
    let text = "apiVersion: v1
kind: Pod
metadata: {name: p}
spec:
  initContainers:
  - {name: side, restartPolicy: Always, resources: {requests: {cpu: 1}}}
  - {name: first, resources: {requests: {cpu: 10, memory: 1Gi}}}
  containers:
  - {name: a, resources: {requests: {cpu: 2, memory: 2Gi}, limits: {memory: 4Gi}}}
  - {name: b, resources: {limits: {cpu: 3}}}
  overhead: {cpu: 500m}
";
    let spec = job(text);
    let shape = spec.groups[0].shape.as_ref().expect("shape");
    // Before: side car 1 + first 10; running: 2 + 3 + 1; the larger and the overhead.
    assert_eq!((shape.cpu_milli, shape.memory_mib), (11_500, 2_048));
    let spec = job(&text.replace("  overhead", "  resources: {requests: {cpu: 4}}\n  overhead"));
    assert_eq!(spec.groups[0].shape.as_ref().map(|shape| shape.cpu_milli), Some(4_500));
}

#[test]
fn the_same_text_is_always_understood_alike() {
    let text = ray_cluster("", "minReplicas: 2", "", "");
    assert_eq!(understood(&text), understood(&text));
}

#[test]
fn words_are_taken_where_they_have_effect_and_refused_elsewhere() {
    let template =
        |annotation: &str| kubernetes_job("", "", &format!("annotations: {{{annotation}}}"), "");
    let owner =
        |annotation: &str| kubernetes_job(&format!("annotations: {{{annotation}}}"), "", "", "");
    for (text, path) in [
        (
            owner("kueue.x-k8s.io/podset-required-topology: rack"),
            "metadata.annotations[\"kueue.x-k8s.io/podset-required-topology\"]",
        ),
        (owner("gpu-fraction: \"0.5\""), "metadata.annotations.gpu-fraction"),
        (
            owner("yunikorn.apache.org/task-groups: \"[]\""),
            "metadata.annotations[\"yunikorn.apache.org/task-groups\"]",
        ),
        (template("muster/max-rtt: 5ms"), "spec.template.metadata.annotations[\"muster/max-rtt\"]"),
        (
            template("kueue.x-k8s.io/job-min-parallelism: \"3\""),
            "spec.template.metadata.annotations[\"kueue.x-k8s.io/job-min-parallelism\"]",
        ),
    ] {
        let faults = faults(&text);
        assert!(
            faults.starts_with(&format!("{path}: has no effect here: it belongs on the")),
            "{faults}"
        );
    }
    let ray = |annotation: &str| {
        ray_cluster("", "", "", "")
            .replace("  name: demo\n", &format!("  name: demo\n  annotations: {{{annotation}}}\n"))
    };
    let minimum = faults(&ray("kueue.x-k8s.io/job-min-parallelism: \"3\""));
    assert!(minimum.contains("is for Jobs: each group here has its own minimum"), "{minimum}");
    let spec = job(&ray("kai.scheduler/topology-required-placement: zone, muster/max-rtt: 40ms"));
    assert_eq!((spec.topology_required(), spec.rtt_us_max), (TopologyLevel::Zone, 40_000));
}

#[test]
fn no_time_at_all_is_a_fault() {
    for annotation in ["max-rtt: 0ms", "max-price: \"0\"", "duration: 0s", "max-rtt: soon"] {
        let text = kubernetes_job(&format!("annotations: {{muster/{annotation}}}"), "", "", "");
        let faults = faults(&text);
        assert!(faults.starts_with("metadata.annotations[\"muster/"), "{faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
    for text in [
        kubernetes_job("", "activeDeadlineSeconds: 0", "", ""),
        kubernetes_job("", "", "", "activeDeadlineSeconds: 0"),
    ] {
        assert!(faults(&text).contains("activeDeadlineSeconds: must be at least 1"));
    }
    let train = "apiVersion: trainer.kubeflow.org/v1alpha1\nkind: TrainJob\nmetadata: {name: t}\nspec: {runtimeRef: \
                 {name: torch}, activeDeadlineSeconds: 0, trainer: {numNodes: 2, resourcesPerNode: {limits: \
                 {nvidia.com/gpu: 8}}}}\n";
    assert!(faults(train).contains("spec.activeDeadlineSeconds: must be at least 1"));
    let label = "labels: {kueue.x-k8s.io/max-exec-time-seconds: \"0\"}";
    assert!(faults(&kubernetes_job(label, "", "", "")).contains("seconds\"]: must be at least 1"));
}

/// What follows from a number that is at fault is no fault of its own.
#[test]
fn a_job_of_no_pods_is_told_once() {
    let least = "annotations: {kueue.x-k8s.io/job-min-parallelism: \"3\"}";
    let gang = "completions: 4\nscheduling: {schedulingPolicy: {gang: {minCount: 2}}}";
    for (parallelism, wanted) in [
        ("0", "is 0: nothing would run"),
        ("-1", "must be a whole number from 0 to 4294967295, is -1"),
        ("many", "must be a whole number from 0 to 4294967295, is `many`"),
        ("\"8\"", "must be a whole number from 0 to 4294967295 without quotes, is `8`"),
        ("010", "must be a whole number from 0 to 4294967295 without a zero in front, is `010`"),
    ] {
        for (metadata, spec) in [("", "completions: 4"), (least, ""), ("", gang)] {
            let text = kubernetes_job(metadata, spec, "", "");
            let text = text.replace("parallelism: 8", &format!("parallelism: {parallelism}"));
            assert_eq!(faults(&text).trim_end(), format!("spec.parallelism: {wanted}"), "{text}");
        }
    }
}

/// Where kubectl reads eight, others read ten.
#[test]
fn an_amount_with_a_zero_in_front_is_refused_as_a_count_is() {
    let amount = |text: &str| faults(&kubernetes_job("", "", "", "").replace("gpu: 8", text));
    let octal = "may be read as an octal number: write";
    assert!(amount("gpu: 010").contains(&format!("`010` {octal} `10`")));
    assert!(amount("gpu: 8, cpu: 08").contains(&format!("`08` {octal} `8`")));
    assert!(amount("gpu: 8, memory: 00").contains(&format!("`00` {octal} `0`")));
    let plain = kubernetes_job("", "", "", "").replace("gpu: 8", "gpu: 8, cpu: 0.5, memory: 010Gi");
    assert_eq!(crate::shape(group(&job(&plain), "train")).memory_mib, 10_240);
    for (field, wanted) in
        [("cpu: 010", "groups[0].cpu: `010`"), ("gpus: 01", "groups[0].gpus: `01`")]
    {
        let native = format!("kind: plain\nname: a\ngroups: [{{name: w, replicas: 1, {field}}}]");
        let faults = faults(&native);
        assert!(faults.contains(wanted) && faults.contains(octal), "{faults}");
    }
    let bundles = faults("bundles: [{CPU: 010}]");
    assert!(bundles.contains("bundles[0].CPU: `010` may be read"), "{bundles}");
}

/// Kueue's words to whoever is to provide the nodes.
#[test]
fn how_long_provisioned_nodes_may_run_bounds_the_job() {
    let text = |word: &str, value: &str, spec: &str| {
        let annotation = format!("annotations: {{provreq.kueue.x-k8s.io/{word}: \"{value}\"}}");
        kubernetes_job(&annotation, spec, "", "")
    };
    let run = |value: &str, spec: &str| text("maxRunDurationSeconds", value, spec);
    assert_eq!(job(&run("3600", "")).duration_s, 3_600);
    assert_eq!(job(&run("3600", "activeDeadlineSeconds: 600")).duration_s, 600);
    assert!(notes(&run("3600", "")).contains("Seconds\"]: read as the duration, counted from"));
    assert!(faults(&run("0", "")).contains("Seconds\"]: must be at least 1"));
    assert!(faults(&run("1h", "")).contains("must be a whole number, is `1h`"));
    let other = text("ValidUntilSeconds", "60", "");
    assert_eq!(job(&other).duration_s, 0);
    assert!(notes(&other).contains("ignored: a parameter for what adds nodes"));
    let misplaced = kubernetes_job(
        "",
        "",
        "annotations: {provreq.kueue.x-k8s.io/maxRunDurationSeconds: \"60\"}",
        "",
    );
    assert!(faults(&misplaced).contains("it belongs on the object that owns the pods"));
}

/// However deep in a manifest a time stands, it bounds the job.
#[test]
fn the_shortest_time_counts() {
    let cluster = ray_cluster("", "", "", "activeDeadlineSeconds: 60");
    assert_eq!(job(&cluster).duration_s, 60);
    let (_, spec) = cluster.split_once("spec:\n").expect("a spec");
    let ray_job = |of_job: &str| {
        let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "apiVersion: ray.io/v1\nkind: RayJob\nmetadata: {{name: j}}\nspec:\n{of_job}  rayClusterSpec:\n{spec}"
        )
    };
    assert_eq!(job(&ray_job("")).duration_s, 60);
    assert_eq!(job(&ray_job("  activeDeadlineSeconds: 30\n")).duration_s, 30);
}
