//! Kubernetes' `Job`, and a `Pod` on its own.
//!
//! **Invariant:** a Job that would run its pods in waves is refused: a gang runs all at once.

use super::claim::Known;
use super::gang::{Scheduling, pin_scheduling};
use super::members::{Members, deadline, shorter};
use super::pinned::{On, Pinned};
use super::pod::{self, Metadata, Object, PodDocument, PodTemplate};
use crate::decode::{Rest, Verdict, decode};
use crate::document::Document;
use crate::finding::{At, Findings};
use proto::v1;
use serde::Deserialize;

const RETRIES: Verdict =
    Verdict::Ignored("lost members are replaced, and failed ones as often as muster allows");

/// What becomes of fields that the structs below do not name.
pub(super) const REST: Rest = &[
    (
        "JobSpec",
        &[
            "backoffLimit",
            "backoffLimitPerIndex",
            "maxFailedIndexes",
            "podFailurePolicy",
            "podReplacementPolicy",
        ],
        RETRIES,
    ),
    (
        "JobSpec",
        &["selector", "manualSelector"],
        Verdict::Ignored("members are known by their rank, not by labels"),
    ),
    ("JobSpec", &["ttlSecondsAfterFinished"], Verdict::Ignored("jobs that are over hold nothing")),
    ("JobSpec", &["successPolicy"], Verdict::Refused("a job is done when all its members are")),
    ("JobSpec", &["managedBy"], Verdict::Ignored("muster manages what it is given")),
];

type JobDocument = Object<JobSpec>;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct JobSpec {
    parallelism: Option<u32>,
    completions: Option<u32>,
    completion_mode: Option<String>,
    active_deadline_seconds: Option<u64>,
    suspend: Option<bool>,
    template: PodTemplate,
    scheduling: Option<Scheduling>,
}

/// An object that owns members.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owner {
    pub(crate) at: At,
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) pinned: Pinned,
    pub(crate) members: Vec<Members>,
    pub(crate) duration_s: Option<u64>,
    /// What its groups, by their names, have to do with each other and with other jobs.
    pub(crate) affinities: Vec<v1::Affinity>,
}

/// Name of an object, made or given.
pub(crate) fn name_of(at: &At, metadata: &Metadata, findings: &mut Findings) -> String {
    let at = at.field("metadata");
    match (&metadata.name, &metadata.generate_name) {
        (Some(name), _) => name.clone(),
        (None, Some(start)) => {
            let name = start.trim_end_matches(['-', '.']).to_owned();
            findings
                .note(&at.field("generateName"), "read as the name: jobs are told apart by number");
            name
        }
        (None, None) => {
            findings.fault(&at.field("name"), "missing");
            String::new()
        }
    }
}

/// Reads a `Job`.
pub(super) fn job(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let rest = [REST, super::gang::REST, pod::REST];
    let read: JobDocument = decode(at, &document.value, &rest, findings);
    let name = name_of(at, &read.metadata, findings);
    let of = read.metadata.name.as_deref();
    let made = [("job-name", of), ("batch.kubernetes.io/job-name", of)];
    let (pinned, mut members) = pods(at, &read.metadata, &read.spec, &made, known, findings);
    members.group.name.clone_from(&name);
    Owner {
        at: at.clone(),
        kind: "Job",
        name,
        duration_s: members.duration_s,
        pinned,
        members: vec![members],
        ..Owner::default()
    }
}

/// The pods of a Job at a place, be it an object or the copy of one; what is pinned to it.
/// `made`: labels that controllers give the pods.
pub(super) fn pods(
    at: &At,
    metadata: &Metadata,
    spec: &JobSpec,
    made: &[(&str, Option<&str>)],
    known: &Known,
    findings: &mut Findings,
) -> (Pinned, Members) {
    let pinned = Pinned::read(&at.field("metadata"), metadata, On::Owner, findings);
    let at_spec = at.field("spec");
    let replicas = replicas(&at_spec, spec, findings);
    pinned.suspended(&at_spec, spec.suspend, findings);
    let template = at_spec.field("template");
    let mut members = Members::read(
        &template,
        &spec.template.metadata.with_made(made),
        &spec.template.spec,
        On::Template,
        known,
        findings,
    );
    members.group.replicas = replicas;
    if let Some((at, least)) = &pinned.replicas_min {
        members.at_least(at, *least, findings);
    }
    pinned.keep_together(&at.field("metadata"), std::slice::from_mut(&mut members));
    if let Some(scheduling) = &spec.scheduling {
        let at = at_spec.field("scheduling");
        pin_scheduling(&at, scheduling, std::slice::from_mut(&mut members), findings);
    }
    let seconds = spec.active_deadline_seconds;
    let seconds = deadline(&at_spec, "activeDeadlineSeconds", seconds, findings);
    if spec.active_deadline_seconds.is_some() {
        let text = "counted from when the members are ready";
        findings.note(&at_spec.field("activeDeadlineSeconds"), text);
    }
    members.duration_s = shorter(members.duration_s, shorter(seconds, pinned.duration_s));
    (pinned, members)
}

/// Pods that run at the same time; 0 = it is not known how many, which has been told.
fn replicas(at: &At, spec: &JobSpec, findings: &mut Findings) -> u32 {
    let parallelism = spec.parallelism.unwrap_or(1);
    let at_parallelism = at.field("parallelism");
    if parallelism == 0 {
        findings.fault(&at_parallelism, "is 0: nothing would run");
    }
    if let Some(mode) = &spec.completion_mode {
        let words = [("Indexed", ()), ("NonIndexed", ())];
        crate::decode::word(&at.field("completionMode"), mode, &words, findings);
    }
    match spec.completions.filter(|_| parallelism > 0) {
        Some(completions) if completions > parallelism => {
            let problem = format!(
                "is not supported: {completions} is more than the parallelism of {parallelism}, \
                 so that pods would run in waves"
            );
            findings.fault(&at.field("completions"), problem);
            parallelism
        }
        Some(0) => {
            findings.fault(&at.field("completions"), "is 0: nothing would run");
            parallelism
        }
        Some(completions) if completions < parallelism => {
            let text = format!("read as {completions}: no more run at once than have to complete");
            findings.note(&at_parallelism, text);
            completions
        }
        _ => parallelism,
    }
}

/// Reads a `Pod`.
pub(super) fn pod(document: &Document, known: &Known, findings: &mut Findings) -> Owner {
    let at = &document.at;
    let read: PodDocument = decode(at, &document.value, &[pod::REST], findings);
    let name = name_of(at, &read.metadata, findings);
    let mut members = Members::read(at, &read.metadata, &read.spec, On::Pod, known, findings);
    members.group.name.clone_from(&name);
    members.group.replicas = 1;
    members.is_lone = true;
    Owner {
        at: at.clone(),
        kind: "Pod",
        name,
        duration_s: members.duration_s,
        pinned: members.pinned.clone(),
        members: vec![members],
        ..Owner::default()
    }
}
