//! Compare: whether two ways of doing the same things differ by more than chance.
//!
//! Cases come in pairs: same load, same seed, another policy. `ranks` has the test.
//! **Invariant:** pure.

pub mod ranks;

use crate::metrics::Figures;
use crate::replay::Run;
use ranks::{SignedRank, quantile, signed_rank};
use scheduler_core::plan::Policy;
use serde::Serialize;

/// A figure by its name.
type Named = (&'static str, fn(&Figures) -> f64);

/// What is compared.
const FIGURES: [Named; 12] = [
    ("allocated_percent", |f| f.allocated_percent),
    ("fragmented_percent", |f| f.fragmented_percent),
    ("queue_jobs_mean", |f| f.queue_jobs_mean),
    ("wait_s mean", |f| f.wait_s.mean),
    ("wait_s p50", |f| f.wait_s.p50),
    ("wait_s p95", |f| f.wait_s.p95),
    ("wait_s p99", |f| f.wait_s.p99),
    ("slowdown p95", |f| f.slowdown.p95),
    ("gangs.accepted_percent", |f| f.gangs.accepted_percent),
    ("gangs.wait_s p95", |f| f.gangs.wait_s.p95),
    ("ready_s p95", |f| f.ready_s.p95),
    ("cost_usd", |f| f.cost_usd),
];

/// One figure at one load, under every policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Comparison {
    pub load: f64,
    pub figure: &'static str,
    /// In the order asked for; the first is what the others are compared with.
    pub policies: Vec<Compared>,
}

/// What a figure comes to under a policy.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Compared {
    pub policy: &'static str,
    pub seeds: usize,
    pub median: f64,
    /// Quartiles.
    pub p25: f64,
    pub p75: f64,
    /// Against the first policy, seed by seed; the first itself has none.
    pub test: Option<SignedRank>,
}

/// Compares the runs of every load; figures that are the same everywhere are left out.
pub fn compare(runs: &[Run], policies: &[Policy]) -> Vec<Comparison> {
    let mut loads: Vec<f64> = runs.iter().map(|run| run.case.load).collect();
    loads.sort_by(f64::total_cmp);
    loads.dedup();
    let mut all = Vec::new();
    for load in loads {
        let here: Vec<&Run> = runs.iter().filter(|run| run.case.load == load).collect();
        for (figure, of) in FIGURES {
            let first = here.first().map(|run| of(&run.figures));
            if here.iter().any(|run| Some(of(&run.figures)) != first) {
                let policies = policies.iter().zip(0..).map(|(&policy, number)| {
                    let base = policies.first().filter(|_| number > 0).copied();
                    compared(&here, of, policy, base)
                });
                all.push(Comparison { load, figure, policies: policies.collect() });
            }
        }
    }
    all
}

fn compared(
    runs: &[&Run],
    of: fn(&Figures) -> f64,
    policy: Policy,
    base: Option<Policy>,
) -> Compared {
    let told = |policy: Policy| {
        let own = runs.iter().filter(move |run| run.case.policy == policy);
        own.map(|run| (run.case.seed, of(&run.figures)))
    };
    let values: Vec<f64> = told(policy).map(|(_, value)| value).collect();
    let test = base.map(|base| {
        let pairs: Vec<(f64, f64)> = told(policy)
            .filter_map(|(seed, value)| {
                let (_, first) = told(base).find(|&(other, _)| other == seed)?;
                Some((first, value))
            })
            .collect();
        signed_rank(&pairs)
    });
    Compared {
        policy: policy.name(),
        seeds: values.len(),
        median: quantile(&values, 0.5),
        p25: quantile(&values, 0.25),
        p75: quantile(&values, 0.75),
        test,
    }
}
