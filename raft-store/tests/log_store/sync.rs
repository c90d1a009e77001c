//! When acknowledgements come: after a sync, in order, shared by many, and never too many waiting.

use std::sync::mpsc::{TryRecvError, channel};
use std::thread;

use bytes::Bytes;
use raft_store::files::fault::{FaultFiles, Loss};
use raft_store::log::{Log, Options};

use super::support::{self, acknowledgement, answer};

/// A disk whose counts and held syncs leave out the files prepared ahead.
fn focused() -> FaultFiles {
    let files = FaultFiles::new();
    files.focus(".seg");
    files
}

#[test]
fn an_append_is_acknowledged_only_after_its_sync() {
    let files = focused();
    let log = support::open(&files).expect("open");
    let before = files.counts();
    files.hold_syncs(true);
    let (done, receiver) = acknowledgement();
    log.append(support::records(0, 3, 200), done).expect("append");
    assert_eq!(log.read(0, 3, usize::MAX).expect("read").len(), 3, "readable at once");
    files.wait_for_held_sync();
    assert!(files.counts().writes > before.writes, "written, not synced");
    assert_eq!(receiver.try_recv().err(), Some(TryRecvError::Empty), "acknowledged too early");
    files.hold_syncs(false);
    answer(&receiver).expect("append");
    let after = files.counts();
    assert_eq!((after.writes, after.syncs), (before.writes + 1, before.syncs + 1));
    assert_eq!((log.stats().writes, log.stats().syncs), (1, 1));
}

#[test]
fn votes_and_truncations_are_acknowledged_only_after_their_sync() {
    let files = focused();
    let log = support::open(&files).expect("open");
    support::append(&log, support::records(0, 3, 200)).expect("append");
    for what in ["vote", "truncate", "purge"] {
        files.hold_syncs(true);
        let (done, receiver) = acknowledgement();
        match what {
            "vote" => log.save_vote(Bytes::from_static(b"me"), done),
            "truncate" => log.truncate_after(Some(1), done),
            _ => log.purge(support::at(0), done),
        }
        .expect(what);
        files.wait_for_held_sync();
        assert_eq!(receiver.try_recv().err(), Some(TryRecvError::Empty), "{what} too early");
        files.hold_syncs(false);
        answer(&receiver).expect(what);
    }
}

#[test]
fn what_waits_shares_one_sync_and_is_acknowledged_in_order() {
    let files = focused();
    let log = support::open(&files).expect("open");
    files.hold_syncs(true);
    let (sender, order) = channel();
    for index in 0..30 {
        let sender = sender.clone();
        let done = Box::new(move |result: std::io::Result<()>| {
            sender.send((index, result.is_ok())).expect("the test listens");
        });
        log.append(support::records(index, 1, 100), done).expect("append");
        if index == 0 {
            files.wait_for_held_sync();
        }
    }
    let before = files.counts().syncs;
    files.hold_syncs(false);
    let acknowledged: Vec<_> = order.iter().take(30).collect();
    assert_eq!(acknowledged, (0..30).map(|index| (index, true)).collect::<Vec<_>>());
    assert_eq!(files.counts().syncs - before, 2, "one for the first, one for all others");
}

#[test]
fn a_committed_position_costs_no_sync_and_rides_with_the_next_write() {
    let files = focused();
    let log = support::open(&files).expect("open");
    support::append(&log, support::records(0, 5, 10)).expect("append");
    let before = files.counts().syncs;
    for index in 0..4 {
        log.save_committed(Some(support::at(index))).expect("committed");
    }
    assert_eq!(files.counts().syncs, before);
    let cut = files.fork();
    cut.crash(Loss::Unsynced);
    assert_eq!(support::open(&cut).expect("open").committed(), None, "not durable yet");
    support::append(&log, support::records(5, 1, 10)).expect("append");
    assert_eq!(files.counts().syncs, before + 1);
    files.crash(Loss::Unsynced);
    drop(log);
    assert_eq!(support::open(&files).expect("open").committed(), Some(support::at(3)));
}

#[test]
fn a_full_queue_makes_callers_wait() {
    let files = focused();
    let options = Options { queue_len: 3, ..support::options() };
    let log =
        Log::open(&support::dir(), std::sync::Arc::new(files.clone()), options).expect("open");
    files.hold_syncs(true);
    let (sender, acknowledged) = channel();
    let appender = log.clone();
    let worker = thread::spawn(move || {
        for index in 0..50 {
            let sender = sender.clone();
            let done = Box::new(move |result: std::io::Result<()>| {
                sender.send(result.is_ok()).expect("the test listens");
            });
            appender.append(support::records(index, 1, 10), done).expect("append");
            assert!(appender.stats().queued <= 3);
        }
    });
    files.wait_for_held_sync();
    assert!(!worker.is_finished(), "50 appends cannot fit in a queue of 3 and one write");
    files.hold_syncs(false);
    worker.join().expect("the appender");
    assert!(acknowledged.iter().take(50).all(|ok| ok));
}

#[test]
fn a_callback_may_hold_the_last_handle() {
    let files = focused();
    let log = support::open(&files).expect("open");
    let (sender, receiver) = channel();
    files.hold_syncs(true);
    let held = log.clone();
    let done = Box::new(move |result: std::io::Result<()>| {
        sender.send((held.last(), result.is_ok())).expect("the test listens");
    });
    log.append(support::records(0, 1, 10), done).expect("append");
    drop(log);
    files.hold_syncs(false);
    assert_eq!(receiver.recv().expect("called"), (Some(support::at(0)), true));
}

#[test]
fn what_is_not_written_yet_is_never_evicted() {
    let files = focused();
    let options = Options { cache_bytes: 0, ..support::options() };
    let log = Log::open(&support::dir(), std::sync::Arc::new(files.clone()), options);
    let log = log.expect("open");
    files.hold_syncs(true);
    let (done, first) = acknowledgement();
    log.append(support::records(0, 1, 30), done).expect("append");
    files.wait_for_held_sync();
    let (done, second) = acknowledgement();
    log.append(support::records(1, 5, 30), done).expect("append");
    files.pass_one_sync();
    answer(&first).expect("append");
    files.wait_for_held_sync();
    let (cached, found) = (log.stats().cached_records, log.read(0, 6, usize::MAX));
    files.hold_syncs(false);
    assert_eq!(cached, 5, "the first is written and gone, the others stay");
    assert_eq!(found.expect("read"), support::records(0, 6, 30));
    answer(&second).expect("append");
    support::append(&log, Vec::new()).expect("an empty append waits for all before it");
    assert_eq!(log.stats().cached_records, 0);
    assert_eq!(log.read(0, 6, usize::MAX).expect("read"), support::records(0, 6, 30));
}

#[test]
fn only_whole_synced_pages_are_released_and_all_of_a_full_segment() {
    let files = focused();
    let options = Options { cache_bytes: 0, segment_bytes: 1 << 20, ..support::options() };
    let log = Log::open(&support::dir(), std::sync::Arc::new(files.clone()), options);
    let log = log.expect("open");
    // Segments of 16 KiB, 32 KiB and so on: some end before a release is worth its call.
    for turn in 0..20 {
        support::append(&log, support::records(turn * 50, 50, 3000)).expect("append");
    }
    let expected = support::records(0, 1000, 3000);
    assert!(log.read(0, 1000, usize::MAX).expect("read") == expected, "what was released reads");
    let stats = log.stats();
    let released = files.counts().bytes_released;
    assert_eq!(released % 4096, 0);
    // What stays: less than a page of each full segment, and up to a release of the present one.
    let kept_max = (stats.segments as u64 - 1) * 2 * 4096 + (256 << 10) + 150_000;
    assert!(released <= stats.bytes_on_disk);
    assert!(released + kept_max >= stats.bytes_on_disk, "{released} of {stats:?}");
}
