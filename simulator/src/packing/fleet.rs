//! Bed: a trace's nodes as a view, and its jobs as specs.
//!
//! **Invariant:** node ids follow the order in which nodes are given, so the order decides ties.

use crate::trace::specs::{self, SpecError, shape};
use crate::trace::{TraceJob, TraceNode, TraceShape};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use scheduler_core::command::{Actor, Command, Entry, Outcome, RegisterNode};
use scheduler_core::id::{Name, SupplierId};
use scheduler_core::job::Shape;
use scheduler_core::plan::Policy;
use scheduler_core::state::State;
use scheduler_core::unit::TimeMs;
use scheduler_core::view::View;
use std::collections::BTreeMap;

/// Why a trace's nodes or jobs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    #[error("node {node:?}: {what}")]
    Node { node: String, what: String },
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("the nodes have no GPUs")]
    NoGpus,
}

/// A fleet to place on.
#[derive(Clone, Debug)]
pub struct Bed {
    pub view: View,
    /// Thousandths of all GPUs.
    pub gpu_milli: u64,
}

impl Bed {
    /// Nodes in random order. `fgd` is told the mix of all the jobs, as its authors do; the other
    /// policies learn or need no mix.
    pub(super) fn shuffled(
        nodes: &[TraceNode],
        jobs: &[TraceJob],
        policy: Policy,
        rng: &mut StdRng,
    ) -> Result<Self, BedError> {
        let mut order: Vec<&TraceNode> = nodes.iter().collect();
        order.shuffle(rng);
        let mut bed = Self::new(order.into_iter())?;
        if policy == Policy::Fgd {
            bed.view.tell_demand(&mix(jobs)?);
        }
        Ok(bed)
    }

    /// Nodes get ids in the order given.
    pub fn new<'a>(nodes: impl Iterator<Item = &'a TraceNode>) -> Result<Self, BedError> {
        let mut state = State::new();
        let mut gpu_milli = 0;
        for (node, index) in nodes.zip(1u64..) {
            let failed = |what: String| BedError::Node { node: node.name.clone(), what };
            let spec = specs::node(node)?;
            gpu_milli += u64::from(node.gpus) * 1_000;
            let supplier = Name::parse("trace").map_err(|e| failed(e.to_string()))?;
            let mut key_digest = [0; 32];
            for (to, from) in key_digest.iter_mut().zip(index.to_le_bytes()) {
                *to = from;
            }
            let register = RegisterNode { supplier: SupplierId(supplier), spec, key_digest };
            let command = Command::RegisterNode(register);
            let entry = Entry { at: TimeMs(index), by: Actor::Operator, command };
            match state.apply(index, &entry).result {
                Ok(Outcome::Registered { .. }) => {}
                Ok(other) => return Err(failed(format!("is answered by {other:?}"))),
                Err(rejection) => return Err(failed(rejection.to_string())),
            }
        }
        if gpu_milli == 0 {
            return Err(BedError::NoGpus);
        }
        Ok(Self { view: View::new(&state), gpu_milli })
    }
}

/// How often each shape comes among the jobs.
fn mix(jobs: &[TraceJob]) -> Result<Vec<(Shape, u64)>, SpecError> {
    let mut counts: BTreeMap<&TraceShape, (u64, &TraceJob)> = BTreeMap::new();
    for job in jobs {
        counts.entry(&job.shape).or_insert((0, job)).0 += 1;
    }
    counts.values().map(|&(count, job)| Ok((shape(job)?, count))).collect()
}
