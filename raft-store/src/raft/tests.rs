//! The consensus library's own suite on our log and state.

use std::sync::Arc;
use std::time::Duration;

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use scheduler_core::event::Event;
use scheduler_core::state::State;
use tempfile::TempDir;

use super::live::{Live, Point};
use super::log_store::{Durable, LogStore};
use super::machine::Machine;
use super::types::{StoredMembership, Types};
use crate::files::{Disk, Files};
use crate::log::{self, Log};
use crate::mirror::{self, Mirror};
use crate::quorum::Observer;
use crate::snapshot;

const CLUSTER: u64 = 7;
const CACHE_BYTES: u64 = 4 * 1024 * 1024;

struct Nobody;

impl Observer for Nobody {
    fn applied(&self, _index: u64, _events: &[Event]) {}
}

struct Builder;

impl StoreBuilder<Types, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError<Types>> {
        let dir = tempfile::tempdir().expect("tempdir");
        let files: Arc<dyn Files> = Arc::new(Disk);
        let options = log::Options {
            segment_bytes: 64 * 1024,
            segment_bytes_first: 64 * 1024,
            ..log::Options::default()
        };
        let log_dir = dir.path().join("log");
        let log = Log::open(&log_dir, files.clone(), options).expect("log opens");
        let snapshots = snapshot::Store::open(&dir.path().join("snapshots"), files, CLUSTER);
        let (copy, _) =
            mirror::open(&dir.path().join("state"), CLUSTER, CACHE_BYTES).expect("copy opens");
        let membership = StoredMembership::default();
        let point = Point { state: State::new(), applied: None, membership };
        let live = Arc::new(Live::new(point, false, Durable::default(), Arc::new(Nobody)));
        let interval = Duration::from_millis(10);
        let mirror = Mirror::start(copy, live.clone(), interval, CACHE_BYTES).expect("starts");
        let (alive, _) = tokio::sync::mpsc::channel(1);
        let snapshots = Arc::new(snapshots.expect("snapshots open"));
        let machine = Machine::new(live, snapshots, Arc::new(mirror), alive.clone());
        Ok((dir, LogStore::new(log, Durable::default(), alive), machine))
    }
}

#[test]
fn conformance() {
    Types::run(async { Suite::test_all(Builder).await.expect("the suite passes") });
}
