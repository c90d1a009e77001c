//! Rows as a store sees them: packed, bounded, and refused when they do not make a state.

use scheduler_core::command::Command;
use scheduler_core::fixture::entry::{World, group, job_spec, node_spec, plan, submit};
use scheduler_core::id::{JobId, NodeId};
use scheduler_core::state::{
    Finding, JOBS_PER_ROW, REPLICAS_PER_ROW, RestoreError, Row, RowKey, State,
};

/// A job of one page, one of three, small ones around them, one of them over.
fn world() -> World {
    let mut world = World::with_nodes(40, 8);
    world.submit_placed("small", &[(0, 0xff)]);
    let places: Vec<(u32, u64)> = (0..200).map(|n| (1 + n / 8, 1 << (n % 8))).collect();
    world.submit_placed("page", &places);
    world.submit_waiting("pages", 600, 1);
    for number in 0..20 {
        world.submit_waiting(&format!("w{number}"), 8, 1);
    }
    world.done(Command::Cancel { job: JobId(5), reason: Default::default() });
    world
}

fn rows(world: &World) -> Vec<Row> {
    world.state.freeze().rows().collect()
}

fn error(rows: Vec<Row>) -> RestoreError {
    State::from_rows(rows.into_iter()).expect_err("must not restore")
}

#[test]
fn neighbours_share_rows() {
    let world = world();
    let keys: Vec<RowKey> = rows(&world).iter().map(Row::key).collect();
    let count = |wanted: fn(&RowKey) -> bool| keys.iter().filter(|key| wanted(key)).count();
    assert_eq!(count(|key| matches!(key, RowKey::Nodes(_))), 5);
    assert_eq!(count(|key| matches!(key, RowKey::Jobs(_))), 2);
    assert_eq!(count(|key| matches!(key, RowKey::Replicas(JobId(2), 0))), 1);
    assert_eq!(count(|key| matches!(key, RowKey::Replicas(JobId(3), 0..3))), 3);
    assert_eq!(count(|key| matches!(key, RowKey::Replicas(..))), 4);
    assert_eq!(keys.len(), 3 + 1 + 5 + 2 + 4);
    for row in rows(&world) {
        assert_eq!(world.state.row(&row.key()), Some(row));
    }
    assert_eq!(world.state.row(&RowKey::Jobs(9_999)), None);
    assert_eq!(world.state.row(&RowKey::Replicas(JobId(1), 0)), None);
    assert_eq!(world.state.row(&RowKey::Replicas(JobId(2), 1)), None);
}

#[test]
fn a_batch_names_each_changed_row_once() {
    let mut world = world();
    world.state.take_dirty();
    world.submit_placed("one", &[(30, 1)]);
    let page = RowKey::Jobs(24 / JOBS_PER_ROW);
    assert_eq!(world.state.take_dirty(), [RowKey::Meta, page]);
    assert_eq!(world.state.take_dirty(), []);
    world.join(node_spec("n99", 8));
    assert_eq!(world.state.take_dirty(), [RowKey::Meta, RowKey::Nodes(5)]);
    let places: Vec<(u32, u64)> = (0..64).map(|n| (30 + n / 8, 1 << (n % 8))).skip(1).collect();
    let mut spec = job_spec(vec![group("w", 300, 1)]);
    spec.groups[0].replicas_min = 1;
    world.submit(submit("partly", spec, Some(plan(&places))));
    let id = JobId(25);
    let wanted = [RowKey::Meta, RowKey::Jobs(1), RowKey::Replicas(id, 0), RowKey::Replicas(id, 1)];
    assert_eq!(world.state.take_dirty(), wanted);
}

#[test]
fn removed_rows_are_named_and_empty() {
    let mut world = World::with_nodes(9, 8);
    let job = world.submit_waiting("a", 600, 1);
    world.done(Command::Cancel { job, reason: Default::default() });
    world.state.take_dirty();
    world.at.0 += scheduler_core::state::RETENTION.0;
    world.done(Command::Expire { jobs: vec![], forget: vec![job] });
    world.done(Command::RemoveNode { node: NodeId(8), force: false });
    let keys = world.state.take_dirty();
    assert_eq!(keys.len(), 1 + 1 + 1 + 3, "{keys:?}");
    assert!(keys.iter().skip(1).all(|key| world.state.row(key).is_none()));
}

#[test]
fn rows_that_do_not_belong_together_are_refused() {
    let world = world();
    let without = |drop: fn(&RowKey) -> bool| {
        rows(&world).into_iter().filter(|row| !drop(&row.key())).collect::<Vec<_>>()
    };
    assert_eq!(error(without(|key| *key == RowKey::Meta)), RestoreError::NoMeta);
    let page = error(without(|key| *key == RowKey::Replicas(JobId(3), 1)));
    let wanted = RestoreError::Replicas { job: JobId(3), found: REPLICAS_PER_ROW, wanted: 600 };
    assert_eq!(page, wanted);
    let twice: Vec<Row> = rows(&world).into_iter().chain(rows(&world)).collect();
    assert!(matches!(error(twice), RestoreError::Misplaced { .. }));
    let orphan = error(without(|key| *key == RowKey::Jobs(0)));
    assert!(matches!(orphan, RestoreError::Misplaced { key: RowKey::Replicas(..) }), "{orphan}");
    let nodes = error(without(|key| *key == RowKey::Nodes(0)));
    let RestoreError::Inconsistent { first: Finding::Unbound { .. }, .. } = nodes else {
        panic!("{nodes}");
    };
    let tenants = error(without(|key| matches!(key, RowKey::Tenant(_))));
    assert!(matches!(tenants, RestoreError::Inconsistent { .. }), "{tenants}");
}

#[test]
fn a_flipped_allocation_is_found_on_the_way_in() {
    let world = world();
    let mut rows = rows(&world);
    for row in &mut rows {
        if let Row::Jobs(0, jobs) = row {
            let held = jobs[0].replicas[0].allocation.as_mut().expect("placed");
            held.node = NodeId(1);
        }
    }
    let found = error(rows);
    assert!(matches!(found, RestoreError::Inconsistent { count: 1.., .. }), "{found}");
}
