//! What a trace tells, as what the scheduler is asked for: jobs as specs and arrivals, nodes as
//! declarations of agents.
//!
//! **Invariant:** the only place that turns one into the other; what a trace does not tell gets a
//! default that binds nothing.

use super::{TraceJob, TraceNode, TraceShape};
use crate::scenario::Arrival;
use scheduler_core::fixture::entry::{gpu_spec, group, job_spec, node_spec};
use scheduler_core::id::{Name, NameError};
use scheduler_core::job::{GpuAlternative, GpuAsk, JobSpec, Shape};
use scheduler_core::node::{NodeSpec, Place, Resources};
use scheduler_core::unit::{BandwidthMbps, CpuMilli, DiskMib, MemoryMib, PriceMicroUsd, TimeMs};
use std::collections::BTreeMap;
use std::sync::Arc;

/// vRAM of a GPU in MiB where the trace does not tell; no job of such a trace asks for any.
const VRAM_MIB_UNTOLD: u32 = 16_384;
/// Label of a node that says what kind of supplier has it.
pub const CLASS_LABEL: &str = "class";

/// Why a node or job of a trace cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    #[error("node {node:?}: {field} {value:?} {source}")]
    Node { node: String, field: &'static str, value: String, source: NameError },
    #[error("job {job:?}: model {model:?} {source}")]
    Model { job: String, model: String, source: NameError },
    #[error("job {job:?}: {gpus} GPUs are more than a node can have")]
    Gpus { job: String, gpus: u32 },
}

/// Specs of jobs, one for all jobs of a shape and size.
#[derive(Debug, Default)]
pub struct Specs {
    known: BTreeMap<(u32, TraceShape), Arc<JobSpec>>,
}

impl Specs {
    /// What the job asks for; of a recorded job all of it.
    pub fn of(&mut self, job: &TraceJob) -> Result<Arc<JobSpec>, SpecError> {
        if let Some(spec) = &job.spec {
            return Ok(Arc::clone(spec));
        }
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

    /// The job coming in at its time, or at 0 where the trace does not tell one, and living as long
    /// as it did.
    pub fn to_arrival(&mut self, job: &TraceJob) -> Result<Arrival, SpecError> {
        let at = job.submit.unwrap_or(TimeMs::ZERO);
        Ok(Arrival { at, spec: self.of(job)?, life: job.duration })
    }
}

/// What one replica of the job asks for.
pub fn shape(job: &TraceJob) -> Result<Shape, SpecError> {
    let asked = &job.shape;
    let models = asked.models.iter().map(|model| {
        Name::parse(model).map_err(|source| SpecError::Model {
            job: job.name.clone(),
            model: model.clone(),
            source,
        })
    });
    let too_many = || SpecError::Gpus { job: job.name.clone(), gpus: asked.gpus };
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

/// The node as its agent would declare it; of a recorded node as it did.
pub fn node(node: &TraceNode) -> Result<NodeSpec, SpecError> {
    if let Some(spec) = &node.spec {
        return Ok(NodeSpec::clone(spec));
    }
    let name = |field: &'static str, text: &str| {
        Name::parse(text).map_err(|source| SpecError::Node {
            node: node.name.clone(),
            field,
            value: text.to_owned(),
            source,
        })
    };
    let mut spec = node_spec("node", 0);
    spec.name = name("name", &node.name)?;
    spec.address = node.name.as_str().into();
    if node.gpus > 0 {
        name("model", &node.model)?;
        let vram_mib = if node.vram_mib == 0 { VRAM_MIB_UNTOLD } else { node.vram_mib };
        spec.gpus = vec![gpu_spec(&node.model, vram_mib); node.gpus as usize];
    }
    spec.resources = Resources {
        cpu: CpuMilli(node.cpu_milli),
        memory: MemoryMib(node.memory_mib),
        disk: DiskMib(node.disk_mib),
    };
    if let Some(place) = &node.place {
        spec.place = Place {
            region: name("region", &place.region)?,
            zone: name("zone", &place.zone)?,
            site: name("site", &place.site)?,
            rack: name("rack", &place.rack)?,
        };
    }
    if node.price_micro_usd > 0 {
        spec.price = PriceMicroUsd(node.price_micro_usd);
    }
    if node.bandwidth_mbps > 0 {
        spec.bandwidth_up = BandwidthMbps(node.bandwidth_mbps);
        spec.bandwidth_down = BandwidthMbps(node.bandwidth_mbps);
    }
    if !node.class.is_empty() {
        name("class", &node.class)?;
        spec.labels.insert(CLASS_LABEL.into(), node.class.as_str().into());
    }
    Ok(spec)
}
