//! Fill-up: the experiment of Weng et al. (USENIX ATC 2023). Jobs arrive in random order until they
//! ask for 130 % of the fleet's GPUs; none ever leaves, and what does not fit is dropped.
//!
//! The order of nodes, which decides ties, and the order of jobs follow from the seed.
//! **Invariant:** `fgd` is told the mix of the whole workload, as its authors have it; the other
//! policies learn from arrivals or need no mix.

use super::by_name;
use super::fleet::{Bed, BedError};
use crate::trace::specs::Specs;
use crate::trace::{TraceJob, TraceNode};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use scheduler_core::plan::{Budget, Policy, Request, find};
use serde::Serialize;

/// Demand that arrives, in per cent of the fleet's GPUs.
pub const DEMAND_PERCENT: usize = 130;

/// One run.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    pub workload: String,
    #[serde(serialize_with = "by_name")]
    pub policy: Policy,
    pub seed: u64,
    pub jobs: usize,
    pub placed: usize,
    /// Per cent of all GPU thousandths that are allocated when 1, 2, … 130 per cent have been asked
    /// for: the mean over the arrivals that round to that per cent; `None` where none does.
    pub allocated_percent: Vec<Option<f64>>,
}

impl Row {
    /// Allocation when this per cent had arrived.
    pub fn at(&self, percent: usize) -> Option<f64> {
        self.allocated_percent.get(percent.checked_sub(1)?).copied().flatten()
    }
}

/// Runs one workload with one policy and seed.
pub fn run(
    workload: &str,
    nodes: &[TraceNode],
    jobs: &[TraceJob],
    policy: Policy,
    seed: u64,
) -> Result<Row, BedError> {
    let mut rng = StdRng::seed_from_u64(seed);
    let Bed { mut view, gpu_milli } = Bed::shuffled(nodes, jobs, policy, &mut rng)?;
    let arrivals = arrivals(jobs, gpu_milli, &mut rng);
    let mut specs = Specs::default();
    let mut curve = Curve::new(gpu_milli);
    let mut placed = 0;
    for (job, claim) in arrivals.iter().zip(0u64..) {
        let spec = specs.of(job)?;
        view.note_arrival(&spec);
        let plan = find(&view, &Request::whole(&spec), &policy, Budget::default());
        if let Some(plan) = &plan {
            view.claim(claim, &spec, plan);
            placed += 1;
        }
        curve.arrived(job.total_milli(), plan.is_some());
    }
    Ok(Row {
        workload: workload.to_owned(),
        policy,
        seed,
        jobs: arrivals.len(),
        placed,
        allocated_percent: curve.columns(),
    })
}

/// The jobs by name, shuffled, and made to ask for just under 130 % of the capacity: random ones
/// are left out, or more are drawn until the next would be too much.
fn arrivals<'a>(jobs: &'a [TraceJob], capacity: u64, rng: &mut StdRng) -> Vec<&'a TraceJob> {
    let mut list: Vec<&TraceJob> = jobs.iter().collect();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    list.shuffle(rng);
    let most = capacity / 100 * DEMAND_PERCENT as u64;
    let mut asked: u64 = list.iter().map(|job| job.total_milli()).sum();
    while asked > most && !list.is_empty() {
        asked -= list.remove(rng.random_range(0..list.len())).total_milli();
    }
    if !list.is_empty() && asked > 0 && list.len() == jobs.len() {
        // As in the original, the test counts one GPU of the drawn job and not all of them.
        while let Some(job) = jobs.get(rng.random_range(0..jobs.len())) {
            if asked + u64::from(job.shape.gpu_milli) > most {
                break;
            }
            asked += job.total_milli();
            list.push(job);
        }
    }
    list
}

/// Allocation by arrived demand.
struct Curve {
    capacity: u64,
    arrived: u64,
    allocated: u64,
    /// Sum of the allocation in per cent, and the number of arrivals, by rounded per cent arrived.
    columns: Vec<(f64, u32)>,
}

impl Curve {
    fn new(capacity: u64) -> Self {
        Self { capacity, arrived: 0, allocated: 0, columns: vec![(0.0, 0); DEMAND_PERCENT + 1] }
    }

    fn arrived(&mut self, milli: u64, placed: bool) {
        self.arrived += milli;
        self.allocated += if placed { milli } else { 0 };
        // Rounded half up.
        let percent = (self.arrived * 200 + self.capacity) / (self.capacity * 2);
        let column = usize::try_from(percent).ok().and_then(|at| self.columns.get_mut(at));
        if let Some((sum, count)) = column {
            *sum += self.allocated as f64 * 100.0 / self.capacity as f64;
            *count += 1;
        }
    }

    fn columns(&self) -> Vec<Option<f64>> {
        let mean = |&(sum, count): &(f64, u32)| (count > 0).then(|| sum / f64::from(count));
        self.columns.iter().skip(1).map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_the_mean_over_its_arrivals() {
        let mut curve = Curve::new(100_000);
        curve.arrived(1_000, true);
        curve.arrived(400, true);
        curve.arrived(200, false);
        let columns = curve.columns();
        // 1.0 and 1.4 per cent arrived round to 1; 1.6 rounds to 2, and nothing more was placed.
        assert_eq!(columns[0], Some((1.0 + 1.4) / 2.0));
        assert_eq!(columns[1], Some(1.4));
        assert_eq!(columns[2], None);
        assert_eq!(columns.len(), DEMAND_PERCENT);
    }
}
