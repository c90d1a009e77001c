//! Snapshot files under damage, crashes and broken transfers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use scheduler_core::command::{Actor, Command, Entry, PutTenant, Quota};
use scheduler_core::id::{Name, TenantId};
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;

use super::store::Store;
use super::*;
use crate::codec::record::StoredMembershipBytes;
use crate::codec::snapshot::Head;
use crate::error::StoreError;
use crate::files::{Disk, Files};
use crate::log::LogPosition;

const CLUSTER: u64 = 7;

/// A state with as many tenants.
fn state(tenants: u64) -> State {
    let mut state = State::new();
    for number in 1..=tenants {
        let tenant = TenantId(Name::parse(&format!("tenant-{number}")).expect("a name"));
        let command = Command::PutTenant(PutTenant { tenant, quota: Quota::default() });
        let entry = Entry { at: TimeMs(number), by: Actor::Operator, command };
        state.apply(number, &entry).result.expect("accepted");
    }
    state
}

fn head(index: u64) -> Head {
    let last = Some(LogPosition { term: 1, leader: 1, index });
    Head { cluster: CLUSTER, last, membership: StoredMembershipBytes::default() }
}

fn open(dir: &Path) -> Store {
    let files: Arc<dyn Files> = Arc::new(Disk);
    Store::open(dir, files, CLUSTER).expect("opens")
}

fn names(dir: &Path) -> Vec<String> {
    Disk.list(dir).expect("lists").into_iter().map(|file| file.name).collect()
}

fn built(tenants: u64) -> (tempfile::TempDir, PathBuf, State) {
    let dir = tempfile::tempdir().expect("tempdir");
    let state = state(tenants);
    let snapshot = open(dir.path()).build(&state.freeze(), head(tenants)).expect("builds");
    let path = snapshot.path.clone();
    (dir, path, state)
}

#[test]
fn what_is_built_is_found_again_and_makes_the_same_state() {
    let (dir, _, state) = built(500);
    let store = open(dir.path());
    let snapshot = store.current().expect("found");
    assert_eq!(snapshot.head, head(500));
    let loaded = snapshot.load().expect("loads");
    assert_eq!(loaded.hash(), state.hash());
    assert!(loaded.check().is_empty());
}

#[test]
fn two_are_kept_and_the_log_from_the_older_one_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open(dir.path());
    for index in [10, 20, 30] {
        store.build(&state(index).freeze(), head(index)).expect("builds");
        let wanted = (index > 10).then(|| index - 10);
        assert_eq!(store.purgeable_index(), wanted);
    }
    assert_eq!(names(dir.path()), ["snap-00000000000000000020", "snap-00000000000000000030"]);
    let indexes: Vec<_> =
        open(dir.path()).newest_first().iter().map(|s| s.head.last.map(|at| at.index)).collect();
    assert_eq!(indexes, [Some(30), Some(20)]);
}

#[test]
fn each_flipped_bit_and_each_cut_is_found() {
    let (dir, path, state) = built(3);
    let whole = std::fs::read(&path).expect("reads");
    let damaged = dir.path().join("damaged");
    let check = |bytes: &[u8], what: String| {
        std::fs::write(&damaged, bytes).expect("writes");
        let file = Disk.open_read(&damaged).expect("opens");
        let found = SnapshotFile::open(&damaged, file).and_then(|snapshot| snapshot.load());
        assert!(found.is_err(), "{what} was not found");
    };
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        check(&bytes, format!("bit {bit}"));
    }
    for length in 0..whole.len() {
        check(&whole[..length], format!("a cut at {length}"));
    }
    let mut longer = whole.clone();
    longer.push(0);
    check(&longer, "a byte too many".to_owned());
    let file = Disk.open_read(&path).expect("opens");
    let loaded = SnapshotFile::open(&path, file).and_then(|snapshot| snapshot.load());
    assert_eq!(loaded.expect("the whole one loads").hash(), state.hash());
}

#[test]
fn a_damaged_newest_one_is_moved_aside_and_the_older_one_used() {
    let dir = tempfile::tempdir().expect("tempdir");
    let store = open(dir.path());
    store.build(&state(10).freeze(), head(10)).expect("builds");
    let newest = store.build(&state(20).freeze(), head(20)).expect("builds").path;
    let mut bytes = std::fs::read(&newest).expect("reads");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).expect("writes");
    let store = open(dir.path());
    let found = store.current().expect("the older one").load().expect("loads");
    assert_eq!(found.hash(), state(10).hash());
    let wanted = ["snap-00000000000000000010", "snap-00000000000000000020.bad"];
    assert_eq!(names(dir.path()), wanted);
}

#[test]
fn a_transfer_is_whole_or_leaves_nothing() {
    let (_source, path, state) = built(100);
    let bytes = std::fs::read(&path).expect("reads");
    let dir = tempfile::tempdir().expect("tempdir");
    let store = Arc::new(open(dir.path()));

    let mut broken = store.receive(bytes.len() as u64).expect("begins");
    broken.write(&bytes[..bytes.len() / 2]).expect("writes");
    assert_eq!(names(dir.path()).len(), 1);
    drop(broken);
    assert_eq!(names(dir.path()), [""; 0]);

    let mut short = store.receive(bytes.len() as u64).expect("begins");
    short.write(&bytes[..bytes.len() - 1]).expect("writes");
    assert!(short.finish().is_err());
    let mut long = store.receive(bytes.len() as u64 - 1).expect("begins");
    assert!(long.write(&bytes).is_err());
    drop(long);
    assert_eq!(names(dir.path()), [""; 0]);

    let mut whole = store.receive(bytes.len() as u64).expect("begins");
    for piece in bytes.chunks(1000) {
        whole.write(piece).expect("writes");
    }
    let received = whole.finish().expect("verified");
    let installed = store.install(received).expect("installed");
    assert_eq!(installed.load().expect("loads").hash(), state.hash());
    assert_eq!(names(dir.path()), ["snap-00000000000000000100"]);
}

#[test]
fn another_clusters_snapshot_is_refused() {
    let (dir, ..) = built(3);
    let files: Arc<dyn Files> = Arc::new(Disk);
    let refused = Store::open(dir.path(), files, CLUSTER + 1).expect_err("foreign");
    assert!(matches!(refused, StoreError::Foreign { .. }), "{refused}");
}

#[test]
fn what_a_crash_left_behind_is_removed() {
    let (dir, ..) = built(3);
    std::fs::write(dir.path().join("snap-0.tmp"), b"half").expect("writes");
    assert!(open(dir.path()).current().is_some());
    assert_eq!(names(dir.path()), ["snap-00000000000000000003"]);
}
