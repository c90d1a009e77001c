//! Bits flip and bytes change at rest: noticed, or provably without effect.

use raft_store::error::{Repair, StoreError};
use raft_store::files::fault::{FaultFiles, Loss};
use raft_store::log::{Log, check};

use super::support::{self, Model};

/// A log of some segments, closed in order, and what it holds.
fn closed_log(entries: u64, bytes: usize) -> (FaultFiles, Model) {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    fill(&log, entries, bytes);
    let model = Model::of(&log).expect("read");
    drop(log);
    (files, model)
}

fn fill(log: &Log, entries: u64, bytes: usize) {
    support::save_vote(log, b"first").expect("vote");
    for index in 0..entries {
        support::append(log, support::records(index, 1, bytes)).expect("append");
    }
    support::truncate(log, Some(entries - 3)).expect("truncate");
    support::append(log, support::records(entries - 2, 2, bytes)).expect("append");
    support::save_vote(log, b"second").expect("vote");
    log.save_committed(Some(support::at(1))).expect("committed");
    support::purge(log, 0).expect("purge");
}

/// Every byte that is not zero and some of the zeroes behind, with one bit each.
fn flips(content: &[u8]) -> impl Iterator<Item = (u64, u8)> {
    let end = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let zeroes = (end..content.len()).step_by(131);
    (0..end).chain(zeroes).map(|byte| (byte as u64, (byte % 8).to_le_bytes()[0]))
}

#[test]
fn a_flipped_bit_in_a_closed_log_is_noticed_or_harmless() {
    for (entries, bytes) in [(6, 40), (40, 900)] {
        let (files, model) = closed_log(entries, bytes);
        let (mut noticed, mut harmless) = (0, 0);
        for path in support::segments(&files) {
            for (byte, bit) in flips(&support::content(&files, &path)) {
                files.flip_bit(&path, byte, bit);
                let usable = check(&support::dir(), &files).is_ok_and(|report| report.is_usable());
                if usable {
                    let log = support::open(&files.fork()).expect("check said it opens");
                    model.assert_is(&log);
                    harmless += 1;
                } else {
                    noticed += 1;
                }
                files.flip_bit(&path, byte, bit);
            }
        }
        // Harmless are the zeroes behind the records and the mark of the orderly end (40 bytes
        // of the last segment; a seal's flips are noticed).
        assert!(noticed > 10 * harmless / 8, "{noticed} noticed, {harmless} harmless");
    }
}

#[test]
fn a_flipped_bit_in_a_log_that_was_not_closed_costs_at_most_the_last_write() {
    let files = FaultFiles::new();
    let log = support::open(&files).expect("open");
    fill(&log, 6, 40);
    let model = Model::of(&log).expect("read");
    files.crash(Loss::Process);
    drop(log);
    let path = support::segments(&files).remove(0);
    for (byte, bit) in flips(&support::content(&files, &path)) {
        let disk = files.fork();
        disk.flip_bit(&path, byte, bit);
        match support::open(&disk) {
            Err(StoreError::Corrupt { fault, .. }) => assert_eq!(fault.repair, Repair::Rejoin),
            Err(other) => panic!("byte {byte}: {other}"),
            Ok(log) => {
                let mut found = Model::of(&log).expect("read");
                // The last write brought the purge and nothing else.
                found.purge(support::at(0));
                found.committed = model.committed;
                assert_eq!(found, model, "byte {byte}");
            }
        }
    }
}

#[test]
fn a_damaged_record_before_a_synced_one_is_refused_with_its_place() {
    let (files, _) = closed_log(6, 40);
    let path = support::segments(&files).remove(0);
    let content = support::content(&files, &path);
    let raw: Vec<_> = raft_store::log::dump(&support::dir(), std::sync::Arc::new(files.clone()))
        .expect("dump")
        .collect::<Result<_, _>>()
        .expect("an intact log");
    assert_eq!(
        raw.iter().map(|record| record.item.name()).collect::<Vec<_>>(),
        [
            "carry",
            "vote",
            "entry",
            "entry",
            "entry",
            "entry",
            "entry",
            "entry",
            "truncated",
            "entry",
            "entry",
            "vote",
            "committed",
            "purged",
            "closed",
        ]
    );
    let victim = &raw[4];
    files.flip_bit(&path, victim.offset + 44, 1);
    let error = support::open(&files).expect_err("damage").to_string();
    let place = format!("{}: byte {}: the record is damaged", path.display(), victim.offset);
    assert!(error.starts_with(&place), "{error}");
    assert!(error.ends_with("wipe this server's directory and re-add it as a new learner"));
    assert_eq!(support::content(&files, &path).len(), content.len(), "refused, yet changed");
    // The dump shows what is before the damage, and then the damage.
    let dumped = raft_store::log::dump(&support::dir(), std::sync::Arc::new(files.clone()));
    let dumped: Vec<_> = dumped.expect("dump").collect();
    assert_eq!(dumped.len(), 5);
    assert!(dumped[..4].iter().all(Result::is_ok) && dumped[4].is_err());
}

#[test]
fn a_damaged_header_and_another_version_are_told_apart() {
    let (files, _) = closed_log(40, 900);
    let path = support::segments(&files).remove(1);
    let intact = support::content(&files, &path);
    for byte in 0..64 {
        files.flip_bit(&path, byte, 5);
        let error = support::open(&files).expect_err("a damaged header");
        assert!(matches!(error, StoreError::Corrupt { .. }), "byte {byte}: {error}");
        files.flip_bit(&path, byte, 5);
    }
    let mut newer = intact;
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..60]);
    newer[60..64].copy_from_slice(&crc.to_le_bytes());
    files.overwrite(&path, &newer);
    let error = support::open(&files).expect_err("another version").to_string();
    assert!(error.contains("format version 9, this build reads only version 1"), "{error}");
}

#[test]
fn garbage_behind_the_end_is_cut_and_reported() {
    let (files, model) = closed_log(6, 40);
    let path = support::segments(&files).remove(0);
    let intact = support::content(&files, &path);
    let report = check(&support::dir(), &files).expect("check");
    let end = usize::try_from(report.bytes).expect("a small log");
    let mut inside = intact.clone();
    inside[end + 100..end + 300].fill(0xa5);
    let mut behind = intact.clone();
    behind.extend_from_slice(&[0x5a; 777]);
    let mut short = intact.clone();
    short.truncate(end);
    for (content, is_dirty) in [(inside, true), (behind, true), (short, false)] {
        files.overwrite(&path, &content);
        let report = check(&support::dir(), &files).expect("check");
        assert_eq!(report.faults.len(), usize::from(is_dirty));
        assert!(report.faults.iter().all(|fault| fault.repair == Repair::CutTail));
        let log = support::open(&files).expect("open");
        assert_eq!(log.stats().cut_bytes > 0, is_dirty);
        model.assert_is(&log);
        let next = model.next_index();
        support::append(&log, support::records(next, 3, 40)).expect("goes on");
        drop(log);
        assert_eq!(check(&support::dir(), &files).expect("check").faults, []);
    }
}

#[test]
fn a_vote_is_never_rolled_back_by_damage() {
    let (files, model) = closed_log(40, 900);
    assert_eq!(model.vote.as_deref(), Some(&b"second"[..]));
    for path in support::segments(&files) {
        for (byte, bit) in flips(&support::content(&files, &path)).step_by(7) {
            let disk = files.fork();
            disk.flip_bit(&path, byte, bit);
            if let Ok(log) = support::open(&disk) {
                assert_eq!(log.vote(), model.vote, "{} byte {byte}", path.display());
            }
        }
    }
}
