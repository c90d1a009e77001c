//! Who takes GPUs from whom, in the words of every system that has some.

use crate::conformance::{kai_group, kai_pod};
use crate::kubernetes_job;
use proto::v1::JobSpec;

fn preemption(spec: &JobSpec) -> String {
    let Some(said) = &spec.preemption else { return String::new() };
    let policy = said.policy().as_str_name().strip_prefix("PREEMPTION_POLICY_");
    let disruption = said.disruption().as_str_name().strip_prefix("DISRUPTION_");
    format!("{} {}", policy.unwrap_or_default(), disruption.unwrap_or_default())
}

/// Who takes GPUs from whom, in everybody's words.
#[test]
fn preemption_is_what_a_manifest_says_in_words() {
    let pod = |spec: &str| kubernetes_job("", "", "", spec);
    let job = |spec: &str| kubernetes_job("", spec, "", "");
    let own = |of: &str| kubernetes_job(&format!("annotations: {{{of}}}"), "", "", "");
    let kai =
        |of: &str| kai_group(&format!("minMember: 1, preemptibility: {of}")) + &kai_pod("a", "");
    for (text, wanted) in [
        (pod("preemptionPolicy: PreemptLowerPriority"), "LOWER_PRIORITY UNSPECIFIED"),
        (pod("preemptionPolicy: Never"), "NEVER UNSPECIFIED"),
        (pod(""), ""),
        (job("scheduling: {disruptionMode: {all: {}}}"), "UNSPECIFIED ALL"),
        (job("scheduling: {disruptionMode: {single: {}}}"), "UNSPECIFIED SINGLE"),
        (kai("preemptible"), "UNSPECIFIED SINGLE"),
        (kai("non-preemptible"), "UNSPECIFIED NONE"),
        (own("muster/preemption: lower-priority, muster/disruption: all"), "LOWER_PRIORITY ALL"),
        (
            kubernetes_job(
                "",
                "",
                "annotations: {yunikorn.apache.org/allow-preemption: \"false\"}",
                "",
            ),
            "UNSPECIFIED NONE",
        ),
        (
            "{kind: plain, name: a, preemption: {policy: lower-priority, disruption: single}, \
             groups: [{name: w, replicas: 1, gpus: 1}]}"
                .to_owned(),
            "LOWER_PRIORITY SINGLE",
        ),
    ] {
        assert_eq!(preemption(&crate::job(&text)), wanted, "{text}");
    }
    for (text, wanted) in [
        (pod("preemptionPolicy: Sometimes"), "preemptionPolicy: is `Sometimes`; known are Never"),
        (
            job("scheduling: {disruptionMode: {}}"),
            "disruptionMode: needs either `single: {}` or `all: {}`",
        ),
        (
            job("scheduling: {disruptionMode: {all: {}, single: {}}}"),
            "disruptionMode: needs either `single: {}` or `all: {}`",
        ),
        (kai("semi-preemptible"), "spec.preemptibility: is not supported"),
        (own("muster/disruption: some"), "`some` is none of none, single, all"),
        (
            kubernetes_job(
                "annotations: {muster/preemption: never}",
                "",
                "",
                "preemptionPolicy: PreemptLowerPriority",
            ),
            "says different things of whom it may preempt",
        ),
    ] {
        let faults = crate::faults(&text);
        assert!(faults.contains(wanted), "{wanted} not in:\n{faults}");
    }
}
