//! Manifests in, jobs out: one binary for all tests over the crate's public face.
//!
//! **Invariant:** the manifests here are written for these tests.

mod conformance;
mod hostile;
mod kinds;
mod made;
mod preemption;
mod round_trip;
mod sets;
mod traps;
mod upstream;

use manifest::Understood;
use proto::v1::{Group, JobSpec, Shape};

/// What a text is understood as.
fn understood(text: &str) -> Understood {
    manifest::read(text).unwrap_or_else(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("{}\n{text}", faults.join("\n"))
    })
}

fn job(text: &str) -> JobSpec {
    understood(text).spec
}

/// Faults of a text, one a line.
fn faults(text: &str) -> String {
    match manifest::read(text) {
        Ok(understood) => panic!("understood as {:?}\n{text}", understood.spec),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

/// Notes of a text, one a line.
fn notes(text: &str) -> String {
    let notes = understood(text).notes;
    notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn group<'a>(spec: &'a JobSpec, name: &str) -> &'a Group {
    spec.groups
        .iter()
        .find(|group| group.name == name)
        .unwrap_or_else(|| panic!("no group {name} in {:?}", spec.groups))
}

fn shape(group: &Group) -> &Shape {
    group.shape.as_ref().expect("a shape")
}

/// Puts lines below a key, at some depth of indentation.
fn indented(depth: usize, lines: &str) -> String {
    lines.lines().map(|line| format!("{}{line}\n", " ".repeat(depth))).collect()
}

/// A Kubernetes Job of eight pods with eight GPUs each; more fields for its parts.
fn kubernetes_job(metadata: &str, spec: &str, pod_metadata: &str, pod: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: train\n{}spec:\n  parallelism: 8\n{}  \
         template:\n    metadata:\n      labels: {{app: train}}\n{}    spec:\n      containers:\n      \
         - name: main\n        resources: {{limits: {{nvidia.com/gpu: 8}}}}\n{}",
        indented(2, metadata),
        indented(2, spec),
        indented(6, pod_metadata),
        indented(6, pod)
    )
}

/// A RayCluster with a head and one worker group of four; more fields for its parts.
fn ray_cluster(spec: &str, worker: &str, pod_metadata: &str, pod: &str) -> String {
    format!(
        "apiVersion: ray.io/v1\nkind: RayCluster\nmetadata:\n  name: demo\nspec:\n  headGroupSpec:\n    \
         template:\n      spec:\n        containers:\n        - resources: {{requests: {{cpu: 2, memory: \
         4Gi}}}}\n{}  workerGroupSpecs:\n  - groupName: gpu\n    replicas: 4\n{}    template:\n      \
         metadata:\n        labels: {{app: ray}}\n{}      spec:\n        containers:\n        - resources: \
         {{limits: {{nvidia.com/gpu: 8}}}}\n{}",
        indented(2, spec),
        indented(4, worker),
        indented(8, pod_metadata),
        indented(8, pod)
    )
}
