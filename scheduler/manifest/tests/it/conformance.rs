//! The mapping between systems, field by field: what stands in a manifest, and the native field it becomes.

use crate::{job, kubernetes_job, notes, ray_cluster};
use proto::v1::shape::Gpus;
use proto::v1::{Group, JobSpec, TopologyLevel};

/// One cell of the mapping table.
struct Cell {
    /// Field of ours.
    ours: &'static str,
    /// Whose words.
    of: &'static str,
    manifest: String,
    /// How to show the native field.
    show: fn(&JobSpec) -> String,
    wanted: &'static str,
}

fn cell(
    ours: &'static str,
    of: &'static str,
    manifest: impl Into<String>,
    show: fn(&JobSpec) -> String,
    wanted: &'static str,
) -> Cell {
    Cell { ours, of, manifest: manifest.into(), show, wanted }
}

fn each(spec: &JobSpec, show: impl Fn(&Group) -> String) -> String {
    let all: Vec<_> =
        spec.groups.iter().map(|group| format!("{}: {}", group.name, show(group))).collect();
    all.join("; ")
}

fn bundles(spec: &JobSpec) -> String {
    each(spec, |group| {
        let shape = group.shape.clone().unwrap_or_default();
        let gpus = match shape.gpus {
            None => "no GPU".to_owned(),
            Some(Gpus::GpuCount(count)) => format!("{count} GPU"),
            Some(Gpus::GpuMilli(milli)) => format!("{milli}/1000 GPU"),
        };
        let custom: String =
            shape.custom.iter().map(|(name, amount)| format!(" {amount} {name}")).collect();
        format!("{} x {gpus} {}m {}MiB{custom}", group.replicas, shape.cpu_milli, shape.memory_mib)
    })
}

fn minima(spec: &JobSpec) -> String {
    each(spec, |group| format!("{} of {}", group.replicas_min, group.replicas))
}

fn maxima(spec: &JobSpec) -> String {
    each(spec, |group| format!("{} to {}", group.replicas, group.replicas_max))
}

fn strategy(spec: &JobSpec) -> String {
    let groups: String = spec
        .groups
        .iter()
        .filter(|group| group.strategy != 0)
        .map(|group| format!(" {} {}", group.name, group.strategy().as_str_name()))
        .collect();
    format!("{}{groups}", spec.strategy().as_str_name())
}

fn spread(spec: &JobSpec) -> String {
    each(spec, |group| {
        let all = group.spread.iter();
        let all = all.map(|one| {
            let wish = if one.preferred { " if possible" } else { "" };
            format!("{} by {}{wish}", one.level().as_str_name(), one.skew_max)
        });
        all.collect::<Vec<_>>().join(", ")
    })
}

fn level(level: TopologyLevel) -> &'static str {
    level.as_str_name().strip_prefix("TOPOLOGY_LEVEL_").unwrap_or_default()
}

fn topology(spec: &JobSpec) -> String {
    let job = format!("{}/{}; ", level(spec.topology_required()), level(spec.topology_preferred()));
    job + &each(spec, |group| {
        format!("{}/{}", level(group.topology_required()), level(group.topology_preferred()))
    })
}

fn segments(spec: &JobSpec) -> String {
    each(spec, |group| {
        let all =
            group.segments.iter().map(|one| format!("{} of {}", level(one.level()), one.size));
        all.collect::<Vec<_>>().join(", ")
    })
}

fn gpus(spec: &JobSpec) -> String {
    each(spec, |group| {
        let shape = group.shape.clone().unwrap_or_default();
        let mut all = Vec::new();
        if !shape.gpu_models.is_empty() || shape.vram_mib_min > 0 {
            all.push(format!("{} {}MiB", shape.gpu_models.join("|"), shape.vram_mib_min));
        }
        for one in &shape.gpu_alternatives {
            let vendor = one.vendor().as_str_name().strip_prefix("GPU_VENDOR_").unwrap_or_default();
            let (models, vram) = (one.models.join("|"), one.vram_mib_min);
            all.push(format!("{vendor} {models} {vram}MiB cc{}", one.compute_capability_min));
        }
        all.join(", ")
    })
}

fn duration(spec: &JobSpec) -> String {
    spec.duration_s.to_string()
}

fn selectors(spec: &JobSpec) -> String {
    each(spec, |group| {
        let all = group.selectors.iter().map(|one| {
            let operator = one.operator().as_str_name();
            let operator = operator.strip_prefix("SELECTOR_OPERATOR_").unwrap_or_default();
            format!("{} {operator} {}", one.key, one.values.join(","))
        });
        all.collect::<Vec<_>>().join(", ")
    })
}

fn affinities(spec: &JobSpec) -> String {
    let all = spec.affinities.iter().map(|one| {
        let kind = if one.anti { "apart" } else { "near" };
        let wish = if one.preferred { " if possible" } else { "" };
        format!(
            "{} {kind} {}{:?} {}{wish}",
            one.group,
            one.with_group,
            one.with_job_labels,
            level(one.level())
        )
    });
    all.collect::<Vec<_>>().join("; ")
}

/// A pod of KAI's or Kubernetes' groups.
fn pod(name: &str, metadata: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, {metadata}}}\nspec: {{containers: \
         [{{resources: {{limits: {{nvidia.com/gpu: 1}}}}}}], {spec}}}\n"
    )
}

fn kueue_workload(spec: &str, set: &str) -> String {
    format!(
        "apiVersion: kueue.x-k8s.io/v1beta2\nkind: Workload\nmetadata: {{name: w}}\nspec:\n  {spec}\n  \
         podSets:\n  - name: main\n    count: 8\n    {set}\n    template: {{spec: {{containers: \
         [{{resources: {{requests: {{cpu: 1}}, limits: {{nvidia.com/gpu: 8}}}}}}]}}}}\n"
    )
}

pub(crate) fn kai_group(spec: &str) -> String {
    format!(
        "apiVersion: scheduling.run.ai/v2alpha2\nkind: PodGroup\nmetadata: {{name: g}}\nspec: {{{spec}}}\n"
    )
}

pub(crate) fn kai_pod(name: &str, subgroup: &str) -> String {
    let label = match subgroup {
        "" => String::new(),
        of => format!(", labels: {{kai.scheduler/subgroup-name: {of}}}"),
    };
    pod(name, &format!("annotations: {{pod-group-name: g}}{label}"), "")
}

fn workload(templates: &str) -> String {
    format!(
        "apiVersion: scheduling.k8s.io/v1beta1\nkind: Workload\nmetadata: {{name: w}}\nspec:\n  \
         controllerRef: {{apiGroup: batch, kind: Job, name: train}}\n  {templates}\n---\n{}",
        kubernetes_job("", "", "", "")
    )
}

const TASK_GROUPS: &str = "annotations:\n  yunikorn.apache.org/task-group-name: workers\n  \
yunikorn.apache.org/task-groups: |\n    [{\"name\": \"driver\", \"minMember\": 1, \"minResource\": {\"cpu\": \"2\", \"memory\": \"4Gi\"}, \"nodeSelector\": {\"pool\": \"cpu\"}},\n     {\"name\": \"workers\", \"minMember\": 6, \"minResource\": {\"nvidia.com/gpu\": 8}}]";

fn replicas_and_minima() -> Vec<Cell> {
    vec![
        cell(
            "bundle x replicas",
            "Ray placement group",
            "{bundles: [{CPU: 1}, {GPU: 1, CPU: 4, memory: 1073741824}, {GPU: 1, CPU: 4, memory: 1073741824}, {GPU: 0.5, tokens: 3}]}",
            bundles,
            "bundle-0: 1 x no GPU 1000m 0MiB; bundle-1: 2 x 1 GPU 4000m 1024MiB; bundle-3: 1 x 500/1000 GPU 0m 0MiB 3 tokens",
        ),
        cell(
            "bundle x replicas",
            "RayCluster",
            ray_cluster("", "", "", ""),
            bundles,
            "head: 1 x no GPU 2000m 4096MiB; gpu: 4 x 8 GPU 0m 0MiB",
        ),
        cell(
            "bundle x replicas",
            "Kubernetes Job",
            kubernetes_job("", "", "", ""),
            bundles,
            "train: 8 x 8 GPU 0m 0MiB",
        ),
        cell(
            "bundle x replicas",
            "Kueue",
            kueue_workload("", ""),
            bundles,
            "main: 8 x 8 GPU 1000m 0MiB",
        ),
        cell(
            "bundle x replicas",
            "KAI",
            kai_group("subGroups: [{name: a, minMember: 2}, {name: b, minMember: 1}]")
                + &kai_pod("a1", "a")
                + &kai_pod("a2", "a")
                + &kai_pod("b1", "b"),
            bundles,
            "a1: 2 x 1 GPU 0m 0MiB; b1: 1 x 1 GPU 0m 0MiB",
        ),
        cell(
            "bundle x replicas",
            "YuniKorn",
            kubernetes_job("", "", TASK_GROUPS, ""),
            bundles,
            "workers: 8 x 8 GPU 0m 0MiB; driver: 1 x no GPU 2000m 4096MiB",
        ),
        cell(
            "min_replicas",
            "Ray placement group",
            "{bundles: [{CPU: 1}, {CPU: 1}]}",
            minima,
            "bundle-0: 0 of 2",
        ),
        cell(
            "min_replicas",
            "RayCluster",
            ray_cluster("", "minReplicas: 2\nnumOfHosts: 2", "", ""),
            minima,
            "head: 0 of 1; gpu: 4 of 8",
        ),
        cell(
            "max_replicas",
            "RayCluster",
            ray_cluster("", "maxReplicas: 10\nnumOfHosts: 2", "", ""),
            maxima,
            "head: 1 to 0; gpu: 8 to 20",
        ),
        cell(
            "min_replicas",
            "Kubernetes Job",
            kubernetes_job("", "scheduling: {schedulingPolicy: {gang: {minCount: 6}}}", "", ""),
            minima,
            "train: 6 of 8",
        ),
        cell(
            "min_replicas",
            "Kubernetes Workload",
            workload(
                "podGroupTemplates: [{name: workers, schedulingPolicy: {gang: {minCount: 5}}}]",
            ),
            minima,
            "train: 5 of 8",
        ),
        cell(
            "min_replicas",
            "Kubernetes PodGroup",
            format!(
                "apiVersion: scheduling.k8s.io/v1beta1\nkind: PodGroup\nmetadata: {{name: g}}\nspec: {{schedulingPolicy: {{gang: {{minCount: 2}}}}}}\n{}{}{}",
                pod("p1", "", "schedulingGroup: {podGroupName: g}"),
                pod("p2", "", "schedulingGroup: {podGroupName: g}"),
                pod("p3", "", "schedulingGroup: {podGroupName: g}"),
            ),
            minima,
            "p1: 2 of 3",
        ),
        cell(
            "min_replicas",
            "Kubernetes Job, basic",
            kubernetes_job("", "scheduling: {schedulingPolicy: {basic: {}}}", "", ""),
            minima,
            "train: 1 of 8",
        ),
        cell("min_replicas", "Kueue", kueue_workload("", "minCount: 4"), minima, "main: 4 of 8"),
        cell(
            "min_replicas",
            "Kueue on a Job",
            kubernetes_job("annotations: {kueue.x-k8s.io/job-min-parallelism: \"3\"}", "", "", ""),
            minima,
            "train: 3 of 8",
        ),
        cell(
            "min_replicas",
            "KAI",
            kai_group("minMember: 1") + &kai_pod("a1", "") + &kai_pod("a2", ""),
            minima,
            "a1: 1 of 2",
        ),
        cell(
            "min_replicas",
            "KAI subgroups",
            kai_group(
                "minMember: 2, subGroups: [{name: a, minMember: 1}, {name: b, minMember: 1}]",
            ) + &kai_pod("a1", "a")
                + &kai_pod("a2", "a")
                + &kai_pod("b1", "b"),
            minima,
            "a1: 1 of 2; b1: 0 of 1",
        ),
        cell(
            "min_replicas",
            "YuniKorn",
            kubernetes_job("", "", TASK_GROUPS, ""),
            minima,
            "workers: 6 of 8; driver: 0 of 1",
        ),
    ]
}

fn strategy_and_topology() -> Vec<Cell> {
    let kueue = |word: &str, key: &str| {
        let annotation = format!("annotations: {{kueue.x-k8s.io/{word}: {key}}}");
        kubernetes_job("", "", &annotation, "")
    };
    vec![
        cell("strategy", "Ray PACK", "{bundles: [{CPU: 1}], strategy: PACK}", strategy, "STRATEGY_PACK"),
        cell("strategy", "Ray SPREAD", "{bundles: [{CPU: 1}], strategy: SPREAD}", strategy, "STRATEGY_SPREAD"),
        cell("strategy", "Ray STRICT_PACK", "{bundles: [{CPU: 1}], strategy: STRICT_PACK}", strategy, "STRATEGY_STRICT_PACK"),
        cell("strategy", "Ray STRICT_SPREAD", "{bundles: [{CPU: 1}], strategy: STRICT_SPREAD}", strategy, "STRATEGY_STRICT_SPREAD"),
        cell("strategy", "Ray None", "{bundles: [{CPU: 1}]}", strategy, "STRATEGY_PACK"),
        cell(
            "strategy",
            "Ray topology_strategy of nodes",
            "{bundles: [{CPU: 1}], topology_strategy: {ray.io/node-id: STRICT_SPREAD, ray.io/gpu-domain: STRICT_PACK}}",
            strategy,
            "STRATEGY_STRICT_SPREAD",
        ),
        cell(
            "strategy",
            "Kubernetes topologySpreadConstraints",
            kubernetes_job("", "", "", "topologySpreadConstraints:\n- {maxSkew: 2, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: train}}}\n- {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway}"),
            spread,
            "train: TOPOLOGY_LEVEL_ZONE by 2, TOPOLOGY_LEVEL_NODE by 1 if possible",
        ),
        cell(
            "strategy",
            "Kubernetes topology.key of nodes",
            kubernetes_job("", "scheduling: {schedulingConstraints: {topology: [{key: kubernetes.io/hostname}]}}", "", ""),
            strategy,
            "STRATEGY_STRICT_PACK",
        ),
        cell(
            "topology",
            "Ray topology_strategy",
            "{bundles: [{CPU: 1}], topology_strategy: {ray.io/availability-zone: STRICT_PACK}}",
            topology,
            "ZONE/UNSPECIFIED; bundle-0: UNSPECIFIED/UNSPECIFIED",
        ),
        cell(
            "topology",
            "Kubernetes Job",
            kubernetes_job("", "scheduling: {schedulingConstraints: {topology: [{key: example.com/rack}]}}", "", ""),
            topology,
            "RACK/UNSPECIFIED; train: UNSPECIFIED/UNSPECIFIED",
        ),
        cell(
            "topology",
            "Kubernetes Workload",
            workload("podGroupTemplates: [{name: t, schedulingPolicy: {gang: {minCount: 8}}, schedulingConstraints: {topology: [{key: topology.kubernetes.io/region}]}}]"),
            topology,
            "REGION/UNSPECIFIED; train: UNSPECIFIED/UNSPECIFIED",
        ),
        cell("topology", "Kueue required", kueue("podset-required-topology", "cloud.provider.com/topology-rack"), topology, "RACK/UNSPECIFIED; train: UNSPECIFIED/UNSPECIFIED"),
        cell("topology", "Kueue preferred", kueue("podset-preferred-topology", "cloud.provider.com/topology-block"), topology, "UNSPECIFIED/SITE; train: UNSPECIFIED/UNSPECIFIED"),
        cell("topology", "Kueue unconstrained", kueue("podset-unconstrained-topology", "\"true\""), topology, "UNSPECIFIED/UNSPECIFIED; train: UNSPECIFIED/UNSPECIFIED"),
        cell("topology", "Kueue Workload", kueue_workload("", "topologyRequest: {required: topology.kubernetes.io/zone, preferred: example.com/rack}"), topology, "ZONE/RACK; main: UNSPECIFIED/UNSPECIFIED"),
        cell(
            "topology",
            "Kueue podset-group-name",
            ray_cluster("", "", "annotations: {kueue.x-k8s.io/podset-group-name: g, kueue.x-k8s.io/podset-required-topology: example.com/rack}", "")
                .replace("    template:\n      spec:\n        containers:\n        - resources: {requests: {cpu: 2, memory: 4Gi}}", "    template:\n      metadata: {annotations: {kueue.x-k8s.io/podset-group-name: g, kueue.x-k8s.io/podset-required-topology: example.com/rack}}\n      spec:\n        containers:\n        - resources: {requests: {cpu: 2, memory: 4Gi}}"),
            topology,
            "RACK/UNSPECIFIED; head: UNSPECIFIED/UNSPECIFIED; gpu: UNSPECIFIED/UNSPECIFIED",
        ),
        cell("topology", "KAI on a Job", kubernetes_job("annotations: {kai.scheduler/topology: t, kai.scheduler/topology-required-placement: zone, kai.scheduler/topology-preferred-placement: rack}", "", "", ""), topology, "ZONE/RACK; train: UNSPECIFIED/UNSPECIFIED"),
        cell(
            "topology",
            "KAI PodGroup",
            kai_group("minMember: 2, topologyConstraint: {topology: t, requiredTopologyLevel: zone}, subGroups: [{name: a, topologyConstraint: {preferredTopologyLevel: rack}}, {name: b}]")
                + &kai_pod("a1", "a") + &kai_pod("b1", "b"),
            topology,
            "ZONE/UNSPECIFIED; a1: UNSPECIFIED/RACK; b1: UNSPECIFIED/UNSPECIFIED",
        ),
        cell("segment_size", "RayCluster numOfHosts", ray_cluster("", "numOfHosts: 2", "", ""), segments, "head: ; gpu: SITE of 2"),
        cell("segment_size", "Kueue slice", kubernetes_job("", "", "annotations: {kueue.x-k8s.io/podset-slice-required-topology: example.com/rack, kueue.x-k8s.io/podset-slice-size: \"4\"}", ""), segments, "train: RACK of 4"),
        cell("segment_size", "Kueue slice layers", kubernetes_job("", "", "annotations:\n  kueue.x-k8s.io/podset-slice-required-topology-constraints: '[{\"topology\": \"example.com/block\", \"size\": 4}, {\"topology\": \"example.com/rack\", \"size\": \"2\"}]'", ""), segments, "train: SITE of 4, RACK of 2"),
        cell("segment_size", "Kueue Workload", kueue_workload("", "topologyRequest: {podSetSliceRequiredTopology: example.com/rack, podSetSliceSize: 4}"), segments, "main: RACK of 4"),
        cell(
            "segment_size",
            "Kubernetes composite with all its groups",
            workload("compositePodGroupTemplates: [{name: all, schedulingPolicy: {gang: {minGroupCount: 1}}, podGroupTemplates: [{name: t, schedulingPolicy: {gang: {minCount: 7}}}]}]"),
            minima,
            "train: 7 of 8",
        ),
    ]
}

const CLAIM: &str = "apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpus}
spec:
  spec:
    devices:
      requests:
      - name: gpu
        firstAvailable:
        - {name: best, deviceClassName: gpu.nvidia.com, count: 2, selectors: [{cel: {expression: \"device.attributes['gpu.nvidia.com'].productName == 'NVIDIA H100 80GB HBM3'\"}}]}
        - {name: good, deviceClassName: gpu.nvidia.com, count: 2, selectors: [{cel: {expression: \"device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('40Gi')) >= 0 && device.attributes['gpu.nvidia.com'].cudaComputeCapability.compareTo(semver('8.0.0')) >= 0\"}}]}
---
";

fn gpus_and_nodes() -> Vec<Cell> {
    let claimed = CLAIM.to_owned()
        + &kubernetes_job(
            "",
            "",
            "",
            "resourceClaims: [{name: g, resourceClaimTemplateName: gpus}]",
        )
        .replace("{limits: {nvidia.com/gpu: 8}}", "{claims: [{name: g}]}");
    vec![
        cell(
            "gpu any-of",
            "Ray label selector",
            "{bundles: [{GPU: 1}], bundle_label_selector: [{ray.io/accelerator-type: \"in(H100,A100)\"}]}",
            gpus,
            "bundle-0: H100|A100 0MiB",
        ),
        cell(
            "gpu any-of",
            "Ray accelerator_type",
            "{bundles: [{GPU: 1, \"accelerator_type:A100\": 0.001}]}",
            gpus,
            "bundle-0: A100 0MiB",
        ),
        cell(
            "gpu any-of",
            "RayCluster labels",
            ray_cluster("", "labels: {ray.io/accelerator-type: H100, team: a}", "", ""),
            gpus,
            "head: ; gpu: NVIDIA H100 0MiB cc0",
        ),
        cell(
            "gpu any-of",
            "RayCluster nodeSelector",
            ray_cluster(
                "",
                "",
                "",
                "nodeSelector: {nvidia.com/gpu.product: NVIDIA-A100-SXM4-80GB}",
            ),
            gpus,
            "head: ; gpu: NVIDIA A100-SXM4-80GB 0MiB cc0",
        ),
        cell(
            "gpu any-of",
            "Kubernetes vendor",
            kubernetes_job("", "", "", ""),
            gpus,
            "train: NVIDIA  0MiB cc0",
        ),
        cell(
            "gpu any-of",
            "Kubernetes node affinity",
            kubernetes_job(
                "",
                "",
                "",
                "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: nvidia.com/gpu.product, operator: In, values: [H100, A100]}, {key: nvidia.com/gpu.memory, operator: Gt, values: [\"40000\"]}, {key: nvidia.com/gpu.compute.major, operator: Gt, values: [\"7\"]}]}]}}}",
            ),
            gpus,
            "train: NVIDIA H100|A100 40001MiB cc800",
        ),
        cell(
            "gpu any-of",
            "Kubernetes DRA firstAvailable",
            claimed.clone(),
            gpus,
            "train: NVIDIA H100-80GB-HBM3 0MiB cc0, NVIDIA  40960MiB cc800",
        ),
        cell(
            "bundle x replicas",
            "Kubernetes DRA count",
            claimed,
            bundles,
            "train: 8 x 2 GPU 0m 0MiB",
        ),
        cell(
            "topology",
            "RayCluster labels",
            ray_cluster("", "labels: {topology.kubernetes.io/zone: z1, team: a}", "", ""),
            selectors,
            "head: ; gpu: muster/zone IN z1",
        ),
        cell(
            "selector",
            "Kubernetes nodeSelector",
            kubernetes_job(
                "",
                "",
                "",
                "nodeSelector: {topology.kubernetes.io/region: eu, pool: a}\nnodeName: n1",
            ),
            selectors,
            "train: pool IN a, muster/region IN eu, muster/node IN n1",
        ),
        cell(
            "selector",
            "Kubernetes node affinity",
            kubernetes_job(
                "",
                "",
                "",
                "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: NotIn, values: [x]}, {key: b, operator: Exists}, {key: c, operator: DoesNotExist}], matchFields: [{key: metadata.name, operator: In, values: [n]}]}]}}}",
            ),
            selectors,
            "train: a NOT_IN x, b EXISTS , c DOES_NOT_EXIST , muster/node IN n",
        ),
        cell(
            "selector",
            "Kubernetes node affinity, either-or on one key",
            kubernetes_job(
                "",
                "",
                "",
                "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: In, values: [x]}]}, {matchExpressions: [{key: a, operator: In, values: [y]}]}]}}}",
            ),
            selectors,
            "train: a IN x,y",
        ),
        cell(
            "tolerations",
            "Kubernetes",
            kubernetes_job(
                "",
                "",
                "",
                "tolerations: [{key: a, operator: Exists, effect: NoSchedule}, {key: b, value: v}, {operator: Exists}, {key: gone, operator: Exists, effect: NoExecute}]",
            ),
            |spec| {
                each(spec, |group| {
                    let all = group.tolerations.iter().map(|one| {
                        format!("{}={:?} {}", one.key, one.value, one.effect().as_str_name())
                    });
                    all.collect::<Vec<_>>().join(", ")
                })
            },
            "train: a=None TAINT_EFFECT_NO_SCHEDULE, b=Some(\"v\") TAINT_EFFECT_UNSPECIFIED, =None TAINT_EFFECT_UNSPECIFIED",
        ),
        cell(
            "affinity",
            "Kubernetes, pods of the same Job apart",
            kubernetes_job(
                "",
                "",
                "",
                "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: train}}}]}}",
            ),
            |spec| strategy(spec) + &affinities(spec),
            "STRATEGY_STRICT_SPREAD",
        ),
        cell(
            "affinity",
            "Kubernetes, pods of other jobs",
            kubernetes_job(
                "",
                "",
                "",
                "affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, podAffinityTerm: {topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: cache}}}}]}}",
            ),
            affinities,
            "train near {\"app\": \"cache\"} ZONE if possible",
        ),
        cell(
            "labels",
            "Kubernetes",
            kubernetes_job("labels: {team: a, kueue.x-k8s.io/queue-name: q}", "", "", ""),
            |spec| format!("{:?}", spec.labels),
            "{\"app\": \"train\", \"team\": \"a\"}",
        ),
        cell(
            "network",
            "annotation of ours",
            kubernetes_job(
                "annotations: {muster/max-rtt: 50ms, muster/max-price: \"2.50\", muster/kind: plain}",
                "",
                "",
                "",
            ),
            |spec| {
                format!(
                    "{} {} {}",
                    spec.rtt_us_max,
                    spec.price_micro_usd_max,
                    spec.kind().as_str_name()
                )
            },
            "50000 2500000 JOB_KIND_PLAIN",
        ),
    ]
}

fn lifetimes() -> Vec<Cell> {
    let ray_job = "apiVersion: ray.io/v1\nkind: RayJob\nmetadata: {name: j}\nspec:\n  entrypoint: python a.py\n  activeDeadlineSeconds: 3600\n  rayClusterSpec:\n    headGroupSpec: {template: {spec: {containers: [{resources: {requests: {cpu: 1}}}]}}}\n";
    vec![
        cell(
            "duration",
            "Ray detached",
            "{bundles: [{CPU: 1}], lifetime: detached}",
            duration,
            "0",
        ),
        cell("duration", "RayJob", ray_job, duration, "3600"),
        cell(
            "duration",
            "Kubernetes Job",
            kubernetes_job("", "activeDeadlineSeconds: 600", "", ""),
            duration,
            "600",
        ),
        cell(
            "duration",
            "Kubernetes Pod",
            pod("p", "", "activeDeadlineSeconds: 60"),
            duration,
            "60",
        ),
        cell(
            "duration",
            "Kueue",
            kueue_workload("maximumExecutionTimeSeconds: 900", ""),
            duration,
            "900",
        ),
        cell(
            "duration",
            "Kueue label",
            kubernetes_job(
                "labels: {kueue.x-k8s.io/max-exec-time-seconds: \"500\"}",
                "activeDeadlineSeconds: 600",
                "",
                "",
            ),
            duration,
            "500",
        ),
    ]
}

#[test]
fn every_field_of_the_mapping() {
    let cells = [replicas_and_minima(), strategy_and_topology(), gpus_and_nodes(), lifetimes()];
    let mut wrong = Vec::new();
    for cell in cells.iter().flatten() {
        let shown = (cell.show)(&job(&cell.manifest));
        if shown != cell.wanted {
            wrong.push(format!(
                "{} from {}:\n  is     {shown}\n  wanted {}",
                cell.ours, cell.of, cell.wanted
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Fields that have no counterpart are told with their path.
#[test]
fn what_has_no_counterpart_is_told() {
    for (text, wanted) in [
        (
            kubernetes_job("namespace: team-a", "", "", ""),
            "metadata.namespace: ignored: the tenant follows from the token",
        ),
        (
            kubernetes_job("labels: {kueue.x-k8s.io/queue-name: q}", "", "", ""),
            "metadata.labels[\"kueue.x-k8s.io/queue-name\"]: ignored",
        ),
        (kueue_workload("queueName: q", ""), "spec.queueName: ignored: the tenant that submits"),
        (
            kai_group("minMember: 1, queue: q, preemptibility: non-preemptible")
                + &kai_pod("a", ""),
            "documents[0].spec.queue: ignored",
        ),
        (
            kai_group("minMember: 1, preemptionDelay: 5s") + &kai_pod("a", ""),
            "documents[0].spec.preemptionDelay: ignored: a job that may preempt others does so",
        ),
        (
            kueue_workload("preemptionGates: [{name: a}]", ""),
            "spec.preemptionGates: ignored: whom a job may preempt",
        ),
        (
            kubernetes_job("", "scheduling: {disruptionMode: {single: {}}}", "", ""),
            "spec.scheduling.disruptionMode: read as: pods above the minimum",
        ),
        (
            kubernetes_job(
                "",
                "",
                "annotations: {yunikorn.apache.org/allow-preemption: \"true\"}",
                "",
            ),
            "annotations[\"yunikorn.apache.org/allow-preemption\"]: ignored: whom a job may preempt",
        ),
        ("{bundles: [{CPU: 1}], ray_namespace: n}".to_owned(), "ray_namespace: ignored"),
        (
            kubernetes_job(
                "",
                "",
                "annotations: {yunikorn.apache.org/queue: root.a, yunikorn.apache.org/schedulingPolicyParameters: \"placeholderTimeoutInSeconds=30 gangSchedulingStyle=Soft\"}",
                "",
            ),
            "spec.template.metadata.annotations[\"yunikorn.apache.org/queue\"]: ignored",
        ),
    ] {
        let notes = notes(&text);
        assert!(notes.contains(wanted), "{wanted} not in:\n{notes}");
    }
}
