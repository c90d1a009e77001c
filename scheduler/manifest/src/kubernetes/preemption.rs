//! Who takes GPUs from whom, in the words of Kubernetes, KAI and YuniKorn, and ours.
//!
//! Elsewhere nearly everything may be preempted unless it says no; here nobody is who did not say yes,
//! and only what a manifest says in words is taken for that.
//! **Invariant:** what is said of a part of a job is taken for all of it, and told so; parts that say
//! different things are a fault.

use super::members::Members;
use super::pinned::Pinned;
use crate::finding::{At, Findings, quote};
use proto::v1::{self, Disruption, PreemptionPolicy};
use serde_json::{Map, Value};

/// Why the words of queues about preemption are left aside.
pub(super) const BY_JOBS: &str = "whom a job may preempt, and who may preempt it, its annotations muster/preemption and muster/disruption say";

/// How a group of pods is disrupted: `single: {}` or `all: {}`; in v1alpha2 `Pod` or `PodGroup`.
pub(super) fn mode(at: &At, said: Option<&Value>, findings: &mut Findings) -> Option<Disruption> {
    let said = said.filter(|said| !said.is_null())?;
    let of = said.as_object().and_then(|said| match said.iter().next() {
        Some((mode, of)) if said.len() == 1 && is_nothing(of) => Some(mode.as_str()),
        _ => None,
    });
    match of.or(said.as_str()) {
        Some("single" | "Pod") => {
            let text = "read as: pods above the minimum may be preempted alone, or the whole job";
            findings.note(at, text);
            Some(Disruption::Single)
        }
        Some("all" | "PodGroup") => Some(Disruption::All),
        _ => {
            findings.fault(at, "needs either `single: {}` or `all: {}`");
            None
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

/// `preemptionPolicy` of a pod or a group of pods.
pub(super) fn policy(
    at: &At,
    said: Option<&str>,
    findings: &mut Findings,
) -> Option<PreemptionPolicy> {
    let at = at.field("preemptionPolicy");
    match said.filter(|said| !said.is_empty())? {
        "Never" => Some(PreemptionPolicy::Never),
        "PreemptLowerPriority" => Some(PreemptionPolicy::LowerPriority),
        other => {
            let problem = format!("is {}; known are Never, PreemptLowerPriority", quote(other));
            findings.fault(&at, problem);
            None
        }
    }
}

/// KAI's `preemptibility`.
pub(super) fn preemptibility(at: &At, said: &str, findings: &mut Findings) -> Option<Disruption> {
    match said {
        // KAI, too, takes members above the minimum first, and then the whole group.
        "preemptible" => Some(Disruption::Single),
        "non-preemptible" => Some(Disruption::None),
        "semi-preemptible" => {
            let why = "is not supported: spare replicas without the whole job; say preemptible or non-preemptible";
            findings.fault(at, why);
            None
        }
        other => {
            let problem = format!("is {}; known are preemptible, non-preemptible", quote(other));
            findings.fault(at, problem);
            None
        }
    }
}

/// YuniKorn's `allow-preemption`.
pub(super) fn allowed(at: &At, said: &str, findings: &mut Findings) -> Option<Disruption> {
    match said.trim() {
        "false" => Some(Disruption::None),
        "true" => {
            findings.note(at, format!("ignored: {BY_JOBS}"));
            None
        }
        other => {
            findings.fault(at, format!("must be true or false, is {}", quote(other)));
            None
        }
    }
}

/// What all parts of a job say together.
pub(super) fn of_job<'a>(
    at: &At,
    owners: impl Iterator<Item = &'a Pinned>,
    members: &[Members],
    findings: &mut Findings,
) -> Option<v1::Preemption> {
    let own: Vec<&Pinned> = owners.collect();
    let parts = || members.iter().map(|one| &one.pinned);
    let policy = agreed(at, "whom it may preempt", &own, parts(), |one| one.policy, findings);
    let disruption =
        agreed(at, "who may preempt it", &own, parts(), |one| one.disruption, findings);
    let said = v1::Preemption {
        policy: policy.unwrap_or_default().into(),
        disruption: disruption.unwrap_or_default().into(),
    };
    (said != v1::Preemption::default()).then_some(said)
}

/// What objects say of the whole job; else what its parts do, which must not differ.
fn agreed<'a, T: Copy + PartialEq>(
    at: &At,
    what: &str,
    owners: &[&Pinned],
    parts: impl Iterator<Item = &'a Pinned>,
    read: impl Fn(&Pinned) -> Option<T>,
    findings: &mut Findings,
) -> Option<T> {
    let parts: Vec<Option<T>> = parts.map(&read).collect();
    let mut all = owners.iter().filter_map(|one| read(one)).chain(parts.iter().copied().flatten());
    let first = all.next()?;
    if all.any(|other| other != first) {
        findings
            .fault(at, format!("says different things of {what}; a job here does all or nothing"));
        return None;
    }
    let of_all = owners.iter().any(|one| read(one).is_some());
    if !of_all && parts.iter().any(Option::is_none) {
        findings
            .note(at, format!("what some of its pods say of {what} is taken for the whole job"));
    }
    Some(first)
}
