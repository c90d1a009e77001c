//! What a trace tells, as what the scheduler is asked for: jobs as specs and arrivals, nodes as
//! declarations of agents.
//!
//! **Invariant:** the only place that turns one into the other; what a trace does not tell gets a
//! default that binds nothing.

use super::{TraceJob, TraceNode, TracePlace, TraceShape};
use crate::scenario::{Arrival, Nature};
use scheduler_core::fixture::entry::{gpu_spec, group, job_spec, node_spec};
use scheduler_core::id::{Name, NameError, TenantId};
use scheduler_core::job::{GpuAlternative, GpuAsk, GroupSpec, JobSpec, Program, Shape};
use scheduler_core::node::{NodeSpec, Place, Resources};
use scheduler_core::state::TENANTS_MAX;
use scheduler_core::unit::{
    BandwidthMbps, CpuMilli, DiskMib, GPU_MILLI_WHOLE, MemoryMib, PriceMicroUsd, RttUs, TimeMs,
};
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
    rtt_max: Option<RttUs>,
    /// Of jobs by their tenant's name; `None` = no name of a tenant of ours, or one too many.
    natures: BTreeMap<String, Option<Arc<Nature>>>,
}

impl Specs {
    /// Jobs of several replicas, but for recorded ones, get this bound on the RTT between members.
    pub fn within(rtt_max: Option<RttUs>) -> Self {
        Self { rtt_max, ..Self::default() }
    }

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
        let rtt_max = self.rtt_max.filter(|_| job.replicas > 1);
        let spec = Arc::new(JobSpec { rtt_max, ..job_spec(vec![workers]) });
        self.known.insert(key, Arc::clone(&spec));
        Ok(spec)
    }

    /// The job coming in at its time, or at 0 where the trace does not tell one, and living as long
    /// as it did.
    pub fn to_arrival(&mut self, job: &TraceJob) -> Result<Arrival, SpecError> {
        let at = job.submit.unwrap_or(TimeMs::ZERO);
        Ok(Arrival { nature: self.nature(job), ..Arrival::new(at, self.of(job)?, job.duration) })
    }

    fn nature(&mut self, job: &TraceJob) -> Option<Arc<Nature>> {
        if let Some(known) = self.natures.get(&job.tenant) {
            return known.clone();
        }
        // One more is everybody's.
        let room = self.natures.len() + 1 < TENANTS_MAX;
        let nature = Name::parse(&job.tenant)
            .ok()
            .filter(|_| room)
            .map(|name| Arc::new(Nature { tenant: Some(TenantId(name)), ..Nature::default() }));
        self.natures.insert(job.tenant.clone(), nature.clone());
        nature
    }
}

/// A recorded job: all that it asked for, and the shape of its largest group by GPUs. What its
/// members run is left out: it is nobody's business here, and may hold secrets.
pub fn recorded_job(name: String, tenant: String, spec: &JobSpec) -> TraceJob {
    let gpu_milli = |group: &GroupSpec| group.shape.gpu_milli() * u64::from(group.replicas);
    let largest = spec.groups.iter().max_by_key(|group| gpu_milli(group));
    let (gpus, gpu_milli) = match largest.map(|group| group.shape.gpus) {
        None | Some(GpuAsk::None) => (0, 0),
        Some(GpuAsk::Whole(gpus)) => (u32::from(gpus), u32::from(GPU_MILLI_WHOLE)),
        Some(GpuAsk::Share(milli)) => (1, u32::from(milli)),
    };
    let mut models: Vec<String> = largest
        .iter()
        .flat_map(|group| &group.shape.alternatives)
        .flat_map(|one| &one.models)
        .map(ToString::to_string)
        .collect();
    models.sort();
    models.dedup();
    TraceJob {
        name,
        tenant,
        replicas: largest.map_or(1, |group| group.replicas),
        shape: TraceShape {
            cpu_milli: largest.map_or(0, |group| group.shape.cpu.0),
            memory_mib: largest.map_or(0, |group| group.shape.memory.0),
            gpus,
            gpu_milli,
            models,
        },
        spec: Some(Arc::new(JobSpec { program: Program::default(), ..spec.clone() })),
        ..TraceJob::default()
    }
}

/// A recorded node under a name that no other node of the trace has.
pub fn recorded_node(called: &str, spec: &NodeSpec) -> TraceNode {
    let gpu = spec.gpus.first();
    let node = TraceNode {
        name: called.to_owned(),
        cpu_milli: spec.resources.cpu.0,
        memory_mib: spec.resources.memory.0,
        disk_mib: spec.resources.disk.0,
        gpus: u32::try_from(spec.gpus.len()).unwrap_or(u32::MAX),
        model: gpu.map(|gpu| gpu.model.to_string()).unwrap_or_default(),
        vram_mib: gpu.map_or(0, |gpu| gpu.vram.0),
        place: Some(TracePlace {
            region: spec.place.region.to_string(),
            zone: spec.place.zone.to_string(),
            site: spec.place.site.to_string(),
            rack: spec.place.rack.to_string(),
        }),
        price_micro_usd: spec.price.0,
        bandwidth_mbps: spec.bandwidth_up.0.min(spec.bandwidth_down.0),
        class: spec.labels.get(CLASS_LABEL).map(|class| class.to_string()).unwrap_or_default(),
        spec: None,
    };
    let mut declared = spec.clone();
    declared.name = Name::parse(called).unwrap_or(declared.name);
    // Its address matters to those who run there alone.
    declared.address = called.into();
    match self::node(&node) {
        Ok(same) if same == declared => node,
        _ => TraceNode { spec: Some(Arc::new(declared)), ..node },
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

#[cfg(test)]
mod tests {
    use super::*;
    use scheduler_core::fixture::entry::{full_node, models};

    #[test]
    fn a_recorded_node_is_declared_as_it_was() {
        for (spec, plain) in [(node_spec("host", 3), true), (full_node("host"), false)] {
            let recorded = recorded_node("other", &spec);
            assert_eq!(recorded.spec.is_none(), plain);
            let back = node(&recorded).expect("a declaration");
            let name = Name::parse("other").expect("a name");
            assert_eq!(back, NodeSpec { name, address: "other".into(), ..spec });
        }
    }

    #[test]
    fn a_recorded_job_asks_for_all_that_it_asked_for_and_keeps_what_it_ran_to_itself() {
        let mut many = group("many", 3, 2);
        many.shape.alternatives = models(&["H100", "A100"]);
        let mut spec = job_spec(vec![group("one", 1, 1), many]);
        spec.program.env = vec![("SECRET".to_owned(), "s3cret".to_owned())];
        let job = recorded_job("7".to_owned(), "acme".to_owned(), &spec);
        assert_eq!((job.replicas, job.shape.gpus, job.total_milli()), (3, 2, 7_000));
        assert_eq!(job.shape.models, ["A100", "H100"]);
        let back = Specs::default().of(&job).expect("a spec");
        assert_eq!(back.groups, spec.groups);
        assert_eq!(back.program, Program::default());
    }
}
