//! Segment files that are missing, cut short, doubled, foreign or old.

use std::path::PathBuf;
use std::sync::Arc;

use raft_store::error::{Repair, StoreError};
use raft_store::files::fault::FaultFiles;
use raft_store::log::{Log, Options, check};

use super::support::{self, Model};

/// A closed log of at least five segments.
fn log() -> (FaultFiles, Vec<PathBuf>, Model) {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    for index in 0..80 {
        support::append(&log, support::records(index, 1, 900)).expect("append");
    }
    let model = Model::of(&log).expect("read");
    drop(log);
    let segments = support::segments(&files);
    assert!(segments.len() >= 5);
    files.focus(".seg");
    (files, segments, model)
}

/// The log is refused with this text, `check` agrees, and nothing on disk has changed.
fn assert_refused(files: &FaultFiles, text: &str) {
    let changes = files.counts().bytes_written;
    let error = support::open(files).expect_err("damage");
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    assert!(error.to_string().contains(text), "{error}\nexpected: {text}");
    let report = check(&support::dir(), files).expect("check");
    assert!(!report.is_usable());
    assert!(report.faults.iter().any(|fault| fault.what.contains(text)), "{:?}", report.faults);
    assert!(report.faults.iter().any(|fault| fault.repair == Repair::Rejoin));
    assert_eq!(files.counts().bytes_written, changes, "refused, yet written");
}

#[test]
fn a_missing_segment_is_a_hole_wherever_it_is() {
    let (files, segments, _) = log();
    let last = segments.len() - 1;
    for (gone, text) in [
        (0, "are missing and were never purged"),
        (2, "segments 3 to 3 are missing, later ones are there"),
        (last, "is missing, the one before says it follows"),
    ] {
        let disk = files.fork();
        disk.delete(&segments[gone]);
        assert_refused(&disk, text);
    }
}

#[test]
fn a_purged_first_segment_may_be_missing() {
    let (files, segments, _) = log();
    let log = support::open(&files).expect("open");
    support::purge(&log, 20).expect("purge");
    let model = Model::of(&log).expect("read");
    drop(log);
    assert!(!support::segments(&files).contains(&segments[0]));
    model.assert_is(&support::open(&files).expect("open"));
}

#[test]
fn a_segment_cut_short_is_refused_at_every_length() {
    let (files, segments, _) = log();
    let whole = support::content(&files, &segments[1]);
    let end = whole.iter().rposition(|byte| *byte != 0).expect("records");
    for length in (0..=end).step_by(61) {
        let disk = files.fork();
        disk.overwrite(&segments[1], &whole[..length]);
        let error = support::open(&disk).expect_err("a segment cut short");
        assert!(matches!(error, StoreError::Corrupt { .. }), "{length}: {error}");
    }
}

#[test]
fn a_cut_last_segment_of_a_closed_log_loses_only_what_a_torn_write_could() {
    let (files, segments, model) = log();
    let path = &segments[segments.len() - 1];
    let whole = support::content(&files, path);
    let end = whole.iter().rposition(|byte| *byte != 0).expect("records") + 1;
    // A file cut in the middle of its records shows nothing behind the cut: it cannot be told
    // from a crash before those records. What is left must be right.
    for length in (200..end).step_by(97) {
        let disk = files.fork();
        disk.overwrite(path, &whole[..length]);
        let log = support::open(&disk).expect("open");
        let found = Model::of(&log).expect("read");
        for (index, record) in &found.entries {
            assert_eq!(model.entries.get(index), Some(record));
        }
    }
}

#[test]
fn a_doubled_segment_is_refused() {
    let (files, segments, _) = log();
    let copy = support::content(&files, &segments[1]);
    let next = format!("{:016x}-{:016x}.seg", segments.len() + 1, 80);
    let disk = files.fork();
    disk.overwrite(&support::dir().join(next), &copy);
    assert_refused(&disk, "the name says otherwise: a copy");
    let same = format!("{:016x}-{:016x}.seg", 2, 9999);
    let disk = files.fork();
    disk.overwrite(&support::dir().join(same), &copy);
    assert_refused(&disk, "a second segment with number 2");
    let disk = files.fork();
    disk.overwrite(&support::dir().join("copy of 2.seg"), &copy);
    assert_refused(&disk, "not the name of a segment of this log");
}

#[test]
fn a_segment_of_another_log_is_refused() {
    let (files, segments, _) = log();
    let other = FaultFiles::new();
    let options = Options { log_id: Some(8), ..support::options() };
    let log = Log::open(&support::dir(), Arc::new(other.clone()), options).expect("open");
    for index in 0..80 {
        support::append(&log, support::records(index, 1, 900)).expect("append");
    }
    drop(log);
    assert_eq!(support::segments(&other), segments);
    files.overwrite(&segments[2], &support::content(&other, &segments[2]));
    assert_refused(&files, "a segment of another log");
}

#[test]
fn a_new_log_draws_its_own_id() {
    let header = || {
        let files = FaultFiles::new();
        let options = Options { log_id: None, ..support::options() };
        drop(Log::open(&support::dir(), Arc::new(files.clone()), options).expect("open"));
        support::content(&files, &support::segments(&files)[0])[16..24].to_vec()
    };
    assert_ne!(header(), header());
}

#[test]
fn a_segment_restored_from_an_old_backup_is_refused() {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    support::append(&log, support::records(0, 5, 900)).expect("append");
    let path = support::segments(&files).remove(0);
    let backup = support::content(&files, &path);
    for index in 5..40 {
        support::append(&log, support::records(index, 1, 900)).expect("append");
    }
    drop(log);
    files.overwrite(&path, &backup);
    assert_refused(&files, "the records end before the place the next segment knows");
}

#[test]
fn leftovers_and_strange_files_are_no_part_of_the_log() {
    let (files, _, model) = log();
    files.overwrite(&support::dir().join("next.prepared"), &[7; 5000]);
    files.overwrite(&support::dir().join("notes.txt"), b"hello");
    let report = check(&support::dir(), &files).expect("check");
    assert_eq!(report.faults, []);
    assert_eq!(report.strays, [support::dir().join("notes.txt")]);
    let log = support::open(&files).expect("open");
    model.assert_is(&log);
    support::append(&log, support::records(80, 30, 900)).expect("goes on");
    drop(log);
    assert_eq!(check(&support::dir(), &files).expect("check").faults, []);
}

#[test]
fn an_empty_segment_file_is_damage() {
    let (files, segments, _) = log();
    files.overwrite(&segments[segments.len() - 1], &[]);
    assert_refused(&files, "the file is shorter than a segment header");
}

#[test]
fn a_segment_of_another_history_of_the_same_log_is_refused() {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    support::append(&log, support::records(0, 5, 900)).expect("append");
    drop(log);
    // Two servers started from one copied directory: same sizes, other content.
    let other = files.fork();
    for (disk, vote) in [(&files, b"to me "), (&other, b"to you")] {
        let log = support::open(disk).expect("open");
        for index in 5..60 {
            support::append(&log, support::records(index, 1, 900)).expect("append");
            support::save_vote(&log, vote).expect("vote");
        }
    }
    let segments = support::segments(&files);
    assert_eq!(support::segments(&other), segments);
    files.overwrite(&segments[1], &support::content(&other, &segments[1]));
    assert_refused(&files, "what the segment carries over is not how the one before it ended");
}
