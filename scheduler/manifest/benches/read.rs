//! How long the longest texts take that are read at all: 1 MiB of each kind of thing that a manifest
//! can be full of.
//!
//! **Invariant:** every text is as long as is allowed.

use criterion::{Criterion, criterion_group, criterion_main};
use manifest::{TEXT_BYTES_MAX, read};
use std::hint::black_box;

/// Fills a text up with an item; `{}` in the item becomes its number.
fn filled(start: &str, item: &str, end: &str) -> String {
    let mut text = start.to_owned();
    for number in 0.. {
        let next = item.replace("{}", &number.to_string());
        if text.len() + next.len() + end.len() > TEXT_BYTES_MAX {
            return text + end;
        }
        text.push_str(&next);
    }
    text
}

fn cases() -> Vec<(&'static str, String)> {
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\nspec:\n  parallelism: 8\n  template:\n";
    let pod = "    spec:\n      containers:\n      - {name: m, resources: {limits: {nvidia.com/gpu: 8}}}\n";
    let item = "- apiVersion: v1\n  kind: Pod\n  metadata: {name: p{}, labels: {app: a{}}}\n  spec: {nodeSelector: \
                {k{}: v}, containers: [{name: c, resources: {requests: {cpu: {}m}}}]}\n";
    vec![
        ("bundles", filled("bundles: [", "{GPU: 1, CPU: {}}, ", "]")),
        ("unknown fields", filled("bundles: [", "{a{}: b}, ", "]")),
        ("empty lists", filled("bundles: [", "[], ", "]")),
        ("groups", filled("kind: ray\ngroups:\n", "- {name: g{}, replicas: 2, gpus: 8}\n", "")),
        (
            "selectors",
            filled(
                "kind: ray\ngroups:\n- name: g\n  selectors:\n",
                "  - {key: k{}, operator: exists}\n",
                "",
            ),
        ),
        ("pods in a list", filled("apiVersion: v1\nkind: List\nitems:\n", item, "")),
        (
            "tolerations",
            filled(
                &format!("{job}{pod}      tolerations:\n"),
                "      - {key: k{}, operator: Exists}\n",
                "",
            ),
        ),
        (
            "containers",
            filled(
                &format!("{job}{pod}"),
                "      - {name: c{}, resources: {limits: {cpu: {}m}}}\n",
                "",
            ),
        ),
        (
            "annotations",
            filled(&format!("{job}    metadata:\n      annotations:\n"), "        k{}: v\n", pod),
        ),
        (
            "documents",
            filled("", "---\napiVersion: v1\nkind: Service\nmetadata: {name: s{}}\n", ""),
        ),
        ("one long text", filled("kind: ray\nname: ", "xxxxxxxx", "\n")),
        ("deep", filled("bundles: ", "[", "")),
        ("aliases", filled("a: &a [x, x, x, x]\nb: [", "*a, ", "]")),
    ]
}

fn texts(criterion: &mut Criterion) {
    let mut bench = criterion.benchmark_group("read/1 MiB");
    bench.sample_size(10);
    for (called, text) in cases() {
        let answer = match read(&text) {
            Ok(understood) => format!("a job with {} notes", understood.notes.len()),
            Err(faults) => format!("{} faults, {}", faults.len(), faults[0]),
        };
        eprintln!(
            "{called}: {} bytes: {}",
            text.len(),
            answer.chars().take(160).collect::<String>()
        );
        bench.bench_function(called, |bencher| bencher.iter(|| black_box(read(&text))));
    }
    bench.finish();
}

criterion_group!(benches, texts);
criterion_main!(benches);
