//! Random operations against a model, with orderly restarts in between.

use bytes::Bytes;
use proptest::prelude::*;
use raft_store::files::fault::FaultFiles;
use raft_store::log::{Log, Options};

use super::support::{self, Model, acknowledgement, answer, at};

#[derive(Clone, Debug)]
enum Step {
    Append { count: u64, bytes: usize },
    Vote(u8),
    Committed(u64),
    TruncateTo(u64),
    TruncateAll,
    Purge(u64),
    PurgeBehindTheEnd(u64),
    Read { from: u64, count: u64, bytes_max: usize },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..12u64, 0..1500usize).prop_map(|(count, bytes)| Step::Append { count, bytes }),
        1 => Just(Step::Append { count: 1, bytes: 40_000 }),
        2 => any::<u8>().prop_map(Step::Vote),
        2 => (0..100u64).prop_map(Step::Committed),
        2 => (0..100u64).prop_map(Step::TruncateTo),
        1 => Just(Step::TruncateAll),
        2 => (0..100u64).prop_map(Step::Purge),
        1 => (1..9u64).prop_map(Step::PurgeBehindTheEnd),
        4 => (0..200u64, 0..40u64, 0..6000usize)
            .prop_map(|(from, count, bytes_max)| Step::Read { from, count, bytes_max }),
        2 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_log_does_what_its_model_does(
        steps in proptest::collection::vec(step(), 1..60),
        cache_bytes in prop_oneof![Just(0), 1..8000usize, Just(64 << 20)],
    ) {
        let files = FaultFiles::new();
        let options = Options { cache_bytes, ..support::options() };
        let reopen = || {
            Log::open(&support::dir(), std::sync::Arc::new(files.clone()), options.clone())
                .expect("open")
        };
        let mut log = reopen();
        let mut model = Model::default();
        for (version, step) in steps.into_iter().enumerate() {
            if let Step::Reopen = step {
                drop(log);
                log = reopen();
            } else {
                take(&log, &mut model, version as u64, step);
            }
            model.assert_is(&log);
            let stats = log.stats();
            prop_assert!(stats.queued > 0 || stats.cached_bytes <= cache_bytes);
        }
        drop(log);
        let report = raft_store::log::check(&support::dir(), &files).expect("check");
        prop_assert_eq!(&report.faults, &[]);
        prop_assert!(report.closed);
        prop_assert_eq!(report.last, model.last());
    }
}

/// Maps a number to an index that is in the log or just purged.
fn some_index(model: &Model, number: u64) -> Option<u64> {
    let first = model.purged.map(|purged| purged.index).or(model.entries.keys().next().copied())?;
    let last = model.last()?.index;
    Some(first + number % (last - first + 1))
}

fn take(log: &Log, model: &mut Model, version: u64, step: Step) {
    match step {
        Step::Append { count, bytes } => {
            let from = model.next_index();
            let records: Vec<_> =
                (from..from + count).map(|index| support::record(index, version, bytes)).collect();
            records.iter().for_each(|record| model.append(record.clone()));
            support::append(log, records).expect("append");
        }
        Step::Vote(byte) => {
            let vote = Bytes::from(vec![byte; usize::from(byte)]);
            model.vote = Some(vote.clone());
            let (done, receiver) = acknowledgement();
            log.save_vote(vote, done).expect("vote");
            answer(&receiver).expect("vote");
        }
        Step::Committed(number) => {
            model.committed = some_index(model, number).map(at);
            log.save_committed(model.committed).expect("committed");
        }
        Step::TruncateTo(number) => {
            let Some(last_kept) = some_index(model, number) else { return };
            model.truncate(Some(last_kept));
            support::truncate(log, Some(last_kept)).expect("truncate");
        }
        Step::TruncateAll => {
            model.truncate(None);
            support::truncate(log, None).expect("truncate");
        }
        Step::Purge(number) => {
            let Some(upto) = some_index(model, number) else { return };
            model.purge(at(upto));
            support::purge(log, upto).expect("purge");
        }
        Step::PurgeBehindTheEnd(more) => {
            let upto = model.next_index() + more;
            model.purge(at(upto));
            support::purge(log, upto).expect("purge");
        }
        Step::Read { from, count, bytes_max } => read(log, model, from, from + count, bytes_max),
        Step::Reopen => {}
    }
}

fn read(log: &Log, model: &Model, from: u64, to: u64, bytes_max: usize) {
    let found = log.read(from, to, bytes_max).expect("read");
    let expected: Vec<_> =
        model.entries.range(from..to).map(|(_, record)| record.clone()).collect();
    assert!(found.is_empty() == expected.is_empty(), "empty for a range that is not");
    assert_eq!(found[..], expected[..found.len()]);
    let bytes: usize = found.iter().skip(1).map(|record| record.payload.len()).sum();
    assert!(bytes <= bytes_max, "{bytes} bytes, asked for {bytes_max}");
    if let Some(next) = expected.get(found.len()) {
        let all: usize = found.iter().chain([next]).map(|record| record.payload.len()).sum();
        assert!(all > bytes_max, "ended early without need");
    }
    for index in from..to {
        let position = model.entries.get(&index).map(|record| record.at);
        let purged = model.purged.filter(|purged| purged.index == index);
        assert_eq!(log.position(index).expect("position"), position.or(purged));
    }
}

#[test]
fn what_cannot_follow_is_refused_and_changes_nothing() {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    support::append(&log, support::records(0, 10, 20)).expect("append");
    support::purge(&log, 3).expect("purge");
    let before = Model::of(&log).expect("read");
    let gap = support::append(&log, support::records(11, 1, 20)).expect_err("a gap");
    assert!(gap.to_string().contains("entry 11 where entry Some(10) must follow"), "{gap}");
    assert!(support::append(&log, support::records(9, 1, 20)).is_err(), "an overlap");
    let mut holey = support::records(10, 3, 20);
    holey.remove(1);
    assert!(support::append(&log, holey).is_err(), "a hole inside");
    assert!(support::truncate(&log, Some(1)).is_err(), "truncation into what is purged");
    let long = Bytes::from(vec![0; raft_store::log::VOTE_BYTES_MAX + 1]);
    let (done, _receiver) = acknowledgement();
    let error = log.save_vote(long, done).expect_err("a long vote");
    assert!(error.to_string().contains("4097 bytes, the limit is 4096"), "{error}");
    before.assert_is(&log);
    // Harmless repetitions are not refused.
    support::truncate(&log, Some(20)).expect("nothing to truncate");
    support::purge(&log, 2).expect("purged already");
    before.assert_is(&log);
}

#[test]
fn settings_outside_their_limits_are_named() {
    let files = std::sync::Arc::new(FaultFiles::new());
    let refused = |options: Options| {
        Log::open(&support::dir(), files.clone(), options).expect_err("refused").to_string()
    };
    let small = Options { segment_bytes: 5, ..support::options() };
    assert_eq!(refused(small), "log.segment_bytes: 5 is outside 16384..=1073741824");
    let first = Options { segment_bytes_first: 1 << 20, ..support::options() };
    assert_eq!(refused(first), "log.segment_bytes_first: 1048576 is outside 16384..=16384");
    let queue = Options { queue_len: 0, ..support::options() };
    assert_eq!(refused(queue), "log.queue_len: 0 is outside 1..=1048576");
}
