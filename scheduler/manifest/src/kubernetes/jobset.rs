//! `JobSet`: Jobs of several kinds that belong together, each with as many copies as asked.
//!
//! **Invariant:** every replicated Job becomes one group, copy after copy; a copy that is to have a domain to itself
//! becomes a block that has it.

use super::claim::Known;
use super::exclusive::{Exclusive, keep_others_away};
use super::gang;
use super::job::{self, JobSpec, Owner, name_of};
use super::members::{Members, shorter};
use super::pinned::{On, Pinned};
use super::pod::{self, Metadata, Object};
use crate::decode::{Rest, Verdict, decode, word};
use crate::document::Document;
use crate::finding::{At, Findings, quote};
use proto::v1;
use serde::Deserialize;

/// What becomes of fields that the structs below do not name.
const REST: Rest = &[
    (
        "JobSetSpec",
        &["network"],
        Verdict::Ignored("muster makes no services, it has no say in where members go"),
    ),
    (
        "JobSetSpec",
        &["failurePolicy"],
        Verdict::Ignored("lost members are replaced, and failed ones as often as muster allows"),
    ),
    (
        "JobSetSpec",
        &["ttlSecondsAfterFinished"],
        Verdict::Ignored("jobs that are over hold nothing"),
    ),
    ("JobSetSpec", &["managedBy"], Verdict::Ignored("muster manages what it is given")),
    (
        "JobSetSpec",
        &["volumeClaimPolicies"],
        Verdict::Ignored(
            "muster does not mount volumes, and one that lies in one place steers nothing",
        ),
    ),
    (
        "ReplicatedJob",
        &["groupName"],
        Verdict::Ignored("a label that pods get, which steers nothing"),
    ),
];

type JobSetDocument = Object<JobSetSpec>;

/// `JobSetSpec`, in a `JobSet` and in the runtime of a `TrainJob`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JobSetSpec {
    replicated_jobs: Vec<ReplicatedJob>,
    success_policy: Option<SuccessPolicy>,
    startup_policy: Option<StartupPolicy>,
    suspend: Option<bool>,
    coordinator: Option<Coordinator>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ReplicatedJob {
    name: String,
    replicas: Option<u32>,
    template: JobTemplate,
    depends_on: Vec<Dependency>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    metadata: Metadata,
    spec: JobSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Dependency {
    name: String,
    status: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SuccessPolicy {
    operator: Option<String>,
    target_replicated_jobs: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StartupPolicy {
    startup_policy_order: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Coordinator {
    replicated_job: String,
    job_index: u32,
    pod_index: u32,
}

/// Reads a `JobSet`.
pub(super) fn jobset(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let rest = [REST, job::REST, gang::REST, pod::REST];
    let read: JobSetDocument = decode(at, &document.value, &rest, findings);
    let name = name_of(at, &read.metadata, findings);
    let mut pinned = Pinned::read(&at.field("metadata"), &read.metadata, On::Owner, findings);
    pinned.refuse_minimum(findings);
    let (at_spec, spec) = (at.field("spec"), &read.spec);
    pinned.suspended(&at_spec, spec.suspend, findings);
    let at_jobs = at_spec.field("replicatedJobs");
    if spec.replicated_jobs.is_empty() {
        findings.fault(&at_jobs, "needs at least one Job");
    }
    let mut owner = Owner { at: at.clone(), kind: "JobSet", name, ..Owner::default() };
    let mut alone: Vec<(String, Exclusive)> = Vec::new();
    for (index, one) in spec.replicated_jobs.iter().enumerate() {
        let at = at_jobs.index(index);
        let set = (read.metadata.name.as_deref(), &pinned);
        let Some((members, exclusive)) = replicated(&at, one, set, known, findings) else {
            continue;
        };
        alone.extend(exclusive.map(|exclusive| (members.group.name.clone(), exclusive)));
        owner.members.push(members);
    }
    order(&at_spec, spec, &mut owner.members, findings);
    let all = alone.len() == owner.members.len();
    keep_others_away(&alone, all, &mut pinned.labels, &mut owner.affinities, findings);
    success(&at_spec.field("successPolicy"), spec, findings);
    if let Some(coordinator) = &spec.coordinator {
        head(&at_spec.field("coordinator"), coordinator, &mut owner.members, findings);
    }
    pinned.keep_together(&at.field("metadata"), &mut owner.members);
    let of_jobs = owner.members.iter().fold(None, |least, one| shorter(least, one.duration_s));
    Owner { duration_s: shorter(pinned.duration_s, of_jobs), pinned, ..owner }
}

/// One kind of Job with all its copies, and the domain that each copy is to have to itself.
fn replicated(
    at: &At,
    one: &ReplicatedJob,
    (set_name, set): (Option<&str>, &Pinned),
    known: &Known,
    findings: &mut Findings,
) -> Option<(Members, Option<Exclusive>)> {
    let at_template = at.field("template");
    let template = &one.template;
    let made = [
        ("jobset.sigs.k8s.io/jobset-name", set_name),
        ("jobset.sigs.k8s.io/replicatedjob-name", Some(one.name.as_str())),
    ];
    let (own, mut members) =
        job::pods(&at_template, &template.metadata, &template.spec, &made, known, findings);
    if one.name.is_empty() {
        findings.fault(&at.field("name"), "missing");
    }
    members.group.name.clone_from(&one.name);
    let (jobs, pods) = (one.replicas.unwrap_or(1), members.group.replicas);
    if jobs == 0 {
        findings.note(&at.field("replicas"), "is 0: the Job is left out");
        return None;
    }
    if jobs > 1 && members.group.replicas_min > 0 {
        let problem = format!("with a minimum of {} pods for each", members.group.replicas_min);
        findings
            .fault(&at.field("replicas"), format!("is {jobs}, which is not supported {problem}"));
    }
    members.group.replicas = pods.checked_mul(jobs).unwrap_or_else(|| {
        findings.fault(&at.field("replicas"), "times the Job's pods is too large");
        0
    });
    let exclusive = own.exclusive.or_else(|| set.exclusive.clone());
    if let Some(exclusive) = &exclusive {
        exclusive.hold(&mut members, jobs, pods, findings);
    }
    Some((members, exclusive))
}

/// Which Jobs start only once others run.
fn order(at: &At, spec: &JobSetSpec, members: &mut [Members], findings: &mut Findings) {
    let at_policy = at.field("startupPolicy");
    let order =
        spec.startup_policy.as_ref().and_then(|policy| policy.startup_policy_order.as_deref());
    let words = [("AnyOrder", false), ("InOrder", true)];
    let in_order = order
        .and_then(|order| word(&at_policy.field("startupPolicyOrder"), order, &words, findings));
    if in_order == Some(true) {
        for at in 1..members.len() {
            let before = members[at - 1].group.name.clone();
            members[at].group.depends_on = vec![before];
        }
    }
    for (index, one) in spec.replicated_jobs.iter().enumerate() {
        let at = at.field("replicatedJobs").index(index).field("dependsOn");
        if in_order == Some(true) && !one.depends_on.is_empty() {
            findings.fault(&at, "must not come with startupPolicy.startupPolicyOrder: InOrder");
        }
        for (index, dependency) in one.depends_on.iter().enumerate() {
            depends(&at.index(index), spec, one, dependency, members, findings);
        }
    }
}

fn depends(
    at: &At,
    spec: &JobSetSpec,
    one: &ReplicatedJob,
    dependency: &Dependency,
    members: &mut [Members],
    findings: &mut Findings,
) {
    let Dependency { name, status } = dependency;
    let at_status = at.field("status");
    match status.as_deref().map(|word_of| (word_of, ["Ready", "Complete"].contains(&word_of))) {
        Some(("Ready", _)) => {}
        Some((_, true)) => findings.fault(
            &at_status,
            "is not supported: all groups of a job are placed at once, and one that waits for the end of \
             another would hold its machines for nothing; submit it when the other is over",
        ),
        Some((other, false)) => {
            findings.fault(&at_status, format!("{} is none of Ready, Complete", quote(other)));
        }
        None => findings.fault(&at_status, "missing"),
    }
    if !spec.replicated_jobs.iter().any(|other| other.name == *name) {
        findings.fault(&at.field("name"), format!("no Job of this set is called {}", quote(name)));
    } else if !members.iter().any(|other| other.group.name == *name) {
        findings.note(&at.field("name"), "ignored: that Job is left out");
    } else if let Some(own) = members.iter_mut().find(|own| own.group.name == one.name) {
        own.group.depends_on.push(name.clone());
    }
}

/// A set is over when all its Jobs are; so is a job of ours.
fn success(at: &At, spec: &JobSetSpec, findings: &mut Findings) {
    let Some(policy) = &spec.success_policy else { return };
    let words = [("All", true), ("Any", false)];
    let operator = policy.operator.as_deref().unwrap_or("All");
    let all = word(&at.field("operator"), operator, &words, findings);
    let names = |name: &str| policy.target_replicated_jobs.iter().any(|target| target == name);
    let targets_all = policy.target_replicated_jobs.is_empty()
        || spec.replicated_jobs.iter().all(|one| names(&one.name));
    let one_only = spec.replicated_jobs.len() == 1
        && spec.replicated_jobs.iter().all(|one| one.replicas.unwrap_or(1) == 1);
    if !(one_only || all == Some(true) && targets_all) {
        findings.fault(
            at,
            "is not supported: a job is done when all its members are, and holds its machines till then; if \
             that will do, leave it out",
        );
    }
}

/// The coordinator is the head, where that can be said.
fn head(at: &At, coordinator: &Coordinator, members: &mut Vec<Members>, findings: &mut Findings) {
    let name = &coordinator.replicated_job;
    let Some(place) = members.iter().position(|one| one.group.name == *name) else {
        let problem = format!("no Job of this set is called {}", quote(name));
        return findings.fault(&at.field("replicatedJob"), problem);
    };
    if (coordinator.job_index, coordinator.pod_index) != (0, 0) {
        let field = if coordinator.job_index > 0 { "jobIndex" } else { "podIndex" };
        let problem = "is not supported: the head of a job is the first member of a group; leave it out, \
                       or make the coordinator a Job of its own";
        return findings.fault(&at.field(field), problem);
    }
    // Without a group of that role, the first member of the first group is the head.
    let mut one = members.remove(place);
    if one.group.replicas == 1 {
        one.group.role = v1::Role::Head.into();
    } else {
        findings.note(at, format!("read as: the first member of {name} is the head"));
    }
    members.insert(0, one);
}
