//! Plans judged by a checker that shares nothing with the planner, and the planner's refusals by
//! trying every way.
//!
//! A seed says everything of a case: run one with `SEED=n cargo test -p scheduler-core --test plan`.

mod bad_input;
mod brute;
mod checker;
mod properties;
mod refusals;
mod repairs;
mod scene;
mod verdicts;
mod wishes;
