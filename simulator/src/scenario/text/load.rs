//! `load …`: jobs like those of published traces.
//!
//! **Invariant:** every seed of a run has its own jobs; the statistics are those of the generators.

use super::line::{Fault, Words};
use crate::generate::{jobs, mega};
use crate::scenario::Arrival;
use crate::trace::specs::{SpecError, Specs};
use scheduler_core::id::Name;

/// What generators are called here.
const LIKE: [&str; 3] = ["openb", "philly", "kalos"];
/// Gangs in an hour where nothing is said.
const GANGS_PER_HOUR: f64 = 2.0;

/// Jobs of one line.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) name: Name,
    /// Position in [`LIKE`].
    like: usize,
    jobs: usize,
    per_hour: Option<f64>,
}

impl Load {
    /// Reads what follows `load`.
    pub(super) fn parse(words: &mut Words<'_>) -> Result<Self, Fault> {
        let pairs = words.pairs(&["like", "jobs", "per_hour", "name"])?;
        let like = pairs.read("like", |word| word.choice(&LIKE))?;
        let like = like.ok_or_else(|| pairs.missing("like="))?;
        let jobs = pairs.number("jobs", 1, super::ARRIVALS_MAX)?;
        let jobs = jobs.ok_or_else(|| pairs.missing("jobs="))?;
        let per_hour = pairs.number("per_hour", 1, super::ARRIVALS_MAX)?;
        let name = pairs.read("name", |word| word.name())?.unwrap_or_else(super::default_name);
        let jobs = usize::try_from(jobs).unwrap_or(usize::MAX);
        let load = Self { name, like, jobs, per_hour: per_hour.map(|rate| rate as f64) };
        // What a generator makes can always be asked for; a fault would be found here, not in a run.
        load.arrivals(0).map_err(|error| pairs.fault(&error.to_string()))?;
        Ok(load)
    }

    /// The jobs of a seed.
    pub(super) fn arrivals(&self, seed: u64) -> Result<Vec<Arrival>, SpecError> {
        let made = match self.like {
            0 => jobs::jobs(jobs::Profile::Openb, self.jobs, self.per_hour, seed),
            1 => jobs::jobs(jobs::Profile::Philly, self.jobs, self.per_hour, seed),
            _ => mega::gangs(self.jobs, self.per_hour.unwrap_or(GANGS_PER_HOUR), seed),
        };
        let mut specs = Specs::default();
        made.iter().map(|job| specs.to_arrival(job)).collect()
    }
}
