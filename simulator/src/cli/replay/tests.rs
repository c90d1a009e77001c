//! Whole commands on small files.

use super::*;
use clap::Parser;
use serde_json::Value;
use std::path::Path;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// One job of 8 GPUs and, later, one of 16; both run for 1,000 s.
const JOBS: &str = "job,submit_s,duration_s,gpus,vc\n1,0,1000,8,a\n2,2000,1000,16,a\n";

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let file = dir.join(name);
    std::fs::write(&file, text).expect("writes");
    file.display().to_string()
}

/// Runs it on two nodes of 8 GPUs; figures of the only run.
fn replay(dir: &Path, more: &str) -> Result<Value, Error> {
    let (jobs, json) = (write(dir, "jobs.csv", JOBS), dir.join("told.json"));
    let words =
        format!("replay --trace philly:{jobs} --nodes 2x8 {more} --json {}", json.display());
    let told = told(&words, &json)?;
    assert_eq!(told["complete"], true);
    assert_eq!(told["nodes"], "2x8");
    Ok(told["runs"][0]["figures"].clone())
}

fn told(words: &str, json: &Path) -> Result<Value, Error> {
    let line = Line::try_parse_from(words.split_whitespace()).expect("arguments");
    assert_eq!(main(&line.args, &mut Vec::new())?, Ending::Done);
    let text = std::fs::read_to_string(json).expect("was written");
    Ok(serde_json::from_str(&text).expect("is JSON"))
}

fn number(figures: &Value, path: &str) -> f64 {
    figures.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn what_befalls_nodes_and_what_they_cost_is_joined() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let plain = replay(dir, "").expect("runs");
    assert_eq!(number(&plain, "/nodes_lost"), 0.0);
    assert_eq!(number(&plain, "/cost_usd"), 0.0);

    let faults =
        write(dir, "faults.csv", "node,start_s,end_s\nnode-0-0,100,400\nnode-0-1,100,400\n");
    let hit = replay(dir, &format!("--faults {faults}")).expect("runs");
    assert_eq!(number(&hit, "/nodes_lost"), 2.0);
    assert_eq!(number(&hit, "/damage/jobs_interrupted"), 1.0);
    assert_eq!(number(&hit, "/jobs/ended"), 2.0);

    // 24 GPUs for 1,000 s at 3.60 an hour.
    let prices =
        write(dir, "prices.csv", "provider,gpu_model,is_spot,usd_per_gpu_hour\np,GPU,0,3.6\n");
    let paid = replay(dir, &format!("--prices {prices}")).expect("runs");
    assert!((number(&paid, "/cost_usd") - 24.0).abs() < 0.1, "{}", paid["cost_usd"]);

    let rtt = write(dir, "rtt.csv", "src,dst,avg_ms\na,b,40\n");
    let far = replay(dir, &format!("--rtt {rtt}")).expect("runs");
    assert!((number(&far, "/rtt_ms/p50") - 40.0).abs() < 0.1, "{}", far["rtt_ms"]);
    assert_eq!(number(&far, "/gangs/placed"), 1.0);
    let bound = replay(dir, &format!("--rtt {rtt} --max-rtt-ms 30")).expect("runs");
    assert_eq!(number(&bound, "/gangs/placed"), 0.0);

    // A third node from 500 s on, and gone again at 2,500 s.
    let spot = write(dir, "spot.csv", "500000,add,s1\n2500000,remove,s1\n");
    let more = replay(dir, &format!("--spot {spot}")).expect("runs");
    assert_eq!(number(&more, "/fleet_gpus_max"), 24.0);
}

#[test]
fn what_replays_one_case_again_reads_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let (jobs, faults) =
        (write(dir, "the jobs.csv", JOBS), write(dir, "f.csv", "node,start_s,end_s\nx,1,2\n"));
    let words = format!(
        "replay --nodes 2x8 --faults {faults} --faults-of 7 --reserve-after 60 --reservations 2 \
         --overestimate 2.5 --max-rtt-ms 9 --skip-bad --threads 2 --seeds 3 --trace"
    );
    let trace = format!("philly:{jobs}");
    let read = |words: &[&str]| {
        let line = Line::try_parse_from(words).expect("arguments");
        (line.args.input.read().expect("readable"), line.args)
    };
    let words: Vec<&str> = words.split_whitespace().chain([trace.as_str()]).collect();
    let (input, _) = read(&words);
    let case = crate::replay::Case { policy: Policy::BestFit, seed: 43, load: 1.5 };
    let first = crate::replay::scenario(&input, &case).expect("a world");
    let again = first.replay.strip_prefix("muster sim ").expect("the command");
    let again = again.replace(&format!("'{trace}'"), "TRACE");
    let words: Vec<&str> =
        again.split(' ').map(|word| if word == "TRACE" { &trace } else { word }).collect();
    let (input, args) = read(&words);
    assert_eq!(policies(&args.policy).expect("known"), [case.policy]);
    assert_eq!((args.sweep.seeds(1), args.sweep.loads()), (vec![case.seed], &[case.load][..]));
    let second = crate::replay::scenario(&input, &case).expect("a world");
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
}

#[test]
fn a_recorded_trace_brings_its_nodes_and_what_befell_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let lines = concat!(
        r#"{"event":"trace","version":1,"source":"test","start_ms":0}"#,
        "\n",
        r#"{"event":"node","at_ms":0,"node":"a","gpus":8,"model":"H100","cpu_milli":64000,"memory_mib":65536}"#,
        "\n",
        r#"{"event":"job","at_ms":1000,"job":"j","gpus":8,"cpu_milli":1000,"duration_ms":600000}"#,
        "\n",
        r#"{"event":"node_down","at_ms":60000,"node":"a"}"#,
        "\n",
        r#"{"event":"node_up","at_ms":120000,"node":"a"}"#,
        "\n",
    );
    let (file, json) = (write(dir.path(), "t.jsonl", lines), dir.path().join("told.json"));
    let words = format!("replay --trace jsonl:{file} --json {}", json.display());
    let figures = told(&words, &json).expect("runs")["runs"][0]["figures"].clone();
    assert_eq!(number(&figures, "/nodes_lost"), 1.0);
    assert_eq!(number(&figures, "/repair_s/count"), 1.0);
    assert_eq!(number(&figures, "/fleet_gpus_max"), 8.0);
}

#[test]
fn bad_files_are_named_with_line_column_and_value() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let mut cases = Vec::new();
    for (option, text, wanted) in [
        (
            "--faults",
            "node,start_day,end_day\nx,1,y\n",
            r#"bad.csv, line 2, column "end_day": "y" is not"#,
        ),
        ("--faults", "node,start_s,end_s\nnode-0-1,1,2\nx,1,2\n", r#"bad.csv: node "x" is not on"#),
        ("--spot", "1,add,x\n2,eat,x\n", r#"bad.csv, line 2, column "change": "eat""#),
        (
            "--prices",
            "provider,gpu_model,is_spot,usd_per_gpu_hour\np,V100,0,z\n",
            r#"bad.csv, line 2, column "usd_per_gpu_hour": "z""#,
        ),
        ("--rtt", "src,dst,avg_ms\na,b,z\n", r#"bad.csv, line 2, column "avg_ms": "z""#),
    ] {
        let file = write(dir, "bad.csv", text);
        cases.push((replay(dir, &format!("{option} {file}")), wanted.to_owned()));
    }
    cases.push((replay(dir, "--faults /nowhere.csv"), "/nowhere.csv cannot be read".to_owned()));
    let jobs = write(dir, "jobs.csv", JOBS);
    for (nodes, wanted) in [("--nodes 0x8", "--nodes 0x8: no nodes"), ("", "--nodes is missing")] {
        let result = told(&format!("replay --trace philly:{jobs} {nodes}"), dir);
        cases.push((result, wanted.to_owned()));
    }
    for (result, wanted) in cases {
        let error = result.expect_err(&wanted);
        assert!(matches!(error, Error::Usage(_)) && error.to_string().contains(&wanted), "{error}");
    }
    // Bad rows of one file are not told of another one.
    let (good, bad) = ("node,start_s,end_s\nnode-0-1,1,2\n", "1,add,x\n2,eat,x\n");
    let skipping = format!(
        "--skip-bad --faults {} --spot {}",
        write(dir, "good.csv", good),
        write(dir, "bad.csv", bad)
    );
    replay(dir, &skipping).expect("the rest is good");
    let file = write(dir, "bad.csv", "2,eat,x\n");
    let error = replay(dir, &format!("--skip-bad --spot {file}")).expect_err("nothing is left");
    assert!(error.to_string().contains("bad.csv has no good row; the first of 1 bad ones"));
}
