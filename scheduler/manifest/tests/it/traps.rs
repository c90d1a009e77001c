//! What goes wrong elsewhere when requests are carried from one system to another.

use crate::{faults, group, job, kubernetes_job, notes, ray_cluster, shape};
use proto::v1::shape::Gpus;
use proto::v1::{Role, SelectorOperator, Strategy, TopologyLevel};

/// A cluster of two worker groups must not start with all of one and none of the other.
#[test]
fn minima_stay_with_their_groups() {
    let text = ray_cluster("", "minReplicas: 3", "", "")
        + "  - {groupName: cpu, replicas: 10, minReplicas: 2, template: {spec: {containers: [{resources: {requests: {cpu: 1}}}]}}}\n";
    let spec = job(&text);
    let minima: Vec<_> = spec
        .groups
        .iter()
        .map(|group| (group.name.as_str(), group.replicas, group.replicas_min))
        .collect();
    assert_eq!(minima, [("head", 1, 0), ("gpu", 4, 3), ("cpu", 10, 2)]);
    assert_eq!(spec.groups[0].role(), Role::Head);
}

#[test]
fn a_minimum_over_different_pods_is_refused() {
    let pods = |count: u32| {
        format!(
            "apiVersion: scheduling.run.ai/v2alpha2\nkind: PodGroup\nmetadata: {{name: g}}\nspec: \
             {{minMember: {count}}}\n---\n{}---\n{}",
            pod("a", 1),
            pod("b", 2)
        )
    };
    assert!(
        faults(&pods(1))
            .contains("documents[0].spec.minMember: is 1 over groups of different pods")
    );
    assert!(
        faults(&pods(3)).contains("documents[0].spec.minMember: is 3, but there are only 2 pods")
    );
    assert_eq!(job(&pods(2)).groups.len(), 2);
}

fn pod(name: &str, gpus: u32) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, annotations: {{pod-group-name: g}}}}\nspec: \
         {{containers: [{{resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}}}]}}\n"
    )
}

#[test]
fn strict_pack_is_one_node_and_not_a_domain() {
    let spec = job("{bundles: [{GPU: 1}, {GPU: 1}], strategy: STRICT_PACK}");
    assert_eq!(spec.strategy(), Strategy::StrictPack);
    assert_eq!(spec.topology_required(), TopologyLevel::Unspecified);
    // On a label of racks it is a domain, and bundles may lie on many nodes.
    let spec =
        job("{bundles: [{GPU: 1}, {GPU: 1}], topology_strategy: {ray.io/gpu-domain: STRICT_PACK}}");
    assert_eq!(spec.strategy(), Strategy::Pack);
    assert_eq!(spec.topology_required(), TopologyLevel::Rack);
}

#[test]
fn no_strategy_is_pack() {
    for text in ["{bundles: [{CPU: 1}]}", "{bundles: [{CPU: 1}], strategy: null}"] {
        assert_eq!(job(text).strategy(), Strategy::Pack, "{text}");
    }
}

#[test]
fn a_topology_key_of_kubernetes_is_never_a_wish() {
    let constraint =
        "scheduling:\n  schedulingConstraints: {topology: [{key: topology.kubernetes.io/zone}]}";
    let spec = job(&kubernetes_job("", constraint, "", ""));
    assert_eq!(spec.topology_required(), TopologyLevel::Zone);
    assert_eq!(spec.topology_preferred(), TopologyLevel::Unspecified);
}

#[test]
fn several_hosts_make_a_segment_and_count_as_members() {
    let text = ray_cluster("", "minReplicas: 2\nnumOfHosts: 4", "", "");
    let spec = job(&text);
    let workers = group(&spec, "gpu");
    assert_eq!((workers.replicas, workers.replicas_min), (16, 8));
    let segments: Vec<_> = workers.segments.iter().map(|one| (one.level(), one.size)).collect();
    assert_eq!(segments, [(TopologyLevel::Site, 4)]);
    assert!(notes(&text).contains("spec.workerGroupSpecs[0].numOfHosts: read as"));
    let slice = "annotations: {kueue.x-k8s.io/podset-slice-required-topology: cloud.provider.com/topology-rack, kueue.x-k8s.io/podset-slice-size: \"4\"}";
    let spec = job(&ray_cluster("", "numOfHosts: 4", slice, ""));
    let segments: Vec<_> =
        group(&spec, "gpu").segments.iter().map(|one| (one.level(), one.size)).collect();
    assert_eq!(segments, [(TopologyLevel::Rack, 4)]);
    assert!(
        faults(&ray_cluster("", "numOfHosts: 3", slice, ""))
            .contains("numOfHosts: is 3, but the slices")
    );
}

#[test]
fn a_maximum_that_stands_for_none_is_none() {
    let most = |worker: &str| {
        let text = ray_cluster("", worker, "", "");
        (group(&job(&text), "gpu").replicas_max, notes(&text).contains("maxReplicas: read as"))
    };
    assert_eq!(most(""), (0, false));
    assert_eq!(most("maxReplicas: 4"), (0, false));
    assert_eq!(most("maxReplicas: 5"), (5, false));
    assert_eq!(most("maxReplicas: 2147483647"), (0, true));
    let huge = ray_cluster("", "maxReplicas: 2147483646\nnumOfHosts: 4", "", "");
    assert!(faults(&huge).contains("workerGroupSpecs[0].maxReplicas: times numOfHosts is too"));
}

#[test]
fn what_is_suspended_is_not_submitted() {
    for (text, path) in [
        (kubernetes_job("", "suspend: true", "", ""), "spec.suspend: is true"),
        (ray_cluster("suspend: true", "", "", ""), "spec.suspend: is true"),
        (ray_cluster("", "suspend: true", "", ""), "spec.workerGroupSpecs[0].suspend: is true"),
    ] {
        assert!(faults(&text).contains(path), "{path}");
    }
    job(&kubernetes_job("", "suspend: false", "", ""));
}

#[test]
fn priorities_are_refused_unless_they_say_nothing() {
    for (text, path) in [
        (
            kubernetes_job("", "", "", "priorityClassName: high"),
            "spec.template.spec.priorityClassName",
        ),
        (kubernetes_job("", "", "", "priority: 5"), "spec.template.spec.priority"),
        (
            kubernetes_job("labels: {kueue.x-k8s.io/priority-class: high}", "", "", ""),
            "metadata.labels[\"kueue.x-k8s.io/priority-class\"]",
        ),
    ] {
        let faults = faults(&text);
        assert!(
            faults.contains(&format!("{path}: is not supported: what it is worth")),
            "{faults}"
        );
    }
    job(&kubernetes_job("", "", "", "priority: 0"));
    let of_group = faults(&ray_cluster("", "priority: 3", "", ""));
    assert!(
        of_group.starts_with("spec.workerGroupSpecs[0].priority: is not supported: the groups"),
        "{of_group}"
    );
    let own = |value: &str| {
        kubernetes_job(&format!("annotations: {{muster/priority: {value}}}"), "", "", "")
    };
    assert_eq!(job(&own("\"-20\"")).priority, -20);
    let high = faults(&own("high"));
    assert!(
        high.contains("annotations[\"muster/priority\"]: must be a whole number, is `high`"),
        "{high}"
    );
}

#[test]
fn label_selectors_of_ray() {
    let spec = job(
        "bundles: [{CPU: 1}]\nbundle_label_selector: [{a: v, b: \"!v\", c: \"in(x,y)\", d: \"!in(x,y)\", ray.io/availability-zone: z1}]",
    );
    let selectors: Vec<_> = spec.groups[0]
        .selectors
        .iter()
        .map(|one| (one.key.as_str(), one.operator(), one.values.join(",")))
        .collect();
    assert_eq!(
        selectors,
        [
            ("a", SelectorOperator::In, "v".to_owned()),
            ("b", SelectorOperator::NotIn, "v".to_owned()),
            ("c", SelectorOperator::In, "x,y".to_owned()),
            ("d", SelectorOperator::NotIn, "x,y".to_owned()),
            ("muster/zone", SelectorOperator::In, "z1".to_owned()),
        ]
    );
    let bad = faults("bundles: [{CPU: 1}]\nbundle_label_selector: [{a: \"in(x\"}, {}]");
    assert!(bad.contains("bundle_label_selector: has 2 selectors for 1 bundles"), "{bad}");
    assert!(bad.contains("bundle_label_selector[0].a: `in(x` lacks its closing bracket"), "{bad}");
    let excluded =
        "bundles: [{GPU: 1}]\nbundle_label_selector: [{ray.io/accelerator-type: \"!H100\"}]";
    assert!(faults(excluded).contains("GPU models can be asked for, not excluded"));
}

#[test]
fn quantities() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - resources: \
                {requests: {cpu: 500m, memory: 64Gi, ephemeral-storage: 1T, rdma/hca: 2}, limits: \
                {nvidia.com/gpu: \"4\"}}\n";
    let spec = job(text);
    let shape = shape(&spec.groups[0]);
    assert_eq!((shape.cpu_milli, shape.memory_mib, shape.disk_mib), (500, 65_536, 953_675));
    assert_eq!(shape.gpus, Some(Gpus::GpuCount(4)));
    assert_eq!(shape.custom.iter().collect::<Vec<_>>(), [(&"rdma.hca".to_owned(), &2)]);
    let notes = notes(text);
    assert!(notes.contains("requests.ephemeral-storage: rounded up to 953675MiB"), "{notes}");
    assert!(
        notes.contains("requests[\"rdma/hca\"]: counted as the resource `rdma.hca`"),
        "{notes}"
    );
    for (from, to, wanted) in [
        ("500m", "-1", "requests.cpu: `-1` is negative"),
        ("64Gi", "64GB", "requests.memory: `64GB` has an unknown unit"),
        ("\"4\"", "0.5", "limits[\"nvidia.com/gpu\"]: must be a whole number of GPUs"),
        (
            "nvidia.com/gpu",
            "nvidia.com/mig-10gb",
            "limits[\"nvidia.com/mig-10gb\"]: `10gb` is no MIG profile",
        ),
        ("rdma/hca", "hugepages-2Mi", "nodes here do not say which huge pages they have"),
    ] {
        let faults = faults(&text.replace(from, to));
        assert!(faults.contains(wanted), "{wanted} not in {faults}");
    }
}

/// The device plugin's resources and the native `mig_profile` come to the same.
#[test]
fn parts_of_a_gpu_made_with_mig() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - resources: \
               {requests: {cpu: 1}, limits: {nvidia.com/mig-1g.10gb.me: 2}}\n";
    let native = "kind: plain\nname: p\ngroups: [{name: w, replicas: 1, cpu: 1, mig_profile: \
                  1g.10gb+me, mig_count: 2}]\n";
    let (pod_job, native_job) = (job(pod), job(native));
    assert_eq!(shape(&pod_job.groups[0]), shape(&native_job.groups[0]));
    let notes = notes(pod);
    assert!(notes.contains("counted as the resource `nvidia.com.mig-1g.10gb.me`"), "{notes}");
    let both = pod.replace("limits: {", "limits: {nvidia.com/gpu: 1, ");
    assert!(faults(&both).contains("GPUs and parts of GPUs for one replica"), "{}", faults(&both));
}

#[test]
fn shares_of_a_gpu() {
    let with = |annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, annotations: {{{annotation}}}}}\nspec: \
             {{containers: [{{resources: {{requests: {{cpu: 1}}}}}}]}}\n"
        )
    };
    assert_eq!(
        shape(&job(&with("gpu-fraction: \"0.25\"")).groups[0]).gpus,
        Some(Gpus::GpuMilli(250))
    );
    assert_eq!(shape(&job("{bundles: [{GPU: 0.5}]}").groups[0]).gpus, Some(Gpus::GpuMilli(500)));
    for (annotation, wanted) in [
        ("gpu-fraction: \"1.5\"", "must be from 0.001 to 0.999"),
        ("gpu-fraction: \"0\"", "must be from 0.001 to 0.999"),
        ("gpu-memory: \"2000\"", "metadata.annotations.gpu-memory: is not supported: which share"),
        ("gpu-fraction: \"0.5\", gpu-fraction-num-devices: \"2\"", "shares of several GPUs"),
    ] {
        assert!(faults(&with(annotation)).contains(wanted), "{annotation}");
    }
    assert!(
        faults("{bundles: [{GPU: 1.5}]}")
            .contains("bundles[0].GPU: must be whole or less than one")
    );
}

#[test]
fn pods_that_cannot_share_a_node_do_not() {
    let ports = "hostNetwork: true\ninitContainers: []";
    let text = kubernetes_job("", "", "", ports).replace(
        "resources: {limits: {nvidia.com/gpu: 8}}",
        "resources: {limits: {nvidia.com/gpu: 8}}\n        ports: [{containerPort: 29500}]",
    );
    assert_eq!(job(&text).strategy(), Strategy::StrictSpread);
    // Beside other groups it stays with its own.
    let cluster = ray_cluster("", "", "", "").replace(
        "- resources: {limits",
        "- ports: [{containerPort: 80, hostPort: 80}]\n          resources: {limits",
    );
    assert_eq!(group(&job(&cluster), "gpu").replicas_per_node_max, 1);
    assert!(notes(&text).contains("ports[0]: read as: no two of these pods on one node"));
}

#[test]
fn waves_are_no_gang() {
    assert!(
        faults(&kubernetes_job("", "completions: 100", "", ""))
            .contains("spec.completions: is not supported")
    );
    let spec = job(&kubernetes_job("", "completions: 5", "", ""));
    assert_eq!(group(&spec, "train").replicas, 5);
}

/// Bundles of two kinds in turn are more rows than a job has groups.
#[test]
fn many_rows_of_bundles_are_counted_by_kind() {
    let rows = |count: usize| format!("bundles: [{}]", "{GPU: 1}, {CPU: 1}, ".repeat(count));
    let few = job(&rows(32));
    assert_eq!(few.groups.len(), 64);
    let many = job(&rows(40));
    let groups: Vec<_> = many.groups.iter().map(|one| (one.name.as_str(), one.replicas)).collect();
    assert_eq!(groups, [("bundle-0", 40), ("bundle-1", 40)]);
    assert!(notes(&rows(40)).contains("bundles: more than 64 rows of like bundles"));
}

/// Whatever else is said, nothing that is narrower gets lost.
#[test]
fn of_several_levels_the_narrowest_is_kept() {
    let pods = "annotations: {pod-group-name: g}";
    let pod_group = |level: &str| {
        format!(
            "---\napiVersion: scheduling.run.ai/v2alpha2\nkind: PodGroup\nmetadata: {{name: g}}\nspec: \
             {{topologyConstraint: {{{level}: topology.kubernetes.io/zone}}}}\n"
        )
    };
    let cluster = |annotation: &str| {
        let text = ray_cluster("", "", pods, "");
        let text = text.replace(
            "    template:\n      spec",
            "    template:\n      metadata: {annotations: {pod-group-name: g}}\n      spec",
        );
        let of = format!(
            "name: demo\n  annotations: {{kai.scheduler/{annotation}: example.com/rack}}\n"
        );
        text.replacen("name: demo\n", &of, 1)
    };
    let spec = job(&(cluster("topology-required-placement") + &pod_group("requiredTopologyLevel")));
    assert_eq!(spec.topology_required(), TopologyLevel::Rack);
    let spec =
        job(&(cluster("topology-preferred-placement") + &pod_group("preferredTopologyLevel")));
    assert_eq!(spec.topology_preferred(), TopologyLevel::Rack);
    // One node as a wish takes nothing from one node as a must.
    let both = "affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, podAffinityTerm: \
                {labelSelector: {matchLabels: {app: train}}, topologyKey: kubernetes.io/hostname}}]}}";
    let must = "annotations: {kueue.x-k8s.io/podset-required-topology: kubernetes.io/hostname}";
    assert_eq!(job(&kubernetes_job("", "", must, both)).strategy(), Strategy::StrictPack);
    assert_eq!(job(&kubernetes_job("", "", "", both)).strategy(), Strategy::Pack);
}

/// In Kubernetes a term without conditions matches no node; here it would have matched all.
#[test]
fn a_term_of_nothing_is_a_fault() {
    let pod = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{}]}}}";
    assert!(faults(&kubernetes_job("", "", "", pod)).contains("nodeSelectorTerms[0]: is empty"));
}

#[test]
fn a_node_with_gpus_is_only_asked_for_by_pods_with_gpus() {
    let pod = "nodeSelector: {nvidia.com/gpu.present: \"true\"}";
    let text = kubernetes_job("", "", "", pod);
    assert!(notes(&text).contains("asking for a GPU says the same"));
    let text = text.replace("nvidia.com/gpu: 8", "cpu: 8");
    assert!(faults(&text).contains("is about GPUs, but none is asked for"));
}

/// What a task group says beside its size is kept by its pods, or refused.
#[test]
fn a_task_group_says_no_more_than_its_pods() {
    let text = |group: &str, pod: &str| {
        let groups = format!(
            "annotations:\n  yunikorn.apache.org/task-group-name: g\n  yunikorn.apache.org/task-groups: '[{{\"name\": \
             \"g\", \"minMember\": 8{group}}}]'"
        );
        kubernetes_job("", "", &groups, pod)
    };
    for (group, pod, field) in [
        (", \"nodeSelector\": {\"disk\": \"ssd\"}", "nodeSelector: {disk: ssd}", "nodeSelector"),
        (
            ", \"nodeSelector\": {\"nvidia.com/gpu.product\": \"L4\"}, \"minResource\": {\"nvidia.com/gpu\": 8}",
            "nodeSelector: {nvidia.com/gpu.product: L4}",
            "nodeSelector",
        ),
        (
            ", \"tolerations\": [{\"key\": \"a\", \"operator\": \"Exists\"}]",
            "tolerations: [{key: a, operator: Exists}]",
            "tolerations",
        ),
        (
            ", \"topologySpreadConstraints\": [{\"maxSkew\": 1, \"topologyKey\": \"zone\"}]",
            "topologySpreadConstraints: [{maxSkew: 1, topologyKey: zone}]",
            "topologySpreadConstraints",
        ),
    ] {
        assert_eq!(job(&text(group, pod)).groups.len(), 1, "{field}");
        let wanted = format!("[0].{field}: differs from what the pods of the group ask for");
        assert!(faults(&text(group, "")).contains(&wanted), "{field}");
    }
}

/// A claim's conditions must all hold, wherever they stand.
#[test]
fn conditions_on_a_claimed_device_hold_together() {
    let text = |expressions: &str| {
        let claim = format!(
            "apiVersion: resource.k8s.io/v1\nkind: ResourceClaimTemplate\nmetadata: {{name: c}}\nspec: {{spec: {{devices: \
             {{requests: [{{name: r, exactly: {{deviceClassName: gpu.nvidia.com, selectors: [{expressions}]}}}}]}}}}}}\n---\n"
        );
        let pod = "resourceClaims: [{name: c, resourceClaimTemplateName: c}]";
        claim + &kubernetes_job("", "", "", pod).replace("nvidia.com/gpu: 8", "cpu: 8")
    };
    let product = |words: &str| {
        format!(
            "{{cel: {{expression: \"device.attributes['gpu.nvidia.com'].productName {words}\"}}}}"
        )
    };
    let memory = |least: &str| {
        format!(
            "{{cel: {{expression: \"device.capacity['gpu.nvidia.com'].memory.compareTo(quantity('{least}')) >= 0\"}}}}"
        )
    };
    let two = |one: &str, other: &str| text(&format!("{one}, {other}"));
    let spec = job(&two(&product("in ['A', 'B']"), &product("== 'B'")));
    assert_eq!(shape(&spec.groups[0]).gpu_alternatives[0].models, ["B"]);
    assert!(faults(&two(&product("== 'A'"), &product("== 'B'"))).contains("contradicts another"));
    let spec = job(&two(&memory("80Gi"), &memory("40Gi")));
    assert_eq!(shape(&spec.groups[0]).gpu_alternatives[0].vram_mib_min, 80 << 10);
}

/// The limit of a whole pod is its request only where no container asks for anything.
#[test]
fn a_limit_of_the_whole_pod_is_no_request_beside_others() {
    let cpu = |pod: &str, asked: &str| {
        let text = kubernetes_job("", "", "", pod).replace("nvidia.com/gpu: 8", asked);
        shape(&job(&text).groups[0]).cpu_milli
    };
    assert_eq!(cpu("resources: {limits: {cpu: 4}}", "cpu: 1"), 1_000);
    assert_eq!(cpu("resources: {limits: {cpu: 4}, requests: {cpu: 2}}", "cpu: 1"), 2_000);
    assert_eq!(cpu("resources: {limits: {cpu: 4}}", "memory: 1Gi"), 4_000);
}

#[test]
fn loose_subgroups_are_faults() {
    let pods = "labels: {kai.scheduler/subgroup-name: b}\nannotations: {pod-group-name: g}";
    let text = kubernetes_job("", "", pods, "").replace("      labels: {app: train}\n", "");
    let group = |spec: &str| {
        format!(
            "---\napiVersion: scheduling.run.ai/v2alpha2\nkind: PodGroup\nmetadata: {{name: g}}\nspec: {{{spec}}}\n"
        )
    };
    assert!(
        faults(&(text.clone() + &group("minMember: 8")))
            .contains("the PodGroup `g` has no subgroup `b`")
    );
    let unknown = group("subGroups: [{name: b, parent: a}]");
    assert!(faults(&(text.clone() + &unknown)).contains("parent: no subgroup is called `a`"));
    assert_eq!(job(&(text + &group("subGroups: [{name: b}]"))).groups.len(), 1);
}
