//! Texts that nobody means well with: cut off, huge, deep, random. An answer within bounds, never a panic.

use crate::{kubernetes_job, ray_cluster};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// Generous even for a busy machine and unoptimised code; a runaway takes minutes.
const TIME_MAX: Duration = Duration::from_secs(20);

fn seeds() -> Vec<String> {
    vec![
        kubernetes_job(
            "annotations: {muster/max-rtt: 50ms}",
            "completions: 8\nscheduling: {schedulingPolicy: {gang: {minCount: 4}}}",
            "annotations: {kueue.x-k8s.io/podset-required-topology: rack}",
            "nodeSelector: {a: b}\ntolerations: [{key: x, operator: Exists}]\naffinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: rack, labelSelector: {matchLabels: {app: train}}}]}}",
        ),
        ray_cluster("enableInTreeAutoscaling: false", "minReplicas: 2\nnumOfHosts: 2", "", ""),
        "bundles: [{GPU: 8, CPU: 16}, {GPU: 8, CPU: 16}]\nstrategy: SPREAD\nbundle_label_selector: [{a: \"in(x,y)\"}, {b: \"!z\"}]\n".to_owned(),
        "kind: ray\nname: demo\ngroups:\n- {name: w, replicas: 2, gpus: 8, selectors: [{key: k, operator: exists}]}\n".to_owned(),
    ]
}

/// The text is answered in time, and what comes back is not larger than bounds allow.
fn is_answered(text: &str) {
    let start = Instant::now();
    match manifest::read(text) {
        Ok(understood) => assert!(understood.notes.len() <= 501),
        Err(faults) => {
            assert!(!faults.is_empty() && faults.len() <= 201);
            for fault in faults {
                let shown = fault.to_string();
                assert!(shown.len() < 4_000 && !shown.contains('\n'), "{shown:?}");
            }
        }
    }
    assert!(start.elapsed() < TIME_MAX);
}

#[test]
fn the_seeds_themselves_are_understood() {
    for text in seeds() {
        crate::understood(&text);
    }
}

#[test]
fn texts_cut_off_anywhere() {
    for text in seeds() {
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            is_answered(&text[..end]);
        }
    }
}

#[test]
fn huge_texts() {
    let max = manifest::TEXT_BYTES_MAX;
    let many = |start: &str, item: &str| {
        let count = (max - start.len() - 2) / item.len();
        format!("{start}{}]", item.repeat(count))
    };
    for text in [
        "x".repeat(max + 1),
        many("bundles: [", "{GPU: 1}, "),
        many("bundles: [", "{a: b}, "),
        many("bundles: [", "[], "),
        format!("bundles: {{{}}}", "a: 1, ".repeat(1000)),
        format!("kind: ray\n{}: 1\n", "k".repeat(500_000)),
        format!("bundles: [{{{}: 1}}]", "k".repeat(500_000)),
        format!("kind: {}\n", "\u{202e}".repeat(100_000)),
        "a: 1\n---\n".repeat(50_000),
    ] {
        is_answered(&text);
    }
    let pods = "- apiVersion: v1\n  kind: Pod\n  metadata: {name: p}\n  spec: {nodeSelector: 3}\n";
    is_answered(&format!("apiVersion: v1\nkind: List\nitems:\n{}", pods.repeat(5_000)));
}

#[test]
fn deep_texts() {
    for depth in [40, 100, 10_000, 400_000] {
        is_answered(&format!("bundles: {}{}", "[".repeat(depth), "]".repeat(depth)));
        is_answered(&format!("{}1{}", "{a: ".repeat(depth), "}".repeat(depth)));
        is_answered(&"- ".repeat(depth));
    }
    // Composite pod groups refer to themselves by nesting.
    let mut composite = "{name: a}".to_owned();
    for _ in 0..18 {
        composite = format!("{{name: a, compositePodGroupTemplates: [{composite}]}}");
    }
    is_answered(&format!(
        "apiVersion: scheduling.k8s.io/v1beta1\nkind: Workload\nspec: {{compositePodGroupTemplates: [{composite}]}}"
    ));
}

#[test]
fn subgroups_in_a_circle() {
    is_answered(
        "apiVersion: scheduling.run.ai/v2alpha2\nkind: PodGroup\nmetadata: {name: g}\nspec: {subGroups: \
         [{name: a, parent: b}, {name: b, parent: a}]}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, \
         annotations: {pod-group-name: g}, labels: {kai.scheduler/subgroup-name: a}}\nspec: {containers: \
         [{resources: {requests: {cpu: 1}}}]}",
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in ".{0,400}") {
        is_answered(&text);
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        match manifest::utf8(bytes.clone()) {
            Ok(text) => is_answered(&text),
            Err(fault) => prop_assert!(String::from_utf8(bytes).is_err(), "{}", fault),
        }
    }

    /// Good texts with some characters replaced, doubled or taken out.
    #[test]
    fn almost_good_texts(
        seed in 0_usize..4,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0_u8..4, "[ -~\n]{1,3}"), 1..8),
    ) {
        let mut text: Vec<char> = seeds()[seed].chars().collect();
        for (place, kind, with) in edits {
            let at = place.index(text.len());
            match kind {
                0 => { text.remove(at); }
                1 => text.insert(at, with.chars().next().unwrap_or('x')),
                2 => { text.splice(at..=at, with.chars()); }
                _ => { let end = (at + 20).min(text.len()); let copy = text[at..end].to_vec(); text.splice(at..at, copy); }
            }
            if text.is_empty() { break; }
        }
        is_answered(&text.into_iter().collect::<String>());
    }

    /// Values of wrong types in every field.
    #[test]
    fn wrong_types(seed in 0_usize..4, place in any::<prop::sample::Index>(), kind in 0_usize..6) {
        let mut value: serde_json::Value = serde_saphyr::from_str(&seeds()[seed]).expect("a seed");
        let odd = [
            serde_json::json!(null), serde_json::json!(-1), serde_json::json!(1e300),
            serde_json::json!([[]]), serde_json::json!({"a": {}}), serde_json::json!("\u{1b}[2J"),
        ];
        let total = count(&value);
        replace(&mut value, &mut place.index(total), &odd[kind]);
        is_answered(&value.to_string());
    }
}

fn count(value: &serde_json::Value) -> usize {
    1 + match value {
        serde_json::Value::Array(items) => items.iter().map(count).sum(),
        serde_json::Value::Object(map) => map.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

fn replace(value: &mut serde_json::Value, left: &mut usize, with: &serde_json::Value) {
    if *left == 0 {
        *value = with.clone();
    }
    *left = left.wrapping_sub(1);
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(|v| replace(v, left, with)),
        serde_json::Value::Object(map) => map.values_mut().for_each(|v| replace(v, left, with)),
        _ => {}
    }
}
