//! What an agent remembers survives restarts, and what is damaged is refused.

use super::*;
use proptest::prelude::*;
use std::os::unix::fs::PermissionsExt;

fn mark(epoch: u32, index: u64) -> Mark {
    Mark { epoch, index }
}

fn refused(directory: &Path) -> String {
    Identity::open(directory).expect_err("opened all the same").to_string()
}

/// A directory in which an agent has lived up to epoch 3, index 70.
async fn lived_in() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    Identity::open(directory.path()).unwrap().advance(mark(3, 70)).await.unwrap();
    directory
}

#[tokio::test]
async fn key_and_mark_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("not/yet/there");
    let mut first = Identity::open(&home).unwrap();
    assert_eq!(first.seen(), Mark::default());
    first.advance(mark(2, 9)).await.unwrap();
    let key = first.key().clone();
    drop(first);
    let again = Identity::open(&home).unwrap();
    assert_eq!(again.key(), &key);
    assert_eq!(again.seen(), mark(2, 9));
    let mode = fs::metadata(home.join(KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn older_marks_are_refused_and_change_nothing() {
    let directory = lived_in().await;
    let mut identity = Identity::open(directory.path()).unwrap();
    for older in [mark(3, 69), mark(2, 1000), mark(0, 0)] {
        let stale = identity.check(older).unwrap_err();
        assert_eq!(stale, Stale { offered: older, seen: mark(3, 70) });
        identity.advance(older).await.unwrap();
        assert_eq!(identity.seen(), mark(3, 70));
    }
    for newer in [mark(3, 70), mark(3, 71), mark(4, 0)] {
        assert_eq!(identity.check(newer), Ok(()));
    }
}

#[test]
fn one_agent_per_directory() {
    let directory = tempfile::tempdir().unwrap();
    let held = Identity::open(directory.path()).unwrap();
    assert!(refused(directory.path()).contains("in use by another agent"));
    drop(held);
    Identity::open(directory.path()).unwrap();
}

#[tokio::test]
async fn damage_is_named_and_never_guessed_away() {
    let directory = lived_in().await;
    let fence = directory.path().join(FENCE_FILE);
    let good = fs::read(&fence).unwrap();
    for (bad, what) in [
        (&b""[..], "does not begin"),
        (&good[..good.len() - 1], "checksum"),
        (&[&good[..], b"x"].concat(), "checksum"),
        (b"\xff\xfe", "not text"),
        (b"muster agent fence 1\nepoch x\nindex 1\n", "cannot be read"),
    ] {
        fs::write(&fence, bad).unwrap();
        let error = refused(directory.path());
        assert!(error.contains("fence is damaged") && error.contains(what), "{error}");
    }
    fs::write(&fence, &good).unwrap();
    let key = directory.path().join(KEY_FILE);
    let good = fs::read(&key).unwrap();
    fs::write(&key, &good[..31]).unwrap();
    assert!(refused(directory.path()).contains("node_key is damaged: 31 bytes"));
    fs::write(&key, [&good[..], b"x"].concat()).unwrap();
    assert!(refused(directory.path()).contains("node_key is damaged: 33 bytes"));
    fs::remove_file(&key).unwrap();
    assert!(refused(directory.path()).contains("has joined before"));
    fs::write(&key, &good).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refused(directory.path()).contains("mode 0640"));
}

#[tokio::test]
async fn a_write_that_was_cut_off_leaves_the_old_mark() {
    let directory = lived_in().await;
    fs::write(directory.path().join("fence.new"), b"muster agent fe").unwrap();
    let mut identity = Identity::open(directory.path()).unwrap();
    assert_eq!(identity.seen(), mark(3, 70));
    identity.advance(mark(3, 71)).await.unwrap();
    drop(identity);
    assert_eq!(Identity::open(directory.path()).unwrap().seen(), mark(3, 71));
}

#[tokio::test]
async fn what_cannot_be_written_is_not_taken_as_seen() {
    let directory = lived_in().await;
    let mut identity = Identity::open(directory.path()).unwrap();
    fs::create_dir(directory.path().join("fence.new")).unwrap();
    let error = identity.advance(mark(9, 9)).await.unwrap_err();
    assert!(error.to_string().starts_with("cannot write"), "{error}");
    assert_eq!(identity.seen(), mark(3, 70));
}

#[test]
fn the_format_is_fixed() {
    let golden = "muster agent fence 1\nepoch 7\nindex 12345\ncrc32c a725fcf7\n";
    assert_eq!(encode_fence(mark(7, 12345)), golden);
}

proptest! {
    #[test]
    fn marks_round_trip(epoch: u32, index: u64) {
        let text = encode_fence(mark(epoch, index));
        prop_assert_eq!(decode_fence(text.as_bytes()), Ok(mark(epoch, index)));
    }

    #[test]
    fn any_flipped_bit_is_noticed(epoch: u32, index: u64, at: prop::sample::Index, bit in 0u8..8) {
        let mut bytes = encode_fence(mark(epoch, index)).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode_fence(&bytes).is_err());
    }

    #[test]
    fn the_mark_never_goes_back(offers in prop::collection::vec((0u32..4, 0u64..4), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut identity = Identity::in_memory(NodeKey::random().unwrap());
        let mut highest = Mark::default();
        for (epoch, index) in offers {
            let offered = mark(epoch, index);
            prop_assert_eq!(identity.check(offered).is_ok(), offered >= highest);
            runtime.block_on(identity.advance(offered)).unwrap();
            highest = highest.max(offered);
            prop_assert_eq!(identity.seen(), highest);
        }
    }
}
