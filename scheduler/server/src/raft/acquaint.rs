//! Which server is which: a server that lost its data must not come back under its old number.
//!
//! Every data directory has a random incarnation, made once. Servers show it with every message
//! and answer, and remember durably which incarnation they first met under each number. A wiped
//! server has another one: nobody counts its votes or acknowledgements, and it is told why.
//! **Invariant:** what is remembered is never forgotten or overwritten; it is on disk before the
//! message it came with is acted on.

use crate::applied::lock;
use raft_store::StoreError;
use raft_store::error::Repair;
use raft_store::files::{Disk, Files as _};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The own incarnation, 32 hex digits.
const OWN_FILE: &str = "incarnation";
/// The others', one per line: number, space, 32 hex digits.
const OTHERS_FILE: &str = "acquaintances";

/// Random number of one data directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Incarnation(u128);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl Incarnation {
    /// Reads what `Display` wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        plain.then(|| u128::from_str_radix(text, 16).ok().map(Self))?
    }
}

/// Another data directory than before shows up under a server's number.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Stranger {
    #[error(
        "server {0} is known with other data, which it has lost: start it under a new id with an \
         empty directory and add it as a learner"
    )]
    Wiped(u64),
    #[error("cannot remember server {server}: {why}")]
    Disk { server: u64, why: String },
}

/// The own incarnation and the ones met.
pub(crate) struct Acquaintances {
    own: Incarnation,
    is_new: bool,
    path: PathBuf,
    met: Mutex<BTreeMap<u64, Incarnation>>,
}

impl Acquaintances {
    /// Reads both files, and makes the own incarnation in a new directory.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let failed = |what, path: &Path| {
            let path = path.to_path_buf();
            move |error| StoreError::io(what, &path, error)
        };
        Disk.create_dir_all(data_dir).map_err(failed("create", data_dir))?;
        let own_path = data_dir.join(OWN_FILE);
        let (own, is_new) = match read(&own_path)? {
            Some(text) => {
                let own = Incarnation::parse(text.trim_end());
                (own.ok_or_else(|| damaged(&own_path))?, false)
            }
            None => {
                let own = Incarnation(uuid::Uuid::new_v4().as_u128());
                Disk.replace(&own_path, own.to_string().as_bytes())
                    .map_err(failed("write", &own_path))?;
                (own, true)
            }
        };
        let path = data_dir.join(OTHERS_FILE);
        let met = read(&path)?.map_or(Some(BTreeMap::new()), |text| parse_met(&text));
        let met = met.ok_or_else(|| damaged(&path))?;
        Ok(Self { own, is_new, path, met: Mutex::new(met) })
    }

    /// The own incarnation.
    pub(crate) fn own(&self) -> Incarnation {
        self.own
    }

    /// Whether the data directory was new when it was opened.
    pub(crate) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether this is the incarnation known under the number, if one is.
    pub(crate) fn check(&self, server: u64, shown: Incarnation) -> Result<(), Stranger> {
        match lock(&self.met).get(&server) {
            Some(known) if *known != shown => Err(Stranger::Wiped(server)),
            _ => Ok(()),
        }
    }

    /// As [`Acquaintances::check`]; a first meeting is remembered, durably before it returns.
    pub(crate) fn meet(&self, server: u64, shown: Incarnation) -> Result<(), Stranger> {
        let mut met = lock(&self.met);
        match met.get(&server) {
            Some(known) if *known == shown => return Ok(()),
            Some(_) => return Err(Stranger::Wiped(server)),
            None => {}
        }
        // Once per server and life of the directory, so the write under the lock is no matter.
        met.insert(server, shown);
        let text: String = met.iter().map(|(id, one)| format!("{id} {one}\n")).collect();
        Disk.replace(&self.path, text.as_bytes()).map_err(|error| {
            met.remove(&server);
            Stranger::Disk { server, why: error.to_string() }
        })
    }
}

fn read(path: &Path) -> Result<Option<String>, StoreError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read", path, error)),
    }
}

fn damaged(path: &Path) -> StoreError {
    StoreError::corrupt(path, 0, "cannot be read as it was written", Repair::Rejoin)
}

fn parse_met(text: &str) -> Option<BTreeMap<u64, Incarnation>> {
    let line = |line: &str| {
        let (id, shown) = line.split_once(' ')?;
        Some((id.parse().ok()?, Incarnation::parse(shown)?))
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_belongs_to_the_first_who_showed_it_also_after_a_restart() {
        let dir = tempfile::tempdir().expect("a dir");
        let (first, second) = (Incarnation(1), Incarnation(2));
        let known = Acquaintances::open(dir.path()).expect("opens");
        assert!(known.is_new());
        assert_eq!(known.check(7, second), Ok(()), "a look is not a meeting");
        assert_eq!(known.meet(7, first), Ok(()));
        let own = known.own();
        drop(known);
        let known = Acquaintances::open(dir.path()).expect("opens");
        assert!(!known.is_new());
        assert_eq!(known.own(), own);
        assert_eq!(known.meet(7, first), Ok(()));
        assert_eq!(known.meet(7, second), Err(Stranger::Wiped(7)));
        assert_eq!(known.check(7, second), Err(Stranger::Wiped(7)));
        assert_eq!(known.meet(8, second), Ok(()));
    }

    #[test]
    fn damaged_files_are_refused() {
        let dir = tempfile::tempdir().expect("a dir");
        Acquaintances::open(dir.path()).expect("opens").meet(1, Incarnation(5)).expect("met");
        for (file, text) in [(OTHERS_FILE, "1 zz\n"), (OTHERS_FILE, "1"), (OWN_FILE, "12")] {
            let path = dir.path().join(file);
            let before = std::fs::read(&path).expect("is there");
            std::fs::write(&path, text).expect("is written");
            assert!(Acquaintances::open(dir.path()).is_err(), "{file} {text}");
            std::fs::write(&path, before).expect("is written");
        }
        assert!(Acquaintances::open(dir.path()).is_ok());
    }

    #[test]
    fn incarnations_are_read_as_written_and_strictly() {
        let one = Incarnation(0xabc);
        assert_eq!(Incarnation::parse(&one.to_string()), Some(one));
        for bad in ["", "abc", "+0000000000000000000000000000abc", &"f".repeat(33)] {
            assert_eq!(Incarnation::parse(bad), None, "{bad}");
        }
    }
}
