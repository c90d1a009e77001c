//! The planner's choice of sites against an exact search, over worlds of our own making.

use rand::RngExt;
use rand::rngs::StdRng;
use scheduler_core::fixture::cities::{cities, no_geometry};
use scheduler_core::topology::Sites;
use simulator::grouping::{Row, measure};
use std::time::Duration;

fn run(size: usize, cases: u32, draw: fn(usize, u64) -> Sites) -> Row {
    let mut no_clock = |work: &mut dyn FnMut()| {
        work();
        Duration::ZERO
    };
    let mut draw = |rng: &mut StdRng| Some(draw(size, rng.random()));
    let row = measure(size, cases, 11, &mut draw, &mut no_clock);
    println!("{row:?}");
    assert_eq!(row.wrong, [""; 0]);
    row
}

/// What is asked of the choice on up to 60 sites.
fn good(row: &Row) {
    assert!(row.diameter.cases * 10 >= row.cases * 9, "the exact search ended too rarely");
    for gap in [row.diameter, row.diameter_quick] {
        assert!(gap.mean_percent <= 5.0 && gap.worst_percent <= 15.0, "{gap:?}");
    }
    assert!(row.bounds_possible >= row.cases, "{} bounds can be kept", row.bounds_possible);
    assert!(row.bounds_kept * 100 >= row.bounds_possible * 99);
    assert!(row.bounds_refused > 0 && row.bounds_refused * 100 >= row.bounds_impossible * 99);
}

#[test]
fn cities_are_grouped_nearly_as_well_as_can_be() {
    for (size, cases) in [(12, 40), (30, 30), (60, 20)] {
        good(&run(size, cases, cities));
    }
}

#[test]
fn so_are_sites_without_any_geometry() {
    for (size, cases) in [(12, 40), (30, 20)] {
        good(&run(size, cases, no_geometry));
    }
}

#[test]
fn the_mean_is_near_its_lower_bound_where_that_is_known_exactly() {
    let row = run(14, 60, cities);
    assert!(row.mean_exact * 10 >= row.cases * 9, "{} exact", row.mean_exact);
    assert!(row.mean.mean_percent <= 5.0 && row.mean.worst_percent <= 15.0, "{:?}", row.mean);
}
