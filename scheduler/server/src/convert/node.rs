//! Nodes, sites and capacity, between proto and core.
//!
//! **Invariant:** what an agent declares is either taken whole or refused with the path of the
//! first bad field; nothing is left out, cut or guessed.

use crate::status::{self, bad_field};
use proto::v1;
use scheduler_core::command::{Rejection, SiteRtt};
use scheduler_core::id::{ModelId, Name, SiteId};
use scheduler_core::node::{
    Custom, Eligibility, GpuSpec, LABEL_BYTES_MAX, LABELS_MAX, Node, NodeSpec, NodeStatus, Place,
    Resources, TAINTS_MAX, Taint, TaintEffect, Vendor,
};
use scheduler_core::state::State;
use scheduler_core::topology::{Measured, Sites};
use scheduler_core::unit::{
    BandwidthMbps, ComputeCapability, CpuMilli, DiskMib, GPU_MILLI_WHOLE, GPUS_PER_NODE_MAX,
    GpuSet, MemoryMib, PriceMicroUsd, RttUs, VramMib,
};
use scheduler_core::validate;
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::Status;

/// Most replicas listed with one node; as the proto says.
const REPLICAS_LISTED_MAX: usize = 1_000;
/// Most regions listed with one model; as the proto says.
const REGIONS_LISTED_MAX: usize = 64;
/// Most pairs of sites in one call; as the proto says.
const RTTS_MAX: usize = 16_384;
/// Longest round trip that people may set; as the proto says.
const RTT_US_MAX: u32 = 10_000_000;

/// A name; `field` is its path.
pub fn name(field: &str, text: &str) -> Result<Name, Status> {
    Name::parse(text).map_err(|error| bad_field(field, &error.to_string()))
}

fn count(field: &str, len: usize, max: usize) -> Result<(), Status> {
    if len <= max {
        return Ok(());
    }
    Err(bad_field(field, &format!("has {len} entries; at most {max} are allowed")))
}

/// What an agent declares of its machine.
pub fn spec(spec: &v1::NodeSpec) -> Result<NodeSpec, Status> {
    // Counts before anything is copied: a hostile message must not cost more than its bytes.
    count("spec.labels", spec.labels.len(), LABELS_MAX)?;
    count("spec.taints", spec.taints.len(), TAINTS_MAX)?;
    count("spec.gpus", spec.gpus.len(), GPUS_PER_NODE_MAX)?;
    let place = spec.place.as_ref().ok_or_else(|| bad_field("spec.place", "is missing"))?;
    let long = |(key, value): (&String, &String)| key.len().max(value.len()) > LABEL_BYTES_MAX;
    if spec.labels.iter().any(long) {
        let problem = format!("has a key or value longer than {LABEL_BYTES_MAX} bytes");
        return Err(bad_field("spec.labels", &problem));
    }
    let converted = NodeSpec {
        name: name("spec.name", &spec.name)?,
        labels: spec
            .labels
            .iter()
            .map(|(k, v)| (Arc::from(k.as_str()), Arc::from(v.as_str())))
            .collect(),
        taints: spec.taints.iter().enumerate().map(taint).collect::<Result<_, _>>()?,
        gpus: spec.gpus.iter().enumerate().map(gpu).collect::<Result<_, _>>()?,
        resources: Resources {
            cpu: CpuMilli(spec.cpu_milli),
            memory: MemoryMib(spec.memory_mib),
            disk: DiskMib(spec.disk_mib),
        },
        custom: super::job::custom("spec.custom", spec.custom.clone()).map_err(refused)?,
        place: Place {
            region: name("spec.place.region", &place.region)?,
            zone: name("spec.place.zone", &place.zone)?,
            site: name("spec.place.site", &place.site)?,
            rack: name("spec.place.rack", &place.rack)?,
        },
        bandwidth_up: BandwidthMbps(spec.bandwidth_up_mbps),
        bandwidth_down: BandwidthMbps(spec.bandwidth_down_mbps),
        price: PriceMicroUsd(spec.price_micro_usd),
        address: Arc::from(spec.address.as_str()),
    };
    validate::node(&converted).map_err(refused)?;
    Ok(converted)
}

/// The core groups CPU, memory and disk; callers do not.
fn refused(rejection: Rejection) -> Status {
    match rejection {
        Rejection::Invalid { field, problem } => {
            bad_field(&field.replace("spec.resources.", "spec."), &problem)
        }
        other => status::rejected(&other),
    }
}

fn taint((at, taint): (usize, &v1::Taint)) -> Result<Taint, Status> {
    let effect = match v1::TaintEffect::try_from(taint.effect) {
        Ok(v1::TaintEffect::NoSchedule) => TaintEffect::NoSchedule,
        Ok(v1::TaintEffect::PreferNoSchedule) => TaintEffect::PreferNoSchedule,
        Ok(v1::TaintEffect::Unspecified) | Err(_) => {
            let problem = format!("is {}, which is no effect of a taint", taint.effect);
            return Err(bad_field(&format!("spec.taints[{at}].effect"), &problem));
        }
    };
    Ok(Taint { key: taint.key.as_str().into(), value: taint.value.as_str().into(), effect })
}

fn gpu((at, gpu): (usize, &v1::Gpu)) -> Result<GpuSpec, Status> {
    let link_domain = u8::try_from(gpu.link_domain).map_err(|_| {
        let problem = format!("is {}; 0 to 63 are allowed", gpu.link_domain);
        bad_field(&format!("spec.gpus[{at}].link_domain"), &problem)
    })?;
    let model = name(&format!("spec.gpus[{at}].model"), &gpu.model)?;
    let vendor = super::job::vendor(gpu.vendor).map_err(|value| {
        let problem = format!("is {value}, which is no known value");
        bad_field(&format!("spec.gpus[{at}].vendor"), &problem)
    })?;
    let able = u16::try_from(gpu.compute_capability).map_err(|_| {
        let max = validate::COMPUTE_CAPABILITY_MAX;
        let problem = format!("is {}; 0 to {max} are allowed", gpu.compute_capability);
        bad_field(&format!("spec.gpus[{at}].compute_capability"), &problem)
    })?;
    let compute_capability = ComputeCapability(able);
    Ok(GpuSpec { model, vram: VramMib(gpu.vram_mib), link_domain, vendor, compute_capability })
}

/// Round trips between sites, as people set them.
pub fn site_rtts(rtts: &[v1::SiteRtt]) -> Result<Vec<SiteRtt>, Status> {
    count("rtts", rtts.len(), RTTS_MAX)?;
    let convert = |(at, rtt): (usize, &v1::SiteRtt)| {
        if !(1..=RTT_US_MAX).contains(&rtt.rtt_us) {
            let problem = format!("is {}; 1 to {RTT_US_MAX} are allowed", rtt.rtt_us);
            return Err(bad_field(&format!("rtts[{at}].rtt_us"), &problem));
        }
        let high = if rtt.rtt_us_high == 0 { rtt.rtt_us } else { rtt.rtt_us_high };
        if !(rtt.rtt_us..=RTT_US_MAX).contains(&high) {
            let problem = format!("is {high}; {} to {RTT_US_MAX} are allowed", rtt.rtt_us);
            return Err(bad_field(&format!("rtts[{at}].rtt_us_high"), &problem));
        }
        if rtt.samples != 0 {
            let problem = format!("is {}; only agents measure, so 0 is allowed", rtt.samples);
            return Err(bad_field(&format!("rtts[{at}].samples"), &problem));
        }
        let a = name(&format!("rtts[{at}].site_a"), &rtt.site_a)?;
        let b = name(&format!("rtts[{at}].site_b"), &rtt.site_b)?;
        Ok(SiteRtt { rtt_high: RttUs(high), ..SiteRtt::told(a, b, RttUs(rtt.rtt_us)) })
    };
    rtts.iter().enumerate().map(convert).collect()
}

/// The round trip of a pair as callers see it; `None` = no such pair.
pub fn shown_rtt(sites: &Sites, (a, b): (SiteId, SiteId), told: Measured) -> Option<v1::SiteRtt> {
    Some(v1::SiteRtt {
        site_a: sites.site(a)?.name.to_string(),
        site_b: sites.site(b)?.name.to_string(),
        rtt_us: told.median.0,
        rtt_us_high: told.high.0,
        samples: told.samples,
    })
}

/// Status to filter a list by; `None` = all.
pub fn status_filter(value: i32) -> Result<Option<NodeStatus>, Status> {
    match v1::NodeStatus::try_from(value) {
        Ok(v1::NodeStatus::Unspecified) => Ok(None),
        Ok(v1::NodeStatus::Up) => Ok(Some(NodeStatus::Up)),
        Ok(v1::NodeStatus::Down) => Ok(Some(NodeStatus::Down)),
        Err(_) => Err(bad_field("status", &format!("is {value}, which is no status of a node"))),
    }
}

/// A node as callers see it; `replicas` = list what runs on it too.
pub fn node(state: &State, node: &Node, replicas: bool) -> v1::Node {
    let usage = state.usage(node.id);
    let used = usage.map(|usage| usage.used).unwrap_or_default();
    let work = replicas.then(|| state.node_work(node.id).take(REPLICAS_LISTED_MAX));
    v1::Node {
        id: node.id.0,
        supplier: node.supplier.to_string(),
        spec: Some(declared(state, node)),
        status: match node.status {
            NodeStatus::Up => v1::NodeStatus::Up,
            NodeStatus::Down => v1::NodeStatus::Down,
        }
        .into(),
        eligibility: match node.eligibility {
            Eligibility::Eligible => v1::Eligibility::Eligible,
            Eligibility::Cordoned => v1::Eligibility::Cordoned,
            Eligibility::Draining => v1::Eligibility::Draining,
        }
        .into(),
        epoch: node.epoch.0,
        gpu_milli_used: gpu_milli_used(state, node),
        cpu_milli_used: used.cpu.0,
        memory_mib_used: used.memory.0,
        disk_mib_used: used.disk.0,
        replicas: work
            .into_iter()
            .flatten()
            .map(|(job, rank)| v1::ReplicaRef { job_id: job.0, rank: rank.0 })
            .collect(),
        registered_time_ms: node.registered_at.0,
        changed_time_ms: node.changed_at.0,
        custom_used: usage.map(|usage| shown_custom(&usage.custom)).unwrap_or_default(),
    }
}

fn declared(state: &State, node: &Node) -> v1::NodeSpec {
    let model = |id: ModelId| state.models().name(id).map(Name::to_string).unwrap_or_default();
    v1::NodeSpec {
        name: node.name.to_string(),
        labels: node.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        taints: node.taints.iter().map(shown_taint).collect(),
        gpus: node
            .gpus
            .iter()
            .map(|gpu| v1::Gpu {
                model: model(gpu.model),
                vram_mib: gpu.vram.0,
                link_domain: gpu.link_domain.into(),
                vendor: shown_vendor(gpu.vendor).into(),
                compute_capability: gpu.compute_capability.0.into(),
            })
            .collect(),
        cpu_milli: node.resources.cpu.0,
        memory_mib: node.resources.memory.0,
        disk_mib: node.resources.disk.0,
        place: Some(v1::Place {
            region: node.place.region.to_string(),
            zone: node.place.zone.to_string(),
            site: node.place.site.to_string(),
            rack: node.place.rack.to_string(),
        }),
        bandwidth_up_mbps: node.bandwidth_up.0,
        bandwidth_down_mbps: node.bandwidth_down.0,
        price_micro_usd: node.price.0,
        address: node.address.to_string(),
        custom: shown_custom(&node.custom),
    }
}

/// Countable resources as callers see them.
pub fn shown_custom(custom: &Custom) -> BTreeMap<String, u64> {
    custom.iter().map(|(name, amount)| (name.to_string(), amount)).collect()
}

/// A vendor as callers see it.
pub fn shown_vendor(vendor: Option<Vendor>) -> v1::GpuVendor {
    match vendor {
        None => v1::GpuVendor::Unspecified,
        Some(Vendor::Nvidia) => v1::GpuVendor::Nvidia,
        Some(Vendor::Amd) => v1::GpuVendor::Amd,
        Some(Vendor::Intel) => v1::GpuVendor::Intel,
        Some(Vendor::Google) => v1::GpuVendor::Google,
        Some(Vendor::Aws) => v1::GpuVendor::Aws,
        Some(Vendor::Huawei) => v1::GpuVendor::Huawei,
        Some(Vendor::Tenstorrent) => v1::GpuVendor::Tenstorrent,
    }
}

/// A taint.
pub(super) fn shown_taint(taint: &Taint) -> v1::Taint {
    let effect = match taint.effect {
        TaintEffect::NoSchedule => v1::TaintEffect::NoSchedule,
        TaintEffect::PreferNoSchedule => v1::TaintEffect::PreferNoSchedule,
    };
    v1::Taint { key: taint.key.to_string(), value: taint.value.to_string(), effect: effect.into() }
}

/// Thousandths of the node's GPU with this index that live replicas hold.
fn gpu_milli_of(state: &State, node: &Node, index: u8) -> u64 {
    let Some(usage) = state.usage(node.id) else { return 0 };
    match usage.share_milli(index) {
        0 if usage.gpus_busy.contains(index) => GPU_MILLI_WHOLE.into(),
        share => share.into(),
    }
}

fn gpu_milli_used(state: &State, node: &Node) -> u64 {
    (0u8..).zip(&node.gpus).map(|(index, _)| gpu_milli_of(state, node, index)).sum()
}

/// Sums up the GPUs of many nodes by model.
#[derive(Default)]
pub struct Capacity {
    models: BTreeMap<ModelId, ModelSum>,
    nodes: u32,
    nodes_up: u32,
}

#[derive(Default)]
struct ModelSum {
    row: v1::ModelCapacity,
    regions: std::collections::BTreeSet<Name>,
}

impl Capacity {
    /// Counts one node.
    pub fn add(&mut self, state: &State, node: &Node) {
        self.nodes += 1;
        self.nodes_up += u32::from(node.status == NodeStatus::Up);
        let free = match state.usage(node.id) {
            Some(usage) if node.is_schedulable() => usage.gpus_free(node),
            _ if node.is_schedulable() => GpuSet::first(node.gpus.len()),
            _ => GpuSet::EMPTY,
        };
        let mut counted: Vec<ModelId> = Vec::new();
        for (index, gpu) in (0u8..).zip(&node.gpus) {
            let sum = self.models.entry(gpu.model).or_default();
            let row = &mut sum.row;
            let first = row.gpus == 0;
            let price = node.price.0;
            row.vram_mib = if first { gpu.vram.0 } else { row.vram_mib.min(gpu.vram.0) };
            row.price_micro_usd_min =
                if first { price } else { row.price_micro_usd_min.min(price) };
            row.price_micro_usd_max = row.price_micro_usd_max.max(price);
            row.gpus += 1;
            row.gpus_free += u64::from(free.contains(index));
            row.gpus_unavailable += u64::from(!node.is_schedulable());
            row.gpu_milli_used += gpu_milli_of(state, node, index);
            if !counted.contains(&gpu.model) {
                counted.push(gpu.model);
                row.nodes += 1;
                if sum.regions.len() < REGIONS_LISTED_MAX
                    && !sum.regions.contains(&node.place.region)
                {
                    sum.regions.insert(node.place.region.clone());
                }
            }
        }
    }

    /// The answer, by name of model.
    pub fn answer(self, state: &State) -> v1::GetCapacityResponse {
        let mut models: Vec<v1::ModelCapacity> = self
            .models
            .into_iter()
            .map(|(id, sum)| v1::ModelCapacity {
                model: state.models().name(id).map(Name::to_string).unwrap_or_default(),
                regions: sum.regions.iter().map(Name::to_string).collect(),
                ..sum.row
            })
            .collect();
        models.sort_by(|a, b| a.model.cmp(&b.model));
        v1::GetCapacityResponse { models, nodes: self.nodes, nodes_up: self.nodes_up }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> v1::NodeSpec {
        let text = str::to_owned;
        v1::NodeSpec {
            name: text("n1"),
            labels: [(text("tier"), text("gold"))].into(),
            taints: vec![v1::Taint {
                key: text("spot"),
                value: String::new(),
                effect: v1::TaintEffect::NoSchedule.into(),
            }],
            gpus: vec![v1::Gpu {
                model: text("H100-SXM"),
                vram_mib: 81_559,
                vendor: v1::GpuVendor::Nvidia.into(),
                compute_capability: 900,
                ..v1::Gpu::default()
            }],
            custom: [(text("licence"), 4)].into(),
            cpu_milli: 96_000,
            memory_mib: 1 << 20,
            disk_mib: 1 << 20,
            place: Some(v1::Place {
                region: text("eu"),
                zone: text("eu-a"),
                site: text("eu-a-1"),
                rack: text("r1"),
            }),
            bandwidth_up_mbps: 10_000,
            bandwidth_down_mbps: 10_000,
            price_micro_usd: 2_000_000,
            address: text("n1.example:7000"),
        }
    }

    fn place(spec: &mut v1::NodeSpec) -> &mut v1::Place {
        spec.place.as_mut().expect("has one")
    }

    #[test]
    fn a_good_spec_is_taken_whole() {
        let core = spec(&good()).expect("good");
        assert_eq!(core.name.as_str(), "n1");
        assert_eq!(core.gpus[0].vram, VramMib(81_559));
        assert_eq!(core.labels.get("tier").map(AsRef::as_ref), Some("gold"));
        assert_eq!(core.taints[0].effect, TaintEffect::NoSchedule);
    }

    #[test]
    fn every_bad_field_is_refused_by_its_path() {
        let huge = "x".repeat(1 << 20);
        type Change = Box<dyn Fn(&mut v1::NodeSpec)>;
        let cases: Vec<(&str, Change)> = vec![
            ("spec.name", Box::new(|s| s.name.clear())),
            ("spec.name", Box::new(move |s| s.name.clone_from(&huge))),
            ("spec.name", Box::new(|s| "../n1".clone_into(&mut s.name))),
            ("spec.name", Box::new(|s| "n\u{7}1".clone_into(&mut s.name))),
            ("spec.place", Box::new(|s| s.place = None)),
            ("spec.place.region", Box::new(|s| place(s).region.clear())),
            ("spec.place.zone", Box::new(|s| place(s).zone.clear())),
            ("spec.place.site", Box::new(|s| place(s).site.clear())),
            ("spec.place.rack", Box::new(|s| place(s).rack.clear())),
            ("spec.gpus", Box::new(|s| s.gpus = vec![s.gpus[0].clone(); 65])),
            ("spec.gpus[0].model", Box::new(|s| s.gpus[0].model.clear())),
            ("spec.gpus[0].vram_mib", Box::new(|s| s.gpus[0].vram_mib = 0)),
            ("spec.gpus[0].vram_mib", Box::new(|s| s.gpus[0].vram_mib = u32::MAX)),
            ("spec.gpus[0].link_domain", Box::new(|s| s.gpus[0].link_domain = 64)),
            ("spec.gpus[0].link_domain", Box::new(|s| s.gpus[0].link_domain = u32::MAX)),
            ("spec.gpus[0].vendor", Box::new(|s| s.gpus[0].vendor = 99)),
            (
                "spec.gpus[0].compute_capability",
                Box::new(|s| s.gpus[0].compute_capability = 10_000),
            ),
            (
                "spec.gpus[0].compute_capability",
                Box::new(|s| s.gpus[0].compute_capability = u32::MAX),
            ),
            (
                "spec.custom",
                Box::new(|s| s.custom = (0..10_000).map(|at| (format!("c{at}"), 1)).collect()),
            ),
            (
                "spec.custom[1].name",
                Box::new(|s| {
                    s.custom.insert("not a name".to_owned(), 1);
                }),
            ),
            (
                "spec.custom[licence]",
                Box::new(|s| {
                    s.custom.insert("licence".to_owned(), u64::MAX);
                }),
            ),
            ("spec.taints[0].effect", Box::new(|s| s.taints[0].effect = 0)),
            ("spec.taints[0].effect", Box::new(|s| s.taints[0].effect = 9)),
            ("spec.taints[0].key", Box::new(|s| s.taints[0].key.clear())),
            ("spec.cpu_milli", Box::new(|s| s.cpu_milli = u64::MAX)),
            ("spec.memory_mib", Box::new(|s| s.memory_mib = u64::MAX)),
            ("spec.disk_mib", Box::new(|s| s.disk_mib = u64::MAX)),
            ("spec.bandwidth_up_mbps", Box::new(|s| s.bandwidth_up_mbps = u32::MAX)),
            ("spec.bandwidth_down_mbps", Box::new(|s| s.bandwidth_down_mbps = u32::MAX)),
            ("spec.price_micro_usd", Box::new(|s| s.price_micro_usd = u64::MAX)),
            ("spec.address", Box::new(|s| s.address = "a".repeat(1_000))),
            (
                "spec.labels",
                Box::new(|s| {
                    s.labels = (0..100_000).map(|at| (format!("k{at}"), String::new())).collect();
                }),
            ),
            (
                "spec.labels",
                Box::new(|s| {
                    s.labels.insert("k".to_owned(), "v".repeat(318));
                }),
            ),
        ];
        for (path, spoil) in cases {
            let mut bad = good();
            spoil(&mut bad);
            let refusal = spec(&bad).expect_err(path);
            assert_eq!(refusal.code(), tonic::Code::InvalidArgument, "{path}");
            assert!(refusal.message().starts_with(path), "{path}: {refusal}");
        }
    }

    #[test]
    fn round_trips_are_bounded() {
        let rtt = |site_a: &str, rtt_us| {
            let (site_a, site_b) = (site_a.to_owned(), "b".to_owned());
            v1::SiteRtt { site_a, site_b, rtt_us, rtt_us_high: 0, samples: 0 }
        };
        assert_eq!(site_rtts(&[rtt("a", 7)]).expect("good")[0].rtt, RttUs(7));
        for (path, bad) in [
            ("rtts[1].rtt_us", rtt("a", 0)),
            ("rtts[1].rtt_us", rtt("a", u32::MAX)),
            ("rtts[1].rtt_us_high", v1::SiteRtt { rtt_us_high: 6, ..rtt("a", 7) }),
            ("rtts[1].rtt_us_high", v1::SiteRtt { rtt_us_high: u32::MAX, ..rtt("a", 7) }),
            ("rtts[1].site_a", rtt("..", 7)),
            ("rtts[1].samples", v1::SiteRtt { samples: 1, ..rtt("a", 7) }),
        ] {
            let refusal = site_rtts(&[rtt("a", 7), bad]).expect_err(path);
            assert!(refusal.message().starts_with(path), "{refusal}");
        }
        assert!(site_rtts(&vec![rtt("a", 7); RTTS_MAX + 1]).is_err());
    }
}
