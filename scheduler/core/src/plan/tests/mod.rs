//! What the planner must hold: what it proposes is accepted, what it refuses is impossible.

mod brute;
mod bulk;
mod claims;
mod drafts;
mod explain;
mod fills;
mod fleets;
mod near;
mod paper;
mod random;
mod roomy;
mod ruled;
mod rules;
mod scene;

/// A seed says everything of a case, so there is nothing to shrink and nothing to keep in files:
/// a failing seed goes into the list of its test.
fn config(cases: u32) -> proptest::prelude::ProptestConfig {
    proptest::prelude::ProptestConfig {
        cases,
        max_shrink_iters: 0,
        failure_persistence: None,
        ..Default::default()
    }
}
