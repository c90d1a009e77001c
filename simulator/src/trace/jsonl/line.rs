//! The lines themselves, field by field, and what they must hold.
//!
//! **Invariant:** these fields are the format: none changes its name or meaning within a version.

use super::time;
use crate::trace::{
    AMOUNT_MAX, GPUS_MAX, MILLI_MAX, TraceJob, TraceNode, TracePlace, TraceShape, name_fault,
};
use scheduler_core::command::{Rejection, SiteRtt};
use scheduler_core::id::Name;
use scheduler_core::job::JobSpec;
use scheduler_core::node::NodeSpec;
use scheduler_core::unit::{DurationMs, RttUs, TimeMs};
use scheduler_core::validate::{
    self, BANDWIDTH_MBPS_MAX, DISK_MIB_MAX, PRICE_MICRO_USD_MAX, REPLICAS_MAX, RTT_US_MAX,
    VRAM_MIB_MAX,
};
use serde::{Deserialize, Serialize};
use std::fmt::Display;
use std::sync::Arc;

/// What is wrong with a line, and with which field of it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) field: Option<&'static str>,
    pub(super) value: String,
    pub(super) what: String,
}

impl Fault {
    pub(super) fn of(field: &'static str, value: impl Display, what: String) -> Self {
        Self { field: Some(field), value: value.to_string(), what }
    }

    fn spec(rejection: &Rejection) -> Self {
        Self::of("spec", "", format!("would be refused: {rejection}"))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Line {
    Trace(HeadLine),
    Node(Box<NodeLine>),
    NodeUp(NodeSaid),
    NodeDown(NodeSaid),
    NodeEligible(NodeSaid),
    NodeCordoned(NodeSaid),
    NodeDraining(NodeSaid),
    NodeRemoved(NodeSaid),
    NodePrice(PriceLine),
    Rtt(RttLine),
    Job(Box<JobLine>),
    JobReady(JobSaid),
    JobEnded(EndLine),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HeadLine {
    pub(super) version: u32,
    pub(super) source: String,
    pub(super) start_ms: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeSaid {
    pub(super) at_ms: u64,
    pub(super) node: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PriceLine {
    pub(super) at_ms: u64,
    pub(super) node: String,
    pub(super) price_micro_usd: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobSaid {
    pub(super) at_ms: u64,
    pub(super) job: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EndLine {
    pub(super) at_ms: u64,
    pub(super) job: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) why: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RttLine {
    a: String,
    b: String,
    rtt_us: u32,
    /// 0 = the same as `rtt_us`.
    #[serde(default, skip_serializing_if = "is_zero")]
    rtt_us_high: u32,
    /// 0 = told by an operator.
    #[serde(default, skip_serializing_if = "is_zero")]
    samples: u32,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct NodeLine {
    pub(super) at_ms: u64,
    node: String,
    #[serde(skip_serializing_if = "is_zero")]
    gpus: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    model: String,
    #[serde(skip_serializing_if = "is_zero_64")]
    cpu_milli: u64,
    #[serde(skip_serializing_if = "is_zero_64")]
    memory_mib: u64,
    #[serde(skip_serializing_if = "is_zero_64")]
    disk_mib: u64,
    #[serde(skip_serializing_if = "is_zero")]
    vram_mib: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    region: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    zone: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    site: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    rack: String,
    #[serde(skip_serializing_if = "is_zero_64")]
    price_micro_usd: u64,
    #[serde(skip_serializing_if = "is_zero")]
    bandwidth_mbps: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    class: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<NodeSpec>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobLine {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    at_ms: Option<u64>,
    job: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tenant: String,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    replicas: u32,
    #[serde(default, skip_serializing_if = "is_zero")]
    gpus: u32,
    #[serde(default = "whole", skip_serializing_if = "is_whole")]
    gpu_milli: u32,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    cpu_milli: u64,
    #[serde(default, skip_serializing_if = "is_zero_64")]
    memory_mib: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    models: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    duration_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    spec: Option<JobSpec>,
}

fn one() -> u32 {
    1
}

fn whole() -> u32 {
    MILLI_MAX
}

// serde hands references to these.
fn is_one(value: &u32) -> bool {
    *value == 1
}

fn is_whole(value: &u32) -> bool {
    *value == MILLI_MAX
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_zero_64(value: &u64) -> bool {
    *value == 0
}

fn at_most(field: &'static str, value: impl Into<u64>, max: impl Into<u64>) -> Result<(), Fault> {
    let (value, max) = (value.into(), max.into());
    if value <= max { Ok(()) } else { Err(Fault::of(field, value, format!("is over {max}"))) }
}

fn name(field: &'static str, text: &str) -> Result<(), Fault> {
    name_fault(text).map_or(Ok(()), |what| Err(Fault::of(field, text, what)))
}

impl RttLine {
    pub(super) fn of(rtt: &SiteRtt) -> Self {
        let high = if rtt.rtt_high == rtt.rtt { 0 } else { rtt.rtt_high.0 };
        Self {
            a: rtt.a.to_string(),
            b: rtt.b.to_string(),
            rtt_us: rtt.rtt.0,
            rtt_us_high: high,
            samples: rtt.samples,
        }
    }

    pub(super) fn to_rtt(&self) -> Result<SiteRtt, Fault> {
        let site = |field, text: &str| {
            Name::parse(text).map_err(|error| Fault::of(field, text, error.to_string()))
        };
        let high = if self.rtt_us_high == 0 { self.rtt_us } else { self.rtt_us_high };
        if !(1..=RTT_US_MAX).contains(&self.rtt_us) {
            return Err(Fault::of("rtt_us", self.rtt_us, format!("is not 1 to {RTT_US_MAX}")));
        }
        if !(self.rtt_us..=RTT_US_MAX).contains(&high) {
            let what = format!("is not from rtt_us to {RTT_US_MAX}");
            return Err(Fault::of("rtt_us_high", high, what));
        }
        Ok(SiteRtt {
            a: site("a", &self.a)?,
            b: site("b", &self.b)?,
            rtt: RttUs(self.rtt_us),
            rtt_high: RttUs(high),
            samples: self.samples,
        })
    }
}

impl NodeLine {
    pub(super) fn of(at: TimeMs, node: &TraceNode) -> Self {
        let node = node.clone();
        let place = node.place.unwrap_or_default();
        Self {
            at_ms: at.0,
            node: node.name,
            gpus: node.gpus,
            model: node.model,
            cpu_milli: node.cpu_milli,
            memory_mib: node.memory_mib,
            disk_mib: node.disk_mib,
            vram_mib: node.vram_mib,
            region: place.region,
            zone: place.zone,
            site: place.site,
            rack: place.rack,
            price_micro_usd: node.price_micro_usd,
            bandwidth_mbps: node.bandwidth_mbps,
            class: node.class,
            spec: node.spec.map(Arc::unwrap_or_clone),
        }
    }

    pub(super) fn into_node(self) -> Result<TraceNode, Fault> {
        name("node", &self.node)?;
        at_most("gpus", self.gpus, GPUS_MAX)?;
        if self.gpus > 0 {
            name("model", &self.model)?;
        }
        at_most("cpu_milli", self.cpu_milli, AMOUNT_MAX)?;
        at_most("memory_mib", self.memory_mib, AMOUNT_MAX)?;
        at_most("disk_mib", self.disk_mib, DISK_MIB_MAX)?;
        at_most("vram_mib", self.vram_mib, VRAM_MIB_MAX)?;
        at_most("price_micro_usd", self.price_micro_usd, PRICE_MICRO_USD_MAX)?;
        at_most("bandwidth_mbps", self.bandwidth_mbps, BANDWIDTH_MBPS_MAX)?;
        let place = if self.site.is_empty() {
            None
        } else {
            for (field, text) in
                [("region", &self.region), ("zone", &self.zone), ("rack", &self.rack)]
            {
                name(field, text)?;
            }
            let (region, zone) = (self.region, self.zone);
            Some(TracePlace { region, zone, site: self.site, rack: self.rack })
        };
        if let Some(spec) = &self.spec {
            validate::node(spec).map_err(|rejection| Fault::spec(&rejection))?;
        }
        Ok(TraceNode {
            name: self.node,
            cpu_milli: self.cpu_milli,
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            gpus: self.gpus,
            model: self.model,
            vram_mib: self.vram_mib,
            place,
            price_micro_usd: self.price_micro_usd,
            bandwidth_mbps: self.bandwidth_mbps,
            class: self.class,
            spec: self.spec.map(Arc::new),
        })
    }
}

impl JobLine {
    pub(super) fn of(job: &TraceJob) -> Self {
        let job = job.clone();
        Self {
            at_ms: job.submit.map(|at| at.0),
            job: job.name,
            tenant: job.tenant,
            replicas: job.replicas,
            gpus: job.shape.gpus,
            gpu_milli: if job.shape.gpus == 0 { MILLI_MAX } else { job.shape.gpu_milli },
            cpu_milli: job.shape.cpu_milli,
            memory_mib: job.shape.memory_mib,
            models: job.shape.models,
            duration_ms: job.duration.map(|duration| duration.0),
            spec: job.spec.map(Arc::unwrap_or_clone),
        }
    }

    pub(super) fn into_job(self) -> Result<TraceJob, Fault> {
        name("job", &self.job)?;
        if !self.tenant.is_empty() {
            name("tenant", &self.tenant)?;
        }
        if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            return Err(Fault::of(
                "replicas",
                self.replicas,
                format!("is not 1 to {REPLICAS_MAX}"),
            ));
        }
        at_most("gpus", self.gpus, GPUS_MAX)?;
        let milli = if self.gpus == 1 { 1..=MILLI_MAX } else { MILLI_MAX..=MILLI_MAX };
        if !milli.contains(&self.gpu_milli) {
            let what = format!("is not {} to {MILLI_MAX}, as the job needs", milli.start());
            return Err(Fault::of("gpu_milli", self.gpu_milli, what));
        }
        at_most("cpu_milli", self.cpu_milli, AMOUNT_MAX)?;
        at_most("memory_mib", self.memory_mib, AMOUNT_MAX)?;
        let mut models = self.models;
        for model in &models {
            name("models", model)?;
        }
        models.sort();
        models.dedup();
        if let Some(spec) = &self.spec {
            validate::job(spec).map_err(|rejection| Fault::spec(&rejection))?;
        }
        // A duration has the bounds of a time.
        let duration = self
            .duration_ms
            .map(|ms| time(ms).map_err(|fault| Fault { field: Some("duration_ms"), ..fault }));
        Ok(TraceJob {
            name: self.job,
            tenant: self.tenant,
            replicas: self.replicas,
            shape: TraceShape {
                cpu_milli: self.cpu_milli,
                memory_mib: self.memory_mib,
                gpus: self.gpus,
                gpu_milli: if self.gpus == 0 { 0 } else { self.gpu_milli },
                models,
            },
            submit: self.at_ms.map(time).transpose()?,
            duration: duration.transpose()?.map(|ms| DurationMs(ms.0.max(1))),
            spec: self.spec.map(Arc::new),
        })
    }
}
