//! Bed: a trace's nodes as a view, and its jobs as specs.
//!
//! **Invariant:** node ids follow the order in which nodes are given, so the order decides ties.

use crate::trace::{TraceJob, TraceNode, TraceShape};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use scheduler_core::command::{Actor, Command, Entry, Outcome, RegisterNode};
use scheduler_core::fixture::entry::{gpu_spec, group, job_spec, node_spec};
use scheduler_core::id::{Name, NameError, SupplierId};
use scheduler_core::job::{GpuAlternative, GpuAsk, JobSpec, Shape};
use scheduler_core::node::Resources;
use scheduler_core::plan::Policy;
use scheduler_core::state::State;
use scheduler_core::unit::{CpuMilli, DiskMib, MemoryMib, TimeMs};
use scheduler_core::view::View;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The traces do not tell vRAM and no job asks for it.
const VRAM_MIB: u32 = 16_384;

/// Why a trace's nodes or jobs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    #[error("node {node:?}: {what}")]
    Node { node: String, what: String },
    #[error("job {job:?}: model {model:?} {source}")]
    Model { job: String, model: String, source: NameError },
    #[error("job {job:?}: {gpus} GPUs are more than a node can have")]
    Gpus { job: String, gpus: u32 },
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
            let mut spec = node_spec("node", 0);
            spec.name = Name::parse(&node.name).map_err(|e| failed(format!("name {e}")))?;
            if node.gpus > 0 {
                Name::parse(&node.model).map_err(|e| failed(format!("model {e}")))?;
                let gpu = gpu_spec(&node.model, VRAM_MIB);
                spec.gpus = vec![gpu; node.gpus as usize];
            }
            spec.resources = Resources {
                cpu: CpuMilli(node.cpu_milli),
                memory: MemoryMib(node.memory_mib),
                disk: DiskMib::ZERO,
            };
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

/// Specs of jobs, one for all jobs of a shape and size.
#[derive(Debug, Default)]
pub(super) struct Specs {
    known: BTreeMap<(u32, TraceShape), Arc<JobSpec>>,
}

impl Specs {
    pub(super) fn of(&mut self, job: &TraceJob) -> Result<Arc<JobSpec>, BedError> {
        let key = (job.replicas, job.shape.clone());
        if let Some(spec) = self.known.get(&key) {
            return Ok(Arc::clone(spec));
        }
        let mut workers = group("workers", job.replicas, 0);
        workers.shape = shape(job)?;
        let spec = Arc::new(job_spec(vec![workers]));
        self.known.insert(key, Arc::clone(&spec));
        Ok(spec)
    }
}

/// What one replica of the job asks for.
pub(super) fn shape(job: &TraceJob) -> Result<Shape, BedError> {
    let asked = &job.shape;
    let models = asked.models.iter().map(|model| {
        Name::parse(model).map_err(|source| BedError::Model {
            job: job.name.clone(),
            model: model.clone(),
            source,
        })
    });
    let too_many = || BedError::Gpus { job: job.name.clone(), gpus: asked.gpus };
    let mut shape = group("workers", 1, 0).shape;
    let models: Vec<Name> = models.collect::<Result<_, _>>()?;
    if !models.is_empty() {
        shape.alternatives = vec![GpuAlternative { models, ..GpuAlternative::default() }];
    }
    shape.gpus = match (asked.gpus, u16::try_from(asked.gpu_milli).unwrap_or(0)) {
        (0, _) => GpuAsk::None,
        (1, milli @ 1..1_000) => GpuAsk::Share(milli),
        (gpus, _) => GpuAsk::Whole(u8::try_from(gpus).map_err(|_| too_many())?),
    };
    shape.cpu = CpuMilli(asked.cpu_milli);
    shape.memory = MemoryMib(asked.memory_mib);
    shape.disk = DiskMib::ZERO;
    Ok(shape)
}

/// How often each shape comes among the jobs.
fn mix(jobs: &[TraceJob]) -> Result<Vec<(Shape, u64)>, BedError> {
    let mut counts: BTreeMap<&TraceShape, (u64, &TraceJob)> = BTreeMap::new();
    for job in jobs {
        counts.entry(&job.shape).or_insert((0, job)).0 += 1;
    }
    counts.values().map(|&(count, job)| Ok((shape(job)?, count))).collect()
}
