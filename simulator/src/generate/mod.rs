//! Generators: jobs, gangs, fleets, faults and spot nodes from a seed, shaped like published
//! statistics of real clusters.
//!
//! Each file names the figures that it matches and where they come from; its tests hold what it
//! makes against them. [`Draw`] makes the random numbers.
//! **Invariant:** equal arguments give equal bytes on every machine: integers, and floats by
//! addition, multiplication, division and square root alone, which IEEE 754 fixes; logarithm,
//! exponential and arc sine are computed from these here, never by the platform's library.

mod arrivals;
pub mod cities;
mod draw;
pub mod faults;
pub mod fleet;
pub mod jobs;
pub mod mega;
pub mod spot;

pub use arrivals::Arrivals;
pub use draw::Draw;
