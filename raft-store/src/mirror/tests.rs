//! The copy under damage of every kind: it is right, or it is rebuilt.

use std::fs;
use std::path::Path;

use scheduler_core::command::{Actor, Command, Entry, PutTenant, Quota};
use scheduler_core::id::{Name, TenantId};
use scheduler_core::state::{RowKey, State};
use scheduler_core::unit::TimeMs;

use super::store::Loaded;
use super::*;
use crate::codec::record::StoredMembershipBytes;
use crate::log::LogPosition;

const CLUSTER: u64 = 7;
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

fn tenant(number: u64) -> TenantId {
    TenantId(Name::parse(&format!("tenant-{number}")).expect("a name"))
}

fn apply(state: &mut State, index: u64, command: Command) {
    let entry = Entry { at: TimeMs(index), by: Actor::Operator, command };
    state.apply(index, &entry).result.expect("accepted");
}

fn put(state: &mut State, number: u64) {
    let put = PutTenant { tenant: tenant(number), quota: Quota::default() };
    apply(state, number, Command::PutTenant(put));
}

fn view(state: &mut State, changes: Option<Changes>) -> View {
    let dirty = state.take_dirty();
    let applied = Some(LogPosition { term: 1, leader: 1, index: state.index() });
    let membership = StoredMembershipBytes::default();
    let changes = changes.unwrap_or(Changes::Rows(dirty));
    View { frozen: state.freeze(), changes, applied, membership }
}

/// A directory with the copy of a state of as many tenants.
fn copied(dir: &Path, tenants: u64) -> State {
    let mut state = State::new();
    let (mut store, loaded) = open(dir, CLUSTER, CACHE_BYTES).expect("opens");
    assert!(loaded.is_none());
    store.write(&view(&mut state, Some(Changes::All))).expect("writes");
    for number in 1..=tenants {
        put(&mut state, number);
    }
    store.write(&view(&mut state, None)).expect("writes");
    store.flush().expect("flushes");
    state
}

fn loaded(dir: &Path) -> Option<Loaded> {
    let (_, loaded) = open(dir, CLUSTER, CACHE_BYTES).expect("opens");
    loaded
}

fn aside(root: &Path) -> usize {
    let names = fs::read_dir(root).expect("lists").map(|entry| entry.expect("entry").file_name());
    names.filter(|name| name.to_string_lossy().contains(".bad-")).count()
}

#[test]
fn a_copy_is_found_again_with_its_position() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("state");
    let state = copied(&dir, 3000);
    let loaded = loaded(&dir).expect("right");
    assert_eq!(loaded.state.hash(), state.hash());
    assert_eq!(loaded.mark.applied.map(|at| at.index), Some(3000));
    assert_eq!(aside(root.path()), 0);
}

#[test]
fn removed_rows_are_gone_and_a_replaced_state_leaves_nothing_of_the_old_one() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("state");
    let mut state = copied(&dir, 20);
    {
        let (mut store, _) = open(&dir, CLUSTER, CACHE_BYTES).expect("opens");
        apply(&mut state, 21, Command::RemoveTenant { tenant: tenant(5) });
        store.write(&view(&mut state, None)).expect("writes");
        store.flush().expect("flushes");
    }
    assert_eq!(loaded(&dir).expect("right").state.hash(), state.hash());
    let mut other = State::new();
    put(&mut other, 99);
    {
        let (mut store, _) = open(&dir, CLUSTER, CACHE_BYTES).expect("opens");
        store.write(&view(&mut other, Some(Changes::All))).expect("writes");
        store.flush().expect("flushes");
    }
    assert_eq!(loaded(&dir).expect("right").state.hash(), other.hash());
}

#[test]
fn a_missing_or_older_row_is_found() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("state");
    copied(&dir, 20);
    // Exactly what sled does on some damage: a row is silently not there.
    let key = pieces::part_key(&pieces::row_key(&RowKey::Tenant(tenant(7))).expect("a key"), 0);
    let open_sled = || loop {
        if let Ok(db) = sled::open(&dir) {
            break db;
        }
        std::thread::yield_now();
    };
    let db = open_sled();
    assert!(db.remove(key).expect("removes").is_some());
    drop(db);
    assert!(loaded(&dir).is_none(), "a missing row");
    assert_eq!(aside(root.path()), 1);
}

#[test]
fn an_interrupted_copy_is_none() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("state");
    copied(&dir, 20);
    let db = loop {
        if let Ok(db) = sled::open(&dir) {
            break db;
        }
        std::thread::yield_now();
    };
    db.remove(pieces::MARK_KEY).expect("removes");
    drop(db);
    assert!(loaded(&dir).is_none());
    assert_eq!(aside(root.path()), 1);
}

#[test]
fn flipped_bits_and_cuts_never_give_a_wrong_state() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("state");
    let state = copied(&dir, 200);
    drop(loaded(&dir));
    let file = dir.join("db");
    let whole = fs::read(&file).expect("reads");
    let written = whole.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut harmless = 0;
    // Spread over all that was written; the step is odd so that every bit of a byte has its turn.
    let cases: Vec<usize> = (0..written * 8).step_by((written * 8 / 40) | 1).collect();
    for bit in &cases {
        let copy = root.path().join(format!("case-{bit}"));
        fs::create_dir(&copy).expect("mkdir");
        for entry in fs::read_dir(&dir).expect("lists") {
            let entry = entry.expect("entry");
            if entry.file_type().expect("type").is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name())).expect("copies");
            }
        }
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(copy.join("db"), &bytes).expect("writes");
        if let Some(found) = loaded(&copy) {
            assert_eq!(found.state.hash(), state.hash(), "bit {bit}");
            harmless += 1;
        }
    }
    assert!(harmless < cases.len(), "some damage must have been met");
}

#[test]
fn a_start_that_died_while_opening_is_not_tried_again() {
    let root = tempfile::tempdir().expect("tempdir");
    let dir = root.path().join("state");
    copied(&dir, 20);
    fs::write(root.path().join("state.opening"), b"").expect("writes");
    assert!(loaded(&dir).is_none());
    assert_eq!(aside(root.path()), 1);
}

#[test]
fn large_rows_are_cut_and_joined() {
    let mut joiner = pieces::Joiner::default();
    let mut state = State::new();
    for number in 1..=10 {
        put(&mut state, number);
    }
    for row in state.freeze().rows() {
        let cut = pieces::cut(&row.key(), &row).expect("cuts");
        let last = cut.values.len() - 1;
        for (part, value) in (0u16..).zip(&cut.values) {
            assert!(value.len() <= pieces::PIECE_BYTES + 6);
            let joined = joiner.push(&pieces::part_key(&cut.key, part), value).expect("joins");
            assert_eq!(joined.is_some(), usize::from(part) == last);
            if let Some(joined) = joined {
                assert_eq!((joined.key, joined.digest), (row.key(), cut.digest));
            }
        }
    }
    joiner.finish().expect("nothing is left");
}
