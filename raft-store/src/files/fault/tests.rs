//! The fault layer itself must lose and keep exactly what it says.

use super::*;

fn disk() -> (FaultFiles, PathBuf) {
    let files = FaultFiles::new();
    let dir = PathBuf::from("/data");
    files.create_dir_all(&dir).expect("create the directory");
    (files, dir)
}

#[test]
fn an_unsynced_write_is_lost_and_a_synced_one_is_kept() {
    let (files, dir) = disk();
    let path = dir.join("a");
    let file = files.create(&path).expect("create");
    file.write_all_at(b"one", 0).expect("write");
    file.sync_data().expect("sync");
    files.sync_dir(&dir).expect("sync the directory");
    file.write_all_at(b"two", 3).expect("write");
    files.crash(Loss::Unsynced);
    assert_eq!(files.read(&path).expect("read"), b"one");
    assert!(file.write_all_at(b"late", 0).is_err(), "a handle outlived the machine");
}

#[test]
fn a_name_is_lost_without_a_directory_sync() {
    let (files, dir) = disk();
    let file = files.create(&dir.join("a")).expect("create");
    file.write_all_at(b"one", 0).expect("write");
    file.sync_data().expect("sync");
    files.crash(Loss::Unsynced);
    assert_eq!(files.list(&dir).expect("list"), vec![]);
}

#[test]
fn a_killed_process_loses_nothing() {
    let (files, dir) = disk();
    let path = dir.join("a");
    files.create(&path).expect("create").write_all_at(b"one", 0).expect("write");
    files.crash(Loss::Process);
    assert_eq!(files.read(&path).expect("read"), b"one");
}

#[test]
fn replace_leaves_the_old_or_the_new_content_at_every_crash() {
    for stop in 0..8 {
        let (files, dir) = disk();
        let path = dir.join("a");
        files.replace(&path, b"old").expect("first content");
        files.stop_after(stop);
        let done = files.replace(&path, b"newer").is_ok();
        files.crash(Loss::Torn { seed: stop });
        let found = files.read(&path).expect("read");
        assert!(found == b"newer" || (!done && found == b"old"), "stop {stop}: {found:?}");
    }
}

#[test]
fn a_full_disk_and_planned_failures_answer_once() {
    let (files, dir) = disk();
    let file = files.create(&dir.join("a")).expect("create");
    files.set_room(Some(4));
    let full = file.write_all_at(b"12345", 0).expect_err("no room");
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    files.set_room(None);
    files.fail(Op::Sync, 1, io::ErrorKind::TimedOut);
    assert!(file.sync_data().is_ok());
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok());
}
