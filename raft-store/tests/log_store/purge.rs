//! Purging: whole segments go, and a crash between any two steps leaves a log that opens.

use raft_store::files::fault::{FaultFiles, Loss};
use raft_store::log::check;

use super::support::{self, Model};

/// An open log's disk with 100 entries in several segments.
fn disk() -> FaultFiles {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    support::save_vote(&log, b"me").expect("vote");
    for index in 0..100 {
        support::append(&log, support::records(index, 1, 900)).expect("append");
    }
    log.save_committed(Some(support::at(90))).expect("committed");
    files
}

#[test]
fn whole_segments_are_deleted_and_the_rest_stays() {
    let files = disk();
    let log = support::open(&files).expect("open");
    let before = log.stats();
    assert_eq!(before.segments, support::segments(&files).len());
    support::purge(&log, 60).expect("purge");
    let after = log.stats();
    assert_eq!(after.segments, support::segments(&files).len());
    assert!(after.segments <= before.segments - 3, "{before:?} {after:?}");
    assert!(after.bytes_on_disk < before.bytes_on_disk);
    assert_eq!(log.read(0, 200, usize::MAX).expect("read"), support::records(61, 39, 900));
    support::purge(&log, 99).expect("purge");
    assert_eq!(support::segments(&files).len(), 1, "only the active one");
    assert_eq!(log.last(), Some(support::at(99)));
    drop(log);
    let log = support::open(&files).expect("open");
    assert_eq!((log.last(), log.last_purged()), (Some(support::at(99)), Some(support::at(99))));
    assert_eq!(log.vote().as_deref(), Some(&b"me"[..]), "the vote outlives its segment");
    assert_eq!(log.committed(), Some(support::at(90)));
    support::append(&log, support::records(100, 1, 900)).expect("goes on");
}

#[test]
fn a_crash_between_any_two_steps_leaves_a_log_that_opens() {
    let original = disk();
    for loss in [Loss::Process, Loss::Unsynced, Loss::Torn { seed: 5 }, Loss::Torn { seed: 6 }] {
        let mut finished = false;
        for stop in 0..60 {
            let files = original.fork();
            let log = support::open(&files).expect("open");
            let before = Model::of(&log).expect("read");
            let mut after = before.clone();
            after.purge(support::at(70));
            files.stop_after(stop);
            finished = support::purge(&log, 70).is_ok();
            files.crash(loss);
            drop(log);
            let report = check(&support::dir(), &files).expect("check");
            assert!(report.is_usable(), "{loss:?} after {stop}: {:?}", report.faults);
            let log = support::open(&files).expect("open");
            let found = Model::of(&log).expect("read");
            assert!(found == after || (!finished && found == before), "{loss:?} after {stop}");
            support::purge(&log, 71).expect("the purge again");
            assert!(support::segments(&files).len() <= 3, "segments were left behind");
            if finished {
                break;
            }
        }
        assert!(finished, "sixty steps were not enough");
    }
}

#[test]
fn a_purge_behind_the_end_empties_the_log_and_the_next_entry_follows_it() {
    let files = disk();
    let log = support::open(&files).expect("open");
    support::purge(&log, 5000).expect("purge");
    assert_eq!(log.last(), Some(support::at(5000)));
    assert!(support::append(&log, support::records(100, 1, 10)).is_err());
    support::append(&log, support::records(5001, 2, 10)).expect("append");
    let model = Model::of(&log).expect("read");
    assert_eq!(model.entries.len(), 2);
    drop(log);
    model.assert_is(&support::open(&files).expect("open"));
}

#[test]
fn a_segment_whose_entries_were_overwritten_may_go_when_the_new_ones_stay() {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    for index in 0..60 {
        support::append(&log, support::records(index, 1, 900)).expect("append");
    }
    support::truncate(&log, Some(9)).expect("truncate");
    for index in 10..30 {
        support::append(&log, vec![support::record(index, 1, 900)]).expect("append");
    }
    support::purge(&log, 12).expect("purge");
    let model = Model::of(&log).expect("read");
    drop(log);
    let log = support::open(&files).expect("open: what is missing was truncated or purged");
    model.assert_is(&log);
    assert!(support::segments(&files).len() <= 3);
}
