//! Sets of Jobs and pods: JobSet, LeaderWorkerSet, and the kinds of Kubeflow's training operator.

use crate::{faults, group, indented, job, notes, shape};
use proto::v1::shape::Gpus;
use proto::v1::{Affinity, JobKind, JobSpec, Role, Strategy, TopologyLevel};

const POD: &str =
    "containers: [{resources: {limits: {nvidia.com/gpu: 8}, requests: {cpu: 4, memory: 8Gi}}}]";

/// A set of one kind of Job: two pods of eight GPUs each; more fields for its parts.
fn jobset(metadata: &str, spec: &str, replicated: &str, child: &str, pod: &str) -> String {
    format!(
        "apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nmetadata:\n  name: set\n{}spec:\n{}  \
         replicatedJobs:\n  - name: slice\n{}    template:\n{}      spec:\n        parallelism: 2\n        \
         template:\n          spec:\n            {POD}\n{}",
        indented(2, metadata),
        indented(2, spec),
        indented(4, replicated),
        indented(6, child),
        indented(12, pod),
    )
}

/// Another kind of Job for the same set, of one pod without GPUs.
fn driver(more: &str) -> String {
    format!(
        "  - name: driver\n{}    template:\n      spec:\n        template:\n          spec:\n            \
         containers: [{{resources: {{requests: {{cpu: 1}}}}}}]\n",
        indented(4, more)
    )
}

const ALONE: &str =
    "metadata: {annotations: {alpha.jobset.sigs.k8s.io/exclusive-topology: example.com/rack}}";

fn sizes(spec: &JobSpec) -> Vec<(&str, u32)> {
    spec.groups.iter().map(|group| (group.name.as_str(), group.replicas)).collect()
}

/// Affinities in short: `anti group/with_group@level`, labels of other jobs by their number.
fn bonds(spec: &JobSpec) -> Vec<String> {
    let shown = |one: &Affinity| {
        let anti = if one.anti { "anti " } else { "" };
        let jobs = one.with_job_labels.len();
        format!("{anti}{}/{}{jobs}@{:?}", one.group, one.with_group, one.level())
    };
    spec.affinities.iter().map(shown).collect()
}

#[test]
fn the_jobs_of_a_set_are_groups_copy_after_copy() {
    let spec = job(&(jobset("", "", "replicas: 3", "", "") + &driver("")));
    assert_eq!((spec.name.as_str(), spec.kind()), ("set", JobKind::Kubernetes));
    assert_eq!(sizes(&spec), [("slice", 6), ("driver", 1)]);
    let slice = group(&spec, "slice");
    assert_eq!(shape(slice).gpus, Some(Gpus::GpuCount(8)));
    assert!(slice.segments.is_empty() && spec.affinities.is_empty() && slice.replicas_min == 0);
    // Pods that are alike stay of two groups: they are told apart by name.
    let twins = jobset("", "", "", "", "").replace("parallelism: 2", "parallelism: 1");
    let second = twins[twins.find("  - name").expect("one")..].replace("slice", "other");
    assert_eq!(sizes(&job(&(twins + &second))), [("slice", 1), ("other", 1)]);
    let none = job(&(jobset("", "", "replicas: 0", "", "") + &driver("")));
    assert_eq!(sizes(&none), [("driver", 1)]);
}

#[test]
fn a_domain_for_each_job_of_a_set() {
    let spec = job(&jobset("", "", "replicas: 3", ALONE, ""));
    let [segment] = spec.groups[0].segments.as_slice() else { panic!("{spec:?}") };
    assert_eq!((segment.level(), segment.size, segment.exclusive), (TopologyLevel::Rack, 2, true));
    assert_eq!(bonds(&spec), ["anti /1@Rack"]);
    assert_eq!(spec.labels["alpha.jobset.sigs.k8s.io/exclusive-topology"], "example.com/rack");
    // Of one copy the group is the block.
    let one = job(&jobset("", "", "", ALONE, ""));
    assert_eq!((one.groups[0].segments.len(), one.topology_required()), (0, TopologyLevel::Rack));
    // Said of the set it holds for all its Jobs, which are then apart too.
    let of_set = ALONE.replace("metadata: {", "").replace("}}", "}");
    let both = job(&(jobset(&of_set, "", "replicas: 3", "", "") + &driver("")));
    assert_eq!(bonds(&both), ["anti slice/driver0@Rack", "anti /1@Rack"]);
    assert_eq!(group(&both, "driver").topology_required(), TopologyLevel::Rack);
    // Said of one Job only, other jobs are kept from that one.
    let part = job(&(jobset("", "", "replicas: 3", ALONE, "") + &driver("")));
    assert_eq!(bonds(&part), ["anti slice/1@Rack"]);
    let told = notes(&jobset("", "", "replicas: 3", ALONE, ""));
    assert!(told.contains("exclusive-topology\"]: read as: also apart from"), "{told}");
    let wrong =
        faults(&jobset("", "", "replicas: 3", &ALONE.replace("example.com/rack", "colour"), ""));
    assert!(wrong.contains("exclusive-topology\"]: `colour` is no level"), "{wrong}");
}

#[test]
fn the_jobs_of_a_set_start_in_order() {
    let after = "dependsOn: [{name: slice, status: Ready}]";
    let spec = job(&(jobset("", "", "", "", "") + &driver(after)));
    assert_eq!(group(&spec, "driver").depends_on, ["slice"]);
    let in_order = "startupPolicy: {startupPolicyOrder: InOrder}";
    let spec = job(&(jobset("", in_order, "", "", "") + &driver("")));
    assert_eq!(group(&spec, "driver").depends_on, ["slice"]);
    assert!(group(&spec, "slice").depends_on.is_empty());
    let any = "startupPolicy: {startupPolicyOrder: AnyOrder}";
    assert!(job(&(jobset("", any, "", "", "") + &driver(""))).groups[1].depends_on.is_empty());
    for (spec, more, wanted) in [
        (
            "",
            "dependsOn: [{name: slice, status: Complete}]",
            "dependsOn[0].status: is not supported: all groups",
        ),
        (
            "",
            "dependsOn: [{name: slice, status: Up}]",
            "dependsOn[0].status: `Up` is none of Ready, Complete",
        ),
        ("", "dependsOn: [{name: slice}]", "dependsOn[0].status: missing"),
        (
            "",
            "dependsOn: [{name: nobody, status: Ready}]",
            "dependsOn[0].name: no Job of this set is called `nobody`",
        ),
        (in_order, after, "replicatedJobs[1].dependsOn: must not come with startupPolicy"),
    ] {
        let faults = faults(&(jobset("", spec, "", "", "") + &driver(more)));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}

#[test]
fn the_coordinator_of_a_set_is_its_head() {
    let with = |coordinator: &str| {
        let spec = format!("coordinator: {{{coordinator}}}");
        jobset("", &spec, "replicas: 2", "", "") + &driver("")
    };
    let spec = job(&with("replicatedJob: driver"));
    assert_eq!(sizes(&spec), [("driver", 1), ("slice", 4)]);
    assert_eq!(spec.groups[0].role(), Role::Head);
    let spec = job(&with("replicatedJob: slice, jobIndex: 0, podIndex: 0"));
    assert_eq!((spec.groups[0].name.as_str(), spec.groups[0].role()), ("slice", Role::Worker));
    assert!(
        notes(&with("replicatedJob: slice"))
            .contains("coordinator: read as: the first member of slice")
    );
    for (text, wanted) in [
        ("replicatedJob: slice, jobIndex: 1", "spec.coordinator.jobIndex: is not supported"),
        ("replicatedJob: slice, podIndex: 1", "spec.coordinator.podIndex: is not supported"),
        ("replicatedJob: none", "spec.coordinator.replicatedJob: no Job of this set"),
    ] {
        let faults = faults(&with(text));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}

#[test]
fn what_else_a_set_says_is_told_or_refused() {
    let set = |spec: &str| jobset("", spec, "groupName: a", "", "") + &driver("");
    let told = notes(&set(
        "failurePolicy: {maxRestarts: 3}\nnetwork: {subdomain: a}\nttlSecondsAfterFinished: 5\nmanagedBy: x/y\nvolumeClaimPolicies: [{}]",
    ));
    for field in
        ["failurePolicy", "network", "ttlSecondsAfterFinished", "managedBy", "volumeClaimPolicies"]
    {
        assert!(told.contains(&format!("spec.{field}: ignored: ")), "{field} not in:\n{told}");
    }
    assert!(told.contains("spec.replicatedJobs[0].groupName: ignored: a label"), "{told}");
    // A set is over when all of it is: any other rule would leave machines held.
    assert_eq!(job(&set("successPolicy: {operator: All}")).groups.len(), 2);
    assert_eq!(
        job(&set("successPolicy: {operator: All, targetReplicatedJobs: [slice, driver]}"))
            .groups
            .len(),
        2
    );
    let deadline = jobset("", "", "", "", "")
        .replace("parallelism: 2", "parallelism: 2\n        activeDeadlineSeconds: 600");
    assert_eq!(job(&deadline).duration_s, 600);
    for (spec, wanted) in [
        (
            "successPolicy: {operator: All, targetReplicatedJobs: [driver]}",
            "spec.successPolicy: is not supported: a job is done",
        ),
        ("successPolicy: {operator: Any}", "spec.successPolicy: is not supported: a job is done"),
        (
            "successPolicy: {operator: Most}",
            "spec.successPolicy.operator: `Most` is none of All, Any",
        ),
        ("suspend: true", "spec.suspend: is true"),
        ("colour: red", "spec.colour: unknown field"),
    ] {
        let faults = faults(&set(spec));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
    let waves = jobset("", "", "", "", "")
        .replace("parallelism: 2", "parallelism: 2\n        completions: 8");
    assert!(
        faults(&waves).contains("replicatedJobs[0].template.spec.completions: is not supported")
    );
    let on_pods = jobset("", "", "", "", "").replace(
        "          spec:\n            containers",
        &format!("          {ALONE}\n          spec:\n            containers"),
    );
    assert!(
        faults(&on_pods)
            .contains("has no effect here: it belongs on the object that owns the pods")
    );
    assert!(
        faults("{apiVersion: jobset.x-k8s.io/v1alpha2, kind: JobSet, metadata: {name: a}}")
            .contains("spec.replicatedJobs: needs at least one Job")
    );
}

/// A set of leaders with workers; the leaders' own pod, if they have one.
fn leaders(annotations: &str, spec: &str, template: &str, leader: Option<&str>) -> String {
    let leader = leader.map_or_else(String::new, |pod| {
        format!("    leaderTemplate:\n      spec:\n        {pod}\n")
    });
    format!(
        "apiVersion: leaderworkerset.x-k8s.io/v1\nkind: LeaderWorkerSet\nmetadata:\n  name: serve\n  annotations: \
         {{{annotations}}}\nspec:\n{}  leaderWorkerTemplate:\n{}{leader}    workerTemplate:\n      spec:\n        {POD}\n",
        indented(2, spec),
        indented(4, template)
    )
}

const SMALL: &str = "containers: [{resources: {requests: {cpu: 1}}}]";
const OF_RACK: &str = "leaderworkerset.sigs.k8s.io/exclusive-topology: example.com/rack";
const SUBGROUPS: &str =
    "leaderworkerset.sigs.k8s.io/subgroup-exclusive-topology: kubernetes.io/hostname";

#[test]
fn a_leader_with_workers_is_a_head_and_a_group() {
    let spec = job(&leaders("", "", "size: 4", Some(SMALL)));
    assert_eq!(sizes(&spec), [("leader", 1), ("workers", 3)]);
    assert_eq!((spec.groups[0].role(), spec.groups[1].role()), (Role::Head, Role::Worker));
    assert_eq!(
        (shape(&spec.groups[0]).gpus, shape(&spec.groups[1]).gpus),
        (None, Some(Gpus::GpuCount(8)))
    );
    // Without a template of its own the leader is like its workers.
    let spec = job(&leaders("", "", "size: 4", None));
    assert_eq!(
        (sizes(&spec), shape(&spec.groups[0]).gpus),
        (vec![("leader", 1), ("workers", 3)], Some(Gpus::GpuCount(8)))
    );
    let ready = job(&leaders("", "startupPolicy: LeaderReady", "size: 4", None));
    assert_eq!(group(&ready, "workers").depends_on, ["leader"]);
    // A leader alone.
    assert_eq!(sizes(&job(&leaders("", "replicas: 5", "", None))), [("serve", 5)]);
}

#[test]
fn several_copies_of_a_leader_with_workers() {
    // Alike: one group, copy after copy.
    let spec = job(&leaders("", "replicas: 3", "size: 4", None));
    assert_eq!((sizes(&spec), spec.groups[0].segments.len()), (vec![("serve", 12)], 0));
    let apart = job(&leaders(OF_RACK, "replicas: 3", "size: 4", None));
    let [segment] = apart.groups[0].segments.as_slice() else { panic!("{apart:?}") };
    assert_eq!((segment.level(), segment.size, segment.exclusive), (TopologyLevel::Rack, 4, true));
    assert_eq!(bonds(&apart), ["anti /1@Rack"]);
    // Not alike: all leaders and all workers, where nothing is said of each copy.
    let spec = job(&leaders("", "replicas: 3", "size: 4", Some(SMALL)));
    assert_eq!(sizes(&spec), [("leader", 3), ("workers", 9)]);
    assert_eq!(spec.groups[0].role(), Role::Worker);
    let ready = leaders("", "replicas: 3\nstartupPolicy: LeaderReady", "size: 4", Some(SMALL));
    assert_eq!(group(&job(&ready), "workers").depends_on, ["leader"]);
    assert!(notes(&ready).contains("workers start once the leaders of all replicas run"));
    // Else a pair for each.
    let pairs =
        job(&leaders(OF_RACK, "replicas: 2\nstartupPolicy: LeaderReady", "size: 4", Some(SMALL)));
    assert_eq!(
        sizes(&pairs),
        [("leader-0", 1), ("workers-0", 3), ("leader-1", 1), ("workers-1", 3)]
    );
    assert_eq!(group(&pairs, "workers-1").depends_on, ["leader-1"]);
    assert_eq!(
        bonds(&pairs),
        [
            "leader-0/workers-00@Rack",
            "leader-1/workers-10@Rack",
            "anti leader-0/leader-10@Rack",
            "anti /1@Rack"
        ]
    );
    assert!(pairs.groups.iter().all(|group| group.topology_required() == TopologyLevel::Rack));
    let many = faults(&leaders(OF_RACK, "replicas: 8", "size: 4", Some(SMALL)));
    assert!(
        many.contains("is not supported for 8 replicas whose leader and workers differ"),
        "{many}"
    );
}

#[test]
fn subgroups_of_a_copy() {
    let both = format!("{OF_RACK}, {SUBGROUPS}");
    let policy = "size: 4\nsubGroupPolicy: {subGroupSize: 2}";
    let spec = job(&leaders(&both, "replicas: 2", policy, None));
    let levels: Vec<_> =
        spec.groups[0].segments.iter().map(|one| (one.level(), one.size)).collect();
    assert_eq!(levels, [(TopologyLevel::Rack, 4), (TopologyLevel::Node, 2)]);
    assert!(spec.groups[0].segments.iter().all(|one| one.exclusive));
    let excluded = "size: 5\nsubGroupPolicy: {subGroupPolicyType: LeaderExcluded, subGroupSize: 2}";
    let spec = job(&leaders(SUBGROUPS, "", excluded, Some(SMALL)));
    assert_eq!(sizes(&spec), [("leader", 1), ("workers", 4)]);
    assert_eq!(
        (spec.groups[1].segments[0].level(), spec.groups[1].segments[0].size),
        (TopologyLevel::Node, 2)
    );
    assert!(
        notes(&leaders("", "", policy, None))
            .contains("subGroupPolicy: ignored: without an exclusive topology")
    );
    for (annotations, template, leader, wanted) in [
        (SUBGROUPS, "size: 4", None, "needs spec.leaderWorkerTemplate.subGroupPolicy"),
        (
            SUBGROUPS,
            policy,
            Some(SMALL),
            "subGroupSize: is not supported where leader and workers differ",
        ),
        (
            SUBGROUPS,
            "size: 5\nsubGroupPolicy: {subGroupSize: 2}",
            None,
            "subGroupSize: is 2 for 5 pods, which is not supported",
        ),
        (
            SUBGROUPS,
            "size: 6\nsubGroupPolicy: {subGroupSize: 4}",
            None,
            "subGroupSize: is 4, which does not divide 6",
        ),
        (SUBGROUPS, "size: 6\nsubGroupPolicy: {}", None, "subGroupSize: must be at least 1"),
    ] {
        let faults = faults(&leaders(annotations, "", template, leader));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}

/// What a template asks of its pods is meant of those of one copy.
#[test]
fn a_topology_of_the_template_is_one_of_each_copy() {
    let tas = |level: &str| format!("kueue.x-k8s.io/podset-{level}-topology: example.com/rack");
    let text = |copies: u32, annotation: &str| {
        let text = leaders("", &format!("replicas: {copies}"), "size: 4", None);
        text.replace(
            "workerTemplate:\n",
            &format!("workerTemplate:\n      metadata: {{annotations: {{{annotation}}}}}\n"),
        )
    };
    let spec = job(&text(3, &tas("required")));
    let [segment] = spec.groups[0].segments.as_slice() else { panic!("{spec:?}") };
    assert_eq!((segment.level(), segment.size, segment.exclusive), (TopologyLevel::Rack, 4, false));
    assert_eq!(spec.topology_required(), TopologyLevel::Unspecified);
    assert_eq!(
        group(&job(&text(1, &tas("required"))), "workers").topology_required(),
        TopologyLevel::Rack
    );
    assert!(notes(&text(3, &tas("preferred"))).contains("ignored: a wish about each replica"));
    for (spec, wanted) in [
        ("replicas: 0", "spec.replicas: is 0: nothing would run"),
        (
            "startupPolicy: Never",
            "spec.startupPolicy: `Never` is none of LeaderCreated, LeaderReady",
        ),
        ("colour: red", "spec.colour: unknown field"),
    ] {
        let faults = faults(&leaders("", spec, "size: 2", None));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
    let told = notes(&leaders(
        "",
        "rolloutStrategy: {}\nnetworkConfig: {subdomainPolicy: Shared}",
        "size: 2\nrestartPolicy: None",
        None,
    ));
    for field in ["spec.networkConfig", "spec.leaderWorkerTemplate.restartPolicy"] {
        assert!(told.contains(&format!("{field}: ignored")), "{field} not in:\n{told}");
    }
}

/// One of Kubeflow's jobs with these kinds of replicas.
fn kubeflow(kind: &str, field: &str, roles: &[(&str, u32)], spec: &str) -> String {
    let role = |(role, replicas): &(&str, u32)| {
        format!(
            "    {role}:\n      replicas: {replicas}\n      restartPolicy: Never\n      template:\n        spec:\n          {POD}\n"
        )
    };
    let version = if spec.contains("launcherCreation") { "v2beta1" } else { "v1" };
    format!(
        "apiVersion: kubeflow.org/{version}\nkind: {kind}\nmetadata:\n  name: train\nspec:\n{}  {field}:\n{}",
        indented(2, spec),
        roles.iter().map(role).collect::<String>()
    )
}

#[test]
fn the_operators_jobs_are_heads_and_groups() {
    for (kind, field, roles, wanted) in [
        (
            "PyTorchJob",
            "pytorchReplicaSpecs",
            &[("Worker", 4), ("Master", 1)][..],
            &[("master", 1), ("worker", 4)][..],
        ),
        (
            "TFJob",
            "tfReplicaSpecs",
            &[("PS", 2), ("Worker", 4), ("Chief", 1)],
            &[("chief", 1), ("worker", 4), ("ps", 2)],
        ),
        (
            "MPIJob",
            "mpiReplicaSpecs",
            &[("Worker", 4), ("Launcher", 1)],
            &[("launcher", 1), ("worker", 4)],
        ),
        (
            "XGBoostJob",
            "xgbReplicaSpecs",
            &[("Master", 1), ("Worker", 2)],
            &[("master", 1), ("worker", 2)],
        ),
        ("PaddleJob", "paddleReplicaSpecs", &[("worker", 2)], &[("worker", 2)]),
        ("JAXJob", "jaxReplicaSpecs", &[("Worker", 2)], &[("worker", 2)]),
    ] {
        let spec = job(&kubeflow(kind, field, roles, ""));
        assert_eq!(sizes(&spec), wanted, "{kind}");
        let has_head = wanted.len() > 1;
        assert_eq!(spec.groups[0].role() == Role::Head, has_head, "{kind}");
        let other = faults(&kubeflow(kind, field, &[("Sailor", 1)], ""));
        assert!(other.contains(&format!("spec.{field}.Sailor: is none of ")), "{other}");
    }
    let strange = faults(&kubeflow("PyTorchJob", "tfReplicaSpecs", &[("Worker", 1)], ""));
    assert!(
        strange
            .contains("spec.tfReplicaSpecs: unknown field; a PyTorchJob has pytorchReplicaSpecs"),
        "{strange}"
    );
    let two = faults(&kubeflow("PyTorchJob", "pytorchReplicaSpecs", &[("Master", 2)], ""));
    assert!(
        two.contains("pytorchReplicaSpecs.Master.replicas: is not supported: a job has one head"),
        "{two}"
    );
    let none = notes(&kubeflow("TFJob", "tfReplicaSpecs", &[("PS", 0), ("Worker", 2)], ""));
    assert!(none.contains("tfReplicaSpecs.PS.replicas: is 0: the group is left out"), "{none}");
}

#[test]
fn what_the_operators_jobs_say_of_the_whole() {
    let both = [("Master", 1), ("Worker", 8)];
    let pytorch = |spec: &str| kubeflow("PyTorchJob", "pytorchReplicaSpecs", &both, spec);
    let elastic = job(&pytorch("elasticPolicy: {minReplicas: 4, maxReplicas: 16}"));
    let worker = group(&elastic, "worker");
    assert_eq!((worker.replicas, worker.replicas_min, worker.replicas_max), (8, 4, 16));
    assert_eq!(job(&pytorch("runPolicy: {activeDeadlineSeconds: 60}")).duration_s, 60);
    assert_eq!(job(&pytorch("runPolicy: {schedulingPolicy: {minAvailable: 9}}")).groups.len(), 2);
    let alone = kubeflow(
        "JAXJob",
        "jaxReplicaSpecs",
        &[("Worker", 8)],
        "runPolicy: {schedulingPolicy: {minAvailable: 5}}",
    );
    assert_eq!(job(&alone).groups[0].replicas_min, 5);
    let mpi = |policy: &str| {
        let roles = [("Launcher", 1), ("Worker", 8)];
        let spec = format!("slotsPerWorker: 8\nlauncherCreationPolicy: {policy}");
        kubeflow("MPIJob", "mpiReplicaSpecs", &roles, &spec)
    };
    assert_eq!(job(&mpi("WaitForWorkersReady")).groups[0].depends_on, ["worker"]);
    assert!(job(&mpi("AtStartup")).groups[0].depends_on.is_empty());
    let told = notes(&pytorch(
        "nprocPerNode: auto\nrunPolicy: {cleanPodPolicy: None, backoffLimit: 1, ttlSecondsAfterFinished: 5, schedulingPolicy: {queue: q, minResources: {cpu: 4}, scheduleTimeoutSeconds: 10}}",
    ));
    for field in [
        "spec.nprocPerNode",
        "runPolicy.cleanPodPolicy",
        "runPolicy.backoffLimit",
        "schedulingPolicy.queue",
        "schedulingPolicy.minResources",
        "schedulingPolicy.scheduleTimeoutSeconds",
    ] {
        assert!(told.contains(&format!("{field}: ignored: ")), "{field} not in:\n{told}");
    }
    assert!(
        told.contains("spec.pytorchReplicaSpecs: the job is over when all of its members are"),
        "{told}"
    );
    for (spec, wanted) in [
        (
            "runPolicy: {schedulingPolicy: {minAvailable: 5}}",
            "schedulingPolicy.minAvailable: is 5 over groups of different pods with 9",
        ),
        (
            "runPolicy: {schedulingPolicy: {priorityClass: high}}",
            "spec.runPolicy.schedulingPolicy.priorityClass",
        ),
        ("runPolicy: {suspend: true}", "spec.runPolicy.suspend: is true"),
        (
            "elasticPolicy: {minReplicas: 9}",
            "spec.elasticPolicy.minReplicas: is 9, but there are only 8",
        ),
        (
            "elasticPolicy: {maxReplicas: 4}",
            "spec.elasticPolicy.maxReplicas: is 4, but there are 8 workers",
        ),
        ("successPolicy: AllWorkers", "spec.successPolicy: is not supported"),
        (
            "launcherCreationPolicy: Soon",
            "spec.launcherCreationPolicy: `Soon` is none of AtStartup",
        ),
        ("runPolicy: {colour: red}", "spec.runPolicy.colour: unknown field"),
    ] {
        let faults = faults(&pytorch(spec));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}

#[test]
fn a_train_job_is_read_where_it_says_what_it_needs() {
    let train = |trainer: &str, spec: &str| {
        format!(
            "apiVersion: trainer.kubeflow.org/v1alpha1\nkind: TrainJob\nmetadata: {{name: tune}}\nspec:\n  runtimeRef: \
             {{name: torch}}\n  trainer: {{{trainer}}}\n{}",
            indented(2, spec)
        )
    };
    let whole = "image: a, numNodes: 4, numProcPerNode: 8, resourcesPerNode: {limits: {nvidia.com/gpu: 8}, requests: {cpu: 4}}";
    let spec = job(&train(whole, "activeDeadlineSeconds: 60"));
    assert_eq!((sizes(&spec), spec.duration_s), (vec![("node", 4)], 60));
    assert_eq!(
        (shape(&spec.groups[0]).gpus, spec.strategy()),
        (Some(Gpus::GpuCount(8)), Strategy::Pack)
    );
    let told = notes(&train(whole, "initializer: {dataset: {storageUri: a}}"));
    assert!(
        told.contains("spec.runtimeRef: not read: what the ClusterTrainingRuntime `torch` adds"),
        "{told}"
    );
    for (trainer, spec, wanted) in [
        (
            "numNodes: 4",
            "",
            "spec.trainer.resourcesPerNode: missing: the runtime `torch` says it, which is not read here",
        ),
        (
            "resourcesPerNode: {limits: {nvidia.com/gpu: 8}}",
            "",
            "spec.trainer.numNodes: missing: the runtime `torch`",
        ),
        (
            whole,
            "podTemplateOverrides: [{a: b}]",
            "spec.podTemplateOverrides: is not supported: it changes a runtime",
        ),
        (
            "numNodes: 4, resourcesPerNode: {limits: {nvidia.com/gpu: 1.5}}",
            "",
            "spec.trainer.resourcesPerNode.limits[\"nvidia.com/gpu\"]",
        ),
        (whole, "suspend: true", "spec.suspend: is true"),
    ] {
        let faults = faults(&train(trainer, spec));
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}
