//! The segmented log as a whole: against a model, under crashes, faults and damage.

mod damage;
mod faults;
mod files_missing;
mod kill;
mod model;
mod power;
mod purge;
mod support;
mod sync;
