//! A real process on a real disk, killed at random.
//!
//! The child is this test binary itself, told by a variable to append and to print each
//! acknowledgement.

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use raft_store::files::Disk;
use raft_store::log::{Done, Item, Log, Options, check, dump};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::support;

const DIR_VARIABLE: &str = "LOG_KILL_DIR";
const SEED_VARIABLE: &str = "LOG_KILL_SEED";
const KILLS: u64 = 50;
/// Requests the child keeps in flight, so that the kill meets a busy writer.
const IN_FLIGHT: usize = 16;

fn options() -> Options {
    Options {
        segment_bytes: 256 << 10,
        segment_bytes_first: 64 << 10,
        cache_bytes: 16 << 10,
        queue_len: IN_FLIGHT,
        log_id: None,
    }
}

fn entry_bytes(index: u64) -> usize {
    usize::try_from(index * 7919 % 3000).unwrap_or_default()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // The parent reads until it kills: a failure here is the end of the child anyway.
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Runs only as a child of the test below; it appends until it is killed.
#[test]
fn child_that_appends() {
    let Ok(dir) = env::var(DIR_VARIABLE) else { return };
    let seed = env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut rng = StdRng::seed_from_u64(seed);
    let log = Log::open(Path::new(&dir), Arc::new(Disk), options()).expect("open after a kill");
    say(&format!("\nopened {}\n", log.last().map_or(0, |last| last.index + 1)));
    loop {
        let from = log.last().map_or(0, |last| last.index + 1);
        let count = rng.random_range(1..20);
        let records: Vec<_> = (from..from + count)
            .map(|index| support::record(index, 0, entry_bytes(index)))
            .collect();
        log.append(records, acknowledge("ack", from + count)).expect("append");
        if rng.random_ratio(1, 8) {
            let vote = bytes::Bytes::from(from.to_le_bytes().to_vec());
            log.save_vote(vote, acknowledge("vote", from)).expect("vote");
        }
        if rng.random_ratio(1, 16) && from > 600 {
            log.purge(support::at(from - 500), acknowledge("purge", from - 500)).expect("purge");
        }
    }
}

fn acknowledge(what: &'static str, number: u64) -> Done {
    Box::new(move |result| match result {
        Ok(()) => say(&format!("{what} {number}\n")),
        Err(error) => say(&format!("failed {error}\n")),
    })
}

#[derive(Debug, Default)]
struct Acknowledged {
    entries: u64,
    vote: Option<u64>,
    purged: Option<u64>,
}

#[test]
fn fifty_kills_lose_nothing_acknowledged_and_leave_no_hole() {
    let seed: u64 = env::var(SEED_VARIABLE).ok().and_then(|seed| seed.parse().ok()).unwrap_or(11);
    println!("replay with {SEED_VARIABLE}={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let dir = scratch.path().join("log");
    let mut acknowledged = Acknowledged::default();
    for round in 0..KILLS {
        run_and_kill(&dir, seed + round, rng.random_range(0..120), &mut acknowledged);
        verify(&dir, &acknowledged);
    }
    assert!(acknowledged.entries > KILLS, "the children appended hardly anything");
}

fn run_and_kill(dir: &Path, seed: u64, lines: usize, acknowledged: &mut Acknowledged) {
    let mut child = Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", "kill::child_that_appends", "--nocapture", "--test-threads=1"])
        .env(DIR_VARIABLE, dir)
        .env(SEED_VARIABLE, seed.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("start the child");
    let output = child.stdout.take().expect("piped");
    let mut seen = 0;
    // After the kill the pipe still holds acknowledgements that were given: they count too.
    for line in BufReader::new(output).lines() {
        let line = line.expect("the child's output");
        let Some((what, number)) = line.split_once(' ') else { continue };
        let number = number.parse().ok();
        match (what, number) {
            ("ack", Some(number)) => acknowledged.entries = acknowledged.entries.max(number),
            ("vote", Some(_)) => acknowledged.vote = number,
            ("purge", Some(_)) => acknowledged.purged = number,
            ("opened", Some(number)) => {
                assert!(number >= acknowledged.entries, "the child lost {acknowledged:?}: {line}");
            }
            ("failed", _) => panic!("{line}"),
            _ => continue,
        }
        seen += 1;
        if seen == lines + 1 {
            child.kill().expect("kill");
        }
    }
    child.wait().expect("the child's end");
}

/// Reads the files without opening the log, by an own replay of the raw records.
fn verify(dir: &Path, acknowledged: &Acknowledged) {
    let report = check(dir, &Disk).expect("check");
    assert!(report.is_usable(), "{:?}", report.faults);
    let mut entries = BTreeMap::new();
    let (mut vote, mut purged) = (None, None);
    // The last record may be torn; then the dump ends with an error, which `check` has judged.
    for raw in dump(dir, Arc::new(Disk)).expect("dump").map_while(Result::ok) {
        match raw.item {
            Item::Entry(record) => {
                entries.insert(record.at.index, record);
            }
            Item::Vote(bytes) => vote = Some(bytes),
            Item::Purged(upto) => purged = Some(upto.index),
            Item::Carry(carry) => {
                (vote, purged) = (carry.marks.vote, carry.marks.purged.map(|at| at.index))
            }
            _ => {}
        }
    }
    let first = purged.map_or(0, |purged| purged + 1);
    assert!(purged >= acknowledged.purged);
    let number = |vote: &bytes::Bytes| vote.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    assert!(vote.as_ref().and_then(number) >= acknowledged.vote, "an acknowledged vote is lost");
    for index in first..acknowledged.entries {
        assert_eq!(entries.get(&index), Some(&support::record(index, 0, entry_bytes(index))));
    }
    let last = entries.keys().next_back().copied().unwrap_or(0);
    let kept = entries.range(first..).count() as u64;
    assert!(kept == 0 || kept == last + 1 - first, "a hole among {kept} entries");
}
