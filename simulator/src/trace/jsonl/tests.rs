//! What is written is read back alike; the bytes of the format; how events make a trace.

use super::super::tests::Sample;
use super::super::{TraceJob, TraceNode, TracePlace, TraceShape};
use super::*;
use proptest::prelude::*;
use scheduler_core::command::SiteRtt;
use scheduler_core::fixture::entry::{full_node, group, job_spec, models, name};
use scheduler_core::job::{self, JobSpec};
use scheduler_core::unit::RttUs;
use std::sync::Arc;

fn back(trace: &Trace) -> Trace {
    let mut bytes = Vec::new();
    write(trace, "test", &mut bytes).expect("written");
    read(&Sample::of(&bytes).path(), &mut BadRows::refuse()).expect("read back")
}

/// More than equal replicas.
fn of_groups() -> JobSpec {
    let mut many = group("many", 3, 2);
    many.shape.alternatives = models(&["H100", "A100"]);
    many.replicas_min = 2;
    let mut spec = job_spec(vec![group("one", 1, 0), many]);
    spec.strategy = job::Strategy::StrictSpread;
    spec.rtt_max = Some(RttUs(50_000));
    spec.labels = [("app".into(), "train".into())].into();
    spec
}

fn shape() -> impl Strategy<Value = TraceShape> {
    let gpus = prop_oneof![
        Just((0, 0)),
        (1..1_000u32).prop_map(|m| (1, m)),
        (1..65u32).prop_map(|g| (g, 1_000))
    ];
    let models = proptest::collection::btree_set("[A-Z][0-9]{1,3}", 0..3);
    (gpus, 0..1_000_000u64, 0..1_000_000u64, models).prop_map(
        |((gpus, gpu_milli), cpu, memory, models)| {
            let models = if gpus == 0 { Vec::new() } else { models.into_iter().collect() };
            TraceShape { cpu_milli: cpu, memory_mib: memory, gpus, gpu_milli, models }
        },
    )
}

fn jobs() -> impl Strategy<Value = Vec<TraceJob>> {
    let time = proptest::option::of(0..1_000_000_000u64);
    let one = (shape(), 1..500u32, time.clone(), time, "[a-z]{0,6}", any::<bool>());
    proptest::collection::vec(one, 0..12).prop_map(|list| {
        let jobs = list.into_iter().enumerate().map(
            |(at, (shape, replicas, submit, ran, tenant, full))| TraceJob {
                name: format!("j{at}"),
                tenant,
                replicas,
                shape,
                submit: submit.map(TimeMs),
                duration: ran.map(|ms| DurationMs(ms.max(1))),
                spec: full.then(|| Arc::new(of_groups())),
            },
        );
        by_time(jobs.collect())
    })
}

fn nodes() -> impl Strategy<Value = Vec<TraceNode>> {
    let one = (0..9u32, 0..100_000u64, any::<bool>(), any::<bool>(), 0..900_000u64);
    proptest::collection::vec(one, 1..8).prop_map(|list| {
        let nodes =
            list.into_iter().enumerate().map(|(at, (gpus, amount, placed, full, price))| {
                TraceNode {
                    name: format!("n{at}"),
                    cpu_milli: amount,
                    memory_mib: amount / 2,
                    disk_mib: amount / 3,
                    gpus,
                    model: if gpus > 0 { "H100".to_owned() } else { String::new() },
                    vram_mib: gpus * 10,
                    place: placed.then(|| TracePlace {
                        region: "eu".to_owned(),
                        zone: "eu-a".to_owned(),
                        site: format!("s{at}"),
                        rack: "r".to_owned(),
                    }),
                    price_micro_usd: price,
                    bandwidth_mbps: 7,
                    class: if placed { "community".to_owned() } else { String::new() },
                    spec: full.then(|| Arc::new(full_node("host"))),
                }
            });
        nodes.collect()
    })
}

fn changes(nodes: usize) -> impl Strategy<Value = Vec<NodeChange>> {
    let change = proptest::sample::select(vec![
        Change::Joined,
        Change::Up,
        Change::Down,
        Change::Eligible,
        Change::Cordoned,
        Change::Draining,
        Change::Price(PriceMicroUsd(1_250_000)),
        Change::Removed,
    ]);
    proptest::collection::vec((0..nodes, 1..1_000_000u64, change), 0..20).prop_map(|list| {
        let mut changes: Vec<NodeChange> = list
            .into_iter()
            .map(|(node, at, change)| NodeChange {
                at: TimeMs(at),
                node: format!("n{node}"),
                change,
            })
            .collect();
        changes.sort_by_key(|change| change.at);
        changes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_trace_written_is_read_back_alike(
        jobs in jobs(),
        (nodes, changes) in nodes().prop_flat_map(|nodes| {
            let count = nodes.len();
            (Just(nodes), changes(count))
        }),
        rtt in 1..50_000u32,
    ) {
        let rtts = vec![SiteRtt {
            a: name("s1"),
            b: name("s2"),
            rtt: RttUs(rtt),
            rtt_high: RttUs(rtt + rtt % 3),
            samples: rtt % 2,
        }];
        let trace = Trace { jobs, nodes, changes, rtts };
        let mut read = back(&trace);
        // Nodes that join later are told later.
        read.nodes.sort_by(|a, b| a.name.cmp(&b.name));
        prop_assert_eq!(read, trace);
    }
}

#[test]
fn these_are_the_bytes_of_version_1() {
    let spec = TraceJob {
        name: "7".to_owned(),
        tenant: "acme".to_owned(),
        replicas: 2,
        shape: TraceShape {
            cpu_milli: 4_000,
            memory_mib: 1_024,
            gpus: 1,
            gpu_milli: 500,
            models: vec!["T4".to_owned()],
        },
        submit: Some(TimeMs(12)),
        duration: Some(DurationMs(99)),
        spec: None,
    };
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&mut bytes, "test", 1_700_000_000_000).expect("begins");
    let node = TraceNode {
        name: "n1".to_owned(),
        gpus: 8,
        model: "H100".to_owned(),
        ..TraceNode::default()
    };
    writer.node(TimeMs(5), &node).expect("written");
    let down = NodeChange { at: TimeMs(6), node: "n1".to_owned(), change: Change::Down };
    writer.change(&down).expect("written");
    writer.job(&spec).expect("written");
    writer.ready(TimeMs(13), "7").expect("written");
    writer.ended(TimeMs(14), "7", "cancelled").expect("written");
    let expected = r#"{"event":"trace","version":1,"source":"test","start_ms":1700000000000}
{"event":"node","at_ms":5,"node":"n1","gpus":8,"model":"H100"}
{"event":"node_down","at_ms":6,"node":"n1"}
{"event":"job","at_ms":12,"job":"7","tenant":"acme","replicas":2,"gpus":1,"gpu_milli":500,"cpu_milli":4000,"memory_mib":1024,"models":["T4"],"duration_ms":99}
{"event":"job_ready","at_ms":13,"job":"7"}
{"event":"job_ended","at_ms":14,"job":"7","why":"cancelled"}
"#;
    assert_eq!(String::from_utf8(bytes).expect("text"), expected);
}

fn of(lines: &[&str]) -> Result<Trace, TraceError> {
    let head = r#"{"event":"trace","version":1,"source":"t","start_ms":0}"#;
    let text = format!("{head}\n{}\n", lines.join("\n"));
    read(&Sample::of(text.as_bytes()).path(), &mut BadRows::refuse())
}

#[test]
fn a_duration_is_from_the_first_ready_to_the_end() {
    let trace = of(&[
        r#"{"event":"job","at_ms":3,"job":"a","gpus":1,"duration_ms":77}"#,
        r#"{"event":"job","at_ms":4,"job":"b"}"#,
        r#"{"event":"job_ended","at_ms":5,"job":"b"}"#,
        r#"{"event":"job_ready","at_ms":10,"job":"a"}"#,
        r#"{"event":"job_ready","at_ms":20,"job":"a"}"#,
        r#"{"event":"job_ended","at_ms":50,"job":"a"}"#,
    ]);
    let jobs = trace.expect("sound").jobs;
    assert_eq!(jobs[0].duration, Some(DurationMs(40)));
    assert_eq!((jobs[1].duration, jobs[1].total_milli()), (None, 0));
}

#[test]
fn what_still_ran_at_the_end_of_a_record_ran_until_then() {
    let trace = of(&[
        r#"{"event":"node","at_ms":0,"node":"n"}"#,
        r#"{"event":"job","at_ms":1,"job":"runs"}"#,
        r#"{"event":"job","at_ms":2,"job":"told","duration_ms":7}"#,
        r#"{"event":"job_ready","at_ms":10,"job":"runs"}"#,
        r#"{"event":"job_ready","at_ms":10,"job":"told"}"#,
        r#"{"event":"node_down","at_ms":60,"node":"n"}"#,
        r#"{"event":"job","at_ms":50,"job":"waits"}"#,
    ]);
    let told: Vec<_> = trace.expect("sound").jobs.into_iter().map(|job| job.duration).collect();
    assert_eq!(told, [Some(DurationMs(50)), Some(DurationMs(7)), None]);
}

#[test]
fn what_is_wrong_with_a_line_is_told() {
    let cases = [
        (r#"{"event":"job","job":"a","colour":1}"#, "line 2: is no event: unknown field `colour`"),
        (r#"{"event":"dance"}"#, "line 2: is no event: unknown variant `dance`"),
        (r#"{"event":"job","job":""}"#, r#"line 2, column "job": "" is empty"#),
        (r#"{"event":"job","job":"a","replicas":0}"#, r#"column "replicas": "0" is not 1 to"#),
        (r#"{"event":"job","job":"a","gpus":65}"#, r#"column "gpus": "65" is over 64"#),
        (
            r#"{"event":"job","job":"a","gpus":2,"gpu_milli":5}"#,
            r#"column "gpu_milli": "5" is not"#,
        ),
        (r#"{"event":"job_ready","at_ms":1,"job":"z"}"#, r#"column "job": "z" is no job told of"#),
        (r#"{"event":"node_up","at_ms":1,"node":"z"}"#, r#"column "node": "z" is no node told of"#),
        (r#"{"event":"rtt","a":"x","b":"..","rtt_us":5}"#, r#"column "b": ".." must start"#),
        (r#"{"event":"rtt","a":"x","b":"y","rtt_us":0}"#, r#"column "rtt_us": "0" is not 1 to"#),
        (r#"{"event":"node","node":"n","site":"s"}"#, r#"column "region": "" is empty"#),
        (r#"{"event":"trace","version":1,"source":"t","start_ms":0}"#, "is there already"),
    ];
    for (line, told) in cases {
        let error = of(&[line]).expect_err(line).to_string();
        assert!(error.contains(told), "{line}: {error}");
    }
    let mut spec = of_groups();
    spec.groups.clear();
    let spec = serde_json::to_string(&spec).expect("serialises");
    let error =
        of(&[&format!(r#"{{"event":"job","job":"a","spec":{spec}}}"#)]).expect_err("no groups");
    assert!(error.to_string().contains("spec.groups"), "{error}");
    for head in [
        "{\"event\":\"job\",\"job\":\"a\"}\n",
        "{\"event\":\"trace\",\"version\":2,\"source\":\"\",\"start_ms\":0}\n",
    ] {
        read(&Sample::of(head.as_bytes()).path(), &mut BadRows::skip()).expect_err(head);
    }
}
