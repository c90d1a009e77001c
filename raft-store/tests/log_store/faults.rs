//! The disk refuses: nothing is acknowledged afterwards, nothing acknowledged before is lost.

use std::io::ErrorKind;

use raft_store::files::fault::{FaultFiles, Loss, Op};
use raft_store::log::Log;

use super::support::{self, Model, acknowledgement, answer};

/// A log with ten acknowledged entries.
fn log() -> (FaultFiles, Log) {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    support::append(&log, support::records(0, 10, 300)).expect("append");
    files.focus(".seg");
    (files, log)
}

fn assert_stopped(log: &Log) {
    assert!(log.stats().stopped);
    let next = log.last().map_or(0, |last| last.index + 1);
    let error = support::append(log, support::records(next, 1, 10)).expect_err("append");
    assert!(error.to_string().contains("stopped for good after a failed write"), "{error}");
    assert!(support::save_vote(log, b"x").is_err());
    assert!(support::truncate(log, Some(0)).is_err());
    assert!(support::purge(log, 1).is_err());
    assert!(log.save_committed(Some(support::at(1))).is_err());
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_any_more() {
    let (files, log) = log();
    files.fail(Op::Sync, 0, ErrorKind::TimedOut);
    files.hold_syncs(true);
    let waiting: Vec<_> = (10..15)
        .map(|index| {
            let (done, receiver) = acknowledgement();
            log.append(support::records(index, 1, 10), done).expect("append");
            if index == 10 {
                files.wait_for_held_sync();
            }
            receiver
        })
        .collect();
    let writes = files.counts().writes;
    files.hold_syncs(false);
    for receiver in &waiting {
        let error = answer(receiver).expect_err("acknowledged behind a failed sync");
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }
    assert_stopped(&log);
    assert_eq!(files.counts().writes, writes, "written after a failed sync");
    drop(log);
    assert_eq!(files.counts().writes, writes, "written when closing after a failed sync");
    files.crash(Loss::Unsynced);
    let log = support::open(&files).expect("open");
    assert_eq!(log.last(), Some(support::at(9)));
}

#[test]
fn what_survived_a_failed_sync_in_memory_is_written_again_at_the_next_start() {
    let (files, log) = log();
    files.fail(Op::Sync, 0, ErrorKind::Other);
    support::append(&log, support::records(10, 2, 10)).expect_err("append");
    drop(log);
    // The process restarts on the same kernel, which still shows the bytes.
    files.crash(Loss::Process);
    let log = support::open(&files).expect("open");
    assert_eq!(log.last(), Some(support::at(11)));
    files.crash(Loss::Unsynced);
    drop(log);
    let log = support::open(&files).expect("open");
    assert_eq!(log.last(), Some(support::at(11)), "shown once, then lost");
}

#[test]
fn a_failed_write_stops_the_log_and_its_half_is_cut() {
    for kind in [ErrorKind::StorageFull, ErrorKind::Other] {
        let (files, log) = log();
        let before = Model::of(&log).expect("read");
        files.fail(Op::Write, 0, kind);
        let error = support::append(&log, support::records(10, 3, 500)).expect_err("append");
        assert_eq!(error.kind(), kind);
        assert_stopped(&log);
        drop(log);
        files.crash(Loss::Process);
        let log = support::open(&files).expect("open");
        assert!(log.stats().cut_bytes > 0, "half a write was there");
        let found = Model::of(&log).expect("read");
        assert!(found.entries.len() < 13);
        for (index, record) in &before.entries {
            assert_eq!(found.entries.get(index), Some(record));
        }
        support::append(&log, support::records(found.next_index(), 1, 10)).expect("goes on");
    }
}

#[test]
fn a_full_disk_stops_the_log_and_a_restart_with_room_goes_on() {
    let (files, log) = log();
    files.set_room(Some(40_000));
    let mut last = 9;
    let error = loop {
        match support::append(&log, support::records(last + 1, 1, 700)) {
            Ok(()) => last += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_stopped(&log);
    drop(log);
    let full = support::open(&files).map(|log| log.last());
    assert!(!matches!(full, Ok(at) if at < Some(support::at(last))), "{full:?}");
    files.set_room(None);
    let log = support::open(&files).expect("open");
    assert!(log.last() >= Some(support::at(last)), "an acknowledged entry is lost");
    let next = log.last().map_or(0, |last| last.index + 1);
    support::append(&log, support::records(next, 20, 700)).expect("goes on");
}

#[test]
fn a_new_segment_that_cannot_be_made_stops_the_log_without_loss() {
    for op in [Op::Create, Op::Rename, Op::SyncDir] {
        let (files, log) = log();
        files.focus("");
        // The preparing thread may meet the first failure of a creation; the writer then tries.
        for _ in 0..2 {
            files.fail(op, 0, ErrorKind::PermissionDenied);
        }
        let mut last = 9;
        let stopped = (0..60).any(|_| {
            let failed = support::append(&log, support::records(last + 1, 1, 900)).is_err();
            last += u64::from(!failed);
            failed
        });
        assert!(stopped || op == Op::Create, "{op:?}");
        drop(log);
        files.crash(Loss::Unsynced);
        let log = support::open(&files).expect("open");
        assert!(log.last() >= Some(support::at(last)), "{op:?}: an acknowledged entry is lost");
    }
}

#[test]
fn a_failed_read_is_an_error_and_not_wrong_content() {
    let (files, log) = log();
    support::append(&log, support::records(10, 20, 900)).expect("push the first out of memory");
    files.fail(Op::Read, 0, ErrorKind::Other);
    assert!(log.read(0, 5, usize::MAX).is_err());
    assert_eq!(log.read(0, 5, usize::MAX).expect("read"), support::records(0, 5, 300));
}

#[test]
fn damage_under_a_running_log_is_never_served() {
    let (files, log) = log();
    support::append(&log, support::records(10, 20, 900)).expect("push the first out of memory");
    let segment = support::segments(&files).remove(0);
    let mut noticed = 0;
    for byte in 64..3000 {
        files.flip_bit(&segment, byte, 3);
        match log.read(0, 10, usize::MAX) {
            Ok(found) => assert_eq!(found, support::records(0, 10, 300), "byte {byte}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidData);
                noticed += 1;
            }
        }
        files.flip_bit(&segment, byte, 3);
    }
    assert!(noticed > 2500, "only {noticed} flips were met");
}

#[test]
fn a_failed_delete_is_told_and_the_next_purge_makes_up_for_it() {
    let (files, log) = log();
    support::append(&log, support::records(10, 60, 900)).expect("append");
    let before = support::segments(&files).len();
    files.fail(Op::Remove, 0, ErrorKind::PermissionDenied);
    support::purge(&log, 30).expect_err("purge");
    assert_eq!(support::segments(&files).len(), before);
    assert_eq!(log.last_purged(), Some(support::at(30)));
    support::purge(&log, 31).expect("purge");
    assert!(support::segments(&files).len() < before);
    support::append(&log, support::records(70, 1, 10)).expect("goes on");
}
