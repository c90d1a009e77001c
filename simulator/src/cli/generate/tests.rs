//! What is written is read back; equal arguments give equal bytes, here and everywhere.

use super::*;
use crate::generate::fleet::COMMUNITY;
use crate::trace::{Change, Format};
use clap::Parser;
use scheduler_core::hash::Hasher;
use std::hash::Hasher as _;
use std::path::Path;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn run(words: &str) -> Result<Vec<u8>, Error> {
    let words = std::iter::once("gen").chain(words.split_whitespace());
    let line = Line::try_parse_from(words).expect("arguments");
    let mut out = Vec::new();
    main(&line.args, &mut out).map(|_| out)
}

/// Runs it into a file of the folder.
fn write(dir: &Path, name: &str, words: &str) -> PathBuf {
    let file = dir.join(name);
    let written = run(&format!("{words} --out {}", file.display())).expect(words);
    assert!(written.is_empty(), "the file was asked for");
    file
}

fn read(file: &Path) -> Trace {
    let source = Source { format: Format::Jsonl, file: file.to_owned() };
    source.read(&mut BadRows::refuse()).expect("read back")
}

#[test]
fn what_is_written_is_read_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let found = read(&write(dir, "jobs", "jobs --profile philly --count 500 --seed 4")).jobs;
    assert_eq!(found, jobs::jobs(jobs::Profile::Philly, 500, None, 4));
    let found = read(&write(dir, "mega", "mega --count 40 --seed 4")).jobs;
    assert_eq!(found, mega::gangs(40, 0.15, 4));
    let made = fleet::fleet(fleet::Profile::Global, 300, 9, 4);
    let found = read(&write(dir, "fleet", "fleet --nodes 300 --cities 9 --seed 4"));
    assert_eq!((found.nodes, found.rtts), (made.nodes.clone(), made.rtts));
    let csv = write(dir, "nodes", "fleet --nodes 300 --cities 9 --format csv --seed 4");
    let found = trace::nodes::read(&csv, &mut BadRows::refuse()).expect("nodes");
    assert_eq!(found, made.nodes);
    let list = write(dir, "faults", &format!("faults --nodes {} --days 9 --seed 4", csv.display()));
    let found = trace::faults::read(&list, &mut BadRows::refuse()).expect("faults");
    assert_eq!(found, faults::faults(&made.nodes, DurationMs(9 * 24 * HOUR_MS), 4));
    assert!(made.nodes.iter().any(|node| node.class == COMMUNITY) && found.len() > 1_000);
    let list = write(dir, "spot", "spot --wanted 9 --days 2 --seed 4");
    let found = trace::spot::read(&list, &mut BadRows::refuse()).expect("spot nodes");
    assert_eq!(found, spot::churn(9, DurationMs(48 * HOUR_MS), 4));
    assert!(found.iter().any(|change| change.change == Change::Removed));
}

#[test]
fn traces_are_merged_and_changed() {
    let dir = tempfile::tempdir().expect("a folder");
    let philly = dir.path().join("philly.csv");
    let text = "job,submit_s,duration_s,gpus,vc\n0,0,60,1,a\n1,3600,60,8,a\nx,y,60,8,a\n";
    std::fs::write(&philly, text).expect("a file");
    let mega = write(dir.path(), "mega", "mega --count 30");
    let sources =
        format!("trace --trace philly:{} --trace jsonl:{}", philly.display(), mega.display());
    let error = run(&sources).expect_err("a bad row").to_string();
    assert!(
        error.ends_with(r#"line 4, column "submit_s": "y" is not a number up to 4000000000"#),
        "{error}"
    );
    let both = write(dir.path(), "both", &format!("{sources} --skip-bad"));
    assert_eq!(read(&both).jobs.len(), 32);
    let head = std::fs::read_to_string(&both).expect("a file");
    assert!(head.lines().next().is_some_and(|head| head.contains("1 bad rows left out")), "{head}");
    let words = format!("trace --trace philly:{} --skip-bad", philly.display());
    let changed = |more: &str| read(&write(dir.path(), "changed", &format!("{words} {more}"))).jobs;
    assert_eq!(changed("--from-h 0.5 --start-h 2")[0].submit, Some(TimeMs(2 * HOUR_MS)));
    assert_eq!(changed("--load 3").len(), 6);
    assert_eq!(changed("--load 2 --load-by gaps")[1].submit, Some(TimeMs(HOUR_MS / 2)));
    assert_eq!(changed("--time-scale 0.5")[1].duration, Some(DurationMs(30_000)));
    assert_eq!(
        changed("--inflate 100 --capacity 27")
            .iter()
            .map(|job| job.total_milli())
            .sum::<u64>()
            .div_ceil(9_000),
        3
    );
    assert_eq!(changed("--sample 0.5").len(), 1);
    for (more, told) in [
        ("--load 0", "a factor of 0 is not between"),
        ("--sample 2", "a share of 2 is not between 0 and 1"),
        ("--start-h -1", "--start-h -1 is not between"),
    ] {
        let error = run(&format!("{words} {}", more.replace(" -", "=-"))).expect_err(more);
        assert!(error.to_string().contains(told), "{error}");
    }
    let error = run("jobs --per-hour 0").expect_err("no rate").to_string();
    assert!(error.contains("--per-hour 0 is not between"), "{error}");
}

/// These are the bytes on every machine: nothing in them comes from a platform's mathematics.
#[test]
fn equal_arguments_give_these_bytes_everywhere() {
    let dir = tempfile::tempdir().expect("a folder");
    let nodes = write(dir.path(), "nodes", "fleet --nodes 2000 --cities 20 --format csv");
    let faults = format!("faults --nodes {} --days 20", nodes.display());
    let pinned = [
        ("jobs --count 5000", 11_046_160_690_693_018_897),
        ("jobs --profile philly --count 5000 --per-hour 100", 8_548_161_970_601_980_670),
        ("mega --count 2000", 15_489_831_296_357_843_097),
        ("fleet --nodes 2000 --cities 20", 10_790_639_166_563_473_315),
        (faults.as_str(), 10_914_753_871_583_478_572),
        ("spot --days 30", 11_294_776_262_374_632_021),
    ];
    let hashes = pinned.map(|(words, _)| {
        let mut hasher = Hasher::new();
        hasher.write(&run(words).expect(words));
        hasher.finish()
    });
    assert_eq!(hashes, pinned.map(|(_, hash)| hash));
}
